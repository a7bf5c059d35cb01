"""Weight decay and spectral power chosen on held-out samples."""

import numpy as np
import pytest

from convexbn import ConvexBNClassifier, ConvexBNRegressor, Problem
from convexbn.estimators.tuning import hold_out, tune
from convexbn.solvers.monitor import Clock


@pytest.mark.parametrize(("n", "n_classes"), [(6, 2), (7, 3)])
def test_few_samples_of_a_class(n, n_classes):
    # A fold of one sample or two holds out one class only.
    y = np.arange(n) % n_classes
    X = np.random.default_rng(0).standard_normal((n, 2)) + 9 * y[:, None]
    model = ConvexBNClassifier(tol=1).fit(X, y)
    assert "spectral_power" in model.validation_scores_
    assert model.score(X, y) == 1


def test_powers_are_compared_on_every_class():
    rng = np.random.default_rng(0)
    Z, y = rng.standard_normal((12_000, 3)), -np.ones((12_000, 1))
    y[:3] = 1
    problem = Problem(Z, y, "log_loss", weight_decay=1.0, fit_intercept=True)
    folds, trained_on = hold_out(problem, y, rng, stratified=True), []

    def constants(problem, weight_decays):
        trained_on.append(np.unique(problem.y).tolist())
        return (problem.zero_network for _ in weight_decays)

    tune(
        lambda candidate: problem,
        (0.0, 1.0),
        folds,
        constants,
        n_components=None,
        rng=rng,
        n_jobs=None,
        clock=Clock(None),
        report=lambda curve: None,
    )
    assert len(folds) == 1
    assert trained_on == [[-1, 1]] * 3  # two powers on fewer samples, the best on all


def test_fits_of_one_seed_are_equal():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((5, 2))
    y = X[:, 0] + np.abs(X[:, 1])
    first, again = (ConvexBNRegressor(tol=1).fit(X, y) for _ in range(2))
    assert first.weight_decay_ == again.weight_decay_
    np.testing.assert_array_equal(first.predict(X), again.predict(X))
