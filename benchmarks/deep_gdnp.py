"""Does batch normalization help networks of six hidden layers, and is it because layers depend less on each other?

The last experiment of arXiv 1805.10694 goes beyond what is proved there: several layers, inputs that are not Gaussian.
Gradient descent on the full batch, ten classes, cross-entropy: with a GDNP step for the direction of every unit, with
plain batch normalization, and without it, from the same function and from the usual start. Every method takes the best
of its step sizes, that which comes to a training loss of 0.5 in the fewest steps with the first seed. How far layers
depend on each other is read off the Hessian: Frobenius norms of its blocks d^2 loss / dW_4 dW_i. Digits; with --data
instead CIFAR-10, gray images of 16 × 16 pixels, from a zip file or a folder of train/CLASS/*.jpg (needs Pillow).
"""

import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.harness import caption, environment, median_of, parse_arguments, pyplot, target, threads, write_json
from benchmarks.images import first_training_images
from convexbn.gradient import DivergenceError
from convexbn.gradient.gdnp import MultilayerNetwork, train_multilayer

N_SAMPLES, N_PROBES = 1000, 10
DEPTH, WIDTH, CENTRAL = 6, 50, 4  # CENTRAL is the layer whose blocks are drawn, the first being 1
SEEDS = (0, 1, 2)
RATES = {"tanh": (0.1, 0.3, 1.0, 3.0), "sigmoid": (0.3, 1.0, 3.0, 10.0)}  # the best ones are inside
DIRECTION_RATES = {"tanh": (0.01, 0.03, 0.1, 0.3), "sigmoid": (0.003, 0.01, 0.03, 0.1)}
N_STEPS = {"tanh": 200, "sigmoid": 300}
BLOCK_STEPS = (0, 10, 30, 100)  # and the last one
LOSS = 0.5  # to which steps are counted
SPLIT, PLAIN, SAME, USUAL = "BN, directions by GDNP", "BN", "no BN, same start", "no BN, usual start"
COLORS = {SPLIT: "black", PLAIN: "C0", SAME: "C1", USUAL: "C3"}
OTHERS = [layer for layer in range(DEPTH + 1) if layer != CENTRAL - 1]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images of 8 × 8 pixels and their classes, in random order."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))[:N_SAMPLES]
    return X[order], y[order]


def cifar(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Gray images of 16 × 16 pixels, means of 4 pixels in 3 colours each, and their classes, in turn."""
    images = first_training_images(path, N_SAMPLES)
    return images.X.reshape(-1, 3, 16, 2, 16, 2).mean(axis=(1, 3, 5)).reshape(len(images.X), -1), images.classes


def standardised(X: np.ndarray) -> np.ndarray:
    """Pixels of mean zero and variance one, without those that are constant."""
    X = X[:, X.std(axis=0) > 0]
    return (X - X.mean(axis=0)) / X.std(axis=0)


def starts(X: np.ndarray, activation: str, seed: int) -> dict[str, MultilayerNetwork]:
    """Where every method starts; all but the last are the same function."""
    options = {"depth": DEPTH, "width": WIDTH, "activation": activation, "random_state": seed}
    usual = MultilayerNetwork.at_initialization(X.shape[1], 10, normalized=False, **options)
    normalized = MultilayerNetwork.at_initialization(X.shape[1], 10, **options)
    same = normalized.without_normalization(X)
    return {SPLIT: normalized, PLAIN: normalized, SAME: same, USUAL: usual}


def run(X, y, start, n_steps: int, block_steps: tuple, options: dict) -> dict:
    """Training loss at every step, infinite after a divergence; networks at some steps; CPU seconds a step."""
    networks, found = {}, np.full(n_steps + 1, np.inf)

    def keep(step, network):
        if step in block_steps:
            networks[step] = network

    begun = time.process_time()
    try:
        trace = train_multilayer(X, y, start, n_steps=n_steps, callback=keep, **options)[1]
    except DivergenceError as error:
        trace = error.trace
    found[: len(trace)] = np.nan_to_num(trace.objective, nan=np.inf)
    return {
        "losses": found, "networks": list(networks.values()), "seconds": (time.process_time() - begun) / n_steps
    }  # fmt: skip


def best(tried: list[dict]) -> int:
    """Which run came to LOSS soonest, or else to the least loss; one that diverged is the last."""
    order = [
        (steps_to(found["losses"]), found["losses"].min()) if np.isfinite(found["losses"]).all() else (np.inf, np.inf)
        for found in tried
    ]
    return order.index(min(order))


def try_options(X, y, networks: list, n_steps: int, block_steps: tuple, options: list[dict]) -> dict:
    """The options that are best for the first network, on all of them.

    Losses (seeds, steps), norms of Hessian blocks (seeds, block steps, layers, layers).
    """
    tried = [run(X, y, networks[0], n_steps, block_steps, option) for option in options]
    chosen = best(tried)
    runs = [tried[chosen]] + [run(X, y, start, n_steps, block_steps, options[chosen]) for start in networks[1:]]
    return {
        "tried": [
            option | {"steps": steps_to(found["losses"]), "least_loss": found["losses"].min()}
            for option, found in zip(options, tried, strict=True)
        ],
        "chosen": options[chosen],
        "losses": [found["losses"] for found in runs],
        "blocks": [[network.block_norms(X, y, n_probes=N_PROBES) for network in found["networks"]] for found in runs],
        "seconds_a_step": float(np.mean([found["seconds"] for found in runs])),
    }


def measure(X: np.ndarray, y: np.ndarray, activation: str, quick: bool) -> dict:
    """Every method with the best of its step sizes."""
    n_steps, seeds, n_rates = (2, SEEDS[:1], 2) if quick else (N_STEPS[activation], SEEDS, None)
    block_steps = (*(step for step in BLOCK_STEPS if step < n_steps), n_steps)
    rates = [{"learning_rate": rate} for rate in RATES[activation][:n_rates]]
    begun = [starts(X, activation, seed) for seed in seeds]
    methods: dict[str, dict] = {}
    for method in (PLAIN, SPLIT, SAME, USUAL):
        options = rates
        if method == SPLIT:  # lengths, shifts and outputs take the steps that are best for plain BN
            options = [
                methods[PLAIN]["chosen"] | {"direction_rate": rate} for rate in DIRECTION_RATES[activation][:n_rates]
            ]
        networks = [start[method] for start in begun]
        methods[method] = try_options(X, y, networks, n_steps, block_steps, options)
        print(activation, method, *methods[method]["tried"], sep="\n    ", flush=True)
    return {"n_steps": n_steps, "block_steps": block_steps, "methods": {method: methods[method] for method in COLORS}}


def steps_to(losses) -> float:
    """Steps until a loss was first at most LOSS; infinite if it never was."""
    reached = np.array(losses, dtype=float) <= LOSS
    return float(reached.argmax()) if reached.any() else np.inf


def median_steps(run: dict) -> float:
    """Median over the seeds."""
    return median_of([steps_to(losses) for losses in run["losses"]])


def cross_norms(run: dict) -> np.ndarray:
    """Norms (seeds, block steps, layers) of the blocks of the central layer with the others."""
    return np.array(run["blocks"], dtype=float)[:, :, CENTRAL - 1, OTHERS]


def couplings(run: dict) -> np.ndarray:
    """The same over the geometric mean of the norms of both layers' own blocks, so that no scale of weights matters."""
    blocks = np.array(run["blocks"], dtype=float)
    own = np.diagonal(blocks, axis1=2, axis2=3)
    return cross_norms(run) / np.sqrt(own[:, :, [CENTRAL - 1]] * own[:, :, OTHERS])


def total(norms: np.ndarray) -> np.ndarray:
    """Norms (seeds, block steps) of all cross blocks together."""
    return np.sqrt((norms**2).sum(axis=2))


def typical(values: np.ndarray) -> float:
    """Geometric mean over seeds, and over what else there is."""
    return float(np.exp(np.mean(np.log(values))))


def counted_steps(run: dict) -> str:
    """Median of the steps to LOSS, and their CPU seconds, in words."""
    steps = median_steps(run)
    return (
        f"{steps:g} ({steps * run['seconds_a_step']:.2g} s)"
        if np.isfinite(steps)
        else f"not in {len(run['losses'][0]) - 1}"
    )


def targets(name: str, activation: str, measured: dict) -> list[dict]:
    """Rows of the summary, for networks of one activation."""
    runs, where = measured["methods"], f"{name}, six hidden layers, {activation}"
    rows = [
        target(
            f"{where}: {ours} comes to a training loss of {LOSS:g} in fewer steps than {' and '.join(others)}",
            f"{counted_steps(runs[ours])} against {' and '.join(counted_steps(runs[other]) for other in others)}",
            median_steps(runs[ours]) < min(median_steps(runs[other]) for other in others),
        )
        for ours, others in ((PLAIN, (SAME,)), (PLAIN, (USUAL,)), (SPLIT, (PLAIN,)), (SPLIT, (SAME, USUAL)))
    ]
    for what, norm in (("smaller", total_cross), ("smaller relative to the layers' own blocks", typical_coupling)):
        found = {method: norm(run) for method, run in runs.items()}
        rows.append(
            target(
                f"{where}: after the start, the Hessian's cross blocks of layer 4 with the others are {what} with BN "
                "than without, from either start",
                "; ".join(f"{method} {value:.3g}" for method, value in found.items()),
                found[PLAIN] < min(found[SAME], found[USUAL]),
            )
        )
    curves = {method: np.array(run["losses"], dtype=float) for method, run in runs.items()}
    rises = {method: np.mean(curve[:, 1:] > curve[:, :-1]) for method, curve in curves.items()}
    rows.append(
        target(
            f"{where}: steps on which the loss rises, and CPU milliseconds a step",
            "; ".join(
                f"{method} {100 * rises[method]:.0f} %, {1e3 * run['seconds_a_step']:.0f} ms"
                for method, run in runs.items()
            ),
            None,
        )
    )
    return rows


def total_cross(run: dict) -> float:
    """Norm of all cross blocks of the central layer, after the start."""
    return typical(total(cross_norms(run)[:, 1:]))


def typical_coupling(run: dict) -> float:
    """Relative norm of a cross block of the central layer, after the start."""
    return typical(couplings(run)[:, 1:])


def draw_row(axes, activation: str, measured: dict) -> None:
    """Loss over steps; cross blocks layer by layer, along training, and relative to the layers' own."""
    from matplotlib.ticker import NullLocator

    layers = np.array(OTHERS) + 1
    steps = np.array(measured["block_steps"])
    for method, run in measured["methods"].items():
        style = {"color": COLORS[method], "label": method, "zorder": 3 if method == SPLIT else 2}
        curves = np.array(run["losses"], dtype=float)
        axes[0].plot(np.median(curves, axis=0), **style)
        axes[0].fill_between(
            range(curves.shape[1]),
            curves.min(axis=0),
            curves.max(axis=0),
            color=COLORS[method],
            alpha=0.15,
            linewidth=0,
        )
        norms = cross_norms(run)
        profile = np.exp(np.log(norms[:, 1:]).mean(axis=(0, 1)))
        axes[1].plot(layers, profile, ".-", **style)
        axes[2].plot(steps, np.exp(np.log(total(norms)).mean(axis=0)), ".-", **style)
        axes[3].plot(steps, np.exp(np.log(couplings(run)).mean(axis=(0, 2))), ".-", **style)
    axes[0].axhline(LOSS, color="0.5", linestyle="--", linewidth=0.8)
    axes[0].set(xlabel="step", ylabel="training loss", title=f"{activation}: loss")
    axes[1].set(xlabel="layer i", ylabel="norm of d²loss / dW4 dWi", title=f"{activation}: layer 4 depends on layer i")
    axes[1].set_xticks(layers, [*(str(layer) for layer in layers[:-1]), "output"])
    axes[2].set(ylabel="norm of all blocks i", title=f"{activation}: layer 4 depends on all others")
    axes[3].set(ylabel="cross / own blocks", title=f"{activation}: the same, relative to own blocks")
    for ax in axes[:3]:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
    axes[3].set_ylim(0, None)
    for ax in axes[2:]:
        ax.set_xscale("symlog", linthresh=10)
        ax.set(xlabel="step", xlim=(-1, 1.2 * steps[-1]))
        ax.set_xticks(steps, steps)
        ax.xaxis.set_minor_locator(NullLocator())


def draw(results: dict, path: Path) -> None:
    """One row of panels an activation."""
    plt = pyplot()
    ((name, data),) = results["data"].items()
    networks = data["activations"]
    figure, axes = plt.subplots(
        len(networks), 4, figsize=(17, 3.9 * len(networks) + 1), layout="constrained", squeeze=False
    )
    for row, (activation, measured) in zip(axes, networks.items(), strict=True):
        draw_row(row, activation, measured)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    machine = results["environment"]
    caption(
        figure,
        f"{name}: {data['n']} images of {data['d']} pixels, {DEPTH} hidden layers of {WIDTH} units, gradient descent "
        "on the full batch, each method with the best of its step sizes. Loss: median and range of the seeds; "
        f"dashed: {LOSS:g}. Blocks "
        "d²loss / dW4 dWi say how far the gradient of layer 4 changes with the weights of layer i: geometric means "
        "over seeds, in the second column over training after the start too; relative: over the geometric mean of the "
        f"own blocks of both layers, mean over i. Same start: the function that BN starts from. {machine['cpu']}, "
        f"{machine['date'][:10]}.",
    )
    figure.savefig(path)
    print(f"Drew {path}")


def main() -> None:
    """Run, write, draw."""
    args = parse_arguments(
        "deep_gdnp", __doc__, lambda parser: parser.add_argument("--data", type=Path, help="zip or folder of CIFAR-10")
    )
    name, (X, y) = ("CIFAR-10", cifar(args.data)) if args.data else ("digits", digits())
    X = standardised(X)
    results = {"environment": environment(), "quick": args.quick}
    with threads(1):
        networks = {
            activation: measure(X, y, activation, args.quick) for activation in list(RATES)[: 1 if args.quick else None]
        }
    results["data"] = {name: {"n": len(X), "d": X.shape[1], "seeds": SEEDS, "activations": networks}}
    rows = [] if args.quick else [row for network in networks.items() for row in targets(name, *network)]
    draw(write_json(args.json, results | {"targets": rows}), args.png)


if __name__ == "__main__":
    main()
