"""Data, and a network of each kind on it, whose scales, shifts and statistics are all in use."""

from dataclasses import replace

import numpy as np

from convexbn import (
    BatchNormNetwork,
    ConvBatchNormNetwork,
    DeepNetwork,
    PostActivationBatchNormNetwork,
    WeightNormNetwork,
)

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((60, 3)) + np.array([5.0, 0.0, -2.0])).astype(np.float32).astype(float)
Y = np.abs(X[:, 0] - 5) - X[:, 1]
IMAGES = RNG.standard_normal((12, 2, 6, 7)).astype(np.float32).astype(float)


def perturbed(network):
    """The network with scales, shifts and statistics that are not those of its initialization."""
    rng, m = np.random.default_rng(1), len(network)
    fields = {"gamma": rng.standard_normal(m), "bias": rng.standard_normal(m), "intercept": np.arange(2.0)}
    return replace(network, **fields, output_weights=rng.standard_normal((m, 2)) / m)


def dense(kind, X=X, m=7):
    return perturbed(kind.at_initialization(X, m, n_outputs=2, random_state=0))


def weight_normalized(X=X, m=7):
    network = dense(BatchNormNetwork, X, m)
    return WeightNormNetwork(network.weights, network.gamma, network.bias, network.output_weights, network.intercept)


def convolutional(padding=0, stride=1):
    kind = {"kernel_size": (3, 2), "padding": padding, "stride": stride, "n_outputs": 2}
    return perturbed(ConvBatchNormNetwork.at_initialization(IMAGES, 5, **kind, random_state=0))


def deep():
    first = dense(BatchNormNetwork)
    second = dense(PostActivationBatchNormNetwork, first.hidden(X), 5)
    return DeepNetwork((first, second), weight_normalized(second.hidden(first.hidden(X)), 4))


def deep_on_images():
    first = convolutional(padding=1)
    return DeepNetwork((first,), dense(BatchNormNetwork, first.hidden(IMAGES), 4))
