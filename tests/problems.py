"""Random problems small enough to enumerate, shared by the tests."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from convexbn import Problem
from convexbn.designs._normalizations import NORMALIZATIONS
from convexbn.losses import LOSSES
from convexbn.operators._bits import transposed

ONE_OUTPUT = sorted(set(LOSSES) - {"cross_entropy"})


@dataclass(frozen=True)
class Case:
    """Data and options of one random problem; k is the number of columns of Z."""

    loss: str
    normalization: str
    fit_intercept: bool
    k: int
    seed: int

    @property
    def weight_decay(self):
        return (0.01, 0.03, 0.1)[self.seed % 3]

    def data(self):
        rng = np.random.default_rng(self.seed)
        n = {2: 14, 3: 12, 4: 9}[self.k]
        X = rng.standard_normal((n, self.k - 1)) * np.array([1.0, 10.0, 0.1])[: self.k - 1] + 0.5
        y = np.abs(X[:, 0]) + rng.standard_normal(n)
        return X, np.where(y > np.median(y), 1.0, -1.0) if LOSSES[self.loss].margin else y

    def design(self):
        return NORMALIZATIONS[self.normalization]().fit(self.data()[0])

    def problem(self, **changes):
        X, y = self.data()
        options = {"weight_decay": self.weight_decay, "fit_intercept": self.fit_intercept} | changes
        return Problem(self.design().transform(X), y, self.loss, **options)

    def __str__(self):
        intercept = "intercept" if self.fit_intercept else "plain"
        return f"{self.loss}-{self.normalization}-{intercept}-k{self.k}"


CASES = [
    Case(loss, normalization, fit_intercept, k=2 + i % 3, seed=i)
    for i, (loss, normalization, fit_intercept) in enumerate(
        list(product(ONE_OUTPUT, ("batch", "weight"), (False, True)))
        + [("squared_error", "batch", False)] * 3
        + [("log_loss", "batch", True)] * 3
    )
]


def products_of(kind, Z, masks, **options):
    """Gated products of a kind, with masks (N, P)."""
    bits = Z.place(transposed(np.packbits(masks.T, axis=1), len(masks)))
    return kind(Z, bits, np.arange(masks.shape[1]), **options)
