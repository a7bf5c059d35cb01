"""Does weight normalization make gradient descent on a two-layer ReLU network faster, and how wide must the network be
for the rate to be that of infinitely many neurons?

Squared loss, gradient descent on the full batch, targets -1 and 1, to a mean squared training error of 1e-3. Weight
normalization starts from directions of scale alpha: short ones (alpha = 0.1) lead, V-dominated, or lengths do (alpha =
10, G-dominated); without it, gradient descent is on the weights themselves. All start as the same function. The step
size is the inverse of the largest eigenvalue of the Gram matrix of infinitely many neurons, the same rule for all, or
the best of a grid of multiples of it. The eigenvalues also predict the steps: an error shrinks by 1 - its eigenvalue /
the largest.
"""

import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.harness import (
    caption,
    environment,
    parse_arguments,
    pyplot,
    seconds_text,
    target,
    threads,
    write_json,
)
from convexbn.gradient import DivergenceError
from convexbn.gradient.weight_norm import GramMatrices, limit_gram_matrices, train_weight_norm, weight_norm_start

ERROR = 1e-3  # mean squared training error that ends the count
N, D = 30, 20
DIRECTIONS, LENGTHS, WITHOUT = "directions lead", "lengths lead", "without"
METHODS = {
    DIRECTIONS: {"alpha": 0.1},
    LENGTHS: {"alpha": 10.0},
    WITHOUT: {"alpha": 1.0, "normalized": False},  # its Gram matrix is that of normalization with alpha = 1
}
WIDTH, WIDTHS = 800, (50, 100, 200, 400, 800, 1600, 3200)
MULTIPLES = 2.0 ** (np.arange(-2, 17) / 4)  # of the step of the rule; linear theory diverges above 2
AS_PREDICTED = 0.1  # relative difference of steps
FASTER = 0.9  # of the steps or seconds without normalization, at most, is faster
SLACK = 3  # steps that a run may take, over those predicted


def data_sets(quick: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Inputs of a length of about one, and targets -1 and 1: at random, and odd against even digits."""
    n = 10 if quick else N
    rng = np.random.default_rng(0)
    gaussian, sphere = rng.standard_normal((2, n, D))
    images, digit = load_digits(return_X_y=True)
    chosen = rng.permutation(len(digit))[:n]
    random = rng.choice([-1.0, 1.0], size=n)
    return {
        "Gaussian": (gaussian / np.sqrt(D), random),
        "sphere": (sphere / np.linalg.norm(sphere, axis=1, keepdims=True), random),
        "digits": (
            images[chosen] / np.linalg.norm(images[chosen], axis=1, keepdims=True),
            np.where(digit[chosen] % 2, 1.0, -1.0),
        ),
    }


def limit(X: np.ndarray) -> GramMatrices:
    """The Gram matrices of infinitely many neurons: entries grow with the lengths of both inputs."""
    lengths = np.linalg.norm(X, axis=1)
    unit = limit_gram_matrices(X / lengths[:, None])
    V, G, H = (matrix * np.outer(lengths, lengths) for matrix in (unit.V, unit.G, unit.H))
    return GramMatrices(V, G, H)


def predicted_steps(kernel: np.ndarray, residual: np.ndarray) -> int:
    """Steps to ERROR if the outputs follow this kernel, with the step size 1 / its largest eigenvalue."""
    eigenvalues, vectors = np.linalg.eigh(kernel)
    shrink, parts = 1 - eigenvalues / eigenvalues[-1], vectors.T @ residual
    few, many = 0, 1
    while np.mean((shrink**many * parts) ** 2) > ERROR:
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if np.mean((shrink**middle * parts) ** 2) > ERROR else (few, middle)
    return many


def run(X: np.ndarray, y: np.ndarray, method: str, rate: float, n_steps: int, width: int, seed: int) -> tuple:
    """Steps and seconds of the processor to ERROR, infinite if it takes more than `n_steps` or diverges."""
    start = time.process_time()
    try:
        trace = train_weight_norm(
            X, y, learning_rate=rate, n_neurons=width, n_steps=n_steps, random_state=seed, **METHODS[method]
        )[1]
    except DivergenceError as error:
        trace = error.trace
    arrived = np.flatnonzero(2 * trace.objective / len(y) <= ERROR)
    if not len(arrived):
        return np.inf, np.inf
    return arrived[0], (time.process_time() - start) * arrived[0] / trace.steps[-1]


def measure_method(X: np.ndarray, y: np.ndarray, method: str, seeds: range, width: int, widths: tuple) -> dict:
    """One method on one data set: the grid of step sizes, and the rule's step size at all widths."""
    gram, alpha = limit(X), METHODS[method]["alpha"]
    rule, eigenvalues = gram.learning_rate(alpha), np.linalg.eigvalsh(gram.kernel(alpha))

    def predicted(n_neurons: int) -> np.ndarray:
        starts = [weight_norm_start(X.shape[1], n_neurons, alpha=alpha, random_state=seed) for seed in seeds]
        return np.array([predicted_steps(gram.kernel(alpha), start.predict(X)[:, 0] - y) for start in starts])

    def taken(multiple: float, n_neurons: int) -> np.ndarray:
        limits = SLACK * predicted(n_neurons)
        runs = [run(X, y, method, multiple * rule, limits[seed], n_neurons, seed) for seed in seeds]
        return np.array(runs, dtype=float)

    steps, seconds = np.median([taken(multiple, width) for multiple in MULTIPLES], axis=1).T
    best, equal = int(np.argmin(steps)), int(np.flatnonzero(MULTIPLES == 1)[0])
    ratios = [np.median(taken(1.0, n_neurons)[:, 0] / predicted(n_neurons)) for n_neurons in widths]
    return {
        "alpha": alpha,
        "rule": rule,
        "smallest_eigenvalue": eigenvalues[0],
        "condition": eigenvalues[-1] / eigenvalues[0],
        "predicted_steps": np.median(predicted(width)),
        "steps": steps[equal],
        "seconds": seconds[equal],
        "best_multiple": MULTIPLES[best],
        "best_steps": steps[best],
        "best_seconds": seconds[best],
        "steps_of_multiples": steps,
        "steps_over_predicted": ratios,
    }


def measure(X: np.ndarray, y: np.ndarray, quick: bool) -> dict:
    """All methods on one data set."""
    seeds = range(1 if quick else 3)
    width, widths = (WIDTHS[1], WIDTHS[:2]) if quick else (WIDTH, WIDTHS)
    sizes = {"n": len(X), "d": X.shape[1], "seeds": list(seeds), "width": width, "widths": widths}
    methods = {}
    for method in METHODS:
        methods[method] = measure_method(X, y, method, seeds, width, widths)
        print(f"{method}: {methods[method]}", flush=True)
    return sizes | {"multiples": MULTIPLES, "methods": methods}


def faster(normalized: float, without: float) -> bool:
    """Whether steps or seconds are fewer by more than chance; infinitely many are not."""
    return bool(np.isfinite(normalized) and normalized <= FASTER * without)


def text(row: dict, key: str = "") -> str:
    """Steps and seconds of a method at the step of the rule, or its best one ("best_")."""
    steps = row[f"{key}steps"]
    return f"{steps:.0f} ({seconds_text(row[f'{key}seconds'])})" if np.isfinite(steps) else "never"


def targets(name: str, measured: dict) -> list[dict]:
    """Rows of the summary."""
    rows = measured["methods"]
    directions, lengths, without = rows[DIRECTIONS], rows[LENGTHS], rows[WITHOUT]
    normalized = {DIRECTIONS: directions, LENGTHS: lengths}
    soonest = min(normalized, key=lambda method: normalized[method]["best_seconds"])
    deviation = {method: np.abs(np.array(row["steps_over_predicted"], dtype=float) - 1) for method, row in rows.items()}
    within = {method: bool(off[-1] <= AS_PREDICTED) for method, off in deviation.items()}
    first = {method: first_width(off, measured["widths"]) for method, off in deviation.items()}

    def fewer(row, label, key):
        figure = f"{text(row, key)}; without {text(without, key)}"
        if key:
            figure += f"; at {row['best_multiple']:.3g} and {without['best_multiple']:.3g} times that step"
        else:
            figure += (
                f"; condition numbers {row['condition']:.3g} and {without['condition']:.3g}, smallest eigenvalues "
                f"{row['smallest_eigenvalue']:.2g} and {without['smallest_eigenvalue']:.2g}"
            )
        step = "each one's best step" if key else "steps of 1 / largest eigenvalue"
        return target(
            f"{name}: weight normalization, {label}, takes {1 - FASTER:.0%} fewer steps to {ERROR:g} at {step}",
            figure,
            faster(row[f"{key}steps"], without[f"{key}steps"]),
        )

    return [
        *(fewer(row, method, key) for key in ("", "best_") for method, row in normalized.items()),
        target(
            f"{name}: weight normalization takes {1 - FASTER:.0%} fewer seconds at each one's best step",
            f"{seconds_text(normalized[soonest]['best_seconds'])} ({soonest}) against "
            f"{seconds_text(without['best_seconds'])}",
            faster(normalized[soonest]["best_seconds"], without["best_seconds"]),
        ),
        target(
            f"{name}: {measured['widths'][-1]} neurons take the steps of infinitely many, within {AS_PREDICTED:.0%}",
            ", ".join(f"{method}: {width_text(first[method])}" for method in rows),
            all(within.values()),
        ),
    ]


def first_width(deviation: np.ndarray, widths: list) -> int | None:
    """The width from which on all deviations are small."""
    large = np.flatnonzero(~(deviation <= AS_PREDICTED))
    first = large[-1] + 1 if len(large) else 0
    return widths[first] if first < len(widths) else None


def width_text(width: int | None) -> str:
    """A width in words."""
    return "at no width tried" if width is None else f"from {width} on"


COLORS = {DIRECTIONS: "C0", LENGTHS: "C2", WITHOUT: "black"}
BARS = {  # of steps: label and colour
    "predicted_steps": ("predicted by the eigenvalues", "0.75"),
    "steps": ("step size 1 / largest eigenvalue", "C1"),
    "best_steps": ("best step size", "C4"),
}


def draw_bars(ax, methods: dict) -> None:
    """Steps of each method: predicted, at the step of the rule, at the best step."""
    for i, (key, (label, color)) in enumerate(BARS.items()):
        heights = [np.nan if row[key] is None else row[key] for row in methods.values()]
        bars = ax.bar(np.arange(len(methods)) + 0.27 * (i - 1), heights, 0.25, color=color, label=label)
        ax.bar_label(bars, fmt="%.0f", fontsize=8)
    names = [
        f"{method}\nleast eigenvalue {row['smallest_eigenvalue']:.2g}\ncondition {row['condition']:.3g}"
        for method, row in methods.items()
    ]
    ax.set_xticks(range(len(methods)), names, fontsize=8)
    ax.grid(visible=False, axis="x")
    ax.set(yscale="log", ylabel=f"steps to an error of {ERROR:g}")
    ax.set_ylim(1, 8 * max(row["predicted_steps"] for row in methods.values()))


def draw(results: dict, path: Path) -> None:
    """A row of pictures a data set: steps over step sizes, steps beside the predicted ones, steps over width."""
    plt = pyplot()
    data = results["data"]
    figure, axes = plt.subplots(len(data), 3, figsize=(15, 4 * len(data)), layout="constrained", squeeze=False)
    for (by_rate, bars, by_width), (name, measured) in zip(axes, data.items(), strict=True):
        for method, row in measured["methods"].items():
            label = method if method == WITHOUT else f"{method} (alpha = {row['alpha']:g})"
            style = {"marker": ".", "color": COLORS[method], "label": label}
            by_rate.plot(MULTIPLES, np.array(row["steps_of_multiples"], dtype=float), **style)
            by_width.plot(measured["widths"], np.array(row["steps_over_predicted"], dtype=float), **style)
        draw_bars(bars, measured["methods"])
        by_rate.axvline(2, color="0.5", linestyle=":")
        by_rate.set(xscale="log", yscale="log", xlim=(MULTIPLES[0] / 1.1, 1.1 * MULTIPLES[-1]))
        by_rate.set(xlabel="step size, in multiples of 1 / largest eigenvalue", ylabel=bars.get_ylabel())
        by_rate.set_xticks([1, 2, 4, 8, 16], [1, 2, 4, 8, 16])
        by_width.axhspan(1 - AS_PREDICTED, 1 + AS_PREDICTED, color="0.9", zorder=0)
        by_width.set(xscale="log", xlabel="neurons", ylabel="steps / predicted steps", ylim=(0.6, SLACK))
        by_width.set_xticks(measured["widths"], measured["widths"])
        for ax, title in ((by_rate, "which step size?"), (bars, "how many steps?"), (by_width, "how wide?")):
            ax.set_title(f"{name}: {title}")
            ax.xaxis.set_minor_formatter("")
    axes[0, 0].legend(fontsize="small", title="weight normalization")
    axes[0, 1].legend(fontsize="small", loc="upper left")
    machine = results["environment"]
    caption(
        figure,
        f"Two-layer ReLU networks of {WIDTH} neurons (left, middle), gradient descent, {N} samples, medians of three "
        f"starts. No marker: more than {SLACK} times the predicted steps, or divergence. Dotted: beyond it, gradient "
        "descent on a quadratic diverges. Eigenvalues and predictions are those of infinitely many neurons; grey is "
        f"within {AS_PREDICTED:.0%} of them. {machine['cpu']}, {machine['date'][:10]}.",
    )
    figure.savefig(path)
    print(f"Drew {path}")


def main() -> None:
    """Run, write, draw."""
    args = parse_arguments("weight_norm", __doc__)
    results = {"environment": environment(), "quick": args.quick, "data": {}}
    with threads(1):
        for name, (X, y) in data_sets(args.quick).items():
            results["data"][name] = measure(X, y, args.quick)
    rows = [] if args.quick else [row for name, measured in results["data"].items() for row in targets(name, measured)]
    draw(write_json(args.json, results | {"targets": rows}), args.png)


if __name__ == "__main__":
    main()
