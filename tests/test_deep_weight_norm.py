import json
import sys

import numpy as np
import pytest
import torch

from benchmarks import deep_weight_norm as benchmark
from convexbn.gradient import DivergenceError
from convexbn.gradient._hessian import hessian_norm
from convexbn.gradient.deep_weight_norm import SmoothNetwork, train_deep_weight_norm

RNG = np.random.default_rng(0)
X = RNG.standard_normal((12, 5))
Y = np.sign(X[:, 0] * X[:, 1])
KINDS = [(activation, normalized) for activation in ("tanh", "softplus") for normalized in (True, False)]


def network(**options):
    return SmoothNetwork.at_initialization(5, **{"depth": 3, "width": 6, "random_state": 0} | options)


def written_out(theta, x, net):
    """The outputs of the network whose weights are in one long vector, one row at a time."""
    activation = {"tanh": torch.tanh, "softplus": lambda z: torch.log(1 + torch.exp(z))}[net.activation]
    position, alpha = 0, [torch.tensor(row) for row in x]
    for layer in net.weights:
        rows, columns = layer.shape
        units = [theta[position + i * columns :][:columns] for i in range(rows)]
        scales = [unit.dot(unit) ** 0.5 if net.normalized else columns**0.5 for unit in units]
        pairs = list(zip(units, scales, strict=True))
        alpha = [activation(torch.stack([unit.dot(a) / scale for unit, scale in pairs])) for a in alpha]
        position += layer.size
    return torch.stack([theta[position:].dot(a) for a in alpha]) / len(net.output_weights) ** 0.5


def dense_norm(function, theta, n_parameters=None):
    hessian = torch.autograd.functional.hessian(function, theta).numpy()[:n_parameters, :n_parameters]
    return np.abs(np.linalg.eigvalsh(hessian)).max()


@pytest.mark.parametrize(("activation", "normalized"), KINDS)
def test_hessian_norms_are_those_of_a_dense_eigenvalue_problem(activation, normalized):
    net = network(depth=2, width=4, activation=activation, normalized=normalized, row_norm=0.7)
    theta = torch.tensor(np.concatenate([array.ravel() for array in (*net.weights, net.output_weights)]))
    np.testing.assert_allclose(net.predict(X), written_out(theta, X, net), rtol=1e-12)

    predictors = [lambda t, x=x: written_out(t, x[None], net)[0] for x in X[:3]]
    dense = max(dense_norm(predictor, theta) for predictor in predictors)
    assert net.predictor_hessian_norm(X[:3]) == pytest.approx(dense, rel=1e-6)
    hidden = max(dense_norm(predictor, theta, -4) for predictor in predictors)
    assert net.predictor_hessian_norm(X[:3], hidden_only=True) == pytest.approx(hidden, rel=1e-6)
    assert hidden < 0.99 * dense
    loss = dense_norm(lambda t: ((written_out(t, X, net) - torch.tensor(Y)) ** 2).mean() / 2, theta)
    assert net.loss_hessian_norm(X, Y) == pytest.approx(loss, rel=1e-6)


def test_hessian_norm_of_a_negative_of_few_and_of_no_curvature():
    w = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    z = torch.tensor(np.arange(9.0), requires_grad=True)
    assert hessian_norm(w[0] ** 2 - 3 * w[1] ** 2, [w]) == pytest.approx(6)
    assert hessian_norm((w[:1] ** 2).sum(), [w]) == pytest.approx(2)
    scalar = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert hessian_norm(-(scalar**3), [scalar]) == pytest.approx(18)
    assert hessian_norm((z**2).sum() - 4 * z[3] ** 2 + z[0], [z]) == pytest.approx(6)
    assert hessian_norm(z[0] * z[1] + w[0] * z[8], [w, z]) == pytest.approx(1)
    assert hessian_norm(z.sum(), [z]) == 0
    assert hessian_norm(z.sum() + (w**2).sum(), [z, w]) == pytest.approx(2)
    assert hessian_norm(torch.relu(z).sum(), [z]) == 0


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_rows_of_any_norm_are_the_same_function_with_curvature_of_the_norm_to_the_power_minus_two(activation):
    net = network(activation=activation)
    hidden = net.predictor_hessian_norm(X[:2], hidden_only=True)
    for factor in (0.1, 3.0):
        scaled = net.scale_rows(factor)
        assert scaled.smallest_row_norm == pytest.approx(factor * net.smallest_row_norm)
        np.testing.assert_allclose(scaled.predict(X), net.predict(X), rtol=1e-12)
        assert scaled.predictor_hessian_norm(X[:2], hidden_only=True) == pytest.approx(hidden / factor**2, rel=1e-6)


def test_only_rows_of_one_norm_make_the_sibling_without_normalization_the_same():
    with_norm, without = network(), network(normalized=False)
    np.testing.assert_allclose(with_norm.predict(X), without.predict(X), rtol=1e-12)
    assert np.abs(without.scale_rows(2).predict(X) - without.predict(X)).max() > 0.1


def test_predictor_hessian_falls_like_the_square_root_of_the_width():
    widths = np.array([8, 16, 32, 64, 128])
    norms = [np.mean([network(width=m, random_state=s).predictor_hessian_norm(X[:2]) for s in (0, 1)]) for m in widths]
    assert np.polyfit(np.log(widths), np.log(norms), 1)[0] == pytest.approx(-0.5, abs=0.15)


def test_predictor_hessian_grows_with_depth_and_at_most_like_its_cube():
    """Rows are long, which only the sibling without normalization sees."""
    depths, inputs = np.array([1, 3, 5]), X[:2] * np.sqrt(5) / np.linalg.norm(X[:2], axis=1, keepdims=True)

    def growth(normalized):
        options = {"width": 20, "row_norm": 2.0, "normalized": normalized}
        norms = [
            [network(depth=depth, random_state=seed, **options).predictor_hessian_norm(inputs) for depth in depths]
            for seed in range(3)
        ]
        return np.mean(norms, axis=0) / np.mean(norms, axis=0)[0]

    grown = growth(normalized=True)
    assert 1.2 < grown[-1] < 3
    assert (grown <= depths**3).all()
    assert (growth(normalized=False)[1:] > 2 * grown[1:]).all()


def test_generalisation_gap_is_flat_in_width_and_depth_which_without_normalization_it_is_not():
    """Both start from rows of twice the usual length, which weight normalization does not see."""
    images, labels = benchmark.digits()
    train, test = benchmark.split(images[:120], labels[:120])

    def gap(width, depth, normalized=True):
        return benchmark.gap(train, test, 0, width=width, depth=depth, row_norm=2.0, normalized=normalized)

    shallow, wide, deep = gap(16, 1), gap(64, 1), gap(16, 4)
    assert 0 < shallow < np.inf
    assert wide < 1.1 * shallow
    assert deep < 1.1 * shallow
    assert gap(16, 4, normalized=False) > 1.2 * max(gap(16, 1, normalized=False), deep)


def test_gradient_steps_are_orthogonal_to_normalized_rows_so_that_rows_only_grow():
    options = {"learning_rate": 1.0, "n_steps": 60, "noted_steps": np.arange(61), "n_hessian_samples": 0}
    start = network(row_norm=0.5)
    trained, trace = train_deep_weight_norm(X, Y, start, **options)
    assert (np.diff(trace["smallest_row_norm"]) >= -1e-14).all()
    assert trace["smallest_row_norm"][-1] > trace["smallest_row_norm"][0]
    one_step = train_deep_weight_norm(X, Y, start, **options | {"n_steps": 1, "noted_steps": [0]})[0]
    for before, after in zip(start.weights, one_step.weights, strict=True):
        step = after - before
        assert np.abs(step).max() > 1e-3
        assert np.abs((step * before).sum(axis=1)).max() < 1e-14
    without = train_deep_weight_norm(X, Y, network(normalized=False, row_norm=0.5), **options)[1]
    assert (np.diff(without["smallest_row_norm"]) < 0).any()
    assert trained.smallest_row_norm == trace["smallest_row_norm"][-1]


def test_loss_falls_geometrically_and_by_no_less_than_the_restricted_strong_convexity_ratio_promises():
    """Under gradient descent with smoothness beta, L falls by at least learning_rate |grad|^2 (1 - rate beta / 2)."""
    start = network(depth=2, width=100)
    rate = 0.25 / start.loss_hessian_norm(X, Y)
    steps = np.arange(801)
    options = {"learning_rate": rate, "n_steps": 800}
    trace = train_deep_weight_norm(X, Y, start, noted_steps=steps, n_hessian_samples=0, **options)[1]
    beta = train_deep_weight_norm(X, Y, start, n_hessian_samples=1, **options)[1]["loss_hessian_norm"].max()
    assert rate * beta < 1
    factor = 1 - rate * trace["rsc_ratio"] * (1 - rate * beta / 2)
    assert (trace.objective[1:] <= factor[:-1] * trace.objective[:-1]).all()

    assert trace.objective[-1] < 0.2 * trace.objective[0]
    early, late = benchmark.slopes(steps, trace.objective)
    assert late < 0.9 * early < 0


def test_what_the_trace_holds():
    start, test = network(), (X[:4] + 0.1, Y[:4])
    trained, trace = train_deep_weight_norm(X, Y, start, learning_rate=0.5, n_steps=20, test=test, n_hessian_samples=2)
    assert trace.steps.tolist() == list(range(0, 21, 2))
    for step, net in ((0, start), (-1, trained)):
        assert trace.objective[step] == pytest.approx(net.loss(X, Y))
        assert trace["test_loss"][step] == pytest.approx(net.loss(*test))
        assert trace["loss_hessian_norm"][step] == pytest.approx(net.loss_hessian_norm(X, Y))
        assert trace["predictor_hessian_norm"][step] == pytest.approx(net.predictor_hessian_norm(X[[0, -1]]))
    tiny = train_deep_weight_norm(X, Y, start, learning_rate=1e-6, n_steps=1, noted_steps=[0, 1])[1].objective
    assert trace["rsc_ratio"][0] == pytest.approx((tiny[0] - tiny[1]) / 1e-6 / tiny[0], rel=1e-4)
    plain = train_deep_weight_norm(X, Y, start, learning_rate=0.5, n_steps=20, n_hessian_samples=0)
    assert set(plain[1].watched) == {"smallest_row_norm", "rsc_ratio"}
    np.testing.assert_array_equal(plain[0].predict(X), trained.predict(X))


def test_there_is_no_convexity_ratio_where_the_loss_is_zero():
    start = network()
    trained, trace = train_deep_weight_norm(X, start.predict(X), start, learning_rate=1.0, n_steps=2)
    assert (trace.objective == 0).all()
    assert np.isnan(trace["rsc_ratio"]).all()
    np.testing.assert_array_equal(trained.predict(X), start.predict(X))


def test_a_step_that_is_too_long():
    with pytest.raises(DivergenceError, match="smaller steps") as raised:
        train_deep_weight_norm(X, Y, network(), learning_rate=1e3, n_hessian_samples=0)
    assert raised.value.trace.steps.tolist() == [0]
    assert raised.value.trace.objective[0] == pytest.approx(network().loss(X, Y))


def test_quick_benchmark_writes_results_and_picture(tmp_path, monkeypatch, pictures):
    monkeypatch.setattr(sys, "argv", ["deep_weight_norm", "--quick", "--output", str(tmp_path)])
    benchmark.main()
    results = json.loads((tmp_path / "deep_weight_norm.json").read_text())
    assert (results["quick"], results["targets"]) == (True, [])
    measured = results["data"]["digits"]
    assert (measured["n_train"], measured["n_test"]) == (40, 40)
    for axis, sizes in (("width", "gap_widths"), ("depth", "depths")):
        assert list(measured["gaps"][axis]) == list(benchmark.KINDS)
        assert all(len(found) == len(measured[sizes]) == 2 for found in measured["gaps"][axis].values())
    assert len(benchmark.targets("digits", measured)) == 11
    *curvature, training, by_width, by_depth, bound, deep_bound, rates, deep_rates = pictures[
        "deep_weight_norm.png"
    ].axes
    for axis, (ax, rate_ax) in {"width": (bound, rates), "depth": (deep_bound, deep_rates)}.items():
        found = measured["theorems"][axis]
        for line, key in zip(ax.lines, ("bound", "bounded_gap"), strict=False):
            np.testing.assert_allclose(line.get_ydata(), found[key], rtol=1e-6)
        for line, key in zip(rate_ax.lines, ("falls_in_the_end", "falls_at_every_step", "allowed"), strict=True):
            np.testing.assert_allclose(line.get_ydata(), found[key], rtol=1e-6)
        assert all(0 < gap < proved for gap, proved in zip(found["bounded_gap"], found["bound"], strict=True))
    for ax, x, axis in zip(curvature[:2], ("widths", "depths"), ("width", "depth"), strict=True):
        for line, kind in zip(ax.lines, benchmark.KINDS, strict=False):
            assert line.get_label() == kind
            assert list(line.get_xdata()) == measured[x]
            np.testing.assert_allclose(line.get_ydata(), measured["curvature"][axis][kind], rtol=1e-6)
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert {line.get_label() for line in curvature[2].lines} == {"all weights", "hidden weights", "row norm^(-2)"}
    runs = [(kind, key) for kind in ("with", "without") for key in ("train_loss", "rsc_ratio")]
    for line, (kind, key) in zip(training.lines, runs, strict=True):
        assert line.get_label() == f"{key.replace('_', ' ')}, {kind}"
        drawn = np.array(measured["training"][kind][key], dtype=float)
        np.testing.assert_allclose(np.array(line.get_ydata(), dtype=float), drawn, rtol=1e-6)
    for ax, axis in ((by_width, "width"), (by_depth, "depth")):
        for line, kind in zip(ax.lines, benchmark.KINDS, strict=True):
            gaps = np.array(measured["gaps"][axis][kind], dtype=float).mean(axis=1)
            np.testing.assert_allclose(line.get_ydata(), gaps, rtol=1e-6)


STEPS = np.arange(0, 101, 5)
RATIO = 4  # row without a verdict


def canned():
    """Measurements in which every statement of the summary holds."""
    widths, depths, row_norms = np.array([16, 64]), np.array([1, 4]), np.array([1.0, 10.0])
    return {
        "widths": widths,
        "gap_widths": widths,
        "depths": depths,
        "row_norms": row_norms,
        "curvature": {
            "width": {"with": widths**-0.5},
            "depth": {"with": depths**2.0},
            "row_norm": {"hidden weights": row_norms**-2.0},
        },
        "training": {"with": {"steps": STEPS, "train_loss": 0.9**STEPS, "rsc_ratio": 1 / (1 + STEPS)}},
        "gaps": {axis: {kind: [[0.1, 0.3], [0.1, 0.3]] for kind in benchmark.KINDS} for axis in ("width", "depth")},
        "n_train": 200,
        "theorems": {
            axis: {
                "bound": [0.2, 0.2],
                "bounded_gap": [0.1, 0.1],
                "samples_needed": [32, 32],
                "allowed": [1.0, 1.0],
                "descends": [True, True],
                "falls_at_every_step": [2.0, 2.0],
                "falls_in_the_end": [4.0, 4.0],
            }
            for axis in ("width", "depth")
        },
    }


@pytest.mark.parametrize(
    ("row", "path", "value"),
    [
        (0, ("curvature", "width", "with"), [1.0, 1.0]),
        (1, ("curvature", "depth", "with"), [1.0, 65.0]),
        (2, ("curvature", "row_norm", "hidden weights"), [1.0, 0.1]),
        (3, ("training", "with", "train_loss"), (1.0 + STEPS) ** -4),
        (3, ("training", "with", "train_loss"), np.exp(-((STEPS / 20 - 2.5) ** 2))),
        (5, ("gaps", "width", "with"), [[0.1, 0.1], [0.1, 0.2]]),
        (5, ("gaps", "width", "with"), [[0.1, np.inf], [0.1, 0.1]]),
        (6, ("gaps", "depth", "with"), [[0.1, 0.1], [0.1, 0.4]]),
        (8, ("theorems", "width", "bound"), [0.2, 0.3]),
        (8, ("theorems", "depth", "bound"), [0.2, 0.45]),
        (9, ("theorems", "depth", "descends"), [True, False]),
        (10, ("theorems", "width", "allowed"), [1.0, 0.9]),
    ],
)
def test_statements_of_the_summary_are_held_against_what_was_measured(row, path, value):
    measured = canned()
    assert all(entry["met"] for i, entry in enumerate(benchmark.targets("digits", measured)) if i != RATIO)
    *outer, last = path
    entry = measured
    for key in outer:
        entry = entry[key]
    entry[last] = value
    rows = benchmark.targets("digits", measured)
    assert [entry["met"] for entry in rows] == [None if i == RATIO else i != row for i in range(11)]
    assert rows[RATIO]["figure"] == "1 at first, 0.038 after a quarter, 0.0099 at the end"


def test_vacuous_bounds_are_called_so():
    measured = canned()
    measured["theorems"]["width"]["bound"] = measured["theorems"]["depth"]["bound"] = [0.4, 0.4]
    assert benchmark.targets("digits", measured)[7]["met"]
    measured["theorems"]["width"]["bound"] = [0.5, 0.5]
    assert not benchmark.targets("digits", measured)[7]["met"]


LAYER = np.ones((2, 5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: network(depth=0), "depth=0 must be an integer from 1 on"),
        (lambda: network(width=0), "width=0 must be an integer from 1 on"),
        (lambda: network(depth=2.0), "depth=2.0 must be an integer"),
        (lambda: network(row_norm="1"), "row_norm='1'"),
        (lambda: network(row_norm=0.0), r"row_norm=0.0 must be a positive"),
        (lambda: network(activation="relu"), r"activation='relu' is unknown.*tanh"),
        (lambda: SmoothNetwork([], np.ones(2)), "at least one layer"),
        (lambda: SmoothNetwork([np.ones(5)], np.ones(2)), "2-D"),
        (lambda: SmoothNetwork([LAYER], np.ones(3)), r"\[2\] units.*\[3\] inputs"),
        (lambda: SmoothNetwork([np.full((2, 5), np.nan)], np.ones(2)), "finite"),
        (lambda: SmoothNetwork([LAYER * [[0], [1]]], np.ones(2)), "row of zeros"),
        (lambda: network().predict(X[:, :3]), "3 features"),
        (lambda: network().loss(X, Y[:-1]), "inconsistent"),
        (lambda: network().loss_hessian_norm(X, Y[:-1]), "inconsistent"),
        (lambda: train_deep_weight_norm(X[:, :3], Y, network(), learning_rate=1.0), "3 features"),
        (lambda: train_deep_weight_norm(X, Y[:-1], network(), learning_rate=1.0), "inconsistent"),
        (lambda: train_deep_weight_norm(X, Y, network(), learning_rate=0.0), "learning_rate=0.0 must be"),
        (lambda: train_deep_weight_norm(X, Y, network(), learning_rate=1.0, n_steps=-1), "n_steps=-1"),
        (lambda: train_deep_weight_norm(X, Y, network(), learning_rate=1.0, n_hessian_samples=13), "n_hessian_samples"),
        (lambda: train_deep_weight_norm(X, Y, network(), learning_rate=1.0, noted_steps=[501]), "noted_steps must be"),
        (
            lambda: train_deep_weight_norm(X, Y, network(), learning_rate=1.0, test=(X[:, :3], Y)),
            "3 features",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": ["odd", "even"] * 6}, "y must hold numbers; encode labels"),
        ({"start": None}, "start must be a SmoothNetwork, not a NoneType"),
        ({"learning_rate": "1"}, "learning_rate='1' must be a positive finite number"),
        ({"n_steps": 2.0}, "n_steps=2.0 must be an integer from 0 on"),
        ({"n_hessian_samples": 1.0}, "n_hessian_samples=1.0 must be an integer from 0 on"),
        ({"noted_steps": [0.5, 2.7]}, "noted_steps must be a list of integers from 0 to n_steps=3"),
        ({"noted_steps": [-1]}, "noted_steps"),
        ({"noted_steps": []}, "noted_steps"),
        ({"noted_steps": 2}, "noted_steps"),
        ({"test": X}, r"test must be a pair \(X, y\)"),
        ({"test": (X, Y, Y)}, "test must be a pair"),
    ],
)
def test_bad_options(changes, message):
    with pytest.raises(ValueError, match=message):
        train_deep_weight_norm(**{"X": X, "y": Y, "start": network(), "learning_rate": 1.0, "n_steps": 3} | changes)
