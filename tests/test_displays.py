"""Displays: what they draw is what the estimators say."""

import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("agg")
from matplotlib import pyplot as plt
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from convexbn import (
    Certificate,
    ConvexBNClassifier,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    ConvexBNStackRegressor,
    RandomBatchNormLayers,
    convexbn_path,
    spectral_trace,
)
from convexbn.gradient import Trace
from convexbn.plotting import (
    CertificateDisplay,
    FiltersDisplay,
    NeuronsDisplay,
    PathDisplay,
    SpectralTraceDisplay,
    _style,
)

RNG = np.random.default_rng(0)
X = pd.DataFrame(RNG.uniform(-1, 1, (60, 3)), columns=["a", "b", "c"])
Y = np.abs(X["a"]) - X["b"].to_numpy() + 0.1 * RNG.standard_normal(60)
PATH = convexbn_path(X, Y, n_weight_decays=5, tol=1e-1)


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


@pytest.fixture
def ax():
    return plt.subplots()[1]


@pytest.mark.parametrize("activation", ["relu", "gated_relu"])
def test_neurons_of_one_column(activation, ax):
    model = ConvexBNRegressor(0.01, activation=activation, n_patterns=9, tol=1e-2).fit(X[["a"]], Y)
    display = NeuronsDisplay.from_estimator(model, X[["a"]], Y, ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "output")
    (values,) = display.grid
    rows = pd.DataFrame({"a": values})
    np.testing.assert_allclose(display.outputs, model.predict(rows))
    intercept = model.network_.intercept[0]
    np.testing.assert_allclose((display.contributions - intercept).sum(axis=1) + intercept, display.outputs)
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_array_equal(lines["network"].get_ydata(), display.outputs)
    np.testing.assert_array_equal(lines["data"].get_ydata(), Y)
    assert len(display.kinks_)
    slopes = np.diff(display.outputs) / np.diff(values)
    bends = values[1:-1][np.abs(np.diff(slopes)) > 1e-6 * np.abs(slopes).max()]
    assert all(np.abs(display.kinks_ - bend).min() <= np.diff(values)[0] for bend in bends)


def test_neurons_of_two_columns(ax):
    model = ConvexBNRegressor(0.05, tol=1e-2).fit(X[["a", "b"]], Y)
    display = NeuronsDisplay.from_estimator(model, X[["a", "b"]], Y, ax=ax)
    first, second = display.grid
    row = pd.DataFrame({"a": [first[3]], "b": [second[7]]})
    assert display.outputs[3, 7] == pytest.approx(model.predict(row)[0])
    assert len(display.kinks_) == len(model.network_)
    weights, offsets = display.switches
    for line, w, offset in zip(display.kinks_, weights, offsets, strict=True):
        assert w @ line.get_xy1() + offset == pytest.approx(0, abs=1e-9)
        assert w @ line.get_xy2() + offset == pytest.approx(0, abs=1e-9)
    np.testing.assert_array_equal(ax.collections[-1].get_offsets(), X[["a", "b"]])
    ax.figure.canvas.draw()


@pytest.mark.parametrize("features", [["b"], ["c", "a"], [1]])
def test_other_columns_are_averaged(features, ax):
    model = ConvexBNRegressor(0.01, tol=1e-1).fit(X, Y)
    display = NeuronsDisplay.from_estimator(model, X, Y, features=features, ax=ax)
    names = [X.columns[name] if isinstance(name, int) else name for name in features]
    expected = X.copy()
    for name, values in zip(names, display.grid, strict=True):
        expected[name] = values[5]
    assert display.outputs[(5,) * len(names)] == pytest.approx(model.predict(expected).mean())
    assert ax.get_xlabel() == names[0]
    assert display.names[-1] == "output, averaged"
    assert display.switches is None


@pytest.mark.parametrize("columns", [["a"], ["a", "b"]])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_neurons_of_classifiers(columns, n_classes, ax):
    labels = np.array(["low", "high", "top"])[np.digitize(Y, [0.5, 1.0][: n_classes - 1])]
    model = ConvexBNClassifier(0.01, tol=1e-1).fit(X[columns], labels)
    display = NeuronsDisplay.from_estimator(model, X[columns], labels, output=n_classes - 2, ax=ax)
    assert {text.get_text() for text in ax.get_legend().get_texts()} >= set(labels)
    expected = "output" if n_classes == 2 else f"output of {model.classes_[1]}"
    assert display.names[-1] == expected
    ax.figure.canvas.draw()


def test_networks_of_stacks_are_drawn_without_neurons(ax):
    stack = ConvexBNStackRegressor(ConvexBNRegressor(0.01, tol=1e-1)).fit(X[["a"]], Y)
    display = NeuronsDisplay.from_estimator(stack, X[["a"]], ax=ax)
    np.testing.assert_allclose(display.outputs, stack.predict(pd.DataFrame({"a": display.grid[0]})))
    assert display.contributions is None
    assert len(display.kinks_) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "X has 3 columns; give features"),
        ({"features": ["z"]}, r"features=\['z'\] must hold one or two numbers from 0 to 2, or of \['a', 'b', 'c'\]"),
        ({"features": [0, 1, 2]}, "must hold one or two"),
        ({"features": [3]}, "must hold one or two"),
        ({"features": ["a", 0]}, "must hold different columns"),
        ({"features": [0], "output": 1}, "output=1 must be a number from 0 to 0"),
    ],
)
def test_columns_that_are_not_there(options, message):
    model = ConvexBNRegressor(0.1, tol=1e-1).fit(X, Y)
    with pytest.raises(ValueError, match=message):
        NeuronsDisplay.from_estimator(model, X, **options)
    with pytest.raises(ValueError, match="X has 2 columns, model was trained on 3"):
        NeuronsDisplay.from_estimator(model, X[["a", "b"]])


def test_neurons_of_what_takes_no_table():
    with pytest.raises(NotFittedError):
        NeuronsDisplay.from_estimator(ConvexBNRegressor(), X)
    stack = ConvexBNStackRegressor(ConvexBNRegressor(1.0), n_stages=1, features=RandomBatchNormLayers((3,))).fit(X, Y)
    with pytest.raises(ValueError, match="takes no table"):
        NeuronsDisplay.from_estimator(stack, X)


def test_paths_are_drawn(ax):
    display = PathDisplay.from_path(PATH, X, Y)
    objective, neurons, validation = display.axes_
    np.testing.assert_array_equal(objective.lines[0].get_ydata(), PATH.objectives)
    np.testing.assert_array_equal(
        objective.lines[1].get_ydata(), [certificate.lower_bound for certificate in PATH.certificates]
    )
    np.testing.assert_array_equal(neurons.lines[0].get_ydata(), PATH.n_neurons)
    losses = [((network.predict(X)[:, 0] - Y) ** 2).mean() / 2 for network in PATH.networks]
    np.testing.assert_allclose(validation.lines[0].get_ydata(), losses)
    assert display.best_.get_xdata() == [PATH.weight_decays[np.argmin(losses)]]
    assert all(panel.get_xscale() == "log" for panel in display.axes_)
    inside = PathDisplay.from_path(PATH, ax=ax)
    assert len(inside.axes_) == 2
    assert inside.figure_ is ax.figure
    assert not ax.axison
    with pytest.raises(ValueError, match="must be given together"):
        PathDisplay.from_path(PATH, X)
    with pytest.raises(ValueError, match=r"axes of pyplot\.subplots"):
        PathDisplay.from_path(PATH, ax=plt.figure().add_axes((0, 0, 1, 1)))


def test_paths_of_estimators():
    model = ConvexBNRegressor(0.1, normalization="weight", tol=1e-1).fit(X, Y)
    display = PathDisplay.from_estimator(model, X, Y, n_weight_decays=3, eps=0.1)
    expected = convexbn_path(X, Y, normalization="weight", tol=1e-1, n_weight_decays=3, eps=0.1)
    np.testing.assert_array_equal(display.path.objectives, expected.objectives)
    labels = np.array(["a", "b", "c"])[np.digitize(Y, [0.0, 1.0])]
    unfitted = ConvexBNClassifier(tol=1e-1)
    options = {"X_validation": X[40:], "n_weight_decays": 3, "eps": 0.1}
    display = PathDisplay.from_estimator(unfitted, X[:40], labels[:40], y_validation=labels[40:], **options)
    f = display.path.networks[-1].predict(X[40:])
    p = np.exp(f) / np.exp(f).sum(axis=1, keepdims=True)
    expected = -np.log(p[np.arange(20), np.searchsorted(["a", "b", "c"], labels[40:])]).mean()
    assert display.validation_losses[-1] == pytest.approx(expected)
    assert not hasattr(unfitted, "network_")
    with pytest.raises(ValueError, match=r"labels that y lacks: \['z'\]"):
        PathDisplay.from_estimator(unfitted, X[:40], labels[:40], y_validation=["z"] * 20, **options)
    two = np.where(Y > 0, "yes", "no")
    display = PathDisplay.from_estimator(unfitted, X[:40], two[:40], y_validation=two[40:], **options)
    margins = np.where(two[40:] == "yes", 1, -1) * display.path.networks[-1].predict(X[40:])[:, 0]
    assert display.validation_losses[-1] == pytest.approx(np.log1p(np.exp(-margins)).mean())


def test_certificates_are_drawn(ax):
    model = ConvexBNRegressor(0.1, tol=1e-1).fit(X, Y)
    display = CertificateDisplay.from_estimator(model, ax=ax)
    found = model.certificate_
    heights = [line.get_ydata()[0] for line in display.lines_]
    assert heights[:2] == [found.objective, found.lower_bound]
    assert display.ax_ is ax
    assert ax.get_ylim()[0] == 0
    steps = np.arange(3)
    runs = {"Adam": Trace(steps, steps / 10, np.array([5.0, 3.0, 2.5]))}
    display = CertificateDisplay(Certificate(2.0, 1.9, "patterns", 1.0), runs).plot()
    assert [line.get_label().split(":")[0] for line in display.lines_] == [
        "Adam",
        "convexbn",
        "lower bound (patterns)",
        "lower bound (global)",
    ]
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), [5.0, 3.0, 2.5])
    with pytest.raises(NotFittedError):
        CertificateDisplay.from_estimator(ConvexBNRegressor())


@pytest.mark.parametrize("activation", ["relu", "gated_relu"])
def test_filters_are_tiles(activation, ax):
    images = np.random.default_rng(0).standard_normal((20, 2, 4, 5))
    targets = np.maximum(images[:, 0, 1:] - images[:, 1, :-1], 0).mean(axis=(1, 2))
    model = ConvexBNConvRegressor(0.001, kernel_size=(2, 3), activation=activation, n_patterns=6, tol=1e-1, max_iter=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(images, targets)
    display = FiltersDisplay.from_estimator(model, n_filters=3, ax=ax)
    network = model.network_
    assert display.filters.shape == (min(3, len(network)), 2, 2, 3)
    values = np.ma.filled(display.image_.get_array(), np.nan)
    first = display.filters[0]
    tile = np.hstack(list(first)) / np.abs(first).max()
    np.testing.assert_allclose(values[1:3, 1:7], tile)
    assert np.isnan(values[0]).all()
    assert np.nanmax(np.abs(values)) == 1
    norms = np.linalg.norm(network.output_weights, axis=1)
    lengths = (
        np.hypot(network.gamma, network.bias)
        if activation == "relu"
        else np.hypot(np.linalg.norm(network.weights, axis=1), network.bias)
    )
    largest = network._inside()[0][np.argmax(lengths * norms)]
    np.testing.assert_array_equal(first.ravel(), largest)


def test_filters_of_other_networks():
    with pytest.raises(ValueError, match="has no filters"):
        FiltersDisplay.from_estimator(ConvexBNRegressor(0.1, tol=1e-1).fit(X, Y))
    images = np.random.default_rng(0).standard_normal((20, 2, 4, 5))
    model = ConvexBNConvRegressor(1e3).fit(images, Y[:20])
    with pytest.raises(ValueError, match="has no filters"):
        FiltersDisplay.from_estimator(model)
    with pytest.raises(ValueError, match="n_filters=0 must be a positive integer"):
        FiltersDisplay.from_estimator(model, n_filters=0)


def test_spectral_traces_are_drawn_from_predictions(ax):
    outputs = np.array([network.predict(X)[:, 0] for network in PATH.networks])
    display = SpectralTraceDisplay.from_predictions(X, Y, outputs, steps=np.arange(1, 6), xlabel="place", ax=ax)
    expected = spectral_trace(X, Y, outputs, steps=np.arange(1, 6))
    for line, share in zip(display.lines_, expected.shares.T, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), share)
    assert (display.ax_, display.figure_, ax.get_xlabel()) == (ax, ax.figure, "place")


# What a colour in linear RGB looks like without one kind of cones (Vienot, Brettel and Mollon, 1999).
CONES = {
    "all": np.eye(3),
    "protanopia": [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
    "deuteranopia": [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
}


def lab(rgb):
    """CIELAB of linear RGB (m, 3), in which a distance of about 2 is just seen."""
    xyz = np.clip(rgb, 0, 1) @ [[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]]
    x, y, z = (np.cbrt(xyz / [0.9505, 1.0, 1.089])).T
    return np.column_stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("cones", CONES)
def test_colours_are_told_apart_by_the_colour_blind(cones):
    with plt.style.context("convexbn.plotting.colors"):
        cycle = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    assert {_style.BOUND, *_style.COLORS} <= {f"#{color.lstrip('#')}" for color in cycle}
    rgb = np.array([matplotlib.colors.to_rgb(color) for color in ("black", "white", *cycle)])
    seen = lab(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ np.transpose(CONES[cones]))
    distances = np.linalg.norm(seen[:, None] - seen, axis=2)[np.triu_indices(len(seen), 1)]
    assert distances.min() > 15
