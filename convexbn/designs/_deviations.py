"""Data minus their mean, over the scale of each column, and its second moments, a block at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_BLOCK_ENTRIES = 2**19  # entries of the data worked on at once


@dataclass(frozen=True, eq=False)
class Deviations:
    """The matrix (n, d) of entries ``roots_i (x_ij - mean_j) / scale_j``, made a block at a time.

    A column of scale zero is zero.
    """

    data: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    roots: np.ndarray

    def block(self, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """Some rows and columns of the matrix."""
        block = self.data[rows, columns] - self.mean[columns]
        block /= np.where(self.scale > 0, self.scale, np.inf)[columns]
        block *= self.roots[rows, None]
        return block

    def gram(self) -> np.ndarray:
        """The products of its columns, or of its rows where these are fewer."""
        n, d = self.data.shape
        gram = np.zeros((min(n, d),) * 2)
        if n >= d:
            for rows in slices(n, d):
                block = self.block(rows)
                gram += block.T @ block
        else:
            for columns in slices(d, n):
                block = self.block(columns=columns)
                gram += block @ block.T
        return gram

    def left_multiplied(self, U: np.ndarray) -> np.ndarray:
        """U (r, n) times the matrix."""
        product = np.empty((len(U), self.data.shape[1]))
        for columns in slices(self.data.shape[1], len(self.data)):
            product[:, columns] = U @ self.block(columns=columns)
        return product

    def moments(self, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted mean (r,) and covariance matrix (r, r) of the data minus `mean` times the basis (d, r)."""
        first, second = np.zeros(basis.shape[1]), np.zeros((basis.shape[1],) * 2)
        for rows in slices(*self.data.shape):
            projected = self.roots[rows, None] * ((self.data[rows] - self.mean) @ basis)
            first += self.roots[rows] @ projected
            second += projected.T @ projected
        return first, second - np.outer(first, first)


def slices(length: int, width: int) -> Iterator[slice]:
    """Slices of an axis of this length, of a matrix whose other axis has that width, a block at a time."""
    size = max(1, _BLOCK_ENTRIES // width)
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
