"""What designs learn from rows, merged from blocks in one pass."""

from dataclasses import dataclass
from functools import reduce
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.sample_weight import check_sample_weight
from convexbn.designs._column_ranges import ColumnRanges
from convexbn.designs._moments import Moments
from convexbn.rows import RowSource

EXACT_BELOW = 1e-4  # as `rtol`: singular values that are smaller, over the largest, need triangular factors
_SLICE_ENTRIES = 2**17  # entries in double precision that stay in the cache
_SMALLEST, _LARGEST = 1e-150, 1e150  # standard deviations whose squares are floats


@dataclass(frozen=True, eq=False)
class RowStatistics:
    """Number, moments and ranges of rows of positive weight.

    Those of all rows follow from those of blocks by `merge`, in any order up to rounding.

    Parameters
    ----------
    n_rows : int
        Rows.
    moments : Moments
        Their moments, which may be `TriangularMoments` or `Variances`.
    ranges : ColumnRanges
        Ranges of their columns.
    """

    n_rows: int
    moments: Moments
    ranges: ColumnRanges

    @classmethod
    def of(cls, X: np.ndarray, weights: np.ndarray | None = None, *, kind: type[Moments] = Moments) -> Self | None:
        """Statistics of rows X (m, d) with weights (m,), None if there are no rows of positive weight.

        Parameters
        ----------
        X : ndarray of shape (m, d)
            Finite data in single or double precision.
        weights : ndarray of shape (m,) or None, default=None
            Weights from zero on; ones if None.
        kind : type, default=Moments
            Kind of the moments; `TriangularMoments` are about four times the work, `Variances` far less.
        """
        if weights is not None and not weights.all():
            X, weights = X[weights > 0], weights[weights > 0]
        if not len(X):
            return None
        size = max(X.shape[1], _SLICE_ENTRIES // X.shape[1])
        parts = (
            kind.of(X[start : start + size], None if weights is None else weights[start : start + size])
            for start in range(0, len(X), size)
        )
        return cls(len(X), reduce(kind.merge, parts), ColumnRanges.of(X))

    @classmethod
    def of_source(cls, source: RowSource, sample_weight: ArrayLike | None, *, kind: type[Moments]) -> Self:
        """Statistics of a source in one pass, with its own weights if `sample_weight` is None.

        Raises
        ------
        ValueError
            If a weight is out of range or data are, or cannot be read.
        """
        given = source.sample_weight if sample_weight is None else sample_weight
        weights = None if given is None else check_sample_weight(given, source.n_rows)
        found = None
        for i in range(source.n_blocks):
            rows = slice(source.starts[i], source.starts[i + 1])
            of_block = cls.of(source.block(i).X, None if weights is None else weights[rows], kind=kind)
            found = of_block if found is None else found if of_block is None else found.merge(of_block)
        assert found is not None  # a source has rows, and weights are not all zero
        return found

    def merge(self, other: Self) -> Self:
        """Statistics of the rows of both."""
        return type(self)(
            self.n_rows + other.n_rows, self.moments.merge(other.moments), self.ranges.merge(other.ranges)
        )

    @property
    def std(self) -> np.ndarray:
        """Standard deviations (d,), zero where only rounding varies.

        Raises
        ------
        ValueError
            If the square of a range is no float.
        """
        ranges = self.ranges.ranges
        far = np.flatnonzero((ranges > 0) & ~((ranges >= _SMALLEST) & (ranges <= _LARGEST)))
        if len(far):
            raise ValueError(
                f"Column {far[0]} of X has a range of {ranges[far[0]]:.1e}, whose square is no float; rescale it."
            )
        return np.where(ranges > 0, self.moments.std, 0.0)
