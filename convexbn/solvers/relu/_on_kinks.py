"""Newton's method for all neurons of one output at once, each in the subspace of the kinks that hold it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.operators._hyperplanes import Hyperplanes

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

    def on(self, planes: Hyperplanes) -> np.ndarray:
        """Activation patterns (N, m) of the neurons, without the rows of kinks that hold them."""
        return (self.beyond[planes.group] == (planes.ratio > 0)[:, None]) & ~self.held[planes.group]


@dataclass(frozen=True, eq=False)
class _Model:
    """The Gauss-Newton model of the objective: gradient and H, and predictions f (n, 1) with their Jacobian.

    Free weights x are coordinates of the neurons `of` in the bases of their subspaces, then the intercept.
    """

    x: np.ndarray
    of: np.ndarray
    f: np.ndarray
    jacobian: np.ndarray
    gradient: np.ndarray
    H: np.ndarray


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
    sides, rows = _nearest(problem, neurons), problem.Z.rows(problem.Z.hyperplanes.first)
    basis_of = cache(lambda held: _basis(rows[np.frombuffer(held, dtype=bool)]))
    for _ in range(_STEPS):
        if len(neurons) == 0 or stop():
            break
        step = _step(problem, neurons, sides, basis_of)
        if step is None:
            break
        neurons, sides, changed, decrease = step
        objective = problem.objective(neurons)
        if objective <= least:
            best, least = neurons, objective
        if objective > least * (1 + _MOST_RISE):
            break
        if not changed and decrease <= _ROUNDING * objective:
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


def _step(
    problem: Problem, neurons: Neurons, sides: _Sides, basis_of: Callable[[bytes], Basis]
) -> tuple[Neurons, _Sides, bool, float] | None:
    """The network after a step, its sides, whether any changed, and the model's decrease; None without such a step."""
    bases, inverses = zip(*(basis_of(held.tobytes()) for held in sides.held.T), strict=True)
    model = _model(problem, neurons, sides, bases)
    if model is None:
        return None
    try:
        d, kept, decrease = _minimum(model.H, model.gradient, model.x[: len(model.of)], model.of)
    except np.linalg.LinAlgError:
        return None
    *parts, intercept = np.split(model.x + d, np.cumsum([basis.shape[1] for basis in bases]))
    weights = np.stack([basis @ part for basis, part in zip(bases, parts, strict=True)], axis=1)
    moved = replace(neurons, weights=weights, intercept=intercept if problem.fit_intercept else neurons.intercept)
    now = _active_set(problem, moved, model.f + model.jacobian @ d[:, None], sides, inverses)
    changed = (now.held != sides.held) | ((now.beyond != sides.beyond) & ~sides.held)
    left = _Sides(now.beyond[:, kept], now.held[:, kept])
    return moved.take(kept), left, bool(changed[:, kept].any() or not kept.all()), decrease


def _model(problem: Problem, neurons: Neurons, sides: _Sides, bases: tuple[np.ndarray, ...]) -> _Model | None:
    """The Gauss-Newton model of all free weights; None if a neuron has none, or all together have too many."""
    Z, decay, basis = problem.Z, problem.weight_decay, np.hstack(bases)
    of = np.repeat(np.arange(len(neurons)), [basis.shape[1] for basis in bases])
    t = (basis * neurons.weights[:, of]).sum(axis=0)
    lengths = np.sqrt(np.bincount(of, t * t, minlength=len(neurons)))
    if not lengths.all() or len(of) * Z.n_rows > _MOST_ENTRIES:
        return None
    jacobian = Z.pool(sides.on(Z.hyperplanes)[:, of] * Z.products(basis)) * neurons.output_weights[of, 0]
    jacobian = np.hstack([jacobian, np.ones((len(jacobian), int(problem.fit_intercept)))])
    x = np.append(t, neurons.intercept[: jacobian.shape[1] - len(t)])
    f = jacobian @ x[:, None] + (0 if problem.fit_intercept else neurons.intercept)
    unit = t / lengths[of]
    gradient = -jacobian.T @ problem.dual_point(f)[:, 0]
    gradient[: len(t)] += decay * unit
    curvature = problem.sample_weight * problem.loss.hessian(f, problem.y)[:, 0, 0]
    H = jacobian.T @ (curvature[:, None] * jacobian)
    across = np.eye(len(t)) - np.outer(unit, unit)
    H[: len(t), : len(t)] += np.where(of[:, None] == of, decay / lengths[of] * across, 0)
    H[np.diag_indices_from(H)] += _RIDGE * H.trace() / len(H)
    return _Model(x, of, f, jacobian, gradient, H)


def _active_set(
    problem: Problem, moved: Neurons, f: np.ndarray, sides: _Sides, inverses: tuple[np.ndarray, ...]
) -> _Sides:
    """The sides after a step, to predictions f of the model: which kinks let go, by their multipliers, and which hold.

    The multiplier of a kink lies between the slopes of the objective on its two sides, less that of the other rows.
    """
    Z, planes, decay, S = problem.Z, problem.Z.hyperplanes, problem.weight_decay, moved.weights
    along, v = (planes.ratio > 0)[:, None], Z.unpool(problem.dual_point(f)) @ moved.output_weights.T
    low, high = planes.summed(np.where(along, 0, v)), planes.summed(np.where(along, -v, 0))
    residual = Z.adjoint(sides.on(planes) * v) - decay * S / np.maximum(moved.norms, np.finfo(float).tiny)
    inner = Z.products(S)[planes.first]
    beyond = inner > 0
    held = sides.held | ((beyond != sides.beyond) & (low < high))
    for j, inverse in enumerate(inverses):
        chosen = np.flatnonzero(sides.held[:, j])
        multiplier, slack = inverse @ residual[:, j], _SLACK * decay / Z.row_norms[planes.first[chosen]]
        beyond[chosen, j] = multiplier > high[chosen, j] + slack
        held[chosen, j] = ~beyond[chosen, j] & (multiplier >= low[chosen, j] - slack)
    return _Sides(beyond, _fewer(Z.n_columns, held, np.abs(inner)))


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
