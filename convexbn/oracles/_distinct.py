"""The choice of the best among candidates of which many are close to one another."""

from collections.abc import Callable

import numpy as np

_AT_ONCE = 64  # candidates that are compared with all others at once


def distinct(count: int, n_candidates: int, close: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Indices of the first candidates, at most `count`, that are not close to an earlier one that was chosen.

    Parameters
    ----------
    count, n_candidates : int
    close : callable
        Which of some candidates (p,) are close to which others (q,): a boolean array (p, q).
    """
    left = np.arange(n_candidates)
    chosen: list[int] = []
    while len(chosen) < count and len(left):
        first = left[:_AT_ONCE]
        near, gone = close(first, left), np.zeros(len(left), dtype=bool)
        for i in range(len(first)):
            if not gone[i]:
                chosen.append(first[i])
                gone |= near[i]
                gone[i] = True
        left = left[~gone]
    return np.array(chosen[:count], dtype=int)
