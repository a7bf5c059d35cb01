"""Memory of temporary arrays that is used again, where the system would map every new one page by page."""

from math import prod
from sys import getrefcount
from threading import local
from typing import Any

import numpy as np

_LEAST, _MOST = 2**17, 2**24  # bytes of arrays that are made so
_KEPT = 3  # of a thread


class _Memory(local):
    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []


_memory = _Memory()


def scratch(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised array, in memory of an earlier one that nothing refers to any more.

    Workers of dask give freed memory back to the system at once (MALLOC_TRIM_THRESHOLD_), so that a product of a
    block of rows took half as long again.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from convexbn._utils.scratch import scratch
    >>> def is_used_again():
    ...     first = scratch((512, 64), "float64")
    ...     place = first.ctypes.data
    ...     before = scratch((512, 64), "float64").ctypes.data == place
    ...     del first
    ...     return before, scratch((512, 64), "float64").ctypes.data == place
    >>> with ThreadPoolExecutor(1) as thread:  # whose memory nothing else has used
    ...     thread.submit(is_used_again).result()
    (False, True)
    """
    dtype, kept = np.dtype(dtype), _memory.kept
    size = prod(shape) * dtype.itemsize
    if not _LEAST <= size <= _MOST:
        return np.empty(shape, dtype=dtype)
    for i in range(len(kept)):
        if size <= kept[i].nbytes <= 2 * size and getrefcount(kept[i]) <= 2:  # of the list and of the argument
            break
    else:
        i = len(kept)
        kept.append(np.empty(size, dtype=np.uint8))
    memory = kept.pop(i)
    kept.append(memory)  # the last used is the last to go
    del kept[:-_KEPT]
    return memory[:size].view(dtype).reshape(shape)
