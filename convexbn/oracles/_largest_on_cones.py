"""Concave maximisation on many simplicial cones at once, by an interior point method."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

_CENTRING = 0.1  # of the mean complementarity product
_TO_BOUNDARY = 0.95  # fraction of the step to the boundary that is taken
_RIDGE = 400  # of rounding, keeps systems of thin cones invertible; what it changes is bounded as a residual
LOOSE = 1.1  # ratio of the bound to what is attained, above which a cone above the target goes on
_TINY = 1e-12  # where no price exceeds one


@dataclass(frozen=True, eq=False)
class Maxima:
    """Largest ``values·a - linear·w - sum_j relu(rows_j·w)`` over ``w = a @ generators``, ``a >= 0``, ``|w| <= 1``.

    Parameters
    ----------
    bounds : ndarray of shape (B,)
        Upper bounds, proved apart from rounding.
    weights : ndarray of shape (B, k)
        Coordinates a >= 0 of unit vectors w.
    attained : ndarray of shape (B,)
        What these attain.
    """

    bounds: np.ndarray
    weights: np.ndarray
    attained: np.ndarray


def largest_on_cones(
    generators: np.ndarray,
    values: np.ndarray,
    linear: np.ndarray,
    rows: np.ndarray,
    target: float,
    dtype: DTypeLike = np.float64,
    max_steps: int = 30,
) -> Maxima:
    """Concave, positively homogeneous functions maximised over the part of their cones in the unit ball.

    The largest value is the length of the maximiser of ``values·a - linear·w - sum_j relu(rows_j·w) - |w|^2 / 2``, a
    quadratic program, solved by a primal-dual interior point method with systems of k equations; a relu has the
    multiplier ``l`` in [0, 1] and is the largest of 0 and its argument. Whatever the l, ``|b|`` is an upper bound for
    every b with ``b·u_t >= r_t = values_t - (linear + sum_j l_j rows_j)·u_t``; should w itself miss that by d, it is
    ``|w| + d sum(a)`` for ``|w| <= 1``, and that sum is at most sqrt(k) for unit vectors of one orthant. So any iterate
    gives a bound. A cone is left as soon as it is known to be below or above the target.

    Parameters
    ----------
    generators : ndarray of shape (B, k, k)
        Unit vectors, row t of a cone is u_t. Those of a cone lie in one orthant.
    values : ndarray of shape (B, k)
        Coefficients of the coordinates a.
    linear : ndarray of shape (k,)
        Linear function that is subtracted.
    rows : ndarray of shape (m, k)
        Rows of the relus that are subtracted.
    target : float
        Bounds need not be told apart on either side of it.
    dtype : {np.float64, np.float32}, default=np.float64
        Precision of the steps. In single precision they take half the time and come within about 1e-6; the bounds are
        those of the last iterates, in double precision.
    max_steps : int, default=30
        At most so many; more are needed only where the target is close to the largest value.

    Returns
    -------
    maxima : Maxima

    References
    ----------
    .. [1] Wright, "Primal-Dual Interior-Point Methods", SIAM 1997.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.oracles._largest_on_cones import largest_on_cones
    >>> maxima = largest_on_cones(np.eye(2)[None], np.array([[3.0, 4.0]]), np.zeros(2), np.zeros((0, 2)), 5.0)
    >>> maxima.bounds.round(4), maxima.weights.round(2)
    (array([5.]), array([[0.6, 0.8]]))
    """
    n_cones, k = values.shape
    m = len(rows)
    bounds, attained = np.full(n_cones, np.inf), np.full(n_cones, -np.inf)
    best = np.full((n_cones, k), 1.0)
    left = np.arange(n_cones)
    U, v, R = (x.astype(dtype) for x in (generators, values - generators @ linear, rows))
    ridge, tiny = _RIDGE * np.finfo(v.dtype).eps, np.finfo(v.dtype).epsneg
    squares = (R[:, :, None] * R[:, None, :]).reshape(m, k * k)
    size = np.abs(v).max(axis=1, keepdims=True) + v.dtype.type(_TINY)
    a = np.repeat(size / k, k, axis=1)
    gram = U @ U.transpose(0, 2, 1)
    w = _combined(a, U)
    t = w @ R.T
    # Multipliers l of t <= y and 1 - l of 0 <= y, where y is the relu; slack s of a >= 0.
    width = np.abs(t).sum(axis=1, keepdims=True) / max(m, 1) + v.dtype.type(_TINY) * size
    l = 0.5 + 0.48 * t / (np.abs(t) + width)  # noqa: E741
    y = np.maximum(t, 0) + 0.3 * width
    above = y - t
    s = np.maximum(_combined(a, gram) - v + _along(U, l @ R), 0) + 0.1 * size
    for left_steps in reversed(range(max_steps)):
        rest = np.maximum(1 - l, tiny)
        product = np.vecdot(a, s) + np.vecdot(above, l) + np.vecdot(y, rest)
        mu = _CENTRING / (k + 2 * m) * product[:, None]
        curvature = l * rest / (above * rest + l * y)
        shift = curvature * (t + mu / l - mu / rest)
        system = gram + U @ (curvature @ squares).reshape(-1, k, k) @ U.transpose(0, 2, 1)
        system[:, range(k), range(k)] *= 1 + ridge
        system[:, range(k), range(k)] += s / a
        residual = v - _combined(a, gram) - _along(U, (l + shift) @ R) + mu / a
        da = np.linalg.solve(system, residual[:, :, None])[:, :, 0]
        dw = _combined(da, U)
        dt = dw @ R.T
        dl = curvature * dt + shift
        dy = (mu + y * dl) / rest - y
        steps = [(a, da), (s, (mu - s * da) / a - s), (l, dl), (y, dy), (above, dy - dt)]
        fastest = [-(change / x).min(axis=1, initial=-_TO_BOUNDARY) for x, change in steps]
        fastest.append((dl / rest).max(axis=1, initial=_TO_BOUNDARY))
        step = (_TO_BOUNDARY / np.max(fastest, axis=0))[:, None]
        a, s, l, y, above = (x + step * change for x, change in steps)  # noqa: E741
        w, t = w + step * dw, t + step * dt
        length = np.linalg.norm(w, axis=1)
        bound = length + np.sqrt(k) * np.maximum((v - _along(U, l @ R + w)).max(axis=1), 0)
        reached = (np.vecdot(a, v) - np.maximum(t, 0).sum(axis=1)) / length
        better = reached > attained[left]
        attained[left[better]], best[left[better]] = reached[better], a[better]
        goes_on = (bound > target) & ((reached <= target) | (bound > LOOSE * reached)) & (left_steps > 0)
        if goes_on.sum() < 0.8 * len(goes_on):
            ended = left[~goes_on]
            bounds[ended] = _bounds(
                generators[ended], values[ended] - generators[ended] @ linear, rows, a[~goes_on], l[~goes_on]
            )
            left = left[goes_on]
            U, gram, v, a, s, w, t, l, y, above = (x[goes_on] for x in (U, gram, v, a, s, w, t, l, y, above))  # noqa: E741
        if not goes_on.any():
            break
    return Maxima(bounds, best / np.linalg.norm(_combined(best, generators), axis=1, keepdims=True), attained)


def _bounds(U: np.ndarray, v: np.ndarray, rows: np.ndarray, a: np.ndarray, l: np.ndarray) -> np.ndarray:  # noqa: E741
    """Upper bounds that iterates prove, in double precision; infinite where an iterate is not finite."""
    w = _combined(a.astype(np.float64), U)
    missed = (v - _along(U, np.clip(l, 0, 1).astype(np.float64) @ rows + w)).max(axis=1)
    return np.nan_to_num(np.linalg.norm(w, axis=1) + np.sqrt(w.shape[1]) * np.maximum(missed, 0), nan=np.inf)


def _combined(a: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Combinations (B, k) of the rows of each of (B, k, k)."""
    return (a[:, None, :] @ vectors)[:, 0]


def _along(vectors: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Products (B, k) of the rows of each of (B, k, k) with a vector each."""
    return (vectors @ w[:, :, None])[:, :, 0]
