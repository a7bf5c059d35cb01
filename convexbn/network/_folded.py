"""Networks as affine layers with ReLUs between them: normalization folded into the weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from convexbn.network._base import NormalizedNetwork

Affine = tuple[np.ndarray, np.ndarray]  # weights (m, d) and offsets (m,)


def affine_layers(networks: Sequence["NormalizedNetwork"]) -> list[Affine]:
    """Affine layers of the hidden layers of networks, one on top of the other, and of the last one's output.

    The network is the last layer after ReLU after ... after the first. Outputs of a convolutional first layer are
    averaged over the image after its ReLU.

    Parameters
    ----------
    networks : sequence of NormalizedNetwork
        Each takes as many features as the one before has neurons.

    Returns
    -------
    layers : list of (weights, offsets)
        Arrays of shape (m, d) and (m,), one more than networks.

    Examples
    --------
    >>> from convexbn import BatchNormNetwork
    >>> from convexbn.network._folded import affine_layers
    >>> network = BatchNormNetwork([[1.0]], [3.0], [0.5], [[2.0]], [7.0], mean=[4.0], std=[2.0])
    >>> affine_layers([network])
    [(array([[1.5]]), array([-5.5])), (array([[2.]]), array([7.]))]
    """
    networks = [network if len(network) else network._idle() for network in networks]
    scale, shift = np.ones(1), np.zeros(networks[0].weights.shape[1])  # of the features, after a ReLU or as they are
    layers = []
    for network in networks:
        weights, offsets = network._inside()
        layers.append((weights * scale, offsets + weights @ shift))
        scale, shift = network._outside()
    outputs = networks[-1].output_weights.T
    return [*layers, (outputs * scale, networks[-1].intercept + outputs @ shift)]
