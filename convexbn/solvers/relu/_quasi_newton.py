"""Quasi-Newton descent for all neurons of a network together: fast, until the kinks stop it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize

from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.solvers.relu._lbfgs import lbfgs

_MEMORY = 20  # of the descent in lengths alone
_FTOL = 1e-8  # least relative decrease of a step: what then remains is left to Newton's method


def slide(
    problem: Problem,
    neurons: Neurons,
    *,
    max_steps: int,
    directions_too: bool = True,
    single_precision: bool = False,
    stop: Callable[[], bool] | None = None,
) -> Neurons:
    """Lower the objective by L-BFGS on the weights.

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
    directions_too : bool, default=True
        Whether neurons may turn. If not, only their lengths change: a convex problem, in which neurons may vanish.
    single_precision : bool, default=False
        Whether the products with Z are made in single precision, in about half the time, where neurons may turn.
    stop : callable or None, default=None
        Asked after every step; when it says True the descent ends.

    Returns
    -------
    neurons : Neurons
        The better of the result and the start, with unit output weights and without zeros.
    """
    Z, decay, C = problem.Z, problem.weight_decay, problem.n_outputs
    k, m = neurons.weights.shape
    outputs, signs = neurons.output_weights, neurons.output_weights[:, 0]
    lengths = np.linalg.norm(neurons.weights, axis=0)
    hidden = np.zeros((0, m)) if directions_too else Z.neuron_outputs(neurons.weights / lengths)
    rows = Z.in_single_precision if single_precision else Z
    dtype = np.float32 if single_precision else np.float64

    def split(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (x[:-C], x[-C:]) if problem.fit_intercept else (x, neurons.intercept)

    def loss_and_adjoint(f: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        v = problem.dual_point(f)
        return problem.training_loss(f), v, -v.sum(axis=0) if problem.fit_intercept else np.zeros(0)

    def of_hidden_weights(x: np.ndarray) -> tuple[float, np.ndarray]:
        weights, intercept = split(x)
        S = weights.reshape(k, m)
        active = rows @ S
        np.maximum(active, 0, out=active)
        loss, v, slope = loss_and_adjoint(Z.pool(active) @ outputs.astype(dtype, copy=False) + intercept)
        length = np.maximum(np.linalg.norm(S, axis=0), np.finfo(float).tiny)
        of_signs = rows.weighted(Z.unpool(v)).adjoint(np.greater(active, 0, out=active))
        return loss + decay * float(length.sum()), np.append((decay * S / length - signs * of_signs).ravel(), slope)

    def of_all_weights(x: np.ndarray) -> tuple[float, np.ndarray]:
        weights, intercept = split(x)
        S, c = weights[: k * m].reshape(k, m), weights[k * m :].reshape(m, C)
        active = rows @ S
        np.maximum(active, 0, out=active)
        pooled = Z.pool(active)
        loss, v, slope = loss_and_adjoint(pooled @ c.astype(dtype, copy=False) + intercept)
        of_outputs = decay * c - pooled.T @ v.astype(dtype, copy=False)
        masked = Z.unpool(v).astype(dtype, copy=False) @ c.T.astype(dtype, copy=False)
        masked *= active > 0
        of_hidden = decay * S - rows.adjoint(masked)
        value = loss + decay / 2 * float(weights @ weights)
        return value, np.concatenate([of_hidden.ravel(), of_outputs.ravel(), slope])

    def of_lengths(x: np.ndarray) -> tuple[float, np.ndarray]:
        length, intercept = split(x)
        loss, v, slope = loss_and_adjoint(hidden @ (length[:, None] * outputs) + intercept)
        return loss + decay * float(length.sum()), np.append(decay - ((v.T @ hidden).T * outputs).sum(axis=1), slope)

    if not directions_too:
        value, variables = of_lengths, lengths
    elif C == 1:
        value, variables = of_hidden_weights, neurons.weights.ravel()
    else:
        balanced = neurons.balanced()
        value, variables = of_all_weights, np.append(balanced.weights, balanced.output_weights)
    start = np.append(variables, neurons.intercept if problem.fit_intercept else [])
    if directions_too:
        found = lbfgs(value, start, max_steps=max_steps, ftol=_FTOL, stop=stop)
    else:

        def ended(x: np.ndarray) -> None:
            if stop is not None and stop():
                raise StopIteration

        bounds = [(0, None)] * m + [(None, None)] * (C * problem.fit_intercept)
        options = {"maxiter": max_steps, "maxfun": 2 * max_steps, "maxcor": _MEMORY, "ftol": 0, "gtol": 0}
        found = minimize(value, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options, callback=ended).x
    found, intercept = split(found)
    weights = found[: k * m].reshape(k, m) if directions_too else neurons.weights / lengths * found
    if directions_too and C > 1:
        outputs = found[k * m :].reshape(m, C)
    moved = replace(neurons, weights=weights, output_weights=outputs, intercept=intercept).with_unit_outputs()
    return moved if problem.objective(moved) <= problem.objective(neurons) else neurons.without_zeros()
