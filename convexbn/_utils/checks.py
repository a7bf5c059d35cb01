"""Checks of parameters: each raises a ValueError that names the parameter and says what it takes."""

from collections.abc import Collection
from typing import Any

import numpy as np


def real_array(name: str, values: Any) -> np.ndarray:
    """Return numbers of any real type as an array in double precision; one of doubles is not copied.

    Raises
    ------
    ValueError
        If the values are complex, strings, other objects than numbers, too large for a float, or rows of different
        lengths.
    """
    try:
        array = np.asarray(values)
        if array.dtype.kind in "biufO":
            return array.astype(np.float64, copy=False)
    except (OverflowError, TypeError, ValueError):
        pass
    raise ValueError(f"{name} must hold real numbers, in rows of one length.")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raise a ValueError unless the value is one of these strings."""
    if not (isinstance(value, str) and value in choices):
        raise ValueError(f"{name}={value!r} is unknown; choose one of {list(choices)}.")


def check_flag(name: str, value: object) -> None:
    """Raise a ValueError unless the value is True or False."""
    if not isinstance(value, (bool, np.bool)):
        raise ValueError(f"{name}={value!r} must be True or False.")


def check_count(name: str, value: object, *, optional: bool = False) -> None:
    """Raise a ValueError unless the value is a positive integer, or None where it is optional."""
    if not ((optional and value is None) or (is_integer(value) and value >= 1)):  # type: ignore[operator]
        raise ValueError(f"{name}={value!r} must be a positive integer{' or None' if optional else ''}.")


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
