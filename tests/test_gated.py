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
    decompose,
    sample_patterns,
    solve_gated,
    solve_reference,
)
from convexbn.operators._masked import MaskedProducts
from convexbn.operators._pooled import PooledProducts
from convexbn.oracles import price_of_gates
from convexbn.solvers.gated._conjugate_gradients import conjugate_gradients
from convexbn.solvers.gated._driver import working_sets
from convexbn.solvers.gated._euclidean_norm import EuclideanNorm
from convexbn.solvers.gated._path import extrapolated, gated_path
from convexbn.solvers.gated._steps import Steps, model_minimiser
from tests.problems import products_of

SMOOTH = ["squared_error", "huber", "log_loss", "squared_hinge"]


def make_problem(
    loss="squared_error", fit_intercept=False, n=60, d=4, fraction=0.05, seed=0, n_patches=1, weights=False
):
    """A problem whose weight decay is a fraction of the largest gated price, and 40 patterns."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n * n_patches, d)) @ rng.standard_normal((d, d))
    Z = DesignMatrix(BatchNormDesign().fit_transform(X), n_patches)
    target = Z.neuron_outputs(rng.standard_normal((Z.n_columns, 3))) @ rng.standard_normal(3) + rng.standard_normal(n)
    y = target if loss in ("squared_error", "huber") else np.where(target > np.median(target), 1.0, -1.0)
    sample_weight = rng.uniform(0.5, 2, n) if weights else None
    patterns = sample_patterns(Z, 40, random_state=seed)
    problem = Problem(Z, y, loss, weight_decay=1.0, fit_intercept=fit_intercept, sample_weight=sample_weight)
    largest = price_of_gates(Z, patterns, problem.zero_dual).value
    return replace(problem, weight_decay=fraction * largest), patterns


def check_certificate(problem, patterns, solution):
    """The certificate is what certify says it is, and its bound does not rest on the solver's word."""
    certificate = solution.certificate
    assert certificate.scope == "patterns"
    assert certificate.global_lower_bound is None
    assert certificate.objective == problem.objective(solution.neurons)
    v = problem.feasible_dual(solution.dual)
    price = price_of_gates(problem.Z, patterns, v).value
    bound = problem.dual_objective(v * min(1, problem.weight_decay / price))
    rounding = (
        np.finfo(float).eps * problem.Z.row_norms @ np.abs(problem.Z.unpool(v)).sum(axis=1) / problem.weight_decay
    )
    bound = min(bound, certificate.objective)
    assert -20 * rounding * bound <= certificate.lower_bound - bound + 1e-12 <= 2e-12


def check_order(patterns, neurons):
    """Gates are columns of the patterns' directions, in their order."""
    position = {column.tobytes(): i for i, column in enumerate(patterns.directions.T.copy())}
    found = [position[column.tobytes()] for column in neurons.gates.T.copy()]
    assert found == sorted(set(found))


@pytest.mark.parametrize("loss", SMOOTH)
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("n_patches", [1, 3])
@pytest.mark.parametrize(("weights", "fraction"), [(False, 0.3), (True, 0.02)])
def test_gated_equals_the_program(loss, fit_intercept, n_patches, weights, fraction):
    problem, patterns = make_problem(
        loss, fit_intercept, n=40, fraction=fraction, n_patches=n_patches, weights=weights, seed=n_patches
    )
    solution = solve_gated(problem, patterns, tol=1e-8)
    assert solution.status is Status.CONVERGED
    assert solution.certificate.gap <= 1e-8
    reference = solve_reference(problem, patterns, activation="gated_relu").certificate
    assert solution.certificate.objective == pytest.approx(reference.objective, rel=1e-6)
    assert solution.certificate.lower_bound <= reference.objective
    check_certificate(problem, patterns, solution)
    check_order(patterns, solution.neurons)
    objectives = [progress.objective for progress in solution.history]
    assert solution.n_iter == len(objectives) >= 1
    assert (np.diff(objectives) <= 1e-14 * objectives[0]).all()


@pytest.mark.parametrize("loss", SMOOTH)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("fraction", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("data", ["duplicated", "ill_conditioned"])
def test_degenerate_data_converge_or_say_that_they_did_not(loss, dtype, fraction, data):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((60, 4))
    if data == "duplicated":
        X[30:] = X[:30]
        Z = BatchNormDesign().fit_transform(X)
    else:
        Z = WeightNormDesign().fit_transform(X * np.logspace(0, -4, 4) + 1)
    target = np.abs(X[:, 0]) + 0.3 * rng.standard_normal(60)
    y = np.where(target > np.median(target), 1.0, -1.0) if loss in ("log_loss", "squared_hinge") else target
    problem = Problem(Z, y, loss, weight_decay=1.0, fit_intercept=True)
    patterns = sample_patterns(Z, 30, random_state=0)
    largest = price_of_gates(problem.Z, patterns, problem.zero_dual).value
    problem = replace(problem, weight_decay=fraction * largest)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = solve_gated(problem, patterns, dtype=dtype, max_iter=10 if fraction == 1e-4 else 500)
    gap = solution.certificate.gap
    assert (solution.status is Status.CONVERGED) == (gap <= 1e-6) == (not caught)
    if caught:
        assert caught[0].category is ConvergenceWarning
        assert f"relative gap of {gap:.1e}" in str(caught[0].message)
    if fraction > 1e-4:
        assert gap <= (1e-6 if dtype == "float64" else 1e-4)
    check_certificate(problem, patterns, solution)
    objectives = [progress.objective for progress in solution.history]
    assert (np.diff(objectives) <= 0).all()
    if fraction == 1.0:
        assert len(solution.neurons) == 0


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
    unit = solve_gated(problem, patterns).certificate
    other = solve_gated(scaled, patterns).certificate
    assert other.objective == pytest.approx(unit.objective * target_scale**2, rel=2e-6)
    assert other.gap <= 1e-6


def test_nothing_to_learn():
    Z = make_problem()[0].Z
    patterns = sample_patterns(Z, 10, random_state=0)
    solution = solve_gated(Problem(Z, np.full(60, 2.0), weight_decay=0.1, fit_intercept=True), patterns)
    assert (len(solution.neurons), solution.n_iter, solution.certificate.objective) == (0, 0, 0.0)
    assert solution.neurons.gates.shape == (Z.n_columns, 0)


@pytest.mark.parametrize("rows", ["directions", "masks"])
def test_a_warm_start_saves_rounds(rows):
    problem, patterns = make_problem("log_loss", fit_intercept=True, n=200, fraction=0.01)
    neighbour = solve_gated(replace(problem, weight_decay=1.2 * problem.weight_decay), patterns).neurons
    if rows == "masks":  # other directions with the same patterns; and the cost shared with the output weights
        neighbour = replace(
            neighbour,
            gates=2 * neighbour.gates,
            weights=neighbour.weights / 2,
            output_weights=2 * neighbour.output_weights,
        )
    cold = solve_gated(problem, patterns)
    warm = solve_gated(problem, patterns, start=neighbour)
    assert warm.n_iter <= cold.n_iter / 2
    assert warm.certificate.objective == pytest.approx(cold.certificate.objective, rel=2e-6)
    assert warm.history[0].objective < cold.history[0].objective
    again = solve_gated(problem, patterns, start=cold.neurons)
    assert again.n_iter == 0
    assert again.certificate.objective == pytest.approx(cold.certificate.objective, rel=1e-12)


def test_a_start_that_ends_at_the_zero_network():
    problem, patterns = make_problem(fraction=1.5)
    start = Neurons(np.eye(5)[:, :1], np.ones((1, 1)), np.zeros(1), patterns.directions[:, :1])
    solution = solve_gated(problem, patterns, start=start)
    assert len(solution.neurons) == 0
    assert solution.certificate.gap <= 1e-12


def test_a_start_may_use_a_gate_twice():
    problem, patterns = make_problem()
    gate = patterns.directions[:, [3, 3]]
    start = Neurons(np.eye(5)[:, :2], np.array([[1.0], [-2.0]]), np.zeros(1), gate)
    seen = []
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        solve_gated(problem, patterns, start=start, max_iter=1, callback=seen.append)
    joint = Neurons(np.array([[1.0, -2.0, 0, 0, 0]]).T, np.ones((1, 1)), np.zeros(1), gate[:, :1])
    assert seen[0].objective <= problem.objective(joint)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_prices_are_exact_above_weight_decay_and_bounded_below(dtype):
    problem, patterns = make_problem("log_loss", n=300, fraction=0.3)
    patterns = sample_patterns(problem.Z, 500, random_state=1)
    sets, rng = working_sets(problem, patterns, dtype), np.random.default_rng(0)
    v, n_bounded = problem.zero_dual, 0
    for size in (0.0, 0.1, 0.01, 0.01, 0.01, 0.0):
        v = v * (1 + size * rng.standard_normal(v.shape))
        of_gates = np.array([price_of_gates(problem.Z, patterns.take([i]), v).value for i in range(len(patterns))])
        prices, above = sets.prices(v), of_gates > problem.weight_decay
        assert prices[above] == pytest.approx(of_gates[above], rel=1e-5)
        assert (prices >= of_gates * (1 - 1e-5)).all()
        assert (prices[~above] <= problem.weight_decay * (1 + 1e-5)).all()
        assert sets.price(v).value == pytest.approx(max(of_gates.max(), problem.weight_decay), rel=1e-12)
        n_bounded += int((prices > of_gates * (1 + 1e-5)).sum())
    assert n_bounded >= 100, "not all of them are computed again"


def test_float32_that_cannot_reach_the_tolerance_says_so():
    problem, patterns = make_problem(n=200, fraction=1e-3)
    with pytest.warns(ConvergenceWarning, match=r"solve_gated in float32 stopped at a relative gap of .*e-") as caught:
        solution = solve_gated(problem, patterns, dtype="float32", tol=1e-12)
    assert solution.status is Status.NOT_CONVERGED
    assert 1e-12 < solution.certificate.gap <= 1e-5
    assert f"{solution.certificate.gap:.1e}" in str(caught[0].message)
    check_certificate(problem, patterns, solution)


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
    problem, patterns = make_problem("huber", fit_intercept=True, fraction=0.01, n=200)
    with pytest.warns(ConvergenceWarning, match=status.value):
        solution = solve_gated(problem, patterns, **options)
    assert solution.status is status
    assert solution.n_iter == len(solution.history) == (1 if status is Status.MAX_TIME else 2)
    assert problem.objective(solution.neurons) == pytest.approx(solution.history[-1].objective, rel=1e-12)
    if status is not Status.MAX_TIME:
        assert solution.certificate.objective < problem.objective(problem.zero_network)
    check_certificate(problem, patterns, solution)
    check_order(patterns, solution.neurons)


def test_verbose_shows_progress(capsys):
    problem, patterns = make_problem()
    solve_gated(problem, patterns, verbose=True)
    assert "gated" in capsys.readouterr().err


def test_memory_grows_with_the_gates_in_use():
    """2,000 gates on 20,000 rows: 320 MB as float64 masks, 2.5 GB as masked design matrices."""
    rng = np.random.default_rng(0)
    Z = BatchNormDesign().fit_transform(rng.standard_normal((20_000, 7)))
    y = np.maximum(Z @ rng.standard_normal((8, 3)), 0).sum(axis=1) + rng.standard_normal(20_000)
    patterns = sample_patterns(Z, 2_000, random_state=0)
    problem = Problem(Z, y, weight_decay=0.3, fit_intercept=True)
    tracemalloc.start()
    solution = solve_gated(problem, patterns)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 < len(solution.neurons) <= 40
    assert peak <= 200e6


@pytest.mark.parametrize("n_patches", [1, 2])
def test_masked_products_are_those_of_the_dense_matrices(n_patches, monkeypatch):
    rng = np.random.default_rng(0)
    Z = DesignMatrix(rng.standard_normal((60, 3)), n_patches)
    masks = rng.random((60, 7)) < 0.5
    S, v, w = rng.standard_normal((7, 3, 1)), rng.standard_normal((60 // n_patches, 1)), rng.random(60 // n_patches)
    columns, few = np.array([1.0, 2.0, 4.0]), np.array([1, 5])
    weights = Z.unpool(w[:, None])[:, 0] * (Z.Z**2 / columns).mean(axis=1)
    dense = {
        "forward": Z.pool(masks * (Z.Z @ S[:, :, 0].T)).sum(axis=1, keepdims=True),
        "adjoint": Z.masked_adjoint(masks, v).T[:, :, None],
        "overlaps": masks.T @ (weights[:, None] * masks),
    }
    for block_entries, hold in [(2**22, True), (2**22, False), (130, False)]:
        monkeypatch.setattr("convexbn.operators._slices._BLOCK_ENTRIES", block_entries)
        products = products_of(MaskedProducts, Z, masks, hold=hold)
        np.testing.assert_allclose(products.forward(S), dense["forward"], atol=1e-12)
        np.testing.assert_allclose(products.adjoint(v), dense["adjoint"], atol=1e-12)
        np.testing.assert_allclose(products.overlaps(w, columns, few), dense["overlaps"][few], atol=1e-12)
        np.testing.assert_allclose(products.take(few).adjoint(v), dense["adjoint"][few], atol=1e-12)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_pooled_products_are_those_of_the_dense_matrices(n_outputs, monkeypatch):
    rng = np.random.default_rng(0)
    Z = DesignMatrix(rng.standard_normal((60, 3)), 2)
    masks = rng.random((60, 7)) < 0.5
    S, v, weights = rng.standard_normal((7, 3, n_outputs)), rng.standard_normal((30, n_outputs)), rng.random(30)
    columns = np.array([1.0, 2.0, 4.0])
    F = np.stack([Z.pool(mask[:, None] * Z.Z) for mask in masks.T])
    outputs = np.einsum("pik,pkc->ic", F, S)
    adjoint = np.einsum("pik,ic->pkc", F, v)
    overlaps = np.einsum("pik,i,qik,k->pq", F, weights, F, 1 / columns) / 3
    for entries, hold in [(2**24, True), (2**24, False), (200, True), (200, False)]:
        monkeypatch.setattr("convexbn.operators._slices._BLOCK_ENTRIES", entries)
        products = products_of(PooledProducts, Z, masks, hold=hold)
        few = np.array([1, 5])
        for map, F_adjoint, K in [
            (products, adjoint, overlaps),
            (products.take(few), adjoint[few], overlaps[few][:, few]),
        ]:
            np.testing.assert_allclose(map.adjoint(v), F_adjoint, atol=1e-12)
            np.testing.assert_allclose(map.overlaps(weights, columns, np.array([1, 0])), K[[1, 0]], atol=1e-12)
        np.testing.assert_allclose(products.forward(S), outputs, atol=1e-12)


def test_sampled_overlaps_keep_total_and_diagonal():
    rng, n = np.random.default_rng(0), 40_000  # of which some are taken
    masks = rng.random((n, 5)) < 0.5
    masks[:, 0] = True
    Z = DesignMatrix(rng.standard_normal((n, 2)))
    w, everything = rng.random(n), np.arange(5)
    sampled = products_of(MaskedProducts, Z, masks).overlaps(w, np.ones(2), everything)
    weights = w * (Z.Z**2).mean(axis=1)
    exact = masks.T @ (weights[:, None] * masks)
    assert sampled[0, 0] == pytest.approx(exact[0, 0])
    assert (sampled.diagonal() >= exact.diagonal() - 1e-9).all()
    assert np.linalg.eigvalsh(sampled)[0] > 0
    assert 1e-6 * np.linalg.norm(exact) < np.linalg.norm(sampled - exact) < 0.15 * np.linalg.norm(exact)
    np.testing.assert_allclose(sampled, exact, rtol=0.5)


def test_masks_too_large_to_hold_are_unpacked_block_by_block(monkeypatch):
    problem, patterns = make_problem("log_loss", n=100)
    held = solve_gated(problem, patterns).certificate.objective
    monkeypatch.setattr(MaskedProducts, "most_held", 0)
    monkeypatch.setattr("convexbn.solvers.gated._working_set._HELD_ENTRIES", 0)
    monkeypatch.setattr("convexbn.operators._slices._BLOCK_ENTRIES", 300)
    monkeypatch.setattr("convexbn.operators._masked._GRAM_ROWS", 64)
    solution = solve_gated(problem, patterns)
    assert solution.status is Status.CONVERGED
    assert solution.certificate.objective == pytest.approx(held, rel=2e-6)


@pytest.mark.parametrize("design", [BatchNormDesign(), WeightNormDesign()])
def test_the_network_reproduces_the_objective(design):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 3)) * [1.0, 5.0, 0.2] + 1
    Z = design.fit_transform(X)
    problem = Problem(Z, np.abs(X[:, 1]), weight_decay=0.05, fit_intercept=True)
    solution = solve_gated(problem, sample_patterns(Z, 50, random_state=0))
    network = GatedNetwork.from_neurons(solution.neurons, design)
    assert len(network) == len(solution.neurons) > 0
    objective = problem.training_loss(network.predict(X)) + problem.weight_decay * solution.neurons.cost.sum()
    assert objective == pytest.approx(solution.certificate.objective, rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"loss": "hinge", "y": np.resize([1.0, -1], 60)}, {}, "has a kink; use 'squared_hinge', or solve_reference"),
        ({"Z": np.ones((60, 3))}, {}, "60 rows and 3 columns; got 40 of 60 rows and 5 columns"),
        (
            {"Z": np.ones((30, 5)), "y": np.ones(30), "sample_weight": None},
            {},
            "30 rows and 5 columns; got 40 of 60 rows",
        ),
        ({}, {"patterns": "none"}, "must be at least one"),
        ({}, {"tol": 0}, "tol=0 must be a positive number"),
        ({}, {"tol": "1e-3"}, "tol='1e-3' must be a positive number"),
        ({}, {"dtype": "float16"}, "dtype='float16' must be 'float64' or 'float32'"),
        ({}, {"dtype": "single precision"}, "must be 'float64' or 'float32'"),
        ({}, {"max_iter": 0}, "max_iter=0 must be a positive integer"),
        ({}, {"max_time": -1}, "max_time=-1 must be a positive number"),
        ({}, {"callback": 3}, "callback=3 must be a function"),
        ({}, {"start": Neurons(np.ones((5, 1)), np.ones((1, 1)), np.zeros(1))}, "start has no gates"),
        ({}, {"start": Neurons(np.ones((4, 1)), np.ones((1, 1)), np.zeros(1), np.ones((4, 1)))}, "4 weights a neuron"),
        ({}, {"start": Neurons(np.ones((5, 1)), np.ones((1, 2)), np.zeros(2), np.ones((5, 1)))}, "and 2 outputs"),
        ({}, {"start": Neurons(np.ones((5, 1)), np.ones((1, 1)), np.zeros(1), np.eye(5)[:, :1])}, "1 of the 1 gates"),
        ({}, {"start": Neurons(np.full((5, 1), np.nan), np.ones((1, 1)), np.zeros(1), np.eye(5)[:, :1])}, "NaN or inf"),
    ],
)
def test_bad_input_is_named(changes, options, message):
    problem, patterns = make_problem()
    problem = replace(problem, **changes)
    options = dict(options)
    if options.pop("patterns", None):
        patterns = patterns.take(np.zeros(0, dtype=int))
    with pytest.raises(ValueError, match=message):
        solve_gated(problem, patterns, **options)


@pytest.mark.parametrize("n_patches", [1, 3])
def test_decomposition_predicts_the_same(n_patches, monkeypatch):
    monkeypatch.setattr("convexbn.solvers.conic._decomposition._ROWS", 1)  # so that rows enter as they are violated
    problem, patterns = make_problem("huber", fit_intercept=True, n_patches=n_patches, d=3)
    gated = solve_gated(problem, patterns).neurons
    relu = decompose(problem, gated)
    assert relu.gates is None
    assert len(relu) <= 2 * len(gated)
    np.testing.assert_allclose(relu.outputs(problem.Z), gated.outputs(problem.Z), atol=1e-6)
    assert problem.objective(relu) >= solve_gated(problem, patterns).certificate.objective * (1 - 1e-6)


def test_decomposition_costs_least():
    """The cone of the gate (1, 1) is the positive quadrant, on which the least split is into positive parts."""
    problem = Problem(np.eye(2), [1.0, -1.0], weight_decay=0.1)
    gated = Neurons(np.array([[3.0], [-4.0]]), np.array([[2.0]]), np.zeros(1), np.ones((2, 1)))
    relu = decompose(problem, gated)
    order = np.argsort(-relu.output_weights[:, 0])
    np.testing.assert_allclose(relu.weights[:, order], [[3.0, 0.0], [0.0, 4.0]], atol=1e-6)
    np.testing.assert_allclose(relu.output_weights[order], [[2.0], [-2.0]])


def test_weights_inside_their_cone_need_no_split():
    problem = Problem(np.eye(2), [1.0, 1.0], weight_decay=0.1)
    weights = np.array([[1.0, -2.0], [1.0, -3.0]])
    relu = decompose(problem, Neurons(weights, np.array([[1.0], [2.0]]), np.ones(1), np.ones((2, 2))))
    np.testing.assert_array_equal(relu.weights, [[1.0, 2.0], [1.0, 3.0]])
    np.testing.assert_array_equal(relu.output_weights, [[1.0], [-2.0]])
    np.testing.assert_array_equal(relu.intercept, [1.0])


def test_decomposition_of_several_outputs_and_of_nothing():
    problem = Problem(np.random.default_rng(0).standard_normal((8, 2)), np.ones((8, 2)), weight_decay=0.1)
    gated = Neurons(np.eye(2), np.array([[1.0, 2.0], [3.0, -1.0]]), np.zeros(2), np.eye(2) + 0.1)
    np.testing.assert_allclose(decompose(problem, gated).outputs(problem.Z), gated.outputs(problem.Z), atol=1e-6)
    nothing = Neurons(np.zeros((2, 0)), np.zeros((0, 2)), np.ones(2), np.zeros((2, 0)))
    assert decompose(problem, nothing).weights.shape == (2, 0)


def test_cones_that_do_not_allow_it_are_named():
    """All rows open on z and -z: the cone is the line orthogonal to z."""
    Z = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    problem = Problem(Z, [1.0, 2.0, 3.0], weight_decay=0.1)
    gates = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    weights = np.array([[1.0, 0.0, 2.0], [1.0, 1.0, 1.0]])
    with pytest.raises(ValueError, match=r"1 of 3 gates .*those of the neurons \[2\].*no interior"):
        decompose(problem, Neurons(weights, np.ones((3, 1)), np.zeros(1), gates))


def test_decompose_names_bad_input():
    problem = Problem(np.eye(2), [1.0, 1.0], weight_decay=0.1)
    with pytest.raises(ValueError, match="a ReLU network already"):
        decompose(problem, Neurons(np.eye(2), np.ones((2, 1)), np.zeros(1)))
    with pytest.raises(ValueError, match="neurons have 3 weights each, the design matrix 2 columns"):
        decompose(problem, Neurons(np.eye(3), np.ones((3, 1)), np.zeros(1), np.eye(3)))


def never():
    return False


def test_conjugate_gradients_solve_and_stop_where_there_is_no_curvature():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((6, 6))
    A = A @ A.T
    rhs = rng.standard_normal((3, 2))
    found, solved = conjugate_gradients(
        lambda X: (A @ X.ravel()).reshape(3, 2), lambda R: R, rhs, tol=1e-10, steps=500, stop=never
    )
    assert solved
    np.testing.assert_allclose(A @ found.ravel(), rhs.ravel(), atol=1e-6)
    once, solved = conjugate_gradients(
        lambda X: (A @ X.ravel()).reshape(3, 2), lambda R: R, rhs, tol=1e-10, steps=1, stop=never
    )
    assert not solved
    assert np.linalg.norm(A @ once.ravel() - rhs.ravel()) > 1e-3
    stopped, _ = conjugate_gradients(
        lambda X: (A @ X.ravel()).reshape(3, 2), lambda R: R, rhs, tol=1e-10, steps=500, stop=lambda: True
    )
    np.testing.assert_array_equal(stopped, once)
    flat, solved = conjugate_gradients(lambda X: 0 * X, lambda R: R, rhs, steps=500, stop=never)
    assert solved
    assert not flat.any()


def test_a_step_that_does_not_descend_is_not_taken():
    problem, patterns = make_problem()
    sets = working_sets(problem, patterns, "float64")
    point, away = sets.first(None), 1e3 * np.sign(-problem.y)
    products = sets.products(point.chosen, sets.dtype)
    steps = Steps(problem, sets.norm, sets.columns, products, products, never)

    def trial(t):
        return sets.point(point.chosen, point.S, point.intercept, point.f + t * away)

    assert steps.searched(point, trial, -1.0) is point


@pytest.mark.parametrize(("loss", "fit_intercept"), [("squared_error", False), ("log_loss", True)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_path_is_that_of_its_problems(loss, fit_intercept, dtype):
    problem, patterns = make_problem(loss, fit_intercept, n=100, fraction=1.0)
    grid = problem.weight_decay * np.geomspace(1, 0.02, 8)
    grid[4] = grid[3]
    path = list(gated_path(problem, patterns, grid, tol=1e-5, dtype=dtype))
    for weight_decay, found in zip(grid, path, strict=True):
        at = replace(problem, weight_decay=weight_decay)
        alone = solve_gated(at, patterns, tol=1e-8)
        assert found.status is Status.CONVERGED
        assert found.certificate.objective == pytest.approx(alone.certificate.objective, rel=1.1e-5)
        check_certificate(at, patterns, found)
        check_order(patterns, found.neurons)
    assert len(path[0].neurons) == path[4].n_iter == 0 < len(path[-1].neurons)


@pytest.mark.parametrize(
    ("before", "factor", "zeros"), [([1, 4], 0.9, []), ([1, 7], 0.9, []), ([1, 4], 3.0, [0, 2])], ids=str
)
def test_an_extrapolated_point_has_the_outputs_of_its_weights(before, factor, zeros):
    problem, patterns = make_problem(fit_intercept=True)
    sets, chosen = working_sets(problem, patterns, "float32"), np.array([1, 2, 4])
    S = np.random.default_rng(0).standard_normal((3, problem.Z.n_columns, 1))
    first = sets.point(np.array(before), factor * S[[0, 2]], np.array([0.3]))
    last = sets.point(chosen, S, np.array([0.2]))
    found = extrapolated(sets.at(0.8), (1.0, first), (0.9, last))
    exact = sets.point(found.chosen, found.S, found.intercept)
    assert found.chosen.tolist() == chosen.tolist()
    assert np.flatnonzero(~found.S.any(axis=(1, 2))).tolist() == zeros
    np.testing.assert_allclose(found.f, exact.f, rtol=0, atol=1e-13 * np.abs(exact.f).max())
    assert found.loss == pytest.approx(exact.loss, rel=1e-13)


def test_a_block_step_is_stationary():
    rng = np.random.default_rng(0)
    for c in (np.ones(5), rng.uniform(0.01, 1, 5)):
        x, g = rng.standard_normal((2, 5))
        s = EuclideanNorm.step(x, g, c, 0.5)
        np.testing.assert_allclose(c * (s - x) - g + 0.5 * s / np.linalg.norm(s), 0, atol=1e-9)
        assert not EuclideanNorm.step(x, g, c, 1.01 * np.linalg.norm(c * x + g)).any()


def test_descent_on_the_model_ends_at_its_minimiser():
    rng = np.random.default_rng(0)
    K, c, weight_decay = np.eye(4) + 0.1, rng.uniform(0.1, 3, 5), 0.5
    S, G = np.zeros((4, 5, 1)), rng.standard_normal((4, 5, 1))
    G[0] *= 0.1 / np.linalg.norm(G[0])  # a block whose weights stay zero

    def slope(X):
        return G - c[:, None] * np.einsum("ij,jkc->ikc", K, X - S)

    X = S
    for _ in range(30):
        G, S, X = slope(X), X, model_minimiser(EuclideanNorm, K, c, X, slope(X), weight_decay)
    lengths, used = np.linalg.norm(X, axis=(1, 2)), X.any(axis=(1, 2))
    assert used.any()
    assert not used.all()
    np.testing.assert_allclose(slope(X)[used], weight_decay * X[used] / lengths[used, None, None], atol=1e-8)
    assert (np.linalg.norm(slope(X)[~used], axis=(1, 2)) <= weight_decay).all()


def test_a_path_takes_fewer_rounds_than_its_problems():
    problem, patterns = make_problem(n=200, fraction=1.0)
    grid = problem.weight_decay * np.geomspace(1, 0.02, 20)
    path = list(gated_path(problem, patterns, grid, tol=1e-4))
    alone = [solve_gated(replace(problem, weight_decay=value), patterns, tol=1e-4) for value in grid]
    assert sum(found.n_iter for found in path) <= sum(found.n_iter for found in alone) / 2


def test_a_path_wants_weight_decays_and_patterns_that_fit():
    problem, patterns = make_problem()
    with pytest.raises(ValueError, match=r"weight_decay=-1\.0 must be a positive finite number"):
        list(gated_path(problem, patterns, [-1.0]))
    with pytest.raises(ValueError, match="60 rows and 5 columns; got"):
        list(gated_path(problem, sample_patterns(np.eye(3), 2, random_state=0), [0.1]))


def test_overlaps_are_kept_while_curvature_stays(monkeypatch):
    problem, patterns = make_problem()
    sets, w = working_sets(problem, patterns, "float64"), problem.sample_weight
    some, more = np.array([7, 2, 30]), np.array([30, 4, 2, 11])
    for products in (2**24, 0):
        monkeypatch.setattr("convexbn.solvers.gated._working_set._OVERLAP_PRODUCTS", products)
        for factor in (1, 2):
            sets.overlaps(sets.products(some, np.dtype("float32")), some, factor * w)
            kept = sets.overlaps(sets.products(more, np.dtype("float32")), more, factor * w)
            alone = working_sets(problem, patterns, "float64")
            fresh = alone.overlaps(alone.products(more, np.dtype("float32")), more, factor * w)
            np.testing.assert_allclose(kept, fresh, rtol=1e-5)


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_many_more_columns_than_rows(n_outputs):
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((12, 2000))
    basis = np.linalg.qr(wide.T)[0]
    Y = rng.standard_normal((12, n_outputs))
    options = {"weight_decay": 0.05, "fit_intercept": True}
    small = sample_patterns(wide @ basis, 30, random_state=0)
    large = replace(small, directions=basis @ small.directions)
    expected = solve_gated(Problem(wide @ basis, Y, **options), small)
    problem = Problem(wide, Y, **options)
    found = solve_gated(problem, large)
    assert found.certificate.objective == pytest.approx(expected.certificate.objective, rel=2e-6)
    assert found.neurons.weights.shape[0] == 2000
    assert problem.objective(found.neurons) == pytest.approx(found.certificate.objective)
    assert len(working_sets(problem, large, "float64").columns) == 12
