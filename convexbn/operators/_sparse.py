"""The design matrix as a sparse array in the compressed format of SciPy."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import lsmr, norm, svds

from convexbn._utils.chosen import as_indices
from convexbn._utils.magnitude import power_of_two_above
from convexbn.operators._dense import DesignMatrix
from convexbn.operators._protocol import CONSTANT_RTOL, Operator

_MOST_ENTRIES = 2**22  # of a matrix that is made dense as a whole, and of the directions that a search starts from
_LEAST_DIRECTIONS = 60  # of these


@dataclass(frozen=True, eq=False, repr=False)
class SparseDesignMatrix(Operator):
    """A sparse design matrix Z, and the products with it that solvers use; it is never made dense as a whole.

    Products take time in proportion to the entries that are stored. Solvers that work on all rows as one dense array
    (the convex programs in cvxpy, gated networks, enumeration) take it up to four million entries n * k.

    Parameters
    ----------
    Z : sparse array or matrix of shape (n, k)
        Design matrix, in any format of SciPy.

    Raises
    ------
    ValueError
        If Z is not a finite 2-D matrix with at least one row and column.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import eye_array
    >>> from convexbn import SparseDesignMatrix
    >>> SparseDesignMatrix(eye_array(2)).neuron_outputs(np.array([[1.0], [-1.0]]))
    array([[1.],
           [0.]])
    """

    Z: csr_array

    n_patches = 1

    def __post_init__(self) -> None:
        Z = csr_array(self.Z, dtype=np.float64)
        if Z.ndim != 2 or 0 in Z.shape:
            raise ValueError(f"Z must be a 2-D matrix with at least one row and one column, got shape {Z.shape}.")
        if not np.isfinite(Z.data).all():
            raise ValueError("Z contains NaN or infinity; remove or impute these entries first.")
        object.__setattr__(self, "Z", Z)

    def _of(self, Z: csr_array) -> Self:
        """The matrix of another sparse array, which needs no checks and may be in single precision."""
        made = object.__new__(type(self))
        object.__setattr__(made, "Z", Z)
        return made

    def _with(self, data: np.ndarray) -> Self:
        """The matrix with other entries in the same places."""
        return self._of(csr_array((data, self.Z.indices, self.Z.indptr), shape=self.Z.shape))

    @property
    def n_rows(self) -> int:
        """Rows of Z, one a sample."""
        return int(self.Z.shape[0])

    @property
    def n_columns(self) -> int:
        """Columns k of Z, the dimension of a neuron."""
        return int(self.Z.shape[1])

    def __matmul__(self, S: np.ndarray) -> np.ndarray:
        return self.Z @ S.astype(self.Z.dtype, copy=False)

    def adjoint(self, A: np.ndarray) -> np.ndarray:
        """Z^T A (k, m) of an array A (n, m)."""
        return self.Z.T @ A.astype(self.Z.dtype, copy=False)

    def rows(self, chosen: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Rows of Z as a dense array: the shape of `chosen`, and k; all of them only where they are few enough."""
        if isinstance(chosen, slice):
            if chosen == slice(None):
                self._check_few_entries()
            return self.Z[chosen].toarray()
        chosen = as_indices(chosen, self.n_rows)
        return self.Z[chosen.ravel()].toarray().reshape(*chosen.shape, self.n_columns)

    def _check_few_entries(self) -> None:
        if not self.has_few_entries:
            raise ValueError(
                f"Z is sparse, and its {self.n_rows} rows of {self.n_columns} columns are too many for a solver that "
                "works on all of them as a dense array; take activation='relu' with a smooth loss and "
                "solver='column_generation', or fewer columns by the n_components of the design."
            )

    def of_samples(self, samples: slice | np.ndarray) -> Self:
        """Return the matrix of some samples, given by their indices."""
        return self._of(self.Z[samples])

    @property
    def unpooled(self) -> Self:
        """The matrix itself: each row is a sample."""
        return self

    def __truediv__(self, size: float) -> Self:
        return self._with(self.Z.data / size)

    def times(self, basis: np.ndarray) -> DesignMatrix:
        """Return the matrix Z B for a basis B (k, r), which is dense."""
        return DesignMatrix(self.Z @ basis)

    def weighted(self, weights: np.ndarray) -> Self:
        """Return the matrix with its rows times weights (n, 1)."""
        factors = weights[:, 0].astype(self.Z.dtype, copy=False)
        return self._with(self.Z.data * np.repeat(factors, np.diff(self.Z.indptr)))

    @cached_property
    def in_single_precision(self) -> Self:
        """The matrix with products in single precision."""
        return self._with(self.Z.data.astype(np.float32))

    @property
    def has_few_columns(self) -> bool:
        """Whether the space of its rows is no better: where a dense basis of it would have too many entries, too."""
        return super().has_few_columns or not self.has_few_entries

    @property
    def has_few_entries(self) -> bool:
        """Whether `rows` may be all of them, as one dense array."""
        return self.n_rows * self.n_columns <= _MOST_ENTRIES

    @property
    def most_directions(self) -> float:
        """Directions (k, m) that a search may start from, so that they take little memory."""
        return max(_LEAST_DIRECTIONS, _MOST_ENTRIES // self.n_columns)

    @cached_property
    def row_norms(self) -> np.ndarray:
        """Euclidean norms of the rows, shape (n,)."""
        return norm(self.Z, axis=1)

    @cached_property
    def column_extremes(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest entry of each column, shape (k,)."""
        return self.Z.min(axis=0).toarray().ravel(), self.Z.max(axis=0).toarray().ravel()

    @cached_property
    def constant(self) -> np.ndarray | None:
        """The direction e (k,) with Z e = 1 in every row, or None if there is none."""
        direction = lsmr(self.Z, np.ones(self.n_rows), atol=1e-14, btol=1e-14, conlim=0, maxiter=1000)[0]
        return direction if np.abs(self.Z @ direction - 1).max() < CONSTANT_RTOL else None

    @cached_property
    def spectral_norm(self) -> float:
        """Largest singular value of Z."""
        return self.weighted_norm(np.ones((self.n_rows, 1)))

    def gram(self, weights: np.ndarray) -> np.ndarray:
        """Z^T diag(weights) Z (k, k) for weights (n, 1), where Z has few entries: it is dense."""
        self._check_few_entries()
        return (self.Z.T @ self.weighted(weights).Z).toarray()

    def row_gram(self, weights: np.ndarray) -> np.ndarray:
        """P^1/2 Z Z^T P^1/2 (n, n) for P the diagonal matrix of weights (n, 1) that are not negative."""
        Z = self.weighted(np.sqrt(weights)).Z
        return (Z @ Z.T).toarray()

    def weighted_norm(self, weights: np.ndarray) -> float:
        """Spectral norm of Z with its rows times the roots of the weights (n, 1), by a Lanczos method."""
        Z = self.weighted(np.sqrt(weights)).Z
        if not Z.data.any():
            return 0.0
        size, start = power_of_two_above(Z.data), np.random.default_rng(0).standard_normal(min(Z.shape))
        if min(Z.shape) == 1:
            return size * float(norm(Z / size))
        return size * float(svds(Z / size, k=1, v0=start, return_singular_vectors=False)[0])
