"""The design matrix as an array of another library, such as PyTorch, on any of its devices."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from convexbn._utils.array_namespace import is_elsewhere, namespace, to_numpy
from convexbn._utils.chosen import as_indices
from convexbn.operators._bits import transposed
from convexbn.operators._of_blocks import OfBlocks, product
from convexbn.operators._protocol import Held
from convexbn.operators._slices import slices

_AT_ONCE = 2**27  # entries of the largest array made of a block


@dataclass(frozen=True, eq=False, repr=False)
class DeviceMatrix(OfBlocks):
    """A design matrix Z on a device, by the Python array API standard; its products are made there.

    Arguments and results are NumPy arrays as of every operator. Products with a row for each row of Z cost the way from
    the device, those of functions of blocks do not.

    Parameters
    ----------
    Z : array of shape (N, k)
        Design matrix, of any library that follows the array API standard; finite. In single precision it stays so, and
        a block of rows at a time is brought to double precision for a product.
    n_patches : int, default=1
        Rows pooled into one sample.
    dtype : dtype, default=float64
        Precision of products.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.operators import DeviceMatrix
    >>> Z = DeviceMatrix(np.array([[1.0, 0.0], [-1.0, 1.0]]))  # or a tensor of PyTorch
    >>> Z.neuron_outputs(np.array([[1.0], [0.0]]))
    array([[1.],
           [0.]])
    """

    Z: Any
    n_patches: int = 1
    rows_a_block = 2**18
    dtype: Any = field(default_factory=lambda: np.dtype(np.float64))  # precision of products

    @cached_property
    def rows_there(self) -> "_Rows":
        """The rows, with products whose arguments and results are arrays on the device."""
        return _Rows(self.Z, self.n_patches, getattr(namespace(self.Z), self.dtype.name))

    @property
    def n_rows(self) -> int:
        """Rows of Z: N = n * n_patches."""
        return int(self.Z.shape[0])

    @property
    def n_columns(self) -> int:
        """Columns k of Z, the dimension of a neuron."""
        return int(self.Z.shape[1])

    def place(self, values: np.ndarray) -> Any:
        """The array on the device."""
        return self.rows_there.asarray(values)

    def mapped(self, function: Callable[..., Any], *placed: Any, **small: Any) -> np.ndarray:
        """The values of a function of blocks, as one array in memory."""
        return np.concatenate([to_numpy(values) for values in self._values(function, placed, small)])

    def summed(self, function: Callable[..., Any], *placed: Any, **small: Any) -> Any:
        """The sum over blocks of the values of a function, an array or number or a tuple of them."""
        total = super().summed(function, *placed, **small)
        return tuple(map(_numbers, total)) if isinstance(total, tuple) else _numbers(total)

    def _values(self, function: Callable[..., Any], placed: tuple[Any, ...], small: dict[str, Any]) -> Iterator[Any]:
        moved = {name: self.place(value) if isinstance(value, np.ndarray) else value for name, value in small.items()}
        for i in range(len(self._samples)):
            yield function(self._block(i), *(self._part(values, i) for values in placed), **moved)

    def _block(self, i: int) -> "_Rows":
        return self.rows_there[self._samples[i]]

    def rows(self, chosen: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Rows of Z as an array, all of them if none are chosen: the shape of `chosen`, and k."""
        if isinstance(chosen, slice):
            return to_numpy(self.Z[chosen, :]).astype(self.dtype, copy=False)
        chosen = as_indices(chosen, self.n_rows)
        rows = to_numpy(self._taken(chosen.ravel())).astype(self.dtype, copy=False)
        return rows.reshape(*chosen.shape, self.n_columns)

    def _taken(self, rows: np.ndarray) -> Any:
        here = self.rows_there
        return here.xp.take(self.Z, here.asarray(rows), axis=0)

    def of_samples(self, samples: slice | np.ndarray) -> Self:
        """Return the matrix of some samples, given by their indices."""
        P = self.n_patches
        if isinstance(samples, slice) and (P == 1 or samples.step in (None, 1)):
            first, last, step = samples.indices(self.n_samples)
            return replace(self, Z=self.Z[slice(first * P, max(first, last) * P, step), :])
        chosen = np.arange(self.n_samples)[samples]
        return replace(self, Z=self._taken((chosen[:, None] * P + np.arange(P)).ravel()))

    @property
    def unpooled(self) -> Self:
        """The matrix with each row a sample of its own."""
        return self if self.n_patches == 1 else replace(self, n_patches=1)

    def __truediv__(self, size: float) -> Self:
        return replace(self, Z=self.Z / float(size))

    def scale_near(self, size: float) -> float:
        """A number near `size` that entries in single precision can be divided by without rounding."""
        return float(2 ** np.round(np.log2(size)))

    def times(self, basis: np.ndarray) -> Self:
        """Return the matrix Z B for a basis B (k, r)."""
        held = self.unpooled.hold(product, S=basis)
        return replace(self, Z=self.rows_there.xp.concat(held.parts) if isinstance(held, Held) else held)

    def weighted(self, weights: np.ndarray) -> Self:
        """Return the matrix with its rows times weights (N, 1)."""
        return replace(self, Z=self.Z * self.rows_there.cast(self.place(weights)))  # in the precision of products

    @cached_property
    def in_single_precision(self) -> Self:
        """The matrix with products in single precision."""
        xp = self.rows_there.xp
        return replace(self, Z=xp.astype(self.Z, xp.float32, copy=False), dtype=np.dtype(np.float32))

    def packed_patterns(self, G: np.ndarray) -> np.ndarray:
        """Activation patterns 1[Z g >= 0] of directions G (k, m), as in `Patterns`: (m, ceil(N / 8)) bytes."""
        padded = np.pad(G, ((0, 0), (0, -G.shape[1] % 8)))
        return transposed(self.mapped(_bits, G=padded, bits=128 >> np.arange(8, dtype=np.uint8)), G.shape[1])

    def gram(self, weights: np.ndarray) -> np.ndarray:
        """Z^T diag(weights) Z (k, k) for weights (N, 1)."""
        return self.summed(_gram, self.place(weights))

    def masked_gram(self, masks: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """F^T diag(weights) F of the pooled features F = [D_1 Z, ..., D_m Z]: a symmetric (mk, mk) array."""
        return self.summed(_masked_gram, self.place(masks.astype(np.float32)), self.place(weights))


class _Rows:
    """The rows of a block, with the products that functions of blocks use, on arrays of its library."""

    at_once = _AT_ONCE

    def __init__(self, Z: Any, n_patches: int, dtype: Any):
        self.array, self.n_patches, self.dtype, self.xp = Z, n_patches, dtype, namespace(Z)

    def __getitem__(self, samples: slice) -> "_Rows":
        """The rows of some samples, in the precision of the products."""
        rows = slice(samples.start * self.n_patches, samples.stop * self.n_patches)
        return _Rows(self.cast(self.array[rows, :]), self.n_patches, self.dtype)

    def __matmul__(self, S: Any) -> Any:
        return self.array @ self.cast(S)

    def rows(self, chosen: Any = None) -> Any:
        """Rows of the block, all of them if none are chosen by their indices: the shape of `chosen`, and k."""
        if chosen is None:
            return self.array
        rows = self.xp.take(self.array, self.xp.reshape(chosen, (-1,)), axis=0)
        return self.xp.reshape(rows, (*chosen.shape, rows.shape[1]))

    @property
    def row_norms(self) -> Any:
        """Euclidean norms of the rows, shape (N,)."""
        return self.xp.sqrt(self.xp.sum(self.array * self.array, axis=1))

    @property
    def in_single_precision(self) -> "_Rows":
        """The block with products in single precision."""
        single = self.xp.float32
        return _Rows(self.xp.astype(self.array, single, copy=False), self.n_patches, single)

    def asarray(self, values: np.ndarray) -> Any:
        """An array of NumPy, on the device."""
        return values if self.xp is np else self.xp.asarray(np.ascontiguousarray(values), device=self.array.device)

    def cast(self, values: Any) -> Any:
        """The array in the precision of the products."""
        return values if values.dtype == self.dtype else self.xp.astype(values, self.dtype)

    def adjoint(self, A: Any) -> Any:
        """Z^T A (k, m) of an array A (N, m)."""
        return self.array.T @ self.cast(A)

    def hidden(self, S: Any) -> Any:
        """relu(Z S) (N, m) of neurons S (k, m)."""
        return self.xp.clip(self @ S, 0.0, None)

    def active(self, S: Any) -> Any:
        """1[Z S > 0] (N, m) of neurons S (k, m), as numbers."""
        return self.xp.astype(self @ S > 0, self.dtype)

    def of_active(self, hidden: Any, A: Any) -> Any:
        """Z^T (1[hidden > 0] * A) (k, m) for A (N, m) or (N, 1)."""
        return self.adjoint(self.xp.astype(hidden > 0, self.dtype) * self.cast(A))

    def pool(self, A: Any) -> Any:
        """Average an (N, m) array over the patches of each sample: (n, m)."""
        P = self.n_patches
        return A if P == 1 else self.xp.mean(self.xp.reshape(A, (A.shape[0] // P, P, A.shape[1])), axis=1)

    def unpool(self, V: Any) -> Any:
        """Apply the transpose of `pool` to an (n, C) array: (N, C)."""
        return V if self.n_patches == 1 else self.xp.repeat(V, self.n_patches, axis=0) / self.n_patches

    def masked_features(self, masks: Any, samples: slice) -> Any:
        """Pooled features D_j Z of some samples, for masks (N, m): (samples, m, k)."""
        rows = slice(samples.start * self.n_patches, samples.stop * self.n_patches)
        features = masks[rows, :][:, :, None] * self.array[rows, :][:, None, :]
        _, m, k = features.shape
        return self.xp.reshape(self.pool(self.xp.reshape(features, (-1, m * k))), (-1, m, k))

    def masked_gram(self, masks: Any, weights: Any) -> Any:
        """F^T diag(weights) F of the pooled features F = [D_1 Z, ..., D_m Z]: a symmetric (mk, mk) array."""
        roots, size, gram = self.xp.sqrt(weights), masks.shape[1] * self.array.shape[1], 0.0
        for samples in self.samples_at_once(size):
            features = self.xp.reshape(self.masked_features(masks, samples), (-1, size))
            gram = gram + self.square(features * roots[samples, None])
        return gram

    def samples_at_once(self, entries: int) -> Iterator[slice]:
        """Slices of the samples, with so many entries made for each row."""
        return slices(self.array.shape[0] // self.n_patches, entries * self.n_patches, self.at_once)

    def square(self, J: Any) -> Any:
        """J^T J (M, M) of an array J (rows, M)."""
        return J.T @ J

    def nearest(self, distance: Any, count: int) -> Any:
        """Rows of the least entries of each column of an array (N, m): (m, count)."""
        return self.xp.argsort(distance, axis=0)[:count, :].T

    def neuron_outputs(self, S: Any) -> Any:
        """Outputs of ReLU neurons, one a column of S (k, m): pooled relu(Z S), (n, m)."""
        return self._pooled(S.shape[1], lambda block: block.hidden(S))

    def gated_outputs(self, gates: Any, S: Any) -> Any:
        """Outputs of gated neurons with gates and weights (k, m): pooled 1[Z g >= 0] * (Z s), (n, m)."""
        return self._pooled(S.shape[1], lambda block: self.xp.astype(block @ gates >= 0, self.dtype) * (block @ S))

    def _pooled(self, entries: int, function: Callable[["_Rows"], Any]) -> Any:
        """The values of a function of rows, so many entries a row, averaged over patches, some samples at a time."""
        blocks = (self[samples] for samples in self.samples_at_once(entries))
        parts = [block.pool(function(block)) for block in blocks]
        return parts[0] if len(parts) == 1 else self.xp.concat(parts)


def _numbers(values: Any) -> Any:
    if not is_elsewhere(values):
        return values
    array = to_numpy(values)
    return array if array.ndim else array[()]


def _bits(Z: _Rows, *, G: Any, bits: Any) -> Any:
    """1[Z g >= 0] of directions G (k, m), packed: (N, m / 8) bytes."""
    active = Z.xp.astype(Z @ G >= 0, Z.xp.uint8)
    return Z.xp.sum(Z.xp.reshape(active, (active.shape[0], -1, 8)) * bits, axis=2, dtype=Z.xp.uint8)


def _masked_gram(Z: _Rows, masks: Any, weights: Any) -> Any:
    return Z.masked_gram(Z.cast(masks), weights)


def _gram(Z: _Rows, weights: Any) -> Any:
    return Z.array.T @ (Z.cast(weights) * Z.array)
