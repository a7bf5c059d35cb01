"""Newton's method for all neurons of one output at once, each in the subspace of the kinks that hold it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem

_STEPS = 10
_NEAR = 1e-4  # distance of a unit direction from a kink up to which the kink may hold the neuron at the start
_DEPENDENT = 1e-9  # singular values up to here, relative to the largest, are those of rows that depend on others
_RIDGE = 1e-12  # of the mean curvature
_ROUNDING = 1e-14  # of the objective
_MOST_RISE = 1e-6  # of the objective, after which steps seldom lead back
_SLACK = 1e-9  # of weight_decay: how far multipliers may leave their interval
_MOST_WEIGHTS, _MOST_ENTRIES = 3000, 2**22  # of the network, and of Z, its products and the Jacobian, each

Basis = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class _Sides:
    """On which side of the G hyperplanes of the rows of Z each neuron is.

    Parameters
    ----------
    beyond : ndarray of bool, shape (G, m)
        Whether z·s > 0 for the first row z of the hyperplane.
    held : ndarray of bool, shape (G, m)
        Whether the neuron stays on the hyperplane.
    """

    beyond: np.ndarray
    held: np.ndarray


@dataclass(frozen=True, eq=False)
class _Step:
    """The network after a step, its sides, whether any changed, and the decrease that the model promised."""

    neurons: Neurons
    sides: _Sides
    changed: bool
    decrease: float


def newton_on_kinks(problem: Problem, neurons: Neurons, *, stop: Callable[[], bool]) -> tuple[Neurons, bool]:
    """Move neurons that are close to a joint local optimum all the way to it.

    There most neurons are held by kinks, so that hardly more than n weights are free, however many there are. A step
    minimises the Gauss-Newton model of all free weights, in which neurons that come to zero stay there. Then kinks
    whose multipliers left their interval let go, and convex ones that were crossed hold: a primal-dual active set
    method [1]_, which converges in a few steps or not at all. Steps may raise the objective on the way; the best
    network is returned.

    Parameters
    ----------
    problem : Problem
        Training problem of one output with a smooth loss.
    neurons : Neurons
        Neurons with output weights +1 and -1.
    stop : callable
        Called before every step; when it returns True the best network so far is returned.

    Returns
    -------
    neurons : Neurons
        Neurons with no larger objective.
    converged : bool
        Whether they are at a joint local optimum. Networks of too many weights stay as they are.

    References
    ----------
    .. [1] Hintermüller, Ito, Kunisch, "The Primal-Dual Active Set Strategy as a Semismooth Newton Method",
       SIAM J. Optim. 13, 2002.
    """
    neurons = neurons.without_zeros()
    if neurons.weights.size > _MOST_WEIGHTS or problem.Z.n_rows * max(neurons.weights.shape) > _MOST_ENTRIES:
        return neurons, False
    best, least = neurons, problem.objective(neurons)
    sides, bases = _nearest(problem, neurons), dict[bytes, Basis]()
    for _ in range(_STEPS):
        if len(neurons) == 0 or stop():
            break
        step = _step(problem, neurons, sides, bases)
        if step is None:
            break
        neurons, sides, objective = step.neurons, step.sides, problem.objective(step.neurons)
        if objective <= least:
            best, least = neurons, objective
        if objective > least * (1 + _MOST_RISE):
            break
        if not step.changed and step.decrease <= _ROUNDING * objective:
            return best, objective <= least * (1 + _ROUNDING)
    return best, False


def _nearest(problem: Problem, neurons: Neurons) -> _Sides:
    """The sides of a network, and the kinks that may hold it: the nearest with a convex corner of the objective."""
    Z, planes = problem.Z, problem.Z.hyperplanes
    inner = Z.products(neurons.weights)[planes.first]
    V = problem.dual_point(neurons.outputs(Z))
    convex = planes.summed(Z.unpool(V) @ neurons.output_weights.T) < 0
    sizes = np.maximum(np.outer(Z.row_norms[planes.first], neurons.norms), np.finfo(float).tiny)
    distance = np.abs(inner) / sizes
    return _Sides(inner > 0, _fewer(Z.n_columns, convex & (distance < _NEAR), distance))


def _fewer(k: int, held: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """The nearest k - 1 kinks of each neuron among those that hold it, so that it keeps a direction to move along."""
    most = min(k, len(held)) - 1
    distance = np.where(held, distance, np.inf)
    return held & (distance < np.partition(distance, most, axis=0)[most])


def _basis(rows: np.ndarray) -> Basis:
    """Orthonormal basis (k, f) of the directions that are orthogonal to rows (h, k), and their pseudoinverse (h, k)."""
    left, sizes, right = np.linalg.svd(rows, full_matrices=True)
    rank = int((sizes > _DEPENDENT * sizes.max(initial=0)).sum())
    return right[rank:].T, (left[:, :rank] / sizes[:rank]) @ right[:rank]


def _step(problem: Problem, neurons: Neurons, sides: _Sides, known: dict[bytes, Basis]) -> _Step | None:
    """One step of the free weights, and the sides after it; None if there is no such step."""
    Z, planes, decay, m = problem.Z, problem.Z.hyperplanes, problem.weight_decay, len(neurons)
    rows, along, against = Z.rows(planes.first), (planes.ratio > 0)[:, None], (planes.ratio < 0)[:, None]
    on = ((along & sides.beyond[planes.group]) | (against & ~sides.beyond[planes.group])) & ~sides.held[planes.group]
    holding = [np.flatnonzero(held) for held in sides.held.T]
    for chosen in holding:
        if chosen.tobytes() not in known:
            known[chosen.tobytes()] = _basis(rows[chosen])
    bases, inverses = zip(*(known[chosen.tobytes()] for chosen in holding), strict=True)
    free = [basis.shape[1] for basis in bases]
    of, basis = np.repeat(np.arange(m), free), np.hstack(bases)
    if not all(free) or len(of) * Z.n_rows > _MOST_ENTRIES:
        return None

    t = (basis * neurons.weights[:, of]).sum(axis=0)
    lengths = np.sqrt(np.bincount(of, t * t, minlength=m))
    if not lengths.all():
        return None
    jacobian = Z.pool(on[:, of] * Z.products(basis)) * neurons.output_weights[of, 0]
    ones, constant = np.ones((len(jacobian), int(problem.fit_intercept))), neurons.intercept
    jacobian = np.hstack([jacobian, ones])
    x = np.append(t, constant[: ones.shape[1]])
    f = jacobian @ x[:, None] + (0 if problem.fit_intercept else constant)
    unit = t / lengths[of]
    gradient = -jacobian.T @ problem.dual_point(f)[:, 0]
    gradient[: len(t)] += decay * unit
    curvature = problem.sample_weight * problem.loss.hessian(f, problem.y)[:, 0, 0]
    H = jacobian.T @ (curvature[:, None] * jacobian)
    across = np.eye(len(t)) - np.outer(unit, unit)
    H[: len(t), : len(t)] += np.where(of[:, None] == of, decay / lengths[of] * across, 0)
    H[np.diag_indices_from(H)] += _RIDGE * H.trace() / len(H)
    try:
        d, kept, decrease = _minimum(H, gradient, t, of)
    except np.linalg.LinAlgError:
        return None

    x = x + d
    parts = np.split(x[: len(t)], np.cumsum(free)[:-1])
    S = np.stack([basis @ part for basis, part in zip(bases, parts, strict=True)], axis=1)
    v = Z.unpool(problem.dual_point(f + jacobian @ d[:, None])) @ neurons.output_weights.T
    # The multiplier of a kink lies between the slopes of the objective on its two sides, less that of the other rows.
    low, high = planes.summed(np.where(against, v, 0)), planes.summed(np.where(along, -v, 0))
    residual = decay * S / np.maximum(np.linalg.norm(S, axis=0), np.finfo(float).tiny) - Z.adjoint(on * v)
    inner = Z.products(S)[planes.first]
    beyond = inner > 0
    crossed = ~sides.held & (beyond != sides.beyond)
    held = sides.held | (crossed & (low < high))
    for j, (chosen, inverse) in enumerate(zip(holding, inverses, strict=True)):
        multiplier, slack = -inverse @ residual[:, j], _SLACK * decay / Z.row_norms[planes.first[chosen]]
        beyond[chosen, j] = multiplier > high[chosen, j] + slack
        held[chosen, j] = ~beyond[chosen, j] & (multiplier >= low[chosen, j] - slack)
    held = _fewer(Z.n_columns, held, np.abs(inner))
    changed = bool(crossed[:, kept].any() or (held != sides.held)[:, kept].any() or not kept.all())
    moved = replace(neurons, weights=S, intercept=x[len(t) :] if problem.fit_intercept else constant).take(kept)
    return _Step(moved, _Sides(beyond[:, kept], held[:, kept]), changed, decrease)


def _minimum(
    H: np.ndarray, gradient: np.ndarray, t: np.ndarray, of: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Minimise ``gradient·d + d·H d / 2``, where neurons that come to zero on the way stay there.

    Weights t (F,) are those of the neurons `of` (F,). Returns the step, which neurons are left, and the decrease.
    """
    m = int(of[-1]) + 1
    d, kept, free = np.zeros_like(gradient), np.ones(m, dtype=bool), np.ones(len(gradient), dtype=bool)
    for _ in range(m):
        now = np.flatnonzero(free)
        change = np.zeros_like(d)
        slope = (gradient + H @ d)[now]
        change[now] = -cho_solve(cho_factor(H[np.ix_(now, now)], lower=True, check_finite=False), slope)
        shortened = -np.bincount(of, t * change[: len(t)], minlength=m)
        length = np.bincount(of, t * (t + d[: len(t)]), minlength=m)
        shrinks = np.flatnonzero(kept & (shortened > length))
        if len(shrinks) == 0:
            d += change
            break
        first = shrinks[np.argmin(length[shrinks] / shortened[shrinks])]
        d += length[first] / shortened[first] * change
        gone = of == first
        d[: len(t)][gone], free[: len(t)][gone], kept[first] = -t[gone], False, False
    return d, kept, float(-(gradient + H @ d / 2) @ d)
