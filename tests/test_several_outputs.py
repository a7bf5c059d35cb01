"""Estimators with several outputs and several classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.metrics import r2_score
from sklearn.utils.estimator_checks import estimator_checks_generator

from convexbn import (
    ConvexBNClassifier,
    ConvexBNClassifierCV,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    ConvexBNRegressorCV,
    convexbn_path,
)
from convexbn.solvers import Search

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 3))
Y = np.column_stack([np.abs(X[:, 0]), X[:, 1] * (X[:, 2] > 0), X.sum(axis=1)]) + 0.1 * RNG.standard_normal((40, 3))
SPECIES = np.array(["ant", "bee", "cat"])[((Y - Y.mean(axis=0)) / Y.std(axis=0)).argmax(axis=1)]


@pytest.fixture(scope="module")
def regressor():
    return ConvexBNRegressor(0.035, scale_outputs=False, tol=1e-7).fit(X, Y)


@pytest.fixture(scope="module")
def classifier():
    return ConvexBNClassifier(0.008, tol=1e-7).fit(X, SPECIES)


def test_regressor_trains_one_network_for_all_outputs(regressor):
    assert regressor.predict(X).shape == (40, 3)
    assert regressor.network_.n_outputs == 3
    assert regressor.certificate_.gap <= 1e-6
    objective = regressor.network_.objective(X, Y, regressor.weight_decay_)
    assert objective == pytest.approx(regressor.certificate_.objective, rel=1e-9)
    # Shared neurons cost less than those of three networks, as long as the weight decay is the same.
    apart = [ConvexBNRegressor(regressor.weight_decay_).fit(X, y).certificate_.objective for y in Y.T]
    assert objective <= sum(apart) * (1 + 1e-9)


def test_torch_computes_the_same_objective(regressor, classifier):
    for model, targets, loss in (
        (regressor, torch.tensor(Y), lambda f, y: ((f - y) ** 2).sum(dim=1).mean() / 2),
        (
            classifier,
            torch.tensor(np.searchsorted(classifier.classes_, SPECIES)),
            torch.nn.functional.cross_entropy,
        ),
    ):
        module = model.network_.to_torch(eps=1e-12).train()
        decay = sum((p**2).sum() for p in model.network_.decayed_parameters(module)) / 2
        objective = loss(module(torch.tensor(X)), targets) + model.weight_decay_ * decay
        assert objective.item() == pytest.approx(model.certificate_.objective, rel=1e-6)


def make_two_scales(ratio):
    rng = np.random.default_rng(0)
    data = rng.standard_normal((120, 3))
    hinges = 4 * np.maximum(data[:, 0] - data[:, 1], 0), np.maximum(data[:, 2] + 0.5 * data[:, 0], 0)
    noise = rng.standard_normal((120, 2)) * [0.5, 0.1]
    return data, (np.column_stack([25 + hinges[0], hinges[1]]) + noise) * [1, ratio]


@pytest.mark.parametrize("ratio", [1e-12, 1.0, 1e6, 1e12])
def test_each_output_is_fitted_in_its_own_unit(ratio):
    data, targets = make_two_scales(ratio)
    model = ConvexBNRegressor(0.02, tol=1e-3).fit(data, targets)
    np.testing.assert_allclose(model.output_scales_, targets.std(axis=0))
    r2 = r2_score(targets, model.predict(data), multioutput="raw_values")
    assert (r2 > 0.96).all()
    scales = model.output_scales_
    scaled = replace(
        model.network_,
        output_weights=model.network_.output_weights / scales,
        intercept=model.network_.intercept / scales,
    )
    objective = scaled.objective(data, targets / scales, model.weight_decay_)
    assert objective == pytest.approx(model.certificate_.objective, rel=1e-9)
    assert "each output in units of its standard deviation" in model.certificate_.basis


def test_outputs_in_one_unit_are_fitted_together_on_request():
    data, targets = make_two_scales(1e6)
    model = ConvexBNRegressor(1e4, tol=1e-3, scale_outputs=False).fit(data, targets)
    assert r2_score(targets, model.predict(data), multioutput="raw_values")[0] < 0.5
    assert "standard deviation" not in model.certificate_.basis
    np.testing.assert_array_equal(model.output_scales_, 1)
    with pytest.raises(ValueError, match="scale_outputs=None must be True or False"):
        clone(model).set_params(scale_outputs=None).fit(data, targets)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e12])
def test_an_output_that_is_constant_is_predicted(constant):
    targets = np.column_stack([Y[:, 0], np.full(40, constant)])
    model = ConvexBNRegressor(0.1, tol=1e-3).fit(X, targets)
    np.testing.assert_allclose(model.predict(X)[:, 1], constant, rtol=1e-5, atol=1e-5)
    alone = ConvexBNRegressor(0.1, tol=1e-3).fit(X, Y[:, 0] / Y[:, 0].std())
    np.testing.assert_allclose(model.predict(X)[:, 0], Y[:, 0].std() * alone.predict(X), atol=1e-4)


def test_one_output_is_fitted_as_it_is():
    for scale_outputs in (True, False):
        model = ConvexBNRegressor(0.1, scale_outputs=scale_outputs).fit(X, 7 * Y[:, 0])
        np.testing.assert_array_equal(model.output_scales_, 1)
        assert model.network_.objective(X, 7 * Y[:, 0], 0.1) == pytest.approx(model.certificate_.objective, rel=1e-9)


def test_path_folds_weights_gates_and_images_scale_outputs():
    targets, weights = Y * [1, 1e6, 1e-6], np.arange(40) % 3
    path, plain = (convexbn_path(X, y, weight_decays=[0.3, 0.1], tol=1e-6) for y in (targets, Y))
    for one, other in zip(path.networks, plain.networks, strict=True):
        np.testing.assert_allclose(one.predict(X) / [1, 1e6, 1e-6], other.predict(X), atol=1e-4)
    assert all("standard deviation" in certificate.basis for certificate in path.certificates)
    cv = ConvexBNRegressorCV(weight_decays=[0.3, 0.1], cv=2, tol=1e-3).fit(X, targets)
    assert (r2_score(targets, cv.predict(X), multioutput="raw_values") > 0.5).all()
    weighted = ConvexBNRegressor(0.1, tol=1e-3).fit(X, targets, sample_weight=weights)
    np.testing.assert_allclose(weighted.output_scales_, np.repeat(targets, weights, axis=0).std(axis=0))
    gated = ConvexBNRegressor(0.025, activation="gated_relu", n_patterns=10, tol=1e-3).fit(X, targets)
    assert (r2_score(targets, gated.predict(X), multioutput="raw_values") > 0.5).all()
    conv = ConvexBNConvRegressor(0.025, kernel_size=(1, 3), tol=1e-3).fit(X[:, None, None], targets)
    np.testing.assert_allclose(conv.output_scales_, targets.std(axis=0))
    assert (r2_score(targets, conv.predict(X[:, None, None]), multioutput="raw_values") > 0.5).all()


def test_predictions_have_the_shape_of_the_targets():
    flat = ConvexBNRegressor(0.1).fit(X, Y[:, 0])
    column = clone(flat).fit(X, Y[:, :1])
    assert flat.predict(X).shape == (40,)
    np.testing.assert_array_equal(column.predict(X), flat.predict(X)[:, None])


def test_one_hot_targets_at_full_row_rank_are_solved_in_closed_form():
    wide = RNG.standard_normal((12, 30))
    model = ConvexBNRegressor(0.01, fit_intercept=False).fit(wide, np.eye(3)[np.arange(12) % 3])
    assert model.certificate_.scope == "global"
    assert model.certificate_.search is Search.CLOSED_FORM
    assert len(model.network_) == 3


def test_classifier_of_three_classes(classifier):
    np.testing.assert_array_equal(classifier.classes_, ["ant", "bee", "cat"])
    outputs = classifier.decision_function(X)
    assert outputs.shape == (40, 3)
    np.testing.assert_allclose(classifier.predict_proba(X), softmax(outputs, axis=1))
    np.testing.assert_array_equal(classifier.predict(X), classifier.classes_[outputs.argmax(axis=1)])
    assert classifier.score(X, SPECIES) > 0.9
    assert classifier.certificate_.gap <= 1e-6


def test_two_classes_as_cross_entropy_are_the_log_loss_at_a_smaller_weight_decay():
    # The outputs are -a h and a h, of cost sqrt(2) |a| |s|, where the log loss has 2 a h, of cost 2 |a| |s|.
    labels = SPECIES == "cat"
    both = ConvexBNClassifier(0.02, loss="cross_entropy", tol=1e-8).fit(X, labels)
    one = ConvexBNClassifier(0.02 / np.sqrt(2), tol=1e-8).fit(X, labels)
    assert both.certificate_.objective == pytest.approx(one.certificate_.objective, rel=1e-8)
    np.testing.assert_allclose(both.decision_function(X), one.decision_function(X), atol=1e-4)
    np.testing.assert_allclose(both.predict_proba(X), one.predict_proba(X), atol=1e-5)


def test_weights_of_three_classes_are_sample_weights():
    weights = {"ant": 3.0, "bee": 1.0, "cat": 2.0}
    by_class = ConvexBNClassifier(0.02, tol=1e-6, class_weight=weights).fit(X, SPECIES)
    by_sample = ConvexBNClassifier(0.02, tol=1e-6).fit(X, SPECIES, sample_weight=[weights[label] for label in SPECIES])
    assert by_class.certificate_.objective == pytest.approx(by_sample.certificate_.objective, rel=1e-9)
    balanced = ConvexBNClassifier(0.02, tol=1e-6, class_weight="balanced").fit(X, SPECIES)
    share = {label: 1 / np.mean(label == SPECIES) for label in weights}
    explicit = ConvexBNClassifier(0.02, tol=1e-6, class_weight=share).fit(X, SPECIES)
    assert balanced.certificate_.objective == pytest.approx(explicit.certificate_.objective, rel=1e-9)


def test_labels_that_were_not_seen_score_zero(classifier):
    assert classifier.score(X, np.full(40, "dog")) == 0


@pytest.mark.parametrize("activation", ["relu", "gated_relu"])
def test_path_and_cross_validation(activation):
    path = convexbn_path(X, Y, activation=activation, n_patterns=10, n_weight_decays=3, eps=0.1, tol=1e-7)
    assert (np.diff(path.objectives) < 0).all()
    assert (path.gaps <= 1e-6).all()
    options = {"activation": activation, "n_patterns": 10, "n_weight_decays": 3, "eps": 1e-2, "cv": 3, "tol": 0.05}
    options["spectral_power"] = 0.0
    regressor = ConvexBNRegressorCV(**options).fit(X, Y)
    assert regressor.predict(X).shape == (40, 3)
    assert regressor.score(X, Y) > 0.5
    wine, kinds = load_wine(return_X_y=True)
    classifier = ConvexBNClassifierCV(n_components=3, **options).fit(wine[::2], kinds[::2])
    assert classifier.score(wine[1::2], kinds[1::2]) > 0.8


def test_scikit_learn_checks_several_outputs_and_classes():
    """What test_scikit_learn_contract runs includes them; a wrong tag would leave them out silently."""
    for model, check in (
        (ConvexBNRegressor(), "check_regressor_multioutput"),
        (ConvexBNClassifier(loss="squared_hinge"), "check_classifier_not_supporting_multiclass"),
    ):
        names = [getattr(check, "func", check).__name__ for _, check in estimator_checks_generator(model)]
        assert check in names
    assert ConvexBNClassifier().__sklearn_tags__().classifier_tags.multi_class


@pytest.mark.parametrize("activation", ["relu", "gated_relu"])
def test_folds_that_lack_one_of_three_classes(activation):
    ants = np.flatnonzero(SPECIES == "ant")
    others = np.flatnonzero(SPECIES != "ant")
    everything = np.arange(40)
    options = {"activation": activation, "n_patterns": 10, "n_weight_decays": 2, "tol": 1e-3}
    model = ConvexBNClassifierCV(cv=[(others, ants)], scoring="accuracy", **options)
    assert (model.fit(X, SPECIES).scores_ == 0).all()  # ants are never chosen by who never saw one
    model.set_params(scoring=None).fit(X, SPECIES)
    np.testing.assert_allclose(model.scores_, np.log(np.finfo(float).eps))  # the log loss is that of their least share
    assert model.classes_.tolist() == ["ant", "bee", "cat"]
    model.set_params(cv=[(everything, others)]).fit(X, SPECIES)  # none to predict is no obstacle
    assert model.score(X, SPECIES) > 0.7
    with pytest.raises(ValueError, match="one class only, 'ant'"):
        model.fit(X, np.full(40, "ant"))
