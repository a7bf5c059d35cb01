import tracemalloc

import numpy as np
import pytest

from convexbn import DesignMatrix
from convexbn.model._outputs import output_directions
from convexbn.oracles import find_local_maxima, price_by_ascent, price_by_enumeration
from convexbn.oracles._ascent import _ascend_block


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
    maxima = find_local_maxima(Z, v, rng.standard_normal((3, 300)), count=6)
    assert 2 <= len(maxima) <= 6
    assert (np.diff(maxima.prices) <= 0).all()
    for direction, sign, price in zip(maxima.directions.T, maxima.output_directions, maxima.prices, strict=True):
        near = direction[:, None] + 1e-4 * rng.standard_normal((3, 200))
        near /= np.linalg.norm(near, axis=0)
        assert (sign * v.T @ Z.neuron_outputs(near) <= price * (1 + 1e-12)).all()
    larger = find_local_maxima(Z, v, rng.standard_normal((3, 300)), threshold=maxima.prices[1], count=6)
    assert (larger.prices > maxima.prices[1]).all()


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_without_polish_directions_are_close_to_maxima(n_outputs):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        Z, v = DesignMatrix(rng.standard_normal((60, 3))), rng.standard_normal((60, n_outputs))
        starts = rng.standard_normal((3, 40))
        coarse, fine = (find_local_maxima(Z, v, starts, polish=polish).prices[0] for polish in (False, True))
        assert (1 - 1e-3) * fine <= coarse <= fine * (1 + 1e-6)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_starts_ascend_on_their_own(n_outputs):
    rng = np.random.default_rng(0)
    Z, v = DesignMatrix(rng.standard_normal((30, 4))).in_single_precision, rng.standard_normal((30, n_outputs))
    outputs, pace = output_directions(n_outputs), np.ones((2, 6), dtype=np.float32)
    w, c = outputs.starts(rng.standard_normal((4, 6)))
    arrays = [array[:, :6].astype(np.float32) for array in (w / np.linalg.norm(w, axis=0), c, pace)]
    together, prices = _ascend_block(Z, v.astype(np.float32), outputs, *arrays, range(8), None)
    for j in range(6):
        one = [array[:, [j]] for array in arrays]
        alone, price = _ascend_block(Z, v.astype(np.float32), outputs, *one, range(8), None)
        np.testing.assert_allclose(alone[:, 0], together[:, j], atol=1e-3)
        assert price[0] == pytest.approx(prices[j], rel=1e-4)


def test_nothing_to_find():
    Z, v = instance(10, 2, 0)
    assert price_by_ascent(Z, 0 * v, random_state=0).value == 0
    assert len(find_local_maxima(Z, v, np.ones((2, 3)), threshold=1e9)) == 0


def test_more_columns_than_rows_are_searched_in_the_space_of_the_rows():
    rng = np.random.default_rng(0)
    small, v = instance(5, 3, 0)
    rotation = np.linalg.qr(rng.standard_normal((40, 3)))[0]
    wide = DesignMatrix(small.Z @ rotation.T)
    maxima = find_local_maxima(wide, v, rng.standard_normal((40, 200)))
    np.testing.assert_allclose(maxima.prices[0], price_by_enumeration(small, v).value)
    np.testing.assert_allclose(np.linalg.norm(rotation.T @ maxima.directions, axis=0), 1)
    np.testing.assert_allclose(
        np.abs(v.T @ wide.neuron_outputs(maxima.directions))[0], maxima.prices, rtol=1e-9, atol=1e-12
    )


def test_polishing_takes_no_matrix_of_the_columns_of_each_direction():
    Z, v = instance(60, 1500, 0)
    starts = np.random.default_rng(0).standard_normal((1500, 100))
    tracemalloc.start()
    find_local_maxima(Z, v, starts, count=20)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert memory < 0.1 * (60 * 1500**2 * 8)  # of sixty of them at once


def test_a_search_that_is_stopped_returns_what_it_has():
    Z, v = instance(100, 20, 0)
    starts = np.random.default_rng(0).standard_normal((20, 300))
    calls = []

    def stop():
        calls.append(0)
        return len(calls) > 5

    maxima = find_local_maxima(Z, v, starts, stop=stop)
    assert len(maxima) > 0
    assert len(calls) < 15
    assert maxima.prices[0] < find_local_maxima(Z, v, starts).prices[0]
    np.testing.assert_allclose(
        np.abs(v.T @ Z.neuron_outputs(maxima.directions))[0], maxima.prices, rtol=1e-5
    )  # of the ascent, in single precision


@pytest.mark.parametrize(
    ("v", "starts", "message"),
    [
        (np.full((5, 1), np.nan), np.ones((2, 3)), "v must be a finite array"),
        (np.ones((4, 1)), np.ones((2, 3)), r"shape \(5, C\)"),
        (np.ones((5, 1)), np.ones((3, 3)), "directions of 2 entries"),
        (np.ones((5, 1)), np.zeros((2, 3)), "none of them zero"),
    ],
)
def test_what_is_no_dual_point_or_no_direction_is_named(v, starts, message):
    Z = DesignMatrix(np.random.default_rng(0).standard_normal((5, 2)))
    with pytest.raises(ValueError, match=message):
        find_local_maxima(Z, v, starts)


def test_starts_across_the_rows_of_a_wide_matrix_are_left_out():
    Z = DesignMatrix(np.array([[1.0, 0.0, 0.0]]))
    found = find_local_maxima(Z, np.ones((1, 1)), np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]))
    np.testing.assert_allclose(found.directions, [[1.0], [0.0], [0.0]])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_start_ascends_with_both_signs(count):
    directions = np.random.default_rng(0).standard_normal((3, count))
    w, c = output_directions(1).starts(directions)
    pairs = {(*direction, sign) for direction, sign in zip(w.T, c[0], strict=True)}
    assert pairs == {(*direction, sign) for direction in directions.T for sign in (1.0, -1.0)}


@pytest.mark.parametrize("unit", [1e-120, 1.0, 1e120])
def test_prices_and_thresholds_are_in_the_unit_of_the_rows(unit):
    Z, v = instance(14, 2, 0)
    starts = np.random.default_rng(1).standard_normal((2, 100))
    known = find_local_maxima(Z, v, starts)
    found = find_local_maxima(DesignMatrix(Z.Z * unit), v, starts, threshold=known.prices[1] * unit * (1 + 1e-6))
    assert len(known) > 1
    np.testing.assert_allclose(found.prices, known.prices[:1] * unit, rtol=1e-8)
