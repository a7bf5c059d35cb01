"""The weight-normalized network."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from convexbn.design import WeightNormDesign
from convexbn.network.base import NormalizedNetwork, import_torch, layers_of, output_layer, tensor, to_numpy

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
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
    >>> from convexbn.network import WeightNormNetwork
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

    def to_torch(self) -> "torch.nn.Sequential":
        """Return weight-normalized Linear -> ReLU -> Linear in double precision.

        Returns
        -------
        module : torch.nn.Sequential
            Its output equals `predict`; a network without neurons gets one that is zero.

        Raises
        ------
        ImportError
            If PyTorch is not installed.
        """
        torch = import_torch()
        if len(self) == 0:
            direction = np.eye(1, self.weights.shape[1])
            idle = np.zeros((1, self.n_outputs))
            return type(self)(direction, np.zeros(1), np.zeros(1), idle, self.intercept).to_torch()
        return torch.nn.Sequential(*self.hidden_to_torch(), output_layer(self))

    def hidden_to_torch(self) -> list[Any]:
        """Return weight-normalized Linear and ReLU; there must be a neuron."""
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
        """Read a torch.nn.Sequential of a weight-normalized Linear, ReLU, Linear.

        Parameters
        ----------
        module : torch.nn.Sequential
            Network as built by `to_torch`.

        Returns
        -------
        network : WeightNormNetwork

        Raises
        ------
        ValueError
            If the layers are others.
        """
        hidden, _, output = layers_of(
            module, "weight_norm(Linear), ReLU, Linear", "ParametrizedLinear", "ReLU", "Linear"
        )
        direction = hidden.parametrizations.weight
        return cls(
            weights=to_numpy(direction.original1),
            gamma=to_numpy(direction.original0)[:, 0],
            bias=to_numpy(hidden.bias) if hidden.bias is not None else np.zeros(hidden.out_features),
            output_weights=to_numpy(output.weight).T,
            intercept=to_numpy(output.bias) if output.bias is not None else np.zeros(output.out_features),
        )
