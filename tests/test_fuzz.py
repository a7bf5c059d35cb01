"""Public calls with unusual arguments: the right result, or an error that names the argument."""

import datetime

import numpy as np
import pandas as pd
import pytest

from benchmarks import trust_inputs
from convexbn import (
    BatchNormDesign,
    BatchNormNetwork,
    ConvBatchNormNetwork,
    ConvexBNClassifier,
    ConvexBNClassifierCV,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    ConvexBNStackRegressor,
    DesignMatrix,
    GDNPClassifier,
    Neurons,
    PatchDesign,
    Problem,
    RandomBatchNormLayers,
    WeightNormDesign,
    certify,
    enumerate_patterns,
    read_rows,
    sample_patterns,
    solve_column_generation,
    solve_path,
    solve_reference,
)
from convexbn._utils.checks import is_number, real_array
from convexbn.datasets import make_teacher
from convexbn.gradient import deep_weight_norm, gdnp, identity_mapping, train, weight_norm
from convexbn.oracles import (
    price_bound,
    price_by_ascent,
    price_by_branch_and_bound,
    price_by_enumeration,
    price_of_gates,
    price_of_patterns,
)
from convexbn.plotting import CertificateDisplay, NeuronsDisplay, PathDisplay, SpectralTraceDisplay

X, Y, LABELS = trust_inputs.X, trust_inputs.Y, trust_inputs.LABELS
Z = DesignMatrix(X[:, :2])
V = np.where(Y[:, None] > 0, 1.0, -1.0)
PROBLEM = Problem(X, Y, weight_decay=0.1)


def test_every_call_is_right_before_its_arguments_are_changed():
    for number in range(len(trust_inputs.calls())):
        assert len(trust_inputs._expected(number)) > 0


@pytest.mark.parametrize("calls", ["BatchNormNetwork", "Problem", "price_", "ConvexBNRegressor.predict", "gdnp."])
def test_drawn_cases(calls):
    found = trust_inputs.run_seed(0, examples=25, only=calls)
    assert not found["failures"]
    assert found["examples"] > 10


MASKED = np.ma.array(X, mask=X > 1)
DATES = np.full(X.shape, np.datetime64(datetime.date(2020, 1, 1)))
LONG = np.full(X.shape, 10**400, dtype=object)
NETWORK = BatchNormNetwork.at_initialization(X, 2, n_outputs=1, random_state=0)
FITTED = ConvexBNRegressor(0.1, tol=1e-1).fit(X, Y)
TAKE_X = {
    "fit": lambda X: ConvexBNRegressor(0.1).fit(X, Y),
    "predict": FITTED.predict,
    "labels": lambda X: GDNPClassifier().fit(X, LABELS),
    "design": lambda X: BatchNormDesign().fit(X),
    "weight norm": lambda X: WeightNormDesign().fit(X),
    "layers": lambda X: RandomBatchNormLayers((3,)).fit(X),
    "network": NETWORK.predict,
    "statistics": NETWORK.with_statistics,
    "train": lambda X: train(X, Y, weight_decay=0.1, n_steps=1),
}


@pytest.mark.parametrize("take", TAKE_X)
def test_masked_entries_dates_and_long_integers_are_refused(take):
    for values, message in (
        (MASKED, r"X is a masked array with \d+ masked entries"),
        (DATES, r"X holds datetime64\[D\]; encode dates"),
        (LONG, "X.* holds an integer that is too large for a float"),
    ):
        with pytest.raises(ValueError, match=message):
            TAKE_X[take](values)


def test_targets_and_weights_too():
    for values in (MASKED[:, 0], LONG[:, 0]):
        with pytest.raises(ValueError, match=r"\by\b"):
            ConvexBNRegressor(0.1).fit(X, values)
        with pytest.raises(ValueError, match="sample_weight"):
            ConvexBNRegressor(0.1).fit(X, Y, values)
        with pytest.raises(ValueError, match=r"y is a masked|y must hold real"):
            Problem(X, values, weight_decay=0.1)
    with pytest.raises(ValueError, match="target is a masked array"):
        read_rows(X, target=MASKED[:, 0])


def test_read_rows_takes_a_data_frame_and_names_the_target():
    frame = pd.DataFrame(X)
    for source in (frame, frame.astype("Float64"), frame.astype(object), X.astype(object)):
        np.testing.assert_array_equal(np.concatenate([block.X for block in read_rows(source)]), X)
    with pytest.raises(ValueError, match="source must hold real numbers"):
        read_rows(frame.astype(str) + "x")
    with pytest.raises(ValueError, match="target holds complex128, and must hold numbers"):
        read_rows(X, target=Y + 1j)


@pytest.mark.parametrize(("labels", "cv"), [(np.arange(len(X)), 2), (LABELS, 1 + len(X))])
def test_folds_that_cannot_be_made_name_cv_and_y(labels, cv):
    with pytest.raises(ValueError, match=rf"cv={cv} does not split these samples by their y: "):
        ConvexBNClassifierCV(cv=cv).fit(X, labels)


@pytest.mark.parametrize("model", [ConvexBNClassifier(), ConvexBNClassifierCV(), GDNPClassifier()])
def test_labels_of_several_types_name_y(model):
    with pytest.raises(ValueError, match="y must hold labels of one type, none of them missing"):
        model.fit(X, np.array(["a", "b"] * (len(X) // 2 - 1) + ["a", None], dtype=object))


def test_numbers_out_of_range_warn_of_nothing_and_a_tolerance_without_end_is_met_at_once():
    network = BatchNormNetwork.at_initialization(X, 3, n_outputs=1, random_state=0)
    with np.errstate(all="raise"), pytest.raises(ValueError, match="X holds numbers too large to be squared"):
        network.prune(X * 1e300)
    assert ConvexBNRegressor(0.1, tol=4e217).fit(X, Y).n_iter_ >= 0


def test_starts_of_gradient_methods_are_named():
    with pytest.raises(ValueError, match="start is a masked array"):
        gdnp.lbfgs(gdnp.LeastSquares(X, Y), start=np.ma.array(np.ones(X.shape[1]), mask=np.arange(X.shape[1]) == 0))


def test_pictures_of_neurons_name_features_and_y():
    model, classifier = ConvexBNRegressor(0.1, tol=0.1), ConvexBNClassifier(0.1, tol=0.1)
    with pytest.raises(ValueError, match=r"features=np.datetime64\('2020-01-01'\) must hold one or two numbers"):
        NeuronsDisplay.from_estimator(model.fit(X, Y), X, features=np.datetime64("2020-01-01"))
    with pytest.raises(ValueError, match="y must hold real numbers"):
        NeuronsDisplay.from_estimator(model, X, np.full(len(X), "word"), features=[0, 1])
    with pytest.raises(ValueError, match=r"y must hold labels that model was trained on, \[0, 1\]"):
        NeuronsDisplay.from_estimator(classifier.fit(X, LABELS), X, np.full(len(X), "word"), features=[0, 1])


@pytest.mark.parametrize(
    "transformer",
    [BatchNormDesign(), WeightNormDesign(), PatchDesign(2), RandomBatchNormLayers((3,)), GDNPClassifier()],
)
def test_a_fit_that_fails_changes_nothing(transformer):
    good = np.ones((8, 1, 4, 4)) * np.arange(8)[:, None, None, None] if isinstance(transformer, PatchDesign) else X
    targets = LABELS[: len(good)] if isinstance(transformer, GDNPClassifier) else None
    if isinstance(transformer, GDNPClassifier):
        transformer.set_params(max_iter=5, tol=100.0, max_length=1.0)
    transformer.fit(good, targets)
    before = dict(vars(transformer))
    bad = good.copy()
    bad.flat[0] = np.nan
    frames = [bad] if good.ndim > 2 else [bad, pd.DataFrame(bad[:, :2], columns=["a", "b"])]
    for data in frames:
        with pytest.raises(ValueError, match="NaN"):
            transformer.fit(data, targets)
        assert vars(transformer) == before


def test_neurons_take_what_arrays_can_be_made_of():
    neurons = Neurons([[1.0, 2.0]], ((1.0,), (1.0,)), [0.0])
    assert neurons.cost.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="weights must hold real numbers"):
        Neurons(None, np.ones((1, 1)), np.zeros(1))
    with pytest.raises(ValueError, match="weights have 1 rows, Z has 2 columns"):
        neurons.outputs(Z)


ORACLES = {
    "bound": price_bound,
    "ascent": lambda Z, v: price_by_ascent(Z, v, n_starts=5, random_state=0),
    "branch and bound": price_by_branch_and_bound,
    "enumeration": price_by_enumeration,
    "patterns": lambda Z, v: price_of_patterns(Z, sample_patterns(X[:, :2], 3, random_state=0), v),
    "gates": lambda Z, v: price_of_gates(Z, sample_patterns(X[:, :2], 3, random_state=0), v),
}


@pytest.mark.parametrize("oracle", ORACLES)
def test_oracles_take_lists_and_name_what_is_wrong(oracle):
    price = ORACLES[oracle]
    assert price(Z, V.tolist()).value == price(Z, V).value
    for v in (None, V[:3], V[:, 0], V + 1j, np.full_like(V, np.nan), np.ma.array(V, mask=V > 0)):
        with pytest.raises(ValueError, match=r"^v\b"):
            price(Z, v)
    with pytest.raises(ValueError, match="Z is a str; give a DesignMatrix"):
        price("Z", V)


WRONG = {
    "problem": (lambda x: solve_column_generation(x), "problem='x' must be a Problem"),
    "reference": (lambda x: solve_reference(x, None), "problem='x' must be a Problem"),
    "certify": (lambda x: certify(x, None, V, None), "problem='x' must be a Problem"),
    "neurons": (lambda x: certify(PROBLEM, x, V, None), "neurons is a str"),
    "price": (lambda x: certify(PROBLEM, PROBLEM.zero_network, V, x), "price='x' must be a function"),
    "patterns": (lambda x: solve_reference(PROBLEM, x), "patterns='x' must be Patterns"),
    "random_state": (lambda x: solve_column_generation(PROBLEM, random_state=x), "random_state='x' must be"),
    "teacher": (lambda x: make_teacher(5, 2, random_state=x), "random_state='x' must be"),
    "n_samples": (lambda x: make_teacher(x, 2), "n_samples='x' must be"),
    "noise": (lambda x: make_teacher(5, 2, noise=x), "noise='x' must be"),
    "weight_decay": (lambda x: NETWORK.objective(X, Y, x), "weight_decay='x' must be"),
    "weight_decays": (lambda x: solve_path(PROBLEM, x), "weight_decays must hold real numbers"),
    "objective": (lambda x: gdnp.gdnp(x), "objective is a str"),
    "peer": (lambda x: gdnp.batch_norm_descent(x), "objective is a str"),
    "steps": (lambda x: weight_norm.decay_rate(x, [1.0, 2.0], 0.1), "steps must hold real numbers"),
    "W": (lambda x: identity_mapping.population_loss(x, np.eye(2)), "W must hold real numbers"),
    "dual": (PROBLEM.dual_objective, "v must hold real numbers"),
    "max_patterns": (lambda x: enumerate_patterns(X, max_patterns=x), "max_patterns='x' must be"),
    "n_starts": (lambda x: price_by_ascent(Z, V, n_starts=x), "n_starts='x' must be"),
    "n_patches": (lambda x: DesignMatrix(X, n_patches=x), "n_patches='x' must divide"),
    "certificate": (CertificateDisplay, "certificate is a str"),
    "path": (PathDisplay, "path is a str"),
    "trace": (SpectralTraceDisplay, "trace is a str"),
    "model": (lambda x: NeuronsDisplay.from_estimator(x, X), "model is a str"),
    "source": (lambda x: read_rows(3), "source is a int"),
    "images": (lambda x: ConvexBNConvRegressor(0.1).fit(x, Y), "X must have shape"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_argument_is_named(name):
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call("x")


def test_numbers():
    assert [is_number(x) for x in (1, 0.5, np.float32(1), np.int8(1), np.inf)] == [True] * 5
    assert [is_number(x) for x in (True, np.True_, "1", 1j, None, np.nan, 10**400, [1])] == [False] * 8
    array = np.arange(3.0)
    assert real_array("x", array) is array
    with pytest.raises(ValueError, match="spectral_power=1000"):
        ConvexBNRegressor(0.1, spectral_power=10**400).fit(X, Y)


def test_numbers_too_large_for_their_squares_are_refused():
    with pytest.raises(ValueError, match="largest absolute value of W"):
        identity_mapping.population_loss(1e200 * np.eye(2), np.eye(2))
    with pytest.raises(ValueError, match="largest absolute value of X"):
        gdnp.LearningHalfspace(1e200 * X, 2.0 * LABELS - 1)
    with pytest.raises(ValueError, match="The outputs for X overflow"):
        GDNPClassifier(max_iter=5, tol=100.0).fit(X, LABELS).predict(1e308 * np.sign(X))
    with pytest.raises(ValueError, match="largest absolute value of start"):
        gdnp.lbfgs(gdnp.LeastSquares(X, Y), start=np.full(X.shape[1], 1e300))
    with pytest.raises(ValueError, match=r"\|X\[3\]\| - 1 = inf"):
        weight_norm.limit_gram_matrices(np.where(np.arange(5)[:, None] == 3, 1e300, np.eye(5)))
    conv = ConvBatchNormNetwork.at_initialization(trust_inputs.IMAGES, 3, kernel_size=2, random_state=0)
    with pytest.raises(ValueError, match="filter_shape must hold 3 integers below 2,147,483,648"):
        ConvBatchNormNetwork(**vars(conv) | {"filter_shape": (1e300, 2, 2)})


def backwards(array):
    """The same array, with a negative stride."""
    return array[::-1].copy()[::-1]


def test_training_by_gradients_takes_any_container():
    signs = 2.0 * LABELS - 1
    expected = gdnp.gdnp(gdnp.LearningHalfspace(X, signs), n_steps=3).weights
    found = gdnp.gdnp(gdnp.LearningHalfspace(X, signs.astype(object)), n_steps=3).weights
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="Input y contains NaN"):
        gdnp.LeastSquares(X, np.where(np.arange(len(Y)) == 3, None, Y))
    with pytest.raises(ValueError, match="y must hold numbers"):
        gdnp.LearningHalfspace(X, np.array([(sign,) for sign in signs], dtype=[("y", float)]))
    rows = X / np.linalg.norm(X, axis=1, keepdims=True)
    deep = {"start": deep_weight_norm.SmoothNetwork([np.eye(3)], np.ones(3)), "learning_rate": 0.01, "n_steps": 3}
    one, other = (
        deep_weight_norm.train_deep_weight_norm(data, signs, **deep)[0].weights for data in (rows, backwards(rows))
    )
    np.testing.assert_array_equal(one, other)


def test_a_dimension_is_named_with_the_data_it_is_too_large_for():
    with pytest.raises(ValueError, match=r"n_components=2 is out of range.*the smaller side of the data X"):
        ConvexBNRegressor(0.1, n_components=2).fit(X[:, :1], Y)


@pytest.mark.parametrize("weight", [1e308, np.inf, np.nan])
def test_outputs_of_weights_that_are_not_finite_show_it(weight):
    neurons = Neurons(np.eye(3)[:, :2], [[1.0], [weight]], [0.0])
    outputs = neurons.outputs(DesignMatrix(10 * np.vstack([X, -X])))
    assert not np.isfinite(outputs).all()


@pytest.mark.parametrize("model", [ConvexBNRegressor(0.1), ConvexBNStackRegressor(ConvexBNRegressor(0.1))])
def test_a_target_that_is_missing_is_told(model):
    with pytest.raises(ValueError, match="Input y contains NaN"):
        model.fit(X, np.where(np.arange(len(Y)) == 3, None, Y))


def test_a_teacher_of_one_sample_has_no_variance():
    with pytest.raises(ValueError, match="n_samples=1 targets are all equal"):
        make_teacher(1, 3)


def test_labels_in_any_container():
    expected = ConvexBNClassifier(0.1, tol=1e-1).fit(X, LABELS).decision_function(X)
    words = np.array(["no", "yes"])[LABELS]
    for labels in (words.tolist(), pd.Series(words, dtype="category"), pd.Series(LABELS, dtype="Int64"), LABELS > 0):
        found = ConvexBNClassifier(0.1, tol=1e-1).fit(X, labels).decision_function(X)
        np.testing.assert_array_equal(found, expected)
    targets = pd.Series(Y, dtype=object)
    assert read_rows(X, target=targets, sample_weight=targets.abs() + 1).y.dtype == np.float64
