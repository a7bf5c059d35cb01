"""Newton's method for the neurons of a network, with the kinks of the ReLU in its model."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from convexbn.kink_program import nearest_kinks, solve_kink_program
from convexbn.neurons import Neurons
from convexbn.problem import Problem

_SIZE = 400  # weights that move in one step; more neurons take turns
_KINKS = 3  # kinks in the model, in multiples of k
_MIN_DAMPING, _MAX_DAMPING = 1e-6, 1e6


def refine(
    problem: Problem, neurons: Neurons, *, rtol: float, max_steps: int, damping: float = 0.1, stop: Callable[[], bool]
) -> Neurons:
    """Move neurons to a nearby local optimum of the training problem.

    An optimal neuron sits on kinks: rows with z_i·s = 0 and sign * v_i < 0, where the objective has a convex corner,
    at which methods of smooth optimisation stall. So the model of a step holds the corners of the rows nearest to each
    neuron exactly, as in `solve_kink_program`, beside a quadratic: Gauss-Newton for the loss, the
    curvature of |s_j|, and damping relative to it, after Levenberg and Marquardt. A step is taken only if it lowers
    the objective.

    Parameters
    ----------
    problem : Problem
        Training problem with one output and a smooth loss.
    neurons : Neurons
        Neurons with output weights +1 and -1.
    rtol : float
        Ends when the model promises a smaller decrease, relative to the objective.
    max_steps : int
        Rounds of steps.
    damping : float, default=0.1
        Damping of the first step.
    stop : callable
        Asked before every step; when it says True the neurons so far are returned.

    Returns
    -------
    neurons : Neurons
        Neurons with no larger objective.
    """
    for _ in range(max_steps):
        promised = 0.0
        size = max(1, _SIZE // problem.Z.n_columns)
        n_turns = -(-len(neurons) // size)
        moved = neurons
        for turn in range(n_turns):
            if stop():
                return merged(problem, moved)
            moved, decrease, damping = _step(problem, moved, np.arange(turn, len(neurons), n_turns), damping)
            promised += decrease
        neurons = merged(problem, moved)
        if promised <= rtol * problem.objective(neurons) or damping >= _MAX_DAMPING:
            break
    return neurons


def merged(problem: Problem, neurons: Neurons) -> Neurons:
    """Add up neurons of equal pattern and sign, which changes no output and costs no more; drop zeros."""
    neurons = neurons.without_zeros()
    patterns = np.packbits(problem.Z.Z @ neurons.weights > 0, axis=0)
    keys = [(patterns[:, j].tobytes(), sign) for j, sign in enumerate(neurons.output_weights[:, 0])]
    groups: dict[tuple[bytes, float], int] = {}
    group = np.array([groups.setdefault(key, len(groups)) for key in keys], dtype=int)
    return neurons if len(groups) == len(neurons) else neurons.added_up(group)


def _step(problem: Problem, neurons: Neurons, turn: np.ndarray, damping: float) -> tuple[Neurons, float, float]:
    """One damped step of the neurons whose turn it is: the network, the decrease promised, and the next damping."""
    Z, k = problem.Z, problem.Z.n_columns
    S, signs = neurons.weights[:, turn], neurons.output_weights[turn, 0]
    m = S.shape[1]
    inner = Z.Z @ S
    on = inner > 0
    f = neurons.outputs(Z)
    objective = problem.training_loss(f) + problem.weight_decay * float(neurons.cost.sum())
    v = problem.dual_point(f)
    lengths = np.linalg.norm(S, axis=0)
    U = S / lengths
    signed_v = Z.unpool(v) * signs

    gradient = (problem.weight_decay * U - Z.Z.T @ (on * signed_v)).T.ravel()
    curvature = problem.sample_weight * problem.loss.second_derivative(f, problem.y)[:, 0]
    H = _hessian(problem, on * signs, curvature)
    if problem.fit_intercept:
        gradient = np.append(gradient, -v.sum())
    tangent = (problem.weight_decay / lengths)[:, None, None] * (np.eye(k) - U.T[:, :, None] * U.T[:, None, :])
    blocks = np.arange(m)
    per_neuron = H[: m * k, : m * k].reshape(m, k, m, k)
    per_neuron[blocks, :, blocks, :] += tangent
    diagonal = np.repeat(problem.weight_decay / lengths, k)
    if problem.fit_intercept:
        diagonal = np.append(diagonal, 1e-6 * problem.loss.curvature)
    rounding = 1e-12 * H.trace() / len(H)

    A, b, c = nearest_kinks(Z, inner, signed_v, min(_KINKS * k, Z.n_rows))
    while True:
        damped = H.copy()
        damped[np.diag_indices_from(damped)] += damping * diagonal + rounding
        try:
            d, decrease = solve_kink_program(damped, gradient, A, b, c)
        except np.linalg.LinAlgError:
            decrease, actual = 0.0, -1.0
        else:
            moved = _moved(neurons, turn, S, d, problem.fit_intercept)
            actual = objective - problem.objective(moved)
            if decrease <= 0:
                return neurons, 0.0, damping
        if actual > 0.7 * decrease:
            damping = max(damping * (0.1 if actual < 1.2 * decrease else 0.01), _MIN_DAMPING)
        elif not actual >= 0.3 * decrease or decrease == 0:
            damping *= 10
        if actual >= 0:
            return moved, decrease, damping
        if damping >= _MAX_DAMPING:
            return neurons, decrease, damping


def _hessian(problem: Problem, signed_masks: np.ndarray, curvature: np.ndarray) -> np.ndarray:
    """Gauss-Newton matrix of the loss in the weights, and in the intercept if there is one."""
    gram = problem.Z.masked_gram(signed_masks, curvature)
    if not problem.fit_intercept:
        return gram
    mixed = problem.Z.masked_adjoint(signed_masks, curvature[:, None]).T.ravel()
    return np.block([[gram, mixed[:, None]], [mixed[None], np.full((1, 1), curvature.sum())]])


def _moved(neurons: Neurons, turn: np.ndarray, S: np.ndarray, d: np.ndarray, fit_intercept: bool) -> Neurons:
    """The network after a step; a neuron that would be turned round is set to zero."""
    k, m = S.shape
    stepped = S + d[: m * k].reshape(m, k).T
    stepped[:, (stepped * S).sum(axis=0) <= 0] = 0
    weights = neurons.weights.copy()
    weights[:, turn] = stepped
    intercept = neurons.intercept + d[-1] if fit_intercept else neurons.intercept
    return replace(neurons, weights=weights, intercept=intercept)
