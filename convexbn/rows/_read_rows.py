"""From what holds samples to a source of rows."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse

from convexbn._utils.checks import check_count, real_array, refuse_unusual
from convexbn.rows._arrays import BLOCK_BYTES, ArrayRows
from convexbn.rows._iterated import IteratedRows
from convexbn.rows._numpy_files import NumpyRows
from convexbn.rows._parquet_files import ParquetRows
from convexbn.rows._source import RowSource


def read_rows(
    source: Any,
    *,
    target: str | ArrayLike | None = None,
    sample_weight: str | ArrayLike | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> RowSource:
    """Samples that are read a block of rows at a time, so that they need not fit in memory.

    Parameters
    ----------
    source : ndarray, data frame, path, callable or iterable
        What holds the samples:

        - an array, memory map or data frame of numbers X (n, d), with `target` (n,) or (n, C) and `sample_weight` (n,);
        - the path of a folder, or of one file in it: .npz files with arrays X, y and sample_weight, each read as a
          whole; .npy files X-1.npy, y-1.npy, sample_weight-1.npy and so on, which are memory maps; or Parquet files
          (extra ``disk``), whose `target` and `sample_weight` are names of columns and whose others are features.
          Files are in the order of their names, others are ignored;
        - a callable that returns a new iterator of blocks (X, y) or (X, y, sample_weight) each time, the same ones, or
          an iterable of them that is no iterator, such as a list. Blocks of X alone have no targets.
    target : str, array-like or None, default=None
        Targets of an array, or the name of their column.
    sample_weight : str, array-like or None, default=None
        Weights of an array, or the name of their column.
    block_bytes : int, default=2**24
        Bytes of X that are read at once, where the source leaves a choice.

    Returns
    -------
    rows : RowSource
        Data in single precision where all of it is, else in double precision.

    Raises
    ------
    ValueError
        With the name of the file or block, if it cannot be read, or blocks differ in width or in whether they have
        targets and weights, or there are no rows. NaN and infinity are refused when a block is first read.
    ImportError
        If pyarrow is not installed, for Parquet files.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from convexbn import BatchNormDesign, read_rows
    >>> rng = np.random.default_rng(0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in range(3):
    ...         X = rng.standard_normal((100, 4)).astype(np.float32)
    ...         np.savez(Path(folder, f"part-{part}.npz"), X=X, y=np.abs(X[:, 0]))
    ...     rows = read_rows(folder)
    ...     design = BatchNormDesign().fit(rows)
    ...     Z = design.matrix(rows)
    ...     products = Z.adjoint(Z @ np.eye(5)) / 300
    >>> rows, Z, np.allclose(products, np.eye(5))
    (NumpyRows(300 rows in 3 blocks, 4 features), RowBlocks(300 samples, 5 columns), True)
    """
    check_count("block_bytes", block_bytes)
    refuse_unusual("source", source)
    is_frame = hasattr(source, "columns") and hasattr(source, "to_numpy")
    if is_frame or (isinstance(source, np.ndarray) and source.dtype == object):
        source = real_array("source", source)
    if isinstance(source, np.ndarray):
        arrays = (_array("target", target), _array("sample_weight", sample_weight))
        return ArrayRows(source, *arrays, block_bytes=block_bytes)
    if isinstance(source, (str, Path)):
        return _files(Path(source), target, sample_weight, block_bytes)
    known = isinstance(source, (RowSource, Iterator, Iterable)) or callable(source)
    if issparse(source) or hasattr(source, "columns") or not known:
        raise ValueError(
            f"source is a {type(source).__name__}; give an array, the path of a folder, a callable that returns an "
            "iterator of blocks (X, y), or a list of them."
        )
    for name, values in (("target", target), ("sample_weight", sample_weight)):
        if values is not None:
            raise ValueError(f"{name} is for arrays and Parquet files; {type(source).__name__} has its own, as source.")
    if isinstance(source, RowSource):
        return source
    if isinstance(source, Iterator):
        raise ValueError(
            "source is an iterator, which can be read once, and training reads the rows many times; give the function "
            "that makes it, as in read_rows(lambda: blocks(...))."
        )
    make: Callable[[], Iterator[Any]] = source if callable(source) else lambda: iter(source)
    return IteratedRows(make)


def _array(name: str, values: str | ArrayLike | None) -> np.ndarray | None:
    if isinstance(values, str):
        raise ValueError(f"{name}={values!r} names a column of Parquet files; give an array, as source is one.")
    refuse_unusual(name, values)
    array = np.asarray(values)
    if values is None:
        return None
    array = np.asarray(array.tolist()) if array.dtype == object else array
    if array.dtype.kind not in ("biufUS" if name == "target" else "biuf"):
        raise ValueError(f"{name} holds {array.dtype}, and must hold numbers.")
    return array


def _files(path: Path, target: Any, sample_weight: Any, block_bytes: int) -> RowSource:
    if not path.exists():
        raise ValueError(f"source={str(path)!r} does not exist; give the path of a folder or file.")
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    kinds = {
        ".npz": [file for file in files if file.suffix == ".npz"],
        ".npy": [file for file in files if file.suffix == ".npy" and file.name.startswith("X")],
        ".parquet": [file for file in files if file.suffix == ".parquet"],
    }
    found = [kind for kind, of_kind in kinds.items() if of_kind]
    if len(found) != 1:
        what = f"files of the kinds {found}" if found else "no .npz, X*.npy or .parquet file"
        raise ValueError(f"{path} has {what}; give a folder with files of one kind.")
    paths = kinds[found[0]]
    for name, value in (("target", target), ("sample_weight", sample_weight)):
        if value is not None and (found != [".parquet"] or not isinstance(value, str)):
            fix = "give its name" if found == [".parquet"] else f"save it beside X, as the {found[0]} files of {path}"
            raise ValueError(f"{name} must be a column of Parquet files; {fix}.")
    if found == [".parquet"]:
        return ParquetRows(paths, target, sample_weight, block_bytes)
    return NumpyRows(paths, block_bytes)
