"""How soon does each method reach which objective of the batch-normalized ReLU network, on R0, R1 and R3?

Column generation beside PyTorch's Adam, SGD and L-BFGS on the network itself, and beside Clarabel, SCS, pyscnn and
CRONOS on the convex program of sampled activation patterns. Every method runs with three seeds on the number of
threads that suits it better; figures are medians over the seeds.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import ours
from benchmarks.comparison import OURS, Comparison, Method, compare, draw_comparison
from benchmarks.harness import caption, environment, parse_arguments, pyplot, ratio, target, write_json
from benchmarks.instances import Instance, named_instance
from benchmarks.peers import conic, cronos, gradient, pyscnn
from convexbn import Patterns, sample_patterns

ADAM = "PyTorch Adam"
SEEDS, QUICK_SEEDS = (0, 1, 2), (0,)
FLOOR = 1e-8  # distances are drawn down to here
CRONOS_RHO = (10.0,)  # the best of 0.1, 1, 10, 30 and 100 on R1, with 30


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
    "R1": Plan(n_steps=10_000, tol=1e-5, max_time=60, conic_patterns=50, pyscnn_patterns=500, cronos_patterns=500),
    "R3": Plan(n_steps=10_000, tol=1e-5, max_time=60),
}
QUICK = {"R0": Plan(n_steps=50, tol=1e-2, max_time=3, conic_patterns=10)}


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
                lambda seed, solve=solve: solve(_sample(instance, plan.conic_patterns, seed)),
                lambda solve=solve: solve(_sample(instance, 10, 0)),
            )
    if plan.pyscnn_patterns:
        found[f"pyscnn AL, {plan.pyscnn_patterns} patterns"] = Method(
            lambda seed: pyscnn.augmented_lagrangian(instance, _sample(instance, plan.pyscnn_patterns, seed)),
            lambda: pyscnn.augmented_lagrangian(
                instance, _sample(instance, plan.pyscnn_patterns, 0), max_primal_iters=10
            ),
        )
    if checkout is not None and plan.cronos_patterns:
        for rho in CRONOS_RHO:
            solve = partial(cronos.admm, instance, checkout, n_patterns=plan.cronos_patterns, rho=rho)
            found[f"CRONOS, {plan.cronos_patterns} patterns, rho {rho:g}"] = Method(
                lambda seed, solve=solve: solve(n_iter=200, seed=seed), partial(solve, n_iter=10, seed=0)
            )
    return found


def _sample(instance: Instance, n_patterns: int, seed: int) -> Patterns:
    return sample_patterns(instance.problem.Z, n_patterns, random_state=seed)


def targets(comparisons: dict[str, Comparison]) -> list[dict]:
    """The rows of the summary that these instances decide."""
    R0, R1, R3 = (comparisons[name] for name in ("R0", "R1", "R3"))
    return [
        _certified("R0", R0, 9.6381, gap=1e-6, step=1_000),
        _certified("R1", R1, 23.9966, gap=1e-5, step=3_000),
        _sooner_than_adam("R1", R1, 24.003, factor=5),
        *_sooner_than_pyscnn("R1", R1),
        _before_step("R3", R3, 135.28, step=3_000),
        _in_the_end("R3", R3, 135.262, gap=1e-4),
    ]


def _certified(name: str, comparison: Comparison, objective: float, gap: float, step: int) -> dict:
    """Time to this objective and this local gap, the last hard search included, beside Adam's for so many steps."""
    seconds = comparison.median(OURS, lambda run: ours.time_to_gap(run, objective, gap))
    adam = comparison.median(ADAM, lambda run: run.time_of_step(step))
    statement = f"{name}: n·objective ≤ {objective} and local gap ≤ {gap:g}, sooner than {step:,} Adam steps"
    return target(statement, ratio(seconds, adam), seconds < adam)


def _before_step(name: str, comparison: Comparison, objective: float, step: int) -> dict:
    """Time to this objective, beside Adam's time for so many steps."""
    seconds = comparison.median(OURS, lambda run: run.time_to(objective))
    adam = comparison.median(ADAM, lambda run: run.time_of_step(step))
    return target(
        f"{name}: n·objective ≤ {objective} sooner than {step:,} Adam steps", ratio(seconds, adam), seconds < adam
    )


def _sooner_than_adam(name: str, comparison: Comparison, objective: float, factor: int) -> dict:
    """Time to this objective, beside Adam's; where Adam does not get there, beside that of all its steps."""
    seconds = comparison.median(OURS, lambda run: run.time_to(objective))
    adam = comparison.median(ADAM, lambda run: min(run.time_to(objective), run.seconds))
    runs = comparison.runs[ADAM]
    reached = sum(run.objective <= objective for run in runs)
    steps = len(runs[0].times) - 1
    at_least = "" if 2 * reached > len(runs) else "more than "
    figure = f"{at_least}{ratio(seconds, adam)}; Adam gets there in {reached} of {len(runs)} runs of {steps:,} steps"
    return target(f"{name}: n·objective ≤ {objective} in 1/{factor} of Adam's time", figure, factor * seconds <= adam)


def _sooner_than_pyscnn(name: str, comparison: Comparison) -> list[dict]:
    """Time to an objective below the best that AL ends at, beside AL's whole time."""
    statement = f"{name}: 50 times sooner than pyscnn's AL to an objective that AL never reaches"
    peer = next((method for method in comparison.runs if method.startswith("pyscnn")), None)
    if peer is None:
        return [target(statement, "not measured: pyscnn is not installed", None)]
    theirs = min(run.objective for run in comparison.runs[peer])
    seconds = comparison.median(OURS, lambda run: run.time_to(theirs))
    peer_seconds = comparison.median(peer, lambda run: run.seconds)
    figure = f"{ratio(seconds, peer_seconds)} to less than the best n·objective of AL, {theirs:.2f}"
    return [target(statement, figure, 50 * seconds <= peer_seconds)]


def _in_the_end(name: str, comparison: Comparison, objective: float, gap: float) -> dict:
    """The run with the median objective."""
    runs = sorted(comparison.runs[OURS], key=lambda run: run.objective)
    run = runs[len(runs) // 2]
    statement = f"{name}: n·objective ≤ {objective} with local gap ≤ {gap:g} in the end"
    local_gap = run.info["least_gap"]
    figure = f"{run.objective:.4f} with local gap {local_gap:.1e} after {run.seconds:.3g} s"
    return target(statement, figure, run.objective <= objective and local_gap <= gap)


def draw(results: dict, path: Path) -> None:
    """One panel an instance: relative distance to the lower bound against seconds, both logarithmic."""
    plt = pyplot()
    instances = results["instances"]
    figure, axes = plt.subplots(
        1, len(instances), figsize=(6.2 * len(instances), 5.2), layout="constrained", squeeze=False
    )
    for (name, instance), ax in zip(instances.items(), axes[0], strict=True):
        draw_comparison(ax, instance, FLOOR)
        ax.set(title=f"{name}: n = {instance['n']:,}, d = {instance['d']}")
    axes[0, 0].set_ylabel("objective above the lower bound, relative")
    machine = results["environment"]
    caption(
        figure,
        "Best objective so far; bold: the seed with the median run time, faint: the others. Lower bound: the best that "
        "convexbn's searches found, strong evidence but no proof. Dots: convex programs on sampled patterns, whose "
        "optimum is this far from that over all patterns. "
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
    comparisons = {}
    for name, plan in (QUICK if args.quick else PLANS).items():
        instance = named_instance(name)
        comparisons[name] = compare(name, methods(instance, plan, args.cronos), QUICK_SEEDS if args.quick else SEEDS)
        results["instances"][name] = instance.summary() | {"plan": vars(plan)} | comparisons[name].as_json()
    results["targets"] = [] if args.quick else targets(comparisons)
    draw(write_json(args.json, results), args.png)


if __name__ == "__main__":
    main()
