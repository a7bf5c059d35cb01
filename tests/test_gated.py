from dataclasses import replace

import numpy as np
import pytest

from convexbn import (
    BatchNormDesign,
    DesignMatrix,
    Problem,
    Status,
    sample_patterns,
    solve_gated,
    solve_reference,
)
from convexbn.pricing import price_of_gates

SMOOTH = ["squared_error", "huber", "log_loss", "squared_hinge"]


def make_problem(
    loss="squared_error", fit_intercept=False, n=60, d=4, fraction=0.05, seed=0, n_patches=1, weights=False
):
    """A problem whose weight decay is a fraction of the largest gated price, and 40 patterns."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n * n_patches, d)) @ rng.standard_normal((d, d))
    Z = DesignMatrix(BatchNormDesign().fit_transform(X), n_patches)
    target = Z.neuron_outputs(rng.standard_normal((Z.n_columns, 3))) @ rng.standard_normal(3) + rng.standard_normal(n)
    y = target if loss in ("squared_error", "huber") else np.where(target > np.median(target), 1.0, -1.0)
    sample_weight = rng.uniform(0.5, 2, n) if weights else None
    patterns = sample_patterns(Z, 40, random_state=seed)
    problem = Problem(Z, y, loss, weight_decay=1.0, fit_intercept=fit_intercept, sample_weight=sample_weight)
    largest = price_of_gates(Z, patterns, problem.zero_dual).value
    return replace_problem(problem, weight_decay=fraction * largest), patterns


def replace_problem(problem, **changes):
    return replace(problem, **changes)


def check_certificate(problem, patterns, solution):
    """The certificate is what certify says it is, and its bound does not rest on the solver's word."""
    certificate = solution.certificate
    assert certificate.scope == "patterns"
    assert certificate.global_lower_bound is None
    assert certificate.objective == problem.objective(solution.neurons)
    v = problem.feasible_dual(solution.dual)
    price = price_of_gates(problem.Z, patterns, v).value
    bound = problem.dual_objective(v * min(1, problem.weight_decay / price))
    assert certificate.lower_bound == pytest.approx(min(bound, certificate.objective), rel=1e-12)


def check_order(patterns, neurons):
    """Gates are columns of the patterns' directions, in their order."""
    position = {column.tobytes(): i for i, column in enumerate(patterns.directions.T.copy())}
    found = [position[column.tobytes()] for column in neurons.gates.T.copy()]
    assert found == sorted(set(found))


@pytest.mark.parametrize("loss", SMOOTH)
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("n_patches", [1, 3])
@pytest.mark.parametrize(("weights", "fraction"), [(False, 0.3), (True, 0.02)])
def test_gated_equals_the_program(loss, fit_intercept, n_patches, weights, fraction):
    problem, patterns = make_problem(
        loss, fit_intercept, n=40, fraction=fraction, n_patches=n_patches, weights=weights, seed=n_patches
    )
    solution = solve_gated(problem, patterns, tol=1e-8)
    assert solution.status is Status.CONVERGED
    assert solution.certificate.gap <= 1e-8
    reference = solve_reference(problem, patterns, activation="gated_relu").certificate
    assert solution.certificate.objective == pytest.approx(reference.objective, rel=1e-6)
    assert solution.certificate.lower_bound <= reference.objective
    check_certificate(problem, patterns, solution)
    check_order(patterns, solution.neurons)
    objectives = [progress.objective for progress in solution.history]
    assert solution.n_iter == len(objectives) >= 1
    assert (np.diff(objectives) <= 1e-14 * objectives[0]).all()
