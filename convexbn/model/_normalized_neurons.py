"""Neurons that are batch-normalized after the ReLU."""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import numpy as np

from convexbn._utils.summary import Summarized, counted
from convexbn.operators._protocol import Operator

_CONSTANT = 1e-12  # of the largest entry: activations whose standard deviation is no more do not vary


@dataclass(frozen=True, eq=False, repr=False)
class NormalizedNeurons(Summarized):
    """Neurons normalized after the ReLU: f = sum_j h_j c_j^T + intercept, h_j = gamma_j (a_j - mean_j) / std_j + bias_j.

    The activations are a_j = relu(Z w_j); the length of w_j drops out.

    Parameters
    ----------
    weights : ndarray of shape (k, m)
        Hidden weights, column j is w_j.
    gamma, bias : ndarray of shape (m,)
        Scale and shift after normalization.
    mean, std : ndarray of shape (m,)
        Mean and standard deviation of the activations over the training samples, with their weights; the standard
        deviation of activations that do not vary counts as 1.
    output_weights : ndarray of shape (m, C)
        Output weights, row j is c_j.
    intercept : ndarray of shape (C,)
        Output intercept, which is not penalised; zero if none is fitted.

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix, NormalizedNeurons
    >>> Z, p = DesignMatrix(np.array([[1.0], [-1.0]])), np.full(2, 0.5)
    >>> neurons = NormalizedNeurons.on(Z, p, np.ones((1, 1)), np.full(1, -0.5), np.ones((1, 1)), np.zeros(1))
    >>> neurons.outputs(Z).ravel(), neurons.cost
    (array([ 0.5, -0.5]), array([0.5]))
    """

    weights: np.ndarray
    gamma: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    output_weights: np.ndarray
    intercept: np.ndarray

    def __post_init__(self) -> None:
        m = len(self.output_weights)
        fits = (
            self.weights.ndim == self.output_weights.ndim == 2
            and self.weights.shape[1] == m
            and self.intercept.shape == self.output_weights.shape[1:]
            and self.gamma.shape == self.bias.shape == self.mean.shape == self.std.shape == (m,)
        )
        if not fits:
            raise ValueError(
                "NormalizedNeurons take weights (k, m), output_weights (m, C), intercept (C,) and gamma, bias, mean "
                f"and std (m,); got {[getattr(self, field.name).shape for field in fields(self)]}."
            )

    @classmethod
    def on(
        cls,
        Z: Operator,
        sample_weight: np.ndarray,
        weights: np.ndarray,
        shift: np.ndarray,
        output_weights: np.ndarray,
        intercept: np.ndarray,
    ) -> Self:
        """Neurons whose outputs on the training samples are h_j = relu(Z w_j) + shift_j.

        Parameters
        ----------
        Z : Operator
            Design matrix of the training samples.
        sample_weight : ndarray of shape (n,)
            Their weights, which add up to one.
        weights : ndarray of shape (k, m)
            Hidden weights, lengths included.
        shift : ndarray of shape (m,)
            What is added to the activations.
        output_weights : ndarray of shape (m, C)
            Output weights.
        intercept : ndarray of shape (C,)
            Output intercept.

        Returns
        -------
        neurons : NormalizedNeurons
        """
        activations = Z.neuron_outputs(weights)
        mean = sample_weight @ activations
        std = np.sqrt(sample_weight @ (activations - mean) ** 2)
        varies = std > _CONSTANT * activations.max(axis=0, initial=0)
        std, gamma = np.where(varies, std, 1.0), np.where(varies, std, 0.0)
        return cls(weights, gamma, mean + shift, mean, std, output_weights, intercept)

    def __len__(self) -> int:
        return self.weights.shape[1]

    def _summary(self) -> str:
        columns, outputs = counted(len(self.weights), "column"), counted(len(self.intercept), "output")
        return f"{columns}, {counted(len(self), 'neuron')}, {outputs}"

    @property
    def norms(self) -> np.ndarray:
        """|(gamma_j, bias_j)|, the weighted norms of the outputs h_j over the training samples: shape (m,)."""
        return np.hypot(self.gamma, self.bias)

    @cached_property
    def cost(self) -> np.ndarray:
        """|(gamma_j, bias_j)| |c_j| of each neuron, shape (m,): what weight decay penalises."""
        return self.norms * np.linalg.norm(self.output_weights, axis=1)

    @property
    def scaled_weights(self) -> np.ndarray:
        """Hidden weights (k, m) of the length at which h_j = relu(Z w_j) + shift_j; gamma is not negative."""
        return self.weights * (self.gamma / self.std)

    @property
    def shift(self) -> np.ndarray:
        """The shift_j beside `scaled_weights`, shape (m,)."""
        return self.bias - self.gamma * self.mean / self.std

    @property
    def gates(self) -> None:
        """Gate directions, of which there are none."""
        return None

    @property
    def output_directions(self) -> np.ndarray:
        """Unit output weights c_j / |c_j|, one a row: (m, C)."""
        return self.output_weights / np.linalg.norm(self.output_weights, axis=1)[:, None]

    @property
    def finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        return all(np.isfinite(getattr(self, field.name)).all() for field in fields(self))

    def hidden(self, Z: Operator) -> np.ndarray:
        """Outputs h_j of the neurons on the samples of a design matrix, shape (n, m)."""
        return self.gamma * ((Z.neuron_outputs(self.weights) - self.mean) / self.std) + self.bias

    def outputs(self, Z: Operator) -> np.ndarray:
        """Predictions f on the samples of a design matrix, shape (n, C)."""
        return self.hidden(Z) @ self.output_weights + self.intercept

    def balanced(self) -> Self:
        """Return the same network with |(gamma_j, bias_j)| = |c_j|, at which the two-layer penalty is least."""
        hidden, output = self.norms, np.linalg.norm(self.output_weights, axis=1)
        alive = self.cost > 0
        ratio = np.sqrt(np.divide(output, hidden, where=alive, out=np.zeros_like(output)))
        inverse = np.divide(1, ratio, where=alive, out=np.zeros_like(ratio))
        return replace(
            self,
            gamma=self.gamma * ratio,
            bias=self.bias * ratio,
            output_weights=self.output_weights * inverse[:, None],
        )

    def joined(self, other: Self) -> Self:
        """Return the network of the neurons of both, with the intercept of this one."""
        both = {
            name: np.concatenate([getattr(self, name), getattr(other, name)])
            for name in ("gamma", "bias", "mean", "std", "output_weights")
        }
        return replace(self, weights=np.hstack([self.weights, other.weights]), **both)

    def with_lengths(self, lengths: np.ndarray, intercept: np.ndarray) -> Self:
        """Return the network of neurons h_j times lengths (m,) that are not negative, with another intercept."""
        return replace(self, gamma=self.gamma * lengths, bias=self.bias * lengths, intercept=intercept)

    def without_zeros(self, rtol: float = 0.0) -> Self:
        """Drop neurons that cost nothing, or no more than `rtol` times the most expensive one."""
        return self.take(self.cost > rtol * self.cost.max(initial=0))

    def take(self, keep: np.ndarray) -> Self:
        """Return the network of some of the neurons."""
        kept = {name: getattr(self, name)[keep] for name in ("gamma", "bias", "mean", "std", "output_weights")}
        return replace(self, weights=self.weights[:, keep], **kept)
