"""Fitted estimators in files of ours, and in those of skops."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from convexbn import (
    ConvexBNClassifier,
    ConvexBNClassifierCV,
    ConvexBNConvClassifier,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    ConvexBNRegressorCV,
    ConvexBNStackClassifier,
    ConvexBNStackRegressor,
    GDNPClassifier,
    RandomBatchNormLayers,
    WeightNormNetwork,
)
from convexbn.losses import Huber, LogLoss
from tests.networks import IMAGES, X, Y

WORDS = np.array(["low", "middle", "high"])[np.digitize(Y, [0.0, 1.0])]
FRAME = pd.DataFrame(X, columns=["a", "b", "c"])
ESTIMATORS = {
    "regressor": (ConvexBNRegressor(0.05, loss=Huber(0.7), tol=1e-1), FRAME, Y),
    "tuned": (ConvexBNRegressor(n_components=1, tol=1.0), X, Y),
    "targets": (ConvexBNRegressor(np.float64(0.05), tol=1e-1), X, np.column_stack([Y, 9 * X[:, 2]])),
    "gated": (ConvexBNRegressor(0.05, activation="gated_relu", n_patterns=9, tol=1e-1), X, Y),
    "after the ReLU": (ConvexBNRegressor(0.05, normalization="batch_after_relu", tol=1e-1), X, Y),
    "weight norm": (ConvexBNRegressor(0.05, normalization="weight", tol=1e-1), X, Y),
    "classifier": (ConvexBNClassifier(0.05, class_weight={"low": 2.0}, tol=1e-1), FRAME, WORDS),
    "objects": (ConvexBNClassifier(0.05, tol=1e-1), X, WORDS.astype(object)),
    "cv": (ConvexBNRegressorCV(n_weight_decays=3, cv=2, spectral_power=(0, 1.0), tol=1.0), X, Y),
    "classifier cv": (ConvexBNClassifierCV(weight_decays=[0.1, 0.01], cv=2, tol=1.0), X, Y > 1),
    "images": (ConvexBNConvRegressor(0.05, kernel_size=(2, 3), tol=1e-1), IMAGES, Y[:12]),
    "labels of images": (ConvexBNConvClassifier(0.05, activation="gated_relu", n_patterns=5), IMAGES, WORDS[:12]),
    "stack": (
        ConvexBNStackRegressor(ConvexBNRegressor(0.05, tol=1e-1), features=RandomBatchNormLayers([6, 5])),
        FRAME,
        Y,
    ),
    "classifier stack": (ConvexBNStackClassifier(ConvexBNClassifier(0.05, tol=1e-1)), X, WORDS),
    "halfspace": (GDNPClassifier(), X, Y + np.sin(9 * X[:, 2]) > 1),
    "layers": (RandomBatchNormLayers((4,)), FRAME, None),
}


@pytest.fixture(params=ESTIMATORS)
def fitted(request):
    model, data, targets = ESTIMATORS[request.param]
    return clone(model).fit(data, targets), data


def check_equal(loaded, model, data):
    assert type(loaded) is type(model)
    for method in ("predict", "predict_proba", "decision_function", "transform"):
        if hasattr(model, method):
            np.testing.assert_array_equal(getattr(loaded, method)(data), getattr(model, method)(data))
    for name in ("certificate_", "certificates_", "weight_decay_", "n_iter_", "image_shape_", "n_features_in_"):
        if hasattr(model, name):
            assert getattr(loaded, name) == getattr(model, name)
    for name in ("classes_", "feature_names_in_"):
        if hasattr(model, name):
            expected = getattr(model, name)
            np.testing.assert_array_equal(getattr(loaded, name), expected)
            assert getattr(loaded, name).dtype == expected.dtype


@pytest.mark.filterwarnings("ignore:The gradient has norm")
def test_a_loaded_estimator_is_the_one_that_was_saved(fitted, tmp_path):
    model, data = fitted
    model.save(tmp_path / "model.npz")
    loaded = type(model).load(str(tmp_path / "model.npz"))
    check_equal(loaded, model, data)
    assert set(vars(loaded)) == set(vars(model))
    assert repr(loaded.get_params()) == repr(model.get_params())
    if hasattr(model, "validation_scores_"):
        for name, column in model.validation_scores_.items():
            np.testing.assert_array_equal(loaded.validation_scores_[name], column)
    loaded.save(tmp_path / "again.npz")
    check_equal(type(model).load(tmp_path / "again.npz"), model, data)


def test_the_file_is_arrays_and_json(tmp_path):
    model = ConvexBNClassifier(0.05, tol=1e-1).fit(FRAME, WORDS)
    model.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz", allow_pickle=False) as file:
        facts = json.loads(file["facts"].tobytes())
        assert all(file[name].dtype.kind in "fiuUb" for name in file.files)
    assert facts["version"] == __import__("convexbn").__version__
    assert facts["estimator"]["kind"] == "ConvexBNClassifier"
    assert facts["estimator"]["parameters"]["tol"] == 0.1
    assert facts["estimator"]["learned"]["feature_names_in_"]["values"] == ["a", "b", "c"]


def test_every_damage_is_a_value_error_or_changes_nothing(tmp_path):
    model, path = ConvexBNRegressor(0.5, tol=1e-1).fit(X, Y), tmp_path / "model.npz"
    model.save(path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for place in rng.choice(len(whole), 150, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            loaded = ConvexBNRegressor.load(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
        else:  # a date, say
            check_equal(loaded, model, X)
    assert refused > 75
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="is damaged, or holds no estimator saved by convexbn"):
            ConvexBNRegressor.load(path)


def rewritten(path, change):
    """The file with changed facts."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    facts = json.loads(arrays["facts"].tobytes())
    change(facts)
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.update(format="convexbn-estimator-99"), "is of the format 'convexbn-estimator-99'"),
        (lambda facts: facts["estimator"].update(kind="Path"), "holds a Path, not a ConvexBNRegressor"),
        (lambda facts: facts["estimator"]["parameters"].update(colour=1), r"has parameters \['colour'\] of convexbn"),
        (lambda facts: facts["estimator"]["learned"].pop("network_"), "what it holds is no ConvexBNRegressor"),
        (lambda facts: facts["estimator"]["learned"]["network_"].update(kind="Popen"), "what it holds is no"),
        (lambda facts: facts["estimator"]["learned"]["certificate_"]["fields"].pop("scope"), "what it holds is no"),
        (lambda facts: facts["estimator"]["learned"]["network_"]["arrays"].pop("gamma"), "what it holds is no"),
        (lambda facts: facts["estimator"].update(learned={"network_": {"type": "code"}}), "what it holds is no"),
        (lambda facts: facts.pop("estimator"), "is damaged, or holds no estimator"),
    ],
)
def test_files_of_others_are_refused(change, message, tmp_path):
    path = tmp_path / "model.npz"
    ConvexBNRegressor(0.5, tol=1e-1).fit(X, Y).save(path)
    rewritten(path, change)
    with pytest.raises(ValueError, match=message):
        ConvexBNRegressor.load(path)


def _without(content, *names):
    """Take entries of these names out of all that is in a content."""
    for value in content.values() if isinstance(content, dict) else content:
        if isinstance(value, (dict, list)):
            _without(value, *names)
    for name in names if isinstance(content, dict) else ():
        content.pop(name, None)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(ConvexBNRegressorCV, "regressor"), (ConvexBNStackClassifier, "stack")],
    ids=["regressor", "stack"],
)
def test_files_of_the_first_version_are_read_and_written_the_same(kind, name, tmp_path):
    """They hold all forms: a loss, tuples, tables, objects, enumerations, networks, and estimators in estimators."""
    contents = []
    first = Path(__file__).parent / "files" / f"{name}_0.2.0.npz"
    kind.load(first).save(tmp_path / "again.npz")
    for path in (first, tmp_path / "again.npz"):
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
        contents.append((json.loads(arrays.pop("facts").tobytes())["estimator"], arrays))
    (before, arrays), (after, arrays_after) = contents
    _without(after, "feature_metric", "feature_metric_")  # of certificates and fits, which came later
    assert before["learned"] == after["learned"]
    assert before["parameters"] == {key: after["parameters"][key] for key in before["parameters"]}
    np.testing.assert_equal(arrays_after, arrays)


def test_other_types_and_pickles_are_refused(tmp_path):
    path, model = tmp_path / "model.npz", ConvexBNRegressor(0.5, tol=1e-1).fit(X, Y)
    model.save(path)
    with pytest.raises(ValueError, match="holds a ConvexBNRegressor, not a ConvexBNClassifier"):
        ConvexBNClassifier.load(path)
    model.network_.save(path)
    with pytest.raises(ValueError, match="holds no estimator"):
        ConvexBNRegressor.load(path)

    class Alarm:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    np.savez(path, facts=np.array([Alarm()], dtype=object))
    with pytest.raises(ValueError, match="holds no estimator"):
        ConvexBNRegressor.load(path)
    assert not (tmp_path / "executed").exists()
    with pytest.raises(FileNotFoundError):
        ConvexBNRegressor.load(tmp_path / "none.npz")
    for action in (model.save, ConvexBNRegressor.load):
        with pytest.raises(ValueError, match=r"path='model.pkl' must end in \.npz"):
            action("model.pkl")


class Own(LogLoss):
    """A loss that no file holds."""


def test_what_a_file_cannot_hold_is_named(tmp_path):
    path = tmp_path / "model.npz"
    with pytest.raises(NotFittedError):
        ConvexBNRegressor().save(path)
    model = ConvexBNRegressorCV(n_weight_decays=2, cv=KFold(2), tol=1.0).fit(X, Y)
    with pytest.raises(ValueError, match=r"cv=KFold.* is a KFold, which a file without code cannot hold.*set_params"):
        model.save(path)
    model.set_params(cv=None).save(path)
    check_equal(ConvexBNRegressorCV.load(path), model, X)
    for parameter, model in (
        ("loss", ConvexBNClassifier(0.5, loss=Own(), tol=1e-1).fit(X, Y > 1)),
        ("random_state", ConvexBNRegressor(0.5, random_state=np.random.default_rng(0), tol=1e-1).fit(X, Y)),
        ("features", ConvexBNStackRegressor(ConvexBNRegressor(1.0), n_stages=1, features=StandardScaler()).fit(X, Y)),
    ):
        with pytest.raises(ValueError, match=f"{parameter}=.* cannot hold"):
            model.save(path)
    check_equal(ConvexBNRegressorCV.load(path), ConvexBNRegressorCV.load(path), X)  # the file is as it was
    model = ConvexBNClassifier(0.5, tol=1e-1).fit(X, Y > 1)
    model.classes_ = np.array([None, 1], dtype=object)
    with pytest.raises(ValueError, match="classes_ holds objects"):
        model.save(path)


def test_damaged_networks_are_refused(tmp_path):
    network = WeightNormNetwork([[3.0]], [1.0], [0.0], [[1.0]], [0.0])
    for ending in (".npz", ".json"):
        path = tmp_path / f"network{ending}"
        network.save(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match="is damaged, or holds no network saved by convexbn"):
            WeightNormNetwork.load(path)
        with pytest.raises(FileNotFoundError):
            WeightNormNetwork.load(tmp_path / f"none{ending}")
    content = json.loads(whole)
    del content["gamma"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="is damaged: what it holds is no WeightNormNetwork"):
        WeightNormNetwork.load(path)


@pytest.mark.filterwarnings("ignore:The gradient has norm")
def test_skops_keeps_estimators(fitted):
    skops = pytest.importorskip("skops.io")
    model, data = fitted
    stored = skops.dumps(model)
    untrusted = skops.get_untrusted_types(data=stored)
    assert all(name.startswith("convexbn.") for name in untrusted)
    check_equal(skops.loads(stored, trusted=untrusted), model, data)


def test_skops_keeps_a_loss_of_ones_own_and_names_it(tmp_path):
    skops = pytest.importorskip("skops.io")
    model = ConvexBNClassifier(0.05, loss=Own(), tol=1e-1).fit(X, Y > 1)
    path = tmp_path / "model.skops"
    skops.dump(model, path)
    untrusted = skops.get_untrusted_types(file=path)
    own = f"{Own.__module__}.Own"
    assert [name for name in untrusted if not name.startswith("convexbn.")] == [own]
    loaded = skops.load(path, trusted=untrusted)
    assert loaded.loss == model.loss
    check_equal(loaded, model, X)
    with pytest.raises(skops.exceptions.UntrustedTypesFoundException, match=own):
        skops.load(path, trusted=[name for name in untrusted if name != own])


def test_skops_keeps_pipelines():
    skops = pytest.importorskip("skops.io")
    pipeline = make_pipeline(StandardScaler(), ConvexBNRegressor(0.05, tol=1e-1)).fit(FRAME, Y)
    stored = skops.dumps(pipeline)
    loaded = skops.loads(stored, trusted=skops.get_untrusted_types(data=stored))
    np.testing.assert_array_equal(loaded.predict(FRAME), pipeline.predict(FRAME))
    assert BytesIO(stored).getbuffer().nbytes < 1e6
