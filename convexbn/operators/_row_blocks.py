"""The design matrix of data that is read in blocks: an affine map of its rows, a block of them at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, Self

import numpy as np
from scipy.sparse import csr_array

from convexbn._utils.chosen import as_indices
from convexbn._utils.threads import in_order
from convexbn.operators._dense import DesignMatrix
from convexbn.operators._protocol import Held, Operator
from convexbn.operators._slices import slices
from convexbn.rows import ArrayRows, RowSource

_IN_MEMORY = 2**24  # entries of a part, up to which it is read into memory
_FEW = 16  # numbers of a sample that are kept in memory
_LARGE = 1e30  # entries that products in single precision are not made of
_SMALLER = 8  # times smaller than those of arrays in memory are the blocks


@dataclass(frozen=True, eq=False, repr=False)
class RowBlocks(Operator):
    """Z with the rows ``p_i ((x_i - mean) slopes + offsets)`` of data x_i that is read in every product, never copied.

    A product Z S reads a block of rows at a time and multiplies it by ``slopes S``, so Z is not made; functions of
    blocks are given a block of Z. Memory is that of a block, beside the arguments and results. Samples that are no more
    than the largest block, or few in any case, are read into memory when they are chosen (`of_samples`).

    Parameters
    ----------
    data : RowSource
        Data, such as an `ArrayRows` of a memory map.
    mean : ndarray of shape (d,)
        What is subtracted from every row.
    slopes : ndarray or sparse array of shape (d, k)
        What the centred rows are multiplied by.
    offsets : ndarray of shape (k,)
        The affine map.
    weights : ndarray of shape (N, 1) or None, default=None
        Numbers p_i that rows are multiplied by; ones if None.
    dtype : type, default=float64
        Precision of products, and of blocks where the data is in single precision too.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import read_rows
    >>> from convexbn.operators import RowBlocks
    >>> X = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> Z = RowBlocks(read_rows(X), X.mean(axis=0), np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([0.0, 1.0]))
    >>> Z.rows()
    array([[-1.,  1.],
           [ 1.,  1.]])
    """

    data: RowSource
    mean: np.ndarray
    slopes: np.ndarray | csr_array
    offsets: np.ndarray
    weights: np.ndarray | None = None
    dtype: Any = np.float64
    n_patches = 1

    def hold(self, function: Callable[..., Any], *placed: Any, **small: Any) -> Held:
        """The values of a function of blocks, which are made anew whenever they are read unless they are few."""

        def value(i: int) -> Any:
            return self._value(i, function, placed, small)

        count, first = len(self._samples), value(0)
        if first.size <= _FEW * len(first):
            return Held([first, *(value(i) for i in range(1, count))])
        return Held(_Recipe(count, value))

    def summed(self, function: Callable[..., Any], *placed: Any, **small: Any) -> Any:
        """The sum over blocks, and parts of them, of the values of a function."""
        return super().summed(partial(_summed, function), *placed, **small)

    def _values(self, function: Callable[..., Any], placed: tuple[Any, ...], small: dict[str, Any]) -> Iterator[Any]:
        each = in_order if self.data.in_any_order else lambda value, count: map(value, range(count))
        return each(lambda i: self._value(i, function, placed, small), len(self._samples))

    @cached_property
    def _samples(self) -> list[slice]:
        return list(self._blocks(self.data.n_features))  # those of Z B, too, so that values that are held fit both

    def _block(self, i: int) -> "_Block":
        return _Block.unchecked(self.rows(self._samples[i]), dtype=self.dtype)

    @property
    def n_rows(self) -> int:
        """Rows of Z."""
        return self.data.n_rows

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
        """Rows of Z as an array, all of them if none are chosen: the shape of `chosen`, and k.

        Z may have far fewer columns than the data, so no more than a block of that is read at a time.
        """
        if isinstance(chosen, slice):
            some = range(self.n_rows)[chosen]
            wanted: range | np.ndarray = some if some.step == 1 else np.array(some)
            shape: tuple[int, ...] = (len(some),)
        else:
            indices = as_indices(chosen, self.n_rows)
            wanted, shape = indices.ravel(), indices.shape
        parts = list(slices(len(wanted), _SMALLER * self.data.n_features))
        if len(parts) == 1:
            return self._rows(wanted).reshape(*shape, self.n_columns)
        rows = np.empty((len(wanted), self.n_columns), dtype=self.dtype)
        for part in parts:
            rows[part] = self._rows(wanted[part])
        return rows.reshape(*shape, self.n_columns)

    def _rows(self, wanted: range | np.ndarray) -> np.ndarray:
        """Rows (m, k) that are read at once, of a range or of indices (m,)."""
        chosen = slice(wanted.start, wanted.stop) if isinstance(wanted, range) else wanted
        mean, slopes, offsets = self._affine
        deviations = self.data.rows(chosen) - mean
        rows = deviations @ slopes
        del deviations  # whose memory is that of a block
        rows += offsets
        if self.weights is not None:
            rows *= self.weights[chosen]
        return rows.astype(self.dtype, copy=False)

    @cached_property
    def _affine(self) -> tuple[np.ndarray, np.ndarray | csr_array, np.ndarray]:
        """Mean, slopes and offsets in the precision in which rows are made.

        It is single where data and products are, which takes half the time. What rounding takes off the mean is in the
        offsets.
        """
        large = max(np.abs(self.mean).max(), np.abs(self.slopes).max()) > _LARGE
        single = self.dtype == self.data.dtype == np.float32 and not large
        mean = self.mean.astype(np.float32) if single else self.mean
        offsets = self.offsets + (mean - self.mean) @ self.slopes
        return mean, self.slopes.astype(mean.dtype), offsets.astype(mean.dtype)

    def of_samples(self, samples: slice | np.ndarray) -> Self:
        """Return the matrix of some samples, given by their indices."""
        weights = None if self.weights is None else self.weights[samples]
        count = len(range(*samples.indices(self.n_rows))) if isinstance(samples, slice) else len(samples)
        few = count <= max(self.data.largest_block, _IN_MEMORY // max(self.data.n_features, self.n_columns))
        return replace(
            self, data=ArrayRows(self.data.rows(samples)) if few else self.data.part(samples), weights=weights
        )

    @property
    def has_few_entries(self) -> bool:
        """Whether `rows` may be all of them, as one array in memory."""
        return self.n_rows * max(self.data.n_features, self.n_columns) <= _IN_MEMORY

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

    def _read(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray | float]]:
        """Slices of the rows, the data minus its mean in them, and the weights."""
        for block in self._blocks(max(self.data.n_features, self.n_columns)):
            yield block, self.data.rows(block) - self.mean, 1.0 if self.weights is None else self.weights[block]

    def _blocks(self, entries: int) -> Iterator[slice]:
        """Slices of the rows, each of one block of the data, with so many entries made for each."""
        for start, stop in pairwise(self.data.starts.tolist()):
            for rows in slices(stop - start, _SMALLER * entries):
                yield slice(start + rows.start, start + rows.stop)

    def _parts(self, entries: int) -> Iterator[tuple[slice, Self]]:
        for samples in self._blocks(entries):
            yield samples, self.of_samples(samples)


def of_source(
    data: RowSource, mean: np.ndarray, slopes: np.ndarray | csr_array, offsets: np.ndarray
) -> RowBlocks | DesignMatrix:
    """The design matrix of data that is read in blocks; in memory where it is a few numbers a sample of far wider data.

    That would be read again in every product, for an eighth of its numbers or fewer.
    """
    Z, k = RowBlocks(data, mean, slopes, offsets), slopes.shape[1]
    return DesignMatrix.unchecked(Z.rows()) if k <= _FEW and _SMALLER * k <= data.n_features else Z


def _summed(function: Callable[..., Any], Z: DesignMatrix, *placed: Any, **small: Any) -> Any:
    return Z.summed(function, *placed, **small)


class _Block(DesignMatrix):
    """A block in memory, of which smaller arrays are made at once."""

    def samples_at_once(self, entries: int) -> Iterator[slice]:
        """Slices of the samples of a block, with so many entries made for each row."""
        return super().samples_at_once(_SMALLER * entries)


class _Recipe(Sequence[Any]):
    """Values of blocks that are made when they are read."""

    def __init__(self, count: int, value: Callable[[int], Any]):
        self._count, self._value = count, value

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: Any) -> Any:
        return self._value(i)
