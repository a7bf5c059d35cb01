"""The parts of all benchmarks: runs and their medians, threads, the machine, result files, pictures."""

import argparse
import json
import os
import platform
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("convexbn", "numpy", "scipy", "scikit-learn", "torch", "cvxpy", "clarabel", "scs", "pyscnn", "jax")
THREADS = (1, 2)  # every method gets the faster of these
LABEL_HEIGHT = 0.055  # of the axes
POINTS = 200  # of a curve in a result file
_LIST = re.compile(r"\[[^\[\]{}]*\]")  # lists of numbers go on one line


class PeerMissing(Exception):
    """A peer that is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Run:
    """One run of one method: n * objective over seconds, and what else is worth knowing.

    `seconds` is the whole run; the curve may end earlier, at the last improvement.
    """

    seconds: float
    times: np.ndarray
    objectives: np.ndarray
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def objective(self) -> float:
        """Best n * objective."""
        return float(np.min(self.objectives))

    def time_to(self, target: float) -> float:
        """Seconds until n * objective was at most `target`; infinity if it never was."""
        reached = np.flatnonzero(self.objectives <= target)
        return float(self.times[reached[0]]) if len(reached) else np.inf

    def time_of_step(self, step: int) -> float:
        """Seconds until this step of an iterative method was done; infinity if the run was shorter."""
        return float(self.times[step]) if step < len(self.times) else np.inf

    def as_json(self) -> dict[str, Any]:
        """Best value so far; of long curves 200 moments, evenly spaced in the logarithm of the index."""
        best = np.minimum.accumulate(self.objectives)
        keep = np.arange(len(best))
        if len(best) > POINTS:
            keep = np.unique(np.geomspace(1, len(best), POINTS).round().astype(int)) - 1
        return {
            "seconds": self.seconds,
            "n_objective": self.objective,
            "times": self.times[keep],
            "n_objectives": best[keep],
            **self.info,
        }


def median_of(values: Sequence[float]) -> float:
    """Median, at which infinity stands for a run that never got there."""
    return float(median(values))


def median_run(runs: Sequence[Run]) -> Run:
    """The run whose length is the (lower) median."""
    return sorted(runs, key=lambda run: run.seconds)[(len(runs) - 1) // 2]


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Run BLAS and OpenMP, and PyTorch where it is imported, on this many threads."""
    torch = sys.modules.get("torch")  # importing it here would count as memory of those who do not need it
    with threadpool_limits(number):
        if torch is None:
            yield
            return
        before = torch.get_num_threads()
        torch.set_num_threads(number)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def faster_threads(run: Callable[[], Any]) -> tuple[int, dict[str, float]]:
    """The number of threads with which `run` is faster, and the seconds each took (least of two calls)."""
    seconds = {}
    for number in THREADS:
        with threads(number):
            seconds[number] = min(timed(run)[0] for _ in range(2))
    best = min(seconds, key=seconds.__getitem__)
    return best, {str(number): value for number, value in seconds.items()}


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call took, and what it returned."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def target(statement: str, figure: str, met: bool | None) -> dict[str, Any]:
    """A row of the summary: what was to be shown, the figure, and whether it was; None where nothing was required."""
    return {"statement": statement, "figure": figure, "met": met}


def ratio(ours: float, peer: float) -> str:
    """How many times sooner, in words, with both times."""
    if not np.isfinite(ours):
        return f"not reached (peer {seconds_text(peer)})"
    if not np.isfinite(peer):
        return f"{seconds_text(ours)}; peer never"
    return f"{peer / ours:.3g} times sooner ({seconds_text(ours)} against {seconds_text(peer)})"


def seconds_text(seconds: float) -> str:
    """Seconds with three digits."""
    return f"{seconds:.3g} s" if np.isfinite(seconds) else "never"


def environment(peers: Sequence[str] = ()) -> dict[str, Any]:
    """The machine and the versions, of these packages of peers too, for the head of a result file."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load_average_at_start": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads_tried": THREADS,
        "versions": {package: _version(package) for package in (*PACKAGES, *peers)},
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def parse_arguments(
    name: str, description: str | None, extra: Callable[[argparse.ArgumentParser], Any] | None = None
) -> argparse.Namespace:
    """Read the command line that all benchmarks share; `args.json` and `args.png` are the files to write."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds; its figures mean nothing")
    parser.add_argument("--output", type=Path, help="folder of the JSON and PNG files (default: benchmarks/results)")
    if extra is not None:
        extra(parser)
    args = parser.parse_args()
    if args.quick and args.output is None:
        parser.error("--quick needs --output, so that a smoke run never replaces measured results.")
    folder = args.output or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    args.json, args.png = folder / f"{name}.json", folder / f"{name}.png"
    return args


def write_json(path: Path, results: dict[str, Any]) -> dict[str, Any]:
    """Write results with numpy values as numbers and infinity as null; return what was written."""
    written = plain(results)
    text = json.dumps(written, indent=1, allow_nan=False, ensure_ascii=False)
    path.write_text(_LIST.sub(lambda numbers: re.sub(r"\s+", " ", numbers[0]), text) + "\n", encoding="utf-8")
    print(f"Wrote {path}")
    return written


def plain(value: Any) -> Any:
    """The value in the types of JSON: numpy values as numbers with ten digits, infinity as None."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(entry) for entry in value]
    if isinstance(value, (bool, np.bool)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.10g}") if np.isfinite(value) else None
    return value


def pyplot() -> Any:
    """matplotlib.pyplot, drawing to files, in the style of all pictures here."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    plt.style.use("convexbn.plotting.colors")
    plt.rcParams.update(
        {
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "savefig.dpi": 130,
        }
    )
    return plt


def label_lines(ax: Any, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write labels beside the axes at the height of their lines' ends (x, y, label, color), moved apart."""
    to_axes = ax.transData + ax.transAxes.inverted()
    ends = sorted(ends, key=lambda end: end[1])
    heights = np.array([to_axes.transform(end[:2])[1] for end in ends])
    for _ in range(200):  # neighbours that overlap are moved apart by half of the overlap
        push = np.maximum(LABEL_HEIGHT - np.diff(heights), 0) / 2
        heights[1:] += push
        heights[:-1] -= push
    for height, (x, y, label, color) in zip(heights, ends, strict=True):
        ax.annotate(
            label,
            xy=(x, y),
            xytext=(1.03, height),
            textcoords="axes fraction",
            color=color,
            fontsize=9,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "linestyle": ":", "shrinkB": 2},
        )


def device_name(device: str | None) -> str:
    """The device of PyTorch, and what it is called where it is a GPU; without one, the CPU."""
    if not (device or "").startswith("cuda"):
        return device or "CPU"
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def caption(figure: Any, text: str) -> None:
    """Write what a picture shows, and on which machine, under it, in lines as long as it is wide."""
    lines = textwrap.wrap(text, width=int(16 * figure.get_figwidth()))
    figure.supxlabel("\n".join(lines), fontsize=8, color="0.35", x=0.01, ha="left")
