"""How long does a single solve take, to the gap that is asked for, proofs and many outputs included?

Each solve runs on one thread from seeds 0, 1 and 2 as long as they reach it, and has `OVERTIME` times the seconds it
should take. Beside them the agreement of local optima: the objectives that ten seeds end at on one problem, each with
its own local gap.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_diabetes, load_digits, make_regression
from sklearn.exceptions import ConvergenceWarning

from benchmarks.defaults import SMALL, data
from benchmarks.harness import (
    caption,
    environment,
    median_of,
    parse_arguments,
    pyplot,
    seconds_text,
    target,
    threads,
    timed,
    write_json,
)
from convexbn import BatchNormDesign, Problem, solve, weight_decay_max
from convexbn.datasets import make_teacher
from convexbn.losses import CrossEntropy, Loss, SquaredError

REPEATS = 3
OVERTIME = 3
FRACTION = 0.03  # of the largest weight decay
SEEDS, AGREEMENT, SAME = 10, 1e-5, 1e-10  # of the agreement: seeds, share of the objective to reach, local gap of each


@dataclass(frozen=True)
class Case:
    """A problem, the gap to reach in some seconds, whether that takes a proof, and options of `solve`."""

    problem: Callable[[], Problem]
    gap: float
    seconds: float
    proved: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def whitened(X: np.ndarray, y: np.ndarray, **given: Any) -> Problem:
    """The problem that an estimator would solve at 0.03 of the largest weight decay, without spectral power."""
    problem = Problem(BatchNormDesign().fit_transform(X), y, weight_decay=1.0, fit_intercept=True, **given)
    return replace(problem, weight_decay=FRACTION * weight_decay_max(problem))


def regression(n: int, d: int) -> Problem:
    """Targets that are linear with noise."""
    X, y = make_regression(n, d, noise=20.0, random_state=0)
    return whitened(X, (y - y.mean()) / y.std())


def teacher(n: int, d: int) -> Problem:
    """Targets of a random network with noise."""
    return whitened(*make_teacher(n, d, random_state=0))


def digits(loss: Loss) -> Problem:
    """Three quarters of the digits, their ten classes as indicators."""
    X, labels = load_digits(return_X_y=True)
    return whitened(X[:1347], np.eye(10)[labels[:1347]], loss=loss)


def many_outputs() -> Problem:
    """Eleven samples, ten columns, five outputs."""
    rng = np.random.default_rng(0)
    return whitened(rng.standard_normal((11, 10)), rng.standard_normal((11, 5)))


CASES = {
    "n = 30, d = 5, proved to 1e-4 of the zero network's objective": Case(
        lambda: regression(30, 5), 1e-4, 1, proved=True, options={"relative_to": "zero_network"}
    ),
    "n = 200, d = 10, local gap 1e-6": Case(lambda: regression(200, 10), 1e-6, 10),
    "n = 455, d = 13, discrete columns, local gap 1e-5": Case(lambda: whitened(*data(SMALL[1])), 1e-5, 10),
    "n = 5,000, d = 300, local gap 1e-2": Case(lambda: teacher(5000, 300), 1e-2, 60),
    "digits, squared error, local gap 1e-3": Case(lambda: digits(SquaredError()), 1e-3, 20),
    "digits, cross-entropy, local gap 1e-3": Case(lambda: digits(CrossEntropy()), 1e-3, 20),
    "n = 300, d = 5, proved to 1e-4 of the zero network's objective": Case(
        lambda: regression(300, 5), 1e-4, 10, proved=True, options={"relative_to": "zero_network"}
    ),
    "n = 100, rank 7, proved gap 1e-2": Case(lambda: regression(100, 6), 1e-2, 60, proved=True),
    "n = 100, rank 8, proved gap 1e-2": Case(lambda: regression(100, 7), 1e-2, 60, proved=True),
    "gated, 11 samples, 10 columns, 5 outputs, all 2,048 patterns, gap 1e-6": Case(
        many_outputs, 1e-6, 5, options={"activation": "gated_relu", "n_patterns": 2048}
    ),
}


def solved(case: Case, seed: int) -> dict[str, Any]:
    """One solve: seconds, and the gap it reached, of the proved bound where a proof is asked for."""
    problem = case.problem()
    limits = {"max_time": OVERTIME * case.seconds, "tol": case.gap, "prove": case.proved, **case.options}
    seconds, solution = timed(lambda: solve(problem, random_state=seed, **limits))
    certificate = solution.certificate
    bound = certificate.global_lower_bound if case.proved else certificate.lower_bound
    scale = problem.zero_objective if "relative_to" in case.options else certificate.objective
    gap = np.inf if bound is None else (certificate.objective - bound) / scale
    return {
        "seconds": seconds,
        "gap": gap,
        "reached": gap <= case.gap,
        "objective": certificate.objective,
        "scope": certificate.scope,
        "n_neurons": len(solution.neurons),
    }


def agreement() -> dict[str, Any]:
    """Objectives and local gaps of the seeds, on the diabetes data's first 100 rows and seven columns."""
    X, y = load_diabetes(return_X_y=True)
    problem = whitened(X[:100, :7], (y[:100] - y[:100].mean()) / y[:100].std())
    runs = [timed(lambda seed=seed: solve(problem, tol=SAME, prove=False, random_state=seed)) for seed in range(SEEDS)]
    objectives = np.array([solution.certificate.objective for _, solution in runs])
    bounds = np.array([solution.certificate.lower_bound for _, solution in runs])
    return {
        "seconds": [seconds for seconds, _ in runs],
        "objectives": objectives,
        "gaps": [solution.certificate.gap for _, solution in runs],
        "spread": float(np.ptp(objectives) / objectives.min()),
        "wrong": int((bounds > objectives.min()).sum()),
    }


def targets(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the summary."""
    rows = []
    for name, runs in results["solves"].items():
        case = CASES[name]
        seconds = median_of([run["seconds"] if run["reached"] else np.inf for run in runs])
        gap = median_of([run["gap"] for run in runs])
        missed = f"gap {gap:.1e} after {seconds_text(median_of([run['seconds'] for run in runs]))}"
        figure = seconds_text(seconds) if np.isfinite(seconds) else missed
        rows.append(target(f"{name}, in {case.seconds:g} s", figure, seconds <= case.seconds))
    found = results["agreement"]
    statement = f"diabetes, 100 samples, 7 columns: {SEEDS} seeds end within {AGREEMENT:g} of the objective"
    figure = (
        f"{found['spread']:.1e} apart in {seconds_text(median_of(found['seconds']))} each; "
        f"the local bound of {found['wrong']} of {SEEDS} is above the least objective"
    )
    return [*rows, target(statement, figure, found["spread"] <= AGREEMENT)]


def draw(results: dict[str, Any], path: Path) -> None:
    """Seconds of every run, and those that it should take."""
    plt = pyplot()
    figure, ax = plt.subplots(figsize=(10, 5), layout="constrained")
    for row, (name, runs) in enumerate(results["solves"].items()):
        ax.plot([CASES[name].seconds] * 2, [row - 0.35, row + 0.35], color="0.4")
        for reached, marker in ((True, "o"), (False, "x")):
            seconds = [run["seconds"] for run in runs if run["reached"] == reached]
            ax.plot(seconds, [row] * len(seconds), marker, color="C0" if reached else "C1")
    ax.set(xscale="log", xlabel="seconds", yticks=range(len(results["solves"])), yticklabels=list(results["solves"]))
    ax.invert_yaxis()
    machine = results["environment"]
    caption(
        figure,
        "Points: solves from up to three seeds; crosses: the gap was not reached in that time. Lines: the time it "
        f"should take. {machine['cpu']}, one thread, {machine['date'][:10]}.",
    )
    figure.savefig(path)
    print(f"Drew {path}")


def main() -> None:
    """Run, write, draw."""
    args = parse_arguments("solves", __doc__)
    results: dict[str, Any] = {"environment": environment(), "quick": args.quick, "solves": {}}
    with warnings.catch_warnings(), threads(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # the gaps are reported instead
        for name in list(CASES)[:1] if args.quick else CASES:
            runs = [solved(CASES[name], seed=0)]
            while runs[-1]["reached"] and len(runs) < (1 if args.quick else REPEATS):
                runs.append(solved(CASES[name], seed=len(runs)))
            results["solves"][name] = runs
            print(name, [(round(run["seconds"], 2), f"{run['gap']:.1e}") for run in runs], flush=True)
        if not args.quick:
            results["agreement"] = agreement()
    results["targets"] = [] if args.quick else targets(results)
    draw(write_json(args.json, results), args.png)


if __name__ == "__main__":
    main()
