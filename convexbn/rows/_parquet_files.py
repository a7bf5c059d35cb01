"""Parquet files as sources: columns of numbers, by name."""

from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from convexbn._utils.summary import counted
from convexbn.rows._arrays import BLOCK_BYTES
from convexbn.rows._block import Block, float_type
from convexbn.rows._files import reading
from convexbn.rows._source import RowSource


class ParquetRows(RowSource):
    """Samples in Parquet files with the same columns.

    Row groups are what can be read alone: as many that follow each other are a block as have a number of bytes, and
    at least one. Files without rows are skipped.

    Parameters
    ----------
    paths : sequence of Path
        Files, in their order.
    target, sample_weight : str or None, default=None
        Names of the columns with targets and weights; all others are features, in the order of the file.
    block_bytes : int, default=2**24
        Bytes of a block of X.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    ValueError
        With the name of the file, if one cannot be read, has other columns than the first, lacks the target or the
        weights, or a feature is not of real numbers or has missing values.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> from convexbn.rows import ParquetRows
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "part.parquet"
    ...     pd.DataFrame({"size": [1.0, 2.0], "price": [3.0, 4.0]}).to_parquet(path)
    ...     rows = ParquetRows([path], target="price")
    >>> rows.n_rows, rows.n_features
    (2, 1)
    """

    def __init__(
        self,
        paths: Sequence[Path],
        target: str | None = None,
        sample_weight: str | None = None,
        block_bytes: int = BLOCK_BYTES,
    ):
        parquet = _parquet()
        self._target, self._weight = target, sample_weight
        self._places: list[tuple[Path, list[int]]] = []
        sizes, names = [], None
        dtypes = set()
        for path in paths:
            with reading(path), parquet.ParquetFile(path) as file:
                schema = file.schema_arrow
                rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            features = self._features(path, schema.names)
            names = features if names is None else names
            if features != names:
                raise ValueError(f"{path} has the features {features}, and {paths[0]} has {names}; all must be alike.")
            types = {_float_type(schema.field(name), path) for name in features}
            dtypes |= types
            row_bytes = len(features) * max(dtype.itemsize for dtype in types)
            for groups in _runs(rows, block_bytes // row_bytes):
                self._places.append((path, groups))
                sizes.append(sum(rows[group] for group in groups))
        if not sizes or names is None:
            raise ValueError(f"{paths[0].parent} holds no rows in its {counted(len(paths), 'file')}.")
        super().__init__(sizes, len(names), reduce(np.promote_types, dtypes), names)

    def _features(self, path: Path, columns: list[str]) -> list[str]:
        for parameter, name in (("target", self._target), ("sample_weight", self._weight)):
            if name is not None and name not in columns:
                raise ValueError(f"{parameter}={name!r} is no column of {path}; it has {columns}.")
        features = [name for name in columns if name not in (self._target, self._weight)]
        if not features:
            raise ValueError(f"{path} has no columns but the target and the weights, so X would have no features.")
        if len(set(features)) < len(features):
            raise ValueError(f"{path} has columns of one name; rename them: {columns}.")
        return features

    def _read(self, i: int) -> Block:
        assert self.feature_names is not None
        columns = self._columns(i, self.feature_names)
        X = np.empty((len(columns[0]), self.n_features), dtype=self.dtype)
        for j, column in enumerate(columns):
            X[:, j] = column
        return Block(X, *self._read_targets(i))

    def _read_targets(self, i: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        names = [name for name in (self._target, self._weight) if name is not None]
        found = dict(zip(names, self._columns(i, names), strict=True))
        y, sample_weight = (None if name is None else found[name] for name in (self._target, self._weight))
        return y, sample_weight

    def _columns(self, i: int, names: Sequence[str]) -> list[np.ndarray]:
        """Columns of a block."""
        if not names:
            return []
        path, groups = self._places[i]
        with reading(path), _parquet().ParquetFile(path) as file:
            table = file.read_row_groups(groups, columns=list(names), use_threads=False)
        for name in names:
            if table[name].null_count:
                raise ValueError(
                    f"Column {name!r} of {self._name(i)} has {counted(table[name].null_count, 'missing value')}; "
                    "remove or impute them first."
                )
        columns = (table[name].to_numpy() for name in names)
        return [column.astype(str) if column.dtype == object else column for column in columns]

    def _name(self, i: int) -> str:
        path, groups = self._places[i]
        return f"{path}, row groups {groups[0]} to {groups[-1]}"


def _runs(rows: list[int], most: int) -> Iterator[list[int]]:
    """Row groups that follow each other and have at most so many rows together, or are one; without empty ones."""
    run: list[int] = []
    total = 0
    for group, count in enumerate(rows):
        if run and total + count > most:
            yield run
            run, total = [], 0
        if count:
            run, total = [*run, group], total + count
    if run:
        yield run


def _float_type(field: Any, path: Path) -> np.dtype:
    try:
        dtype = np.dtype(field.type.to_pandas_dtype())
    except (NotImplementedError, TypeError):  # categories, among others
        dtype = np.dtype(object)
    return float_type(dtype, f"{path}, column {field.name!r},")


def _parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("Parquet files need pyarrow: pip install 'convexbn[disk]'.") from error
    return parquet
