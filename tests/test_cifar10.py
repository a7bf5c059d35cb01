"""The CIFAR-10 benchmark on a few random images: stages, checkpoints, table and picture."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import cifar10, images
from convexbn import Status
from convexbn.network._persistence import Stored

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
SIZES = {"train": 20, "test": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Ten classes of noise around a colour of their own."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for label in range(10):
        for part, size in SIZES.items():
            folder = root / part / f"class {label}"
            folder.mkdir(parents=True)
            for i in range(size):
                pixels = np.clip(rng.normal(20 * label, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def loaded(data, tmp_path_factory):
    return images.load_cifar10(data, tmp_path_factory.mktemp("work"))


def stages(architecture, loaded, folder, device=None):
    return cifar10.Stages(architecture, *loaded, folder, device)


def test_images_are_decoded_once_and_mapped(data, loaded, tmp_path):
    train, test = loaded
    assert train.X.shape == (200, 3, 32, 32)
    assert train.X.dtype == np.uint8
    assert isinstance(train.X, np.memmap)
    assert test.classes.tolist() == np.repeat(np.arange(10), 4).tolist()
    np.testing.assert_array_equal(train.X[0], np.asarray(Image.open(data / "train/class 0/0.png")).transpose(2, 0, 1))
    np.testing.assert_array_equal(test.one_hot(10).argmax(axis=1), test.classes)
    again, _ = images.load_cifar10(data, Path(train.X.filename).parent)
    np.testing.assert_array_equal(again.X, train.X)
    with pytest.raises(SystemExit, match="does not exist"):
        images.load_cifar10(tmp_path / "missing", tmp_path / "work")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="holds no train"):
        images.load_cifar10(tmp_path / "empty", tmp_path / "work")


DENSE, CONVOLUTIONAL = (architecture.quick for architecture in cifar10.ARCHITECTURES)


def test_images_are_downloaded_without_data(tmp_path, monkeypatch):
    pixels = np.arange(3 * 3072).reshape(3, 3072) % 251

    def fetch_openml(name, **options):
        assert name == "CIFAR_10"
        return pixels.astype(float), np.array(["4", "7", "4"])

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch_openml)
    monkeypatch.setattr(images, "N_TRAIN", 2)
    train, test = images.load_cifar10(None, tmp_path)
    np.testing.assert_array_equal(train.X, pixels[:2].reshape(2, 3, 32, 32))
    assert (train.classes.tolist(), test.classes.tolist()) == ([0, 1], [0])


def test_stages_give_rows_and_networks(loaded, tmp_path):
    runs = stages(CONVOLUTIONAL, loaded, tmp_path)
    rows = {
        "validation": runs.row("validation", n_components=4),
        "gated-4": runs.row("gated", n_components=4),
        "relu": runs.row("relu", n_components=4),
        "trial": runs.row("Adam trial", width=6, learning_rate=0.01),
        "Adam": runs.row("Adam", width=6, learning_rate=0.01),
    }
    dense = stages(DENSE, loaded, tmp_path).row("SGD", width=6, learning_rate=0.1)
    assert (rows["validation"]["n"], rows["relu"]["n"], rows["trial"]["n"], rows["Adam"]["n"]) == (180, 200, 180, 200)
    assert rows["Adam"]["n_neurons"] == dense["n_neurons"] == 6
    for row in [*rows.values(), dense]:
        assert 0 < row["objective"] < np.log(10)  # what a constant has
    assert rows["gated-4"]["objective"] >= rows["gated-4"]["lower_bound"]
    assert rows["gated-4"]["scope"] == "patterns"
    train, test = loaded
    for name in ("gated-4", "relu"):
        network = Stored.load(tmp_path / f"{name}.network.npz")
        for part, of in (("train", train), ("test", test)):
            found = network.predict(of.X).argmax(axis=1) == of.classes
            assert rows[name][f"{part}_accuracy"] == pytest.approx(found.mean())
    for name, shape in {"gated-4": (6, 6), "relu": (6, 6), "Adam": (6, 6), "SGD": (32, 32)}.items():
        assert Stored.load(tmp_path / f"{name}.network.npz").output_weights.shape[1] == 10
        assert cifar10.leading_filters(tmp_path / f"{name}.network.npz").shape[1:] == (*shape, 3)


def test_stages_on_a_device(loaded, tmp_path):
    """The way of a GPU: tensors, on a device that every machine has."""
    found = []
    for device in (None, "cpu"):
        runs = stages(replace(CONVOLUTIONAL, minutes=1.0), loaded, tmp_path, device)
        rows = runs.row("gated", n_components=2), runs.row("SGD", width=6, learning_rate=0.1)
        found.append([row[name] for row in rows for name in ("objective", "train_accuracy", "test_accuracy")])
    np.testing.assert_allclose(*found, rtol=1e-3)


def test_a_shorter_run():
    args = argparse.Namespace(quick=False, minutes=2.0, steps=None)
    assert cifar10.shortened(cifar10.ARCHITECTURES[0], args) == replace(cifar10.ARCHITECTURES[0], minutes=2.0)
    assert (
        cifar10.shortened(cifar10.ARCHITECTURES[0], argparse.Namespace(quick=True, minutes=None, steps=7)).n_steps == 7
    )


def test_a_stopped_run_goes_on_from_its_checkpoint(loaded, tmp_path, monkeypatch):
    first = stages(CONVOLUTIONAL, loaded, tmp_path).row("gated", n_components=4)
    seen, solve = [], cifar10.solve_gated

    def watched(*args, **options):
        seen.append(options)
        return solve(*args, **options)

    monkeypatch.setattr(cifar10, "solve_gated", watched)
    again = stages(CONVOLUTIONAL, loaded, tmp_path).row("gated", n_components=4)
    assert len(seen[0]["start"]) == first["n_neurons"]
    assert again["objective"] <= first["objective"] * (1 + 1e-9)
    assert again["seconds"] > first["seconds"]


@pytest.mark.parametrize(("stage", "solver"), [("gated", "solve_gated"), ("relu", "solve_column_generation")])
def test_ctrl_c_in_a_solver_stops_the_stage_at_a_checkpoint(stage, solver, loaded, tmp_path, monkeypatch):
    starts, solve = [], getattr(cifar10, solver)

    def interrupted(*args, start, **options):
        starts.append(start)
        return replace(solve(*args, start=start, **options), status=Status.INTERRUPTED)

    monkeypatch.setattr(cifar10, solver, interrupted)
    runs = stages(CONVOLUTIONAL, loaded, tmp_path)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            runs.row(stage, n_components=4)
    assert starts[0] is None
    assert len(starts[1]) > 0


def test_stopped_training_goes_on_from_its_checkpoint(loaded, tmp_path, monkeypatch):
    whole = stages(CONVOLUTIONAL, loaded, tmp_path / "whole")
    stopped = stages(CONVOLUTIONAL, loaded, tmp_path / "stopped")
    for runs in (whole, stopped):
        runs.folder.mkdir()
    rates, train = [], cifar10.train

    def train_four_times(*args, **options):
        rates.append(options["learning_rate"])
        network, trace = train(*args, **options)
        return network, replace(trace, interrupted=len(rates) == 5)

    with monkeypatch.context() as patch:
        patch.setattr(cifar10, "train", train_four_times)
        with pytest.raises(KeyboardInterrupt):
            stopped.row("SGD", width=6, learning_rate=0.1)
    assert json.loads((stopped.folder / "SGD-0.1.checkpoint.json").read_text())[0] == 4
    expected, row = (runs.row("SGD", width=6, learning_rate=0.1) for runs in (whole, stopped))
    assert rates == 5 * [0.1]
    assert row["objective"] == expected["objective"]
    assert row["test_accuracy"] == expected["test_accuracy"]


def test_the_learning_rate_is_chosen_by_validation(tmp_path, monkeypatch):
    runner = cifar10.Runner(argparse.Namespace(work=tmp_path), DENSE)
    monkeypatch.setattr(
        runner,
        "row",
        lambda stage, width, learning_rate: {
            "test_accuracy": -abs(learning_rate - 0.03),
            "stage": stage,
            "width": width,
        },
    )
    assert runner._tuned("SGD", 7) == {"test_accuracy": 0.0, "stage": "SGD", "width": 7}


def test_rows_are_read_back_and_other_settings_refused(tmp_path):
    args = argparse.Namespace(work=tmp_path)
    runner = cifar10.Runner(args, cifar10.ARCHITECTURES[0])
    (tmp_path / "dense" / "gated-None.json").write_text(json.dumps({"objective": 1.0}))
    assert runner.row("gated", n_components=None) == {"objective": 1.0}
    assert runner.rows == [{"objective": 1.0}]
    with pytest.raises(SystemExit, match="other settings"):
        cifar10.Runner(args, DENSE)


def made_results():
    def row(accuracy):
        convex = {"gap": 0.01, "scope": "patterns"}
        numbers = {"n": 10, "objective": 1.0, "n_neurons": 3, "seconds": 1.0, "peak_gibibytes": 2.0}
        return numbers | convex | {"train_accuracy": 0.9, "test_accuracy": accuracy}

    labels = ["ReLU, SGD", "ReLU, Adam", "ReLU, convex, truncated", "gated, convex, truncated"]
    rows = {label: row(0.5) for label in labels} | {"gated, convex, all directions": row(0.4)}
    rows["gated, convex, truncated"]["test_accuracy"] = 0.6
    validation = {"components": [2, 4], "accuracy": [0.4, 0.5]}
    return {"dense": {"rows": rows, "validation": validation, "n_components": 4, "peak_gibibytes": 2.0}}


def test_targets_table_and_picture(tmp_path, capsys, pictures):
    results = made_results()
    claim, memory = cifar10.targets(results)
    assert claim["met"]
    assert claim["figure"].startswith("gated 60.0% against 40.0% and 50.0%; truncated convex with ReLU 50.0%")
    assert memory["met"]
    on_device = cifar10.targets({"dense": results["dense"] | {"device_gibibytes": 15.0}}, "cuda")[-1]
    assert on_device["figure"] == "2.0 GiB of the process, 15.0 GiB on the device"
    assert not on_device["met"]  # 16.1 GB
    results["dense"]["rows"]["ReLU, SGD"]["test_accuracy"] = 0.7
    assert not cifar10.targets(results)[0]["met"]
    cifar10.show_table(results)
    assert "4 directions kept by validation" in capsys.readouterr().out
    written = {"environment": {"cpu": "a processor", "date": "2026-01-02"}, "threads": 1, "device": "cpu"}
    written["architectures"] = results
    filters = {"dense": {"ReLU, SGD": np.full((8, 32, 32, 3), 0.5)}}
    cifar10.draw(written, filters, tmp_path / "picture.png")
    bars, validation, *shown = pictures["picture.png"].axes
    assert [label.get_text() for label in bars.get_yticklabels()] == list(results["dense"]["rows"])
    tests, trains = bars.containers
    assert [bar.get_width() for bar in tests] == [0.7, 0.5, 0.5, 0.6, 0.4]
    assert {bar.get_width() for bar in trains} == {0.9}
    assert validation.lines[0].get_xydata().tolist() == [[2, 0.4], [4, 0.5]]
    assert len(shown) == cifar10.FILTERS
    assert shown[0].texts[0].get_text() == "ReLU, SGD"
    for ax in shown:
        np.testing.assert_array_equal(ax.images[0].get_array(), np.full((32, 32, 3), 0.5))
