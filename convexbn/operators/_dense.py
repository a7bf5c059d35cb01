"""The design matrix as a dense NumPy array."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np

from convexbn._utils.checks import is_integer, real_array
from convexbn._utils.scratch import scratch
from convexbn.operators._protocol import Operator


@dataclass(frozen=True, eq=False, repr=False)
class DesignMatrix(Operator):
    """The design matrix Z with its pooling, and the products with it that solvers use.

    A convolutional network reads `n_patches` consecutive rows of Z for one sample and averages the
    outputs of a neuron over them; a dense network has one row a sample.

    Parameters
    ----------
    Z : ndarray of shape (N, k)
        Design matrix, ``N = n * n_patches`` rows for n samples. In single precision it stays so, and products read it
        a block of rows at a time, in double precision.
    n_patches : int, default=1
        Rows pooled into one sample.

    Raises
    ------
    ValueError
        If Z is not a finite 2-D array with at least one row and column, or its rows are not a multiple of
        `n_patches`.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> Z = DesignMatrix(np.array([[1.0, 0.0], [-1.0, 1.0]]))
    >>> Z.neuron_outputs(np.array([[1.0], [0.0]]))
    array([[1.],
           [0.]])
    """

    Z: np.ndarray
    n_patches: int = 1
    dtype: Any = field(default_factory=lambda: np.dtype(np.float64), init=False)  # precision of products

    def __post_init__(self) -> None:
        Z = self.Z if getattr(self.Z, "dtype", None) == np.float32 else real_array("Z", self.Z)
        Z = np.asarray(Z)
        if Z.ndim != 2 or 0 in Z.shape:
            raise ValueError(f"Z must be a 2-D array with at least one row and one column, got shape {Z.shape}.")
        if not np.isfinite(Z).all():
            raise ValueError("Z contains NaN or infinity; remove or impute these entries first.")
        if not is_integer(self.n_patches) or self.n_patches < 1 or len(Z) % self.n_patches:
            raise ValueError(f"n_patches={self.n_patches!r} must divide the {len(Z)} rows of Z.")
        object.__setattr__(self, "Z", Z)

    @classmethod
    def unchecked(cls, Z: np.ndarray, n_patches: int = 1, dtype: Any = np.float64) -> Self:
        """The matrix of an array that needs no checks, with products in this precision."""
        made = object.__new__(cls)
        for name, value in {"Z": Z, "n_patches": n_patches, "dtype": np.dtype(dtype)}.items():
            object.__setattr__(made, name, value)
        return made

    def _of(self, Z: np.ndarray, n_patches: int) -> Self:
        return self.unchecked(Z, n_patches, self.dtype)

    @property
    def n_rows(self) -> int:
        """Rows of Z: N = n * n_patches."""
        return int(self.Z.shape[0])

    @property
    def n_columns(self) -> int:
        """Columns k of Z, the dimension of a neuron."""
        return int(self.Z.shape[1])

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + int(self.Z.nbytes)  # for schedulers that place tasks where data is

    def __matmul__(self, S: np.ndarray) -> np.ndarray:
        S = S.astype(self.dtype, copy=False)
        product = scratch((self.n_rows, *S.shape[1:]), self.dtype)
        if self.Z.dtype == self.dtype:
            return np.matmul(self.Z, S, out=product)
        for block in self._blocks(self.n_columns):
            np.matmul(self.rows(block), S, out=product[block])
        return product

    def adjoint(self, A: np.ndarray) -> np.ndarray:
        """Z^T A (k, m) of an array A (N, m)."""
        if self.Z.dtype == self.dtype:
            return self.Z.T @ A.astype(self.dtype, copy=False)
        product = np.zeros((self.n_columns, A.shape[1]), dtype=self.dtype)
        for block in self._blocks(self.n_columns):
            product += self.rows(block).T @ A[block]
        return product

    def of_active(self, hidden: np.ndarray, A: np.ndarray) -> np.ndarray:
        """Z^T (1[hidden > 0] * A) (k, m) for A (N, m) or (N, 1); `hidden` (N, m) is overwritten."""
        if A.shape[1] == 1 and self.Z.dtype == self.dtype:
            weighted = np.multiply(self.Z, self.cast(A), out=scratch(self.Z.shape, self.dtype))
            return weighted.T @ np.greater(hidden, 0, out=hidden)
        return self.adjoint(np.multiply(hidden > 0, A, out=hidden))

    def rows(self, chosen: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Rows of Z as an array, all of them if none are chosen: the shape of `chosen`, and k."""
        rows = self.Z[chosen]
        if rows.dtype == self.dtype:
            return rows
        made = scratch(rows.shape, self.dtype)
        made[...] = rows
        return made

    def of_samples(self, samples: slice | np.ndarray) -> Self:
        """Return the matrix of some samples, given by their indices."""
        rows = self.Z.reshape(self.n_samples, self.n_patches, -1)[samples]
        return self._of(rows.reshape(-1, self.n_columns), self.n_patches)

    @property
    def unpooled(self) -> Self:
        """The matrix with each row a sample of its own."""
        return self if self.n_patches == 1 else self._of(self.Z, 1)

    def __truediv__(self, size: float) -> Self:
        return self._of(self.Z / self.Z.dtype.type(size), self.n_patches)

    def scale_near(self, size: float) -> float:
        """A number near `size` that entries in single precision can be divided by without rounding."""
        return size if self.Z.dtype == self.dtype else float(2 ** np.round(np.log2(size)))

    def times(self, basis: np.ndarray) -> Self:
        """Return the matrix Z B for a basis B (k, r)."""
        return self._of(self @ basis, self.n_patches)

    def weighted(self, weights: np.ndarray) -> Self:
        """Return the matrix with its rows times weights (N, 1)."""
        return self._of(self.Z * weights.astype(self.dtype, copy=False), self.n_patches)

    @cached_property
    def in_single_precision(self) -> Self:
        """The matrix with products in single precision."""
        return self.unchecked(self.Z.astype(np.float32, copy=False), self.n_patches, np.float32)

    @cached_property
    def spectral_norm(self) -> float:
        """Largest singular value of Z; where it is kept in single precision from its Gram matrix, without a copy."""
        kept = self.Z.dtype == self.dtype
        return super().spectral_norm if kept else self.weighted_norm(np.ones((self.n_rows, 1)))
