"""The nuclear norm constrained to the cones of the patterns: ReLU networks of several outputs, exactly."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from convexbn import (
    BatchNormDesign,
    DesignMatrix,
    Neurons,
    Problem,
    enumerate_patterns,
    sample_patterns,
    solve_closed_form,
    solve_column_generation,
    solve_program,
    solve_reference,
    weight_decay_max,
)
from convexbn.oracles import (
    flats_of_rows,
    most_violated_patterns,
    price_by_ascent,
    price_by_enumeration,
    price_of_pattern,
    price_of_patterns,
    quickly_enumerated,
)
from convexbn.solvers import Options, Search
from convexbn.solvers.conic._programs import rank_one_program
from tests.problems import CASES
from tests.test_vector_outputs import LOSSES, instance
from tests.watched import Watched


def dual_instance(n, k, C, seed, n_patches=1):
    rng = np.random.default_rng(seed)
    return DesignMatrix(rng.standard_normal((n * n_patches, k)), n_patches), rng.standard_normal((n, C))


def prices_of(Z, V, W):
    return np.linalg.norm(V.T @ Z.neuron_outputs(W / np.linalg.norm(W, axis=0)), axis=0)


@pytest.mark.parametrize("n_patches", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_price_of_each_pattern_is_the_largest_of_all_angles_in_its_cone(seed, n_patches):
    Z, V = dual_instance(6, 2, 2 + seed % 3, seed, n_patches)
    angles = np.linspace(0, 2 * np.pi, 400_001)
    W = np.stack([np.cos(angles), np.sin(angles)])
    prices, met = prices_of(Z, V, W), np.packbits(Z.Z @ W >= 0, axis=0).T
    patterns = enumerate_patterns(Z)
    assert len(patterns) == 2 * Z.n_rows
    found = []
    for packed, mask in zip(patterns.packed, patterns.masks().T, strict=True):
        price, w = price_of_pattern(Z, mask, V)
        assert price == pytest.approx(prices[(met == packed).all(axis=1)].max(), rel=1e-4)
        assert np.linalg.norm(w) == pytest.approx(price)
        assert prices_of(Z, V, w[:, None])[0] == pytest.approx(price, rel=1e-7)
        assert ((2 * mask - 1) * (Z.Z @ w) >= -1e-6 * price * Z.row_norms).all()
        found.append(price)
    largest = price_by_enumeration(Z, V)
    assert largest.scope == "global"
    assert max(found) <= largest.value <= max(found) * (1 + 1e-10)  # with what cells that are too narrow may hold
    assert prices.max() * (1 - 1e-12) <= largest.value <= prices.max() * (1 + 1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "k"), [(10, 3), (7, 4), (4, 5)])
def test_price_of_all_patterns_bounds_every_direction_and_is_attained(n, k, seed):
    Z, V = dual_instance(n, k, 2 + seed, seed)
    price = price_by_enumeration(Z, V)
    W = np.random.default_rng(1).standard_normal((k, 200_000))
    assert prices_of(Z, V, W).max() <= price.value
    assert prices_of(Z, V, price.direction[:, None])[0] == pytest.approx(price.value, rel=1e-7)
    assert price_by_ascent(Z, V, random_state=0).value == pytest.approx(price.value, rel=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_two_equal_outputs_price_sqrt_two_times_one(seed):
    """The price of one output comes from projections on the cones, not from their faces."""
    Z, v = dual_instance(9, 3, 1, seed)
    for mask in enumerate_patterns(Z).masks().T:
        one = max(price_of_pattern(Z, mask, sign * v)[0] for sign in (1, -1))
        assert price_of_pattern(Z, mask, np.hstack([v, v]))[0] == pytest.approx(2**0.5 * one, rel=1e-7, abs=1e-7)


def test_patterns_are_priced_and_ordered():
    Z, V = dual_instance(9, 3, 2, 0)
    patterns = sample_patterns(Z, 30, random_state=0)
    prices = np.array([price_of_pattern(Z, mask, V)[0] for mask in patterns.masks().T])
    best = price_of_patterns(Z, patterns, V)
    assert (best.value, best.scope) == (prices.max(), "patterns")
    threshold = np.median(prices)
    chosen = most_violated_patterns(Z, patterns, V, threshold, len(patterns))
    assert set(chosen) == set(np.flatnonzero(prices > threshold))
    assert (np.diff(prices[chosen]) <= 0).all()


def test_double_eigenvalues_are_found_on_the_boundary():
    Z, V = DesignMatrix(np.eye(2)), np.eye(2)
    assert price_of_pattern(Z, np.array([True, True]), V)[0] == pytest.approx(1, abs=1e-7)
    assert price_of_pattern(Z, np.array([False, False]), V)[0] == 0
    # The plane of the double eigenvalue meets this cone at zero only: it must not be priced.
    rows = np.array([[1.0, 0, 1], [-1, 0, 1], [0, 1, 1], [0, -1, 1]])
    axes = DesignMatrix(np.vstack([rows, np.eye(3)[:2]]))
    V = np.zeros((6, 2))
    V[4, 0] = V[5, 1] = 1.0
    assert price_of_pattern(axes, np.ones(6, dtype=bool), V)[0] == pytest.approx((2 / 3) ** 0.5, abs=1e-7)


def test_price_on_a_ray_is_never_too_small_in_exact_arithmetic():
    Z, rng = DesignMatrix(np.ones((1, 1))), np.random.default_rng(0)
    for _ in range(20):
        V = rng.standard_normal((1, 3))
        value, _ = price_of_pattern(Z, np.array([True]), V)
        exact = sum(Fraction(x) ** 2 for x in V[0].tolist())
        assert exact <= Fraction(value) ** 2 <= exact * (1 + Fraction(1, 10**7))


def test_price_on_dependent_and_zero_rows():
    Z, V = dual_instance(8, 3, 2, 0)
    wide = DesignMatrix(np.vstack([Z.Z, Z.Z[:1], np.zeros((1, 3))]) @ np.random.default_rng(1).standard_normal((3, 5)))
    V = np.vstack([V, V[:2]])
    price = price_by_enumeration(wide, V)
    assert [bases.shape[1:] for bases in flats_of_rows(wide)] == [(5, 3), (5, 2), (5, 1)]
    assert price.value == pytest.approx(price_by_ascent(wide, V, random_state=0).value, rel=1e-7)
    assert price_by_enumeration(wide, 0 * V).value == 0


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize(("n", "d", "C"), [(20, 1, 3), (12, 2, 3), (8, 3, 2)])
@pytest.mark.parametrize("loss", LOSSES)
def test_equals_column_generation(loss, n, d, C, fit_intercept):
    problem = instance(n, d, C, loss, fit_intercept=fit_intercept)
    solution = solve_reference(problem, enumerate_patterns(problem.Z))
    certificate = solution.certificate
    assert certificate.scope == "global"
    assert certificate.gap <= 1e-6
    assert certificate.objective == problem.objective(solution.neurons)
    searched = solve_column_generation(problem, prove=False, random_state=0).certificate
    assert searched.scope == "local"
    assert searched.objective == pytest.approx(certificate.objective, rel=1e-6)
    assert certificate.lower_bound <= searched.objective


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.7])
def test_equals_the_closed_form_of_one_hot_targets(fraction):
    Z = BatchNormDesign().fit_transform(np.random.default_rng(0).standard_normal((5, 8)))
    problem = Problem(Z, np.eye(2)[[0, 1, 0, 1, 1]], weight_decay=1.0)
    problem = replace(problem, weight_decay=fraction * weight_decay_max(problem))
    closed = solve_closed_form(problem).certificate
    found = solve_reference(problem, enumerate_patterns(problem.Z)).certificate
    assert (closed.scope, found.scope) == ("global", "global")
    assert found.objective == pytest.approx(closed.objective, rel=1e-6)
    assert found.lower_bound == pytest.approx(closed.objective, rel=1e-6)


ONE_OUTPUT = [case for case in CASES if case.k < 4 and case.loss in ("squared_error", "log_loss")]


@pytest.mark.parametrize("case", ONE_OUTPUT, ids=str)
def test_one_output_is_the_program_of_one_output(case):
    """As targets along one direction, or as two classes: outputs (a, -a) / 2 differ by a and cost |a| / sqrt(2)."""
    one = case.problem()
    expected = solve_reference(one, enumerate_patterns(one.Z)).certificate.objective
    if case.loss == "squared_error":
        several = replace(one, y=one.y @ [[0.6, 0.0, -0.8]])
    else:
        y = np.hstack([one.y > 0, one.y < 0])
        several = replace(one, y=y, loss="cross_entropy", weight_decay=2**0.5 * one.weight_decay)
    found = solve_reference(several, enumerate_patterns(one.Z)).certificate
    assert found.scope == "global"
    assert found.objective == pytest.approx(expected, rel=1e-6)


def test_pooled_rows_and_few_patterns():
    rng = np.random.default_rng(0)
    Z = DesignMatrix(BatchNormDesign().fit_transform(rng.standard_normal((12, 2))), 2)
    problem = Problem(Z, rng.standard_normal((6, 2)), weight_decay=0.05)
    everything = solve_reference(problem, enumerate_patterns(Z)).certificate
    assert everything.gap <= 1e-6
    found = solve_column_generation(problem, random_state=0).certificate
    assert found.objective == pytest.approx(everything.objective, rel=1e-6)
    few = solve_reference(problem, sample_patterns(Z, 5, random_state=0)).certificate
    assert few.scope == "patterns"
    assert few.gap <= 1e-6
    assert few.global_lower_bound <= everything.objective <= few.objective * (1 + 1e-6)


def test_sample_weights_are_repeated_rows():
    problem = instance(6, 2, 2, "cross_entropy", fit_intercept=True)
    weights = np.array([1, 2, 1, 3, 1, 2])
    weighted = replace(problem, sample_weight=weights)
    Z, y = np.repeat(problem.Z.Z, weights, axis=0), np.repeat(problem.y, weights, axis=0)
    repeated = Problem(Z, y, "cross_entropy", weight_decay=problem.weight_decay, fit_intercept=True)
    objectives = [solve_reference(p, enumerate_patterns(p.Z)).certificate.objective for p in (weighted, repeated)]
    assert objectives[0] == pytest.approx(objectives[1], rel=1e-6)


def test_program_of_given_factors_holds_both_factors_free():
    """One neuron of the targets: either of its factors alone brings it back."""
    problem = instance(8, 2, 2)
    rng = np.random.default_rng(0)
    s, c, other = rng.standard_normal((3, 1)), rng.standard_normal((1, 2)), rng.standard_normal((1, 2))
    s, c, other = s / np.linalg.norm(s), c / np.linalg.norm(c), other / np.linalg.norm(other)
    y = problem.Z.neuron_outputs(s) @ c
    planted = replace(problem, y=y, weight_decay=1e-4)
    patterns = enumerate_patterns(planted.Z)
    mask = np.packbits(planted.Z.Z @ s >= 0, axis=0).T
    own = patterns.take(np.flatnonzero((patterns.packed == mask).all(axis=1)))
    elsewhere = np.where(own.masks()[:, 0].any(), -s, s)
    known = planted.objective(Neurons(s, c, np.zeros(2)))
    for S, outputs in ((s, other), (elsewhere, c)):
        assert solve_program(rank_one_program(planted, own, S, outputs)) <= known * (1 + 1e-6)
    assert solve_program(rank_one_program(planted, own, elsewhere, other)) > 2 * known


def test_large_problems_are_refused_before_they_are_looked_at():
    class Unread(DesignMatrix):
        def rows(self, *arguments):
            raise AssertionError("The rows were read.")

    assert not quickly_enumerated(Unread(np.ones((1001, 2))), 2)


def test_zero_network_from_the_largest_weight_decay_on():
    problem = instance(8, 2, 3, fit_intercept=True)
    assert quickly_enumerated(problem.Z, 3)
    patterns = enumerate_patterns(problem.Z)
    above = solve_reference(replace(problem, weight_decay=1.0001 * weight_decay_max(problem)), patterns)
    assert len(above.neurons) == 0
    assert above.certificate.gap <= 1e-12
    assert above.certificate.search is Search.ZERO_NETWORK
    below = solve_reference(replace(problem, weight_decay=0.99 * weight_decay_max(problem)), patterns)
    assert len(below.neurons) > 0
    assert below.certificate.objective < problem.objective(problem.zero_network)


def test_what_the_search_misses_the_proof_finds():
    """With few starts of the ascent, column generation ends early; the enumeration of faces continues it."""
    options = Options(n_starts=1, last_search=1, first_neurons=(1, 1))
    led_on = 0
    for seed in range(8):
        problem = instance(14, 2, 2, seed=seed)
        certificate = solve_column_generation(problem, options=options, random_state=0).certificate
        assert certificate.scope == "global"
        assert certificate.gap <= 1e-6
        missed = solve_column_generation(problem, prove=False, options=options, random_state=0).certificate
        assert certificate.objective <= missed.objective * (1 + 1e-9)
        led_on += missed.objective > certificate.objective * (1 + 1e-5)
    assert led_on >= 1  # or the test says nothing


def test_too_many_faces():
    Z, V = dual_instance(60, 5, 2, 0)
    patterns = sample_patterns(Z, 3, random_state=0)
    problem = Problem(Z, V, weight_decay=0.01)
    for price in (
        lambda: price_of_pattern(Z, np.ones(60, dtype=bool), V),
        lambda: price_of_patterns(Z, patterns, V),
        lambda: most_violated_patterns(Z, patterns, V, 0.0, 3),
        lambda: solve_reference(problem, patterns),
    ):
        with pytest.raises(ValueError, match=r"up to 523686 for 60 rows of rank 5, more than 20000.*tiny problems"):
            price()


def test_too_many_cones_are_refused_before_any_work():
    Z, V = dual_instance(30, 4, 2, 0)
    watched = Watched.fresh(Z.Z)
    message = r"solver='CLARABEL' .* 2 outputs, up to 4526 for each of 8180 patterns, .* Use solver='auto'"
    with pytest.raises(ValueError, match=message):
        solve_reference(Problem(watched, V, weight_decay=0.01), enumerate_patterns(Z))
    assert not watched.calls
