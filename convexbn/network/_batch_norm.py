"""The batch-normalized network."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array, issparse

from convexbn._utils.array_namespace import block_entries, double_mean, doubles, is_elsewhere, like, namespace, to_numpy
from convexbn._utils.checks import check_count, is_integer, make_generator, refuse_huge
from convexbn._utils.data_checks import check_array
from convexbn._utils.sample_weight import weighted_samples
from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._weight_norm import WeightNormDesign
from convexbn.network._base import TORCH_EPS, NormalizedNetwork, import_torch, tensor
from convexbn.network._torch_layers import array_of, layers_of, read_output

_LARGEST_SHARE = 1e-5  # of a variance that eps may be in a torch module
_BLOCK_ENTRIES = 2**22  # entries of the data made double at once
_ROUNDING = 10 * np.finfo(float).eps  # a standard deviation below this share of what is added up is rounding


@dataclass(frozen=True, eq=False, repr=False)
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
    >>> from convexbn import BatchNormNetwork
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

    @np.errstate(over="ignore", invalid="ignore")  # of numbers that are refused then
    def batch_statistics(self, X: np.ndarray, sample_weight: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Mean and std (m,) of x·w_j over X; a ValueError if a neuron does not vary over X."""
        weights, data = weighted_samples(sample_weight, X)
        _, first_rows = next(self._row_blocks(data[:1, ...]))
        origin = first_rows[:1, :]  # deviations from it are exactly zero where a neuron does not vary
        total, mean, squares = 0.0, np.zeros(len(self)), np.zeros(len(self))
        largest = np.zeros(origin.shape[1])
        for samples, rows in self._row_blocks(data):
            row_weights = np.repeat(weights[samples], rows.shape[0] // len(weights[samples]))
            found, block_mean, block_squares = _deviations(
                rows - _repeated(origin, rows.shape[0]), self.weights, row_weights
            )
            share = row_weights.sum() / (total + row_weights.sum())
            largest = np.maximum(largest, found)
            squares += block_squares + total * share * (block_mean - mean) ** 2
            mean += share * (block_mean - mean)
            total += row_weights.sum()
        std = np.sqrt(squares / total)
        if not np.isfinite(std).all():
            raise ValueError("The standard deviations over X overflow: X holds numbers too large to be squared.")
        if not (std > _ROUNDING * (np.abs(self.weights) @ largest)).all():
            raise ValueError("A neuron does not vary over X, so it cannot be batch-normalized on it.")
        return self.weights @ _dense(origin)[0] + mean, std

    def with_statistics(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Return the network whose population statistics are those of X (n, d), weighted by `sample_weight` (n,)."""
        mean, std = self.batch_statistics(self.check_data(X), sample_weight)
        return replace(self, mean=mean, std=std)

    def _row_blocks(self, X: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of the samples and the inputs of neurons in them, in double precision, a block at a time."""
        size = max(1, block_entries(X, _BLOCK_ENTRIES) // max(self.weights.shape))
        for start in range(0, X.shape[0], size):
            samples = slice(start, start + size)
            yield samples, doubles(X[samples, :])

    def origin(self, X: np.ndarray) -> np.ndarray:
        """Mean of X (n, d), which batch normalization subtracts, in double precision."""
        mean: np.ndarray = double_mean(X, 0)
        return mean

    def hidden_to_torch(self, eps: float = TORCH_EPS) -> list[Any]:
        """Return Linear, BatchNorm1d and ReLU; there must be a neuron. See `to_torch` for `eps`."""
        torch = import_torch()
        network = self._with_eps(eps)
        m, d = network.weights.shape
        hidden = torch.nn.Linear(d, m, bias=False, dtype=torch.float64)
        hidden.weight = tensor(network.weights)
        norm = filled(network, torch.nn.BatchNorm1d(m, eps=eps, dtype=torch.float64))
        return [hidden, norm, torch.nn.ReLU()]

    def _with_eps(self, eps: float) -> Self:
        """Network with the outputs of this one where eps is added to variances, which are at least 1e5 * eps."""
        lengths, fields = compensated(self, eps)
        return replace(self, weights=lengths[:, None] * self.weights, **fields)

    def _idle(self) -> Self:
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
            Trained network, in whatever mode; `predict` equals its output in ``eval()``. Layers may be parametrized,
            and Dropout is left out. PyTorch's running statistics are moving averages with an unbiased variance;
            `with_statistics` sets those of the training data instead.

        Returns
        -------
        network : BatchNormNetwork
            Its gamma_j is the module's times ``sqrt(var_j / (var_j + eps))``, since its std_j has no eps.

        Raises
        ------
        ValueError
            If the layers are others, or keep no running statistics.
        """
        hidden, norm, _, output = layers_of(
            module, "Linear, BatchNorm1d, ReLU, Linear", "Linear", "BatchNorm1d", "ReLU", "Linear"
        )
        return cls(weights=array_of(hidden, "weight"), **read_layers(hidden, norm, output))


def _repeated(row: np.ndarray | csr_array, count: int) -> np.ndarray | csr_array:
    """What is subtracted from `count` rows (count, d) to subtract a row (1, d) from each."""
    return csr_array(np.ones((count, 1))) @ row if issparse(row) else row


def _deviations(moved: Any, weights: np.ndarray, row_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of weighted rows: largest absolute entries (d,), mean x·w_j and sum of squared deviations from it (m,)."""
    (W, p), there = like(moved, weights, row_weights), is_elsewhere(moved)
    xp = namespace(moved) if there else np
    deviations = moved @ W.T
    mean = p @ deviations / xp.sum(p)
    deviations -= mean
    deviations *= deviations
    largest = xp.max(xp.abs(moved), axis=0) if there else _dense(abs(moved).max(axis=0))
    return to_numpy(largest), to_numpy(mean), to_numpy(p @ deviations)


def _dense(array: Any) -> np.ndarray:
    return to_numpy(array.toarray() if issparse(array) else array)


def compensated(network: Any, eps: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Lengths (m,) of the hidden weights, and the fields of a network with the same outputs where eps is added."""
    lengths = np.maximum(1, np.sqrt(eps / _LARGEST_SHARE) / network.std)
    std = lengths * network.std
    gamma = network.gamma * np.hypot(1, np.sqrt(eps) / std)
    return lengths, {"gamma": gamma, "mean": lengths * network.mean, "std": std}


def filled(network: Any, norm: Any) -> Any:
    """Give a normalization layer of torch the scale, shift and statistics of the neurons."""
    norm.weight, norm.bias = tensor(network.gamma), tensor(network.bias)
    norm.running_mean, norm.running_var = import_torch().tensor(network.mean), import_torch().tensor(network.std**2)
    return norm


def read_layers(hidden: Any, norm: Any, output: Any) -> dict[str, Any]:
    """Fields of the network, other than its weights, of torch's layers; `hidden` is what `norm` follows, if a layer."""
    mean, variance = array_of(norm, "running_mean"), array_of(norm, "running_var")
    if mean is None or variance is None:
        raise ValueError(f"module's {type(norm).__name__} keeps no running statistics; set track_running_stats=True.")
    gamma, bias, shift = (
        array_of(norm, "weight"),
        array_of(norm, "bias"),
        None if hidden is None else array_of(hidden, "bias"),
    )
    varies = variance != 0  # where nothing varies, eps alone is divided by
    share = np.divide(variance, variance + norm.eps, where=varies, out=np.ones_like(variance))
    output_weights, intercept = read_output(output)
    return {
        "gamma": np.sqrt(share) * (1 if gamma is None else gamma),
        "bias": np.zeros_like(mean) if bias is None else bias,
        "output_weights": output_weights,
        "intercept": intercept,
        "mean": mean - (0 if shift is None else shift),
        "std": np.sqrt(np.where(varies, variance, norm.eps)),
    }


def initial_layers(
    n_neurons: int, n_entries: int, n_outputs: int, random_state: int | np.random.Generator | None
) -> dict[str, np.ndarray]:
    """Fields of an untrained network without statistics."""
    check_count("n_neurons", n_neurons)
    if not (is_integer(n_outputs) and n_outputs >= 0):
        raise ValueError(f"n_outputs={n_outputs!r} must be an integer from 0 on.")
    refuse_huge("n_outputs", n_outputs)
    rng, one, zero = make_generator(random_state), np.ones(n_neurons), np.zeros(n_neurons)
    return {
        "weights": rng.standard_normal((n_neurons, n_entries)),
        "gamma": one,
        "bias": zero,
        "output_weights": rng.standard_normal((n_neurons, n_outputs)) / n_neurons,
        "intercept": np.zeros(n_outputs),
        "mean": zero,
        "std": one,
    }
