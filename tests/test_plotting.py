import sys

import matplotlib
import numpy as np
import pytest

matplotlib.use("agg")
from matplotlib import pyplot as plt
from sklearn.exceptions import NotFittedError

from convexbn import Certificate, ConvexBNRegressor, spectral_trace
from convexbn.gradient import Trace
from convexbn.plotting import ValidationDisplay, plot_objectives, plot_spectral_trace


def trace_of(*objectives):
    steps = np.arange(len(objectives))
    return Trace(steps, 0.1 * steps, np.array(objectives))


RUNS = {"Adam": trace_of(5.0, 3.0, 2.5), "SGD": trace_of(5.0, 4.0)}


@pytest.mark.parametrize(
    ("certificate", "lines"),
    [
        (Certificate(2.0, 1.9, "global", 1.9), 4),
        (Certificate(2.0, 1.9, "patterns", 1.0), 5),
        (Certificate(2.0, 1.9, "patterns", None), 4),
    ],
)
def test_runs_objective_and_bounds_are_drawn(certificate, lines):
    ax = plt.figure().gca()
    assert plot_objectives(certificate, RUNS, ax) is ax
    assert len(ax.lines) == lines
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), RUNS["Adam"].objective)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2, 3])  # a logarithmic axis has no zero
    assert ax.lines[2].get_ydata()[0] == 2.0
    assert ax.lines[3].get_ydata()[0] == 1.9
    plt.close("all")


def test_current_axes_by_default():
    ax = plt.figure().gca()
    assert plot_objectives(Certificate(2.0, 1.9, "global", 1.9), {}) is ax
    plt.close("all")


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'convexbn\[plot\]'"):
        plot_objectives(Certificate(2.0, 1.9, "global", 1.9), {})


def test_shares_are_drawn_one_line_a_direction():
    X = np.diag([3.0, 2.0, 1.0]) @ np.eye(3, 4)
    trace = spectral_trace(X, X.sum(axis=1), np.random.default_rng(0).standard_normal((5, 3)), steps=np.arange(1, 6))
    ax = plt.figure().gca()
    assert plot_spectral_trace(trace, ax, xlabel="epoch") is ax
    for line, share in zip(ax.lines, trace.shares.T, strict=False):
        np.testing.assert_array_equal(line.get_ydata(), share)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 6))
    assert len(ax.lines) == len(trace.singular_values) + 2
    assert ax.get_xlabel() == "epoch"
    assert len(ax.get_legend().get_texts()) == 2
    assert plot_spectral_trace(trace) is ax
    plt.close("all")


def validation_table():
    """Two curves of two folds, of which spectral power 0 saw the first only, where the loss of power 1 is half."""
    losses = np.array([[1.0, 3.0], [2.0, 6.0], [2.0, np.nan], [1.5, np.nan]])
    return {
        "spectral_power": np.array([1.0, 1.0, 0.0, 0.0]),
        "weight_decay": np.array([0.1, 0.01, 0.1, 0.01]),
        "n_train": np.full(4, 50.0),
        "n_folds": np.array([2, 2, 1, 1]),
        "scores": -losses,
    }


def test_validation_losses_of_few_folds_are_comparable():
    display = ValidationDisplay(validation_table(), weight_decay=0.1, spectral_power=1.0).plot()
    of_zero, of_one = display.lines_
    np.testing.assert_allclose(of_one.get_ydata(), [2.0, 4.0])
    np.testing.assert_allclose(of_zero.get_ydata(), [4.0, 3.0])  # 2 and 1.5 times the chosen network's loss
    np.testing.assert_array_equal(of_zero.get_xdata(), [0.1, 0.01])
    assert display.chosen_.get_xdata() == [0.1]
    assert display.chosen_.get_ydata() == [2.0]
    assert [line.get_label() for line in display.lines_] == ["spectral power 0, 1 of 2 folds", "spectral power 1"]
    assert of_zero.get_linestyle() == "--"
    assert of_zero.get_color() != of_one.get_color()
    assert (display.ax_.get_xscale(), display.ax_.get_yscale()) == ("log", "log")
    plt.close("all")


def test_validation_on_a_subset_is_told_apart():
    table = validation_table()
    table["spectral_power"], table["n_train"] = np.ones(4), np.array([900.0, 900.0, 50.0, 50.0])
    table["scores"], table["n_folds"] = -np.array([[1.0], [2.0], [3.0], [4.0]]), np.ones(4)
    display = ValidationDisplay(table, weight_decay=0.1, spectral_power=1.0).plot()
    assert [line.get_label() for line in display.lines_] == ["spectral power 1, 50 samples", "spectral power 1"]
    assert display.chosen_.get_ydata() == [1.0]
    plt.close("all")


def test_validation_display_marks_what_the_estimator_chose():
    X, y = np.random.default_rng(0).standard_normal((2, 40))
    X = np.column_stack([X, np.roll(X, 1)])
    model = ConvexBNRegressor(spectral_power=0.5, tol=1.0).fit(X, np.abs(X[:, 0]) + 0.1 * y)
    ax = plt.figure().gca()
    display = ValidationDisplay.from_estimator(model, ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    (line,) = display.lines_
    np.testing.assert_array_equal(line.get_xdata(), model.validation_scores_["weight_decay"])
    np.testing.assert_allclose(line.get_ydata(), -model.validation_scores_["mean_score"])
    assert display.chosen_.get_xdata() == [model.weight_decay_]
    assert display.chosen_.get_ydata() <= 1.01 * line.get_ydata().min()
    plt.close("all")


def test_validation_display_says_why_there_is_nothing_to_draw():
    with pytest.raises(NotFittedError):
        ValidationDisplay.from_estimator(ConvexBNRegressor())
    model = ConvexBNRegressor(weight_decay=0.1).fit([[0.0], [1.0], [3.0]], [0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match=r'has no validation_scores_.*weight_decay="auto"'):
        ValidationDisplay.from_estimator(model)
