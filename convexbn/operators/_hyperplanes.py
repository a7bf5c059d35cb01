"""Rows of a design matrix that are multiples of each other: they share a kink."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.sparse import csr_array

from convexbn.operators._slices import slices

if TYPE_CHECKING:
    from convexbn.operators._protocol import Operator

_PARALLEL = 1e-11  # distance of the unit vectors of rows that count as multiples of each other


@dataclass(frozen=True, eq=False)
class Hyperplanes:
    """The hyperplanes z·s = 0 of the rows z of a matrix; equal rows, and multiples, have the same one.

    Parameters
    ----------
    first : ndarray of int, shape (G,)
        The first row of each hyperplane, in rising order.
    group : ndarray of int, shape (N,)
        Number of the hyperplane of each row.
    ratio : ndarray of shape (N,)
        Each row is about this multiple of the first of its hyperplane; zero for rows of zeros.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> planes = DesignMatrix(np.array([[1.0, 2.0], [3.0, 0.0], [-2.0, -4.0]])).hyperplanes
    >>> planes.first, planes.group, planes.ratio
    (array([0, 1]), array([0, 1, 0]), array([ 1.,  1., -2.]))
    """

    first: np.ndarray
    group: np.ndarray
    ratio: np.ndarray

    @classmethod
    def of(cls, Z: "Operator") -> Self:
        """Find the hyperplanes of the rows of a matrix (N, k)."""
        n_rows = Z.n_rows
        direction = np.random.default_rng(0).standard_normal((Z.n_columns, 1))
        along, lengths = (Z @ direction)[:, 0], Z.row_norms
        signed = np.where(along < 0, -1, 1) * np.maximum(lengths, np.finfo(float).tiny)
        # Multiples of each other follow each other in the order of the products of unit vectors with any direction.
        order = np.argsort(along / signed, kind="stable")
        steps = np.diff((along / signed)[order])
        close = np.flatnonzero(steps <= 2 * _PARALLEL * np.linalg.norm(direction))
        one, other = order[close], order[close + 1]
        new = np.ones(n_rows, dtype=bool)
        for block in slices(len(close), Z.n_columns):
            i, j = one[block], other[block]
            apart = Z.rows(i) / signed[i, None] - Z.rows(j) / signed[j, None]
            new[close[block][np.linalg.norm(apart, axis=1) <= _PARALLEL] + 1] = False
        in_order = np.cumsum(new) - 1
        # Numbered as they come in the matrix.
        first = np.minimum.reduceat(order, np.flatnonzero(new))
        number = np.empty_like(first)
        number[np.argsort(first)] = np.arange(len(first))
        group = np.empty(n_rows, dtype=int)
        group[order] = number[in_order]
        first = np.sort(first)
        return cls(first, group, np.where(lengths > 0, signed / signed[first[group]], 0.0))

    @property
    def all_differ(self) -> bool:
        """Whether no row is a multiple of another."""
        return len(self.first) == len(self.group)

    def rays(self) -> Self:
        """The same for rows that are positive multiples of each other."""
        sides, first, group = np.unique(2 * self.group + (self.ratio < 0), return_index=True, return_inverse=True)
        number = np.empty(len(sides), dtype=int)
        number[np.argsort(first)] = np.arange(len(first))
        first, group = np.sort(first), number[group]
        size = np.abs(self.ratio)
        return type(self)(first, group, size / np.maximum(size[first[group]], np.finfo(float).tiny))

    def summed(self, values: np.ndarray) -> np.ndarray:
        """Add up values (N, p) of the rows times their absolute ratio: (G, p)."""
        if self.all_differ:
            return values * np.abs(self.ratio)[:, None]
        rows = np.arange(len(self.group))
        return csr_array((np.abs(self.ratio), (self.group, rows)), shape=(len(self.first), len(rows))) @ values
