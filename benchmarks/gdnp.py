"""How many steps, and how long, does GDNP need to learn a halfspace, beside the methods that it is compared to?

Logistic loss without a penalty, on Gaussian data, for which the rate of GDNP is a theorem, and on data that is not
Gaussian at all. A method has converged when its objective is within 1e-6 of the infimum. Where the classes are
separable the infimum is zero and no weights reach it. Columns are standardised, dependent ones replaced by principal
components (no method here sees a difference between bases), and a column of ones is added.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_svmlight_file

from benchmarks.harness import (
    POINTS,
    caption,
    environment,
    median_of,
    parse_arguments,
    pyplot,
    target,
    threads,
    write_json,
)
from convexbn.gradient.gdnp import (
    LearningHalfspace,
    accelerated_gradient_descent,
    batch_norm_descent,
    gdnp,
    gradient_descent,
    lbfgs,
)

METHODS = {
    "GDNP": gdnp,
    "gradient descent": gradient_descent,
    "Nesterov": accelerated_gradient_descent,
    "BN + gradient descent": batch_norm_descent,
    "L-BFGS": lbfgs,
}
WITHIN = 1e-6
FLOOR = 1e-9  # of the picture
REPEATS = 3


def prepared(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardised columns in general position and a column of ones; labels -1 and +1."""
    X = X - X.mean(axis=0)
    scale = X.std(axis=0)
    X = X[:, scale > 1e-12] / scale[scale > 1e-12]
    _, values, rows = np.linalg.svd(X, full_matrices=False)
    columns = X @ rows[values > 1e-6 * values[0]].T
    return np.column_stack([columns, np.ones(len(X))]), np.where(y > 0, 1.0, -1.0)


def gaussian(n: int, d: int, condition: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels that say nothing of the sign of X, and z = -y x Gaussian with this condition number."""
    rng = np.random.default_rng(seed)
    scales = np.sqrt(np.geomspace(1, 1 / condition, d))
    u = 0.7 * scales * rng.standard_normal(d) / np.sqrt(d)
    z = u + scales * rng.standard_normal((n, d))
    y = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    return -y[:, None] * z, y


def data_sets(quick: bool, a9a: Path | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every data set by its name."""
    cancer, benign = load_breast_cancer(return_X_y=True)
    pixels, digit = load_digits(return_X_y=True)
    binary = digit < 2
    sets = {"Gaussian": gaussian(500 if quick else 5000, 20, 100.0), "breast cancer, means": (cancer[:, :10], benign)}
    if not quick:
        sets |= {
            "breast cancer": (cancer, benign),
            "digits, 0 or 1": (pixels[binary], digit[binary]),
            "digits, odd or even": (pixels, digit % 2),
        }
    sets = {name: samples if name == "Gaussian" else prepared(*samples) for name, samples in sets.items()}
    if a9a is not None:
        features, labels = load_svmlight_file(str(a9a))
        sets["a9a"] = prepared(features.toarray(), labels)
    return sets


def measure(X: np.ndarray, y: np.ndarray, n_steps: int, repeats: int) -> dict:
    """Every method once, and again for the time if it converged."""
    objective = LearningHalfspace(X, y)
    best = lbfgs(objective, n_steps=20 * n_steps, tol=1e-10)
    fits = {name: [method(objective, n_steps=n_steps, tol=1e-8)] for name, method in METHODS.items()}
    separable = any(run.status == "separable" for run in [best, *(fit[0] for fit in fits.values())])
    infimum = 0.0 if separable else min(fit[0].trace.objective.min() for fit in [[best], *fits.values()])
    for _ in range(repeats - 1):
        for name, runs in fits.items():
            if runs[0].trace.objective.min() <= infimum + WITHIN:
                runs.append(METHODS[name](objective, n_steps=n_steps, tol=1e-8))
    moments = objective.moments
    return {
        "n": len(X),
        "d": X.shape[1],
        "condition": moments.L / moments.mu,
        "separable": separable,
        "infimum": infimum,
        "rate_bound": moments.rate,
        "rate_predicted": moments.local_rate,
        "rate_measured": None if separable else rate_of(fits["GDNP"][0].trace["gradient_norm"]),
        "methods": {name: row(runs, infimum) for name, runs in fits.items()},
    }


def rate_of(gradients: np.ndarray) -> float:
    """Factor a step by which gradient norms fall, fitted to the second half of those above 1e-7."""
    gradients = gradients[gradients > 1e-7]
    half = len(gradients) // 2
    return float(np.exp(np.polyfit(np.arange(half, len(gradients)), np.log(gradients[half:]), 1)[0]))


def row(runs: list, infimum: float) -> dict:
    """What one method did: the first run's steps and curve, the median of the seconds."""
    trace = runs[0].trace
    excess = np.minimum.accumulate(trace.objective) - infimum
    arrived = np.flatnonzero(excess <= WITHIN)
    seconds = [run.trace.times[arrived[0]] for run in runs] if len(arrived) else [np.inf]
    keep = np.unique(np.geomspace(1, len(excess), POINTS).round().astype(int)) - 1
    return {
        "status": runs[0].status,
        "steps": int(trace.steps[-1]),
        "steps_to": int(trace.steps[arrived[0]]) if len(arrived) else None,
        "seconds_to": median_of(seconds),
        "seconds_a_step": trace.times[-1] / max(trace.steps[-1], 1),
        "excess": excess[-1],
        "gradient_norm": trace["gradient_norm"][-1],
        "curve_steps": trace.steps[keep],
        "curve_excess": np.maximum(excess[keep], 0),
    }


def targets(data: dict) -> list[dict]:
    """One row a data set; for Gaussian data, where there is a theorem, with the rate."""
    rows = []
    for name, measured in data.items():
        figures = [
            f"{method} {row['steps_to']} ({row['seconds_to']:.2g} s)"
            if row["steps_to"] is not None
            else f"{method} not in {row['steps']}"
            for method, row in measured["methods"].items()
        ]
        if name == "Gaussian":
            rates = f"{measured['rate_measured']:.4f} a step, predicted {measured['rate_predicted']:.4f}"
            figures.append(f"the gradient of GDNP falls by a factor of {rates}")
        kind = "separable" if measured["separable"] else f"condition number {measured['condition']:,.0f}"
        rows.append(target(f"{name} ({kind}): steps to {WITHIN:g}", "; ".join(figures), None))
    return rows


def draw(results: dict, path: Path) -> None:
    """Objective above the infimum over steps, one panel a data set."""
    plt = pyplot()
    data = results["data"]
    n_columns = min(len(data), 3)
    n_rows = -(-len(data) // n_columns)
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(4.7 * n_columns, 3.6 * n_rows + 0.6),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    for ax, (name, measured) in zip(axes.flat, data.items(), strict=False):
        for i, (method, row) in enumerate(measured["methods"].items()):
            steps, excess = np.array(row["curve_steps"]) + 1, np.maximum(row["curve_excess"], FLOOR)
            style = {"color": "black", "linewidth": 2.2, "zorder": 3} if method == "GDNP" else {"color": f"C{i - 1}"}
            ax.plot(steps, excess, label=method, **style)
            ax.plot(
                steps[-1], excess[-1], "o", markersize=4, **{key: style[key] for key in style if key != "linewidth"}
            )
        ax.axhline(WITHIN, color="0.5", linestyle="--", linewidth=0.8)
        kind = "separable" if measured["separable"] else f"condition number {measured['condition']:,.0f}"
        ax.set(title=f"{name}: n = {measured['n']}, d = {measured['d']}\n{kind}", xscale="log", yscale="log")
        ax.set(xlabel="steps", ylim=(FLOOR / 2, 1))
    for ax in axes.flat[len(data) :]:
        ax.axis("off")
    for ax in axes[:, 0]:
        ax.set_ylabel("objective above infimum")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    spare = axes.flat[len(data)] if len(data) < axes.size else axes.flat[0]
    spare.legend(handles, labels, loc="center" if len(data) < axes.size else "lower left", frameon=False)
    machine = results["environment"]
    caption(
        figure,
        "Steps from 1 on, the start; a dot is the end of a run: the gradient below 1e-8, the classes separated, or the "
        f"last step allowed. Dashed: {WITHIN:g}. {machine['cpu']}, {machine['date'][:10]}.",
    )
    figure.savefig(path)
    print(f"Drew {path}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The data set that scikit-learn does not bring."""
    parser.add_argument(
        "--a9a", type=Path, help="path of the a9a data set in the format of LIBSVM; left out if not given"
    )


def main() -> None:
    """Run, write, draw."""
    args = parse_arguments("gdnp", __doc__, add_arguments)
    results = {"environment": environment(), "quick": args.quick, "data": {}}
    with threads(1):
        for name, (X, y) in data_sets(args.quick, args.a9a).items():
            n_steps = 200 if args.quick else 2000 if name == "a9a" else 10000
            results["data"][name] = measure(X, y, n_steps, 1 if args.quick else REPEATS)
            print(targets({name: results["data"][name]})[0], flush=True)
    results["targets"] = [] if args.quick else targets(results["data"])
    draw(write_json(args.json, results), args.png)


if __name__ == "__main__":
    main()
