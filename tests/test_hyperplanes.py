import numpy as np
import pytest

from convexbn import DesignMatrix
from convexbn.oracles import price_bound, price_by_branch_and_bound, price_by_enumeration


def repeated(seed, n_rows=40, n_distinct=6, k=3):
    """Multiples of a few rows, some of them negative, and a row of zeros."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n_distinct, k))
    group = np.append(np.arange(n_distinct), rng.integers(n_distinct, size=n_rows - n_distinct))
    ratio = rng.choice([1.0, 1.0, 3.0, 0.1, -1.0, -7.0], size=n_rows)
    return np.vstack([ratio[:, None] * rows[group], np.zeros((1, k))]), group, ratio


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_are_multiples_have_one_hyperplane(seed):
    Z, group, _ = repeated(seed)
    planes = DesignMatrix(Z).hyperplanes
    np.testing.assert_array_equal(planes.first, [0, 1, 2, 3, 4, 5, 40])
    np.testing.assert_array_equal(planes.group[:40], group)
    np.testing.assert_allclose(planes.ratio[:, None] * Z[planes.first][planes.group], Z, atol=1e-14)
    assert not planes.all_differ


@pytest.mark.parametrize("seed", range(5))
def test_rays_are_positive_multiples_and_keep_prices(seed):
    rows, _, _ = repeated(seed)
    Z, rng = DesignMatrix(rows), np.random.default_rng(seed)
    v, W = rng.standard_normal((41, 2)), rng.standard_normal((3, 100))
    rays = Z.hyperplanes.rays()
    assert (rays.ratio[:40] > 0).all()
    assert 7 < len(rays.first) <= 13
    fewer, V, moved = Z.for_prices(v)
    assert fewer.n_rows == len(rays.first)
    assert 0 <= moved < 1e-10
    np.testing.assert_allclose(V.T @ fewer.neuron_outputs(W), v.T @ Z.neuron_outputs(W), atol=1e-12)


def test_patches_are_rows_of_their_own():
    rng = np.random.default_rng(0)
    rows, v, W = rng.standard_normal((6, 3)), rng.standard_normal((3, 1)), rng.standard_normal((3, 10))
    rows[5] = 2 * rows[0]
    Z = DesignMatrix(rows, n_patches=2)
    fewer, V, _ = Z.for_prices(v)
    assert (fewer.n_rows, fewer.n_patches) == (5, 1)
    np.testing.assert_allclose(V.T @ fewer.neuron_outputs(W), v.T @ Z.neuron_outputs(W))


def test_rows_that_differ_stay_as_they_are():
    Z = DesignMatrix(np.random.default_rng(0).standard_normal((20, 3)))
    v = np.arange(20.0)[:, None]
    fewer, V, moved = Z.for_prices(v)
    assert fewer is Z
    assert moved == 0
    np.testing.assert_array_equal(V, v)


def test_products_put_multiples_on_the_same_side():
    rng = np.random.default_rng(0)
    row = rng.standard_normal(3)
    Z = DesignMatrix(np.vstack([row, 2 * row, -row / 3, row * (1 + 1e-15), rng.standard_normal(3)]))
    S = np.linalg.svd(row[None])[2][1:].T + 1e-17 * rng.standard_normal((3, 2))  # on the kink, up to rounding
    products = Z.products(S)
    np.testing.assert_allclose(products, Z.Z @ S, atol=1e-14)
    assert (np.sign(products[:4]) == np.sign(products[0]) * np.array([[1], [1], [-1], [1]])).all()


@pytest.mark.parametrize("seed", range(3))
def test_what_cancels_within_equal_rows_does_not_loosen_the_proof(seed):
    """Ten rows fifty times, with dual entries ten times as large as their means: as soon proved as the ten rows."""
    rng = np.random.default_rng(seed)
    rows, means = rng.standard_normal((10, 3)), rng.standard_normal((10, 1))
    noise = 10 * rng.standard_normal((10, 50))
    v = ((means + noise - noise.mean(axis=1, keepdims=True)) / 50).reshape(-1, 1)
    Z = DesignMatrix(np.repeat(rows, 50, axis=0))
    exact = price_by_enumeration(DesignMatrix(rows), means).value
    price = price_by_branch_and_bound(Z, v, tol=1e-4, max_nodes=20_000)
    assert exact * (1 - 1e-12) <= price.value <= exact * (1 + 1.001e-4)
    assert price_bound(Z, v).value > exact
