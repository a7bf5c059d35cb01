"""The hidden and output weights of a two-layer network on a design matrix."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from convexbn.losses import Loss
from convexbn.model._base_neurons import BaseNeurons
from convexbn.model._sums import gated_network_outputs, loss_of_outputs, network_outputs
from convexbn.operators._protocol import Operator


@dataclass(frozen=True, eq=False, repr=False)
class Neurons(BaseNeurons):
    """Neurons (s_j, c_j) on a design matrix: f = sum_j relu(Z s_j) c_j^T + intercept.

    With `gates` the network is gated: f = sum_j 1[Z g_j >= 0] * (Z s_j) c_j^T + intercept.

    Parameters
    ----------
    weights : ndarray of shape (k, m)
        Hidden weights, column j is s_j.
    output_weights : ndarray of shape (m, C)
        Output weights, row j is c_j.
    intercept : ndarray of shape (C,)
        Output intercept, which is not penalised; zero if none is fitted.
    gates : ndarray of shape (k, m) or None, default=None
        Gate directions g_j of a gated ReLU network.

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import Neurons
    >>> twins = Neurons(np.array([[1.0, 2.0]]), np.array([[1.0], [1.0]]), np.zeros(1))
    >>> twins.cost
    array([1., 2.])
    """

    weights: np.ndarray
    output_weights: np.ndarray
    intercept: np.ndarray
    gates: np.ndarray | None = None

    def __post_init__(self) -> None:
        self._as_arrays()
        fits = (
            self.weights.ndim == self.output_weights.ndim == 2
            and self.weights.shape[1] == len(self.output_weights)
            and self.intercept.shape == self.output_weights.shape[1:]
            and (self.gates is None or self.gates.shape == self.weights.shape)
        )
        if not fits:
            raise ValueError(
                "Neurons take weights (k, m), output_weights (m, C), intercept (C,) and gates (k, m) or None; got "
                f"{self.weights.shape}, {self.output_weights.shape}, {self.intercept.shape}"
                + ("." if self.gates is None else f", {self.gates.shape}.")
            )

    @property
    def _kind(self) -> str:
        return "neuron" if self.gates is None else "gated neuron"

    @property
    def norms(self) -> np.ndarray:
        """|s_j| of each neuron, shape (m,)."""
        return np.linalg.norm(self.weights, axis=0)

    @property
    def finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        return all(np.isfinite(part).all() for part in (self.weights, self.output_weights, self.intercept))

    def outputs(self, Z: Operator) -> np.ndarray:
        """Predictions f on the samples of a design matrix, shape (n, C)."""
        if len(self.weights) != Z.n_columns:
            raise ValueError(f"weights have {len(self.weights)} rows, Z has {Z.n_columns} columns.")
        function, arrays = self._in_blocks
        with np.errstate(over="ignore", invalid="ignore"):  # of weights that are huge or infinite, which outputs show
            return Z.mapped(function, **arrays)

    def training_loss(self, Z: Operator, loss: Loss, y: Any, p: Any) -> float:
        """Loss of the predictions with targets y and sample weights p, which are where the rows of Z are."""
        function, arrays = self._in_blocks
        return float(Z.summed(loss_of_outputs, y, p, loss=loss, outputs=function, **arrays))

    @property
    def _in_blocks(self) -> tuple[Callable[..., Any], dict[str, np.ndarray]]:
        """The function of blocks that makes the predictions, and its arrays."""
        arrays = {"weights": self.weights, "output_weights": self.output_weights, "intercept": self.intercept}
        return (
            (network_outputs, arrays) if self.gates is None else (gated_network_outputs, {"gates": self.gates} | arrays)
        )

    def balanced(self) -> Self:
        """Return the same network with |s_j| = |c_j|, at which the two-layer penalty is least."""
        ratio, inverse = self._sharing()
        return replace(self, weights=self.weights * ratio, output_weights=self.output_weights * inverse[:, None])

    def with_unit_outputs(self) -> Self:
        """Return the same network with |c_j| = 1, without zeros."""
        neurons = self.without_zeros()
        sizes = np.linalg.norm(neurons.output_weights, axis=1)
        return replace(neurons, weights=neurons.weights * sizes, output_weights=neurons.output_directions)

    @classmethod
    def averaged(cls, networks: list[Self]) -> Self:
        """The network whose outputs are the mean of those of some networks."""
        parts = [network for network in networks if len(network)] or networks[:1]
        return cls(
            np.hstack([network.weights for network in parts]) / len(networks),
            np.vstack([network.output_weights for network in parts]),
            np.mean([network.intercept for network in networks], axis=0),
        )

    def take(self, keep: np.ndarray) -> Self:
        """Return the network of some of the neurons."""
        gates = None if self.gates is None else self.gates[:, keep]
        return replace(self, weights=self.weights[:, keep], output_weights=self.output_weights[keep], gates=gates)

    @property
    def directions(self) -> np.ndarray:
        """Unit weights s_j / |s_j|, one a column: (k, m)."""
        return self.weights / np.linalg.norm(self.weights, axis=0)
