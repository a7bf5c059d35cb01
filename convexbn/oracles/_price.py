"""The price of a direction, and how far a search for the largest one reached."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Scope = Literal["global", "patterns", "local"]


@dataclass(frozen=True, eq=False)
class Price:
    """The largest price over a set of directions.

    Parameters
    ----------
    value : float
        No direction in `scope` prices higher.
    scope : {"global", "patterns", "local"}
        What was searched: every direction, those of a pattern set, or those that a local search reached.
    direction : ndarray of shape (k,) or None, default=None
        Unit direction that attains the value, or of the largest price found; None if no direction was searched.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.oracles import price_by_enumeration
    >>> price = price_by_enumeration(DesignMatrix(np.eye(2)), np.array([[3.0], [-4.0]]))
    >>> round(price.value, 9), price.scope, price.direction + 0.0
    (4.0, 'global', array([0., 1.]))
    """

    value: float
    scope: Scope
    direction: np.ndarray | None = None
