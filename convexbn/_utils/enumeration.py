"""Enumerations that skops keeps, too."""

from enum import Enum
from typing import Any


class Enumeration(Enum):
    """An enumeration whose members are made from their values wherever an object is copied or stored.

    Examples
    --------
    >>> from convexbn import Status
    >>> Status.CONVERGED.__reduce__() == (Status, (Status.CONVERGED.value,))
    True
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.value,)
