"""Activation patterns as bits, with a row for each row of Z, so that they can be where the rows are."""

from typing import Any

import numpy as np

from convexbn.operators._slices import slices


def transposed(packed: np.ndarray, count: int) -> np.ndarray:
    """The transpose of a matrix of bits (P, ceil(count / 8)), whose rows are packed, as another: (count, ceil(P / 8)).

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.operators._bits import transposed
    >>> transposed(np.packbits([[1, 0, 0], [1, 1, 0]], axis=1), 3).ravel()
    array([192,  64,   0], dtype=uint8)
    """
    blocks = [slice(8 * of_bytes.start, 8 * of_bytes.stop) for of_bytes in slices(-(-len(packed) // 8), 8 * count)]
    found = [np.packbits(np.unpackbits(packed[block], axis=1, count=count), axis=0) for block in blocks]
    return np.concatenate(found).T


def places(chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Where the bits of the chosen patterns are in a row: the byte, and the bit in it."""
    return {"byte": chosen // 8, "bit": (128 >> chosen % 8).astype(np.uint8)}


def opened(Z: Any, masks: Any, *, byte: Any = None, bit: Any = None) -> Any:
    """A function of blocks: masks (N, P) as numbers, of bits in these places, or as they are if none are given.

    Each pattern is contiguous, so that some of them are taken fast.
    """
    return masks if byte is None else Z.cast((Z.xp.take(masks.T, byte, axis=0) & bit[:, None]) > 0).T
