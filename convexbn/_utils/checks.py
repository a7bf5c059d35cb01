"""Checks of parameters: each raises a ValueError that names the parameter and says what it takes."""

from collections.abc import Collection
from math import isnan
from numbers import Real
from typing import Any

import numpy as np

_MOST = 10**12  # of what is counted: NumPy has a MemoryError for arrays of so many rows, and no clear one for more


def real_array(name: str, values: Any) -> np.ndarray:
    """Return numbers of any real type as an array in double precision; one of doubles is not copied.

    Raises
    ------
    ValueError
        If the values are complex, strings, dates, other objects than numbers, too large for a float, masked, or rows of
        different lengths.
    """
    if type(values) is np.ndarray and values.dtype == np.float64:
        return values
    refuse_unusual(name, values)
    try:
        array = np.asarray(values)
        if array.dtype.kind in "biufO" and values is not None:  # which would become NaN
            return array.astype(np.float64, copy=False)
    except (OverflowError, TypeError, ValueError):
        pass
    raise ValueError(f"{name} must hold real numbers, in rows of one length.")


def refuse_unusual(name: str, values: object) -> None:
    """Raise a ValueError if values are an array with masked entries, or of dates or durations."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(
            f"{name} is a masked array with {np.ma.count_masked(values)} masked entries; remove or impute these first."
        )
    if isinstance(values, np.ndarray) and values.dtype.kind in "mM":
        raise ValueError(f"{name} holds {values.dtype}; encode dates and durations as numbers first.")


def is_number(value: object) -> bool:
    """Whether the value is a real number other than NaN, of a size that a float can hold or infinite, and no bool."""
    if isinstance(value, (bool, np.bool)) or not isinstance(value, (Real, np.integer, np.floating)):
        return False
    try:
        return not isnan(float(value))
    except OverflowError:
        return False


def check_kind(name: str, value: object, kind: type | tuple[type, ...], example: str) -> None:
    """Raise a ValueError unless the value is of a kind, of which an example is given in words."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} is a {type(value).__name__}; give {example}.")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raise a ValueError unless the value is one of these strings."""
    if not (isinstance(value, str) and value in choices):
        raise ValueError(f"{name}={value!r} is unknown; choose one of {list(choices)}.")


def check_flag(name: str, value: object) -> None:
    """Raise a ValueError unless the value is True or False."""
    if not isinstance(value, (bool, np.bool)):
        raise ValueError(f"{name}={value!r} must be True or False.")


def check_count(name: str, value: object, *, optional: bool = False) -> None:
    """Raise a ValueError unless the value is a positive integer; one that may be None, a limit, is of any size."""
    if not ((optional and value is None) or (is_integer(value) and value >= 1)):  # type: ignore[operator]
        raise ValueError(f"{name}={value!r} must be a positive integer{' or None' if optional else ''}.")
    if not optional:
        refuse_huge(name, value)


def refuse_huge(name: str, count: Any, most: int = _MOST) -> None:
    """Raise a ValueError if a count is larger than NumPy takes for the size of an array."""
    if count > most:
        raise ValueError(f"{name}={count!r} must be at most {most:,}.")


def check_n_jobs(n_jobs: object) -> None:
    """Raise a ValueError unless `n_jobs` is None or an integer other than zero."""
    if not (n_jobs is None or (is_integer(n_jobs) and -(2**31) < n_jobs < 2**31 and n_jobs)):  # type: ignore[operator]
        raise ValueError(f"n_jobs={n_jobs!r} must be None, a positive integer, or -1 for all cores.")


def check_verbose(verbose: object) -> None:
    """Raise a ValueError unless `verbose` is True, False or an integer from 0 on."""
    if not (isinstance(verbose, (bool, np.bool)) or (is_integer(verbose) and verbose >= 0)):  # type: ignore[operator]
        raise ValueError(f"verbose={verbose!r} must be True, False or an integer from 0 on.")


def check_random_state(random_state: object) -> None:
    """Raise a ValueError unless `random_state` is None, an integer from 0 on, or a Generator."""
    if not (random_state is None or isinstance(random_state, np.random.Generator) or is_seed(random_state)):
        raise ValueError(f"random_state={random_state!r} must be None, an integer from 0 on, or a Generator.")


def make_generator(random_state: Any) -> np.random.Generator:
    """Random generator of a seed that `check_random_state` takes; a Generator is returned as it is."""
    check_random_state(random_state)
    return np.random.default_rng(random_state)


def is_seed(value: object) -> bool:
    """Whether the value is an integer from 0 on."""
    return (is_integer(value) or isinstance(value, bool)) and value >= 0  # type: ignore[operator]


def is_integer(value: object) -> bool:
    """Whether the value is an integer, and no bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
