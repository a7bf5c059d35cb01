"""Local maxima of the price, by ascent from many starts at once."""

from dataclasses import dataclass

import numpy as np

from convexbn.kink_program import nearest_kinks, solve_kink_program
from convexbn.matrix import DesignMatrix
from convexbn.pricing.price import Price

_SORTING_STEPS, _STEPS = 12, 20  # of all starts, then of the dearest quarter
# Steps 1 / (a + b * t), of half of the starts each: long ones leave poor maxima for better ones far away, short ones
# find the maximum near by, however small the cone from which it is reached.
_LONG_STEPS, _SHORT_STEPS = (1, 0.3), (5, 1)
_SORTING_ROWS = 10_000  # of Z, about as many of them sort the starts
_BLOCK_ENTRIES, _BLOCK_COLUMNS = 2**20, 64  # of the products Z W made at once, at least so many columns
_POLISH_STEPS = 8
_POLISHED, _POLISHED_WORK = 300, 3e7  # ends polished at most, and that number times k^3
_SAME_END, _SAME_PEAK = 1 - 1e-4, 1 - 1e-9  # cosines above which two of them are taken for one


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
    with ``g = Z^T D(w) v``. Local maxima lie on kinks of rows with v_i < 0, near which the price is concave; so the
    best ends are polished by proximal steps that hold these kinks exactly, as in `solve_kink_program`.

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
    # An end that the ascent left one percent below the threshold may still polish to above it.
    dear = np.flatnonzero((prices > 0.99 * threshold) & (prices > 0))
    dear = dear[np.argsort(-prices[dear], kind="stable")]
    polished = min(_POLISHED, int(_POLISHED_WORK / Z.n_columns**3), starts.shape[1] // 5)
    dear = _distinct(ends, signs, dear, _SAME_END, max(polished, 3 * count))
    ends, signs = ends[:, dear], signs[dear]
    prices = _polish(Z, rows[:, None] * signs, ends)
    best = np.argsort(-prices, kind="stable")
    best = _distinct(ends, signs, best[prices[best] > threshold], _SAME_PEAK, count)
    return Peaks(ends[:, best], signs[best], prices[best])


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
    >>> round(price.value, 9), price.scope
    (4.0, 'local')
    """
    starts = np.random.default_rng(random_state).standard_normal((Z.n_columns, n_starts))
    peaks = find_peaks(Z, v, starts, count=1)
    if len(peaks) == 0:
        return Price(0.0, "local")
    return Price(float(peaks.prices[0]), "local", peaks.directions[:, 0])


def _ascend(Z: np.ndarray, v: np.ndarray, W: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions at the end of the ascent from the columns of W, and their prices, a block of columns at a time.

    Only the quarter that is dearest on some of the rows climbs to the end; the others keep their price on these rows.
    """
    ends, prices = np.empty_like(W), np.empty(W.shape[1])
    unit = np.abs(v).max() or 1.0
    Z32, v32 = Z.astype(np.float32), (v / unit).astype(np.float32)  # polishing is done in full precision
    pace = np.resize([_LONG_STEPS, _SHORT_STEPS], (W.shape[1], 2)).T.astype(np.float32)
    some = slice(None, None, max(1, len(Z) // _SORTING_ROWS))
    size = max(_BLOCK_COLUMNS, _BLOCK_ENTRIES // len(Z))
    for start in range(0, W.shape[1], size):
        block = slice(start, start + size)
        w, sign = W[:, block].astype(np.float32), signs[block].astype(np.float32)
        w, price = _ascend_block(Z32[some], v32[some], w, sign, pace[:, block], range(_SORTING_STEPS))
        dearest = np.argsort(-price, kind="stable")[: -(-len(price) // 4)]
        later = range(_SORTING_STEPS, _SORTING_STEPS + _STEPS)
        w[:, dearest], price[dearest] = _ascend_block(
            Z32, v32, w[:, dearest], sign[dearest], pace[:, block][:, dearest], later
        )
        ends[:, block], prices[block] = w, unit * price
    return ends / np.maximum(np.linalg.norm(ends, axis=0), np.finfo(float).tiny), prices


def _ascend_block(
    Z: np.ndarray, v: np.ndarray, w: np.ndarray, signs: np.ndarray, pace: np.ndarray, steps: range
) -> tuple[np.ndarray, np.ndarray]:
    """Directions after these steps, or the start where that is dearer, and their prices."""
    weighted = np.ascontiguousarray((Z * v[:, None]).T)
    tiny = np.finfo(np.float32).tiny
    start, start_prices = w, _prices(Z, v, w, signs)
    for step in steps:
        inner = Z @ w
        gradient = weighted @ np.greater(inner, 0, out=inner)
        t = 1 / (pace[0] + pace[1] * np.float32(step))
        gradient *= signs * t / (np.linalg.norm(gradient, axis=0) + tiny)
        w = (1 - t) * w + gradient
        w /= np.linalg.norm(w, axis=0) + tiny
    prices = _prices(Z, v, w, signs)
    return np.where(prices > start_prices, w, start), np.maximum(prices, start_prices)


def _prices(Z: np.ndarray, v: np.ndarray, w: np.ndarray, signs: np.ndarray) -> np.ndarray:
    inner = Z @ w
    return signs * (v @ np.maximum(inner, 0, out=inner))


def _polish(Z: DesignMatrix, v: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Move unit directions w (k, p) to the local maxima near them, in place; their prices, with a dual point each."""
    n_near = min(3 * Z.n_columns, Z.n_rows, 150)
    inner = Z.Z @ w
    prices = (v * np.maximum(inner, 0)).sum(axis=0)
    moving = np.arange(w.shape[1])
    for _ in range(_POLISH_STEPS):
        moving = moving[prices[moving] > 0]
        if len(moving) == 0:
            break
        inner, length = Z.Z @ w[:, moving], prices[moving]
        gradient = w[:, moving] * length - Z.Z.T @ ((inner > 0) * v[:, moving])
        A, b, c = nearest_kinks(Z, inner * length, v[:, moving], n_near)
        identity = np.broadcast_to(np.eye(len(w)), (len(moving), len(w), len(w)))
        step, _ = solve_kink_program(identity, gradient.T.ravel(), A, b, c, rtol=1e-6)
        moved = w[:, moving] * length + step.reshape(len(moving), -1).T
        moved /= np.maximum(np.linalg.norm(moved, axis=0), np.finfo(float).tiny)
        new_prices = (v[:, moving] * np.maximum(Z.Z @ moved, 0)).sum(axis=0)
        better = new_prices > length * (1 + 1e-12)
        moving = moving[better]
        w[:, moving], prices[moving] = moved[:, better], new_prices[better]
    return prices


def _distinct(directions: np.ndarray, signs: np.ndarray, order: np.ndarray, cosine: float, count: int) -> np.ndarray:
    """The first of the columns named in `order` that are not close to an earlier one of the same sign."""
    candidates = np.ascontiguousarray(directions[:, order].T)
    left = np.ones(len(order), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < count and left.any():
        first = int(left.argmax())
        chosen.append(first)
        left[(candidates @ candidates[first] > cosine) & (signs[order] == signs[order[first]])] = False
        left[first] = False
    return order[chosen]
