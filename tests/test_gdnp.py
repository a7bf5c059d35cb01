"""Gradient descent in normalized parametrization, held against its theorems and against other methods."""

import json
import re
import sys

import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.datasets import dump_svmlight_file, load_breast_cancer, load_digits

from benchmarks import gdnp as benchmark
from convexbn.gradient import DivergenceError
from convexbn.gradient.gdnp import (
    FUNCTIONS,
    GaussianHalfspace,
    LearningHalfspace,
    LeastSquares,
    Moments,
    SmoothFunction,
    accelerated_gradient_descent,
    batch_norm_descent,
    gdnp,
    gdnp_network,
    gradient_descent,
    lbfgs,
)
from convexbn.gradient.gdnp._network import HiddenUnit

PEERS = [gradient_descent, accelerated_gradient_descent, batch_norm_descent, lbfgs]
D = 6


def moments_of(condition, d=D, seed=0, size=0.5):
    """S of this condition number and u with u^T S^-1 u = size^2, in general position."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    S = basis * np.geomspace(1, 1 / condition, d) @ basis.T
    u = np.linalg.cholesky(S) @ rng.standard_normal(d)
    return S, u * size / np.sqrt(u @ np.linalg.solve(S, u))


def regression(condition, n=300, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, D)) @ np.linalg.cholesky(moments_of(condition, seed=seed)[0]).T
    return X, X @ rng.standard_normal(D) + 0.1 * rng.standard_normal(n)


def gaussian_sample(n, condition=20, seed=0):
    """X and y such that z = -y x is Gaussian with about the moments of `moments_of`."""
    S, u = moments_of(condition)
    rng = np.random.default_rng(seed)
    z = u + rng.standard_normal((n, D)) @ np.linalg.cholesky(S - np.outer(u, u)).T
    y = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    return -y[:, None] * z, y


def random_start(seed, d=D):
    return np.random.default_rng([seed, 7]).standard_normal(d)


def cosine(S, v, w):
    return v @ S @ w / np.sqrt((v @ S @ v) * (w @ S @ w))


def gradient_error(objective, w):
    return check_grad(lambda w: objective.evaluate(w)[0], lambda w: objective.evaluate(w)[1], w)


def fitted_rate(values, least):
    """Factor by which a falling sequence falls in a step, from its second half above `least`."""
    values = values[values > least]
    half = len(values) // 2
    return float(np.exp(np.polyfit(np.arange(half, len(values)), np.log(values[half:]), 1)[0]))


class TestLeastSquares:
    @pytest.mark.parametrize("condition", [10, 100, 1000, 10000])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_below_the_bound_at_every_step(self, condition, seed):
        X, y = regression(condition, seed=seed)
        objective = LeastSquares(X, y)
        fit = gdnp(objective, start=random_start(seed), n_steps=1000, tol=1e-10)
        trace = fit.trace
        assert trace["rho_star"][0] == pytest.approx(-(y @ X) @ np.linalg.solve(X.T @ X, X.T @ y) / len(y), rel=1e-9)
        assert (trace["rho"] <= trace["rho_bound"] + 1e-12).all()
        assert (trace["rho"] >= trace["rho_star"] - 1e-12).all()
        eigenvalues = np.linalg.eigvalsh(X.T @ X / len(X))
        excess = (1 - eigenvalues[0] / eigenvalues[-1]) ** (2 * trace.steps) * (trace["rho"][0] - trace["rho_star"])
        np.testing.assert_allclose(trace["rho_bound"] - trace["rho_star"], excess, rtol=1e-6, atol=1e-14)
        np.testing.assert_allclose(trace.objective, (np.mean(y**2) + trace["rho"]) / 2, atol=1e-12)
        assert not trace["halvings"].any()

    @pytest.mark.parametrize("tight", [False, True])
    def test_rate_is_the_predicted_one(self, tight):
        S, u = moments_of(50)
        smallest = np.linalg.eigh(S)[1][:, 0]
        u -= tight * (smallest @ u) * smallest
        X = np.linalg.cholesky(D * S).T  # least squares with these moments
        objective = LeastSquares(X, -np.linalg.solve(X.T, D * u))
        trace = gdnp(objective, start=random_start(0), n_steps=400, tol=0).trace
        measured = fitted_rate(trace["rho"] - trace["rho_star"], 1e-12)
        assert measured == pytest.approx(objective.moments.local_rate**2, rel=2e-3)
        if tight:
            assert objective.moments.local_rate == pytest.approx(1 - 1 / 50, rel=1e-9)
        else:
            assert objective.moments.local_rate < 1 - 1.5 / 50

    def test_minimum_and_step_in_the_words_of_the_paper(self):
        X, y = regression(10)
        objective = LeastSquares(X, y)
        moments = objective.moments
        fit = gdnp(objective, tol=1e-10)
        assert fit.status == "converged"
        np.testing.assert_allclose(fit.weights, np.linalg.lstsq(X, y, rcond=None)[0], atol=1e-8)
        assert fit.length == pytest.approx(moments.norm(fit.weights))

        w = random_start(3)
        stepped = gdnp(objective, start=w, n_steps=1).weights
        squares, cross = w @ moments.S @ w, moments.u @ w
        gradient = -2 * cross / squares * moments.u + 2 * (cross / squares) ** 2 * (moments.S @ w)
        by_hand = w - squares / (2 * moments.L * cross**2 / squares) * gradient
        assert abs(cosine(moments.S, stepped, by_hand)) == pytest.approx(1, abs=1e-12)
        assert stepped @ moments.S @ by_hand == pytest.approx(-(moments.u @ by_hand), rel=1e-10)

    def test_starts_of_any_scale_run_alike(self):
        objective = LeastSquares(*regression(10))
        traces = [gdnp(objective, start=scale * random_start(0), n_steps=20).trace for scale in (1, -1e-3, 1e6)]
        for trace in traces[1:]:
            np.testing.assert_allclose(trace["rho"], traces[0]["rho"], rtol=1e-9)


class TestGaussianHalfspaces:
    @pytest.mark.parametrize(("loss", "max_length"), [("softplus", np.inf), ("sigmoid", 10.0)])
    @pytest.mark.parametrize("condition", [20, 50])
    def test_rate_is_that_of_the_theorem(self, loss, max_length, condition):
        halfspace = GaussianHalfspace(*moments_of(condition), loss)
        fit = gdnp(halfspace, start=random_start(1), n_steps=2000, tol=1e-10, max_length=max_length)
        trace, moments = fit.trace, halfspace.moments
        assert fit.status == "converged"
        assert (trace["rho"] <= trace["rho_bound"] + 1e-12).all()
        measured = fitted_rate(trace["rho"] - trace["rho_star"], 1e-12)
        assert measured == pytest.approx(moments.local_rate**2, rel=5e-3)
        if np.isinf(max_length):
            assert fitted_rate(trace["gradient_norm"], 1e-9) == pytest.approx(moments.local_rate, rel=5e-3)
            assert not trace["halvings"].any()

    @pytest.mark.parametrize(("loss", "max_length"), [("softplus", np.inf), ("sigmoid", 10.0)])
    def test_directions_are_those_of_least_squares_whatever_the_loss(self, loss, max_length):
        S, u = moments_of(10)
        by_loss = gdnp(GaussianHalfspace(S, u, loss), start=random_start(1), n_steps=30, tol=0, max_length=max_length)
        X = np.linalg.cholesky(D * S).T  # least squares with these S and u
        least_squares = gdnp(LeastSquares(X, -np.linalg.solve(X.T, D * u)), start=random_start(1), n_steps=30, tol=0)
        np.testing.assert_allclose(by_loss.trace["rho"], least_squares.trace["rho"], rtol=1e-8)

    def test_gradient_is_the_rayleigh_quotients_excess(self):
        """At the best length |grad|^2 in the metric of S^-1 is E[phi' - phi'' z·w]^2 (rho - rho*), up to a factor."""
        halfspace = GaussianHalfspace(*moments_of(10))
        moments = halfspace.moments
        w = random_start(2) / moments.norm(random_start(2))
        a = halfspace.along(w)
        g = halfspace.length(a, 1.0, 0.0, np.inf)
        _, weights = halfspace._quadrature
        first, second = weights @ halfspace.loss.first(g * a), weights @ halfspace.loss.second(g * a)
        factor = first - second * g * (moments.u @ w)
        squared = moments.dual_norm(halfspace.gradient(w, a, g)) ** 2
        assert squared == pytest.approx(factor**2 * (moments.rho(w) - moments.rho_star), rel=1e-9)
        assert halfspace.h(w, a, g) == pytest.approx(factor * (moments.u @ w))

    @pytest.mark.parametrize("seed", range(5))
    def test_critical_points_lie_on_the_line(self, seed):
        S, u = moments_of(10)
        ends = [
            gdnp(GaussianHalfspace(S, u), start=random_start(seed), tol=1e-9).weights,
            gdnp(GaussianHalfspace(S, u, "sigmoid"), start=random_start(seed), tol=1e-9, max_length=5.0).weights,
            gradient_descent(GaussianHalfspace(S, u), start=random_start(seed), tol=1e-9, n_steps=5000).weights,
        ]
        for weights in ends:
            assert cosine(S, weights, -np.linalg.solve(S, u)) == pytest.approx(1, abs=1e-10)

    def test_every_direction_off_the_line_has_a_gradient(self):
        halfspace = GaussianHalfspace(*moments_of(10), "sigmoid")
        for seed in range(10):
            w = random_start(seed)
            along = halfspace.moments.optimal_direction
            off = w - (w @ halfspace.moments.S @ along) / (along @ halfspace.moments.S @ along) * along
            _, gradient = halfspace.evaluate(along + off)
            assert abs(gradient @ off) > 1e-6

    def test_moments_of_a_sample_approach_the_exact_ones(self):
        exact = gdnp(GaussianHalfspace(*moments_of(20)), n_steps=2000, tol=1e-10).weights
        S = moments_of(20)[0]
        errors = []
        for n in (400, 40000):
            fit = gdnp(LearningHalfspace(*gaussian_sample(n)), n_steps=2000, tol=1e-5)
            assert fit.status == "converged"
            errors.append(np.sqrt((fit.weights - exact) @ S @ (fit.weights - exact)))
        assert errors[1] < 0.3 * errors[0]
        assert errors[1] < 0.04

    @pytest.mark.parametrize("condition", [10, 20])
    def test_sampled_gaussian_data_converges_at_the_predicted_rate(self, condition):
        halfspace = LearningHalfspace(*gaussian_sample(10000, condition))
        fit = gdnp(halfspace, start=random_start(1), n_steps=2000, tol=1e-9)
        assert fit.status == "converged"
        assert fitted_rate(fit.trace["gradient_norm"], 1e-9) == pytest.approx(halfspace.moments.local_rate, rel=1e-2)

    def test_gradient_is_that_of_samples(self):
        S, u = moments_of(5)
        halfspace = GaussianHalfspace(S, u, "sigmoid")
        w = random_start(0)
        assert gradient_error(halfspace, w) < 1e-6
        a = halfspace.along(w)
        assert halfspace.slope(a, 1.5) == pytest.approx(w @ halfspace.gradient(w, a, 1.5), rel=1e-9)


class TestObjectives:
    @pytest.mark.parametrize("name", list(FUNCTIONS))
    def test_derivatives_and_their_bounds(self, name):
        function, t, step = FUNCTIONS[name], np.linspace(-20, 20, 40001), 1e-5
        np.testing.assert_allclose(
            function.first(t), (function.value(t + step) - function.value(t - step)) / (2 * step), atol=1e-9
        )
        np.testing.assert_allclose(
            function.second(t), (function.first(t + step) - function.first(t - step)) / (2 * step), atol=1e-9
        )
        assert np.abs(function.first(t)).max() == pytest.approx(function.steepness, rel=1e-6)
        assert np.abs(function.second(t)).max() == pytest.approx(function.curvature, rel=1e-6)

    def test_any_smooth_loss_will_do(self):
        softplus = FUNCTIONS["softplus"]
        steeper = SmoothFunction(
            "steeper",
            lambda t: softplus.value(2 * t),
            lambda t: 2 * softplus.first(2 * t),
            lambda t: 4 * softplus.second(2 * t),
            steepness=2.0,
            curvature=1.0,
        )
        X, y = gaussian_sample(500, condition=5)
        half = gdnp(LearningHalfspace(X, y, steeper), tol=1e-8).weights
        np.testing.assert_allclose(2 * half, gdnp(LearningHalfspace(X, y), tol=1e-8).weights, atol=1e-6)

    def test_gradients_are_derivatives(self):
        X, y = gaussian_sample(50)
        unit = HiddenUnit(X, y, LeastSquares(X, y).moments, X[:, 0], -1.5, FUNCTIONS["tanh"], FUNCTIONS["softplus"])
        for objective in (LeastSquares(X, y), LearningHalfspace(X, y), LearningHalfspace(X, y, "sigmoid"), unit):
            w = random_start(1)
            assert gradient_error(objective, w) < 1e-6
            a = objective.along(w)
            assert objective.slope(a, 0.7) == pytest.approx(w @ objective.gradient(w, a, 0.7), rel=1e-9)

    def test_curvature_bounds_the_hessian_of_a_unit(self):
        X, y = gaussian_sample(200)
        unit = HiddenUnit(X, y, LeastSquares(X, y).moments, X[:, 0], 2.0, FUNCTIONS["tanh"], FUNCTIONS["softplus"])
        for seed in range(20):
            w, v = random_start(seed), random_start(seed + 100) * 1e-5
            change = np.linalg.norm(unit.evaluate(w + v)[1] - unit.evaluate(w - v)[1]) / 2
            assert change <= unit.smoothness * np.linalg.norm(v)

    def test_h_of_units_and_of_halfspaces_agree_for_gaussian_data(self):
        """A unit with an all but linear activation is a halfspace."""
        X, y = gaussian_sample(200000)
        halfspace = LearningHalfspace(X, y)
        linear = FUNCTIONS["tanh"]
        small = 1e-4
        unit = HiddenUnit(X, y, halfspace.moments, 0 * y, 1 / small, linear, FUNCTIONS["softplus"])
        w = halfspace.moments.optimal_direction / halfspace.moments.norm(halfspace.moments.optimal_direction)
        a, g = halfspace.along(w), 0.8
        h = unit.h(w, unit.along(w), g * small) * small
        assert h == pytest.approx(halfspace.h(w, a, g), rel=0.02)


@pytest.fixture(scope="module")
def breast_cancer():
    X, y = load_breast_cancer(return_X_y=True)
    X = X[:, [0, 1, 4]]
    return LearningHalfspace(np.column_stack([(X - X.mean(axis=0)) / X.std(axis=0), np.ones(len(X))]), 2 * y - 1)


class TestRealData:
    def test_all_methods_find_the_minimum(self, breast_cancer):
        fits = [method(breast_cancer, n_steps=3000, tol=1e-8) for method in (gdnp, *PEERS)]
        for fit in fits:
            assert fit.status == "converged"
            np.testing.assert_allclose(fit.weights, fits[-1].weights, atol=1e-5)
            assert fit.trace["gradient_norm"][-1] <= 1e-8
            assert fit.trace["length"][-1] == pytest.approx(fit.length)
        assert len(fits[0].trace) < len(fits[1].trace) / 2  # its step is that of the local curvature

    def test_objective_never_rises(self, breast_cancer):
        trace = gdnp(breast_cancer, start=[1.0, 0.0, 0.0, 3.0], tol=1e-8).trace
        assert (np.diff(trace.objective) <= 1e-14).all()

    def test_steps_that_the_gaussian_formula_makes_too_long_are_halved(self):
        """Most samples are saturated along the first column; the few that are not are long along the second."""
        rng = np.random.default_rng(0)
        few = rng.random(1000) < 0.05
        y = np.where(rng.random(1000) < 0.5, 1, -1)
        X = np.column_stack([np.where(few, 0.0, y * (rng.random(1000) > 0.005)), 3 * few * rng.choice([-1, 1], 1000)])
        X += 0.01 * rng.standard_normal((1000, 2)) - (rng.random(1000) < 0.01)[:, None] * y[:, None] * [1, 0]
        fit = gdnp(LearningHalfspace(X, y), n_steps=20000, tol=1e-6)
        assert fit.trace["halvings"].any()
        assert (np.diff(fit.trace.objective) <= 1e-13).all()
        assert fit.status == "converged"

    def test_separable_data_is_said_to_be_separable(self):
        X, y = load_digits(n_class=2, return_X_y=True)
        X = (X - X.mean(axis=0)) @ np.linalg.svd(X - X.mean(axis=0), full_matrices=False)[2][:20].T
        halfspace = LearningHalfspace(X, 2 * y - 1)
        fit = gdnp(halfspace)
        assert fit.status == "separable"
        assert (X @ fit.weights * (2 * y - 1) > 0).all()
        assert fit.trace["gradient_norm"][-1] <= 1e-6
        for method in PEERS:
            assert method(halfspace, n_steps=50).status == "separable"

    def test_zero_is_the_minimum_where_classes_have_one_mean(self):
        X = np.array([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])
        for objective in (LearningHalfspace(X, [1, 1, -1, -1]), LeastSquares(X, [1, 1, -1, -1])):
            for method in (gdnp, *PEERS):
                fit = method(objective)
                assert (fit.status, fit.length) == ("converged", 0.0)


class TestPeers:
    def test_accelerated_is_faster_and_descent_has_the_rate_of_its_theory(self):
        objective = LeastSquares(*regression(100))
        fits = {method: method(objective, n_steps=3000, tol=1e-8) for method in PEERS}
        assert all(fit.status == "converged" for fit in fits.values())
        for fit in fits.values():
            np.testing.assert_allclose(fit.weights, fits[lbfgs].weights, atol=1e-5)
        rate = fitted_rate(fits[gradient_descent].trace["gradient_norm"], 1e-8)
        assert rate == pytest.approx(objective.moments.rate, rel=1e-3)
        assert len(fits[accelerated_gradient_descent].trace) < len(fits[gradient_descent].trace) / 5
        accelerated = fitted_rate(fits[accelerated_gradient_descent].trace["gradient_norm"], 1e-8)
        assert accelerated == pytest.approx(np.sqrt(1 - np.sqrt(1 - objective.moments.rate)) ** 2, rel=0.02)

    def test_momentum_grows_as_nesterov_has_it_for_convex_functions(self):
        halfspace = LearningHalfspace(*gaussian_sample(100))
        fit = accelerated_gradient_descent(halfspace, n_steps=30, tol=0)
        t, point, w, by_hand = 1.0, np.zeros(D), np.zeros(D), []
        for _ in range(31):
            value, gradient = halfspace.evaluate(w)
            by_hand.append(value)
            reached = w
            t_after = (1 + np.sqrt(1 + 4 * t**2)) / 2
            point_after = w - gradient / halfspace.smoothness
            w = point_after + (t - 1) / t_after * (point_after - point)
            t, point = t_after, point_after
        np.testing.assert_allclose(fit.trace.objective, by_hand, rtol=1e-12)
        np.testing.assert_allclose(fit.weights, reached, rtol=1e-10)

    @pytest.mark.parametrize("method", [gradient_descent, accelerated_gradient_descent])
    def test_too_long_steps_diverge(self, method):
        with pytest.raises(DivergenceError, match="smaller steps"):
            method(LeastSquares(*regression(10)), learning_rate=100.0)

    @pytest.mark.parametrize("method", PEERS[:3])
    @pytest.mark.parametrize(("learning_rate", "n_steps"), [(1e4, 500), (50.0, 3)])
    def test_too_long_steps_diverge_also_where_the_loss_is_lipschitz(self, method, learning_rate, n_steps):
        halfspace = LearningHalfspace(*gaussian_sample(100))
        message = f"smaller steps than learning_rate={learning_rate:.3g}, or None"
        with pytest.raises(DivergenceError, match=re.escape(message)) as raised:
            method(halfspace, learning_rate=learning_rate, n_steps=n_steps)
        objective = raised.value.trace.objective
        assert len(objective) == n_steps + 1
        assert objective[-1] > 1.1 * max(objective[0], np.log(2))
        assert method(halfspace, n_steps=n_steps, tol=0).status == "stopped"

    @pytest.mark.parametrize("method", [gdnp, *PEERS])
    def test_ends(self, method, monkeypatch, capsys):
        objective = LeastSquares(*regression(100))
        for n_steps in (0, 3):
            fit = method(objective, n_steps=n_steps, tol=0, verbose=True)
            assert (fit.status, fit.trace.steps.tolist()) == ("stopped", list(range(n_steps + 1)))
            assert objective.evaluate(fit.weights)[0] == pytest.approx(fit.trace.objective[-1])
        assert capsys.readouterr().err
        assert method(objective, start=np.linalg.lstsq(*regression(100), rcond=None)[0]).trace.steps[-1] <= 2

        gradient, calls = LeastSquares.gradient, []

        def interrupted(self, *arguments):
            calls.append(1)
            if len(calls) == 5:
                raise KeyboardInterrupt
            return gradient(self, *arguments)

        monkeypatch.setattr(LeastSquares, "gradient", interrupted)
        fit = method(objective)
        assert fit.status == "interrupted"
        assert fit.trace.interrupted
        assert np.isfinite(fit.weights).all()


class TestNetworks:
    @pytest.mark.parametrize(
        ("activation", "loss"), [("tanh", "softplus"), ("tanh", "sigmoid"), ("softplus", "softplus")]
    )
    def test_units_lie_on_the_line_for_gaussian_data(self, activation, loss):
        aligned = []
        for n in (200, 30000):
            X, y = gaussian_sample(n, condition=5)
            layer = gdnp_network(X, y, n_units=3, activation=activation, loss=loss, n_sweeps=1, tol=1e-4)
            aligned.append(1 - np.abs(layer.trace["alignment"][-1]).min())
        assert aligned[1] < 3e-3
        assert aligned[1] < aligned[0] / 5

    def test_objective_falls_and_gradients_vanish(self):
        X, y = gaussian_sample(1000, condition=5)
        layer = gdnp_network(X, y, n_units=2, n_sweeps=60, tol=1e-5)
        trace = layer.trace
        assert (np.diff(trace.objective) <= 1e-12).all()
        assert (trace["gradient_norms"][-1] <= 1e-5).all()
        assert len(trace) < 2 * 60 + 1
        value = np.mean(np.logaddexp(0, -y * layer.predict(X)))
        assert value == pytest.approx(trace.objective[-1])
        np.testing.assert_allclose(trace["lengths"][-1], [LeastSquares(X, y).moments.norm(w) for w in layer.weights])

    def test_ctrl_c_within_a_unit_ends_the_run_after_the_unit_before(self, monkeypatch):
        X, y = gaussian_sample(200)
        gradient, calls = HiddenUnit.gradient, []

        def interrupted(self, *arguments):
            calls.append(1)
            if len(calls) == 14:  # a unit takes 11
                raise KeyboardInterrupt
            return gradient(self, *arguments)

        options = {"n_units": 3, "n_steps": 10, "tol": 0}
        whole = gdnp_network(X, y, **options)
        monkeypatch.setattr(HiddenUnit, "gradient", interrupted)
        layer = gdnp_network(X, y, **options)
        assert len(calls) == 14
        assert layer.trace.interrupted
        assert layer.trace.objective.tolist() == whole.trace.objective[:2].tolist()
        assert layer.weights.any(axis=1).tolist() == [True, False, False]

    def test_gradient_norms_are_those_of_the_network(self):
        X, y = gaussian_sample(200)
        theta = np.array([1.0, -2.0])
        layer = gdnp_network(X, y, n_units=2, output_weights=theta, n_sweeps=1, n_steps=2, max_length=2.0)
        others = theta[0] * np.tanh(X @ layer.weights[0])
        unit = HiddenUnit(
            X, y, Moments(X.T @ X / len(X), 0 * X[0]), others, -2.0, FUNCTIONS["tanh"], FUNCTIONS["softplus"]
        )
        _, gradient = unit.evaluate(layer.weights[1])
        assert layer.trace["gradient_norms"][-1, 1] == pytest.approx(unit.moments.dual_norm(gradient))
        assert (layer.trace["lengths"][-1] <= 2.0 + 1e-12).all()
        assert layer.trace["direction_steps"].tolist() == [0, 2, 2]

    def test_random_state_decides(self):
        X, y = gaussian_sample(200)
        layers = [gdnp_network(X, y, n_units=1, n_sweeps=1, n_steps=1, random_state=seed).weights for seed in (0, 0, 1)]
        np.testing.assert_array_equal(layers[0], layers[1])
        assert not np.allclose(layers[0], layers[2])


def test_quick_benchmark_writes_results_and_picture(tmp_path, monkeypatch, pictures):
    a9a = tmp_path / "a9a"
    dump_svmlight_file(*gaussian_sample(60, condition=3), str(a9a))
    monkeypatch.setattr(sys, "argv", ["gdnp", "--quick", "--a9a", str(a9a), "--output", str(tmp_path)])
    benchmark.main()
    results = json.loads((tmp_path / "gdnp.json").read_text())
    assert list(results["data"]) == ["Gaussian", "breast cancer, means", "a9a"]
    for measured in results["data"].values():
        assert list(measured["methods"]) == list(benchmark.METHODS)
        for row in measured["methods"].values():
            assert (row["steps_to"] is None) == (row["excess"] > benchmark.WITHIN)
            assert row["curve_excess"][-1] == max(row["excess"], 0)
    rows = benchmark.targets(results["data"])
    assert all(row["figure"].startswith("GDNP") for row in rows)
    rates = [f"{results['data']['Gaussian'][f'rate_{kind}']:.4f}" for kind in ("measured", "predicted")]
    assert [all(rate in row["figure"] for rate in rates) for row in rows] == [True, False, False]
    figure = pictures["gdnp.png"]
    for ax, (name, measured) in zip(figure.axes, results["data"].items(), strict=True):
        assert ax.get_title().startswith(f"{name}: n = {measured['n']}, d = {measured['d']}")
        curves = {line.get_label(): line for line in ax.lines if line.get_label() in benchmark.METHODS}
        assert list(curves) == list(measured["methods"])
        for method, row in measured["methods"].items():
            np.testing.assert_allclose(curves[method].get_xdata(), np.array(row["curve_steps"]) + 1)
            np.testing.assert_allclose(
                curves[method].get_ydata(), np.maximum(row["curve_excess"], benchmark.FLOOR), rtol=1e-6
            )
    legend = next(ax.get_legend() for ax in figure.axes if ax.get_legend())
    assert [text.get_text() for text in legend.get_texts()] == list(benchmark.METHODS)


X, Y = gaussian_sample(50)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LeastSquares(X, Y[:-1]), "inconsistent numbers of samples"),
        (lambda: LeastSquares(X, np.where(Y > 0, "a", "b")), "y must hold numbers"),
        (lambda: LeastSquares(X[0], Y), "Expected 2D array"),
        (lambda: LeastSquares(np.column_stack([X, X[:, 0]]), Y), r"singular: 6 of its 7 columns .* Drop"),
        (lambda: LearningHalfspace(np.column_stack([X, np.zeros(50)]), Y), "singular: 6 of its 7"),
        (lambda: LearningHalfspace(np.where(X > 1, np.nan, X), Y), "NaN"),
        (lambda: LearningHalfspace(X, (Y + 1) / 2), "labels -1 and \\+1"),
        (lambda: LearningHalfspace(X, Y, "hinge"), r"loss='hinge' is unknown; choose one of \['softplus', 'sigmoid'\]"),
        (lambda: LearningHalfspace(X, Y, []), r"loss=\[\] is unknown"),
        (lambda: GaussianHalfspace(np.eye(2), np.zeros(3)), r"they have \(2, 2\) and \(3,\)"),
        (lambda: GaussianHalfspace([[1.0, 0.5], [0.0, 1.0]], np.zeros(2)), "S must be symmetric"),
        (lambda: GaussianHalfspace(-np.eye(2), np.zeros(2)), "singular"),
        (lambda: GaussianHalfspace(np.eye(2), np.ones(2)), "u is too long"),
        (lambda: Moments(np.eye(2), np.zeros(2)).local_rate, "u = E.* is zero, so there is no optimal direction"),
        (lambda: gdnp(LeastSquares(X, Y), start=np.ones(3)), r"start has shape \(3,\)"),
        (lambda: gdnp(LeastSquares(X, Y), start=np.zeros(D)), "start is zero or orthogonal"),
        (lambda: gdnp(LeastSquares(X, Y), start=np.full(D, np.nan)), "NaN"),
        (lambda: gdnp(LeastSquares(X, Y), n_steps=-1), "n_steps=-1"),
        (lambda: gdnp(LeastSquares(X, Y), n_steps=2.0), "n_steps=2.0"),
        (lambda: gdnp(LeastSquares(X, Y), tol=-1.0), "tol=-1.0"),
        (lambda: gdnp(LeastSquares(X, Y), tol="small"), "tol='small'"),
        (lambda: gdnp(LeastSquares(X, Y), max_length=0.0), "max_length=0.0"),
        (lambda: gdnp(LeastSquares(X, Y), max_length=[]), r"max_length=\[\]"),
        (lambda: gradient_descent(LeastSquares(X, Y), learning_rate=0.0), "learning_rate=0.0"),
        (lambda: gradient_descent(LeastSquares(X, Y), learning_rate="auto"), "learning_rate='auto'"),
        (lambda: batch_norm_descent(LeastSquares(X, Y), learning_rate=-1.0), "learning_rate=-1.0"),
        (lambda: lbfgs(LeastSquares(X, Y), start=np.ones(2)), r"start has shape \(2,\)"),
        (lambda: gdnp_network(X, Y, n_units=0), "n_units=0"),
        (lambda: gdnp_network(X, Y, n_units=1, n_steps=0).predict(X[:, :2]), "X has 2 features"),
        (lambda: gdnp_network(X, Y, n_sweeps=True), "n_sweeps=True"),
        (lambda: gdnp_network(X, Y, activation="relu"), "activation='relu' is unknown"),
        (lambda: gdnp_network(X, Y, output_weights=[1.0]), "output_weights must be 5 numbers"),
        (lambda: gdnp_network(X, Y, n_units=2, output_weights=[1.0, 0.0]), "other than zero"),
        (lambda: gdnp_network(X, X[:, 0]), "labels -1 and \\+1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
