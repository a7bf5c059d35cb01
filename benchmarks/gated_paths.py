"""How long do 50 values of weight decay take for gated networks, beside adelie's group lasso, at equal accuracy?

From the weight decay at which the zero network is optimal down to a hundredth of it, on one thread, in processor
seconds. Accuracy is the largest relative distance of the objective from the optimum along the path, as convexbn solves
it to a gap of 1e-9. Both methods run with several tolerances; of those that reach an accuracy the fastest counts.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.comparison import OURS
from benchmarks.harness import (
    PeerMissing,
    caption,
    environment,
    median_of,
    parse_arguments,
    pyplot,
    ratio,
    target,
    threads,
    write_json,
)
from benchmarks.instances import make_instance
from benchmarks.peers import adelie_paths
from convexbn import Patterns, Problem, sample_patterns
from convexbn.oracles import price_of_gates
from convexbn.solvers.gated._path import gated_path

ADELIE = "adelie"
REPEATS = 3
REFERENCE = 1e-9
ACCURACIES = (1e-2, 1e-3, 1e-5)


@dataclass(frozen=True)
class Case:
    """Sizes, the tolerances of both methods, and at each accuracy how many times as fast as adelie is to be reached."""

    n: int
    d: int
    n_gates: int
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    required: tuple[float | None, ...]


CASES = {
    "small": Case(
        n=500,
        d=10,
        n_gates=100,
        ours=(4e-2, 2e-2, 1e-2, 5e-3, 1e-3, 1e-4),
        theirs=(1e-6, 1e-7, 3e-8, 1e-8, 1e-9, 2.4e-10, 2.2e-10, 1e-10),
        required=(None, 1 / 3, 1),
    ),
    "large": Case(
        n=4_000,
        d=40,
        n_gates=800,
        ours=(4e-2, 2e-2, 1e-2, 5e-3, 1e-3, 5e-4),
        theirs=(1e-7, 3e-9, 2e-9, 2e-11),
        required=(1, 2, 3),
    ),
}
QUICK = {"small": Case(60, 3, 20, (1e-2, 1e-4), (1e-6, 1e-9), (None, None, None))}


def path_of(problem: Problem, patterns: Patterns, grid: np.ndarray, tol: float, dtype: str) -> tuple:
    """Processor seconds, objectives, gates in use and largest gap of a path."""
    start = time.process_time()
    with threads(1):
        solutions = list(gated_path(problem, patterns, grid, tol=tol, dtype=dtype))
    seconds = time.process_time() - start
    objectives = np.array([solution.certificate.objective for solution in solutions])
    gap = max(solution.certificate.gap for solution in solutions)
    return seconds, objectives, np.array([len(solution.neurons) for solution in solutions]), gap


def measure(case: Case, n_values: int, repeats: int, python: Path | None) -> dict:
    """Both methods, one after the other, at all tolerances."""
    problem = make_instance(case.n, case.d).problem
    patterns = sample_patterns(problem.Z, case.n_gates, random_state=0)
    grid = price_of_gates(problem.Z, patterns, problem.zero_dual).value * np.geomspace(1, 0.01, n_values)
    _, best, used, _ = path_of(problem, patterns, grid, REFERENCE, "float64")
    seconds: dict[str, list] = {OURS: [], ADELIE: []}
    suboptimality, skipped, version = {}, {}, None
    for _ in range(repeats):
        runs = [path_of(problem, patterns, grid, tol, "float32") for tol in case.ours]
        seconds[OURS].append([run[0] for run in runs])
        suboptimality[OURS] = [float(np.max(run[1] / best - 1)) for run in runs]
        print(f"convexbn: {seconds[OURS][-1]} s to {suboptimality[OURS]}", flush=True)
        try:
            if python is None:
                raise PeerMissing("Give an interpreter that has adelie with --adelie.")
            found = adelie_paths.paths(problem, patterns, grid, list(case.theirs), python)
        except PeerMissing as missing:
            print(f"adelie skipped. {missing}")
            skipped[ADELIE] = str(missing)
            continue
        seconds[ADELIE].append(found["seconds"].tolist())
        suboptimality[ADELIE] = [float(np.max(values / best - 1)) for values in found["objectives"]]
        version = found["version"]
        print(f"adelie: {seconds[ADELIE][-1]} s to {suboptimality[ADELIE]}", flush=True)
    methods = {
        name: {
            "tols": case.ours if name == OURS else case.theirs,
            "seconds": rows,
            "median_seconds": [median_of(column) for column in np.transpose(rows)],
            "suboptimality": suboptimality[name],
        }
        for name, rows in seconds.items()
        if rows
    }
    return {
        "n": case.n,
        "d": case.d,
        "n_gates": case.n_gates,
        "weight_decays": grid,
        "n_used": used,
        "adelie_version": version,
        "methods": methods,
        "skipped": skipped,
    }


def seconds_to(measured: dict, method: str, accuracy: float) -> float:
    """Least median seconds of the runs of a method that reach an accuracy."""
    entry = measured["methods"][method]
    pairs = zip(entry["median_seconds"], entry["suboptimality"], strict=True)
    return min((seconds for seconds, suboptimality in pairs if suboptimality <= accuracy), default=np.inf)


def targets(results: dict[str, dict]) -> list[dict]:
    """The rows of the summary."""
    rows = []
    for name, measured in results.items():
        if ADELIE not in measured["methods"]:
            continue
        for accuracy, required in zip(ACCURACIES, CASES[name].required, strict=True):
            ours, theirs = (seconds_to(measured, method, accuracy) for method in (OURS, ADELIE))
            wish = {None: "beside adelie", 1 / 3: "in at most 3 times adelie's time", 1: "as fast as adelie"}
            statement = (
                f"gated path, n = {measured['n']:,}, d = {measured['d']}, {measured['n_gates']} gates, all of 50 "
                f"weight decays within {accuracy:g}: {wish.get(required, f'{required} times as fast as adelie')}"
            )
            met = None if required is None else bool(ours * required <= theirs)
            rows.append(target(statement, ratio(ours, theirs), met))
    return rows


def draw(results: dict, path: Path) -> None:
    """One panel a case: accuracy against seconds, both logarithmic."""
    plt = pyplot()
    cases = results["cases"]
    figure, axes = plt.subplots(1, len(cases), figsize=(6.2 * len(cases), 4.6), layout="constrained", squeeze=False)
    for measured, ax in zip(cases.values(), axes[0], strict=True):
        for method, color in ((OURS, "black"), (ADELIE, "C0")):
            if method not in measured["methods"]:
                continue
            entry = measured["methods"][method]
            ax.plot(entry["median_seconds"], entry["suboptimality"], ".-", color=color)
            ax.annotate(
                method,
                (entry["median_seconds"][-1], entry["suboptimality"][-1]),
                color=color,
                va="top",
                ha="right",
            )
        for accuracy in ACCURACIES:
            ax.axhline(accuracy, color="0.6", linestyle="--", linewidth=0.8)
        title = f"n = {measured['n']:,}, d = {measured['d']}, {measured['n_gates']} gates"
        ax.set(xscale="log", yscale="log", xlabel="processor seconds of a path", title=title)
        ax.xaxis.set_major_locator(plt.LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
    axes[0, 0].set_ylabel("largest distance from the optimum, relative")
    machine = results["environment"]
    caption(
        figure,
        "50 weight decays from the largest to a hundredth of it, one dot a tolerance, medians of three. One thread of "
        f"{machine['cpu']}, {machine['date'][:10]}.",
    )
    figure.savefig(path)
    print(f"Drew {path}")


def main() -> None:
    """Run, write, draw."""
    args = parse_arguments(
        "gated_paths",
        __doc__,
        lambda parser: parser.add_argument("--adelie", type=Path, help="Python interpreter that has adelie"),
    )
    results = {"environment": environment(), "quick": args.quick, "cases": {}}
    for name, case in (QUICK if args.quick else CASES).items():
        results["cases"][name] = measure(case, 5 if args.quick else 50, 1 if args.quick else REPEATS, args.adelie)
    results["targets"] = [] if args.quick else targets(results["cases"])
    draw(write_json(args.json, results), args.png)


if __name__ == "__main__":
    main()
