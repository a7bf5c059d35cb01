"""The quadratic program of a step of many neurons, with the kinks of the ReLU in it."""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from convexbn.matrix import DesignMatrix

_MAX_STEPS = 50
_FIRST_MU = 0.1  # of the mean of slope * b
_LEAST_MU = 1e-6  # of the decrease without kinks, all together: with d on all its kinks that mean is rounding
_TO_BOUNDARY = 0.995
_NOTHING = 1e-100  # gradients and products up to here count as zero
_LEAST = 1e-13  # of the first duality gap, below which rounding takes over


def nearest_kinks(
    Z: DesignMatrix, inner: np.ndarray, signed_v: np.ndarray, n_kinks: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the kinks nearest to each neuron at which the objective has a convex corner: rows with sign * v_i < 0.

    Parameters
    ----------
    Z : DesignMatrix
        Design matrix.
    inner : ndarray of shape (N, m)
        Products Z S with the neurons.
    signed_v : ndarray of shape (N, m)
        Dual point times the sign of each neuron.
    n_kinks : int
        How many a neuron; where fewer are convex, others fill up with slope zero.

    Returns
    -------
    A, b, c : ndarray of shape (m, n_kinks, k), (m, n_kinks) and (m, n_kinks)
        Normals, distances and slopes, as `solve_kink_program` takes them.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.kink_program import nearest_kinks
    >>> from convexbn.matrix import DesignMatrix
    >>> A, b, c = nearest_kinks(DesignMatrix(np.eye(2)), np.array([[3.0], [-1.0]]), np.array([[1.0], [-2.0]]), 1)
    >>> A[0], b[0], c[0]
    (array([[0., 1.]]), array([1.]), array([2.]))
    """
    distance = np.abs(inner) / np.maximum(Z.row_norms, np.finfo(float).tiny)[:, None]
    distance[signed_v >= 0] = np.inf
    near = np.argpartition(distance, n_kinks - 1, axis=0)[:n_kinks]
    inner = np.take_along_axis(inner, near, axis=0).T
    outward = np.where(inner > 0, -1.0, 1.0)
    slope = np.maximum(-np.take_along_axis(signed_v, near, axis=0), 0).T
    return Z.Z[near.T] * outward[:, :, None], np.abs(inner), slope


def solve_kink_program(
    H: np.ndarray, g: np.ndarray, A: np.ndarray, b: np.ndarray, c: np.ndarray, *, rtol: float = 1e-2
) -> tuple[np.ndarray, float]:
    """Minimise ``g·d + d·H d / 2 + sum_jl c_jl relu(A_jl·d_j - b_jl)``: a step d with a price on crossing kinks.

    A primal-dual interior-point method (Mehrotra's predictor and corrector). The kinks of neuron j touch its own
    step d_j only, so they add a k × k block to H, and an iteration costs one Cholesky factorisation.

    Parameters
    ----------
    H : ndarray of shape (M, M) or (m, k, k)
        Positive definite, M = m * k or larger: what follows the m blocks of k has no kinks (an intercept). Three
        dimensions stand for a block-diagonal matrix, M = m * k: the program of every neuron is one of its own.
    g : ndarray of shape (M,)
        Gradient.
    A : ndarray of shape (m, K, k)
        Normals of the kinks of each neuron.
    b : ndarray of shape (m, K)
        Distances from the kinks, not negative.
    c : ndarray of shape (m, K)
        Slope behind each kink; kinks of zero slope are ignored.
    rtol : float, default=1e-2
        The duality gap at which to stop, relative to the decrease of the objective that was reached.

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
    >>> from convexbn.kink_program import solve_kink_program
    >>> H, g = np.eye(1), np.array([-3.0])  # without the kink at d = 1 the step would be 3
    >>> d, decrease = solve_kink_program(H, g, np.ones((1, 1, 1)), np.ones((1, 1)), np.full((1, 1), 5.0), rtol=1e-9)
    >>> d.round(6), round(decrease, 6)
    (array([1.]), 2.5)
    """
    m, _, k = A.shape
    scale = float(np.abs(g).max())
    d = np.zeros(len(g))
    if scale < _NOTHING:
        return d, 0.0
    slope = np.maximum(c, 1e-12 * scale)
    # theta is the force of a kink, room what it lacks to its slope; a step goes `over` a kink, or stays `under` it.
    # The start is on the central path of d = 0: theta * under = room * over = mu, and under - over = b.
    decrease_scale = float(g @ g) / max(float(np.diagonal(H, axis1=-2, axis2=-1).mean()), _NOTHING)
    mu = _FIRST_MU * max(float((slope * b).mean()), _LEAST_MU * decrease_scale / b.size, _NOTHING)
    half = mu - slope * b / 2
    root = np.sqrt(half**2 + mu * slope * b)
    over = np.where(half > 0, (half + root) / slope, mu * b / (root + np.abs(half)))
    under = over + b
    state = np.stack([mu / under, mu / over, under, over])
    forces, ways = state[:2], state[2:]  # (theta, room) and (under, over), complementary to each other
    first_total = 0.0
    for iteration in range(_MAX_STEPS):
        products = forces * ways
        residual = g + _product(H, d)
        model = d @ (g + residual) / 2
        decrease = -float(model + (c * np.maximum(_along(A, d) - b, 0)).sum())
        _per_neuron(residual, m, k)[:] += _pull(A, forces[0])
        total = float(products.sum())
        if total <= rtol * decrease and np.abs(residual).max() <= 1e-6 * scale:
            break
        first_total = total if iteration == 0 else first_total
        if total <= _LEAST * first_total:
            break
        ratio = ways / forces
        weight = 1 / (ratio[0] + ratio[1])
        try:
            solve = _factorised(H, np.matmul(A.transpose(0, 2, 1) * weight[:, None, :], A))
        except np.linalg.LinAlgError:
            if iteration == 0:
                raise
            break

        move = partial(_move, A, solve, weight, ratio, residual, forces)
        _, change = move(-products)
        t = min(1.0, _longest(state, change))
        later = state + t * change
        mu = total / (2 * b.size) * (float((later[:2] * later[2:]).sum()) / total) ** 3
        dd, change = move(mu - products - change[:2] * change[2:])
        t = min(1.0, _TO_BOUNDARY * _longest(state, change))
        d += t * dd
        state += t * change
    return d, decrease


def _product(H: np.ndarray, d: np.ndarray) -> np.ndarray:
    if H.ndim == 2:
        return H @ d
    return np.matmul(H, d.reshape(H.shape[:2])[:, :, None]).ravel()


def _factorised(H: np.ndarray, added: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Solve with H plus the blocks (m, k, k) on its diagonal."""
    if H.ndim == 3:
        inverse = np.linalg.inv(H + added)
        return partial(_product, inverse)
    m, k, _ = added.shape
    blocks = np.arange(m)
    M = H.copy(order="F")
    M[: m * k, : m * k].reshape(m, k, m, k)[blocks, :, blocks, :] += added
    return partial(cho_solve, cho_factor(M, lower=True, overwrite_a=True, check_finite=False), check_finite=False)


def _per_neuron(d: np.ndarray, m: int, k: int) -> np.ndarray:
    return d[: m * k].reshape(m, k)


def _along(A: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Products of the normals with the step of their neuron, shape (m, K)."""
    m, _, k = A.shape
    return np.matmul(A, _per_neuron(d, m, k)[:, :, None])[:, :, 0]


def _pull(A: np.ndarray, force: np.ndarray) -> np.ndarray:
    """Forces of the kinks, added up over those of each neuron, shape (m, k)."""
    return np.matmul(force[:, None, :], A)[:, 0]


def _move(
    A: np.ndarray,
    solve: Callable[[np.ndarray], np.ndarray],
    weight: np.ndarray,
    ratio: np.ndarray,
    residual: np.ndarray,
    forces: np.ndarray,
    wanted: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Newton step of d and of the state, for the products of forces and ways to change by what is wanted."""
    m, _, k = A.shape
    wanted = wanted / forces
    force = (wanted[0] - wanted[1]) * weight
    rhs = -residual
    _per_neuron(rhs, m, k)[:] -= _pull(A, force)
    dd = solve(rhs)
    along = _along(A, dd)
    dtheta = force + weight * along
    dover = wanted[1] + ratio[1] * dtheta
    return dd, np.stack([dtheta, -dtheta, dover - along, dover])


def _longest(state: np.ndarray, change: np.ndarray) -> float:
    """Longest step that keeps the state positive."""
    return 1 / max(float((-change / state).max()), np.finfo(float).tiny)
