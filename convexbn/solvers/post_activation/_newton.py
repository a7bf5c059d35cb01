"""Newton's method for neurons that are normalized after the ReLU, with the kinks of the ReLU in its model."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg.blas import dsyrk

from convexbn.model._normalized_neurons import NormalizedNeurons
from convexbn.model._post_activation import PostActivationProblem
from convexbn.oracles._kink_program import solve_kink_program
from convexbn.oracles._kinks import nearest_kinks
from convexbn.solvers.post_activation._merging import merge

_BLOCK_ENTRIES = 2**22  # entries of the Jacobian made at once
_KINKS = 3  # kinks in the model, in multiples of k
_MIN_DAMPING, _MAX_DAMPING = 1e-8, 1e10  # in multiples of weight_decay
_RIDGE = 1e-10  # of the largest entry, in the norm of a neuron whose weights outnumber its active samples


def newton(
    problem: PostActivationProblem,
    neurons: NormalizedNeurons,
    *,
    rtol: float,
    max_steps: int,
    stop: Callable[[], bool],
) -> NormalizedNeurons:
    """Move all neurons to a nearby local optimum of the training problem.

    Hidden weights, shifts, output weights and intercept move together at the cost ``(|h_j|^2 + |c_j|^2) / 2``. The
    model of a step is Gauss-Newton for the loss, the quadratic cost, the second derivative between a neuron and its
    output weights as far as that keeps it convex, and the corners at the kinks nearest to each neuron, exactly, as in
    `solve_kink_program`; with damping after Levenberg and Marquardt. A step is taken only if it lowers the objective.

    Parameters
    ----------
    problem : PostActivationProblem
        Training problem with a smooth loss.
    neurons : NormalizedNeurons
        Network to start from.
    rtol : float
        Ends when the model's decrease, relative to the objective, is smaller.
    max_steps : int
        Steps at most.
    stop : callable
        Called before every step; when it returns True the neurons so far are returned.

    Returns
    -------
    neurons : NormalizedNeurons
        Neurons with no larger objective.
    """
    damping, small = 1e-2, 0
    for _ in range(max_steps):
        if len(neurons) == 0 or stop():
            break
        objective = problem.objective(neurons)
        neurons, decrease, damping = _step(problem, neurons.balanced(), objective, damping, stop)
        neurons = merge(problem, neurons)
        small = small + 1 if decrease <= rtol * objective else 0
        if small == 2 or damping >= _MAX_DAMPING:
            break
    return neurons


@dataclass(frozen=True, eq=False)
class _Point:
    """A network as the arrays that move: hidden weights (k, m), shifts (m,), output weights (m, C), intercept (C,)."""

    W: np.ndarray
    shift: np.ndarray
    c: np.ndarray
    b: np.ndarray

    def moved(self, d: np.ndarray) -> "_Point":
        """The point after a step (M,); a step without intercept leaves it as it is."""
        (k, m), C = self.W.shape, self.c.shape[1]
        W, shift, c, b = np.split(d, np.cumsum([m * k, m, m * C]))
        return _Point(
            self.W + W.reshape(m, k).T, self.shift + shift, self.c + c.reshape(m, C), self.b + b if b.size else self.b
        )


def _step(
    problem: PostActivationProblem,
    neurons: NormalizedNeurons,
    objective: float,
    damping: float,
    stop: Callable[[], bool],
) -> tuple[NormalizedNeurons, float, float]:
    """One damped step of all neurons: the network, the model's decrease, and the next damping."""
    Z, p, decay = problem.Z, problem.sample_weight, problem.weight_decay
    at = _Point(neurons.scaled_weights, neurons.shift, neurons.output_weights, neurons.intercept)
    inner = Z.products(at.W)
    on, h = inner > 0, np.maximum(inner, 0) + at.shift
    f = h @ at.c + at.b
    V = problem.dual_point(f)
    signal = V @ at.c.T - decay * p[:, None] * h
    H, scale = _matrix(problem, at, on, h, f, V)
    gradient = np.concatenate(
        [
            -Z.adjoint(on * signal).T.ravel(),
            -signal.sum(axis=0),
            (decay * at.c - h.T @ V).ravel(),
            -V.sum(axis=0) if problem.fit_intercept else np.zeros(0),
        ]
    )
    A, normals, slope = nearest_kinks(Z, inner, signal, min(_KINKS * Z.n_columns, Z.n_rows))
    rounding = 1e-13 * H.trace() / len(H)
    while True:
        damped = H.copy()
        damped[np.diag_indices_from(damped)] += damping * scale + rounding
        try:
            d, decrease = solve_kink_program(damped, gradient, A, normals, slope, stop=stop)
        except np.linalg.LinAlgError:
            actual, decrease = -1.0, 0.0
        else:
            if decrease <= 0:
                return neurons, 0.0, damping
            after = at.moved(d)
            moved = NormalizedNeurons.on(Z, p, after.W, after.shift, after.c, after.b)
            actual = objective - problem.objective(moved)
        if actual > 0.7 * decrease:
            damping = max(damping * 0.1, _MIN_DAMPING)
        elif not actual >= 0.3 * decrease or decrease == 0:
            damping *= 10
        if actual >= 0:
            return moved, decrease, damping
        if damping >= _MAX_DAMPING:
            return neurons, decrease, damping


def _matrix(
    problem: PostActivationProblem, at: _Point, on: np.ndarray, h: np.ndarray, f: np.ndarray, V: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The matrix of a step (M, M), and what its damping is relative to (M,)."""
    Z, decay = problem.Z, problem.weight_decay
    (k, m), C = at.W.shape, at.c.shape[1]
    hidden, shifts, output = slice(0, m * k), slice(m * k, m * (k + 1)), slice(m * (k + 1), m * (k + 1 + C))
    size = output.stop + C * problem.fit_intercept
    H = np.zeros((size, size), order="F")
    norms, mixed = np.zeros((m, k + 1, k + 1)), np.zeros((m, k + 1, C))
    hessian = problem.sample_weight[:, None, None] * problem.loss.hessian(f, problem.y)
    values, vectors = np.linalg.eigh(hessian)
    roots = np.sqrt(np.maximum(values, 0))[:, :, None] * vectors.transpose(0, 2, 1)
    step = max(1, _BLOCK_ENTRIES // (size * C))
    for start in range(0, Z.n_samples, step):
        rows = slice(start, min(start + step, Z.n_samples))
        R, masked = roots[rows], Z.masked_features(on, rows)
        J = np.empty((len(R), C, size))
        turned = R @ at.c.T
        J[:, :, hidden] = (turned[:, :, :, None] * masked[:, None]).reshape(len(R), C, m * k)
        J[:, :, shifts] = turned
        J[:, :, output] = (h[rows][:, None, :, None] * R[:, :, None, :]).reshape(len(R), C, m * C)
        J[:, :, output.stop :] = R[:, :, : C * problem.fit_intercept]
        H = dsyrk(1.0, J.reshape(-1, size).T, beta=1.0, c=H, overwrite_c=True, lower=True)
        features = np.concatenate([masked, np.ones((len(R), m, 1))], axis=2).transpose(1, 2, 0)
        norms += (features * problem.sample_weight[rows]) @ features.transpose(0, 2, 1)
        mixed -= features @ V[rows]
    H = H + np.tril(H, -1).T

    own = np.arange(m)
    mixed = _clipped(mixed, norms, decay)
    H[hidden, hidden].reshape(m, k, m, k)[own, :, own, :] += decay * norms[:, :k, :k]
    H[shifts, shifts][own, own] += decay * norms[:, k, k]
    H[output, output][np.diag_indices(m * C)] += decay
    _add(H, hidden, shifts, (m, k), (m, 1), decay * norms[:, :k, k:])
    _add(H, hidden, output, (m, k), (m, C), mixed[:, :k])
    _add(H, shifts, output, (m, 1), (m, C), mixed[:, k:])
    scale = np.full(size, decay)
    scale[output.stop :] = 1e-6 * problem.loss.curvature
    return H, scale


def _add(
    H: np.ndarray, rows: slice, columns: slice, of_rows: tuple[int, int], of_columns: tuple[int, int], part: np.ndarray
) -> None:
    """Add blocks (m, r, c), one a neuron, to a part of a symmetric matrix and to its transpose, in place."""
    own = np.arange(len(part))
    H[rows, columns].reshape(*of_rows, *of_columns)[own, :, own, :] += part
    H[columns, rows].reshape(*of_columns, *of_rows)[own, :, own, :] += part.transpose(0, 2, 1)


def _clipped(mixed: np.ndarray, norms: np.ndarray, decay: float) -> np.ndarray:
    """Second derivatives (m, k + 1, C) between neurons and output weights, as far as the model stays convex.

    In the metric of a neuron's norm (k + 1, k + 1) their singular values are at most `decay`.
    """
    size = np.trace(norms, axis1=1, axis2=2)[:, None, None]
    root = np.linalg.cholesky(norms + _RIDGE * size * np.eye(norms.shape[1]))
    left, values, right = np.linalg.svd(np.linalg.solve(root, mixed), full_matrices=False)
    return root @ ((left * np.minimum(values, decay)[:, None, :]) @ right)
