import numpy as np
import pytest

from convexbn import DesignMatrix
from convexbn.pricing import find_peaks, price_by_ascent, price_by_enumeration


def instance(n, k, seed, n_patches=1):
    rng = np.random.default_rng(seed)
    return DesignMatrix(rng.standard_normal((n * n_patches, k)), n_patches), rng.standard_normal((n, 1))


@pytest.mark.parametrize("n_patches", [1, 2])
@pytest.mark.parametrize("seed", range(8))
def test_finds_the_largest_price_of_small_instances(seed, n_patches):
    Z, v = instance(14, 2 + seed % 2, seed, n_patches)
    price = price_by_ascent(Z, v, random_state=0)
    assert price.scope == "local"
    assert price.value == pytest.approx(price_by_enumeration(Z, v).value, rel=1e-8)
    assert np.linalg.norm(price.direction) == pytest.approx(1)
    assert abs(v.T @ Z.neuron_outputs(price.direction[:, None])).item() == pytest.approx(price.value)


def test_peaks_are_distinct_local_maxima_in_falling_order():
    Z, v = instance(30, 3, 0)
    rng = np.random.default_rng(1)
    peaks = find_peaks(Z, v, rng.standard_normal((3, 300)), count=6)
    assert 2 <= len(peaks) <= 6
    assert (np.diff(peaks.prices) <= 0).all()
    for direction, sign, price in zip(peaks.directions.T, peaks.output_directions, peaks.prices, strict=True):
        near = direction[:, None] + 1e-4 * rng.standard_normal((3, 200))
        near /= np.linalg.norm(near, axis=0)
        assert (sign * v.T @ Z.neuron_outputs(near) <= price * (1 + 1e-12)).all()
    dearer = find_peaks(Z, v, rng.standard_normal((3, 300)), threshold=peaks.prices[1], count=6)
    assert (dearer.prices > peaks.prices[1]).all()


def test_nothing_to_find():
    Z, v = instance(10, 2, 0)
    assert price_by_ascent(Z, 0 * v, random_state=0).value == 0
    assert len(find_peaks(Z, v, np.ones((2, 3)), threshold=1e9)) == 0
