"""Newton's method for the neurons of a network, with the kinks of the ReLU in its model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from convexbn.losses import Loss
from convexbn.model._merging import merge
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.model._sums import network_outputs
from convexbn.oracles._kink_program import solve_kink_program
from convexbn.oracles._kinks import Kinks, nearest, shared_kinks, sided_products
from convexbn.solvers.relu._gauss_newton import gauss_newton
from convexbn.solvers.relu._quasi_newton import quasi_newton

_MOST_COLUMNS, _QUASI_NEWTON_STEPS = 1000, 500  # of Z; with more the step of a single neuron takes long
_WHOLE = 2  # block sizes up to which all weights move together: block by block convergence is linear
_KINKS = 3  # kinks in the model, in multiples of k
# Damping is relative to weight_decay / |s_j|, and must reach the curvature of the loss where that is larger by far.
_MIN_DAMPING, _MAX_DAMPING = 1e-6, 1e10
_FREE = 1.0  # up to this damping a small decrease of the model means that the neurons are close to a local optimum


def newton(
    problem: Problem,
    neurons: Neurons,
    *,
    rtol: float,
    damping: float,
    max_sweeps: int,
    block_weights: int,
    max_steps: float,
    single_precision: bool = False,
    stop: Callable[[], bool],
) -> tuple[Neurons, int]:
    """Move neurons to a nearby local optimum of the training problem.

    An optimal neuron lies on kinks: rows with z_i·s = 0 and v_i·c < 0, where the objective has a convex corner,
    at which methods of smooth optimisation stall. So the model of a step holds the corners of the rows nearest to each
    neuron exactly, as in `solve_kink_program`, beside a quadratic: Gauss-Newton for the loss, the
    curvature of |s_j|, and damping relative to it, after Levenberg and Marquardt. The unit output weights move on their
    sphere, ``c_j + T_j t_j`` with T_j a basis of the tangent space, at the cost |s_j| sqrt(1 + |t_j|^2); signs have no
    tangents. The second derivative between s_j and t_j is in the model as far as that keeps it convex. A step is
    taken only if it lowers the objective. With more than 1000 columns of Z neurons move by quasi-Newton steps only.

    Parameters
    ----------
    problem : Problem
        Training problem with a smooth loss.
    neurons : Neurons
        Neurons with unit output weights; for one output +1 and -1.
    rtol : float
        Ends when the model's decrease, relative to the objective, is smaller and damping is not the cause.
    damping : float
        Damping of the first step.
    max_sweeps : int
        Steps of every neuron.
    block_weights : int
        Weights that move together in one step; the neurons of a larger network are split into blocks.
    max_steps : float
        Steps of a block.
    single_precision : bool, default=False
        Whether the Gauss-Newton matrix may be in single precision: far from an optimum that takes no more steps.
    stop : callable
        Called before every step; when it returns True the neurons so far are returned.

    Returns
    -------
    neurons : Neurons
        Neurons with no larger objective.
    n_steps : int
        Steps of a block that were taken.
    """
    if problem.Z.n_columns > _MOST_COLUMNS:
        return merge(problem, quasi_newton(problem, neurons, max_steps=_QUASI_NEWTON_STEPS, stop=stop)), 0
    n_steps = 0
    for _ in range(max_sweeps):
        promised = 0.0
        weights_each = problem.Z.n_columns + problem.n_outputs - 1
        whole = len(neurons) * weights_each <= _WHOLE * block_weights
        n_blocks = 1 if whole else -(-len(neurons) // max(1, block_weights // weights_each))
        moved = neurons
        for first in range(n_blocks):
            if n_steps >= max_steps or stop():
                return merge(problem, moved), n_steps
            n_steps += 1
            block = np.arange(first, len(neurons), n_blocks)
            moved, decrease, damping = _step(problem, moved, block, damping, single_precision, stop)
            promised += decrease
        neurons = merge(problem, moved)
        done = len(neurons) == 0 or (promised <= rtol * problem.objective(neurons) and damping <= _FREE)
        if done or damping >= _MAX_DAMPING:
            break
    return neurons, n_steps


@dataclass(frozen=True, eq=False)
class _Model:
    """The quadratic of a step, in hidden weights, tangents and intercept, with what its damping is relative to."""

    H: np.ndarray
    gradient: np.ndarray
    scale: np.ndarray


def _step(
    problem: Problem,
    neurons: Neurons,
    block: np.ndarray,
    damping: float,
    single_precision: bool,
    stop: Callable[[], bool],
) -> tuple[Neurons, float, float]:
    """One damped step of a block of neurons: the network, the model's decrease, and the next damping."""
    tangents = problem.output_directions.tangents(neurons.output_weights[block])
    loss, model, kinks = _model(problem, neurons, block, tangents, single_precision)
    objective = loss + problem.weight_decay * float(neurons.cost.sum())
    rounding = 1e-12 * model.H.trace() / len(model.H)
    A, b, c = kinks.program()
    while True:
        damped = model.H.copy()
        damped[np.diag_indices_from(damped)] += damping * model.scale + rounding
        try:
            d, decrease = solve_kink_program(damped, model.gradient, A, b, c, stop=stop)
        except np.linalg.LinAlgError:
            decrease, actual = 0.0, -1.0
        else:
            moved = _moved(neurons, block, tangents, d, problem.fit_intercept)
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


def _model(
    problem: Problem, neurons: Neurons, block: np.ndarray, tangents: np.ndarray, single_precision: bool
) -> tuple[float, _Model, Kinks]:
    """Loss, Gauss-Newton matrix of the loss with the curvature of the cost, and the nearest kinks."""
    Z, decay, S = problem.Z, problem.weight_decay, neurons.weights[:, block]
    (k, m), n_tangents = S.shape, tangents.shape[2]
    planes = Z.hyperplanes
    shared = () if planes.all_differ else shared_kinks(Z, Z.unpool(problem.dual_point(neurons.outputs(Z))))
    loss, total, adjoint, H, kinks = Z.summed(
        _sums,
        *problem.placed,
        *shared,
        loss=problem.loss,
        weights=neurons.weights,
        output_weights=neurons.output_weights,
        intercept=neurons.intercept,
        block=block,
        tangents=tangents,
        fit_intercept=problem.fit_intercept,
        single_precision=single_precision,
        n_kinks=min(_KINKS * k, len(planes.first)),
    )
    lengths, blocks = np.linalg.norm(S, axis=0), np.arange(m)
    U = S / lengths
    across = np.eye(k) - U.T[:, :, None] * U.T[:, None, :]
    of_hidden = (decay * U - np.einsum("ckm,mc->km", adjoint, neurons.output_weights[block])).T.ravel()
    of_tangents = -np.einsum("ckj,kj,jcd->jd", adjoint, S, tangents).ravel()
    of_intercept = -total if problem.fit_intercept else np.zeros(0)

    H, split = H.astype(np.float64), m * (k + n_tangents)
    hidden, turning = slice(0, m * k), slice(m * k, split)
    H[hidden, hidden].reshape(m, k, m, k)[blocks, :, blocks, :] += (decay / lengths)[:, None, None] * across
    if n_tangents:
        per_tangent = H[turning, turning].reshape(m, n_tangents, m, n_tangents)
        per_tangent[blocks, :, blocks, :] += (decay * lengths)[:, None, None] * np.eye(n_tangents)
        mixed = _mixed(adjoint, across, tangents, decay)
        H[hidden, turning].reshape(m, k, m, n_tangents)[blocks, :, blocks, :] += mixed
        H[turning, hidden].reshape(m, n_tangents, m, k)[blocks, :, blocks, :] += mixed.transpose(0, 2, 1)
    scale = np.concatenate(
        [
            np.repeat(decay / lengths, k),
            np.repeat(decay * lengths, n_tangents),
            np.full(len(of_intercept), 1e-6 * problem.loss.curvature),
        ]
    )
    return float(loss), _Model(H, np.concatenate([of_hidden, of_tangents, of_intercept]), scale), kinks


def _sums(
    Z: Any,
    y: Any,
    p: Any,
    *shared: Any,
    loss: Loss,
    weights: Any,
    output_weights: Any,
    intercept: Any,
    block: Any,
    tangents: Any,
    fit_intercept: bool,
    single_precision: bool,
    n_kinks: int,
) -> tuple[Any, Any, Any, Any, Kinks]:
    """Of a block of rows: loss, sum of the dual point V (C,), Z^T D_j V (C, k, m), Gauss-Newton matrix, kinks."""
    xp = Z.xp
    f = network_outputs(Z, weights=weights, output_weights=output_weights, intercept=intercept)
    value, gradient = loss.with_gradient(f, y)
    V = -p[:, None] * gradient
    S, outputs = xp.take(weights, block, axis=1), xp.take(output_weights, block, axis=0)
    inner, of_rows = sided_products(Z, *shared, S=S), Z.unpool(V)
    kinks = nearest(Z, inner, (shared[1] if shared else of_rows) @ outputs.T, n_kinks)
    masks = Z.cast(inner > 0)
    adjoint = xp.stack([Z.adjoint(masks * of_rows[:, c : c + 1]) for c in range(V.shape[1])])
    hessian = p[:, None, None] * loss.hessian(f, y)
    matrix = gauss_newton(
        Z,
        masks,
        hessian,
        weights=S,
        output_weights=outputs,
        tangents=tangents,
        fit_intercept=fit_intercept,
        single_precision=single_precision,
    )
    return p @ value, xp.sum(V, axis=0), adjoint, matrix, kinks


def _mixed(adjoint: np.ndarray, across: np.ndarray, tangents: np.ndarray, weight_decay: float) -> np.ndarray:
    """Second derivatives -(Z^T D_j V) T_j between s_j and t_j, shape (m, k, C - 1).

    The curvatures of the cost in s_j and t_j are weight_decay / |s_j|, across s_j, and weight_decay * |s_j|. Beside
    them the model stays convex where this is across s_j too, with singular values of at most weight_decay.
    """
    left, sizes, right = np.linalg.svd(across @ -adjoint.transpose(2, 1, 0) @ tangents, full_matrices=False)
    return (left * np.minimum(sizes, weight_decay)[:, None, :]) @ right


def _moved(neurons: Neurons, block: np.ndarray, tangents: np.ndarray, d: np.ndarray, fit_intercept: bool) -> Neurons:
    """The network after a step, with unit output weights; a neuron that would pass through zero is set to zero."""
    S, outputs = neurons.weights[:, block], neurons.output_weights[block]
    (k, m), n_tangents = S.shape, tangents.shape[2]
    stepped = S + d[: m * k].reshape(m, k).T
    stepped[:, (stepped * S).sum(axis=0) <= 0] = 0
    t = d[m * k : m * (k + n_tangents)].reshape(m, n_tangents)
    outputs = outputs + np.einsum("jcd,jd->jc", tangents, t)
    sizes = np.linalg.norm(outputs, axis=1)
    weights, output_weights = neurons.weights.copy(), neurons.output_weights.copy()
    weights[:, block] = stepped * sizes
    output_weights[block] = outputs / sizes[:, None]
    intercept = neurons.intercept + d[-len(neurons.intercept) :] if fit_intercept else neurons.intercept
    return replace(neurons, weights=weights, output_weights=output_weights, intercept=intercept)
