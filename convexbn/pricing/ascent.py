"""Local maxima of the price, by ascent from many starts at once."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import lsq_linear

from convexbn.matrix import DesignMatrix
from convexbn.pricing.price import Price

_N_STEPS = 40
_STEP_DECAY = 0.3  # step 1 / (1 + decay * t): long steps leave poor maxima, short ones find the good one near by
_BLOCK_ENTRIES = 2**22  # entries of the products Z W made at once
_POLISH_STEPS = 8
_SAME = 1 - 1e-4  # cosine above which two ends of the ascent are taken for one maximum


@dataclass(frozen=True, eq=False)
class Peaks:
    """Local maxima of sign * v^T relu(Zw) over unit directions w, the dearest first.

    Parameters
    ----------
    directions : ndarray of shape (k, p)
        Unit directions, one a column.
    signs : ndarray of shape (p,)
        Output signs +1 and -1.
    prices : ndarray of shape (p,)
        Their prices, from the largest downwards.
    """

    directions: np.ndarray
    signs: np.ndarray
    prices: np.ndarray

    def __len__(self) -> int:
        return len(self.prices)


def find_peaks(Z: DesignMatrix, v: np.ndarray, starts: np.ndarray, *, threshold: float = 0.0, count: int = 10) -> Peaks:
    """Distinct local maxima of the price, reached from given starts with both signs.

    The ascent moves all starts at once, by conditional-gradient steps on the unit ball, ``w <- (1 - t) w + t g/|g|``
    with ``g = Z^T D(w) v``; local maxima lie on kinks of rows with v_i < 0, so the best ends are polished: with the rows
    near them free to be on either side of their kink, the price is concave, and its maximum over the ball the length of
    ``Z^T D v - sum_i alpha_i v_i z_i`` at its least over ``0 <= alpha_i <= 1``.

    Parameters
    ----------
    Z : DesignMatrix
        Design matrix.
    v : ndarray of shape (n, 1)
        Dual point.
    starts : ndarray of shape (k, p)
        Directions of any positive length.
    threshold : float, default=0.0
        Maxima that price no higher are left out.
    count : int, default=10
        How many to return at most.

    Returns
    -------
    peaks : Peaks

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.matrix import DesignMatrix
    >>> from convexbn.pricing.ascent import find_peaks
    >>> peaks = find_peaks(DesignMatrix(np.eye(2)), np.array([[3.0], [-4.0]]), np.eye(2) + 0.1, count=1)
    >>> peaks.prices, peaks.signs
    (array([4.]), array([-1.]))
    """
    rows = Z.unpool(v)[:, 0]
    signs = np.repeat([1.0, -1.0], starts.shape[1])
    ends, prices = _ascend(Z.Z, rows, np.tile(starts / np.linalg.norm(starts, axis=0), 2), signs)
    found_w: list[np.ndarray] = []
    found: list[tuple[float, float]] = []  # price, sign
    seen = np.zeros((len(starts), 0))
    seen_signs = np.zeros(0)
    # An end that the ascent left one percent below the threshold may still polish to above it.
    for i in np.argsort(-prices, kind="stable"):
        if prices[i] <= 0.99 * threshold or prices[i] <= 0 or len(found) == 4 * count:
            break
        if ((ends[:, i] @ seen > _SAME) & (seen_signs == signs[i])).any():
            continue
        w, price = _polish(Z, signs[i] * rows, ends[:, i])
        known = ((w @ seen > 1 - 1e-9) & (seen_signs == signs[i])).any()
        seen = np.column_stack([seen, ends[:, i], w])
        seen_signs = np.append(seen_signs, [signs[i], signs[i]])
        if price > threshold and not known:
            found_w.append(w)
            found.append((price, signs[i]))
    order = sorted(range(len(found)), key=lambda i: -found[i][0])[:count]
    return Peaks(
        np.array([found_w[i] for i in order]).reshape(-1, len(starts)).T,
        np.array([found[i][1] for i in order]),
        np.array([found[i][0] for i in order]),
    )


def price_by_ascent(
    Z: DesignMatrix,
    v: np.ndarray,
    *,
    n_starts: int = 1000,
    random_state: int | np.random.Generator | None = None,
) -> Price:
    """Largest price that an ascent from random directions finds: evidence, no bound.

    Parameters
    ----------
    Z : DesignMatrix
        Design matrix.
    v : ndarray of shape (n, 1)
        Dual point.
    n_starts : int, default=1000
        Gaussian starts.
    random_state : int, Generator or None, default=None
        Seed of the starts.

    Returns
    -------
    price : Price
        Scope "local".

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.matrix import DesignMatrix
    >>> from convexbn.pricing import price_by_ascent
    >>> price = price_by_ascent(DesignMatrix(np.eye(2)), np.array([[3.0], [-4.0]]), random_state=0)
    >>> price.value, price.scope
    (4.0, 'local')
    """
    starts = np.random.default_rng(random_state).standard_normal((Z.n_columns, n_starts))
    peaks = find_peaks(Z, v, starts, count=1)
    if len(peaks) == 0:
        return Price(0.0, "local")
    return Price(float(peaks.prices[0]), "local", peaks.directions[:, 0])


def _ascend(Z: np.ndarray, v: np.ndarray, W: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best directions on the way from the columns of W, and their prices, a block of columns at a time."""
    best, best_prices = np.empty_like(W), np.empty(W.shape[1])
    size = max(1, _BLOCK_ENTRIES // len(Z))
    for start in range(0, W.shape[1], size):
        block = slice(start, start + size)
        best[:, block], best_prices[block] = _ascend_block(Z, v, W[:, block], signs[block])
    return best, best_prices


def _ascend_block(Z: np.ndarray, v: np.ndarray, w: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    best, best_prices = w.copy(), np.full(w.shape[1], -np.inf)
    tiny = np.finfo(float).tiny
    signed = v[:, None] * signs
    for step in range(_N_STEPS):
        gradient = Z.T @ ((Z @ w > 0) * signed)
        prices = (gradient * w).sum(axis=0)
        better = prices > best_prices
        best_prices[better], best[:, better] = prices[better], w[:, better]
        t = 1 / (1 + _STEP_DECAY * step)
        w = (1 - t) * w + t * gradient / (np.linalg.norm(gradient, axis=0) + tiny)
        w = w / (np.linalg.norm(w, axis=0) + tiny)
    return best, best_prices


def _polish(Z: DesignMatrix, v: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, float]:
    """Local maximum of v^T relu(Zw) near w, and its price; v (N,)."""
    n_near = min(3 * Z.n_columns, Z.n_rows, 150)
    inner = Z.Z @ w
    price = float(v @ np.maximum(inner, 0))
    distance = np.divide(np.abs(inner), Z.row_norms, where=Z.row_norms > 0, out=np.full(Z.n_rows, np.inf))
    for _ in range(_POLISH_STEPS):
        distance[v >= 0] = np.inf
        near = np.argpartition(distance, n_near - 1)[:n_near]
        near = near[np.isfinite(distance[near])]
        on = inner > 0
        on[near] = False
        adjoint = Z.Z.T @ (on * v)
        if len(near):
            kinks = -(Z.Z[near] * v[near, None]).T
            adjoint = adjoint - kinks @ lsq_linear(kinks, adjoint, bounds=(0, 1), method="bvls", tol=1e-14).x
        length = np.linalg.norm(adjoint)
        if length == 0:
            break
        moved = adjoint / length
        inner = Z.Z @ moved
        new_price = float(v @ np.maximum(inner, 0))
        if new_price <= price * (1 + 1e-15):
            break
        w, price = moved, new_price
        distance = np.divide(np.abs(inner), Z.row_norms, where=Z.row_norms > 0, out=np.full(Z.n_rows, np.inf))
    return w, price
