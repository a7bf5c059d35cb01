import pickle
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import parametrize_with_checks

from convexbn import (
    BatchNormDesign,
    BatchNormNetwork,
    ConvexBNClassifier,
    ConvexBNClassifierCV,
    ConvexBNRegressor,
    ConvexBNRegressorCV,
    ConvexBNStackClassifier,
    GatedNetwork,
    Problem,
    WeightNormNetwork,
    enumerate_patterns,
    prove,
    solve_reference,
)
from convexbn.losses import Huber, SquaredError
from convexbn.solvers import Search
from tests.watched import Watched, watched_loss

X, Y = load_diabetes(return_X_y=True)
X, Y = X[:40, [2, 3]], Y[:40]
LABELS = np.where(np.median(Y) < Y, "high", "low")
# At 0.03 of the largest weight decay that gives a network, which is too few to be chosen on held-out samples.
REGRESSOR, CLASSIFIER = ConvexBNRegressor(0.9), ConvexBNClassifier(0.005)
ESTIMATORS = [REGRESSOR, CLASSIFIER]


# Fits that choose their values do a limited amount of work, and say so where it ends above `tol`.
@pytest.mark.filterwarnings("ignore:The last fit stopped:sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(
    [
        ConvexBNRegressor(),
        ConvexBNRegressor(0.1, activation="gated_relu", fit_intercept=False, tol=0.1),
        ConvexBNClassifier(),
        ConvexBNClassifier(0.1, normalization="weight", loss="squared_hinge", tol=0.1),
        ConvexBNClassifier(0.01, loss="hinge", activation="gated_relu", tol=0.1),
    ],
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("loss", ["log_loss", "hinge"])
def test_gated_networks_are_certified_with_class_weights_far_apart(loss):
    model = ConvexBNClassifier(activation="gated_relu", loss=loss, class_weight={"high": 1e3, "low": 1e-4}, tol=1e-3)
    model.set_params(weight_decay=2e-9)  # 0.03 of the largest
    assert model.fit(X[:25], LABELS[:25]).certificate_.gap <= 1e-3


@pytest.mark.parametrize(
    ("options", "Network"),
    [
        ({}, BatchNormNetwork),
        ({"normalization": "weight"}, WeightNormNetwork),
        ({"activation": "gated_relu"}, GatedNetwork),
    ],
)
def test_certificate_is_of_the_network(options, Network):
    model = ConvexBNRegressor(weight_decay=5.0, tol=1e-7, **options).fit(X[:20], Y[:20])
    assert type(model.network_) is Network
    assert model.weight_decay_ == 5
    assert model.certificate_.gap <= 1e-6
    np.testing.assert_array_equal(model.predict(X), model.network_.predict(X)[:, 0])
    if Network is not GatedNetwork:
        assert model.certificate_.scope == "global"
        objective = model.network_.objective(X[:20], Y[:20], 5.0)
        assert objective == pytest.approx(model.certificate_.objective, rel=1e-6)


def test_optimum_is_that_of_the_program():
    model = ConvexBNClassifier(weight_decay=0.01, tol=1e-9).fit(X[:15], LABELS[:15])
    signs = np.where(LABELS[:15] == "low", 1.0, -1.0)
    problem = Problem(BatchNormDesign().fit_transform(X[:15]), signs, "log_loss", weight_decay=0.01, fit_intercept=True)
    program = solve_reference(problem, enumerate_patterns(problem.Z)).certificate
    assert model.certificate_.objective == pytest.approx(program.objective, rel=1e-9)


def test_auto_solver_is_said_in_the_certificate():
    wide = load_breast_cancer(return_X_y=True)
    closed = ConvexBNClassifier(0.01).fit(wide[0][:25], wide[1][:25])
    assert closed.certificate_.search is Search.CLOSED_FORM
    assert closed.n_iter_ == 0
    assert clone(REGRESSOR).fit(X, Y).certificate_.search is Search.ASCENT
    sampled = ConvexBNRegressor(1.0, solver="CLARABEL", n_patterns=3).fit(
        load_diabetes().data[:60], load_diabetes().target[:60]
    )
    assert (sampled.certificate_.search, sampled.certificate_.n_patterns) == (Search.PATTERNS, 3)
    assert sampled.certificate_.scope == "patterns"


@pytest.mark.parametrize("model", ESTIMATORS, ids=repr)
def test_zero_network_above_weight_decay_max(model):
    y = Y if isinstance(model, ConvexBNRegressor) else LABELS
    model = clone(model).set_params(weight_decay=1e6).fit(X, y)
    assert len(model.network_) == 0
    assert model.certificate_.scope == "global"
    assert model.certificate_.gap <= 1e-6
    assert "zero network" in str(model.certificate_)
    assert np.ptp(model.network_.predict(X)) == 0


def test_constant_targets_give_the_constant():
    model = ConvexBNRegressor().fit(X, np.full(40, 3.0))
    np.testing.assert_allclose(model.predict(X), 3)
    assert str(model.certificate_).startswith("objective 0, lower bound 0: relative gap 0.00e+00")


def test_labels_and_probabilities():
    model = clone(CLASSIFIER).fit(X, LABELS)
    assert list(model.classes_) == ["high", "low"]
    probabilities = model.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(model.classes_[probabilities.argmax(axis=1)], model.predict(X))
    np.testing.assert_allclose(probabilities[:, 1], 1 / (1 + np.exp(-model.decision_function(X))))
    assert model.score(X, LABELS) > 0.7


def test_probabilities_only_with_likelihoods():
    model = ConvexBNClassifier(0.005, loss="squared_hinge").fit(X, LABELS)
    assert not hasattr(model, "predict_proba")
    with pytest.raises(AttributeError) as error:
        model.predict_proba(X)
    assert "needs loss='log_loss' or 'cross_entropy', not 'squared_hinge'" in str(error.value.__cause__)
    assert ConvexBNClassifier(0.005, loss="cross_entropy", tol=1e-3).fit(X, LABELS).predict_proba(X).shape == (40, 2)


def test_random_state_decides_the_sample():
    data = load_diabetes(return_X_y=True)
    predictions = [
        ConvexBNRegressor(1.0, solver="CLARABEL", n_patterns=3, random_state=seed)
        .fit(data[0][:50], data[1][:50])
        .predict(data[0])
        for seed in (0, 0, np.random.RandomState(0), 1)
    ]
    np.testing.assert_array_equal(predictions[0], predictions[1])
    assert not np.allclose(predictions[0], predictions[3])


def test_pipeline_grid_search_clone_and_pickle():
    pipeline = make_pipeline(StandardScaler(), ConvexBNRegressor(spectral_power=1.0, tol=1.0))
    grid = {"convexbnregressor__n_components": [1, 2], "convexbnregressor__weight_decay": ["auto", 2.0]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X[:24], Y[:24])
    assert np.isfinite(search.best_score_)
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.predict(X), search.predict(X))
    copy = clone(ConvexBNRegressor(loss=Huber(2.0), n_components=0.9))
    assert copy.loss == Huber(2.0)


def test_pandas_frames():
    frame = pd.DataFrame(X, columns=["bmi", "bp"])
    model = clone(REGRESSOR).fit(frame, pd.Series(Y))
    assert list(model.feature_names_in_) == ["bmi", "bp"]
    np.testing.assert_array_equal(model.predict(frame), clone(REGRESSOR).fit(X, Y).predict(X))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"bp": "blood pressure"}))


def test_n_components_truncates():
    model = ConvexBNRegressor(0.9, n_components=1).fit(X, Y)
    directions = model.network_.weights / np.linalg.norm(model.network_.weights, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(directions @ directions.T), 1)


def test_verbose_prints(capfd):
    ConvexBNRegressor(0.9, verbose=True).fit(X[:10], Y[:10])
    assert "column generation" in capfd.readouterr().err
    ConvexBNRegressor(0.9, verbose=True, solver="CLARABEL").fit(X[:10], Y[:10])
    assert "CVXPY" in "".join(capfd.readouterr())


def test_unreached_tolerance_warns():
    with pytest.warns(ConvergenceWarning, match=r"gap of .* of the zero network's objective, above tol=1.0e-09"):
        ConvexBNRegressor(0.9, max_iter=1, tol=1e-9).fit(X, Y)


@pytest.mark.parametrize("model", ESTIMATORS, ids=repr)
def test_the_gap_is_within_the_tolerance_times_the_objective_of_the_best_constant(model):
    y = Y if isinstance(model, ConvexBNRegressor) else LABELS
    shares = np.unique(y, return_counts=True)[1] / len(y)
    constant = np.var(Y) / 2 if isinstance(model, ConvexBNRegressor) else -(shares * np.log(shares)).sum()
    for tol in (1e-2, 1e-4):
        certificate = clone(model).set_params(tol=tol).fit(X, y).certificate_  # without a warning
        assert certificate.objective - certificate.lower_bound <= tol * constant


@pytest.mark.parametrize("tol", [1e-6, 1e-4])
def test_a_loose_proof_stands_beside_the_local_certificate(tol):
    """A gap above the tolerance always warns, and warnings are errors here."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 5))
    y = np.maximum(X @ rng.standard_normal(5), 0) + 0.3 * rng.standard_normal(60)
    certificate = ConvexBNRegressor(0.02, tol=tol).fit(X, y).certificate_
    assert certificate.objective - certificate.lower_bound <= tol * np.var(y) / 2
    assert certificate.scope == "local"
    assert 0 < certificate.global_lower_bound < certificate.lower_bound


def test_proofs():
    found = {prove: ConvexBNRegressor(0.9, prove=prove).fit(X, Y) for prove in (False, "auto", True)}
    assert [model.certificate_.scope for model in found.values()] == ["local", "global", "global"]
    for model in found.values():  # what a proof finds goes on as a neuron
        assert model.certificate_.objective <= found[False].certificate_.objective
        np.testing.assert_allclose(model.predict(X), found[False].predict(X), rtol=1e-2)


def test_out_of_time_it_has_the_best_network_so_far():
    for options in ({}, {"activation": "gated_relu"}, {"normalization": "weight"}):
        with pytest.warns(ConvergenceWarning, match="reached max_time"):
            model = ConvexBNRegressor(1e-3, solver="auto", max_time=1e-9, n_patterns=2000, **options).fit(X, Y)
        assert np.isfinite(model.predict(X)).all()
        assert model.certificate_.objective <= np.var(Y) / 2 * (1 + 1e-12)


class TestInterrupts:
    """Ctrl-C, at a place of the solver."""

    @pytest.fixture
    def press(self, monkeypatch):
        """Presses it in a call of a product with the design matrix, and returns the numbers of calls."""
        matrix = BatchNormDesign.matrix

        def press_in(name=None, call=1):
            kind = type(Watched.fresh(np.eye(1), press={name: [call]}))
            monkeypatch.setattr(BatchNormDesign, "matrix", lambda self, data: kind(matrix(self, data).Z))
            return kind.calls

        return press_in

    def test_fit_keeps_the_best_network_and_passes_it_on(self, press):
        calls = press()
        ConvexBNRegressor(1.0, tol=1e-8, prove=False).fit(X, Y)
        press("masked_gram", call=calls["masked_gram"])
        model = ConvexBNRegressor(1.0, tol=1e-8)
        with (
            pytest.warns(ConvergenceWarning, match="was interrupted"),
            pytest.raises(KeyboardInterrupt, match="has the best network so far"),
        ):
            model.fit(X, Y)
        constant = np.mean((Y - Y.mean()) ** 2) / 2
        assert 0 < model.certificate_.lower_bound < model.certificate_.objective < 0.99 * constant
        assert model.certificate_.gap > 1e-8
        assert model.network_.objective(X, Y, 1.0) == pytest.approx(model.certificate_.objective)

    def test_in_the_proof_it_is_not_forgotten(self, press):
        calls = press()
        clone(REGRESSOR).set_params(prove=False).fit(X, Y)
        press("for_prices", call=calls["for_prices"] + 1)  # after the last search
        model = clone(REGRESSOR)
        with pytest.raises(KeyboardInterrupt):  # and no warning: the gap is small enough
            model.fit(X, Y)
        assert model.certificate_.scope == "local"

    def test_without_a_network_the_estimator_is_left_as_it_was(self):
        def interrupted(*arguments):
            raise KeyboardInterrupt

        model = clone(REGRESSOR).fit(X, Y)
        before = model.predict(X)
        model.set_params(loss=watched_loss(SquaredError, interrupted))
        with pytest.raises(KeyboardInterrupt):
            model.fit(X[:, :1], Y)
        np.testing.assert_array_equal(model.predict(X), before)

    @pytest.mark.filterwarnings("ignore:Column generation stopped:sklearn.exceptions.ConvergenceWarning")
    @pytest.mark.parametrize("wrap", [lambda model: model, lambda model: make_pipeline(StandardScaler(), model)])
    def test_searches_end(self, press, wrap):
        calls = press()
        model = wrap(clone(REGRESSOR)).fit(X, Y)
        once = calls["for_prices"]
        calls = press("for_prices", call=once + 3)  # in the second fold, or the third
        with pytest.raises(KeyboardInterrupt):
            cross_val_score(model, X, Y, cv=4)
        assert calls["for_prices"] == once + 3
        name = "fit_intercept" if isinstance(model, ConvexBNRegressor) else "convexbnregressor__fit_intercept"
        calls = press("for_prices", call=once + 3)
        with pytest.raises(KeyboardInterrupt):
            GridSearchCV(model, {name: [True, False]}, cv=2).fit(X, Y)
        assert calls["for_prices"] == once + 3


class TestProve:
    """A proof after the fit."""

    def data(self, model):
        return X, LABELS if isinstance(model, ConvexBNClassifier) else Y

    @pytest.mark.parametrize(
        "model",
        [
            ConvexBNRegressor(1.0, prove=False),
            ConvexBNRegressor(4.0, prove=False, normalization="weight", spectral_power=0.5, fit_intercept=False),
            ConvexBNRegressorCV(prove=False, n_weight_decays=3, eps=0.01, cv=2, n_components=[1, 2]),
            ConvexBNClassifier(0.006, prove=False, class_weight="balanced"),
        ],
        ids=repr,
    )
    def test_it_sharpens_the_certificate_and_leaves_the_network(self, model):
        X, y = self.data(model)
        weights = 1.0 + np.arange(len(X)) % 3
        model = clone(model).fit(X, y, sample_weight=weights)
        before, network = model.certificate_, model.network_
        assert before.scope == "local"
        certificate = prove(model, X, y, weights, random_state=0)
        assert certificate.scope == "global"
        assert model.certificate_ is certificate
        assert certificate.objective == pytest.approx(before.objective, rel=1e-9)
        assert before.global_lower_bound < certificate.lower_bound <= before.objective
        assert model.network_ is network
        assert ("spectral_power" in certificate.basis) == bool(model.spectral_power_)
        assert prove(model, X, y, weights) is certificate

    def test_out_of_time_it_keeps_what_is_proved(self):
        model = ConvexBNRegressor(0.9, prove=False).fit(X, Y)
        before = model.certificate_
        certificate = prove(model, X, Y, max_time=1e-9)
        assert certificate.global_lower_bound >= before.global_lower_bound
        assert model.certificate_.lower_bound == before.lower_bound

    def test_other_data_or_models_are_refused(self):
        model = ConvexBNRegressor(0.9, prove=False).fit(X, Y)
        for changed in ((X + 1e-2 * X**2, Y), (X, Y + X[:, 0]), (X[:-1], Y[:-1]), (X[:, :1], Y), (X, np.c_[Y, Y])):
            with pytest.raises(ValueError, match="X, y and sample_weight are not what model was trained on"):
                prove(model, *changed)
        with pytest.raises(ValueError, match="max_time=0 must be"):
            prove(model, X, Y, max_time=0)
        with pytest.raises(ValueError, match=r"model=Ridge\(\) must be a convexbn estimator"):
            prove(Ridge(), X, Y)
        with pytest.raises(NotFittedError):
            prove(ConvexBNRegressor(), X, Y)
        with pytest.raises(ValueError, match="nothing is left to prove"):
            prove(ConvexBNRegressor(0.9, activation="gated_relu").fit(X, Y), X, Y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_time": -1.0}, "max_time=-1.0 must be a positive number of seconds or None"),
        ({"prove": 1}, 'prove=1 must be True, False or "auto"'),
        ({"weight_decay": -1.0}, "weight_decay=-1.0 must be a positive"),
        ({"weight_decay": np.nan}, "weight_decay=nan"),
        ({"weight_decay": np.inf}, "weight_decay=inf"),
        ({"weight_decay": "none"}, r'weight_decay=.none. must be a positive finite number or "auto"'),
        (
            {"normalization": "layer"},
            r"normalization='layer' is unknown; choose one of \['batch', 'weight', 'batch_after_relu'\]",
        ),
        ({"activation": "tanh"}, "activation='tanh' is unknown"),
        ({"loss": "absolute"}, "loss='absolute' is not one that"),
        ({"solver": "magic"}, "solver='magic' is not installed"),
        ({"solver": "closed_form", "activation": "gated_relu"}, "solver='closed_form'"),
        ({"n_components": 0}, "n_components=0 is out of range"),
        ({"n_components": 3}, "n_components=3 is out of range"),
        ({"n_components": 1.2}, "n_components=1.2 is out of range"),
        ({"n_patterns": 0}, "n_patterns=0 must be a positive integer"),
        ({"n_patterns": 2.5}, "n_patterns=2.5"),
        ({"max_iter": 0}, "max_iter=0 must be a positive integer or None"),
        ({"loss": []}, r"loss=\[\] is not one that"),
        ({"normalization": {}}, "normalization={} is unknown"),
        ({"activation": None}, "activation=None is unknown"),
        ({"solver": []}, r"solver=\[\] must be the name of a solver"),
        ({"weight_decay": np.ones(2)}, "weight_decay=array"),
        ({"fit_intercept": "no"}, "fit_intercept='no' must be True or False"),
        ({"random_state": "seed"}, "random_state='seed' must be None"),
        ({"random_state": -1}, "random_state=-1 must be None"),
        ({"tol": 0.0}, "tol=0.0 must be a positive number"),
        ({"tol": "small"}, "tol='small'"),
    ],
)
@pytest.mark.parametrize("model", ESTIMATORS, ids=repr)
def test_bad_parameters(model, parameters, message):
    y = Y if isinstance(model, ConvexBNRegressor) else LABELS
    with pytest.raises(ValueError, match=message):
        clone(model).set_params(**parameters).fit(X, y)


@pytest.mark.parametrize("model", ESTIMATORS, ids=repr)
def test_bad_data(model):
    y = Y if isinstance(model, ConvexBNRegressor) else LABELS
    with_nan, with_inf = X.copy(), X.copy()
    with_nan[0, 0], with_inf[0, 0] = np.nan, np.inf
    for data, targets, message in (
        (with_nan, y, "NaN"),
        (with_inf, y, "infinity"),
        (X.astype(str).astype(object) + "x", y, "could not convert"),
        (X[:, 0], y, "Expected 2D array"),
        (X.reshape(40, 1, 2, 1), y, r"got \(40, 1, 2, 1\); use X.reshape\(len\(X\), -1\), or for images ConvexBNConv"),
        (X, y[:-1], "inconsistent numbers of samples"),
        (X[:0], y[:0], "0 sample"),
        (X[:1], y[:1], "1 sample"),
        (np.ones_like(X), y, "All rows of X are equal"),
    ):
        with pytest.raises(ValueError, match=message):
            clone(model).fit(data, targets)
    with pytest.raises(ValueError, match=r"X must have shape \(n, d\), got \(40, 2, 1\)"):
        clone(model).fit(X, y).predict(X[:, :, None])


def test_bad_targets():
    with pytest.raises(ValueError, match="loss 'huber' takes one output, y has 2 columns"):
        ConvexBNRegressor(loss="huber").fit(X, np.column_stack([Y, Y]))
    for loss in ("hinge", "squared_hinge"):
        with pytest.raises(ValueError, match=f"loss='{loss}' takes two classes, y has 3; use loss='log_loss'"):
            ConvexBNClassifier(loss=loss).fit(X, np.arange(40) % 3)
    with pytest.raises(ValueError, match="one class only, 'a'"):
        ConvexBNClassifier().fit(X, np.full(40, "a"))
    with pytest.raises(ValueError, match="NaN"):
        ConvexBNRegressor().fit(X, np.where(Y > 0, np.nan, 0))
    with pytest.raises(ValueError, match="Unknown label type"):
        ConvexBNClassifier().fit(X, Y + 0.5)
    for model, loss in ((ConvexBNRegressor(), "hinge"), (ConvexBNClassifier(), "squared_error")):
        with pytest.raises(ValueError, match=f"loss='{loss}' is not one that {type(model).__name__} takes"):
            model.set_params(loss=loss).fit(X, LABELS)


@pytest.mark.parametrize("model", ESTIMATORS, ids=repr)
def test_failed_fit_leaves_the_estimator_as_it_was(model):
    y = Y if isinstance(model, ConvexBNRegressor) else LABELS
    model = clone(model).set_params(solver="OSQP")
    with pytest.raises(RuntimeError, match="OSQP failed with status"):
        model.fit(X[:10], y[:10])
    assert not [name for name in vars(model) if name.endswith("_")]
    with pytest.raises(NotFittedError):
        model.predict(X)
    model.set_params(solver="auto").fit(X[:10], y[:10])
    network = model.network_
    with pytest.raises(ValueError, match="NaN"):
        model.fit(np.full((5, 7), np.nan), y[:5])
    assert model.network_ is network
    assert model.n_features_in_ == 2


def test_rows_rounded_otherwise_than_those_of_training_are_predicted_as_well():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((140, 2)).astype(np.float32)
    data = np.column_stack([A, A.sum(axis=1, dtype=np.float32)]).astype(float)
    y = data[:, 0] - data[:, 1] + 0.3 * rng.standard_normal(140)
    model = ConvexBNRegressor(0.02, tol=1e-2).fit(data[:40], y[:40])
    moved = data[40:].copy()
    moved[:, 2] += 1e-3
    for new in (data[40:], data[40:].round(3), data[40:].round(2), moved):
        assert model.score(new, y[40:]) > 0.93


def test_certificate_says_which_directions_it_is_about():
    rng = np.random.default_rng(0)
    data = rng.standard_normal((30, 3))
    data[:, 2] = data[:, 1] + 1e-5 * data[:, 2]
    y = np.abs(data[:, 0])
    truncated = ConvexBNRegressor(0.1).fit(data, y).certificate_
    assert re.search(r"for X truncated to 2 of the singular .* columns, without .\..e-11 of its", truncated.basis)
    assert truncated.setting.n_directions == 2
    assert 1e-11 < truncated.setting.variance_left_out < 1e-10
    assert "truncated to 1 of" in ConvexBNRegressor(0.1, n_components=1).fit(data, y).certificate_.basis
    assert "truncated" not in ConvexBNRegressor(0.1).fit(data[:, :2], y).certificate_.basis
    assert "truncated" not in ConvexBNRegressor(0.1).fit(data[:, [0, 1, 1]], y).certificate_.basis


@pytest.mark.parametrize("loss", ["log_loss", "cross_entropy"])
@pytest.mark.parametrize("labels", [LABELS, np.arange(40) % 3], ids=["2 classes", "3 classes"])
@pytest.mark.parametrize("scale", [1e100, 1e300])
def test_probabilities_of_huge_outputs_are_probabilities(labels, loss, scale):
    model = ConvexBNClassifier(0.02, loss=loss, n_components=1, tol=1e-2).fit(X, labels)
    outputs, probabilities = model.decision_function(scale * X), model.predict_proba(scale * X)
    assert scale / 100 < np.abs(outputs).max() < np.inf
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(model.classes_[probabilities.argmax(axis=1)], model.predict(scale * X))


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e300, 1e308])
@pytest.mark.parametrize(
    "model",
    [
        ConvexBNRegressor(0.1),
        ConvexBNRegressor(0.1, normalization="weight"),
        ConvexBNRegressor(0.1, activation="gated_relu", n_patterns=3),
        ConvexBNClassifier(0.02, class_weight="balanced"),
        ConvexBNClassifier(0.02, class_weight={"high": 10}),
        ConvexBNRegressorCV(weight_decays=[0.1], cv=2),
        ConvexBNStackClassifier(ConvexBNClassifier(0.02, n_components=1, tol=1e-2), n_stages=1),
    ],
    ids=repr,
)
def test_only_ratios_of_sample_weights_count(model, scale):
    y = LABELS if is_classifier(model) else Y / 100
    model, ratios = clone(model), np.where(np.arange(40) < 20, 0.5, 1.0)
    if "estimator" not in model.get_params():
        model.set_params(n_components=1, tol=1e-2)
    expected = clone(model).fit(X, y, sample_weight=ratios).network_.predict(X)
    predictions = model.fit(X, y, sample_weight=scale * ratios).network_.predict(X)
    np.testing.assert_allclose(predictions, expected, rtol=1e-3)


def test_sample_weights_of_every_size_at_once():
    weights = 10.0 ** np.linspace(-300, 300, 40)
    heaviest = np.where(weights > weights.max() * 1e-50, weights / weights.max(), 0)
    model = ConvexBNRegressor(0.1, n_components=1, tol=1e-2)
    predictions = model.fit(X, Y / 100, sample_weight=weights).predict(X)
    np.testing.assert_allclose(predictions, clone(model).fit(X, Y / 100, sample_weight=heaviest).predict(X), rtol=1e-2)


def test_one_number_is_the_weight_of_all_samples():
    model = ConvexBNRegressor(0.1, n_components=1, tol=1e-2)
    np.testing.assert_array_equal(
        clone(model).fit(X, Y, sample_weight=2.5).predict(X),
        clone(model).fit(X, Y, sample_weight=np.full(40, 2.5)).predict(X),
    )


@pytest.mark.parametrize("weights", ["abc", ["a"] * 40, {"a": 1}, np.ones(40) + 1j, [[1, 2], [3]]])
def test_sample_weights_that_are_no_numbers(weights):
    with pytest.raises(ValueError, match="sample_weight must hold real numbers"):
        ConvexBNRegressor().fit(X, Y, sample_weight=weights)


KINDS_OF_LABELS = {
    "int": lambda positive: positive.astype(int),
    "int8": lambda positive: positive.astype(np.int8),
    "signs": lambda positive: 2.0 * positive - 1,
    "bool": lambda positive: positive,
    "str": lambda positive: np.where(positive, "no", "yes"),
    "digits": lambda positive: np.where(positive, "1", "2"),
    "object": lambda positive: np.where(positive, "no", "yes").astype(object),
    "list": lambda positive: np.where(positive, "no", "yes").tolist(),
    "far integers": lambda positive: np.where(positive, 2**62, 2**62 + 1),
    "Categorical": lambda positive: pd.Categorical(np.where(positive, "no", "yes")),
    "category": lambda positive: pd.Series(positive.astype(int), dtype="category"),
    "Int64": lambda positive: pd.Series(positive.astype(int), dtype="Int64"),
    "boolean": lambda positive: pd.Series(positive, dtype="boolean"),
    "string": lambda positive: pd.Series(np.where(positive, "no", "yes"), dtype="string"),
    "column": lambda positive: pd.DataFrame({"y": np.where(positive, "no", "yes")}),
    "object numbers": lambda positive: positive.astype(object),
    "mixed": lambda positive: np.where(positive, 1, np.array("a", dtype=object)),
    "missing": lambda positive: pd.Series(positive.astype(int), dtype="Int64").mask(np.arange(40) == 3),
    "fractions": lambda positive: positive + 0.5,
    "bytes": lambda positive: np.where(positive, b"no", b"yes"),
}


@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
@pytest.mark.parametrize("kind", KINDS_OF_LABELS)
@pytest.mark.parametrize(
    "model",
    [
        ConvexBNClassifier(0.02, n_components=1, tol=1e-2),
        ConvexBNClassifierCV(weight_decays=[0.02], cv=2, n_components=1, tol=1e-2),
        ConvexBNStackClassifier(ConvexBNClassifier(0.02, n_components=1, tol=1e-2), n_stages=1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_labels_are_those_of_scikit_learn(model, kind):
    y = KINDS_OF_LABELS[kind](np.median(Y) < Y)
    try:
        peer = LogisticRegression().fit(X, y)
    except (ValueError, TypeError) as error:
        with pytest.raises(type(error), match=re.escape(str(error)[:20])):
            clone(model).fit(X, y)
        return
    model = clone(model).fit(X, y)
    np.testing.assert_array_equal(model.classes_, peer.classes_)
    assert model.classes_.dtype == peer.classes_.dtype
    assert model.predict(X).dtype == peer.predict(X).dtype
    assert model.score(X, y) > 0.6


@pytest.mark.parametrize(
    "class_weight",
    [
        {"high": 2},
        {"high": 2, "low": 1},
        {"high": 2, "low": 1, "absent": 5},
        {"high": 2, "absent": 5},
        {"absent": 5},
        {1: 2.0},
        {},
    ],
    ids=repr,
)
def test_class_weight_may_name_the_labels_that_it_may_in_scikit_learn(class_weight):
    model = ConvexBNClassifier(0.02, n_components=1, tol=1e-2, class_weight=class_weight)
    try:
        LogisticRegression(class_weight=class_weight).fit(X, LABELS)
    except ValueError:
        with pytest.raises(ValueError, match=r"class_weight=.* names \[.*\], which y does not hold, and not \["):
            model.fit(X, LABELS)
        return
    expected = {label: class_weight.get(label, 1) for label in ("high", "low")}
    weights = compute_sample_weight(expected, LABELS)
    plain = ConvexBNClassifier(0.02, n_components=1, tol=1e-2).fit(X, LABELS, sample_weight=weights)
    np.testing.assert_array_equal(model.fit(X, LABELS).predict_proba(X), plain.predict_proba(X))


@pytest.mark.parametrize("exponent", [-490, -60, -10])  # of two, so that nothing is rounded otherwise
def test_weight_normalization_learns_from_small_data_in_any_unit(exponent):
    rng = np.random.default_rng(0)
    data = rng.uniform(-1, 1, (30, 2)) / 2**10
    y = 2**6 * (np.abs(data[:, 0]) - data[:, 1])
    unit, weight_decay = 2.0**exponent, 1e-5 / 2**6
    model = ConvexBNRegressor(weight_decay, normalization="weight", tol=1e-2, prove=False)
    here, there = (
        clone(model).fit(data, y),
        clone(model).set_params(weight_decay=weight_decay * unit).fit(unit * data, y),
    )
    np.testing.assert_array_equal(there.predict(unit * data), here.predict(data))
    assert here.score(data, y) > 0.9
    assert "with biases in units of" in there.certificate_.basis
    objective = there.network_.objective(unit * data, y, there.weight_decay_)
    assert objective == pytest.approx(there.certificate_.objective, rel=1e-2)
    assert objective <= there.certificate_.objective
