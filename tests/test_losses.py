from dataclasses import dataclass, replace

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import xlogy

from convexbn import (
    Problem,
    dual_program,
    enumerate_patterns,
    primal_program,
    solve_column_generation,
    solve_program,
    solve_reference,
)
from convexbn.losses import Huber, Loss, SquaredError, make_loss
from convexbn.solvers.conic import conjugate_expression, loss_expression
from tests.problems import ONE_OUTPUT


@pytest.fixture(params=ONE_OUTPUT)
def loss(request):
    return make_loss(request.param)


@pytest.fixture
def targets(loss):
    rng = np.random.default_rng(0)
    return (np.sign(rng.standard_normal(30)) if loss.margin else 2 * rng.standard_normal(30))[:, None]


@pytest.fixture
def predictions():
    return 2 * np.random.default_rng(1).standard_normal((30, 1))


def test_gradient_is_the_derivative_of_the_value(loss, targets, predictions):
    step = 1e-6
    difference = loss.value(predictions + step, targets) - loss.value(predictions - step, targets)
    np.testing.assert_allclose(loss.gradient(predictions, targets)[:, 0], difference / (2 * step), atol=1e-5)


def test_second_derivative_is_the_derivative_of_the_gradient(loss, targets, predictions):
    step = 1e-6
    difference = loss.gradient(predictions + step, targets) - loss.gradient(predictions - step, targets)
    np.testing.assert_allclose(loss.second_derivative(predictions, targets), difference / (2 * step), atol=1e-5)


def test_conjugate_is_the_supremum(loss, targets, predictions):
    u = 0.9 * loss.gradient(predictions, targets)
    grid = np.linspace(-60, 60, 240_001)
    for i in range(len(u)):
        by_search = (u[i] * grid - loss.value(grid[:, None], np.full((len(grid), 1), targets[i]))).max()
        assert loss.conjugate(u[i : i + 1], targets[i : i + 1])[0] == pytest.approx(by_search, abs=1e-3)


def test_fenchel_young_holds_with_equality_at_the_gradient(loss, targets, predictions):
    u = loss.gradient(predictions, targets)
    both = loss.value(predictions, targets) + loss.conjugate(u, targets)
    np.testing.assert_allclose(both, (u * predictions)[:, 0], atol=1e-12)
    other = loss.value(predictions + 0.3, targets) + loss.conjugate(u, targets)
    assert (other >= (u * (predictions + 0.3))[:, 0] - 1e-12).all()


def test_curvature_bounds_the_second_derivative(loss, targets):
    grid = np.linspace(-5, 5, 2001)[:, None]
    for y in np.unique(targets)[:5]:
        slopes = np.diff(loss.gradient(grid, np.full_like(grid, y))[:, 0]) / np.diff(grid[:, 0])
        assert slopes.max() <= loss.curvature + 1e-9
        if loss.name == "hinge":
            assert slopes.max() > 100, "no finite bound holds across the kink"
        else:
            assert slopes.max() >= 0.99 * loss.curvature


def test_expressions_agree_with_numpy(loss, targets, predictions):
    f = cp.Variable(30, value=predictions[:, 0])
    np.testing.assert_allclose(
        loss_expression(loss, f, targets[:, 0]).value, loss.value(predictions, targets), rtol=1e-9, atol=1e-12
    )
    u = cp.Variable(30, value=0.9 * loss.gradient(predictions, targets)[:, 0])
    expression, domain = conjugate_expression(loss, u, targets[:, 0])
    np.testing.assert_allclose(expression.value, loss.conjugate(u.value[:, None], targets), rtol=1e-9, atol=1e-12)
    assert expression.is_convex()
    assert all(constraint.violation().max() <= 1e-12 for constraint in domain)


def test_project_dual_lands_in_the_domain_and_leaves_it_alone(loss, targets, predictions):
    wild = 10 * predictions
    projected = loss.project_dual(wild, targets)
    assert np.isfinite(loss.conjugate(projected, targets)).all()
    np.testing.assert_array_equal(loss.project_dual(projected, targets), projected)
    outside = ~np.isfinite(loss.conjugate(wild, targets))
    np.testing.assert_array_equal((projected != wild)[:, 0], outside)


def test_best_constant(loss, targets):
    weights = np.random.default_rng(2).uniform(0.5, 1.5, 30)
    weights /= weights.sum()
    best = loss.best_constant(targets, weights)
    assert best.shape == (1,)
    searched = minimize_scalar(lambda b: weights @ loss.value(np.full((30, 1), b), targets), bounds=(-5, 5)).fun
    assert weights @ loss.value(np.full((30, 1), best), targets) <= searched + 1e-9


def test_best_constant_goes_by_weights_and_not_by_numbers(loss):
    y, weights = np.array([[1.0], [1.0], [-1.0]]), np.array([0.1, 0.15, 0.75])
    best = loss.best_constant(y, weights)
    grid = np.linspace(-2, 2, 4001)
    searched = min(weights @ loss.value(np.full((3, 1), b), y) for b in grid)
    assert best[0] < 0
    assert weights @ loss.value(np.full((3, 1), best), y) <= searched + 1e-12


def test_derivatives_at_kinks_are_those_that_are_documented():
    y = np.array([[1.0], [-1.0]])
    np.testing.assert_array_equal(make_loss("hinge").gradient(y, y), -y)  # of the side with the larger loss
    np.testing.assert_array_equal(make_loss("squared_hinge").second_derivative(y, y), 0)
    np.testing.assert_array_equal(Huber(2.0).second_derivative(2 * y, 0 * y), 0)


def test_best_constant_of_equal_targets():
    assert Huber().best_constant(np.full((3, 1), 7.0), np.full(3, 1 / 3)) == 7


def test_rescaled(loss, targets, predictions):
    if loss.margin:
        assert loss.rescaled(3.0) is loss
    else:
        scaled = 9 * loss.rescaled(3.0).value(predictions, targets)
        np.testing.assert_allclose(loss.value(3 * predictions, 3 * targets), scaled)


def test_squared_error_adds_up_outputs():
    f, y = np.ones((2, 3)), np.zeros((2, 3))
    SquaredError().check_targets(y)
    np.testing.assert_array_equal(SquaredError().value(f, y), 1.5)


def test_bad_input():
    with pytest.raises(ValueError, match="choose one of"):
        make_loss("absolute")
    with pytest.raises(ValueError, match="delta"):
        Huber(delta=0.0)
    with pytest.raises(ValueError, match="labels -1 and"):
        make_loss("hinge").check_targets(np.array([[0.0], [1.0]]))
    with pytest.raises(ValueError, match="one output"):
        make_loss("huber").check_targets(np.ones((2, 2)))


def test_best_constant_in_extreme_units():
    y = np.array([1.0, 2, 3, 10, 4])[:, None]
    equal = np.full(5, 0.2)
    assert Huber(1e-16).best_constant(1e-16 * y, equal) == pytest.approx(1e-16 * Huber(1.0).best_constant(y, equal))
    lopsided = np.array([1.0, 1e-20]) / (1 + 1e-20)
    best = make_loss("log_loss").best_constant(np.array([[1.0], [-1.0]]), lopsided)
    assert best == pytest.approx(20 * np.log(10))


class TestCrossEntropy:
    rng = np.random.default_rng(0)
    f = 2 * rng.standard_normal((20, 3))
    y = np.eye(3)[rng.integers(0, 3, 20)]
    loss = make_loss("cross_entropy")

    def difference(self, function):
        step = 1e-6 * np.eye(3)
        return np.stack([(function(self.f + e) - function(self.f - e)) / 2e-6 for e in step], axis=-1)

    def test_derivatives(self):
        gradient = self.loss.gradient(self.f, self.y)
        np.testing.assert_allclose(gradient, self.difference(lambda f: self.loss.value(f, self.y)), atol=1e-8)
        hessian = self.loss.hessian(self.f, self.y)
        np.testing.assert_allclose(hessian, self.difference(lambda f: self.loss.gradient(f, self.y)), atol=1e-8)
        np.testing.assert_allclose(
            np.diagonal(hessian, axis1=1, axis2=2), self.loss.second_derivative(self.f, self.y), atol=1e-15
        )
        assert np.linalg.eigvalsh(hessian).max() <= self.loss.curvature

    def test_two_classes_are_the_log_loss(self):
        log_loss, labels = make_loss("log_loss"), 1 - 2 * self.y[:, :1]
        f = self.f[:, :2]
        y = np.column_stack([self.y[:, 0], 1 - self.y[:, 0]])
        np.testing.assert_allclose(self.loss.value(f, y), log_loss.value(f[:, 1:] - f[:, :1], labels), atol=1e-12)

    def test_fenchel_young_holds_with_equality_at_the_gradient_and_as_a_bound_elsewhere(self):
        u = self.loss.gradient(self.f, self.y)
        both = self.loss.value(self.f, self.y) + self.loss.conjugate(u, self.y)
        np.testing.assert_allclose(both, (u * self.f).sum(axis=1), atol=1e-12)
        assert (self.loss.value(0 * self.f, self.y) + self.loss.conjugate(u, self.y) > 0).all()

    def test_conjugate_is_infinite_outside_the_simplex(self):
        assert np.isinf(self.loss.conjugate(0 * self.y + 0.1, self.y)).all()
        inside = self.loss.project_dual(self.f, self.y)
        assert np.isfinite(self.loss.conjugate(inside, self.y)).all()

    def test_centred_dual_balances_the_classes(self):
        weights = self.rng.uniform(0.5, 1.5, 20)
        u = self.loss.centred_dual(self.loss.gradient(self.f, self.y), self.y, weights)
        np.testing.assert_allclose(weights @ u, 0, atol=1e-12)
        assert np.isfinite(self.loss.conjugate(u, self.y)).all()

    @pytest.mark.parametrize("lowest", [1.0, 0.1])
    def test_best_constant(self, lowest):
        weights = np.linspace(lowest, 1, 20)
        weights /= weights.sum()
        best = self.loss.best_constant(self.y, weights)
        np.testing.assert_allclose(weights @ self.loss.gradient(np.tile(best, (20, 1)), self.y), 0, atol=1e-15)

    def test_expressions_are_value_and_conjugate(self):
        u = self.loss.gradient(self.f, self.y)
        np.testing.assert_allclose(
            loss_expression(self.loss, cp.Constant(self.f), self.y).value, self.loss.value(self.f, self.y)
        )
        expression, constraints = conjugate_expression(self.loss, cp.Constant(u), self.y)
        np.testing.assert_allclose(expression.value, self.loss.conjugate(u, self.y), atol=1e-12)
        assert all(np.max(constraint.violation()) < 1e-12 for constraint in constraints)

    @pytest.mark.parametrize(
        ("targets", "message"),
        [(np.ones((3, 1)), "one-hot"), (np.ones((3, 2)), "one-hot"), (np.eye(3)[[0, 0, 2]], "no sample of class 1")],
    )
    def test_targets_that_are_not_classes(self, targets, message):
        with pytest.raises(ValueError, match=message):
            self.loss.check_targets(targets)


def test_probabilities_of_outputs_at_the_ends_of_the_floats():
    huge = np.array([[1.7e308, -1.7e308, 0.0], [0.0, 0.0, -1.7e308]])
    np.testing.assert_array_equal(make_loss("cross_entropy").probabilities(huge), [[1, 0, 0], [0.5, 0.5, 0]])
    np.testing.assert_array_equal(make_loss("log_loss").probabilities(huge[:1, :2].T), [[0, 1], [1, 0]])


@dataclass(frozen=True)
class LogCosh(Loss):
    """delta^2 log cosh((f - y) / delta), a loss that the package does not have."""

    delta: float = 1.0

    name = "log_cosh"
    curvature = 1.0

    def value(self, f, y):
        residual = (f - y) / self.delta
        return self.delta**2 * (np.logaddexp(residual, -residual) - np.log(2))[:, 0]

    def gradient(self, f, y):
        return self.delta * np.tanh((f - y) / self.delta)

    def second_derivative(self, f, y):
        return 1 - np.tanh((f - y) / self.delta) ** 2

    def conjugate(self, u, y):
        share = np.clip(u / self.delta, -1, 1)
        entropy = (xlogy(1 + share, 1 + share) + xlogy(1 - share, 1 - share)) / 2
        return (u * y + self.delta**2 * entropy)[:, 0]

    def project_dual(self, u, y):
        return np.clip(u, -self.delta, self.delta)

    def rescaled(self, scale):
        return replace(self, delta=self.delta / scale)

    def best_constant(self, y, weights):
        return np.array([minimize_scalar(lambda b: weights @ self.value(np.full_like(y, b), y)).x])


def log_cosh_problem():
    rng = np.random.default_rng(0)
    return Problem(rng.standard_normal((10, 2)), rng.standard_normal(10), LogCosh(), weight_decay=0.05)


def test_a_loss_of_your_own_needs_no_cvxpy_but_for_the_programs():
    problem = log_cosh_problem()
    solution = solve_column_generation(problem, random_state=0)
    assert solution.certificate.scope == "global"
    patterns = enumerate_patterns(problem.Z)
    for build, name in ((primal_program, "loss_expression"), (dual_program, "conjugate_expression")):
        with pytest.raises(ValueError, match=rf"loss 'log_cosh' is not written in cvxpy.*conic\.{name}\.register"):
            build(problem, patterns)

    class Written(LogCosh):
        """The same, written in cvxpy."""

    @loss_expression.register
    def _(loss: Written, f, y):
        residual = (f - y) / loss.delta
        return loss.delta**2 * (cp.logistic(2 * residual) - residual - np.log(2))

    @conjugate_expression.register
    def _(loss: Written, u, y):
        share = u / loss.delta
        return cp.multiply(u, y) - loss.delta**2 / 2 * (cp.entr(1 + share) + cp.entr(1 - share)), []

    written = replace(problem, loss=Written())
    for build in (primal_program, dual_program):
        value = solve_program(build(written, patterns))
        assert value == pytest.approx(solution.certificate.objective, rel=1e-6)
    assert solve_reference(written, patterns).certificate.gap <= 1e-6


def test_a_loss_without_rescaled_is_refused():
    class Forgotten(LogCosh):
        rescaled = Loss.rescaled

    with pytest.raises(NotImplementedError, match="Forgotten must define `rescaled`"):
        solve_column_generation(replace(log_cosh_problem(), loss=Forgotten()))
