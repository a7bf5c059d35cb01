"""The methods that GDNP is compared with: gradient descent, Nesterov's, batch-normalized, and L-BFGS."""

from collections.abc import Callable, Generator

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult, minimize

from convexbn.gradient._options import check_integer, check_number
from convexbn.gradient._trace import DivergenceError, Recorder
from convexbn.gradient.gdnp._descent import LinearFit, check_objective, check_start
from convexbn.gradient.gdnp._objectives import Objective

_RISEN = 1.1  # objective at the end of a diverged run, over the larger one of the start and zero weights

Steps = Generator[np.ndarray, np.ndarray, None]  # takes the gradient at the weights that it gave


def gradient_descent(
    objective: Objective,
    *,
    start: ArrayLike | None = None,
    learning_rate: float | None = None,
    n_steps: int = 1000,
    tol: float = 1e-6,
    verbose: bool = False,
) -> LinearFit:
    """Minimise by gradient descent on the weights.

    Parameters
    ----------
    objective : Objective
        What to minimise.
    start : array-like of shape (d,) or None, default=None
        Weights to start from; None takes zero.
    learning_rate : float or None, default=None
        Step size; None takes one over the Lipschitz constant of the gradient, L max |phi''|.
    n_steps : int, default=1000
        Most steps.
    tol : float, default=1e-6
        The run ends where the gradient's norm in the metric of S^-1 is at most this.
    verbose : bool, default=False
        Whether to show a progress bar.

    Returns
    -------
    fit : LinearFit

    Raises
    ------
    ValueError
        If an argument is out of range.
    DivergenceError
        If the objective grows a million-fold, or the run ends with it well above both the start and zero weights.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.gdnp import LeastSquares, gradient_descent
    >>> gradient_descent(LeastSquares(np.eye(2), [1.0, 2.0])).weights
    array([1., 2.])
    """

    def steps(w: np.ndarray, rate: float) -> Steps:
        while True:
            gradient = yield w
            w = w - rate * gradient

    return _run("gradient descent", steps, objective, start, learning_rate, n_steps, tol, verbose)


def accelerated_gradient_descent(
    objective: Objective,
    *,
    start: ArrayLike | None = None,
    learning_rate: float | None = None,
    n_steps: int = 1000,
    tol: float = 1e-6,
    verbose: bool = False,
) -> LinearFit:
    """Minimise by Nesterov's accelerated gradient descent.

    The momentum is constant where the strong convexity of the objective is known (least squares), and grows as for
    merely convex functions otherwise. The trace is that of the extrapolated points, at which gradients are taken.

    Parameters
    ----------
    objective, start, learning_rate, n_steps, tol, verbose
        As for `gradient_descent`.

    Returns
    -------
    fit : LinearFit

    Raises
    ------
    ValueError
        If an argument is out of range.
    DivergenceError
        If the objective grows a million-fold, or the run ends with it well above both the start and zero weights.

    References
    ----------
    .. [1] Nesterov, "Introductory Lectures on Convex Optimization", 2004.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.gdnp import LeastSquares, accelerated_gradient_descent
    >>> accelerated_gradient_descent(LeastSquares(np.diag([2.0, 1.0]), [2.0, 2.0])).weights.round(4)
    array([1., 2.])
    """

    def steps(w: np.ndarray, rate: float) -> Steps:
        root = np.sqrt(objective.strong_convexity * rate)
        point, t = w, 1.0
        while True:
            gradient = yield w
            before, point = point, w - rate * gradient
            t_before, t = t, (1 + np.sqrt(1 + 4 * t**2)) / 2
            momentum = (1 - root) / (1 + root) if objective.strong_convexity else (t_before - 1) / t
            w = point + momentum * (point - before)

    return _run("accelerated gradient descent", steps, objective, start, learning_rate, n_steps, tol, verbose)


def batch_norm_descent(
    objective: Objective,
    *,
    start: ArrayLike | None = None,
    learning_rate: float | None = None,
    n_steps: int = 1000,
    tol: float = 1e-6,
    verbose: bool = False,
) -> LinearFit:
    """Minimise over weights g w / |w|_S by gradient steps on w and g at once, as batch normalization is trained.

    The step size is `learning_rate` for g, whose second derivative max |phi''| bounds, and `learning_rate`
    |w|_S^2 / (L g^2) for w, so that both change the weights by at most a gradient step of size `learning_rate` / L,
    and 1 / max |phi''| is safe. (With a constant step for w the length of w, which never falls, would do the division.)

    Parameters
    ----------
    objective, n_steps, tol, verbose
        As for `gradient_descent`.
    start : array-like of shape (d,) or None, default=None
        First direction, with length 1; None takes -u.
    learning_rate : float or None, default=None
        As said above; None takes 1 / max |phi''|.

    Returns
    -------
    fit : LinearFit

    Raises
    ------
    ValueError
        If an argument is out of range.
    DivergenceError
        If the objective grows a million-fold, or the run ends with it well above both the start and zero weights.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.gdnp import LeastSquares, batch_norm_descent
    >>> batch_norm_descent(LeastSquares(np.eye(2), [1.0, 2.0])).weights.round(4)
    array([1., 2.])
    """
    check_objective(objective)
    moments = objective.moments
    rate = 1 / objective.curvature if learning_rate is None else learning_rate

    def steps(w: np.ndarray, rate: float) -> Steps:
        g = 1.0
        while True:
            w = w / (moments.norm(w) or 1.0)
            gradient = yield g * w
            slope = w @ gradient
            w, g = w - rate / (moments.L * g) * (gradient - slope * (moments.S @ w)), g - rate * float(slope)

    first = -moments.u if start is None else start
    return _run("batch-normalized gradient descent", steps, objective, first, rate, n_steps, tol, verbose)


def lbfgs(
    objective: Objective,
    *,
    start: ArrayLike | None = None,
    n_steps: int = 1000,
    tol: float = 1e-6,
    verbose: bool = False,
) -> LinearFit:
    """Minimise by SciPy's L-BFGS, whose steps have a line search each.

    Parameters
    ----------
    objective, start, n_steps, tol, verbose
        As for `gradient_descent`.

    Returns
    -------
    fit : LinearFit

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.gdnp import LeastSquares, lbfgs
    >>> lbfgs(LeastSquares(np.diag([2.0, 1.0]), [2.0, 2.0])).weights.round(4)
    array([1., 2.])
    """
    check_objective(objective)
    check_integer("n_steps", n_steps, 0)
    check_number("tol", tol)
    w = _start(objective, start)
    with Recorder("L-BFGS", n_steps, verbose=verbose) as recorder:
        value, gradient = objective.evaluate(w)
        norm = _record(recorder, 0, objective, w, value, gradient)
        evaluated = {w.tobytes(): (value, gradient)}
        done = 0

        def evaluate(weights: np.ndarray) -> tuple[float, np.ndarray]:
            result = evaluated[weights.tobytes()] = objective.evaluate(weights)
            return result

        def after(intermediate_result: OptimizeResult) -> None:
            nonlocal w, norm, done
            w, done = intermediate_result.x.copy(), done + 1
            at = evaluated[w.tobytes()]
            evaluated.clear()
            evaluated[w.tobytes()] = at
            norm = _record(recorder, done, objective, w, *at)
            if norm <= tol or done == n_steps:
                raise StopIteration

        if norm > tol and n_steps:
            limits = {"maxiter": n_steps, "maxfun": 100 * n_steps, "ftol": 0.0, "gtol": 0.0}
            minimize(evaluate, w, jac=True, method="L-BFGS-B", callback=after, options=limits)
    return _fit(objective, w, norm <= tol, recorder)


def _run(
    method: str,
    steps: Callable[[np.ndarray, float], Steps],
    objective: Objective,
    start: ArrayLike | None,
    learning_rate: float | None,
    n_steps: int,
    tol: float,
    verbose: bool,
) -> LinearFit:
    """Take gradient steps until the gradient is small or the steps are over.

    A loss that grows no faster than the weights, as the logistic one, is never a million-fold; so the last one is
    compared.
    """
    check_objective(objective)
    check_integer("n_steps", n_steps, 0)
    check_number("tol", tol)
    check_number("learning_rate", learning_rate, positive=True, optional=True)
    rate = 1 / objective.smoothness if learning_rate is None else learning_rate
    iterates = steps(_start(objective, start), rate)
    w, converged = next(iterates), False
    with Recorder(method, n_steps, verbose=verbose) as recorder:
        for step in range(n_steps + 1):
            value, gradient = objective.evaluate(w)
            converged = _record(recorder, step, objective, w, value, gradient) <= tol
            if converged:
                break
            if step < n_steps:
                w = iterates.send(gradient)
    trace = recorder.trace()
    if not trace.interrupted:
        first, last = trace.objective[[0, -1]]
        if last > _RISEN * max(first, objective.value(objective.along(w), 0.0)):
            raise DivergenceError(
                f"{method} diverged: the objective is {last:.3g} at the end, {first:.3g} at the start; take "
                f"smaller steps than learning_rate={rate:.3g}, or None for a safe size.",
                trace,
            )
    return _fit(objective, w, converged, recorder)


def _start(objective: Objective, start: ArrayLike | None) -> np.ndarray:
    d = len(objective.moments.u)
    return np.zeros(d) if start is None else check_start(start, d)


def _record(
    recorder: Recorder, step: int, objective: Objective, w: np.ndarray, value: float, gradient: np.ndarray
) -> float:
    """Record a step; return the gradient's norm."""
    moments = objective.moments
    norm = moments.dual_norm(gradient)
    recorder.record(step, value, rho=moments.rho(w), gradient_norm=norm, length=moments.norm(w))
    return norm


def _fit(objective: Objective, w: np.ndarray, converged: bool, recorder: Recorder) -> LinearFit:
    trace = recorder.trace()
    if trace.interrupted:
        status = "interrupted"
    elif objective.separated(objective.along(w), 1.0):
        status = "separable"
    else:
        status = "converged" if converged else "stopped"
    return LinearFit(w, objective.moments.norm(w), status, trace)
