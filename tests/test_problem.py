from dataclasses import replace

import numpy as np
import pytest

from convexbn import DesignMatrix, Neurons, Problem, enumerate_patterns, solve_reference, weight_decay_max
from convexbn.oracles import price_bound, price_by_enumeration, price_size
from tests.problems import CASES


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return request.param


def test_objective_by_hand():
    problem = Problem(np.array([[1.0], [-2.0]]), [1.0, 5.0], weight_decay=0.1)
    neurons = Neurons(np.array([[1.0, -1.0]]), np.array([[2.0], [3.0]]), np.zeros(1))
    assert problem.objective(neurons) == pytest.approx((1 + 1) / 4 + 0.1 * 5)


def test_dual_objective_is_below_the_primal_for_feasible_points(case):
    problem = case.problem()
    rng = np.random.default_rng(0)
    for _ in range(20):
        m = 4
        neurons = Neurons(
            rng.standard_normal((problem.Z.n_columns, m)),
            rng.standard_normal((m, 1)),
            rng.standard_normal(1) * problem.fit_intercept,
        )
        v = problem.feasible_dual(problem.dual_point(rng.standard_normal((problem.Z.n_samples, 1))))
        v *= min(1, problem.weight_decay / price_bound(problem.Z, v).value)
        assert problem.dual_objective(v) <= problem.objective(neurons)


def test_feasible_dual_is_in_the_domain_and_balanced(case):
    problem = case.problem()
    v = problem.feasible_dual(np.random.default_rng(0).standard_normal((problem.Z.n_samples, 1)))
    assert np.isfinite(problem.dual_objective(v))
    if problem.fit_intercept:
        assert abs(v.sum()) < 1e-12
        unbalanced = problem.feasible_dual(v) + np.eye(len(v), 1) * 0.1
        assert problem.dual_objective(unbalanced) == -np.inf


def test_zero_network_is_optimal_from_weight_decay_max_on_and_not_before(case):
    problem = case.problem()
    patterns = enumerate_patterns(problem.Z)
    largest = weight_decay_max(problem)
    above = solve_reference(case.problem(weight_decay=1.01 * largest), patterns)
    assert len(above.neurons) == 0
    assert above.certificate.gap <= 1e-6
    if case.loss == "hinge" and case.fit_intercept:
        return  # the value is an upper bound there, as its docstring says
    below = solve_reference(case.problem(weight_decay=0.98 * largest), patterns)
    assert len(below.neurons) > 0
    assert below.certificate.objective < problem.training_loss(problem.zero_network.outputs(problem.Z))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_weight_decay_max_is_the_price_of_the_zero_network(monkeypatch, case):
    problem = case.problem()
    exact = price_by_enumeration(problem.Z, problem.zero_dual).value
    assert weight_decay_max(problem) == pytest.approx(exact, rel=1e-12)
    monkeypatch.setattr("convexbn.oracles._of_patterns._QUICK_PATTERNS", 1)
    assert weight_decay_max(case.problem()) == pytest.approx(exact, rel=1e-9)


def test_weight_decay_max_of_constant_targets_is_exactly_zero():
    Z = np.random.default_rng(0).standard_normal((30, 2))
    assert weight_decay_max(Problem(Z, np.full(30, 0.1), weight_decay=1.0, fit_intercept=True)) == 0
    assert weight_decay_max(Problem(Z, np.zeros(30), weight_decay=1.0)) == 0


@pytest.mark.parametrize("loss", ["squared_error", "huber", "log_loss", "squared_hinge", "hinge"])
def test_integer_sample_weights_equal_repeated_rows(loss):
    rng = np.random.default_rng(0)
    Z, weights = rng.standard_normal((7, 2)), np.array([1, 2, 3, 1, 1, 2, 1])
    y = np.where(rng.standard_normal(7) > 0, 1.0, -1.0)
    weighted = Problem(Z, y, loss, weight_decay=0.05, fit_intercept=True, sample_weight=weights)
    repeated = Problem(
        np.repeat(Z, weights, axis=0), np.repeat(y, weights), loss, weight_decay=0.05, fit_intercept=True
    )
    objectives = [solve_reference(p, enumerate_patterns(p.Z)).certificate.objective for p in (weighted, repeated)]
    assert objectives[0] == pytest.approx(objectives[1], rel=1e-6)


def test_several_outputs():
    rng = np.random.default_rng(0)
    problem = Problem(rng.standard_normal((6, 2)), rng.standard_normal((6, 3)), weight_decay=0.1, fit_intercept=True)
    assert problem.n_outputs == 3
    np.testing.assert_allclose(problem.zero_network.intercept, problem.y.mean(axis=0))
    np.testing.assert_allclose(problem.zero_dual.sum(axis=0), 0, atol=1e-15)
    assert 0 < weight_decay_max(problem) <= price_bound(problem.Z, problem.zero_dual).value


def test_dual_point_is_minus_the_derivative_of_the_weighted_loss():
    problem = Problem(np.eye(3), [1.0, -1.0, 2.0], "huber", weight_decay=0.1, sample_weight=[1.0, 2.0, 5.0])
    f, step = np.array([[0.3], [1.2], [1.9]]), 1e-6
    for i, v in enumerate(problem.dual_point(f)[:, 0]):
        moved = step * np.eye(3)[:, [i]]
        difference = problem.training_loss(f + moved) - problem.training_loss(f - moved)
        assert v == pytest.approx(-difference / (2 * step), abs=1e-8)


def test_zero_network_of_weighted_samples_is_the_best_constant():
    weights = np.array([1.0, 2.0, 5.0])
    problem = Problem(np.eye(3), [1.0, -1.0, 2.0], weight_decay=0.1, fit_intercept=True, sample_weight=weights)
    assert problem.zero_network.intercept[0] == pytest.approx((1 - 2 + 10) / 8)
    assert problem.zero_objective == pytest.approx(np.average((problem.y[:, 0] - 9 / 8) ** 2, weights=weights) / 2)


def test_dual_objective_of_several_outputs_wants_every_column_to_add_up_to_zero():
    problem = Problem(np.eye(3), np.arange(6.0).reshape(3, 2), weight_decay=0.1, fit_intercept=True)
    balanced, not_balanced = np.array([0.1, 0.1, -0.2]), np.array([0.1, 0.1, 0.1])
    assert np.isfinite(problem.dual_objective(np.column_stack([balanced, balanced])))
    for v in (np.column_stack([balanced, not_balanced]), np.column_stack([not_balanced, balanced])):
        assert problem.dual_objective(v) == -np.inf


def test_size_of_a_dual_objective_counts_what_cancels():
    problem = Problem(np.eye(2), [3.0, 3.0], weight_decay=0.1)
    v = np.full((2, 1), 3.0)  # u = -6, where u y + u^2 / 2 = -18 + 18
    assert problem.dual_objective(v) == 0
    assert problem.dual_size(v) >= 18


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_size_of_prices_is_that_of_the_terms_of_a_neuron_on_all_rows(n_outputs):
    rng = np.random.default_rng(0)
    z, v = rng.uniform(1, 2, 6), rng.standard_normal((6, n_outputs))
    problem = Problem(np.outer(z, [0.6, 0.8]), np.ones((6, n_outputs)), weight_decay=0.1)
    assert price_size(problem, v) == pytest.approx(np.linalg.norm(v, axis=1) @ z)


def test_another_weight_decay_changes_nothing_else(case):
    problem = case.problem()
    zero_dual = problem.zero_dual
    other = problem.with_weight_decay(2 * problem.weight_decay)
    assert type(other) is type(problem)
    assert other.weight_decay == 2 * problem.weight_decay
    assert other.zero_dual is zero_dual
    assert other.zero_objective == replace(problem, weight_decay=other.weight_decay).zero_objective
    with pytest.raises(ValueError, match=r"weight_decay=0 must be a positive finite number"):
        problem.with_weight_decay(0)


def test_a_part_of_the_samples_keeps_the_ratios_of_their_weights():
    problem = Problem(np.eye(3), [1.0, -1.0, 2.0], weight_decay=0.1, sample_weight=[1.0, 2.0, 6.0])
    part = problem.restricted(np.array([0, 2]))
    np.testing.assert_allclose(part.sample_weight, [1 / 7, 6 / 7])
    np.testing.assert_array_equal(part.y, [[1], [2]])
    np.testing.assert_array_equal(part.Z.rows(), np.eye(3)[[0, 2]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": [1.0, 2.0]}, "one row for each of the 3 samples"),
        ({"y": np.zeros((3, 0))}, "a column for each output"),
        ({"y": [[[1.0]]] * 3}, "shape"),
        ({"y": [1.0, np.nan, 2.0]}, "NaN"),
        ({"y": [1.0, 2.0, 3.0], "loss": "hinge"}, "labels -1 and"),
        ({"y": [1.0, 1.0, 1.0], "loss": "hinge", "fit_intercept": True}, "one class only"),
        ({"loss": "absolute"}, "choose one of"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0 must be a positive"),
        ({"weight_decay": 0.0}, "positive"),
        ({"weight_decay": np.inf}, "positive"),
        ({"weight_decay": np.nan}, "positive"),
        ({"weight_decay": "much"}, "positive"),
        ({"weight_decay": True}, "positive"),
        ({"weight_decay": np.complex128(1)}, "positive"),
        ({"sample_weight": [1.0, 2.0]}, "sample_weight must hold 3"),
        ({"sample_weight": [1.0, 0.0, 1.0]}, "weight zero"),
        ({"Z": DesignMatrix(np.ones((6, 2)), 3)}, "2 samples"),
    ],
)
def test_bad_input(changes, message):
    arguments = {"Z": np.eye(3), "y": [1.0, -1.0, 2.0], "weight_decay": 0.1} | changes
    with pytest.raises(ValueError, match=message):
        Problem(**arguments)
