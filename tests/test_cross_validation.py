import pickle
from copy import copy
from itertools import count

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context, get_config
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import check_scoring, get_scorer, log_loss, make_scorer, mean_absolute_error
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneOut,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_val_score,
)
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import check_class_weight_classifiers, parametrize_with_checks

from convexbn import (
    BatchNormDesign,
    ConvexBNClassifier,
    ConvexBNClassifierCV,
    ConvexBNRegressor,
    ConvexBNRegressorCV,
    ConvexBNStackRegressor,
    Problem,
    convexbn_path,
    make_network,
    solve,
)
from convexbn._utils.sample_weight import merge_equal_samples
from convexbn.estimators import _base as base
from convexbn.estimators import _cross_validation as cross_validation
from convexbn.estimators._cross_validation import path_networks
from convexbn.losses import SquaredError, make_loss
from convexbn.solvers import _path as solvers_path
from convexbn.solvers.relu._fast import fast_path
from tests.watched import pressed_at, unsolved, watched_loss

X, Y = load_diabetes(return_X_y=True)
X, Y = X[:27, [2, 3]], Y[:27]
LABELS = np.where(np.median(Y) < Y, "high", "low")
# The last fit, whose work is limited, is to end without a warning: how good it is is not tested where tol is 1.
SMALL = {"n_weight_decays": 3, "eps": 0.03, "cv": 3, "spectral_power": 0.0, "random_state": 0, "tol": 1.0}
# Without a fast path, and the same network to many digits, whatever it starts from.
EXACT = SMALL | {"activation": "gated_relu", "solver": "CLARABEL", "tol": 1e-6}
ONCE = {"cv": 2, "spectral_power": 0.0, "tol": 0.1}
MODELS = [ConvexBNRegressorCV(**SMALL), ConvexBNClassifierCV(**SMALL)]


def targets_of(model):
    return LABELS if isinstance(model, ConvexBNClassifierCV) else Y


def networks_along(X, y, weights, weight_decays, *, n_components=None, spectral_power=0.0, loss="squared_error"):
    """Networks of the fast path."""
    X, y, weights = merge_equal_samples(X, y.reshape(len(y), -1), weights)
    design = BatchNormDesign(n_components, spectral_power=spectral_power).fit(X, sample_weight=weights)
    options = {"weight_decay": 1.0, "fit_intercept": True, "sample_weight": weights}
    problem = Problem(design.transform(X), y, loss, **options)
    return [make_network(neurons, design) for neurons in fast_path(problem, weight_decays, random_state=0)]


@pytest.mark.parametrize("classifier", [False, True])
def test_scores_are_those_of_the_networks_of_fast_paths(classifier):
    Model, y = (ConvexBNClassifierCV, LABELS) if classifier else (ConvexBNRegressorCV, Y)
    model = Model(n_weight_decays=3, eps=0.03, cv=StratifiedKFold(3) if classifier else KFold(3), tol=1.0)
    model.set_params(n_components=[1, None]).fit(X, y)
    choices = [(n_components, power) for n_components in (1, None) for power in (0.0, 0.5, 1.0)]
    assert model.scores_.shape == (6, 3, 3)
    targets, loss = (np.where(y == "low", 1.0, -1.0), "log_loss") if classifier else (y, "squared_error")
    scorer = copy(model)
    for choice, (n_components, power) in enumerate(choices):
        options = {"n_components": n_components, "spectral_power": power, "loss": loss}
        for fold, (train, test) in enumerate(model.cv.split(X, y)):
            networks = networks_along(X[train], targets[train], np.ones(len(train)), model.weight_decays_, **options)
            for index, network in enumerate(networks):
                scorer.network_ = network
                expected = get_scorer("neg_log_loss" if classifier else "r2")(scorer, X[test], y[test])
                assert model.scores_[choice, index, fold] == pytest.approx(expected, rel=1e-9)
    mean = model.scores_.mean(axis=2)
    best = np.unravel_index(mean.argmax(), mean.shape)
    assert (model.n_components_, model.spectral_power_) == choices[best[0]]
    assert model.weight_decay_ == model.weight_decays_[best[1]]


# The last fit does a limited amount of work, and says so where it ends above `tol`.
@pytest.mark.filterwarnings("ignore:The last fit stopped:sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(
    [
        ConvexBNRegressorCV(n_weight_decays=2, eps=0.03, **ONCE),
        ConvexBNClassifierCV(weight_decays=[0.1], **ONCE),
        ConvexBNClassifierCV(weight_decays=[0.1], **ONCE, activation="gated_relu", n_patterns=2),
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
        (
            ConvexBNClassifierCV(**EXACT, class_weight="balanced"),
            ConvexBNClassifier,
            StratifiedKFold(3),
            "neg_log_loss",
        ),
        (ConvexBNClassifierCV(**EXACT, loss="squared_hinge"), ConvexBNClassifier, StratifiedKFold(3), "accuracy"),
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
    balanced = compute_sample_weight("balanced", np.repeat(y, weights))[np.cumsum(weights) - 1]
    counted = weights * balanced if options.get("class_weight") else weights  # by the default score
    choices = model.n_components if isinstance(model.n_components, list) else [model.n_components]
    scores = np.empty((len(choices), 3, 3))
    for c, n_components in enumerate(choices):
        for i, weight_decay in enumerate(model.weight_decays_):
            plain = Plain(weight_decay=weight_decay).set_params(**options | {"n_components": n_components})
            for f, (train, test) in enumerate(folds.split(X, y)):
                plain.fit(X[train], y[train], sample_weight=weights[train])
                scores[c, i, f] = get_scorer(scoring)(plain, X[test], y[test], sample_weight=counted[test])
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
    given = ConvexBNRegressorCV(**SMALL | {"weight_decays": [1.0, 8.0]}).fit(X, Y)
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
    model = ConvexBNClassifierCV(weight_decays=[0.01], cv=3, tol=0.2).fit(X, LABELS)
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
    options = SMALL | {"weight_decays": [0.1, 0.05], "cv": 2, "max_iter": 1, "tol": 1e-14}
    with pytest.warns(ConvergenceWarning) as record:
        ConvexBNRegressorCV(activation="gated_relu", n_patterns=5, **options).fit(X, np.column_stack([Y, Y**2]))
    messages = [str(warning.message) for warning in record]
    assert len(messages) == 2
    assert "4 of 4 problems along the path" in messages[0]
    assert "solve_gated" in messages[1]


def test_fast_paths_are_not_certified_and_do_not_warn():
    with pytest.warns(ConvergenceWarning) as record:
        ConvexBNRegressorCV(**SMALL | {"weight_decays": [2.0, 1.0], "tol": 1e-14}, max_iter=1).fit(X, Y)
    assert ["Column generation" in str(warning.message) for warning in record] == [True]


def interrupted(*arguments):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "options",
    [{"callback": interrupted}, EXACT | {"callback": interrupted}, {"scoring": interrupted}],
    ids=["fast path", "gated path", "score"],
)
def test_interrupt_ends_the_fit(options):
    model = ConvexBNRegressorCV(**SMALL | options)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert not hasattr(model, "weight_decays_")


def test_interrupt_in_a_solver_along_a_path_ends_the_fit():
    gradients = count(1)

    def press(name, y):
        if name == "gradient" and next(gradients) == 20:
            raise KeyboardInterrupt

    options = {"activation": "gated_relu", "tol": 1e-2, "callback": unsolved}  # no path is completed
    model = ConvexBNRegressorCV(**SMALL | options | {"loss": watched_loss(SquaredError, press)})
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert next(gradients) == 21
    assert not hasattr(model, "weight_decays_")


def test_interrupted_in_the_last_fit_it_keeps_the_network():
    model = ConvexBNRegressorCV(**SMALL, callback=pressed_at(9 + 1))
    with pytest.raises(KeyboardInterrupt, match="has the best network so far"):
        model.fit(X, Y)
    assert model.n_iter_ == 1
    assert np.isfinite(model.predict(X)).all()
    assert model.scores_.shape == (1, 3, 3)


def test_time_is_shared_among_folds_and_the_last_fit(monkeypatch):
    limits = []

    def watched(problem, *, max_time, **options):
        limits.append(max_time)
        return solve(problem, **options)

    def watched_path(*arguments):
        limits.append(arguments[-1])
        return path_networks(*arguments)

    monkeypatch.setattr(base, "solve", watched)
    monkeypatch.setattr(solvers_path, "solve", watched)
    monkeypatch.setattr(cross_validation, "path_networks", watched_path)
    ConvexBNRegressorCV(**SMALL, max_time=1200.0).fit(X, Y)
    assert len(limits) == 4
    for limit in limits[:3]:
        assert 290 < limit <= 300  # a quarter for each of three folds and the last fit
    assert limits[3] > 1000
    limits.clear()
    ConvexBNRegressorCV(**SMALL | {"activation": "gated_relu", "solver": "CLARABEL"}, max_time=1200.0).fit(X, Y)
    assert 95 < limits[1] <= 100  # a third of the path's quarter
    monkeypatch.undo()
    with pytest.warns(ConvergenceWarning) as record:
        model = ConvexBNRegressorCV(**SMALL | {"tol": 1e-4}, max_time=1e-9).fit(X, Y)
    assert ["reached max_time" in str(warning.message) for warning in record] == [True]
    assert np.isfinite(model.scores_).all()
    assert np.isfinite(model.predict(X)).all()


@pytest.mark.parametrize("options", [{}, {"solver": "CLARABEL"}], ids=str)
def test_no_fold_is_solved_when_the_time_is_out(options):
    seen = []
    given = {"activation": "gated_relu", "tol": 1e-4, "max_time": 1e-9, "callback": seen.append}
    model = ConvexBNRegressorCV(**SMALL | options | given)
    with pytest.warns(ConvergenceWarning, match="reached max_time"):
        model.fit(X, Y)
    assert len(seen) == (0 if "solver" in options else model.n_iter_)  # the last fit, at the usual weight decay
    assert np.isfinite(model.scores_).all()
    assert np.isfinite(model.predict(X)).all()


def test_list_of_spectral_powers():
    model = ConvexBNRegressorCV(**SMALL | {"spectral_power": [0.5, 2.0]}).fit(X, Y)
    assert model.spectral_power_ in (0.5, 2.0)
    assert model.scores_.shape[0] == 2
    with pytest.raises(ValueError, match=r"spectral_power=-1\.0 must be"):
        ConvexBNRegressorCV(**SMALL | {"spectral_power": [0.5, -1.0]}).fit(X, Y)


@pytest.mark.parametrize("model", MODELS, ids=repr)
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"weight_decays": [0.0]}, "weight_decays="),
        ({"weight_decays": [np.nan, 1.0]}, "weight_decays="),
        ({"eps": 2.0}, "eps=2.0"),
        ({"n_weight_decays": 0}, "n_weight_decays=0"),
        ({"cv": "five"}, "cv"),
        ({"cv": 1}, "cv=1 must be None, an integer from 2 on"),
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
def test_bad_parameters(model, parameters, message):
    with pytest.raises(ValueError, match=message):
        clone(model).set_params(**parameters, callback=unsolved).fit(X, targets_of(model))


QUICK = {"n_components": 1, "spectral_power": 0.0, "weight_decays": [0.1, 0.01], "tol": 1.0}


def test_scores_that_are_not_finite_are_refused():
    model = ConvexBNRegressorCV(**QUICK, cv=3, scoring=lambda model, X, y: np.nan if len(model.network_) > 1 else 1.0)
    with pytest.raises(ValueError, match="No score is finite"):
        model.fit(X, Y / 100)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ConvexBNRegressorCV(cv=LeaveOneOut()), "scoring=None does not score fold 0 of cv, which has one test sample"),
        (ConvexBNRegressorCV(scoring="accuracy"), "scoring='accuracy' does not score fold 0"),
        (ConvexBNRegressorCV(scoring="roc_auc"), "scoring='roc_auc' does not score fold 0"),
        (ConvexBNRegressorCV(scoring=lambda model, X: 1.0), "takes 2 positional arguments but 3 were given"),
        (ConvexBNRegressorCV(scoring=lambda model, X, y: {"r2": 1.0}), "must return one number, got {'r2': 1.0}"),
        (ConvexBNRegressorCV(scoring=lambda model, X, y: [1.0, 2.0]), "must return one number, got"),
        (ConvexBNRegressorCV(scoring=mean_absolute_error), "metric function rather than a scorer"),
        (ConvexBNClassifierCV(scoring="neg_log_loss", loss="squared_hinge"), "none of the following .*predict_proba"),
        (ConvexBNClassifierCV(scoring="r2"), "scoring='r2' does not score fold 0"),
        (
            ConvexBNClassifierCV(scoring="roc_auc", cv=[(np.arange(20), np.flatnonzero(LABELS == "low")[:5])]),
            "scoring='roc_auc' does not score fold 0 .* a cv with larger test folds that hold every class",
        ),
    ],
)
def test_folds_that_cannot_be_scored_are_refused_before_any_problem_is_solved(model, message):
    with pytest.raises(ValueError, match=message):
        clone(model).set_params(n_components=1, callback=unsolved).fit(X, targets_of(model))


def test_a_scorer_that_needs_outputs_that_vary_can_be_used():
    def correlation(model, X, y):
        with np.errstate(invalid="ignore"):
            return np.corrcoef(model.predict(X), y)[0, 1]

    model = ConvexBNRegressorCV(**QUICK, cv=3, scoring=correlation).fit(X, Y / 100)
    # The constant network of weight decay 0.1 has no correlation; the other is chosen, and varies.
    assert np.isnan(model.scores_[0, 0, 1:]).all()
    assert model.weight_decay_ == 0.01
    assert model.best_score_ == pytest.approx(model.scores_[0, 1].mean())


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("scoring", [None, "neg_mean_squared_error"])
def test_frames_go_through_without_a_warning(scoring, n_jobs):
    frame = pd.DataFrame(X, columns=["bmi", "bp"])
    model = ConvexBNRegressorCV(**QUICK, cv=3, scoring=scoring, n_jobs=n_jobs).fit(frame, pd.Series(Y / 100))
    bare = ConvexBNRegressorCV(**QUICK, cv=3, scoring=scoring).fit(X, Y / 100)
    np.testing.assert_array_equal(model.scores_, bare.scores_)
    assert list(model.feature_names_in_) == ["bmi", "bp"]


def test_scorers_and_splitters_see_the_data_as_they_were_given():
    frame = pd.DataFrame(X, columns=["bmi", "bp"], index=pd.date_range("2020", periods=27))
    targets = pd.Series(LABELS, index=frame.index)

    class BeforeAndAfter(KFold):
        def split(self, X, y=None, groups=None):
            old = X.index < "2020-01-15"
            yield old, ~old

    def on_mondays(model, X, y):
        assert X.index.equals(y.index)
        monday = X.index.day_of_week == 0
        return model.score(X[monday], y[monday])

    model = ConvexBNClassifierCV(**QUICK, cv=BeforeAndAfter(), scoring=on_mondays).fit(frame, targets)
    assert model.scores_.shape == (1, 2, 1)


@pytest.mark.parametrize("model", [ConvexBNRegressorCV(), ConvexBNClassifierCV()], ids=repr)
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_folds_of_every_kind_give_the_same(model, n_jobs):
    pairs = list(KFold(3).split(X))
    kinds = [
        iter(pairs),
        zip(*zip(*pairs, strict=True), strict=True),
        [(train.tolist(), tuple(test)) for train, test in pairs],
        [(np.isin(np.arange(27), train), np.isin(np.arange(27), test).tolist()) for train, test in pairs],
    ]
    y = Y / 100 if isinstance(model, ConvexBNRegressorCV) else LABELS
    expected = clone(model).set_params(**QUICK, cv=KFold(3)).fit(X, y).scores_
    for cv in kinds:
        model = clone(model).set_params(**QUICK, n_jobs=n_jobs)
        model.cv = cv
        np.testing.assert_array_equal(model.fit(X, y).scores_, expected)


def test_groups_reach_the_splitter():
    groups = np.arange(27) % 6
    model = ConvexBNRegressorCV(**QUICK, cv=GroupKFold(3)).fit(X, Y / 100, groups=groups)
    listed = ConvexBNRegressorCV(**QUICK, cv=list(GroupKFold(3).split(X, Y, groups))).fit(X, Y / 100)
    np.testing.assert_array_equal(model.scores_, listed.scores_)
    with config_context(enable_metadata_routing=True):
        routed = clone(model).fit(X, Y / 100, groups=groups)
        np.testing.assert_array_equal(routed.scores_, model.scores_)
        scores = cross_val_score(
            clone(model), X, Y / 100, cv=GroupKFold(2), params={"groups": groups}, error_score="raise"
        )
        assert np.isfinite(scores).all()
    for routes in (False, True):
        with (
            config_context(enable_metadata_routing=routes),
            pytest.raises(ValueError, match=r"groups=groups\), or .*cv=list\(splitter.split\(X, y, groups\)\)"),
        ):
            clone(model).fit(X, Y)


def test_metadata_are_routed_by_the_rules_of_scikit_learn():
    weights, seen = np.arange(27) + 1.0, []

    def measured(y, predictions, sample_weight=None, hours=None):
        seen.append((sample_weight, hours))
        return -np.average((y - predictions) ** 2, weights=sample_weight)

    model = ConvexBNRegressorCV(**QUICK, cv=3)
    plain = clone(model).fit(X, Y / 100, sample_weight=weights)
    with pytest.raises(ValueError, match=r"fit got \['hours'\].*enable_metadata_routing=True"):
        clone(model).fit(X, Y, hours=weights)
    with config_context(enable_metadata_routing=True):
        np.testing.assert_array_equal(clone(model).fit(X, Y / 100, sample_weight=weights).scores_, plain.scores_)
        requesting = get_scorer("r2").set_score_request(sample_weight=True)
        routed = clone(model).set_params(scoring=requesting).fit(X, Y / 100, sample_weight=weights)
        np.testing.assert_array_equal(routed.scores_, plain.scores_)
        with pytest.raises(TypeError, match="not routed"):
            clone(model).fit(X, Y, hours=weights)
        scorer = make_scorer(measured).set_score_request(sample_weight=False, hours=True)
        clone(model).set_params(scoring=scorer).fit(X, Y / 100, sample_weight=weights, hours=2 * weights)
    assert all(given is None for given, _ in seen)
    np.testing.assert_array_equal(seen[-1][1], 2 * weights[18:])


@pytest.mark.parametrize("scoring", ["neg_max_error", lambda model, X, y: model.score(X, y)])
def test_scorers_without_weights_score_all_samples_alike(scoring):
    weights = np.arange(27) + 1.0
    model = ConvexBNRegressorCV(**QUICK, cv=KFold(3), scoring=scoring).fit(X, Y / 100, sample_weight=weights)
    scorer = check_scoring(model, scoring)
    for fold, (train, test) in enumerate(KFold(3).split(X)):
        model.network_ = networks_along(X[train], Y[train] / 100, weights[train], [0.1, 0.01], n_components=1)[1]
        assert model.scores_[0, 1, fold] == pytest.approx(scorer(model, X[test], Y[test] / 100), rel=1e-9)


def test_weights_reach_scorers_that_take_keywords_only_where_metadata_are_routed(monkeypatch):
    weights = np.arange(27) + 1.0
    model = ConvexBNRegressorCV(**QUICK, cv=3, scoring="neg_mean_squared_error")
    expected = clone(model).fit(X, Y / 100, sample_weight=weights).scores_
    kind = type(get_scorer("r2")).__mro__[1]

    def call(self, estimator, X, y_true, **keywords):
        if keywords and not get_config()["enable_metadata_routing"]:
            raise ValueError("Passing extra keyword arguments needs enable_metadata_routing=True.")
        return self._score(
            lambda model, method, *data, **_: getattr(model, method)(*data), estimator, X, y_true, **keywords
        )

    monkeypatch.setattr(kind, "__call__", call)
    np.testing.assert_array_equal(clone(model).fit(X, Y / 100, sample_weight=weights).scores_, expected)


IRIS = load_iris().data[:60]
RARE = np.r_[np.zeros(50), np.ones(9), 2]


@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.parametrize("loss", ["log_loss", "cross_entropy"])
@pytest.mark.parametrize("labels", [RARE, np.r_[np.zeros(59), 1], np.r_[["a"] * 58, ["b", "c"]]], ids=["3", "2", "4"])
def test_a_class_of_one_member_is_missed_in_the_fold_that_tests_it(labels, loss):
    options = {"n_components": 1, "spectral_power": 0.0, "tol": 1e-2, "loss": loss}
    model = ConvexBNClassifierCV(weight_decays=[0.1, 0.01], cv=5, scoring="accuracy", **options).fit(IRIS, labels)
    assert model.classes_.tolist() == np.unique(labels).tolist()
    for fold, (train, test) in enumerate(StratifiedKFold(5).split(IRIS, labels)):
        known, counts = np.unique(labels[train], return_counts=True)
        if len(known) == 1:
            assert model.scores_[0, :, fold] == pytest.approx(np.mean(labels[test] == known[counts.argmax()]))
            continue
        one_hot = (labels[train, None] == known).astype(float)
        signs = len(known) == 2 and loss == "log_loss"
        network = networks_along(
            IRIS[train],
            2 * one_hot[:, 1] - 1 if signs else one_hot,
            np.ones(len(train)),
            [0.1, 0.01],
            n_components=1,
            loss=make_loss(loss).of_classes(len(known)),
        )[1]
        outputs = network.predict(IRIS[test])
        predicted = known[(outputs[:, 0] > 0).astype(int) if signs else outputs.argmax(axis=1)]
        assert model.scores_[0, 1, fold] == pytest.approx(np.mean(predicted == labels[test]))
    assert (np.isfinite(model.predict_proba(IRIS))).all()


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_probabilities_of_a_class_that_a_fold_lacks_are_zero():
    model = ConvexBNClassifierCV(
        weight_decays=[0.1], spectral_power=0.0, cv=5, n_components=1, tol=1e-2, scoring="neg_log_loss"
    )
    scores = model.fit(IRIS, RARE).scores_[0, 0]
    lacking = [2 not in RARE[train] for train, _ in StratifiedKFold(5).split(IRIS, RARE)]
    never = -np.log(np.finfo(np.float64).eps) / 12  # what a test sample of probability zero adds to the mean of twelve
    assert (-scores[lacking] > never).all()
    assert (-scores[np.logical_not(lacking)] < 1).all()


def test_one_dictionary_of_class_weights_serves_folds_that_lack_a_label():
    labels = np.r_[np.tile(["a", "b"], 25), ["rare"] * 6]
    data = np.random.default_rng(0).standard_normal((56, 2)) + (labels == "b")[:, None]
    weights = {"a": 1, "b": 1, "rare": 20}
    for model in (
        ConvexBNClassifier(0.01, n_components=1, tol=1e-2, class_weight=weights),
        ConvexBNClassifierCV(**QUICK, cv=2, class_weight=weights),
    ):
        scores = cross_val_score(model, data, labels, cv=TimeSeriesSplit(3), error_score="raise")
        assert (scores[:2] > 0.6).all()


def test_parallel_is_scikit_learns():
    assert cross_validation.Parallel.__module__.startswith("sklearn")


@pytest.mark.parametrize("routes", [False, True])
def test_groups_reach_the_folds_of_every_stage(routes):
    data = np.random.default_rng(0).standard_normal((20, 3))
    groups, targets = np.arange(20) % 4, np.abs(data[:, 0])
    options = {"n_components": 1, "n_weight_decays": 2, "eps": 0.01, "spectral_power": 0.0, "tol": 1.0}
    estimator = ConvexBNRegressorCV(cv=GroupKFold(2), **options)
    listed = clone(estimator).set_params(cv=list(GroupKFold(2).split(data, targets, groups)))
    with config_context(enable_metadata_routing=routes):
        stack = ConvexBNStackRegressor(estimator).fit(data, targets, groups=groups)
        expected = ConvexBNStackRegressor(listed).fit(data, targets)
        for stage, other in zip(stack.estimators_, expected.estimators_, strict=True):
            np.testing.assert_array_equal(stage.scores_, other.scores_)


def test_groups_are_held_out_together_in_every_stage():
    data = np.random.default_rng(0).standard_normal((20, 3))
    groups, targets = np.arange(20) % 4, np.abs(data[:, 0])
    plain = ConvexBNRegressor(spectral_power=1.0, tol=1.0)
    first, second = ConvexBNStackRegressor(plain).fit(data, targets, groups=groups).estimators_
    for stage, inputs in ((first, data), (second, first.network_.hidden(data))):
        alone, without = (clone(plain).fit(inputs, targets, groups=given) for given in (groups, None))
        scores = [model.validation_scores_["mean_score"] for model in (stage, alone, without)]
        np.testing.assert_array_equal(scores[0], scores[1])
        assert not np.array_equal(scores[0], scores[2])


def test_equal_rows_have_the_mean_of_the_targets():
    model = ConvexBNRegressorCV(normalization="weight", cv=2, n_weight_decays=2).fit(np.ones((10, 2)), np.arange(10.0))
    np.testing.assert_allclose(model.predict(np.ones((1, 2))), 4.5, rtol=1e-6)


def test_class_weights_count_in_the_default_score():
    check_class_weight_classifiers("ConvexBNClassifierCV", ConvexBNClassifierCV(cv=2, tol=1.0))


@pytest.mark.parametrize(
    "options",
    [{"spectral_power": [0.0, 1.0]}, {"activation": "gated_relu", "n_patterns": 9, "tol": 1e-2}],
    ids=["fast paths", "gated paths"],
)
def test_callbacks_see_every_network_of_every_path_whatever_the_jobs(options):
    seen = {}
    for n_jobs in (1, 2):
        seen[n_jobs] = []
        model = ConvexBNRegressorCV(**SMALL | options, n_jobs=n_jobs, callback=seen[n_jobs].append).fit(X, Y)
    along = 3 * 3 * len(model.scores_)
    assert [progress.n_iter for progress in seen[1][:along]] == [1, 2, 3] * (along // 3)
    assert len(seen[1]) == along + model.n_iter_
    facts = [[(p.n_iter, p.objective, p.gap, p.n_neurons) for p in progress] for progress in seen.values()]
    np.testing.assert_equal(*facts)
    of_paths = np.array([p.objective for p in seen[1][:along]]).reshape(-1, 3)
    assert (np.diff(of_paths, axis=1) < 0).all()  # at falling weight decay
    assert np.isnan(seen[1][0].gap) == ("activation" not in options)
    assert all(later.time > p.time for p, later in zip(seen[1], seen[1][1:along], strict=False) if later.n_iter > 1)


@pytest.mark.parametrize("model", [ConvexBNRegressor(0.1), ConvexBNRegressorCV(cv=2)], ids=["fixed", "cv"])
def test_a_callback_whose_answer_is_neither_true_nor_false_is_named(model):
    X, y = np.random.default_rng(0).standard_normal((2, 20, 2))
    with pytest.raises(ValueError, match=r"callback returned array\(\[0\., 0\.\]\).*return True to end the run"):
        clone(model).set_params(callback=lambda progress: np.zeros(2)).fit(X, y[:, 0])


def test_errors_on_the_training_samples_of_a_fold_say_so():
    X, y = np.random.default_rng(0).standard_normal((2, 20, 2))
    X[5:] = 1.0
    folds = [(np.arange(5, 20), np.arange(5)), (np.arange(5), np.arange(5, 20))]
    with pytest.raises(ValueError, match="On the training samples of a fold of cv: All rows of X are equal"):
        ConvexBNRegressorCV(cv=folds).fit(X, y[:, 0])


@pytest.mark.parametrize(("n_paths", "counted"), [(1, {"cv": [0]}), (5, {"cv": [0, 1, 2], "n_components": 1})], ids=str)
def test_callbacks_may_end_the_comparison(n_paths, counted):
    """The choice is that of the folds that were scored, or of the values that were scored on all folds."""
    folds, seen = list(KFold(3).split(X)), []

    def enough(progress):
        seen.append(progress)
        return len(seen) == 3 * n_paths - 1  # amid the last path that is counted

    options = SMALL | {"cv": folds, "n_components": [1, 2], "weight_decays": [20.0, 10.0, 1.0]}
    ended = ConvexBNRegressorCV(**options, callback=enough).fit(X, Y)
    fewer = {"n_components": 1} | counted | {"cv": [folds[number] for number in counted["cv"]]}
    expected = ConvexBNRegressorCV(**options | fewer).fit(X, Y)
    assert np.isfinite(ended.scores_).any(axis=1).sum() == n_paths
    assert (ended.weight_decay_, ended.n_components_) == (expected.weight_decay_, 1)
    assert ended.best_score_ == pytest.approx(expected.best_score_)
    assert ended.certificate_.gap < 1
    stopped = ConvexBNRegressorCV(**options | {"tol": 1e-9}, callback=lambda progress: True).fit(X, Y)
    assert stopped.n_iter_ == 1
