"""Convolutional networks with several outputs and several classes."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.base import clone

from convexbn import ConvexBNConvClassifier, ConvexBNConvRegressor, ConvexBNStackClassifier

RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 2, 3, 4))
EDGES = np.maximum(X[:, 0, :, 1:] - X[:, 0, :, :-1], 0).mean(axis=(1, 2))
SPOTS = np.abs(X[:, 1]).mean(axis=(1, 2))
Y = np.column_stack([EDGES, SPOTS, EDGES - SPOTS + 0.1 * RNG.standard_normal(24)])
KINDS = np.array(["edge", "noise", "spot"])[((Y - Y.mean(axis=0)) / Y.std(axis=0)).argmax(axis=1)]
OPTIONS = {"kernel_size": (1, 2), "padding": (0, 1), "stride": (1, 2), "n_patterns": 20, "tol": 1e-5}
REGRESSOR, CLASSIFIER = ConvexBNConvRegressor(0.007, **OPTIONS), ConvexBNConvClassifier(0.003, **OPTIONS)


@cache
def fitted(activation):
    regressor, classifier = (clone(model).set_params(activation=activation) for model in (REGRESSOR, CLASSIFIER))
    return regressor.fit(X, Y), classifier.fit(X, KINDS)


@pytest.fixture(params=["relu", "gated_relu"])
def models(request):
    return fitted(request.param)


def explicit_patches(images):
    """The patches of OPTIONS, cut out one by one: shape (n, P, h)."""
    padded = np.pad(images, [(0, 0), (0, 0), (0, 0), (1, 1)])
    cut = [padded[:, :, row, column : column + 2] for row in range(3) for column in range(0, 5, 2)]
    return np.stack(cut, axis=1).reshape(len(images), len(cut), -1)


def test_outputs_are_those_of_explicit_patches(models):
    new = np.random.default_rng(1).standard_normal((9, 2, 3, 4))
    for model in models:
        network = model.network_
        assert len(network) > 0
        for images in (X, new):
            patches = explicit_patches(images)
            if model.activation == "relu":
                inner = (patches @ network.weights.T - network.mean) / network.std
                hidden = np.maximum(network.gamma * inner + network.bias, 0)
            else:
                gates = patches @ network.gates.T + network.gate_offsets >= 0
                hidden = gates * (patches @ network.weights.T + network.bias)
            outputs = hidden.mean(axis=1) @ network.output_weights + network.intercept
            np.testing.assert_allclose(network.predict(images), outputs, atol=1e-6)
    regressor, classifier = models
    np.testing.assert_array_equal(regressor.predict(new), regressor.network_.predict(new))
    np.testing.assert_allclose(classifier.predict_proba(new), softmax(classifier.network_.predict(new), axis=1))


def test_torch_computes_the_same_outputs_in_both_modes():
    new = np.random.default_rng(1).standard_normal((9, 2, 3, 4))
    regressor = clone(REGRESSOR).set_params(weight_decay=0.0015, scale_outputs=False).fit(X, Y)
    classifier = fitted("relu")[1]
    targets = torch.tensor(Y), torch.tensor(np.searchsorted(classifier.classes_, KINDS))
    losses = lambda f, y: ((f - y) ** 2).sum(dim=1).mean() / 2, torch.nn.functional.cross_entropy
    for model, y, loss in zip((regressor, classifier), targets, losses, strict=True):
        module = model.network_.to_torch(eps=1e-12)
        assert [type(layer).__name__ for layer in module] == [
            *("Conv2d", "BatchNorm2d", "ReLU", "AdaptiveAvgPool2d", "Flatten", "Linear")
        ]
        for images in (X, new):
            found = module.eval()(torch.tensor(images)).detach().numpy()
            np.testing.assert_allclose(found, model.network_.predict(images), atol=1e-6)
        f = module.train()(torch.tensor(X))
        np.testing.assert_allclose(f.detach().numpy(), model.network_.predict(X), atol=1e-6)
        decay = sum((p**2).sum() for p in model.network_.decayed_parameters(module)) / 2
        objective = loss(f, y) + model.weight_decay_ * decay
        assert objective.item() == pytest.approx(model.certificate_.objective, rel=1e-6)


def test_fits_and_gaps(models):
    regressor, classifier = models
    assert regressor.predict(X).shape == (24, 3)
    assert classifier.decision_function(X).shape == (24, 3)
    assert classifier.score(X, KINDS) > 0.9
    assert regressor.score(X, Y) > 0.5
    for model in models:
        assert model.certificate_.gap <= 1e-3


def test_labels_that_were_not_seen_score_zero(models):
    assert models[1].score(X, np.full(24, "plaid")) == 0
    assert set(models[1].predict(-X)) <= set(models[1].classes_)


@pytest.mark.parametrize("activation", ["relu", "gated_relu"])
def test_one_class(activation):
    message = "y has one class only, 'a'; give samples of two classes"
    with pytest.raises(ValueError, match=message):
        ConvexBNConvClassifier(activation=activation, **OPTIONS).fit(X, np.full(24, "a"))
    with pytest.raises(ValueError, match=message):
        ConvexBNStackClassifier().fit(X.reshape(24, -1), np.full(24, "a"))
