"""Models in ONNX, run by onnxruntime, against the predictions of what they are made from."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from convexbn import (
    BatchNormNetwork,
    ConvexBNClassifier,
    ConvexBNClassifierCV,
    ConvexBNConvClassifier,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    ConvexBNStackClassifier,
    ConvexBNStackRegressor,
    FrozenModule,
    GDNPClassifier,
    PostActivationBatchNormNetwork,
    RandomBatchNormLayers,
)
from convexbn.losses import LogLoss
from tests.networks import IMAGES, X, Y, convolutional, deep, deep_on_images, dense, weight_normalized

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

ATOL = {"float32": 1e-5, "float64": 1e-9}
WORDS = np.array(["low", "middle", "high"])[np.digitize(Y, [0.0, 1.0])]


def outputs(model, X, dtype):
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"X": X.astype(dtype)}), strict=True))


@pytest.fixture(params=ATOL)
def dtype(request):
    return request.param


NETWORKS = {
    "batch norm": (dense(BatchNormNetwork), X),
    "weight norm": (weight_normalized(), X),
    "after the ReLU": (dense(PostActivationBatchNormNetwork), X),
    "no neurons": (BatchNormNetwork.at_initialization(X, 1, n_outputs=2)._idle(), X),
    "convolution": (convolutional(), IMAGES),
    "convolution with padding and stride": (convolutional(padding=(2, 1), stride=(2, 3)), IMAGES),
    "deep": (deep(), X),
    "deep on images": (deep_on_images(), IMAGES),
    "gated": (ConvexBNRegressor(0.01, activation="gated_relu", n_patterns=9).fit(X, Y).network_, X),
    "gated, no neurons": (ConvexBNRegressor(1e3, activation="gated_relu", n_patterns=9).fit(X, Y).network_, X),
    "gated convolution": (
        ConvexBNConvRegressor(
            0.01, kernel_size=(2, 3), padding=1, stride=(1, 2), activation="gated_relu", n_patterns=5, tol=1e-2
        )
        .fit(IMAGES, Y[:12])
        .network_,
        IMAGES,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, dtype):
    network, data = NETWORKS[name]
    model = network.to_onnx(dtype=dtype)
    found = outputs(model, data, dtype)
    assert list(found) == ["variable"]
    assert found["variable"].dtype == dtype
    np.testing.assert_allclose(found["variable"], network.predict(data), atol=ATOL[dtype])


def test_normalization_is_folded():
    centred = dense(BatchNormNetwork, X - X.mean(axis=0))
    for network, first in ((centred, []), (dense(BatchNormNetwork, X + 1e3), ["Sub"])):
        kinds = [node.op_type for node in network.to_onnx().graph.node]
        assert kinds == [*first, "Gemm", "Relu", "Gemm", "Identity"]
        kinds = [node.op_type for node in network.to_onnx(dtype="float64").graph.node]
        assert kinds == ["Gemm", "Relu", "Gemm", "Identity"]
    assert next(node.op_type for node in convolutional().to_onnx().graph.node) == "Conv"


@pytest.mark.parametrize("options", [{}, {"normalization": "batch_after_relu"}, {"activation": "gated_relu"}], ids=repr)
def test_columns_far_from_zero_keep_their_digits(options, dtype):
    data = (X + np.array([1e4, -3e3, 0.0])).astype(np.float32).astype(float)
    model = ConvexBNRegressor(0.05, n_patterns=9, tol=1e-1, **options).fit(data, Y)
    found = outputs(model.to_onnx(dtype=dtype), data, dtype)["variable"][:, 0]
    np.testing.assert_allclose(found, model.predict(data), atol=ATOL[dtype])


def test_convolutions_take_images_of_other_sizes(dtype):
    larger = np.tile(IMAGES, (1, 1, 2, 3))
    network = convolutional(padding=1, stride=2)
    found = outputs(network.to_onnx(dtype=dtype), larger, dtype)["variable"]
    np.testing.assert_allclose(found, network.predict(larger), atol=ATOL[dtype])


REGRESSORS = {
    "one target": (ConvexBNRegressor(0.01, tol=1e-2), X, Y),
    "targets": (ConvexBNRegressor(0.05, tol=1e-1), X, np.column_stack([Y, 100 * X[:, 2]])),
    "after the ReLU": (ConvexBNRegressor(0.05, normalization="batch_after_relu", tol=1e-1), X, Y),
    "weight norm": (ConvexBNRegressor(0.05, normalization="weight", tol=1e-1), X, Y),
    "images": (ConvexBNConvRegressor(0.01, tol=1e-1), IMAGES, Y[:12]),
    "stack": (
        ConvexBNStackRegressor(ConvexBNRegressor(0.05, tol=1e-1), features=RandomBatchNormLayers((6, 5))),
        X,
        Y,
    ),
    "stack, after the ReLU": (
        ConvexBNStackRegressor(ConvexBNRegressor(0.05, normalization="batch_after_relu", tol=1e-1)),
        X,
        Y,
    ),
}


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors(name, dtype):
    model, data, targets = REGRESSORS[name]
    model = clone(model).fit(data, targets)
    found = outputs(model.to_onnx(dtype=dtype), data, dtype)
    assert list(found) == ["variable"]
    expected = model.predict(data)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found["variable"], expected.reshape(len(data), -1), atol=ATOL[dtype] * scale)


CLASSIFIERS = {
    "words": (ConvexBNClassifier(0.01, tol=1e-1), X, WORDS),
    "two numbers": (ConvexBNClassifier(0.01, tol=1e-1), X, np.where(Y > 1, 7, 3)),
    "booleans": (ConvexBNClassifier(0.01, loss="cross_entropy", tol=1e-1), X, Y > 1),
    "floats": (ConvexBNClassifier(0.01, tol=1e-1), X, np.where(Y > 1, 1.0, 2.0)),
    "objects": (ConvexBNClassifierCV(n_weight_decays=3, cv=2, tol=1.0), X, WORDS.astype(object)),
    "images": (ConvexBNConvClassifier(0.01, tol=1e-1), IMAGES, WORDS[:12]),
    "stack": (ConvexBNStackClassifier(ConvexBNClassifier(0.01, tol=1e-1)), X, WORDS),
    "halfspace": (GDNPClassifier(), X, np.where(Y + np.sin(9 * X[:, 2]) > 1, "yes", "no")),
    "gated": (ConvexBNClassifier(0.01, activation="gated_relu", n_patterns=9, tol=1e-1), X, Y > 1),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_have_labels_and_probabilities(name, dtype):
    model, data, labels = CLASSIFIERS[name]
    model = clone(model).fit(data, labels)
    found = outputs(model.to_onnx(dtype=dtype), data, dtype)
    assert list(found) == ["label", "probabilities"]
    np.testing.assert_array_equal(found["label"], model.predict(data))
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(data), atol=ATOL[dtype])
    assert found["probabilities"].dtype == dtype


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_classifiers_without_probabilities_have_scores(loss, dtype):
    model = ConvexBNClassifier(0.01, loss=loss, tol=1e-1).fit(X, Y > 1)
    found = outputs(model.to_onnx(dtype=dtype), X, dtype)
    assert list(found) == ["label", "scores"]
    np.testing.assert_array_equal(found["label"], model.predict(X))
    np.testing.assert_allclose(found["scores"], model.decision_function(X), atol=ATOL[dtype])


def test_layers_of_features(dtype):
    layers = RandomBatchNormLayers((6, 5)).fit(X)
    found = outputs(layers.to_onnx(dtype=dtype), X, dtype)["variable"]
    np.testing.assert_allclose(found, layers.transform(X), atol=ATOL[dtype])


def test_a_file_holds_the_model(tmp_path):
    model = dense(BatchNormNetwork).to_onnx()
    onnx.save(model, tmp_path / "network.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "network.onnx"), full_check=True)
    assert model.producer_name == "convexbn"


class Tempered(LogLoss):
    """A loss with probabilities of its own."""

    name = "tempered"

    def probabilities(self, f):
        return super().probabilities(f / 2)


def test_what_has_no_form_in_onnx_is_refused():
    with pytest.raises(ValueError, match="dtype='int8' must be 'float32' or 'float64'"):
        dense(BatchNormNetwork).to_onnx(dtype="int8")
    with pytest.raises(ValueError, match="dtype='letters' must be"):
        dense(BatchNormNetwork).to_onnx(dtype="letters")
    with pytest.raises(ValueError, match="leave the range of float32"):
        replace(dense(BatchNormNetwork), intercept=np.array([1e200, 0.0])).to_onnx()
    with pytest.raises(NotFittedError):
        ConvexBNRegressor().to_onnx()
    stack = ConvexBNStackRegressor(ConvexBNRegressor(1.0), n_stages=1, features=StandardScaler()).fit(X, Y)
    with pytest.raises(ValueError, match=r"StandardScaler.* has no form in ONNX.*network_\.to_onnx"):
        stack.to_onnx()
    model = ConvexBNClassifier(0.1, loss=Tempered(), tol=1e-1).fit(X, Y > 1)
    with pytest.raises(ValueError, match="probabilities in a way of its own"):
        model.to_onnx()
    model.set_params(loss="log_loss").classes_ = np.array([None, 1], dtype=object)
    with pytest.raises(ValueError, match="neither numbers nor strings"):
        model.to_onnx()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, about the exporter that needs no onnxscript
def test_torch_exports_a_stack_on_a_module_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    stack = ConvexBNStackRegressor(ConvexBNRegressor(0.1), n_stages=1, features=FrozenModule(torch.nn.Tanh()))
    stack.fit(X, Y)
    with pytest.raises(ValueError, match=r"no form in ONNX here; torch\.onnx\.export\(model\.to_torch\(\), \.\.\.\)"):
        stack.to_onnx()
    path, axes = str(tmp_path / "stack.onnx"), {"X": {0: "n"}}
    example = (torch.tensor(X[:2]),)
    torch.onnx.export(stack.to_torch(), example, path, input_names=["X"], dynamic_axes=axes, dynamo=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"X": X})[0][:, 0], stack.predict(X), atol=1e-9)


def test_missing_onnx_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'convexbn\[onnx\]'"):
        dense(BatchNormNetwork).to_onnx()


@pytest.mark.parametrize("kind", ["Float", "Double", "Int64"])
@pytest.mark.parametrize("name", ["regressor", "words", "numbers", "scores", "layers"])
def test_pipelines_convert(name, kind):
    skl2onnx = pytest.importorskip("skl2onnx")
    last, targets = {
        "regressor": (ConvexBNRegressor(0.01, tol=1e-1), Y),
        "words": (ConvexBNClassifier(0.01, tol=1e-1), WORDS),
        "numbers": (ConvexBNStackClassifier(ConvexBNClassifier(0.01, tol=1e-1)), np.where(Y > 1, 7, 3)),
        "scores": (ConvexBNClassifier(0.01, loss="squared_hinge", tol=1e-1), Y > 1),
        "layers": (RandomBatchNormLayers((5,)), None),
    }[name]
    data = np.round(X) if kind == "Int64" else X
    pipeline = make_pipeline(StandardScaler(), last).fit(data, targets)
    types = skl2onnx.common.data_types
    model = skl2onnx.to_onnx(pipeline, initial_types=[("X", getattr(types, f"{kind}TensorType")([None, 3]))])
    dtype = {"Float": "float32", "Double": "float64", "Int64": "int64"}[kind]
    found, atol = outputs(model, data, dtype), ATOL["float64" if kind == "Double" else "float32"]
    if name in ("regressor", "layers"):
        expected = pipeline.predict(data)[:, None] if name == "regressor" else pipeline.transform(data)
        np.testing.assert_allclose(found["variable"], expected, atol=atol)
        return
    np.testing.assert_array_equal(found["label"], pipeline.predict(data))
    expected = pipeline.decision_function(data) if name == "scores" else pipeline.predict_proba(data)
    np.testing.assert_allclose(found["probabilities"], expected, atol=atol)
