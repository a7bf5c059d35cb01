"""The Newton system of the weights in use: by conjugate gradients, or factorised where these would take longer."""

from collections.abc import Callable

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from convexbn.solvers.gated._conjugate_gradients import conjugate_gradients
from convexbn.solvers.gated._euclidean_norm import EuclideanNorm
from convexbn.solvers.gated._loss_model import LossModel
from convexbn.solvers.gated._nuclear_norm import NuclearNorm
from convexbn.solvers.gated._products import Products

_STEPS = 500  # of conjugate gradients
_FEW = 3  # steps in the time of a factorization that are not worth a try
_CALLS, _PRODUCTS = 5e5, 4  # time of a step in multiplications: of calls, and of products beside those of a matrix
_ENTRIES = 2**24  # of the derivative of the outputs, up to which it is formed
_RIDGE = 1e-10  # of the largest diagonal entry, as gates that fit equally well make the matrix singular

Smooth = EuclideanNorm | NuclearNorm


def newton_directions(
    smooth: Smooth,
    loss: LossModel,
    products: Products,
    single: Products,
    K: np.ndarray,
    columns: np.ndarray,
    stop: Callable[[], bool],
) -> list[np.ndarray]:
    """Steps (R, m) towards the minimiser of the quadratic model of loss and norms, in the order in which to try them.

    Parameters
    ----------
    smooth : EuclideanNorm or NuclearNorm
        The norms at the weights in use.
    loss : LossModel
        The model of the loss.
    products, single : Products
        Products with the masked design matrices of these weights, and in single precision, which is enough for
        conjugate gradients.
    K : ndarray of shape (a, a)
        Overlaps of the patterns, of which with `columns` (k,) the preconditioner is made.
    columns : ndarray of shape (k,)
        Curvatures of the columns.
    stop : callable
        Asked after every product; where it returns True, the direction so far is taken.

    Returns
    -------
    directions : list of ndarray of shape (R, m)
        The last is Newton's; before it, if the system was factorised and some weights would pass through zero, a step
        on which they end there.
    """
    (n, C, _), p = loss.hessian.shape, smooth.descent.size
    forward, adjoint = smooth.derivative(single)

    def by_products(steps: int) -> tuple[np.ndarray, bool]:
        return conjugate_gradients(
            lambda D: adjoint(loss.curved(forward(D))) + smooth.curvature(D),
            smooth.preconditioner(K, columns),
            smooth.descent,
            steps=steps,
            stop=stop,
        )

    if n * C * p > _ENTRIES:
        return [by_products(_STEPS)[0]]
    steps = int((n * C * p**2 + p**3 / 3) / (_CALLS + _PRODUCTS * n * C * p))
    if steps >= _FEW:
        D, solved = by_products(min(steps, _STEPS))
        if solved:
            return [D]
    try:
        return factorised(smooth, smooth.gram(loss, products.features()))
    except (np.linalg.LinAlgError, ValueError):  # factors bend downwards, or a curvature is infinite
        return [by_products(_STEPS)[0]]


def factorised(smooth: Smooth, H: np.ndarray) -> list[np.ndarray]:
    """The directions by Cholesky's method, from the Hessian (p, p) of the loss, to which that of the norms is added."""
    (R, m), descent = smooth.descent.shape, smooth.descent.ravel()
    each = np.arange(R)
    H.reshape(R, m, R, m)[each, :, each] += smooth.curvatures()
    H.flat[:: R * m + 1] += _RIDGE * H.diagonal().max()
    newton = cho_solve(cho_factor(H), descent).reshape(R, m)
    D, ending = newton.copy(), np.zeros(R, dtype=bool)
    while (through := smooth.through_zero(D) & ~ending).any():
        ending |= through
        D[ending] = -smooth.S[ending]
        if ending.all():
            break
        free = np.repeat(~ending, m)
        rest = descent[free] - H[np.ix_(free, ~free)] @ D.ravel()[~free]
        D[~ending] = cho_solve(cho_factor(H[np.ix_(free, free)]), rest).reshape(-1, m)
    return [D, newton] if ending.any() else [newton]
