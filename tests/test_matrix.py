import numpy as np
import pytest

from convexbn import DesignMatrix


@pytest.fixture
def pooled():
    return DesignMatrix(np.random.default_rng(0).standard_normal((12, 3)), n_patches=3)


def test_sizes(pooled):
    assert (pooled.n_rows, pooled.n_samples, pooled.n_columns) == (12, 4, 3)
    assert pooled.spectral_norm == pytest.approx(np.linalg.svd(pooled.Z)[1][0])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_products_with_one_vector(dtype):
    rows = np.random.default_rng(0).standard_normal((12, 3)).astype(dtype)
    np.testing.assert_allclose(DesignMatrix(rows) @ np.arange(3), rows @ np.arange(3), rtol=1e-6)


def test_pooling_averages_consecutive_rows(pooled):
    S = np.random.default_rng(1).standard_normal((3, 2))
    by_hand = np.array([np.maximum(pooled.Z[3 * i : 3 * i + 3] @ S, 0).mean(axis=0) for i in range(4)])
    np.testing.assert_allclose(pooled.neuron_outputs(S), by_hand)


def test_outputs_block_by_block(pooled):
    rng = np.random.default_rng(4)
    gates, S = rng.standard_normal((3, 5)), rng.standard_normal((3, 5))
    few = pooled.neuron_outputs(S), pooled.gated_outputs(gates, S)
    many = DesignMatrix(np.tile(pooled.Z, (80_000, 1)), n_patches=3)  # more entries than are made at once
    for found, expected in zip((many.neuron_outputs(S), many.gated_outputs(gates, S)), few, strict=True):
        differences = np.abs(found.reshape(80_000, 4, 5) - expected)
        assert differences.max() <= 1e-14
    assert pooled.neuron_outputs(S[:, :0]).shape == (4, 0)


def test_unpool_is_the_transpose_of_pool(pooled):
    rng = np.random.default_rng(2)
    A, V = rng.standard_normal((12, 1)), rng.standard_normal((4, 1))
    assert np.vdot(pooled.pool(A), V) == pytest.approx(np.vdot(A, pooled.unpool(V)))


def test_masked_adjoint_is_the_adjoint_of_gated_outputs(pooled):
    rng = np.random.default_rng(3)
    gates, s, v = rng.standard_normal((3, 1)), rng.standard_normal((3, 1)), rng.standard_normal((4, 1))
    masks = pooled.Z @ gates >= 0
    assert np.vdot(pooled.gated_outputs(gates, s), v) == pytest.approx(np.vdot(s, pooled.masked_adjoint(masks, v)))


@pytest.mark.parametrize(
    ("Z", "n_patches", "message"),
    [
        (np.ones(3), 1, "2-D"),
        (np.ones((0, 3)), 1, "2-D"),
        (np.full((2, 2), np.nan), 1, "NaN"),
        (np.ones((3, 2)), 2, "n_patches=2"),
        (np.ones((3, 2)), 0, "n_patches=0"),
    ],
)
def test_bad_input(Z, n_patches, message):
    with pytest.raises(ValueError, match=message):
        DesignMatrix(Z, n_patches)
