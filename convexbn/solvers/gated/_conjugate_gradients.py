"""Conjugate gradients for Newton systems, which need not be solved exactly."""

from collections.abc import Callable

import numpy as np


def conjugate_gradients(
    hessian: Callable[[np.ndarray], np.ndarray],
    precondition: Callable[[np.ndarray], np.ndarray],
    rhs: np.ndarray,
    *,
    tol: float = 0.1,
    steps: int = 500,
) -> np.ndarray:
    """Solve a Newton system to a share `tol` of its residual, or until a direction has no curvature."""
    X, R = np.zeros_like(rhs), rhs.copy()
    P = step = precondition(R)
    size = first = float(np.vdot(R, P))
    for _ in range(steps):
        product = hessian(step)
        curvature = float(np.vdot(step, product))
        if curvature <= 0 or size <= 0:
            break
        X += size / curvature * step
        R -= size / curvature * product
        P = precondition(R)
        last, size = size, float(np.vdot(R, P))
        if size <= tol**2 * first:
            break
        step = P + size / last * step
    return X
