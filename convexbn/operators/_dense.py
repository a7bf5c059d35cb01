"""The design matrix as a dense NumPy array."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from convexbn.operators._protocol import Operator


@dataclass(frozen=True, eq=False, repr=False)
class DesignMatrix(Operator):
    """The design matrix Z with its pooling, and the products with it that solvers use.

    A convolutional network reads `n_patches` consecutive rows of Z for one sample and averages the
    outputs of a neuron over them; a dense network has one row a sample.

    Parameters
    ----------
    Z : ndarray of shape (N, k)
        Design matrix, ``N = n * n_patches`` rows for n samples.
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

    def __post_init__(self) -> None:
        Z = np.asarray(self.Z, dtype=np.float64)
        if Z.ndim != 2 or 0 in Z.shape:
            raise ValueError(f"Z must be a 2-D array with at least one row and one column, got shape {Z.shape}.")
        if not np.isfinite(Z).all():
            raise ValueError("Z contains NaN or infinity; remove or impute these entries first.")
        if self.n_patches < 1 or len(Z) % self.n_patches:
            raise ValueError(f"n_patches={self.n_patches} must divide the {len(Z)} rows of Z.")
        object.__setattr__(self, "Z", Z)

    def _of(self, Z: np.ndarray, n_patches: int) -> Self:
        """The matrix of another array, which needs no checks and may be in single precision."""
        made = object.__new__(type(self))
        object.__setattr__(made, "Z", Z)
        object.__setattr__(made, "n_patches", n_patches)
        return made

    @property
    def n_rows(self) -> int:
        """Rows of Z: N = n * n_patches."""
        return int(self.Z.shape[0])

    @property
    def n_columns(self) -> int:
        """Columns k of Z, the dimension of a neuron."""
        return int(self.Z.shape[1])

    def __matmul__(self, S: np.ndarray) -> np.ndarray:
        return self.Z @ S.astype(self.Z.dtype, copy=False)

    def adjoint(self, A: np.ndarray) -> np.ndarray:
        """Z^T A (k, m) of an array A (N, m)."""
        return self.Z.T @ A.astype(self.Z.dtype, copy=False)

    def rows(self, chosen: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Rows of Z as an array, all of them if none are chosen: the shape of `chosen`, and k."""
        return self.Z[chosen]

    def of_samples(self, samples: slice | np.ndarray) -> Self:
        """Return the matrix of some samples, given by their indices."""
        rows = self.Z.reshape(self.n_samples, self.n_patches, -1)[samples]
        return self._of(rows.reshape(-1, self.n_columns), self.n_patches)

    @property
    def unpooled(self) -> Self:
        """The matrix with each row a sample of its own."""
        return self if self.n_patches == 1 else self._of(self.Z, 1)

    def __truediv__(self, size: float) -> Self:
        return self._of(self.Z / size, self.n_patches)

    def times(self, basis: np.ndarray) -> Self:
        """Return the matrix Z B for a basis B (k, r)."""
        return self._of(self.Z @ basis, self.n_patches)

    def weighted(self, weights: np.ndarray) -> Self:
        """Return the matrix with its rows times weights (N, 1)."""
        return self._of(self.Z * weights.astype(self.Z.dtype, copy=False), self.n_patches)

    @cached_property
    def in_single_precision(self) -> Self:
        """The matrix with products in single precision."""
        return self._of(self.Z.astype(np.float32), self.n_patches)
