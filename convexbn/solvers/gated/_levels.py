"""Groups of columns whose curvatures are taken for equal, so that a preconditioner needs one factorization for each."""

import numpy as np


def levels(c: np.ndarray) -> list[tuple[slice | np.ndarray, float]]:
    """Indices of the columns with the same power of four in c (k,), and their mean."""
    level = np.round(np.log(c / c.max()) / np.log(4.0))
    if not level.any():
        return [(slice(None), float(c.mean()))]
    groups = [np.flatnonzero(level == value) for value in np.unique(level)]
    return [(group, float(c[group].mean())) for group in groups]
