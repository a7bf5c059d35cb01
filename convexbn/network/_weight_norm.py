"""The weight-normalized network."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from convexbn.designs._weight_norm import WeightNormDesign
from convexbn.network._base import TORCH_EPS, NormalizedNetwork, import_torch, tensor
from convexbn.network._torch_layers import array_of, directions_and_lengths, layers_of, read_output


@dataclass(frozen=True, eq=False, repr=False)
class WeightNormNetwork(NormalizedNetwork):
    """Two-layer network of neurons relu(gamma_j x·w_j / |w_j| + bias_j).

    Parameters
    ----------
    weights : ndarray of shape (m, d)
        Hidden directions w_j, none of them zero.
    gamma, bias : ndarray of shape (m,)
        Length and bias of the normalized weights.
    output_weights : ndarray of shape (m, C)
        Output weights c_j.
    intercept : ndarray of shape (C,)
        Output intercept.

    Raises
    ------
    ValueError
        If the shapes do not fit together, an entry is not finite, or a direction is zero.

    References
    ----------
    .. [1] Dukler et al., "Optimization Theory for ReLU Neural Networks Trained with Normalization Layers",
       arXiv 2006.06878.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import WeightNormNetwork
    >>> network = WeightNormNetwork([[3.0, 4.0]], [10.0], [1.0], [[2.0]], [0.0])
    >>> network.predict([[1.0, 0.0]])
    array([[14.]])
    """

    design = WeightNormDesign

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.weights.any(axis=1).all():
            raise ValueError("No direction in weights may be zero.")

    def population_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Zero and |w_j|."""
        return np.zeros(len(self)), np.linalg.norm(self.weights, axis=1)

    def batch_statistics(self, X: np.ndarray, sample_weight: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Zero and |w_j|, whatever the batch."""
        return self.population_statistics()

    def with_statistics(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Return the network itself: its statistics are those of its weights."""
        return self

    def origin(self, X: np.ndarray) -> np.ndarray:
        """Zero: weight normalization is not invariant to shifts of the data."""
        return np.zeros(1)

    def _idle(self) -> Self:
        direction, zero = np.eye(1, self.weights.shape[1]), np.zeros(1)
        return type(self)(direction, zero, zero, np.zeros((1, self.n_outputs)), self.intercept)

    def hidden_to_torch(self, eps: float = TORCH_EPS) -> list[Any]:
        """Return weight-normalized Linear and ReLU; there must be a neuron.

        Torch pickles no parametrized module; give ``torch.save`` its ``state_dict()``, or `save` the network.
        """
        torch = import_torch()
        m, d = self.weights.shape
        hidden = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(d, m, dtype=torch.float64))
        direction = hidden.parametrizations.weight
        direction.original0, direction.original1 = tensor(self.gamma[:, None]), tensor(self.weights)
        hidden.bias = tensor(self.bias)
        return [hidden, torch.nn.ReLU()]

    @staticmethod
    def decayed_parameters(module: Any) -> list[Any]:
        """Return gamma, bias and output weights of a torch module."""
        return [module[0].parametrizations.weight.original0, module[0].bias, module[2].weight]

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        """Read a torch.nn.Sequential of Linear, ReLU, Linear.

        Parameters
        ----------
        module : torch.nn.Sequential
            Network whose output in ``eval()`` `predict` shall equal. Of a first layer that is weight-normalized by rows
            (``dim=0``, torch's default), directions and lengths are read; of any other, plain or parametrized, the
            weight that it computes with: w_j is its row, and gamma_j its norm. Dropout is left out.

        Returns
        -------
        network : WeightNormNetwork

        Raises
        ------
        ValueError
            If the layers are others.
        """
        hidden, _, output = layers_of(
            module, "Linear (weight-normalized, say), ReLU, Linear", "Linear", "ReLU", "Linear"
        )
        weights, gamma = directions_and_lengths(hidden)
        bias, (output_weights, intercept) = array_of(hidden, "bias"), read_output(output)
        return cls(weights, gamma, np.zeros(len(gamma)) if bias is None else bias, output_weights, intercept)
