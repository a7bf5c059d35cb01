import numpy as np
import pytest

from convexbn import BatchNormNetwork, WeightNormNetwork
from convexbn.datasets import make_teacher
from convexbn.gradient import train
from convexbn.losses import LOSSES
from tests.problems import ONE_OUTPUT

X, Y = make_teacher(30, 3, random_state=0)


@pytest.mark.parametrize(("normalization", "Network"), [("batch", BatchNormNetwork), ("weight", WeightNormNetwork)])
@pytest.mark.parametrize("loss", ONE_OUTPUT)
def test_objective_of_the_returned_network_is_the_last_one(normalization, Network, loss):
    y = np.where(Y > 0, 1.0, -1.0) if LOSSES[loss].margin else Y
    network, objectives = train(
        X, y, weight_decay=0.01, loss=loss, normalization=normalization, n_neurons=10, n_steps=60, random_state=0
    )
    assert type(network) is Network
    assert len(objectives) == 61
    assert network.objective(X, y, 0.01, loss) == pytest.approx(objectives[-1])
    assert objectives[-1] < 0.9 * objectives[0]


def test_training_is_deterministic_given_the_seed():
    runs = [train(X, Y, weight_decay=0.01, n_neurons=5, n_steps=20, random_state=seed)[1] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert runs[0][-1] != runs[2][-1]


def test_output_intercept_is_trained_only_if_asked():
    options = {"weight_decay": 0.01, "n_neurons": 5, "n_steps": 20, "random_state": 0}
    assert train(X, Y + 3, **options)[0].intercept == 0
    assert train(X, Y + 3, fit_intercept=True, **options)[0].intercept != 0


def test_descent_from_a_given_start_and_what_the_callback_sees():
    start, seen = BatchNormNetwork.at_initialization(X, 6, n_outputs=1, random_state=0), []
    options = {"weight_decay": 0.01, "optimizer": "sgd", "learning_rate": 0.05, "start": start}
    network, objectives = train(X, Y, n_steps=30, callback=lambda step, f: seen.append((step, f)), **options)
    assert [step for step, _ in seen] == list(range(31))
    np.testing.assert_allclose(seen[0][1], start.predict(X), atol=1e-10)
    np.testing.assert_allclose(seen[-1][1], network.predict(X), atol=1e-10)
    assert (np.diff(objectives) < 0).all()
    assert objectives[0] == pytest.approx(start.objective(X, Y, 0.01))
    adam = train(X, Y, n_steps=30, **options | {"optimizer": "adam"})[1]
    assert adam[0] == objectives[0]
    assert adam[-1] != objectives[-1]


def test_gradients_are_those_of_the_objective():
    """One small step of plain descent must lower the objective by the squared length of the gradient."""
    import torch

    from convexbn.gradient.batch_norm import _backward
    from convexbn.losses import SquaredError

    network = train(X, Y, weight_decay=0.05, n_neurons=4, n_steps=5, random_state=0)[0]
    module, y = network.to_torch().train(), Y[:, None]
    before = _backward(module, network, torch.tensor(X), y, SquaredError(), 0.05)[0]
    step, squares = 1e-7, 0.0
    with torch.no_grad():
        for parameter in module.parameters():
            squares += float((parameter.grad**2).sum())
            parameter -= step * parameter.grad
    after = _backward(module, network, torch.tensor(X), y, SquaredError(), 0.05)[0]
    assert before - after == pytest.approx(step * squares, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "log_loss"}, "labels -1 and"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"normalization": "layer"}, "normalization='layer' is unknown"),
        ({"y": Y[:-1]}, "inconsistent"),
        ({"optimizer": "newton"}, "optimizer='newton' is unknown"),
        ({"start": BatchNormNetwork.at_initialization(X[:, :2], 5, n_outputs=1)}, "start takes 2 features"),
        ({"start": BatchNormNetwork.at_initialization(X, 5, n_outputs=2)}, "start takes 3 features to 2 outputs"),
        ({"X": np.full_like(X, np.nan)}, "NaN"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        train(**{"X": X, "y": Y, "weight_decay": 0.1} | changes)
