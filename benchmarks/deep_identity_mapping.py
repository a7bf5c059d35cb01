"""Do deep networks with identity links train and predict better than without, and what becomes of their layers' maps?

Networks of 4 to 56 layers, the first and the output layer included, with a link around every layer, around every second
layer, or vanilla: dense ones on digits and, with --data, convolutional ones on a subset of CIFAR-10 in 8 × 8 pixels, from
a zip file of train/<class>/<number>.jpg and test/ likewise (needs Pillow). No batch normalization and no biases. Every
kind, at every depth, has the same steps of SGD and the same learning rates to choose from, by the error on validation
images with seed 0. Runs are kept in deep_identity_mapping_runs.json as they end, and a stopped benchmark goes on there.
"""

import io
import zipfile
from collections.abc import Callable, Iterator
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
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
BATCH = 64
N_RECORDS = 6  # along a run, the start included
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PER_CLASS = {"train": 400, "validation": 100, "test": 200}  # of CIFAR-10
DIGITS = {"train": 1000, "validation": 297, "test": 500}
CONDITIONED = 2.0  # singular values between a half and this are those of a map near the identity
SAME = 0.01  # more of the training error, in shares, than at the least depth

Samples = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Setting:
    """What is trained on a data set: its three parts, and the size of networks and runs."""

    parts: dict[str, Samples]
    network: dict[str, int]
    n_steps: int

    @property
    def n_inputs(self) -> int:
        """Features, or channels."""
        return self.parts["train"][0].shape[1]


def digits(n_steps: int = 2000) -> Setting:
    """Images of 8 × 8 pixels as vectors, in random order."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    ends = np.cumsum(list(DIGITS.values()))
    parts = {
        name: (X[order[end - size : end]], y[order[end - size : end]])
        for (name, size), end in zip(DIGITS.items(), ends, strict=True)
    }
    return Setting(standardised(parts), {"width": 32}, n_steps)


def cifar(path: Path, n_steps: int = 1000, per_class: dict[str, int] = PER_CLASS) -> Setting:
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
    return Setting(standardised(parts), {"width": 8, "kernel_size": 3}, n_steps)


def standardised(parts: dict[str, Samples]) -> dict[str, Samples]:
    """All parts centred and scaled by the mean (of every entry) and standard deviation (of all) of the training part."""
    X = parts["train"][0]
    mean, std = X.mean(axis=0), X.std()
    return {name: ((inputs - mean) / std, classes) for name, (inputs, classes) in parts.items()}


def trained(setting: Setting, link: int, depth: int, rate: float, seed: int, judge: str, n_records: int) -> dict:
    """One run: errors on the training images and on those that judge it, and the extreme singular values of its maps."""
    start = LinkedNetwork.at_initialization(
        setting.n_inputs, 10, depth=depth, link=link, random_state=seed, **setting.network
    )
    steps = np.linspace(0, setting.n_steps, n_records).astype(int) if n_records > 1 else [setting.n_steps]
    try:
        _, trace = train_linked(
            *setting.parts["train"], start, learning_rate=rate, n_steps=setting.n_steps, batch_size=BATCH,
            noted_steps=steps, test=setting.parts[judge], dtype="float32", random_state=seed,
        )  # fmt: skip
    except DivergenceError:
        return {"diverged": True}
    return {"diverged": False, "steps": trace.steps, "loss": trace.objective, **trace.watched}


def measure(
    name: str, setting: Setting, depths: tuple, rates: tuple, seeds: tuple, kept: Callable[..., dict]
) -> dict[str, dict]:
    """Of every kind and depth: the rate that predicts best, and the runs with it.

    `kept` makes a run of a key, unless it has been made.
    """
    measured = {}
    for depth in depths:
        for kind, link in KINDS.items():

            def run(rate, seed, judge, n_records, link=link, depth=depth, kind=kind):
                key = f"{name}/{kind}/{depth}/{rate}/{seed}/{judge}"
                return kept(key, lambda: trained(setting, link, depth, rate, seed, judge, n_records))

            validation = [last(run(rate, seeds[0], "validation", 1), "test_error") for rate in rates]
            rate = rates[int(np.argmin(validation))]
            runs = [run(rate, seed, "test", N_RECORDS) for seed in seeds]
            entry = {
                "kind": kind,
                "depth": depth,
                "rate": rate,
                "validation_errors": validation,
                "train_errors": [last(one, "train_error") for one in runs],
                "test_errors": [last(one, "test_error") for one in runs],
                "runs": runs,
            }
            measured[f"{kind}/{depth}"] = entry
            print(f"{name}, {kind}, {depth} layers: rate {rate}, test errors {entry['test_errors']}", flush=True)
    return measured


def last(run: dict, key: str) -> float:
    """A number at the end of a run, that of guessing if it diverged."""
    return 0.9 if run["diverged"] else run[key][-1]
