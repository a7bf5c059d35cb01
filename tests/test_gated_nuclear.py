"""Gated networks with several outputs against cvxpy, the group lasso, and their own claims."""

import tracemalloc
import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from convexbn import (
    BatchNormDesign,
    DesignMatrix,
    GatedNetwork,
    Neurons,
    Problem,
    Status,
    WeightNormDesign,
    dual_program,
    primal_program,
    sample_patterns,
    solve,
    solve_gated,
    solve_program,
    solve_reference,
)
from convexbn.operators._masked import MaskedProducts
from convexbn.operators._pooled import PooledProducts
from convexbn.oracles import price_of_gates, spectral_norms
from convexbn.solvers._tolerance import Tolerance
from convexbn.solvers.gated._loss_model import LossModel
from convexbn.solvers.gated._nuclear_norm import NuclearNorm
from convexbn.solvers.gated._working_set import WorkingSets
from tests.problems import products_of


def make_problem(
    loss="squared_error", C=3, fit_intercept=False, n=40, d=3, fraction=0.1, seed=0, n_patches=1, weights=False, P=15
):
    """A problem whose weight decay is a fraction of the largest price, and its patterns."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n * n_patches, d)) @ rng.standard_normal((d, d))
    Z = DesignMatrix(BatchNormDesign().fit_transform(X), n_patches)
    y = Z.neuron_outputs(rng.standard_normal((Z.n_columns, 4))) @ rng.standard_normal((4, C))
    y += 0.5 * rng.standard_normal((n, C))
    if loss == "cross_entropy":
        y = np.eye(C)[(y - y.mean(axis=0)).argmax(axis=1)]
    sample_weight = rng.uniform(0.5, 2, n) if weights else None
    patterns = sample_patterns(Z, P, random_state=seed)
    problem = Problem(Z, y, loss, weight_decay=1.0, fit_intercept=fit_intercept, sample_weight=sample_weight)
    return replace(problem, weight_decay=fraction * largest_price(problem, patterns, problem.zero_dual)), patterns


def largest_price(problem, patterns, v):
    """By singular values of explicit matrices."""
    rows = problem.Z.unpool(v)
    masks = patterns.masks().T
    return max(np.linalg.svd(problem.Z.Z.T @ (mask[:, None] * rows), compute_uv=False)[0] for mask in masks)


def check_claims(problem, patterns, solution):
    """Objective and bound follow from neurons and dual point by explicit matrices."""
    neurons, certificate = solution.neurons, solution.certificate
    f = np.zeros(problem.y.shape) + neurons.intercept
    for s, c, g in zip(neurons.weights.T, neurons.output_weights, neurons.gates.T, strict=True):
        f += problem.Z.pool(((problem.Z.Z @ g >= 0) * (problem.Z.Z @ s))[:, None] * c)
    cost = (np.linalg.norm(neurons.weights, axis=0) * np.linalg.norm(neurons.output_weights, axis=1)).sum()
    objective = problem.sample_weight @ problem.loss.value(f, problem.y) + problem.weight_decay * cost
    assert certificate.objective == pytest.approx(objective, rel=1e-12)
    v = problem.feasible_dual(solution.dual)
    v = v * min(1, problem.weight_decay / largest_price(problem, patterns, v))
    assert largest_price(problem, patterns, v) <= problem.weight_decay * (1 + 1e-12)
    if problem.fit_intercept:
        np.testing.assert_allclose(v.sum(axis=0), 0, atol=1e-13 * np.abs(v).sum())
    bound = min(problem.dual_objective(v), objective)
    assert certificate.lower_bound == pytest.approx(bound, rel=1e-10)
    assert (certificate.scope, certificate.global_lower_bound) == ("patterns", None)
    objectives = [progress.objective for progress in solution.history]
    assert (np.diff(objectives) <= 1e-14 * np.abs(objectives[:1])).all()


@pytest.mark.parametrize(("loss", "C"), [("squared_error", 2), ("squared_error", 3), ("cross_entropy", 3)])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize(("weights", "n_patches", "fraction"), [(False, 1, 0.3), (True, 1, 0.03), (True, 2, 0.1)])
def test_gated_equals_the_program(loss, C, fit_intercept, weights, n_patches, fraction):
    problem, patterns = make_problem(loss, C, fit_intercept, fraction=fraction, weights=weights, n_patches=n_patches)
    solution = solve_gated(problem, patterns, tol=1e-8)
    assert solution.status is Status.CONVERGED
    assert solution.certificate.gap <= 1e-8
    check_claims(problem, patterns, solution)
    primal = solve_program(primal_program(problem, patterns, "gated_relu"))
    assert solution.certificate.objective == pytest.approx(primal, rel=1e-6)
    assert solve_program(dual_program(problem, patterns, "gated_relu")) == pytest.approx(primal, rel=1e-6)


@pytest.mark.parametrize(("loss", "solver"), [("squared_error", "CLARABEL"), ("cross_entropy", "CLARABEL")])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_the_reference_agrees(loss, solver, fit_intercept):
    problem, patterns = make_problem(loss, 3, fit_intercept, weights=True)
    reference = solve_reference(problem, patterns, activation="gated_relu", solver=solver)
    assert reference.status is Status.CONVERGED
    check_claims(problem, patterns, reference)
    fast = solve_gated(problem, patterns)
    assert fast.certificate.objective == pytest.approx(reference.certificate.objective, rel=2e-6)
    assert len(fast.neurons) <= len(patterns) * 3


@pytest.mark.parametrize("loss", ["squared_error", "huber", "log_loss", "squared_hinge"])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_one_output_is_the_group_lasso(loss, fit_intercept):
    problem, patterns = make_problem("squared_error", 1, fit_intercept, n=60)
    if loss in ("log_loss", "squared_hinge"):
        problem = replace(problem, y=np.where(problem.y > np.median(problem.y), 1.0, -1.0))
    problem = replace(problem, loss=loss)
    problem = replace(problem, weight_decay=0.1 * largest_price(problem, patterns, problem.zero_dual))
    group_lasso = solve_gated(problem, patterns, tol=1e-8).certificate.objective
    method = WorkingSets(problem, patterns, np.dtype("float64"), NuclearNorm)
    rounds = method.rounds(method.priced(method.first(None)), Tolerance(1e-8), lambda: False)
    best = next(state.best for state in rounds if method.gap(state) <= 1e-8)
    assert problem.objective(method.neurons(best)) == pytest.approx(group_lasso, rel=2e-8)


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_float32_converges_and_certifies_in_float64(loss):
    problem, patterns = make_problem(loss, 3, True, n=200, P=60)
    exact = solve_gated(problem, patterns)
    single = solve_gated(problem, patterns, tol=1e-5, dtype="float32")
    check_claims(problem, patterns, single)
    assert single.certificate.objective == pytest.approx(exact.certificate.objective, rel=2e-5)


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("data", ["duplicated", "ill_conditioned"])
def test_degenerate_data_converge_or_say_that_they_did_not(loss, dtype, data):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((60, 4))
    if data == "duplicated":
        X[30:] = X[:30]
        Z = BatchNormDesign().fit_transform(X)
    else:
        Z = WeightNormDesign().fit_transform(X * np.logspace(0, -4, 4) + 1)
    y = np.abs(X[:, :3]) + 0.3 * rng.standard_normal((60, 3))
    y = np.eye(3)[y.argmax(axis=1)] if loss == "cross_entropy" else y
    problem = Problem(Z, y, loss, weight_decay=1.0, fit_intercept=True)
    patterns = sample_patterns(Z, 30, random_state=0)
    problem = replace(problem, weight_decay=0.01 * largest_price(problem, patterns, problem.zero_dual))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = solve_gated(problem, patterns, dtype=dtype)
    gap = solution.certificate.gap
    assert (solution.status is Status.CONVERGED) == (gap <= 1e-6) == (not caught)
    assert gap <= (1e-6 if dtype == "float64" else 1e-4)
    check_claims(problem, patterns, solution)


@pytest.mark.parametrize("column_scale", [1e-4, 1e4])
@pytest.mark.parametrize("target_scale", [1e-6, 1e6])
def test_units_do_not_matter(column_scale, target_scale):
    problem, patterns = make_problem(fit_intercept=True)
    scaled = Problem(
        problem.Z.Z * column_scale,
        (problem.y + 3) * target_scale,
        weight_decay=problem.weight_decay * target_scale * column_scale,
        fit_intercept=True,
    )
    unit, other = solve_gated(problem, patterns).certificate, solve_gated(scaled, patterns).certificate
    assert other.objective == pytest.approx(unit.objective * target_scale**2, rel=2e-6)
    assert other.gap <= 1e-6


def stop(status):
    def callback(progress):
        if progress.n_iter < 2:
            return False
        if status == "Ctrl-C":
            raise KeyboardInterrupt
        return True

    return callback


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"callback": stop("Ctrl-C")}, Status.INTERRUPTED),
        ({"callback": stop("true")}, Status.INTERRUPTED),
        ({"max_iter": 2}, Status.MAX_ITER),
        ({"max_time": 1e-6}, Status.MAX_TIME),
    ],
)
def test_limits_return_the_best_network_so_far(options, status):
    problem, patterns = make_problem("cross_entropy", 3, True, n=200, fraction=0.01, P=60)
    with pytest.warns(ConvergenceWarning, match=status.value):
        solution = solve_gated(problem, patterns, **options)
    assert solution.status is status
    assert problem.objective(solution.neurons) == pytest.approx(solution.history[-1].objective, rel=1e-10)
    check_claims(problem, patterns, solution)


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_a_warm_start_saves_rounds(loss):
    problem, patterns = make_problem(loss, 3, True, n=200, fraction=0.02, P=60)
    neighbour = solve_gated(replace(problem, weight_decay=1.1 * problem.weight_decay), patterns).neurons
    cold, warm = solve_gated(problem, patterns), solve_gated(problem, patterns, start=neighbour)
    assert warm.n_iter < cold.n_iter
    assert warm.history[0].objective < cold.history[0].objective
    assert warm.certificate.objective == pytest.approx(cold.certificate.objective, rel=2e-6)
    again = solve_gated(problem, patterns, start=cold.neurons)
    assert again.n_iter == 0
    assert again.certificate.objective == pytest.approx(cold.certificate.objective, rel=1e-10)


def test_a_start_that_does_not_fit_is_named():
    problem, patterns = make_problem(C=3)
    start = Neurons(np.ones((4, 1)), np.ones((1, 2)), np.zeros(2), patterns.directions[:, :1])
    with pytest.raises(ValueError, match="4 weights a neuron and 2 outputs; the problem has 4 columns and 3 outputs"):
        solve_gated(problem, patterns, start=start)


@pytest.mark.parametrize("fraction", [1.0, 1.5])
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_much_weight_decay_leaves_the_zero_network(loss, fraction):
    problem, patterns = make_problem(loss, 3, True, fraction=fraction * (1 + 1e-9))
    for found in (solve_gated(problem, patterns), solve_reference(problem, patterns, activation="gated_relu")):
        assert (len(found.neurons), found.certificate.gap <= 1e-9) == (0, True)
        assert found.neurons.gates.shape == (4, 0)


def test_a_start_that_ends_at_the_zero_network():
    problem, patterns = make_problem(fraction=1.5)
    start = Neurons(1e-3 * np.ones((4, 1)), np.ones((1, 3)), np.zeros(3), patterns.directions[:, :1])
    solution = solve_gated(problem, patterns, start=start)
    assert len(solution.neurons) == 0
    assert solution.certificate.gap <= 1e-12


def test_blocks_change_nothing(monkeypatch):
    problem, patterns = make_problem("cross_entropy", 3, True, n=100, P=40)
    whole = solve_gated(problem, patterns, tol=1e-8)
    monkeypatch.setattr(MaskedProducts, "most_held", 0)
    monkeypatch.setattr("convexbn.operators._slices._BLOCK_ENTRIES", 500)
    monkeypatch.setattr("convexbn.solvers.gated._working_set._PRICED_ENTRIES", 50)
    monkeypatch.setattr("convexbn.solvers.gated._working_set._HELD_ENTRIES", 0)
    monkeypatch.setattr("convexbn.operators._factored._HELD_ENTRIES", 0)
    blocks = solve_gated(problem, patterns, tol=1e-8)
    assert blocks.certificate.objective == pytest.approx(whole.certificate.objective, rel=2e-8)
    assert blocks.status is Status.CONVERGED


@pytest.mark.parametrize("n_patches", [1, 2])
@pytest.mark.parametrize("entries", [2**22, 130, 1])
def test_masked_products_of_several_outputs(n_patches, entries, monkeypatch):
    monkeypatch.setattr("convexbn.operators._slices._BLOCK_ENTRIES", entries)
    rng = np.random.default_rng(0)
    Z = DesignMatrix(rng.standard_normal((60, 3)), n_patches)
    masks, S, v = rng.random((60, 7)) < 0.5, rng.standard_normal((7, 3, 4)), rng.standard_normal((60 // n_patches, 4))
    dense = masks[:, :, None] * Z.Z[:, None, :]
    products = products_of(MaskedProducts, Z, masks)
    np.testing.assert_allclose(products.forward(S), Z.pool(np.einsum("lik,ikc->lc", dense, S)), atol=1e-12)
    np.testing.assert_allclose(products.adjoint(v), np.einsum("lik,lc->ikc", dense, Z.unpool(v)), atol=1e-12)
    nothing = products.take(np.zeros(0, dtype=int))
    assert nothing.adjoint(v).shape == (0, 3, 4)
    assert not nothing.forward(np.zeros((0, 3, 4))).any()


def test_derivatives_through_matrices_are_those_through_hidden_outputs():
    rng = np.random.default_rng(0)
    Z = DesignMatrix(rng.standard_normal((60, 3)), 2)
    masks, owners = rng.random((60, 4)) < 0.5, np.array([0, 0, 2, 3, 3])
    A, B, D = rng.standard_normal((5, 3)), rng.standard_normal((5, 4)), rng.standard_normal((5, 7))
    pooled = products_of(PooledProducts, Z, masks).factored(owners, A, B)
    masked = products_of(MaskedProducts, Z, masks).factored(owners, A, B)
    v = rng.standard_normal((30, 4))
    np.testing.assert_allclose(pooled.forward(D), masked.forward(D), atol=1e-12)
    np.testing.assert_allclose(pooled.adjoint(v), masked.adjoint(v), atol=1e-12)


@pytest.mark.parametrize("n_patches", [1, 2])
@pytest.mark.parametrize("held", [2**25, 0])
def test_derivatives_in_the_factors_are_those_of_differences(n_patches, held, monkeypatch):
    monkeypatch.setattr("convexbn.operators._factored._HELD_ENTRIES", held)
    monkeypatch.setattr("convexbn.operators._slices._BLOCK_ENTRIES", 1600)
    rng = np.random.default_rng(0)
    Z = DesignMatrix(rng.standard_normal((60, 3)), n_patches)
    masks = rng.random((60, 5)) < 0.5
    A, B, D = rng.standard_normal((5, 3)), rng.standard_normal((5, 4)), rng.standard_normal((5, 7))

    def f(t):
        return Z.pool((masks * (Z.Z @ (A + t * D[:, :3]).T)) @ (B + t * D[:, 3:]))

    hidden = products_of(MaskedProducts, Z, masks).factored(np.arange(5), A, B)
    np.testing.assert_allclose((f(1.0) - f(-1.0)) / 2, hidden.forward(D), atol=1e-12)
    v = rng.standard_normal((60 // n_patches, 4))
    assert (v * hidden.forward(D)).sum() == pytest.approx((hidden.adjoint(v) * D).sum())


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_the_loss_model_is_the_second_order_one(loss, fit_intercept):
    problem, patterns = make_problem(loss, 3, fit_intercept, weights=True)
    method = WorkingSets(problem, patterns, np.dtype("float64"), NuclearNorm)
    rng = np.random.default_rng(0)
    chosen = np.arange(3)
    S = 0.1 * rng.standard_normal((3, 4, 3))
    point = method.point(chosen, S, np.zeros(3))
    model, change, h = LossModel(problem, point.f + point.intercept), rng.standard_normal((40, 3)), 1e-4
    shift = model.shift(change)
    losses = [problem.training_loss(point.f + point.intercept + t * (change + shift)) for t in (-h, 0, h)]
    assert model.slope(change, shift) == pytest.approx((losses[2] - losses[0]) / (2 * h), rel=1e-5)
    if fit_intercept:
        residual = model.curved(change).sum(axis=0)
        np.testing.assert_allclose(residual - residual.mean() * (loss == "cross_entropy"), 0, atol=1e-12)
        np.testing.assert_allclose(model.v.sum(axis=0), 0, atol=1e-12)
    else:
        assert not shift.any()
        curvature = (losses[0] - 2 * losses[1] + losses[2]) / h**2
        assert (change * model.curved(change)).sum() == pytest.approx(curvature, rel=1e-4)


def test_spectral_norms_are_singular_values():
    rng = np.random.default_rng(0)
    for shape in ((5, 3, 7), (5, 7, 3), (5, 4, 1), (0, 4, 2)):
        G = rng.standard_normal(shape)
        np.testing.assert_allclose(spectral_norms(G), np.linalg.svd(G, compute_uv=False)[:, :1].ravel(), rtol=1e-13)


def test_the_price_of_gates_names_its_direction():
    problem, patterns = make_problem("cross_entropy")
    v = problem.zero_dual
    price = price_of_gates(problem.Z, patterns, v)
    assert price.value == pytest.approx(largest_price(problem, patterns, v), rel=1e-12)
    reached = [np.linalg.norm(v.T @ (mask * (problem.Z.Z @ price.direction))) for mask in patterns.masks().T]
    assert max(reached) == pytest.approx(price.value, rel=1e-10)


@pytest.mark.parametrize("design", [BatchNormDesign(), WeightNormDesign()])
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_the_network_reproduces_the_objective(design, loss, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 3)) * [1.0, 5.0, 0.2] + 1
    Z = design.fit_transform(X)
    y = np.column_stack([np.abs(X[:, 1]), X[:, 0], X[:, 2]])
    y = np.eye(3)[y.argmax(axis=1)] if loss == "cross_entropy" else y
    problem = Problem(Z, y, loss, weight_decay=0.02, fit_intercept=True)
    solution = solve_gated(problem, sample_patterns(Z, 50, random_state=0))
    network = GatedNetwork.from_neurons(solution.neurons, design)
    assert len(network) == len(solution.neurons) > 3
    objective = problem.training_loss(network.predict(X)) + problem.weight_decay * solution.neurons.cost.sum()
    assert objective == pytest.approx(solution.certificate.objective, rel=1e-9)
    network.save(tmp_path / "network.npz")
    np.testing.assert_array_equal(GatedNetwork.load(tmp_path / "network.npz").predict(X), network.predict(X))


def test_solve_takes_the_fast_solver_for_several_outputs():
    problem, _ = make_problem("cross_entropy")
    solution = solve(problem, activation="gated_relu", random_state=0)
    assert solution.history
    named = solve(problem, activation="gated_relu", solver="CLARABEL", random_state=0)
    assert not named.history
    assert named.certificate.objective == pytest.approx(solution.certificate.objective, rel=2e-6)


def test_relu_programs_with_several_outputs_point_to_column_generation():
    problem, patterns = make_problem()
    for build in (primal_program, dual_program):
        with pytest.raises(ValueError, match=r"y has 3 columns; .* Use solve_column_generation"):
            build(problem, patterns)


def test_memory_grows_with_the_gates_in_use():
    """4,000 gates on 8,000 rows: 256 MB as float64 masks, 2.3 GB as masked design matrices."""
    rng = np.random.default_rng(0)
    Z = BatchNormDesign().fit_transform(rng.standard_normal((8_000, 8)))
    y = np.maximum(Z @ rng.standard_normal((9, 3)), 0) @ rng.standard_normal((3, 5)) + rng.standard_normal((8_000, 5))
    patterns = sample_patterns(Z, 4_000, random_state=0)
    problem = Problem(Z, y, weight_decay=1.0, fit_intercept=True)
    tracemalloc.start()
    solution = solve_gated(problem, patterns)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert solution.certificate.gap <= 1e-6
    assert 0 < len(solution.neurons) <= 30
    assert peak <= 200e6
