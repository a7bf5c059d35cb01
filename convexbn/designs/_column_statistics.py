"""Means and standard deviations of columns, with constant columns told from rounding."""

import numpy as np
from scipy.sparse import csr_array

from convexbn.designs._column_ranges import ColumnRanges
from convexbn.designs._deviations import slices
from convexbn.designs._sparse_deviations import SparseDeviations


def column_statistics(data: np.ndarray | csr_array, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means, and standard deviations that are zero where only rounding varies, of columns under weights of sum one."""
    mean, ranges = _mean(data, p), ColumnRanges.of(data).ranges
    if isinstance(data, csr_array):
        first, second = SparseDeviations(data, mean, ranges, np.sqrt(p)).column_moments()
    else:
        first, second = _moments(data, p, mean, np.where(ranges > 0, ranges, np.inf))
    return mean + ranges * first, ranges * np.sqrt(np.maximum(second - first**2, 0))


def _mean(data: np.ndarray | csr_array, p: np.ndarray) -> np.ndarray:
    """Weighted sum of the rows, in double precision, without a copy of all."""
    if data.dtype == p.dtype:
        mean: np.ndarray = p @ data
        return mean
    return np.sum([p[rows] @ data[rows].astype(p.dtype) for rows in slices(*data.shape)], axis=0)


def _moments(data: np.ndarray, p: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums of the deviations of each column from `mean`, over `scale`, and of their squares."""
    first, second = np.zeros(len(mean)), np.zeros(len(mean))
    for rows in slices(*data.shape):
        deviations = data[rows] - mean
        deviations /= scale
        first += p[rows] @ deviations
        second += p[rows] @ np.square(deviations, out=deviations)
    return first, second
