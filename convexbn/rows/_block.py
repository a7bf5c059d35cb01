"""One block of samples, and the checks of what is given as one."""

from typing import NamedTuple

import numpy as np

from convexbn._utils.checks import refuse_unusual


class Block(NamedTuple):
    """Consecutive samples: data, and targets and weights where there are any.

    Parameters
    ----------
    X : ndarray of shape (m, d)
        Data.
    y : ndarray of shape (m,) or (m, C), or None, default=None
        Targets.
    sample_weight : ndarray of shape (m,) or None, default=None
        Weights.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.rows import Block
    >>> X, y, sample_weight = Block(np.eye(2), np.ones(2))
    >>> X.shape, y.shape, sample_weight is None
    ((2, 2), (2,), True)
    """

    X: np.ndarray
    y: np.ndarray | None = None
    sample_weight: np.ndarray | None = None


def as_block(given: object, name: str) -> Block:
    """Return what the caller gave as a block: X, (X, y) or (X, y, sample_weight).

    Raises
    ------
    ValueError
        With the name of the block, if it is none of these.
    """
    parts = given if isinstance(given, tuple) else (given,)
    for what, part in zip(("X", "y", "sample_weight"), parts, strict=False):
        refuse_unusual(f"{what} of {name}", part)
    if 1 <= len(parts) <= 3:
        X, y, weights = (None if part is None else np.asarray(part) for part in (*parts, None, None)[:3])
        if X is not None and X.ndim == 2:
            return Block(X, y, weights)
    raise ValueError(
        f"{name} must be an array X of shape (m, d), or a tuple (X, y) or (X, y, sample_weight) of such an X, got "
        f"{type(given).__name__}."
    )


def float_type(dtype: np.dtype, name: str) -> np.dtype:
    """Single precision of single precision, double precision of all other real numbers; others are refused."""
    if dtype.kind not in "biuf":
        raise ValueError(f"X of {name} holds {dtype}, and must hold real numbers; encode other values as numbers.")
    return np.dtype(np.float32 if dtype == np.float32 else np.float64)


def check_data(X: np.ndarray, name: str) -> None:
    """Raise a ValueError if data has NaN or infinity."""
    if not np.isfinite(X).all():
        column = int(np.flatnonzero(~np.isfinite(X).all(axis=0))[0])
        raise ValueError(
            f"X of {name} contains NaN or infinity, first in column {column}; remove or impute these entries."
        )


def check_targets(y: np.ndarray | None, sample_weight: np.ndarray | None, name: str) -> None:
    """Raise a ValueError if targets or weights have NaN or infinity, or are objects."""
    for what, values in (("y", y), ("sample_weight", sample_weight)):
        if values is None:
            continue
        if values.dtype.kind not in ("biufUS" if what == "y" else "biuf"):
            raise ValueError(f"{what} of {name} holds {values.dtype}, and must hold numbers.")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"{what} of {name} contains NaN or infinity; remove these rows.")
