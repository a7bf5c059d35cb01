import tracemalloc
from itertools import combinations, product
from math import comb, factorial

import numpy as np
import pytest
from scipy.optimize import linprog

from convexbn import count_patterns, enumerate_patterns, sample_patterns


def brute_force(Z):
    """All sign vectors s with a direction g such that s * (Z g) > 0 off the zero rows of Z.

    The first signs of such a vector have that direction, too: signs are appended one at a time.
    """
    nonzero = Z.any(axis=1)
    rows, found = Z[nonzero], [[]]
    for _ in rows:
        longer = [[*signs, sign] for signs in found for sign in (1.0, -1.0)]
        found = [signs for signs in longer if margin(np.array(signs)[:, None] * rows[: len(signs)]) > 1e-9]
    masks = np.ones((len(found), len(Z)), dtype=bool)
    masks[:, nonzero] = np.array(found) > 0
    return {mask.tobytes() for mask in masks}


def margin(A):
    """The largest t with A g >= t and the entries of g in [-1, 1]."""
    k = A.shape[1]
    result = linprog(
        np.r_[np.zeros(k), -1], A_ub=np.hstack([-A, np.ones((len(A), 1))]), b_ub=np.zeros(len(A)),
        bounds=[(-1, 1)] * k + [(None, 1)],
    )  # fmt: skip
    return -result.fun


def as_set(patterns):
    return {column.tobytes() for column in np.ascontiguousarray(patterns.masks().T)}


@pytest.mark.parametrize(("n", "k"), [(30, 2), (9, 2), (25, 3), (15, 3), (14, 4), (11, 5), (3, 5), (4, 1)])
def test_count_in_general_position(n, k):
    Z = np.random.default_rng(n).standard_normal((n, k))
    patterns = enumerate_patterns(Z)
    rank = min(n, k)
    n_hyperplanes = n if k > 1 else 1
    expected = 2 * sum(comb(n_hyperplanes - 1, i) for i in range(rank))
    assert len(patterns) == expected == count_patterns(Z)
    assert len(as_set(patterns)) == len(patterns)
    assert patterns.complete


def degenerate():
    rng = np.random.default_rng(0)
    base = rng.standard_normal((7, 3))
    grid = np.array(list(product((-1.0, 0.0, 1.0), repeat=2)))
    yield "duplicated rows", np.vstack([base, base[:3]])
    yield "antipodal and scaled rows", np.vstack([base, -2 * base[:3]])
    yield "zero rows", np.vstack([base, np.zeros((2, 3))])
    yield "rank deficient", base[:, :2] @ rng.standard_normal((2, 3))
    yield "collinear points", np.hstack([np.arange(7.0)[:, None] * [1.0, 2.0], np.ones((7, 1))])
    yield "grid", np.hstack([grid, np.ones((9, 1))])
    yield "many planes through a line in 4-D", np.hstack([np.vstack([grid, grid[:2]]), rng.standard_normal((11, 2))])
    yield "cube in 4-D", np.hstack([np.array(list(product((-1.0, 1.0), repeat=3))), np.ones((8, 1))])
    yield "binary columns in 5-D", rng.integers(0, 2, (8, 5)).astype(float)
    yield "coordinate and diagonal hyperplanes", np.array(list(product((-1.0, 0.0, 1.0), repeat=3)))[:13]


@pytest.mark.parametrize("Z", [pytest.param(Z, id=name) for name, Z in degenerate()])
def test_enumeration_equals_brute_force_on_degenerate_data(Z):
    patterns = enumerate_patterns(Z)
    assert as_set(patterns) == brute_force(Z)
    assert len(patterns) <= count_patterns(Z)
    nonzero = Z.any(axis=1)
    np.testing.assert_array_equal((Z @ patterns.directions >= 0)[nonzero], patterns.masks()[nonzero])


@pytest.mark.parametrize("k", [3, 5, 7])
def test_orders_of_numbers_are_the_patterns_of_their_differences(k):
    """Braid arrangement: the hyperplanes in which two coordinates are equal, k! cells."""
    differences = np.array([np.eye(k)[i] - np.eye(k)[j] for i, j in combinations(range(k), 2)])
    patterns = enumerate_patterns(differences)
    assert len(patterns) == factorial(k)
    assert patterns.complete
    np.testing.assert_array_equal(differences @ patterns.directions >= 0, patterns.masks())


@pytest.mark.parametrize("k", [2, 4, 5])
def test_signed_orders_are_the_patterns_of_sums_and_differences(k):
    """Arrangement of type B: also the hyperplanes in which a coordinate, or a sum of two, is zero; 2^k k! cells."""
    pairs = [np.eye(k)[i] + sign * np.eye(k)[j] for i, j in combinations(range(k), 2) for sign in (-1, 1)]
    assert len(enumerate_patterns(np.vstack([pairs, np.eye(k)]), max_patterns=200_000)) == 2**k * factorial(k)


def test_sampled_patterns_are_among_all_patterns():
    Z = np.random.default_rng(0).standard_normal((12, 3))
    everything, sample = enumerate_patterns(Z), sample_patterns(Z, 60_000, random_state=1)
    assert as_set(sample) <= as_set(everything)
    assert len(sample) > 0.9 * len(everything)
    assert not sample.complete


def test_directions_have_their_patterns():
    Z = np.random.default_rng(0).standard_normal((40, 6))
    for patterns in (sample_patterns(Z, 200, random_state=0), enumerate_patterns(Z[:12])):
        np.testing.assert_array_equal(Z[: patterns.n_rows] @ patterns.directions >= 0, patterns.masks())


def test_sample_is_deterministic_distinct_and_a_longer_one_begins_with_a_shorter_one():
    Z = np.random.default_rng(0).standard_normal((6, 3))
    short, long = sample_patterns(Z, 40, random_state=3), sample_patterns(Z, 9000, random_state=3)
    assert len(as_set(long)) == len(long)
    np.testing.assert_array_equal(long.packed[: len(short)], short.packed)
    np.testing.assert_array_equal(long.directions[:, : len(short)], short.directions)


def test_masks_of_a_choice():
    patterns = sample_patterns(np.random.default_rng(0).standard_normal((21, 3)), 30, random_state=0)
    chosen = np.array([4, 1])
    np.testing.assert_array_equal(patterns.masks(chosen), patterns.masks()[:, chosen])


def test_budget_is_checked_before_any_work():
    Z = np.random.default_rng(0).standard_normal((400, 8))
    expected = 2 * sum(comb(399, i) for i in range(8))
    with pytest.raises(ValueError, match=f"up to {expected} activation patterns, more than max_patterns=1000"):
        enumerate_patterns(Z, max_patterns=1000)


def test_hundred_thousand_patterns_of_ten_thousand_samples_fit_in_130_megabytes():
    Z = np.random.default_rng(0).standard_normal((10_000, 4))
    tracemalloc.start()
    patterns = sample_patterns(Z, 100_000, random_state=0)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(patterns) == 100_000
    assert held <= 130e6
    assert peak <= 260e6


def test_bad_input():
    with pytest.raises(ValueError, match="n_directions"):
        sample_patterns(np.eye(2), 0)
    with pytest.raises(ValueError, match="n_directions"):
        sample_patterns(np.eye(2), 2.5)
    with pytest.raises(ValueError, match="all zero"):
        enumerate_patterns(np.zeros((3, 2)))


def test_patterns_do_not_depend_on_units_of_rows_and_columns():
    rng = np.random.default_rng(0)
    Z = np.hstack([rng.standard_normal((12, 2)), np.ones((12, 1))])
    scaled = Z * np.array([1e10, 1.0, 1e-10]) * 10.0 ** rng.integers(-8, 8, (12, 1))
    assert as_set(enumerate_patterns(scaled)) == as_set(enumerate_patterns(Z))
    np.testing.assert_array_equal(
        scaled @ enumerate_patterns(scaled).directions >= 0, enumerate_patterns(scaled).masks()
    )


@pytest.mark.parametrize("distance", [1e-10, 1e-11])
def test_patterns_that_rounding_decides_are_not_called_complete(distance):
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((8, 3))
    assert enumerate_patterns(np.vstack([Z, Z[:2]])).complete
    assert not enumerate_patterns(np.vstack([Z, Z[:2] + distance * rng.standard_normal((2, 3))])).complete
    nearly_flat = np.hstack([Z[:, :2], Z[:, :1] + distance * Z[:, 2:]])
    assert not enumerate_patterns(nearly_flat).complete


@pytest.mark.parametrize(("n", "k", "seed"), [(4, 3, 200), (5, 4, 154), (6, 3, 66), (8, 4, 106)])
def test_rows_whose_hyperplanes_merge_until_they_no_longer_span(n, k, seed):
    rng = np.random.default_rng(seed)
    patterns = enumerate_patterns(rng.standard_normal(k) + 1e-9 * rng.standard_normal((n, k)))
    assert not patterns.complete
    assert len(as_set(patterns)) == len(patterns) >= 2


def test_multiples_of_a_row_are_one_hyperplane_whatever_their_direction():
    """In whose coordinates the last four are across the direction that tells sides apart, where signs are rounding."""
    Z = np.array([[2, 0], [1, 2], [-2, 0], [0, -1], [0, 0], [0, 2], [2, 1], [1, 2], *[[0, 0]] * 4], dtype=float)
    Z[8:] = np.array([[-1], [1], [-3], [7]]) * [1, 0.42899193458834595]
    patterns = enumerate_patterns(Z)
    assert len(patterns) == len(as_set(patterns)) == 10


@pytest.mark.parametrize("seed", [0, 4])
def test_an_enumeration_that_left_a_pattern_out_is_not_complete(seed):
    """Of hyperplanes that are clearly distinct, and directions as near to three of them as rounding."""
    Z = np.random.default_rng(seed).standard_normal((4, 4))
    Z = np.vstack([Z, [0.6, 0.3, 5e-9, 0] @ Z])
    patterns = enumerate_patterns(Z)
    assert not patterns.complete
    assert len(as_set(patterns)) == len(patterns) < count_patterns(Z) == 30


def test_cells_narrower_than_rounding_are_left_out():
    """So that a gate is what its direction makes of the rows, and the network the one that is certified."""
    t = 2.8367e-9
    near = [[0, 0, 0, 0], [0, -t, t, t], [-t, -t, 0, t], [-t, 0, t, t], [-t, -t, t, t]]
    far = [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 1], [-1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 1, 0]]
    Z = np.hstack([np.vstack([np.add(near, [1, 1, 0, 0]), np.add(far, [1, 0, 0, 0])]), np.ones((11, 1))])
    patterns = enumerate_patterns(Z)
    assert not patterns.complete
    assert len(as_set(patterns)) == len(patterns)
    np.testing.assert_array_equal(Z @ patterns.directions >= 0, patterns.masks())


@pytest.mark.parametrize("seed", [1, 2, 7])
def test_patterns_are_those_of_their_directions_in_whatever_order_products_are_summed(seed):
    """Of near duplicates and their negatives, some of whose cells are as narrow as rounding."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((4, 4))
    rows = np.vstack([base, base[:3] + 1e-9 * rng.standard_normal((3, 4))])
    Z = np.hstack([np.vstack([rows, -rows]), np.ones((14, 1))])
    patterns = enumerate_patterns(Z)
    assert not patterns.complete
    products = (Z.astype(np.longdouble)[:, :, None] * patterns.directions).sum(axis=1)
    np.testing.assert_array_equal(products >= 0, patterns.masks())
    np.testing.assert_array_equal(Z[:, ::-1] @ patterns.directions[::-1] >= 0, patterns.masks())
