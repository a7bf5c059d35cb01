"""Properties that hold for any data, searched by hypothesis."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convexbn import (
    BatchNormDesign,
    ConvexBNRegressor,
    Problem,
    count_patterns,
    enumerate_patterns,
    sample_patterns,
    solve_reference,
)
from convexbn.losses import LOSSES
from tests.problems import ONE_OUTPUT

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=15, deadline=None, derandomize=True)


def data(seed, n=9, d=2):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return rng, X, np.abs(X[:, 0]) + rng.standard_normal(n)


def optimum(X, y, weight_decay=0.05, loss="squared_error", fit_intercept=True):
    Z = BatchNormDesign().fit_transform(X)
    problem = Problem(Z, y, loss, weight_decay=weight_decay, fit_intercept=fit_intercept)
    return solve_reference(problem, enumerate_patterns(Z))


@few
@given(seeds, st.floats(1e-3, 1e3))
def test_scaling_targets_scales_the_solution(seed, scale):
    _, X, y = data(seed)
    plain, scaled = optimum(X, y), optimum(X, scale * y, 0.05 * scale)
    assert scaled.certificate.objective == pytest.approx(scale**2 * plain.certificate.objective, rel=1e-6)
    np.testing.assert_allclose(scaled.dual, scale * plain.dual, atol=1e-4 * scale)


@few
@given(seeds)
def test_shifting_targets_changes_nothing_under_an_intercept(seed):
    _, X, y = data(seed)
    assert optimum(X, y + 100).certificate.objective == pytest.approx(optimum(X, y).certificate.objective, rel=1e-6)


@few
@given(seeds)
def test_permuting_rows_changes_nothing(seed):
    rng, X, y = data(seed)
    order = rng.permutation(len(y))
    new = rng.standard_normal((5, 2))
    plain, permuted = (ConvexBNRegressor(0.05).fit(X[i], y[i]) for i in (np.arange(len(y)), order))
    assert permuted.certificate_.objective == pytest.approx(plain.certificate_.objective, rel=1e-6)
    np.testing.assert_allclose(permuted.predict(X), plain.predict(X), atol=1e-3)
    assert permuted.predict(new).shape == (5,)


@few
@given(seeds, st.floats(-3, 3))
def test_rescaling_rotating_and_moving_the_data_changes_nothing_under_batch_normalization(seed, exponent):
    rng, X, y = data(seed)
    rotation = np.linalg.qr(rng.standard_normal((2, 2)))[0]
    moved = X * [10**exponent, 1.0] @ rotation + 7
    assert optimum(moved, y).certificate.objective == pytest.approx(optimum(X, y).certificate.objective, rel=1e-6)


@few
@given(seeds, st.sampled_from(ONE_OUTPUT), st.booleans())
def test_gated_optimum_is_no_higher_than_relu_on_the_same_patterns(seed, loss, fit_intercept):
    _, X, y = data(seed)
    Z = BatchNormDesign().fit_transform(X)
    y = np.where(y > np.median(y), 1.0, -1.0) if LOSSES[loss].margin else y
    problem = Problem(Z, y, loss, weight_decay=0.05, fit_intercept=fit_intercept)
    patterns = sample_patterns(Z, 8, random_state=0)
    relu, gated = (solve_reference(problem, patterns, activation=a).certificate for a in ("relu", "gated_relu"))
    assert gated.objective <= relu.objective * (1 + 1e-6)


@few
@given(seeds)
def test_optimum_never_rises_with_more_patterns_or_less_weight_decay(seed):
    _, X, y = data(seed)
    Z = BatchNormDesign().fit_transform(X)
    problem = Problem(Z, y, weight_decay=0.1)
    few_patterns, many = (sample_patterns(Z, count, random_state=0) for count in (5, 40))
    objectives = [
        solve_reference(problem, p).certificate.objective for p in (few_patterns, many, enumerate_patterns(Z))
    ]
    objectives.append(solve_reference(replace(problem, weight_decay=0.05), enumerate_patterns(Z)).certificate.objective)
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in pairwise(objectives))


@few
@given(seeds)
def test_lower_bound_never_exceeds_the_objective_of_any_network(seed):
    rng, X, y = data(seed)
    solution = optimum(X, y, fit_intercept=False)
    problem = Problem(BatchNormDesign().fit_transform(X), y, weight_decay=0.05)
    for size in (1e-6, 1e-3, 1.0):
        S = solution.neurons.weights
        nearby = replace(solution.neurons, weights=S + size * rng.standard_normal(S.shape))
        assert solution.certificate.lower_bound <= problem.objective(nearby)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seeds, st.integers(1, 12), st.integers(1, 4), st.integers(1, 3))
def test_enumeration_on_small_integers_agrees_with_dense_sampling(seed, n, k, largest):
    rng = np.random.default_rng(seed)
    Z = rng.integers(-largest, largest + 1, (n, k)).astype(float)
    if not Z.any():
        return
    patterns = enumerate_patterns(Z)
    found = {mask.tobytes() for mask in np.ascontiguousarray(patterns.masks().T)}
    sampled = {mask.tobytes() for mask in np.ascontiguousarray(sample_patterns(Z, 20_000, random_state=0).masks().T)}
    assert sampled <= found
    assert len(found) == len(patterns) <= count_patterns(Z)
    np.testing.assert_array_equal(Z @ patterns.directions >= -1e-12, patterns.masks())
