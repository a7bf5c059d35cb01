"""Rows that are chosen by a mask, as indices."""

import numpy as np


def as_indices(chosen: np.ndarray, n_rows: int) -> np.ndarray:
    """Indices of the rows where a mask is True; an array of indices as it is.

    Raises
    ------
    IndexError
        If a mask is not as long as there are rows.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn._utils.chosen import as_indices
    >>> as_indices(np.array([True, False, True]), 3), as_indices(np.array([[2, 0]]), 3)
    (array([0, 2]), array([[2, 0]]))
    """
    if chosen.dtype != bool:
        return chosen
    if chosen.shape != (n_rows,):
        raise IndexError(f"A mask of rows must have shape ({n_rows},), got {chosen.shape}.")
    return np.flatnonzero(chosen)
