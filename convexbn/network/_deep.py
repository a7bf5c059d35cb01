"""The deep network: hidden layers of two-layer networks on top of each other."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.array_namespace import is_elsewhere
from convexbn._utils.html import Tabulated, sparkline
from convexbn._utils.summary import counted
from convexbn.network._base import NormalizedNetwork, add_layers, folded_to_torch, import_torch
from convexbn.network._convolution import Convolution
from convexbn.network._exported import Exported
from convexbn.network._onnx import Graph
from convexbn.network._persistence import Stored

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False, repr=False)
class DeepNetwork(Tabulated, Stored, Exported):
    """Network whose first layers are the hidden layers of given networks, and whose last two are a network.

    Parameters
    ----------
    layers : tuple of BatchNormNetwork or WeightNormNetwork
        Networks of which the hidden neurons alone are used, the first on the data; may be empty. The first may be a
        ConvBatchNormNetwork, on images.
    head : BatchNormNetwork or WeightNormNetwork
        The last two layers.

    Raises
    ------
    ValueError
        If a layer does not take as many features as the one before has neurons, or a later one is convolutional.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import BatchNormNetwork, DeepNetwork
    >>> one = np.ones(1)
    >>> network = BatchNormNetwork([[1.0]], one, 0 * one, [[2.0]], 0 * one, mean=3 * one, std=one)
    >>> DeepNetwork((network,), network).predict([[1.0], [7.0]])  # hidden 0 and 4, then 0 and 1
    array([[0.],
           [2.]])
    """

    layers: tuple[NormalizedNetwork, ...]
    head: NormalizedNetwork

    def __post_init__(self) -> None:
        for number, (layer, after) in enumerate(pairwise((*self.layers, self.head))):
            if isinstance(after, Convolution):
                raise ValueError(f"Layer {number + 2} is convolutional; only the first layer takes images.")
            if after.weights.shape[1] != len(layer):
                d = after.weights.shape[1]
                raise ValueError(f"Layer {number + 1} has {len(layer)} neurons, the one after takes {d} features.")

    def _summary(self) -> str:
        networks = (*self.layers, self.head)
        inputs, neurons = networks[0]._inputs(), " + ".join(str(len(network)) for network in networks)
        return f"{inputs}, {neurons} neurons, {counted(self.head.n_outputs, 'output')}"

    def _rows(self) -> dict[str, object]:
        networks = (*self.layers, self.head)
        neurons = " + ".join(str(len(network)) for network in networks)
        return {"inputs": networks[0]._inputs(), "neurons": neurons, "outputs": self.n_outputs}

    def _picture(self) -> tuple[str, str]:
        neurons = [float(len(network)) for network in (*self.layers, self.head)]
        return "neurons of layers", sparkline(neurons, "neurons of layers, the first on the left")

    def features(self, X: ArrayLike) -> np.ndarray:
        """Outputs (n, m) of the last hidden layer before the head, for X (n, d)."""
        features = X if is_elsewhere(X) else np.asarray(X)
        for layer in self.layers:
            features = layer.hidden(features)
        return features

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Network outputs (n, C) for X (n, d), with the population statistics."""
        return self.head.predict(self.features(X))

    def to_torch(self, *, folded: bool = False) -> "torch.nn.Sequential":
        """Return one torch.nn.Sequential in double precision and ``eval()``, whose output equals `predict`.

        Call ``.train()`` to train on; see `BatchNormNetwork.to_torch` for the eps of batch normalization.

        Parameters
        ----------
        folded : bool, default=False
            Whether normalization is folded into the weights.

        Returns
        -------
        module : torch.nn.Sequential

        Raises
        ------
        ImportError
            If PyTorch is not installed.
        """
        if folded:
            return folded_to_torch((*self.layers, self.head))
        hidden = [module for layer in self.layers for module in layer.hidden_to_torch()]
        return import_torch().nn.Sequential(*hidden, *self.head.to_torch()).eval()

    @property
    def n_outputs(self) -> int:
        """Outputs C."""
        return self.head.n_outputs

    def _add_to(self, graph: Graph, x: str) -> str:
        return add_layers(graph, x, (*self.layers, self.head))

    def _onnx_shape(self) -> list[int | str]:
        return (*self.layers, self.head)[0]._onnx_shape()

    def _contents(self) -> dict[str, np.ndarray]:
        """The arrays of all layers, and the type of each, under the number of the layer."""
        return {
            f"{number}.{name}": array
            for number, layer in enumerate((*self.layers, self.head))
            for name, array in {"kind": np.array(type(layer).__name__), **layer._contents()}.items()
        }

    @classmethod
    def _restored(cls, contents: dict[str, np.ndarray]) -> Self:
        numbered: dict[int, dict[str, np.ndarray]] = {}
        for key, array in contents.items():
            number, name = key.split(".")
            numbered.setdefault(int(number), {})[name] = array
        networks = [Stored._kinds[str(layer.pop("kind"))]._restored(layer) for _, layer in sorted(numbered.items())]
        return cls(tuple(networks[:-1]), networks[-1])  # type: ignore[arg-type]
