"""How many single solves on R1 does a path of 50 values of weight decay take?

The grid falls geometrically from weight_decay_max to R1's own weight decay. A single solve starts from nothing at R1's
own weight decay, the hardest of the grid. Beside it, the sum of 50 solves from nothing over the same grid.
"""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from benchmarks.harness import (
    caption,
    environment,
    faster_threads,
    median_of,
    parse_arguments,
    pyplot,
    target,
    threads,
    timed,
    write_json,
)
from benchmarks.instances import Instance, named_instance
from convexbn import BatchNormDesign, convexbn_path, solve_column_generation, weight_decay_max

REPEATS = 3
TOL = 1e-5


def grid_of(instance: Instance, n_values: int) -> np.ndarray:
    """Values of weight decay, falling geometrically."""
    return np.geomspace(weight_decay_max(instance.problem), instance.weight_decay, n_values)


def solve_path(instance: Instance, grid: np.ndarray, seed: int):
    """The path, warm-started from value to value."""
    return convexbn_path(instance.X, instance.y, weight_decays=grid, fit_intercept=False, tol=TOL, random_state=seed)


def solve_single(instance: Instance, weight_decay: float, seed: int):
    """One solve from nothing, the whitening included, as it is in the path."""
    problem = replace(instance.problem, Z=BatchNormDesign().fit(instance.X).matrix(instance.X))
    options = {"tol": TOL, "relative_to": "zero_network", "random_state": seed}  # as in the path
    return solve_column_generation(replace(problem, weight_decay=weight_decay), **options)


def measure(instance: Instance, grid: np.ndarray, repeats: int) -> dict:
    """Paths and single solves alternately, then the whole grid once without warm starts."""
    number, pilot = faster_threads(lambda: solve_single(instance, grid[len(grid) // 2], 0))
    with threads(number):
        single, path = [], []
        for seed in range(repeats):
            single.append(timed(lambda seed=seed: solve_single(instance, grid[-1], seed)))
            path.append(timed(lambda seed=seed: solve_path(instance, grid, seed)))
            print(f"single {single[-1][0]:.3g} s, path {path[-1][0]:.3g} s", flush=True)
        cold = [timed(lambda value=value: solve_single(instance, value, 0)) for value in grid]
    drawn = path[0][1]
    return {
        "threads": number,
        "pilot_seconds": pilot,
        "single_seconds": [seconds for seconds, _ in single],
        "single_gaps": [solution.certificate.gap for _, solution in single],
        "path_seconds": [seconds for seconds, _ in path],
        "ratio": median_of([seconds for seconds, _ in path]) / median_of([seconds for seconds, _ in single]),
        "cold_seconds": [seconds for seconds, _ in cold],
        "cold_n_objectives": [instance.n * solution.certificate.objective for _, solution in cold],
        "weight_decays": grid,
        "path_n_objectives": instance.n * np.asarray(drawn.objectives),
        "path_gaps": drawn.gaps,
        "path_n_neurons": drawn.n_neurons,
        "path_reached": int(np.sum(drawn.gaps * drawn.objectives <= TOL * instance.problem.zero_objective)),
    }


def targets(measured: dict) -> list[dict]:
    """The row of the summary."""
    n_values = len(measured["weight_decays"])
    path, single = median_of(measured["path_seconds"]), median_of(measured["single_seconds"])
    cold = sum(measured["cold_seconds"])
    figure = (
        f"{measured['ratio']:.2f} single solves ({path:.3g} s against {single:.3g} s; {cold:.3g} s "
        f"without warm starts); gap ≤ {TOL:g} at {measured['path_reached']} of {n_values}"
    )
    return [
        target(f"R1: {n_values} values of weight decay in less than 5 single solves", figure, measured["ratio"] < 5)
    ]


def draw(results: dict, path: Path) -> None:
    """Objective and neurons along the path, and the time with and without warm starts."""
    plt = pyplot()
    measured = results["path"]
    grid = measured["weight_decays"]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    left.plot(grid, measured["path_n_objectives"], ".-", color="black")
    left.set(title="n · objective", yscale="log")
    middle.plot(grid, measured["path_n_neurons"], ".-", color="black")
    middle.set(title="neurons")
    right.plot(grid, np.cumsum(measured["cold_seconds"]), color="C0")
    right.text(grid[-1], sum(measured["cold_seconds"]), "from nothing ", ha="right", va="bottom", color="C0")
    total = median_of(measured["path_seconds"])
    right.axhline(total, color="black")
    right.text(grid[0], total, "whole path, warm-started", ha="left", va="bottom")
    single = median_of(measured["single_seconds"])
    right.axhline(5 * single, color="0.5", linestyle="--")
    right.text(grid[0], 5 * single, "five single solves", ha="left", va="bottom", color="0.4")
    right.set(title="seconds, added up along the path", yscale="log")
    for ax in (left, middle, right):
        ax.set(xscale="log", xlabel="weight decay")
        ax.xaxis.set_minor_formatter("")
        ax.invert_xaxis()
    machine = results["environment"]
    caption(
        figure,
        f"{results['name']} (n = {results['n']}, d = {results['d']}), {len(grid)} weight decays, local gap {TOL:g}. "
        f"{machine['cpu']}, {measured['threads']} thread(s), {machine['date'][:10]}.",
    )
    figure.savefig(path)
    print(f"Drew {path}")


def main() -> None:
    """Run, write, draw."""
    args = parse_arguments("path", __doc__)
    instance = named_instance("R0" if args.quick else "R1")
    results = {"environment": environment(), "quick": args.quick, "name": instance.name} | instance.summary()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the gaps are reported instead
        results["path"] = measure(instance, grid_of(instance, 5 if args.quick else 50), 1 if args.quick else REPEATS)
    results["targets"] = [] if args.quick else targets(results["path"])
    draw(write_json(args.json, results), args.png)


if __name__ == "__main__":
    main()
