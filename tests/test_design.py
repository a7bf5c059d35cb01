import numpy as np
import pytest

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


def test_rtol_decides_the_rank():
    X = data()
    X[:, 3] = X[:, 2] + 1e-6 * X[:, 3]
    assert BatchNormDesign().fit_transform(X).shape[1] == 5
    assert BatchNormDesign(rtol=1e-4).fit_transform(X).shape[1] == 4


@pytest.mark.parametrize("Design", DESIGNS)
def test_n_components_keeps_leading_directions(Design):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 3)) * np.array([1.0, 10.0, 0.1])
    X -= X.mean(axis=0)
    for n_components, kept in ((2, 2), (1, 1), (0.9, 1), (0.995, 2), (1.0, 3), (3, 3)):
        assert Design(n_components=n_components).fit_transform(X).shape[1] == kept + 1
    leading = Design(n_components=1).fit_transform(X)[:, 0]
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
