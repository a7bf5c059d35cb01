"""The network that is batch-normalized after the ReLU."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.array_namespace import doubles, is_elsewhere, like, positive_part, to_numpy
from convexbn._utils.checks import make_generator
from convexbn._utils.data_checks import check_array
from convexbn._utils.sample_weight import weighted_samples
from convexbn.designs._post_activation import PostActivationBatchNormDesign
from convexbn.designs._principal_directions import EXACT_RTOL
from convexbn.model._neurons import Neurons
from convexbn.model._normalized_neurons import NormalizedNeurons, prune_normalized
from convexbn.network._base import TORCH_EPS, NormalizedNetwork, import_torch, tensor
from convexbn.network._batch_norm import compensated, filled, initial_layers, read_layers
from convexbn.network._torch_layers import array_of, layers_of

_BLOCK_ENTRIES = 2**22  # of the activations made at once
_CONSTANT = 1e-12  # of the largest activation: a standard deviation that is no more is rounding


@dataclass(frozen=True, eq=False, repr=False)
class PostActivationBatchNormNetwork(NormalizedNetwork):
    """Two-layer network Linear -> ReLU -> BatchNorm -> Linear, trained on the full batch.

    ``f(x) = sum_j (gamma_j (a_j(x) - mean_j) / std_j + bias_j) c_j + intercept`` with the activations
    ``a_j(x) = relu(x·w_j + offset_j)``, whose mean and standard deviation are those over the training data. A neuron
    whose activation does not vary there has a standard deviation of 1 in place of zero, and is constant in training,
    as in PyTorch.

    Parameters
    ----------
    weights : ndarray of shape (m, d)
        Hidden weights w_j.
    gamma, bias : ndarray of shape (m,)
        Scale and shift of the normalization layer.
    output_weights : ndarray of shape (m, C)
        Output weights c_j.
    intercept : ndarray of shape (C,)
        Output intercept.
    offsets : ndarray of shape (m,)
        Biases of the hidden layer, on which there is no weight decay.
    mean, std : ndarray of shape (m,)
        Population mean and standard deviation of the activations over the training data.

    Raises
    ------
    ValueError
        If the shapes do not fit together, an entry is not finite, or a std is not positive.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import PostActivationBatchNormNetwork
    >>> one = np.ones(1)
    >>> network = PostActivationBatchNormNetwork([[1.0]], one, 0 * one, [[2.0]], 0 * one, -3 * one, mean=one, std=one)
    >>> network.predict([[1.0], [5.0]])
    array([[-2.],
           [ 2.]])
    """

    offsets: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    per_neuron = ("gamma", "bias", "offsets", "mean", "std")
    design: ClassVar[Any] = PostActivationBatchNormDesign

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.std > 0).all():
            raise ValueError("std must be positive.")

    @classmethod
    def from_neurons(cls, neurons: Neurons | NormalizedNeurons, design: PostActivationBatchNormDesign) -> Self:
        """Map neurons on a fitted design back to layer weights, sharing the penalty evenly between both layers."""
        if not isinstance(neurons, NormalizedNeurons):
            if len(neurons):
                raise ValueError("A network normalized after the ReLU takes NormalizedNeurons, not Neurons.")
            return cls._without_neurons(design.mean_.size, neurons.intercept)
        neurons = neurons.balanced()
        weights, offsets = design.affine(neurons.weights)
        return cls(
            weights,
            neurons.gamma,
            neurons.bias,
            neurons.output_weights,
            neurons.intercept,
            offsets=offsets,
            mean=neurons.mean,
            std=neurons.std,
        )

    @classmethod
    def _without_neurons(cls, n_features: int, intercept: np.ndarray) -> Self:
        none = np.zeros(0)
        weights, outputs = np.zeros((0, n_features)), np.zeros((0, len(intercept)))
        return cls(weights, none, none, outputs, intercept, none, none, none)

    @classmethod
    def at_initialization(
        cls,
        X: ArrayLike,
        n_neurons: int,
        *,
        n_outputs: int,
        sample_weight: ArrayLike | None = None,
        random_state: int | np.random.Generator | None = None,
    ) -> Self:
        """Untrained network: Gaussian weights, gamma one, bias and intercept zero, small output weights.

        The kink of a neuron lies halfway between two random samples, so that it is active on some samples alone.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Data whose statistics the network carries.
        n_neurons : int
            Width m.
        n_outputs : int
            Outputs C. Output weights are Gaussian over m.
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples in the statistics. All equal if None.
        random_state : int, Generator or None, default=None
            Seed of the weights.

        Returns
        -------
        network : PostActivationBatchNormNetwork

        Raises
        ------
        ValueError
            If X is not finite and 2-D, or has fewer than two samples.

        Examples
        --------
        >>> import numpy as np
        >>> from convexbn import PostActivationBatchNormNetwork
        >>> X = np.random.default_rng(0).standard_normal((10, 3))
        >>> PostActivationBatchNormNetwork.at_initialization(X, 4, n_outputs=1, random_state=0)
        PostActivationBatchNormNetwork(3 features, 4 neurons, 1 output)
        """
        data = check_array(X, dtype="numeric", ensure_min_samples=2)
        rng = make_generator(random_state)
        layers = initial_layers(n_neurons, data.shape[1], n_outputs, rng)
        pairs = np.array([rng.choice(len(data), 2, replace=False) for _ in range(n_neurons)])
        offsets = -(layers["weights"] * data[pairs].mean(axis=1, dtype=np.float64)).sum(axis=1)
        return cls(**layers, offsets=offsets).with_statistics(data, sample_weight)

    def population_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and std (m,) of the activations over the training data."""
        return self.mean, self.std

    def batch_statistics(self, X: np.ndarray, sample_weight: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Mean and std (m,) of the activations over X; a std of 1 where they do not vary."""
        weights, data = weighted_samples(sample_weight, X)
        total, mean, squares, largest = 0.0, np.zeros(len(self)), np.zeros(len(self)), np.zeros(len(self))
        size = max(1, _BLOCK_ENTRIES // max(self.weights.shape))
        for start in range(0, data.shape[0], size):
            rows = slice(start, start + size)
            active, of_rows = to_numpy(self._activations(data[rows, :])), weights[rows]
            share = of_rows.sum() / (total + of_rows.sum())
            block_mean = np.average(active, axis=0, weights=of_rows)
            largest = np.maximum(largest, active.max(axis=0))
            squares += of_rows @ (active - block_mean) ** 2 + total * share * (block_mean - mean) ** 2
            mean += share * (block_mean - mean)
            total += of_rows.sum()
        std = np.sqrt(squares / total)
        if not np.isfinite(std).all():
            raise ValueError("The standard deviations over X overflow: X holds numbers too large to be squared.")
        return mean, np.where(std > _CONSTANT * largest, std, 1.0)

    def with_statistics(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Return the network whose population statistics are those of X (n, d), weighted by `sample_weight` (n,)."""
        mean, std = self.batch_statistics(self.check_data(X), sample_weight)
        return replace(self, mean=mean, std=std)

    def origin(self, X: np.ndarray) -> np.ndarray:
        """Zero: the hidden layer has biases of its own."""
        return np.zeros(1)

    def neurons(self, design: PostActivationBatchNormDesign) -> NormalizedNeurons:
        """Return the neurons on a fitted design, that of the training data.

        Parameters
        ----------
        design : PostActivationBatchNormDesign
            The fitted design.

        Returns
        -------
        neurons : NormalizedNeurons
        """
        inside = design.coloring_ @ self.weights.T
        constant = self.weights @ design.mean_ + self.offsets
        return NormalizedNeurons(
            np.vstack([inside, constant]),
            self.gamma,
            self.bias,
            self.mean,
            self.std,
            self.output_weights,
            self.intercept,
        )

    def prune(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Return a smaller network with the same predictions on the training data and no higher objective.

        Neurons of equal pattern and output direction are added up, zeros dropped, and by Caratheodory's theorem at
        most n*C + 1 neurons kept.

        Parameters
        ----------
        X : array-like of shape (n, d)
            The training data, whose statistics the network carries.
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples in training. All equal if None.

        Returns
        -------
        network : PostActivationBatchNormNetwork

        Raises
        ------
        ValueError
            If the population statistics are not those of X, so that predictions would change.
        """
        data = self._check_statistics(X, sample_weight)
        weights, data = weighted_samples(sample_weight, data)
        design = self.design(rtol=EXACT_RTOL).fit(data, sample_weight=weights)
        neurons = prune_normalized(self.neurons(design), design.matrix(data), weights / weights.sum())
        return type(self).from_neurons(neurons, design)

    def hidden_to_torch(self, eps: float = TORCH_EPS) -> list[Any]:
        """Return Linear, ReLU and BatchNorm1d; there must be a neuron. See `to_torch` for `eps`."""
        torch = import_torch()
        lengths, fields = compensated(self, eps)
        network = replace(self, weights=lengths[:, None] * self.weights, offsets=lengths * self.offsets, **fields)
        m, d = network.weights.shape
        hidden = torch.nn.Linear(d, m, dtype=torch.float64)
        hidden.weight, hidden.bias = tensor(network.weights), tensor(network.offsets)
        return [hidden, torch.nn.ReLU(), filled(network, torch.nn.BatchNorm1d(m, eps=eps, dtype=torch.float64))]

    def _inside(self) -> tuple[np.ndarray, np.ndarray]:
        return self.weights, self.offsets

    def _outside(self) -> tuple[np.ndarray, np.ndarray]:
        scale = self.gamma / self.std
        return scale, self.bias - scale * self.mean

    def _idle(self) -> Self:
        zero = np.zeros(1)
        weights, outputs = np.zeros((1, self.weights.shape[1])), np.zeros((1, self.n_outputs))
        return type(self)(weights, zero, zero, outputs, self.intercept, zero, zero, zero + 1)

    @staticmethod
    def decayed_parameters(module: Any) -> list[Any]:
        """Return gamma, bias and output weights of a torch module."""
        return [module[2].weight, module[2].bias, module[-1].weight]

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        """Read a torch.nn.Sequential of Linear, ReLU, BatchNorm1d, Linear, with its running statistics.

        Parameters
        ----------
        module : torch.nn.Sequential
            Trained network, in whatever mode; `predict` equals its output in ``eval()``. Layers may be parametrized,
            and Dropout is left out. `with_statistics` sets the statistics of the training data in place of torch's
            moving averages.

        Returns
        -------
        network : PostActivationBatchNormNetwork

        Raises
        ------
        ValueError
            If the layers are others, or keep no running statistics.
        """
        hidden, _, norm, output = layers_of(
            module, "Linear, ReLU, BatchNorm1d, Linear", "Linear", "ReLU", "BatchNorm1d", "Linear"
        )
        offsets = array_of(hidden, "bias")
        read = read_layers(None, norm, output)
        return cls(
            weights=array_of(hidden, "weight"),
            offsets=np.zeros(len(read["mean"])) if offsets is None else offsets,
            **read,
        )

    def _activations(self, rows: np.ndarray) -> np.ndarray:
        rows = doubles(rows) if is_elsewhere(rows) else rows
        W, offsets = like(rows, self.weights, self.offsets)
        return positive_part(rows @ W.T + offsets)

    def _hidden(self, rows: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
        """Outputs of the neurons on rows of data."""
        active = self._activations(rows)
        gamma, bias, mean, std = like(active, self.gamma, self.bias, mean, std)
        return gamma * (active - mean) / std + bias
