import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from convexbn import (
    BatchNormDesign,
    DesignMatrix,
    Neurons,
    Problem,
    Status,
    WeightNormDesign,
    certify,
    enumerate_patterns,
    sample_patterns,
    solve,
    solve_closed_form,
    solve_reference,
    weight_decay_max,
)
from convexbn.losses import Huber, SquaredError
from convexbn.oracles import price_by_enumeration
from convexbn.solvers import Oracle, Search
from tests.problems import CASES

CLOSED = [("squared_error", False), ("squared_error", True)]
CLOSED += [(loss, intercept) for loss in ("log_loss", "hinge") for intercept in (False, True)]


def full_rank_problem(loss="squared_error", fit_intercept=False, weight_decay=0.05, n=6, seed=0, shift=1):
    """Whitened data with as many columns as samples, few enough to enumerate all 2^n patterns."""
    rng = np.random.default_rng(seed)
    Z = BatchNormDesign().fit_transform(rng.standard_normal((n, n + 2)))
    y = rng.standard_normal(n) + shift
    if loss != "squared_error":
        y = np.where(np.arange(n) < 2 + seed % 3, -1.0, 1.0)
    return Problem(Z, y, loss, weight_decay=weight_decay, fit_intercept=fit_intercept)


@pytest.mark.parametrize(("loss", "fit_intercept"), CLOSED)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.6, 0.9, 1.5])
def test_closed_form_equals_the_program_over_all_patterns(loss, fit_intercept, seed, fraction):
    largest = weight_decay_max(full_rank_problem(loss, fit_intercept, seed=seed))
    problem = full_rank_problem(loss, fit_intercept, fraction * largest, seed=seed)
    closed = solve_closed_form(problem)
    assert closed.certificate.scope == "global"
    assert closed.certificate.gap <= 1e-12
    assert closed.certificate.lower_bound <= problem.objective(closed.neurons)
    patterns = enumerate_patterns(problem.Z)
    assert len(patterns) == 2**6
    program = solve_reference(problem, patterns).certificate
    assert closed.certificate.objective == pytest.approx(program.objective, rel=1e-6)
    assert len(closed.neurons) <= 2
    if fraction > 1:
        assert len(closed.neurons) == 0


@pytest.mark.parametrize("seed", range(3))
def test_closed_form_of_one_hot_targets_is_shrinkage_and_below_perturbations(seed):
    rng = np.random.default_rng(seed)
    n = 12
    Z = DesignMatrix(BatchNormDesign().fit_transform(rng.standard_normal((n, 30))))
    Y = np.eye(3)[rng.integers(0, 3, n)]
    problem = Problem(Z, Y, weight_decay=0.02)
    solution = solve_closed_form(problem)
    shrinkage = 1 - 0.02 * np.sqrt(n) / np.linalg.norm(Y, axis=0)
    np.testing.assert_allclose(solution.neurons.outputs(Z), Y * shrinkage, atol=1e-12)
    assert solution.certificate.gap <= 1e-12
    assert solution.certificate.scope == "global"
    for _ in range(50):
        S = solution.neurons.weights + 0.01 * rng.standard_normal(solution.neurons.weights.shape)
        C = solution.neurons.output_weights + 0.01 * rng.standard_normal((3, 3))
        assert problem.objective(Neurons(S, C, np.zeros(3))) >= solution.certificate.lower_bound


def test_closed_form_of_constant_targets():
    Z = full_rank_problem().Z
    solution = solve_closed_form(Problem(Z, np.full(6, 4.0), weight_decay=0.1, fit_intercept=True))
    assert len(solution.neurons) == 0
    assert solution.neurons.intercept == pytest.approx(4)
    assert solution.certificate.objective == 0


def test_closed_form_of_one_class_without_intercept():
    for loss in ("log_loss", "hinge"):
        solution = solve_closed_form(Problem(full_rank_problem().Z, np.ones(6), loss, weight_decay=0.01))
        assert len(solution.neurons) == 1
        assert solution.certificate.gap <= 1e-12


def one_hot():
    return np.eye(2)[[0, 1, 0, 1, 0, 1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "huber"}, "none for loss 'huber'"),
        ({"loss": "squared_hinge", "y": np.array([1.0, -1, 1, 1, 1, 1])}, "none for loss 'squared_hinge'"),
        ({"sample_weight": [1, 2, 1, 1, 1, 1]}, "not a multiple of the identity"),
        ({"y": np.ones((6, 2))}, "one-hot"),
        ({"y": -one_hot()}, "one-hot"),
        ({"y": one_hot(), "fit_intercept": True}, "no intercept"),
        ({"Z": np.zeros((6, 6))}, "not a multiple of the identity"),
        ({"Z": DesignMatrix(np.ones((12, 2)), n_patches=2)}, "pools patches"),
        ({"Z": np.random.default_rng(0).standard_normal((6, 4))}, "rank at most 4, less than its 6 samples"),
        ({"Z": np.random.default_rng(0).standard_normal((6, 8))}, "not a multiple of the identity"),
    ],
)
def test_closed_form_refuses_what_it_cannot_reach(changes, message):
    arguments = {"Z": full_rank_problem().Z, "y": np.arange(6.0), "weight_decay": 0.1} | changes
    with pytest.raises(ValueError, match=f"No closed form reaches this problem: .*{message}"):
        solve_closed_form(Problem(**arguments))


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_lower_bound_of_the_reference_is_confirmed_by_a_separate_enumeration(case):
    problem = case.problem()
    solution = solve_reference(problem, enumerate_patterns(problem.Z))
    again = certify(
        problem, solution.neurons, solution.dual, lambda v: price_by_enumeration(problem.Z, v), "an enumeration"
    )
    assert again.lower_bound == pytest.approx(solution.certificate.lower_bound, rel=1e-9)


@pytest.mark.parametrize("target_scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("column_scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("loss", ["squared_error", "huber"])
def test_reference_solves_problems_in_any_units(loss, target_scale, column_scale):
    rng = np.random.default_rng(0)
    Z, y = rng.standard_normal((10, 3)), rng.standard_normal(10) + 2
    unit = Problem(Z, y, loss, weight_decay=0.03, fit_intercept=True)
    scaled = Problem(
        Z * column_scale,
        y * target_scale,
        Huber(1.35 * target_scale) if loss == "huber" else loss,
        weight_decay=0.03 * target_scale * column_scale,
        fit_intercept=True,
    )
    objectives = [solve_reference(p, enumerate_patterns(p.Z)).certificate.objective for p in (unit, scaled)]
    assert objectives[1] == pytest.approx(objectives[0] * target_scale**2, rel=1e-6)


@pytest.mark.parametrize("activation", ["relu", "gated_relu"])
def test_reference_on_sampled_patterns(activation):
    problem = CASES[8].problem()
    solution = solve_reference(problem, sample_patterns(problem.Z, 6, random_state=0), activation=activation)
    assert solution.status is Status.CONVERGED
    assert solution.certificate.scope == "patterns"
    assert solution.n_iter > 1
    assert (solution.neurons.gates is None) == (activation == "relu")


def test_reference_has_few_neurons():
    problem = CASES[8].problem()
    solution = solve_reference(problem, enumerate_patterns(problem.Z))
    assert len(solution.neurons) <= problem.Z.n_samples + 1


def test_unreached_tolerance_warns_with_the_gap():
    problem = CASES[0].problem()
    patterns = enumerate_patterns(problem.Z)
    with pytest.warns(ConvergenceWarning, match=r"CLARABEL .* stopped at a relative gap of .*, above tol=1.0e-06"):
        solution = solve_reference(problem, patterns, max_iter=6)
    assert solution.status is Status.NOT_CONVERGED
    assert solution.certificate.gap > 1e-6
    optimum = solve_reference(problem, patterns).certificate
    assert solution.certificate.lower_bound <= optimum.objective <= solution.certificate.objective


def test_closed_form_of_next_to_nothing_warns_of_rounding():
    with pytest.warns(ConvergenceWarning, match="the closed form stopped at a relative gap"):
        assert solve(full_rank_problem("hinge", weight_decay=1e-15, seed=2)).status is Status.NOT_CONVERGED


def test_losses_derived_from_a_closed_one_are_not_mistaken_for_it():
    class Halved(SquaredError):
        def value(self, f, y):
            return super().value(f, y) / 2

    with pytest.raises(ValueError, match="none for loss"):
        solve_closed_form(Problem(full_rank_problem().Z, np.arange(6.0), Halved(), weight_decay=0.1))


def test_badly_scaled_columns_get_no_false_global_bound():
    problem = Problem(np.array([[1e10, 0], [0, 1.0], [0, -1.0]]), [0, 1.0, 0], weight_decay=0.01)
    better = Neurons(np.array([[0.0], [1.0]]), np.ones((1, 1)), np.zeros(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        certificate = solve(problem).certificate
    assert certificate.lower_bound <= problem.objective(better)
    assert weight_decay_max(problem) == pytest.approx(1 / 3)


def test_solve_takes_the_closed_form_then_all_patterns_then_a_sample():
    assert solve(full_rank_problem()).certificate.search is Search.CLOSED_FORM
    program = solve(full_rank_problem(), solver="CLARABEL").certificate
    assert (program.search, program.n_patterns, program.scope) == (Search.PATTERNS, 64, "global")
    assert solve(full_rank_problem(), solver="closed_form").certificate.search is Search.CLOSED_FORM
    rng = np.random.default_rng(0)
    large = Problem(rng.standard_normal((40, 5)), rng.standard_normal(40), weight_decay=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        sampled = solve(large, solver="CLARABEL", n_patterns=7, random_state=0)
    assert (sampled.certificate.search, sampled.certificate.n_patterns) == (Search.PATTERNS, 7)
    assert sampled.certificate.scope == "patterns"


def test_solve_takes_column_generation_beyond_the_closed_form_and_the_gated_solver_for_large_gated_problems():
    rng = np.random.default_rng(0)
    problem = Problem(rng.standard_normal((40, 3)), rng.standard_normal(40), weight_decay=0.1)
    for solver in ("auto", "column_generation"):
        certificate = solve(problem, solver=solver, random_state=0).certificate
        assert (certificate.search, certificate.oracle) == (Search.ASCENT, Oracle.BRANCH_AND_BOUND)
    gated = solve(problem, activation="gated_relu", random_state=0)
    assert gated.certificate.search is Search.GATES
    large = Problem(rng.standard_normal((2500, 10)), rng.standard_normal(2500), weight_decay=0.02)
    solution = solve(large, activation="gated_relu", random_state=0)
    assert (solution.certificate.search, solution.certificate.n_patterns) == (Search.GATES, 50)
    assert solution.history  # cvxpy reports none
    with pytest.raises(ValueError, match="solver='column_generation' is for activation='relu'"):
        solve(problem, activation="gated_relu", solver="column_generation")


def test_solve_is_deterministic():
    rng = np.random.default_rng(0)
    problem = Problem(rng.standard_normal((40, 5)), rng.standard_normal(40), weight_decay=0.1)
    first, second, other = (solve(problem, solver="CLARABEL", n_patterns=5, random_state=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.neurons.weights, second.neurons.weights)
    assert other.certificate.objective != first.certificate.objective


def test_gated_networks_skip_the_closed_form():
    problem = full_rank_problem()
    assert solve(problem, activation="gated_relu").neurons.gates is not None
    with pytest.raises(ValueError, match="solver='closed_form' is for activation='relu'"):
        solve(problem, activation="gated_relu", solver="closed_form")


def test_solve_with_a_missing_solver():
    with pytest.raises(ValueError, match="solver='NONE' is not installed"):
        solve(full_rank_problem(), solver="NONE")


@pytest.mark.parametrize("activation", ["relu", "gated_relu"])
@pytest.mark.parametrize(
    "changes", [{"max_iter": 0}, {"max_iter": True}, {"max_iter": 1.5}, {"max_time": 0}, {"n_patterns": 0}]
)
def test_solve_checks_its_limits_whatever_solver_it_takes(activation, changes):
    (name, value), *_ = changes.items()
    with pytest.raises(ValueError, match=f"{name}={value} must be a positive"):
        solve(full_rank_problem(), activation=activation, **changes)


def test_reference_checks_its_limits():
    problem = full_rank_problem()
    with pytest.raises(ValueError, match="max_iter=-1 must be a positive integer or None"):
        solve_reference(problem, sample_patterns(problem.Z, 3, random_state=0), max_iter=-1)


def test_weight_normalized_data_of_full_rank_is_not_whitened():
    X = np.random.default_rng(0).standard_normal((5, 8))
    problem = Problem(WeightNormDesign().fit_transform(X), np.arange(5.0), weight_decay=0.1)
    with pytest.raises(ValueError, match="not a multiple of the identity"):
        solve_closed_form(problem)
