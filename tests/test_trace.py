import pickle
from contextlib import nullcontext

import numpy as np
import pytest

from convexbn.gradient import DivergenceError, Trace
from convexbn.gradient._trace import Recorder
from convexbn.plotting import plot_trace


def run(objectives, **options):
    with Recorder("a method", len(objectives) - 1, **options) as recorder:
        for step, objective in enumerate(objectives):
            recorder.record(10 * step, objective, twice=2 * objective, pair=[objective, 0])
    return recorder.trace()


def test_what_was_recorded_is_read_back():
    trace = run([3.0, 2.0, 1.0])
    assert trace.steps.tolist() == [0, 10, 20]
    assert trace.objective.tolist() == [3.0, 2.0, 1.0]
    assert trace["twice"].tolist() == [6.0, 4.0, 2.0]
    assert trace["pair"].shape == (3, 2)
    assert (np.diff(trace.times) >= 0).all()
    assert not trace.interrupted
    assert len(trace) == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e10])
def test_divergence_is_an_error_that_keeps_the_run(bad):
    with pytest.raises(DivergenceError, match=r"a method diverged.*step 20.*smaller steps") as raised:
        run([3.0, 2.0, bad, 1.0])
    assert raised.value.trace.objective[:2].tolist() == [3.0, 2.0]
    assert len(raised.value.trace["twice"]) == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e10])
def test_divergence_between_recorded_steps(bad):
    recorder = Recorder("a method", 10)
    with pytest.raises(DivergenceError, match="step 0") if not np.isfinite(bad) else nullcontext():
        recorder.check(0, bad)
    recorder.record(0, 3.0)
    recorder.check(1, 1.0)
    with pytest.raises(DivergenceError, match=r"step 2, 3 at the start") as raised:
        recorder.check(2, bad)
    assert raised.value.trace.steps.tolist() == [0]


def test_interruption_keeps_what_was_recorded():
    with Recorder("a method", 10) as recorder:
        recorder.record(0, 1.0, x=1.0)
        raise KeyboardInterrupt
    assert recorder.trace().interrupted
    assert recorder.trace().objective.tolist() == [1.0]


def test_interruption_before_the_first_record_is_raised():
    with pytest.raises(KeyboardInterrupt), Recorder("a method", 10):
        raise KeyboardInterrupt


def test_divergence_travels_between_processes():
    error = pickle.loads(pickle.dumps(DivergenceError("too far", run([2.0, 1.0]))))
    assert str(error) == "too far"
    assert error.trace.objective.tolist() == [2.0, 1.0]


def test_other_errors_pass_through():
    with pytest.raises(ZeroDivisionError), Recorder("a method", 10):
        raise ZeroDivisionError


def test_progress_bar(capsys):
    run([3.0, 2.0], verbose=True)
    assert "a method" in capsys.readouterr().err


def test_an_empty_trace():
    assert len(Recorder("a method", 1).trace()) == 0


def test_plot_against_steps_or_times():
    trace = Trace(np.arange(2), np.array([0.0, 0.5]), np.array([2.0, 1.0]), {"norm": np.array([4.0, 3.0])})
    for against, label in (("steps", "step"), ("times", "seconds")):
        ax = plot_trace({"run": trace}, "norm", against=against)
        assert (ax.get_xlabel(), ax.get_ylabel()) == (label, "norm")
        assert ax.lines[-1].get_xdata().tolist() == getattr(trace, against).tolist()
        assert ax.lines[-1].get_ydata().tolist() == [4.0, 3.0]
    with pytest.raises(ValueError, match="against='epochs'"):
        plot_trace({"run": trace}, against="epochs")


def test_a_name_that_was_not_watched():
    trace = run([3.0, 2.0])
    for read in (lambda: trace["foo"], lambda: plot_trace({"run": trace}, "foo")):
        with pytest.raises(KeyError, match=r"'foo' was not watched; choose one of \['twice', 'pair'\]"):
            read()
