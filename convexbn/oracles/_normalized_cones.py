"""The largest price of neurons that are normalized after the ReLU, pattern by pattern: exact, with one output."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import linprog, nnls

from convexbn.operators import Operator
from convexbn.oracles._price import Price
from convexbn.patterns._patterns import Patterns, count_patterns

_QUICK_WORK = 3e6  # patterns times rows up to which all of them take a few seconds
_RANK = 64 * float(np.finfo(float).eps)  # singular values up to here, relative to the largest, times n are rounding
_HELD = 1e6  # weight of equations in a least-squares problem
_CLEAR = 1e-12  # of a free variable in an inequality, relative to the others: less is near rounding
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
        features = np.column_stack([mask[:, None] * rows, np.ones(len(rows))])
        sizes = np.linalg.svd(features, compute_uv=False)
        rank = int((sizes > _RANK * len(rows) * sizes[0]).sum())
        if mask.all() and Z.constant is not None:  # then the shift is a combination of the columns but for rounding
            rank = min(rank, Z.n_columns)
        basis, triangle = np.linalg.qr(features * root[:, None])
        left, values, right = np.linalg.svd(triangle)
        condition = float(values[0] / max(values[rank - 1], np.finfo(float).tiny))
        inverse = right[:rank].T / np.maximum(values[:rank], np.finfo(float).eps * values[0])
        along = left[:, :rank].T @ (basis.T @ u)
        rounding = _ROUNDING * size * condition
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
