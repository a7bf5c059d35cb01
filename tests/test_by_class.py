"""Problems of full row rank, solved with one sample for each distinct target."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from convexbn import (
    BatchNormDesign,
    ConvexBNClassifier,
    ConvexBNRegressor,
    DesignMatrix,
    Problem,
    Status,
    solve,
    solve_closed_form,
    solve_column_generation,
)
from convexbn.oracles import Price, price_by_ascent
from convexbn.solvers import Oracle, Search
from convexbn.solvers._by_class import Classes, solve_by_class

CLASS = np.array([0, 0, 0, 1, 2, 2, 1, 2, 2])
TARGETS = {
    "squared_error": np.eye(3)[CLASS],
    "cross_entropy": np.eye(3)[CLASS],
    "huber": np.array([-1.0, 0.5, 2.0])[CLASS],
    "squared_hinge": np.array([1.0, -1.0, -1.0])[CLASS],
}


def wide(loss, *, weight_decay=0.05, fit_intercept=True, sample_weight=None, y=None):
    X = np.random.default_rng(0).standard_normal((9, 12))
    design = BatchNormDesign().fit(X, sample_weight=sample_weight)
    options = {"weight_decay": weight_decay, "fit_intercept": fit_intercept, "sample_weight": sample_weight}
    return Problem(design.transform(X), TARGETS[loss] if y is None else y, loss, **options)


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("sample_weight", [None, np.arange(1.0, 10.0)], ids=["equal", "weighted"])
@pytest.mark.parametrize("loss", TARGETS)
def test_equals_column_generation_on_all_samples(loss, sample_weight, fit_intercept):
    problem = wide(loss, fit_intercept=fit_intercept, sample_weight=sample_weight)
    solution = solve_by_class(Classes.of(problem), random_state=0)
    whole = solve_column_generation(problem, random_state=0)
    assert solution.certificate.scope == "global"
    assert solution.certificate.gap <= 1e-6
    assert solution.certificate.objective == pytest.approx(problem.objective(solution.neurons), rel=1e-12)
    assert solution.certificate.objective == pytest.approx(whole.certificate.objective, rel=2e-6)
    assert whole.certificate.objective >= solution.certificate.lower_bound


@pytest.mark.parametrize("weight_decay", [0.02, 0.1, 0.3])
def test_equals_the_closed_form_of_one_hot_targets(weight_decay):
    problem = wide("squared_error", weight_decay=weight_decay, fit_intercept=False)
    expected = solve_closed_form(problem).certificate.objective
    assert solve_by_class(Classes.of(problem), random_state=0).certificate.objective == pytest.approx(
        expected, rel=1e-6
    )


def test_prices_are_exact_in_classes_and_bounds_elsewhere():
    problem, rng = wide("cross_entropy", sample_weight=np.arange(1.0, 10.0)), np.random.default_rng(0)
    classes = Classes.of(problem)
    for _ in range(5):
        v = classes.restored_dual(rng.standard_normal((3, 3)))
        found = price_by_ascent(problem.Z, v, random_state=0).value
        assert classes.price(v).value == pytest.approx(found, rel=1e-6)
        apart = v + 0.1 * rng.standard_normal(v.shape)
        assert classes.price(apart).value >= price_by_ascent(problem.Z, apart, random_state=0).value


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_there_and_back_is_the_same_network_in_each_class(scale):
    problem = wide("squared_error", sample_weight=np.arange(1.0, 10.0))
    problem = replace(problem, Z=DesignMatrix(scale * problem.Z.rows()))
    classes = Classes.of(problem)
    neurons = solve_by_class(classes, random_state=0).neurons
    again = classes.restored(classes.reduced(neurons))
    np.testing.assert_allclose(again.weights, neurons.weights, atol=1e-12)
    assert classes.problem.objective(classes.reduced(neurons)) == pytest.approx(problem.objective(neurons), rel=1e-12)


def test_a_start_is_used():
    problem, iterations = wide("cross_entropy", weight_decay=0.01), []
    for seed in range(4):
        first = solve(problem, random_state=seed)
        assert first.certificate.search is Search.CLASSES
        again = solve(problem, start=first.neurons, random_state=seed)
        assert again.certificate.objective == pytest.approx(first.certificate.objective, rel=1e-6)
        iterations.append((first.n_iter, again.n_iter))
    without, with_start = np.sum(iterations, axis=0)
    assert with_start < without


@pytest.mark.parametrize(
    "problem",
    [
        wide("squared_error", y=np.arange(9.0)),
        wide("hinge", y=TARGETS["squared_hinge"]),
        Problem(np.eye(26), np.repeat(np.arange(13.0), 2), weight_decay=0.1),
        Problem(np.random.default_rng(0).standard_normal((9, 4)), TARGETS["huber"], weight_decay=0.1),
    ],
    ids=["distinct targets", "no curvature", "many classes", "not of full row rank"],
)
def test_none_where_classes_say_nothing(problem):
    assert Classes.of(problem) is None


def test_a_search_that_missed_a_neuron_is_not_called_converged():
    class Missed(Classes):
        def price(self, v):
            return Price(1.01 * super().price(v).value, "global")

    classes = Missed.of(wide("cross_entropy"))
    with pytest.warns(ConvergenceWarning, match="one sample a class stopped at a relative gap"):
        solution = solve_by_class(classes, random_state=0)
    assert solution.status is Status.NOT_CONVERGED
    assert solution.certificate.gap > 1e-3


def test_estimators_with_an_intercept_are_certified_globally():
    X, rng = np.random.default_rng(0).standard_normal((60, 80)), np.random.default_rng(1)
    labels = rng.integers(10, size=60)
    for model, y in (
        (ConvexBNClassifier(0.01, tol=1e-7), labels),
        (ConvexBNRegressor(0.01, tol=1e-7), np.eye(10)[labels]),
    ):
        certificate = model.fit(X, y).certificate_
        assert certificate.scope == "global"
        assert certificate.gap <= 1e-6
        assert (certificate.search, certificate.oracle) == (Search.CLASSES, Oracle.CLASS_CONE)


def test_interrupted_solutions_stay_marked():
    assert solve(wide("cross_entropy"), callback=lambda progress: progress.gap < 1e-6).status is Status.INTERRUPTED
