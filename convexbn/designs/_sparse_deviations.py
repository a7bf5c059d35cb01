"""Sparse data minus their mean, over the scale of each column: products with them, without centring the data."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, svds


@dataclass(frozen=True, eq=False)
class SparseDeviations:
    """The matrix (n, d) of entries ``roots_i (x_ij - mean_j) / scale_j``, of which only the x_ij are stored.

    A column of scale zero is zero.
    """

    data: csr_array
    mean: np.ndarray
    scale: np.ndarray
    roots: np.ndarray

    @property
    def _inverse(self) -> np.ndarray:
        return 1 / np.where(self.scale > 0, self.scale, np.inf)

    def column_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Sums (d,) of the columns, each entry times its root, and of their squares."""
        X, p, inverse = self.data, self.roots**2, self._inverse
        entries = (X.data - self.mean[X.indices]) * inverse[X.indices]
        stored, ones = csr_array((entries, X.indices, X.indptr), shape=X.shape), np.ones(X.nnz)
        full = np.bincount(X.indices, minlength=X.shape[1]) == X.shape[0]
        absent = np.where(full, 0.0, p.sum() - p @ csr_array((ones, X.indices, X.indptr), shape=X.shape))
        zeros = -self.mean * inverse  # what a zero of the data becomes
        return p @ stored + absent * zeros, p @ stored.power(2) + absent * zeros**2

    @property
    def squares(self) -> float:
        """Sum of the squares of all entries."""
        return float(self.column_moments()[1].sum())

    def leading(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The largest singular values, falling, and their right singular vectors (r, d), by a Lanczos method."""
        X, mean, roots, inverse = self.data, self.mean, self.roots[:, None], self._inverse[:, None]

        def product(V: np.ndarray) -> np.ndarray:
            scaled = inverse * V.reshape(len(inverse), -1)
            return roots * (X @ scaled - mean @ scaled)

        def adjoint(U: np.ndarray) -> np.ndarray:
            weighted = roots * U.reshape(len(roots), -1)
            return inverse * (X.T @ weighted - np.outer(mean, weighted.sum(axis=0)))

        if count >= min(X.shape):
            if X.shape[1] < X.shape[0]:  # all directions, which take as many entries as the rows of the design
                return np.linalg.svd(product(np.eye(X.shape[1])), full_matrices=False)[1:]
            count = min(X.shape) - 1
        matrix = LinearOperator(X.shape, product, adjoint, product, np.float64, adjoint)
        start = np.random.default_rng(0).standard_normal(min(X.shape))
        _, S, Vt = svds(matrix, k=count, v0=start)
        order = np.argsort(-S, kind="stable")
        return S[order], Vt[order]

    def moments(self, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted mean (r,) and covariance matrix (r, r) of the data minus `mean` times the basis (d, r)."""
        projected = self.roots[:, None] * (self.data @ basis - self.mean @ basis)
        first = self.roots @ projected
        return first, projected.T @ projected - np.outer(first, first)
