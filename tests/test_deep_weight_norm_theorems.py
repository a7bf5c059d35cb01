"""What the theorems on deep weight normalization promise: curvature, step sizes, generalisation."""

import math

import numpy as np
import pytest
import torch

from convexbn.gradient import DivergenceError
from convexbn.gradient.deep_weight_norm import (
    SmoothNetwork,
    generalization_bound,
    largest_stable_rate,
    rademacher_bound,
    train_deep_weight_norm,
)

RNG = np.random.default_rng(0)
X = RNG.standard_normal((12, 5))
Y = np.sign(X[:, 0] * X[:, 1])
FEW = X[:3]


def network(**options):
    return SmoothNetwork.at_initialization(5, **{"depth": 2, "width": 6, "random_state": 0} | options)


# Curvature


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
@pytest.mark.parametrize("normalized", [True, False])
def test_smoothness_bound_has_its_two_parts_and_bounds_the_hessian(activation, normalized):
    net = network(activation=activation, normalized=normalized, row_norm=0.5)
    parameters = net._parameters()
    squares = [
        sum(float((entry**2).sum()) for entry in torch.autograd.grad(output, parameters, retain_graph=True))
        for output in net._outputs(parameters, torch.tensor(FEW))
    ]
    bound, loss = net.smoothness_bound(FEW, Y[:3]), net.loss(FEW, Y[:3])
    assert bound == pytest.approx(max(squares) + net.predictor_hessian_norm(FEW) * math.sqrt(2 * loss), rel=1e-6)
    assert net.loss_hessian_norm(FEW, Y[:3]) < bound
    estimate = net.smoothness_bound(FEW, Y[:3], n_hessian_samples=2)
    hessian = net.predictor_hessian_norm(FEW[[0, 2]])
    assert estimate == pytest.approx(max(squares) + hessian * math.sqrt(2 * loss), rel=1e-6)


def test_smoothness_bound_is_the_hessian_itself_of_one_sample_without_error():
    net = network()
    fitted = net.predict(X[:1])
    assert net.smoothness_bound(X[:1], fitted) == pytest.approx(net.loss_hessian_norm(X[:1], fitted), rel=1e-6)


# Step sizes


def losses(start, rate, n_steps):
    try:
        trace = train_deep_weight_norm(
            X, Y, start, learning_rate=rate, n_steps=n_steps, noted_steps=np.arange(n_steps + 1), n_hessian_samples=0
        )[1]
    except DivergenceError as error:
        trace = error.trace
    return trace.objective


@pytest.mark.parametrize("row_norm", [0.3, 3.0])
def test_largest_stable_rate_is_stable_and_a_little_more_is_not(row_norm):
    """Short rows have a Hessian at the start that is too large a guide to stable rates, long ones one too small."""
    start, n_steps = network(row_norm=row_norm), 30
    rate = largest_stable_rate(X, Y, start, n_steps=n_steps, rtol=0.01)
    assert (np.diff(losses(start, rate, n_steps)) <= 0).all()
    assert (np.diff(losses(start, 1.011 * rate, n_steps)) > 0).any()
    beyond = largest_stable_rate(X, Y, start, n_steps=n_steps, monotone=False, rtol=0.01)
    assert beyond > rate
    assert losses(start, beyond, n_steps)[-1] <= start.loss(X, Y)
    assert losses(start, 1.011 * beyond, n_steps)[-1] > start.loss(X, Y)


def test_the_rate_of_the_theorem_descends_and_is_far_from_the_largest():
    start = network(depth=3, width=20)
    allowed = 1 / start.smoothness_bound(X, Y)
    assert (np.diff(losses(start, allowed, 200)) < 0).all()
    assert largest_stable_rate(X, Y, start, n_steps=50, rtol=0.1) > 2 * allowed


def test_every_rate_is_stable_at_a_loss_of_zero():
    start = network()
    assert largest_stable_rate(X, start.predict(X), start, n_steps=1) == math.inf


# Generalisation


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_rademacher_bound_is_just_above_what_networks_of_equal_rows_reach(depth):
    """Small inputs keep tanh linear; then the signs correlate best with rows along the signed sum of the inputs."""
    m, small = 6, 1e-4 * X / np.linalg.norm(X, axis=1, keepdims=True)
    net, correlations = network(depth=depth, width=m), []
    output_weights = np.full(m, np.linalg.norm(net.output_weights) / math.sqrt(m))
    for _ in range(300):
        signs = RNG.choice([-1.0, 1.0], size=len(X))
        weights = [np.tile(signs @ small, (m, 1)), *[np.ones((m, m))] * (depth - 1)]
        correlations.append(signs @ SmoothNetwork(weights, output_weights).predict(small) / len(X))
    bound = rademacher_bound(net, len(X), input_norm=1e-4)
    assert np.mean(correlations) < bound < 1.2 * np.mean(correlations)  # the root of a mean of squares is a little more


def test_rademacher_bound_of_softplus_counts_its_value_at_zero():
    """The features of no input are log(2) each, which output weights of one sign correlate with every sign."""
    net, n = network(depth=2, activation="softplus"), 400
    signs = RNG.choice([-1.0, 1.0], size=(4000, n))
    unit = np.full(6, 1 / math.sqrt(6)) * np.linalg.norm(net.output_weights)
    feature = math.log1p(math.exp(math.log(2) * math.sqrt(6)))  # second layer of equal rows, of constant features
    of_constants = (unit.sum() / math.sqrt(6)) * feature * np.abs(signs.sum(axis=1)).mean() / n
    bound = rademacher_bound(net, n, input_norm=1e-9)
    assert of_constants < bound < 5 * of_constants


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_rademacher_bound_of_tanh_is_a_power_of_the_width(depth):
    narrow, wide = (rademacher_bound(network(depth=depth, width=m), 50, input_norm=3.0) for m in (4, 16))
    assert narrow == pytest.approx(3 * 2**depth / math.sqrt(50))
    assert wide / narrow == pytest.approx(4 ** (depth / 2))


def test_generalization_bound_adds_complexity_and_deviation():
    net, n, confidence = network(), 100, 0.9
    k = 10  # at the start the norm of v / sqrt(m) is one
    expected = 4 * rademacher_bound(net, n, input_norm=2.0) + 2 * math.sqrt(math.log(k * (k + 1) / 0.1) / (2 * n))
    assert generalization_bound(net, n, input_norm=2.0, confidence=confidence) == pytest.approx(expected)
    longer = SmoothNetwork(net.weights, 1.01 * net.output_weights)
    rounded_up = 4 * rademacher_bound(SmoothNetwork(net.weights, 1.1 * net.output_weights), n, input_norm=2.0)
    bound = generalization_bound(longer, n, input_norm=2.0, confidence=confidence)
    assert bound == pytest.approx(rounded_up + 2 * math.sqrt(math.log(11 * 12 / 0.1) / (2 * n)))
    assert generalization_bound(net, 4 * n, input_norm=2.0) == pytest.approx(
        generalization_bound(net, n, input_norm=2.0) / 2
    )


NET = network()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NET.smoothness_bound(X, Y[:-1]), "inconsistent"),
        (lambda: NET.smoothness_bound(X, Y, n_hessian_samples=0), "n_hessian_samples=0 must be an integer from 1 on"),
        (lambda: NET.smoothness_bound(X, Y, n_hessian_samples=13), "n_hessian_samples=13 must be at most 12"),
        (lambda: largest_stable_rate(X[:, :3], Y, NET), "3 features"),
        (lambda: largest_stable_rate(X, Y, None), "start must be a SmoothNetwork"),
        (lambda: largest_stable_rate(X, Y, NET, n_steps=0), "n_steps=0 must be an integer from 1 on"),
        (lambda: largest_stable_rate(X, Y, NET, rtol=0), "rtol=0 must be a positive"),
        (lambda: rademacher_bound(None, 10, input_norm=1.0), "network must be a SmoothNetwork, not a NoneType"),
        (lambda: rademacher_bound(network(normalized=False), 10, input_norm=1.0), "not weight-normalized.*give one"),
        (lambda: rademacher_bound(NET, 0, input_norm=1.0), "n_samples=0"),
        (lambda: rademacher_bound(NET, 10, input_norm=-1.0), "input_norm=-1.0"),
        (lambda: generalization_bound(NET, 1.5, input_norm=1.0), "n_samples=1.5"),
        (lambda: generalization_bound(NET, 10, input_norm=0), "input_norm=0"),
        (lambda: generalization_bound(NET, 10, input_norm=1.0, confidence=1), "confidence=1 must be a number between"),
        (lambda: generalization_bound(None, 10, input_norm=1.0), "must be a SmoothNetwork"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
