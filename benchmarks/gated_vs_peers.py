"""How soon is the gated ReLU network solved to a relative gap of 1e-6, beside R-FISTA, Clarabel and SCS?

R2 with 1,000 gates against pyscnn's R-FISTA, and R1 with 100 gates against all, since R2 (51,000 unknowns that are
coupled through 5,000 samples) is out of the reach of Clarabel and SCS in reasonable time. R-FISTA runs once with a
tight tolerance and its own trace of the objective shows when it came within 1e-6 of convexbn's objective, so that
its stopping rule costs it nothing. With ``--device cuda`` design matrix and products of convexbn and of pyscnn are on a
GPU, without the others, and the files are named gated_vs_peers_gpu.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks import ours
from benchmarks.comparison import OURS, Comparison, Method, compare, draw_comparison
from benchmarks.harness import caption, device_name, environment, parse_arguments, pyplot, ratio, target, write_json
from benchmarks.instances import Instance, named_instance
from benchmarks.peers import conic, pyscnn
from convexbn import Patterns, sample_patterns
from convexbn._utils.torch_device import check_device

R_FISTA = "pyscnn R-FISTA"
TOL = 1e-6
REPEATS = 3
FLOOR = 1e-10  # distances are drawn down to here
CASES = {"R2": 1_000, "R1": 100}  # gates
QUICK = {"R0": 20}


def methods(
    instance: Instance, patterns: Patterns, max_iters: int, with_conic: bool, device: str | None = None
) -> dict[str, Method]:
    """The methods that run on an instance; none of them is random, so that a seed is a repeat."""
    found = {
        OURS: Method(
            lambda seed: ours.gated(instance, patterns, device, tol=TOL),
            lambda: ours.gated(instance, patterns, device, tol=1e-2),
        ),
        R_FISTA: Method(
            lambda seed: pyscnn.r_fista(instance, patterns, device or "cpu", tol=1e-14, max_iters=max_iters),
            lambda: pyscnn.r_fista(instance, patterns, device or "cpu", tol=1e-14, max_iters=10),
        ),
    }
    if with_conic:
        for solver, name in (("CLARABEL", "Clarabel"), ("SCS", "SCS")):
            options = {"solver": solver, "activation": "gated_relu", "tol": 1e-8}
            found[name] = Method(
                lambda seed, options=options: conic.solve_sampled(instance, patterns, **options),
                lambda options=options: conic.solve_sampled(instance, patterns, **options),
            )
    return found


def seconds_to_gap(comparison: Comparison, method: str) -> float:
    """Median seconds to within 1e-6 of the lower bound; for convexbn, until it returns with a proof."""
    if method == OURS:
        return comparison.median(OURS, lambda run: run.seconds if run.info["gap"] <= TOL else np.inf)
    return comparison.median(method, lambda run: run.time_to(comparison.lower_bound * (1 + TOL)))


def targets(comparisons: dict[str, Comparison], device: str | None = None) -> list[dict]:
    """The rows of the summary that these instances decide; on a GPU nothing was required."""
    rows, place = [], "" if device in (None, "cpu") else " on a GPU"
    for name, comparison in comparisons.items():
        seconds = seconds_to_gap(comparison, OURS)
        for peer in comparison.runs:
            if peer == OURS:
                continue
            theirs = seconds_to_gap(comparison, peer)
            required = (name, peer) == ("R2", R_FISTA) and not place
            statement = f"{name}, gated, {CASES[name]:,} gates{place}: relative gap 1e-6 " + (
                "10 times sooner than pyscnn's R-FISTA" if required else f"beside {peer}"
            )
            rows.append(target(statement, ratio(seconds, theirs), 10 * seconds <= theirs if required else None))
    return rows


def draw(results: dict, path: Path) -> None:
    """One panel an instance: relative distance to the proved lower bound against seconds, both logarithmic."""
    plt = pyplot()
    instances = results["instances"]
    figure, axes = plt.subplots(
        1, len(instances), figsize=(6.2 * len(instances), 4.8), layout="constrained", squeeze=False
    )
    for (name, instance), ax in zip(instances.items(), axes[0], strict=True):
        draw_comparison(ax, instance, FLOOR)
        ax.axhline(TOL, color="0.4", linestyle="--", linewidth=1)
        ax.text(
            0.01, TOL, "relative gap 1e-6", transform=ax.get_yaxis_transform(), va="bottom", color="0.4", fontsize=9
        )
        ax.set(title=f"{name}: n = {instance['n']:,}, d = {instance['d']}, {instance['n_gates']:,} gates")
    axes[0, 0].set_ylabel("objective above the proved lower bound, relative")
    machine = results["environment"]
    caption(
        figure,
        "Best objective so far, the run of median length; faint: the other repeats. Values below 1e-10 are drawn at "
        f"1e-10. {machine['cpu']}, {machine['cores']} cores, device {results['device']}, {machine['date'][:10]}.",
    )
    figure.savefig(path)
    print(f"Drew {path}")


def main() -> None:
    """Run, write, draw."""

    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--device", help="device of PyTorch, such as cuda (default: NumPy)")

    args = parse_arguments("gated_vs_peers", __doc__, options)
    check_device(args.device)
    if args.device is not None:
        args.json, args.png = (path.with_stem("gated_vs_peers_gpu") for path in (args.json, args.png))
    results = {"environment": environment(), "quick": args.quick, "device": device_name(args.device), "instances": {}}
    comparisons = {}
    for name, n_gates in (QUICK if args.quick else CASES).items():
        instance = named_instance(name)
        patterns = sample_patterns(instance.problem.Z, n_gates, random_state=0)
        with_conic = name != "R2" and args.device is None
        found = methods(instance, patterns, 50 if args.quick else 2_000, with_conic, args.device)
        comparisons[name] = compare(name, found, range(1 if args.quick else REPEATS))
        results["instances"][name] = instance.summary() | {"n_gates": len(patterns)} | comparisons[name].as_json()
        for method, entry in results["instances"][name]["methods"].items():
            entry["median_seconds_to_gap"] = seconds_to_gap(comparisons[name], method)
    results["targets"] = [] if args.quick else targets(comparisons, args.device)
    draw(write_json(args.json, results), args.png)


if __name__ == "__main__":
    main()
