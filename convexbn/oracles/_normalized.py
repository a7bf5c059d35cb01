"""The linear minimisation oracle of networks that are batch-normalized after the ReLU.

The price of a direction w is the largest |V^T h| over neurons h = relu(Zw) + shift of weighted norm 1. With the
activations a = relu(Zw), centred and divided by their standard deviation, it is the largest singular value of the two
columns V^T a and V^T 1, the second of which is zero under an output intercept. It does not depend on the length of w.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from convexbn.model._normalized_neurons import activation_statistics
from convexbn.operators import Operator
from convexbn.oracles._distinct import distinct
from convexbn.oracles._kink_program import solve_kink_program
from convexbn.oracles._kinks import nearest_kinks
from convexbn.oracles._price import Price

_SORTING_STEPS, _STEPS = 15, 60  # of all starts, then of the best quarter
_PACES = (1, 0.5), (3, 0.2), (10, 0.5)  # steps 1 / (a + b * t), of a third of the starts each
_BLOCK_ENTRIES = 2**22  # of the products Z W made at once
_POLISH_STEPS, _KINKS = 20, 3  # and kinks near a direction that hold it, in multiples of k
_POLISHED_GAIN = 1e-9  # of a step, below which a direction is polished
_POLISHABLE = 0.8  # of the threshold: ends of a lower price are not polished
_MIN_DAMPING, _MAX_DAMPING = 1e-9, 1e3  # of a step, in multiples of the mean curvature
_ROUGH = 1e-4  # standard deviation of activations, relative to the feature, below which sums are rounding
_SAME_END, _SAME = 1 - 1e-2, 1 - 1e-9  # cosines of outputs from which on two ends, and two neurons, are one

Stop = Callable[[], bool] | None


@dataclass(frozen=True, eq=False)
class NormalizedMaxima:
    """Neurons of unit norm, normalized after the ReLU, and their prices.

    Parameters
    ----------
    weights : ndarray of shape (k, p)
        Hidden weights, of the length at which a neuron is ``relu(Zw) + shift``.
    shift : ndarray of shape (p,)
        What is added to the activations.
    output_directions : ndarray of shape (p, C)
        Unit output directions, one a row.
    prices : ndarray of shape (p,)
        The prices; `find_normalized_maxima` has them from the largest downwards.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.oracles import priced_neurons
    >>> Z, v = DesignMatrix(np.array([[-1.0], [1.0]])), np.array([[-1.0], [1.0]])
    >>> neurons = priced_neurons(Z, np.full(2, 0.5), v, np.ones((1, 1)))
    >>> len(neurons), neurons.shift
    (1, array([-1.]))
    """

    weights: np.ndarray
    shift: np.ndarray
    output_directions: np.ndarray
    prices: np.ndarray

    def __len__(self) -> int:
        return len(self.prices)

    def take(self, chosen: np.ndarray) -> "NormalizedMaxima":
        """Some of them."""
        return NormalizedMaxima(
            self.weights[:, chosen], self.shift[chosen], self.output_directions[chosen], self.prices[chosen]
        )


def normalized_price_bound(v: np.ndarray, sample_weight: np.ndarray) -> Price:
    """Upper bound of the price of every neuron that is normalized after the ReLU: the spectral norm of P^-1/2 V.

    A neuron is a vector of weighted norm 1, whatever the data, so the bound needs no search and holds at any rank. It
    is attained where the data has full row rank.

    Parameters
    ----------
    v : ndarray of shape (n, C)
        Dual point.
    sample_weight : ndarray of shape (n,)
        Positive weights that add up to one, the diagonal of P.

    Returns
    -------
    price : Price
        Scope "global".

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.oracles import normalized_price_bound
    >>> round(normalized_price_bound(np.array([[1.5], [-1.5]]), np.full(2, 0.5)).value, 12)
    3.0
    """
    return Price(float(np.linalg.norm(v / np.sqrt(sample_weight)[:, None], 2)), "global")


def priced_neurons(Z: Operator, p: np.ndarray, v: np.ndarray, directions: np.ndarray) -> NormalizedMaxima:
    """The best neuron of unit norm for each direction (k, q), in their order.

    A direction whose activations do not vary has the constant neuron, with zero weights, whose price is |V^T 1|.

    Parameters
    ----------
    Z : Operator
        Design matrix.
    p : ndarray of shape (n,)
        Sample weights, which add up to one.
    v : ndarray of shape (n, C)
        Dual point.
    directions : ndarray of shape (k, q)
        Directions, one a column, of any length.

    Returns
    -------
    neurons : NormalizedMaxima

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.oracles import priced_neurons
    >>> Z, p = DesignMatrix(np.array([[0.0, 1.0], [1.0, 1.0], [3.0, 1.0]])), np.full(3, 1 / 3)
    >>> priced_neurons(Z, p, np.array([[-1.0], [0.0], [1.0]]), np.array([[1.0, -1.0], [0.0, 2.0]])).prices.round(4)
    array([2.4054, 2.4495])
    """
    activations = Z.neuron_outputs(directions)
    mean, std = activation_statistics(Z, p, directions, activations)
    scale = np.divide(1, std, where=std > 0, out=np.zeros_like(std))
    along = (v.T @ activations - v.sum(axis=0)[:, None] * mean) * scale
    gamma, bias, outputs, prices = _largest(along, v.sum(axis=0))
    return NormalizedMaxima(directions * gamma * scale, bias - gamma * scale * mean, outputs, prices)


def find_normalized_maxima(
    Z: Operator,
    p: np.ndarray,
    v: np.ndarray,
    starts: np.ndarray,
    *,
    threshold: float = 0.0,
    count: int = 10,
    polish: bool = True,
    stop: Stop = None,
) -> NormalizedMaxima:
    """Distinct neurons whose price is a local maximum, reached from given starts.

    All starts ascend at once, by steps of falling length along the gradient of the ratio, which is orthogonal to w.
    Local maxima lie on kinks, as without normalization; so the best ends are polished by Newton steps that hold the
    kinks of the nearest rows exactly.

    Parameters
    ----------
    Z : Operator
        Design matrix.
    p : ndarray of shape (n,)
        Sample weights, which add up to one.
    v : ndarray of shape (n, C)
        Dual point.
    starts : ndarray of shape (k, q)
        Directions.
    threshold : float, default=0.0
        Maxima that price no higher are left out.
    count : int, default=10
        How many to return at most.
    polish : bool, default=True
        Whether to polish.
    stop : callable or None, default=None
        Called before every step; when it returns True the best directions so far are returned.

    Returns
    -------
    maxima : NormalizedMaxima

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.oracles import find_normalized_maxima
    >>> Z, p = DesignMatrix(np.array([[0.0, 1.0], [1.0, 1.0], [3.0, 1.0]])), np.full(3, 1 / 3)
    >>> starts = np.random.default_rng(0).standard_normal((2, 50))
    >>> maxima = find_normalized_maxima(Z, p, np.array([[-1.0], [0.0], [1.0]]), starts)
    >>> round(float(maxima.prices[0]), 4)  # of relu(2 - x) - 1 on x = 0, 1, 3, which is in proportion to v
    2.4495
    """
    size = np.abs(v).max() or 1.0
    starts, w = _with_best_offsets(Z, p, v / size, starts), np.empty_like(starts)
    columns = max(1, _BLOCK_ENTRIES // Z.n_rows)
    for first in range(0, starts.shape[1], columns):
        block = slice(first, first + columns)
        w[:, block] = _ascended(Z, p, v / size, starts[:, block], stop)
    found = priced_neurons(Z, p, v, w)
    order = np.argsort(-found.prices, kind="stable")
    order = order[found.prices[order] > (_POLISHABLE * threshold if polish else threshold)][: 20 * count]
    order = _distinct(Z, p, found, order, _SAME_END, 2 * count if polish else count)
    if not polish:
        return found.take(order)
    found = priced_neurons(Z, p, v, _polished(Z, p, v, w[:, order], threshold, stop))
    order = np.argsort(-found.prices, kind="stable")
    return found.take(_distinct(Z, p, found, order[found.prices[order] > threshold], _SAME, count))


def _largest(along: np.ndarray, constant: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Largest singular values of the pairs (along_j, constant) in R^C, with their singular vectors.

    For columns `along` (C, q) and one `constant` (C,): gamma (q,) from zero on and bias (q,), the right vectors, the
    left vectors (q, C), and the values (q,).
    """
    first, second, mixed = (along**2).sum(axis=0), float(constant @ constant), constant @ along
    half, middle = (first - second) / 2, (first + second) / 2
    values = np.sqrt(middle + np.hypot(half, mixed))
    angle = np.arctan2(mixed, half) / 2  # of the leading eigenvector of [[first, mixed], [mixed, second]]
    gamma, bias = np.cos(angle), np.sin(angle)
    outputs = (along * gamma + constant[:, None] * bias).T
    return gamma, bias, outputs / np.maximum(np.linalg.norm(outputs, axis=1), np.finfo(float).tiny)[:, None], values


def _gradient(
    Z: Operator, p: np.ndarray, v: np.ndarray, w: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Products Z W, the price's derivatives in the activations (n, q), standard deviations, and prices, of W (k, q)."""
    inner = Z.products(w)
    activations = np.maximum(inner, 0)
    mean, std = activation_statistics(Z, p, w, activations)
    scale = np.divide(1, std, where=std > 0, out=np.zeros_like(std))
    standard = (activations - mean) * scale
    gamma, _, outputs, prices = _largest(v.T @ standard, v.sum(axis=0))
    u = v @ (outputs.T * gamma)
    along = (u * standard).sum(axis=0)
    e = (u - p[:, None] * u.sum(axis=0) - p[:, None] * standard * along) * scale
    return inner, e, std, prices


def _with_best_offsets(Z: Operator, p: np.ndarray, v: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Starts (k, q), each moved along the direction whose outputs are constant to where its price is highest.

    Where there is such a direction the neurons of a start are those of one feature t with a threshold, and the price of
    every threshold at a sample follows from sums over the samples above it. The other half stays as it is.
    """
    offset = Z.constant
    if offset is None:
        return starts
    moved = starts.copy()
    t = Z @ starts[:, ::2]
    order = np.argsort(-t, axis=0, kind="stable")
    t = np.take_along_axis(t, order, axis=0)
    weights = p[order]
    mass, first, second = (np.cumsum(weights * t**power, axis=0) for power in range(3))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = first - t * mass
        std = np.sqrt(np.maximum(second - 2 * t * first + t**2 * mass - mean**2, 0))
        squares = np.zeros_like(t)
        for column in v.T:
            v_sorted = column[order]
            squares += (np.cumsum(v_sorted * t, axis=0) - t * np.cumsum(v_sorted, axis=0) - mean * column.sum()) ** 2
        ratio = np.where(std > _ROUGH * np.abs(t).max(axis=0), squares / std**2, 0.0)
    best = ratio.argmax(axis=0)
    moved[:, ::2] -= offset[:, None] * np.take_along_axis(t, best[None], axis=0)
    return moved


def _ascended(Z: Operator, p: np.ndarray, v: np.ndarray, starts: np.ndarray, stop: Stop) -> np.ndarray:
    """Unit directions (k, q) at the end of the ascent; only the best quarter takes all steps."""
    tiny = np.finfo(float).tiny
    w = starts / np.maximum(np.linalg.norm(starts, axis=0), tiny)
    best, prices = w.copy(), np.full(w.shape[1], -np.inf)
    pace = np.resize(_PACES, (w.shape[1], 2)).T
    moving = np.arange(w.shape[1])
    for step in range(_SORTING_STEPS + _STEPS):
        if stop is not None and stop():
            break
        inner, e, _, now = _gradient(Z, p, v, w[:, moving])
        better = now > prices[moving]
        best[:, moving[better]], prices[moving[better]] = w[:, moving[better]], now[better]
        gradient = Z.adjoint((inner > 0) * e)
        gradient /= (np.linalg.norm(gradient, axis=0) + tiny) * (pace[0] + pace[1] * step)[moving]
        moved = w[:, moving] + gradient
        w[:, moving] = moved / np.maximum(np.linalg.norm(moved, axis=0), tiny)  # a step may end at zero
        if step == _SORTING_STEPS - 1:
            moving = np.argsort(-prices, kind="stable")[: -(-len(prices) // 4)]
    return best


def _polished(Z: Operator, p: np.ndarray, v: np.ndarray, w: np.ndarray, threshold: float, stop: Stop) -> np.ndarray:
    """The directions (k, q) at the local maxima of the price near those of w (k, q).

    With the output direction held, and w of the length at which the activations have standard deviation 1, the price
    has the local maxima of ``u·a - along (std(a)^2 - 1) / 2``, the Lagrangian of a ratio. A Newton step on it holds
    the kinks of the nearest rows exactly; in the metric of its matrix the programs of all directions are solved at
    once.
    """
    w, k = w.copy(), len(w)
    damping = np.full(w.shape[1], 1e-3)
    inner, e, std, prices = _gradient(Z, p, v, w)
    moving = np.flatnonzero((std > 0) & (prices > 0))
    for _ in range(_POLISH_STEPS):
        if len(moving) == 0 or (stop is not None and stop()):
            break
        scale = std[moving]
        w[:, moving] /= scale
        on, signal = inner[:, moving] > 0, e[:, moving] * scale
        roots = _roots(Z, p, on, prices[moving], damping[moving])
        gradient = np.linalg.solve(roots, -Z.adjoint(on * signal).T[:, :, None])[:, :, 0]
        A, b, slope = nearest_kinks(Z, inner[:, moving] / scale, signal, min(_KINKS * k, Z.n_rows))
        A = np.linalg.solve(roots, A.transpose(0, 2, 1)).transpose(0, 2, 1)
        step, _ = solve_kink_program(None, gradient.ravel(), A, b, slope, rtol=1e-6, stop=stop)
        step = np.linalg.solve(roots.transpose(0, 2, 1), step.reshape(-1, k, 1))[:, :, 0]
        moved = w[:, moving] + step.T
        after = _gradient(Z, p, v, moved)
        gain = after[3] / prices[moving] - 1
        better = gain > 0
        chosen = moving[better]
        w[:, chosen] = moved[:, better]
        inner[:, chosen], e[:, chosen] = after[0][:, better], after[1][:, better]
        std[chosen], prices[chosen] = after[2][better], after[3][better]
        std[moving[~better]] = 1.0  # their w was divided by it
        e[:, moving[~better]], inner[:, moving[~better]] = (
            signal[:, ~better],
            inner[:, moving[~better]] / scale[~better],
        )
        damping[moving] = np.where(better, np.maximum(damping[moving] / 10, _MIN_DAMPING), damping[moving] * 30)
        goes_on = np.where(better, gain > _POLISHED_GAIN, damping[moving] <= _MAX_DAMPING)
        goes_on &= prices[moving] * (1 + np.maximum(gain, 0)) ** 10 > threshold
        moving = moving[goes_on]
    return w


def _roots(Z: Operator, p: np.ndarray, on: np.ndarray, prices: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """Cholesky factors (q, k, k) of the damped matrices of a Newton step of directions with patterns `on` (n, q)."""
    mean = Z.masked_adjoint(on, p[:, None]).T
    curvature = np.stack([Z.gram(weights[:, None]) for weights in (on * p[:, None]).T])
    rounding = np.finfo(float).eps * np.trace(curvature, axis1=1, axis2=2)
    curvature -= mean[:, :, None] * mean[:, None, :]
    size = np.maximum(np.trace(curvature, axis1=1, axis2=2) / Z.n_columns, np.finfo(float).tiny)
    curvature += (damping * size + Z.n_columns * rounding)[:, None, None] * np.eye(Z.n_columns)
    return np.linalg.cholesky(prices[:, None, None] * curvature)


def _distinct(
    Z: Operator, p: np.ndarray, found: NormalizedMaxima, order: np.ndarray, cosine: float, count: int
) -> np.ndarray:
    """The first of the neurons named in `order` that are not close to an earlier one, outputs and output directions."""
    candidates = found.take(order)
    outputs = (np.sqrt(p)[:, None] * (Z.neuron_outputs(candidates.weights) + candidates.shift)).T
    directions = candidates.output_directions

    def close(some: np.ndarray, others: np.ndarray) -> np.ndarray:
        return (outputs[some] @ outputs[others].T) * (directions[some] @ directions[others].T) > cosine

    return order[distinct(count, len(order), close)]
