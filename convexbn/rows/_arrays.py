"""Arrays and memory maps as sources: cut into blocks, never copied."""

import numpy as np

from convexbn.rows._block import Block, float_type
from convexbn.rows._layout import Layout
from convexbn.rows._source import RowSource

BLOCK_BYTES = 2**24  # of a block by default


class ArrayRows(RowSource):
    """Rows of an array in memory or a memory map, in blocks of a number of bytes.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Data.
    y : ndarray of shape (n,) or (n, C), or None, default=None
        Targets.
    sample_weight : ndarray of shape (n,) or None, default=None
        Weights.
    block_bytes : int, default=2**24
        Bytes of a block of X, in its precision.

    Raises
    ------
    ValueError
        If X is not 2-D and of real numbers, or y or the weights are not as long.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.rows import ArrayRows
    >>> ArrayRows(np.zeros((5, 2), dtype=np.float32), block_bytes=16)
    ArrayRows(5 rows in 3 blocks, 2 features)
    """

    def __init__(
        self,
        X: np.ndarray,
        y: np.ndarray | None = None,
        sample_weight: np.ndarray | None = None,
        block_bytes: int = BLOCK_BYTES,
    ):
        if X.ndim != 2 or not X.size:
            raise ValueError(
                f"X, the source of rows, must be an array with at least one row and one column, got shape {X.shape}."
            )
        Layout.of(X, y, sample_weight, "the source")
        self._X, self._y, self._sample_weight, self._block_bytes = X, y, sample_weight, block_bytes
        dtype = float_type(X.dtype, "the source")
        super().__init__(sizes_of(X.shape, X.dtype.itemsize, block_bytes), X.shape[1], dtype)

    def _read(self, i: int) -> Block:
        rows = slice(*self.starts[i : i + 2])
        return Block(self._X[rows], *(None if part is None else part[rows] for part in (self._y, self._sample_weight)))

    def _name(self, i: int) -> str:
        return f"rows {self.starts[i]} to {self.starts[i + 1] - 1}"

    def rows(self, chosen: slice | np.ndarray) -> np.ndarray:
        """Data alone of a slice of the rows, or of rows given by an array of indices: its shape, and d."""
        return self._X[chosen].astype(self.dtype, copy=False)

    def part(self, samples: slice | np.ndarray) -> RowSource:
        """Return the source of some samples, a slice or indices, such as a fold; nothing is read."""
        if not isinstance(samples, slice):
            return super().part(samples)
        y, sample_weight = (None if part is None else part[samples] for part in (self._y, self._sample_weight))
        return ArrayRows(self._X[samples], y, sample_weight, self._block_bytes)


def sizes_of(shape: tuple[int, ...], itemsize: int, block_bytes: int) -> list[int]:
    """Rows of the blocks that an array of shape (n, d) is cut into."""
    n_rows, n_features = shape
    size = max(1, block_bytes // max(1, itemsize * n_features))
    return [min(size, n_rows - start) for start in range(0, n_rows, size)]
