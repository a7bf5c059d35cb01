from dataclasses import replace

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
from convexbn.oracles import Price, price_bound, price_by_enumeration, price_of_patterns
from convexbn.solvers import Oracle, Search, Setting
from convexbn.solvers._certificate import dual_bound
from convexbn.solvers._scaling import Scaling
from convexbn.solvers._tolerance import Tolerance
from convexbn.solvers.relu._certify import _proved_price
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
            certificate = certify(problem, problem.zero_network, v, price)
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
    bounds = [certify(p, p.zero_network, v, lambda v, p=p: price_bound(p.Z, v)).lower_bound for p in (near, far)]
    assert bounds[1] == pytest.approx(bounds[0], rel=1e-7)


def test_gap_is_relative_and_never_negative():
    assert Certificate(2.0, 1.5, "global", 1.5).gap == 0.25
    assert Certificate(0.0, 0.0, "global", 0.0).gap == 0
    problem = CASES[0].problem()
    assert Certificate(2.0, 2.1, "global", 2.1).gap == 0
    generous = certify(problem, problem.zero_network, problem.zero_dual, lambda v: Price(0.0, "local"))
    assert generous.gap == pytest.approx(0, abs=1e-12)
    assert generous.lower_bound <= generous.objective
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
        text = str(Certificate(2.0, 1.5, scope, 1.0))
        assert word in text
        assert ("Over all networks" in text) == (scope != "global")
    assert "gated network with these gates" in str(Certificate(2.0, 1.5, "patterns", None))


@pytest.mark.parametrize("scope", ["global", "local"])
def test_basis_names_the_oracle_where_it_proved_the_lower_bound(scope):
    certificate = Certificate(2.0, 1.5, scope, 1.0, Search.ASCENT, Oracle.BRANCH_AND_BOUND)
    assert certificate.basis.startswith(Search.ASCENT.value)
    assert ("proved by branch and bound" in certificate.basis) == (scope == "global")
    assert "branch and bound over all directions." in str(certificate)


def test_basis_says_how_many_patterns_and_of_what_the_objective_is():
    certificate = Certificate(2.0, 1.5, "patterns", 1.0, Search.PATTERNS, Oracle.NORM_BOUND, n_patterns=7)
    assert certificate.basis == "the convex program of 7 activation patterns"
    setting = Setting(0.5, standardized=True, n_directions=3, variance_left_out=0.25, scaled_outputs=True)
    assert replace(certificate, setting=replace(setting, last_layers=True)).basis.split("; ")[1:] == [
        "for X truncated to 3 of the singular directions of the standardized columns, without 2.5e-01 of its variance",
        "with the penalty of spectral_power=0.5 of the standardized columns, not plain weight decay",
        "for each output in units of its standard deviation",
        "of the last two layers alone, the features before them being fixed",
    ]
    assert replace(certificate, setting=Setting(standardized=True)).basis == certificate.basis


@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_oracle_is_the_one_whose_bound_is_reported(case):
    """A local search that proves less than norms do is not what the bound rests on."""
    problem = case.problem()
    within = certify(
        problem, problem.zero_network, problem.zero_dual, lambda v: Price(1e9, "local"), Search.ASCENT, Oracle.GIVEN
    )
    assert (within.scope, within.oracle) == ("global", Oracle.NORM_BOUND)
    exact = solve_reference(problem, enumerate_patterns(problem.Z)).certificate
    assert (exact.scope, exact.oracle) == ("global", Oracle.ENUMERATION)
    few = solve_reference(problem, sample_patterns(problem.Z, 3, random_state=0)).certificate
    assert (few.scope, few.oracle) == ("patterns", Oracle.NORM_BOUND)


def test_the_higher_global_bound_of_two_comes_with_its_oracle():
    low = Certificate(2.0, 1.5, "local", 0.5, Search.ASCENT, Oracle.NORM_BOUND)
    high = Certificate(2.0, 1.0, "global", 1.0, Search.ASCENT, Oracle.BRANCH_AND_BOUND)
    joined = low.with_bound_of(high)
    assert (joined.lower_bound, joined.scope) == (1.5, "local")
    assert (joined.global_lower_bound, joined.oracle) == (1.0, Oracle.BRANCH_AND_BOUND)
    assert high.with_bound_of(low) is high


def test_gated_network_has_no_bound_beyond_its_gates():
    problem = CASES[0].problem()
    gates = np.eye(problem.Z.n_columns, 1)
    gated = Neurons(gates, np.zeros((1, 1)), np.zeros(1), gates=gates)
    assert certify(problem, gated, problem.zero_dual, lambda v: Price(1.0, "patterns")).global_lower_bound is None


def test_what_rounding_may_hide_of_a_price_is_taken_off():
    problem = Problem(np.full((2, 1), 1e8), [1.0, -1.0], weight_decay=1e-3)
    v = np.array([[0.25], [-0.25]])  # whose price is a difference of terms of 2.5e7, and known to 2e-8 or so
    rough, proved = (dual_bound(problem, v, Price(1e-3, scope)) for scope in ("local", "global"))
    assert rough == pytest.approx(0.375, abs=1e-12)
    assert 0.37 <= proved <= 0.375 - 1e-6


def test_what_columns_miss_of_adding_up_to_zero_is_taken_off():
    problem = Problem(np.ones((3, 1)), [1.0, 2.0, 6.0], weight_decay=1.0, fit_intercept=True)
    v = np.array([[-0.2], [-0.1], [0.3]])
    missing = v * np.array([[1.0], [1.0], [1 + 1e-12]])
    bounds = [dual_bound(problem, u, Price(0.1, "global")) for u in (v, missing)]
    assert bounds[0] == pytest.approx(problem.dual_objective(v), rel=1e-12)
    assert bounds[1] <= bounds[0] - 1e-11


def test_no_bound_is_above_the_objective_whatever_price_is_given():
    problem = CASES[0].problem()
    solution = solve_reference(problem, enumerate_patterns(problem.Z))
    assert problem.dual_objective(problem.zero_dual) > solution.certificate.objective * 1.01
    certificate = certify(problem, solution.neurons, problem.zero_dual, lambda v: Price(0.0, "local"))
    assert certificate.lower_bound == certificate.objective


def test_the_better_of_two_dual_points_bounds_all_networks():
    problem = CASES[0].problem()
    of_zero = certify(problem, problem.zero_network, problem.zero_dual, lambda v: price_bound(problem.Z, v))
    nothing = certify(problem, problem.zero_network, 0 * problem.zero_dual, lambda v: Price(0.0, "local"))
    assert of_zero.global_lower_bound > 0
    assert nothing.global_lower_bound >= of_zero.global_lower_bound


@pytest.mark.parametrize("scale", [None, 5.0])
def test_a_relative_tolerance_is_the_gap_that_is_just_reached(scale):
    tolerance, objective = Tolerance(1e-2, scale), 2.0
    largest = tolerance.relative(objective)
    assert tolerance.reached(objective, objective * (1 - 0.999 * largest))
    assert not tolerance.reached(objective, objective * (1 - 1.001 * largest))


def test_a_proved_price_covers_dual_points_that_have_moved():
    problem = CASES[0].problem()
    scaling, known = Scaling.of(problem), problem.zero_dual
    scaled = price_by_enumeration(scaling.problem.Z, known / scaling.target_scale)
    price = _proved_price(scaled, scaling, problem, known)
    assert price(known).value == pytest.approx(price_by_enumeration(problem.Z, known).value, rel=1e-9)
    for v in (1.01 * known, known * (1 + 1e-9)):
        assert price(v).value >= price_by_enumeration(problem.Z, v).value
