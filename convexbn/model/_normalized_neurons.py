"""Neurons that are batch-normalized after the ReLU."""

from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Self

import numpy as np

from convexbn.model._base_neurons import BaseNeurons
from convexbn.model._merging import caratheodory
from convexbn.operators._protocol import Operator

# Least standard deviation of activations that vary, relative to sum_k max_i |z_ik| |w_k|: less may be rounding of z·w.
LEAST_STD = 1e-10


@dataclass(frozen=True, eq=False, repr=False)
class NormalizedNeurons(BaseNeurons):
    """Neurons normalized after the ReLU: f = sum_j h_j c_j^T + intercept.

    ``h_j = gamma_j (a_j - mean_j) / std_j + bias_j`` with the activations ``a_j = relu(Z w_j)``. The length of w_j
    drops out.

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
        self._as_arrays()
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
        mean, std = activation_statistics(Z, sample_weight, weights, Z.neuron_outputs(weights))
        return cls(weights, std, mean + shift, mean, np.where(std > 0, std, 1.0), output_weights, intercept)

    @property
    def norms(self) -> np.ndarray:
        """|(gamma_j, bias_j)|, the weighted norms of the outputs h_j over the training samples: shape (m,)."""
        return np.hypot(self.gamma, self.bias)

    @property
    def scaled_weights(self) -> np.ndarray:
        """Hidden weights (k, m) of the length at which h_j = relu(Z w_j) + shift_j; gamma is not negative."""
        return self.weights * (self.gamma / self.std)

    @property
    def shift(self) -> np.ndarray:
        """The shift_j beside `scaled_weights`, shape (m,)."""
        return self.bias - self.gamma * self.mean / self.std

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
        ratio, inverse = self._sharing()
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

    @classmethod
    def averaged(cls, networks: list[Self]) -> Self:
        """The network whose outputs are the mean of those of some networks."""
        joined = reduce(cls.joined, networks)
        intercept = np.mean([network.intercept for network in networks], axis=0)
        return joined.with_lengths(np.full(len(joined), 1 / len(networks)), intercept)

    def with_lengths(self, lengths: np.ndarray, intercept: np.ndarray) -> Self:
        """Return the network of neurons h_j times lengths (m,) that are not negative, with another intercept."""
        return replace(self, gamma=self.gamma * lengths, bias=self.bias * lengths, intercept=intercept)

    def added_up(self, group: np.ndarray, Z: Operator, sample_weight: np.ndarray) -> Self:
        """Return the network in which the neurons of each group (m,) are added up along their mean output direction."""
        count = group.max(initial=-1) + 1
        means = np.zeros((count, len(self.intercept)))
        np.add.at(means, group, self.norms[:, None] * self.output_weights)
        means /= np.maximum(np.linalg.norm(means, axis=1), np.finfo(float).tiny)[:, None]
        along = (self.output_weights * means[group]).sum(axis=1)
        weights, shift = np.zeros((count, len(self.weights))), np.zeros(count)
        np.add.at(weights, group, (self.scaled_weights * along).T)
        np.add.at(shift, group, self.shift * along)
        return type(self).on(Z, sample_weight, weights.T, shift, means, self.intercept)

    def take(self, keep: np.ndarray) -> Self:
        """Return the network of some of the neurons."""
        kept = {name: getattr(self, name)[keep] for name in ("gamma", "bias", "mean", "std", "output_weights")}
        return replace(self, weights=self.weights[:, keep], **kept)


def activation_statistics(
    Z: Operator, sample_weight: np.ndarray, weights: np.ndarray, activations: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (m,) of the activations (n, m) of weights (k, m); zero where they do not vary."""
    mean = sample_weight @ activations
    std = np.sqrt(sample_weight @ (activations - mean) ** 2)
    return mean, np.where(std > LEAST_STD * (largest_entries(Z) @ np.abs(weights)), std, 0.0)


def largest_entries(Z: Operator) -> np.ndarray:
    """The largest |z_ik| of each column, shape (k,)."""
    low, high = Z.column_extremes
    return np.maximum(-low, high)


def prune_normalized(neurons: NormalizedNeurons, Z: Operator, sample_weight: np.ndarray) -> NormalizedNeurons:
    """Fewer neurons with the same outputs on the training samples at no higher cost.

    Neurons of equal activation pattern and output direction are added up, zeros dropped, and if more than n*C + 1 are
    left, Caratheodory's theorem gives as many with the same outputs and total cost.

    Parameters
    ----------
    neurons : NormalizedNeurons
        Neurons on the design matrix.
    Z : Operator
        Design matrix of the training samples.
    sample_weight : ndarray of shape (n,)
        Their weights, which add up to one.

    Returns
    -------
    neurons : NormalizedNeurons
    """
    neurons = neurons.without_zeros()
    if len(neurons) < 2:
        return neurons
    outputs = np.round(neurons.output_directions, 10) + 0.0
    patterns = np.packbits(Z.products(neurons.weights) > 0, axis=0).T
    keys = np.column_stack([patterns, outputs.view(np.uint8)])
    group = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
    neurons = neurons.added_up(group, Z, sample_weight).without_zeros()
    if len(neurons) <= Z.n_samples * len(neurons.intercept) + 1:
        return neurons
    hidden = neurons.hidden(Z)
    parts = (hidden[:, None, :] * neurons.output_weights.T[None]).reshape(-1, len(neurons)) / neurons.cost
    cost = caratheodory(np.vstack([parts, np.full(len(neurons), np.abs(parts).max())]), neurons.cost)
    return neurons.with_lengths(cost / neurons.cost, neurons.intercept).without_zeros()
