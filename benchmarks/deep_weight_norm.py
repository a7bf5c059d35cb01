"""How do curvature, convergence and generalisation of weight-normalized networks go with width, depth and row norm, and
how much do the theorems' step size and generalisation bound leave to be had?

Two classes of images, labels -1 and 1, squared loss, gradient descent on the full batch; every network is also trained
without weight normalization from the same function. Digits, odd against even; with --data also airplanes against
automobiles of CIFAR-10, from a zip file of train/<class>/<number>.jpg (needs Pillow). The generalisation gap is read
off where the training loss is the same for all. Bound and step size are those of weight-normalized networks: the bound
beside the gap of the networks trained to that loss, predictions clipped to [-1, 1]; the step beside the largest ones
with which the loss falls at every step, and with which it has fallen in the end.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.harness import (
    caption,
    environment,
    faster_threads,
    parse_arguments,
    pyplot,
    target,
    threads,
    write_json,
)
from convexbn.gradient.deep_weight_norm import (
    SmoothNetwork,
    generalization_bound,
    largest_stable_rate,
    train_deep_weight_norm,
)

CLASSES = ("airplane", "automobile")
N_TRAIN, N_TEST, N_SAMPLES = 200, 800, 3
N_QUICK = 80  # samples of a smoke run, half of them for training
WIDTHS, DEPTHS, ROW_NORMS = (16, 32, 64, 128, 256), (1, 2, 4, 6), (0.1, 0.3, 1.0, 3.0, 10.0)
WIDTH, DEPTH = 64, 3  # where the other one varies
GAP_LOSS, GAP_STEPS = 0.05, (100, 500, 2000)  # training loss at which gaps are compared; steps to it, more if need be
ZERO_LOSS = 0.5  # of the prediction 0
N_THEOREM_SAMPLES = 10  # of the Hessians in the theorem's smoothness
STABLE_STEPS, THEOREM_STEPS = 100, 500  # of the runs that find the largest rate, and of that with the theorem's
KINDS = {"with": {}, "without": {"normalized": False}, "without, rows doubled": {"normalized": False, "row_norm": 2.0}}


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images of 8 × 8 pixels and labels, in random order."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))[: N_TRAIN + N_TEST]
    return X[order], np.where(y[order] % 2, 1.0, -1.0)


def cifar(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images of 8 × 8 pixels in colour, means of 16 pixels each, and labels, the classes alternating."""
    from PIL import Image

    def read(archive, name, number):
        image = Image.open(io.BytesIO(archive.read(f"train/{name}/{number:04d}.jpg"))).convert("RGB")
        return np.asarray(image, dtype=float).reshape(8, 4, 8, 4, 3).mean(axis=(1, 3)).ravel()

    with zipfile.ZipFile(path) as archive:
        X = [read(archive, name, number) for number in range((N_TRAIN + N_TEST) // 2) for name in CLASSES]
    return np.array(X), np.tile([-1.0, 1.0], len(X) // 2)


def split(X: np.ndarray, y: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Centre with the mean of the training data, scale samples to norm sqrt(d), split."""
    n_train = min(N_TRAIN, len(X) // 2)
    X = X - X[:n_train].mean(axis=0)
    X *= np.sqrt(X.shape[1]) / np.linalg.norm(X, axis=1, keepdims=True)
    return (X[:n_train], y[:n_train]), (X[n_train:], y[n_train:])


def curvature(X: np.ndarray, seeds: range, widths: tuple, depths: tuple, row_norms: tuple) -> dict:
    """Norm of the predictor's Hessian at the start, averaged over seeds: against width, depth and row norm."""

    def mean_of(hidden_only=False, **options):
        starts = [SmoothNetwork.at_initialization(X.shape[1], random_state=seed, **options) for seed in seeds]
        return float(
            np.mean([start.predictor_hessian_norm(X[:N_SAMPLES], hidden_only=hidden_only) for start in starts])
        )

    rows = {"depth": DEPTH, "width": WIDTH}
    return {
        "width": {kind: [mean_of(depth=DEPTH, width=m, **KINDS[kind]) for m in widths] for kind in KINDS},
        "depth": {kind: [mean_of(depth=depth, width=WIDTH, **KINDS[kind]) for depth in depths] for kind in KINDS},
        "row_norm": {
            "all weights": [mean_of(row_norm=norm, **rows) for norm in row_norms],
            "hidden weights": [mean_of(row_norm=norm, hidden_only=True, **rows) for norm in row_norms],
        },
    }


def along_training(train, test, n_steps: int) -> dict:
    """One run with, one without weight normalization, and everything that is watched."""
    runs = {}
    for kind in ("with", "without"):
        start = SmoothNetwork.at_initialization(
            train[0].shape[1], depth=DEPTH, width=WIDTH, random_state=0, **KINDS[kind]
        )
        rate = 0.2 / start.loss_hessian_norm(*train)  # the loss's Hessian grows along training
        trace = train_deep_weight_norm(
            *train, start, learning_rate=rate, n_steps=n_steps, noted_steps=np.linspace(0, n_steps, 13).astype(int),
            test=test, n_hessian_samples=N_SAMPLES,
        )[1]  # fmt: skip
        runs[kind] = {
            "learning_rate": rate, "steps": trace.steps, "train_loss": trace.objective, **trace.watched
        }  # fmt: skip
    return runs


def slopes(steps, losses) -> np.ndarray:
    """Slopes of log loss, a step, over the second and over the last quarter of training.

    They are equal where the loss falls geometrically; where it falls like a power of the step, the second is
    log(4 / 3) / log(2) = 0.42 of the first.
    """
    quarters = steps[-1] * np.arange(1, 5) / 4
    return np.diff(np.interp(quarters, steps, np.log(losses)))[[0, 2]] / quarters[0]


def descent(train, test, start: SmoothNetwork):
    """Learning rate and trace of a run in which the training loss falls to GAP_LOSS, or None if it does not."""
    rate = 0.5 / start.loss_hessian_norm(*train)
    for n_steps in GAP_STEPS:
        recorded = np.arange(0, n_steps + 1, 10)
        trace = train_deep_weight_norm(
            *train, start, learning_rate=rate, n_steps=n_steps, noted_steps=recorded, test=test, n_hessian_samples=0
        )[1]
        if trace.objective.min() <= GAP_LOSS:
            return rate, trace
    return None


def gap(train, test, seed: int, **options) -> float:
    """Test loss minus training loss, where the training loss falls to GAP_LOSS; infinity if it does not."""
    run = descent(train, test, SmoothNetwork.at_initialization(train[0].shape[1], random_state=seed, **options))
    if run is None:
        return np.inf
    trace = run[1]
    reached = slice(np.argmax(trace.objective <= GAP_LOSS) + 1)
    falling, test_loss = trace.objective[reached][::-1], trace["test_loss"][reached][::-1]
    return float(np.interp(np.log(GAP_LOSS), np.log(falling), test_loss)) - GAP_LOSS


def gaps(train, test, seeds: range, widths: tuple, depths: tuple) -> dict:
    """Gaps of all seeds, against width and depth, with and without weight normalization."""

    def of_all(kind, width, depth):
        found = [gap(train, test, seed, width=width, depth=depth, **KINDS[kind]) for seed in seeds]
        print(f"{kind}: width {width}, depth {depth}: gap {np.round(found, 4)}", flush=True)
        return found

    return {
        "width": {kind: [of_all(kind, width, DEPTH) for width in widths] for kind in KINDS},
        "depth": {kind: [of_all(kind, WIDTH, depth) for depth in depths] for kind in KINDS},
    }


def bound_and_gap(train, test, start: SmoothNetwork) -> dict:
    """The generalisation bound of a network trained to GAP_LOSS, and the gap that it bounds."""
    rate, trace = descent(train, test, start) or (None, None)
    if trace is None:
        return {"bound": np.inf, "bounded_gap": np.inf, "samples_needed": np.inf}
    n_steps = int(trace.steps[np.argmax(trace.objective <= GAP_LOSS)])
    network = train_deep_weight_norm(*train, start, learning_rate=rate, n_steps=n_steps, n_hessian_samples=0)[0]
    losses = [np.mean((np.clip(network.predict(X), -1, 1) - y) ** 2) / 2 for X, y in (train, test)]
    n, d = train[0].shape
    bound = generalization_bound(network, n, input_norm=np.sqrt(d))
    return {"bound": bound, "bounded_gap": losses[1] - losses[0], "samples_needed": n * (bound / ZERO_LOSS) ** 2}


def step_sizes(train, start: SmoothNetwork, quick: bool) -> dict:
    """The step that the theorem allows, whether the loss falls at each step with it, and the largest stable steps."""
    theorem_steps, stable_steps = (5, 5) if quick else (THEOREM_STEPS, STABLE_STEPS)
    allowed = 1 / start.smoothness_bound(*train, n_hessian_samples=N_THEOREM_SAMPLES)
    losses = train_deep_weight_norm(
        *train, start, learning_rate=allowed, n_steps=theorem_steps, noted_steps=np.arange(theorem_steps + 1),
        n_hessian_samples=0,
    )[1].objective  # fmt: skip
    return {
        "allowed": allowed,
        "descends": bool((np.diff(losses) < 0).all()),
        "falls_at_every_step": largest_stable_rate(*train, start, n_steps=stable_steps),
        "falls_in_the_end": largest_stable_rate(*train, start, n_steps=stable_steps, monotone=False),
    }


def theorems(train, test, widths: tuple, depths: tuple, quick: bool) -> dict:
    """Bound, gap and step sizes of weight-normalized networks from one start each, against width and depth."""

    def of_all(shapes):
        rows = []
        for width, depth in shapes:
            start = SmoothNetwork.at_initialization(train[0].shape[1], width=width, depth=depth, random_state=0)
            rows.append(bound_and_gap(train, test, start) | step_sizes(train, start, quick))
            print(f"width {width}, depth {depth}: {rows[-1]}", flush=True)
        return {key: [row[key] for row in rows] for key in rows[0]}

    return {
        "width": of_all([(width, DEPTH) for width in widths]),
        "depth": of_all([(WIDTH, depth) for depth in depths]),
    }


def measure(X: np.ndarray, y: np.ndarray, quick: bool) -> dict:
    """Everything on one data set."""
    train, test = split(X, y)
    first = 2 if quick else None
    seeds, widths, depths, row_norms = range(1 if quick else 2), WIDTHS[:first], DEPTHS[:first], ROW_NORMS[:first]
    gap_widths = widths[:4]
    return {
        "n_train": len(train[1]),
        "n_test": len(test[1]),
        "d": X.shape[1],
        "seeds": list(seeds),
        "widths": widths,
        "gap_widths": gap_widths,
        "depths": depths,
        "row_norms": row_norms,
        "curvature": curvature(train[0], seeds, widths, depths, row_norms),
        "training": along_training(train, test, 2 if quick else 1000),
        "gaps": gaps(train, test, seeds, gap_widths, depths),
        "theorems": theorems(train, test, gap_widths, depths, quick),
    }


def exponent(x, y) -> float:
    """Slope of log y over log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def listed(values, form: str) -> str:
    """Numbers in a sentence."""
    return ", ".join(format(value, form) for value in values)


def theorem_targets(name: str, measured: dict) -> list[dict]:
    """Rows of the summary on the generalisation bound and the step size of the theorems."""
    widths, depths = np.array(measured["gap_widths"]), np.array(measured["depths"])
    by_width, by_depth = measured["theorems"]["width"], measured["theorems"]["depth"]
    both = {key: np.array(by_width[key] + by_depth[key], dtype=float) for key in by_width}
    bound, deep = np.array(by_width["bound"], dtype=float), np.array(by_depth["bound"], dtype=float)
    gap_range = f"{both['bounded_gap'].min():.2f} to {both['bounded_gap'].max():.2f}"
    shares = both["allowed"] / both["falls_at_every_step"]
    beyond = both["falls_in_the_end"] / both["falls_at_every_step"]
    return [
        target(
            f"{name}: the generalisation bounds of trained networks are not vacuous: below {ZERO_LOSS:g}, the loss of "
            "the prediction 0",
            f"{listed(bound, '.3g')} at widths {listed(widths, '')}; {listed(deep, '.3g')} at depths "
            f"{listed(depths, '')}; measured gaps {gap_range}; {both['samples_needed'].min():.0e} samples or more "
            f"would do, not {measured['n_train']}",
            bool((both["bound"] < ZERO_LOSS).all()),
        ),
        target(
            f"{name}: the bound is free of the width, and grows with depth at most like sqrt(L), where layers keep "
            "their magnitude",
            f"like m^{exponent(widths, bound):.2f}; {deep[-1] / deep[0]:.2g} times from L = {depths[0]} to "
            f"{depths[-1]}",
            bool(bound[-1] < 1.1 * bound[0] and (deep <= 1.1 * deep[0] * np.sqrt(depths)).all()),
        ),
        target(
            f"{name}: with the learning rate of the convergence theorem, 1 / (rho^2 + h sqrt(2 loss)) at the start, "
            f"the loss falls at each of {THEOREM_STEPS} steps",
            f"in {int(both['descends'].sum())} of {len(both['descends'])} networks",
            bool(both["descends"].all()),
        ),
        target(
            f"{name}: that rate is at least half the largest one with which the loss falls at each of {STABLE_STEPS} "
            "steps",
            f"{shares.min():.2f} to {shares.max():.2f} of it; rates {beyond.min():.1f} to {beyond.max():.1f} times the "
            "largest still end below the start",
            bool((shares >= 0.5).all()),
        ),
    ]


def targets(name: str, measured: dict) -> list[dict]:
    """Rows of the summary."""
    hessian, gaps_ = measured["curvature"], measured["gaps"]
    width = exponent(measured["widths"], hessian["width"]["with"])
    growth = np.array(hessian["depth"]["with"]) / hessian["depth"]["with"][0]
    rows = exponent(measured["row_norms"], hessian["row_norm"]["hidden weights"])
    run = measured["training"]["with"]
    early, late = slopes(run["steps"], run["train_loss"])
    ratios = run["rsc_ratio"]
    mean = {axis: {kind: np.mean(gaps_[axis][kind], axis=1) for kind in KINDS} for axis in gaps_}
    flat = mean["width"]["with"]
    deep = mean["depth"]["with"]
    others = mean["depth"]["without, rows doubled"]
    depths = np.array(measured["depths"])
    return [
        target(
            f"{name}: the predictor's Hessian falls like 1 / sqrt(m) with width m",
            f"like m^{width:.2f}",
            abs(width + 0.5) < 0.15,
        ),
        target(
            f"{name}: the predictor's Hessian grows with depth at most like L^3",
            f"{growth.max():.2f} times that of L = 1 at most, for L up to {depths[-1]}",
            bool((growth <= depths**3).all()),
        ),
        target(
            f"{name}: its block of hidden weights falls like the row norm squared",
            f"exponent {rows:.6f}",
            abs(rows + 2) < 1e-4,
        ),
        target(
            f"{name}: the loss falls geometrically: in the last quarter of training at 0.9 times the rate of the "
            "second, or more",
            f"log loss by {late:.3g} a step after {early:.3g}, {late / early:.2f} of it (a power of the step: 0.42)",
            bool(late < 0.9 * early < 0),
        ),
        target(
            f"{name}: the convexity ratio along training",
            f"{ratios[0]:.2g} at first, {ratios[len(ratios) // 4]:.2g} after a quarter, {ratios[-1]:.2g} at the end",
            None,
        ),
        target(
            f"{name}: the generalisation gap does not grow with width",
            f"{', '.join(f'{value:.3f}' for value in flat)} at widths {', '.join(map(str, measured['gap_widths']))}",
            bool(flat[-1] < 1.1 * flat[0] < np.inf),
        ),
        target(
            f"{name}: the generalisation gap grows with depth at most like sqrt(L)",
            f"{', '.join(f'{value:.3f}' for value in deep)} at depths {', '.join(map(str, depths))}; without, "
            f"from rows twice as long, {', '.join(f'{value:.3f}' for value in others)}",
            bool((deep <= deep[0] * np.sqrt(depths)).all() and np.isfinite(deep[0])),
        ),
        *theorem_targets(name, measured),
    ]


COLORS = {"with": "C0", "without": "C1", "without, rows doubled": "C3"}
STYLES = {"with": "-", "without": "--", "without, rows doubled": "-"}


def draw_curvature(axes, name: str, measured: dict) -> None:
    """The norm of the predictor's Hessian at the start, against width, depth and row norm."""
    hessian = measured["curvature"]
    for ax, x, axis in ((axes[0], "widths", "width"), (axes[1], "depths", "depth")):
        for kind in KINDS:
            ax.plot(measured[x], hessian[axis][kind], STYLES[kind], marker=".", color=COLORS[kind], label=kind)
    widths, depths = np.array(measured["widths"]), np.array(measured["depths"])
    first = hessian["width"]["with"][0]
    axes[0].plot(widths, first * (widths / widths[0]) ** -0.5, ":", color="0.5", label="m^(-1/2)")
    axes[1].plot(depths, hessian["depth"]["with"][0] * depths**3.0, ":", color="0.5", label="L^3")
    norms = np.array(measured["row_norms"])
    for label, color in (("all weights", "black"), ("hidden weights", "C0")):
        axes[2].plot(norms, hessian["row_norm"][label], ".-", color=color, label=label)
    axes[2].plot(norms, hessian["row_norm"]["hidden weights"][0] * (norms / norms[0]) ** -2.0, ":", color="0.5",
                 label="row norm^(-2)")  # fmt: skip
    labels = (f"width m (L = {DEPTH})", f"depth L (m = {WIDTH})", "norm of all rows / sqrt(entries)")
    for ax, xlabel in zip(axes, labels, strict=True):
        ax.set(xscale="log", yscale="log", xlabel=xlabel, title=f"{name}: Hessian of the predictor")
        ax.legend(fontsize="small", title=None if ax is axes[2] else "weight normalization")
    for ax, ticks in ((axes[0], widths), (axes[1], depths)):
        ax.set_xticks(ticks, ticks)
        ax.xaxis.set_minor_formatter("")


def draw_training(axes, name: str, measured: dict) -> None:
    """Loss and convexity ratio along training; gaps against width and depth."""
    for kind in ("with", "without"):
        run = measured["training"][kind]
        for key, color in (("train_loss", "black"), ("rsc_ratio", "C2")):
            axes[0].plot(run["steps"], run[key], STYLES[kind], color=color, label=f"{key.replace('_', ' ')}, {kind}")
    axes[0].set(yscale="log", xlabel="step", title=f"{name}: along training")
    axes[0].legend(fontsize="small")
    for ax, x, axis, symbol in ((axes[1], "gap_widths", "width", "m"), (axes[2], "depths", "depth", "L")):
        for kind in KINDS:
            values = np.array(measured["gaps"][axis][kind], dtype=float)
            ax.plot(measured[x], values.mean(axis=1), STYLES[kind], marker=".", color=COLORS[kind], label=kind)
        ax.set(xlabel=f"{axis} {symbol}", title=f"{name}: test - training loss", ylim=(0, None))
        ax.legend(fontsize="small", title="weight normalization")
        ax.set_xticks(measured[x], measured[x])
    axes[1].set_xscale("log")
    axes[1].set_xticks(measured["gap_widths"], measured["gap_widths"])
    axes[1].xaxis.set_minor_formatter("")


def draw_theorems(axes, name: str, measured: dict) -> None:
    """The generalisation bound beside the gap, and the theorem's step beside the largest stable ones."""
    lines = (
        ("bound", "proved bound (95 %)", "C3", "-"),
        ("bounded_gap", "measured", "C0", "-"),
        ("falls_in_the_end", f"largest after which the loss is lower ({STABLE_STEPS} steps)", "C2", "--"),
        ("falls_at_every_step", "largest with which it falls at every step", "C0", "-"),
        ("allowed", "what the theorem allows", "C3", "-"),
    )
    for row, sizes, axis, label in (
        (0, "gap_widths", "width", f"width m (L = {DEPTH})"),
        (1, "depths", "depth", f"depth L (m = {WIDTH})"),
    ):
        found, (gap_axes, step_axes) = measured["theorems"][axis], axes[:, row]
        for ax, chosen in ((gap_axes, lines[:2]), (step_axes, lines[2:])):
            for key, text, color, style in chosen:
                ax.plot(measured[sizes], np.array(found[key], dtype=float), style, marker=".", color=color, label=text)
            ax.set(xscale="log", yscale="log", xlabel=label)
            ax.set_xticks(measured[sizes], measured[sizes])
            ax.xaxis.set_minor_formatter("")
        gap_axes.axhline(ZERO_LOSS, color="0.5", linestyle=":", label="loss of the prediction 0: vacuous above")
        gap_axes.set(title=f"{name}: test - training loss, clipped")
        step_axes.set(
            title=f"{name}: learning rates of gradient descent", ylim=(None, 4 * max(found["falls_in_the_end"]))
        )
        for ax in (gap_axes, step_axes):
            ax.legend(fontsize="small")


def draw(results: dict, path: Path) -> None:
    """Two columns of pictures a data set."""
    plt = pyplot()
    sets = results["data"]
    figure, axes = plt.subplots(5, 2 * len(sets), figsize=(9.5 * len(sets), 20), layout="constrained", squeeze=False)
    for i, (name, measured) in enumerate(sets.items()):
        own = axes[:, 2 * i : 2 * i + 2]
        first, second = own[:3].reshape(2, 3)
        draw_curvature(first, name, measured)
        draw_training(second, name, measured)
        draw_theorems(own[3:], name, measured)
    machine = results["environment"]
    caption(
        figure,
        f"Networks with and without weight normalization, tanh, {N_TRAIN} training and {N_TEST} test samples. Both "
        "start as the same function; that with doubled rows starts from weights twice as large, under which weight "
        f"normalization is invariant. Gaps where the training loss is {GAP_LOSS}; means of the seeds. Bounds and "
        f"rates are those of one start. {machine['cpu']}, {results['threads']} thread(s), {machine['date'][:10]}.",
    )
    figure.savefig(path)
    print(f"Drew {path}")


def main() -> None:
    """Run, write, draw."""
    args = parse_arguments(
        "deep_weight_norm", __doc__, lambda parser: parser.add_argument("--data", type=Path, help="zip of CIFAR-10")
    )
    sets = {"digits": digits()}
    if args.data:
        sets["CIFAR-10"] = cifar(args.data)
    if args.quick:
        sets = {name: (X[:N_QUICK], y[:N_QUICK]) for name, (X, y) in sets.items()}
    results = {"environment": environment(), "quick": args.quick}
    start = SmoothNetwork.at_initialization(sets["digits"][0].shape[1], depth=DEPTH, width=WIDTH, random_state=0)
    train = split(*sets["digits"])[0]
    pilot = (1, {}) if args.quick else faster_threads(lambda: start.loss_hessian_norm(*train))
    results["threads"], results["pilot_seconds"] = pilot
    with threads(results["threads"]):
        results["data"] = {name: measure(*data, args.quick) for name, data in sets.items()}
    rows = [] if args.quick else [row for name, measured in results["data"].items() for row in targets(name, measured)]
    draw(write_json(args.json, results | {"targets": rows}), args.png)


if __name__ == "__main__":
    main()
