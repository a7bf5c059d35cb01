"""CIFAR-10, all 50,000 + 10,000 images: do truncated convex networks predict better than untruncated, and than SGD?

Two architectures, a filter that covers the whole image (the dense network) and one of 6 x 6 pixels with stride 4 and
average pooling; ten classes, cross-entropy with weight decay, the same objective for all of an architecture. Convex are
gated networks, of all whitened directions and of as many as predict best on 5,000 validation images, and the ReLU
network by column generation on that truncation; each gets half an hour. The networks trained by SGD and by Adam are as
wide as this last one; they get 200 epochs, a learning rate chosen on the same validation images, and two decays of it.

Every stage runs in a process of its own and leaves a checkpoint in the folder ``--work``, long ones every few minutes;
a run that was stopped goes on from there. With ``--device cuda`` rows and mini-batches are on a GPU, those of the
convex networks in double precision, and all stages share one process. ``--minutes`` and ``--steps`` shorten a run.
Images: ``--data`` is a zip file or folder with train/CLASS/*.jpg and test/CLASS/*.jpg; without it they are downloaded
from OpenML.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from benchmarks.harness import (
    caption,
    device_name,
    environment,
    parse_arguments,
    plain,
    pyplot,
    target,
    threads,
    write_json,
)
from benchmarks.images import Images, load_cifar10
from convexbn import (
    BatchNormNetwork,
    ConvBatchNormNetwork,
    Neurons,
    PatchDesign,
    Problem,
    Solution,
    Status,
    make_network,
    sample_patterns,
    solve_column_generation,
    solve_gated,
)
from convexbn._utils.array_namespace import to_numpy
from convexbn._utils.torch_device import check_device, placed
from convexbn.gradient import train
from convexbn.losses import make_loss

N_CLASSES, LOSS = 10, "cross_entropy"
VALIDATION_TOL, TOL = 1e-2, 1e-3
LEARNING_RATES = {"SGD": (0.3, 0.1, 0.03, 0.01), "Adam": (1e-2, 3e-3, 1e-3)}
MOMENTUM = {"SGD": 0.9, "Adam": 0.0}
DECAY = 5 * (1.0,) + 3 * (0.1,) + 2 * (0.01,)  # of the learning rate, over tenths of the steps
FILTERS = 8  # in a picture


@dataclass(frozen=True)
class Architecture:
    """A two-layer network on images, and how much of everything it gets."""

    name: str
    kernel_size: int
    stride: int
    weight_decay: float  # about 0.03 of the smallest one that makes the zero network optimal
    components: tuple[int, ...]  # truncations among which validation chooses
    n_gates: int = 100
    n_validation: int = 5000
    n_steps: int = 20_000  # of SGD and Adam
    batch_size: int = 500
    minutes: float = 30.0  # of a convex network
    checkpoint_minutes: float = 5.0

    @property
    def quick(self) -> "Architecture":
        """The same for a smoke run on a few images."""
        less = {"n_gates": 5, "n_validation": 20, "n_steps": 100, "batch_size": 50, "minutes": 0.05}
        return replace(self, components=(2, 4), **less)


ARCHITECTURES = (
    Architecture("dense", 32, 1, 0.004, (25, 50, 100, 200)),
    Architecture("convolutional", 6, 4, 0.003, (10, 20, 40, 80)),
)


class Stages:
    """The stages of one architecture; each returns a row of the table and leaves its network in the folder."""

    def __init__(
        self, architecture: Architecture, train: Images, test: Images, folder: Path, device: str | None = None
    ):
        self.architecture, self.train, self.test, self.folder = architecture, train, test, folder
        self.device = device

    def row(
        self,
        stage: str,
        n_components: int | None = None,
        width: int | None = None,
        learning_rate: float | None = None,
    ) -> dict[str, Any]:
        """Run a stage, or go on with it: objective, accuracies, seconds, neurons."""
        n_steps = self.architecture.n_steps
        if stage == "validation":
            return self._gated(stage, *self._split(), n_components, VALIDATION_TOL)
        if stage == "gated":
            return self._gated(stage, self.train, self.test, n_components, TOL)
        if stage == "relu":
            return self._relu(n_components)
        assert width is not None
        assert learning_rate is not None
        if stage.endswith("trial"):
            return self._by_gradient(stage, *self._split(), width, learning_rate, n_steps // 10)
        return self._by_gradient(stage, self.train, self.test, width, learning_rate, n_steps)

    def _split(self) -> tuple[Images, Images]:
        """The training images without those for validation, and these."""
        order = np.random.default_rng(0).permutation(len(self.train.X))
        n = self.architecture.n_validation
        return self.train.take(np.sort(order[n:])), self.train.take(np.sort(order[:n]))

    def _design(self, images: Images, n_components: int | None) -> tuple[PatchDesign, Problem]:
        architecture = self.architecture
        X = placed(images.X, self.device)
        design = PatchDesign(architecture.kernel_size, architecture.stride, n_components=n_components).fit(X)
        Z = design.matrix(X)
        y = images.one_hot(N_CLASSES)
        return design, Problem(Z, y, LOSS, weight_decay=architecture.weight_decay, fit_intercept=True)

    def _gated(self, stage: str, images: Images, test: Images, n_components: int | None, tol: float) -> dict[str, Any]:
        start = perf_counter()
        design, problem = self._design(images, n_components)
        patterns = sample_patterns(problem.Z, self.architecture.n_gates, random_state=0)

        def solve(neurons: Neurons | None, max_time: float) -> Solution:
            show = _progress(f"{self.architecture.name}, {stage}, {n_components or 'all'} directions")
            options = {"tol": tol, "max_time": max_time, "dtype": "float32", "callback": show}
            return solve_gated(problem, patterns, start=neurons, **options)

        name = f"{stage}-{n_components or 'all'}"
        return self._convex(name, images, test, design, solve, tol, perf_counter() - start)

    def _relu(self, n_components: int | None) -> dict[str, Any]:
        start = perf_counter()
        design, problem = self._design(self.train, n_components)

        def solve(neurons: Neurons | None, max_time: float) -> Solution:
            options = {"tol": TOL, "max_time": max_time, "prove": False, "random_state": 0}
            show = _progress(f"{self.architecture.name}, ReLU")
            return solve_column_generation(problem, start=neurons, callback=show, **options)

        return self._convex("relu", self.train, self.test, design, solve, TOL, perf_counter() - start)

    def _convex(self, name, images, test, design, solve, tol, design_seconds) -> dict[str, Any]:
        """Solve a few minutes at a time, with a checkpoint after each."""
        neurons, seconds = self._checkpoint(name)
        limit = 60 * self.architecture.minutes
        while True:
            start = perf_counter()
            solution = solve(neurons, min(60 * self.architecture.checkpoint_minutes, max(limit - seconds, 1.0)))
            neurons, seconds = solution.neurons, seconds + perf_counter() - start
            self._save_checkpoint(name, neurons, seconds)
            if solution.status is Status.INTERRUPTED:
                raise KeyboardInterrupt
            if solution.certificate.gap <= tol or seconds >= limit:
                break
        network = make_network(neurons, design)
        network.save(self.folder / f"{name}.network.npz")
        certificate = solution.certificate
        return {
            "n": len(images.X),
            "objective": certificate.objective,
            "lower_bound": certificate.lower_bound,
            "gap": certificate.gap,
            "scope": certificate.scope,
            "n_neurons": len(neurons),
            "seconds": seconds,
            "design_seconds": design_seconds,
            "train_accuracy": _accuracy(network, images, self.device),
            "test_accuracy": _accuracy(network, test, self.device),
        }

    def _checkpoint(self, name: str) -> tuple[Neurons | None, float]:
        path = self.folder / f"{name}.checkpoint.npz"
        if not path.exists():
            return None, 0.0
        with np.load(path) as file:
            gates = file["gates"] if "gates" in file.files else None
            neurons = Neurons(file["weights"], file["output_weights"], file["intercept"], gates)
            return neurons, float(file["seconds"])

    def _save_checkpoint(self, name: str, neurons: Neurons, seconds: float) -> None:
        arrays = {key: value for key, value in vars(neurons).items() if isinstance(value, np.ndarray)}
        part = self.folder / f"{name}.part.npz"
        np.savez(part, seconds=seconds, **arrays)
        part.replace(self.folder / f"{name}.checkpoint.npz")

    def _by_gradient(
        self, stage: str, images: Images, test: Images, width: int, learning_rate: float, n_steps: int
    ) -> dict[str, Any]:
        """Mini-batches of standardised images, in float32; a checkpoint, without momentum, after each tenth.

        Seconds are those of the steps.
        """
        architecture, optimizer = self.architecture, stage.split()[0]
        images, test = self._standardised(images), self._standardised(test)
        y = images.one_hot(N_CLASSES)
        name = f"{stage.replace(' ', '-')}-{learning_rate}"
        options = {"optimizer": optimizer.lower(), "momentum": MOMENTUM[optimizer], "n_steps": n_steps // len(DECAY)}
        options |= {"batch_size": architecture.batch_size, "fit_intercept": True, "dtype": "float32"}
        path = self.folder / f"{name}.checkpoint.json"
        done, seconds = json.loads(path.read_text()) if path.exists() else (0, 0.0)
        network: Any = self._initial(images.X[:1000], width)
        X = placed(images.X, self.device)
        if done:
            network = type(network).load(self._tenth(name, done))
        for tenth in range(done, len(DECAY)):
            rate = learning_rate * DECAY[tenth]
            network, trace = train(
                X,
                y,
                loss=LOSS,
                weight_decay=architecture.weight_decay,
                learning_rate=rate,
                start=network,
                random_state=tenth,
                **options,
            )
            seconds += trace.times[-1]
            if trace.interrupted:
                raise KeyboardInterrupt
            network.save(self._tenth(name, tenth + 1))
            _write(path, (tenth + 1, seconds))
            self._tenth(name, tenth).unlink(missing_ok=True)
            print(f"{architecture.name}, {stage}: {seconds:6.0f} s, objective {trace.objective[-1]:.5f}", flush=True)
        network.save(self.folder / f"{stage}.network.npz")
        loss = float(make_loss(LOSS).value(_outputs(network, images.X, self.device), y).mean())
        return {
            "n": len(images.X),
            "objective": loss + architecture.weight_decay * network.penalty(),
            "learning_rate": learning_rate,
            "n_neurons": len(network),
            "seconds": seconds,
            "train_accuracy": _accuracy(network, images, self.device),
            "test_accuracy": _accuracy(network, test, self.device),
        }

    def _tenth(self, name: str, number: int) -> Path:
        return self.folder / f"{name}.{number}.npz"

    def _initial(self, X: np.ndarray, width: int) -> BatchNormNetwork | ConvBatchNormNetwork:
        options = {"n_outputs": N_CLASSES, "random_state": 0}
        if self.architecture.name == "dense":
            return BatchNormNetwork.at_initialization(X, width, **options)
        geometry = {"kernel_size": self.architecture.kernel_size, "stride": self.architecture.stride}
        return ConvBatchNormNetwork.at_initialization(X, width, **options, **geometry)

    def _standardised(self, images: Images) -> Images:
        """Each channel with the mean 0 and standard deviation 1 of the training images; rows for the dense network."""
        mean, std = _channel_statistics(self.train.X)
        X = (images.X - mean) / std
        return Images(X.reshape(len(X), -1) if self.architecture.name == "dense" else X, images.classes)


def _write(path: Path, content: Any) -> None:
    """Write JSON that is whole whenever the run is stopped."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content))
    part.replace(path)


def _outputs(network: Any, X: np.ndarray, device: str | None, size: int = 1000) -> np.ndarray:
    """Outputs (n, C) of a network, a block of images at a time."""
    blocks = (placed(X[start : start + size], device) for start in range(0, len(X), size))
    return np.concatenate([to_numpy(network.predict(block)) for block in blocks])


def _accuracy(network: Any, images: Images, device: str | None) -> float:
    return float((_outputs(network, images.X, device).argmax(axis=1) == images.classes).mean())


def _channel_statistics(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, float32 of shape (3, 1, 1)."""
    some = X[:: max(1, len(X) // 5000)].astype(np.float64)
    mean, std = some.mean(axis=(0, 2, 3)), some.std(axis=(0, 2, 3))
    return mean.astype(np.float32)[:, None, None], std.astype(np.float32)[:, None, None]


def _progress(name: str):
    def show(progress) -> None:
        print(
            f"{name}: {progress.time:6.0f} s, objective {progress.objective:.5f}, gap {progress.gap:.1e}, "
            f"{progress.n_neurons} neurons",
            flush=True,
        )

    return show


def run_stage(args: argparse.Namespace, architecture: Architecture, stage: str, options: dict) -> dict[str, Any]:
    """One stage in this process, and the peak memory of the process and of the device."""
    warnings.simplefilter("ignore", ConvergenceWarning)  # the gaps are in the table
    images = load_cifar10(args.data, args.work / "images")
    if args.quick:
        images = tuple(_few(part, size) for part, size in zip(images, (200, 100), strict=True))
    with threads(args.threads), _device_memory(args.device) as device_peak:
        row = Stages(architecture, *images, args.work / architecture.name, args.device).row(stage, **options)
    unit = 1 if sys.platform == "darwin" else 1024
    return row | device_peak | {"peak_gibibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30}


@contextmanager
def _device_memory(device: str | None) -> Iterator[dict[str, float]]:
    """Fill the dictionary with the peak memory of tensors on a GPU in this context."""
    peak: dict[str, float] = {}
    if not (device or "").startswith("cuda"):
        yield peak
        return
    import torch

    torch.cuda.reset_peak_memory_stats(device)
    yield peak
    peak["device_gibibytes"] = torch.cuda.max_memory_allocated(device) / 2**30
    torch.cuda.empty_cache()


def _few(images: Images, size: int) -> Images:
    return images.take(np.linspace(0, len(images.X) - 1, size).astype(int))


class Runner:
    """Stages in fresh processes, whose peak memory is their own, and their rows in the work folder.

    On a GPU all stages run in this process, since a new one takes seconds to open the device.
    """

    def __init__(self, args: argparse.Namespace, architecture: Architecture):
        self.args, self.architecture = args, architecture
        self.rows: list[dict[str, Any]] = []
        self.folder = args.work / architecture.name
        self.folder.mkdir(parents=True, exist_ok=True)
        path, settings = self.folder / "settings.json", plain(asdict(architecture))
        if path.exists() and json.loads(path.read_text()) != settings:
            raise SystemExit(f"{self.folder} holds checkpoints of other settings; delete it, or give another --work.")
        _write(path, settings)

    def row(self, stage: str, **options: Any) -> dict[str, Any]:
        """The row of a stage, from its file if it was run before."""
        path = self.folder / f"{'-'.join([stage, *(str(value) for value in options.values())])}.json"
        if not path.exists():
            print(f"{self.architecture.name}: {stage} {options or ''}", flush=True)
            arguments = (self.args, self.architecture, stage, options)
            if self.args.device is None:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    row = plain(pool.submit(run_stage, *arguments).result())
            else:
                row = plain(run_stage(*arguments))
            _write(path, row)
            print(json.dumps(row), flush=True)
        self.rows.append(json.loads(path.read_text()))
        return self.rows[-1]

    def run(self) -> dict[str, Any]:
        """All stages: truncation by validation, then the table."""
        validation = {r: self.row("validation", n_components=r) for r in self.architecture.components}
        chosen = max(validation, key=lambda r: validation[r]["test_accuracy"])
        relu = self.row("relu", n_components=chosen)
        found = {
            "settings": asdict(self.architecture),
            "validation": {
                "components": list(validation),
                "accuracy": [row["test_accuracy"] for row in validation.values()],
            },
            "n_components": chosen,
            "rows": {
                "ReLU, SGD": self._tuned("SGD", relu["n_neurons"]),
                "ReLU, Adam": self._tuned("Adam", relu["n_neurons"]),
                "ReLU, convex, truncated": relu,
                "gated, convex, truncated": self.row("gated", n_components=chosen),
                "gated, convex, all directions": self.row("gated", n_components=None),
            },
        }
        peaks = [name for name in ("peak_gibibytes", "device_gibibytes") if name in relu]
        return found | {name: max(row[name] for row in self.rows) for name in peaks}

    def _tuned(self, optimizer: str, width: int) -> dict[str, Any]:
        """The row of SGD or Adam, with the learning rate that does best on the validation images."""
        trials = {
            rate: self.row(f"{optimizer} trial", width=width, learning_rate=rate) for rate in LEARNING_RATES[optimizer]
        }
        best = max(trials, key=lambda rate: trials[rate]["test_accuracy"])
        return self.row(optimizer, width=width, learning_rate=best)

    def filters(self, chosen: int) -> dict[str, np.ndarray]:
        """Filters (FILTERS, height, width, 3) that matter most, of each network."""
        names = {
            "ReLU, SGD": "SGD",
            "ReLU, convex, truncated": "relu",
            "gated, convex, truncated": f"gated-{chosen}",
            "gated, convex, all directions": "gated-all",
        }
        return {label: leading_filters(self.folder / f"{name}.network.npz") for label, name in names.items()}


def leading_filters(path: Path) -> np.ndarray:
    """The filters of largest weight in the output, as images between 0 and 1."""
    with np.load(path, allow_pickle=False) as file:
        filters, size = file["weights"], np.linalg.norm(file["output_weights"], axis=1)
        if "gamma" in file.files:
            filters, size = filters * (file["gamma"] / file["std"])[:, None], size * file["gamma"]
        else:
            size = size * np.linalg.norm(filters, axis=1)
        shape = tuple(file["filter_shape"]) if "filter_shape" in file.files else (3, 32, 32)
    leading = filters[np.argsort(-size)[:FILTERS]].reshape(-1, *shape).transpose(0, 2, 3, 1)
    return 0.5 + 0.5 * leading / np.abs(leading).max(axis=(1, 2, 3), keepdims=True)


def targets(results: dict[str, dict], device: str | None = None) -> list[dict]:
    """The rows of the summary: the paper's claim, and the memory."""
    found, images = [], "CIFAR-10" if device in (None, "cpu") else "CIFAR-10 on a GPU"
    for name, result in results.items():
        accuracy = {label: row["test_accuracy"] for label, row in result["rows"].items()}
        truncated, whole, sgd = (
            accuracy[label] for label in ("gated, convex, truncated", "gated, convex, all directions", "ReLU, SGD")
        )
        figure = (
            f"gated {truncated:.1%} against {whole:.1%} and {sgd:.1%}; truncated convex with ReLU "
            f"{accuracy['ReLU, convex, truncated']:.1%}, Adam {accuracy['ReLU, Adam']:.1%}"
        )
        statement = f"{images}, {name}: truncated convex beats untruncated convex and SGD in test accuracy"
        found.append(target(statement, figure, truncated > max(whole, sgd)))
    peak = max(result["peak_gibibytes"] for result in results.values())
    on_device = max(result.get("device_gibibytes", 0.0) for result in results.values())
    figure = f"{peak:.1f} GiB" + (f" of the process, {on_device:.1f} GiB on the device" if on_device else "")
    return [*found, target(f"{images}: less than 16 GB", figure, max(peak, on_device) * 2**30 < 16e9)]


def show_table(results: dict[str, dict]) -> None:
    """Print the table."""
    for name, result in results.items():
        print(f"\n{name}, {result['n_components']} directions kept by validation")
        for label, row in result["rows"].items():
            gap = f"{row['gap']:.1e} ({row['scope']})" if "gap" in row else "-"
            print(
                f"{label:32} n {row['n']:>6,}  objective {row['objective']:.4f}  gap {gap:18} train "
                f"{row['train_accuracy']:.3f}  test {row['test_accuracy']:.3f}  {row['seconds']:6.0f} s  "
                f"{row['peak_gibibytes']:.1f} GiB  {row['n_neurons']} neurons"
                + (f"  {row['device_gibibytes']:.1f} GiB on the device" if "device_gibibytes" in row else "")
            )


def draw(results: dict[str, Any], filters: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """Accuracies, validation curve and filters, a row an architecture."""
    plt = pyplot()
    figure = plt.figure(figsize=(15, 5.2 * len(filters)), layout="constrained")
    for part, (name, images) in zip(np.ravel(figure.subfigures(len(filters), 1)), filters.items(), strict=True):
        result = results["architectures"][name]
        left, middle, right = part.subfigures(1, 3, width_ratios=[1.1, 0.8, 1.4])
        ax, rows = left.subplots(), result["rows"]
        heights = np.arange(len(rows))
        for shift, part_of, color in ((0.2, "test", "C0"), (-0.2, "train", "0.7")):
            accuracies = [row[f"{part_of}_accuracy"] for row in rows.values()]
            bars = ax.barh(heights + shift, accuracies, 0.4, label=part_of, color=color)
            ax.bar_label(bars, fmt="%.3f", padding=2, fontsize=8)
        ax.set_yticks(heights, list(rows))
        ax.set(title=f"{name}: accuracy", xlim=(0, 1.1))
        ax.legend(fontsize="small", loc="lower right")
        ax = middle.subplots()
        validation = result["validation"]
        ax.plot(validation["components"], validation["accuracy"], "o-")
        ax.set(xscale="log", title="validation accuracy, gated", xlabel="singular directions kept")
        ax.set_xticks(validation["components"], [str(value) for value in validation["components"]])
        ax.xaxis.set_minor_formatter("")
        grid = right.subplots(len(images), FILTERS, squeeze=False)
        right.suptitle("leading filters", fontsize=11)
        for axes, (label, pictures) in zip(grid, images.items(), strict=True):
            for ax, picture in zip(axes, pictures, strict=False):
                ax.imshow(picture)
            axes[0].text(0, 1.1, label, fontsize="small", transform=axes[0].transAxes).set_in_layout(False)
        for ax in grid.ravel():
            ax.axis("off")
    machine = results["environment"]
    caption(
        figure,
        f"CIFAR-10, ten classes, {machine['cpu']}, {results['threads']} thread(s) a stage, device "
        f"{results['device']}, {machine['date'][:10]}.",
    )
    figure.savefig(path)
    print(f"Drew {path}")


def _extra(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="zip file or folder of images (default: download from OpenML)")
    parser.add_argument("--work", type=Path, default=Path("build/cifar10"), help="folder of arrays and checkpoints")
    parser.add_argument("--threads", type=int, default=2, help="threads of a stage (default: 2)")
    parser.add_argument("--device", help="device of PyTorch, as cuda (default: NumPy on the CPU)")
    parser.add_argument("--minutes", type=float, help="of a convex network (default: 30)")
    parser.add_argument("--steps", type=int, help="of SGD and Adam (default: 20,000)")
    names = [architecture.name for architecture in ARCHITECTURES]
    parser.add_argument("--only", choices=names, help="run the stages of one architecture, and write no results")


def shortened(architecture: Architecture, args: argparse.Namespace) -> Architecture:
    """The architecture with what the command line gives it."""
    given = {"minutes": args.minutes, "n_steps": args.steps}
    architecture = architecture.quick if args.quick else architecture
    return replace(architecture, **{name: value for name, value in given.items() if value is not None})


def main() -> None:
    """Run what is left, write, draw."""
    args = parse_arguments("cifar10", __doc__, _extra)
    check_device(args.device)
    load_cifar10(args.data, args.work / "images")
    chosen = [architecture for architecture in ARCHITECTURES if args.only in (None, architecture.name)]
    runners = [Runner(args, shortened(architecture, args)) for architecture in chosen]
    found = {runner.architecture.name: runner.run() for runner in runners}
    show_table(found)
    if args.only is not None:
        return
    results = {"environment": environment(), "quick": args.quick, "threads": args.threads}
    results["device"] = device_name(args.device)
    results["architectures"] = found
    results["targets"] = [] if args.quick else targets(found, args.device)
    filters = {
        runner.architecture.name: runner.filters(found[runner.architecture.name]["n_components"]) for runner in runners
    }
    draw(write_json(args.json, results), filters, args.png)


if __name__ == "__main__":
    main()
