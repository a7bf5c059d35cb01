import numpy as np
import pytest

from convexbn import (
    Certificate,
    Neurons,
    Problem,
    certify,
    enumerate_patterns,
    sample_patterns,
    solve,
    solve_reference,
    weight_decay_max,
)
from convexbn.oracles import Price, price_bound, price_of_patterns
from tests.problems import CASES


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_dual_point_proves_more_than_the_optimum(case):
    problem = case.problem()
    patterns = enumerate_patterns(problem.Z)
    optimum = solve_reference(problem, patterns).certificate
    rng = np.random.default_rng(0)
    for scale in (0.01, 1.0, 100.0):
        v = scale * problem.dual_point(rng.standard_normal((problem.Z.n_samples, 1)))
        for price in (lambda v: price_of_patterns(problem.Z, patterns, v), lambda v: price_bound(problem.Z, v)):
            certificate = certify(problem, problem.zero_network, v, price, "a test")
            assert 0 <= certificate.lower_bound <= optimum.objective * (1 + 1e-9)
            assert certificate.objective >= optimum.lower_bound


@pytest.mark.parametrize("case", CASES[:6], ids=str)
def test_scope_patterns_says_nothing_of_other_patterns_but_its_global_bound_holds(case):
    problem = case.problem()
    optimum = solve_reference(problem, enumerate_patterns(problem.Z)).certificate
    few = solve_reference(problem, sample_patterns(problem.Z, 3, random_state=0)).certificate
    assert few.scope == "patterns"
    assert few.gap <= 1e-6
    assert few.global_lower_bound <= optimum.objective <= few.objective * (1 + 1e-9)


def test_far_away_targets_do_not_blur_the_bound():
    case = next(case for case in CASES if case.loss == "squared_error" and case.fit_intercept)
    near = case.problem()
    far = Problem(near.Z, near.y + 1e8, weight_decay=near.weight_decay, fit_intercept=True)
    v = near.zero_dual
    assert far.dual_objective(v) == pytest.approx(near.dual_objective(v), rel=1e-7)
    bounds = [
        certify(p, p.zero_network, v, lambda v, p=p: price_bound(p.Z, v), "a test").lower_bound for p in (near, far)
    ]
    assert bounds[1] == pytest.approx(bounds[0], rel=1e-7)


def test_gap_is_relative_and_never_negative():
    assert Certificate(2.0, 1.5, "global", 1.5, "a test").gap == 0.25
    assert Certificate(0.0, 0.0, "global", 0.0, "a test").gap == 0
    problem = CASES[0].problem()
    generous = certify(problem, problem.zero_network, problem.zero_dual, lambda v: Price(0.0, "local"), "a search")
    assert generous.gap >= 0
    assert generous.scope == "local"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_dual_value_itself_is_no_higher_than_the_optimum(case):
    """`certify` caps the bound at the objective; here nothing is capped, and the two come from different programs."""
    problem = case.problem()
    solution = solve_reference(problem, enumerate_patterns(problem.Z))
    v = problem.feasible_dual(solution.dual)
    directions = np.random.default_rng(0).standard_normal((problem.Z.n_columns, 20_000))
    prices = np.abs(v.T @ problem.Z.neuron_outputs(directions / np.linalg.norm(directions, axis=0)))
    assert prices.max() <= problem.weight_decay * (1 + 1e-5)
    assert prices.max() >= 0.9 * problem.weight_decay
    value = problem.dual_objective(v * (1 - 1e-5))
    assert 0 < value <= solution.certificate.objective
    assert value == pytest.approx(solution.certificate.objective, rel=1e-3)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_zero_network_is_said_where_it_is_proved_and_only_there(case):
    largest = weight_decay_max(case.problem())
    above = solve(case.problem(weight_decay=1.5 * largest))
    assert "where the zero network is optimal" in str(above.certificate)
    below = case.problem(weight_decay=0.8 * largest)
    few = solve_reference(below, sample_patterns(below.Z, 2, random_state=1))
    assert "where the zero network is optimal" not in str(few.certificate)


def test_words_match_the_scope():
    for scope, word in (("global", "any width"), ("patterns", "others may do better"), ("local", "not a proof")):
        text = str(Certificate(2.0, 1.5, scope, 1.0, "a test"))
        assert word in text
        assert ("Over all networks" in text) == (scope != "global")
    assert "gated network with these gates" in str(Certificate(2.0, 1.5, "patterns", None, "50 gates"))


def test_gated_network_has_no_bound_beyond_its_gates():
    problem = CASES[0].problem()
    gates = np.eye(problem.Z.n_columns, 1)
    gated = Neurons(gates, np.zeros((1, 1)), np.zeros(1), gates=gates)
    assert (
        certify(problem, gated, problem.zero_dual, lambda v: Price(1.0, "patterns"), "1 gate").global_lower_bound
        is None
    )
