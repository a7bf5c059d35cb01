"""Habits of scikit-learn's users: frames, names of features, starts from before, callbacks, inspection."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.inspection import PartialDependenceDisplay, partial_dependence, permutation_importance
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from convexbn import (
    BatchNormDesign,
    ConvexBNClassifier,
    ConvexBNClassifierCV,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    ConvexBNRegressorCV,
    ConvexBNStackRegressor,
    GDNPClassifier,
    PostActivationBatchNormDesign,
    RandomBatchNormLayers,
    WeightNormDesign,
)
from convexbn.solvers import Progress
from tests.networks import IMAGES, X, Y

FRAME = pd.DataFrame(X, columns=["a", "b", "c"])
LABELS = np.where(Y + np.sin(9 * X[:, 2]) > 1, "yes", "no")
ESTIMATORS = [
    (ConvexBNRegressor(0.05, tol=1e-1), Y),
    (ConvexBNRegressorCV(n_weight_decays=3, cv=2, tol=1.0), Y),
    (ConvexBNClassifier(0.05, tol=1e-1), LABELS),
    (ConvexBNClassifierCV(n_weight_decays=3, cv=2, tol=1.0), LABELS),
    (ConvexBNStackRegressor(ConvexBNRegressor(0.05, tol=1e-1)), Y),
    (GDNPClassifier(), LABELS),
]


def named(value):
    return type(value).__name__ if hasattr(value, "fit") else ""


@pytest.mark.filterwarnings("ignore:The gradient has norm")
@pytest.mark.parametrize(("model", "targets"), ESTIMATORS, ids=named)
def test_frames_of_polars_are_data(model, targets):
    polars = pytest.importorskip("polars")
    frame, column = polars.from_numpy(X, schema=["a", "b", "c"]), polars.Series("y", targets.tolist())
    fitted = clone(model).fit(frame, column)
    assert fitted.feature_names_in_.tolist() == ["a", "b", "c"]
    expected = clone(model).fit(FRAME, targets)
    np.testing.assert_array_equal(fitted.predict(frame), expected.predict(FRAME))
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame.rename({"a": "z"}))


TRANSFORMERS = [BatchNormDesign(), WeightNormDesign(), PostActivationBatchNormDesign(), RandomBatchNormLayers((5,))]


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=named)
@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_transformers_give_frames_with_names(transformer, container):
    pytest.importorskip(container)
    fitted = clone(transformer).fit(FRAME)
    names = fitted.get_feature_names_out().tolist()
    out = clone(transformer).set_output(transform=container).fit_transform(FRAME)
    assert type(out).__module__.startswith(container)
    assert list(out.columns) == names
    np.testing.assert_array_equal(out.to_numpy(), fitted.transform(FRAME))
    with config_context(transform_output=container):
        piped = make_pipeline(StandardScaler(), clone(transformer)).fit_transform(FRAME)
    assert list(piped.columns) == names


@pytest.mark.parametrize(("model", "targets"), ESTIMATORS[:4:2], ids=named)
def test_inspection_of_scikit_learn(model, targets):
    fitted = clone(model).fit(FRAME, targets)
    found = partial_dependence(fitted, FRAME, ["a"], grid_resolution=5)
    moved = FRAME.assign(a=found["grid_values"][0][2])
    expected = fitted.predict_proba(moved)[:, 1] if hasattr(fitted, "classes_") else fitted.predict(moved)
    assert found["average"][0, 2] == pytest.approx(expected.mean())
    importances = permutation_importance(fitted, FRAME, targets, n_repeats=3, random_state=0).importances_mean
    assert importances.argmax() in (0, 1)
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    display = PartialDependenceDisplay.from_estimator(fitted, FRAME, ["a", ("a", "b")], grid_resolution=5)
    assert display.axes_.size == 2
    plt.close("all")


def test_metadata_reach_cross_validated_estimators_through_searches():
    groups, weights = np.arange(60) % 6, 1.0 + np.arange(60) % 2
    with config_context(enable_metadata_routing=True):
        model = ConvexBNRegressorCV(n_weight_decays=2, cv=GroupKFold(2), tol=1.0)
        model.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        given = {"groups": groups, "sample_weight": weights}
        found = cross_validate(model, FRAME, Y, cv=GroupKFold(3), params=given, error_score="raise")
        assert np.isfinite(found["test_score"]).all()
        regressor = ConvexBNRegressor(tol=1e-8).set_fit_request(sample_weight=True)
        regressor.set_score_request(sample_weight=True)
        pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=True), regressor)
        if hasattr(pipeline, "set_score_request"):  # before scikit-learn 1.9 it has requests of its own
            pipeline.set_score_request(sample_weight=True)
        search = GridSearchCV(pipeline, {"convexbnregressor__weight_decay": [0.5, 0.05]}, cv=2)
        search.fit(FRAME, Y, sample_weight=weights)
    assert search.best_params_ == {"convexbnregressor__weight_decay": 0.05}
    repeated = make_pipeline(StandardScaler(), ConvexBNRegressor(0.05, tol=1e-8))
    repeated.fit(FRAME.loc[np.repeat(FRAME.index, weights.astype(int))], np.repeat(Y, weights.astype(int)))
    np.testing.assert_allclose(search.predict(FRAME), repeated.predict(FRAME), atol=1e-6)


FALLING = (0.16, 0.05, 0.016)
PATHS = {
    "batch norm": (ConvexBNRegressor(tol=1e-3, prove=False), X, Y),
    "weight norm": (ConvexBNRegressor(normalization="weight", tol=1e-3, prove=False), X, Y),
    "after the ReLU": (ConvexBNRegressor(normalization="batch_after_relu", tol=1e-1, prove=False), X, Y),
    "targets": (ConvexBNRegressor(tol=1e-2, prove=False), X, np.column_stack([Y, 100 * X[:, 2] ** 2])),
    "classes": (ConvexBNClassifier(tol=1e-3, prove=False), X, LABELS),
    "without intercept": (ConvexBNRegressor(tol=1e-3, prove=False, fit_intercept=False), X, Y),
    "images": (ConvexBNConvRegressor(kernel_size=2, n_components=3, tol=1e-2, prove=False), IMAGES, 20 * Y[:12]),
}


@pytest.mark.parametrize("name", PATHS)
def test_warm_starts_end_at_the_same_objective(name, monkeypatch):
    model, data, targets = PATHS[name]
    starts, solve = [], type(model)._solve

    def watched(self, *args, **options):
        starts.append(options.get("start"))
        return solve(self, *args, **options)

    monkeypatch.setattr(type(model), "_solve", watched)
    warm = clone(model).set_params(warm_start=True)
    zero = clone(model).set_params(weight_decay=1e3).fit(data, targets).certificate_.objective
    del starts[:]
    for weight_decay in FALLING:
        found = warm.set_params(weight_decay=weight_decay).fit(data, targets).certificate_
        cold = clone(model).set_params(weight_decay=weight_decay).fit(data, targets).certificate_
        assert found.objective == pytest.approx(cold.objective, abs=model.tol * zero)
        assert found.objective - found.lower_bound <= model.tol * zero
    assert [start is None for start in starts] == [True, True, False, True, False, True]


def test_a_warm_start_is_the_network_of_before():
    model = ConvexBNRegressor(0.05, warm_start=True, tol=1e-3, prove=False).fit(X, Y)
    seen = []
    again = clone(model).set_params(callback=seen.append)
    again.network_ = model.network_
    again.fit(X, Y)
    assert seen[0].objective == pytest.approx(model.certificate_.objective, rel=1e-6)
    cold = clone(again).fit(X, Y)
    assert cold.n_iter_ >= again.n_iter_


def test_a_limited_fit_goes_on():
    model = ConvexBNRegressor(0.003, tol=1e-7, prove=False, max_iter=1, warm_start=True)
    objectives = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(3):
            objectives.append(model.fit(X, Y).certificate_.objective)
    assert objectives[2] < objectives[1] < objectives[0]


def test_other_data_start_anew():
    model = ConvexBNRegressor(0.05, warm_start=True, tol=1e-1).fit(X, Y)
    expected = ConvexBNRegressor(0.05, tol=1e-1).fit(X[:, :2], Y)
    assert model.fit(X[:, :2], Y).certificate_ == expected.certificate_
    gated = ConvexBNRegressor(0.05, activation="gated_relu", n_patterns=9, tol=1e-1)
    assert model.set_params(activation="gated_relu", n_patterns=9).fit(X, Y).certificate_ == (
        gated.fit(X, Y).certificate_
    )
    model.set_params(activation="relu", normalization="weight")
    assert (
        model.fit(X, Y).certificate_ == ConvexBNRegressor(0.05, normalization="weight", tol=1e-1).fit(X, Y).certificate_
    )
    with pytest.raises(ValueError, match="warm_start=1 must be True or False"):
        ConvexBNRegressor(warm_start=1).fit(X, Y)


def test_callbacks_see_progress_and_may_end_the_fit():
    seen = []
    model = ConvexBNRegressor(0.001, tol=1e-8, prove=False, callback=seen.append, max_iter=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, Y)
        assert [progress.n_iter for progress in seen] == list(range(1, model.n_iter_ + 1))
        assert all(isinstance(progress, Progress) for progress in seen)
        ended = clone(model).set_params(callback=lambda progress: progress.n_iter == 2, max_iter=None).fit(X, Y)
        assert ended.n_iter_ == 2
        assert np.isfinite(ended.predict(X)).all()
        tuned = clone(ended).set_params(weight_decay="auto", spectral_power=1.0).fit(X[:20], Y[:20])
    assert tuned.n_iter_ <= 2
    gated = ConvexBNRegressor(0.01, activation="gated_relu", n_patterns=9, tol=1e-2, callback=seen.append)
    before = len(seen)
    gated.fit(X, Y)
    assert len(seen) == before + gated.n_iter_
    with pytest.raises(ValueError, match="callback='print' must be a function of a Progress, or None"):
        ConvexBNRegressor(callback="print").fit(X, Y)
