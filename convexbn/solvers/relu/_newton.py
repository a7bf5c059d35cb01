"""Newton's method for the neurons of a network, with the kinks of the ReLU in its model."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.oracles._kink_program import nearest_kinks, solve_kink_program
from convexbn.solvers.relu._gauss_newton import gauss_newton
from convexbn.solvers.relu._quasi_newton import slide

NEWTON_SIZE = 400  # weights that move in one step; more neurons take turns
_MOST_COLUMNS, _SLIDE_STEPS = 1000, 500  # of Z; with more even the steps of one neuron are long
_KINKS = 3  # kinks in the model, in multiples of k
# Damping is relative to weight_decay / |s_j|, and must reach the curvature of the loss where that is larger by far.
_MIN_DAMPING, _MAX_DAMPING = 1e-6, 1e10
_FREE = 1.0  # up to this damping a small decrease promised means that there is little left to gain
# With several outputs neurons become one, if that is no worse, whose output directions agree to so many digits in one
# pattern, or whose directions are so close.
_SAME_OUTPUT, _SAME_DIRECTION = (2, 4, 6), (1e-1, 1e-2, 1e-3)


def refine(
    problem: Problem, neurons: Neurons, *, rtol: float, max_steps: int, damping: float = 0.1, stop: Callable[[], bool]
) -> Neurons:
    """Move neurons to a nearby local optimum of the training problem.

    An optimal neuron sits on kinks: rows with z_i·s = 0 and v_i·c < 0, where the objective has a convex corner,
    at which methods of smooth optimisation stall. So the model of a step holds the corners of the rows nearest to each
    neuron exactly, as in `solve_kink_program`, beside a quadratic: Gauss-Newton for the loss, the
    curvature of |s_j|, and damping relative to it, after Levenberg and Marquardt. With several outputs the unit output
    weights turn too, ``c_j + T_j t_j`` with T_j a basis of the complement of c_j, at the cost |s_j| sqrt(1 + |t_j|^2);
    the second derivative between s_j and t_j is in the model as far as that keeps it convex. A step is taken only if
    it lowers the objective. With more than 1000 columns of Z neurons move by quasi-Newton steps (`slide`) only.

    Parameters
    ----------
    problem : Problem
        Training problem with a smooth loss.
    neurons : Neurons
        Neurons with unit output weights; for one output +1 and -1.
    rtol : float
        Ends when the model promises a smaller decrease, relative to the objective, that damping does not explain.
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
    if problem.Z.n_columns > _MOST_COLUMNS:
        return merged(problem, slide(problem, neurons, max_steps=_SLIDE_STEPS, stop=stop))
    for _ in range(max_steps):
        promised = 0.0
        size = max(1, NEWTON_SIZE // (problem.Z.n_columns + problem.n_outputs - 1))
        n_turns = -(-len(neurons) // size)
        moved = neurons
        for turn in range(n_turns):
            if stop():
                return merged(problem, moved)
            moved, decrease, damping = _step(problem, moved, np.arange(turn, len(neurons), n_turns), damping, stop)
            promised += decrease
        neurons = merged(problem, moved)
        done = promised <= rtol * problem.objective(neurons) and damping <= _FREE
        if done or damping >= _MAX_DAMPING:
            break
    return neurons


def merged(problem: Problem, neurons: Neurons) -> Neurons:
    """Add up neurons of equal pattern and output direction, which changes no output and costs no more; drop zeros.

    Of several outputs, neurons of equal pattern whose output directions are close, and neurons that are close, are
    added up if the objective does not rise: at an optimum they are one.
    """
    neurons = neurons.without_zeros()
    if problem.n_outputs == 1:
        return _added_up(neurons, _equal(problem, neurons, neurons.output_weights))
    for digits in _SAME_OUTPUT:
        neurons = _no_worse(problem, neurons, _equal(problem, neurons, np.round(neurons.output_weights, digits) + 0.0))
    for distance in _SAME_DIRECTION:
        neurons = _no_worse(problem, neurons, neurons.close_directions(distance))
    return neurons


def _added_up(neurons: Neurons, group: np.ndarray) -> Neurons:
    return neurons if len(np.unique(group)) == len(neurons) else neurons.added_up(group)


def _no_worse(problem: Problem, neurons: Neurons, group: np.ndarray) -> Neurons:
    """The neurons of each group added up along their mean output direction, unless that raises the objective."""
    means = np.zeros((len(neurons), problem.n_outputs))
    np.add.at(means, group, neurons.cost[:, None] * neurons.output_weights)
    outputs = means[group] / np.linalg.norm(means[group], axis=1)[:, None]
    along = (neurons.output_weights * outputs).sum(axis=1)
    fewer = _added_up(replace(neurons, weights=neurons.weights * along, output_weights=outputs), group)
    better = len(fewer) < len(neurons) and problem.objective(fewer) <= problem.objective(neurons)
    return fewer if better else neurons


def _equal(problem: Problem, neurons: Neurons, outputs: np.ndarray) -> np.ndarray:
    """Number the neurons of equal pattern and equal row of `outputs`: shape (m,)."""
    patterns = np.packbits(problem.Z.products(neurons.weights) > 0, axis=0)
    groups: dict[tuple[bytes, bytes], int] = {}
    keys = ((patterns[:, j].tobytes(), output.tobytes()) for j, output in enumerate(outputs))
    return np.array([groups.setdefault(key, len(groups)) for key in keys], dtype=int)


def _step(
    problem: Problem, neurons: Neurons, turn: np.ndarray, damping: float, stop: Callable[[], bool]
) -> tuple[Neurons, float, float]:
    """One damped step of the neurons whose turn it is: the network, the decrease promised, and the next damping."""
    Z, k, n_outputs = problem.Z, problem.Z.n_columns, problem.n_outputs
    S, outputs = neurons.weights[:, turn], neurons.output_weights[turn]
    m = S.shape[1]
    tangents = _complements(outputs)
    inner = Z.products(S)
    on = inner > 0
    f = neurons.outputs(Z)
    objective = problem.training_loss(f) + problem.weight_decay * float(neurons.cost.sum())
    V = problem.dual_point(f)
    lengths = np.linalg.norm(S, axis=0)
    U = S / lengths
    v = Z.unpool(V) @ outputs.T

    gradient = (problem.weight_decay * U - Z.adjoint(on * v)).T.ravel()
    H = gauss_newton(problem, neurons, turn, on, tangents, f)
    per_neuron = H[: m * k, : m * k].reshape(m, k, m, k)
    blocks = np.arange(m)
    across = np.eye(k) - U.T[:, :, None] * U.T[:, None, :]
    per_neuron[blocks, :, blocks, :] += (problem.weight_decay / lengths)[:, None, None] * across
    diagonal = np.repeat(problem.weight_decay / lengths, k)
    if n_outputs > 1:
        turning = m * (n_outputs - 1)
        along = problem.Z.pool(np.maximum(inner, 0)).T @ V
        gradient = np.append(gradient, -np.einsum("jc,jcd->jd", along, tangents).ravel())
        per_tangent = H[m * k : m * k + turning, m * k : m * k + turning].reshape(m, n_outputs - 1, m, n_outputs - 1)
        per_tangent[blocks, :, blocks, :] += (problem.weight_decay * lengths)[:, None, None] * np.eye(n_outputs - 1)
        mixed = _mixed(problem, on, V, across, tangents)
        H[: m * k, m * k : m * k + turning].reshape(m, k, m, n_outputs - 1)[blocks, :, blocks, :] += mixed
        transposed = mixed.transpose(0, 2, 1)
        H[m * k : m * k + turning, : m * k].reshape(m, n_outputs - 1, m, k)[blocks, :, blocks, :] += transposed
        diagonal = np.append(diagonal, np.repeat(problem.weight_decay * lengths, n_outputs - 1))
    if problem.fit_intercept:
        gradient = np.append(gradient, -V.sum(axis=0))
        diagonal = np.append(diagonal, np.full(n_outputs, 1e-6 * problem.loss.curvature))
    rounding = 1e-12 * H.trace() / len(H)

    A, b, c = nearest_kinks(Z, inner, v, min(_KINKS * k, Z.n_rows))
    while True:
        damped = H.copy()
        damped[np.diag_indices_from(damped)] += damping * diagonal + rounding
        try:
            d, decrease = solve_kink_program(damped, gradient, A, b, c, stop=stop)
        except np.linalg.LinAlgError:
            decrease, actual = 0.0, -1.0
        else:
            moved = _moved(neurons, turn, tangents, d, problem.fit_intercept)
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


def _complements(outputs: np.ndarray) -> np.ndarray:
    """Orthonormal bases of the complements of unit rows (m, C), shape (m, C, C - 1): columns of a reflection."""
    axis = outputs.copy()
    axis[:, 0] += np.where(outputs[:, 0] >= 0, 1.0, -1.0)
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    return np.eye(outputs.shape[1])[:, 1:] - 2 * axis[:, :, None] * axis[:, None, 1:]


def _mixed(problem: Problem, on: np.ndarray, V: np.ndarray, across: np.ndarray, tangents: np.ndarray) -> np.ndarray:
    """Second derivatives -(Z^T D_j V) T_j between s_j and t_j, shape (m, k, C - 1).

    The curvatures of the cost in s_j and t_j are weight_decay / |s_j|, across s_j, and weight_decay * |s_j|. Beside
    them the model stays convex where this is across s_j too, with singular values of at most weight_decay.
    """
    rows = problem.Z.unpool(V)
    adjoint = np.stack([problem.Z.adjoint(on * column[:, None]) for column in rows.T], axis=-1).transpose(1, 0, 2)
    left, sizes, right = np.linalg.svd(across @ -adjoint @ tangents, full_matrices=False)
    return (left * np.minimum(sizes, problem.weight_decay)[:, None, :]) @ right


def _moved(neurons: Neurons, turn: np.ndarray, tangents: np.ndarray, d: np.ndarray, fit_intercept: bool) -> Neurons:
    """The network after a step, with unit output weights; a neuron that would be turned round is set to zero."""
    S, outputs = neurons.weights[:, turn], neurons.output_weights[turn]
    (k, m), n_outputs = S.shape, outputs.shape[1]
    stepped = S + d[: m * k].reshape(m, k).T
    stepped[:, (stepped * S).sum(axis=0) <= 0] = 0
    weights, output_weights = neurons.weights.copy(), neurons.output_weights
    if n_outputs > 1:
        t = d[m * k : m * (k + n_outputs - 1)].reshape(m, n_outputs - 1)
        turned = outputs + np.einsum("jcd,jd->jc", tangents, t)
        sizes = np.linalg.norm(turned, axis=1)
        stepped *= sizes
        output_weights = output_weights.copy()
        output_weights[turn] = turned / sizes[:, None]
    weights[:, turn] = stepped
    intercept = neurons.intercept + d[-n_outputs:] if fit_intercept else neurons.intercept
    return replace(neurons, weights=weights, output_weights=output_weights, intercept=intercept)
