"""Torch modules without normalization, and what torch.export makes of modules."""

import pickle

import numpy as np
import pytest
import torch

from convexbn import (
    BatchNormNetwork,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    ConvexBNStackRegressor,
    PostActivationBatchNormNetwork,
    RandomBatchNormLayers,
)
from tests.networks import IMAGES, X, Y, convolutional, deep, deep_on_images, dense, weight_normalized

NETWORKS = {
    "batch norm": (dense(BatchNormNetwork), X),
    "weight norm": (weight_normalized(), X),
    "after the ReLU": (dense(PostActivationBatchNormNetwork), X),
    "no neurons": (ConvexBNRegressor(1e3).fit(X, Y).network_, X),
    "convolution": (convolutional(padding=(2, 1), stride=(2, 3)), IMAGES),
    "deep": (deep(), X),
    "deep on images": (deep_on_images(), IMAGES),
}


GATED = {
    "gated": (ConvexBNRegressor(0.01, activation="gated_relu", n_patterns=9, tol=1e-2).fit(X, Y).network_, X),
    "gated, no neurons": (ConvexBNRegressor(1e3, activation="gated_relu", n_patterns=9).fit(X, Y).network_, X),
    "gated convolution": (
        ConvexBNConvRegressor(0.01, kernel_size=2, padding=1, activation="gated_relu", n_patterns=5, tol=1e-1)
        .fit(IMAGES, Y[:12])
        .network_,
        IMAGES,
    ),
}


@pytest.mark.parametrize("name", GATED)
def test_gated_modules(name):
    network, data = GATED[name]
    module = network.to_torch()
    assert not any(part.training for part in module.modules())
    program = torch.export.export(module, (torch.tensor(data),)).module()
    copy = pickle.loads(pickle.dumps(module))
    for made in (module, program, copy):
        with torch.no_grad():
            np.testing.assert_allclose(made(torch.tensor(data)), network.predict(data), atol=1e-12)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert (
        sum(parameter.numel() for parameter in trained)
        == sum(array.size for array in (network.weights, network.bias, network.output_weights, network.intercept))
        or len(network) == 0
    )


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_modules_are_in_eval_mode_and_exported(name, folded):
    network, data = NETWORKS[name]
    module = network.to_torch(folded=folded)
    assert not any(part.training for part in module.modules())
    tensor, few = torch.tensor(data), torch.tensor(data[:3])
    dynamic = {"input": {0: torch.export.Dim("n")}}
    program = torch.export.export(module, (few,), dynamic_shapes=dynamic).module()
    with torch.no_grad():
        for outputs in (module(tensor), program(tensor)):
            np.testing.assert_allclose(outputs, network.predict(data), atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_folded_modules_have_no_normalization(name):
    module = NETWORKS[name][0].to_torch(folded=True)
    kinds = {type(part).__name__ for part in module}
    assert kinds <= {"Linear", "Conv2d", "ReLU", "AdaptiveAvgPool2d", "Flatten"}
    assert not any("parametrizations" in name for name in module.state_dict())
    assert type(module[-1]).__name__ == "Linear"


def test_stacks_fold_what_they_trained():
    stack = ConvexBNStackRegressor(ConvexBNRegressor(0.05, tol=0.1), features=RandomBatchNormLayers((6,))).fit(X, Y)
    kinds = [type(part).__name__ for part in stack.to_torch(folded=True)]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", *["Linear", "ReLU"] * len(stack.estimators_), "Linear"]
    with torch.no_grad():
        outputs = stack.to_torch(folded=True)(torch.tensor(X))[:, 0]
    np.testing.assert_allclose(outputs, stack.predict(X), atol=1e-12)
