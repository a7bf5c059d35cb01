"""Batch normalization after the ReLU: programs, closed forms, solver and network are one problem."""

import warnings
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.optimize import nnls
from sklearn.exceptions import ConvergenceWarning

from convexbn import (
    BatchNormDesign,
    ConvexBNClassifier,
    ConvexBNRegressor,
    ConvexBNRegressorCV,
    DesignMatrix,
    NormalizedNeurons,
    PatchDesign,
    PostActivationBatchNormDesign,
    PostActivationBatchNormNetwork,
    PostActivationProblem,
    Problem,
    certify,
    compare,
    convexbn_path,
    dual_program,
    enumerate_patterns,
    make_network,
    primal_program,
    prove,
    sample_patterns,
    solve,
    solve_closed_form,
    solve_column_generation,
    solve_gated,
    solve_path,
    solve_program,
    solve_reference,
    weight_decay_max,
)
from convexbn.gradient import train
from convexbn.model import prune
from convexbn.model._normalized_neurons import prune_normalized
from convexbn.oracles import (
    Price,
    find_normalized_maxima,
    normalized_price_bound,
    normalized_quickly_enumerated,
    price_of_normalized_patterns,
    price_size,
    priced_neurons,
)
from convexbn.oracles._normalized import _gradient, _with_best_offsets
from convexbn.oracles._normalized_cones import _projected, _without_variable
from convexbn.solvers._certificate import dual_bound
from convexbn.solvers.post_activation._merging import merge
from convexbn.solvers.post_activation._newton import newton
from convexbn.solvers.post_activation._quasi_newton import best_lengths, quasi_newton
from tests.watched import Watched

torch = pytest.importorskip("torch")


@contextmanager
def gaps_allowed():
    """A context in which a gap above the tolerance is no error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def targets_of(loss: str, n: int, n_outputs: int, rng: np.random.Generator) -> np.ndarray:
    """Targets (n, C) that a loss takes, of all classes."""
    if loss == "cross_entropy":
        return np.eye(n_outputs)[rng.permutation(np.arange(n) % n_outputs)]
    if loss in ("log_loss", "squared_hinge", "hinge"):
        return rng.permutation(np.where(np.arange(n) % 2, 1.0, -1.0))[:, None]
    return rng.standard_normal((n, n_outputs))


def make(
    seed: int, n: int, d: int, loss: str = "squared_error", n_outputs: int = 1, *, weighted: bool = False, **options
) -> tuple[np.ndarray, PostActivationBatchNormDesign, PostActivationProblem]:
    """Data, fitted design and problem."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), targets_of(loss, n, n_outputs, rng)
    weights = rng.uniform(0.5, 2, n) if weighted else None
    design = PostActivationBatchNormDesign().fit(X, sample_weight=weights)
    options = {"weight_decay": 0.06, "fit_intercept": True} | options
    return X, design, PostActivationProblem(design.matrix(X), y, loss, sample_weight=weights, **options)


def objective_in_torch(network: PostActivationBatchNormNetwork, X: np.ndarray, problem: PostActivationProblem) -> float:
    """The training objective as PyTorch has it, in train mode on the full batch."""
    module = network.to_torch(eps=1e-14).train()
    f, y = module(torch.tensor(X)), torch.tensor(problem.y)
    if problem.loss.name == "cross_entropy":
        loss = torch.nn.functional.cross_entropy(f, y)
    elif problem.loss.name == "log_loss":
        loss = torch.nn.functional.softplus(-y * f).mean()
    else:
        loss = ((f - y) ** 2).sum(dim=1).mean() / 2
    squares = sum((parameter**2).sum() for parameter in network.decayed_parameters(module))
    return float((loss + problem.weight_decay / 2 * squares).detach())


FULL_RANK = [
    (seed, loss, n_outputs, fit_intercept)
    for seed, (loss, n_outputs) in enumerate(
        [("squared_error", 1), ("squared_error", 3), ("log_loss", 1), ("cross_entropy", 3)] * 3
    )
    for fit_intercept in [seed % 2 == 0]
]


@pytest.mark.parametrize(("seed", "loss", "n_outputs", "fit_intercept"), FULL_RANK)
def test_full_row_rank_program_closed_form_solver_and_torch_agree(seed, loss, n_outputs, fit_intercept):
    X, design, problem = make(seed, 7, 9, loss, n_outputs, fit_intercept=fit_intercept)
    closed = solve(problem)
    assert closed.certificate.search.name == "CLOSED_FORM"
    assert closed.certificate.scope == "global"
    assert closed.certificate.gap < 1e-8
    objective = closed.certificate.objective
    # A neuron that is active everywhere is any linear function: its pattern alone holds an optimum.
    everywhere = enumerate_patterns(np.ones((7, 1))).take(np.array([1]))
    assert everywhere.masks().all()
    everywhere = replace(everywhere, directions=np.zeros((problem.Z.n_columns, 1)))
    program = primal_program(problem, everywhere, "gated_relu" if n_outputs > 1 else "relu")
    assert solve_program(program) == pytest.approx(objective, abs=1e-6)
    searched = solve(problem, solver="column_generation", random_state=0)
    assert searched.certificate.objective == pytest.approx(objective, abs=1e-6)
    for solution in (closed, searched):
        network = make_network(solution.neurons, design)
        assert objective_in_torch(network, X, problem) == pytest.approx(objective, abs=1e-6)


LOW_RANK = [
    (0, "squared_error", True, False),
    (1, "squared_error", False, False),
    (2, "log_loss", True, False),
    (3, "log_loss", False, True),
    (4, "huber", True, True),
    (5, "squared_error", True, True),
    (6, "squared_hinge", False, False),
    (7, "squared_error", False, True),
]


@pytest.mark.parametrize(("seed", "loss", "fit_intercept", "weighted"), LOW_RANK)
def test_low_rank_primal_dual_and_solver_agree_and_are_proved(seed, loss, fit_intercept, weighted):
    X, design, problem = make(seed, 12, 2, loss, weighted=weighted, fit_intercept=fit_intercept)
    patterns = enumerate_patterns(problem.Z)
    primal, dual = (solve_program(build(problem, patterns)) for build in (primal_program, dual_program))
    assert primal == pytest.approx(dual, abs=1e-6)
    searched = solve(problem, random_state=0)
    conic = solve(problem, solver="CLARABEL")
    for solution in (searched, conic):
        assert solution.certificate.scope == "global"
        assert solution.certificate.gap < 1e-6
        assert solution.certificate.objective == pytest.approx(primal, abs=1e-6)
    network = make_network(searched.neurons, design)
    recomputed = network.objective(X, problem.y, problem.weight_decay, loss, problem.sample_weight)
    assert recomputed == pytest.approx(searched.certificate.objective, rel=1e-9)
    if not weighted and loss in ("squared_error", "log_loss"):
        assert objective_in_torch(network, X, problem) == pytest.approx(primal, abs=1e-6)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(("loss", "n_outputs"), [("squared_error", 1), ("squared_error", 3), ("cross_entropy", 3)])
def test_gated_primal_and_dual_agree_and_bound_the_relu_network(loss, n_outputs, fit_intercept):
    _, _, problem = make(3, 7, 2, loss, n_outputs, fit_intercept=fit_intercept)
    patterns = enumerate_patterns(problem.Z)
    primal, dual = (solve_program(build(problem, patterns, "gated_relu")) for build in (primal_program, dual_program))
    assert primal == pytest.approx(dual, abs=1e-6)
    searched = solve(problem, random_state=0)  # a ReLU network is a gated one with cones
    assert primal <= searched.certificate.objective + 1e-7


def test_hinge_loss_is_solved_by_its_program():
    _, _, problem = make(1, 10, 1, "hinge")
    solution = solve(problem)
    assert solution.certificate.scope == "global"
    assert solution.certificate.gap < 1e-5
    with pytest.raises(ValueError, match="smooth losses"):
        solve(problem, solver="column_generation")


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_no_gradient_trained_network_is_below_the_bound(n_outputs):
    X, _, problem = make(2, 14, 2, n_outputs=n_outputs, weight_decay=0.05)
    solution = solve(problem, random_state=0)
    for seed in range(3):
        network, trace = train(
            X,
            problem.y,
            weight_decay=0.05,
            normalization="batch_after_relu",
            fit_intercept=True,
            n_steps=800,
            random_state=seed,
        )
        assert trace.objective[-1] >= solution.certificate.lower_bound - 1e-9
        assert trace.objective[-1] == pytest.approx(network.objective(X, problem.y, 0.05), rel=1e-9)
    assert trace.objective[-1] <= 1.1 * solution.certificate.objective  # it is the same problem


def test_problem_is_invariant_to_invertible_linear_maps():
    X, _, problem = make(4, 16, 2)
    rng = np.random.default_rng(1)
    moved = X @ rng.standard_normal((2, 2)) * 1e3 + rng.standard_normal(2)
    other = PostActivationProblem(
        np.column_stack([moved, np.ones(16)]), problem.y, weight_decay=problem.weight_decay, fit_intercept=True
    )
    first, second = (solve(given, random_state=0).certificate.objective for given in (problem, other))
    assert first == pytest.approx(second, rel=1e-5)
    model, twin = (
        ConvexBNRegressor(0.05, normalization="batch_after_relu").fit(data, problem.y[:, 0]) for data in (X, moved)
    )
    np.testing.assert_allclose(model.predict(X), twin.predict(moved), atol=2e-3)


class TestDegenerateDirections:
    Z = DesignMatrix(np.array([[-2.0, 1.0], [0.0, 1.0], [1.0, 1.0], [3.0, 1.0]]))
    p = np.full(4, 0.25)
    v = np.array([[0.4], [-0.5], [-0.2], [0.3]])

    @pytest.mark.parametrize("direction", [[0.0, -1.0], [0.0, 1.0], [-1.0, -5.0]])
    def test_activations_that_do_not_vary_are_the_constant_neuron(self, direction):
        found = priced_neurons(self.Z, self.p, self.v + 0.1, np.array(direction)[:, None])
        assert found.prices[0] == pytest.approx(abs((self.v + 0.1).sum()))
        h = self.Z.neuron_outputs(found.weights) + found.shift
        np.testing.assert_allclose(np.abs(h), 1, atol=1e-12)

    def test_active_everywhere_is_linear(self):
        found = priced_neurons(self.Z, self.p, self.v, np.array([[1.0], [9.0]]))
        h = (self.Z.neuron_outputs(found.weights) + found.shift)[:, 0]
        x = self.Z.Z[:, 0]
        standard = (x - x.mean()) / x.std()
        np.testing.assert_allclose(h, standard, atol=1e-12)

    def test_active_on_one_sample_is_its_indicator(self):
        found = priced_neurons(self.Z, self.p, self.v, np.array([[1.0], [-2.5]]))
        h = (self.Z.neuron_outputs(found.weights) + found.shift)[:, 0]
        indicator = np.array([0.0, 0, 0, 1])
        np.testing.assert_allclose(h, (indicator - 0.25) / np.sqrt(0.25 * 0.75), atol=1e-12)
        # Of all directions with one active sample the price is the same, however far the kink is.
        again = priced_neurons(self.Z, self.p, self.v, np.array([[1.0], [-2.999999]]))
        assert again.prices[0] == pytest.approx(found.prices[0], rel=1e-9)

    def test_network_with_a_dead_neuron_is_constant_in_torch_too(self):
        X = self.Z.Z[:, :1]
        network = PostActivationBatchNormNetwork(
            [[1.0], [1.0]], [2.0, 1.0], [0.5, 0.0], [[1.0], [1.0]], [0.0], [-9.0, 0.0], [0.0, 0.0], [1.0, 1.0]
        ).with_statistics(X)
        assert network.std[0] == 1
        np.testing.assert_allclose(network.hidden(X)[:, 0], 0.5)
        module = network.to_torch()
        for mode in (module.eval(), module.train()):
            np.testing.assert_allclose(mode(torch.tensor(X)).detach().numpy(), network.predict(X), atol=1e-12)

    def test_without_intercept_a_constant_is_worth_a_neuron(self):
        problem = PostActivationProblem(self.Z, [5.0, 5.1, 4.9, 5.0], weight_decay=0.1)
        solution = solve(problem, random_state=0)
        assert solution.certificate.scope == "global"
        assert solution.certificate.gap < 1e-6
        assert np.abs(solution.neurons.outputs(self.Z) - 4.9).max() < 0.05  # 5 less the weight decay
        assert weight_decay_max(problem) == pytest.approx(5, rel=1e-3)


class TestPrices:
    @pytest.mark.parametrize("centred", [True, False])
    def test_patterns_bound_every_direction_and_are_attained(self, centred):
        rng = np.random.default_rng(0)
        Z = BatchNormDesign().fit(rng.standard_normal((15, 2))).matrix(rng.standard_normal((15, 2)))
        p = rng.uniform(1, 2, 15)
        p /= p.sum()
        v = rng.standard_normal((15, 1))
        v = v - v.mean() if centred else v
        price = price_of_normalized_patterns(Z, p, enumerate_patterns(Z), v)
        drawn = priced_neurons(Z, p, v, rng.standard_normal((3, 20_000))).prices.max()
        assert drawn <= price.value * (1 + 1e-9)
        attained = priced_neurons(Z, p, v, price.direction[:, None]).prices[0]
        assert attained == pytest.approx(price.value, rel=1e-6)
        assert price.value <= normalized_price_bound(v, p).value * (1 + 1e-12)
        found = find_normalized_maxima(Z, p, v, rng.standard_normal((3, 300)))
        assert found.prices[0] == pytest.approx(price.value, rel=1e-6)

    @pytest.mark.parametrize("kind", ["plain", "ties", "collinear", "wide"])
    def test_the_price_of_many_patterns_is_the_largest_of_each_alone(self, kind):
        rng = np.random.default_rng(5)
        rows = rng.standard_normal((5 if kind == "wide" else 12, 3 if kind == "plain" else 5))
        if kind == "ties":
            rows = np.column_stack([rng.integers(0, 3, 12), rng.integers(0, 2, 12), np.ones(12)])
        elif kind == "collinear":
            rows = np.column_stack([rows[:, :2], rows[:, :2] @ [1.0, 2.0], np.ones(12)])
        n = len(rows)
        Z, p, v = DesignMatrix(rows), rng.dirichlet(np.full(n, 3.0)), rng.standard_normal((n, 1))
        patterns = enumerate_patterns(Z)
        alone = [
            price_of_normalized_patterns(Z, p, patterns.take(np.array([i])), v).value for i in range(len(patterns))
        ]
        assert price_of_normalized_patterns(Z, p, patterns, v).value == pytest.approx(max(alone), rel=1e-12)
        assert np.ptp(alone) > 0.01 * max(alone)

    def test_a_free_weight_is_eliminated_by_the_pairs_of_its_bounds_that_count(self):
        rng = np.random.default_rng(7)
        cone, free = rng.standard_normal((60, 3)) + np.array([1.0, 0.0, 0.0]), rng.standard_normal(60)
        free[:5] = 0.0
        lower, upper = free > 0, free < 0
        pairs = cone[lower, None] / free[lower, None, None] - (cone[upper] / free[upper, None])[None]
        system = np.concatenate([cone[:5], pairs.reshape(-1, 3)])
        assert len(system) > 700
        for along in rng.standard_normal((20, 3)):
            expected = along + system.T @ nnls(system.T, -along, maxiter=10_000)[0]
            value, x = _projected(along, cone, free[:, None])
            np.testing.assert_allclose(x, expected, atol=1e-9)
            assert value == pytest.approx(np.linalg.norm(expected), rel=1e-9, abs=1e-12)
            assert len(_without_variable(along, cone, free)[1]) < 20

    def test_price_has_room_for_the_rounding_of_columns_that_hardly_differ(self):
        rng = np.random.default_rng(6)
        x, p, v = rng.standard_normal(8), np.full(8, 1 / 8), rng.standard_normal((8, 1))
        Z = DesignMatrix(np.column_stack([x, x + 1e-7 * rng.standard_normal(8), np.ones(8)]))  # a condition of 1e7
        price = price_of_normalized_patterns(Z, p, sample_patterns(Z, 30, random_state=0), v)
        attained = priced_neurons(Z, p, v, price.direction[:, None]).prices[0]
        size = np.linalg.norm(v / np.sqrt(p)[:, None])
        assert attained + 1e7 * np.finfo(float).eps * size <= price.value <= attained + 1e-4 * size

    def test_prices_are_those_of_unit_neurons(self):
        rng = np.random.default_rng(1)
        Z, p, v = DesignMatrix(rng.standard_normal((20, 3))), np.full(20, 0.05), rng.standard_normal((20, 3))
        found = find_normalized_maxima(Z, p, v, rng.standard_normal((3, 50)), count=4)
        h = Z.neuron_outputs(found.weights) + found.shift
        np.testing.assert_allclose(p @ h**2, 1)
        along = v.T @ h
        np.testing.assert_allclose(np.linalg.norm(along, axis=0), found.prices)
        np.testing.assert_allclose(along / found.prices, found.output_directions.T, atol=1e-9)
        assert (np.diff(found.prices) <= 0).all()

    def test_bound_and_size_are_those_of_the_neuron_in_proportion_to_the_dual_point(self):
        p, v = np.array([0.05, 0.25, 0.7]), np.array([[1.0], [2.0], [-3.0]])
        h = v[:, 0] / p
        h /= np.sqrt(p @ h**2)
        assert normalized_price_bound(v, p).value == pytest.approx(v[:, 0] @ h)
        problem = PostActivationProblem(np.eye(3), v[:, 0], weight_decay=0.1, sample_weight=p)
        assert price_size(problem, v) >= np.abs(v[:, 0]) @ np.abs(h) * (1 - 1e-12)

    def test_starts_are_moved_to_their_best_threshold(self):
        rng = np.random.default_rng(4)
        Z, p = DesignMatrix(np.column_stack([rng.standard_normal((30, 2)), np.ones(30)])), rng.uniform(1, 2, 30)
        p, v, starts = p / p.sum(), rng.standard_normal((30, 2)), rng.standard_normal((3, 6))
        v -= v.mean(axis=0)
        moved = priced_neurons(Z, p, v, _with_best_offsets(Z, p, v, starts)).prices
        for j in (0, 2, 4):
            thresholds = starts[:, [j]] - np.array([[0.0], [0.0], [1.0]]) * (Z @ starts[:, [j]])[:, 0]
            assert moved[j] == pytest.approx(priced_neurons(Z, p, v, thresholds).prices.max(), rel=1e-9)

    @pytest.mark.parametrize("n_outputs", [1, 3])
    def test_gradient_of_the_ascent_is_the_derivative_of_the_price(self, n_outputs):
        rng = np.random.default_rng(5)
        Z, p, w = DesignMatrix(np.eye(6)), rng.uniform(1, 2, 6), rng.uniform(0.5, 2, (6, 1))
        p, v, step = p / p.sum(), rng.standard_normal((6, n_outputs)), 1e-6
        _, derivatives, _, prices = _gradient(Z, p, v, w)
        assert prices[0] == pytest.approx(priced_neurons(Z, p, v, w).prices[0])
        moved = [priced_neurons(Z, p, v, w + sign * step * np.eye(6)).prices for sign in (1, -1)]
        np.testing.assert_allclose(derivatives[:, 0], (moved[0] - moved[1]) / (2 * step), atol=1e-7)

    def test_polish_only_raises_prices(self):
        rng = np.random.default_rng(2)
        Z = DesignMatrix(np.column_stack([rng.standard_normal((60, 4)), np.ones(60)]))
        p, v = np.full(60, 1 / 60), rng.standard_normal((60, 1))
        starts = rng.standard_normal((5, 100))
        coarse = find_normalized_maxima(Z, p, v, starts, polish=False)
        fine = find_normalized_maxima(Z, p, v, starts)
        assert fine.prices[0] >= coarse.prices[0]

    def test_threshold_and_stop(self):
        rng = np.random.default_rng(3)
        Z, p, v = DesignMatrix(rng.standard_normal((20, 3))), np.full(20, 0.05), rng.standard_normal((20, 1))
        starts = rng.standard_normal((3, 20))
        assert len(find_normalized_maxima(Z, p, v, starts, threshold=1e6)) == 0
        assert len(find_normalized_maxima(Z, p, v, starts, stop=lambda: True)) > 0
        assert price_of_normalized_patterns(Z, p, enumerate_patterns(Z), v, stop=lambda: True) is None
        assert not normalized_quickly_enumerated(Z, 2)

    def test_zero_network_is_optimal_from_the_largest_weight_decay_on(self):
        for n_outputs in (1, 3):
            _, _, problem = make(5, 16, 2, n_outputs=n_outputs)
            largest = weight_decay_max(problem)
            above, below = (
                solve(replace(problem, weight_decay=share * largest), random_state=0) for share in (1.001, 0.98)
            )
            assert len(above.neurons) == 0
            assert len(below.neurons) > 0
            assert above.certificate.gap < 1e-6


class TestSteps:
    def start(self, problem: PostActivationProblem, m: int = 6) -> NormalizedNeurons:
        rng = np.random.default_rng(7)
        weights, outputs = rng.standard_normal((problem.Z.n_columns, m)), rng.standard_normal((m, problem.n_outputs))
        return problem.neurons(weights, 0.1 * outputs, problem.zero_network.intercept)

    @pytest.mark.parametrize(("loss", "n_outputs"), [("squared_error", 1), ("log_loss", 1), ("cross_entropy", 3)])
    @pytest.mark.parametrize("fit_intercept", [True, False])
    def test_newton_ends_where_no_small_move_helps(self, loss, n_outputs, fit_intercept):
        _, _, problem = make(8, 20, 2, loss, n_outputs, fit_intercept=fit_intercept)
        start = self.start(problem)
        coarse = quasi_newton(problem, start, max_steps=100)
        fine = newton(problem, coarse, rtol=1e-12, max_steps=80, stop=lambda: False)
        assert problem.objective(fine) <= problem.objective(coarse) < problem.objective(start)
        rng, least = np.random.default_rng(0), problem.objective(fine)
        for size in (1e-3, 1e-5):
            for _ in range(50):
                moved = NormalizedNeurons.on(
                    problem.Z,
                    problem.sample_weight,
                    fine.scaled_weights + size * rng.standard_normal(fine.weights.shape),
                    fine.shift + size * rng.standard_normal(len(fine)),
                    fine.output_weights + size * rng.standard_normal(fine.output_weights.shape),
                    fine.intercept,
                )
                assert problem.objective(moved) >= least - 1e-10

    def test_best_lengths_are_those_of_the_convex_problem(self):
        import cvxpy as cp

        _, _, problem = make(9, 25, 3)
        neurons = self.start(problem, 8)
        found = best_lengths(problem, neurons, max_steps=500)
        a, b = cp.Variable(8, nonneg=True), cp.Variable()
        f = (neurons.hidden(problem.Z) * neurons.output_weights[:, 0]) @ a + b
        loss = cp.sum_squares(f - problem.y[:, 0]) / 50
        program = cp.Problem(cp.Minimize(loss + problem.weight_decay * neurons.cost @ a))
        assert problem.objective(found) == pytest.approx(solve_program(program), rel=1e-6)

    def test_neurons_whose_squares_underflow_are_merged_without_a_warning(self):
        _, _, problem = make(10, 20, 2)
        k, C = problem.Z.n_columns, problem.n_outputs
        tiny = NormalizedNeurons.on(
            problem.Z, problem.sample_weight, np.zeros((k, 2)), np.full(2, 1e-170), np.ones((2, C)), np.zeros(C)
        )
        assert problem.objective(merge(problem, tiny)) <= problem.objective(tiny)

    def test_merging_equal_neurons_changes_nothing(self):
        _, _, problem = make(10, 20, 2)
        one = self.start(problem, 1)
        twice = one.joined(one.with_lengths(np.full(1, 0.5), one.intercept))
        for fewer in (merge(problem, twice), prune_normalized(twice, problem.Z, problem.sample_weight)):
            assert len(fewer) == 1
            np.testing.assert_allclose(fewer.outputs(problem.Z), twice.outputs(problem.Z), atol=1e-12)

    def test_many_neurons_are_pruned_before_pairs_are_compared(self):
        _, _, problem = make(11, 20, 2)
        many = self.start(problem, 1200)
        few = merge(problem, many)
        assert len(few) <= 21
        assert problem.objective(few) <= problem.objective(many)

    def test_caratheodory_keeps_outputs_and_cost(self):
        _, _, problem = make(11, 6, 2)
        many = self.start(problem, 60)
        few = prune_normalized(many, problem.Z, problem.sample_weight)
        assert len(few) <= 7
        np.testing.assert_allclose(few.outputs(problem.Z), many.outputs(problem.Z), atol=1e-9)
        assert few.cost.sum() <= many.cost.sum() * (1 + 1e-9)

    def test_averaged_networks_average_outputs(self):
        _, _, problem = make(12, 10, 2)
        networks = [self.start(problem, m) for m in (3, 1)] + [problem.zero_network]
        mean = np.mean([network.outputs(problem.Z) for network in networks], axis=0)
        np.testing.assert_allclose(NormalizedNeurons.averaged(networks).outputs(problem.Z), mean, atol=1e-12)


@pytest.fixture(scope="module")
def trained():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3)) * [1.0, 20.0, 0.1] + 5
    y = np.abs(X[:, 0] - 5) + np.sin(X[:, 1])
    return X, y, ConvexBNRegressor(0.05, normalization="batch_after_relu", prove=False).fit(X, y)


class TestNetwork:
    def test_torch_equals_predict_in_both_modes_and_back(self, trained):
        X, _, model = trained
        network = model.network_
        assert [type(layer).__name__ for layer in network.to_torch()] == ["Linear", "ReLU", "BatchNorm1d", "Linear"]
        for eps in (1e-12, 1e-5, 1e-2):
            module = network.to_torch(eps=eps)
            np.testing.assert_allclose(module(torch.tensor(X)).detach().numpy(), network.predict(X), atol=1e-9)
            back = PostActivationBatchNormNetwork.from_torch(module)
            np.testing.assert_allclose(back.predict(X + 1), network.predict(X + 1), atol=1e-9)
            batch = module.train()(torch.tensor(X)).detach().numpy()
            np.testing.assert_allclose(batch, network.predict(X), atol=1e-9)

    def test_reads_a_module_without_affine_parameters_or_hidden_bias(self, trained):
        X = torch.tensor(trained[0])
        torch.manual_seed(0)
        module = torch.nn.Sequential(
            torch.nn.Linear(3, 4, bias=False),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.5),
            torch.nn.BatchNorm1d(4, affine=False),
            torch.nn.Linear(4, 2),
        ).double()
        module(X)
        module.eval()
        network = PostActivationBatchNormNetwork.from_torch(module)
        np.testing.assert_allclose(network.predict(trained[0]), module(X).detach().numpy(), atol=1e-10)
        with pytest.raises(ValueError, match="Linear, ReLU, BatchNorm1d, Linear"):
            PostActivationBatchNormNetwork.from_torch(torch.nn.Sequential(module[0], module[3], module[1], module[4]))

    def test_objective_is_that_of_the_certificate(self, trained):
        X, y, model = trained
        objective = model.network_.objective(X, y, model.weight_decay_)
        assert objective == pytest.approx(model.certificate_.objective, rel=1e-9)

    def test_weights_equal_repeated_rows(self, trained):
        X, y, model = trained
        times = np.arange(40) % 3 + 1
        repeated, again = X.repeat(times, axis=0), y.repeat(times)
        network = model.network_
        assert network.objective(X, y, 0.1, sample_weight=times) == pytest.approx(
            network.objective(repeated, again, 0.1), rel=1e-9
        )
        mean, std = network.batch_statistics(X, times)
        np.testing.assert_allclose([mean, std], network.batch_statistics(repeated), rtol=1e-9)

    def test_statistics_are_those_of_all_blocks_together(self, trained, monkeypatch):
        X, _, model = trained
        network, weights = model.network_, np.arange(40) % 3 + 1.0
        active = np.maximum(X @ network.weights.T + network.offsets, 0)
        mean = np.average(active, axis=0, weights=weights)
        std = np.sqrt(np.average((active - mean) ** 2, axis=0, weights=weights))
        monkeypatch.setattr("convexbn.network._post_activation._BLOCK_ENTRIES", 7 * max(network.weights.shape))
        np.testing.assert_allclose(network.batch_statistics(X, weights), [mean, std], rtol=1e-12)

    def test_save_load_prune(self, trained, tmp_path):
        X, y, model = trained
        network = model.network_
        for ending in ("json", "npz"):
            network.save(tmp_path / f"network.{ending}")
            loaded = PostActivationBatchNormNetwork.load(tmp_path / f"network.{ending}")
            np.testing.assert_array_equal(loaded.predict(X), network.predict(X))
        doubled = replace(
            network,
            **{
                name: np.concatenate([getattr(network, name)] * 2)
                for name in ("weights", "gamma", "bias", "offsets", "mean", "std")
            },
            output_weights=np.concatenate([network.output_weights] * 2) / 2,
        )
        pruned = doubled.prune(X)
        assert len(pruned) <= len(network)
        np.testing.assert_allclose(pruned.predict(X), network.predict(X), atol=1e-9)
        assert pruned.objective(X, y, 0.05) <= doubled.objective(X, y, 0.05)
        with pytest.raises(ValueError, match="prune needs the training data"):
            network.prune(X[:20])

    def test_bad_fields_are_named(self):
        one = np.ones(1)
        with pytest.raises(ValueError, match="std must be positive"):
            PostActivationBatchNormNetwork([[1.0]], one, one, [[1.0]], one, one, one, 0 * one)
        with pytest.raises(ValueError, match="offsets must have shape"):
            PostActivationBatchNormNetwork([[1.0]], one, one, [[1.0]], one, np.ones(2), one, one)

    def test_at_initialization_is_normalized(self):
        X = np.random.default_rng(0).standard_normal((30, 2)) + 10
        network = PostActivationBatchNormNetwork.at_initialization(X, 5, n_outputs=2, random_state=0)
        np.testing.assert_allclose(network.hidden(X).mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(network.hidden(X).std(axis=0), 1, atol=1e-12)


class TestEstimators:
    X = np.random.default_rng(0).standard_normal((30, 2))
    y = np.abs(X[:, 0]) + 0.1 * X[:, 1]

    def test_default_fit_chooses_a_weight_decay(self):
        with gaps_allowed():
            model = ConvexBNRegressor(normalization="batch_after_relu").fit(self.X, self.y)
        assert model.score(self.X, self.y) > 0.9
        assert model.spectral_power_ == 0
        assert len(model.validation_scores_["weight_decay"]) > 3

    def test_classifier_of_three_classes(self):
        labels = np.digitize(self.X[:, 0], [-0.5, 0.5])
        model = ConvexBNClassifier(0.02, normalization="batch_after_relu", max_iter=5, prove=False)
        with gaps_allowed():
            model.fit(self.X, labels)
        assert model.score(self.X, labels) > 0.9
        np.testing.assert_allclose(model.predict_proba(self.X).sum(axis=1), 1)

    def test_one_class_and_constant_targets(self):
        model = ConvexBNRegressor(normalization="batch_after_relu").fit(self.X, np.full(30, 3.0))
        np.testing.assert_allclose(model.predict(self.X), 3)
        assert model.certificate_.objective == 0

    def test_cross_validation(self):
        with gaps_allowed():
            model = ConvexBNRegressorCV(normalization="batch_after_relu", cv=3, n_weight_decays=4).fit(self.X, self.y)
        assert model.score(self.X, self.y) > 0.8

    def test_path_falls_and_is_certified(self):
        with gaps_allowed():
            path = convexbn_path(self.X, self.y, normalization="batch_after_relu", n_weight_decays=4, eps=0.05)
        assert len(path.networks[0]) == 0
        assert (np.diff(path.objectives) < 0).all()
        assert (path.gaps[:3] < 1e-2).all()
        problem = make(0, 20, 2)[2]
        solutions = solve_path(problem, weight_decay_max(problem) * np.array([0.5, 0.3, 0.2]), random_state=0)
        assert max(solution.certificate.gap for solution in solutions) < 1e-5

    def test_comparison(self):
        runs = {"Adam": {"n_steps": 200}}
        comparison = compare(
            self.X[:15, :2], self.y[:15], weight_decay=0.1, normalization="batch_after_relu", runs=runs
        )
        assert isinstance(comparison.network, PostActivationBatchNormNetwork)
        assert comparison.best("Adam") >= comparison.certificate.lower_bound

    def test_start_of_training_is_a_network_and_goes_on(self):
        network, trace = train(
            self.X, self.y, weight_decay=0.01, normalization="batch_after_relu", n_steps=30, random_state=0
        )
        _, later = train(self.X, self.y, weight_decay=0.01, start=network, n_steps=5)
        assert later.objective[0] == pytest.approx(trace.objective[-1], rel=1e-6)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"activation": "gated_relu"}, "activation='gated_relu'"),
            ({"spectral_power": 1.0}, "spectral_power=1.0"),
            ({"normalization": "after"}, "normalization='after'"),
        ],
    )
    def test_bad_parameters_are_named(self, options, message):
        with pytest.raises(ValueError, match=message):
            ConvexBNRegressor(**{"normalization": "batch_after_relu"} | options).fit(self.X, self.y)

    def test_proof_after_the_fit_says_where_it_is(self):
        model = ConvexBNRegressor(0.3, normalization="batch_after_relu").fit(self.X, self.y)
        with pytest.raises(ValueError, match="certificate_"):
            prove(model, self.X, self.y)


class TestBadInput:
    def test_pooled_designs(self):
        images = np.random.default_rng(0).standard_normal((6, 1, 3, 3))
        Z = PatchDesign(2).fit(images).matrix(images)
        with pytest.raises(ValueError, match="dense networks alone"):
            PostActivationProblem(Z, np.ones(6), weight_decay=0.1)

    def test_starts_of_another_kind(self):
        _, _, problem = make(0, 10, 2)
        plain = Problem(problem.Z, problem.y, weight_decay=0.1).zero_network
        with pytest.raises(ValueError, match="NormalizedNeurons"):
            solve(problem, start=plain)
        wrong = make(0, 10, 3)[2].neurons(np.ones((4, 1)), np.ones((1, 1)), np.zeros(1))
        with pytest.raises(ValueError, match="3 weights"):
            solve(problem, start=wrong)

    def test_neurons_of_the_other_placement(self):
        X, _, problem = make(0, 10, 2)
        before = Problem(problem.Z, problem.y, weight_decay=0.1)
        layers = np.ones((3, 1)), np.ones((1, 1)), np.zeros(1)
        plain, normalized = before.neurons(*layers), problem.neurons(*layers)
        with pytest.raises(ValueError, match="PostActivationBatchNormDesign"):
            make_network(normalized, BatchNormDesign().fit(X))
        with pytest.raises(ValueError, match="takes NormalizedNeurons"):
            make_network(plain, PostActivationBatchNormDesign().fit(X))
        with pytest.raises(ValueError, match="Neurons of a ReLU network"):
            solve(before, start=normalized)
        with pytest.raises(ValueError, match="must be Neurons"):
            prune(normalized, problem.Z)

    def test_no_closed_form(self):
        _, _, problem = make(0, 10, 2)
        with pytest.raises(ValueError, match="rank at most 3"):
            solve(problem, solver="closed_form")
        rng = np.random.default_rng(0)
        without = PostActivationProblem(rng.standard_normal((5, 5)), rng.standard_normal(5), weight_decay=0.1)
        assert solve(without, solver="closed_form").certificate.scope == "global"  # of rank n a constant is there
        twice = PostActivationProblem(np.ones((3, 4)), np.arange(3.0), weight_decay=0.1)
        with pytest.raises(ValueError, match="not of full row rank"):
            solve(twice, solver="closed_form")

    def test_gated_networks_have_programs_only(self):
        _, _, problem = make(0, 10, 2)
        with pytest.raises(ValueError, match="primal_program"):
            solve(problem, activation="gated_relu")
        _, _, several = make(0, 10, 2, n_outputs=2)
        with pytest.raises(ValueError, match="one output"):
            primal_program(several, enumerate_patterns(several.Z))

    def test_shapes_of_neurons(self):
        one = np.ones(1)
        with pytest.raises(ValueError, match="NormalizedNeurons take"):
            NormalizedNeurons(np.ones((2, 1)), one, one, one, np.ones(2), np.ones((1, 1)), one)


def test_solver_touches_no_array_outside_the_operator():
    _, _, problem = make(0, 15, 2)
    watched = PostActivationProblem(
        Watched(problem.Z.Z), problem.y, weight_decay=problem.weight_decay, fit_intercept=True
    )
    first, second = solve(problem, random_state=0), solve(watched, random_state=0)
    assert first.certificate.objective == pytest.approx(second.certificate.objective, rel=1e-9)


def test_limits_are_kept():
    _, _, problem = make(1, 200, 8, weight_decay=0.001)
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        solution = solve(problem, max_iter=1, random_state=0)
    assert solution.n_iter == 1
    with pytest.warns(ConvergenceWarning, match="max_time"):
        solution = solve(problem, max_time=0.2, random_state=0)
    assert solution.certificate.objective < problem.zero_objective
    assert solution.certificate.global_lower_bound <= solution.certificate.objective


@pytest.mark.parametrize("solver", [solve_closed_form, solve_column_generation])
def test_every_solver_takes_the_problem_or_says_why(solver):
    _, _, full = make(0, 7, 9)
    assert solver(full).certificate.objective == pytest.approx(solve(full).certificate.objective, rel=1e-6)
    _, _, problem = make(0, 10, 2)
    patterns = enumerate_patterns(problem.Z)
    assert solve_reference(problem, patterns).certificate.scope == "global"
    for gated in (solve_gated, partial(solve_reference, activation="gated_relu")):
        with pytest.raises(ValueError, match="primal_program"):
            gated(problem, patterns)


def test_certificates_of_given_prices_rest_on_the_bound_of_this_problem():
    _, _, problem = make(3, 12, 2)
    solution = solve(problem, random_state=0)
    local = certify(problem, solution.neurons, solution.dual, lambda v: Price(problem.weight_decay, "local"))
    assert local.global_lower_bound <= solution.certificate.lower_bound * (1 + 1e-9)
    bounds = (
        dual_bound(problem, v, normalized_price_bound(v, problem.sample_weight))
        for v in (solution.dual, problem.zero_dual)
    )
    assert local.global_lower_bound == pytest.approx(max(bounds), rel=1e-12)


def test_units_and_offsets_of_columns_do_not_change_the_optimum():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((12, 2)), rng.standard_normal(12)
    first = X[:, 0]
    plain, *moved = (
        PostActivationProblem(np.column_stack([column, X[:, 1], np.ones(12)]), y, weight_decay=0.05, fit_intercept=True)
        for column in (first, 1e-12 * first, 1e-6 * first, first + 1e7)
    )
    objective, largest = solve(plain, random_state=0).certificate.objective, weight_decay_max(plain)
    for problem in moved:
        assert solve(problem, random_state=0).certificate.objective == pytest.approx(objective, rel=2e-6)
        assert weight_decay_max(problem) == pytest.approx(largest, rel=1e-6)


def test_every_pattern_has_a_bound_no_lower_than_its_neurons():
    rng = np.random.default_rng(2)
    Z = BatchNormDesign().fit_transform(rng.standard_normal((9, 4)))
    Z, p, v = DesignMatrix(Z), np.full(9, 1 / 9), rng.standard_normal((9, 1))
    patterns = enumerate_patterns(Z)
    drawn = rng.standard_normal((5, 200_000))
    prices = priced_neurons(Z, p, v, drawn).prices
    masks = np.packbits(Z.Z @ drawn >= 0, axis=0).T
    for index in range(0, len(patterns), 20):
        one = patterns.take(np.array([index]))
        inside = (masks == one.packed).all(axis=1)
        bound = price_of_normalized_patterns(Z, p, one, v).value
        assert prices[inside].max(initial=0) <= bound * (1 + 1e-9)


def test_certificates_refuse_neurons_of_the_other_normalization():
    _, _, problem = make(0, 10, 2)
    plain = Problem(problem.Z, problem.y, weight_decay=0.1)
    for one, other in ((problem, plain), (plain, problem)):
        with pytest.raises(ValueError, match="whose normalization is another"):
            certify(one, other.zero_network, one.zero_dual, lambda v: Price(1.0, "local"))
