r"""The convex programs of networks that are batch-normalized after the ReLU, in plain cvxpy, and their solution.

With ``F_i = [D_i Z, 1]`` the outputs of a neuron of pattern i are ``F_i x`` for its hidden weights and shift together,
and its cost is the weighted norm of these outputs, ``|P^1/2 F_i x|``, P the sample weights on a diagonal:

ReLU, primal
    ``min  sum p loss(f, y) + weight_decay * sum_i (|P^1/2 F_i s_i| + |P^1/2 F_i t_i|)``,
    ``f = sum_i F_i (s_i - t_i) + intercept``, ``(2 D_i - I) Z s_i >= 0``, ``(2 D_i - I) Z t_i >= 0``
ReLU, dual
    ``max  -sum p loss*(-v/p)`` with ``1^T v = 0`` if there is an intercept, and for every i and both signs some
    ``mu_i >= 0`` and ``|q_i| <= weight_decay`` with ``F_i^T P^1/2 q_i = F_i^T (+-v)`` plus ``Z^T (2 D_i - I) mu_i`` in
    the rows of hidden weights
gated ReLU
    the same without cones; ``|U_i^T P^-1/2 v| <= weight_decay``, U_i an orthonormal basis of the range of P^1/2 F_i
gated ReLU, several outputs
    the nuclear norm of ``P^1/2 F_i S_i`` and the largest singular value of ``U_i^T P^-1/2 V``

With an intercept the shift of a neuron is the one that makes its outputs of mean zero.
"""

from functools import partial

import cvxpy as cp
import numpy as np

from convexbn.model._activation import Activation
from convexbn.model._normalized_neurons import NormalizedNeurons
from convexbn.model._post_activation import PostActivationProblem, check_not_gated
from convexbn.oracles import Price, price_of_normalized_patterns
from convexbn.patterns._patterns import Patterns
from convexbn.solvers._certificate import Oracle, Search, certify
from convexbn.solvers._solution import Solution, Status, status_of
from convexbn.solvers._tolerance import Tolerance
from convexbn.solvers.conic._losses import conjugate_expression, loss_expression
from convexbn.solvers.conic._solve import solve_scaled
from convexbn.solvers.post_activation._merging import merge
from convexbn.solvers.post_activation._scaling import Whitened

_RANK = 1e-9  # singular values up to here, relative to the largest, are rounding
_THRESHOLDS = 10.0 ** np.arange(-8, -2)  # costs relative to the largest up to which a neuron may be a zero one


def post_activation_primal(
    problem: PostActivationProblem, patterns: Patterns, activation: Activation = "relu"
) -> cp.Problem:
    """Build the primal program, as `primal_program` describes it; blocks have a row more, the shift."""
    Z, D, p = problem.Z.rows(), patterns.masks().astype(float), problem.sample_weight
    (n, k), P = Z.shape, len(patterns)
    if problem.n_outputs > 1:
        return _nuclear_norm_program(problem, D)
    f, S = cp.Variable(n, name="f"), cp.Variable((k + 1, P), name="S")
    intercept = cp.Variable(name="intercept") if problem.fit_intercept else 0.0
    cones, blocks = [], [S]
    if activation == "relu":
        T = cp.Variable((k + 1, P), name="T")
        blocks.append(T)
        cones = [cp.multiply(2 * D - 1, Z @ block[:k]) >= 0 for block in blocks]
    outputs = [cp.multiply(D, Z @ block[:k]) + np.ones((n, 1)) @ block[k:] for block in blocks]
    fits = f == cp.sum(outputs[0] if len(outputs) == 1 else outputs[0] - outputs[1], axis=1) + intercept
    norms = sum(cp.sum(cp.norm(cp.multiply(np.sqrt(p)[:, None], output), 2, axis=0)) for output in outputs)
    loss = p @ loss_expression(problem.loss, f, problem.y[:, 0])
    return cp.Problem(cp.Minimize(loss + problem.weight_decay * norms), [fits, *cones])


def post_activation_dual(
    problem: PostActivationProblem, patterns: Patterns, activation: Activation = "relu"
) -> cp.Problem:
    """Build the dual program, as `dual_program` describes it; the q_i are "q_plus" and "q_minus" (n, P)."""
    Z, D, p = problem.Z.rows(), patterns.masks().astype(float), problem.sample_weight
    (n, _), C, P = Z.shape, problem.n_outputs, len(patterns)
    root = np.sqrt(p)[:, None]
    v = cp.Variable(n if C == 1 else (n, C), name="v")
    conjugate, domain = conjugate_expression(
        problem.loss, -v / (p if C == 1 else p[:, None]), problem.y[:, 0] if C == 1 else problem.y
    )
    constraints = list(domain)
    if activation == "relu":
        for sign, name in ((1, "plus"), (-1, "minus")):
            mu, q = cp.Variable((n, P), name=f"mu_{name}", nonneg=True), cp.Variable((n, P), name=f"q_{name}")
            left = sign * cp.outer(v, np.ones(P)) - cp.multiply(root, q)
            constraints += [
                Z.T @ (cp.multiply(D, left) + cp.multiply(2 * D - 1, mu)) == 0,
                cp.sum(left, axis=0) == 0,
                cp.norm(q, 2, axis=0) / problem.weight_decay <= 1,
            ]
    else:
        norm = cp.norm if C == 1 else cp.sigma_max
        bases = [_range(np.column_stack([D[:, [i]] * Z, np.ones(n)]) * root) for i in range(P)]
        constraints += [norm((basis / root).T @ v) / problem.weight_decay <= 1 for basis in bases]
    if problem.fit_intercept:
        constraints.append(cp.sum(v, axis=0) == 0)
    return cp.Problem(cp.Maximize(-cp.sum(p @ conjugate)), constraints)


def solve_post_activation_program(
    problem: PostActivationProblem,
    patterns: Patterns,
    activation: Activation,
    tolerance: Tolerance,
    *,
    solver: str,
    tol: float,
    max_iter: int | None,
    max_time: float | None,
    verbose: bool,
) -> Solution:
    """Optimal ReLU network of one output on given patterns; the arguments are those of `solve_reference`."""
    check_not_gated(problem, activation)
    scaling, P = Whitened.of(problem), len(patterns)
    build = partial(post_activation_primal, patterns=patterns)
    options = {"solver": solver, "tol": tol / 1000, "max_iter": max_iter, "max_time": max_time, "verbose": verbose}
    value, v, n_iter, ending = solve_scaled(scaling, build, **options)
    blocks = np.hstack([value["S"], value["T"]])
    neurons = NormalizedNeurons.on(
        scaling.problem.Z,
        problem.sample_weight,
        blocks[:-1],
        blocks[-1],
        np.repeat([1.0, -1.0], P)[:, None],
        np.atleast_1d(value["intercept"]) if problem.fit_intercept else np.zeros(1),
    )
    neurons = scaling.unscaled(_sparsest(scaling.problem, neurons, tol / 100))
    certificate = certify(
        problem,
        neurons,
        v,
        partial(_priced, problem, patterns),
        Search.PATTERNS,
        Oracle.ENUMERATION,
        P,
    )
    status = status_of(certificate, tolerance, f"{solver} (status {ending!r})", Status.NOT_CONVERGED)
    return Solution(neurons, v, certificate, status, n_iter)  # type: ignore[arg-type]


def _sparsest(problem: PostActivationProblem, neurons: NormalizedNeurons, slack: float) -> NormalizedNeurons:
    """Drop what an interior point left of zero neurons, and join what it split among neighbouring patterns.

    Of several thresholds, and of no neuron at all, the sparsest network within a relative `slack` of the best.
    """
    candidates = [problem.zero_network]
    candidates += [merge(problem, neurons.without_zeros(threshold)) for threshold in _THRESHOLDS]
    objectives = np.array([problem.objective(candidate) for candidate in candidates])
    good = np.flatnonzero(objectives <= objectives.min() * (1 + slack))
    return min((candidates[index] for index in good), key=len)


def _priced(problem: PostActivationProblem, patterns: Patterns, v: np.ndarray) -> Price:
    """Largest price of the patterns at a dual point."""
    price = price_of_normalized_patterns(problem.Z.times(problem.whitening), problem.sample_weight, patterns, v)
    assert price is not None
    return price


def _nuclear_norm_program(problem: PostActivationProblem, D: np.ndarray) -> cp.Problem:
    """The primal of a gated network with several outputs; norms are those of P^1/2 F_i S_i in a basis of its range."""
    Z, (n, C), P = problem.Z.rows(), problem.y.shape, D.shape[1]
    root, size = np.sqrt(problem.sample_weight)[:, None], Z.shape[1] + 1
    f, S = cp.Variable((n, C), name="f"), cp.Variable((P * size, C), name="S")
    features = [np.column_stack([D[:, [i]] * Z, np.ones(n)]) for i in range(P)]
    outputs = np.hstack(features) @ S
    if problem.fit_intercept:
        outputs += np.ones((n, 1)) @ cp.Variable((1, C), name="intercept")
    norms = sum(
        cp.normNuc((_range(root * F).T @ (root * F)) @ S[i * size : (i + 1) * size]) for i, F in enumerate(features)
    )
    loss = cp.sum(problem.sample_weight @ loss_expression(problem.loss, f, problem.y))
    return cp.Problem(cp.Minimize(loss + problem.weight_decay * norms), [f == outputs])


def _range(matrix: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the range of a matrix."""
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    return left[:, values > _RANK * values[0]]
