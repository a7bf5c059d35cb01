"""The largest price of neurons that are normalized after the ReLU, pattern by pattern: exact, with one output."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import linprog, nnls

from convexbn.model._normalized_neurons import LEAST_STD
from convexbn.operators import Operator
from convexbn.oracles._normalized import priced_neurons
from convexbn.oracles._price import Price
from convexbn.patterns._patterns import MAX_PATTERNS, Patterns, count_patterns

_QUICK_WORK = 3e6  # patterns times rows up to which all of them take a few seconds
_EPS = float(np.finfo(float).eps)  # times n and the largest: singular values up to here are rounding of Z
_HELD = 1e6  # weight of equations in a least-squares problem
_CLEAR = 1e-12  # of a free variable in an inequality, relative to the others: less is near rounding
# Norm of weights and shift of a neuron of norm 1, at most: weights are no longer than 1 / LEAST_STD, where columns of Z
# have norm 1, and the shift no larger than they and the neuron.
_LONGEST = 2 / LEAST_STD + 1
_BLOCK_ENTRIES = 2**18  # of the rows of Z for so many patterns at once
_STEPS = 3  # of a multiplier each, towards those of a pattern, times its rank
_ROUNDING = 64 * _EPS  # of a price, relative to |v|, times the condition of a pattern's features


def normalized_quickly_enumerated(Z: Operator, n_outputs: int) -> bool:
    """Whether `price_of_normalized_patterns` covers all patterns within seconds; with several outputs it never does.

    Parameters
    ----------
    Z : Operator
        Design matrix.
    n_outputs : int
        Outputs C.

    Returns
    -------
    quickly : bool

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.oracles import normalized_quickly_enumerated
    >>> [normalized_quickly_enumerated(DesignMatrix(np.eye(3)), n_outputs) for n_outputs in (1, 2)]
    [True, False]
    """
    return n_outputs == 1 and count_patterns(Z) <= min(MAX_PATTERNS, _QUICK_WORK / Z.n_rows)


def price_of_normalized_patterns(
    Z: Operator, p: np.ndarray, patterns: Patterns, v: np.ndarray, *, stop: Callable[[], bool] | None = None
) -> Price | None:
    """Largest price |v^T h| / |h| over the neurons h = D_i Z w + shift with w in the cone of one of these patterns.

    In a cone the price is the length of the projection of v on the image of the cone, a least-squares problem with
    inequalities. It is solved by its dual, whose feasible points give upper bounds, to which is added what rounding may
    have moved the image by. The image is that of the largest singular values of the features; those left out may add
    to the price of the neurons whose activations vary least, and the number left out is that which adds least in all.

    Parameters
    ----------
    Z : Operator
        Design matrix.
    p : ndarray of shape (n,)
        Sample weights, which add up to one.
    patterns : Patterns
        Activation patterns; complete ones cover every direction.
    v : ndarray of shape (n, 1)
        Dual point.
    stop : callable or None, default=None
        Called before every pattern, and every block of them; when it returns True there is no price.

    Returns
    -------
    price : Price or None
        Scope "global" if the patterns are complete, else "patterns"; with the direction, of those that the patterns
        gave, that attains most: all of the price but for rounding. None if it was stopped.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix, enumerate_patterns
    >>> from convexbn.oracles import price_of_normalized_patterns
    >>> Z, p = DesignMatrix(np.array([[0.0, 1.0], [1.0, 1.0], [3.0, 1.0]])), np.full(3, 1 / 3)
    >>> price = price_of_normalized_patterns(Z, p, enumerate_patterns(Z), np.array([[-1.0], [0.0], [1.0]]))
    >>> round(price.value, 4), price.scope
    (2.4495, 'global')
    """
    rows, root = Z.rows(), np.sqrt(p)
    sizes = np.sqrt(p @ rows**2)
    sizes[sizes == 0] = 1.0
    rows = rows / sizes
    u = v[:, 0] / root
    masks = patterns.masks().T
    at_once = max(1, _BLOCK_ENTRIES // rows.size)
    blocks = []
    for first in range(0, len(masks), at_once):
        if stop is not None and stop():
            return None
        blocks.append(_Images(masks[first : first + at_once], rows, root, u).bounds())
    bounds = np.concatenate(blocks)
    largest = best = abs(float(v.sum()))
    direction = None
    for pattern in np.argsort(-bounds, kind="stable"):
        if bounds[pattern] <= largest:
            break
        if stop is not None and stop():
            return None
        image = _Images(masks[pattern, None], rows, root, u)
        rank, error = image.ranks[0], float(image.errors[0])
        along, inverse, cone = image.along[0, :rank], image.inverse[0, :, :rank], image.cones[0, :, :rank]
        free = image.right[0, rank:, :-1].T  # hidden weights that change no feature
        of_free = image.signed[0] @ free
        for sign in (1.0, -1.0):
            value, x = _projected(sign * along, cone, of_free)
            largest = max(largest, value + error)
            if value > best:
                weights = (inverse @ x + free @ _shift(of_free, cone @ x)) / sizes
                attained = float(priced_neurons(Z, p, v, weights[:, None]).prices[0])
                if attained > best:
                    best, direction = attained, weights
    return Price(largest, "global" if patterns.complete else "patterns", direction)


class _Images:
    """The images of the cones of some patterns, in the coordinates of the left singular vectors of their features.

    Parameters
    ----------
    masks : ndarray of shape (P, n)
        The patterns.
    rows : ndarray of shape (n, k)
        Rows of Z.
    root : ndarray of shape (n,)
        Roots of the sample weights.
    u : ndarray of shape (n,)
        Dual point, over these.

    Attributes
    ----------
    along : ndarray of shape (P, r)
        The dual point in these coordinates, r = min(n, k + 1).
    right : ndarray of shape (P, k + 1, k + 1)
        Right singular vectors, in rows.
    ranks : ndarray of shape (P,)
        The number of singular values that gives the sharpest bound of a price.
    errors : ndarray of shape (P,)
        What rounding, and the singular values left out, may add to it.
    inside : ndarray of shape (P, r)
        Which coordinates are within the rank.
    inverse : ndarray of shape (P, k, r)
        Hidden weights at each coordinate, zero beyond the rank.
    signed : ndarray of shape (P, n, k)
        Rows of Z, those that are not active with a minus: w is in the cone where no product with them is negative.
    cones : ndarray of shape (P, n, r)
        Their products with `inverse`.
    """

    def __init__(self, masks: np.ndarray, rows: np.ndarray, root: np.ndarray, u: np.ndarray):
        features = np.concatenate([masks[:, :, None] * rows, np.ones((*masks.shape, 1))], axis=2)
        basis, triangle = np.linalg.qr(features * root[:, None])
        left, values, self.right = np.linalg.svd(triangle)
        self.along = np.matmul((u @ basis)[:, None], left)[:, 0]
        resolved = values > len(rows) * _EPS * values[:, :1]
        left_out = np.cumsum((np.where(resolved, values * self.along, 0.0) ** 2)[:, ::-1], axis=1)[:, ::-1]
        lost = np.zeros_like(values)  # by the first, the first two, ... of them
        lost[:, :-1] = _LONGEST * np.sqrt(left_out[:, 1:])
        inverses = 1 / np.where(resolved, values, 1.0)
        errors = np.where(resolved, _ROUNDING * float(np.linalg.norm(u)) * values[:, :1] * inverses + lost, np.inf)
        last = errors.argmin(axis=1)
        self.ranks, self.errors = last + 1, errors[np.arange(len(masks)), last]
        self.inside = np.arange(values.shape[1]) <= last[:, None]
        of_values = self.right[:, : values.shape[1], :-1].swapaxes(1, 2)
        self.inverse = of_values * np.where(self.inside, inverses, 0.0)[:, None]
        self.signed = np.where(masks, 1.0, -1.0)[:, :, None] * rows
        self.cones = self.signed @ self.inverse

    def bounds(self) -> np.ndarray:
        """Upper bounds (P,) of the prices in the cones, by some steps towards the multipliers of their inequalities.

        A step gives one multiplier of each pattern its best value beside the others, that by which the bound falls
        most. Where hidden weights are free, so that not every multiplier proves something, all stay zero.
        """
        cones = self.cones / np.maximum(np.linalg.norm(self.cones, axis=2, keepdims=True), np.finfo(float).tiny)
        cones[self.ranks < self.right.shape[1]] = 0.0
        along, found, every = np.where(self.inside, self.along, 0.0), np.zeros(len(cones)), np.arange(len(cones))
        for start in (along, -along):
            x, multipliers = start.copy(), np.zeros(cones.shape[:2])
            for _ in range(_STEPS * cones.shape[2]):
                change = np.maximum(-np.matmul(cones, x[:, :, None])[:, :, 0], -multipliers)
                chosen = every, np.abs(change).argmax(axis=1)
                multipliers[chosen] += change[chosen]
                x += change[chosen][:, None] * cones[chosen]
            x = start + np.matmul(multipliers[:, None], cones)[:, 0]
            found = np.maximum(found, np.linalg.norm(x, axis=1))
        return np.minimum(found, np.linalg.norm(along, axis=1)) + self.errors


def _projected(along: np.ndarray, cone: np.ndarray, free: np.ndarray) -> tuple[float, np.ndarray]:
    """Upper bound of the length of the projection of a point (r,) on { x : cone x + free z >= 0 for some z }, and x.

    The bound is ``|along + cone^T mu|`` at multipliers ``mu >= 0`` with ``free^T mu = 0``, and attained at the best.
    One free variable is eliminated. With more, non-negative least squares with a weight on the equations finds
    multipliers that nearly satisfy them, and a second one the nearest that do. What these miss counts times the
    longest z that an inequality calls for, unless ``mu = 0`` proves more.
    """
    missed, longest = 0.0, float(np.linalg.norm(along))
    if free.shape[1] == 0:
        x = _onto(along, cone)
    elif free.shape[1] == 1:
        x, _ = _without_variable(along, cone, free[:, 0])
    else:
        equations = np.linalg.qr(free)[0].T
        zeros, size = np.zeros(len(equations)), np.abs(cone).max()
        system = np.vstack([cone.T, _HELD * size * equations])
        nearly, _ = nnls(system, np.append(-along, zeros), maxiter=50 * len(cone))
        system = np.vstack([np.eye(len(cone)), _HELD * equations])
        multipliers, _ = nnls(system, np.append(nearly, zeros), maxiter=50 * len(cone))
        multipliers[multipliers <= _ROUNDING * multipliers.max()] = 0.0
        shares = np.abs(equations)
        missed = float(np.abs(equations @ multipliers).sum() * size / shares[shares > _ROUNDING].min())
        x = along + cone.T @ multipliers
    value = float(np.linalg.norm(x)) + missed
    return (value, x) if value <= longest else (longest, along)


def _onto(along: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Projection of a point (r,) on { x : rows x >= 0 }."""
    return along + rows.T @ nnls(rows.T, -along, maxiter=50 * len(rows))[0] if len(rows) else along


def _without_variable(along: np.ndarray, cone: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Projection of a point (r,) on { x : cone x + free z >= 0 for some number z }, and rows that it is made with.

    The rows are those without z, and one for each pair of a lower and an upper bound of z (Fourier, Motzkin). Of the
    pairs, which are many, the one that is missed most joins in until the projection misses none. Inequalities in which
    rounding decides whether z counts are left out.
    """
    share = free / (np.abs(free).max() or 1.0)
    rows, lower, upper = cone[np.abs(share) <= _ROUNDING], share > _CLEAR, share < -_CLEAR
    if not (lower.any() and upper.any()):
        return _onto(along, rows), rows
    below, above = cone[lower] / free[lower, None], cone[upper] / free[upper, None]  # -below x <= z <= -above x
    pairs: set[tuple[int, int]] = set()
    while True:
        x = _onto(along, rows)
        pair = int((below @ x).argmin()), int((above @ x).argmax())
        row = below[pair[0]] - above[pair[1]]
        if pair in pairs or row @ x >= -_ROUNDING * np.linalg.norm(row) * np.linalg.norm(along):
            return x, rows
        pairs.add(pair)
        rows = np.vstack([rows, row / np.abs(row).max()])


def _shift(free: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A z for which inside + free z has no negative entries, up to rounding."""
    if free.shape[1] == 0 or (inside >= 0).all():
        return np.zeros(free.shape[1])
    count = free.shape[1]
    system = np.column_stack([-free, -np.ones(len(free))])  # the last variable is the largest violation
    bounds = [(None, None)] * count + [(0, None)]
    found = linprog(np.append(np.zeros(count), 1.0), A_ub=system, b_ub=inside, bounds=bounds).x
    return np.zeros(count) if found is None else found[:-1]
