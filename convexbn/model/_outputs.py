"""The geometry of output directions: signs for one output, the unit sphere for several.

A neuron (s, c) is a positive multiple of a unit direction of hidden weights and a unit output direction c. What differs
between one output and several is the set that c lies in, and nothing outside this file distinguishes numbers of
outputs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from convexbn.operators import Operator

Gradient = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class OutputDirections(ABC):
    """The set of unit output directions.

    Parameters
    ----------
    n_outputs : int
        Number C of outputs.

    Attributes
    ----------
    fixed : bool
        Whether an output direction stays as it is while its neuron moves: the set has no tangents.
    effort : int
        How many times as many local maxima the oracle is expected to have as with one output.
    """

    n_outputs: int
    fixed = False
    effort = 1

    @abstractmethod
    def random(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Output directions (count, C) to start from."""

    @abstractmethod
    def starts(self, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Directions (k, p) and output directions (C, p) from which the oracle ascends, for starts (k, q)."""

    @abstractmethod
    def best(self, along: np.ndarray, current: np.ndarray) -> np.ndarray:
        """Output directions (C, p) for products V^T relu(Z W) (C, p), reached from the current ones."""

    @abstractmethod
    def gradient(self, Z: Operator, V: np.ndarray) -> Gradient:
        """The oracle's gradient in w, a function of W (k, p) and c (C, p), for a dual point V (N, C) of the rows."""

    def tangents(self, outputs: np.ndarray) -> np.ndarray:
        """Orthonormal bases of the tangent spaces at unit rows (m, C), shape (m, C, C - 1): columns of a reflection."""
        axis = outputs.copy()
        axis[:, 0] += np.where(outputs[:, 0] >= 0, 1.0, -1.0)
        axis /= np.linalg.norm(axis, axis=1, keepdims=True)
        return np.eye(self.n_outputs)[:, 1:] - 2 * axis[:, :, None] * axis[:, None, 1:]


class Signs(OutputDirections):
    """One output: c is +1 or -1, and every start ascends with both."""

    fixed = True

    def random(self, count: int, rng: np.random.Generator) -> np.ndarray:
        return np.where(np.arange(count) % 2 == 0, 1.0, -1.0)[:, None]

    def starts(self, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.tile(directions, 2), np.repeat([[1.0, -1.0]], directions.shape[1], axis=1)

    def best(self, along: np.ndarray, current: np.ndarray) -> np.ndarray:
        return current

    def gradient(self, Z: Operator, V: np.ndarray) -> Gradient:
        weighted = Z.weighted(V)
        return lambda w, c: c * Z.summed(_of_weighted, weighted, w=w)


class Sphere(OutputDirections):
    """Several outputs: c follows its neuron as the direction of V^T relu(Zw)."""

    effort = 3

    def random(self, count: int, rng: np.random.Generator) -> np.ndarray:
        outputs = rng.standard_normal((count, self.n_outputs))
        return outputs / np.linalg.norm(outputs, axis=1, keepdims=True)

    def starts(self, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return directions, np.zeros((self.n_outputs, directions.shape[1]))

    def best(self, along: np.ndarray, current: np.ndarray) -> np.ndarray:
        return along / np.maximum(np.linalg.norm(along, axis=0), np.finfo(along.dtype).tiny)

    def gradient(self, Z: Operator, V: np.ndarray) -> Gradient:
        placed = Z.place(V)

        def of(w: np.ndarray, c: np.ndarray) -> np.ndarray:
            hidden = Z.hold(_hidden, w=w)
            c = self.best(Z.summed(_along, placed, hidden), c)
            return Z.summed(_of_active, placed, hidden, c=c)

        return of


def output_directions(n_outputs: int) -> OutputDirections:
    """Return the geometry of so many outputs."""
    return Signs(1) if n_outputs == 1 else Sphere(n_outputs)


def _of_weighted(Z: Any, weighted: Any, *, w: Any) -> Any:
    return weighted.adjoint(Z.active(w))


def _hidden(Z: Any, *, w: Any) -> Any:
    return Z.hidden(w)


def _along(Z: Any, V: Any, hidden: Any) -> Any:
    return V.T @ hidden


def _of_active(Z: Any, V: Any, hidden: Any, *, c: Any) -> Any:
    return Z.of_active(hidden, V @ c)
