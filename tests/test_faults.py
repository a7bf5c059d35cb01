"""Ctrl-C, MemoryError and full disks at random moments: the best network so far or an error, and whole files."""

import subprocess
import sys

import numpy as np
import pytest

from benchmarks import trust_faults

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


def test_errors_at_random_moments():
    # In a process without the tracer of coverage, whose lock such an error may leave locked.
    outcomes = subprocess.run([sys.executable, "-c", SCRIPT, *NAMES], capture_output=True, text=True, timeout=300)
    assert outcomes.returncode == 0, outcomes.stderr
    assert "FAILED" not in outcomes.stdout
    assert [line.split()[0] for line in outcomes.stdout.splitlines()] == [name for name in NAMES for _ in range(4)]


@pytest.mark.parametrize("act", [trust_faults.full_disk, trust_faults.interrupted_save])
def test_files_are_whole(act, tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(6):
        case, outcome = act(rng, tmp_path)
        assert not outcome.startswith("FAILED"), (case, outcome)
    assert not list(tmp_path.iterdir())
