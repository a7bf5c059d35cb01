"""Networks of several layers: batch normalization, the length-direction split of their units, blocks of Hessians."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import deep_gdnp as benchmark
from benchmarks import images
from convexbn.gradient import DivergenceError
from convexbn.gradient._hessian import block_norms
from convexbn.gradient.gdnp import LearningHalfspace, MultilayerNetwork, gdnp, train_multilayer
from convexbn.gradient.gdnp._multilayer import Batch
from convexbn.gradient.gdnp._multilayer_descent import mean_curvatures, turned

RNG = np.random.default_rng(0)
X = RNG.standard_normal((30, 4)) @ np.diag([1.0, 2.0, 0.5, 1.0])
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
KINDS = [(activation, normalized) for activation in ("tanh", "sigmoid", "softplus") for normalized in (True, False)]


def network(seed=0, **options):
    net = MultilayerNetwork.at_initialization(4, 3, **{"depth": 3, "width": 5, "random_state": seed} | options)
    rng = np.random.default_rng(seed)
    shifts = [0.1 * rng.standard_normal(len(b)) for b in net.shifts]
    lengths = net.lengths and [1 + 0.2 * rng.standard_normal(len(g)) for g in net.lengths]
    return replace(net, shifts=shifts, lengths=lengths)


def as_module(net):
    """The same network of torch's own layers, whose batch normalization has next to no eps."""
    activation = {"tanh": torch.nn.Tanh, "sigmoid": torch.nn.Sigmoid, "softplus": torch.nn.Softplus}[net.activation]
    modules = []
    for i, (w, b) in enumerate(zip(net.weights, net.shifts, strict=True)):
        linear = torch.nn.Linear(w.shape[1], len(w), bias=not net.normalized, dtype=torch.float64)
        linear.weight.data = torch.tensor(w)
        modules.append(linear)
        if net.normalized:
            norm = torch.nn.BatchNorm1d(len(w), eps=1e-300, dtype=torch.float64)
            norm.weight.data, norm.bias.data = torch.tensor(net.lengths[i]), torch.tensor(b)
            modules.append(norm)
        else:
            linear.bias.data = torch.tensor(b)
        modules.append(activation())
    output = torch.nn.Linear(net.output_weights.shape[1], len(net.output_bias), dtype=torch.float64)
    output.weight.data, output.bias.data = torch.tensor(net.output_weights), torch.tensor(net.output_bias)
    return torch.nn.Sequential(*modules, output)


@pytest.mark.parametrize(("activation", "normalized"), KINDS)
def test_network_is_that_of_torch_layers_and_so_is_a_plain_step(activation, normalized):
    net = network(activation=activation, normalized=normalized)
    module = as_module(net)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.7)
    loss = torch.nn.functional.cross_entropy(module(torch.tensor(X)), torch.tensor(Y))
    np.testing.assert_allclose(net.outputs(X), module(torch.tensor(X)).detach().numpy(), rtol=1e-10, atol=1e-12)
    assert net.loss(X, Y) == pytest.approx(loss.item(), rel=1e-12)
    loss.backward()
    optimizer.step()
    trained, trace = train_multilayer(X, Y, net, learning_rate=0.7, n_steps=1)
    np.testing.assert_allclose(trained.outputs(X), module(torch.tensor(X)).detach().numpy(), rtol=1e-8, atol=1e-10)
    assert trace.objective.tolist() == pytest.approx([net.loss(X, Y), trained.loss(X, Y)], rel=1e-12)
    assert trace["accuracy"][0] == np.mean(net.outputs(X).argmax(axis=1) == Y)


def test_network_without_normalization_is_the_same_function_and_trains_to_another():
    net = network()
    same = net.without_normalization(X)
    assert not same.normalized
    np.testing.assert_allclose(same.outputs(X), net.outputs(X), rtol=1e-10, atol=1e-12)
    assert same.without_normalization(X) is same
    stepped = [train_multilayer(X, Y, start, learning_rate=0.5, n_steps=1)[0].outputs(X) for start in (net, same)]
    assert np.abs(stepped[0] - stepped[1]).max() > 1e-2


class TestBlocks:
    @pytest.mark.parametrize(("activation", "normalized"), KINDS)
    def test_norms_are_those_of_the_dense_hessian(self, activation, normalized):
        net = network(activation=activation, normalized=normalized, depth=2, width=3)
        norms = net.block_norms(X, Y, n_probes=None)
        scaled = net
        if normalized:  # the spread of a unit's preactivation is the absolute value of its length
            effective = net.without_normalization(X).weights
            scaled = replace(
                net, weights=[np.sign(g)[:, None] * w for g, w in zip(net.lengths, effective, strict=True)]
            )
        module = as_module(scaled)
        names = [name for name, value in module.named_parameters() if value.ndim == 2]
        fixed = dict(module.named_parameters())

        def loss(*weights):
            outputs = torch.func.functional_call(
                module, fixed | dict(zip(names, weights, strict=True)), torch.tensor(X)
            )
            return torch.nn.functional.cross_entropy(outputs, torch.tensor(Y))

        blocks = torch.autograd.functional.hessian(loss, tuple(fixed[name].detach() for name in names))
        dense = [[block.norm().item() for block in row] for row in blocks]
        np.testing.assert_allclose(norms, dense, rtol=1e-8)

    def test_estimates_are_near_the_norms_and_do_not_depend_on_the_lengths_of_directions(self):
        net = network(depth=2)
        exact = net.block_norms(X, Y, n_probes=None)
        np.testing.assert_allclose(net.block_norms(X, Y, n_probes=100), exact, rtol=0.2)
        few = [net.block_norms(X, Y, n_probes=2, random_state=seed) for seed in (0, 0, 1)]
        np.testing.assert_array_equal(few[0], few[1])
        assert (few[0] != few[2]).all()
        np.testing.assert_array_equal(few[0], few[0].T)
        longer = replace(net, weights=[np.linspace(0.1, 9, len(w))[:, None] * w for w in net.weights])
        np.testing.assert_allclose(longer.block_norms(X, Y, n_probes=2), few[0], rtol=1e-8)

    def test_random_signs_have_the_squared_norm_as_their_mean(self):
        a, b = (torch.tensor(entries, requires_grad=True) for entries in ([1.0, 2.0], [0.5, -1.0]))
        value = (a[0] * b[0]) ** 2 + a[1] * b[1] * 3 + a[0] * b[1]

        class AllSigns:
            def choice(self, values, shape):
                return np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])

        exact = block_norms(value, [a, b], n_probes=None, rng=np.random.default_rng(0))
        np.testing.assert_allclose(block_norms(value, [a, b], n_probes=4, rng=AllSigns()), exact, rtol=1e-6)

    def test_no_dependence_where_there_is_none(self):
        a, b = (torch.tensor([2.0], requires_grad=True) for _ in range(2))
        norms = block_norms((a**3 + 5 * b).sum(), [a, b], n_probes=1, rng=np.random.default_rng(0))
        np.testing.assert_allclose(norms, [[12, 0], [0, 0]])


class TestSplit:
    options = {"learning_rate": 0.3, "direction_rate": 0.05, "n_steps": 10}  # noqa: RUF012

    def test_the_direction_step_is_that_of_gdnp_for_halfspaces(self):
        rng = np.random.default_rng(1)
        labels = np.where(rng.random(20000) < 0.5, 1.0, -1.0)
        data = -labels[:, None] * ([-0.5, 0.5, -0.2] + rng.standard_normal((20000, 3)) @ np.diag([1.0, 0.7, 0.5]))
        data -= data.mean(axis=0)
        halfspace = LearningHalfspace(data, labels)
        first, second = (gdnp(halfspace, start=[1.0, 0.2, 0.1], n_steps=n_steps, tol=0) for n_steps in (0, 1))
        assert second.trace["halvings"][1] == 0
        w, g = first.weights / first.length, first.length
        sigmoid = 1 / (1 + np.exp(labels * (data @ first.weights)))
        gradient = data.T @ (-labels * sigmoid) / 20000
        tangential = g * (gradient - (w @ gradient) * (data.T @ data / 20000) @ w)
        curvature = g**2 * np.mean(sigmoid * (1 - sigmoid))
        batch = Batch(torch.tensor(data), torch.ones(1, dtype=torch.float64))
        step = turned(
            torch.tensor(w[None]), torch.tensor(tangential[None]), batch, torch.tensor([curvature]), rate=1.0
        )[0].numpy()
        unit, gdnps = step / np.linalg.norm(step), second.weights / np.linalg.norm(second.weights)
        turn = np.linalg.norm(gdnps - w / np.linalg.norm(w))
        assert turn > 0.1
        assert np.linalg.norm(unit - gdnps) < 0.02 * turn  # the data is as Gaussian as a sample is

    def test_a_step_turns_by_45_degrees_at_most_and_keeps_lengths(self):
        rng = np.random.default_rng(0)
        inputs = torch.tensor(X)
        S = np.cov(X.T, bias=True)
        w = rng.standard_normal((3, 4))
        gradients = rng.standard_normal((3, 4))
        spreads = np.sqrt(np.einsum("ij,jk,ik->i", w, S, w))
        gradients -= (np.sum(gradients * w, axis=1) / np.sum(w * w, axis=1))[:, None] * w  # as of a scale-free function
        batch = Batch(inputs, torch.tensor(spreads))
        arguments = torch.tensor(w), torch.tensor(gradients), batch
        for rate, reached in ((1e9, True), (1e-9, False)):
            moved = turned(*arguments, torch.ones(3, dtype=torch.float64), rate).numpy()
            np.testing.assert_allclose(np.linalg.norm(moved, axis=1), np.linalg.norm(w, axis=1), rtol=1e-12)
            raw = moved * (np.sum(w * w, axis=1) / np.sum(moved * w, axis=1))[:, None] - w  # the step before that
            sizes = np.sqrt(np.einsum("ij,jk,ik->i", raw, S, raw)) / spreads
            np.testing.assert_allclose(sizes, 1.0, rtol=1e-8) if reached else np.testing.assert_array_less(sizes, 1e-6)
        still = turned(torch.tensor(w), torch.zeros(3, 4, dtype=torch.float64), batch, torch.zeros(3).double(), 1.0)
        np.testing.assert_allclose(still.numpy(), w, rtol=1e-12)

    def test_curvatures_are_the_means_of_the_dense_gauss_newton_matrix(self):
        net = network(depth=2, width=3)
        parameters, inputs = net._parameters(), torch.tensor(X)
        changes = [torch.zeros(len(X), 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
        outputs = net._forward(parameters, inputs, changes)[0]
        rng = np.random.default_rng(0)
        drawn = np.mean(
            [[k.numpy() for k in mean_curvatures(net._forward(parameters, inputs, changes)[0], changes, rng)]
             for _ in range(300)], axis=0,
        )  # fmt: skip
        jacobians = torch.autograd.functional.jacobian(
            lambda *change: net._forward(parameters, inputs, change)[0], tuple(changes)
        )
        p = outputs.softmax(dim=1).detach()
        H = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        dense = [torch.einsum("kcij,kce,keij->j", J, H, J).numpy() / len(X) for J in jacobians]
        np.testing.assert_allclose(drawn, dense, rtol=0.15)

    def test_first_step_by_hand(self):
        net = network(depth=1, width=2)
        trained = train_multilayer(X, Y, net, learning_rate=0.3, direction_rate=0.05, n_steps=1)[0]
        parameters, inputs = net._parameters(), torch.tensor(X)
        changes = [torch.zeros(len(X), 2, dtype=torch.float64, requires_grad=True)]
        outputs, (layer,) = net._forward(parameters, inputs, changes)
        gradients = torch.autograd.grad(
            torch.nn.functional.cross_entropy(outputs, torch.tensor(Y)), parameters, retain_graph=True
        )
        (kappa,) = mean_curvatures(outputs, changes, np.random.default_rng(0))
        largest = np.linalg.eigvalsh(np.cov(X.T, bias=True))[-1]
        s = 0.05 * layer.spreads.numpy() ** 2 / (largest * net.lengths[0] ** 2 * kappa.numpy())
        w = net.weights[0] - s[:, None] * gradients[0].numpy()
        w *= (np.linalg.norm(net.weights[0], axis=1) / np.linalg.norm(w, axis=1))[:, None]
        np.testing.assert_allclose(trained.weights[0], w, rtol=1e-10)
        for before, after, gradient in (
            (net.output_weights, trained.output_weights, gradients[1]),
            (net.shifts[0], trained.shifts[0], gradients[2]),
            (net.lengths[0], trained.lengths[0], gradients[4]),
        ):
            np.testing.assert_allclose(after, before - 0.3 * gradient.numpy(), rtol=1e-10)

    def test_steps_do_not_depend_on_the_lengths_of_directions(self):
        net = network()
        longer = replace(net, weights=[np.geomspace(0.01, 100, len(w))[:, None] * w for w in net.weights])
        (one, trace), (other, same) = (train_multilayer(X, Y, start, **self.options) for start in (net, longer))
        np.testing.assert_allclose(same.objective, trace.objective, rtol=1e-8)
        for w, v, before in zip(one.weights, other.weights, longer.weights, strict=True):
            np.testing.assert_allclose(np.linalg.norm(v, axis=1), np.linalg.norm(before, axis=1), rtol=1e-10)
            np.testing.assert_allclose(v / np.linalg.norm(v, axis=1)[:, None], w / np.linalg.norm(w, axis=1)[:, None],
                                       rtol=1e-6, atol=1e-9)  # fmt: skip
        plain = [train_multilayer(X, Y, start, learning_rate=0.3, n_steps=10)[1].objective for start in (net, longer)]
        assert abs(plain[0][-1] - plain[1][-1]) > 1e-3  # those of plain gradient descent do

    def test_small_steps_descend(self):
        trace = train_multilayer(X, Y, network(), learning_rate=0.05, direction_rate=0.01, n_steps=50)[1]
        assert (np.diff(trace.objective) < 0).all()

    def test_traces_are_those_of_their_seed(self):
        traces = [train_multilayer(X, Y, network(), **self.options, random_state=seed)[1] for seed in (0, 0, 1)]
        np.testing.assert_array_equal(traces[0].objective, traces[1].objective)
        assert (traces[0].objective[2:] != traces[2].objective[2:]).all()
        plain = [train_multilayer(X, Y, network(), learning_rate=0.3, random_state=seed, n_steps=5) for seed in (0, 1)]
        np.testing.assert_array_equal(plain[0][1].objective, plain[1][1].objective)


@pytest.mark.parametrize("direction_rate", [None, 0.05])
def test_callback_and_interrupt(direction_rate):
    options = {"learning_rate": 0.3, "direction_rate": direction_rate}
    seen = {}

    def keep(step, net):
        seen[step] = net
        if step == 3 and "stop" in seen:
            raise KeyboardInterrupt

    whole, trace = train_multilayer(X, Y, network(), n_steps=5, callback=keep, **options)
    assert (list(seen), trace.steps.tolist(), trace.interrupted) == ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], False)
    np.testing.assert_array_equal(seen[5].outputs(X), whole.outputs(X))
    at_three = seen[3].outputs(X)
    assert [seen[i].loss(X, Y) for i in range(6)] == pytest.approx(trace.objective.tolist(), rel=1e-12)
    seen["stop"] = True
    cut, trace = train_multilayer(X, Y, network(), n_steps=5, callback=keep, **options)
    assert (trace.steps.tolist(), trace.interrupted) == ([0, 1, 2, 3], True)
    np.testing.assert_array_equal(cut.outputs(X), at_three)


def test_start_is_left_as_it_is():
    start = network()
    before = [w.copy() for w in start.weights]
    train_multilayer(X, Y, start, learning_rate=0.3, direction_rate=0.05, n_steps=3)
    for w, kept in zip(start.weights, before, strict=True):
        np.testing.assert_array_equal(w, kept)


@pytest.mark.parametrize(("activation", "learning_rate"), [("softplus", 1e9), ("tanh", 1e308)])
def test_a_step_that_is_too_long(activation, learning_rate):
    start = network(normalized=False, activation=activation)
    with pytest.raises(DivergenceError, match="take smaller steps") as raised:
        train_multilayer(X, Y, start, learning_rate=learning_rate, n_steps=20)
    assert raised.value.trace.objective[0] == pytest.approx(start.loss(X, Y))


ONES = {
    "weights": [np.ones((2, 4))],
    "shifts": [np.ones(2)],
    "output_weights": np.ones((3, 2)),
    "output_bias": np.ones(3),
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "relu"}, "activation='relu' is unknown; choose one of"),
        ({"activation": []}, r"activation=\[\] is unknown"),
        ({"weights": []}, "weights needs at least one layer"),
        ({"weights": [np.ones(4)]}, "weights and output_weights must be finite 2-D arrays"),
        ({"weights": [np.full((2, 4), np.nan)]}, "weights and output_weights must be finite"),
        ({"weights": [np.ones((3, 4))]}, r"\[3\] units.*\[2\] inputs"),
        ({"shifts": [np.ones(3)]}, "shifts must hold a number for each"),
        ({"shifts": []}, "shifts must hold a number for each"),
        ({"lengths": [np.ones(1)]}, "lengths must hold a number for each"),
        ({"lengths": [np.array([1.0, np.inf])]}, "lengths must be finite 1-D"),
        ({"output_bias": np.ones(2)}, "output_bias must hold a number for each of the 3 outputs"),
        ({"weights": [np.array([[1.0] * 4, [0.0] * 4])], "lengths": [np.ones(2)]}, "row of zeros"),
    ],
)
def test_bad_networks(changes, message):
    MultilayerNetwork(**ONES)
    with pytest.raises(ValueError, match=message):
        MultilayerNetwork(**ONES | changes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: network(depth=0), "depth=0 must be an integer from 1 on"),
        (lambda: network(width=2.0), "width=2.0 must be an integer"),
        (lambda: MultilayerNetwork.at_initialization(0, 1), "n_features=0"),
        (lambda: MultilayerNetwork.at_initialization(1, True), "n_outputs=True"),
        (lambda: network().outputs(X[:, :3]), "X has 3 features"),
        (lambda: network().outputs(np.full_like(X, np.nan)), "NaN"),
        (lambda: network().outputs(np.ones((5, 4))), "hidden layer 1 is the same on all 5 samples"),
        (lambda: network().loss(X, Y[:-1]), "inconsistent"),
        (lambda: network().loss(X, Y + 1), "y must hold the classes 0 to 2"),
        (lambda: network().block_norms(X, Y + 0.5), "y must hold the classes 0 to 2"),
        (lambda: network().block_norms(X, Y, n_probes=0), "n_probes=0"),
        (lambda: network().without_normalization(X[:1]), "the same on all 1 samples"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": None}, "start must be a MultilayerNetwork, not a NoneType"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be a positive finite number"),
        ({"learning_rate": "1"}, "learning_rate='1'"),
        ({"direction_rate": -1.0}, "direction_rate=-1.0 must be a positive finite number or None"),
        ({"direction_rate": 1.0, "start": network(normalized=False)}, "direction_rate=1.0 needs a start with lengths"),
        ({"n_steps": -1}, "n_steps=-1 must be an integer from 0 on"),
        ({"callback": 3}, "callback=3 must be a function"),
        ({"X": X[:, :3]}, "X has 3 features"),
        ({"X": np.zeros((30, 4))}, "hidden layer 1 is the same on all 30 samples"),
        ({"y": Y[:-1]}, "inconsistent"),
        ({"y": -Y}, "y must hold the classes 0 to 2"),
        ({"y": ["a", "b", "c"] * 10}, "y must hold numbers"),
    ],
)
def test_bad_options(changes, message):
    calls = []
    options = {"X": X, "y": Y, "start": network(), "learning_rate": 1.0, "callback": lambda *call: calls.append(call)}
    with pytest.raises(ValueError, match=message):
        train_multilayer(**options | changes)
    assert calls == []


def test_quick_benchmark_writes_results_and_picture(tmp_path, monkeypatch, pictures):
    monkeypatch.setattr(benchmark, "N_SAMPLES", 60)
    monkeypatch.setattr(benchmark, "N_PROBES", 1)
    monkeypatch.setattr(sys, "argv", ["deep_gdnp", "--quick", "--output", str(tmp_path)])
    benchmark.main()
    results = json.loads((tmp_path / "deep_gdnp.json").read_text())
    assert (results["quick"], results["targets"], list(results["data"])) == (True, [], ["digits"])
    assert results["data"]["digits"]["n"] == 60
    measured = results["data"]["digits"]["activations"]["tanh"]
    loss, blocks, cross, coupling = pictures["deep_gdnp.png"].axes
    for i, (method, run) in enumerate(measured["methods"].items()):
        assert run["chosen"] in [{key: row[key] for key in run["chosen"]} for row in run["tried"]]
        assert {ax.lines[i].get_label() for ax in (loss, blocks, cross, coupling)} == {method}
        np.testing.assert_allclose(loss.lines[i].get_ydata(), run["losses"][0], rtol=1e-6)
        first, last = np.array(run["blocks"])[0]
        row = np.delete(last[3], 3)
        np.testing.assert_allclose(blocks.lines[i].get_ydata(), row, rtol=1e-6)
        totals = [np.linalg.norm(np.delete(block[3], 3)) for block in (first, last)]
        np.testing.assert_allclose(cross.lines[i].get_ydata(), totals, rtol=1e-6)
        relative = np.exp(np.mean(np.log(row / np.sqrt(last[3, 3] * np.delete(np.diag(last), 3)))))
        assert coupling.lines[i].get_ydata()[-1] == pytest.approx(relative, rel=1e-6)
    same, plain = (measured["methods"][method]["losses"][0][0] for method in (benchmark.SAME, benchmark.PLAIN))
    assert same == pytest.approx(plain, rel=1e-8)


def canned():
    """Measurements in which every statement of the summary holds."""
    falls = {benchmark.SPLIT: 0.8, benchmark.PLAIN: 0.9, benchmark.SAME: 0.95, benchmark.USUAL: 0.99}
    couplings = {benchmark.SPLIT: 0.1, benchmark.PLAIN: 0.1, benchmark.SAME: 0.2, benchmark.USUAL: 0.3}
    eye = np.eye(7)
    return {
        "methods": {
            method: {
                "losses": [2 * falls[method] ** np.arange(31.0)] * 3,
                "blocks": [[eye + couplings[method] * (1 - eye)] * 2] * 3,
                "seconds_a_step": 0.01,
            }
            for method in benchmark.COLORS
        }
    }


OWN_SMALL = [[1e-3 * (np.eye(7) + 9 * (1 - np.eye(7)))] * 2] * 3


@pytest.mark.parametrize(
    ("rows", "method", "key", "value"),
    [
        ([0, 3], benchmark.SAME, "losses", [0.5 ** np.arange(31.0)] * 3),
        ([1, 3], benchmark.USUAL, "losses", [0.5 ** np.arange(31.0)] * 3),
        ([2, 3], benchmark.SPLIT, "losses", [np.full(31, np.inf)] * 3),
        ([0, 1], benchmark.PLAIN, "losses", [np.full(31, 1.0)] * 3),
        ([2], benchmark.PLAIN, "losses", [0.5 ** np.arange(31.0)] * 3),
        ([4, 5], benchmark.SAME, "blocks", [[np.eye(7) + 0.01] * 2] * 3),
        ([4], benchmark.USUAL, "blocks", OWN_SMALL),
        ([5], benchmark.PLAIN, "blocks", OWN_SMALL),
    ],
)
def test_statements_of_the_summary_are_held_against_what_was_measured(rows, method, key, value):
    measured = canned()
    assert [row["met"] for row in benchmark.targets("digits", "tanh", measured)] == [True] * 6 + [None]
    measured["methods"][method][key] = value
    found = [row["met"] for row in benchmark.targets("digits", "tanh", measured)]
    assert [i for i, met in enumerate(found) if met is False] == rows
    assert found[6] is None


def test_best_options_are_the_soonest_of_the_first_start_and_then_the_lowest(monkeypatch):
    curves = {0.1: [2.0, 0.4, 0.4], 0.3: [2.0, 2.0, 0.1], 1.0: [2.0, 0.01, np.inf]}

    def run(X, y, start, n_steps, block_steps, options):
        return {"losses": start + np.array(curves[options["learning_rate"]]), "networks": [], "seconds": 0.0}

    monkeypatch.setattr(benchmark, "run", run)
    options = [{"learning_rate": rate} for rate in curves]
    found = benchmark.try_options(X, Y, [0.0, 7.0], 2, (), options)
    assert found["chosen"] == {"learning_rate": 0.1}
    assert [row["steps"] for row in found["tried"]] == [1, 2, 1]
    np.testing.assert_allclose(found["losses"], [[2.0, 0.4, 0.4], [9.0, 7.4, 7.4]])
    monkeypatch.setattr(benchmark, "LOSS", 0.001)
    assert benchmark.try_options(X, Y, [0.0], 2, (), options)["chosen"] == {"learning_rate": 0.3}


def test_images_of_every_class_in_turn(tmp_path):
    for label, gray in (("cat", 10), ("dog", 200)):
        (tmp_path / "train" / label).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (32, 32), (gray + number,) * 3).save(tmp_path / "train" / label / f"{number}.png")
    found = images.first_training_images(tmp_path, 4)
    assert found.classes.tolist() == [0, 1, 0, 1]
    assert found.X[:, 0, 0, 0].tolist() == [10, 200, 11, 201]
    for n_images in (1, 8):
        with pytest.raises(SystemExit, match=f"no {n_images} images"):
            images.first_training_images(tmp_path, n_images)
    with pytest.raises(SystemExit, match="does not exist"):
        images.first_training_images(tmp_path / "missing", 2)
