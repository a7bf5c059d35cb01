import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from convexbn import (
    ConvBatchNormNetwork,
    ConvexBNConvClassifier,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    ConvGatedNetwork,
    PatchDesign,
    Problem,
    enumerate_patterns,
    solve_column_generation,
    solve_reference,
)
from convexbn.losses import make_loss
from convexbn.solvers import Search

ESTIMATORS = [
    ConvexBNConvRegressor(kernel_size=(1, 2), weight_decay=0.02, tol=0.05),
    ConvexBNConvClassifier(kernel_size=(1, 2), weight_decay=0.02, tol=0.05),
]


def stripes(n, seed, size=6):
    """Images with steps at random places, and how much they step down to the right."""
    rng = np.random.default_rng(seed)
    X = 0.1 * rng.standard_normal((n, 1, size, size))
    y = rng.integers(0, 4, n)
    for image, count in zip(X, y, strict=True):
        for row, column in rng.integers(0, size - 1, (count, 2)):
            image[0, row, column] += 1
            image[0, row, column + 1] -= 1
    return X, y.astype(float)


def targets(model, y):
    return np.where(y > 1, "many", "few") if isinstance(model, ConvexBNConvClassifier) else y


X, Y = stripes(24, seed=0)


@pytest.fixture(params=ESTIMATORS, ids=lambda model: type(model).__name__)
def model(request):
    return clone(request.param)


@pytest.mark.parametrize("loss", ["squared_error", "log_loss"])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
def test_optimum_is_that_of_the_program_over_all_patterns(loss, fit_intercept, padding):
    rng = np.random.default_rng(padding)
    images, y = rng.standard_normal((7, 1, 2, 3)), rng.standard_normal(7)
    y = np.where(y > np.median(y), 1.0, -1.0) if loss == "log_loss" else y
    design = PatchDesign((2, 1), stride=(1, 2), padding=(0, padding)).fit(images)
    Z = design.matrix(images)
    problem = Problem(Z, y, loss, weight_decay=0.03, fit_intercept=fit_intercept)
    program = solve_reference(problem, enumerate_patterns(Z))
    assert program.certificate.scope == "global"
    assert len(program.neurons) > 0
    found = solve_column_generation(problem, random_state=0)
    assert found.certificate.objective == pytest.approx(program.certificate.objective, rel=1e-6)


def test_certificate_is_of_the_network_that_torch_trains(model):
    y = targets(model, Y)
    model.fit(X, y)
    network, certificate = model.network_, model.certificate_
    assert type(network) is ConvBatchNormNetwork
    assert len(network) > 0
    signs = Y if isinstance(model, ConvexBNConvRegressor) else np.where(y == "many", 1.0, -1.0)
    assert network.objective(X, signs, 0.02, model.loss) == pytest.approx(certificate.objective, rel=1e-8)
    module = network.to_torch(eps=1e-12).train()
    decay = sum((parameter**2).sum() for parameter in network.decayed_parameters(module)) * 0.02 / 2
    f = module(torch.tensor(X)).detach().numpy()
    loss = make_loss(model.loss).value(f, signs[:, None]).mean()
    assert loss + decay.item() == pytest.approx(certificate.objective, rel=1e-8)
    np.testing.assert_allclose(f, network.predict(X), atol=1e-9)
    outputs = network.to_torch()(torch.tensor(X)).detach().numpy()
    np.testing.assert_allclose(outputs, network.predict(X), atol=1e-9)


def test_one_filter_on_the_whole_image_is_the_dense_network():
    rng = np.random.default_rng(0)
    images, new = rng.standard_normal((40, 1, 2, 2)), rng.standard_normal((9, 1, 2, 2))
    y = np.abs(images[:, 0, 0, 0]) + 0.1 * rng.standard_normal(40)
    options = {"weight_decay": 0.02, "tol": 1e-3}
    conv = ConvexBNConvRegressor(kernel_size=2, **options).fit(images, y)
    dense = ConvexBNRegressor(**options).fit(images.reshape(40, 4), y)
    assert conv.certificate_.objective == pytest.approx(dense.certificate_.objective, rel=1e-5)
    np.testing.assert_allclose(conv.predict(new), dense.predict(new.reshape(9, 4)), atol=1e-3)


def test_wide_images_under_one_filter_take_the_closed_form():
    images = np.random.default_rng(0).standard_normal((12, 1, 4, 4))
    conv = ConvexBNConvRegressor(0.07, kernel_size=4).fit(images, np.arange(12.0))
    dense = ConvexBNRegressor(0.07).fit(images.reshape(12, 16), np.arange(12.0))
    assert conv.certificate_.search is Search.CLOSED_FORM
    assert conv.certificate_.objective == pytest.approx(dense.certificate_.objective)
    np.testing.assert_allclose(conv.predict(images), dense.predict(images.reshape(12, 16)), atol=1e-8)


def test_only_the_convolution_learns_what_is_anywhere_in_the_image():
    (train, y), (test, y_test) = stripes(60, seed=1), stripes(200, seed=2)
    conv = ConvexBNConvRegressor(0.004, kernel_size=(1, 2), tol=0.05).fit(train, y)
    assert conv.score(test, y_test) > 0.8
    gated = ConvexBNConvRegressor(0.004, kernel_size=(1, 2), activation="gated_relu").fit(train, y)
    assert gated.score(test, y_test) > 0.8
    for weight_decay in (0.01, 0.1, 0.3, 1.0):
        dense = ConvexBNRegressor(weight_decay, activation="gated_relu").fit(train.reshape(60, -1), y)
        assert dense.score(test.reshape(200, -1), y_test) < 0.3


def test_gated_network():
    model = ConvexBNConvRegressor(0.004, kernel_size=(1, 2), activation="gated_relu", n_patterns=10).fit(X, Y)
    assert type(model.network_) is ConvGatedNetwork
    assert model.certificate_.scope == "patterns"
    assert model.certificate_.gap <= 1e-6
    f = model.network_.predict(X)[:, 0]
    np.testing.assert_array_equal(model.predict(X), f)
    assert 0 < ((f - Y) ** 2).mean() / 2 < model.certificate_.objective


def test_parameters_clone_and_pickle(model):
    parameters = model.get_params()
    assert {"kernel_size", "stride", "padding", "n_components", "weight_decay"} <= set(parameters)
    assert "normalization" not in parameters
    assert clone(model).get_params() == parameters
    assert model.fit(X, targets(model, Y)) is model
    assert model.image_shape_ == (1, 6, 6)
    assert not hasattr(model, "n_features_in_")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))
    np.testing.assert_array_equal(clone(model).fit(X, targets(model, Y)).predict(X), model.predict(X))


def test_integer_weights_equal_repeated_images_in_any_order(model):
    weights = np.random.default_rng(0).integers(0, 3, 24)
    rows = np.random.default_rng(1).permutation(np.repeat(np.arange(24), weights))
    y = targets(model, Y)
    weighted, repeated = clone(model).fit(X, y, sample_weight=weights), clone(model).fit(X[rows], y[rows])
    assert weighted.certificate_.objective == pytest.approx(repeated.certificate_.objective)
    np.testing.assert_allclose(weighted.network_.predict(X), repeated.network_.predict(X), atol=1e-8)
    objective = repeated.network_.objective(
        X[rows], (y[rows] == "many") * 2.0 - 1 if y.dtype.kind == "U" else y[rows], 0.02, model.loss
    )
    assert objective == pytest.approx(weighted.certificate_.objective)


def test_labels_and_probabilities():
    model = clone(ESTIMATORS[1]).set_params(class_weight="balanced").fit(X, targets(ESTIMATORS[1], Y))
    assert list(model.classes_) == ["few", "many"]
    probabilities = model.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(model.classes_[probabilities.argmax(axis=1)], model.predict(X))
    assert model.score(X, targets(model, Y)) > 0.8


def test_pipeline_from_rows_of_pixels(model):
    rows, y = (255 * X.reshape(24, 36)).astype(np.int16), targets(model, Y)
    pipeline = make_pipeline(FunctionTransformer(lambda pixels: pixels.reshape(-1, 1, 6, 6)), model).fit(rows, y)
    images = rows.reshape(X.shape)
    np.testing.assert_array_equal(pipeline.predict(rows), clone(model).fit(images, y).predict(images))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kernel_size": 0}, "kernel_size=0 must be an integer from 1 on"),
        ({"stride": "big"}, "stride='big' must be"),
        ({"padding": (0, -1)}, r"padding=\(0, -1\) must be"),
        ({"kernel_size": 7}, r"kernel_size=\(7, 7\) is larger than the images, which are 6 x 6"),
        ({"n_components": 3}, "n_components=3 is out of range"),
        ({"weight_decay": 0.0}, "weight_decay=0.0 must be a positive"),
        ({"loss": "absolute"}, "loss='absolute' is not one"),
    ],
)
def test_bad_parameters(model, parameters, message):
    with pytest.raises(ValueError, match=message):
        model.set_params(**parameters).fit(X, targets(model, Y))


def test_bad_data(model):
    y = targets(model, Y)
    for images, labels, message in (
        (X.reshape(24, 36), y, r"reshape rows of pixels to images with X.reshape\(len\(X\), channels, height, width\)"),
        (X[:, 0], y, r"give images of one channel as X\[:, None\]"),
        (np.moveaxis(X, 1, -1), y, r"use np.moveaxis\(X, -1, 1\)"),
        (np.where(X > 1, np.nan, X), y, "NaN"),
        (np.where(X > 1, np.inf, X), y, "infinity"),
        (X, y[:-1], "inconsistent numbers of samples"),
        (X[:1], y[:1], "minimum of 2"),
        (np.ones_like(X), y, "All patches of X are equal"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(images, labels)
    with pytest.raises(NotFittedError):
        model.predict(X)
    assert not [name for name in vars(model) if name.endswith("_")]
    model.fit(X, y)
    with pytest.raises(ValueError, match=r"those of training have shape \(1, 6, 6\)"):
        model.predict(X[:, :, :5])


def test_bad_targets():
    with pytest.raises(ValueError, match="one class only"):
        ConvexBNConvClassifier(kernel_size=(1, 2)).fit(X, np.full(24, "a"))
    with pytest.raises(ValueError, match="NaN"):
        ConvexBNConvRegressor(kernel_size=(1, 2)).fit(X, np.where(Y > 0, np.nan, 0))
    with pytest.raises(ValueError, match="Unknown label type"):
        ConvexBNConvClassifier(kernel_size=(1, 2)).fit(X, Y + 0.5)
