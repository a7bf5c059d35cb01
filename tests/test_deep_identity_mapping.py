import io
import json
import sys
import zipfile

import numpy as np
import pytest
import torch

from benchmarks import deep_identity_mapping as benchmark
from convexbn.gradient import DivergenceError
from convexbn.gradient.identity_mapping import LinkedNetwork, train_linked

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 4))
IMAGES = RNG.standard_normal((60, 2, 5, 4))
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
IMAGE_Y = (IMAGES[:, 0].mean(axis=(1, 2)) > 0).astype(int)
LINKS = (0, 1, 2)


def network(link=1, depth=6, width=5, **options):
    return LinkedNetwork.at_initialization(4, 3, depth=depth, width=width, link=link, random_state=0, **options)


def convolutional(link=1, depth=6, width=3):
    return LinkedNetwork.at_initialization(2, 2, depth=depth, width=width, link=link, kernel_size=3, random_state=0)


def away_from_zero(net):
    """The same network with weights that are zero nowhere."""
    noise = 0.2 * np.random.default_rng(1).standard_normal(net.weights.shape)
    return LinkedNetwork(net.input_weights, net.weights + noise, net.output_weights, net.link)


def layer_by_hand(W, a):
    """A dense layer, or a convolution written as a sum over the shifts of the padded images."""
    if W.ndim == 2:
        return a @ W.T
    k, (height, width) = W.shape[-1], a.shape[2:]
    padded = np.pad(a, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    shifts = [(i, j) for i in range(k) for j in range(k)]
    return sum(
        np.einsum("oc,nchw->nohw", W[:, :, i, j], padded[:, :, i : i + height, j : j + width]) for i, j in shifts
    )


def outputs_by_hand(net, x):
    a = np.maximum(layer_by_hand(net.input_weights, x), 0)
    size = max(net.link, 1)
    for first in range(0, len(net.weights), size):
        z = a
        for layer in net.weights[first : first + size]:
            before = layer_by_hand(layer, z)
            z = np.maximum(before, 0)
        a = np.maximum(a + before, 0) if net.link else z
    return (a.mean(axis=(2, 3)) if a.ndim == 4 else a) @ net.output_weights.T


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(("make", "data"), [(network, X), (convolutional, IMAGES)])
def test_outputs_are_those_of_the_formula(make, data, link):
    net = away_from_zero(make(link))
    outputs = net.predict(data)
    assert outputs.shape == (60, len(net.output_weights))
    np.testing.assert_allclose(outputs, outputs_by_hand(net, data), atol=1e-12)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(("make", "data", "y"), [(network, X, Y), (convolutional, IMAGES, IMAGE_Y)])
def test_a_step_goes_along_the_gradient_of_finite_differences(make, data, y, link):
    net = away_from_zero(make(link))
    moved, _ = train_linked(data, y, net, learning_rate=1.0, n_steps=1, batch_size=60, random_state=0)
    rng, step = np.random.default_rng(2), 1e-6
    for name in ("input_weights", "weights", "output_weights"):
        fields = {field: getattr(net, field) for field in ("input_weights", "weights", "output_weights")}
        change = getattr(moved, name) - fields[name]
        direction = rng.standard_normal(change.shape)
        losses = [
            LinkedNetwork(**fields | {name: fields[name] + sign * step * direction}, link=link).loss(data, y)
            for sign in (1, -1)
        ]
        assert -np.sum(change * direction) == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-4, abs=1e-8)
        assert np.abs(change).max() > 1e-4


@pytest.mark.parametrize(("make", "data", "size"), [(network, X, None), (convolutional, IMAGES, (5, 4))])
class TestLinks:
    @pytest.mark.parametrize("link", [1, 2])
    def test_zero_weights_inside_links_are_the_identity(self, make, data, size, link):
        net, shallow = make(link), make(link, depth=2)
        assert net.weights.shape[0] == 4
        for weights in (net.weights, 0 * net.weights):
            deep = LinkedNetwork(net.input_weights, weights, net.output_weights, link)
            np.testing.assert_array_equal(deep.singular_values(size), 1)
            same = LinkedNetwork(net.input_weights, shallow.weights, net.output_weights, link)
            np.testing.assert_allclose(deep.predict(data), same.predict(data), rtol=1e-12)
        vanilla = LinkedNetwork(net.input_weights, 0 * net.weights, net.output_weights, 0)
        assert (vanilla.predict(data) == 0).all()

    def test_a_link_around_every_layer_moves_the_start_of_a_vanilla_network(self, make, data, size):
        linked = away_from_zero(make(1))
        eye = np.eye(linked.weights.shape[1])
        if size:
            eye = np.pad(eye[:, :, None, None], ((0, 0), (0, 0), (1, 1), (1, 1)))
        vanilla = LinkedNetwork(linked.input_weights, linked.weights + eye, linked.output_weights, 0)
        np.testing.assert_allclose(vanilla.predict(data), linked.predict(data), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(vanilla.singular_values(size), linked.singular_values(size), rtol=1e-10)

    @pytest.mark.parametrize("link", LINKS)
    def test_singular_values_are_those_of_the_matrix_of_a_block(self, make, data, size, link):
        net = away_from_zero(make(link))
        shape = (net.weights.shape[1], *(size or ()))
        basis = np.eye(int(np.prod(shape))).reshape(-1, *shape)
        expected = []
        for first in range(0, 4, max(link, 1)):
            image = basis
            for layer in net.weights[first : first + max(link, 1)]:
                image = layer_by_hand(layer, image)
            matrix = (image + (basis if link else 0)).reshape(len(basis), -1)
            values = np.linalg.svd(matrix, compute_uv=False)
            expected.append([values[-1], values[0]])
        np.testing.assert_allclose(net.singular_values(size), expected, rtol=1e-9, atol=1e-12)


def test_initialization_has_the_variance_of_he_and_zeros_inside_the_links():
    for link in LINKS:
        net = LinkedNetwork.at_initialization(100, 50, depth=6, width=200, link=link, random_state=0)
        drawn = [index for index in range(4) if link == 0 or (link == 2 and index % 2 == 0)]
        assert [bool(net.weights[index].any()) for index in range(4)] == [index in drawn for index in range(4)]
        assert all(net.weights[index].std() == pytest.approx(np.sqrt(2 / 200), rel=0.02) for index in drawn)
        assert net.input_weights.std() == pytest.approx(np.sqrt(2 / 100), rel=0.02)
        assert net.output_weights.std() == pytest.approx(np.sqrt(1 / 200), rel=0.02)
        np.testing.assert_array_equal(net.output_weights, network_of(0).output_weights)
    images = LinkedNetwork.at_initialization(5, 2, depth=10, width=30, link=0, kernel_size=3, random_state=0)
    assert images.weights.std() == pytest.approx(np.sqrt(2 / 270), rel=0.02)
    np.testing.assert_array_equal(network_of(2).weights[[0, 2]], network_of(0).weights[[0, 2]])


def network_of(link):
    return LinkedNetwork.at_initialization(100, 50, depth=6, width=200, link=link, random_state=0)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_traces_are_deterministic_and_say_what_the_networks_do(link, dtype):
    test = X[:20] + 0.1, Y[:20]
    options = {"learning_rate": 0.05, "n_steps": 30, "batch_size": 25, "noted_steps": [0, 10, 30], "dtype": dtype}
    start = network(link, depth=4)
    trained, trace = train_linked(X, Y, start, test=test, random_state=3, **options)
    again, repeated = train_linked(X, Y, start, test=test, random_state=3, **options)
    np.testing.assert_array_equal(trained.weights, again.weights)
    np.testing.assert_array_equal(trace.objective, repeated.objective)
    for name, values in trace.watched.items():
        np.testing.assert_array_equal(values, repeated[name])
    assert trace.steps.tolist() == [0, 10, 30]
    for row, net in ((0, start), (-1, trained)):
        assert trace.objective[row] == pytest.approx(net.loss(X, Y), rel=1e-5)
        assert trace["train_error"][row] == net.error(X, Y)
        assert trace["test_error"][row] == net.error(*test)
        values = np.column_stack([trace["smallest_singular_value"][row], trace["largest_singular_value"][row]])
        np.testing.assert_allclose(values, net.singular_values(), rtol=1e-4, atol=1e-6)
    assert trace.objective[-1] < 0.8 * trace.objective[0]
    other = train_linked(X, Y, start, random_state=4, **options)[1]
    assert (other.objective[1:] != trace.objective[1:]).all()
    assert set(other.watched) == {"train_error", "smallest_singular_value", "largest_singular_value"}


def test_errors_are_shares_of_wrong_classes_and_batches_are_drawn_without_replacement():
    net = LinkedNetwork(np.eye(2), np.zeros((0, 2, 2)), np.eye(2))
    assert net.error([[1, 0], [0, 1], [2, 1], [1, 2]], [0, 1, 1, 1]) == 0.25
    assert net.loss([[1, 0]], [0]) == pytest.approx(np.log(1 + np.exp(-1)))
    assert net.singular_values().shape == (0, 2)
    seen = [index for _, batch in zip(range(3), batches(10, 3), strict=False) for index in batch]
    assert len(set(seen)) == 9


def batches(n_samples, batch_size):
    from convexbn.gradient.identity_mapping._deep_training import batches_of

    return batches_of(n_samples, batch_size, np.random.default_rng(0))


def test_momentum():
    start, options = away_from_zero(network(depth=4)), {"learning_rate": 0.1, "batch_size": 60, "n_steps": 2}
    fits = {momentum: train_linked(X, Y, start, momentum=momentum, **options)[0] for momentum in (0.0, 0.5)}
    first = train_linked(X, Y, start, **options | {"n_steps": 1})[0]
    np.testing.assert_allclose(
        fits[0.5].weights - fits[0.0].weights, 0.5 * (first.weights - start.weights), rtol=1e-9, atol=1e-12
    )


def test_a_step_that_is_too_long():
    with pytest.raises(DivergenceError, match="smaller steps") as raised:
        train_linked(X, Y, network(depth=20), learning_rate=100.0, batch_size=20, random_state=0)
    assert raised.value.trace.steps[0] == 0


def test_interrupted_before_the_end_the_network_so_far_is_returned(monkeypatch):
    steps = iter(range(3))
    step = torch.optim.SGD.step

    def interrupted(self, *args, **options):
        if next(steps) == 2:
            raise KeyboardInterrupt
        return step(self, *args, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", interrupted)
    options = {"learning_rate": 0.01, "batch_size": 20, "random_state": 0}
    trained, trace = train_linked(X, Y, network(), noted_steps=[0, 1000], **options)
    assert trace.interrupted
    assert trace.steps.tolist() == [0]
    monkeypatch.undo()
    two = train_linked(X, Y, network(), n_steps=2, **options)[0]
    np.testing.assert_array_equal(trained.weights, two.weights)


def test_repr():
    assert repr(network(0)) == "LinkedNetwork(4 inputs, 6 layers of width 5, 3 outputs, no links)"
    assert repr(convolutional(1)) == (
        "LinkedNetwork(2 channels, 6 layers of width 3 (3 x 3 convolutions), 2 outputs, a link around every layer)"
    )


W, SQUARE, V = np.ones((3, 4)), np.zeros((2, 3, 3)), np.ones((2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LinkedNetwork(W[0], SQUARE, V), r"input_weights must have shape \(m, d\)"),
        (lambda: LinkedNetwork(np.ones((3, 2, 2, 2)), SQUARE, V), "odd k; got"),
        (lambda: LinkedNetwork(np.ones((3, 2, 3, 1)), SQUARE, V), r"odd k; got \(3, 2, 3, 1\)"),
        (lambda: LinkedNetwork(W, SQUARE[0], V), r"weights must have shape \(L - 2, 3, 3\)"),
        (lambda: LinkedNetwork(W, np.zeros((2, 3, 3, 3, 3)), V), r"weights must have shape \(L - 2, 3, 3\)"),
        (lambda: LinkedNetwork(W, SQUARE, V.T), r"output_weights must have shape \(C, 3\), got \(3, 2\)"),
        (lambda: LinkedNetwork(W, SQUARE * np.nan, V), "weights must be finite"),
        (lambda: LinkedNetwork(W, SQUARE, V, link=3), "2 hidden layers .* must be a multiple of link=3"),
        (lambda: LinkedNetwork(W, SQUARE, V, link=-1), "link=-1 must be an integer from 0 on"),
        (lambda: network(2, depth=5), "3 hidden layers .* must be a multiple of link=2"),
        (lambda: network(depth=1), "depth=1 must be an integer from 2 on"),
        (lambda: network(width=0), "width=0"),
        (lambda: network(link="every layer"), "link='every layer' must be an integer"),
        (lambda: network(kernel_size=2), "kernel_size=2 must be odd"),
        (lambda: LinkedNetwork.at_initialization(0, 2), "n_inputs=0"),
        (lambda: LinkedNetwork.at_initialization(2, 1), "n_outputs=1 must be an integer from 2 on"),
        (lambda: network().predict(X[:, :3]), "3 features"),
        (lambda: network().predict(IMAGES), "dim 4"),
        (lambda: convolutional().predict(X), r"X must have shape \(n, channels, height, width\)"),
        (lambda: convolutional().predict(np.moveaxis(IMAGES, 1, -1)), "channels"),
        (lambda: network().loss(X, Y[:-1]), "inconsistent"),
        (lambda: network().error(X, Y + 1), r"y must hold the integers 0 to 2, one a class; encode labels"),
        (lambda: network().error(X, Y - 1), "y must hold the integers"),
        (lambda: network().error(X, Y + 0.5), "y must hold the integers"),
        (lambda: network().error(X, Y.astype(str)), "y must hold the integers"),
        (lambda: network().singular_values((5, 4)), "The network is dense: leave out image_size"),
        (lambda: convolutional().singular_values(), "convolutional: give the height and width in image_size=None"),
        (lambda: convolutional().singular_values((5, 0)), "image_size=0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": None}, "start must be a LinkedNetwork, not a NoneType"),
        ({"X": X * np.nan}, "NaN"),
        ({"y": Y[:-1]}, "inconsistent"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be a positive finite number"),
        ({"momentum": 1.0}, "momentum=1.0 must be a number from 0 on and below 1"),
        ({"n_steps": -1}, "n_steps=-1"),
        ({"batch_size": 0}, "batch_size=0 must be an integer from 1 on"),
        ({"batch_size": 61}, "batch_size=61 must be at most 60"),
        ({"noted_steps": [4]}, "noted_steps must be a list of integers from 0 to n_steps=3"),
        ({"test": X}, r"test must be a pair \(X, y\)"),
        ({"test": (X[:, :2], Y)}, "2 features"),
        ({"test": (X, Y + 1)}, "y must hold the integers 0 to 2"),
        ({"dtype": "float16"}, r"dtype='float16' is unknown; choose one of \['float64', 'float32'\]"),
    ],
)
def test_bad_options_are_refused_before_training(changes, message, monkeypatch):
    monkeypatch.setattr(torch.optim, "SGD", None)
    good = {"X": X, "y": Y, "start": network(), "learning_rate": 0.1, "n_steps": 3, "batch_size": 20}
    with pytest.raises(ValueError, match=message):
        train_linked(**good | changes)


@pytest.fixture
def archive(tmp_path):
    """A zip file of images, seven a class and part of training twice as many."""
    image = pytest.importorskip("PIL.Image")
    path, rng = tmp_path / "images.zip", np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for part, size in (("train", 14), ("test", 7)):
            for name in benchmark.CLASSES:
                for number in range(size):
                    content = io.BytesIO()
                    image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(content, "JPEG")
                    archive.writestr(f"{part}/{name}/{number:04d}.jpg", content.getvalue())
    return path


class TestBenchmark:
    @pytest.mark.slow
    def test_quick_run_writes_results_and_picture_and_goes_on_where_it_was(
        self, tmp_path, monkeypatch, pictures, archive, capsys
    ):
        monkeypatch.setattr(
            sys, "argv", ["deep_identity_mapping", "--quick", "--output", str(tmp_path), "--data", str(archive)]
        )
        benchmark.main()
        results = json.loads((tmp_path / "deep_identity_mapping.json").read_text())
        assert (results["quick"], results["targets"]) == (True, [])
        assert list(results["data"]) == ["digits", "CIFAR-10"]
        axes = pictures["deep_identity_mapping.png"].axes
        for (name, entry), row in zip(results["data"].items(), (axes[:4], axes[4:]), strict=True):
            measured = entry["measured"]
            assert [(one["kind"], one["depth"]) for one in measured] == [
                (k, d) for d in (4, 6) for k in benchmark.KINDS
            ]
            for one in measured:
                assert one["rate"] == results["rates"][int(np.argmin(np.mean(one["validation_errors"], axis=1)))]
                assert one["test_errors"] == [run["test_error"][-1] for run in one["runs"]]
                assert all(run["steps"][-1] == entry["n_steps"] == 1 for run in one["runs"])
            assert len(benchmark.targets(name, measured)) == 7
            for line, kind in zip(row[0].lines, benchmark.KINDS, strict=False):
                assert line.get_label() == kind
                means = [100 * np.mean(one["test_errors"]) for one in measured if one["kind"] == kind]
                np.testing.assert_allclose(line.get_ydata(), means, rtol=1e-9)
        capsys.readouterr()
        kept = json.loads((tmp_path / "deep_identity_mapping_runs.json").read_text())
        monkeypatch.setattr(benchmark, "train_linked", None)
        benchmark.main()
        assert "test error" not in capsys.readouterr().out
        assert json.loads((tmp_path / "deep_identity_mapping_runs.json").read_text()) == kept

    def test_a_diverged_run_counts_as_guessing(self):
        setting = benchmark.digits(n_steps=20)
        run = benchmark.trained(setting, 1, 30, 10.0, 0, search=True)
        assert (run["train_error"], run["test_error"]) == ([0.9], [0.9])
        assert "smallest" not in run

    def test_parts_do_not_overlap_and_are_scaled_by_the_training_part(self, archive):
        per_class = {"train": 5, "validation": 4, "test": 3}
        for setting in (benchmark.digits(), benchmark.cifar(archive, per_class=per_class)):
            parts = setting.parts
            together = np.concatenate([X for X, _ in parts.values()])
            assert len(np.unique(together.reshape(len(together), -1), axis=0)) == len(together)
            np.testing.assert_allclose(parts["train"][0].mean(axis=0), 0, atol=1e-10)
        assert {part: X.shape for part, (X, _) in parts.items()} == {
            part: (10 * size, 3, 8, 8) for part, size in per_class.items()
        }

    def canned(self):
        """Measurements in which every statement of the summary holds."""
        errors = {benchmark.EVERY: 0.3, benchmark.SECOND: 0.2, benchmark.VANILLA: 0.5}
        run = {"smallest": [1.0, 0.8], "largest": [1.0, 1.5]}
        return [
            {
                "kind": kind,
                "depth": depth,
                "train_errors": [error - 0.1] * 3,
                "test_errors": [error, error + 0.01, error + 0.02],
                "runs": [dict(run)] * 3,
            }
            for depth in (4, 56)
            for kind, error in errors.items()
        ]

    @pytest.mark.parametrize(
        ("kind", "change", "unmet"),
        [
            (benchmark.EVERY, {}, ()),
            (benchmark.EVERY, {"test_errors": [0.3, 0.3, 0.5]}, (0,)),
            (benchmark.SECOND, {"test_errors": [0.1, 0.1, 0.5]}, (1, 2)),
            (benchmark.VANILLA, {"test_errors": [0.25, 0.5, 0.5]}, (0,)),
            (benchmark.EVERY, {"train_errors": [0.2, 0.2, 0.24]}, (3,)),
            (benchmark.SECOND, {"train_errors": [0.9, 0.1, 0.1]}, (4,)),
            (benchmark.VANILLA, {"train_errors": [0.9, 0.9, 0.9]}, (5,)),
            (benchmark.EVERY, {"runs": [{"smallest": [1.0, 0.4], "largest": [1.0, 1.5]}]}, (6,)),
            (benchmark.EVERY, {"runs": [{"smallest": [1.0, 0.8], "largest": [1.0, 2.5]}]}, (6,)),
            (benchmark.EVERY, {"runs": [{"train_error": [0.9]}]}, (6,)),
        ],
    )
    def test_statements_of_the_summary(self, kind, change, unmet):
        measured = self.canned()
        (entry,) = [one for one in measured if (one["kind"], one["depth"]) == (kind, 56)]
        entry |= change
        rows = benchmark.targets("digits", measured)
        assert [row["met"] for row in rows] == [row not in unmet for row in range(7)]
        if not change:
            assert rows[0]["figure"] == "test error 31.0 % (30.0 to 32.0) against 51.0 % (50.0 to 52.0)"
