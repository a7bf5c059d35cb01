"""The design matrix and the few products with it that every solver is written in."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import qr
from scipy.linalg.blas import dsyrk

from convexbn._utils.magnitude import power_of_two_above
from convexbn._utils.summary import Summarized, counted
from convexbn.operators._hyperplanes import Hyperplanes

_BLOCK_ENTRIES = 2**22  # entries of the features made at once
_FAR = 1e6  # entries between its inverse and this leave room for sums of squares in single precision


@dataclass(frozen=True, eq=False, repr=False)
class DesignMatrix(Summarized):
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

    def _summary(self) -> str:
        patches = "" if self.n_patches == 1 else f" of {self.n_patches} patches"
        return f"{counted(self.n_samples, 'sample')}{patches}, {counted(self.n_columns, 'column')}"

    @property
    def n_rows(self) -> int:
        """Rows of Z: N = n * n_patches."""
        return int(self.Z.shape[0])

    @property
    def n_samples(self) -> int:
        """Samples n."""
        return self.n_rows // self.n_patches

    @property
    def n_columns(self) -> int:
        """Columns k of Z, the dimension of a neuron."""
        return int(self.Z.shape[1])

    @cached_property
    def row_norms(self) -> np.ndarray:
        """Euclidean norms of the rows, shape (N,)."""
        return np.linalg.norm(self.Z, axis=1)

    @cached_property
    def spectral_norm(self) -> float:
        """Largest singular value of Z."""
        return float(np.linalg.norm(self.Z, 2))

    @cached_property
    def of_moderate_size(self) -> tuple["DesignMatrix", float]:
        """The matrix over a power of two, and that: 1 unless its entries are so far from one that products overflow."""
        size = power_of_two_above(self.Z)
        if 1 / _FAR < size < _FAR:
            return self, 1.0
        return DesignMatrix(self.Z / size, self.n_patches), size

    @cached_property
    def in_single_precision(self) -> tuple[np.ndarray, np.ndarray]:
        """Z (N, k) and its transpose, both contiguous, in single precision."""
        rows = self.Z.astype(np.float32)
        return rows, np.ascontiguousarray(rows.T)

    @cached_property
    def hyperplanes(self) -> Hyperplanes:
        """The kinks of the rows, which equal rows and multiples of each other share."""
        return Hyperplanes.of_rows(self.Z)

    @cached_property
    def _rays(self) -> tuple[Hyperplanes, "DesignMatrix", np.ndarray]:
        rays = self.hyperplanes.rays()
        if rays.all_differ:
            return rays, self if self.n_patches == 1 else DesignMatrix(self.Z), np.zeros(self.n_rows)
        rows = DesignMatrix(self.Z[rays.first])
        moved = np.linalg.norm(self.Z - rays.ratio[:, None] * rows.Z[rays.group], axis=1)
        return rays, rows, moved + self.n_rows * np.finfo(float).eps * self.row_norms

    def for_prices(self, v: np.ndarray) -> tuple["DesignMatrix", np.ndarray, float]:
        """Fewest rows with the same prices: ``|V^T relu(Zw)|`` is that of rows (G, k) and a dual point (G, C) for them.

        Positive multiples of a row are one row, since ``relu(c z·w) = c relu(z·w)`` for c > 0. Rows that are multiples
        up to rounding count, too: prices of unit directions differ by no more than the number that is returned.
        """
        rays, rows, moved = self._rays
        V = self.unpool(v)
        return rows, rays.summed(V), float(np.linalg.norm(V, axis=1) @ moved)

    @cached_property
    def on_row_space(self) -> tuple["DesignMatrix", np.ndarray]:
        """The matrix times an orthonormal basis (k, r) of the space of its rows, and the basis.

        It has no more columns than rows, and is as good as the matrix for neurons: a part of one that is across the
        rows changes no output, and only costs.
        """
        basis, triangle, _ = qr(self.Z.T, mode="economic", pivoting=True)
        sizes = np.abs(np.diagonal(triangle))
        basis = basis[:, : max(1, int((sizes > self.n_columns * np.finfo(float).eps * sizes[0]).sum()))]
        return DesignMatrix(self.Z @ basis, self.n_patches), basis

    def products(self, S: np.ndarray) -> np.ndarray:
        """Z S (N, m) of neurons S (k, m), in which rows that are multiples of each other are on the same side."""
        planes = self.hyperplanes
        if planes.all_differ:
            return self.Z @ S
        return planes.ratio[:, None] * (self.Z[planes.first] @ S)[planes.group]

    def of_samples(self, samples: np.ndarray) -> "DesignMatrix":
        """Return the matrix of some samples, given by their indices."""
        rows = self.Z.reshape(self.n_samples, self.n_patches, -1)[samples]
        return DesignMatrix(rows.reshape(-1, self.n_columns), self.n_patches)

    def pool(self, A: np.ndarray) -> np.ndarray:
        """Average an (N, m) array over the patches of each sample: (n, m)."""
        if self.n_patches == 1:
            return A
        return A.reshape(self.n_samples, self.n_patches, -1).mean(axis=1)

    def unpool(self, V: np.ndarray) -> np.ndarray:
        """Apply the transpose of `pool` to an (n, C) array: (N, C)."""
        return np.repeat(V, self.n_patches, axis=0) / self.n_patches

    def neuron_outputs(self, S: np.ndarray) -> np.ndarray:
        """Outputs of ReLU neurons, one a column of S (k, m): pooled relu(Z S), (n, m)."""
        return self._pooled(S.shape[1], lambda rows: np.maximum(rows @ S, 0))

    def gated_outputs(self, gates: np.ndarray, S: np.ndarray) -> np.ndarray:
        """Outputs of gated neurons with gates and weights (k, m): pooled 1[Z g >= 0] * (Z s), (n, m)."""
        return self._pooled(S.shape[1], lambda rows: (rows @ gates >= 0) * (rows @ S))

    def _pooled(self, m: int, of_rows: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Average over patches what a function makes of rows of Z, m columns, a block of samples at a time: (n, m)."""
        if self.n_patches == 1:
            return of_rows(self.Z)
        pooled = np.empty((self.n_samples, m))
        size = max(1, _BLOCK_ENTRIES // (max(1, m) * self.n_patches))
        for start in range(0, self.n_samples, size):
            rows = self.Z[start * self.n_patches : (start + size) * self.n_patches]
            outputs = of_rows(rows).reshape(len(rows) // self.n_patches, self.n_patches, m)
            pooled[start : start + size] = outputs.mean(axis=1)
        return pooled

    def masked_adjoint(self, masks: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Z^T D_i v for every activation pattern: masks (N, P) and a dual point (n, 1) give (k, P)."""
        return self.Z.T @ (masks * self.unpool(v))

    def masked_gram(self, masks: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """F^T diag(weights) F of the pooled features F = [D_1 Z, ..., D_m Z]: a symmetric (mk, mk) array.

        The masks (N, m) may hold signs; weights (n,) are not negative. F is made a block of samples at a time.
        """
        m = masks.shape[1]
        size = m * self.n_columns
        gram = np.zeros((size, size), order="F")
        samples = max(1, _BLOCK_ENTRIES // (size * self.n_patches))
        roots = np.sqrt(weights)
        for start in range(0, self.n_samples, samples):
            rows = slice(start * self.n_patches, (start + samples) * self.n_patches)
            features = (masks[rows, :, None] * self.Z[rows, None, :]).reshape(-1, size)
            if self.n_patches > 1:
                features = features.reshape(-1, self.n_patches, size).mean(axis=1)
            features *= roots[start : start + samples, None]
            gram = dsyrk(1.0, features.T, beta=1.0, c=gram, overwrite_c=True, lower=True)
        return gram + np.tril(gram, -1).T


def as_design_matrix(Z: DesignMatrix | ArrayLike) -> DesignMatrix:
    """Return Z as a `DesignMatrix`."""
    return Z if isinstance(Z, DesignMatrix) else DesignMatrix(np.asarray(Z))
