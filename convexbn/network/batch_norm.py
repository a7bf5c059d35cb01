"""The batch-normalized network."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_array

from convexbn.design import BatchNormDesign, WeightNormDesign
from convexbn.network.base import NormalizedNetwork, import_torch, layers_of, output_layer, tensor, to_numpy
from convexbn.sample_weight import weighted_samples

if TYPE_CHECKING:
    import torch

SMALLEST_EPS = float(np.finfo(float).tiny)  # torch's normalization layers refuse none at all
_BLOCK_ENTRIES = 2**22  # entries of the data made double at once
_ROUNDING = 10 * np.finfo(float).eps  # a standard deviation below this share of what is added up is rounding


@dataclass(frozen=True, eq=False)
class BatchNormNetwork(NormalizedNetwork):
    """Two-layer network Linear -> BatchNorm -> ReLU -> Linear, trained on the full batch.

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
    mean, std : ndarray of shape (m,)
        Population mean and standard deviation of x·w_j over the training data.

    Raises
    ------
    ValueError
        If the shapes do not fit together, an entry is not finite, or a std is not positive.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, Section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.network import BatchNormNetwork
    >>> one = np.ones(1)
    >>> network = BatchNormNetwork([[1.0]], one, 0 * one, [[2.0]], 0 * one, mean=3 * one, std=one)
    >>> network.predict([[1.0], [5.0]])
    array([[0.],
           [4.]])
    """

    mean: np.ndarray
    std: np.ndarray

    per_neuron = ("gamma", "bias", "mean", "std")
    design: ClassVar[type[BatchNormDesign] | type[WeightNormDesign]] = BatchNormDesign

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.std > 0).all():
            raise ValueError("std must be positive.")

    @classmethod
    def at_initialization(
        cls,
        X: ArrayLike,
        n_neurons: int,
        *,
        n_outputs: int = 0,
        sample_weight: ArrayLike | None = None,
        random_state: int | np.random.Generator | None = None,
    ) -> Self:
        """Untrained network: Gaussian weights, gamma one, bias and intercept zero, small output weights.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Data whose statistics the network carries.
        n_neurons : int
            Width m.
        n_outputs : int, default=0
            Outputs C; 0 for a hidden layer that others build upon. Output weights are Gaussian over m.
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples in the statistics. All equal if None.
        random_state : int, Generator or None, default=None
            Seed of the weights.

        Returns
        -------
        network : BatchNormNetwork
        """
        data = check_array(X, dtype="numeric")
        layers = initial_layers(n_neurons, data.shape[1], n_outputs, random_state)
        return cls(**layers).with_statistics(data, sample_weight)

    def population_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and std (m,) over the training data."""
        return self.mean, self.std

    def batch_statistics(self, X: np.ndarray, sample_weight: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Mean and std (m,) of x·w_j over X; a ValueError if a neuron does not vary over X."""
        weights, data = weighted_samples(sample_weight, X)
        _, first_rows = next(self._row_blocks(data[:1]))
        origin = first_rows[0]  # deviations from it are exactly zero where a neuron does not vary
        total, mean, squares = 0.0, np.zeros(len(self)), np.zeros(len(self))
        largest = np.zeros_like(origin)
        for samples, rows in self._row_blocks(data):
            moved = rows - origin
            largest = np.maximum(largest, np.abs(moved).max(axis=0))
            deviations = moved @ self.weights.T
            row_weights = np.repeat(weights[samples], len(rows) // len(weights[samples]))
            share = row_weights.sum() / (total + row_weights.sum())
            block_mean = np.average(deviations, axis=0, weights=row_weights)
            deviations -= block_mean
            deviations *= deviations
            squares += row_weights @ deviations + total * share * (block_mean - mean) ** 2
            mean += share * (block_mean - mean)
            total += row_weights.sum()
        std = np.sqrt(squares / total)
        if not (std > _ROUNDING * (np.abs(self.weights) @ largest)).all():
            raise ValueError("A neuron does not vary over X, so it cannot be batch-normalized on it.")
        return self.weights @ origin + mean, std

    def with_statistics(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Return the network whose population statistics are those of X (n, d), weighted by `sample_weight` (n,)."""
        mean, std = self.batch_statistics(self.check_data(X), sample_weight)
        return replace(self, mean=mean, std=std)

    def _row_blocks(self, X: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of the samples and what the neurons read of them, in double precision, a block at a time."""
        size = max(1, _BLOCK_ENTRIES // max(self.weights.shape))
        for start in range(0, len(X), size):
            samples = slice(start, start + size)
            yield samples, X[samples].astype(np.float64)

    def to_torch(self) -> "torch.nn.Sequential":
        """Return the modules of `hidden_to_torch` and Linear, the output layer, in double precision.

        In ``eval()`` its output equals `predict`; in ``train()`` on the full training batch it does too. Our batch
        normalization divides by the standard deviation itself, so torch's has the smallest positive number as eps. A
        network without neurons gets one that is zero.

        Returns
        -------
        module : torch.nn.Sequential

        Raises
        ------
        ImportError
            If PyTorch is not installed.
        """
        torch = import_torch()
        if len(self) == 0:
            return self._idle().to_torch()
        return torch.nn.Sequential(*self.hidden_to_torch(), output_layer(self))

    def hidden_to_torch(self) -> list[Any]:
        """Return Linear, BatchNorm1d and ReLU; there must be a neuron."""
        torch = import_torch()
        m, d = self.weights.shape
        hidden = torch.nn.Linear(d, m, bias=False, dtype=torch.float64)
        hidden.weight = tensor(self.weights)
        norm = self._fill(torch.nn.BatchNorm1d(m, eps=SMALLEST_EPS, dtype=torch.float64))
        return [hidden, norm, torch.nn.ReLU()]

    def _idle(self) -> Self:
        """Network with one neuron, which is zero, in place of none."""
        zero = np.zeros(1)
        return replace(
            self,
            weights=np.zeros((1, self.weights.shape[1])),
            gamma=zero,
            bias=zero,
            output_weights=np.zeros((1, self.n_outputs)),
            mean=zero,
            std=zero + 1,
        )

    def _fill(self, norm: Any) -> Any:
        """Give a normalization layer of torch the scale, shift and statistics of the neurons."""
        norm.weight, norm.bias = tensor(self.gamma), tensor(self.bias)
        norm.running_mean, norm.running_var = import_torch().tensor(self.mean), import_torch().tensor(self.std**2)
        return norm

    @staticmethod
    def decayed_parameters(module: Any) -> list[Any]:
        """Return gamma, bias and output weights of a torch module."""
        return [module[1].weight, module[1].bias, module[-1].weight]

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        """Read a torch.nn.Sequential of Linear, BatchNorm1d, ReLU, Linear, with its running statistics.

        Parameters
        ----------
        module : torch.nn.Sequential
            Trained network. PyTorch's running statistics are moving averages with an unbiased variance;
            `with_statistics` sets those of the training data instead.

        Returns
        -------
        network : BatchNormNetwork

        Raises
        ------
        ValueError
            If the layers are others.
        """
        hidden, norm, _, output = layers_of(
            module, "Linear, BatchNorm1d, ReLU, Linear", "Linear", "BatchNorm1d", "ReLU", "Linear"
        )
        return cls(weights=to_numpy(hidden.weight), **read_layers(hidden, norm, output))


def read_layers(hidden: Any, norm: Any, output: Any) -> dict[str, np.ndarray]:
    """Fields of the network, other than its weights, that torch's layers hold."""
    if not norm.track_running_stats:
        raise ValueError(f"module's {type(norm).__name__} keeps no running statistics; set track_running_stats=True.")
    m = norm.num_features
    return {
        "gamma": to_numpy(norm.weight) if norm.affine else np.ones(m),
        "bias": to_numpy(norm.bias) if norm.affine else np.zeros(m),
        "output_weights": to_numpy(output.weight).T,
        "intercept": to_numpy(output.bias) if output.bias is not None else np.zeros(output.out_features),
        "mean": to_numpy(norm.running_mean) - (to_numpy(hidden.bias) if hidden.bias is not None else 0),
        "std": np.sqrt(to_numpy(norm.running_var) + norm.eps),
    }


def initial_layers(
    n_neurons: int, n_entries: int, n_outputs: int, random_state: int | np.random.Generator | None
) -> dict[str, np.ndarray]:
    """Fields of an untrained network that does not know its statistics yet."""
    rng, one, zero = np.random.default_rng(random_state), np.ones(n_neurons), np.zeros(n_neurons)
    return {
        "weights": rng.standard_normal((n_neurons, n_entries)),
        "gamma": one,
        "bias": zero,
        "output_weights": rng.standard_normal((n_neurons, n_outputs)) / n_neurons,
        "intercept": np.zeros(n_outputs),
        "mean": zero,
        "std": one,
    }
