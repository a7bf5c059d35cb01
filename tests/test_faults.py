"""Ctrl-C, MemoryError and full disks at random moments: the best network so far or an error, and whole files."""

import subprocess
import sys
from time import process_time

import numpy as np
import pytest

from benchmarks import trust_faults
from benchmarks.trust.dask_faults import broken_dask_fits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="timers of CPU time and limits of Linux")


NAMES = ["regressor", "classifier", "gated", "stack", "halfspace", "solve_gated"]
SCRIPT = """
import sys
import numpy as np
from benchmarks import trust_faults

for name in sys.argv[1:]:
    for share in np.random.default_rng(len(name)).random(2):
        for kind in (KeyboardInterrupt, MemoryError):
            print(name, kind.__name__, share, trust_faults.raised_within(name, kind, float(share)))
"""

STAGES = """
import sys
from pathlib import Path
import numpy as np
from benchmarks.trust.stage_faults import broken_stage

for seed in range(10):
    print(*broken_stage(np.random.default_rng(seed), Path(sys.argv[1])), sep=": ")
"""


def test_errors_at_random_moments():
    # In a process without the tracer of coverage, whose lock such an error may leave locked.
    outcomes = subprocess.run([sys.executable, "-c", SCRIPT, *NAMES], capture_output=True, text=True, timeout=300)
    assert outcomes.returncode == 0, outcomes.stderr
    assert "FAILED" not in outcomes.stdout
    assert [line.split()[0] for line in outcomes.stdout.splitlines()] == [name for name in NAMES for _ in range(4)]


def test_an_error_that_a_library_passes_on_as_a_cause_is_that_error_but_ctrl_c_is_not(monkeypatch):
    def run():
        until = process_time() + 0.1
        try:
            while process_time() < until:
                pass
        except BaseException as error:
            raise TypeError("of the library") from error
        return np.zeros(1)

    monkeypatch.setattr(trust_faults, "subjects", lambda: {"passed on": trust_faults.Subject(run)})
    assert trust_faults.raised_within("passed on", MemoryError, 0.3) == "TypeError"
    assert trust_faults.raised_within("passed on", KeyboardInterrupt, 0.3).startswith("FAILED: TypeError: of the lib")


def test_stages_of_cifar10_go_on(tmp_path):
    pytest.importorskip("torch")
    outcomes = subprocess.run([sys.executable, "-c", STAGES, tmp_path], capture_output=True, text=True, timeout=300)
    assert outcomes.returncode == 0, outcomes.stderr
    assert "FAILED" not in outcomes.stdout
    assert outcomes.stdout.count(": it went on to the same row") == 10


@pytest.mark.slow
def test_fits_on_dask_go_on():
    pytest.importorskip("distributed")
    found = broken_dask_fits(1, 2)
    assert len(found) == 2
    assert not [case for case in found if case[1].startswith("FAILED")]


@pytest.mark.parametrize("act", [trust_faults.full_disk, trust_faults.interrupted_save])
def test_files_are_whole(act, tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(6):
        case, outcome = act(rng, tmp_path)
        assert not outcome.startswith("FAILED"), (case, outcome)
    assert not list(tmp_path.iterdir())
