import inspect
import sys

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import convexbn as cb
from convexbn._utils.user_warning import warn_user
from convexbn.datasets import make_teacher
from convexbn.gradient.gdnp import gdnp_network
from convexbn.gradient.weight_norm import limit_gram_matrices, weight_norm_start
from convexbn.plotting import NeuronsDisplay

X, Y = make_teacher(14, 2, random_state=0)
LABELS = (Y > 0).astype(int)
IMAGES = np.random.default_rng(0).standard_normal((14, 1, 3, 3))
QUICK = {"tol": 1e-2, "max_time": 1.0}


class Odd:
    def __repr__(self):
        return "<odd>"


NUMBERS = [float("nan"), -1, -1.5, 1j]
OBJECTS = ["misspelt", "", b"x", {"a": 1}, ["a"], Odd(), int, np.array(3.0), np.full((2, 2), np.nan)]
RIGHT = {("n_jobs", "-1"), ("checkpoint", "'misspelt'")}  # the name of a file
CALLABLES = {"scoring", "estimator", "features", "callback"}  # a class may be one


def named(call, name, value):
    """The message of the ValueError or TypeError that names the argument."""
    with pytest.raises((ValueError, TypeError)) as caught:
        call(**{name: value})
    assert name in str(caught.value), f"{name}={value!r}: {caught.value}"


@pytest.mark.parametrize("weight_decay", [1e209, np.finfo(float).max])
@pytest.mark.parametrize("normalization", ["batch", "weight", "batch_after_relu"])
def test_a_huge_weight_decay_gives_the_zero_network_without_a_warning(normalization, weight_decay):
    for targets in (Y, 1e-9 * np.column_stack([Y, -Y])):
        model = cb.ConvexBNRegressor(weight_decay, normalization=normalization).fit(X, targets)
        np.testing.assert_allclose(model.predict(X), np.broadcast_to(targets.mean(axis=0), targets.shape), atol=1e-15)


def test_unusual_data_is_named():
    stack = cb.ConvexBNStackClassifier(cb.ConvexBNClassifier(0.1), n_stages=1).fit(X, LABELS)
    model = cb.ConvexBNRegressor(0.1).fit(X, Y)
    records, missing = np.zeros(len(X), dtype=[("label", float)]), np.where(Y > 0, Y, np.nan)
    huge = np.full(X.shape, 10**400, dtype=object)
    for call, message in (
        (lambda: stack.predict_proba(huge), "X or y holds an integer that is too large"),
        (lambda: stack.fit(huge, LABELS), "X or y holds an integer that is too large"),
        (lambda: cb.WeightNormDesign(bias=np.zeros(0)).fit(X), "bias=.* must be True or False"),
        (lambda: NeuronsDisplay.from_estimator(model, X, np.zeros((14, 0)), features=[0]), r"y has shape \(14, 0\)"),
        (lambda: gdnp_network(X, records), "y must hold the labels"),
        (lambda: model.network_.objective(X, missing, 0.1), "y contains NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_lengths_of_one_in_half_precision():
    rows = np.random.default_rng(0).standard_normal((6, 3))
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    exact, rounded = limit_gram_matrices(rows), limit_gram_matrices(rows.astype(np.float16))
    np.testing.assert_allclose(rounded.G, exact.G, atol=1e-3)
    with pytest.raises(ValueError, match="inputs of length one"):
        limit_gram_matrices(np.float32(rows.astype(np.float16)))


@pytest.mark.parametrize("count", [10**16, 2**62, 10**30, 10**400])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda **size: make_teacher(**{"n_samples": 3, "n_features": 3, **size}), "n_samples"),
        (lambda **size: make_teacher(**{"n_samples": 3, "n_features": 3, **size}), "n_features"),
        (lambda n_teachers: make_teacher(3, 3, n_teachers=n_teachers), "n_teachers"),
        (lambda n_directions: cb.sample_patterns(cb.DesignMatrix(X), n_directions), "n_directions"),
        (lambda n_neurons: cb.BatchNormNetwork.at_initialization(X, n_neurons), "n_neurons"),
        (lambda n_outputs: cb.BatchNormNetwork.at_initialization(X, 3, n_outputs=n_outputs), "n_outputs"),
        (lambda widths: cb.RandomBatchNormLayers([widths]).fit(X), "widths"),
        (lambda n_weight_decays: cb.convexbn_path(X, Y, n_weight_decays=n_weight_decays), "n_weight_decays"),
        (lambda n_neurons: weight_norm_start(3, n_neurons, alpha=1.0), "n_neurons"),
        (lambda n_stages: cb.ConvexBNStackClassifier(n_stages=n_stages).fit(X, LABELS), "n_stages"),
        (lambda padding: cb.PatchDesign(2, padding=padding).fit(IMAGES), "padding"),
    ],
)
def test_counts_that_no_array_has_are_named(call, name, count):
    with pytest.raises(ValueError, match=f"{name}=.* must be at most"):
        call(**{name: count})


@pytest.mark.parametrize(
    ("estimator", "options", "data", "y"),
    [
        (cb.ConvexBNRegressor, {"weight_decay": 0.1, **QUICK}, X, Y),
        (cb.ConvexBNClassifier, {"weight_decay": 0.1, **QUICK}, X, LABELS),
        (cb.ConvexBNRegressorCV, {"n_weight_decays": 2, "cv": 2, **QUICK}, X, Y),
        (cb.ConvexBNClassifierCV, {"n_weight_decays": 2, "cv": 2, **QUICK}, X, LABELS),
        (cb.ConvexBNConvRegressor, {"weight_decay": 0.1, **QUICK}, IMAGES, Y),
        (cb.ConvexBNConvClassifier, {"weight_decay": 0.1, **QUICK}, IMAGES, LABELS),
        (cb.ConvexBNStackRegressor, {"n_stages": 1}, X, Y),
        (cb.ConvexBNStackClassifier, {"n_stages": 1}, X, LABELS),
        (cb.GDNPClassifier, {}, X, LABELS),
        (cb.RandomBatchNormLayers, {"widths": (3,)}, X, Y),
        (cb.BatchNormDesign, {}, X, Y),
        (cb.PatchDesign, {"kernel_size": 2}, IMAGES, Y),
    ],
    ids=lambda value: value.__name__ if inspect.isclass(value) else "",
)
def test_every_parameter_of_an_estimator_is_named(estimator, options, data, y):
    for name in inspect.signature(estimator).parameters:
        for value in OBJECTS + NUMBERS:
            right = (name in CALLABLES and value is int) or (name, repr(value)) in RIGHT
            if not right:
                named(lambda **bad: estimator(**{**options, **bad}).fit(data, y), name, value)


PROBLEM = cb.Problem(X, Y, weight_decay=0.1)


@pytest.mark.parametrize(
    ("function", "options", "left_out"),
    [
        (cb.solve, {"problem": PROBLEM}, {"verbose", "options"}),
        (cb.solve_gated, {"problem": PROBLEM, "patterns": cb.sample_patterns(X, 5, random_state=0)}, {"verbose"}),
        (cb.solve_path, {"problem": PROBLEM, "weight_decays": [0.1, 0.2]}, {"verbose"}),
        (cb.sample_patterns, {"Z": X, "n_directions": 3}, {"Z"}),
        (cb.weight_decay_max, {"problem": PROBLEM}, set()),
        (cb.Problem, {"Z": X, "y": Y, "weight_decay": 0.1}, {"Z"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_argument_of_a_function_is_named(function, options, left_out):
    for name in inspect.signature(function).parameters.keys() - left_out:
        for value in OBJECTS + NUMBERS:
            one_value = name == "weight_decays" and isinstance(value, np.ndarray) and value.ndim == 0
            if not (one_value or (name in CALLABLES and value is int) or (name, repr(value)) in RIGHT):
                named(lambda **bad: function(**{**options, **bad}), name, value)


@pytest.mark.parametrize("seed", ["a", -1, 1.5, [1.0], Odd()])
def test_seeds(seed):
    model = cb.ConvexBNRegressor(0.1, prove=False).fit(X, Y)
    for call in (
        lambda: cb.prove(model, X, Y, random_state=seed),
        lambda: cb.sample_patterns(X, 2, random_state=seed),
    ):
        with pytest.raises(ValueError, match=r"random_state=.* must be None, an integer from 0 on, or a Generator"):
            call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: cb.solve(PROBLEM, tol=1e-15, random_state=0, max_iter=1, prove=False),
        lambda: cb.solve_path(PROBLEM, [1e-3, 1e-4], tol=1e-15, max_iter=1, random_state=0),
        lambda: cb.convexbn_path(X, Y, weight_decays=[1e-3], tol=1e-15, max_iter=1),
        lambda: cb.ConvexBNRegressor(1e-3, tol=1e-15, max_iter=1, prove=False).fit(X, Y),
        lambda: cb.ConvexBNRegressor(tol=1e-15, max_time=1e-3).fit(X, Y),
        lambda: cb.GDNPClassifier(max_iter=1).fit(X, LABELS),
    ],
)
def test_warnings_point_to_the_line_that_calls(call):
    with pytest.warns(ConvergenceWarning) as caught:
        call()
    assert {warning.filename for warning in caught} == {__file__}


def test_warning_of_the_package_itself():
    with pytest.warns(UserWarning, match="far") as caught:
        warn_user("far", UserWarning)
    assert caught[0].lineno == sys._getframe().f_lineno - 1
