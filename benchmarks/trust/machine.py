"""How much a network depends on what should not matter: threads, processes, the order of rows and columns, units.

A change is compared by predictions on the training data and at new points, relative to their root mean square, and by
the objective. The optimum fixes the first alone: between samples a kink may lie anywhere, above all where neurons are
normalized after the ReLU. Fits with a chosen weight decay split the rows into folds by their position, so the order of
rows is left out there.
"""

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from benchmarks.harness import threads
from benchmarks.record import Record
from convexbn import ConvexBNClassifier, ConvexBNRegressor, ConvexBNRegressorCV

_FIXED: dict[str, Any] = {"weight_decay": 0.05, "spectral_power": 0.0, "tol": 1e-8, "scale_outputs": False}
MODELS: dict[str, Any] = {
    "batch": ConvexBNRegressor(**_FIXED),
    "weight": ConvexBNRegressor(normalization="weight", **_FIXED),
    "after the ReLU": ConvexBNRegressor(normalization="batch_after_relu", **_FIXED),
    "gated": ConvexBNRegressor(activation="gated_relu", **_FIXED),
    "three classes": ConvexBNClassifier(weight_decay=0.02, spectral_power=0.0, tol=1e-6),
    "self-tuning": ConvexBNRegressor(),
    "cross-validated": ConvexBNRegressorCV(n_weight_decays=4, cv=3),
}
SAME_BITS = ("again", "two BLAS threads", "n_jobs=2")
CHANGES = (*SAME_BITS, "rows permuted", "columns permuted", "targets times 1000", "columns times 10 to 1000")
TOLERANCE = 1e-3  # of predictions on the training data, in every change


@dataclass(frozen=True)
class Data:
    """Training data, points to predict at, the factor of the targets, and the order of the rows."""

    X: np.ndarray
    y: np.ndarray
    at: np.ndarray
    factor: float = 1.0
    order: np.ndarray | None = None


def data(classes: bool, n: int = 40, d: int = 3) -> Data:
    """Data of a smooth function with noise; labels where classes are needed."""
    rng = np.random.default_rng(0)
    X, at = rng.standard_normal((n, d)), rng.standard_normal((50, d))
    y = np.abs(X[:, 0]) - X[:, 1] + 0.3 * rng.standard_normal(n)
    return Data(X, np.digitize(y, np.quantile(y, (1 / 3, 2 / 3))) if classes else y, at)


def applies(name: str, change: str) -> bool:
    """Whether a change should leave this model's network as it is."""
    tuned = name in ("self-tuning", "cross-validated")
    if change == "rows permuted":
        return not tuned
    if change == "n_jobs=2":
        return tuned
    if change.startswith("columns times"):
        return name != "weight"
    return not (change.startswith("targets") and name == "three classes")


def changed(model: Any, given: Data, change: str) -> tuple[Any, Data]:
    """The model and the data after a change."""
    model, rng = clone(model), np.random.default_rng(1)
    match change:
        case "n_jobs=2":
            model.set_params(n_jobs=2)
        case "rows permuted":
            order = rng.permutation(len(given.X))
            given = Data(given.X[order], given.y[order], given.at, order=order)
        case "columns permuted":
            order = rng.permutation(given.X.shape[1])
            given = Data(given.X[:, order], given.y, given.at[:, order])
        case "targets times 1000":
            given = Data(given.X, 1000 * given.y, given.at, 1000.0)
            if isinstance(model.get_params().get("weight_decay"), float):
                model.set_params(weight_decay=1000 * model.weight_decay)
        case "columns times 10 to 1000":
            scales = 10.0 ** np.arange(1, given.X.shape[1] + 1)
            given = Data(given.X * scales, given.y, given.at * scales)
    return model, given


def outcome(model: Any, given: Data, n_threads: int = 1) -> tuple[np.ndarray, np.ndarray, float]:
    """Predictions on the training data and at the new points, and the objective, in the unit of unchanged targets."""
    with threads(n_threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(given.X, given.y)
        predict: Callable[[np.ndarray], np.ndarray] = getattr(model, "predict_proba", model.predict)
        fitted = predict(given.X)
        if given.order is not None:
            fitted = fitted[np.argsort(given.order)]
        return fitted / given.factor, predict(given.at) / given.factor, model.certificate_.objective / given.factor**2


def differences(name: str, changes: tuple[str, ...] = CHANGES) -> dict[str, dict[str, Any]]:
    """For each change that applies: differences of predictions and of the objective, and whether all bits agree."""
    model, given = MODELS[name], data(classes=name == "three classes")
    fitted, f, objective = outcome(clone(model), given)
    found = {}
    for change in changes:
        if applies(name, change):
            again, other, value = outcome(*changed(model, given, change), 2 if change == "two BLAS threads" else 1)
            found[change] = {
                "fitted": float(np.abs(again - fitted).max() / np.sqrt(np.mean(fitted**2))),
                "elsewhere": float(np.abs(other - f).max() / np.sqrt(np.mean(f**2))),
                "objective": abs(value - objective) / objective,
                "same_bits": bool((other == f).all()),
            }
    return found


def main() -> None:
    """Measure the models that the file does not hold yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust.machine", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a JSON file of the differences of each model")
    record = Record(parser.parse_args().out)
    for name in MODELS:
        if name not in record.read():
            record.add(name, differences(name))


if __name__ == "__main__":
    main()
