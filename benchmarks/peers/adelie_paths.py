"""adelie (github.com/JamesYang007/adelie): group lasso paths in C++, here of gated networks, on one thread."""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.harness import PeerMissing
from convexbn import Patterns, Problem

_SCRIPT = Path(__file__).with_name("adelie_grpnet.py")


def paths(problem: Problem, patterns: Patterns, weight_decays: np.ndarray, tols: list[float], python: Path) -> dict:
    """Processor seconds (n_tols,), objectives and gates in use (n_tols, n_weight_decays) of one path a tolerance."""
    if subprocess.run([python, "-c", "import adelie"], capture_output=True, check=False).returncode:
        raise PeerMissing(f"{python} has no adelie: python -m venv VENV && VENV/bin/pip install adelie 'numpy<2'.")
    with TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.npz", Path(folder) / "found.npz"
        data = {"Z": problem.Z.Z, "y": problem.y[:, 0], "masks": patterns.masks()}
        np.savez(given, **data, weight_decays=weight_decays, tols=tols)
        subprocess.run([python, _SCRIPT, given, found], check=True)
        with np.load(found) as result:
            return {name: result[name] for name in ("seconds", "objectives", "used")} | {
                "version": str(result["version"])
            }
