"""The gated ReLU convolutional network."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from convexbn.network._convolution import Convolution
from convexbn.network._gated import GatedNetwork
from convexbn.network._onnx import Graph


@dataclass(frozen=True, eq=False, repr=False)
class ConvGatedNetwork(Convolution, GatedNetwork):
    """Gated ReLU network of filters whose outputs are averaged over an image, with fixed gates.

    On a patch x neuron j is 1[x·g_j + h_j >= 0] (x·w_j + b_j).

    Parameters
    ----------
    gates : ndarray of shape (m, h)
        Gate directions g_j, flattened; h is channels times the kernel size.
    gate_offsets : ndarray of shape (m,)
        Gate offsets h_j.
    weights : ndarray of shape (m, h)
        Filters w_j, flattened, with the normalization folded in.
    bias : ndarray of shape (m,)
        Offsets b_j.
    output_weights : ndarray of shape (m, C)
        Output weights c_j.
    intercept : ndarray of shape (C,)
        Output intercept.
    filter_shape : tuple of int
        Channels, height and width of a filter.
    stride, padding : tuple of int
        Steps of the filters, and zeros on each side of an image: vertical, horizontal.

    References
    ----------
    .. [1] Mishkin, Sahiner, Pilanci, "Fast Convex Optimization for Two-Layer ReLU Networks", arXiv 2202.01331.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import ConvGatedNetwork
    >>> one = np.ones(1)
    >>> geometry = {"filter_shape": (1, 1, 1), "stride": (1, 1), "padding": (0, 0)}
    >>> network = ConvGatedNetwork(np.eye(1), 0 * one, 2 * np.eye(1), one, np.eye(1), 0 * one, **geometry)
    >>> network.predict([[[[-1.0, 1.0]]]])
    array([[1.5]])
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_geometry()

    def _affine_to_torch(self, weights: np.ndarray, offsets: np.ndarray) -> Any:
        return self._filters_to_torch(weights, offsets)

    def _add_affine(self, graph: Graph, x: str, weights: np.ndarray, offsets: np.ndarray) -> str:
        return graph.convolution(x, weights.reshape(-1, *self.filter_shape), offsets, self.grid)

    def _add_pooled(self, graph: Graph, x: str) -> str:
        return graph.pool(x)

    def _hidden(self, rows: np.ndarray) -> np.ndarray:
        return self._pooled(rows, super()._hidden)
