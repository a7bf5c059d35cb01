"""ReLU networks with several outputs: prices, steps and optima."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.exceptions import ConvergenceWarning

from convexbn import (
    BatchNormDesign,
    DesignMatrix,
    Neurons,
    Problem,
    Status,
    enumerate_patterns,
    solve,
    solve_closed_form,
    solve_column_generation,
    solve_reference,
    weight_decay_max,
)
from convexbn.losses import CrossEntropy
from convexbn.model._merging import merge
from convexbn.model._outputs import output_directions
from convexbn.oracles import (
    find_local_maxima,
    price_bound,
    price_by_ascent,
)
from convexbn.solvers import Options, Oracle, Search
from convexbn.solvers._scaling import Scaling
from convexbn.solvers.relu._gauss_newton import gauss_newton

LOSSES = ["squared_error", "cross_entropy"]
# Every two values of a loss, a number of outputs and an intercept are met.
PAIRS = [(LOSSES[0], 2, False), (LOSSES[0], 3, True), (LOSSES[1], 2, True), (LOSSES[1], 3, False)]


def instance(n, d, C, loss="squared_error", seed=0, fraction=0.05, **options):
    """A teacher's data, whitened."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    y = np.maximum(X @ rng.standard_normal((d, 4)), 0) @ rng.standard_normal((4, C)) + 0.3 * rng.standard_normal((n, C))
    if loss == "cross_entropy":
        y -= np.sort(y, axis=0)[n // 2]  # so that every class is met
        y = np.eye(C)[y.argmax(axis=1)]
    problem = Problem(BatchNormDesign().fit_transform(X), y, loss, weight_decay=1.0, **options)
    return replace(problem, weight_decay=fraction * weight_decay_max(problem))


def gradient_trained(problem, n_networks=50, m=20, steps=4000):
    """Objectives of networks of m neurons from random starts, all trained at once by Adam with a falling step."""
    rng = np.random.default_rng(0)
    Z, y, C = problem.Z.Z, problem.y, problem.n_outputs
    tiled = np.tile(y, (n_networks, 1))
    shapes = (Z.shape[1], m), (m, C), (1, C)
    x = [rng.standard_normal((n_networks, *shape)) * scale for shape, scale in zip(shapes, (0.5, 0.5, 0), strict=True)]
    mean, square = [np.zeros_like(a) for a in x], [np.zeros_like(a) for a in x]
    for step in range(1, steps + 1):
        S, c, b = x
        inner = Z @ S
        active = np.maximum(inner, 0)
        f = active @ c + b
        u = problem.loss.gradient(f.reshape(-1, C), tiled).reshape(f.shape) * problem.sample_weight[:, None]
        gradients = (
            Z.T @ ((inner > 0) * (u @ c.transpose(0, 2, 1))) + problem.weight_decay * S,
            active.transpose(0, 2, 1) @ u + problem.weight_decay * c,
            u.sum(axis=1, keepdims=True) * problem.fit_intercept,
        )
        rate = 0.03 * 0.5 * (1 + np.cos(np.pi * step / steps))
        for a, g, first, second in zip(x, gradients, mean, square, strict=True):
            first += 0.1 * (g - first)
            second += 0.001 * (g**2 - second)
            a -= rate * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-12)
    return np.array([problem.objective(Neurons(S, c, b[0])) for S, c, b in zip(*x, strict=True)])


def excess_across(problem, neurons, axis):
    """What the objective would fall by, at least, if output weights were projected on the axis of the targets."""
    along = np.abs(neurons.output_weights @ axis.T)[:, 0] * np.linalg.norm(neurons.weights, axis=0)
    return problem.weight_decay * (neurons.cost - along).sum()


@pytest.mark.parametrize(("loss", "C", "fit_intercept"), PAIRS)
def test_best_of_fifty_gradient_trained_networks_from_below(loss, C, fit_intercept):
    problem = instance(8, 2, C, loss, fit_intercept=fit_intercept)
    certificate = solve_column_generation(problem, random_state=0).certificate
    program = solve_reference(problem, enumerate_patterns(problem.Z)).certificate
    trained = gradient_trained(problem)
    assert certificate.objective <= trained.min()
    assert certificate.objective == pytest.approx(trained.min(), rel=1e-3)
    for optimum in (certificate, program):
        assert optimum.lower_bound <= trained.min()
        assert optimum.gap <= 1e-6
        assert optimum.scope == "global"
    assert certificate.objective == pytest.approx(program.objective, rel=1e-6)
    assert certificate.oracle is program.oracle is Oracle.ENUMERATION
    assert program.n_patterns == len(enumerate_patterns(problem.Z))


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.7])
def test_equals_the_closed_form_of_one_hot_targets(fraction):
    rng = np.random.default_rng(0)
    Z = BatchNormDesign().fit_transform(rng.standard_normal((9, 12)))
    problem = Problem(Z, np.eye(3)[rng.permutation(np.arange(9) % 3)], weight_decay=1.0)
    problem = replace(problem, weight_decay=fraction * weight_decay_max(problem))
    closed = solve(problem).certificate
    assert (closed.scope, closed.search, closed.oracle) == ("global", Search.CLOSED_FORM, Oracle.NORM_BOUND)
    assert closed == solve_closed_form(problem).certificate
    found = solve(problem, solver="column_generation", random_state=0).certificate
    assert found.objective == pytest.approx(closed.objective, rel=1e-6)
    assert found.lower_bound <= closed.objective * (1 + 1e-9)


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_two_classes_are_the_log_loss_of_one_output(seed, fit_intercept):
    """A difference a of two outputs costs least as (a, -a) / 2, of length |a| / sqrt(2)."""
    problem = instance(30, 3, 2, "cross_entropy", seed=seed, fit_intercept=fit_intercept)
    labels = problem.y[:, 0] - problem.y[:, 1]
    one = Problem(
        problem.Z, labels, "log_loss", weight_decay=problem.weight_decay / np.sqrt(2), fit_intercept=fit_intercept
    )
    expected = solve_column_generation(one, random_state=0).certificate
    assert expected.global_lower_bound >= expected.objective * (1 - 1e-3)
    found = solve_column_generation(problem, random_state=0)
    assert found.certificate.objective == pytest.approx(expected.objective, rel=2e-6)
    axis = np.array([[1, -1]]) / np.sqrt(2)
    assert excess_across(problem, found.neurons, axis) <= 2e-6 * expected.objective


def test_targets_along_one_direction_are_those_of_one_output():
    y, axis = instance(20, 2, 1).y, np.array([[0.6, 0.0, -0.8]])
    one = instance(20, 2, 1)
    program = solve_reference(one, enumerate_patterns(one.Z)).certificate
    problem = Problem(one.Z, y @ axis, weight_decay=one.weight_decay)
    assert weight_decay_max(problem) == pytest.approx(weight_decay_max(one))
    solution = solve_column_generation(problem, random_state=0)
    assert solution.certificate.objective == pytest.approx(program.objective, rel=1e-6)
    assert excess_across(problem, solution.neurons, axis) <= 2e-6 * program.objective


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_reaches_the_tolerance_and_never_rises(loss, fit_intercept):
    problem = instance(100, 5, 3, loss, fit_intercept=fit_intercept)
    solution = solve_column_generation(problem, tol=1e-8, random_state=0)
    certificate = solution.certificate
    assert solution.status is Status.CONVERGED
    assert certificate.gap <= 1e-6
    assert certificate.scope == "local"
    assert 0 <= certificate.global_lower_bound < certificate.lower_bound
    assert certificate.objective == problem.objective(solution.neurons) < problem.objective(problem.zero_network)
    assert (np.diff([progress.objective for progress in solution.history]) <= 0).all()
    # Stationary: every neuron prices weight_decay along its own output direction; of a vanishing one nothing is asked.
    neurons, v = solution.neurons.without_zeros(1e-9), problem.dual_point(solution.neurons.outputs(problem.Z))
    prices = v.T @ problem.Z.neuron_outputs(neurons.weights / np.linalg.norm(neurons.weights, axis=0))
    outputs = neurons.output_weights / np.linalg.norm(neurons.output_weights, axis=1)[:, None]
    np.testing.assert_allclose(prices, problem.weight_decay * outputs.T, atol=1e-3 * problem.weight_decay)


def test_same_seed_same_network_and_warm_starts():
    problem = instance(60, 4, 3)
    first, second = (solve_column_generation(problem, random_state=3) for _ in range(2))
    assert np.array_equal(first.neurons.weights, second.neurons.weights)
    cold = solve_column_generation(problem, tol=1e-5, random_state=4)
    warm = solve_column_generation(problem, tol=1e-5, start=first.neurons.balanced(), random_state=4)
    assert warm.certificate.objective <= first.certificate.objective * (1 + 1e-12)
    assert warm.n_iter < cold.n_iter


@pytest.mark.parametrize("loss", LOSSES)
def test_sample_weights_are_repeated_rows(loss):
    problem = instance(10, 2, 3, loss, fit_intercept=True)
    weights = np.random.default_rng(1).integers(1, 4, size=10)
    weighted = replace(problem, sample_weight=weights)
    Z, y = np.repeat(problem.Z.Z, weights, axis=0), np.repeat(problem.y, weights, axis=0)
    repeated = Problem(Z, y, loss, weight_decay=problem.weight_decay, fit_intercept=True)
    objectives = [solve_column_generation(p, random_state=0).certificate.objective for p in (weighted, repeated)]
    assert objectives[0] == pytest.approx(objectives[1], rel=1e-6)


def test_zero_network_from_the_largest_weight_decay_on():
    problem = instance(40, 3, 3, fit_intercept=True)
    above = solve_column_generation(replace(problem, weight_decay=1.01 * weight_decay_max(problem)), random_state=0)
    assert len(above.neurons) == 0
    assert above.status is Status.CONVERGED
    below = solve_column_generation(replace(problem, weight_decay=0.98 * weight_decay_max(problem)), random_state=0)
    assert 1 <= len(below.neurons) <= 2


def test_limits_return_the_best_network_so_far():
    problem = instance(60, 4, 3)
    with pytest.warns(ConvergenceWarning, match="reached max_iter"):
        solution = solve_column_generation(problem, max_iter=1, random_state=0)
    assert solution.certificate.objective == problem.objective(solution.neurons)


def test_no_global_certificate_where_a_better_network_is_known():
    """Runs are stopped early; a good network is planted in the targets."""
    worse = proved = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        Z = DesignMatrix(BatchNormDesign().fit_transform(rng.standard_normal((20, 2))))
        planted = Neurons(rng.standard_normal((3, 3)), rng.standard_normal((3, 2)), np.zeros(2))
        problem = Problem(Z, planted.outputs(Z) + 0.01 * rng.standard_normal((20, 2)), weight_decay=1e-3)
        start = Neurons(rng.standard_normal((3, 1)), np.ones((1, 2)), np.zeros(2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            certificate = solve_column_generation(problem, start=start, max_iter=1, random_state=seed).certificate
        known = problem.objective(planted)
        worse += known < certificate.objective
        assert certificate.global_lower_bound <= known
        if certificate.scope == "global":
            proved += 1
            assert certificate.lower_bound <= known
    assert min(worse, proved) >= 5  # or the test says nothing


@pytest.mark.parametrize("n_patches", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_ascent_finds_the_largest_price_of_all_angles(seed, n_patches):
    rng = np.random.default_rng(seed)
    Z = DesignMatrix(rng.standard_normal((12 * n_patches, 2)), n_patches)
    V = rng.standard_normal((12, 2 + seed % 3))
    angles = np.linspace(0, 2 * np.pi, 100_001)
    prices = np.linalg.norm(V.T @ Z.neuron_outputs(np.stack([np.cos(angles), np.sin(angles)])), axis=0)
    found = price_by_ascent(Z, V, random_state=0)
    assert found.scope == "local"
    assert prices.max() * (1 - 1e-9) <= found.value <= prices.max() * (1 + 1e-6)
    assert found.value <= price_bound(Z, V).value
    assert np.linalg.norm(V.T @ Z.neuron_outputs(found.direction[:, None])) == pytest.approx(found.value)


def test_local_maxima_are_distinct_with_their_output_directions():
    rng = np.random.default_rng(0)
    Z, V = DesignMatrix(rng.standard_normal((30, 3))), rng.standard_normal((30, 4))
    maxima = find_local_maxima(Z, V, rng.standard_normal((3, 300)), count=6)
    assert 2 <= len(maxima) <= 6
    assert (np.diff(maxima.prices) <= 0).all()
    np.testing.assert_allclose(V.T @ Z.neuron_outputs(maxima.directions), maxima.output_directions.T * maxima.prices)
    for direction, price in zip(maxima.directions.T, maxima.prices, strict=True):
        near = direction[:, None] + 1e-4 * rng.standard_normal((3, 200))
        near /= np.linalg.norm(near, axis=0)
        assert (np.linalg.norm(V.T @ Z.neuron_outputs(near), axis=0) <= price * (1 + 1e-8)).all()
    assert len(find_local_maxima(Z, 0 * V, np.ones((3, 3)))) == 0


def test_largest_weight_decay_is_the_price_of_the_zero_network():
    problem = instance(30, 1, 3, fit_intercept=True)
    angles = np.linspace(0, 2 * np.pi, 100_001)
    hidden = problem.Z.neuron_outputs(np.stack([np.cos(angles), np.sin(angles)]))
    assert weight_decay_max(problem) == pytest.approx(np.linalg.norm(problem.zero_dual.T @ hidden, axis=0).max())


@pytest.mark.parametrize("n_patches", [1, 2])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("C", [1, 2, 4, 5])
@pytest.mark.parametrize("loss", LOSSES)
def test_gauss_newton_matrix_is_that_of_the_jacobian(monkeypatch, loss, C, fit_intercept, n_patches):
    if loss == "cross_entropy" and C == 1:
        return
    monkeypatch.setattr("convexbn.operators._slices._BLOCK_ENTRIES", 300)  # several blocks
    rng = np.random.default_rng(0)
    n, k, m = 10, 3, 4
    y = np.eye(C)[np.arange(n) % C] if loss == "cross_entropy" else rng.standard_normal((n, C))
    Z = DesignMatrix(rng.standard_normal((n * n_patches, k)), n_patches)
    weights = rng.uniform(1, 2, n)
    problem = Problem(Z, y, loss, weight_decay=0.1, fit_intercept=fit_intercept, sample_weight=weights)
    c = rng.standard_normal((m, C))
    neurons = Neurons(rng.standard_normal((k, m)), c / np.linalg.norm(c, axis=1)[:, None], rng.standard_normal(C))
    block = np.array([0, 2, 3])
    T = output_directions(C).tangents(neurons.output_weights[block])
    frames = np.concatenate([neurons.output_weights[block][:, :, None], T], axis=2)
    np.testing.assert_allclose(frames.transpose(0, 2, 1) @ frames, np.eye(C)[None].repeat(3, axis=0), atol=1e-14)

    def outputs(x):
        S, output_weights, b = neurons.weights.copy(), neurons.output_weights.copy(), neurons.intercept
        S[:, block] += x[: 3 * k].reshape(3, k).T
        output_weights[block] += np.einsum("jcd,jd->jc", T, x[3 * k : 3 * (k + C - 1)].reshape(3, C - 1))
        b = b + x[-C:] if fit_intercept else b
        return Neurons(S, output_weights, b).outputs(Z).ravel()

    size = 3 * (k + C - 1) + C * fit_intercept
    J = approx_fprime(np.zeros(size), outputs, 1e-7).reshape(n, C, size)
    f = neurons.outputs(Z)
    expected = np.einsum("ica,icd,idb,i->ab", J, problem.loss.hessian(f, y), J, problem.sample_weight)
    moving = {"weights": neurons.weights[:, block], "output_weights": neurons.output_weights[block], "tangents": T}
    masks = 1.0 * (Z @ moving["weights"] > 0)
    hessian = problem.sample_weight[:, None, None] * problem.loss.hessian(f, y)
    found = gauss_newton(Z, masks, hessian, **moving, fit_intercept=fit_intercept)
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
    rounded = gauss_newton(Z, masks, hessian, **moving, fit_intercept=fit_intercept, single_precision=True)
    np.testing.assert_allclose(rounded, found, atol=1e-5 * np.abs(found).max())


def test_neurons_become_one_only_along_one_output_direction():
    problem = instance(10, 2, 2)
    s = np.random.default_rng(0).standard_normal((3, 1))
    outputs = np.array([[0.6, 0.8], [0.6, 0.8], [0.8, 0.6], [-0.6, -0.8]])
    neurons = merge(problem, Neurons(np.repeat(s, 4, axis=1), outputs, np.zeros(2)))
    assert len(neurons) == 3
    np.testing.assert_allclose(neurons.weights, s * [2, 1, 1])
    # Directions that differ in the seventh digit are one if that is no worse.
    tilted = np.array([[0.6, 0.8], [0.6, 0.8 + 1e-7]])
    tilted /= np.linalg.norm(tilted, axis=1)[:, None]
    pair = Neurons(np.repeat(s, 2, axis=1), tilted, np.zeros(2))
    fewer = merge(problem, pair)
    assert problem.objective(fewer) <= problem.objective(pair)


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_scaling_and_its_inverse(fit_intercept):
    problem = instance(20, 2, 3, fit_intercept=fit_intercept)
    problem = replace(problem, y=1e3 * problem.y + [1e4, 0, -1e4])
    scaling = Scaling.of(problem)
    assert scaling.problem.sample_weight @ (scaling.problem.y**2).sum(axis=1) == pytest.approx(1)
    neurons = Neurons(np.ones((3, 2)), np.ones((2, 3)), np.ones(3) * fit_intercept)
    scaled = scaling.scaled(neurons)
    assert scaling.unscaled_objective(scaling.problem.objective(scaled)) == pytest.approx(problem.objective(neurons))
    np.testing.assert_allclose(scaling.unscaled(scaled).outputs(problem.Z), neurons.outputs(problem.Z))


def test_dual_points_of_confident_classes_add_up_to_zero():
    """Equal shifts of all outputs are no direction of the balancing step, however small the gradients are."""
    rng = np.random.default_rng(0)
    y = np.eye(3)[np.arange(100) % 3]
    weights = np.full(100, 0.01)
    for scale in (1.0, 5.0, 20.0):
        u = CrossEntropy().gradient(scale * y + rng.standard_normal((100, 3)), y)
        centred = CrossEntropy().centred_dual(u, y, weights)
        assert (np.abs(weights @ centred) <= 1e-13 * (weights @ np.abs(centred))).all()


def test_bad_start():
    problem = instance(10, 2, 3)
    with pytest.raises(ValueError, match="start has 1 outputs, the problem has 3"):
        solve_column_generation(problem, start=Neurons(np.ones((3, 1)), np.ones((1, 1)), np.zeros(1)))


def test_neurons_move_in_blocks_where_they_are_many():
    problem = instance(30, 3, 3, fit_intercept=True)
    whole = solve_column_generation(problem, random_state=0)
    blocks = solve_column_generation(problem, random_state=0, tol=1e-3, options=Options(newton_weights=12))
    assert blocks.certificate.objective == pytest.approx(whole.certificate.objective, rel=1e-3)
