import tracemalloc

import numpy as np
import pytest
from sklearn.base import clone

from convexbn import BatchNormDesign, WeightNormDesign

DESIGNS = [BatchNormDesign, WeightNormDesign]


def data(n=20, d=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 3


def relu_layer(layer, X):
    return np.maximum(layer.gamma * (X @ layer.weights.T - layer.mean) / layer.std + layer.bias, 0)


def test_whitened_columns_are_orthonormal_and_end_in_ones():
    X = data()
    Z = BatchNormDesign().fit_transform(X)
    np.testing.assert_allclose(Z.T @ Z / len(X), np.eye(5), atol=1e-12)
    np.testing.assert_array_equal(Z[:, -1], 1)


def test_weight_norm_design_is_the_data_itself():
    X = data()
    np.testing.assert_array_equal(WeightNormDesign().fit_transform(X), np.hstack([X, np.ones((20, 1))]))
    np.testing.assert_array_equal(WeightNormDesign(bias=False).fit_transform(X), X)


@pytest.mark.parametrize("design", [BatchNormDesign(), WeightNormDesign(), WeightNormDesign(bias=False)], ids=repr)
def test_layer_weights_reproduce_neurons_on_new_rows(design):
    X, new = data(), data(seed=1)
    design.fit(X)
    S = np.random.default_rng(0).standard_normal((design.transform(X).shape[1], 6))
    layer = design.neuron_weights(S)
    np.testing.assert_allclose(relu_layer(layer, new), np.maximum(design.transform(new) @ S, 0), atol=1e-10)
    np.testing.assert_allclose(np.hypot(layer.gamma, layer.bias), np.linalg.norm(S, axis=0))
    np.testing.assert_allclose(design.neurons(layer.weights, layer.gamma, layer.bias), S, atol=1e-10)
    slopes, offsets = design.affine(S)
    np.testing.assert_allclose(new @ slopes.T + offsets, design.transform(new) @ S, atol=1e-10)


def test_layer_statistics_are_those_of_the_batch():
    X = data()
    design = BatchNormDesign().fit(X)
    layer = design.neuron_weights(np.random.default_rng(0).standard_normal((5, 3)))
    np.testing.assert_allclose((X @ layer.weights.T).mean(axis=0), layer.mean, atol=1e-10)
    np.testing.assert_allclose((X @ layer.weights.T).std(axis=0), layer.std, atol=1e-10)


@pytest.mark.parametrize("design", [BatchNormDesign(), WeightNormDesign()], ids=repr)
def test_constant_neuron_maps_to_gamma_zero(design):
    X = data()
    S = np.zeros((design.fit_transform(X).shape[1], 1))
    S[-1] = 2.0
    layer = design.neuron_weights(S)
    assert layer.gamma == 0
    assert layer.std > 0
    np.testing.assert_allclose(relu_layer(layer, X), 2)


def test_rank_ignores_constant_and_duplicated_columns_and_rows():
    X = data()
    for redundant in (
        np.hstack([X, np.full((20, 1), 1e9), X[:, :1], 2 * X[:, 1:2] - 7]),
        np.vstack([X, X[:5], X[:5]]),
    ):
        Z = BatchNormDesign().fit_transform(redundant)
        assert Z.shape[1] == 5
        np.testing.assert_allclose(Z.T @ Z / len(Z), np.eye(5), atol=1e-10)


def test_rank_does_not_depend_on_units_of_columns():
    X = data()
    scaled = X * np.array([1e-12, 1.0, 1e12, 1e-200])
    Z, Z_scaled = BatchNormDesign().fit_transform(X), BatchNormDesign().fit_transform(scaled)
    np.testing.assert_allclose(Z @ Z.T, Z_scaled @ Z_scaled.T, atol=1e-8)


def test_more_columns_than_rows_give_full_row_rank():
    Z = BatchNormDesign().fit_transform(data(n=6, d=10))
    assert Z.shape == (6, 6)
    np.testing.assert_allclose(Z @ Z.T, 6 * np.eye(6), atol=1e-10)


@pytest.mark.parametrize(
    ("size", "rtol", "kept"),
    [
        (1e-3, 1e-4, 4),
        (1e-5, 1e-4, 3),
        (1e-5, 1e-6, 4),
        (1e-8, 1e-6, 3),
        (1e-8, 1e-10, 4),
        (1e-13, 1e-10, 3),
    ],
)
def test_rtol_decides_which_directions_are_kept(size, rtol, kept):
    X = data()
    X[:, 3] = X[:, 2] + size * X[:, 3]
    design = BatchNormDesign(rtol=rtol)
    Z = design.fit_transform(X)
    assert Z.shape[1] == kept + 1
    assert (design.variance_share_ < 1 - 1e-12) == (kept == 3 and size > 1e-7)
    np.testing.assert_allclose(Z.T @ Z / len(X), np.eye(kept + 1), atol=1e-7 if size == 1e-8 else 1e-10)


def rounded_sum(rng):
    A = rng.standard_normal((200, 5)).astype(np.float32)
    return np.column_stack([A, A.sum(axis=1, dtype=np.float32)]).astype(float), 5


def rounded_sum_far_from_zero(rng):
    A = 1000 + rng.standard_normal((200, 4))
    return np.column_stack([A, A.sum(axis=1)]).astype(np.float32).astype(float), 4


def percentages(rng):
    return (100 * rng.dirichlet(np.ones(5), 200)).round(4), 4


def total_in_single_precision(rng):
    shares = rng.dirichlet(np.ones(5), 200).astype(np.float32)
    return np.column_stack([shares[:, :3], shares.sum(axis=1)]).astype(float), 3


@pytest.mark.parametrize("make", [rounded_sum, rounded_sum_far_from_zero, percentages, total_in_single_precision])
def test_rounding_of_the_data_does_not_become_a_direction(make):
    X, rank = make(np.random.default_rng(0))
    design, new = BatchNormDesign().fit(X[:100]), X[100:]
    assert design.whitening_.shape[1] == rank
    decimals = int(np.floor(-np.log10(X[:, 0].std() * 1e-2)))
    shift = design.transform(new.round(decimals)) - design.transform(new)
    assert np.abs(shift).max() < 0.3


def test_integers_and_numbers_of_double_precision_may_vary_little():
    rng = np.random.default_rng(0)
    for column in (1e7 + rng.integers(0, 2, 50), 1e9 + rng.standard_normal(50)):
        assert BatchNormDesign().fit(column[:, None]).whitening_.shape == (1, 1)


@pytest.mark.parametrize("options", [{}, {"n_components": 2}, {"n_components": 0.9}, {"spectral_power": 1.0}])
@pytest.mark.parametrize("n", [20, 4])
def test_units_of_columns_do_not_matter(options, n):
    X, new, units = data(n=n, d=5), data(seed=1, d=5), np.array([1e-12, 1.0, 1e12, 1e-200, 1e3])
    plain, scaled = BatchNormDesign(**options).fit(X), BatchNormDesign(**options).fit(X * units)
    np.testing.assert_allclose(scaled.transform(new * units), plain.transform(new), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(scaled.singular_values_, plain.singular_values_)
    assert scaled.variance_share_ == pytest.approx(plain.variance_share_)


@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (12, 12)])
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("n_components", [None, 3, 0.8])
def test_directions_are_those_of_the_singular_value_decomposition(shape, standardize, n_components, monkeypatch):
    monkeypatch.setattr("convexbn.designs._deviations._BLOCK_ENTRIES", 50)
    rng = np.random.default_rng(0)
    X, weights = rng.standard_normal(shape) * rng.uniform(1, 5, shape[1]) + 10, rng.integers(1, 4, shape[0])
    design = BatchNormDesign(n_components, standardize=standardize).fit(X, sample_weight=weights)
    rows = np.repeat(X, weights, axis=0)
    centred = rows - rows.mean(axis=0)
    if standardize or n_components is None:
        centred /= centred.std(axis=0)
    U, S, _ = np.linalg.svd(centred, full_matrices=False)
    r = len(design.singular_values_)
    np.testing.assert_allclose(design.singular_values_, S[:r])
    assert design.variance_share_ == pytest.approx((S[:r] ** 2).sum() / (S**2).sum())
    Z = design.transform(rows)[:, :-1]
    np.testing.assert_allclose(Z @ Z.T / len(rows), U[:, :r] @ U[:, :r].T, atol=1e-9)
    np.testing.assert_allclose(design.coloring_ @ design.whitening_, np.eye(r), atol=1e-9)


def test_memory_is_little_more_than_what_is_returned():
    X = np.random.default_rng(0).standard_normal((1500, 600))
    design = BatchNormDesign(n_components=20)
    tracemalloc.start()
    design.fit(X).transform(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.8 * X.nbytes


@pytest.mark.parametrize("rtol", [-1e-3, 1.0, np.nan, "small", True, None])
@pytest.mark.parametrize("Design", DESIGNS)
def test_rtol_out_of_range(Design, rtol):
    with pytest.raises(ValueError, match=r"rtol=.* must be a number from 0 to 1"):
        Design(rtol=rtol).fit(data())


def test_standardize_must_be_true_or_false():
    with pytest.raises(ValueError, match="standardize='yes' must be True or False"):
        BatchNormDesign(standardize="yes").fit(data())


@pytest.mark.parametrize("Design", DESIGNS)
def test_n_components_keeps_leading_directions(Design):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 3)) * np.array([1.0, 10.0, 0.1])
    X -= X.mean(axis=0)
    raw = {"standardize": False} if Design is BatchNormDesign else {}
    for n_components, kept in ((2, 2), (1, 1), (0.9, 1), (0.995, 2), (1.0, 3), (3, 3)):
        assert Design(n_components=n_components, **raw).fit_transform(X).shape[1] == kept + 1
    leading = Design(n_components=1, **raw).fit_transform(X)[:, 0]
    assert abs(np.corrcoef(leading, X[:, 1])[0, 1]) > 0.99


def test_n_components_beyond_the_rank_keeps_the_rank():
    X = data()
    X[:, 3] = X[:, 0]
    assert BatchNormDesign(n_components=4).fit_transform(X).shape[1] == 4
    assert BatchNormDesign(n_components=1.0).fit_transform(X).shape[1] == 4


@pytest.mark.parametrize("Design", DESIGNS)
@pytest.mark.parametrize("n_components", [0, 5, -1, 1.5, 0.0, "two", True, np.nan])
def test_n_components_out_of_range(Design, n_components):
    with pytest.raises(ValueError, match=r"n_components=.* is out of range"):
        Design(n_components=n_components).fit(data())


def test_one_distinct_row_is_refused():
    with pytest.raises(ValueError, match="All rows of X are equal"):
        BatchNormDesign().fit(np.full((5, 3), 0.1))
    with pytest.raises(ValueError, match="all zero"):
        WeightNormDesign().fit(np.zeros((5, 3)))


@pytest.mark.parametrize("Design", DESIGNS)
def test_bad_data_is_refused(Design):
    for X, message in (
        ([[np.nan], [1.0]], "NaN"),
        ([[np.inf], [1.0]], "infinity"),
        ([1.0, 2.0], "2D array"),
        ([["a"], ["b"]], "could not convert"),
        (np.empty((0, 2)), "0 sample"),
    ):
        with pytest.raises(ValueError, match=message):
            Design().fit(X)
    with pytest.raises(ValueError, match="3 features"):
        Design().fit(data()).transform(np.ones((2, 3)))


def test_one_sample_is_refused_under_batch_normalization():
    with pytest.raises(ValueError, match="at least two distinct rows"):
        BatchNormDesign().fit([[1.0, 2.0]])


def test_neuron_that_does_not_vary_is_refused():
    X = data()
    X[:, 0] = 1
    with pytest.raises(ValueError, match="does not vary"):
        BatchNormDesign().fit(X).neurons(np.eye(1, 4), np.ones(1), np.ones(1))


@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_rank_of_wide_data_far_from_zero_is_n_minus_one(offset):
    X = offset + np.random.default_rng(0).standard_normal((10, 30))
    Z = BatchNormDesign().fit_transform(X)
    assert Z.shape == (10, 10)
    np.testing.assert_allclose(Z.T @ Z / 10, np.eye(10), atol=1e-8)


@pytest.mark.parametrize("design", [BatchNormDesign(), WeightNormDesign(), WeightNormDesign(n_components=2)])
def test_data_in_single_precision_stays_so(design):
    X = (np.random.default_rng(0).standard_normal((50, 3)) + 5).astype(np.float32)
    Z = design.fit_transform(X)
    assert Z.dtype == np.float32
    assert design.matrix(X).Z.dtype == np.float32
    np.testing.assert_allclose(Z, clone(design).fit_transform(X.astype(np.float64)), atol=2e-5)
