"""Frozen modules of torch: what they compute with, and that they go through a pickle."""

import pickle
from copy import deepcopy

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from torch.nn import BatchNorm1d, Linear, ReLU, Sequential
from torch.nn.utils import parametrizations

from convexbn import ConvexBNRegressor, ConvexBNStackRegressor, FrozenModule

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 4))
Y = np.maximum(X[:, 0], 0) + 0.1 * RNG.standard_normal(40)
NORMS = {
    "weight": parametrizations.weight_norm,
    "spectral": parametrizations.spectral_norm,
    "both": lambda layer: parametrizations.spectral_norm(parametrizations.weight_norm(layer)),
    "orthogonal": parametrizations.orthogonal,
}


def module(norm, m=6):
    torch.manual_seed(0)
    layers = Sequential(NORMS[norm](Linear(4, m)), BatchNorm1d(m), ReLU())
    layers(torch.tensor(X, dtype=torch.float32))  # other running statistics than zero and one
    return layers


def stack(module):
    return ConvexBNStackRegressor(ConvexBNRegressor(0.1, tol=0.1), n_stages=1, features=FrozenModule(module))


def through_pickle(model, tmp_path):
    joblib.dump(model, tmp_path / "model.joblib")
    return pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model.joblib"), deepcopy(model)


@pytest.mark.parametrize("statistics", ["running", "batch"])
@pytest.mark.parametrize("norm", NORMS)
def test_parametrized_modules_are_frozen_and_pickled_with_their_outputs(norm, statistics, tmp_path):
    given = module(norm)
    reference = deepcopy(given).double().train(statistics == "batch")
    with torch.no_grad():
        expected = deepcopy(reference)[0].eval()(torch.tensor(X))
        expected = reference[1:](expected).numpy()
    features = FrozenModule(given, statistics).fit(X)
    np.testing.assert_allclose(features.transform(X), expected, atol=1e-9)
    assert given[0].parametrizations.weight is not None
    assert given.training
    torch.save(features.to_torch(), tmp_path / "module.pt")
    loaded = torch.load(tmp_path / "module.pt", weights_only=False)
    np.testing.assert_array_equal(loaded(torch.tensor(X)).numpy(), features.transform(X))
    for again in through_pickle(features, tmp_path):
        np.testing.assert_array_equal(again.transform(X), features.transform(X))
        np.testing.assert_array_equal(clone(again).fit_transform(X), features.transform(X))
    for unfitted in through_pickle(FrozenModule(given, statistics), tmp_path):
        np.testing.assert_allclose(unfitted.fit_transform(X), features.transform(X), rtol=1e-6)


def test_a_pickled_transformer_is_the_fitted_one_even_if_its_module_was_trained_on():
    given = module("weight")
    features = FrozenModule(given).fit(X)
    before = features.transform(X)
    with torch.no_grad():
        given[0].bias.add_(1)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(features)).transform(X), before)


def test_stacks_and_searches_of_parametrized_modules_go_to_other_processes_and_back():
    model = stack(module("weight"))
    alone = GridSearchCV(model, {"estimator__weight_decay": [0.1, 0.2]}, cv=2).fit(X, Y)
    search = pickle.loads(pickle.dumps(alone))
    np.testing.assert_array_equal(search.predict(X), alone.predict(X))
    np.testing.assert_allclose(search.fit(X, Y).predict(X), alone.predict(X))
    sent = pickle.loads(pickle.dumps(model))
    np.testing.assert_allclose(cross_val_score(sent, X, Y, cv=2), cross_val_score(model, X, Y, cv=2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_pickled_stack_holds_a_module_twice_as_parameter_and_as_fitted(dtype):
    torch.manual_seed(0)
    large = Sequential(Linear(4, 50_000), ReLU(), Linear(50_000, 3)).to(dtype)
    numbers = sum(values.numel() * values.element_size() for values in large.state_dict().values())
    model = stack(large).fit(X, Y)
    pickled = pickle.dumps(model)
    # numbers that single precision holds take no more memory than there
    assert len(pickled) < 2.05 * numbers
    np.testing.assert_array_equal(pickle.loads(pickled).predict(X), model.predict(X))


def test_a_module_that_torch_cannot_copy_is_named():
    with pytest.warns(FutureWarning, match="weight_norm"):
        hooked = torch.nn.utils.weight_norm(Linear(4, 3))
    with pytest.raises(ValueError, match=r"module cannot be copied.*torch\.nn\.utils\.parametrizations"):
        FrozenModule(hooked).fit(X)
