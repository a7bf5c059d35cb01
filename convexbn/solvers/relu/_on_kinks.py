"""Newton's method for all neurons of one output at once, each in the subspace of the kinks that hold it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem

_STEPS = 10
_NEAR = 1e-4  # distance of a unit direction from a kink up to which it may hold the neuron at the start
_SAME_ROW = 1e-9  # singular values up to here, relative to the largest, are of rows that depend on others
_RIDGE = 1e-12  # of the mean curvature
_ROUNDING = 1e-14  # of the objective: what a step gains at most at the end
_MOST_RISE = 1e-6  # of the objective, after which steps seldom come back
_MOST_ENTRIES = 2**22  # of the products of Z with the bases of the subspaces


@dataclass(frozen=True, eq=False)
class _Sides:
    """On which side of the hyperplanes of Z each neuron is: both of shape (G, m).

    Parameters
    ----------
    beyond : ndarray of bool
        Whether z·s > 0 for the first row z of the hyperplane.
    held : ndarray of bool
        Whether the neuron stays on the hyperplane.
    """

    beyond: np.ndarray
    held: np.ndarray


def newton_on_kinks(problem: Problem, neurons: Neurons, *, stop: Callable[[], bool]) -> tuple[Neurons, bool]:
    """Move neurons to the nearby joint local optimum, where most of them are held by kinks.

    At a local optimum of n samples most neurons lie on so many kinks that hardly more than n weights are free.
    """
    best, least, done = neurons, problem.objective(neurons), False
    sides, known = _nearest(problem, neurons), {}
    for _ in range(_STEPS):
        if stop() or len(neurons) == 0:
            break
        step = _step(problem, neurons, sides, known)
        if step is None:
            break
        neurons, sides, changed, gain = step
        objective = problem.objective(neurons)
        if objective < least or (objective <= least * (1 + _ROUNDING) and not changed):
            best, least = neurons, objective
        if objective > least * (1 + _MOST_RISE):
            break
        if not changed and gain <= _ROUNDING * objective:
            done = neurons is best
            break
    return best, done


def _nearest(problem: Problem, neurons: Neurons) -> _Sides:
    """The kinks that may hold neurons: the nearest rows at which the objective has a convex corner."""
    Z, planes = problem.Z, problem.Z.hyperplanes
    inner = Z.products(neurons.weights)
    V = problem.dual_point(neurons.outputs(Z))
    corner = -planes.summed(Z.unpool(V) @ neurons.output_weights.T)
    inner = inner[planes.first]
    distance = np.abs(inner) / np.maximum(np.outer(Z.row_norms[planes.first], neurons.norms), np.finfo(float).tiny)
    distance[corner <= 0] = np.inf
    most = min(Z.n_columns - 1, len(distance) - 1)
    return _Sides(inner > 0, (distance < _NEAR) & (distance < np.partition(distance, most, axis=0)[most]))


def _basis(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal basis (k, f) of the directions along which no row (h, k) changes, and the rows' pseudoinverse."""
    left, sizes, right = np.linalg.svd(rows, full_matrices=True)
    rank = int((sizes > _SAME_ROW * sizes.max(initial=0)).sum())
    return right[rank:].T, (left[:, :rank] / sizes[:rank]) @ right[:rank]


def _step(problem: Problem, neurons: Neurons, sides: _Sides, known: dict) -> tuple[Neurons, _Sides, bool, float] | None:
    Z, planes, decay = problem.Z, problem.Z.hyperplanes, problem.weight_decay
    signs = neurons.output_weights[:, 0]
    on = np.where((planes.ratio > 0)[:, None], sides.beyond[planes.group], ~sides.beyond[planes.group])
    on &= ~sides.held[planes.group] & (planes.ratio != 0)[:, None]
    rows = Z.rows(planes.first)
    most = min(Z.n_columns - 1, len(rows) - 1)
    which = [np.flatnonzero(mask) for mask in sides.held.T]
    for chosen in which:
        if (key := chosen.tobytes()) not in known:
            known[key] = _basis(rows[chosen])
    bases, inverses = zip(*(known[chosen.tobytes()] for chosen in which), strict=True)
    free = np.array([basis.shape[1] for basis in bases])
    if free.sum() * Z.n_rows > _MOST_ENTRIES:
        return None
    starts, of = np.cumsum(free)[:-1], np.repeat(np.arange(len(neurons)), free)
    basis = np.hstack(bases)
    t = np.einsum("ka,ka->a", basis, neurons.weights[:, of])
    J = Z.pool(on[:, of] * Z.products(basis)) * signs[of]
    if problem.fit_intercept:
        J = np.hstack([J, np.ones((len(J), 1))])
    x = np.concatenate([t, neurons.intercept]) if problem.fit_intercept else t
    offset = 0.0 if problem.fit_intercept else neurons.intercept
    f = (J @ x)[:, None] + offset
    lengths = np.sqrt(np.bincount(of, t * t, minlength=len(neurons)))
    if not lengths.all():
        return None
    u = t / lengths[of]
    gradient = -J.T @ problem.dual_point(f)[:, 0]
    gradient[: len(t)] += decay * u
    weights = problem.sample_weight * problem.loss.hessian(f, problem.y)[:, 0, 0]
    H = J.T @ (weights[:, None] * J)
    same = of[:, None] == of
    H[: len(t), : len(t)] += same * (decay / lengths[of]) * (np.eye(len(t)) - np.outer(u, u))
    H[np.diag_indices_from(H)] += _RIDGE * H.trace() / len(H)
    found = _minimum(H, gradient, t, of, len(neurons))
    if found is None:
        return None
    d, kept, gain = found
    x = x + d
    later = x[: len(t)]
    S = np.stack([b @ part for b, part in zip(bases, np.split(later, starts), strict=True)], axis=1)
    intercept = x[len(t) :] if problem.fit_intercept else neurons.intercept
    # multipliers at the new point
    V = problem.dual_point((J @ x)[:, None] + offset)
    v = Z.unpool(V) @ neurons.output_weights.T
    residual = decay * S / np.maximum(np.linalg.norm(S, axis=0), np.finfo(float).tiny) - Z.adjoint(on * v)
    corner = -planes.summed(v)
    low = planes.summed(np.where((planes.ratio < 0)[:, None], v, 0.0))
    inner = Z.products(S)[planes.first]
    beyond = inner > 0
    crossed = ~sides.held & (beyond != sides.beyond)
    held = sides.held | (crossed & (corner > 0))
    for j, (chosen, inverse) in enumerate(zip(which, inverses, strict=True)):
        theta = inverse @ -residual[:, j]
        slack = 1e-9 * decay / np.maximum(Z.row_norms[planes.first[chosen]], 1e-300)
        less, more = theta < low[chosen, j] - slack, theta > low[chosen, j] + corner[chosen, j] + slack
        held[chosen, j] = ~(less | more)
        beyond[chosen, j] = more
    distance = np.where(held, np.abs(inner), np.inf)
    held &= distance < np.partition(distance, most, axis=0)[most]
    changed = bool((held != sides.held)[:, kept].any() or (crossed & kept).any() or not kept.all())
    S[:, ~kept] = 0
    moved = replace(neurons, weights=S, intercept=intercept).take(kept)
    return moved, _Sides(beyond[:, kept], held[:, kept]), changed, gain


def _minimum(
    H: np.ndarray, gradient: np.ndarray, t: np.ndarray, of: np.ndarray, m: int
) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Minimise the quadratic, where neurons that come to zero on the way stay there: the step, who is left, decrease."""
    d, kept, gain = np.zeros_like(gradient), np.ones(m, dtype=bool), 0.0
    free = np.ones(len(gradient), dtype=bool)
    for _ in range(m):
        now = np.flatnonzero(free)
        g = (gradient + H @ d)[now]
        try:
            move = -cho_solve(cho_factor(H[np.ix_(now, now)], lower=True, check_finite=False), g, check_finite=False)
        except np.linalg.LinAlgError:
            return None
        change = np.zeros_like(d)
        change[now] = move
        along = np.bincount(of, t * change[: len(t)], minlength=m)
        here = np.bincount(of, t * (t + d[: len(t)]), minlength=m)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(kept & (along < 0), -here / along, np.inf)
        first = int(ratio.argmin())
        alpha = min(1.0, ratio[first])
        gain -= alpha * (g @ move) * (1 - alpha / 2)
        d += alpha * change
        if alpha == 1:
            break
        kept[first] = False
        gone = np.flatnonzero(of == first)
        d[gone] = -t[gone]
        free[gone] = False
    return d, kept, gain
