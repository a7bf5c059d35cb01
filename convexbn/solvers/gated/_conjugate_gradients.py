"""Conjugate gradients for Newton systems, which need not be solved exactly."""

from collections.abc import Callable

import numpy as np


def conjugate_gradients(
    hessian: Callable[[np.ndarray], np.ndarray],
    precondition: Callable[[np.ndarray], np.ndarray],
    rhs: np.ndarray,
    *,
    tol: float = 0.1,
    steps: int,
    stop: Callable[[], bool],
) -> tuple[np.ndarray, bool]:
    """Solve a Newton system to a share `tol` of its residual, or until a direction has no curvature.

    The solution, as far as it got when `stop` returned True, and whether the steps sufficed for it or were stopped.
    """
    X, R = np.zeros_like(rhs), rhs.copy()
    P = step = precondition(R)
    size = first = float(np.vdot(R, P))
    for _ in range(steps):
        product = hessian(step)
        curvature = float(np.vdot(step, product))
        if curvature <= 0 or size <= 0:
            return X, True
        X += size / curvature * step
        R -= size / curvature * product
        P = precondition(R)
        last, size = size, float(np.vdot(R, P))
        if size <= tol**2 * first or stop():
            return X, True
        step = P + size / last * step
    return X, False
