"""The largest price of neurons that are normalized after the ReLU, pattern by pattern: exact, with one output."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import linprog, nnls

from convexbn.operators import Operator
from convexbn.oracles._price import Price
from convexbn.patterns._patterns import Patterns, count_patterns

_QUICK_WORK = 3e6  # patterns times rows up to which all of them take a few seconds
_RANK = 1e-9  # singular values up to here, relative to the largest, are rounding
_HELD = 1e6  # weight of equations in a least-squares problem
_MISSED = 1e-9  # of an equation, relative to its terms, above which it does not hold
_NO_WEIGHT = 1e-13  # of a free variable in an inequality, relative to the others
_ROUNDING = 64 * float(np.finfo(float).eps)  # of a price, relative to |v|, times the condition of a pattern's features


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
    return n_outputs == 1 and count_patterns(Z) * Z.n_rows <= _QUICK_WORK


def price_of_normalized_patterns(
    Z: Operator, p: np.ndarray, patterns: Patterns, v: np.ndarray, *, stop: Callable[[], bool] | None = None
) -> Price | None:
    """Largest price |v^T h| / |h| over the neurons h = D_i Z w + shift with w in the cone of one of these patterns.

    In a cone the price is the length of the projection of v on the image of the cone, a least-squares problem with
    inequalities. It is solved by its dual, whose feasible points give upper bounds, to which is added what rounding may
    have moved the image by. Activations that vary by no more than about 1e-12 |z||w|, the rounding of z·w, count as
    constant.

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
    u = v[:, 0] / root
    size = float(np.linalg.norm(u))
    largest = best = abs(float(v.sum()))
    direction = None
    for mask in patterns.masks().T:
        if stop is not None and stop():
            return None
        features = np.column_stack([mask[:, None] * rows, np.ones(len(rows))]) * root[:, None]
        basis, triangle = np.linalg.qr(features)
        left, values, right = np.linalg.svd(triangle)
        rank = int((values > _RANK * values[0]).sum())
        inverse = right[:rank].T / values[:rank]
        along = left[:, :rank].T @ (basis.T @ u)
        rounding = _ROUNDING * size * float(values[0] / values[rank - 1])
        if np.linalg.norm(along) + rounding <= largest:
            continue
        inverse, free = inverse[:-1], right[rank:].T[:-1]  # hidden weights, without the shift
        signed = np.where(mask, 1.0, -1.0)[:, None] * rows
        cone, of_free = signed @ inverse, signed @ free
        for sign in (1.0, -1.0):
            value, x = _projected(sign * along, cone, of_free)
            largest = max(largest, value + rounding)
            if value > best:
                best, direction = value, inverse @ x + free @ _shift(of_free, cone @ x)
    return Price(largest, "global" if patterns.complete else "patterns", direction)


def _projected(along: np.ndarray, cone: np.ndarray, free: np.ndarray) -> tuple[float, np.ndarray]:
    """Upper bound of the length of the projection of a point (r,) on { x : cone x + free z >= 0 for some z }, and x.

    The bound is ``|along + cone^T mu|`` at multipliers ``mu >= 0`` with ``free^T mu = 0``, and attained at the best. One
    free variable is eliminated. With more, non-negative least squares with a weight on the equations finds multipliers
    that nearly satisfy them, and a second one the nearest that do; if these miss an equation that a weight far smaller
    than the others decides, the bound is that of ``mu = 0``.
    """
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
        if (np.abs(equations @ multipliers) > _MISSED * (np.abs(equations) @ multipliers)).any():
            multipliers = np.zeros(len(cone))
    x = along + cone.T @ multipliers
    return float(np.linalg.norm(x)), x


def _without_variable(cone: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Rows c (M, r) for which ``c x >= 0`` if and only if ``cone x + free z >= 0`` for some number z (Fourier, Motzkin)."""
    above, below = free > _NO_WEIGHT * np.abs(free).max(), free < -_NO_WEIGHT * np.abs(free).max()
    up, down = free[above][:, None, None], -free[below][None, :, None]
    pairs = (down * cone[above][:, None] + up * cone[below][None]) / np.maximum(up, down)
    return np.vstack([cone[~above & ~below], pairs.reshape(-1, cone.shape[1])])


def _shift(free: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A z for which inside + free z has no negative entries, up to rounding."""
    if free.shape[1] == 0 or (inside >= 0).all():
        return np.zeros(free.shape[1])
    count = free.shape[1]
    system = np.column_stack([-free, -np.ones(len(free))])  # the last variable is the largest violation
    bounds = [(None, None)] * count + [(0, None)]
    found = linprog(np.append(np.zeros(count), 1.0), A_ub=system, b_ub=inside, bounds=bounds).x
    return np.zeros(count) if found is None else found[:-1]
