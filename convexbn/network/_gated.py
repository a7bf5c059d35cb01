"""The gated ReLU network."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.array_namespace import doubles, is_elsewhere, like, namespace
from convexbn._utils.html import Tabulated, sparkline
from convexbn._utils.summary import counted
from convexbn._utils.torch_device import import_torch
from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._weight_norm import WeightNormDesign
from convexbn.model._neurons import Neurons
from convexbn.network._base import as_finite_arrays, check_data, check_shapes, finite, linear, network_outputs
from convexbn.network._exported import Exported
from convexbn.network._onnx import Graph
from convexbn.network._persistence import Stored

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False, repr=False)
class GatedNetwork(Tabulated, Stored, Exported):
    """Gated ReLU network f(x) = sum_j 1[x·g_j + h_j >= 0] (x·w_j + b_j) c_j + intercept with fixed gates.

    Parameters
    ----------
    gates : ndarray of shape (m, d)
        Gate directions g_j.
    gate_offsets : ndarray of shape (m,)
        Gate offsets h_j.
    weights : ndarray of shape (m, d)
        Weights w_j, with the normalization folded in.
    bias : ndarray of shape (m,)
        Offsets b_j.
    output_weights : ndarray of shape (m, C)
        Output weights c_j.
    intercept : ndarray of shape (C,)
        Output intercept.

    Raises
    ------
    ValueError
        If the shapes do not fit together or an entry is not finite.

    References
    ----------
    .. [1] Mishkin, Sahiner, Pilanci, "Fast Convex Optimization for Two-Layer ReLU Networks", arXiv 2202.01331.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import GatedNetwork
    >>> one = np.ones(1)
    >>> network = GatedNetwork(np.eye(1), 0 * one, 2 * np.eye(1), one, np.eye(1), 0 * one)
    >>> network.predict([[-1.0], [1.0]])
    array([[0.],
           [3.]])
    """

    gates: np.ndarray
    gate_offsets: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    output_weights: np.ndarray
    intercept: np.ndarray

    def __post_init__(self) -> None:
        as_finite_arrays(self)
        if self.weights.ndim != 2 or self.output_weights.ndim != 2:
            raise ValueError("weights and output_weights must be 2-D arrays.")
        m = len(self.weights)
        per_neuron = dict.fromkeys(("gate_offsets", "bias"), (m,))
        check_shapes(
            self,
            gates=self.weights.shape,
            output_weights=(m, self.n_outputs),
            intercept=(self.n_outputs,),
            **per_neuron,
        )

    def __len__(self) -> int:
        return len(self.weights)

    def _summary(self) -> str:
        return f"{self._inputs()}, {counted(len(self), 'neuron')}, {counted(self.n_outputs, 'output')}"

    def _rows(self) -> dict[str, object]:
        return {"inputs": self._inputs(), "neurons": len(self), "outputs": self.n_outputs}

    def _picture(self) -> tuple[str, str]:
        return "sizes of neurons", sparkline(np.sort(self._sizes())[::-1], "sizes of neurons, the largest first")

    def _inputs(self) -> str:
        """The inputs of a neuron, in words."""
        return counted(self.weights.shape[1], "feature")

    @property
    def n_outputs(self) -> int:
        """Outputs C."""
        return int(self.output_weights.shape[1])

    @classmethod
    def from_neurons(cls, neurons: Neurons, design: BatchNormDesign | WeightNormDesign) -> Self:
        """Map gated neurons on a fitted design back to weights on the data."""
        if neurons.gates is None:
            raise ValueError("These neurons have no gates; use BatchNormNetwork or WeightNormNetwork.")
        return cls(
            *design.affine(neurons.gates),
            *design.affine(neurons.weights),
            neurons.output_weights,
            neurons.intercept,
            **cls._geometry(design),
        )

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Network outputs (n, C) for X (n, d), sparse or not; a ValueError if they overflow."""
        data = self.check_data(X)
        return finite(lambda: network_outputs(self._hidden(data), self.output_weights, self.intercept))

    def hidden(self, X: ArrayLike) -> np.ndarray:
        """Hidden neurons 1[x·g_j + h_j >= 0] (x·w_j + b_j), (n, m) for X (n, d), sparse or not."""
        data = self.check_data(X)
        return finite(lambda: self._hidden(data))

    def _inside(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights (m, d) and offsets (m,) of what the gates let through."""
        return self.weights, self.bias

    def _switches(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights (m, d) and offsets (m,) of the affine functions at whose zeros neurons switch on and off."""
        return self.gates, self.gate_offsets

    def _sizes(self) -> np.ndarray:
        """How much the neurons (m,) may contribute: the products of their lengths in both layers."""
        lengths = np.hypot(np.linalg.norm(self.weights, axis=1), self.bias)
        return lengths * np.linalg.norm(self.output_weights, axis=1)

    def _hidden(self, rows: np.ndarray) -> np.ndarray:
        """Outputs of the neurons on rows of data."""
        rows = doubles(rows) if is_elsewhere(rows) else rows
        G, offsets, W, bias = like(rows, self.gates, self.gate_offsets, self.weights, self.bias)
        inner = rows @ W.T + bias
        return namespace(inner).where(rows @ G.T + offsets >= 0, inner, 0 * inner)

    def to_torch(self) -> "torch.nn.Sequential":
        """Return the same network as a torch module in double precision and ``eval()``, whose output equals `predict`.

        Its first layer is one of this package, as PyTorch has no gated one; its gates are not trained on. Other
        programs read the network as ONNX (`to_onnx`) without it.

        Returns
        -------
        module : torch.nn.Sequential

        Raises
        ------
        ImportError
            If PyTorch is not installed.
        """
        nn = import_torch().nn
        from convexbn.network._torch_gated import GatedLayer

        network = self if len(self) else self._idle()
        gates = network._affine_to_torch(network.gates, network.gate_offsets)
        layer = GatedLayer(gates, network._affine_to_torch(network.weights, network.bias))
        outputs = linear(network.output_weights.T, network.intercept)
        return nn.Sequential(layer, *network._pooled_in_torch(), outputs).eval()

    def _affine_to_torch(self, weights: np.ndarray, offsets: np.ndarray) -> Any:
        """Return an affine function of every input of a neuron as a torch module."""
        return linear(weights, offsets)

    @staticmethod
    def _pooled_in_torch() -> list[Any]:
        """Return the torch modules that join the outputs of a neuron on one sample."""
        return []

    def _add_to(self, graph: Graph, x: str) -> str:
        network = self if len(self) else self._idle()
        sides, values = (
            network._add_affine(graph, x, weights, offsets)
            for weights, offsets in ((network.gates, network.gate_offsets), (network.weights, network.bias))
        )
        active = graph.add("GreaterOrEqual", sides, np.zeros(()))
        hidden = network._add_pooled(graph, graph.add("Where", active, values, np.zeros(())))
        return graph.affine(hidden, network.output_weights.T, network.intercept)

    def _add_affine(self, graph: Graph, x: str, weights: np.ndarray, offsets: np.ndarray) -> str:
        """Add an affine function of every input of a neuron."""
        return graph.affine_on_data(x, weights, offsets)

    def _add_pooled(self, graph: Graph, x: str) -> str:
        """Add what joins the outputs of a neuron on one sample."""
        return x

    def _onnx_shape(self) -> list[int | str]:
        return ["n", self.weights.shape[1]]

    def _idle(self) -> Self:
        """Network with one neuron, which is zero, in place of none."""
        zeros, zero = np.zeros((1, self.weights.shape[1])), np.zeros(1)
        outputs = np.zeros((1, self.n_outputs))
        return replace(self, gates=zeros, gate_offsets=zero, weights=zeros, bias=zero, output_weights=outputs)

    def check_data(self, X: ArrayLike) -> np.ndarray:
        """Return X, sparse or not, in its own numeric type, or raise a ValueError if the network does not take it."""
        return check_data(X, self.weights.shape[1], accept_sparse=True)

    @classmethod
    def _geometry(cls, design: BatchNormDesign | WeightNormDesign) -> dict[str, Any]:
        """Fields of the network that are read off the design."""
        return {}
