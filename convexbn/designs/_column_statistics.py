"""Means and standard deviations of columns, with constant columns told from rounding."""

import numpy as np

from convexbn.designs._deviations import slices


def column_statistics(data: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means, and standard deviations that are zero where only rounding varies, of columns under weights of sum one."""
    low, high = data.min(axis=0), data.max(axis=0)
    ranges, largest = high - low, np.maximum(np.abs(low), np.abs(high))
    constant = ranges <= np.maximum(10 * np.finfo(np.float64).eps * largest, np.finfo(np.float64).tiny)
    suspects = np.flatnonzero(ranges <= 10 * np.finfo(np.float32).eps * largest)
    constant[suspects] |= _single_precision(data[:, suspects])
    mean, scale = p @ data, np.where(constant, np.inf, ranges)
    first, second = np.zeros(len(mean)), np.zeros(len(mean))
    for rows in slices(*data.shape):
        deviations = data[rows] - mean
        deviations /= scale
        first += p[rows] @ deviations
        second += p[rows] @ np.square(deviations, out=deviations)
    ranges[constant] = 0
    return mean + ranges * first, ranges * np.sqrt(np.maximum(second - first**2, 0))


def _single_precision(columns: np.ndarray) -> np.ndarray:
    """Which columns hold numbers of single precision, not all of them integers, whose rounding is coarse."""
    with np.errstate(over="ignore"):
        single = columns.astype(np.float32) == columns
    return single.all(axis=0) & (columns != np.round(columns)).any(axis=0)
