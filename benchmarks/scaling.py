"""How do time and memory grow with n, with d and with falling weight decay, for ReLU and for gated ReLU?

Every point runs in a process of its own, so that its peak memory is its own. A point that does not reach its relative
gap within the time limit is reported with the gap that it reached, drawn hollow, and left out of the fitted exponents.
The gap of ReLU networks is the local one, that of gated networks is proved for their gates.
"""

import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import ours
from benchmarks.harness import (
    caption,
    environment,
    parse_arguments,
    plain,
    pyplot,
    target,
    threads,
    write_json,
)
from benchmarks.instances import make_instance
from convexbn import sample_patterns, weight_decay_max

ROOT = Path(__file__).parent.parent
TOLERANCES = {"relu": 1e-2, "gated_relu": 1e-6}
LABELS = {"relu": "ReLU, local gap 1e-2", "gated_relu": "gated ReLU, gap 1e-6"}
N_GATES = 200
MAX_TIME = 60.0  # seconds a point; a process that overruns them three times is ended
FRACTION = 0.03  # of weight_decay_max, the default of the estimators
SERIES = {
    "n": [{"n": n, "d": 30} for n in (1_000, 3_000, 10_000, 30_000, 100_000)],
    "d": [{"n": 5_000, "d": d} for d in (3, 10, 30, 100, 300)],
    "weight_decay": [{"n": 500, "d": 10, "fraction_of_max": fraction} for fraction in (0.1, 0.03, 0.01, 0.003, 0.001)],
}
QUICK = {"n": [{"n": n, "d": 3} for n in (100, 200)]}
AXES = {
    "n": ("n", "samples n  (d = 30)"),
    "d": ("d", "features d  (n = 5,000)"),
    "weight_decay": ("fraction_of_max", "weight decay / weight_decay_max  (n = 500, d = 10)"),
}


def measure_point(activation: str, n: int, d: int, fraction_of_max: float, max_time: float) -> dict:
    """Solve one instance in this process; `solver_mebibytes` is what the solver added to the peak."""
    instance = make_instance(n, d)
    instance = replace(instance, weight_decay=fraction_of_max * weight_decay_max(instance.problem))
    patterns = sample_patterns(instance.problem.Z, N_GATES, random_state=0) if activation == "gated_relu" else None
    before = _peak()
    if patterns is None:
        run = ours.column_generation(instance, seed=0, tol=TOLERANCES[activation], max_time=max_time)
    else:
        run = ours.gated(instance, patterns, tol=TOLERANCES[activation], max_time=max_time)
    return {
        "activation": activation,
        "n": n,
        "d": d,
        "weight_decay": instance.weight_decay,
        "fraction_of_max": fraction_of_max,
        "data_mebibytes": instance.problem.Z.Z.nbytes / 2**20,
        "solver_mebibytes": _peak() - before,
        "peak_mebibytes": _peak(),
        "reached": run.info["gap"] <= TOLERANCES[activation],
        "seconds": run.seconds,
        "n_objective": run.objective,
        **run.info,
    }


def _peak() -> float:
    """Peak resident memory of this process in MiB (ru_maxrss is in KiB on Linux, in bytes on macOS)."""
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def measure(series: dict, max_time: float, number: int) -> dict[str, list[dict]]:
    """Measure all points, each in a fresh process."""
    results: dict[str, list[dict]] = {}
    for name, points in series.items():
        results[name] = []
        for activation in TOLERANCES:
            for point in points:
                arguments = {"activation": activation, "fraction_of_max": FRACTION, "max_time": max_time} | point
                results[name].append(_in_fresh_process(arguments, number))
                print(_row(results[name][-1]), flush=True)
    return results


def _in_fresh_process(arguments: dict, number: int) -> dict:
    command = [sys.executable, "-m", "benchmarks.scaling", "--point", json.dumps([number, arguments])]
    limit = 3 * arguments["max_time"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        unknown = dict.fromkeys(("gap", "n_objective", "n_neurons", "peak_mebibytes", "solver_mebibytes"))
        return arguments | unknown | {"reached": False, "status": "ENDED", "seconds": limit}
    if process.returncode != 0:
        raise RuntimeError(f"The point {arguments} failed:\n{process.stderr}")
    return json.loads(process.stdout.splitlines()[-1])


def _row(point: dict) -> str:
    where = f"{point['activation']:10} n={point['n']:>7,} d={point['d']:>3} fraction={point['fraction_of_max']:g}"
    return f"{where}: {_figure(point)}{'' if point['reached'] else ' MISSED its tolerance'}"


def _figure(point: dict) -> str:
    if point["status"] == "ENDED":
        return f"ended after {point['seconds']:g} s without a result"
    return (
        f"{point['seconds']:.3g} s, {point['peak_mebibytes']:.0f} MiB, gap {point['gap']:.1e}, "
        f"{point['n_neurons']} neurons"
    )


def exponents(series: dict[str, list[dict]]) -> dict:
    """Least-squares slopes in logarithms of seconds and of peak memory, over the points that reached their gap."""
    fitted: dict = {}
    for name, points in series.items():
        for activation in TOLERANCES:
            used = [point for point in points if point["activation"] == activation and point["reached"]]
            if len(used) >= 3:
                x = np.log([point[AXES[name][0]] for point in used])
                fitted.setdefault(name, {})[activation] = {
                    "n_points": len(used),
                    **{
                        quantity: float(np.polyfit(x, np.log([max(point[quantity], 1e-3) for point in used]), 1)[0])
                        for quantity in ("seconds", "peak_mebibytes")
                    },
                }
    return fitted


def targets(series: dict[str, list[dict]], fitted: dict) -> list[dict]:
    """The rows of the summary."""
    rows = []
    for name, points in series.items():
        for activation in TOLERANCES:
            mine = [point for point in points if point["activation"] == activation]
            last = mine[-1]
            reached = sum(point["reached"] for point in mine)
            fit = fitted.get(name, {}).get(activation)
            slope = f"seconds ~ {name}^{fit['seconds']:.2f}; " if fit else "too few points for an exponent; "
            where = f"n = {last['n']:,}, d = {last['d']}, {last['fraction_of_max']:g} of weight_decay_max"
            figure = f"{slope}{reached} of {len(mine)} points within {MAX_TIME:g} s; the last, {where}: {_figure(last)}"
            label = name.replace("_", " ")
            rows.append(target(f"scaling with {label}, {LABELS[activation]}", figure, reached == len(mine)))
    return rows


def draw(results: dict, path: Path) -> None:
    """Seconds above, peak memory below, one column a series."""
    plt = pyplot()
    series = results["series"]
    figure, axes = plt.subplots(
        2, len(series), figsize=(4.6 * len(series), 7.2), layout="constrained", squeeze=False, sharex="col"
    )
    for (name, points), column in zip(series.items(), axes.T, strict=True):
        x_name, label = AXES[name]
        for ax, quantity in zip(column, ("seconds", "peak_mebibytes"), strict=True):
            for activation, color in zip(TOLERANCES, ("black", "C0"), strict=True):
                mine = [point for point in points if point["activation"] == activation]
                mine = [point for point in mine if point[quantity] is not None]
                x, y = [point[x_name] for point in mine], [point[quantity] for point in mine]
                ax.plot(x, y, color=color, linewidth=1)
                for point, left, height in zip(mine, x, y, strict=True):
                    ax.plot(left, height, "o", color=color, markerfacecolor=color if point["reached"] else "white")
                fit = results["exponents"].get(name, {}).get(activation)
                slope = f"  (slope {fit[quantity]:.2f})" if fit else ""
                ax.plot([], [], "o-", color=color, label=LABELS[activation] + slope)
            ax.set(xscale="log", yscale="log")
            ax.legend(fontsize=8, loc="best", frameon=False)
        column[-1].set_xlabel(label)
        if name == "weight_decay":
            column[0].invert_xaxis()
        column[0].set_title(f"against {name.replace('_', ' ')}")
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("peak memory of the process, MiB")
    machine = results["environment"]
    caption(
        figure,
        f"Hollow: the tolerance was not reached within {results['max_time']:g} s; such points are not part of the "
        f"fitted slopes. Weight decay {FRACTION:g} of weight_decay_max but on the right. Gated: {N_GATES} gates. "
        f"{machine['cpu']}, {machine['cores']} cores, {results['threads']} thread(s), {machine['date'][:10]}.",
    )
    figure.savefig(path)
    print(f"Drew {path}")


def main() -> None:
    """Measure one point for another process, or run, write, draw."""
    if len(sys.argv) == 3 and sys.argv[1] == "--point":
        number, arguments = json.loads(sys.argv[2])
        with threads(number):
            print(json.dumps(plain(measure_point(**arguments))))
        return
    args = parse_arguments(
        "scaling",
        __doc__,
        lambda parser: parser.add_argument("--threads", type=int, default=2, help="threads of every point"),
    )
    max_time = 5.0 if args.quick else MAX_TIME
    series = measure(QUICK if args.quick else SERIES, max_time, args.threads)
    fitted = exponents(series)
    results = {
        "environment": environment(),
        "quick": args.quick,
        "threads": args.threads,
        "max_time": max_time,
        "tolerances": TOLERANCES,
        "series": series,
        "exponents": fitted,
        "targets": [] if args.quick else targets(series, fitted),
    }
    draw(write_json(args.json, results), args.png)


if __name__ == "__main__":
    main()
