"""Synthetic regression instances R0 to R3, on which all methods minimise the same objective."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from convexbn import BatchNormDesign, Problem
from convexbn.datasets import make_teacher

SIZES = {"R0": (200, 5), "R1": (500, 10), "R2": (5000, 50), "R3": (2000, 20)}


@dataclass(frozen=True, eq=False)
class Instance:
    """Data, weight decay and name; `problem` is the training problem on the whitened data."""

    name: str
    X: np.ndarray
    y: np.ndarray
    weight_decay: float

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.y)

    @cached_property
    def problem(self) -> Problem:
        """The training problem on the design matrix."""
        return Problem(BatchNormDesign().fit_transform(self.X), self.y, weight_decay=self.weight_decay)

    def summary(self) -> dict:
        """What a result file says of the instance."""
        return {"n": self.n, "d": self.X.shape[1], "weight_decay": self.weight_decay}


def make_instance(n: int, d: int, *, name: str = "", fraction: float = 0.02, seed: int = 0) -> Instance:
    """Draw data of a random ReLU teacher with five neurons.

    The weight decay is `fraction` times ``|Z^T y| / n``, the price of the pattern on which all samples are active.
    """
    X, y = make_teacher(n, d, random_state=seed)
    Z = BatchNormDesign().fit_transform(X)
    return Instance(name or f"n={n}, d={d}", X, y, fraction * float(np.linalg.norm(Z.T @ y)) / n)


def named_instance(name: str) -> Instance:
    """One of R0 (n=200, d=5), R1 (500, 10), R2 (5000, 50) and R3 (2000, 20)."""
    return make_instance(*SIZES[name], name=name)
