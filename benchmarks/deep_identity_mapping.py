"""Do deep networks with identity links train and predict better than without, and what becomes of their layers' maps?

Networks of 4 to 56 layers, the first and the output layer included, with a link around every layer, around every second
layer, or vanilla: dense ones on digits and, with --data, convolutional ones on a subset of CIFAR-10 in 8 × 8 pixels,
from a zip file of train/<class>/<number>.jpg and test/ likewise (needs Pillow). No batch normalization and no biases.
Every kind, at every depth, has the same steps of SGD and the same learning rates to choose from, by the mean error on
validation images: on digits of all seeds, on CIFAR-10, where a run takes a minute, of seed 0. Runs are kept in
deep_identity_mapping_runs.json as they end, and a stopped benchmark goes on from there.
"""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.harness import caption, environment, parse_arguments, pyplot, target, threads, timed, write_json
from benchmarks.record import Record
from convexbn.gradient import DivergenceError
from convexbn.gradient.identity_mapping import LinkedNetwork, train_linked

EVERY, SECOND, VANILLA = "a link around every layer", "a link around every second layer", "vanilla"
KINDS = {EVERY: 1, SECOND: 2, VANILLA: 0}
DEPTHS = (4, 8, 16, 32, 56)
SEEDS = (0, 1, 2)
RATES = (0.003, 0.01, 0.03, 0.1)
BATCH = 32
N_RECORDS = 5  # along a run, the start included
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PER_CLASS = {"train": 200, "validation": 100, "test": 200}  # of CIFAR-10
DIGITS = {"train": 1000, "validation": 297, "test": 500}
NEAR_IDENTITY = 2.0  # singular values between a half and this are those of a map near the identity
SAME = 0.01  # share of training images; training errors that differ by no more are the same
GUESSING = 0.9  # error, of ten classes; that of a run that diverged

Samples = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Setting:
    """What is trained on a data set: its three parts, and the size of networks and runs."""

    parts: dict[str, Samples]
    network: dict[str, int]
    n_steps: int
    n_search: int  # seeds with which all learning rates are tried

    @property
    def n_inputs(self) -> int:
        """Features, or channels."""
        return self.parts["train"][0].shape[1]


def digits(n_steps: int = 1000) -> Setting:
    """Images of 8 × 8 pixels as vectors, in random order."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    ends = np.cumsum(list(DIGITS.values()))
    parts = {
        name: (X[order[end - size : end]], y[order[end - size : end]])
        for (name, size), end in zip(DIGITS.items(), ends, strict=True)
    }
    return Setting(standardised(parts), {"width": 32}, n_steps, 3)


def cifar(path: Path, n_steps: int = 600, per_class: dict[str, int] = PER_CLASS) -> Setting:
    """Images (3, 8, 8) in colour, means of 16 pixels each, the classes alternating; the first images of every class."""
    from PIL import Image

    def read(archive, name):
        image = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"), dtype=float)
        return image.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3)).transpose(2, 0, 1)

    first = {"train": 0, "validation": per_class["train"], "test": 0}
    with zipfile.ZipFile(path) as archive:
        parts = {}
        for part, size in per_class.items():
            folder = "test" if part == "test" else "train"
            numbers = range(first[part], first[part] + size)
            images = [read(archive, f"{folder}/{name}/{number:04d}.jpg") for number in numbers for name in CLASSES]
            parts[part] = np.array(images), np.tile(np.arange(len(CLASSES)), size)
    return Setting(standardised(parts), {"width": 8, "kernel_size": 3}, n_steps, 1)


def standardised(parts: dict[str, Samples]) -> dict[str, Samples]:
    """All parts centred with the mean image of the training part, and divided by its standard deviation."""
    X = parts["train"][0]
    mean, std = X.mean(axis=0), X.std()
    return {name: ((inputs - mean) / std, classes) for name, (inputs, classes) in parts.items()}


def trained(setting: Setting, link: int, depth: int, rate: float, seed: int, *, search: bool) -> dict:
    """One run: errors along it, and the extreme singular values of the maps, over all blocks and of each at the end.

    A run of the search for a rate is judged by the validation images, and recorded at its end only.
    """
    start = LinkedNetwork.at_initialization(
        setting.parts["train"][0].shape[1], 10, depth=depth, link=link, random_state=seed, **setting.network
    )
    n_steps = setting.n_steps
    steps = [n_steps] if search else np.linspace(0, n_steps, N_RECORDS).astype(int)
    judge = setting.parts["validation" if search else "test"]
    try:
        _, trace = train_linked(
            *setting.parts["train"], start, learning_rate=rate, n_steps=n_steps, batch_size=BATCH, noted_steps=steps,
            test=judge, dtype="float32", random_state=seed,
        )  # fmt: skip
    except DivergenceError as error:
        return {"diverged_at": error.trace.steps, "train_error": [GUESSING], "test_error": [GUESSING]}
    smallest, largest = trace["smallest_singular_value"], trace["largest_singular_value"]
    return {
        "steps": trace.steps,
        "train_loss": trace.objective,
        "train_error": trace["train_error"],
        "test_error": trace["test_error"],
        "smallest": smallest.min(axis=1),
        "largest": largest.max(axis=1),
        "smallest_at_end": smallest[-1],
        "largest_at_end": largest[-1],
    }


def measure(name: str, setting: Setting, depths: tuple, rates: tuple, seeds: tuple, record: Record) -> list[dict]:
    """Of every kind and depth: the rate that predicts best, and the runs with it; no run in the record is repeated."""

    def run(kind, depth, rate, seed, search):
        key = f"{name}/{depth} layers/{kind}/rate {rate}/seed {seed}/{'search' if search else 'run'}"
        if key not in record.read():
            seconds, result = timed(lambda: trained(setting, KINDS[kind], depth, rate, seed, search=search))
            record.add(key, {"seconds": seconds} | result)
            print(f"{key}: {seconds:.1f} s, test error {result['test_error'][-1]:.3f}", flush=True)
        return record.read()[key]

    measured = []
    for depth in depths:
        for kind in KINDS:
            search = [[run(kind, depth, rate, seed, True) for seed in seeds[: setting.n_search]] for rate in rates]
            validation_errors = [[entry["test_error"][-1] for entry in entries] for entries in search]
            rate = rates[int(np.argmin(np.mean(validation_errors, axis=1)))]
            runs = [run(kind, depth, rate, seed, False) for seed in seeds]
            measured.append(
                {
                    "kind": kind,
                    "depth": depth,
                    "rate": rate,
                    "seconds": sum(entry["seconds"] for entry in sum(search, runs)),
                    "validation_errors": validation_errors,
                    "train_errors": [entry["train_error"][-1] for entry in runs],
                    "test_errors": [entry["test_error"][-1] for entry in runs],
                    "runs": runs,
                }
            )
    return measured


def per_cent(errors: list[float]) -> str:
    """Errors of all seeds: the mean, and in brackets the least and the largest."""
    shares = 100 * np.array(errors)
    return f"{shares.mean():.1f} % ({shares.min():.1f} to {shares.max():.1f})"


def extremes(runs: list[dict]) -> str:
    """Least and largest singular value at the end of all runs."""
    ends = [(entry["smallest"][-1], entry["largest"][-1]) for entry in runs if "smallest" in entry]
    return f"{min(low for low, _ in ends):.3g} to {max(high for _, high in ends):.3g}" if ends else "diverged"


def targets(name: str, measured: list[dict]) -> list[dict]:
    """Rows of the summary; a kind is better where its worst seed is better than the best seed of the other."""
    of = {(entry["kind"], entry["depth"]): entry for entry in measured}
    depths = sorted({entry["depth"] for entry in measured})
    deepest = {kind: of[kind, depths[-1]] for kind in KINDS}

    def predicts_better(kind: str, other: str) -> dict:
        ours, theirs = deepest[kind]["test_errors"], deepest[other]["test_errors"]
        return target(
            f"{name}, {depths[-1]} layers: {kind} predicts better than {other}, with every seed",
            f"test error {per_cent(ours)} against {per_cent(theirs)}",
            bool(max(ours) < min(theirs)),
        )

    def trains_at_any_depth(kind: str) -> dict:
        errors = [np.mean(of[kind, depth]["train_errors"]) for depth in depths]
        return target(
            f"{name}, {kind}: {depths[-1]} layers train as well as {depths[0]}, up to {100 * SAME:.0f} % of the images",
            f"training error {', '.join(f'{100 * error:.1f}' for error in errors)} % at {', '.join(map(str, depths))}"
            " layers",
            bool(errors[-1] <= errors[0] + SAME),
        )

    runs = deepest[EVERY]["runs"]
    near = all("smallest" in one and one["smallest"][-1] > 1 / NEAR_IDENTITY for one in runs) and all(
        one["largest"][-1] < NEAR_IDENTITY for one in runs
    )
    return [
        predicts_better(EVERY, VANILLA),
        predicts_better(SECOND, VANILLA),
        predicts_better(SECOND, EVERY),
        *(trains_at_any_depth(kind) for kind in KINDS),
        target(
            f"{name}, {depths[-1]} layers, {EVERY}: after training all maps I + W have singular values between "
            f"{1 / NEAR_IDENTITY:g} and {NEAR_IDENTITY:g}",
            f"{extremes(runs)}; those of I + W' W around every second layer {extremes(deepest[SECOND]['runs'])}, of W "
            f"without links {extremes(deepest[VANILLA]['runs'])}",
            near,
        ),
    ]


STYLES = {EVERY: ("C0", "o"), SECOND: ("C2", "s"), VANILLA: ("C3", "v")}


def draw_row(axes, name: str, measured: list[dict]) -> None:
    """Errors over depth; of the deepest networks the training loss along training, and the singular values after it."""
    depths = sorted({entry["depth"] for entry in measured})
    for kind, (color, marker) in STYLES.items():
        entries = [entry for entry in measured if entry["kind"] == kind]
        for ax, which in zip(axes, ("test_errors", "train_errors"), strict=False):
            errors = 100 * np.array([entry[which] for entry in entries])
            ax.plot(depths, errors.mean(axis=1), color=color, marker=marker, label=kind)
            ax.fill_between(depths, errors.min(axis=1), errors.max(axis=1), color=color, alpha=0.2, linewidth=0)
        runs = [run for run in entries[-1]["runs"] if "smallest" in run]
        for run in runs:
            axes[2].plot(run["steps"], run["train_loss"], color=color, marker=marker, markersize=4, label=kind)
        for run in runs[:1]:
            ends = np.linspace(1, depths[-1] - 1, len(run["smallest_at_end"]) + 1)
            middles = (ends[1:] + ends[:-1]) / 2
            axes[3].fill_between(middles, run["smallest_at_end"], run["largest_at_end"], color=color, alpha=0.12)
            for values in (run["smallest_at_end"], run["largest_at_end"]):
                axes[3].plot(middles, values, color=color, linewidth=1.5)
    for ax, title in zip(axes, ("test error", "training error"), strict=False):
        ax.set(title=f"{name}: {title} after training", xlabel="layers", ylabel="per cent", xscale="log", ylim=(0, 100))
        ax.axhline(100 * GUESSING, color="0.5", linewidth=0.8, linestyle=":")
        ax.text(depths[0], 100 * GUESSING + 1, "guessing", color="0.35", fontsize=8)
        ax.set_xticks(depths, depths)
        ax.xaxis.set_minor_formatter("")
    axes[2].set(title=f"{name}: training loss, {depths[-1]} layers", xlabel="step of SGD", ylabel="cross-entropy")
    axes[2].set_ylim(0, 3)
    axes[3].set(title=f"{name}: singular values, {depths[-1]} layers", xlabel="layer", yscale="log", ylim=(1e-4, 1e2))
    axes[3].set_ylabel("from smallest to largest")
    axes[3].axhline(1, color="0.5", linewidth=0.8)


def draw(results: dict, path: Path) -> None:
    """A row of pictures a data set."""
    plt = pyplot()
    sets = results["data"]
    figure, axes = plt.subplots(len(sets), 4, figsize=(17, 4.3 * len(sets)), layout="constrained", squeeze=False)
    for row, (name, entry) in zip(axes, sets.items(), strict=True):
        draw_row(row, name, entry["measured"])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(KINDS), frameon=False)
    sizes = "; ".join(
        f"{name}: {entry['n_train']} training and {entry['n_test']} test images, {entry['network']['width']} "
        f"{'channels' if 'kernel_size' in entry['network'] else 'units'} a layer, {entry['n_steps']} steps"
        for name, entry in sets.items()
    )
    machine = results["environment"]
    caption(
        figure,
        f"Networks without batch normalization and biases, by SGD with momentum 0.9 on batches of {BATCH}, each at the "
        f"best of {len(results['rates'])} learning rates. {sizes}. Left: lines are means over the seeds, bands reach "
        "from the least to the largest error. Losses: all seeds. Singular values: seed 0, after training, of I + W "
        "with a link around every layer, of I + W' W around every second layer (both 1 at the start), of W in vanilla "
        f"networks. {machine['cpu']}, 1 thread, {machine['date'][:10]}.",
    )
    figure.savefig(path)
    print(f"Drew {path}")


def main() -> None:
    """Train what is not kept, then write and draw."""
    args = parse_arguments(
        "deep_identity_mapping",
        __doc__,
        lambda parser: parser.add_argument("--data", type=Path, help="zip of CIFAR-10"),
    )
    quick = {"n_steps": 1} if args.quick else {}
    settings = {"digits": digits(**quick)}
    if args.data:
        settings["CIFAR-10"] = cifar(args.data, **quick | ({"per_class": dict.fromkeys(PER_CLASS, 7)} if quick else {}))
    record = Record(args.json.with_name("deep_identity_mapping_runs.json"))
    plan = ((4, 6), RATES[:2], SEEDS[:1]) if args.quick else (DEPTHS, RATES, SEEDS)
    with threads(1):
        measured = {name: measure(name, setting, *plan, record) for name, setting in settings.items()}
    results = {"environment": environment(), "quick": args.quick, "batch_size": BATCH}
    results |= dict(zip(("depths", "rates", "seeds"), plan, strict=True))
    results["data"] = {
        name: {
            "n_train": len(setting.parts["train"][1]),
            "n_validation": len(setting.parts["validation"][1]),
            "n_test": len(setting.parts["test"][1]),
            "network": setting.network,
            "n_steps": setting.n_steps,
            "measured": measured[name],
        }
        for name, setting in settings.items()
    }
    rows = [] if args.quick else [row for name, entries in measured.items() for row in targets(name, entries)]
    draw(write_json(args.json, results | {"targets": rows}), args.png)


if __name__ == "__main__":
    main()
