"""Quasi-Newton descent for neurons that are normalized after the ReLU, and the best lengths for given ones."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from convexbn.model._normalized_neurons import NormalizedNeurons
from convexbn.model._post_activation import PostActivationProblem
from convexbn.solvers.relu._lbfgs import lbfgs

_FTOL = 1e-9  # least relative decrease of a step
_MEMORY = 20  # of the descent in lengths alone

Stop = Callable[[], bool] | None


def quasi_newton(
    problem: PostActivationProblem,
    neurons: NormalizedNeurons,
    *,
    max_steps: int,
    single_precision: bool = False,
    stop: Stop = None,
) -> NormalizedNeurons:
    """Lower the objective by L-BFGS on hidden weights, shifts, output weights and intercept.

    Neurons h_j = relu(Z w_j) + shift_j move at the cost ``(|h_j|^2 + |c_j|^2) / 2``, which is least, and |h_j| |c_j|,
    where both are of equal length.

    Parameters
    ----------
    problem : PostActivationProblem
        Training problem with a smooth loss.
    neurons : NormalizedNeurons
        Network to start from.
    max_steps : int
        Quasi-Newton steps.
    single_precision : bool, default=False
        Whether the products with Z, and those of neurons and outputs, are made in single precision.
    stop : callable or None, default=None
        Called after every step; when it returns True the descent ends.

    Returns
    -------
    neurons : NormalizedNeurons
        The better of the result and the start, without zeros.
    """
    if len(neurons) == 0:
        return neurons
    decay, dtype = problem.weight_decay, np.float32 if single_precision else np.float64
    Z = problem.Z.in_single_precision if single_precision else problem.Z
    decays = (decay * problem.sample_weight)[:, None].astype(dtype)
    start = neurons.balanced()
    sizes = np.cumsum([start.weights.size, len(start), start.output_weights.size])

    def split(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        W, shift, c, b = np.split(x, sizes)
        return (
            W.reshape(start.weights.shape),
            shift,
            c.reshape(start.output_weights.shape),
            b if problem.fit_intercept else start.intercept,
        )

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        W, shift, c, b = split(x)
        h = Z @ W
        np.clip(h, 0, np.inf, out=h)
        on = h > 0
        h += shift.astype(dtype, copy=False)
        f = h @ c.astype(dtype, copy=False) + b
        v = problem.dual_point(f)
        v_rounded = v.astype(dtype, copy=False)
        of_h = decays * h
        squares = float(np.vdot(of_h, h)) + decay * float((c * c).sum())
        of_h -= v_rounded @ c.T.astype(dtype, copy=False)
        value = problem.training_loss(f) + squares / 2
        parts = [Z.adjoint(on * of_h).ravel(), of_h.sum(axis=0), (decay * c - h.T @ v_rounded).ravel()]
        return value, np.concatenate([*parts, -v.sum(axis=0)] if problem.fit_intercept else parts)

    x = [start.scaled_weights.ravel(), start.shift, start.output_weights.ravel()]
    x += [start.intercept] if problem.fit_intercept else []
    found = lbfgs(objective, np.concatenate(x), max_steps=max_steps, ftol=_FTOL, stop=stop)
    return better(problem, neurons, NormalizedNeurons.on(problem.Z, problem.sample_weight, *split(found)))


def best_lengths(
    problem: PostActivationProblem, neurons: NormalizedNeurons, *, max_steps: int, stop: Stop = None
) -> NormalizedNeurons:
    """Lower the objective by L-BFGS on the lengths of the neurons alone: a convex problem, in which they may vanish.

    Parameters
    ----------
    problem, neurons, max_steps, stop
        As in `quasi_newton`; neurons of no length have the directions that they are to be measured along.

    Returns
    -------
    neurons : NormalizedNeurons
        The better of the result and the start, without zeros.
    """
    hidden, costs = neurons.hidden(problem.Z), neurons.cost

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        f = hidden @ (x[: len(costs), None] * neurons.output_weights)
        f = f + (x[len(costs) :] if problem.fit_intercept else neurons.intercept)
        v = problem.dual_point(f)
        gradient = problem.weight_decay * costs - ((v.T @ hidden).T * neurons.output_weights).sum(axis=1)
        value = problem.training_loss(f) + problem.weight_decay * float(costs @ x[: len(costs)])
        return value, np.append(gradient, -v.sum(axis=0)) if problem.fit_intercept else gradient

    def ended(x: np.ndarray) -> None:
        if stop is not None and stop():
            raise StopIteration

    start = np.append(np.ones(len(costs)), neurons.intercept if problem.fit_intercept else [])
    bounds = [(0, None)] * len(costs) + [(None, None)] * (len(start) - len(costs))
    options = {"maxiter": max_steps, "maxfun": 2 * max_steps, "maxcor": _MEMORY, "ftol": 0, "gtol": 0}
    x = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options, callback=ended).x
    found = neurons.with_lengths(x[: len(costs)], x[len(costs) :] if problem.fit_intercept else neurons.intercept)
    return better(problem, neurons, found)


def better(problem: PostActivationProblem, neurons: NormalizedNeurons, moved: NormalizedNeurons) -> NormalizedNeurons:
    """The better of two networks, without zeros."""
    return (moved if problem.objective(moved) <= problem.objective(neurons) else neurons).without_zeros()
