import sys

import pytest

from convexbn.solvers.monitor import Monitor


def test_progress_needs_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"convexbn\[progress\]"):
        Monitor("a solver", max_iter=1, max_time=None, callback=None, verbose=True)


def test_other_errors_pass_through():
    with pytest.raises(ZeroDivisionError), Monitor("a", max_iter=1, max_time=None, callback=None, verbose=False):
        1 / 0  # noqa: B018
