"""Data and targets in units far from one."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from convexbn import (
    BatchNormDesign,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    ConvexBNRegressorCV,
    DesignMatrix,
    Problem,
    WeightNormDesign,
    sample_patterns,
    solve_gated,
)
from convexbn._utils.magnitude import power_of_two_above
from convexbn.datasets import make_teacher
from convexbn.oracles import price_bound, price_by_ascent
from convexbn.solvers.gated._path import gated_path

FAR = [2.0**-450, 2.0**-100, 2.0**100, 2.0**450]


def data(n=30):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 2))
    return X, X[:, 0] + np.maximum(X[:, 1], 0)


def test_power_of_two_above():
    assert power_of_two_above(np.array([0.3, -5.0])) == 8
    assert power_of_two_above(np.zeros(2)) == 1
    assert power_of_two_above(np.array([0, 255], dtype=np.uint8)) == 256


@pytest.mark.parametrize("unit_of_v", FAR)
@pytest.mark.parametrize("unit_of_Z", FAR)
def test_prices_do_not_depend_on_units(unit_of_Z, unit_of_v):
    rng = np.random.default_rng(0)
    Z, v = rng.standard_normal((40, 3)), rng.standard_normal((40, 1))
    far = DesignMatrix(unit_of_Z * Z), unit_of_v * v
    for price in (price_bound, lambda Z, v: price_by_ascent(Z, v, n_starts=50, random_state=0)):
        value = price(DesignMatrix(Z), v).value
        assert value > 1
        assert price(*far).value / unit_of_Z / unit_of_v == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("unit", [2.0**-400, 2.0**450])
def test_targets_in_far_units(unit):
    X, y = data()
    near, far = (ConvexBNRegressor(0.1 * u).fit(X, u * y) for u in (1, unit))
    np.testing.assert_allclose(far.predict(X) / unit, near.predict(X), rtol=1e-10)
    near, far = (ConvexBNRegressorCV(n_weight_decays=2, eps=0.1, cv=2, tol=1).fit(X, u * y) for u in (1, unit))
    np.testing.assert_allclose(far.weight_decays_ / unit, near.weight_decays_, rtol=1e-10)


def test_weight_normalization_of_large_data():
    X, y = data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = ConvexBNRegressor(normalization="weight").fit(2.0**450 * X, y)
    assert model.score(2.0**450 * X, y) > 0.99


def test_columns_of_subnormal_spread_are_constant():
    X, _ = data()
    design = BatchNormDesign().fit(np.column_stack([X, 1e-310 * X[:, 0]]))
    np.testing.assert_array_equal(design.whitening_[2], 0)
    with pytest.raises(ValueError, match="equal"):
        BatchNormDesign().fit(1e-310 * X)


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_data_whose_squares_are_no_floats(unit):
    X, y = data(12)
    with pytest.raises(ValueError, match="absolute value of y"):
        ConvexBNRegressor().fit(X, unit * y)
    with pytest.raises(ValueError, match="absolute value of X"):
        WeightNormDesign().fit(unit * X)
    with pytest.raises(ValueError, match="absolute value of X"):
        ConvexBNConvRegressor().fit(unit * np.random.default_rng(0).standard_normal((12, 1, 4, 4)), y)
    assert ConvexBNRegressor(0.1).fit(unit * X, y).score(unit * X, y) > 0.8


@pytest.mark.parametrize("scale", [1e150, 1e-150])
@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("n", [30, 4])  # by working sets, and by an interior point
def test_gated_networks_at_the_ends_of_the_range_of_floats(scale, n_outputs, n):
    X, y = make_teacher(30, 3, random_state=0)
    Z, Y = BatchNormDesign().fit_transform(X)[:n], np.column_stack([y, X[:, 0]])[:n, :n_outputs]
    patterns = sample_patterns(Z, 60, random_state=0)
    usual, extreme = (Problem(Z, unit * Y, weight_decay=0.05 * unit, fit_intercept=True) for unit in (1.0, scale))
    expected, found = solve_gated(usual, patterns), solve_gated(extreme, patterns)
    assert found.certificate.objective / scale**2 == pytest.approx(expected.certificate.objective, rel=2e-6)
    again = solve_gated(extreme, patterns, start=found.neurons)
    assert again.n_iter <= 1
    along = gated_path(extreme, patterns, [0.1 * scale, 0.07 * scale, 0.05 * scale])
    assert [solution.certificate.objective for solution in along][-1] / scale**2 == pytest.approx(
        expected.certificate.objective, rel=2e-6
    )
