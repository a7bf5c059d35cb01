"""Faults in the stages of the benchmark on CIFAR-10, of small random images: they go on, and every file is whole."""

import json
import os
import signal
import time
import warnings
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.cifar10 import TOL, VALIDATION_TOL, Architecture, Stages
from benchmarks.images import Images
from benchmarks.trust.injected import fault, full_after, one_torch_thread

RNG = np.random.default_rng(0)
SIZES = {"kernel_size": 6, "stride": 4, "components": (3,), "n_gates": 4, "n_validation": 20}
TIMES = {"minutes": 1.0, "checkpoint_minutes": 5e-3}  # between two checkpoints a round must end, on a busy machine too
TINY = Architecture("convolutional", weight_decay=0.02, n_steps=100, batch_size=20, **TIMES, **SIZES)
STAGES: dict[str, dict[str, Any]] = {
    "validation": {"n_components": 3},
    "gated": {"n_components": 3},
    "relu": {"n_components": 3},
    "SGD": {"width": 4, "learning_rate": 0.1},
    "Adam trial": {"width": 4, "learning_rate": 0.01},
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
FAULTS = (*(sent.name for sent in SIGNALS), "MemoryError", "a full disk")
ENDINGS: dict[type[BaseException], int] = {KeyboardInterrupt: 1, MemoryError: 2, OSError: 3}


@cache
def _images() -> tuple[Images, Images]:
    classes = np.arange(80) % 10
    X = RNG.integers(0, 256, (80, 3, 32, 32)) // 2 + 12 * classes[:, None, None, None]  # brighter classes
    images = Images(X.astype(np.uint8), classes)
    return images.take(np.arange(60)), images.take(np.arange(60, 80))


def _run(stage: str, folder: Path) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Stages(TINY, *_images(), folder).row(stage, **STAGES[stage])


@cache
def _whole(stage: str) -> tuple[dict[str, Any], float, float, int]:
    """The row without a fault, the seconds of the clock and of the CPU, and the bytes of the largest file."""
    one_torch_thread()
    for _ in range(2):  # the first imports and compiles
        with TemporaryDirectory() as made:
            started, used = time.perf_counter(), time.process_time()
            row = _run(stage, Path(made))
            seconds = time.perf_counter() - started, time.process_time() - used
            largest = max(path.stat().st_size for path in Path(made).iterdir())
    return row, *seconds, largest


def broken_stage(rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    """A fault at a random moment of a stage, in a process of its own: the next run ends with the same row.

    Ctrl-C ends it with KeyboardInterrupt, a lack of memory and a full disk with an error that says so.
    """
    stage, kind = list(STAGES)[rng.integers(len(STAGES))], FAULTS[rng.integers(len(FAULTS))]
    (expected, seconds, of_cpu, largest), share = _whole(stage), float(rng.random())
    child = os.fork()
    if child == 0:
        _end_of(stage, folder, kind, share * of_cpu, int(share * largest))
    if kind.startswith("SIG"):
        time.sleep(share * seconds)
        os.kill(child, signal.Signals[kind])
    _, status = os.waitpid(child, 0)
    outcome = _ended(kind, status) or _broken(folder) or _goes_on(stage, folder, expected)
    for entry in folder.iterdir():
        entry.unlink()
    return f"{kind} in the CIFAR-10 stage {stage}", outcome or "it went on to the same row"


def _end_of(stage: str, folder: Path, kind: str, seconds: float, most_bytes: int) -> None:
    """Run a stage with a fault, and end this process with a code that says how."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    made: dict[str, Any] = {"a full disk": full_after(most_bytes), "MemoryError": fault(MemoryError, seconds, [])}
    try:
        with made.get(kind, nullcontext()):
            _run(stage, folder)
        os._exit(0)
    except BaseException as error:
        os._exit(next((code for of, code in ENDINGS.items() if isinstance(error, of)), 9))


def _ended(kind: str, status: int) -> str:
    """What is wrong with how the process ended, if anything is."""
    allowed = {"SIGINT": (0, 1), "MemoryError": (0, 2), "a full disk": (0, 3)}.get(kind, (0,))
    if os.WIFSIGNALED(status):
        return "" if kind in ("SIGTERM", "SIGKILL") else f"FAILED: it was ended by signal {os.WTERMSIG(status)}"
    code = os.WEXITSTATUS(status)
    return "" if code in allowed else f"FAILED: it ended with code {code}"


def _broken(folder: Path) -> str:
    """Which file under its final name cannot be read, if any."""
    for path in folder.iterdir():
        if {".part", ".draft"} & set(path.suffixes):  # of the file that a killed process was writing
            continue
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            else:
                with np.load(path, allow_pickle=False) as file:
                    for name in file.files:
                        file[name]
        except Exception as error:
            return f"FAILED: {path.name} is broken: {error}"
    return ""


def _goes_on(stage: str, folder: Path, expected: dict[str, Any]) -> str:
    """What is wrong with the row of the next run, if anything is."""
    row = _run(stage, folder)
    if "gap" not in expected:
        same = row["objective"] == expected["objective"]
    else:
        tol = VALIDATION_TOL if stage == "validation" else TOL
        same = row["gap"] <= tol and abs(row["objective"] - expected["objective"]) <= tol * expected["objective"]
    return "" if same else "FAILED: the run that went on ended with another row"
