"""Objectives and dual objectives of small problems in long double, by code that shares nothing with the library's."""

import numpy as np

from convexbn import Neurons, NormalizedNeurons, PostActivationProblem, Problem

# Activations that vary by no more than this share of `sizes` count as constant in the library; that is rounding of z·w.
RESOLVED = 1e-10 * (1 + 1e-6)
_NO_VARIATION = 1e-14  # the same, below which activations count as constant in a network that is given


def long(values: np.ndarray) -> np.ndarray:
    """An array in long double."""
    return np.asarray(values, dtype=np.longdouble)


def outputs_and_cost(problem: Problem, neurons: Neurons | NormalizedNeurons) -> tuple[np.ndarray, np.longdouble]:
    """Predictions (n, C) less the intercept, and the sum of |s_j| |c_j|, or of the weighted norms times |c_j|."""
    Z, p = long(problem.Z.rows()), long(problem.sample_weight)
    products, c = _product(Z, long(neurons.weights)), long(neurons.output_weights)
    norm = np.sqrt((long(neurons.weights) ** 2).sum(axis=0))
    if isinstance(neurons, NormalizedNeurons):
        active = np.maximum(products, 0)
        mean = (p[:, None] * active).sum(axis=0)
        std = np.sqrt((p[:, None] * (active - mean) ** 2).sum(axis=0) / p.sum())
        varies = std > _NO_VARIATION * sizes(problem, neurons.weights)
        gamma, bias = np.where(varies, long(neurons.gamma), 0), long(neurons.bias)
        hidden = gamma * (active - mean) / np.where(varies, std, 1) + bias
        norm = np.hypot(gamma, bias)
    elif neurons.gates is not None:
        hidden = (_product(Z, long(neurons.gates)) >= 0) * products
    else:
        hidden = np.maximum(products, 0)
    return _product(hidden, c), (norm * np.sqrt((c**2).sum(axis=1))).sum()


def sizes(problem: Problem, weights: np.ndarray) -> np.ndarray:
    """Upper bound of |z_i·w| from the largest entries of the columns, for each neuron (k, m)."""
    return (np.abs(long(problem.Z.rows())).max(axis=0)[:, None] * np.abs(long(weights))).sum(axis=0)


def objective(problem: Problem, neurons: Neurons | NormalizedNeurons) -> np.longdouble:
    """Objective of a network."""
    f, cost = outputs_and_cost(problem, neurons)
    return (long(problem.sample_weight) * losses(problem, f, neurons.intercept)).sum() + problem.weight_decay * cost


def losses(problem: Problem, f: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """Loss of each sample (n,), for predictions less the intercept, which may be near targets far from zero."""
    y = long(problem.y)
    if problem.loss.name in ("squared_error", "huber"):
        y = y - long(intercept)
    else:
        f = f + long(intercept)
    match problem.loss.name:
        case "squared_error":
            return ((f - y) ** 2).sum(axis=1) / 2
        case "huber":
            residual, delta = np.abs(f - y)[:, 0], long(problem.loss.delta)
            return np.where(residual <= delta, residual**2 / 2, delta * residual - delta**2 / 2)
        case "log_loss":
            margin = (y * f)[:, 0]
            return np.log1p(np.exp(-np.abs(margin))) + np.maximum(-margin, 0)
        case "hinge":
            return np.maximum(1 - y * f, 0)[:, 0]
        case "squared_hinge":
            return np.maximum(1 - y * f, 0)[:, 0] ** 2
    above = np.sort(f - (f * y).sum(axis=1, keepdims=True), axis=1)  # one is zero: the class itself
    return above[:, -1] + np.log1p(np.exp(above[:, :-1] - above[:, -1:]).sum(axis=1))


def conjugates(problem: Problem, u: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Conjugate of each sample (n,) at points of the domain, or beside it by rounding."""
    match problem.loss.name:
        case "squared_error" | "huber":
            return (u * y + u**2 / 2).sum(axis=1)
        case "hinge":
            return (u * y)[:, 0]
        case "squared_hinge":
            return ((u * y) ** 2 / 4 + u * y)[:, 0]
        case "log_loss":
            a = np.clip(-u * y, 0, 1)[:, 0]
            return _entropy(a) + (1 - a) * np.log1p(-np.minimum(a, 1 - np.finfo(np.longdouble).epsneg))
    own = np.clip((u * y).sum(axis=1), np.finfo(np.longdouble).epsneg - 1, 0)
    return _entropy(np.clip(u * (1 - y), 0, 1)).sum(axis=1) + (1 + own) * np.log1p(own)


def dual_objective(problem: Problem, v: np.ndarray, scale: float) -> np.longdouble:
    """Dual objective of ``scale * v``, with the targets shifted where an intercept makes that no matter."""
    p, v, y = long(problem.sample_weight)[:, None], long(scale) * long(v), long(problem.y)
    if problem.fit_intercept and not problem.loss.margin:
        y = y - (p * y).sum(axis=0) / p.sum()
    return -(p[:, 0] * conjugates(problem, -v / p, y)).sum()


def prices(problem: Problem, v: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Price of each direction (k, q)."""
    Z, v, p = long(problem.Z.rows()), long(v), long(problem.sample_weight)[:, None]
    directions = long(directions)
    active = np.maximum(_product(Z, directions), 0)
    if not isinstance(problem, PostActivationProblem):
        length = np.sqrt((directions**2).sum(axis=0))
        return np.sqrt((_product(v.T, active) ** 2).sum(axis=0)) / np.where(length > 0, length, np.inf)
    mean = (p * active).sum(axis=0) / p.sum()
    std = np.sqrt((p * (active - mean) ** 2).sum(axis=0) / p.sum())
    varies = std > RESOLVED * sizes(problem, directions)
    standard = np.where(varies, (active - mean) / np.where(varies, std, 1), 0)
    along, constant = _product(v.T, standard), v.sum(axis=0)
    if problem.fit_intercept:
        return np.sqrt((along**2).sum(axis=0))
    # Largest singular value of the two columns `along` and `constant`.
    first, second, mixed = (along**2).sum(axis=0), (constant**2).sum(), constant @ along
    return np.sqrt((first + second) / 2 + np.hypot((first - second) / 2, mixed))


def _entropy(a: np.ndarray) -> np.ndarray:
    return np.where(a > 0, a * np.log(np.where(a > 0, a, 1)), 0)


def _product(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    return (A[:, :, None] * B[None]).sum(axis=1)
