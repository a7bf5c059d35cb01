"""Estimators follow X: arrays of other libraries, on their devices, and devices that are named for NumPy arrays."""

import pickle
from copy import copy
from functools import cache

import numpy as np
import pytest
import sklearn
from sklearn.utils import estimator_checks

from convexbn import (
    ConvexBNClassifier,
    ConvexBNClassifierCV,
    ConvexBNConvClassifier,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    ConvexBNRegressorCV,
    ConvexBNStackClassifier,
    ConvexBNStackRegressor,
    FrozenModule,
    RandomBatchNormLayers,
)
from convexbn.losses import LogLoss
from convexbn.operators import DeviceMatrix

RNG = np.random.default_rng(0)
X, IMAGES = RNG.standard_normal((24, 3)), RNG.standard_normal((16, 1, 3, 3))
Y, LABELS = np.maximum(X[:, 0], 0) - X[:, 1], np.digitize(X[:, 0] - X[:, 1], [-0.7, 0.7])
NOISY = X[:, 0] + RNG.standard_normal(24)
NEW_CHECKS = pytest.mark.skipif(
    not hasattr(estimator_checks, "check_array_api_mixed_inputs"), reason="scikit-learn is too old to have these checks"
)
MORE = np.random.default_rng(1).standard_normal((40, 3))
LIBRARIES = ["array_api_strict", "torch"]

ESTIMATORS = [
    ConvexBNRegressor(0.05),
    ConvexBNRegressor(0.05, activation="gated_relu"),
    ConvexBNClassifier(0.05, tol=1e-3),
    ConvexBNRegressorCV(n_weight_decays=2, cv=2, n_components=1, spectral_power=0.0, tol=0.1),
    ConvexBNStackRegressor(ConvexBNRegressor(0.3, tol=0.1, prove=False)),
    ConvexBNStackClassifier(ConvexBNClassifier(0.2, tol=0.1, prove=False)),
    RandomBatchNormLayers((5, 4)),
]


@pytest.fixture(autouse=True)
def dispatch(monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # what scikit-learn asks for, though nothing here needs SciPy's
    with sklearn.config_context(array_api_dispatch=True):
        yield


def library(name):
    return pytest.importorskip(name).asarray


@NEW_CHECKS
@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("model", ESTIMATORS, ids=str)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_common_checks(model, name):
    library(name)
    with sklearn.config_context(array_api_dispatch=False):
        estimator_checks.check_array_api_input("estimator", model, array_namespace=name, check_sample_weight=True)
        estimator_checks.check_array_api_same_namespace(type(model).__name__, model, array_namespace=name)


FITTED = {
    "regressor": (ConvexBNRegressor(0.05), X, Y),
    "tuned": (ConvexBNRegressor(n_components=1, spectral_power=0.0), X, NOISY),
    "several outputs": (ConvexBNRegressor(0.05, tol=1e-3), X, np.column_stack([Y, 5 * X[:, 2]])),
    "after the ReLU": (ConvexBNRegressor(0.3, normalization="batch_after_relu", tol=1e-2), X, Y),
    "weights": (ConvexBNRegressor(0.05, normalization="weight", tol=1e-3), X, Y),
    "gated": (ConvexBNRegressor(0.05, activation="gated_relu"), X, Y),
    "two classes": (ConvexBNClassifier(0.02), X, LABELS > 0),
    "classes": (ConvexBNClassifier(0.02, tol=1e-3), X, LABELS),
    "cross-validated": (
        ConvexBNClassifierCV(n_components=1, n_weight_decays=3, spectral_power=0.0, cv=2),
        X,
        NOISY > 0,
    ),
    "stack": (
        ConvexBNStackRegressor(ConvexBNRegressor(0.3, prove=False)),
        MORE,
        np.maximum(MORE[:, 0], 0) - MORE[:, 1],
    ),
    "stack of classes": (ConvexBNStackClassifier(ConvexBNClassifier(0.1, tol=1e-3)), X, LABELS > 0),
    "stack on random layers": (
        ConvexBNStackRegressor(ConvexBNRegressor(0.3, tol=1e-3), n_stages=1, features=RandomBatchNormLayers((8,))),
        X,
        Y,
    ),
    "images": (ConvexBNConvRegressor(0.05, kernel_size=2), IMAGES, IMAGES[:, 0, 0, 0]),
    "classes of images": (ConvexBNConvClassifier(0.05, kernel_size=3, padding=1), IMAGES, IMAGES[:, 0, 0, 0] > 0),
}


@cache
def fitted_on_numpy(case):
    model, data, y = FITTED[case]
    return sklearn.clone(model).fit(data, y)


def predictions(model, data):
    methods = ("predict", "predict_proba", "decision_function", "hidden_features")
    return [getattr(model, name)(data) for name in methods if hasattr(model, name)]


def in_numpy(found, expected, data):
    """Predictions of the network of an estimator, by one that was fitted on NumPy arrays."""
    model = copy(expected)
    model.network_ = found.network_
    if hasattr(model, "estimators_"):
        last = copy(model.estimators_[-1])
        last.network_ = found.estimators_[-1].network_
        model.estimators_ = (*model.estimators_[:-1], last)
    return predictions(model, data)


@pytest.mark.parametrize("case", FITTED)
@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_estimators_follow_X(case, name):
    model, data, y = FITTED[case]
    asarray, expected = library(name), fitted_on_numpy(case)
    found = sklearn.clone(model).fit(asarray(data), asarray(y))
    assert found.certificate_.objective == pytest.approx(expected.certificate_.objective, rel=1e-3)
    for there, here in zip(predictions(found, asarray(data)), in_numpy(found, expected, data), strict=True):
        assert type(there) is type(asarray(data))
        np.testing.assert_allclose(np.asarray(there), here, atol=1e-12)
    one_sample = 1 / len(y)
    assert found.score(asarray(data), asarray(y)) == pytest.approx(expected.score(data, y), abs=max(0.02, one_sample))
    with pytest.raises(ValueError, match=r"\.predict\(\) must use the same namespace"):
        found.predict(data)
    with pytest.raises(ValueError, match=r"\.predict\(\) must use the same namespace"):
        expected.predict(asarray(data))


@pytest.mark.parametrize("case", FITTED)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_rows_on_a_device(case, monkeypatch):
    """NumPy in and out; products are made on the device, in the choice of the weight decay, too."""
    pytest.importorskip("torch")
    model, data, y = FITTED[case]
    expected, seen = fitted_on_numpy(case), []
    check = DeviceMatrix.__init__

    def watched(self, Z, *args, **options):
        seen.append(type(Z).__module__)
        check(self, Z, *args, **options)

    monkeypatch.setattr(DeviceMatrix, "__init__", watched)
    parameter = "estimator__device" if hasattr(model, "estimator") else "device"
    found = sklearn.clone(model).set_params(**{parameter: "cpu"}).fit(data, y)
    assert set(seen) == {"torch"}
    assert found.certificate_.objective == pytest.approx(expected.certificate_.objective, rel=1e-3)
    for there, here in zip(predictions(found, data), in_numpy(found, expected, data), strict=True):
        assert type(there) is np.ndarray
        np.testing.assert_allclose(there, here, atol=1e-12)
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.predict(data), found.predict(data))


def features():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU())
    return [FrozenModule(module, "batch"), RandomBatchNormLayers((5, 4))]


@pytest.mark.parametrize("name", LIBRARIES)
def test_transformers_follow_X(name):
    asarray, weights = library(name), RNG.uniform(0.5, 2, len(X))
    for transformer in features():
        expected = sklearn.clone(transformer).fit(X, sample_weight=weights)
        found = sklearn.clone(transformer).fit(asarray(X), sample_weight=asarray(weights))
        there = found.transform(asarray(X))
        assert type(there) is type(asarray(X))
        np.testing.assert_allclose(np.asarray(there), expected.transform(X), atol=1e-12)
        with pytest.raises(ValueError, match=r"\.transform\(\) must use the same namespace"):
            found.transform(X)
        with pytest.raises(ValueError, match="NaN"):
            found.transform(asarray(np.full((2, 3), np.nan)))
        with pytest.raises(ValueError, match="X has 2 features"):
            found.transform(asarray(X[:, :2]))


def test_a_stack_on_a_torch_module_follows_X():
    asarray, (module, _) = library("torch"), features()
    model = ConvexBNStackRegressor(ConvexBNRegressor(0.1, tol=1e-2, prove=False), features=module)
    there = model.fit(asarray(X), asarray(Y)).predict(asarray(X))
    assert type(there) is type(asarray(X))
    assert model.score(asarray(X), asarray(Y)) > 0.5


@pytest.mark.parametrize("name", LIBRARIES)
def test_gradients_of_far_outputs_do_not_overflow(name):
    asarray, f = library(name), np.array([[-1e4], [-30.0], [0.5], [1e4]])
    expected = LogLoss().gradient(f, np.ones((4, 1)))
    found = LogLoss().gradient(asarray(f), asarray(np.ones((4, 1))))
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-12)


def test_strings_stay_numpy_labels():
    asarray = library("torch")
    model = ConvexBNClassifier(0.02).fit(asarray(X), np.array(["no", "yes"])[(LABELS > 0).astype(int)])
    assert set(model.predict(asarray(X))) == {"no", "yes"}


def test_data_of_other_sizes_is_refused():
    asarray = library("torch")
    model = ConvexBNRegressor(0.05).fit(asarray(X), asarray(Y))
    with pytest.raises(ValueError, match="X has 2 features, but ConvexBNRegressor is expecting 3"):
        model.predict(asarray(X[:, :2]))
    with pytest.raises(ValueError, match="NaN"):
        model.predict(asarray(np.full((2, 3), np.nan)))


@NEW_CHECKS
def test_mixed_libraries():
    pytest.importorskip("torch")
    from sklearn.utils._array_api import NamespaceAndDevice

    with sklearn.config_context(array_api_dispatch=False):
        places = NamespaceAndDevice("torch", "cpu"), NamespaceAndDevice("numpy", None)
        estimator_checks.check_array_api_mixed_inputs("ConvexBNRegressor", ConvexBNRegressor(0.05), *places)


@pytest.mark.parametrize("device", ["gpu", 0, "meta"])
def test_other_devices_are_refused(device):
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match=f"device={device!r} is no device of PyTorch here"):
        ConvexBNRegressor(device=device).fit(X, Y)


def test_sparse_rows_have_no_device():
    pytest.importorskip("torch")
    from scipy.sparse import csr_array

    with pytest.raises(ValueError, match="device='cpu' takes dense X in memory"):
        ConvexBNRegressor(0.1, normalization="weight", device="cpu").fit(csr_array(X), Y)
