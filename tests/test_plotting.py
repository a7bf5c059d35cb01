import sys

import matplotlib
import numpy as np
import pytest

matplotlib.use("agg")
from matplotlib import pyplot as plt

from convexbn import Certificate, spectral_trace
from convexbn.gradient import Trace
from convexbn.plotting import plot_objectives, plot_spectral_trace


def trace_of(*objectives):
    steps = np.arange(len(objectives))
    return Trace(steps, 0.1 * steps, np.array(objectives))


RUNS = {"Adam": trace_of(5.0, 3.0, 2.5), "SGD": trace_of(5.0, 4.0)}


@pytest.mark.parametrize(
    ("certificate", "lines"),
    [
        (Certificate(2.0, 1.9, "global", 1.9, "a test"), 4),
        (Certificate(2.0, 1.9, "patterns", 1.0, "a test"), 5),
        (Certificate(2.0, 1.9, "patterns", None, "gates"), 4),
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
    assert plot_objectives(Certificate(2.0, 1.9, "global", 1.9, "a test"), {}) is ax
    plt.close("all")


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'convexbn\[plot\]'"):
        plot_objectives(Certificate(2.0, 1.9, "global", 1.9, "a test"), {})


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
