"""Blocks that are made anew in every pass."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import numpy as np

from convexbn.rows._block import Block, as_block, check_data, check_targets, float_type
from convexbn.rows._layout import Layout
from convexbn.rows._source import RowSource, joined


class IteratedRows(RowSource):
    """Blocks that a function yields, the same ones each time it is called.

    A first pass counts and checks them, and keeps their targets and weights. Blocks in order are read from one
    iterator; a block before the last that was read takes a new one, which is run up to there.

    Parameters
    ----------
    make : callable
        Without arguments, to an iterator of blocks: X (m, d), or (X, y) or (X, y, sample_weight). Empty blocks are
        skipped.

    Raises
    ------
    ValueError
        If there are no rows, or the blocks differ in width or in whether they have targets and weights, or hold NaN or
        infinity.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.rows import IteratedRows
    >>> def make():
    ...     for seed in range(3):
    ...         X = np.random.default_rng(seed).standard_normal((10, 2))
    ...         yield X, X[:, 0]
    >>> IteratedRows(make)
    IteratedRows(30 rows in 3 blocks, 2 features)
    """

    in_any_order = False

    def __init__(self, make: Callable[[], Iterator[Any]]):
        self._make = make
        self._cursor: deque[tuple[int, Iterator[Block]]] = deque(maxlen=1)  # the next block, and where it comes from
        layouts, dtypes, targets = [], set(), []
        for i, (X, y, weights) in enumerate(self._blocks()):
            name = self._name(i)
            layouts.append(Layout.of(X, y, weights, name))
            layouts[i].check_like(layouts[0])
            dtypes.add(float_type(X.dtype, name))
            check_data(X, name)
            check_targets(y, weights, name)
            targets.append((y, weights))
        if not layouts:
            raise ValueError("source yields no rows; give a function that returns a new iterator of blocks each time.")
        sizes = [layout.n_rows for layout in layouts]
        super().__init__(sizes, layouts[0].n_features, reduce(np.promote_types, dtypes))
        self._targets = joined([y for y, _ in targets]), joined([weights for _, weights in targets])
        self._checked.update(range(len(sizes)))

    def _blocks(self) -> Iterator[Block]:
        """The blocks that are not empty, anew."""
        for i, given in enumerate(self._make()):
            block = as_block(given, f"block {i}")
            if len(block.X):
                yield block

    def _read(self, i: int) -> Block:
        try:
            following, blocks = self._cursor.pop()
        except IndexError:
            following, blocks = i + 1, iter(())
        if following > i:
            following, blocks = 0, self._blocks()
        for number, block in enumerate(blocks, following):
            expected = (int(self.starts[number + 1] - self.starts[number]), self.n_features)
            if block.X.shape != expected:
                raise ValueError(
                    f"Block {number} has shape {block.X.shape} and had {expected} in the first pass; the function must "
                    "yield the same blocks each time."
                )
            if number == i:
                self._cursor.append((i + 1, blocks))
                return block
        raise ValueError(
            f"source yielded {self.n_blocks} blocks in the first pass and fewer in a later one; give a function that "
            "returns a new iterator of the same blocks each time."
        )
