from dataclasses import replace

import numpy as np
import pytest
import torch

from convexbn import (
    BatchNormDesign,
    BatchNormNetwork,
    ConvBatchNormNetwork,
    PatchDesign,
    Problem,
    WeightNormDesign,
    WeightNormNetwork,
    solve,
)
from convexbn.datasets import make_teacher
from convexbn.gradient import DivergenceError, train
from convexbn.gradient._objective import TrainingObjective
from convexbn.gradient.deep_weight_norm import SmoothNetwork
from convexbn.losses import LOSSES, make_loss

X, Y = make_teacher(30, 3, random_state=0)
WITHOUT_NEURONS = BatchNormNetwork(
    np.zeros((0, 3)), np.zeros(0), np.zeros(0), np.zeros((0, 1)), np.zeros(1), np.zeros(0), np.zeros(0)
)
GEOMETRY = {"kernel_size": 2, "stride": (1, 2), "padding": (1, 0)}
KINDS = {
    "batch": (BatchNormNetwork, BatchNormDesign(), {}),
    "weight": (WeightNormNetwork, WeightNormDesign(), {"normalization": "weight"}),
    "convolutional": (ConvBatchNormNetwork, PatchDesign(**GEOMETRY), GEOMETRY),
}


def images(n=30, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 2, 4, 5)) * np.array([[[1.0]], [[3.0]]]) + 1


def data_of(kind):
    return images() if kind == "convolutional" else X


def targets_of(loss):
    if LOSSES[loss].one_hot:
        return np.eye(3)[np.arange(len(Y)) % 3]
    return np.where(Y > 0, 1.0, -1.0) if LOSSES[loss].margin else Y


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs", "sgd"])
@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("kind", KINDS)
def test_objective_is_that_of_the_network_and_of_the_convex_problem(kind, loss, optimizer):
    Network, design, options = KINDS[kind]
    data, y = data_of(kind), targets_of(loss)
    options = options | {"loss": loss, "n_neurons": 8, "weight_decay": 0.02, "fit_intercept": True}
    start, at_start = train(data, y, **options, n_steps=0, random_state=0)
    network, trace = train(data, y, **options, n_steps=30, optimizer=optimizer, random_state=0)
    assert type(network) is Network
    assert trace.steps.tolist() == list(range(len(trace)))
    assert (2 < len(trace) <= 31) if optimizer == "lbfgs" else len(trace) == 31
    assert trace.objective[0] == at_start.objective[0]
    assert trace.objective[-1] < trace.objective[0]
    problem = Problem(design.fit(data).matrix(data), y, loss, weight_decay=0.02, fit_intercept=True)
    for trained, objective in ((start, trace.objective[0]), (network, trace.objective[-1])):
        assert trained.objective(data, y, 0.02, loss) == pytest.approx(objective, rel=1e-10)
        S = design.neurons(trained.weights, trained.gamma, trained.bias)
        outputs = np.maximum(problem.Z.Z @ S, 0).reshape(len(data), -1, len(trained)).mean(axis=1)
        f = outputs @ trained.output_weights + trained.intercept
        penalty = ((S**2).sum() + (trained.output_weights**2).sum()) / 2
        assert problem.training_loss(f) + 0.02 * penalty == pytest.approx(objective, rel=1e-10)
        np.testing.assert_allclose(trained.predict(data), f, atol=1e-10)


def test_training_is_deterministic_given_the_seed():
    for options in ({}, {"batch_size": 7}, {"optimizer": "lbfgs"}):
        runs = [
            train(X, Y, weight_decay=0.01, n_neurons=5, n_steps=20, random_state=seed, **options)[1].objective
            for seed in (0, 0, 1)
        ]
        np.testing.assert_array_equal(runs[0], runs[1])
        assert runs[0][-1] != runs[2][-1]


def test_output_intercept_is_trained_only_if_asked():
    options = {"weight_decay": 0.01, "n_neurons": 5, "n_steps": 20, "random_state": 0}
    assert train(X, Y + 3, **options)[0].intercept == 0
    assert train(X, Y + 3, fit_intercept=True, **options)[0].intercept != 0


def test_descent_from_a_given_start_and_what_the_callback_sees():
    start, seen = BatchNormNetwork.at_initialization(X, 6, n_outputs=1, random_state=0), []
    options = {"weight_decay": 0.01, "optimizer": "sgd", "learning_rate": 0.05, "start": start}
    network, trace = train(X, Y, n_steps=30, callback=lambda step, f: seen.append((step, f)), **options)
    assert [step for step, _ in seen] == list(range(31))
    np.testing.assert_allclose(seen[0][1], start.predict(X), atol=1e-10)
    np.testing.assert_allclose(seen[-1][1], network.predict(X), atol=1e-10)
    assert (np.diff(trace.objective) < 0).all()
    assert trace.objective[0] == pytest.approx(start.objective(X, Y, 0.01))
    adam = train(X, Y, n_steps=30, **options | {"optimizer": "adam"})[1]
    assert adam.objective[0] == trace.objective[0]
    assert adam.objective[-1] != trace.objective[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_objective(kind):
    """One small step of plain descent must lower the objective by the squared length of the gradient."""
    data, options = data_of(kind), KINDS[kind][2]
    network = train(data, Y, weight_decay=0.05, n_neurons=4, n_steps=5, random_state=0, **options)[0]
    objective = TrainingObjective(network, make_loss("squared_error"), 0.05, True, "float64")
    inputs, y = objective.inputs(data), Y[:, None]
    before = objective.evaluate(inputs, y)[0]
    step, squares = 1e-7, 0.0
    with torch.no_grad():
        for parameter in objective.parameters:
            squares += float((parameter.grad**2).sum())
            parameter -= step * parameter.grad
    assert before - objective.evaluate(inputs, y)[0] == pytest.approx(step * squares, rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_steps_are_those_of_torch_with_weight_decay_on_gamma_bias_and_output_weights(optimizer):
    start = BatchNormNetwork.at_initialization(X, 6, n_outputs=1, random_state=0)
    options = {"momentum": 0.9} if optimizer == "sgd" else {}
    network, _ = train(
        X, Y, weight_decay=0.1, optimizer=optimizer, learning_rate=0.03, n_steps=20, start=start, **options
    )
    module = start.to_torch(eps=1e-12).train()
    groups = [{"params": [module[0].weight]}, {"params": start.decayed_parameters(module), "weight_decay": 0.1}]
    plain = (torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam)(groups, lr=0.03, **options)
    for _ in range(20):
        plain.zero_grad()
        torch.nn.functional.mse_loss(module(torch.tensor(X))[:, 0], torch.tensor(Y)).div(2).backward()
        plain.step()
    np.testing.assert_allclose(network.weights, module[0].weight.detach(), atol=1e-10)
    np.testing.assert_allclose(network.output_weights.T, module[3].weight.detach(), atol=1e-10)


def test_lbfgs_makes_the_iterations_of_torch():
    """Iterations one at a time, with what is known remembered, are those of one call of torch."""
    start = train(X, Y, weight_decay=0.01, n_neurons=10, n_steps=0, random_state=0)[0]
    trace = train(X, Y, weight_decay=0.01, optimizer="lbfgs", n_steps=40, start=start)[1]
    assert (np.diff(trace.objective) < 0).all()
    objective = TrainingObjective(start, make_loss("squared_error"), 0.01, False, "float64", origin=start.origin(X))
    inputs, values = objective.inputs(X), []

    def closure():
        values.append(objective.evaluate(inputs, Y[:, None])[0])
        return values[-1]

    torch.optim.LBFGS(
        objective.parameters, max_iter=40, max_eval=1000, history_size=20, tolerance_grad=0, tolerance_change=0,
        line_search_fn="strong_wolfe",
    ).step(closure)  # fmt: skip
    assert set(trace.objective) <= {*values, trace.objective[-1]}
    assert objective.evaluate(inputs, Y[:, None])[0] == trace.objective[-1]


def test_lbfgs_ends_where_nothing_improves():
    network, trace = train([[-1.0], [1.0]], [0.0, 0.0], weight_decay=1.0, optimizer="lbfgs", random_state=0)
    assert len(trace) < 500
    assert trace.objective[-1] == pytest.approx(0, abs=1e-12)
    assert network.penalty() == pytest.approx(0, abs=1e-12)


def test_lbfgs_goes_on_from_the_gradient_where_a_line_search_fails():
    options = {"weight_decay": 0.01, "normalization": "weight", "n_neurons": 10, "optimizer": "lbfgs"}
    trace = train(X, Y, n_steps=2000, random_state=0, **options)[1]
    stalls = np.flatnonzero(np.diff(trace.objective) == 0)
    assert 0 < stalls[0] < stalls[-1] == len(trace) - 2 < 1999
    assert trace.objective[-1] < trace.objective[stalls[0]]


def test_lbfgs_ends_lower_than_descent():
    options = {"weight_decay": 0.01, "n_neurons": 20, "n_steps": 200, "random_state": 0}
    lbfgs, sgd = (train(X, Y, optimizer=optimizer, **options)[1].objective[-1] for optimizer in ("lbfgs", "sgd"))
    assert lbfgs < 0.9 * sgd


@pytest.mark.parametrize("kind", KINDS)
def test_one_mini_batch_of_all_samples_is_the_full_batch(kind):
    data = data_of(kind)
    options = {"weight_decay": 0.01, "n_neurons": 5, "n_steps": 10, "random_state": 0} | KINDS[kind][2]
    network, trace = train(data, Y, **options)
    by_batches, batches = train(data, Y, batch_size=len(Y), **options)
    np.testing.assert_allclose(batches.objective, trace.objective[:-1], rtol=1e-10)
    assert batches.steps.tolist() == list(range(1, 11))
    np.testing.assert_allclose(by_batches.weights, network.weights, rtol=1e-6)
    np.testing.assert_allclose(by_batches.predict(data), network.predict(data), atol=1e-8)


def test_an_epoch_is_recorded_with_the_mean_of_its_batches(monkeypatch):
    recorded, sizes, evaluate = [], [], TrainingObjective.evaluate

    def watched(self, inputs, y):
        value, f = evaluate(self, inputs, y)
        recorded.append(value)
        sizes.append(sorted(y[:, 0]))
        return value, f

    monkeypatch.setattr(TrainingObjective, "evaluate", watched)
    y = np.arange(30.0)
    trace = train(X, y, weight_decay=0.01, n_neurons=5, n_steps=8, batch_size=9, random_state=0)[1]
    assert trace.steps.tolist() == [3, 6, 8]
    np.testing.assert_allclose(trace.objective, [np.mean(recorded[:3]), np.mean(recorded[3:6]), np.mean(recorded[6:])])
    assert all(len(batch) == 9 for batch in sizes)
    epoch = np.concatenate(sizes[:3])
    assert len(set(epoch)) == 27
    assert set(epoch) != set(np.concatenate(sizes[3:6]))


@pytest.mark.parametrize("kind", ["batch", "convolutional"])
def test_single_precision_on_a_memory_map_of_bytes(kind, tmp_path):
    data = images(60) if kind == "convolutional" else images(60).reshape(60, -1)[:, :5]
    pixels = np.clip(100 + 30 * data, 0, 255).astype(np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    y = (pixels.reshape(60, -1)[:, 0] - 100.0) / 50
    options = KINDS[kind][2] | {"weight_decay": 0.01, "n_neurons": 10, "random_state": 0}
    for batches in ({"batch_size": 20, "n_steps": 9}, {"n_steps": 9}):
        network, trace = train(mapped, y, dtype="float32", **batches, **options)
        double, expected = train(pixels.astype(np.float64), y, **batches, **options)
        np.testing.assert_allclose(trace.objective, expected.objective, rtol=1e-4)
        assert not np.array_equal(trace.objective, expected.objective)
        np.testing.assert_allclose(network.predict(mapped), double.predict(pixels), atol=1e-3)
        # statistics of all of X, in double precision
        np.testing.assert_allclose(network.predict(mapped), network.with_statistics(pixels * 1.0).predict(pixels))


BINARY = (np.random.default_rng(0).random((400, 2)) < 0.97).astype(float)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("columns", [1, 2])
def test_mini_batches_on_which_a_neuron_does_not_vary(columns, optimizer, dtype):
    """Training goes on as with the eps of torch, and comes near what the full batch comes to."""
    data = BINARY[:, :columns]
    y = data @ [1.0, 2.0][:columns] + 0.1 * np.random.default_rng(1).standard_normal(400)
    options = {"weight_decay": 1e-3, "n_neurons": 5, "optimizer": optimizer, "n_steps": 300, "random_state": 3}
    network = train(data, y, batch_size=8, dtype=dtype, **options)[0]
    full = train(data, y, **options)[0].objective(data, y, 1e-3)
    assert network.objective(data, y, 1e-3) < full + 0.1
    assert network.weights.max() < 100


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1.0])
def test_mini_batches_start_at_the_outputs_of_the_start(unit):
    start = BatchNormNetwork.at_initialization(unit * X, 6, n_outputs=1, random_state=0)
    network = train(unit * X, Y, weight_decay=0.01, n_steps=0, batch_size=10, start=start)[0]
    np.testing.assert_allclose(network.predict(unit * X), start.predict(unit * X), atol=1e-10)
    trained, trace = train(unit * X, Y, weight_decay=0.01, n_steps=90, batch_size=10, start=start, random_state=0)
    assert trained.objective(unit * X, Y, 0.01) < start.objective(unit * X, Y, 0.01)
    assert trace.objective[-1] < trace.objective[0]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("batches", [{}, {"batch_size": 10}])
@pytest.mark.parametrize("kind", ["batch", "convolutional"])
def test_training_far_from_zero_is_training_near_zero(kind, batches, dtype):
    data, geometry = (images(), {"kernel_size": 2}) if kind == "convolutional" else (X, {})
    options = {"weight_decay": 1e-3, "n_steps": 60, "n_neurons": 10, "random_state": 0, "dtype": dtype}
    options |= geometry | batches
    network, trace = train(data, Y, **options)
    expected = network.objective(data, Y, 1e-3)
    for offset in (1e4, 1e8):
        far, recorded = train(data + offset, Y, **options)
        assert far.objective(data + offset, Y, 1e-3) == pytest.approx(expected, rel=2e-3)
        np.testing.assert_allclose(recorded.objective, trace.objective, rtol=2e-3)
        if not batches:
            assert recorded.objective[-1] == pytest.approx(far.objective(data + offset, Y, 1e-3), rel=1e-4)


def test_single_precision_far_from_zero_is_warned_of_where_it_cannot_be_helped():
    for data, options in (
        (X + 1e5, {"normalization": "weight"}),
        (images() + 1e5, {"kernel_size": 2, "padding": 1}),
    ):
        options = options | {"weight_decay": 0.1, "n_steps": 0, "random_state": 0}
        with pytest.warns(UserWarning, match=r"so far from zero.*dtype='float32' loses it; subtract the mean"):
            train(data, Y, dtype="float32", **options)
        train(data, Y, **options)
        train(data - 1e5, Y, dtype="float32", **options)


def test_a_start_with_a_neuron_that_does_not_vary_is_refused():
    start = BatchNormNetwork.at_initialization(X, 3, n_outputs=1, random_state=0)
    constant = np.c_[np.ones(30), X[:, :2]]
    start = replace(start, weights=np.eye(3))
    with pytest.raises(ValueError, match="does not vary over X"):
        train(constant, Y, weight_decay=0.1, start=start)


def test_directions_of_large_data_are_drawn_from_a_sample(monkeypatch):
    monkeypatch.setattr("convexbn.gradient._batch_norm._START_ENTRIES", 45)
    fitted, fit = [], BatchNormDesign.fit
    monkeypatch.setattr(BatchNormDesign, "fit", lambda self, data: fitted.append(data) or fit(self, data))
    network = train(X, Y, weight_decay=0.01, n_neurons=4, n_steps=0, random_state=0)[0]
    assert len(fitted[0]) == 15
    assert len(np.unique(fitted[0], axis=0)) == 15
    np.testing.assert_allclose((X @ network.weights.T).mean(axis=0), network.mean)


def test_never_below_a_proved_optimum_and_close_to_it_from_the_best_of_some_seeds():
    data, y = make_teacher(40, 2, random_state=1)
    solution = solve(Problem(BatchNormDesign().fit_transform(data), y, weight_decay=0.05))
    assert solution.certificate.scope == "global"
    runs = [
        train(data, y, weight_decay=0.05, n_neurons=30, optimizer=optimizer, n_steps=400, random_state=seed)[1]
        for seed in range(4)
        for optimizer in ("adam", "lbfgs")
    ]
    best = min(trace.objective.min() for trace in runs)
    assert solution.certificate.lower_bound <= best <= solution.certificate.objective * (1 + 1e-3)


@pytest.mark.parametrize("options", [{}, {"batch_size": 10}, {"optimizer": "lbfgs"}])
def test_interruption_returns_the_network_so_far(options, monkeypatch):
    calls, evaluate = [], TrainingObjective.evaluate

    def interrupted(self, inputs, y):
        calls.append(y)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return evaluate(self, inputs, y)

    monkeypatch.setattr(TrainingObjective, "evaluate", interrupted)
    network, trace = train(X, Y, weight_decay=0.01, n_neurons=5, n_steps=50, random_state=0, **options)
    assert trace.interrupted
    assert 0 < len(trace) < 10
    assert network.objective(X, Y, 0.01) < trace.objective[0]


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 1e8},
        {"learning_rate": 1e8, "batch_size": 10},
        {"learning_rate": 1e38, "dtype": "float32", "batch_size": 15, "n_steps": 1},
    ],
)
def test_divergence_is_an_error_that_holds_the_trace(options):
    options = {"weight_decay": 10.0, "n_neurons": 5, "n_steps": 50, "random_state": 0, "optimizer": "sgd"} | options
    with pytest.raises(DivergenceError, match=r"sgd diverged.*smaller steps") as raised:
        train(X, 100 * Y, **options)
    assert 0 < len(raised.value.trace) < 50


def test_progress_is_shown(capsys):
    train(X, Y, weight_decay=0.01, n_neurons=5, n_steps=4, verbose=True)
    assert "adam" in capsys.readouterr().err


def test_untrained_convolutional_network():
    network = ConvBatchNormNetwork.at_initialization(images(), 4, **GEOMETRY, n_outputs=2, random_state=0)
    assert network.filters.shape == (4, 2, 2, 2)
    assert network.stride.tolist() == [1, 2]
    assert network.padding.tolist() == [1, 0]
    patches = PatchDesign(**GEOMETRY).grid.patches(images())
    np.testing.assert_allclose(network.mean, (patches @ network.weights.T).mean(axis=0))
    np.testing.assert_allclose(network.std, (patches @ network.weights.T).std(axis=0))
    trained, trace = train(images(), np.column_stack([Y, -Y]), weight_decay=0.01, start=network, n_steps=20)
    assert trace.objective[-1] < trace.objective[0]
    assert trained.stride.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "log_loss"}, "labels -1 and"),
        ({"loss": "cross_entropy"}, "one-hot rows"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"weight_decay": "auto"}, "weight_decay='auto'"),
        ({"normalization": "layer"}, "normalization='layer' is unknown"),
        ({"normalization": "weight", "kernel_size": 2}, "drop kernel_size=2"),
        ({"y": Y[:-1]}, "inconsistent"),
        ({"y": ["odd", "even"] * 15}, "y must hold numbers; encode labels"),
        ({"y": np.full_like(Y, np.nan)}, "Input y contains NaN"),
        ({"optimizer": "newton"}, "optimizer='newton' is unknown"),
        ({"dtype": "float16"}, "dtype='float16' is unknown"),
        ({"learning_rate": 0}, "learning_rate=0 must be a positive"),
        ({"momentum": 1.0, "optimizer": "sgd"}, "momentum=1.0 must be"),
        ({"momentum": 0.9}, "momentum=0.9 goes with optimizer='sgd', not 'adam'"),
        ({"n_neurons": 0}, "n_neurons=0 must be an integer from 1 on"),
        ({"n_steps": -1}, "n_steps=-1 must be an integer from 0 on"),
        ({"batch_size": 1}, "batch_size=1 must be an integer from 2 on or None"),
        ({"batch_size": 31}, "batch_size=31 must be at most 30"),
        ({"batch_size": 8, "optimizer": "lbfgs"}, "drop batch_size=8"),
        ({"batch_size": 8, "callback": print}, "drop batch_size=8"),
        ({"callback": "x"}, "callback='x' must be a function"),
        ({"fit_intercept": "no"}, "fit_intercept='no' must be True or False"),
        ({"start": "net"}, "start is a str; give a BatchNormNetwork"),
        ({"start": SmoothNetwork.at_initialization(3)}, "start is a SmoothNetwork"),
        ({"start": BatchNormNetwork.at_initialization(X[:, :2], 5, n_outputs=1)}, "X has 3 features"),
        ({"start": BatchNormNetwork.at_initialization(X, 5, n_outputs=2)}, "has 5 neurons and 2 outputs"),
        ({"start": WITHOUT_NEURONS}, "has 0 neurons"),
        ({"X": np.full_like(X, np.nan)}, "NaN"),
        ({"X": images()}, "give kernel_size"),
        ({"X": images(), "kernel_size": 7}, "larger than the images"),
        ({"X": images(), "kernel_size": 0}, "kernel_size=0"),
        ({"kernel_size": 2}, "must have shape"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        train(**{"X": X, "y": Y, "weight_decay": 0.1} | changes)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 5, "dtype": "float32"},
        {"optimizer": "lbfgs"},
        {"normalization": "batch_after_relu"},
        {"kernel_size": 2, "padding": 1, "batch_size": 5},
    ],
    ids=str,
)
def test_training_on_a_device_is_the_same(options):
    """A tensor on the CPU goes the way of one on a GPU."""
    X = np.random.default_rng(0).standard_normal((20, 1, 4, 4) if "kernel_size" in options else (20, 3))
    options = {"weight_decay": 0.01, "n_neurons": 4, "n_steps": 20, "random_state": 0, **options}
    network, trace = train(X, X.reshape(20, -1)[:, 0], **options)
    there, trace_there = train(X, X.reshape(20, -1)[:, 0], device="cpu", **options)
    np.testing.assert_allclose(trace_there.objective, trace.objective, rtol=1e-5)
    np.testing.assert_allclose(there.predict(X), network.predict(X), atol=1e-5)
    found = network.predict(torch.tensor(X))
    assert isinstance(found, torch.Tensor)
    np.testing.assert_allclose(found, network.predict(X), atol=1e-12)
    if options.get("batch_size"):
        again, _ = train(torch.tensor(X), X.reshape(20, -1)[:, 0], **options | {"start": network, "n_steps": 1})
        expected, _ = train(X, X.reshape(20, -1)[:, 0], **options | {"start": network, "n_steps": 1})
        np.testing.assert_allclose(again.predict(X), expected.predict(X), atol=1e-5)


def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match="device='gpu' is no device of PyTorch here"):
        train(np.eye(3), np.ones(3), weight_decay=0.1, device="gpu")
