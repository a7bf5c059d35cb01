"""The quadratic program of a step of many neurons, with the nearest kinks of the ReLU kept exactly."""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpotrf, dpotrs

_MAX_STEPS = 50
_FIRST_MU = 0.1  # of the mean of slope * b
_LEAST_MU = 1e-6  # of the decrease without kinks, in sum over the kinks: with d on all of them the mean is rounding
_TO_BOUNDARY = 0.995
_ZERO = 1e-100  # gradients and products up to here count as zero
_LEAST = 1e-13  # of the first duality gap: smaller ones are rounding
_LARGEST_CURVATURE = 1e14  # that the kinks of a neuron may add, in multiples of H: with more H would be rounding
_FIRST_RATIO = 100  # inverse curvature of a kink at the start, at least, in multiples of the ridge
_SMALL = 12  # up to this size matrices are solved with in one call


def solve_kink_program(
    H: np.ndarray | None,
    g: np.ndarray,
    A: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    *,
    rtol: float = 1e-2,
    stop: Callable[[], bool] | None = None,
) -> tuple[np.ndarray, float]:
    """Minimise ``g·d + d·H d / 2 + sum_jl c_jl relu(A_jl·d_j - b_jl)``.

    A primal-dual interior-point method (Mehrotra's predictor and corrector). The kinks of neuron j are functions
    of its step d_j only, so they add a k × k block to H, and an iteration takes one Cholesky factorisation. With the
    identity in the place of H every neuron is a program of its own, and the factorisation is of size k or K, the
    smaller one.

    Parameters
    ----------
    H : ndarray of shape (M, M) or None
        Positive definite, M = m * k or larger: what follows the m blocks of k has no kinks (an intercept). None stands
        for the identity, M = m * k.
    g : ndarray of shape (M,)
        Gradient.
    A : ndarray of shape (m, K, k)
        Normals of the kinks of each neuron.
    b : ndarray of shape (m, K)
        Distances from the kinks, not negative.
    c : ndarray of shape (m, K)
        Slope beyond each kink; kinks of zero slope are ignored.
    rtol : float, default=1e-2
        The duality gap at which to stop, relative to the decrease of the objective that was reached.
    stop : callable or None, default=None
        Called before every iteration; when it returns True the step so far is returned.

    Returns
    -------
    d : ndarray of shape (M,)
        The step.
    decrease : float
        How far below zero its objective is.

    Raises
    ------
    numpy.linalg.LinAlgError
        If H is not numerically positive definite.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.oracles._kink_program import solve_kink_program
    >>> H, g = np.eye(1), np.array([-3.0])  # without the kink at d = 1 the step would be 3
    >>> d, decrease = solve_kink_program(H, g, np.ones((1, 1, 1)), np.ones((1, 1)), np.full((1, 1), 5.0), rtol=1e-9)
    >>> d.round(6), round(decrease, 6)
    (array([1.]), 2.5)
    """
    m, K, k = A.shape
    programs = m if H is None else 1  # independent ones, on the first axis of every array
    shape = programs, m // programs, K
    rows = A.reshape(*shape, k)
    g, b, c = g.reshape(programs, -1), b.reshape(shape), c.reshape(shape)
    size = 1.0 if H is None else max(float(np.diagonal(H).mean()), _ZERO)
    gram = rows[:, 0] @ rows[:, 0].swapaxes(1, 2) if H is None and k > K else None

    scale = np.abs(g).max(axis=1)
    slope = np.maximum(c, np.maximum(1e-12 * scale, _ZERO)[:, None, None])
    curvature = np.einsum("pmlk,pmlk->pml", rows, rows) / size
    ridge = K * curvature / _LARGEST_CURVATURE
    balanced = 1e-6 * scale + 4 * np.finfo(float).eps * (slope * np.sqrt(curvature * size)).sum(axis=(1, 2))
    # A kink is slope * over, least subject to over >= 0 and under = over + b - A·d >= 0. The multiplier of under >= 0
    # is theta, that of over >= 0 the slack = slope - theta. The start is on the central path of d = 0: theta * under =
    # slack * over = mu.
    decrease_scale = (g * g).sum(axis=1) / size
    first = np.maximum((slope * b).mean(axis=(1, 2)), _LEAST_MU * decrease_scale / b[0].size)
    first = np.maximum(_FIRST_MU * first, _FIRST_RATIO * (slope**2 * ridge).max(axis=(1, 2)))
    mu = np.maximum(first, _ZERO)[:, None, None]
    half = mu - slope * b / 2
    root = np.sqrt(half**2 + mu * slope * b)
    over = np.where(half > 0, (half + root) / slope, mu * b / (root + np.abs(half)))
    under = over + b
    # (theta, slack) and (under, over), whose products are complementary
    state = np.stack([mu / under, mu / over, under, over], axis=1)
    least = _LEAST * 2 * b[0].size * mu[:, 0, 0]

    step, decreases = np.zeros_like(g), np.zeros(programs)
    d, live = np.zeros_like(g), np.arange(programs)
    for iteration in range(_MAX_STEPS):
        products = state[:, :2] * state[:, 2:]
        residual = g + (d if H is None else d @ H)
        model = (d * (g + residual)).sum(axis=1) / 2
        decrease = -(model + (c * np.maximum(_along(rows, d) - b, 0)).sum(axis=(1, 2)))
        step[live], decreases[live] = d, decrease
        _add_adjoint(residual, rows, state[:, 0])
        total = products.sum(axis=(1, 2, 3))
        ratio = state[:, 2:] / state[:, :2]
        left = (np.abs(residual).max(axis=1) > balanced) | (total > rtol * decrease)
        left &= (total > least) & (scale >= _ZERO) & (ratio.sum(axis=1) > ridge).all(axis=(1, 2))
        if not left.any() or (stop is not None and stop()):
            break
        if not left.all():
            arrays = live, g, rows, b, c, scale, ridge, balanced, least, state, d, residual, products, total, ratio
            live, g, rows, b, c, scale, ridge, balanced, least, state, d, residual, products, total, ratio = (
                array[left] for array in arrays
            )
            gram = None if gram is None else gram[left]
        weight = 1 / (ratio[:, 0] + ratio[:, 1] + ridge)
        try:
            solve = _of_identity(rows[:, 0], weight[:, 0], gram) if H is None else _factorised(H, rows[0], weight[0])
        except np.linalg.LinAlgError:
            if iteration == 0:
                raise
            break

        move = partial(_move, rows, solve, weight, ratio, residual, state[:, :2])
        _, change = move(-products)
        later = state + np.minimum(1.0, _longest(state, change)) * change
        achieved = (later[:, :2] * later[:, 2:]).sum(axis=(1, 2, 3)) / total
        mu = (total / products[0].size * achieved**3)[:, None, None, None]
        dd, change = move(mu - products - change[:, :2] * change[:, 2:])
        t = np.minimum(1.0, _TO_BOUNDARY * _longest(state, change))
        d = d + t[:, :, 0, 0] * dd
        state = state + t * change
    return step.ravel(), float(decreases.sum())


def _factorised(H: np.ndarray, A: np.ndarray, weight: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Solve with H plus the blocks A_j^T diag(weight_j) A_j on its diagonal."""
    m, _, k = A.shape
    blocks = np.arange(m)
    M = H.copy(order="F")
    M[: m * k, : m * k].reshape(m, k, m, k)[blocks, :, blocks, :] += np.matmul(
        A.transpose(0, 2, 1) * weight[:, None, :], A
    )
    factor = cho_factor(M, lower=True, overwrite_a=True, check_finite=False)
    return lambda rhs: cho_solve(factor, rhs[0], check_finite=False)[None]


def _of_identity(A: np.ndarray, weight: np.ndarray, gram: np.ndarray | None) -> Callable[[np.ndarray], np.ndarray]:
    """Solve with I + A_p^T diag(weight_p) A_p of every p, through `gram` = A_p A_p^T where that is the smaller one."""
    if gram is None:
        return _solver(np.matmul(A.swapaxes(1, 2) * weight[:, None], A))
    root = np.sqrt(weight)
    scaled = A * root[:, :, None]
    inner = _solver(gram * root[:, :, None] * root[:, None, :])

    def solve(rhs: np.ndarray) -> np.ndarray:  # Sherman, Morrison and Woodbury
        along = np.matmul(scaled, rhs[:, :, None])[:, :, 0]
        return rhs - np.matmul(inner(along)[:, None], scaled)[:, 0]

    return solve


def _solver(M: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Solve with I + M_p, positive definite (p, s, s)."""
    size = M.shape[1]
    M[:, np.arange(size), np.arange(size)] += 1
    if size <= _SMALL:
        return lambda rhs: np.linalg.solve(M, rhs[:, :, None])[:, :, 0]
    factors = [dpotrf(block)[0] for block in M]
    return lambda rhs: np.stack([dpotrs(factor, side)[0] for factor, side in zip(factors, rhs, strict=True)])


def _per_neuron(d: np.ndarray, A: np.ndarray) -> np.ndarray:
    """The part of d (P, M) that has kinks, shape (P, m, k)."""
    programs, m, _, k = A.shape
    return d[:, : m * k].reshape(programs, m, k)


def _along(A: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Products of the normals with the step of their neuron, shape (P, m, K)."""
    return np.matmul(A, _per_neuron(d, A)[:, :, :, None])[:, :, :, 0]


def _add_adjoint(d: np.ndarray, A: np.ndarray, theta: np.ndarray) -> None:
    """Add A^T theta, for multipliers of the kinks (P, m, K), to the part of d (P, M) of each neuron."""
    programs, m, _, k = A.shape
    d[:, : m * k] += np.matmul(theta[:, :, None, :], A).reshape(programs, m * k)


def _move(
    A: np.ndarray,
    solve: Callable[[np.ndarray], np.ndarray],
    weight: np.ndarray,
    ratio: np.ndarray,
    residual: np.ndarray,
    multipliers: np.ndarray,
    change: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Newton step of d and of the state, in which the complementary products change by `change` to first order."""
    change = change / multipliers
    fixed = (change[:, 0] - change[:, 1]) * weight
    rhs = -residual
    _add_adjoint(rhs, A, -fixed)
    dd = solve(rhs)
    along = _along(A, dd)
    later = np.empty((len(A), 4, *along.shape[1:]))
    later[:, 0] = fixed + weight * along
    later[:, 1] = -later[:, 0]
    later[:, 3] = change[:, 1] + ratio[:, 1] * later[:, 0]
    later[:, 2] = later[:, 3] - along
    return dd, later


def _longest(state: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Longest step that keeps the state of each program positive, shape (P, 1, 1, 1)."""
    return 1 / np.maximum((-change / state).max(axis=(1, 2, 3), keepdims=True), np.finfo(float).tiny)
