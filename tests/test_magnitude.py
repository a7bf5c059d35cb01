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
    WeightNormDesign,
)
from convexbn._utils.magnitude import power_of_two_above
from convexbn.oracles import price_bound, price_by_ascent

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
