"""Several methods on one instance: measured alternately, stored, drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.harness import PeerMissing, Run, faster_threads, label_lines, median_of, median_run, threads

OURS = "convexbn"


@dataclass(frozen=True)
class Method:
    """A method with its seed open, and a short run of it by which the number of threads is chosen."""

    run: Callable[[int], Run]
    pilot: Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """Runs of every method, the threads that each got, and the methods that are not installed."""

    runs: dict[str, list[Run]]
    settings: dict[str, dict[str, Any]]
    skipped: dict[str, str]

    def median(self, method: str, figure: Callable[[Run], float]) -> float:
        """Median over the runs of a method of what `figure` says of a run."""
        return median_of([figure(run) for run in self.runs[method]])

    @property
    def lower_bound(self) -> float:
        """Largest n * lower bound that our runs found, proved or local, and no more than the best objective of any."""
        best = min(run.objective for runs in self.runs.values() for run in runs)
        return min(max(run.objective * (1 - run.info["least_gap"]) for run in self.runs[OURS]), best)

    def as_json(self) -> dict[str, Any]:
        """What a result file says."""
        methods = {}
        for name, runs in self.runs.items():
            methods[name] = self.settings[name] | {
                "median_seconds": self.median(name, lambda run: run.seconds),
                "median_n_objective": self.median(name, lambda run: run.objective),
                "drawn": runs.index(median_run(runs)),
                "runs": [run.as_json() for run in runs],
            }
        return {"n_lower_bound": self.lower_bound, "methods": methods, "skipped": self.skipped}


def compare(label: str, methods: Mapping[str, Method], seeds: Sequence[int]) -> Comparison:
    """Run every method for every seed, seed by seed, so that a slow minute of the machine affects all methods."""
    settings, skipped = {}, {}
    for name, method in methods.items():
        try:
            number, seconds = faster_threads(method.pilot)
            settings[name] = {"threads": number, "pilot_seconds": seconds}
        except PeerMissing as missing:
            print(f"{label}: {name} skipped. {missing}")
            skipped[name] = str(missing)
    runs: dict[str, list[Run]] = {name: [] for name in settings}
    for seed in seeds:
        for name in runs:
            with threads(settings[name]["threads"]):
                run = methods[name].run(seed)
            print(f"{label} {name}, seed {seed}: n*objective {run.objective:.6f} in {run.seconds:.3g} s", flush=True)
            runs[name].append(run)
    return Comparison(runs, settings, skipped)


def draw_comparison(ax: Any, instance: Mapping[str, Any], floor: float) -> None:
    """Draw the relative distance to the lower bound, at least `floor`, over seconds; a single point as a dot."""
    ends = []
    for i, (method, entry) in enumerate(instance["methods"].items()):
        color = "black" if method == OURS else f"C{i - 1}"
        for j, run in enumerate(entry["runs"]):
            drawn = j == entry["drawn"]
            distance = np.maximum(np.array(run["n_objectives"]) / instance["n_lower_bound"] - 1, floor)
            style = {"color": color, "linewidth": 2.2 if method == OURS else 1.4, "alpha": 1 if drawn else 0.25}
            ax.plot(run["times"], distance, "o" if len(distance) == 1 else "-", drawstyle="steps-post", **style)
            if drawn:
                ends.append((run["times"][-1], distance[-1], method, color))
    ax.set(xscale="log", yscale="log", xlabel="seconds")
    label_lines(ax, ends)
