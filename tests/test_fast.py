"""The fast preset: coarse networks along a path, and what they are made of."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from convexbn import BatchNormDesign, Neurons, Problem, solve_column_generation, weight_decay_max
from convexbn.solvers import FAST
from convexbn.solvers.relu._fast import descend, fast_path, price_quickly
from convexbn.solvers.relu._quasi_newton import quasi_newton

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 4))
TARGETS = {
    "squared_error": np.abs(X[:, 0]) - X[:, 1] + 0.1 * RNG.standard_normal(60),
    "huber": np.abs(X[:, 0]) - X[:, 1] + RNG.standard_t(2, 60),
    "log_loss": np.where(X[:, 0] * X[:, 1] > 0, 1.0, -1.0),
    "cross_entropy": np.eye(3)[(X[:, 0] > 0) + (X[:, 1] > 0.5).astype(int)],
}
CASES = [(loss, fraction) for loss in TARGETS for fraction in (0.1, 0.01)]


def instance(loss, fraction=1.0):
    Z = BatchNormDesign().fit_transform(X)
    problem = Problem(Z, TARGETS[loss], loss, weight_decay=1.0, fit_intercept=True)
    return replace(problem, weight_decay=fraction * weight_decay_max(problem))


@pytest.mark.parametrize(("loss", "fraction"), CASES)
def test_objective_falls_along_rounds_and_comes_close_to_the_optimum(loss, fraction):
    problem = instance(loss, fraction)
    networks = fast_path(problem, [problem.weight_decay] * 6, random_state=0)
    objectives = [problem.objective(network) for network in networks]
    assert (np.diff(objectives) <= 1e-9 * objectives[0]).all()
    optimum = solve_column_generation(problem, tol=1e-3, prove=False, random_state=0).certificate
    assert optimum.lower_bound <= objectives[-1] * (1 + 1e-9)
    assert objectives[0] <= 2 * optimum.objective
    assert objectives[-1] <= (1.05 if fraction == 0.1 else 1.5) * optimum.objective


def test_networks_are_started_from_those_before_and_zero_at_first():
    problem = instance("squared_error")
    weight_decays = weight_decay_max(problem) * np.array([1.5, 0.1, 0.01])
    zero, coarse, fine = fast_path(problem, weight_decays, random_state=0)
    assert len(zero) == 0
    np.testing.assert_allclose(zero.intercept, problem.y.mean())
    (again,) = fast_path(problem, weight_decays[2:], start=coarse, random_state=1)
    (cold,) = fast_path(problem, weight_decays[2:], random_state=1)
    last = replace(problem, weight_decay=weight_decays[2])
    assert max(last.objective(fine), last.objective(again)) < last.objective(cold)


def test_networks_grow_to_their_limit():
    problem = instance("squared_error", 1e-3)
    options = replace(FAST, least_neurons=6, most_neurons=6)
    sizes = [len(network) for network in fast_path(problem, [problem.weight_decay] * 4, options=options)]
    assert 0 < sizes[0] <= 3
    assert max(sizes) <= 6
    assert FAST.max_neurons(60) == 100
    assert FAST.max_neurons(10**6) == 300


def test_there_is_no_search_where_no_neuron_may_enter():
    problem = instance("squared_error", 1e-3)
    options = replace(FAST, least_neurons=6, most_neurons=6)
    *_, full = fast_path(problem, [problem.weight_decay] * 6, options=options, random_state=0)
    assert len(full) == 6
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    (later,) = fast_path(problem, [problem.weight_decay], options=options, start=full, random_state=rng)
    assert rng.bit_generator.state == before  # of which starts would be drawn
    assert problem.objective(later) < problem.objective(full)


def test_networks_of_one_seed_are_equal_and_of_the_size_of_the_targets():
    problem = instance("squared_error", 0.01)
    scaled = replace(problem, y=2.0**400 * problem.y, weight_decay=2.0**400 * problem.weight_decay)
    first, again, large = (
        next(iter(fast_path(one, [one.weight_decay], random_state=3))) for one in (problem, problem, scaled)
    )
    np.testing.assert_array_equal(first.weights, again.weights)
    np.testing.assert_array_equal(first.weights * 2.0**400, large.weights)


def test_no_step_is_made_when_time_is_out():
    problem = instance("squared_error", 0.01)
    calls = []

    def stop():
        calls.append(None)
        return True

    (stopped,) = fast_path(problem, [problem.weight_decay], random_state=0, stop=stop)
    (network,) = fast_path(problem, [problem.weight_decay], random_state=0)
    assert calls
    assert problem.objective(network) < problem.objective(stopped) == problem.zero_objective


def test_descent_lowers_the_objective_of_any_network():
    problem = instance("cross_entropy", 0.01)
    (start,) = fast_path(problem, [problem.weight_decay], random_state=0)
    lower = descend(problem, start, n_steps=200)
    assert problem.objective(lower) < problem.objective(start)
    assert len(lower) <= len(start)


@pytest.mark.parametrize(("fraction", "n_steps", "least", "most"), [(0.3, 1000, 100, 999), (1e-6, 100, 101, 200)])
def test_descent_takes_fewer_steps_where_they_gain_little_and_more_where_much(fraction, n_steps, least, most):
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((200, 4))
    problem = Problem(Z, np.sin(3 * Z[:, 0]) * Z[:, 1], weight_decay=1.0, fit_intercept=True)
    problem = replace(problem, weight_decay=fraction * weight_decay_max(problem))
    start = Neurons(0.1 * rng.standard_normal((4, 40)), np.resize([[1.0], [-1.0]], (40, 1)), np.zeros(1))
    steps = []
    descend(problem, start, n_steps=n_steps, stop=lambda: steps.append(None))
    assert least <= len(steps) <= most


@pytest.mark.parametrize("loss", TARGETS)
def test_a_hasty_price_is_hardly_below_the_largest_weight_decay(loss):
    problem = instance(loss)
    quick = price_quickly(problem, random_state=0)
    assert 0.9 * weight_decay_max(problem) <= quick <= weight_decay_max(problem) * (1 + 1e-6)
    assert price_quickly(problem, random_state=0) == quick
    assert price_quickly(replace(instance("squared_error"), y=np.ones((60, 1)))) == 0


@pytest.mark.parametrize(("loss", "fraction"), CASES)
def test_single_precision_reaches_the_objective_of_double_precision(loss, fraction):
    """Over a few steps: later a kink that is passed sooner or later sends the two to other networks."""
    problem = instance(loss, fraction)
    (start,) = fast_path(problem, [problem.weight_decay], random_state=0)
    start = start.with_unit_outputs()
    single, double = (
        problem.objective(quasi_newton(problem, start, max_steps=10, single_precision=single))
        for single in (True, False)
    )
    assert single == pytest.approx(double, rel=1e-5)


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_torch_computes_the_same_objective(loss):
    problem = instance(loss, 0.05)
    (network,) = fast_path(problem, [problem.weight_decay], random_state=0)
    network = network.balanced()
    S, c, b, Z, y = (
        torch.tensor(part)
        for part in (network.weights, network.output_weights, network.intercept, problem.Z.Z, problem.y)
    )
    f = torch.relu(Z @ S) @ c + b
    if loss == "squared_error":
        value = ((f - y) ** 2).sum(dim=1).mean() / 2
    else:
        value = torch.nn.functional.cross_entropy(f, y.argmax(dim=1))
    value += problem.weight_decay / 2 * ((S**2).sum() + (c**2).sum())
    assert value.item() == pytest.approx(problem.objective(network), rel=1e-9)
