"""The check of the dual point of an oracle."""

import numpy as np

from convexbn._utils.checks import real_array
from convexbn.operators._kinds import check_operator
from convexbn.operators._protocol import Operator


def checked_dual(Z: Operator, v: np.ndarray) -> np.ndarray:
    """Return a dual point as an array (n, C) in double precision.

    Raises
    ------
    ValueError
        If Z is no operator, or the dual point is not finite or of another shape.
    """
    check_operator(Z)
    dual = real_array("v", v)
    if dual.ndim != 2 or len(dual) != Z.n_samples or not dual.shape[1] or not np.isfinite(dual).all():
        raise ValueError(f"v must be a finite array of shape ({Z.n_samples}, C), got shape {dual.shape}.")
    return dual
