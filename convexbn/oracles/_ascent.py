"""The linear minimisation oracle in practice: local maxima of |V^T relu(Zw)|, by ascent from many starts at once."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from convexbn._utils.checks import check_count, make_generator
from convexbn._utils.magnitude import power_of_two_above
from convexbn._utils.threads import on_one_thread
from convexbn.model._outputs import OutputDirections, output_directions
from convexbn.model._sums import along_rows
from convexbn.operators import Operator
from convexbn.oracles._checked_dual import checked_dual
from convexbn.oracles._distinct import distinct
from convexbn.oracles._kink_program import solve_kink_program
from convexbn.oracles._kinks import Kinks, nearest, shared_kinks, sided_products
from convexbn.oracles._price import Price

_SORTING_STEPS, _STEPS = 12, 20  # of all starts, then of the best quarter
# Steps 1 / (a + b * t), of half of the starts each: long ones leave small maxima for larger ones far away, short ones
# find the maximum near by, however small the cone from which it is reached.
_LONG_STEPS, _SHORT_STEPS = (1, 0.3), (5, 1)
_SORTING_ROWS = 10_000  # of Z, about as many of them sort the starts
_BLOCK_ENTRIES, _BLOCK_COLUMNS = 2**20, 64  # of the products Z W made at once, at least so many columns
_POLISHED_ENTRIES = 2**23  # of Z times directions that are polished at once, and of the normals of their kinks
_POLISH_STEPS, _KINKS = 16, 150  # kinks near a direction that hold it, at most
_POLISHED, _POLISHED_WORK = 1200, 3e7  # ends polished at most, and that number times k^3
_POLISHED_GAIN, _OF_EXCESS = 1e-9, 0.02  # of a step, below which a direction is polished; and as a share of its excess
_POLISHED_RTOL = 1e-3  # of a step's program: later steps make up for it
_UNFORESEEN = 1e-6  # share of its gain that a step's model is wrong by where no other kink was crossed
_POLISHABLE = 0.9  # of the threshold: ends of a lower price are not polished
_SAME_END, _SAME_MAXIMUM = 1 - 1e-4, 1 - 1e-7  # cosines above which two of them count as one

Stop = Callable[[], bool] | None


@dataclass(frozen=True, eq=False)
class LocalMaxima:
    """Local maxima of c^T V^T relu(Zw) over unit directions w and unit output directions c, the largest first.

    Parameters
    ----------
    directions : ndarray of shape (k, p)
        Unit directions, one a column.
    output_directions : ndarray of shape (p, C)
        Unit output directions, one a row; for one output the signs +1 and -1.
    prices : ndarray of shape (p,)
        The values, from the largest downwards.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.oracles import find_local_maxima
    >>> maxima = find_local_maxima(DesignMatrix(np.eye(2)), np.array([[3.0], [-4.0]]), np.eye(2) + 0.1)
    >>> len(maxima), maxima.prices
    (2, array([4., 3.]))
    """

    directions: np.ndarray
    output_directions: np.ndarray
    prices: np.ndarray

    def __len__(self) -> int:
        return len(self.prices)


def find_local_maxima(
    Z: Operator,
    v: np.ndarray,
    starts: np.ndarray,
    *,
    threshold: float = 0.0,
    count: int = 10,
    polish: bool = True,
    stop: Stop = None,
) -> LocalMaxima:
    """Distinct local maxima of the price ``|V^T relu(Zw)|``, reached from given starts.

    The ascent moves all starts at once, by conditional-gradient steps on the unit ball, ``w <- (1 - t) w + t g/|g|``
    with ``g = Z^T D(w) V c``. With one output every start ascends with both signs c; with several, c follows w as the
    direction of V^T relu(Zw). Local maxima lie on kinks of rows with v_i·c < 0, near which the price is concave; so
    the best ends are polished by proximal steps that hold these kinks exactly, as in `solve_kink_program`.

    Parameters
    ----------
    Z : DesignMatrix
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
        Whether to polish; without it directions are found in a fraction of the time, and are close to maxima only.
    stop : callable or None, default=None
        Called before every step; when it returns True the best directions so far are returned.

    Returns
    -------
    maxima : LocalMaxima

    Raises
    ------
    ValueError
        If v is not of shape (n, C) or starts not of shape (k, p), one of them is not finite, or a start is zero.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.oracles import find_local_maxima
    >>> maxima = find_local_maxima(DesignMatrix(np.eye(2)), np.array([[3.0], [-4.0]]), np.eye(2) + 0.1, count=1)
    >>> maxima.prices, maxima.output_directions
    (array([4.]), array([[-1.]]))
    """
    v = checked_dual(Z, v)
    if np.ndim(starts) != 2 or len(starts) != Z.n_columns:
        raise ValueError(f"starts must be directions of {Z.n_columns} entries, one a column; got {np.shape(starts)}.")
    if not (np.isfinite(starts).all() and starts.any(axis=0).all()):
        raise ValueError("starts must be finite directions, none of them zero.")
    if not Z.has_few_columns:
        Z, basis = Z.on_row_space
        inside = basis.T @ starts
        inside = inside[:, inside.any(axis=0)]
        found = find_local_maxima(Z, v, inside, threshold=threshold, count=count, polish=polish, stop=stop)
        return replace(found, directions=basis @ found.directions)
    (Z, Z_size), v_size = Z.of_moderate_size, power_of_two_above(v)
    Z, V, _ = Z.for_prices(v / v_size)
    outputs, threshold = output_directions(V.shape[1]), threshold / v_size / Z_size
    w, c = outputs.starts(starts / np.linalg.norm(starts, axis=0))
    w, prices = _ascend(Z, V, outputs, w, c, stop)
    kept = np.flatnonzero((prices > _POLISHABLE * threshold) & (prices > 0))
    kept = kept[np.argsort(-prices[kept], kind="stable")]
    polished = min(_POLISHED, int(_POLISHED_WORK / Z.n_columns**3), starts.shape[1] // 2)
    kept = _distinct(w, c, kept, _SAME_END, max(polished, 3 * count) if polish else count)
    w, c, prices = w[:, kept], c[:, kept], prices[kept]
    if polish:
        size = max(1, _POLISHED_ENTRIES // max(Z.n_rows, _near(Z) * (Z.n_columns + _near(Z))))
        blocks = [slice(start, start + size) for start in range(0, len(kept), size)]
        polished_prices = (_polish(Z, V, outputs, w[:, block], c[:, block], threshold, stop) for block in blocks)
        prices = np.concatenate([np.zeros(0), *polished_prices])
    best = np.argsort(-prices, kind="stable")
    best = _distinct(w, c, best[prices[best] > threshold], _SAME_MAXIMUM, count)
    along = Z.summed(along_rows, Z.place(V), weights=w[:, best])
    return LocalMaxima(w[:, best], outputs.best(along, c[:, best]).T, v_size * Z_size * prices[best])


@on_one_thread
def price_by_ascent(
    Z: Operator,
    v: np.ndarray,
    *,
    n_starts: int = 1000,
    random_state: int | np.random.Generator | None = None,
) -> Price:
    """Largest price that an ascent from random directions finds: a lower bound of the largest.

    Parameters
    ----------
    Z : DesignMatrix
        Design matrix.
    v : ndarray of shape (n, C)
        Dual point.
    n_starts : int, default=1000
        Gaussian starts; fewer where Z is sparse and they had more than four million entries.
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
    v = checked_dual(Z, v)
    check_count("n_starts", n_starts)
    count = int(min(n_starts, Z.most_directions))
    starts = make_generator(random_state).standard_normal((Z.n_columns, count))
    found = find_local_maxima(Z, v, starts, count=1)
    if len(found) == 0:
        return Price(0.0, "local")
    return Price(float(found.prices[0]), "local", found.directions[:, 0])


def _ascend(
    Z: Operator, V: np.ndarray, outputs: OutputDirections, w: np.ndarray, c: np.ndarray, stop: Stop
) -> tuple[np.ndarray, np.ndarray]:
    """Directions at the end of the ascent from the columns of w, and their prices, a block of columns at a time.

    Only the best quarter on some of the rows takes all steps; the others keep their price on these rows. Columns that
    are not begun when the ascent is stopped have the price -infinity.
    """
    ends, prices = w.copy(), np.full(w.shape[1], -np.inf)
    size = np.abs(V).max() or 1.0
    Z, V = Z.in_single_precision, (V / size).astype(np.float32)  # polishing is done in full precision
    pace = np.resize([_LONG_STEPS, _SHORT_STEPS], (w.shape[1], 2)).T.astype(np.float32)
    some = slice(None, None, max(1, Z.n_rows // _SORTING_ROWS))
    sorting, later = range(_SORTING_STEPS), range(_SORTING_STEPS, _SORTING_STEPS + _STEPS)
    columns = max(_BLOCK_COLUMNS, _BLOCK_ENTRIES // Z.n_rows)
    for start in range(0, w.shape[1], columns):
        block = slice(start, start + columns)
        arrays = w[:, block].astype(np.float32), c[:, block].astype(np.float32), pace[:, block]
        moved, found = _ascend_block(Z.of_samples(some), V[some], outputs, *arrays, sorting, stop)
        best = np.argsort(-found, kind="stable")[: -(-len(found) // 4)]
        arrays = moved[:, best], arrays[1][:, best], arrays[2][:, best]
        moved[:, best], found[best] = _ascend_block(Z, V, outputs, *arrays, later, stop)
        ends[:, block], prices[block] = moved, size * found
        if stop is not None and stop():
            break
    return ends / np.maximum(np.linalg.norm(ends, axis=0), np.finfo(float).tiny), prices


def _ascend_block(
    Z: Operator,
    V: np.ndarray,
    outputs: OutputDirections,
    w: np.ndarray,
    c: np.ndarray,
    pace: np.ndarray,
    steps: range,
    stop: Stop,
) -> tuple[np.ndarray, np.ndarray]:
    """Directions after these steps, or the start where that prices higher, and their prices."""
    placed = Z.place(V)

    def priced(w: np.ndarray) -> np.ndarray:
        along = Z.summed(along_rows, placed, weights=w)
        return (outputs.best(along, c) * along).sum(axis=0)

    gradient_of, tiny = outputs.gradient(Z, V), np.finfo(np.float32).tiny
    start, start_prices = w, priced(w)
    for step in steps:
        if stop is not None and stop():
            break
        gradient = gradient_of(w, c)
        t = 1 / (pace[0] + pace[1] * np.float32(step))
        gradient *= t / (np.linalg.norm(gradient, axis=0) + tiny)
        w = (1 - t) * w + gradient
        w /= np.linalg.norm(w, axis=0) + tiny
    prices = priced(w)
    return np.where(prices > start_prices, w, start), np.maximum(prices, start_prices)


def _near(Z: Operator) -> int:
    """How many kinks hold a direction that is polished."""
    return min(3 * Z.n_columns, len(Z.hyperplanes.first), _KINKS)


def _polish(
    Z: Operator,
    V: np.ndarray,
    outputs: OutputDirections,
    w: np.ndarray,
    c: np.ndarray,
    threshold: float,
    stop: Stop,
) -> np.ndarray:
    """Move unit directions w (k, p) to the local maxima near them, in place; their prices.

    A step is taken with the output direction c held, which can only raise the price, and c follows. It ends at the
    largest value of its model, ``(Z^T D v)·w`` less what the nearest kinks take; where the price there is the value of
    the model, it is a local maximum. Later steps gain less than earlier ones: directions that another gain of the last
    size would leave below the threshold stay, and those whose last gain is a small share of their excess over a
    positive threshold. Of directions that come close to each other only the one of the highest price goes on, and the
    price of the others is zero.
    """
    placed, shared = Z.place(V), shared_kinks(Z, V)

    def priced(w: np.ndarray, c: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
        """Products Z W, which stay where the rows are, output directions and prices."""
        inner = Z.hold(sided_products, *shared, S=w)
        along = Z.summed(_along, placed, inner)
        c = outputs.best(along, c)
        return inner, c, (c * along).sum(axis=0)

    inner, best, prices = priced(w, c)
    moving = columns = np.arange(w.shape[1])
    for _ in range(_POLISH_STEPS):
        kept = prices[moving] > 0
        moving, columns, best = moving[kept], columns[kept], best[:, kept]
        if len(moving) == 0 or (stop is not None and stop()):
            break
        length = prices[moving]
        scaled = w[:, moving] * length
        along, kinks = Z.summed(_corners, placed, inner, *shared, columns=columns, c=best, n_kinks=_near(Z))
        A, b, slope = kinks.program()
        b = b * length[:, None]
        step, _ = solve_kink_program(None, (scaled - along).T.ravel(), A, b, slope, rtol=_POLISHED_RTOL, stop=stop)
        step = step.reshape(len(moving), -1)
        moved = scaled + step.T
        size = np.maximum(np.linalg.norm(moved, axis=0), np.finfo(float).tiny)
        beyond = np.maximum(np.matmul(A, step[:, :, None])[:, :, 0] - b, 0)
        model = ((along * moved).sum(axis=0) - (slope * beyond).sum(axis=1)) / size
        moved /= size
        inner, best, new_prices = priced(moved, c[:, moving])
        better = new_prices > length
        w[:, moving[better]], prices[moving[better]] = moved[:, better], new_prices[better]
        gain = new_prices / length - 1
        excess = new_prices / threshold - 1 if threshold > 0 else 0.0
        enough = np.maximum(_POLISHED_GAIN, _OF_EXCESS * excess)
        unforeseen = np.abs(new_prices - model) > np.maximum(_POLISHED_GAIN, _UNFORESEEN * gain) * length
        goes_on = unforeseen & (gain > enough) & (new_prices * (1 + gain) > threshold)
        twins = _twins(w[:, moving], c[:, moving], prices[moving])
        prices[moving[twins]] = 0
        goes_on &= ~twins
        moving, columns, best = moving[goes_on], np.flatnonzero(goes_on), best[:, goes_on]
    return prices


def _twins(w: np.ndarray, c: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """Which of the columns are close to one of the same sign and a higher price."""
    close = (w.T @ w > _SAME_END) & (c[0, :, None] == c[0])
    rank = np.argsort(np.argsort(-prices, kind="stable"))
    return (close & (rank[:, None] < rank)).any(axis=0)


def _along(Z: Any, V: Any, inner: Any) -> Any:
    """V^T relu(Z W) (C, p)."""
    return V.T @ Z.xp.clip(inner, 0.0, np.inf)


def _corners(Z: Any, V: Any, inner: Any, *shared: Any, columns: Any, c: Any, n_kinks: int) -> tuple[Any, Kinks]:
    """Z^T D(w) V c (k, p) of some directions with output directions c (C, p), and their nearest kinks."""
    inner, v = Z.xp.take(inner, columns, axis=1), V @ c
    kinks = nearest(Z, inner, shared[1] @ c if shared else v, n_kinks)
    return Z.adjoint(Z.cast(inner > 0) * v), kinks


def _distinct(w: np.ndarray, c: np.ndarray, order: np.ndarray, cosine: float, count: int) -> np.ndarray:
    """The first of the columns named in `order` that are not close to an earlier one of the same sign.

    The sign is c, for one output; for several, where c follows the direction, the c held are all zero.
    """
    candidates, signs = np.ascontiguousarray(w[:, order].T), c[0, order]

    def close(some: np.ndarray, others: np.ndarray) -> np.ndarray:
        return (candidates[some] @ candidates[others].T > cosine) & (signs[some, None] == signs[others])

    return order[distinct(count, len(order), close)]
