"""Local maxima of the price, by ascent from many starts at once."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from convexbn._utils.magnitude import power_of_two_above
from convexbn._utils.threads import on_one_thread
from convexbn.operators._protocol import Operator
from convexbn.oracles._kink_program import nearest_kinks, solve_kink_program
from convexbn.oracles._price import Price

_SORTING_STEPS, _STEPS = 12, 20  # of all starts, then of the dearest quarter
# Steps 1 / (a + b * t), of half of the starts each: long ones leave poor maxima for better ones far away, short ones
# find the maximum near by, however small the cone from which it is reached.
_LONG_STEPS, _SHORT_STEPS = (1, 0.3), (5, 1)
_SORTING_ROWS = 10_000  # of Z, about as many of them sort the starts
_BLOCK_ENTRIES, _BLOCK_COLUMNS = 2**20, 64  # of the products Z W made at once, at least so many columns
_POLISHED_ENTRIES = 2**23  # of Z times directions that are polished at once, and of the normals of their kinks
_POLISH_STEPS, _KINKS = 8, 150  # kinks near a direction that hold it, at most
_POLISHED, _POLISHED_WORK = 300, 3e7  # ends polished at most, and that number times k^3
_SAME_END, _SAME_PEAK = 1 - 1e-4, 1 - 1e-9  # cosines above which two of them are taken for one


@dataclass(frozen=True, eq=False)
class Peaks:
    """Local maxima of c^T V^T relu(Zw) over unit directions w and unit output directions c, the dearest first.

    Parameters
    ----------
    directions : ndarray of shape (k, p)
        Unit directions, one a column.
    output_directions : ndarray of shape (p, C)
        Unit output directions, one a row; for one output the signs +1 and -1.
    prices : ndarray of shape (p,)
        Their prices, from the largest downwards.
    """

    directions: np.ndarray
    output_directions: np.ndarray
    prices: np.ndarray

    def __len__(self) -> int:
        return len(self.prices)


def find_peaks(
    Z: Operator,
    v: np.ndarray,
    starts: np.ndarray,
    *,
    threshold: float = 0.0,
    count: int = 10,
    polish: bool = True,
    stop: Callable[[], bool] | None = None,
) -> Peaks:
    """Distinct local maxima of the price ``|V^T relu(Zw)|``, reached from given starts.

    The ascent moves all starts at once, by conditional-gradient steps on the unit ball, ``w <- (1 - t) w + t g/|g|``
    with ``g = Z^T D(w) V c``. With one output every start ascends with both signs c; with several, c follows w as the
    direction of V^T relu(Zw). Local maxima lie on kinks of rows with v_i·c < 0, near which the price is concave; so
    the best ends are polished by proximal steps that hold these kinks exactly, as in `solve_kink_program`.

    Parameters
    ----------
    Z : Operator
        Design matrix.
    v : ndarray of shape (n, C)
        Dual point.
    starts : ndarray of shape (k, p)
        Directions of any positive length.
    threshold : float, default=0.0
        Maxima that price no higher are left out.
    count : int, default=10
        How many to return at most.
    polish : bool, default=True
        Whether to polish; without it ends are found in a fraction of the time, a little off their maxima.
    stop : callable or None, default=None
        Asked before every step; when it says True the best directions so far are returned.

    Returns
    -------
    peaks : Peaks

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.oracles import find_peaks
    >>> peaks = find_peaks(DesignMatrix(np.eye(2)), np.array([[3.0], [-4.0]]), np.eye(2) + 0.1, count=1)
    >>> peaks.prices, peaks.output_directions
    (array([4.]), array([[-1.]]))
    """
    if Z.n_columns > Z.n_rows:
        Z, basis = Z.on_row_space
        peaks = find_peaks(Z, v, basis.T @ starts, threshold=threshold, count=count, polish=polish, stop=stop)
        return replace(peaks, directions=basis @ peaks.directions)
    (Z, Z_size), v_size = Z.of_moderate_size, power_of_two_above(v)
    Z, V, _ = Z.for_prices(v / v_size)
    threshold = threshold / v_size / Z_size
    # One output direction a start: +1 and -1 stay as they are, those of several outputs follow the direction.
    n_signs = 2 if V.shape[1] == 1 else 1
    signs = np.repeat([1.0, -1.0][:n_signs], starts.shape[1])
    ends, prices = _ascend(Z, V, np.tile(starts / np.linalg.norm(starts, axis=0), n_signs), signs, stop)
    # An end that the ascent left one percent below the threshold may still polish to above it.
    dear = np.flatnonzero((prices > 0.99 * threshold) & (prices > 0))
    dear = dear[np.argsort(-prices[dear], kind="stable")]
    polished = min(_POLISHED, int(_POLISHED_WORK / Z.n_columns**3), starts.shape[1] // 5)
    dear = _distinct(ends, signs, dear, _SAME_END, max(polished, 3 * count) if polish else count)
    ends, signs = ends[:, dear], signs[dear]
    prices = prices[dear]
    if polish:
        size = max(1, _POLISHED_ENTRIES // max(Z.n_rows, _near(Z) * (Z.n_columns + _near(Z))))
        blocks = [slice(start, start + size) for start in range(0, len(signs), size)]
        prices = np.concatenate([np.zeros(0), *(_polish(Z, V, ends[:, block], signs[block], stop) for block in blocks)])
    best = np.argsort(-prices, kind="stable")
    best = _distinct(ends, signs, best[prices[best] > threshold], _SAME_PEAK, count)
    directions = ends[:, best]
    return Peaks(directions, _output_directions(Z @ directions, V, signs[best]).T, v_size * Z_size * prices[best])


@on_one_thread
def price_by_ascent(
    Z: Operator,
    v: np.ndarray,
    *,
    n_starts: int = 1000,
    random_state: int | np.random.Generator | None = None,
) -> Price:
    """Largest price that an ascent from random directions finds: evidence, no bound.

    Parameters
    ----------
    Z : Operator
        Design matrix.
    v : ndarray of shape (n, C)
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
    >>> from convexbn import DesignMatrix
    >>> from convexbn.oracles import price_by_ascent
    >>> price = price_by_ascent(DesignMatrix(np.eye(2)), np.array([[3.0], [-4.0]]), random_state=0)
    >>> round(price.value, 9), price.scope
    (4.0, 'local')
    """
    starts = np.random.default_rng(random_state).standard_normal((Z.n_columns, n_starts))
    peaks = find_peaks(Z, v, starts, count=1)
    if len(peaks) == 0:
        return Price(0.0, "local")
    return Price(float(peaks.prices[0]), "local", peaks.directions[:, 0])


def _output_directions(inner: np.ndarray, V: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Output direction of each column of Z W (N, p): its sign, or the direction of V^T relu(Zw); shape (C, p)."""
    if V.shape[1] == 1:
        return signs[None]
    along = V.T @ np.maximum(inner, 0)
    return along / np.maximum(np.linalg.norm(along, axis=0), np.finfo(V.dtype).tiny)


def _ascend(
    Z: Operator, V: np.ndarray, W: np.ndarray, signs: np.ndarray, stop: Callable[[], bool] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Directions at the end of the ascent from the columns of W, and their prices, a block of columns at a time.

    Only the quarter that is dearest on some of the rows climbs to the end; the others keep their price on these rows.
    Those whose turn has not come when the ascent is stopped have no price.
    """
    ends, prices = W.copy(), np.full(W.shape[1], -np.inf)
    unit = np.abs(V).max() or 1.0
    Z32, V32 = Z.in_single_precision, (V / unit).astype(np.float32)  # polishing is done in full precision
    pace = np.resize([_LONG_STEPS, _SHORT_STEPS], (W.shape[1], 2)).T.astype(np.float32)
    some = slice(None, None, max(1, Z.n_rows // _SORTING_ROWS))
    size = max(_BLOCK_COLUMNS, _BLOCK_ENTRIES // Z.n_rows)
    for start in range(0, W.shape[1], size):
        block = slice(start, start + size)
        w, sign = W[:, block].astype(np.float32), signs[block].astype(np.float32)
        w, price = _ascend_block(Z32.of_samples(some), V32[some], w, sign, pace[:, block], range(_SORTING_STEPS), stop)
        dearest = np.argsort(-price, kind="stable")[: -(-len(price) // 4)]
        later = range(_SORTING_STEPS, _SORTING_STEPS + _STEPS)
        w[:, dearest], price[dearest] = _ascend_block(
            Z32, V32, w[:, dearest], sign[dearest], pace[:, block][:, dearest], later, stop
        )
        ends[:, block], prices[block] = w, unit * price
        if stop is not None and stop():
            break
    return ends / np.maximum(np.linalg.norm(ends, axis=0), np.finfo(float).tiny), prices


def _ascend_block(
    Z: Operator,
    V: np.ndarray,
    w: np.ndarray,
    signs: np.ndarray,
    pace: np.ndarray,
    steps: range,
    stop: Callable[[], bool] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Directions after these steps, or the start where that is dearer, and their prices."""
    one_output = V.shape[1] == 1
    weighted = Z.weighted(V) if one_output else Z
    tiny = np.finfo(np.float32).tiny
    start, start_prices = w, _prices(Z, V, w, signs)
    for step in steps:
        if stop is not None and stop():
            break
        inner = Z @ w
        if one_output:
            gradient = weighted.adjoint(np.greater(inner, 0, out=inner))
        else:
            gradient = weighted.adjoint((inner > 0) * (V @ _output_directions(inner, V, signs)))
        t = 1 / (pace[0] + pace[1] * np.float32(step))
        gradient *= signs * t / (np.linalg.norm(gradient, axis=0) + tiny)
        w = (1 - t) * w + gradient
        w /= np.linalg.norm(w, axis=0) + tiny
    prices = _prices(Z, V, w, signs)
    return np.where(prices > start_prices, w, start), np.maximum(prices, start_prices)


def _prices(Z: Operator, V: np.ndarray, w: np.ndarray, signs: np.ndarray) -> np.ndarray:
    inner = Z @ w
    along = V.T @ np.maximum(inner, 0, out=inner)
    return signs * along[0] if len(along) == 1 else np.linalg.norm(along, axis=0)


def _near(Z: Operator) -> int:
    """How many kinks hold a direction that is polished."""
    return min(3 * Z.n_columns, Z.n_rows, _KINKS)


def _polish(
    Z: Operator, V: np.ndarray, w: np.ndarray, signs: np.ndarray, stop: Callable[[], bool] | None
) -> np.ndarray:
    """Move unit directions w (k, p) to the local maxima near them, in place; their prices.

    A step is taken with the output direction c held, which can only raise the price, and c follows.
    """

    def priced(w: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Products Z W, dual points V c (N, p), and prices."""
        inner = Z.products(w)
        v = V @ _output_directions(inner, V, signs)
        return inner, v, (v * np.maximum(inner, 0)).sum(axis=0)

    inner, v, prices = priced(w, signs)
    moving = np.arange(w.shape[1])
    for _ in range(_POLISH_STEPS):
        kept = prices[moving] > 0
        moving, inner, v = moving[kept], inner[:, kept], v[:, kept]
        if len(moving) == 0 or (stop is not None and stop()):
            break
        length = prices[moving]
        gradient = w[:, moving] * length - Z.adjoint((inner > 0) * v)
        A, b, c = nearest_kinks(Z, inner * length, v, _near(Z))
        step, _ = solve_kink_program(None, gradient.T.ravel(), A, b, c, rtol=1e-6, stop=stop)
        moved = w[:, moving] * length + step.reshape(len(moving), -1).T
        moved /= np.maximum(np.linalg.norm(moved, axis=0), np.finfo(float).tiny)
        inner, v, new_prices = priced(moved, signs[moving])
        better = new_prices > length * (1 + 1e-12)
        moving, inner, v = moving[better], inner[:, better], v[:, better]
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
