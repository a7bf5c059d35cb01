"""What the neurons of every kind of two-layer network have in common."""

from abc import ABC, abstractmethod
from dataclasses import fields
from functools import cached_property
from typing import Self

import numpy as np

from convexbn._utils.array_namespace import is_elsewhere
from convexbn._utils.checks import real_array
from convexbn._utils.summary import Summarized, counted
from convexbn.operators._protocol import Operator


class BaseNeurons(Summarized, ABC):
    """Neurons on a design matrix, dataclasses of hidden weights (k, m), output weights (m, C) and intercept (C,)."""

    weights: np.ndarray
    output_weights: np.ndarray
    intercept: np.ndarray

    def _as_arrays(self) -> None:
        """Convert the fields of a dataclass, lists and data frames among them, to arrays in double precision."""
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if not is_elsewhere(value) and not (value is None and field.default is None):
                object.__setattr__(self, field.name, real_array(field.name, value))

    def __len__(self) -> int:
        return self.weights.shape[1]

    def _summary(self) -> str:
        columns, outputs = counted(len(self.weights), "column"), counted(len(self.intercept), "output")
        return f"{columns}, {counted(len(self), self._kind)}, {outputs}"

    @property
    def _kind(self) -> str:
        """A neuron, in words."""
        return "neuron"

    @property
    @abstractmethod
    def norms(self) -> np.ndarray:
        """What weight decay penalises of the hidden layer, shape (m,)."""

    @cached_property
    def cost(self) -> np.ndarray:
        """What weight decay penalises of each neuron, its norm times |c_j|: shape (m,)."""
        return self.norms * np.linalg.norm(self.output_weights, axis=1)

    @abstractmethod
    def outputs(self, Z: Operator) -> np.ndarray:
        """Predictions f on the samples of a design matrix, shape (n, C)."""

    @property
    def output_directions(self) -> np.ndarray:
        """Unit output weights c_j / |c_j|, one a row: (m, C)."""
        return self.output_weights / np.linalg.norm(self.output_weights, axis=1)[:, None]

    def without_zeros(self, rtol: float = 0.0) -> Self:
        """Drop neurons that cost nothing, or no more than `rtol` times the most expensive one."""
        return self.take(self.cost > rtol * self.cost.max(initial=0))

    @abstractmethod
    def take(self, keep: np.ndarray) -> Self:
        """Return the network of some of the neurons."""

    def _sharing(self) -> tuple[np.ndarray, np.ndarray]:
        """Factors (m,) of both layers at which a neuron costs the same in each; zero for neurons that cost nothing."""
        hidden, output = self.norms, np.linalg.norm(self.output_weights, axis=1)
        alive = self.cost > 0  # the others add nothing, and are least at zero
        ratio = np.sqrt(np.divide(output, hidden, where=alive, out=np.zeros_like(output)))
        return ratio, np.divide(1, ratio, where=alive, out=np.zeros_like(ratio))
