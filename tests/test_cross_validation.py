import pickle
from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import get_scorer, log_loss
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.utils.estimator_checks import parametrize_with_checks

from convexbn import (
    ConvexBNClassifier,
    ConvexBNClassifierCV,
    ConvexBNRegressor,
    ConvexBNRegressorCV,
    Status,
    convexbn_path,
    solve,
)
from convexbn.estimators import base, cross_validation

X, Y = load_diabetes(return_X_y=True)
X, Y = X[:27, [2, 3]], Y[:27]
LABELS = np.where(np.median(Y) < Y, "high", "low")
SMALL = {"n_weight_decays": 3, "eps": 0.03, "cv": 3, "random_state": 0}
EXACT = SMALL | {"solver": "CLARABEL", "tol": 1e-6}  # the same network to the last digit, whatever it starts from
MODELS = [ConvexBNRegressorCV(**SMALL), ConvexBNClassifierCV(**SMALL)]


def targets_of(model):
    return LABELS if isinstance(model, ConvexBNClassifierCV) else Y


@parametrize_with_checks(
    [
        ConvexBNRegressorCV(weight_decays=[0.1], cv=3, activation="gated_relu", n_patterns=5, tol=1e-4),
        ConvexBNClassifierCV(weight_decays=[0.01], cv=3, activation="gated_relu", n_patterns=5),
    ]
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("model", "Plain", "folds", "scoring"),
    [
        (ConvexBNRegressorCV(**EXACT), ConvexBNRegressor, KFold(3), "r2"),
        (
            ConvexBNRegressorCV(**EXACT, n_components=[1, None], scoring="neg_mean_absolute_error"),
            ConvexBNRegressor,
            KFold(3),
            "neg_mean_absolute_error",
        ),
        (ConvexBNClassifierCV(**EXACT, class_weight="balanced"), ConvexBNClassifier, StratifiedKFold(3), "accuracy"),
        (
            ConvexBNClassifierCV(**EXACT, scoring="neg_log_loss", normalization="weight"),
            ConvexBNClassifier,
            StratifiedKFold(3),
            "neg_log_loss",
        ),
    ],
)
def test_choice_is_that_of_a_loop_over_plain_estimators(model, Plain, folds, scoring):
    y = targets_of(model)
    weights = np.random.default_rng(0).integers(0, 3, 27)
    model = clone(model).fit(X, y, sample_weight=weights)
    options = {name: value for name, value in model.get_params().items() if name in Plain().get_params()}
    choices = model.n_components if isinstance(model.n_components, list) else [model.n_components]
    scores = np.empty((len(choices), 3, 3))
    for c, n_components in enumerate(choices):
        for i, weight_decay in enumerate(model.weight_decays_):
            plain = Plain(weight_decay=weight_decay).set_params(**options | {"n_components": n_components})
            for f, (train, test) in enumerate(folds.split(X, y)):
                plain.fit(X[train], y[train], sample_weight=weights[train])
                scores[c, i, f] = get_scorer(scoring)(plain, X[test], y[test], sample_weight=weights[test])
    np.testing.assert_allclose(model.scores_, scores, rtol=1e-5, atol=1e-6)
    best = np.unravel_index(scores.mean(axis=2).argmax(), scores.shape[:2])
    assert model.n_components_ == choices[best[0]]
    assert model.weight_decay_ == model.weight_decays_[best[1]]
    assert model.best_score_ == pytest.approx(scores.mean(axis=2).max())
    refit = Plain(weight_decay=model.weight_decay_).set_params(**options | {"n_components": model.n_components_})
    refit.fit(X, y, sample_weight=weights)
    assert model.certificate_.objective == pytest.approx(refit.certificate_.objective, rel=1e-9)
    np.testing.assert_array_equal(model.predict(X), refit.predict(X))


def test_grid_is_the_one_of_all_the_data():
    model = ConvexBNRegressorCV(**SMALL).fit(X, Y)
    path = convexbn_path(X, Y, n_weight_decays=3, eps=0.03)
    np.testing.assert_array_equal(model.weight_decays_, path.weight_decays)
    given = ConvexBNRegressorCV(weight_decays=[1.0, 8.0], cv=3).fit(X, Y)
    np.testing.assert_array_equal(given.weight_decays_, [8, 1])


def test_largest_weight_decay_wins_among_equal_scores():
    model = ConvexBNRegressorCV(**SMALL, scoring=lambda model, X, y: 1.0).fit(X, Y)
    assert model.weight_decay_ == model.weight_decays_[0]
    assert len(model.network_) == 0


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_two_jobs_give_the_same_as_one(model):
    one, two = (clone(model).set_params(n_jobs=n_jobs).fit(X, targets_of(model)) for n_jobs in (1, 2))
    np.testing.assert_array_equal(one.scores_, two.scores_)
    np.testing.assert_array_equal(one.predict(X), two.predict(X))


def test_gates_are_drawn_once_from_the_random_state():
    options = {"activation": "gated_relu", "n_patterns": 3} | SMALL
    same = [ConvexBNRegressorCV(**options).fit(X, Y).predict(X) for _ in range(2)]
    np.testing.assert_array_equal(*same)


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_pickle_and_clone(model):
    fitted = clone(model).fit(X, targets_of(model))
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    with pytest.raises(NotFittedError):
        clone(fitted).predict(X)


def test_probabilities_and_labels():
    model = ConvexBNClassifierCV(weight_decays=[0.01], cv=3, random_state=0).fit(X, LABELS)
    assert model.classes_.tolist() == ["high", "low"]
    assert log_loss(LABELS, model.predict_proba(X)) < np.log(2)
    assert model.score(X, LABELS) > 0.6
    assert not hasattr(ConvexBNClassifierCV(loss="squared_hinge"), "predict_proba")


def test_samples_of_weight_zero_may_have_any_label():
    weights = np.arange(27) % 4 != 0
    third = np.where(weights, LABELS, "third")
    model = ConvexBNClassifierCV(**SMALL).set_params(cv=list(KFold(3).split(X)))
    model.fit(X, third, sample_weight=weights)
    assert model.classes_.tolist() == ["high", "low"]


def test_unreached_tolerance_is_one_warning_of_the_path():
    with pytest.warns(ConvergenceWarning) as record:
        ConvexBNRegressorCV(weight_decays=[2.0, 1.0], cv=2, max_iter=1, tol=1e-14).fit(X, Y)
    messages = [str(warning.message) for warning in record]
    assert len(messages) == 2
    assert "4 of 4 problems along the path" in messages[0]
    assert "Column generation" in messages[1]


def test_interrupt_ends_the_fit(monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(base, "solve", interrupted)
    model = ConvexBNRegressorCV(**SMALL)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert not hasattr(model, "weight_decays_")


def test_interrupted_in_the_last_fit_it_keeps_the_network(monkeypatch):
    solves = []

    def last_is_interrupted(*arguments, prove, **options):
        solves.append(prove)
        solution = solve(*arguments, prove=prove, **options)
        return replace(solution, status=Status.INTERRUPTED) if prove else solution

    monkeypatch.setattr(base, "solve", last_is_interrupted)
    model = ConvexBNRegressorCV(**SMALL)
    with pytest.raises(KeyboardInterrupt, match="has the best network so far"):
        model.fit(X, Y)
    assert solves == [False] * 9 + ["auto"]
    assert np.isfinite(model.predict(X)).all()
    assert model.scores_.shape == (1, 3, 3)


def test_time_is_shared_among_folds_and_the_last_fit(monkeypatch):
    limits = []

    def watched(problem, *, max_time, **options):
        limits.append(max_time)
        return solve(problem, **options)

    monkeypatch.setattr(base, "solve", watched)
    ConvexBNRegressorCV(**SMALL, max_time=1200.0).fit(X, Y)
    assert 95 < limits[0] <= 100  # a third of the path's quarter
    assert limits[-1] > 1000
    monkeypatch.setattr(base, "solve", solve)
    with pytest.warns(ConvergenceWarning) as record:
        model = ConvexBNRegressorCV(**SMALL, max_time=1e-9).fit(X, Y)
    assert "problems along the path" in str(record[0].message)
    assert "reached max_time" in str(record[-1].message)
    assert np.isfinite(model.scores_).all()
    assert np.isfinite(model.predict(X)).all()


def one_class_training():
    return [(np.flatnonzero(LABELS == "low"), np.flatnonzero(LABELS == "high"))]


@pytest.mark.parametrize("model", MODELS, ids=repr)
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"weight_decays": [0.0]}, "weight_decays="),
        ({"weight_decays": [np.nan, 1.0]}, "weight_decays="),
        ({"eps": 2.0}, "eps=2.0"),
        ({"n_weight_decays": 0}, "n_weight_decays=0"),
        ({"cv": "five"}, "cv"),
        ({"cv": 1}, "n_splits=1"),
        ({"cv": 99}, "n_splits=99"),
        ({"cv": [(np.arange(20), np.arange(0))]}, "cv leaves no test sample of positive weight in fold 0"),
        ({"cv": []}, r"cv=\[\] gives no folds"),
        ({"scoring": "beauty"}, "scoring"),
        ({"scoring": ["r2"]}, r"scoring=\['r2'\] must be"),
        ({"n_components": []}, r"n_components=\[\] is empty"),
        ({"n_components": [1, 9]}, "n_components=9 is out of range"),
        ({"n_components": [[1]]}, r"n_components=\[1\] is out of range"),
        ({"tol": -1.0}, "tol=-1.0"),
    ],
)
def test_bad_parameters(model, parameters, message, monkeypatch):
    monkeypatch.setattr(base, "solve", None)
    with pytest.raises(ValueError, match=message):
        clone(model).set_params(**parameters).fit(X, targets_of(model))


def test_training_fold_of_one_class_is_refused():
    with pytest.raises(ValueError, match=r"cv leaves no training sample of class .* in fold 0"):
        ConvexBNClassifierCV(cv=one_class_training()).fit(X, LABELS)


def test_scores_that_are_not_finite_are_refused():
    model = ConvexBNRegressorCV(**SMALL, scoring=lambda model, X, y: np.nan)
    with pytest.raises(ValueError, match="No score is finite"):
        model.fit(X, Y)


def test_parallel_is_scikit_learns():
    assert cross_validation.Parallel.__module__.startswith("sklearn")
