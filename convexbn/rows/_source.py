"""The protocol of samples that are read in blocks."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.chosen import as_indices
from convexbn._utils.summary import Summarized, counted
from convexbn.rows._block import Block, check_data, check_targets


class RowSource(Summarized, ABC):
    """Samples in an order that does not change, as a sequence of blocks that may be read any number of times.

    A kind of source is a subclass. It passes what it knows without reading to `__init__`, and implements `_read`.
    Blocks are read when they are asked for, checked the first time, and only the last is kept. Data has the precision
    `dtype`, single precision where all blocks have it.

    Parameters
    ----------
    sizes : sequence of int
        Rows of each block, all positive.
    n_features : int
        Features d.
    dtype : dtype
        Precision of the data, float32 or float64.
    feature_names : sequence of str or None, default=None
        Names of the features, where they have any.

    Attributes
    ----------
    n_rows, n_features, n_blocks : int
        Samples n, features d and blocks.
    starts : ndarray of int, shape (n_blocks + 1,)
        Block i holds the rows from ``starts[i]`` to ``starts[i + 1]``.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import read_rows
    >>> source = read_rows(np.arange(6.0).reshape(3, 2), block_bytes=32)
    >>> source
    ArrayRows(3 rows in 2 blocks, 2 features)
    >>> source.block(1).X
    array([[4., 5.]])
    >>> [len(block.X) for block in source]
    [2, 1]
    """

    in_any_order = True  # whether blocks are read as fast in another order, as several threads do

    def __init__(
        self, sizes: Sequence[int], n_features: int, dtype: np.dtype, feature_names: Sequence[str] | None = None
    ):
        self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.n_features, self.dtype = int(n_features), np.dtype(dtype)
        self.feature_names = None if feature_names is None else tuple(feature_names)
        self._checked: set[int] = set()
        self._last: tuple[int, Block] | None = None

    @abstractmethod
    def _read(self, i: int) -> Block:
        """Block i as it is stored, which may have another precision."""

    def _read_targets(self, i: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Targets and weights of block i."""
        _, y, sample_weight = self._read(i)
        return y, sample_weight

    def _name(self, i: int) -> str:
        """What messages call block i."""
        return f"block {i}"

    @property
    def n_rows(self) -> int:
        """Samples n."""
        return int(self.starts[-1])

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return len(self.starts) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, n_features)."""
        return self.n_rows, self.n_features

    @property
    def largest_block(self) -> int:
        """Rows of the largest block."""
        return int(np.diff(self.starts).max())

    def block(self, i: int) -> Block:
        """Block i, from 0 on: data X (m, d), and targets and weights or None.

        Raises
        ------
        ValueError
            With the name of the block or its file, if it cannot be read or holds NaN or infinity.
        IndexError
            If there is no such block.
        """
        if not 0 <= i < self.n_blocks:
            raise IndexError(f"Block {i} does not exist; there are {self.n_blocks}, from 0 on.")
        last = self._last
        if last is None or last[0] != i:
            X, y, sample_weight = self._read(i)
            X = X.astype(self.dtype, copy=False)
            if i not in self._checked:
                check_data(X, self._name(i))
                check_targets(y, sample_weight, self._name(i))
                self._checked.add(i)
            self._last = last = i, Block(X, y, sample_weight)
        return last[1]

    def __iter__(self) -> Iterator[Block]:
        return map(self.block, range(self.n_blocks))

    @property
    def y(self) -> np.ndarray | None:
        """Targets of all samples in memory, shape (n,) or (n, C), or None if there are none."""
        return self._targets[0]

    @property
    def sample_weight(self) -> np.ndarray | None:
        """Weights of all samples in memory, shape (n,), or None if there are none."""
        return self._targets[1]

    @cached_property
    def _targets(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        read = [self._read_targets(i) for i in range(self.n_blocks)]
        for i, targets in enumerate(read):
            check_targets(*targets, self._name(i))
        y, sample_weight = (joined([targets[part] for targets in read]) for part in range(2))
        return y, sample_weight

    def rows(self, chosen: slice | np.ndarray) -> np.ndarray:
        """Data alone of a slice of the rows, of an array of indices, its shape and d, or of those where it is True."""
        if isinstance(chosen, slice):
            start, stop, step = chosen.indices(self.n_rows)
            if step == 1:
                return self._joined_rows(start, max(start, stop))
            chosen = np.arange(start, stop, step)
        chosen = as_indices(chosen, self.n_rows)
        indices = chosen.ravel()
        X = np.empty((len(indices), self.n_features), dtype=self.dtype)
        owners = np.searchsorted(self.starts, indices, side="right") - 1
        order = np.argsort(owners, kind="stable")
        blocks, firsts = np.unique(owners[order], return_index=True)
        for i, members in zip(blocks.tolist(), np.split(order, firsts[1:]), strict=len(blocks) > 0):
            X[members] = self.block(i).X[indices[members] - self.starts[i]]
        return X.reshape(*chosen.shape, self.n_features)

    def _joined_rows(self, start: int, stop: int) -> np.ndarray:
        """Data of the rows from start to stop, a view where they are in one block."""
        first, last = np.searchsorted(self.starts, [start, max(start, stop - 1)], side="right") - 1
        begins = self.starts[first : last + 1].tolist()
        pieces = [
            self.block(i).X[max(start - begin, 0) : max(stop - begin, 0)] for i, begin in enumerate(begins, first)
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def take(self, indices: ArrayLike) -> Block:
        """Samples of any rows in memory, in the order of their indices, such as a small random sample.

        Every block that has some of them is read once.

        Parameters
        ----------
        indices : array-like of int, shape (m,)
            Indices from 0 to ``n_rows - 1``; one may occur more than once.

        Returns
        -------
        block : Block

        Raises
        ------
        ValueError
            If the indices are no such integers.

        Examples
        --------
        >>> import numpy as np
        >>> from convexbn import read_rows
        >>> source = read_rows(np.arange(6.0).reshape(3, 2), target=np.arange(3))
        >>> X, y, _ = source.take([2, 0])
        >>> X, y
        (array([[4., 5.],
               [0., 1.]]), array([2, 0]))
        """
        chosen = self._indices(indices)
        y, sample_weight = (None if values is None else values[chosen] for values in self._targets)
        return Block(self.rows(chosen), y, sample_weight)

    def _indices(self, indices: ArrayLike) -> np.ndarray:
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
            raise ValueError(f"indices must be a list of integers, got {chosen.dtype} of shape {chosen.shape}.")
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < self.n_rows:
            raise ValueError(f"indices must be from 0 to {self.n_rows - 1}, the last row.")
        return chosen.astype(np.int64, copy=False)

    def part(self, samples: slice | np.ndarray) -> "RowSource":
        """Return the source of some samples, a slice or indices, such as a fold; nothing is read.

        Examples
        --------
        >>> import numpy as np
        >>> from convexbn import read_rows
        >>> read_rows(np.zeros((5, 2)), block_bytes=32).part(np.array([0, 2, 4]))
        ChosenRows(3 rows in 3 blocks, 2 features)
        """
        from convexbn.rows._chosen import ChosenRows  # a source of a source

        return ChosenRows(self, np.arange(self.n_rows)[samples] if isinstance(samples, slice) else samples)

    def __array__(self, *args: Any, **options: Any) -> np.ndarray:
        raise TypeError(
            f"{self!r} is read in blocks and is no array; read all of it into memory with "
            "source.take(numpy.arange(source.n_rows)).X where there is enough."
        )

    def _summary(self) -> str:
        return (
            f"{counted(self.n_rows, 'row')} in {counted(self.n_blocks, 'block')}, {counted(self.n_features, 'feature')}"
        )


def joined(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Targets of blocks one after the other, or None if they have none."""
    found = [part for part in parts if part is not None]
    return np.concatenate(found) if found else None
