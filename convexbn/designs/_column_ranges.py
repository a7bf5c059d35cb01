"""Ranges of columns, which tell constant columns from rounding; those of parts can be merged."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from scipy.sparse import csr_array

_COARSE = 10 * float(
    np.finfo(np.float32).eps
)  # largest range over size of columns that single precision may have rounded


@dataclass(frozen=True, eq=False)
class ColumnRanges:
    """Extremes of columns, and whether all numbers are of single precision and any is no integer.

    The last two are right of columns that hardly vary beside their size, and are not used of others.

    Parameters
    ----------
    low, high : ndarray of shape (d,)
        Least and largest entries; infinite if there are no rows.
    single, fractional : ndarray of bool, shape (d,)
        Whether all entries are numbers of single precision, and whether any is no integer.
    """

    low: np.ndarray
    high: np.ndarray
    single: np.ndarray
    fractional: np.ndarray

    @classmethod
    def of(cls, data: np.ndarray | csr_array) -> Self:
        """Those of data (m, d), with at least one row."""
        low, high = data.min(axis=0), data.max(axis=0)
        if isinstance(data, csr_array):
            low, high = low.toarray().ravel(), high.toarray().ravel()
        low, high = low.astype(np.float64), high.astype(np.float64)
        # twice the bound, as a part may have smaller numbers than the whole by its range
        suspects = np.flatnonzero(high - low <= 2 * _COARSE * np.maximum(np.abs(low), np.abs(high)))
        columns = data[:, suspects]  # without any zeros
        if isinstance(columns, csr_array):
            columns = columns.toarray()
        single, fractional = np.ones(len(low), dtype=bool), np.zeros(len(low), dtype=bool)
        with np.errstate(over="ignore"):
            single[suspects] = (columns.astype(np.float32) == columns).all(axis=0)
        fractional[suspects] = (columns != np.round(columns)).any(axis=0)
        return cls(low, high, single, fractional)

    def merge(self, other: Self) -> Self:
        """Ranges of the rows of both."""
        return type(self)(
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.single & other.single,
            self.fractional | other.fractional,
        )

    @cached_property
    def ranges(self) -> np.ndarray:
        """Largest less least entry (d,), zero where only rounding varies."""
        ranges, largest = self.high - self.low, np.maximum(np.abs(self.low), np.abs(self.high))
        constant = ranges <= np.maximum(10 * np.finfo(np.float64).eps * largest, np.finfo(np.float64).tiny)
        constant |= (ranges <= _COARSE * largest) & self.single & self.fractional
        return np.where(constant, 0.0, ranges)
