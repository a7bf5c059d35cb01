"""Global optimum of batch normalization after the ReLU where the data has full row rank.

Every vector of R^n is then the output relu(Zw) + shift of one neuron, so the network is a matrix F of outputs, and its
penalty the nuclear norm of P^1/2 F, P the sample weights on a diagonal: ``min sum p loss(F + b, y) + weight_decay
|P^1/2 F|_*``. Samples of equal targets share a row of F: replacing their rows by the mean raises neither term.
"""

import warnings
from functools import partial
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from convexbn.losses import SquaredError
from convexbn.model._normalized_neurons import NormalizedNeurons
from convexbn.model._post_activation import PostActivationProblem
from convexbn.model._problem import Problem
from convexbn.oracles import normalized_price_bound
from convexbn.patterns._patterns import Patterns
from convexbn.solvers._certificate import Oracle, Search, certify
from convexbn.solvers._solution import Solution, status_of
from convexbn.solvers._tolerance import Reference, Tolerance
from convexbn.solvers.gated._driver import solve_gated

_RANK = 1e-8  # singular values of Z up to here, relative to the largest, are rounding
_TOL = 1e-3  # of the reduced problem, in units of tol
_MOST_TARGETS = 2000  # distinct ones, of losses without a formula: the reduced problem is of their square


def full_row_rank_obstacle(problem: PostActivationProblem) -> str | None:
    """Why the problem has no closed form, or None if it has one."""
    n, k = problem.Z.n_rows, problem.Z.n_columns
    if n > k:
        return f"Z has rank at most {k}, less than its {n} samples"
    values = np.linalg.eigvalsh(problem.Z.row_gram(np.ones((n, 1))))
    if values[0] <= _RANK**2 * values[-1] or values[0] <= n * np.finfo(float).eps * values[-1]:
        return "Z is not of full row rank"
    if problem.Z.constant is None:
        return "no combination of the columns of Z is constant, so not every vector is the output of a neuron"
    if not isinstance(problem.loss, SquaredError) and len(np.unique(problem.y, axis=0)) > _MOST_TARGETS:
        return f"loss {problem.loss.name!r} has no formula for more than {_MOST_TARGETS} distinct targets"
    return None


def solve_full_row_rank(problem: PostActivationProblem, *, tol: float, relative_to: Reference) -> Solution:
    """Global optimum at full row rank, of any loss and any number of outputs; squared error by a formula.

    Squared error: the singular values of ``P^1/2 (y - b)`` less weight_decay, b the mean of the targets if there is an
    intercept and zero else. Other losses: the small convex problem of one row for each distinct target, a norm for one
    output and a nuclear norm for several, which is that of a gated network with one gate, always open.

    Parameters
    ----------
    problem : PostActivationProblem
        Training problem whose Z has full row rank, a constant column included.
    tol, relative_to
        As in `solve_closed_form`.

    Returns
    -------
    solution : Solution
        Certificate of scope "global".

    Raises
    ------
    ValueError
        If Z is not of full row rank; the message says why there is no closed form.
    """
    obstacle = full_row_rank_obstacle(problem)
    if obstacle:
        raise ValueError(f"No closed form reaches this problem: {obstacle}.")
    tolerance = Tolerance.of(problem, tol, relative_to)
    root = np.sqrt(problem.sample_weight)[:, None]
    if isinstance(problem.loss, SquaredError):
        intercept = problem.zero_network.intercept
        left, values, right = np.linalg.svd(root * (problem.y - intercept), full_matrices=False)
        F = (left * np.maximum(values - problem.weight_decay, 0)) @ right / root
        v, n_iter = problem.dual_point(F + intercept), 0
    else:
        F, intercept, v, n_iter = _by_targets(problem, tol, relative_to)
    left, values, right = np.linalg.svd(root * F, full_matrices=False)
    size = np.linalg.norm(root * (problem.y - problem.zero_network.intercept))
    kept = values > problem.Z.n_rows * np.finfo(float).eps * max(size, values.max(initial=0))
    hidden, output = left[:, kept] * values[kept] / root, right[kept]
    shift = hidden.min(axis=0)
    weights = np.linalg.lstsq(problem.Z.rows(), hidden - shift, rcond=None)[0]
    neurons = NormalizedNeurons.on(problem.Z, problem.sample_weight, weights, shift, output, intercept)
    bound = partial(normalized_price_bound, sample_weight=problem.sample_weight)
    certificate = certify(problem, neurons, v, bound, Search.CLOSED_FORM, Oracle.NORM_BOUND)
    status = status_of(certificate, tolerance, "the closed form")
    return Solution(neurons, v, certificate, status, n_iter)  # type: ignore[arg-type]


def _by_targets(
    problem: PostActivationProblem, tol: float, relative_to: Reference
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Outputs F (n, C), intercept (C,), dual point (n, C) and iterations from one row for each distinct target."""
    targets, group = np.unique(problem.y, axis=0, return_inverse=True)
    group = group.ravel()
    weights = np.bincount(group, problem.sample_weight)
    scale = 1 / np.sqrt(weights)
    reduced = Problem(
        np.diag(scale),
        targets,
        problem.loss,
        weight_decay=problem.weight_decay,
        fit_intercept=problem.fit_intercept,
        sample_weight=weights,
    )
    open_gate = Patterns(np.packbits(np.ones((1, len(targets)), dtype=bool), axis=1), scale[:, None], len(targets))
    rule: dict[str, Any] = {"tol": _TOL * tol, "relative_to": relative_to}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the gap of the network decides
        if np.isfinite(problem.loss.curvature):
            solution = solve_gated(reduced, open_gate, **rule)
        else:
            from convexbn.solvers.conic import solve_reference  # imports cvxpy, which takes a while

            solution = solve_reference(reduced, open_gate, activation="gated_relu", **rule)
    neurons = solution.neurons
    F = neurons.outputs(reduced.Z) - neurons.intercept
    v = solution.dual[group] * (problem.sample_weight / weights[group])[:, None]
    return F[group], neurons.intercept, v, solution.n_iter
