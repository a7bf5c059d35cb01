"""Means and standard deviations of columns, with constant columns told from rounding."""

import numpy as np
from scipy.sparse import csr_array

from convexbn.designs._deviations import slices
from convexbn.designs._sparse_deviations import SparseDeviations


def column_statistics(data: np.ndarray | csr_array, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means, and standard deviations that are zero where only rounding varies, of columns under weights of sum one."""
    low, high = data.min(axis=0), data.max(axis=0)
    if isinstance(data, csr_array):
        low, high = low.toarray().ravel(), high.toarray().ravel()
    low, high = low.astype(np.float64), high.astype(np.float64)
    ranges, largest = high - low, np.maximum(np.abs(low), np.abs(high))
    constant = ranges <= np.maximum(10 * np.finfo(np.float64).eps * largest, np.finfo(np.float64).tiny)
    suspects = np.flatnonzero(ranges <= 10 * np.finfo(np.float32).eps * largest)
    columns = data[:, suspects]  # without any zeros
    constant[suspects] |= _single_precision(columns.toarray() if isinstance(columns, csr_array) else columns)
    mean, ranges = _mean(data, p), np.where(constant, 0.0, ranges)
    if isinstance(data, csr_array):
        first, second = SparseDeviations(data, mean, ranges, np.sqrt(p)).column_moments()
    else:
        first, second = _moments(data, p, mean, np.where(constant, np.inf, ranges))
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


def _single_precision(columns: np.ndarray) -> np.ndarray:
    """Which columns hold numbers of single precision, not all of them integers, whose rounding is coarse."""
    with np.errstate(over="ignore"):
        single = columns.astype(np.float32) == columns
    return single.all(axis=0) & (columns != np.round(columns)).any(axis=0)
