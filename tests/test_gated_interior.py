"""The interior-point method of gated networks that fit everything, against cvxpy and against working sets."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from convexbn import BatchNormDesign, Problem, Status, enumerate_patterns, primal_program, solve_gated, solve_program
from convexbn.oracles import price_of_gates
from convexbn.solvers._tolerance import Tolerance
from convexbn.solvers.gated._driver import working_sets
from convexbn.solvers.gated._interior_point import fits_everything

LOSSES = [("squared_error", 1), ("squared_error", 3), ("huber", 1), ("log_loss", 1), ("cross_entropy", 3)]


def make_problem(loss="squared_error", C=3, fit_intercept=False, fraction=0.1, n=6, weights=False):
    """Whitened data of full row rank with all of its patterns, and a fraction of the largest price as weight decay."""
    rng = np.random.default_rng(C)
    Z = BatchNormDesign().fit_transform(rng.standard_normal((n, n - 1)))
    y = rng.standard_normal((n, C))
    if loss == "log_loss":
        y = np.where(y > np.median(y), 1.0, -1.0)
    if loss == "cross_entropy":
        y = np.eye(C)[np.arange(n) % C]
    sample_weight = rng.uniform(0.5, 2, n) if weights else None
    problem = Problem(Z, y, loss, weight_decay=1.0, fit_intercept=fit_intercept, sample_weight=sample_weight)
    patterns = enumerate_patterns(problem.Z)
    largest = price_of_gates(problem.Z, patterns, problem.zero_dual).value
    return replace(problem, weight_decay=fraction * largest), patterns


@pytest.mark.parametrize(("loss", "C"), LOSSES)
@pytest.mark.parametrize(("fit_intercept", "fraction"), [(False, 0.3), (True, 0.01)])
def test_it_equals_the_program(loss, C, fit_intercept, fraction):
    problem, patterns = make_problem(loss, C, fit_intercept, fraction, weights=True)
    assert fits_everything(working_sets(problem, patterns, "float64"))
    solution = solve_gated(problem, patterns, tol=1e-7)
    assert solution.status is Status.CONVERGED
    assert solution.certificate.objective == problem.objective(solution.neurons)
    primal = solve_program(primal_program(problem, patterns, "gated_relu"))
    assert solution.certificate.objective == pytest.approx(primal, rel=1e-6)
    v = problem.feasible_dual(solution.dual)
    price = price_of_gates(problem.Z, patterns, v).value
    bound = problem.dual_objective(v * min(1, problem.weight_decay / price))
    assert solution.certificate.lower_bound == pytest.approx(min(bound, solution.certificate.objective), rel=1e-12)
    objectives = [progress.objective for progress in solution.history]
    assert (np.diff(objectives) <= 0).all()


@pytest.mark.parametrize(("C", "fraction"), [(1, 0.1), (3, 0.3)])
def test_working_sets_agree(C, fraction):
    problem, patterns = make_problem("squared_error", C, fraction=fraction)
    sets = working_sets(problem, patterns, "float64")
    rounds = sets.rounds(sets.priced(sets.first(None)), Tolerance(1e-7), lambda: False)
    best = next(state.best for state in rounds if sets.gap(state) <= 1e-7)
    assert solve_gated(problem, patterns, tol=1e-7).certificate.objective == pytest.approx(
        sets.objective(best), rel=2e-7
    )


@pytest.mark.parametrize(("loss", "C"), LOSSES[:2])
def test_neurons_are_few(loss, C):
    problem, patterns = make_problem(loss, C, True, weights=True)
    assert 0 < len(solve_gated(problem, patterns).neurons) <= problem.y.size + 1


def test_many_patterns_and_outputs_take_seconds():
    problem, patterns = make_problem(C=5, fraction=0.02, n=11)
    assert len(patterns) == 2048
    solution = solve_gated(problem, patterns, max_time=30)
    assert solution.status is Status.CONVERGED
    assert len(solution.neurons) <= 56


def test_limits_and_starts():
    problem, patterns = make_problem()
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        coarse = solve_gated(problem, patterns, max_iter=2)
    assert (coarse.status, coarse.n_iter) == (Status.MAX_ITER, 2)
    solution = solve_gated(problem, patterns)
    assert coarse.certificate.objective > solution.certificate.objective
    again = solve_gated(problem, patterns, tol=2e-6, start=solution.neurons)
    assert again.certificate.objective <= solution.certificate.objective * (1 + 1e-12)
    with pytest.warns(ConvergenceWarning):
        late = solve_gated(problem, patterns, max_time=1e-6)
    assert late.status is Status.MAX_TIME
    tight = replace(problem, weight_decay=20 * problem.weight_decay)
    assert len(solve_gated(tight, patterns, start=solution.neurons).neurons) == 0


def test_beyond_rounding_it_says_that_it_did_not_converge():
    problem, patterns = make_problem()
    with pytest.warns(ConvergenceWarning, match="above tol=1.0e-16"):
        solution = solve_gated(problem, patterns, tol=1e-16)
    assert solution.status is Status.NOT_CONVERGED
    assert solution.certificate.gap < 1e-8
