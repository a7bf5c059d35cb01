"""Some of the rows of a source, as a source."""

from functools import cached_property
from itertools import pairwise

import numpy as np

from convexbn.rows._block import Block
from convexbn.rows._source import RowSource


class ChosenRows(RowSource):
    """Rows of a source by their indices, which are read when they are asked for.

    A block holds no more rows than the largest of the source, and ends where the source's does, so that ascending
    indices read every block once.

    Parameters
    ----------
    source : RowSource
        The source.
    chosen : array-like of int, shape (m,)
        Indices of its rows, at least one.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.rows import ArrayRows, ChosenRows
    >>> ChosenRows(ArrayRows(np.arange(6.0).reshape(3, 2)), [2, 0]).block(0).X
    array([[4., 5.],
           [0., 1.]])
    """

    def __init__(self, source: RowSource, chosen: np.ndarray):
        chosen = source._indices(chosen)
        if not len(chosen):
            raise ValueError("A part of a source needs at least one row, got none.")
        self._source, self._chosen, self.in_any_order = source, chosen, source.in_any_order
        starts = np.array([0])
        if (np.diff(chosen) >= 0).all():
            starts = np.flatnonzero(np.diff(np.searchsorted(source.starts, chosen, side="right"), prepend=0))
        sizes = [
            min(source.largest_block, stop - row)
            for start, stop in pairwise([*starts.tolist(), len(chosen)])
            for row in range(start, stop, source.largest_block)
        ]
        super().__init__(sizes, source.n_features, source.dtype, source.feature_names)

    def _read(self, i: int) -> Block:
        return self._source.take(self._chosen[self.starts[i] : self.starts[i + 1]])

    @cached_property
    def _targets(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        y, sample_weight = (None if values is None else values[self._chosen] for values in self._source._targets)
        return y, sample_weight
