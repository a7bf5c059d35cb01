"""Moments of rows: merged from blocks, against all rows at once in extended precision."""

from functools import reduce

import numpy as np
import pytest

from convexbn.designs._column_ranges import ColumnRanges
from convexbn.designs._moments import Moments, TriangularMoments
from convexbn.designs._row_statistics import RowStatistics

KINDS = [Moments, TriangularMoments]
EPS = np.finfo(float).eps


def data(condition, n=3000, d=6, offset=0.0, seed=0):
    """Rows whose covariance matrix has these extreme standard deviations, 1 and one over the condition number."""
    rng = np.random.default_rng(seed)
    U, _ = np.linalg.qr(rng.standard_normal((n, d)))
    V, _ = np.linalg.qr(rng.standard_normal((d, d)))
    return np.sqrt(n) * U * np.logspace(0, -np.log10(condition), d) @ V.T + offset


def centred(X):
    """The rows minus their mean, rounded once, after the mean in extended precision."""
    rows = X.astype(np.longdouble) - X[0].astype(np.longdouble)
    return (rows - rows.mean(axis=0)).astype(np.float64)


def merged(kind, X, size=170, weights=None):
    blocks = [slice(start, start + size) for start in range(0, len(X), size)]
    return reduce(kind.merge, [kind.of(X[b], None if weights is None else weights[b]) for b in blocks])


def errors(moments, X):
    """Largest relative error of singular values, and distance of the whitened rows' covariance from the identity."""
    rows = centred(X)
    expected = np.linalg.svd(rows / np.sqrt(len(X)), compute_uv=False)
    S, Vt, variance = moments.directions(np.ones(X.shape[1]), None)
    assert variance == pytest.approx(np.sum(expected**2), rel=1e-12)
    white = rows @ (Vt.T / np.maximum(S, np.finfo(float).tiny))
    return np.abs(S / expected - 1).max(), np.abs(white.T @ white / len(X) - np.eye(len(S))).max(), expected


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6, 1e8, 1e10])
def test_accuracy_is_as_stated(condition, dtype, offset):
    X = data(condition, offset=offset).astype(dtype)
    values, white, exact = errors(merged(TriangularMoments, X), X)
    ratio = exact[0] / exact[-1]  # rounding of the data to single precision or at an offset lowers it
    assert max(values, white) < 100 * EPS * ratio
    if ratio < 1e7:  # beyond it small directions of second moments are rounding
        values, white, _ = errors(merged(Moments, X), X)
        assert max(values, white) < 100 * EPS * ratio**2


def test_second_moments_square_the_condition_and_triangular_factors_do_not():
    X = data(1e6)
    assert errors(merged(Moments, X), X)[0] > 1e4 * errors(merged(TriangularMoments, X), X)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_weighted_moments_are_those_of_repeated_rows(kind):
    X, counts = data(10.0, n=400, offset=5.0), np.random.default_rng(1).integers(1, 5, 400)
    one, other = merged(kind, X, 70, counts.astype(float)), kind.of(np.repeat(X, counts, axis=0))
    assert one.weight == other.weight == counts.sum()
    scale = np.ones(6)
    for found, expected in [
        (one.mean, np.average(X, axis=0, weights=counts)),
        (one.std, np.repeat(X, counts, axis=0).std(axis=0)),
        (one.projected(scale, np.eye(6))[1], np.cov(X.T, fweights=counts, bias=True)),
        (one.projected(scale, np.eye(6))[0], one.mean - 1),
        (one.directions(scale, None)[1], other.directions(scale, None)[1]),
    ]:
        assert np.abs(found - expected).max() < 1e-12 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_about_another_point(kind):
    X, point = data(10.0, n=400, offset=3.0), np.arange(6.0)
    moments = merged(kind, X).about(point)
    expected = np.linalg.svd((X - point) / 20, compute_uv=False)
    assert moments.directions(np.ones(6), None)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_order_does_not_matter_and_no_rows_are_neutral(kind):
    X, rng = data(1e3, offset=1e4), np.random.default_rng(2)
    parts = [kind.of(part) for part in np.split(X, np.sort(rng.integers(0, len(X), 20)))]
    assert not all(part.weight for part in [*parts, kind.of(X[:0])])
    forward = reduce(kind.merge, [kind.of(X[:0]), *parts, kind.of(X[:0])])
    order = rng.permutation(len(parts))
    pairs = [parts[i] for i in order]
    while len(pairs) > 1:  # a tree
        pairs = [reduce(kind.merge, pairs[i : i + 2]) for i in range(0, len(pairs), 2)]
    (tree,) = pairs
    assert forward.weight == tree.weight == len(X)
    assert np.abs(forward.mean - tree.mean).max() < 1e-11
    one, other = (moments.directions(np.ones(6), None) for moments in (forward, tree))
    assert np.abs(one[0] / other[0] - 1).max() < (1e-9 if kind is Moments else 1e-12)
    assert np.abs(one[1] - other[1]).max() < 1e-7


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_rows_than_columns(kind):
    X = np.random.default_rng(3).standard_normal((5, 8))
    S, Vt, _ = merged(kind, X, 2).directions(np.ones(8), None)
    expected = np.linalg.svd(centred(X) / np.sqrt(5), full_matrices=False)
    assert S[:4] == pytest.approx(expected[1][:4], rel=1e-12)
    assert (S[4:] < 1e-7).all()
    assert np.abs(np.abs(np.sum(Vt[:4] * expected[2][:4], axis=1)) - 1).max() < 1e-12


def test_constant_columns_are_those_of_the_whole():
    rng = np.random.default_rng(4)
    rounded = 0.1 + 1e-9 * rng.standard_normal(300)
    columns = {
        "varies": rng.standard_normal(300),
        "constant": np.full(300, 0.1),
        "rounded": rounded,
        "rounded in single precision": (rounded + 1e-8 * rng.standard_normal(300)).astype(np.float32),
        "integers": 1e7 + rng.integers(0, 2, 300),
        "constant in a block": np.repeat([1.0, 1.0 + 1e-6, 2.0], 100),
    }
    X = np.column_stack(list(columns.values()))
    whole = ColumnRanges.of(X)
    parts = reduce(ColumnRanges.merge, [ColumnRanges.of(X[start : start + 100]) for start in range(0, 300, 100)])
    assert np.array_equal(whole.ranges, parts.ranges)
    assert (whole.ranges > 0).tolist() == [True, False, True, False, True, True]


def test_rows_of_weight_zero_are_no_rows():
    X = data(10.0, n=50)
    X[0, 0] = 1e9
    weights = np.ones(50)
    weights[0] = 0
    statistics = RowStatistics.of(X, weights)
    assert statistics.n_rows == 49
    assert statistics.std == pytest.approx(X[1:].std(axis=0), rel=1e-12)
    assert RowStatistics.of(X[:1], weights[:1]) is None


def test_squares_must_be_floats():
    X = data(10.0, n=50)
    X[:, 2] *= 1e200
    with np.errstate(over="ignore", invalid="ignore"):
        statistics = RowStatistics.of(X)
    with pytest.raises(ValueError, match="Column 2 of X has a range of"):
        _ = statistics.std
