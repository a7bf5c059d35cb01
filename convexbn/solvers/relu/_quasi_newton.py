"""Quasi-Newton descent for all neurons of a network together: fast, until the kinks stop it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize

from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.model._sums import neuron_outputs, of_all_weights, of_hidden_weights, of_lengths
from convexbn.solvers.relu._lbfgs import lbfgs

_MEMORY = 20  # of the descent in lengths alone
_FTOL = 1e-8  # least relative decrease of a step: then Newton's method takes over
_FTOL_SINGLE = 1e-7  # the same in single precision, whose products are no more accurate
_TINY = float(np.finfo(float).tiny)

Stop = Callable[[], bool] | None
Objective = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray, np.ndarray]]


def quasi_newton(
    problem: Problem,
    neurons: Neurons,
    *,
    max_steps: int,
    single_precision: bool = False,
    stop: Stop = None,
    enough: Callable[[Sequence[float]], bool] = lambda values: False,
) -> Neurons:
    """Lower the objective by L-BFGS on all weights.

    With one output the signs of the neurons are fixed. With several, hidden and output weights move at the cost
    ``(|s_j|^2 + |c_j|^2) / 2``, which is least, and |s_j| |c_j|, where both are of equal length.

    Parameters
    ----------
    problem : Problem
        Training problem with a smooth loss.
    neurons : Neurons
        Neurons with unit output weights; for one output +1 and -1.
    max_steps : int
        Quasi-Newton steps.
    single_precision : bool, default=False
        Whether the products with Z are made in single precision, in about half the time.
    stop : callable or None, default=None
        Called after every step; when it returns True the descent ends.
    enough : callable, optional
        Called after every step with the objectives so far; when it returns True the descent ends.

    Returns
    -------
    neurons : Neurons
        The better of the result and the start, with unit output weights and without zeros.
    """
    (k, m), C = neurons.weights.shape, problem.n_outputs
    fixed = problem.output_directions.fixed
    if fixed:
        start, outputs = neurons.weights.ravel(), neurons.output_weights
        objective = _in_hidden_weights(problem, outputs, single_precision)
    else:
        balanced = neurons.balanced()
        start = np.append(balanced.weights, balanced.output_weights)
        objective = _in_all_weights(problem, m, single_precision)
    value, start, split = _with_intercept(problem, neurons, objective, start)
    ftol = _FTOL_SINGLE if single_precision else _FTOL
    weights, intercept = split(lbfgs(value, start, max_steps=max_steps, ftol=ftol, stop=stop, enough=enough))
    outputs = outputs if fixed else weights[k * m :].reshape(m, C)
    hidden = weights[: k * m].reshape(k, m)
    return _better(problem, neurons, replace(neurons, weights=hidden, output_weights=outputs, intercept=intercept))


def best_lengths(problem: Problem, neurons: Neurons, *, max_steps: int, stop: Stop = None) -> Neurons:
    """Lower the objective by L-BFGS on the lengths of the neurons alone: a convex problem, in which neurons may vanish.

    Parameters
    ----------
    problem, neurons, max_steps, stop
        As in `quasi_newton`.

    Returns
    -------
    neurons : Neurons
        The better of the result and the start, with unit output weights and without zeros.
    """
    lengths, directions, outputs = np.linalg.norm(neurons.weights, axis=0), neurons.directions, neurons.output_weights
    Z, decay = problem.Z, problem.weight_decay
    hidden = Z.hold(neuron_outputs, weights=directions)

    def objective(length: np.ndarray, intercept: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        now = {"loss": problem.loss, "output_weights": length[:, None] * outputs, "intercept": intercept}
        value, along, total = Z.summed(of_lengths, *problem.placed, hidden, **now)
        return value + decay * float(length.sum()), decay - (along * outputs).sum(axis=1), total

    def ended(x: np.ndarray) -> None:
        if stop is not None and stop():
            raise StopIteration

    value, start, split = _with_intercept(problem, neurons, objective, lengths)
    if start.size == 0:
        return neurons
    bounds = [(0, None)] * len(neurons) + [(None, None)] * (len(start) - len(neurons))
    options = {"maxiter": max_steps, "maxfun": 2 * max_steps, "maxcor": _MEMORY, "ftol": 0, "gtol": 0}
    found = minimize(value, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options, callback=ended).x
    lengths, intercept = split(found)
    return _better(problem, neurons, replace(neurons, weights=directions * lengths, intercept=intercept))


def _better(problem: Problem, neurons: Neurons, moved: Neurons) -> Neurons:
    """The better of two networks, with unit output weights and without zeros."""
    moved = moved.with_unit_outputs()
    return moved if problem.objective(moved) <= problem.objective(neurons) else neurons.without_zeros()


def _with_intercept(
    problem: Problem, neurons: Neurons, objective: Objective, start: np.ndarray
) -> tuple[
    Callable[[np.ndarray], tuple[float, np.ndarray]], np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
]:
    """An objective of weights and intercept as one of a single array, its start, and how to split the array."""
    if not problem.fit_intercept:
        return lambda x: objective(x, neurons.intercept)[:2], start, lambda x: (x, neurons.intercept)

    def split(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x[: start.size], x[start.size :]

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient, total = objective(*split(x))
        return value, np.concatenate((gradient, -total))

    return value, np.append(start, neurons.intercept), split


def _in_hidden_weights(problem: Problem, outputs: np.ndarray, single_precision: bool) -> Objective:
    """Objective and gradient in hidden weights, for output weights that are signs; and the sum of the dual point."""
    decay, signs = problem.weight_decay, outputs[:, 0]
    products = problem.Z.in_single_precision if single_precision else problem.Z
    outputs = products.cast(outputs)

    def objective(weights: np.ndarray, intercept: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        S = weights.reshape(-1, len(signs))
        now = {"loss": problem.loss, "weights": S, "output_weights": outputs, "intercept": intercept}
        value, of_active, total = products.summed(of_hidden_weights, *problem.placed, **now)
        length = np.maximum(np.sqrt((S * S).sum(axis=0)), _TINY)  # np.linalg.norm takes as long as a product
        return value + decay * float(length.sum()), (decay * S / length - signs * of_active).ravel(), total

    return objective


def _in_all_weights(problem: Problem, n_neurons: int, single_precision: bool) -> Objective:
    """Objective and gradient in hidden and output weights, at the cost of both; and the sum of the dual point."""
    decay, k = problem.weight_decay, problem.Z.n_columns
    products = problem.Z.in_single_precision if single_precision else problem.Z

    def objective(weights: np.ndarray, intercept: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        S, c = weights[: k * n_neurons].reshape(k, n_neurons), weights[k * n_neurons :].reshape(n_neurons, -1)
        now = {"loss": problem.loss, "weights": S, "output_weights": products.cast(c), "intercept": intercept}
        value, of_active, along, total = products.summed(of_all_weights, *problem.placed, **now)
        gradient = np.concatenate(((decay * S - of_active).ravel(), (decay * c - along).ravel()))
        return value + decay / 2 * float(weights @ weights), gradient, total

    return objective
