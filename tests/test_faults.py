"""Ctrl-C, MemoryError and full disks at random moments: the best network so far or an error, and whole files."""

import sys

import numpy as np
import pytest

from benchmarks import trust_faults

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="timers of CPU time and limits of Linux")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("name", ["regressor", "classifier", "gated", "stack", "halfspace", "solve_gated"])
def test_errors_at_random_moments(name, kind):
    for share in np.random.default_rng(len(name)).random(2):
        outcome = trust_faults.raised_within(name, kind, float(share))
        assert not outcome.startswith("FAILED"), (share, outcome)


@pytest.mark.parametrize("act", [trust_faults.full_disk, trust_faults.interrupted_save])
def test_files_are_whole(act, tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(6):
        case, outcome = act(rng, tmp_path)
        assert not outcome.startswith("FAILED"), (case, outcome)
    assert not list(tmp_path.iterdir())
