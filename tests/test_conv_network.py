import numpy as np
import pytest
import torch

from convexbn import (
    BatchNormNetwork,
    ConvBatchNormNetwork,
    ConvGatedNetwork,
    Neurons,
    PatchDesign,
    make_network,
)
from convexbn.losses import make_loss

GEOMETRIES = [
    {"kernel_size": 2},
    {"kernel_size": (3, 2), "stride": 2, "padding": 1},
    {"kernel_size": (1, 4), "stride": (3, 1), "padding": (0, 2)},
    {"kernel_size": (6, 5)},
]


def images(n=40, channels=3, height=6, width=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, channels, height, width)) * np.array([1.0, 3.0, 0.1])[:channels, None, None] + 1


def random_network(geometry, m=5, C=1, gated=False):
    design = PatchDesign(**geometry, n_components=8).fit(images())
    rng = np.random.default_rng(0)
    gates = rng.standard_normal((9, m)) if gated else None
    neurons = Neurons(rng.standard_normal((9, m)), rng.standard_normal((m, C)), rng.standard_normal(C), gates)
    return make_network(neurons, design), neurons, design


@pytest.fixture(params=GEOMETRIES, ids=str)
def geometry(request):
    return request.param


@pytest.mark.parametrize("C", [1, 3])
@pytest.mark.parametrize("gated", [False, True])
def test_predictions_are_those_of_the_pooled_neurons(geometry, C, gated, monkeypatch):
    monkeypatch.setattr("convexbn.designs._patches._BLOCK_ENTRIES", 2000)
    network, neurons, design = random_network(geometry, C=C, gated=gated)
    assert type(network) is (ConvGatedNetwork if gated else ConvBatchNormNetwork)
    for X in (images(), images(n=7, seed=1)):
        Z = design.matrix(X)
        np.testing.assert_allclose(network.predict(X), neurons.outputs(Z), atol=1e-10)
    assert network.filters.shape == (5, 3, *design.grid.kernel_size)
    assert len(network) == 5


@pytest.mark.parametrize("C", [1, 3])
@pytest.mark.parametrize("m", [0, 1, 5])
def test_torch_module_gives_the_same_outputs_in_eval_and_train(geometry, m, C):
    network = random_network(geometry, m, C)[0]
    module = network.to_torch()
    layers = [type(layer).__name__ for layer in module]
    assert layers == ["Conv2d", "BatchNorm2d", "ReLU", "AdaptiveAvgPool2d", "Flatten", "Linear"]
    assert module[0].bias is None
    with torch.no_grad():
        new = images(n=4, seed=3)
        np.testing.assert_allclose(module.eval()(torch.tensor(new)), network.predict(new), atol=1e-10)
        np.testing.assert_allclose(module.train()(torch.tensor(images())), network.predict(images()), atol=1e-10)


@pytest.mark.parametrize("C", [1, 3])
def test_objective_is_that_of_the_neurons_and_of_torch(geometry, C):
    network, neurons, design = random_network(geometry, C=C)
    X, y = images(), np.random.default_rng(1).standard_normal((40, C))
    f = neurons.outputs(design.matrix(X))
    objective = network.objective(X, y, 0.3)
    assert objective == pytest.approx(make_loss("squared_error").value(f, y).mean() + 0.3 * neurons.cost.sum())
    module = network.to_torch(eps=1e-12).train()
    loss = ((module(torch.tensor(X)) - torch.tensor(y)) ** 2).sum(dim=1).mean() / 2
    decay = sum((parameter**2).sum() for parameter in network.decayed_parameters(module)) / 2
    assert float((loss + 0.3 * decay).detach()) == pytest.approx(objective, rel=1e-9)


def test_torch_round_trip_with_statistics_of_other_images(geometry):
    network = random_network(geometry, C=2)[0].with_statistics(3 * images(seed=5) - 1)
    assert np.abs(network.std - 1).max() > 0.3
    again = ConvBatchNormNetwork.from_torch(network.to_torch())
    np.testing.assert_allclose(again.std, network.std)
    np.testing.assert_allclose(again.predict(images()), network.predict(images()), atol=1e-10)
    with torch.no_grad():
        expected = network.to_torch().train()(torch.tensor(3 * images(seed=5) - 1))
    np.testing.assert_allclose(network.predict(3 * images(seed=5) - 1), expected, atol=1e-9)


def test_statistics_are_those_of_the_weighted_images(monkeypatch):
    monkeypatch.setattr("convexbn.designs._patches._BLOCK_ENTRIES", 2000)
    network, weights = random_network(GEOMETRIES[1])[0], np.arange(40) % 3
    weighted = network.with_statistics(images(), weights)
    repeated = network.with_statistics(images().repeat(weights, axis=0))
    np.testing.assert_allclose(weighted.mean, repeated.mean)
    np.testing.assert_allclose(weighted.std, repeated.std)
    assert not np.allclose(weighted.std, network.std, rtol=1e-4)


def test_from_torch_reads_a_module_with_bias_and_eps():
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, (3, 2), stride=2, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d((1, 1)),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 2, bias=False),
    ).double()
    module.train()(torch.tensor(images()))
    network = ConvBatchNormNetwork.from_torch(module)
    with torch.no_grad():
        np.testing.assert_allclose(network.predict(images()), module.eval()(torch.tensor(images())), atol=1e-10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0: torch.nn.Conv2d(3, 6, 2, groups=3)}, "Conv2d must have one group"),
        ({0: torch.nn.Conv2d(3, 6, 2, padding="same")}, "padding in numbers"),
        ({0: torch.nn.Conv2d(3, 6, 2, padding=1, padding_mode="reflect")}, "Conv2d must have"),
        ({0: torch.nn.Conv2d(3, 6, 2, dilation=2)}, "no dilation"),
        ({1: torch.nn.BatchNorm2d(6, track_running_stats=False)}, "BatchNorm2d keeps no running statistics"),
        ({3: torch.nn.AdaptiveAvgPool2d(2)}, "must average the whole image"),
        ({3: torch.nn.MaxPool2d(2)}, "must be a torch.nn.Sequential of Conv2d, BatchNorm2d"),
    ],
)
def test_from_torch_of_other_modules(changes, message):
    layers = [torch.nn.Conv2d(3, 6, 2), torch.nn.BatchNorm2d(6), torch.nn.ReLU()]
    layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, 1)]
    for position, layer in changes.items():
        layers[position] = layer
    with pytest.raises(ValueError, match=message):
        ConvBatchNormNetwork.from_torch(torch.nn.Sequential(*layers))


@pytest.mark.parametrize("ending", [".json", ".npz"])
@pytest.mark.parametrize("m", [0, 4])
@pytest.mark.parametrize("gated", [False, True])
def test_save_and_load(tmp_path, ending, m, gated):
    network = random_network(GEOMETRIES[1], m, C=2, gated=gated)[0]
    network.save(tmp_path / f"network{ending}")
    again = type(network).load(tmp_path / f"network{ending}")
    np.testing.assert_array_equal(again.predict(images()), network.predict(images()))
    assert again.grid == network.grid
    assert again.filters.shape == network.filters.shape


def test_prune_keeps_predictions():
    X = images(n=5)
    network = random_network(GEOMETRIES[1], m=20)[0].with_statistics(X)
    pruned = network.prune(X)
    assert len(pruned) <= 6
    assert pruned.objective(X, np.zeros(5), 0.1) <= network.objective(X, np.zeros(5), 0.1) * (1 + 1e-10)
    np.testing.assert_allclose(pruned.predict(X), network.predict(X), atol=1e-9)


def test_one_filter_on_the_whole_image_is_the_dense_network():
    network = random_network(GEOMETRIES[3], C=2)[0]
    names = ("weights", "output_weights", "intercept", *BatchNormNetwork.per_neuron)
    dense = BatchNormNetwork(**{name: getattr(network, name) for name in names})
    flat = images().reshape(40, -1)
    np.testing.assert_allclose(network.predict(images()), dense.predict(flat))
    np.testing.assert_allclose(network.with_statistics(images()).std, dense.with_statistics(flat).std)


def test_images_of_other_sizes_are_averaged_over_their_patches():
    network = random_network(GEOMETRIES[0])[0]
    larger = images(height=9, width=8)
    with torch.no_grad():
        expected = network.to_torch().eval()(torch.tensor(larger))
    np.testing.assert_allclose(network.predict(larger), expected, atol=1e-10)


def test_bad_input():
    network = random_network(GEOMETRIES[1])[0]
    for X, message in (
        (images(channels=2), "those of training have 3 channels"),
        (images()[0], r"shape \(n, channels, height, width\)"),
        (images(height=1)[:, :, :, :0], "0 sample|larger than the images|shape"),
        (np.moveaxis(images(), 1, -1), "last axis looks like the channels"),
        (np.ones((3, 3, 4, 4)) * [[[1.0]]], "does not vary"),
    ):
        with pytest.raises(ValueError, match=message):
            random_network(GEOMETRIES[0])[0].with_statistics(X)
    for changes, message in (
        ({"filter_shape": (3, 3, 3)}, r"weights must have shape \(5, 27\), got \(5, 18\)"),
        ({"filter_shape": (18,)}, "filter_shape must hold 3 integers"),
        ({"stride": (1, 1.5)}, "stride must hold 2 integers"),
        ({"stride": (0, 1)}, r"stride=\(0, 1\) must be"),
        ({"std": np.zeros(5)}, "std must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            ConvBatchNormNetwork(**vars(network) | changes)
