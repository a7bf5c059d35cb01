"""How soon does each method reach which objective of the batch-normalized ReLU network, on R0, R1 and R3?

Column generation beside PyTorch's Adam, SGD and L-BFGS on the network itself, and beside Clarabel, SCS, pyscnn and
CRONOS on the convex program of sampled activation patterns. Every method runs with three seeds on the number of
threads that suits it better; figures are medians over the seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import ours
from benchmarks.harness import (
    PeerMissing,
    Run,
    caption,
    environment,
    faster_threads,
    label_lines,
    median_of,
    median_run,
    parse_arguments,
    pyplot,
    ratio,
    target,
    threads,
    write_json,
)
from benchmarks.instances import Instance, named_instance
from benchmarks.peers import conic, cronos, gradient, pyscnn
from convexbn import sample_patterns

OURS = "convexbn"
SEEDS = (0, 1, 2)
CRONOS_RHO = (10.0, 30.0)  # the best of 0.1, 1, 10, 30 and 100 on R1


@dataclass(frozen=True)
class Plan:
    """What is run on an instance: gradient steps, our tolerance and limit, sampled patterns of the convex peers."""

    n_steps: int
    tol: float
    max_time: float
    conic_patterns: int = 0
    pyscnn_patterns: int = 0
    cronos_patterns: int = 0


PLANS = {
    "R0": Plan(n_steps=3_000, tol=1e-6, max_time=30, conic_patterns=200, pyscnn_patterns=500, cronos_patterns=500),
    "R1": Plan(n_steps=10_000, tol=1e-5, max_time=60, conic_patterns=100, pyscnn_patterns=500, cronos_patterns=500),
    "R3": Plan(n_steps=10_000, tol=1e-5, max_time=90),
}
QUICK = {"R0": Plan(n_steps=50, tol=1e-2, max_time=3, conic_patterns=10)}


@dataclass(frozen=True)
class Method:
    """A method with its seed open, and a short run of it by which the number of threads is chosen."""

    run: Callable[[int], Run]
    pilot: Callable[[], object]


def methods(instance: Instance, plan: Plan, checkout: Path | None) -> dict[str, Method]:
    """The methods that run on an instance."""
    found = {
        OURS: Method(
            lambda seed: ours.column_generation(instance, seed=seed, tol=plan.tol, max_time=plan.max_time),
            lambda: ours.column_generation(instance, seed=0, tol=plan.tol, max_iter=3),
        )
    }
    for name, train in (("Adam", gradient.adam), ("SGD", gradient.sgd), ("L-BFGS", gradient.lbfgs)):
        found[f"PyTorch {name}"] = Method(
            lambda seed, train=train: train(instance, n_steps=plan.n_steps, seed=seed),
            partial(train, instance, n_steps=min(300, plan.n_steps), seed=0),
        )
    if plan.conic_patterns:
        for solver, name in (("CLARABEL", "Clarabel"), ("SCS", "SCS")):
            solve = partial(conic.solve_sampled, instance, solver=solver)
            found[f"{name}, {plan.conic_patterns} patterns"] = Method(
                lambda seed, solve=solve: solve(n_patterns=plan.conic_patterns, seed=seed),
                partial(solve, n_patterns=10, seed=0),
            )
    if plan.pyscnn_patterns:
        found[f"pyscnn AL, {plan.pyscnn_patterns} patterns"] = Method(
            lambda seed: pyscnn.augmented_lagrangian(instance, _sample(instance, plan.pyscnn_patterns, seed)),
            lambda: pyscnn.augmented_lagrangian(instance, _sample(instance, plan.pyscnn_patterns, 0), max_primal_iters=9),
        )
    if checkout is not None and plan.cronos_patterns:
        for rho in CRONOS_RHO:
            solve = partial(cronos.admm, instance, checkout, n_patterns=plan.cronos_patterns, rho=rho)
            found[f"CRONOS, {plan.cronos_patterns} patterns, rho {rho:g}"] = Method(
                lambda seed, solve=solve: solve(n_iter=200, seed=seed), partial(solve, n_iter=10, seed=0)
            )
    return found


def _sample(instance: Instance, n_patterns: int, seed: int):
    return sample_patterns(instance.problem.Z, n_patterns, random_state=seed)


def measure(instance: Instance, plan: Plan, checkout: Path | None) -> tuple[dict[str, list[Run]], dict]:
    """Runs of every method, the seeds in turn so that a slow minute of the machine meets all of them alike."""
    choices, skipped = {}, {}
    found = methods(instance, plan, checkout)
    for name, method in list(found.items()):
        try:
            choices[name] = faster_threads(method.pilot)
        except PeerMissing as missing:
            print(f"{instance.name}: {name} skipped. {missing}")
            skipped[name] = str(missing)
            del found[name]
    runs: dict[str, list[Run]] = {name: [] for name in found}
    for seed in SEEDS:
        for name, method in found.items():
            with threads(choices[name][0]):
                run = method.run(seed)
            print(f"{instance.name} {name}, seed {seed}: n*objective {run.objective:.6f} in {run.seconds:.3g} s")
            runs[name].append(run)
    settings = {name: {"threads": choice, "pilot_seconds": seconds} for name, (choice, seconds) in choices.items()}
    return runs, {"methods": settings, "skipped": skipped}


def record(instance: Instance, plan: Plan, runs: dict[str, list[Run]], settings: dict) -> dict:
    """One instance of the result file."""
    bound = max(run.info["n_lower_bound"] for run in runs[OURS])
    best = min(run.objective for all_runs in runs.values() for run in all_runs)
    for name, all_runs in runs.items():
        settings["methods"][name] |= {
            "median_seconds": median_of([run.seconds for run in all_runs]),
            "median_n_objective": median_of([run.objective for run in all_runs]),
            "runs": [{"seed": seed} | run.as_json() for seed, run in zip(SEEDS, all_runs, strict=True)],
            "drawn": all_runs.index(median_run(all_runs)),
        }
    return {
        **instance.summary(),
        "plan": vars(plan),
        "best_n_objective": best,
        "n_lower_bound_local": min(bound, best),
        **settings,
    }


def targets(runs: dict[str, dict[str, list[Run]]]) -> list[dict]:
    """The rows of the summary that these instances decide."""
    rows = []
    if "R0" in runs:
        rows.append(_certified(runs["R0"], "R0", 9.6381, 1e-6, 1_000))
    if "R1" in runs:
        rows.append(_certified(runs["R1"], "R1", 23.9966, 1e-5, 3_000))
        rows.append(_sooner_than_adam(runs["R1"], "R1", 24.003, factor=5))
        rows.append(_sooner_than_pyscnn(runs["R1"]))
    if "R3" in runs:
        rows.append(_before_step(runs["R3"], "R3", 135.28, 3_000))
        rows.append(_in_the_end(runs["R3"], "R3", 135.262, 1e-4))
    return [row for row in rows if row is not None]


def _adam_step(runs, step):
    return median_of([run.time_of_step(step) for run in runs["PyTorch Adam"]])


def _certified(runs, name, objective, gap, step):
    """Time to return with this objective and this local gap, beside Adam's time for some steps."""
    seconds = median_of(
        [run.seconds if run.objective <= objective and run.info["gap"] <= gap else np.inf for run in runs[OURS]]
    )
    adam = _adam_step(runs, step)
    statement = f"{name}: n·objective ≤ {objective} and local gap ≤ {gap:g}, sooner than {step:,} Adam steps"
    return target(statement, ratio(seconds, adam), seconds < adam)


def _before_step(runs, name, objective, step):
    seconds = median_of([run.time_to(objective) for run in runs[OURS]])
    adam = _adam_step(runs, step)
    statement = f"{name}: n·objective ≤ {objective} sooner than {step:,} Adam steps"
    return target(statement, ratio(seconds, adam), seconds < adam)


def _sooner_than_adam(runs, name, objective, factor):
    """Where Adam does not get there, the time of all its steps stands for its time, which is longer."""
    seconds = median_of([run.time_to(objective) for run in runs[OURS]])
    reached = [run.time_to(objective) for run in runs["PyTorch Adam"]]
    adam = median_of([min(time, run.seconds) for time, run in zip(reached, runs["PyTorch Adam"], strict=True)])
    count = sum(np.isfinite(reached))
    statement = f"{name}: n·objective ≤ {objective} in 1/{factor} of Adam's time"
    figure = f"{ratio(seconds, adam)}; Adam got there in {count} of {len(reached)} runs of {len(runs['PyTorch Adam'][0].times) - 1:,} steps"
    return target(statement, figure, factor * seconds <= adam)


def _sooner_than_pyscnn(runs):
    peer = next((all_runs for name, all_runs in runs.items() if name.startswith("pyscnn")), None)
    if peer is None:
        return None
    theirs = median_of([run.objective for run in peer])
    seconds = median_of([run.time_to(min(other.objective for other in peer)) for run in runs[OURS]])
    peer_seconds = median_of([run.seconds for run in peer])
    best = median_of([run.objective for run in runs[OURS]])
    statement = "R1: 50 times sooner than pyscnn's AL to an objective that AL never reaches"
    figure = f"{ratio(seconds, peer_seconds)} to AL's best n·objective; AL ends at {theirs:.2f}, convexbn at {best:.4f}"
    return target(statement, figure, 50 * seconds <= peer_seconds)


def _in_the_end(runs, name, objective, gap):
    run = sorted(runs[OURS], key=lambda run: run.objective)[len(runs[OURS]) // 2]
    statement = f"{name}: n·objective ≤ {objective} with local gap ≤ {gap:g} in the end"
    figure = f"{run.objective:.4f}, local gap {run.info['gap']:.1e}, after {run.seconds:.3g} s"
    return target(statement, figure, run.objective <= objective and run.info["gap"] <= gap)


def draw(results: dict, path: Path) -> None:
    """One panel an instance: relative distance to the lower bound against seconds, both logarithmic."""
    plt = pyplot()
    instances = results["instances"]
    figure, axes = plt.subplots(
        1, len(instances), figsize=(6.2 * len(instances), 5.2), layout="constrained", squeeze=False
    )
    for (name, instance), ax in zip(instances.items(), axes[0], strict=True):
        bound, ends = instance["n_lower_bound_local"], []
        for i, (method, entry) in enumerate(instance["methods"].items()):
            color = "black" if method == OURS else f"C{i - 1}"
            for j, run in enumerate(entry["runs"]):
                drawn = j == entry["drawn"]
                distance = np.maximum(np.array(run["n_objectives"]) / bound - 1, 1e-9)
                style = {"color": color, "linewidth": 2 if method == OURS else 1.4, "alpha": 1 if drawn else 0.25}
                if len(distance) == 1:
                    ax.plot(run["times"], distance, "o", markersize=7, **style)
                else:
                    ax.plot(run["times"], distance, **style)
                if drawn:
                    ends.append((run["times"][-1], distance[-1], method, color))
        ax.set(
            title=f"{name}: n = {instance['n']:,}, d = {instance['d']}",
            xscale="log",
            yscale="log",
            xlabel="seconds",
            xlim=(1e-3, None),
        )
        label_lines(ax, ends)
    axes[0, 0].set_ylabel("objective above the lower bound, relative")
    machine = results["environment"]
    caption(
        figure,
        "Best objective so far; bold: the seed with the median run time, faint: the others. The lower bound is that of "
        "convexbn's local certificate: strong evidence, no proof.\n"
        "Dots: convex programs on sampled patterns, whose optimum is this far from that over all patterns. "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['date'][:10]}.",
    )
    figure.savefig(path)
    print(f"Drew {path}")


def main() -> None:
    """Run, write, draw."""
    args = parse_arguments(
        "relu_vs_peers",
        __doc__,
        lambda parser: parser.add_argument("--cronos", type=Path, help="checkout of github.com/pilancilab/CRONOS"),
    )
    results = {"environment": environment(), "quick": args.quick, "instances": {}}
    if args.cronos is None:
        print("CRONOS skipped: give the path of a checkout with --cronos.")
    runs = {}
    for name, plan in (QUICK if args.quick else PLANS).items():
        instance = named_instance(name)
        runs[name], settings = measure(instance, plan, args.cronos)
        results["instances"][name] = record(instance, plan, runs[name], settings)
    results["targets"] = [] if args.quick else targets(runs)
    draw(write_json(args.json, results), args.png)


if __name__ == "__main__":
    main()
