import tracemalloc

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.utils.class_weight import compute_sample_weight

from convexbn import (
    BatchNormDesign,
    ConvexBNClassifier,
    ConvexBNRegressor,
    DesignMatrix,
    Problem,
    WeightNormDesign,
    enumerate_patterns,
    solve_closed_form,
    solve_reference,
    weight_decay_max,
)
from convexbn._utils.sample_weight import check_sample_weight, merge_equal_samples, standard_deviations
from convexbn.oracles import price_bound, price_by_enumeration

X, Y = load_diabetes(return_X_y=True)
X, Y = X[:24, [2, 3]], Y[:24]
LABELS = np.where(np.median(Y) < Y, "high", "low")
WEIGHTS = np.random.default_rng(0).integers(0, 4, 24)
ROWS = np.repeat(np.arange(24), WEIGHTS)
DESIGNS = [BatchNormDesign(), BatchNormDesign(n_components=0.8), WeightNormDesign(), WeightNormDesign(n_components=1)]
ESTIMATORS = [
    ConvexBNRegressor(0.5),
    ConvexBNRegressor(normalization="weight", loss="huber", weight_decay=0.5),
    ConvexBNRegressor(0.5, activation="gated_relu", n_patterns=5, random_state=0, n_components=0.5),
    ConvexBNClassifier(0.005),
    ConvexBNClassifier(0.01, normalization="weight", class_weight="balanced"),
    ConvexBNClassifier(0.02, loss="hinge", class_weight={"high": 2.0}),
]


def wide(n=6, seed=0):
    """Whitened data of full row rank with weights that differ."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.2, 3, n)
    data = rng.standard_normal((n, n + 2))
    return BatchNormDesign().fit(data, sample_weight=weights).transform(data), weights


def test_weighted_whitening_is_orthonormal_under_the_weights():
    design = BatchNormDesign().fit(X, sample_weight=WEIGHTS)
    Z, p = design.transform(X), WEIGHTS / WEIGHTS.sum()
    np.testing.assert_allclose(Z.T @ (p[:, None] * Z), np.eye(3), atol=1e-12)
    layer = design.neuron_weights(np.random.default_rng(0).standard_normal((3, 4)))
    preactivations = X @ layer.weights.T
    np.testing.assert_allclose(p @ preactivations, layer.mean, atol=1e-12)
    np.testing.assert_allclose(p @ (preactivations - layer.mean) ** 2, layer.std**2)


@pytest.mark.parametrize("design", DESIGNS, ids=repr)
def test_integer_weights_of_a_design_equal_repeated_rows(design):
    weighted, repeated = clone(design).fit(X, sample_weight=WEIGHTS), clone(design).fit(X[ROWS])
    np.testing.assert_allclose(weighted.transform(X), repeated.transform(X), atol=1e-11)
    names = ("mean_", "singular_values_", "whitening_", "coloring_", "basis_", "spectral_weights_", "variance_share_")
    learned = [name for name in (*names, "bias_unit_") if getattr(repeated, name, None) is not None]
    assert len(learned) >= 3
    for name in learned:
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("design", DESIGNS, ids=repr)
def test_only_ratios_of_weights_matter_to_a_design(design):
    transformed = [clone(design).fit(X, sample_weight=c * (WEIGHTS + 1.0)).transform(X) for c in (1e-12, 1.0, 1e12)]
    np.testing.assert_allclose(transformed[0], transformed[1], atol=1e-9)
    np.testing.assert_allclose(transformed[2], transformed[1], atol=1e-9)


def test_rank_is_at_most_the_number_of_distinct_weighted_rows_minus_one():
    data = 1e6 + np.random.default_rng(0).standard_normal((8, 20))
    rows, weights = np.arange(8).repeat(3), np.arange(8) > 2
    assert BatchNormDesign().fit_transform(data[rows]).shape[1] == 8
    assert BatchNormDesign().fit(data, sample_weight=weights).transform(data).shape[1] == 5
    constant = np.column_stack([X, np.where(WEIGHTS > 0, 1.0, 7.0)])
    assert BatchNormDesign().fit(constant, sample_weight=WEIGHTS).whitening_.shape == (3, 2)
    with pytest.raises(ValueError, match="All rows of X are equal"):
        BatchNormDesign().fit(X, sample_weight=np.arange(24) == 3)


def test_fraction_of_the_variance_is_weighted():
    data = np.array([[10.0, 0.0], [-10.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    for weights, leading in (([1, 1, 1, 1], 0), ([1, 1, 1e3, 1e3], 1)):
        design = BatchNormDesign(n_components=0.9, standardize=False).fit(data, sample_weight=weights)
        assert np.flatnonzero(design.whitening_[:, 0]).tolist() == [leading]


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("n", [6, 24])
def test_bound_with_weights_covers_every_direction_and_does_not_see_repetition(n, n_outputs):
    rng = np.random.default_rng(n)
    Z, v, weights = rng.standard_normal((n, 3)), rng.standard_normal((n, n_outputs)), rng.integers(1, 5, n)
    bound = price_bound(DesignMatrix(Z), v, weights)
    W = rng.standard_normal((3, 10_000))
    found = np.linalg.norm(v.T @ DesignMatrix(Z).neuron_outputs(W / np.linalg.norm(W, axis=0)), axis=0).max()
    assert bound.value >= (price_by_enumeration(DesignMatrix(Z), v).value if n_outputs == 1 else found)
    rows = np.repeat(np.arange(n), weights)
    repeated = price_bound(DesignMatrix(Z[rows]), (v / weights[:, None])[rows])
    assert bound.value == pytest.approx(repeated.value)


@pytest.mark.parametrize("loss", ["squared_error", "log_loss", "hinge"])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.5])
def test_weighted_closed_form_equals_the_program_over_all_patterns(loss, fit_intercept, fraction):
    Z, weights = wide()
    y = np.random.default_rng(1).standard_normal(6) + 1
    y = y if loss == "squared_error" else np.where(np.arange(6) < 2, -1.0, 1.0)
    options = {"fit_intercept": fit_intercept, "sample_weight": weights}
    largest = weight_decay_max(Problem(Z, y, loss, weight_decay=1.0, **options))
    problem = Problem(Z, y, loss, weight_decay=fraction * largest, **options)
    closed, program = solve_closed_form(problem), solve_reference(problem, enumerate_patterns(problem.Z))
    assert closed.certificate.scope == "global"
    assert closed.certificate.gap <= 1e-12
    assert closed.certificate.objective == pytest.approx(program.certificate.objective, rel=1e-6)
    assert (len(closed.neurons) == 0) == (fraction > 1)


def test_weighted_closed_form_of_one_hot_targets_is_certified():
    Z, weights = wide()
    Y = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    solution = solve_closed_form(Problem(Z, Y, weight_decay=0.02, sample_weight=weights))
    assert solution.certificate.scope == "global"
    assert solution.certificate.gap <= 1e-12
    assert len(solution.neurons) == 3


@pytest.mark.parametrize("model", ESTIMATORS, ids=repr)
def test_integer_weights_of_an_estimator_equal_repeated_rows(model):
    y = LABELS if isinstance(model, ConvexBNClassifier) else Y
    weighted, repeated = clone(model).fit(X, y, sample_weight=WEIGHTS), clone(model).fit(X[ROWS], y[ROWS])
    assert weighted.weight_decay_ == pytest.approx(repeated.weight_decay_)
    assert weighted.certificate_.objective == pytest.approx(repeated.certificate_.objective)
    assert weighted.certificate_.scope == repeated.certificate_.scope
    np.testing.assert_allclose(weighted.network_.predict(X), repeated.network_.predict(X), rtol=1e-9, atol=1e-9)
    plain = clone(model).fit(X, y)
    assert not np.allclose(weighted.network_.predict(X), plain.network_.predict(X), rtol=1e-3)


@pytest.mark.parametrize("model", ESTIMATORS[:2] + ESTIMATORS[3:4], ids=repr)
def test_objective_of_the_network_is_that_of_repeated_rows(model):
    y = LABELS if isinstance(model, ConvexBNClassifier) else Y
    signs = np.where(LABELS == "low", 1.0, -1.0) if isinstance(model, ConvexBNClassifier) else Y
    model = clone(model).fit(X, y, sample_weight=WEIGHTS)
    arguments = model.weight_decay_, model.loss
    objective = model.network_.objective(X[ROWS], signs[ROWS], *arguments)
    assert objective == pytest.approx(model.certificate_.objective, rel=1e-9)
    assert model.network_.objective(X, signs, *arguments, sample_weight=WEIGHTS) == pytest.approx(objective)


def test_network_statistics_are_those_of_repeated_rows():
    network = ConvexBNRegressor(0.5).fit(X, Y, sample_weight=WEIGHTS).network_
    for moved in (network.with_statistics(X, WEIGHTS), network.with_statistics(X[ROWS])):
        np.testing.assert_allclose(moved.mean, network.mean)
        np.testing.assert_allclose(moved.std, network.std)
    assert np.abs(network.with_statistics(X).std - 1).min() > 1e-3
    pruned = network.prune(X, WEIGHTS)
    np.testing.assert_allclose(pruned.predict(X[ROWS]), network.predict(X[ROWS]))
    with pytest.raises(ValueError, match="and its weights"):
        network.prune(X)


def test_order_and_repetition_of_samples_do_not_matter():
    order = np.random.default_rng(0).permutation(48) % 24
    weights = np.arange(1.0, 25)
    first = ConvexBNRegressor(0.5).fit(X, Y, sample_weight=2 * weights)
    second = ConvexBNRegressor(0.5).fit(X[order], Y[order], sample_weight=weights[order])
    np.testing.assert_array_equal(first.predict(X), second.predict(X))


def test_equal_samples_are_merged_only_if_their_targets_are_equal():
    data, targets, weights = merge_equal_samples(
        np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [0.0, 0.0], [9.0, 9.0]]),
        np.array([[1.0], [1.0], [-1.0], [1.0], [1.0]]),
        np.array([1.0, 2.0, 4.0, 8.0, 0.0]),
    )
    np.testing.assert_array_equal(data, [[0, 0], [1, 2], [1, 2]])
    np.testing.assert_array_equal(targets, [[1], [-1], [1]])
    np.testing.assert_array_equal(weights, [8, 4, 3])


def test_merged_samples_do_not_depend_on_order_or_on_the_sign_of_zero():
    rng = np.random.default_rng(0)
    data, targets = 0.1 * rng.integers(-3, 2, (60, 3)), rng.integers(0, 2, (60, 1)).astype(float)
    weights = rng.random(60)
    expected = merge_equal_samples(data, targets, weights)
    distinct, group = np.unique(np.hstack([data, targets]), axis=0, return_inverse=True)
    np.testing.assert_array_equal(np.hstack(expected[:2]), distinct)  # in lexicographic order
    np.testing.assert_allclose(expected[2], np.bincount(group.ravel(), weights))
    for order in (rng.permutation(60), np.arange(60)[::-1]):
        signs = np.where((data == 0) & (rng.random(data.shape) < 0.5), -1.0, 1.0)
        merged = merge_equal_samples(np.asfortranarray(data * signs)[order], targets[order], weights[order])
        for one, other in zip(merged, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", [np.float32, np.int8, bool])
def test_samples_of_every_numeric_type_are_merged(dtype):
    data = np.random.default_rng(0).integers(-1, 2, (50, 3)).astype(dtype)
    merged, targets, weights = merge_equal_samples(data, np.zeros((50, 1)), np.ones(50))
    distinct, counts = np.unique(data, axis=0, return_counts=True)
    assert merged.dtype == dtype
    np.testing.assert_array_equal(merged, distinct)
    np.testing.assert_array_equal(weights, counts)
    assert targets.shape == (len(distinct), 1)


def test_samples_of_mostly_zeros_are_merged_with_little_memory():
    rng = np.random.default_rng(0)
    data = np.zeros((2000, 400))
    data[np.arange(2000), 200 + rng.integers(0, 200, 2000)] = rng.random(2000)
    tracemalloc.start()
    merged = merge_equal_samples(data, data.sum(axis=1, keepdims=True), np.ones(2000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert merged[0].shape == data.shape
    assert peak < 1.5 * data.nbytes


def test_standard_deviations_are_weighted_and_of_any_size():
    y = np.column_stack([Y, 1e-200 * Y + 1e-190, np.full(24, 0.1), 1e200 * Y])
    rows = np.repeat(Y, WEIGHTS + 1)
    expected = np.array([1, 1e-200, 0, 1e200]) * rows.std()
    np.testing.assert_allclose(standard_deviations(y, WEIGHTS + 1), expected, rtol=1e-5)


def test_balanced_classes_weigh_the_same():
    y = np.where(np.arange(24) < 5, "rare", "frequent")
    balanced = ConvexBNClassifier(0.0025, class_weight="balanced").fit(X, y)
    explicit = ConvexBNClassifier(0.0025).fit(X, y, sample_weight=compute_sample_weight("balanced", y))
    factors = {"rare": 24 / 10, "frequent": 24 / 38}
    named = ConvexBNClassifier(0.0025, class_weight=factors).fit(X, y)
    for other in (explicit, named):
        np.testing.assert_allclose(other.decision_function(X), balanced.decision_function(X), atol=1e-6)
    assert (balanced.predict(X) == "rare").sum() > (ConvexBNClassifier(0.0025).fit(X, y).predict(X) == "rare").sum()


@pytest.mark.parametrize("model", [ConvexBNRegressor(0.5), ConvexBNClassifier(0.005)], ids=repr)
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (-WEIGHTS, "sample_weight must not be negative; its smallest entry is -3"),
        (WEIGHTS[:-1], r"one number for each of the 24 samples, got shape \(23,\)"),
        (WEIGHTS[:, None], r"got shape \(24, 1\)"),
        (0 * WEIGHTS, "at least one non-zero number"),
        (np.where(WEIGHTS == 0, np.nan, 1), "sample_weight contains NaN"),
    ],
)
def test_bad_sample_weights(model, weights, message):
    with pytest.raises(ValueError, match=message):
        clone(model).fit(X, LABELS if isinstance(model, ConvexBNClassifier) else Y, sample_weight=weights)


def test_one_class_left_after_dropping_weight_zero():
    with pytest.raises(ValueError, match="one class only among the samples of positive weight, 'high'"):
        ConvexBNClassifier(0.0025).fit(X, LABELS, sample_weight=(LABELS == "high") * 1.0)
    third = np.where(WEIGHTS > 0, LABELS, "third")
    assert ConvexBNClassifier(0.0025).fit(X, third, sample_weight=WEIGHTS).classes_.tolist() == ["high", "low"]


@pytest.mark.parametrize("class_weight", ["even", 2.0, {"high": -1.0}, {"high": 0.0}, {"high": "much"}])
def test_bad_class_weights(class_weight):
    with pytest.raises(ValueError, match=r'class_weight=.* must be None, "balanced" or a dictionary'):
        ConvexBNClassifier(0.0025, class_weight=class_weight).fit(X, LABELS)


@pytest.mark.parametrize("others", [{}, {"high": 1.0}])
def test_class_weights_of_other_labels_than_those_of_y(others):
    with pytest.raises(ValueError, match=r"class_weight=.* names \['rose'\], which y does not hold, and not .*'low'\]"):
        ConvexBNClassifier(0.0025, class_weight={"rose": 3.0, **others}).fit(X, LABELS)


def test_weights_of_any_array_type():
    expected = ConvexBNRegressor(0.5).fit(X, Y, sample_weight=WEIGHTS).predict(X)
    for weights in (WEIGHTS.tolist(), pd.Series(WEIGHTS), WEIGHTS.astype(np.float32)):
        np.testing.assert_array_equal(ConvexBNRegressor(0.5).fit(X, Y, sample_weight=weights).predict(X), expected)
    np.testing.assert_array_equal(check_sample_weight(None, 2), [1, 1])
