import json
import sys

import numpy as np
import pytest

from convexbn import (
    BatchNormDesign,
    BatchNormNetwork,
    GatedNetwork,
    Neurons,
    WeightNormDesign,
    WeightNormNetwork,
    make_network,
)
from convexbn.losses import make_loss

torch = pytest.importorskip("torch")
NETWORKS = [BatchNormNetwork, WeightNormNetwork]


def data(n=15, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)) + 1


def random_network(Network, m=5, C=1, seed=0):
    design = Network.design().fit(data())
    rng = np.random.default_rng(seed)
    neurons = Neurons(rng.standard_normal((4, m)), rng.standard_normal((m, C)), rng.standard_normal(C))
    return make_network(neurons, design), neurons, design.matrix(data())


@pytest.fixture(params=NETWORKS)
def Network(request):
    return request.param


@pytest.mark.parametrize("C", [1, 2])
def test_predict_and_objective_are_those_of_the_neurons(Network, C):
    network, neurons, Z = random_network(Network, C=C)
    np.testing.assert_allclose(network.predict(data()), neurons.outputs(Z))
    y = np.random.default_rng(1).standard_normal((15, C))
    expected = make_loss("squared_error").value(neurons.outputs(Z), y).mean() + 0.3 * neurons.cost.sum()
    assert network.objective(data(), y, weight_decay=0.3) == pytest.approx(expected)
    assert network.penalty() == pytest.approx(neurons.cost.sum())


def test_objective_uses_the_statistics_of_the_batch():
    network = random_network(BatchNormNetwork)[0]
    other = data(seed=5)
    y = np.zeros(15)
    moved = network.with_statistics(other)
    assert network.objective(other, y, 0.1) == pytest.approx(moved.objective(other, y, 0.1))
    assert not np.allclose(network.predict(other), moved.predict(other))


@pytest.mark.parametrize("m", [0, 1, 5])
def test_torch_module_gives_the_same_outputs_in_eval_and_train(Network, m):
    network = random_network(Network, m)[0]
    module = network.to_torch()
    with torch.no_grad():
        new = data(n=4, seed=3)
        np.testing.assert_allclose(module.eval()(torch.tensor(new)), network.predict(new), atol=1e-12)
        np.testing.assert_allclose(module.train()(torch.tensor(data())), network.predict(data()), atol=1e-12)


def test_torch_module_carries_statistics_that_are_not_one():
    network = random_network(BatchNormNetwork)[0].with_statistics(3 * data(seed=5))
    assert np.abs(network.std - 1).max() > 0.5
    with torch.no_grad():
        np.testing.assert_allclose(network.to_torch().eval()(torch.tensor(data())), network.predict(data()), atol=1e-12)
    np.testing.assert_allclose(BatchNormNetwork.from_torch(network.to_torch()).std, network.std)


def test_torch_module_of_neurons_that_vary_little_gives_the_same_outputs():
    X = 5 + 1e-3 * np.random.default_rng(0).standard_normal((30, 3))  # variances below 1e5 times the eps of torch
    network = BatchNormNetwork.at_initialization(X, 4, n_outputs=1, random_state=0)
    assert (network.std < 0.1).all()
    with torch.no_grad():
        outputs = network.to_torch()(torch.tensor(X)).numpy()
    np.testing.assert_allclose(outputs, network.predict(X), atol=1e-9)


def test_torch_module_has_the_layers_people_know():
    layers = [type(layer).__name__ for layer in random_network(BatchNormNetwork)[0].to_torch()]
    assert layers == ["Linear", "BatchNorm1d", "ReLU", "Linear"]


def test_torch_round_trip(Network):
    network = random_network(Network)[0]
    again = Network.from_torch(network.to_torch())
    np.testing.assert_allclose(again.predict(data()), network.predict(data()), atol=1e-12)
    assert again.penalty() == pytest.approx(network.penalty())


def test_from_torch_reads_biases_eps_and_plain_normalization():
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4, affine=False), torch.nn.ReLU(), torch.nn.Linear(4, 2, bias=False)
    ).double()
    module.train()(torch.tensor(data()))
    network = BatchNormNetwork.from_torch(module)
    with torch.no_grad():
        np.testing.assert_allclose(network.predict(data()), module.eval()(torch.tensor(data())), atol=1e-12)


def test_from_torch_of_other_layers(Network):
    with pytest.raises(ValueError, match=r"module must be a torch.nn.Sequential of .*Linear"):
        Network.from_torch(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r"module must be a torch.nn.Sequential of .*Linear"):
        Network.from_torch(torch.nn.Linear(2, 2))


def test_from_torch_without_running_statistics():
    layers = torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4, track_running_stats=False), torch.nn.ReLU()
    with pytest.raises(ValueError, match="no running statistics"):
        BatchNormNetwork.from_torch(torch.nn.Sequential(*layers, torch.nn.Linear(4, 1)))


def test_decayed_parameters_are_the_penalty(Network):
    network = random_network(Network)[0]
    module = network.to_torch(eps=1e-12)
    squares = sum(float((parameter**2).sum().detach()) for parameter in network.decayed_parameters(module))
    assert squares / 2 == pytest.approx(network.penalty())


def test_prune_keeps_predictions_and_does_not_raise_the_objective(Network):
    network = random_network(Network, m=60)[0]
    pruned = network.prune(data())
    y = np.zeros(15)
    np.testing.assert_allclose(pruned.predict(data()), network.predict(data()), atol=1e-9)
    assert len(pruned) <= 16
    assert pruned.objective(data(), y, 0.1) <= network.objective(data(), y, 0.1) * (1 + 1e-10)
    assert type(pruned) is Network


def test_prune_of_split_neurons_restores_the_objective(Network):
    network = random_network(Network, m=3)[0]
    split = type(network)(
        **{
            field: np.concatenate([getattr(network, field)] * 2) / (np.sqrt(2) if field in scaled else 1)
            for scaled in [("gamma", "bias", "output_weights")]
            for field in ("weights", "output_weights", *Network.per_neuron)
        },
        intercept=network.intercept,
    )
    np.testing.assert_allclose(split.predict(data()), network.predict(data()))
    pruned = split.prune(data())
    assert len(pruned) == 3
    assert pruned.objective(data(), np.zeros(15), 0.1) == pytest.approx(network.objective(data(), np.zeros(15), 0.1))


def test_prune_on_other_data_is_refused():
    with pytest.raises(ValueError, match="training data X whose mean and std"):
        random_network(BatchNormNetwork)[0].prune(data(seed=9))
    small = BatchNormNetwork([[1e-8]], [1.0], [0.0], [[1.0]], [0.0], mean=[0.0], std=[1e-8])
    with pytest.raises(ValueError, match="training data X whose mean and std"):
        small.prune([[5.0], [9.0], [-3.0]])


@pytest.mark.parametrize("ending", [".json", ".npz"])
@pytest.mark.parametrize("m", [0, 4])
def test_save_and_load(Network, tmp_path, ending, m):
    network = random_network(Network, m)[0]
    network.save(tmp_path / f"network{ending}")
    again = Network.load(tmp_path / f"network{ending}")
    np.testing.assert_array_equal(again.predict(data()), network.predict(data()))
    assert type(again) is Network


@pytest.mark.parametrize("ending", [".json", ".npz"])
def test_save_and_load_gated(tmp_path, ending):
    network = gated()[0]
    network.save(tmp_path / f"network{ending}")
    np.testing.assert_array_equal(
        GatedNetwork.load(tmp_path / f"network{ending}").predict(data()), network.predict(data())
    )


def test_load_refuses_other_files(tmp_path):
    network = random_network(BatchNormNetwork)[0]
    with pytest.raises(ValueError, match=r"must end in \.json or \.npz"):
        network.save(tmp_path / "network.pkl")
    for content, message in (
        ({"a": 1}, "holds no network"),
        ([1, 2], "holds no network"),
        ({"format": "convexbn-network-1", "kind": "Unknown"}, "holds a Unknown, not a BatchNormNetwork"),
    ):
        (tmp_path / "other.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            BatchNormNetwork.load(tmp_path / "other.json")
    network.save(tmp_path / "network.json")
    with pytest.raises(ValueError, match="holds a BatchNormNetwork, not a WeightNormNetwork"):
        WeightNormNetwork.load(tmp_path / "network.json")


def gated():
    design = BatchNormDesign().fit(data())
    rng = np.random.default_rng(0)
    neurons = Neurons(
        rng.standard_normal((4, 5)), rng.standard_normal((5, 1)), np.ones(1), gates=rng.standard_normal((4, 5))
    )
    return make_network(neurons, design), neurons, design


@pytest.mark.parametrize("Design", [BatchNormDesign, WeightNormDesign])
def test_gated_network_predicts_as_its_neurons_on_new_rows(Design):
    _, neurons, _ = gated()
    design = Design().fit(data())
    network = make_network(neurons, design)
    new = data(seed=4)
    np.testing.assert_allclose(network.predict(new), neurons.outputs(design.matrix(new)))
    assert len(network) == 5


def test_gated_network_of_neurons_without_gates_is_refused():
    _, neurons, _ = random_network(BatchNormNetwork)
    with pytest.raises(ValueError, match="no gates"):
        GatedNetwork.from_neurons(neurons, BatchNormDesign().fit(data()))


def test_gated_network_takes_lists_and_refuses_nan():
    network = GatedNetwork([[1.0]], [0.0], [[2.0]], [1.0], [[1.0]], [0.0])
    np.testing.assert_array_equal(network.predict([[-1.0], [1.0]]), [[0.0], [3.0]])
    with pytest.raises(ValueError, match="bias contains NaN"):
        GatedNetwork([[1.0]], [0.0], [[2.0]], [np.nan], [[1.0]], [0.0])


def test_bad_input(Network):
    network = random_network(Network)[0]
    with pytest.raises(ValueError, match="4 features, the network was trained on 3"):
        network.predict(np.ones((2, 4)))
    with pytest.raises(ValueError, match="inconsistent"):
        network.objective(data(), np.ones(3), 0.1)
    with pytest.raises(ValueError, match="y must have 1 columns"):
        network.objective(data(), np.ones((15, 2)), 0.1)
    arrays = {name: getattr(network, name) for name in ("weights", "output_weights", "intercept", *Network.per_neuron)}
    for field, value, message in (
        ("gamma", np.ones(3), r"gamma must have shape \(5,\)"),
        ("bias", np.full(5, np.nan), "bias contains NaN"),
        ("weights", np.ones(5), "2-D"),
        ("intercept", np.ones(2), r"intercept must have shape \(1,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            Network(**arrays | {field: value})


def test_degenerate_weights_are_refused():
    network = random_network(BatchNormNetwork)[0]
    with pytest.raises(ValueError, match="std must be positive"):
        BatchNormNetwork(**vars(network) | {"std": np.zeros(5)})
    with pytest.raises(ValueError, match="does not vary"):
        network.objective(np.ones((4, 3)), np.ones(4), 0.1)
    # What is left of x·(0.3, -0.1, 0) where the second feature is three times the first is rounding.
    first = np.random.default_rng(0).standard_normal((50, 1))
    cancelled = BatchNormNetwork(**vars(network) | {"weights": np.tile([0.3, -0.1, 0.0], (5, 1))})
    with pytest.raises(ValueError, match="does not vary"):
        cancelled.with_statistics(first * [1.0, 3.0, 1.0])
    other = random_network(WeightNormNetwork)[0]
    with pytest.raises(ValueError, match="zero"):
        WeightNormNetwork(**vars(other) | {"weights": np.zeros((5, 3))})


def test_missing_torch_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'convexbn\[torch\]'"):
        random_network(BatchNormNetwork)[0].to_torch()


def test_statistics_are_added_up_block_by_block():
    network, weights = random_network(BatchNormNetwork)[0], np.arange(15) % 4
    X = data() + 1e4 * np.arange(15)[:, None]  # blocks whose means are far from one another
    whole = network.with_statistics(X, weights)
    preactivations = (X @ network.weights.T).repeat(weights, axis=0)
    np.testing.assert_allclose(whole.mean, preactivations.mean(axis=0))
    np.testing.assert_allclose(whole.std, preactivations.std(axis=0))
    times = 2**22 // X.size + 1  # more entries than are made double at once
    by_blocks = network.with_statistics(X.repeat(times, axis=0), weights.repeat(times))
    np.testing.assert_allclose(by_blocks.mean, whole.mean)
    np.testing.assert_allclose(by_blocks.std, whole.std)


def test_statistics_of_bytes_are_those_of_numbers():
    network, X = random_network(BatchNormNetwork)[0], np.random.default_rng(0).integers(0, 256, data().shape)
    of_bytes = network.with_statistics(X.astype(np.uint8))
    np.testing.assert_array_equal(of_bytes.std, network.with_statistics(X.astype(np.float64)).std)
    np.testing.assert_allclose(of_bytes.predict(X.astype(np.uint8)), of_bytes.predict(X))


def test_gates_are_open_on_their_hyperplane():
    network = GatedNetwork([[1.0, 0.0]], [-2.0], [[0.0, 1.0]], [3.0], [[1.0]], [0.0])
    X = np.array([[2.0, 1.0], [1.9, 1.0], [2.1, 1.0]])
    np.testing.assert_array_equal(network.predict(X), [[4.0], [0.0], [4.0]])
    with torch.no_grad():
        np.testing.assert_array_equal(network.to_torch()(torch.tensor(X)), network.predict(X))
