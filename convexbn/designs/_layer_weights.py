"""Weights of a normalized hidden layer, as networks hold them."""

from dataclasses import dataclass

import numpy as np

from convexbn._utils.summary import Summarized, counted


@dataclass(frozen=True, eq=False, repr=False)
class LayerWeights(Summarized):
    """Weights of a normalized hidden layer: neuron j is relu(gamma_j (x·w_j - mean_j) / std_j + bias_j).

    Parameters
    ----------
    weights : ndarray of shape (m, d)
        Directions w_j.
    gamma, bias : ndarray of shape (m,)
        Scale and shift after normalization.
    mean, std : ndarray of shape (m,)
        Population statistics of x·w_j; zero and |w_j| for weight normalization.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import BatchNormDesign
    >>> design = BatchNormDesign().fit([[0.0], [4.0]])
    >>> layer = design.neuron_weights(np.array([[3.0], [1.0]]))
    >>> layer.gamma, layer.bias, layer.mean / layer.weights[:, 0]
    (array([3.]), array([1.]), array([2.]))
    """

    weights: np.ndarray
    gamma: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    def _summary(self) -> str:
        return f"{counted(self.weights.shape[1], 'feature')}, {counted(len(self.weights), 'neuron')}"
