"""Networks as modules of torch, and modules of torch as networks: the same outputs, or a ValueError."""

import io
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import (
    AdaptiveAvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Identity,
    Linear,
    ReLU,
    Sequential,
    Tanh,
)
from torch.nn.utils import parametrizations, prune

from convexbn import (
    BatchNormNetwork,
    ConvBatchNormNetwork,
    ConvexBNRegressor,
    ConvexBNStackRegressor,
    DeepNetwork,
    FrozenModule,
    GatedNetwork,
    RandomBatchNormLayers,
    WeightNormNetwork,
)
from convexbn.datasets import make_teacher
from convexbn.gradient import train

X, Y = make_teacher(60, 3, random_state=0)
NEW = np.random.default_rng(1).standard_normal((20, 3)) * X.std(axis=0) + X.mean(axis=0)
IMAGES = np.random.default_rng(2).standard_normal((30, 2, 4, 5))


def outputs(module, data):
    with torch.no_grad():
        return module(torch.tensor(data, dtype=next(module.parameters()).dtype)).double().numpy()


def dense(unit=1.0):
    return BatchNormNetwork.at_initialization(unit * X, 8, n_outputs=2, random_state=0)


def convolutional(unit=1.0):
    return ConvBatchNormNetwork.at_initialization(unit * IMAGES, 8, n_outputs=2, random_state=0)


def weight_normalized():
    options = {"weight_decay": 0.01, "normalization": "weight", "n_neurons": 8, "n_steps": 0}
    return train(X, np.c_[Y, -Y], random_state=0, **options)[0]


def deep():
    layers = RandomBatchNormLayers((7, 5)).fit(X).layers_
    features = layers[1].hidden(layers[0].hidden(X))
    return DeepNetwork(layers, BatchNormNetwork.at_initialization(features, 8, n_outputs=2, random_state=0))


def gated():
    normal = np.random.default_rng(0).standard_normal
    return GatedNetwork(normal((8, 3)), normal(8), normal((8, 3)), normal(8), normal((8, 2)), normal(2))


@pytest.mark.parametrize(
    ("network", "data"),
    [(dense(), X), (convolutional(), IMAGES), (weight_normalized(), X), (deep(), X)],
    ids=["dense", "convolutional", "weight", "deep"],
)
def test_modules_are_in_eval_mode_and_stay_as_they_are(network, data):
    module = network.to_torch()
    assert not any(part.training for part in module.modules())
    for rows in (data, data[:1]):
        np.testing.assert_allclose(outputs(module, rows), network.predict(rows), atol=1e-10)
    outputs(module, 3 * data + 1)
    np.testing.assert_allclose(outputs(module, data), network.predict(data), atol=1e-10)


def test_layers_and_stacks_are_in_eval_mode():
    layers = RandomBatchNormLayers((7,)).fit(X)
    frozen = FrozenModule(Sequential(Linear(3, 4), BatchNorm1d(4), ReLU())).fit(X)
    stack = ConvexBNStackRegressor(ConvexBNRegressor(0.1, tol=0.1), n_stages=1, features=layers).fit(X, Y)
    for module, expected in (
        (layers.to_torch(), layers.transform(NEW)),
        (frozen.to_torch(), frozen.transform(NEW)),
        (stack.to_torch(), stack.predict(NEW)[:, None]),
    ):
        assert not any(part.training for part in module.modules())
        np.testing.assert_allclose(outputs(module, NEW), expected, atol=1e-10)


@pytest.mark.parametrize("unit", [1e-5, 1e-3, 1.0, 1e3])
def test_state_dict_fits_a_module_made_with_the_defaults_of_torch(unit):
    network = dense(unit)
    plain = Sequential(Linear(3, 8, bias=False), BatchNorm1d(8), ReLU(), Linear(8, 2)).double()
    plain.load_state_dict(network.to_torch().state_dict())
    np.testing.assert_allclose(outputs(plain.eval(), unit * NEW), network.predict(unit * NEW), atol=1e-10)
    np.testing.assert_allclose(outputs(plain.train(), unit * X), network.predict(unit * X), atol=1e-10)


def test_state_dicts_of_convolutions_and_random_layers_fit_modules_made_with_the_defaults_of_torch():
    network = convolutional(1e-3)
    plain = [Conv2d(2, 8, 3, bias=False), BatchNorm2d(8), ReLU(), AdaptiveAvgPool2d(1), Flatten(), Linear(8, 2)]
    plain = Sequential(*plain)
    plain.double().eval().load_state_dict(network.to_torch().state_dict())
    np.testing.assert_allclose(outputs(plain, 1e-3 * IMAGES), network.predict(1e-3 * IMAGES), atol=1e-10)
    layers = RandomBatchNormLayers((9, 7)).fit(1e-3 * X)
    plain = [Linear(3, 9, bias=False), BatchNorm1d(9), ReLU(), Linear(9, 7, bias=False), BatchNorm1d(7), ReLU()]
    plain = Sequential(*plain).double().eval()
    plain.load_state_dict(layers.to_torch().state_dict())
    np.testing.assert_allclose(outputs(plain, 1e-3 * NEW), layers.transform(1e-3 * NEW), atol=1e-10)


@pytest.mark.parametrize("eps", [1e-5, 1e-12])
@pytest.mark.parametrize("unit", [1e-3, 1.0])
def test_weight_decay_sees_the_penalty_up_to_eps(unit, eps):
    network = dense(unit)
    module = network.to_torch(eps=eps)
    squares = sum(float((parameter**2).sum().detach()) for parameter in network.decayed_parameters(module))
    more = squares / 2 - network.penalty()
    share = np.minimum(1e-5, eps / network.std**2)  # where the variance is small, w_j is lengthened
    assert more == pytest.approx(float(share @ network.gamma**2) / 2, rel=1e-4, abs=1e-14)


def test_round_trip_keeps_the_objective_and_prunes():
    for network, data, targets in ((dense(1e-3), 1e-3 * X, np.c_[Y, -Y]), (convolutional(), IMAGES, np.ones((30, 2)))):
        again = type(network).from_torch(network.to_torch())
        assert again.penalty() == pytest.approx(network.penalty(), rel=1e-12)
        assert again.objective(data, targets, 0.1) == pytest.approx(network.objective(data, targets, 0.1), rel=1e-10)
        np.testing.assert_allclose(again.prune(data).predict(data), network.predict(data), atol=1e-8)


def test_a_module_trained_on_small_numbers_is_read_with_its_eps():
    """Torch divides by sqrt(var + eps); where eps is most of it, new statistics must not undo that."""
    torch.manual_seed(0)
    module = Sequential(Linear(3, 6), BatchNorm1d(6, momentum=1.0), ReLU(), Linear(6, 1)).double()
    small = 1e-3 * X
    with torch.no_grad():
        trained = module(torch.tensor(small)).numpy()
    network = BatchNormNetwork.from_torch(module)
    np.testing.assert_allclose(network.predict(small), outputs(module.eval(), small), atol=1e-12)
    # torch's running variance is unbiased, 60/59 times the one that it divided by
    np.testing.assert_allclose(network.with_statistics(small).predict(small), trained, atol=0.01 * np.ptp(trained))
    with pytest.raises(ValueError, match=r"with_statistics\(X, sample_weight\)"):
        network.prune(small)
    pruned = network.with_statistics(small).prune(small)
    np.testing.assert_allclose(pruned.predict(small), network.with_statistics(small).predict(small), atol=1e-9)


def test_a_neuron_that_never_varied_is_divided_by_eps_alone():
    module = Sequential(Linear(1, 1, bias=False), BatchNorm1d(1), ReLU(), Linear(1, 1)).double().eval()
    module[1].running_var.zero_()
    network = BatchNormNetwork.from_torch(module)
    np.testing.assert_allclose(network.predict([[1.0], [-2.0]]), outputs(module, np.array([[1.0], [-2.0]])), rtol=1e-12)


@pytest.mark.parametrize("eps", [0, -1.0, np.nan, np.inf])
def test_eps_must_be_positive(eps):
    for network in (dense(), weight_normalized()):
        with pytest.raises(ValueError, match=r"eps=.* must be a positive number"):
            network.to_torch(eps=eps)


def test_fine_tuning_in_single_precision_where_a_neuron_may_not_vary_on_a_batch():
    rng = np.random.default_rng(0)
    data = (rng.random((400, 2)) < 0.97).astype(float)
    y = data @ [1, 2] + 0.1 * rng.standard_normal(400)
    network = ConvexBNRegressor(0.01, tol=1e-3).fit(data, y).network_
    for dtype in (torch.float32, torch.float64):
        module = network.to_torch().to(dtype).train()
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
        for _ in range(100):
            chosen = rng.choice(400, 8, replace=False)
            optimizer.zero_grad()
            f = module(torch.tensor(data[chosen], dtype=dtype))[:, 0]
            (f - torch.tensor(y[chosen], dtype=dtype)).square().mean().backward()
            optimizer.step()
        assert max(float(parameter.detach().abs().max()) for parameter in module.parameters()) < 20
        tuned = BatchNormNetwork.from_torch(module).with_statistics(data)
        assert tuned.objective(data, y, 0.0) < 0.3 * y.var() / 2


def old_style(norm, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch recommends parametrizations in place of these
        return norm(*args, **options)


FIRST_LAYERS = {
    "plain": lambda: Linear(3, 4),
    "no bias": lambda: Linear(3, 4, bias=False),
    "by rows": lambda: parametrizations.weight_norm(Linear(3, 4)),
    "by columns": lambda: parametrizations.weight_norm(Linear(3, 4), dim=1),
    "by columns, one neuron": lambda: parametrizations.weight_norm(Linear(3, 1), dim=1),
    "as a whole": lambda: parametrizations.weight_norm(Linear(3, 4), dim=None),
    "by last": lambda: parametrizations.weight_norm(Linear(3, 4), dim=-1),
    "spectral": lambda: parametrizations.spectral_norm(Linear(3, 4)),
    "by rows, then spectral": lambda: parametrizations.spectral_norm(parametrizations.weight_norm(Linear(3, 4))),
    "orthogonal": lambda: parametrizations.orthogonal(Linear(3, 4)),
    "parametrized bias": lambda: parametrizations.weight_norm(Linear(3, 4), "bias", dim=None),
    "old, by rows": lambda: old_style(torch.nn.utils.weight_norm, Linear(3, 4)),
    "old, by columns": lambda: old_style(torch.nn.utils.weight_norm, Linear(3, 4), dim=1),
    "old, as a whole": lambda: old_style(torch.nn.utils.weight_norm, Linear(3, 4), dim=None),
    "old, spectral": lambda: old_style(torch.nn.utils.spectral_norm, Linear(3, 4)),
    "pruned": lambda: prune.l1_unstructured(Linear(3, 4), "weight", 0.5),
    "a neuron pruned away": lambda: prune.ln_structured(Linear(3, 4), "weight", 0.5, n=2, dim=0),
}


def moved(layer):
    """Give all parameters and masks' originals other values than those a layer is made with."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", FIRST_LAYERS)
def test_networks_are_read_as_they_compute_in_eval_mode(name, training):
    torch.manual_seed(0)
    first = moved(FIRST_LAYERS[name]())
    m = first.out_features
    output = moved(parametrizations.weight_norm(Linear(m, 2)))
    for Network, normalization in ((WeightNormNetwork, []), (BatchNormNetwork, [BatchNorm1d(m, affine=m > 1)])):
        module = Sequential(first, *normalization, ReLU(), Dropout(0.5), Identity(), output).double()
        module.train()(torch.tensor(X))  # other running statistics than zero and one
        with torch.no_grad():
            first.bias = None if first.bias is None else first.bias  # read anew
        module.train(training)
        network = Network.from_torch(module)
        assert all(part.training == training for part in module.modules())
        np.testing.assert_allclose(network.predict(NEW), outputs(module.eval(), NEW), atol=1e-12)


def test_directions_and_lengths_of_weight_normalization_are_kept():
    for layer in (FIRST_LAYERS["by rows"](), FIRST_LAYERS["old, by rows"]()):
        network = WeightNormNetwork.from_torch(Sequential(moved(layer), ReLU(), Linear(4, 1)).double())
        again = WeightNormNetwork.from_torch(network.to_torch())
        assert (np.abs(np.linalg.norm(network.weights, axis=1) - np.abs(network.gamma)) > 1e-3).all()
        np.testing.assert_array_equal(again.weights, network.weights)
        np.testing.assert_array_equal(again.gamma, network.gamma)


def test_parametrized_convolutions_are_read_as_they_compute():
    torch.manual_seed(0)
    convolution = parametrizations.spectral_norm(Conv2d(2, 6, 3))
    module = Sequential(convolution, BatchNorm2d(6), ReLU(), AdaptiveAvgPool2d(1), Flatten(), Dropout(), Linear(6, 2))
    module.double().train()(torch.tensor(IMAGES))
    network = ConvBatchNormNetwork.from_torch(module)
    np.testing.assert_allclose(network.predict(IMAGES), outputs(module.eval(), IMAGES), atol=1e-12)


class Doubled(Sequential):
    def forward(self, inputs):
        return 2 * super().forward(inputs)


def hooked(layer):
    layer.register_forward_hook(lambda layer, inputs, outputs: outputs + 1)
    return layer


def hooked_before(layer):
    layer.register_forward_pre_hook(lambda layer, inputs: (2 * inputs[0],))
    return layer


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Sequential(Linear(3, 4), Tanh(), Linear(4, 1)), "must be a torch.nn.Sequential of Linear"),
        (Sequential(Linear(3, 4), ReLU(), Linear(4, 4), ReLU(), Linear(4, 1)), "must be a torch.nn.Sequential"),
        (Sequential(Sequential(Linear(3, 4), ReLU()), Linear(4, 1)), "must be a torch.nn.Sequential"),
        (Sequential(torch.nn.LazyLinear(4), ReLU(), Linear(4, 1)), "must be a torch.nn.Sequential"),
        (Doubled(Linear(3, 4), ReLU(), Linear(4, 1)), "must be a torch.nn.Sequential"),
        (Sequential(Linear(3, 4), hooked(ReLU()), Linear(4, 1)), "ReLU has forward hooks"),
        (Sequential(Linear(3, 4), ReLU(), hooked_before(Linear(4, 1))), "Linear has forward hooks"),
        (Sequential(Linear(3, 4), ReLU(), hooked(Dropout()), Linear(4, 1)), "Dropout has forward hooks"),
        (hooked(Sequential(Linear(3, 4), ReLU(), Linear(4, 1))), "Sequential has forward hooks"),
    ],
)
def test_other_modules_are_refused(module, message):
    with pytest.raises(ValueError, match=message):
        WeightNormNetwork.from_torch(module)


def test_a_weight_normalized_module_is_saved_by_its_state():
    network = weight_normalized()
    module, file = network.to_torch(), io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other = replace(network, weights=network.weights[::-1]).to_torch()
    other.load_state_dict(torch.load(file))
    np.testing.assert_array_equal(outputs(other, NEW), outputs(module, NEW))


@pytest.mark.parametrize(
    ("network", "data"),
    [(dense(), X), (convolutional(), IMAGES), (weight_normalized(), X), (deep(), X), (gated(), X)],
    ids=["dense", "convolutional", "weight", "deep", "gated"],
)
def test_huge_data_gives_finite_outputs_or_an_error(network, data):
    for size in (1e100, 1e200, 1e290, -1e290):
        assert np.isfinite(network.predict(np.full_like(data, size))).all()
    large = replace(network.head if isinstance(network, DeepNetwork) else network, output_weights=np.full((8, 2), 1e10))
    network = replace(network, head=large) if isinstance(network, DeepNetwork) else large
    for sign in (1, -1):
        with pytest.raises(ValueError, match="outputs for X overflow"):
            network.predict(np.full_like(data, sign * 1.7e308))


def test_statistics_of_huge_data_are_an_error():
    for network, data in ((dense(), X), (convolutional(), IMAGES)):
        with pytest.raises(ValueError, match="standard deviations over X overflow"), np.errstate(all="ignore"):
            network.with_statistics(1e300 * data)
