"""Adversarial training problems: each is a function of a seed and a number."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from convexbn import (
    BatchNormDesign,
    PostActivationBatchNormDesign,
    PostActivationProblem,
    Problem,
    SparseDesignMatrix,
    WeightNormDesign,
    read_rows,
)
from convexbn.losses import LOSSES
from convexbn.operators import DeviceMatrix, RowBlocks

ROWS = (4, 60)
COLUMNS = (1, 6)
_SHAPES = ("normal", "ties", "duplicates", "near duplicates", "binary", "collinear", "near collinear", "heavy tails")
_MOVES = ("scales", "offset", "symmetric", "cluster")
_TARGETS = ("noise", "planted", "planted exactly", "binary", "offset", "tiny", "huge", "heavy tails")
_SHARES = (1e-5, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 0.9, 0.999, 1.0, 1.001, 2.0)  # of the largest weight decay
_ROUGH_RTOL, _EXACT_RTOL = 1e-4, 1e-10
_BLOCK = 5  # rows


def _in_blocks(Z: np.ndarray) -> RowBlocks:
    """Rows that are read a few at a time, as from files."""
    k = Z.shape[1]
    source = read_rows([Z[start : start + _BLOCK] for start in range(0, len(Z), _BLOCK)])
    return RowBlocks(source, np.zeros(k), np.eye(k), np.zeros(k))


def _of_torch(Z: np.ndarray) -> DeviceMatrix:
    import torch

    return DeviceMatrix(torch.asarray(Z))


KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda Z: Z,
    "blocks": _in_blocks,
    "sparse": lambda Z: SparseDesignMatrix(csr_array(Z)),
    "torch": _of_torch,
}


@dataclass(frozen=True)
class Case:
    """One problem: data, loss, normalization, sample weights, and the share of the largest weight decay.

    The kind is that of the design matrix, an array but where others are tried.
    """

    seed: int
    number: int
    kind: str = "array"

    @cached_property
    def _choices(self) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, self.number])
        low, high = np.log(ROWS[0]), np.log(ROWS[1] + 1)
        loss = str(rng.choice(sorted(LOSSES)))
        several = loss == "cross_entropy" or (loss == "squared_error" and rng.random() < 0.6)
        return {
            "n": int(np.exp(rng.uniform(low, high))),
            "d": int(rng.integers(COLUMNS[0], COLUMNS[1] + 1)),
            "loss": loss,
            "n_outputs": int(rng.integers(2, 4)) if several else 1,
            "normalization": str(rng.choice(["batch", "weight", "after"])),
            "fit_intercept": bool(rng.random() < 0.5),
            "bias": bool(rng.random() < 0.7),
            "spectral_power": float(rng.choice([0, 0, 0, 0.5, 1])),
            "rtol": float(rng.choice([_ROUGH_RTOL, _EXACT_RTOL])),
            "shape": str(rng.choice(_SHAPES)),
            "moves": [str(move) for move in rng.choice(_MOVES, int(rng.integers(0, 3)), replace=False)],
            "targets": str(rng.choice(_TARGETS)),
            "weights": str(rng.choice(["none", "none", "uniform", "far apart"])),
            "share": float(rng.choice(_SHARES)),
            "tol": float(rng.choice([1e-3, 1e-6, 1e-9])),
            "gated": bool(rng.random() < 0.1),
        }

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._choices[name]

    @property
    def cost(self) -> float:
        """About how long the case takes, for an order in which the quick ones come first."""
        several = 3 if self.n_outputs > 1 else 1
        return float(self.n * (self.d + 1) ** 2 * several)

    @cached_property
    def rng(self) -> np.random.Generator:
        """Source of the data."""
        return np.random.default_rng([self.seed, self.number, 1])

    @cached_property
    def X(self) -> np.ndarray:
        """The data (n, d)."""
        rng, n, d = self.rng, self.n, self.d
        X = rng.standard_normal((n, d))
        match self.shape:
            case "ties":
                X = np.round(X)
            case "duplicates" | "near duplicates":
                X = X[rng.integers(max(2, n // 2), size=n)]
                if self.shape == "near duplicates":
                    X = X + 10.0 ** rng.uniform(-13, -6) * rng.standard_normal((n, d))
            case "binary":
                X = (X > 0).astype(float)
            case "collinear" | "near collinear":
                rank = max(1, d // 2)
                X = X[:, :rank] @ rng.integers(-2, 3, (rank, d))
                if self.shape == "near collinear":
                    X = X + 10.0 ** rng.uniform(-13, -5) * rng.standard_normal((n, d))
            case "heavy tails":
                X = rng.standard_cauchy((n, d)) ** 3
        for move in self.moves:
            match move:
                case "scales":
                    X = X * 10.0 ** rng.uniform(-6, 6, d)
                case "offset":
                    X = X + 1e8 * rng.choice([-1.0, 1.0], d)
                case "symmetric":
                    X[n // 2 :] = -X[: n - n // 2]
                case "cluster":
                    X[: n // 2] = X[0] + 10.0 ** rng.uniform(-12, -2) * (X[: n // 2] - X[0])
        if not np.ptp(X, axis=0).any():
            X[0] = X[0] + 1.0
        return X

    @cached_property
    def sample_weight(self) -> np.ndarray | None:
        """Weights (n,) of the samples, or None."""
        rng = np.random.default_rng([self.seed, self.number, 2])
        match self.weights:
            case "uniform":
                return rng.uniform(0.1, 2, self.n)
            case "far apart":
                return 10.0 ** rng.uniform(-9, 9, self.n)
        return None

    @cached_property
    def design(self) -> Any:
        """The fitted design."""
        match self.normalization:
            case "batch":
                design = BatchNormDesign(rtol=self.rtol, spectral_power=self.spectral_power)
            case "weight":
                design = WeightNormDesign(bias=self.bias)
            case _:
                design = PostActivationBatchNormDesign(rtol=self.rtol)
        return design.fit(self.X, sample_weight=self.sample_weight)

    @cached_property
    def planted(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights (k, m) and output weights (m, C) of a network on the design matrix, some of whose kinks are rows."""
        rng, Z = np.random.default_rng([self.seed, self.number, 3]), self.Z
        k, m = Z.shape[1], int(rng.integers(1, 4))
        weights = rng.standard_normal((k, m))
        for j in range(m):
            if rng.random() < 0.5 and k > 1:
                normals = Z[rng.integers(self.n, size=k - 1)]
                weights[:, j] = np.linalg.svd(normals)[2][-1]
        return weights, rng.standard_normal((m, self.n_outputs))

    @cached_property
    def Z(self) -> np.ndarray:
        """The design matrix (n, k)."""
        return np.asarray(self.design.transform(self.X))

    @cached_property
    def y(self) -> np.ndarray:
        """The targets (n, C): labels -1 and +1 or one-hot rows for the losses that take them."""
        rng, loss = np.random.default_rng([self.seed, self.number, 4]), LOSSES[self.loss]
        shape = (self.n, self.n_outputs)
        noise = rng.standard_normal(shape)
        weights, outputs = self.planted
        with np.errstate(over="ignore"):
            fitted = np.maximum(self.Z @ weights, 0) @ outputs
        fitted = fitted / (np.abs(fitted).max() or 1.0)
        match self.targets:
            case "planted exactly":
                y = fitted
            case "planted":
                y = fitted + 0.05 * noise
            case "binary":
                y = (noise > 0).astype(float)
            case "offset":
                y = noise + 1e8
            case "tiny":
                y = 1e-9 * noise
            case "huge":
                y = 1e9 * noise
            case "heavy tails":
                y = rng.standard_cauchy(shape)
            case _:
                y = noise
        if loss.one_hot:
            classes = y.argmax(axis=1)
            classes[: self.n_outputs] = np.arange(self.n_outputs)  # each class has a sample
            return np.eye(self.n_outputs)[classes]
        if loss.margin:
            y = np.where(y > np.median(y), 1.0, -1.0)
            y[0, 0] = -y[1, 0]
        return y

    def problem(self, weight_decay: float) -> Problem:
        """The training problem."""
        kind = PostActivationProblem if self.normalization == "after" else Problem
        return kind(
            KINDS[self.kind](self.Z),
            self.y,
            self.loss,
            weight_decay=weight_decay,
            fit_intercept=self.fit_intercept,
            sample_weight=self.sample_weight,
        )

    @property
    def activation(self) -> str:
        """The network: gated ReLU in a tenth of the cases."""
        return "gated_relu" if self.gated and self.normalization != "after" else "relu"

    def as_json(self) -> dict[str, Any]:
        """What the case is, for its line of the record."""
        return {name: value for name, value in self._choices.items() if name != "gated"} | {
            "activation": self.activation,
            "kind": self.kind,
        }
