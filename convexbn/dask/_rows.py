"""Data whose blocks of rows are on the workers of a dask cluster."""

from dataclasses import dataclass, field, replace
from functools import partial, reduce
from itertools import pairwise
from typing import Any, Self

import numpy as np

from convexbn._utils.dask_tasks import gathered, submit
from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._checks import check_features
from convexbn.designs._moments import Moments
from convexbn.designs._row_statistics import RowStatistics
from convexbn.designs._weight_norm import WeightNormDesign
from convexbn.operators import DaskMatrix, DesignMatrix, Operator
from convexbn.rows._block import check_data, float_type

_LEAST_ENTRIES = 2**18  # of a block of the design matrix, where it has several


@dataclass(frozen=True, eq=False)
class WorkerRows:
    """Blocks of rows as futures of arrays in single or double precision, with the statistics of all.

    Parameters
    ----------
    client : distributed.Client
        Client of the cluster.
    blocks : list of futures
        Futures of arrays (m, d), none of them empty.
    sizes : list of int
        Their numbers of rows.
    n_features : int
        Columns d.
    feature_names : list of str or None
        Names of the columns.
    weights : ndarray of shape (n,) or None, default=None
        Weights of the rows in the statistics.
    """

    client: Any
    blocks: list[Any]
    sizes: list[int]
    n_features: int
    feature_names: list[str] | None = None
    weights: np.ndarray | None = None
    _known: dict[type[Moments], RowStatistics] = field(default_factory=dict)

    @classmethod
    def of(cls, client: Any, X: Any) -> Self:
        """The rows of a dask array or dataframe, computed on the workers and kept there.

        Raises
        ------
        ValueError
            If X is no such collection, has unknown chunk sizes, or holds anything but finite real numbers.
        """
        from dask import delayed

        parts = [delayed(_as_rows, pure=False)(part, i) for i, part in enumerate(partitions(X))]
        blocks = client.compute(parts)  # on any worker: dask would wait for ever for one that is named and lost
        shapes = gathered(client, submit(client, [(np.shape, block) for block in blocks]))
        full = [i for i, shape in enumerate(shapes) if shape[0]]
        if not full:
            raise ValueError("X has no rows: all of its blocks are empty.")
        return cls(
            client,
            [blocks[i] for i in full],
            [shapes[i][0] for i in full],
            shapes[full[0]][1],
            feature_names(X),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return sum(self.sizes), self.n_features

    def weighted(self, weights: np.ndarray) -> tuple[Self, np.ndarray]:
        """Rows of positive weight, with their weights, and which rows these are."""
        present = weights > 0
        found = self if present.all() else self._chosen(present)
        return replace(found, weights=weights[present], _known={}), np.flatnonzero(present)

    def _chosen(self, chosen: np.ndarray) -> Self:
        parts = np.split(chosen, np.cumsum(self.sizes)[:-1])
        tasks = [(_chosen, block, part) for block, part in zip(self.blocks, parts, strict=True) if part.any()]
        return replace(self, blocks=submit(self.client, tasks), sizes=[int(part.sum()) for part in parts if part.any()])

    def learned(self, design: BatchNormDesign | WeightNormDesign) -> BatchNormDesign | WeightNormDesign:
        """The design, fitted on the statistics of all rows, which are merged from those of blocks on the workers."""
        kind = design.moments_kind
        if kind not in self._known:
            weights = np.ones(self.shape[0]) if self.weights is None else self.weights
            parts = np.split(weights, np.cumsum(self.sizes)[:-1])
            tasks = [(_statistics, block, part, kind) for block, part in zip(self.blocks, parts, strict=True)]
            self._known[kind] = gathered(self.client, submit(self.client, tasks, _merged))[0]
        check_features(design, replace(self, feature_names=None), reset=True)
        return design._learn(self._known[kind])

    def matrix(self, design: BatchNormDesign | WeightNormDesign) -> Operator:
        """The design matrix of the rows, in memory if it has few entries.

        Otherwise it is on the workers, in equal blocks, as many as they have threads.
        """
        (n, _), k = self.shape, design._n_features_out
        count = max(1, min(len(_threads(self.client)), n * k // _LEAST_ENTRIES))
        starts, ends = np.append(0, np.cumsum(self.sizes)), np.linspace(0, n, count + 1).astype(int)
        tasks = []
        for start, end in pairwise(ends.tolist()):
            first, last = np.searchsorted(starts, start, side="right") - 1, np.searchsorted(starts, end)
            rows = slice(start - starts[first], end - starts[first])
            tasks.append((partial(_matrix, design, rows), *self.blocks[first:last]))
        blocks = submit(self.client, tasks)
        Z: Operator = DaskMatrix(self.client, blocks, np.diff(ends).tolist(), k).of_samples(slice(None))
        return Z


def is_collection(X: Any) -> bool:
    """Whether X is a dask collection."""
    from dask import is_dask_collection

    return bool(is_dask_collection(X))


def is_array(X: Any) -> bool:
    """Whether a dask collection is an array, and no dataframe or series."""
    return hasattr(X, "chunks")


def feature_names(X: Any) -> list[str] | None:
    """Names of the columns of a dataframe, if all are strings."""
    names = list(getattr(X, "columns", []))
    return names if names and all(isinstance(name, str) for name in names) else None


def partitions(X: Any) -> list[Any]:
    """The blocks of rows of a dask array or dataframe, delayed.

    Raises
    ------
    ValueError
        If X is neither, or its chunk sizes are not known.
    """
    if not is_collection(X) or not hasattr(X, "to_delayed"):
        raise ValueError(
            f"X must be a dask array or dataframe, got {type(X).__name__}; give dask.array.from_array(X, "
            "chunks=(100_000, -1)), or take the estimator of the same name without Dask for data in memory."
        )
    if X.ndim != 2:
        raise ValueError(f"X must have shape (n, d), got {X.ndim} dimensions; give X.reshape((len(X), -1)).")
    if not is_array(X):
        return list(X.to_delayed())
    if np.isnan(X.chunks[0]).any():
        raise ValueError("X has unknown chunk sizes; call X.compute_chunk_sizes() first.")
    return list(X.rechunk({1: -1}).to_delayed().ravel())


def _threads(client: Any) -> list[str]:
    """The address of the worker of each thread of the cluster."""
    return [address for address, count in client.nthreads().items() for _ in range(count)]


def _as_rows(block: Any, number: int) -> np.ndarray:
    """A block as an array in single or double precision, which is finite."""
    name = f"block {number}"
    rows = np.asarray(block)
    rows = np.ascontiguousarray(rows, dtype=float_type(rows.dtype, name))
    check_data(rows, name)
    return rows


def _chosen(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return rows[chosen]


def _statistics(rows: np.ndarray, weights: np.ndarray, kind: type[Moments]) -> RowStatistics | None:
    return RowStatistics.of(rows, weights, kind=kind)


def _merged(*parts: RowStatistics) -> RowStatistics:
    return reduce(RowStatistics.merge, parts)


def _matrix(design: BatchNormDesign | WeightNormDesign, rows: slice, *blocks: np.ndarray) -> DesignMatrix:
    """The design matrix of some rows of blocks one after the other, made of a block at a time."""
    Z = np.empty((rows.stop - rows.start, design._n_features_out), dtype=blocks[0].dtype)
    start = -rows.start
    for block in blocks:
        part = slice(max(start, 0), min(start + len(block), len(Z)))
        Z[part] = design.matrix(block[part.start - start : part.stop - start]).rows()
        start += len(block)
    return DesignMatrix.unchecked(Z)
