import matplotlib
import numpy as np
import pytest

matplotlib.use("agg")
from matplotlib import pyplot as plt
from sklearn.exceptions import ConvergenceWarning

from convexbn import (
    BatchNormNetwork,
    Certificate,
    Comparison,
    ConvBatchNormNetwork,
    Solution,
    Status,
    WeightNormNetwork,
    compare,
)
from convexbn._comparison import RUNS
from convexbn.datasets import make_teacher
from convexbn.gradient import Trace, train
from convexbn.losses import SquaredError
from convexbn.plotting import plot_comparison
from tests.watched import watched_loss

X, Y = make_teacher(30, 2, random_state=0)
ADAM = {"Adam": {"n_neurons": 20, "n_steps": 600, "learning_rate": 0.02}}


def images(n=20):
    return np.random.default_rng(0).standard_normal((n, 1, 3, 3)) + 1


@pytest.mark.parametrize(
    ("Network", "data", "options"),
    [
        (BatchNormNetwork, X, {}),
        (BatchNormNetwork, X, {"fit_intercept": True, "loss": "huber"}),
        (WeightNormNetwork, X, {"normalization": "weight"}),
        (ConvBatchNormNetwork, images(30), {"kernel_size": (1, 2), "stride": 2, "padding": (0, 1)}),
    ],
)
def test_both_sides_are_on_the_same_objective(Network, data, options):
    comparison = compare(data, Y, weight_decay=0.05, runs=ADAM, seeds=(0, 1), random_state=0, **options)
    certificate = comparison.certificate
    assert certificate.scope == "global"
    loss = options.get("loss", "squared_error")
    assert type(comparison.network) is Network
    assert comparison.network.objective(data, Y, 0.05, loss) == pytest.approx(certificate.objective, rel=1e-8)
    assert certificate.lower_bound <= comparison.best("Adam") <= 1.02 * certificate.objective
    assert comparison.best("Adam") == min(trace.objective.min() for trace in comparison.traces["Adam"])
    alone = train(data, Y, weight_decay=0.05, random_state=1, **ADAM["Adam"], **options)[1]
    np.testing.assert_array_equal(comparison.traces["Adam"][1].objective, alone.objective)


def test_single_precision_far_from_zero_comes_as_near_to_the_certificate():
    runs = {dtype: {"n_steps": 300, "n_neurons": 20, "dtype": dtype} for dtype in ("float64", "float32")}
    comparison = compare(X + 1e6, Y, weight_decay=0.05, runs=runs, random_state=0)
    assert comparison.best("float32") == pytest.approx(comparison.best("float64"), rel=1e-3)
    assert comparison.best("float32") <= 1.02 * comparison.certificate.objective


def test_the_convex_curve_ends_at_the_certificate():
    comparison = compare(X, Y, weight_decay=0.05, runs={}, random_state=0)
    history, convex = comparison.solution.history, comparison.convex
    assert convex.objective.tolist() == [*(step.objective for step in history), comparison.certificate.objective]
    assert (np.diff(convex.times) >= 0).all()
    assert (convex.times[:-1] > [step.time for step in history]).all()


def test_a_closed_form_has_one_point():
    convex = compare(np.eye(4)[:, :3], np.arange(4.0), weight_decay=0.1, runs={}).convex
    assert len(convex) == 1


def test_three_optimizers_by_default(monkeypatch):
    called = []

    def recorded(X, y, **options):
        called.append((options["optimizer"], options["random_state"]))
        return train(X, y, **options, n_steps=2)

    monkeypatch.setattr("convexbn._comparison.train", recorded)
    comparison = compare(X, Y, weight_decay=0.05, seeds=(3, 4))
    assert list(comparison.traces) == list(RUNS)
    assert called == [("sgd", 3), ("sgd", 4), ("adam", 3), ("adam", 4), ("lbfgs", 3), ("lbfgs", 4)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": {"fast": {"batch_size": 5}}}, r"runs\['fast'\] has a batch_size"),
        ({"weight_decay": 0}, "weight_decay=0 must be"),
        ({"normalization": "layer"}, "normalization='layer' is unknown"),
        ({"y": Y[:-1]}, "y must have one row"),
        ({"loss": "log_loss"}, "labels -1 and"),
        ({"runs": {"Adam": {"optimizer": "newton"}}}, "optimizer='newton' is unknown"),
        ({"runs": ["adam"]}, "must map labels to options of train"),
        ({"runs": {"Adam": "adam"}}, r"runs\['Adam'\]='adam' must map options"),
        ({"runs": {"Adam": {"weight_decay": 1}}}, r"runs\['Adam'\] has 'weight_decay'; a run takes \['n_neurons'"),
        ({"seeds": 3}, "seeds=3 must be a sequence"),
        ({"seeds": ()}, r"seeds=\(\) must be a sequence of one or more"),
        ({"tol": -1}, "tol=-1"),
        ({"X": images(30)}, "X holds images: give kernel_size"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        compare(**{"X": X, "y": Y, "weight_decay": 0.1} | changes)


def test_nothing_is_trained_before_the_input_was_checked():
    used = []
    loss = watched_loss(SquaredError, lambda name, y: used.append(name))
    with pytest.raises(ValueError, match="n_steps=-1 must be"):
        compare(X, Y, weight_decay=0.1, loss=loss, runs={"Adam": {"n_steps": -1}})
    assert set(used) <= {"check_targets"}


def test_a_run_that_diverges_leaves_the_others():
    runs = {"far": {"optimizer": "sgd", "learning_rate": 1e5}} | ADAM
    with pytest.warns(RuntimeWarning, match=r"runs\['far'\] with seed 0: sgd diverged.*smaller steps"):
        comparison = compare(X, Y, weight_decay=0.1, runs=runs, random_state=0)
    assert len(comparison.traces["far"][0]) < len(comparison.traces["Adam"][0])
    assert comparison.best("far") >= comparison.certificate.lower_bound
    plot_comparison(comparison, plt.figure().gca())
    plt.close("all")


def test_ctrl_c_ends_the_comparison_with_what_there_is():
    def interrupt(step, outputs):
        if step == 3:
            raise KeyboardInterrupt

    runs = {"first": {"n_steps": 5}, "second": {"n_steps": 5, "callback": interrupt}, "third": {"n_steps": 5}}
    comparison = compare(X, Y, weight_decay=0.1, runs=runs, seeds=(0, 1), random_state=0)
    assert [trace.interrupted for trace in comparison.traces["first"]] == [False, False]
    assert [trace.interrupted for trace in comparison.traces["second"]] == [True]
    assert "third" not in comparison.traces
    with pytest.raises(ValueError, match=r"label='third' is not among the runs, \['first', 'second'\]"):
        comparison.best("third")


def test_nothing_is_trained_after_an_interrupted_solver():
    gradients = []

    def press(name, y):
        gradients.extend([name] if name == "gradient" else [])
        if len(gradients) == 3:
            gradients.append("pressed")
            raise KeyboardInterrupt

    with pytest.warns(ConvergenceWarning, match="was interrupted"):
        comparison = compare(X, Y, weight_decay=0.1, loss=watched_loss(SquaredError, press), runs=ADAM)
    assert comparison.traces == {}


def trace_of(*objectives):
    steps = np.arange(len(objectives))
    return Trace(steps, 0.1 * (steps + 1), np.array(objectives))


@pytest.mark.parametrize(
    ("certificate", "labels"),
    [
        (Certificate(2.0, 1.9, "global", 1.9), ["lower bound, scope global: proved"]),
        (
            Certificate(2.0, 1.9, "local", 1.5),
            ["lower bound, scope local: evidence, no proof", "proved over all networks: 20.0% below this line"],
        ),
        (
            Certificate(2.0, 1.9, "patterns", 1.0),
            ["lower bound, scope patterns: proved on its patterns", "proved over all networks: 45.0% below this line"],
        ),
    ],
)
def test_picture(certificate, labels):
    solution = Solution(None, None, certificate, Status.CONVERGED, 1)
    traces = {"SGD": (trace_of(4.0, 3.0), trace_of(4.0, 3.5)), "Adam": (trace_of(4.0, 1.8),)}
    ax = plt.figure().gca()
    assert plot_comparison(Comparison(solution, None, trace_of(2.5, 2.0), traces), ax) is ax
    heights = [line.get_ydata() for line in ax.lines]
    np.testing.assert_allclose(heights[0], [1.05, 0.55])
    np.testing.assert_allclose(heights[2], [1.05, -0.05])  # a bound that is refuted is seen to be
    np.testing.assert_allclose(heights[3], [0.3, 0.05])
    assert ax.get_ylim()[0] < -0.05
    assert list(heights[5]) == [0, 0]
    assert ax.lines[5].get_linestyle() == ("-" if certificate.scope == "global" else ":")
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["SGD", "Adam", "convexbn", "its certificate", *labels]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "symlog")
    plt.close("all")


def test_a_picture_without_gradient_runs():
    comparison = compare(X, Y, weight_decay=0.05, runs={}, random_state=0)
    ax = plt.figure().gca()
    plot_comparison(comparison, ax)
    assert ax.get_ylim()[0] < 0 < ax.lines[0].get_ydata()[0]
    plt.close("all")
