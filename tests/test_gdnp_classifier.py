import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from convexbn import GDNPClassifier
from convexbn.gradient.gdnp import LearningHalfspace

X, Y = load_breast_cancer(return_X_y=True)
X = X[:, :3]
LABELS = np.where(Y == 1, "benign", "malignant")


@pytest.mark.filterwarnings("ignore:The classes are separable")
@parametrize_with_checks([GDNPClassifier(), GDNPClassifier("sigmoid"), GDNPClassifier(fit_intercept=False)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def test_it_is_logistic_regression():
    model = GDNPClassifier(tol=1e-8, max_iter=100000).fit(X, LABELS)
    peer = LogisticRegression(C=np.inf, tol=1e-10, solver="newton-cholesky").fit(X, LABELS)
    np.testing.assert_allclose(model.coef_, peer.coef_, rtol=1e-4)
    np.testing.assert_allclose(model.intercept_, peer.intercept_, rtol=1e-4)
    np.testing.assert_allclose(model.predict_proba(X), peer.predict_proba(X), atol=1e-5)
    assert (model.predict(X) == peer.predict(X)).all()
    assert model.n_iter_ == model.trace_.steps[-1]
    assert model.trace_["gradient_norm"][-1] <= 1e-8
    assert not model.separable_


def test_without_intercept():
    centred = X - X.mean(axis=0) + 0.1
    model = GDNPClassifier(fit_intercept=False, tol=1e-8, max_iter=100000).fit(centred, Y)
    peer = LogisticRegression(C=np.inf, tol=1e-10, solver="newton-cholesky", fit_intercept=False).fit(centred, Y)
    assert model.intercept_ == [0.0]
    np.testing.assert_allclose(model.coef_, peer.coef_, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_units_at_the_ends_of_the_floats_do_not_matter(scale):
    np.testing.assert_allclose(GDNPClassifier().fit(X * scale, Y).coef_ * scale, GDNPClassifier().fit(X, Y).coef_)


def test_ctrl_c_keeps_the_weights_so_far_and_is_passed_on(monkeypatch):
    gradient, calls = LearningHalfspace.gradient, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return gradient(self, *arguments)

    monkeypatch.setattr(LearningHalfspace, "gradient", interrupted)
    model = GDNPClassifier(tol=1e-9)
    with pytest.raises(KeyboardInterrupt, match="interrupted after 1 steps"):
        model.fit(X, Y)
    assert model.trace_.interrupted
    assert np.isfinite(model.coef_).all()


@pytest.mark.parametrize("loss", ["softplus", "sigmoid"])
def test_units_constant_and_dependent_columns_do_not_matter(loss):
    model = GDNPClassifier(loss, tol=1e-4, max_iter=20000).fit(X, Y)
    scales = np.array([1e-6, 1.0, 1e9])
    scaled = clone(model).fit(X * scales + [0.0, 7.0, 1e4], Y)
    np.testing.assert_allclose(scaled.coef_ * scales, model.coef_, rtol=1e-2)
    outputs = model.decision_function(X)
    wide = np.column_stack([X, np.full(len(X), 1e8 / 3), X[:, 0], X[:, 1] - 2 * X[:, 2]])
    with_more = clone(model).set_params(max_iter=100000).fit(wide, Y)
    np.testing.assert_allclose(with_more.decision_function(wide), outputs, atol=0.02 * np.abs(outputs).max())


def test_separable_classes_are_separated_and_said_to_be():
    digits, y = load_digits(n_class=2, return_X_y=True)
    with pytest.warns(ConvergenceWarning, match="classes are separable"):
        model = GDNPClassifier().fit(digits, y)
    assert model.separable_
    assert model.score(digits, y) == 1
    assert not GDNPClassifier(max_length=5.0).fit(digits, y).separable_


def test_max_length_holds():
    lengths = {limit: GDNPClassifier("sigmoid", max_length=limit).fit(X, Y).trace_["length"] for limit in (None, 3.0)}
    assert lengths[None].max() == 10
    assert lengths[3.0].max() == 3
    assert GDNPClassifier(max_length=1.0).fit(X, Y).decision_function(X).std() <= 1


def test_unreached_tolerance_warns():
    with pytest.warns(ConvergenceWarning, match="after 2 steps; increase max_iter, or tol=1e-09"):
        GDNPClassifier(max_iter=2, tol=1e-9).fit(X, Y)


def test_probabilities_only_of_the_logistic_loss():
    model = GDNPClassifier("sigmoid").fit(X, Y)
    assert not hasattr(model, "predict_proba")
    probabilities = GDNPClassifier().fit(X, Y).predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert probabilities[:, 1].mean() == pytest.approx(Y.mean(), abs=1e-3)


def test_constant_columns_leave_the_intercept():
    model = GDNPClassifier().fit(np.ones((10, 2)), np.arange(10) < 7)
    assert (model.coef_ == 0).all()
    assert model.intercept_[0] == pytest.approx(np.log(7 / 3), abs=1e-2)
    with pytest.raises(ValueError, match="X is zero"):
        GDNPClassifier(fit_intercept=False).fit(np.zeros((10, 2)), np.arange(10) < 7)


def test_frames_pickles_and_progress(capsys):
    frame = pd.DataFrame(X, columns=["radius", "texture", "perimeter"])
    model = GDNPClassifier(verbose=True).fit(frame, LABELS)
    assert "GDNP" in capsys.readouterr().err
    assert list(model.feature_names_in_) == ["radius", "texture", "perimeter"]
    assert list(model.classes_) == ["benign", "malignant"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(frame), model.predict(frame))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"loss": "hinge"}, r"loss='hinge' is unknown; choose one of \['softplus', 'sigmoid'\]"),
        ({"loss": []}, r"loss=\[\]"),
        ({"fit_intercept": "no"}, "fit_intercept='no' must be True or False"),
        ({"max_length": 0.0}, "max_length=0.0"),
        ({"max_length": "long"}, "max_length='long'"),
        ({"tol": 0.0}, "tol=0.0"),
        ({"tol": np.inf}, "tol=inf"),
        ({"max_iter": 0}, "max_iter=0"),
        ({"max_iter": True}, "max_iter=True"),
        ({"max_iter": 1.5}, "max_iter=1.5"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        GDNPClassifier(**parameters).fit(X, Y)


def test_bad_data_leaves_the_estimator_as_it_was():
    model = GDNPClassifier()
    for data, labels, message in (
        (np.where(X > 20, np.nan, X), Y, "NaN"),
        (X, Y[:-1], "inconsistent numbers of samples"),
        (X[0], Y, "Expected 2D array"),
        (X[:1], Y[:1], "1 sample"),
        (X, np.zeros(len(X)), "one class only, 0.0"),
        (X, np.arange(len(X)) % 3, "multiclass; y has 3 classes. Wrap this classifier in sklearn.multiclass"),
        (X, X[:, 0], "Unknown label type"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(data, labels)
        assert not [name for name in vars(model) if name.endswith("_")]
        with pytest.raises(NotFittedError):
            model.predict(X)
