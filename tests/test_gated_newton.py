"""The Newton system of gated networks, factorised and by conjugate gradients."""

import numpy as np
import pytest

from convexbn import BatchNormDesign, Problem, enumerate_patterns, solve_gated, solve_reference
from convexbn.solvers.gated import _newton_system
from convexbn.solvers.gated._driver import working_sets
from convexbn.solvers.gated._loss_model import LossModel
from convexbn.solvers.gated._newton_system import newton_directions
from tests.test_gated import make_problem as one_output
from tests.test_gated_nuclear import make_problem as several_outputs


class System:
    """The Newton system of a random point on five patterns, or of given neurons."""

    def __init__(self, problem, patterns, size=1.0, neurons=None):
        self.sets, rng = working_sets(problem, patterns, "float64"), np.random.default_rng(0)
        S = size * rng.standard_normal((5, problem.Z.n_columns, problem.n_outputs))
        point = self.sets.point(np.arange(5), S, np.zeros(problem.n_outputs))
        if neurons is not None:
            point = self.sets.first(neurons)
        self.loss = LossModel(problem, point.f + point.intercept)
        self.products = self.sets.products(point.chosen, np.dtype("float64"))
        self.smooth = self.sets.norm(point.S, self.products.adjoint(self.loss.v), problem.weight_decay)
        self.K = self.sets.overlaps(self.products, point.chosen, self.loss.w)

    def directions(self):
        return newton_directions(
            self.smooth, self.loss, self.products, self.products, self.K, self.sets.columns, lambda: False
        )

    def times(self, D):
        forward, adjoint = self.smooth.derivative(self.products)
        return adjoint(self.loss.curved(forward(D))) + self.smooth.curvature(D)


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("n_patches", [1, 3])
@pytest.mark.parametrize(
    ("make", "loss"), [(one_output, "huber"), (one_output, "log_loss"), (several_outputs, "cross_entropy")]
)
def test_the_factorised_system_is_that_of_the_products(make, loss, n_patches, fit_intercept, monkeypatch):
    problem, patterns = make(loss, fit_intercept=fit_intercept, n_patches=n_patches, weights=True, fraction=20)
    system = System(problem, patterns)
    monkeypatch.setattr(_newton_system, "_FEW", np.inf)
    monkeypatch.setattr(_newton_system, "conjugate_gradients", None)
    D = system.directions()[-1]
    residual = system.times(D) - system.smooth.descent
    assert np.linalg.norm(residual) < 1e-5 * np.linalg.norm(system.smooth.descent)


def test_weights_that_would_pass_through_zero_end_there_and_others_go_with_them(monkeypatch):
    problem, patterns = one_output("log_loss", fit_intercept=True)
    neurons = solve_gated(problem, patterns).neurons
    system = System(problem.with_weight_decay(1.5 * problem.weight_decay), patterns, neurons=neurons)
    monkeypatch.setattr(_newton_system, "_FEW", np.inf)
    ending, newton = system.directions()
    S, gone = system.smooth.S, system.smooth.through_zero(ending)
    assert 0 < gone.sum() < len(S)
    np.testing.assert_array_equal(ending[gone], -S[gone])
    residual = system.times(ending) - system.smooth.descent
    assert np.linalg.norm(residual[~gone]) < 1e-5 * np.linalg.norm(system.smooth.descent)
    assert system.smooth.through_zero(newton)[gone].any()
    np.testing.assert_array_equal(system.smooth.moved(ending, 1.0)[gone], 0)


@pytest.mark.parametrize("make", [one_output, several_outputs])
def test_curvatures_are_those_of_unit_directions(make):
    smooth = System(*make(), size=0.3).smooth
    for unit in np.eye(smooth.descent.size):
        D = unit.reshape(smooth.descent.shape)
        np.testing.assert_allclose(np.einsum("jab,jb->ja", smooth.curvatures(), D), smooth.curvature(D), atol=1e-14)


def test_conjugate_gradients_that_take_long_give_way(monkeypatch):
    system = System(*one_output())
    exact = system.directions()[-1]
    calls = []

    def out_of_steps(hessian, precondition, rhs, *, steps, stop):
        calls.append(steps)
        return np.zeros_like(rhs), False

    monkeypatch.setattr(_newton_system, "conjugate_gradients", out_of_steps)
    monkeypatch.setattr(_newton_system, "_FEW", 0)
    np.testing.assert_array_equal(system.directions()[-1], exact)
    assert calls == [0]
    monkeypatch.setattr(_newton_system, "_ENTRIES", 0)
    assert not system.directions()[-1].any()
    assert calls == [0, _newton_system._STEPS]


def test_where_factors_bend_downwards_conjugate_gradients_take_over():
    system = System(*several_outputs(), size=1e-3)
    with pytest.raises(np.linalg.LinAlgError):
        _newton_system.factorised(system.smooth, system.smooth.gram(system.loss, system.products.features()))
    assert (system.directions()[-1] * system.smooth.descent).sum() > 0


def test_where_a_curvature_is_infinite_conjugate_gradients_take_over(monkeypatch):
    system = System(*one_output())
    system.smooth.bend[0] = np.inf
    monkeypatch.setattr(_newton_system, "_FEW", np.inf)
    monkeypatch.setattr(_newton_system, "conjugate_gradients", lambda *arguments, steps, stop: ("by products", True))
    assert system.directions() == ["by products"]


@pytest.mark.parametrize("loss", ["squared_error", "squared_hinge"])
def test_all_patterns_of_few_binary_rows(loss):
    """Many gates fit equally well: conjugate gradients alone left gaps above 1e-4 after hundreds of rounds."""
    rng = np.random.default_rng(1)
    X = (rng.random((14, 3)) < 0.5).astype(float)
    y = np.where(X[:, 0] + X[:, 1] * X[:, 2] + rng.standard_normal(14) > 0.5, 1.0, -1.0)
    Z = BatchNormDesign().fit(X).matrix(X)
    problem = Problem(Z, y, loss, weight_decay=1e-3, fit_intercept=True)
    patterns = enumerate_patterns(Z)
    solution = solve_gated(problem, patterns, tol=1e-8)
    reference = solve_reference(problem, patterns, activation="gated_relu")
    assert solution.certificate.gap <= 1e-8
    assert solution.n_iter <= 60
    assert solution.certificate.objective == pytest.approx(reference.certificate.objective, rel=1e-6)
