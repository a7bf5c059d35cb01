"""How large numbers are: whether their squares are floats, and powers of two that scale them to order one."""

import numpy as np

from convexbn._utils.array_namespace import is_elsewhere, namespace

_LARGEST = 1e152  # squares of numbers between its inverse and this, and sums of them, are floats


def check_magnitude(values: np.ndarray, name: str) -> None:
    """Raise a ValueError if squares of the largest numbers leave the range of floats.

    Parameters
    ----------
    values : ndarray
        Finite numbers; all may be zero.
    name : str
        What to call them in the message.
    """
    largest = _largest(values)
    if largest and not 1 / _LARGEST <= largest <= _LARGEST:
        raise ValueError(
            f"The largest absolute value of {name} is {largest:.1e}, whose square is no float; rescale {name} so "
            f"that it lies between {1 / _LARGEST:g} and {_LARGEST:g}."
        )


def power_of_two_above(values: np.ndarray) -> float:
    """The power of two next above all absolute values, 1 if all are zero."""
    return float(np.ldexp(1.0, np.frexp(_largest(values))[1]))


def _largest(values: np.ndarray) -> float:
    if is_elsewhere(values):
        xp = namespace(values)
        return max(float(xp.max(values)), -float(xp.min(values)))
    return max(float(values.max()), -float(values.min()))
