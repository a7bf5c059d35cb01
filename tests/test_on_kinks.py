"""Newton's method on kinks: neurons close to a joint local optimum reach it to rounding."""

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

from convexbn import BatchNormDesign, DesignMatrix, Problem, solve_column_generation
from convexbn.model._neurons import Neurons
from convexbn.solvers import ACCURATE
from convexbn.solvers.relu._on_kinks import _minimum, newton_on_kinks


def instance(loss="squared_error", *, n_patches=1, tied=False, fit_intercept=True):
    """A teacher's data, whitened; of tied rows every fifth is a multiple of another, with either sign."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60 * n_patches, 4))
    means = X.reshape(60, n_patches, 4).mean(axis=1)
    y = np.maximum(means @ rng.standard_normal((4, 4)), 0) @ rng.standard_normal(4) + 0.3 * rng.standard_normal(60)
    y = np.where(y > np.median(y), 1.0, -1.0) if loss == "log_loss" else y
    rows = BatchNormDesign().fit_transform(X)
    if tied:
        rows[::5] = rng.choice([-2.0, -1.0, 0.5, 1.0], size=(len(rows[::5]), 1)) * rows[1::5]
    return Problem(DesignMatrix(rows, n_patches), y, loss, weight_decay=0.02, fit_intercept=fit_intercept)


def near_optimum(problem):
    """Neurons after column generation to a small gap, all of them at a joint local optimum."""
    neurons = solve_column_generation(problem, tol=1e-6, prove=False, random_state=0).neurons.with_unit_outputs()
    return newton_on_kinks(problem, neurons, stop=lambda: False)


CASES = {
    "one intercept": {},
    "no intercept": {"fit_intercept": False},
    "log loss": {"loss": "log_loss"},
    "patches": {"n_patches": 2},
    "tied rows": {"tied": True},
}


@pytest.mark.parametrize("name", CASES)
def test_the_optimum_of_the_convex_program_of_its_patterns(name):
    """With the patterns fixed the problem is convex, and cvxpy finds nothing lower in the cells around the network."""
    problem = instance(**CASES[name])
    neurons, converged = near_optimum(problem)
    assert converged
    Z, signs = problem.Z, neurons.output_weights[:, 0]
    inner = Z.products(neurons.weights)
    on, free = inner > 0, np.abs(inner) > 1e-9
    assert (~free).any()  # neurons that kinks hold, or the test checks nothing
    S, b = cp.Variable(neurons.weights.shape), cp.Variable()
    rows, pool = Z.rows(), Z.pool(np.eye(Z.n_rows))
    hidden = cp.multiply(rows @ S, on.astype(float))
    f = pool @ hidden @ signs + (b if problem.fit_intercept else 0)
    p, y = problem.sample_weight, problem.y[:, 0]
    fit = cp.logistic(-cp.multiply(y, f)) if problem.loss.name == "log_loss" else cp.square(f - y) / 2
    side = np.where(on, 1.0, -1.0)  # kinks are kept: the other sides are checked below
    stated = cp.Problem(
        cp.Minimize(p @ fit + problem.weight_decay * cp.sum(cp.norm(S, axis=0))),
        [cp.multiply(np.where(free, side, 0), rows @ S) >= 0, cp.multiply(np.where(free, 0, 1.0), rows @ S) == 0],
    )
    stated.solve(solver="CLARABEL")
    assert problem.objective(neurons) == pytest.approx(stated.value, rel=1e-7)
    rng = np.random.default_rng(1)
    for size in (1e-3, 1e-5):
        for _ in range(100):
            step = size * rng.standard_normal(neurons.weights.shape) * neurons.norms
            assert problem.objective(replace(neurons, weights=neurons.weights + step)) >= problem.objective(neurons)


@pytest.mark.parametrize("name", CASES)
def test_comes_back_from_a_small_distance(name):
    problem = instance(**CASES[name])
    neurons, _ = near_optimum(problem)
    rng = np.random.default_rng(0)
    step = 1e-5 * rng.standard_normal(neurons.weights.shape) * neurons.norms
    moved = replace(neurons, weights=neurons.weights + step)
    again, converged = newton_on_kinks(problem, moved, stop=lambda: False)
    assert converged
    assert problem.objective(moved) > problem.objective(again)
    np.testing.assert_allclose(again.outputs(problem.Z), neurons.outputs(problem.Z), atol=1e-8)


def test_never_a_larger_objective():
    problem, rng = instance(), np.random.default_rng(0)
    for _ in range(20):
        signs = rng.choice([-1.0, 1.0], size=(6, 1))
        neurons = Neurons(0.1 * rng.standard_normal((problem.Z.n_columns, 6)), signs, np.zeros(1))
        moved, _ = newton_on_kinks(problem, neurons, stop=lambda: False)
        assert problem.objective(moved) <= problem.objective(neurons)


def test_a_network_of_many_weights_and_one_that_is_stopped_stay():
    problem, rng = instance(), np.random.default_rng(0)
    k = problem.Z.n_columns
    m = 3001 // k + 1
    many = Neurons(rng.standard_normal((k, m)), np.ones((m, 1)), np.zeros(1))
    same, converged = newton_on_kinks(problem, many, stop=lambda: False)
    np.testing.assert_array_equal(same.weights, many.weights)
    assert not converged
    few = many.take(np.arange(3))
    moved, converged = newton_on_kinks(problem, few, stop=lambda: True)
    np.testing.assert_array_equal(moved.weights, few.weights)
    assert not converged


def test_neurons_that_come_to_zero_stay_there():
    """Two weights of one neuron each: the first would have to change its sign."""
    d, kept, decrease = _minimum(np.eye(2), np.array([2.0, 1.0]), np.array([1.0, 3.0]), np.array([0, 1]))
    np.testing.assert_allclose(d, [-1, -1])
    np.testing.assert_array_equal(kept, [False, True])
    assert decrease == pytest.approx(2.0)


def test_seeds_agree_where_gaps_are_confirmed():
    """At a gap of 1e-10 seeds end at one objective, which small basins of the prices would part."""
    problem = instance()
    ends = [solve_column_generation(problem, tol=1e-10, prove=False, random_state=seed) for seed in range(3)]
    objectives = [end.certificate.objective for end in ends]
    assert max(end.certificate.gap for end in ends) <= 1e-10
    assert np.ptp(objectives) <= 1e-5 * min(objectives)


def test_starts_between_active_neurons_are_options():
    with pytest.raises(ValueError, match=r"between=1\.5"):
        replace(ACCURATE, between=1.5)
