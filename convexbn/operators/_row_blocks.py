"""The design matrix of data that stays on disk: an affine map of its rows, a block of them at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from convexbn.operators._protocol import Operator

_SMALLER = 8  # times smaller than those of arrays in memory are the blocks


@dataclass(frozen=True, eq=False, repr=False)
class RowBlocks(Operator):
    """Z with the rows ``p_i ((x_i - mean) slopes + offsets)`` of data x_i that is read in every product, never copied.

    A product Z S reads a block of rows at a time and multiplies it by ``slopes S``, so Z is not made. Memory is that of
    a block, beside the arguments and results.

    Parameters
    ----------
    data : ndarray of shape (n, d)
        Data, such as a memory map; finite numbers in double precision.
    mean : ndarray of shape (d,)
        What is subtracted from every row.
    slopes : ndarray of shape (d, k)
        What the centred rows are multiplied by.
    offsets : ndarray of shape (k,)
        The affine map.
    chosen : ndarray of int, shape (N,), or None, default=None
        Rows of the data that are those of Z; all if None.
    weights : ndarray of shape (N, 1) or None, default=None
        Numbers p_i that rows are multiplied by; ones if None.
    dtype : type, default=float64
        Precision of products; blocks are in double precision in any case.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.operators import RowBlocks
    >>> X = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> Z = RowBlocks(X, X.mean(axis=0), np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([0.0, 1.0]))
    >>> Z.rows()
    array([[-1.,  1.],
           [ 1.,  1.]])
    """

    data: np.ndarray
    mean: np.ndarray
    slopes: np.ndarray
    offsets: np.ndarray
    chosen: np.ndarray | None = None
    weights: np.ndarray | None = None
    dtype: Any = np.float64
    n_patches = 1

    @property
    def n_rows(self) -> int:
        """Rows of Z, as many as there are of the data or were chosen."""
        return len(self.data if self.chosen is None else self.chosen)

    @property
    def n_columns(self) -> int:
        """Columns k of Z, the dimension of a neuron."""
        return int(self.slopes.shape[1])

    def __matmul__(self, S: np.ndarray) -> np.ndarray:
        slopes, offsets = self.slopes @ S, self.offsets @ S
        product = np.empty((self.n_rows, S.shape[1]), dtype=self.dtype)
        for block, deviations, weights in self._read():
            product[block] = weights * (deviations @ slopes + offsets)
        return product

    def adjoint(self, A: np.ndarray) -> np.ndarray:
        """Z^T A (k, m) of an array A (N, m)."""
        of_data, sums = np.zeros((len(self.mean), A.shape[1])), np.zeros(A.shape[1])
        for block, deviations, weights in self._read():
            weighted = weights * A[block]
            of_data += deviations.T @ weighted
            sums += weighted.sum(axis=0)
        return (self.slopes.T @ of_data + np.outer(self.offsets, sums)).astype(self.dtype, copy=False)

    def rows(self, chosen: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Rows of Z as an array, all of them if none are chosen: the shape of `chosen`, and k."""
        rows = (self._data(chosen) - self.mean) @ self.slopes + self.offsets
        return (rows if self.weights is None else rows * self.weights[chosen]).astype(self.dtype, copy=False)

    def of_samples(self, samples: slice | np.ndarray) -> Self:
        """Return the matrix of some samples, given by their indices."""
        weights = None if self.weights is None else self.weights[samples]
        if isinstance(samples, slice) and self.chosen is None:
            return replace(self, data=self.data[samples], weights=weights)
        return replace(self, chosen=self._indices[samples], weights=weights)

    @property
    def unpooled(self) -> Self:
        """The matrix itself: each row is a sample."""
        return self

    def __truediv__(self, size: float) -> Self:
        return replace(self, slopes=self.slopes / size, offsets=self.offsets / size)

    def times(self, basis: np.ndarray) -> Self:
        """Return the matrix Z B for a basis B (k, r)."""
        return replace(self, slopes=self.slopes @ basis, offsets=self.offsets @ basis)

    def weighted(self, weights: np.ndarray) -> Self:
        """Return the matrix with its rows times weights (N, 1)."""
        return replace(self, weights=weights if self.weights is None else self.weights * weights)

    @cached_property
    def in_single_precision(self) -> Self:
        """The matrix with products in single precision."""
        return replace(self, dtype=np.float32)

    @cached_property
    def spectral_norm(self) -> float:
        """Largest singular value of Z, from its Gram matrix."""
        return self.weighted_norm(np.ones((self.n_rows, 1)))

    @property
    def _indices(self) -> np.ndarray:
        return np.arange(len(self.data)) if self.chosen is None else self.chosen

    def _data(self, rows: slice | np.ndarray) -> np.ndarray:
        return self.data[rows if self.chosen is None else self.chosen[rows]]

    def _read(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray | float]]:
        """Slices of the rows, the data minus its mean in them, and the weights."""
        for block in self._blocks(max(self.data.shape[1], self.n_columns)):
            yield block, self._data(block) - self.mean, 1.0 if self.weights is None else self.weights[block]

    def _blocks(self, entries: int) -> Iterator[slice]:
        return super()._blocks(_SMALLER * entries)

    def _parts(self, entries: int) -> Iterator[tuple[slice, Self]]:
        return super()._parts(_SMALLER * entries)
