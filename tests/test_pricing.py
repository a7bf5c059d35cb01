import cvxpy as cp
import numpy as np
import pytest

from convexbn import BatchNormDesign, DesignMatrix, Patterns, enumerate_patterns, sample_patterns
from convexbn.oracles import (
    most_violated_patterns,
    price_bound,
    price_by_enumeration,
    price_of_gates,
    price_of_pattern,
    price_of_patterns,
)
from convexbn.oracles._of_patterns import _price_of_pattern


def instance(n, d, seed, n_patches=1):
    rng = np.random.default_rng(seed)
    Z = DesignMatrix(BatchNormDesign().fit_transform(rng.standard_normal((n * n_patches, d))), n_patches)
    return Z, rng.standard_normal((n, 1))


def value_of(Z, v, W):
    """v^T relu(Z w) for unit columns of W."""
    return (v.T @ Z.neuron_outputs(W / np.linalg.norm(W, axis=0)))[0]


@pytest.mark.parametrize("n_patches", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_price_of_a_pattern_is_the_optimum_over_its_cone(seed, n_patches):
    Z, v = instance(8, 2, seed, n_patches)
    patterns = sample_patterns(Z, 10, random_state=seed)
    attained = 0
    for i in range(len(patterns)):
        mask = patterns.masks()[:, i]
        price, w = price_of_pattern(Z, mask, v)
        variable = cp.Variable(Z.n_columns)
        cone = cp.multiply(2.0 * mask - 1, Z.Z @ variable) >= 0
        program = cp.Problem(
            cp.Maximize(Z.masked_adjoint(mask[:, None], v)[:, 0] @ variable), [cone, cp.norm(variable) <= 1]
        )
        assert price == pytest.approx(program.solve(solver="CLARABEL"), abs=1e-6)
        if price > 1e-9:
            assert value_of(Z, v, w[:, None])[0] == pytest.approx(price)
            attained += 1
    assert attained >= 2  # or the test says nothing of the direction


@pytest.mark.parametrize("seed", range(5))
def test_largest_price_is_the_largest_of_all_patterns_and_signs(seed):
    Z, v = instance(12, 2, seed)
    patterns = sample_patterns(Z, 40, random_state=seed)
    one_by_one = max(price_of_pattern(Z, mask, sign * v)[0] for mask in patterns.masks().T for sign in (1, -1))
    price = price_of_patterns(Z, patterns, v)
    assert price.value == pytest.approx(one_by_one)
    assert price.scope == "patterns"
    assert abs(value_of(Z, v, price.direction[:, None])[0]) == pytest.approx(price.value)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_enumerated_price_bounds_every_direction_and_is_attained(seed, d):
    Z, v = instance(12, d, seed)
    price = price_by_enumeration(Z, v)
    assert price.scope == "global"
    directions = np.random.default_rng(0).standard_normal((Z.n_columns, 100_000))
    sampled = np.abs(value_of(Z, v, directions)).max()
    assert sampled <= price.value * (1 + 1e-12)
    assert sampled >= 0.9 * price.value
    assert abs(value_of(Z, v, price.direction[:, None])[0]) == pytest.approx(price.value)


@pytest.mark.parametrize("n_patches", [1, 2])
@pytest.mark.parametrize("seed", range(10))
def test_cheap_bound_is_above_the_exact_price_and_not_far(seed, n_patches):
    Z, v = instance(12, 2, seed, n_patches)
    exact, bound = price_by_enumeration(Z, v), price_bound(Z, v)
    assert exact.value * (1 - 1e-12) <= bound.value <= 5 * exact.value
    assert bound.scope == "global"


def test_cheap_bound_is_exact_at_full_row_rank():
    Z, v = instance(7, 9, 0)
    a = np.maximum(v, 0) if np.linalg.norm(np.maximum(v, 0)) > np.linalg.norm(np.maximum(-v, 0)) else np.maximum(-v, 0)
    attained = abs(value_of(Z, v, Z.Z.T @ a)[0])
    assert price_bound(Z, v).value == pytest.approx(attained)


def test_cheap_bound_is_exact_at_full_row_rank_of_weighted_samples():
    rng = np.random.default_rng(0)
    p, v = rng.uniform(0.1, 2, 5), rng.standard_normal((5, 1))
    Z = DesignMatrix(np.linalg.qr(rng.standard_normal((5, 5)))[0] / np.sqrt(p)[:, None])
    a = max(np.maximum(v, 0), np.maximum(-v, 0), key=lambda part: np.linalg.norm(part / np.sqrt(p)[:, None]))
    attained = abs(value_of(Z, v, Z.Z.T @ a)[0])  # the outputs are a / p
    assert price_bound(Z, v, p).value == pytest.approx(attained)


def test_cheap_bound_of_several_outputs_is_above_every_direction():
    rng = np.random.default_rng(0)
    Z, V = instance(12, 3, 0)[0], rng.standard_normal((12, 3))
    W = rng.standard_normal((Z.n_columns, 20_000))
    prices = np.linalg.norm(V.T @ Z.neuron_outputs(W / np.linalg.norm(W, axis=0)), axis=0)
    assert prices.max() <= price_bound(Z, V).value


def test_gated_price_is_the_length_of_the_adjoint_and_above_the_price():
    Z, v = instance(12, 2, 0)
    patterns = sample_patterns(Z, 40, random_state=0)
    lengths = [np.linalg.norm(Z.Z.T @ (mask * v[:, 0])) for mask in patterns.masks().T]
    gated = price_of_gates(Z, patterns, v)
    assert gated.value == pytest.approx(max(lengths))
    assert gated.value >= price_of_patterns(Z, patterns, v).value
    assert np.linalg.norm(gated.direction) == pytest.approx(1)


def test_blocks_give_the_same_prices(monkeypatch):
    Z, v = instance(12, 2, 0)
    patterns = enumerate_patterns(Z)
    at_once = price_of_patterns(Z, patterns, v).value
    monkeypatch.setattr("convexbn.oracles._of_patterns._BLOCK_ENTRIES", 30)
    assert price_of_patterns(Z, patterns, v).value == at_once


def test_dual_point_zero_has_price_zero():
    Z = instance(12, 2, 0)[0]
    zero = np.zeros((12, 1))
    assert price_by_enumeration(Z, zero).value == 0
    assert price_bound(Z, zero).value == 0
    assert price_of_gates(Z, sample_patterns(Z, 5, random_state=0), zero).direction is None


def test_screening_skips_patterns_that_cannot_be_best(monkeypatch):
    Z, v = instance(15, 2, 0)
    patterns = enumerate_patterns(Z)
    visited = []

    def counted(Z, mask, *arguments):
        visited.append(mask)
        return _price_of_pattern(Z, mask, *arguments)

    monkeypatch.setattr("convexbn.oracles._of_patterns._price_of_pattern", counted)
    price_of_patterns(Z, patterns, v)
    assert 0 < len(visited) < 0.5 * 2 * len(patterns)


def test_no_price_of_an_empty_cone():
    Z = DesignMatrix(np.array([[1.0], [1.0]]))
    nowhere = Patterns(np.packbits([[True, False]], axis=1), np.ones((1, 1)), 2)
    assert price_of_patterns(Z, nowhere, np.array([[1.0], [0.0]])).value == pytest.approx(0, abs=1e-12)


def test_patterns_at_the_threshold_are_not_violated():
    Z, v = DesignMatrix(np.eye(2)), np.array([[3.0], [-4.0]])
    patterns = enumerate_patterns(Z)
    prices = [max(price_of_pattern(Z, mask, sign * v)[0] for sign in (1, -1)) for mask in patterns.masks().T]
    assert sorted(prices) == [0, 3, 4, 4]
    for threshold, count in ((0.0, 3), (3.0, 2), (4.0, 0)):
        assert len(most_violated_patterns(Z, patterns, v, threshold, 9)) == count


def test_price_has_room_for_the_rounding_of_large_multipliers():
    # With w_1 >= 0 and w_2 >= 1e6 w_1 the largest of w_3 - w_2 / 2 is 1, and two multipliers of 5e5 say so.
    Z = DesignMatrix(np.array([[1.0, 0.0, 0.0], [-1.0, 1e-6, 0.0], [0.0, 0.0, 1.0]]))
    v = np.array([[-5e5], [-5e5], [1.0]])
    thin = Patterns(np.packbits([[True, True, True]], axis=1), np.array([[0.0], [1.0], [1.0]]), 3)
    assert 1 + 1e6 * np.finfo(float).eps <= price_of_patterns(Z, thin, v).value <= 1 + 1e-6


def test_price_of_all_patterns_has_room_for_cells_that_are_too_narrow_to_be_found():
    Z, v = instance(12, 2, 0)
    patterns = enumerate_patterns(Z)
    found = max(price_of_pattern(Z, mask, sign * v)[0] for mask in patterns.masks().T for sign in (1, -1))
    size = float(np.linalg.norm(Z.rows(), axis=1) @ np.abs(v[:, 0]))
    room = price_of_patterns(Z, patterns, v).value - found
    assert 0.9e-12 * size <= room <= 1.1e-12 * size
