import re
import sys

import pytest

from convexbn.solvers._monitor import Clock, Monitor


@pytest.mark.parametrize("max_iter", [3, None])
def test_without_tqdm_progress_is_plain_lines(monkeypatch, capsys, max_iter):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with Monitor("a solver", max_iter=max_iter, max_time=None, callback=None, verbose=True) as monitor:
        for i in range(3):
            monitor.goes_on(objective=3.0 - i, gap=0.1, n_neurons=i)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2  # the first of a second, and the last
    of_total = " of 3" if max_iter else ""
    assert lines[0] == f"a solver: 1{of_total} iterations, objective 3, gap 1.0e-01, 0 neurons"
    assert re.match(rf"a solver: 3{of_total} iterations, objective 1", lines[1])


def test_clock():
    clock = Clock(100.0)
    assert not clock.is_out()
    assert 49 < clock.left(0.5) <= 50
    assert Clock(None).left() is None
    assert Clock(1e-12).is_out()
    assert 0 < Clock(1e-12).left() < 1e-6  # still a max_time that solvers take


def test_other_errors_pass_through():
    with pytest.raises(ZeroDivisionError), Monitor("a", max_iter=1, max_time=None, callback=None, verbose=False):
        1 / 0  # noqa: B018
