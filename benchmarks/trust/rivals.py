"""Networks that might undercut a bound: by descent from several starts, with other seeds, and of the whole program."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, islice

import numpy as np
from scipy.optimize import minimize

from benchmarks.trust import long_double
from benchmarks.trust.cases import Case
from convexbn import (
    Neurons,
    NormalizedNeurons,
    PostActivationProblem,
    Problem,
    Solution,
    count_patterns,
    enumerate_patterns,
    solve,
    solve_reference,
)

STEPS = 200  # of a descent
_PATTERNS = 150  # up to which the whole convex program is solved
_RAYS = 400  # lines in which kinks meet, whose neighbourhoods are priced
_NEAR = (0.0, 1e-9, 1e-6, 1e-3, 0.1)  # distances from them


def rivals(case: Case, problem: Problem, solution: Solution, max_time: float) -> Iterator[tuple[str, object]]:
    """Names and networks; those of a descent are from starts of which one is the solution with further neurons."""
    rng = np.random.default_rng([case.seed, case.number, 5])
    yield "itself", solution.neurons
    gates = solution.neurons.gates if isinstance(solution.neurons, Neurons) else None
    k, C = problem.Z.n_columns, problem.n_outputs
    if gates is not None:
        yield "descent", descended(problem, rng.standard_normal((k, gates.shape[1])), None, rng, gates=gates)
        return
    hidden, outputs = case.planted
    yield "planted", descended(problem, hidden, outputs, rng)
    m = 2 * k + 2
    yield "gradient", descended(problem, rng.standard_normal((k, m)), rng.standard_normal((m, C)) / m, rng)
    around = meeting_rays(problem, rng, 3 * m)
    lengths = np.concatenate([np.ones(len(solution.neurons)), np.full(around.shape[1], 1e-3)])
    weights = np.hstack([solution.neurons.weights, around])
    added = rng.standard_normal((around.shape[1], C)) / np.sqrt(C)
    start = np.vstack([solution.neurons.output_weights, added]) * lengths[:, None]
    yield "solution and more", descended(problem, weights, start, rng, of=solution.neurons)
    if np.isfinite(problem.loss.curvature):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other = solve(problem, solver="column_generation", max_time=max_time, random_state=case.number + 1)
        yield "another seed", other.neurons
    if _small(problem):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                program = solve_reference(problem, enumerate_patterns(problem.Z), max_time=5 * max_time)
            except (RuntimeError, ValueError):  # an interior point that broke down is no network
                return
        yield "program", program.neurons


def _small(problem: Problem) -> bool:
    return problem.n_outputs == 1 and problem.Z.rows().any() and count_patterns(problem.Z) <= _PATTERNS


def meeting_rays(problem: Problem, rng: np.random.Generator, count: int) -> np.ndarray:
    """Directions (k, count) at and near lines in which k - 1 kinks meet, the ends of the cells of all patterns."""
    Z = problem.Z.rows()
    k = Z.shape[1]
    if k == 1:
        return np.resize([[1.0, -1.0]], (1, count))
    lengths = np.linalg.norm(Z, axis=1)
    normals = Z[lengths > 0] / lengths[lengths > 0, None]
    subsets = list(islice(combinations(range(len(normals)), k - 1), 5000))
    if len(subsets) > count:
        subsets = [subsets[i] for i in rng.choice(len(subsets), count, replace=False)]
    rays = np.linalg.svd(normals[np.array(subsets)])[2][:, -1].T if subsets and k - 1 <= len(normals) else np.eye(k)
    rays = np.hstack([rays, -rays])
    chosen = rng.integers(rays.shape[1], size=count)
    return rays[:, chosen] + rng.choice(_NEAR, count) * rng.standard_normal((k, count))


def directions(problem: Problem, solution: Solution, rng: np.random.Generator) -> np.ndarray:
    """Directions (k, q) at which a price that was called the largest is tried."""
    rays = meeting_rays(problem, rng, _RAYS)
    k = problem.Z.n_columns
    active = solution.neurons.weights
    near = active.repeat(4, axis=1) if active.shape[1] else np.zeros((k, 0))
    size = np.linalg.norm(near, axis=0)
    near = near + size * 10.0 ** rng.uniform(-8, -1, near.shape[1]) * rng.standard_normal(near.shape)
    return np.hstack([rays, active, near, rng.standard_normal((k, 100))])


def descended(
    problem: Problem,
    weights: np.ndarray,
    outputs: np.ndarray | None,
    rng: np.random.Generator,
    *,
    gates: np.ndarray | None = None,
    of: object = None,
) -> Neurons | NormalizedNeurons:
    """The network after L-BFGS on the weights of both layers, with plain weight decay, from these weights."""
    Z, p, y = problem.Z.rows(), problem.sample_weight[:, None], problem.y
    after = isinstance(problem, PostActivationProblem)
    k, m = weights.shape
    C = problem.n_outputs
    outputs = rng.standard_normal((m, C)) / m if outputs is None else outputs
    size = np.linalg.norm(Z) / np.sqrt(len(Z)) or 1.0
    height = 1.0 if problem.loss.margin else np.sqrt(float((p * (y - p.T @ y) ** 2).sum())) or 1.0
    gamma, bias = np.ones(m), np.zeros(m)
    if after and isinstance(of, NormalizedNeurons):
        gamma[: len(of)], bias[: len(of)] = of.gamma, of.bias
    elif not after:
        share = np.sqrt(np.linalg.norm(outputs, axis=1) / np.maximum(np.linalg.norm(weights, axis=0), 1e-300))
        weights = weights * share
        outputs = outputs / np.maximum(share, 1e-300)[:, None]
    intercept = (problem.zero_network if of is None else of).intercept  # type: ignore[attr-defined]
    mask = None if gates is None else Z @ gates >= 0
    units = [np.full(k * m, np.sqrt(height / size) if not after else 1.0), np.ones(2 * m)]
    units += [np.full(m * C, np.sqrt(height * size) if not after else height), np.full(C, height)]
    unit = np.concatenate(units)

    def parts(x: np.ndarray) -> tuple[np.ndarray, ...]:
        x = x * unit
        W, g, b = x[: k * m].reshape(k, m), x[k * m :][:m], x[k * m + m :][:m]
        return W, g, b, x[k * m + 2 * m :][: m * C].reshape(m, C), x[k * m + 2 * m + m * C :]

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        W, g, b, c, i = parts(x)
        products = Z @ W
        on = products > 0 if mask is None else mask
        active = products * on
        if after:
            mean = (p * active).sum(axis=0)
            std = np.sqrt((p * (active - mean) ** 2).sum(axis=0))
            std = np.where(std > 1e-12 * active.max(axis=0), std, np.inf)
            standard = (active - mean) / std
            hidden = g * standard + b
            penalty = (g**2).sum() + (b**2).sum()
        else:
            hidden, penalty = active, (W**2).sum()
        f = hidden @ c + i
        slope = p * problem.loss.gradient(f, y)
        along = slope @ c.T
        if after:
            inside = along * g
            inside = (inside - p * inside.sum(axis=0) - p * standard * (inside * standard).sum(axis=0)) / std
            of_W = Z.T @ (inside * on)
            of_g = (along * standard).sum(axis=0) + problem.weight_decay * g
            of_b = along.sum(axis=0) + problem.weight_decay * b
        else:
            of_W, of_g, of_b = Z.T @ (along * on) + problem.weight_decay * W, np.zeros(m), np.zeros(m)
        of_c = hidden.T @ slope + problem.weight_decay * c
        of_i = slope.sum(axis=0) if problem.fit_intercept else np.zeros(C)
        loss = float(p[:, 0] @ problem.loss.value(f, y)) + problem.weight_decay * (penalty + (c**2).sum()) / 2
        gradient = np.concatenate([of_W.ravel(), of_g, of_b, of_c.ravel(), of_i]) * unit
        return loss / height**2, gradient / height**2

    start = np.concatenate([weights.ravel(), gamma, bias, outputs.ravel(), intercept]) / unit
    with np.errstate(all="ignore"):
        found = minimize(
            value, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS, "ftol": 1e-16, "gtol": 1e-12}
        )
    W, g, b, c, i = parts(found.x if np.isfinite(found.x).all() else start)
    i = i if problem.fit_intercept else np.zeros(C)
    if not after:
        return Neurons(W, c, i, gates)
    neurons = NormalizedNeurons.on(problem.Z, problem.sample_weight, W, np.zeros(m), c, i)
    resolved = neurons.gamma > long_double.RESOLVED * long_double.sizes(problem, W)
    return replace(neurons, gamma=np.where(resolved, g, 0.0), bias=b)
