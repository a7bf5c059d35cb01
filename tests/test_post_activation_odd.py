"""Odd input to networks that are normalized after the ReLU."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from convexbn import ConvexBNClassifier, ConvexBNRegressor, DesignMatrix, convexbn_path, count_patterns
from convexbn.oracles import find_normalized_maxima

RNG = np.random.default_rng(0)
X = RNG.standard_normal((30, 2))
Y = np.abs(X[:, 0]) + 0.3 * RNG.standard_normal(30)
AFTER = {"normalization": "batch_after_relu"}


def fitted(X, y, weight_decay=0.03, sample_weight=None, **options):
    """A regressor at a given weight decay whose network has the objective that its certificate says."""
    model = ConvexBNRegressor(weight_decay, **AFTER, **options).fit(X, y, sample_weight=sample_weight)
    objective = model.network_.objective(X, y, weight_decay, sample_weight=sample_weight)
    assert objective == pytest.approx(model.certificate_.objective, rel=1e-6)
    assert model.certificate_.lower_bound <= model.certificate_.objective
    return model


@pytest.mark.parametrize("n", [2, 3])
def test_largest_weight_decay_of_few_samples_has_no_neurons(n):
    path = convexbn_path(X[:n], Y[:n], n_weight_decays=3, **AFTER)
    assert path.n_neurons.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "mapped",
    [
        X * 1e-150,
        X * 1e150,
        X * [1, 1e6],
        X + 1e6,
        np.c_[X, np.ones(30)],
        np.c_[X, X],
        X @ [[1.0, 2.0], [3.0, -1.0]],
    ],
    ids=["tiny", "huge", "units", "shifted", "constant column", "repeated columns", "mixed"],
)
def test_linear_maps_of_the_features_change_no_optimum(mapped):
    plain, other = fitted(X, Y), fitted(mapped, Y)
    for model in (plain, other):
        assert model.certificate_.scope == "global"
    assert plain.certificate_.lower_bound <= other.certificate_.objective
    assert other.certificate_.lower_bound <= plain.certificate_.objective


@pytest.mark.parametrize("unit", [1e-100, 1e-8, 1e8, 1e100])
def test_units_of_the_targets_scale_the_objective(unit):
    expected = fitted(X, Y).certificate_.objective
    assert fitted(X, Y * unit, 0.03 * unit).certificate_.objective / unit**2 == pytest.approx(expected, rel=1e-3)


def test_repeated_rows_and_weights_are_the_same_problem():
    counts = RNG.integers(0, 3, 30)
    repeated = fitted(np.repeat(X, counts, axis=0), np.repeat(Y, counts)).certificate_
    weighted = fitted(X, Y, sample_weight=counts.astype(float)).certificate_
    assert repeated.scope == weighted.scope == "global"
    assert repeated.lower_bound <= weighted.objective
    assert weighted.lower_bound <= repeated.objective


def test_one_binary_feature_is_fitted_by_the_shrunk_means_of_its_values():
    feature = np.repeat([0.0, 1.0], [10, 20])
    y = 3 * feature + np.tile([-0.5, 0.5], 15)
    model = fitted(feature[:, None], y, weight_decay=0.1)
    means = np.where(feature == 1, 3.0, 0.0)
    expected = means.mean() + (means - means.mean()) * (1 - 0.1 / means.std())
    assert model.predict(feature[:, None]) == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize("constant", [0.0, 7.0])
def test_constant_targets_need_no_neuron(constant):
    model = fitted(X, np.full(30, constant))
    assert len(model.network_) == 0
    assert model.predict(X[:3]).tolist() == [constant] * 3


def test_a_constant_output_beside_others():
    model = ConvexBNRegressor(0.05, tol=1e-3, **AFTER).fit(X, np.c_[Y, np.full(30, 4.0)])
    assert model.predict(X)[:, 1] == pytest.approx(4.0, abs=1e-2)


def test_time_that_is_over_leaves_a_valid_certificate():
    with pytest.warns(ConvergenceWarning, match="gap"):
        model = fitted(X, Y, max_time=1e-9)
    assert np.isfinite(model.predict(X)).all()


def test_a_rare_class():
    labels = (np.arange(30) == 5).astype(int)
    model = ConvexBNClassifier(0.02, tol=1e-3, **AFTER).fit(X, labels)
    assert model.certificate_.gap < 1e-2
    assert model.predict(X).shape == (30,)


@pytest.mark.parametrize(
    ("features", "targets", "message"),
    [
        (np.full((4, 2), np.nan), np.arange(4.0), "NaN"),
        (np.full((4, 2), np.inf), np.arange(4.0), "infinity"),
        (np.ones((4, 2)), np.arange(4.0), "All rows of X are equal"),
        (X[:1], Y[:1], "minimum of 2"),
        (X, Y * 1e-200, "rescale y"),
    ],
)
def test_bad_data_is_refused(features, targets, message):
    with pytest.raises(ValueError, match=message):
        ConvexBNRegressor(0.1, **AFTER).fit(features, targets)


@pytest.mark.parametrize("seed", range(8))
def test_rows_that_differ_by_rounding_are_searched(seed):
    rng = np.random.default_rng(seed)
    rows, v = 1 + 1e-8 * rng.standard_normal((8, 3)), rng.standard_normal((8, 1))
    found = find_normalized_maxima(DesignMatrix(rows), np.full(8, 1 / 8), v - v.mean(), rng.standard_normal((3, 20)))
    assert np.isfinite(found.prices).all()


@pytest.mark.parametrize("n", [4, 5])
def test_one_sample_that_differs(n):
    """The price of two outputs has one kink; its gradient may point straight back, and a step as long ends at zero."""
    one = np.arange(n)[:, None] == 0
    path = convexbn_path(one.astype(float), RNG.standard_normal((n, 2)), n_weight_decays=2, **AFTER)
    assert path.n_neurons.tolist() == [0, 1]


def test_more_patterns_than_are_enumerated_are_searched():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((25, 5))
    assert count_patterns(np.c_[features, np.ones(25)]) > 100_000
    path = convexbn_path(features, features[:, 0], n_weight_decays=2, **AFTER)
    assert path.n_neurons[0] == 0 < path.n_neurons[1]
