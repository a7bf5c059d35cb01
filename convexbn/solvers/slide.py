"""Quasi-Newton descent for all neurons of a network together: fast, until the kinks stop it."""

from dataclasses import replace

import numpy as np
from scipy.optimize import minimize

from convexbn.neurons import Neurons
from convexbn.problem import Problem

_MEMORY = 20
_FTOL = 1e-8  # least relative decrease of a step: what then remains is left to Newton's method


def slide(problem: Problem, neurons: Neurons, *, max_steps: int, directions_too: bool = True) -> Neurons:
    """Lower the objective by L-BFGS on the weights, with the signs of the neurons fixed.

    Parameters
    ----------
    problem : Problem
        Training problem with one output and a smooth loss.
    neurons : Neurons
        Neurons with output weights +1 and -1.
    max_steps : int
        Quasi-Newton steps.
    directions_too : bool, default=True
        Whether neurons may turn. If not, only their lengths change: a convex problem, in which neurons may vanish.

    Returns
    -------
    neurons : Neurons
        The better of the result and the start, without zeros.
    """
    Z, signs, decay = problem.Z, neurons.output_weights[:, 0], problem.weight_decay
    k, m = neurons.weights.shape
    lengths = np.linalg.norm(neurons.weights, axis=0)
    hidden = Z.neuron_outputs(neurons.weights / lengths) * signs if not directions_too else np.zeros((0, m))

    def split(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (x[:-1], x[-1:]) if problem.fit_intercept else (x, neurons.intercept)

    def loss_and_adjoint(f: np.ndarray) -> tuple[float, np.ndarray, list[float]]:
        v = problem.dual_point(f[:, None])
        return problem.training_loss(f[:, None]), v, [-float(v.sum())] if problem.fit_intercept else []

    def of_weights(x: np.ndarray) -> tuple[float, np.ndarray]:
        weights, intercept = split(x)
        S = weights.reshape(k, m)
        inner = Z.Z @ S
        loss, v, slope = loss_and_adjoint(Z.pool(np.maximum(inner, 0)) @ signs + intercept)
        length = np.maximum(np.linalg.norm(S, axis=0), np.finfo(float).tiny)
        gradient = decay * S / length - Z.masked_adjoint((inner > 0) * signs, v)
        return loss + decay * float(length.sum()), np.append(gradient.ravel(), slope)

    def of_lengths(x: np.ndarray) -> tuple[float, np.ndarray]:
        length, intercept = split(x)
        loss, v, slope = loss_and_adjoint(hidden @ length + intercept)
        return loss + decay * float(length.sum()), np.append(decay - v[:, 0] @ hidden, slope)

    variables = neurons.weights.ravel() if directions_too else lengths
    start = np.append(variables, neurons.intercept if problem.fit_intercept else [])
    bounds = None if directions_too else [(0, None)] * m + [(None, None)] * problem.fit_intercept
    options = {
        "maxiter": max_steps,
        "maxfun": 2 * max_steps,
        "maxcor": _MEMORY,
        "ftol": _FTOL if directions_too else 0,
        "gtol": 0,
    }
    value = of_weights if directions_too else of_lengths
    found, intercept = split(minimize(value, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x)
    weights = found.reshape(k, m) if directions_too else neurons.weights / lengths * found
    moved = replace(neurons, weights=weights, intercept=intercept)
    return (moved if problem.objective(moved) <= problem.objective(neurons) else neurons).without_zeros()
