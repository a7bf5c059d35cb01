"""The largest price of neurons that are normalized after the ReLU, pattern by pattern: exact, with one output."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import linprog, nnls

from convexbn.model._normalized_neurons import LEAST_STD
from convexbn.operators import Operator
from convexbn.oracles._price import Price
from convexbn.patterns._patterns import MAX_PATTERNS, Patterns, count_patterns

_QUICK_WORK = 3e6  # patterns times rows up to which all of them take a few seconds
_EPS = float(np.finfo(float).eps)  # times n and the largest: singular values up to here are rounding of Z
_HELD = 1e6  # weight of equations in a least-squares problem
_CLEAR = 1e-12  # of a free variable in an inequality, relative to the others: less is near rounding
# Norm of weights and shift of a neuron of norm 1, at most: weights are no longer than 1 / LEAST_STD, where columns of Z
# have norm 1, and the shift no larger than they and the neuron.
_LONGEST = 2 / LEAST_STD + 1
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
        Called before every pattern; when it returns True there is no price.

    Returns
    -------
    price : Price or None
        Scope "global" if the patterns are complete, else "patterns"; with the direction that attains it, but for
        rounding. None if it was stopped.

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
    sizes = np.maximum(np.sqrt(p @ rows**2), np.finfo(float).tiny)
    rows = rows / sizes
    u = v[:, 0] / root
    size = float(np.linalg.norm(u))
    largest = best = abs(float(v.sum()))
    direction = None
    for mask in patterns.masks().T:
        if stop is not None and stop():
            return None
        features = np.column_stack([mask[:, None] * rows, np.ones(len(rows))])
        basis, triangle = np.linalg.qr(features * root[:, None])
        left, values, right = np.linalg.svd(triangle)
        along = left.T @ (basis.T @ u)
        rank, error = _rank(values, along, size, len(rows))
        along = along[:rank]
        if np.linalg.norm(along) + error <= largest:
            continue
        inverse = right[:rank].T / values[:rank]
        inverse, free = inverse[:-1], right[rank:].T[:-1]  # hidden weights, without the shift
        signed = np.where(mask, 1.0, -1.0)[:, None] * rows
        cone, of_free = signed @ inverse, signed @ free
        for sign in (1.0, -1.0):
            value, x = _projected(sign * along, cone, of_free)
            largest = max(largest, value + error)
            if value > best:
                best, direction = value, inverse @ x + free @ _shift(of_free, cone @ x)
    if direction is not None:
        direction /= sizes
    return Price(largest, "global" if patterns.complete else "patterns", direction)


def _rank(values: np.ndarray, along: np.ndarray, size: float, n: int) -> tuple[int, float]:
    """The number of singular values that gives the sharpest bound of a price, and what rounding may add to it.

    Parameters
    ----------
    values : ndarray of shape (k + 1,)
        Singular values of the features, falling.
    along : ndarray of shape (k + 1,)
        The dual point in the coordinates of the left singular vectors.
    size : float
        Norm of the dual point.
    n : int
        Samples.
    """
    resolved = values > n * _EPS * values[0]
    left_out = np.cumsum((np.where(resolved, values * along, 0.0) ** 2)[::-1])[::-1]
    lost = _LONGEST * np.sqrt(np.append(left_out[1:], 0.0))  # by the first, the first two, ... of them
    errors = np.where(resolved, _ROUNDING * size * values[0] / np.where(resolved, values, 1.0) + lost, np.inf)
    best = int(errors.argmin())
    return best + 1, float(errors[best])


def _projected(along: np.ndarray, cone: np.ndarray, free: np.ndarray) -> tuple[float, np.ndarray]:
    """Upper bound of the length of the projection of a point (r,) on { x : cone x + free z >= 0 for some z }, and x.

    The bound is ``|along + cone^T mu|`` at multipliers ``mu >= 0`` with ``free^T mu = 0``, and attained at the best.
    One free variable is eliminated. With more, non-negative least squares with a weight on the equations finds
    multipliers that nearly satisfy them, and a second one the nearest that do. What these miss counts times the
    longest z that an inequality calls for, unless ``mu = 0`` proves more.
    """
    missed = 0.0
    if free.shape[1] == 1:
        cone, free = _without_variable(cone, free[:, 0]), free[:0, :0]
    if len(cone) == 0:
        return float(np.linalg.norm(along)), along
    if free.shape[1] == 0:
        multipliers, _ = nnls(cone.T, -along, maxiter=50 * len(cone))
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
    value, longest = float(np.linalg.norm(x)) + missed, float(np.linalg.norm(along))
    return (value, x) if value <= longest else (longest, along)


def _without_variable(cone: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Rows c (M, r) with ``c x >= 0`` wherever ``cone x + free z >= 0`` for some number z (Fourier, Motzkin).

    They hold nowhere else, but for inequalities in which rounding decides whether z counts, which are left out.
    """
    share = free / (np.abs(free).max() or 1.0)
    up, down = free[share > _CLEAR][:, None, None], -free[share < -_CLEAR][None, :, None]
    pairs = down * cone[share > _CLEAR][:, None] + up * cone[share < -_CLEAR][None]
    return np.vstack([cone[np.abs(share) <= _ROUNDING], (pairs / np.maximum(up, down)).reshape(-1, cone.shape[1])])


def _shift(free: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A z for which inside + free z has no negative entries, up to rounding."""
    if free.shape[1] == 0 or (inside >= 0).all():
        return np.zeros(free.shape[1])
    count = free.shape[1]
    system = np.column_stack([-free, -np.ones(len(free))])  # the last variable is the largest violation
    bounds = [(None, None)] * count + [(0, None)]
    found = linprog(np.append(np.zeros(count), 1.0), A_ub=system, b_ub=inside, bounds=bounds).x
    return np.zeros(count) if found is None else found[:-1]
