"""L-BFGS beside that of SciPy."""

import numpy as np
import pytest
from scipy.optimize import minimize

from convexbn.solvers.relu._lbfgs import lbfgs


def quadratic(size, condition):
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((size, size)))[0]
    H = basis @ (np.geomspace(1, condition, size)[:, None] * basis.T)
    target = rng.standard_normal(size)
    return lambda x: (float((x - target) @ H @ (x - target)) / 2 + 1, H @ (x - target)), np.zeros(size)


def logistic(n, size):
    rng = np.random.default_rng(1)
    A, signs = rng.standard_normal((n, size)) * np.geomspace(0.1, 10, size), rng.choice([-1, 1], n)

    def value(x):
        margins = signs * (A @ x)
        slopes = -signs * np.exp(-np.logaddexp(0, margins)) / n
        return float(np.logaddexp(0, -margins).mean() + 1e-3 * x @ x / 2), A.T @ slopes + 1e-3 * x

    return value, np.zeros(size)


@pytest.mark.parametrize(
    "problem", [quadratic(5, 10), quadratic(60, 1e4), logistic(50, 4), logistic(200, 40)], ids=["2", "60", "4", "40"]
)
def test_minimum_is_that_of_scipy(problem):
    function, start = problem
    options = {"maxiter": 5000, "maxfun": 10_000, "ftol": 1e-16, "gtol": 1e-12}
    expected = minimize(function, start, jac=True, method="L-BFGS-B", options=options)
    found = lbfgs(function, start, max_steps=5000, ftol=1e-16)
    assert function(found)[0] == pytest.approx(expected.fun, rel=1e-9)
    np.testing.assert_allclose(found, expected.x, atol=1e-3)


def test_evaluations_are_about_as_many_as_those_of_scipy():
    """Of a memory of the same length, with a problem that takes many times as many steps."""
    function, start = quadratic(200, 1e4)
    options = {"maxiter": 5000, "maxfun": 10_000, "maxcor": 30, "ftol": 1e-12, "gtol": 0}
    expected = minimize(function, start, jac=True, method="L-BFGS-B", options=options)
    calls = []

    def counted(x):
        calls.append(None)
        return function(x)

    found = lbfgs(counted, start, max_steps=5000, ftol=1e-12)
    assert function(found)[0] == pytest.approx(expected.fun, rel=1e-8)
    assert 100 < len(calls) < 1.3 * expected.nfev


def test_value_falls_with_the_steps_and_ends_where_it_is_told():
    function, start = logistic(100, 20)
    values = [function(lbfgs(function, start, max_steps=steps, ftol=0))[0] for steps in (0, 1, 3, 10, 40)]
    assert (np.diff(values) < 0).all()
    calls = []

    def third():
        calls.append(None)
        return len(calls) == 3

    stopped = lbfgs(function, start, max_steps=100, ftol=0, stop=third)
    np.testing.assert_array_equal(stopped, lbfgs(function, start, max_steps=3, ftol=0))
    coarse = lbfgs(function, start, max_steps=1000, ftol=1e-2)
    assert values[-1] < function(coarse)[0] < values[1]
    seen = []

    def fifth(objectives):
        seen[:] = objectives
        return len(objectives) == 6

    ended = lbfgs(function, start, max_steps=100, ftol=0, enough=fifth)
    np.testing.assert_array_equal(ended, lbfgs(function, start, max_steps=5, ftol=0))
    assert (seen[0], seen[-1]) == (function(start)[0], function(ended)[0])
    assert (np.diff(seen) < 0).all()


def test_directions_of_negative_curvature_are_no_obstacle():
    def value(x):
        return float(np.sum(x**4 / 4 - x**2 / 2)), x**3 - x

    found = lbfgs(value, np.array([0.1, -0.1, 2.0, 0.5]), max_steps=200, ftol=1e-16)
    np.testing.assert_allclose(np.abs(found), 1, atol=1e-6)


def test_a_minimum_is_left_as_it_is():
    function, _ = quadratic(5, 10)
    minimum = np.linalg.solve(
        np.array([function(e)[1] - function(np.zeros(5))[1] for e in np.eye(5)]), -function(np.zeros(5))[1]
    )
    np.testing.assert_allclose(lbfgs(function, minimum, max_steps=10, ftol=1e-12), minimum, atol=1e-12)
