import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from convexbn import BatchNormDesign, DesignMatrix
from convexbn.oracles import _branch_and_bound as branch_and_bound
from convexbn.oracles import price_bound, price_by_branch_and_bound, price_by_enumeration
from convexbn.oracles._largest_on_cones import _bounds, largest_on_cones

TOL = 1e-3


def random_instance(n, k, seed, n_patches=1):
    rng = np.random.default_rng(seed)
    Z = BatchNormDesign().fit_transform(rng.standard_normal((n * n_patches, k - 1)))
    return DesignMatrix(Z, n_patches), rng.standard_normal((n, 1))


def trained_instance(n, k, seed):
    """Dual point of a network trained by L-BFGS: many directions price about weight_decay, on kinks."""
    rng = np.random.default_rng(seed)
    Z = BatchNormDesign().fit_transform(rng.standard_normal((n, k - 1)))
    y = np.maximum(Z @ rng.standard_normal((k, 3)), 0) @ rng.standard_normal(3) + 0.3 * rng.standard_normal(n)
    signs, weight_decay = np.where(np.arange(30) % 2, 1.0, -1.0), 0.03

    def objective(flat):
        S = flat.reshape(k, 30)
        H, sizes = Z @ S, np.sqrt((S**2).sum(axis=0) + 1e-12)
        residual = np.maximum(H, 0) @ signs - y
        gradient = Z.T @ ((H > 0) * np.outer(residual, signs)) / n + weight_decay * S / sizes
        return residual @ residual / (2 * n) + weight_decay * sizes.sum(), gradient.ravel()

    S = minimize(objective, rng.standard_normal(k * 30), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    S = S.reshape(k, 30)
    return DesignMatrix(Z), (y - np.maximum(Z @ S, 0) @ signs)[:, None] / n, S


def degenerate(kind, seed):
    rng = np.random.default_rng(seed)
    Z, v = rng.standard_normal((14, 3)), rng.standard_normal((14, 1))
    if kind == "duplicated rows":
        Z = Z[rng.integers(5, size=14)] * rng.choice([1.0, -1.0, 2.0], size=(14, 1))
    elif kind == "zero rows":
        Z[::3] = 0
    elif kind == "rank deficient":
        Z = np.hstack([Z[:, :2], Z[:, :2] @ rng.standard_normal((2, 2))])
    elif kind == "rank one":
        Z = Z[:, :1] * rng.standard_normal(3)
    elif kind == "integer grid":
        Z, v = rng.integers(-2, 3, size=(14, 3)).astype(float), rng.integers(-2, 3, size=(14, 1)).astype(float)
    elif kind == "sparse dual point":
        v[rng.permutation(14)[:11]] = 0
    elif kind == "one sign":
        v = -np.abs(v)
    elif kind == "bad scaling":
        Z = Z * np.array([1e-5, 1.0, 1e4]) * 10.0 ** rng.integers(-2, 3, size=(14, 1))
    elif kind == "far from zero":
        Z[:, 0] += 1e4
    elif kind == "tiny":
        Z, v = Z * 1e-60, v * 1e-60
    return DesignMatrix(Z), v


def prices(Z, v, W):
    return np.abs(v.T @ Z.neuron_outputs(W / np.linalg.norm(W, axis=0)))[0]


def assert_close(price, exact, v, Z, tol=TOL):
    """The value is proved, close, and attained by the direction up to the tolerance."""
    hidden = 2e-12 * float(Z.row_norms @ np.linalg.norm(Z.unpool(v), axis=1))  # what an enumeration adds, twice
    assert exact - hidden <= price.value <= exact * (1 + tol)
    assert price.scope == "global"
    assert np.linalg.norm(price.direction) == pytest.approx(1)
    assert price.value <= prices(Z, v, price.direction[:, None])[0] * (1 + tol)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (9, 1), (20, 2), (20, 3), (12, 4)])
@pytest.mark.parametrize("seed", range(8))
def test_value_is_the_enumerated_price_up_to_the_tolerance(seed, n, k):
    rng = np.random.default_rng(seed)
    Z, v = DesignMatrix(rng.standard_normal((n, k))), rng.standard_normal((n, 1))
    exact = price_by_enumeration(Z, v).value
    for tol in (0.1, TOL, 1e-6):
        assert_close(price_by_branch_and_bound(Z, v, tol=tol), exact, v, Z, tol)


@pytest.mark.parametrize("seed", range(4))
def test_pooled_rows(seed):
    Z, v = random_instance(7, 3, seed, n_patches=3)
    assert_close(price_by_branch_and_bound(Z, v), price_by_enumeration(Z, v).value, v, Z)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "kind",
    [
        "duplicated rows",
        "zero rows",
        "rank deficient",
        "rank one",
        "integer grid",
        "sparse dual point",
        "one sign",
        "bad scaling",
        "far from zero",
        "tiny",
    ],
)
def test_degenerate_data(kind, seed):
    Z, v = degenerate(kind, seed)
    assert_close(price_by_branch_and_bound(Z, v, tol=1e-5), price_by_enumeration(Z, v).value, v, Z, 1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_tied_maxima_near_a_trained_optimum(seed):
    Z, v, S = trained_instance(40, 3, seed)
    exact = price_by_enumeration(Z, v).value
    assert_close(price_by_branch_and_bound(Z, v, tol=1e-6, starts=S), exact, v, Z, 1e-6)


@pytest.mark.parametrize(("n", "k"), [(1000, 3), (300, 4), (300, 5)])
def test_larger_instances_are_proved_within_the_budget(n, k):
    Z, v = random_instance(n, k, 0)
    price = price_by_branch_and_bound(Z, v)
    assert price.direction is not None
    assert prices(Z, v, price.direction[:, None])[0] * (1 + TOL) >= price.value
    assert prices(Z, v, np.random.default_rng(0).standard_normal((k, 20_000))).max() <= price.value


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=1, max_size=10),
    duals=st.lists(st.integers(-3, 3), min_size=10, max_size=10),
    noise=st.sampled_from([0.0, 1e-9, 1e-3, 1.0]),
    max_nodes=st.sampled_from([1, 20, 100, 100_000]),
)
def test_no_direction_is_above_the_bound(rows, duals, noise, max_nodes):
    rng = np.random.default_rng(0)
    Z = DesignMatrix(np.array(rows) + noise * rng.standard_normal((len(rows), 3)))
    v = np.array(duals[: len(rows)], dtype=float)[:, None]
    W = np.hstack([rng.standard_normal((3, 2000)), Z.Z.T[:, Z.Z.any(axis=1)], np.eye(3), -np.eye(3)])
    value = price_by_branch_and_bound(Z, v, max_nodes=max_nodes).value
    assert prices(Z, v, W).max() <= value * (1 + 1e-12)


def cones(k, seed):
    """Generators, values and rows of 200 cones: wide, thin, and thin with values that are linear there."""
    rng = np.random.default_rng(seed)
    generators = np.abs(rng.standard_normal((200, k, k)))
    generators[100:] = generators[100:, :1] + 1e-6 * generators[100:]
    generators /= np.linalg.norm(generators, axis=2, keepdims=True)
    values = rng.standard_normal((200, k))
    values[150:] = (generators[150:] @ rng.standard_normal((50, k, 1)))[:, :, 0]
    return generators, values, rng.standard_normal((9, k)) / 10


def concave_function(generators, values, rows, inside):
    """At the unit vectors of coordinates inside (B, p, k): shape (B, p)."""
    points = inside @ generators
    prices = np.einsum("bit,bt->bi", inside, values) - np.maximum(points @ rows.T, 0).sum(axis=2)
    return prices / np.linalg.norm(points, axis=2)


@pytest.mark.parametrize("steps", [1, 3, 14])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("target", [0.0, 0.7])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_bound_on_the_cone_holds_at_any_iterate(steps, k, target, dtype):
    generators, values, rows = cones(k, 0)
    inside = np.random.default_rng(1).dirichlet(np.full(k, 0.5), size=(200, 1000))
    for rows_too in (rows, rows[:0]):
        maxima = largest_on_cones(generators, values, np.zeros(k), rows_too, target, dtype, steps)
        sampled = concave_function(generators, values, rows_too, inside)
        assert (maxima.weights >= 0).all()
        assert (sampled <= maxima.bounds[:, None] * (1 + 1e-9) + 1e-9).all()
        if dtype == np.float32:  # in which thin cones have no exact weights
            continue
        at_weights = concave_function(generators, values, rows_too, maxima.weights[:, None])[:, 0]
        priced = maxima.attained > 0  # elsewhere the maximiser is zero, and its direction means nothing
        np.testing.assert_allclose(maxima.attained[priced], at_weights[priced], rtol=1e-6, atol=1e-8)
        assert priced.any()


@pytest.mark.parametrize("k", [1, 4, 9])
def test_bound_of_the_iterate_zero_covers_the_whole_ball(k):
    nothing, values = np.zeros((1, k)), np.ones((1, k))  # in an orthant, whose largest value is the root of k
    bound = _bounds(np.eye(k)[None], values, np.zeros((0, k)), nothing, np.zeros((1, 0)))
    assert k**0.5 * (1 - 1e-12) <= bound[0] <= k


def test_bound_on_the_cone_is_that_of_the_quadratic_program():
    generators, values, rows = cones(4, 0)
    linear = np.array([0.1, -0.2, 0.3, 0.0])
    for cone in range(0, 100, 10):
        a = cp.Variable(4, nonneg=True)
        w = generators[cone].T @ a
        concave = values[cone] @ a - linear @ w - cp.sum(cp.pos(rows @ w))
        exact = cp.Problem(cp.Maximize(concave), [cp.norm(w) <= 1]).solve(solver="CLARABEL")
        one = slice(cone, cone + 1)
        # a target that can neither be reached nor exceeded for certain, so that no iterate ends the search early
        maxima = largest_on_cones(generators[one], values[one], linear, rows, exact)
        assert maxima.bounds[0] == pytest.approx(exact, rel=1e-5, abs=1e-6)
        if exact > 1e-3:
            assert maxima.attained[0] == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("target", [0.3, 1.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_cones_are_left_on_the_right_side_of_the_target(target, dtype):
    generators, values, rows = cones(4, 2)
    maxima = largest_on_cones(generators, values, np.zeros(4), rows, target, dtype)
    exceeded, below = maxima.attained > target, maxima.bounds <= target
    assert not (exceeded & below).any()
    assert (exceeded | below)[:100].all()
    assert exceeded.any()
    assert below.any()
    inside = np.random.default_rng(1).dirichlet(np.full(4, 0.5), size=(200, 1000))
    assert (concave_function(generators, values, rows, inside).max(axis=1)[below] <= target * (1 + 1e-9)).all()


def test_invalid_operations_in_single_precision_mean_nothing(monkeypatch):
    """The flag that BLAS raises there now and then is not shown; the bounds are those of without it."""
    Z, v = random_instance(60, 4, 0)
    expected, seen = price_by_branch_and_bound(Z, v, tol=TOL), set()

    def flagged(generators, values, linear, rows, target, dtype):
        seen.add(dtype)
        if dtype == np.float32:
            np.subtract(dtype(np.inf), dtype(np.inf))
        return largest_on_cones(generators, values, linear, rows, target, dtype)

    monkeypatch.setattr(branch_and_bound, "largest_on_cones", flagged)
    assert price_by_branch_and_bound(Z, v, tol=TOL).value == expected.value
    assert np.float32 in seen


@pytest.mark.parametrize("max_nodes", [1, 15, 16, 40, 400])
def test_a_small_budget_leaves_a_valid_bound(max_nodes):
    Z, v = random_instance(40, 3, 0)
    exact, price = price_by_enumeration(Z, v).value, price_by_branch_and_bound(Z, v, tol=1e-9, max_nodes=max_nodes)
    assert exact * (1 - 1e-12) <= price.value <= price_bound(Z, v).value
    assert prices(Z, v, price.direction[:, None])[0] <= exact * (1 + 1e-12)
    if max_nodes < 16:
        assert price.value == price_bound(Z, v).value


def test_a_larger_budget_gives_no_worse_bound():
    Z, v = random_instance(60, 4, 1)
    values = [price_by_branch_and_bound(Z, v, max_nodes=budget).value for budget in (1, 50, 200, 1000, 10_000)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0]


def test_search_stops_when_it_is_told_to():
    """At any step: in its ascents and before the first cones cover all directions, where the bound is the cheap one."""
    Z, v = random_instance(60, 4, 1)
    whole, cheap = price_by_branch_and_bound(Z, v), price_bound(Z, v).value
    made = []
    price_by_branch_and_bound(Z, v, stop=lambda: made.append(None))
    values = []
    for most in (1, 2, len(made) // 2, *range(len(made) - 20, len(made) + 1)):
        calls = []

        def stop(calls=calls, most=most):
            calls.append(None)
            return len(calls) == most

        stopped = price_by_branch_and_bound(Z, v, stop=stop)
        assert len(calls) == most
        assert prices(Z, v, stopped.direction[:, None])[0] <= whole.value * (1 + 1e-12)
        values.append(stopped.value)
    assert values[0] == values[1] == cheap
    assert values == sorted(values, reverse=True)
    assert whole.value <= values[-1] < values[-8] < cheap


@pytest.mark.parametrize("factor", [0.5, 1.05, 1.5])
def test_prices_below_the_threshold_are_not_told_apart(factor):
    Z, v = random_instance(60, 3, 0)
    whole = price_by_branch_and_bound(Z, v, tol=1e-6)
    price = price_by_branch_and_bound(Z, v, tol=1e-6, threshold=factor * whole.value)
    if factor < 1:
        assert price.value == whole.value
    else:
        assert whole.value < price.value <= factor * whole.value
        assert prices(Z, v, price.direction[:, None])[0] <= whole.value * (1 + 1e-12)


def test_no_search_where_the_cheap_bound_is_below_the_threshold(monkeypatch):
    Z, v = random_instance(30, 3, 0)
    monkeypatch.setattr(branch_and_bound._Search, "run", None)
    norm_bound = price_bound(Z, v).value
    assert price_by_branch_and_bound(Z, v, threshold=norm_bound * (1 + 1e-9)).value == norm_bound


def test_good_starts_are_used():
    Z, v = random_instance(60, 4, 1)
    best = price_by_branch_and_bound(Z, v, tol=1e-6).direction
    price = price_by_branch_and_bound(Z, v, max_nodes=1, tol=10.0, starts=np.stack([best, np.zeros(4)], axis=1))
    assert prices(Z, v, price.direction[:, None])[0] >= prices(Z, v, best[:, None])[0] * (1 - 1e-12)


@pytest.mark.parametrize("starts", [np.zeros((4, 2)), np.zeros((4, 0))])
def test_starts_without_a_direction_change_nothing(starts):
    Z, v = random_instance(60, 4, 1)
    assert price_by_branch_and_bound(Z, v, starts=starts).value == price_by_branch_and_bound(Z, v).value


def test_same_price_twice_and_in_small_blocks(monkeypatch):
    Z, v = random_instance(60, 4, 2)
    price, again = price_by_branch_and_bound(Z, v), price_by_branch_and_bound(Z, v)
    assert price.value == again.value
    np.testing.assert_array_equal(price.direction, again.direction)
    monkeypatch.setattr(branch_and_bound, "_BLOCK_ENTRIES", 1)
    assert price_by_branch_and_bound(Z, v).value == pytest.approx(price.value, rel=TOL)


def test_too_many_columns_leave_the_cheap_bound():
    Z, v = random_instance(40, 16, 0)
    assert price_by_branch_and_bound(Z, v).value == price_bound(Z, v).value


@pytest.mark.parametrize("zero", ["Z", "v"])
def test_nothing_to_price(zero):
    Z, v = random_instance(10, 3, 0)
    Z, v = (DesignMatrix(0 * Z.Z), v) if zero == "Z" else (Z, 0 * v)
    price = price_by_branch_and_bound(Z, v)
    assert (price.value, price.scope, price.direction) == (0, "global", None)


def test_a_price_that_is_nearly_lost_in_rounding_is_bounded():
    Z = DesignMatrix(np.array([[1.0, 0.0], [1.0, 1e-14]]))
    v = np.array([[1.0], [-1.0]])
    price = price_by_branch_and_bound(Z, v)
    assert prices(Z, v, np.random.default_rng(0).standard_normal((2, 10_000))).max() <= price.value <= 1e-9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"v": np.ones((10, 2))}, r"v must be of shape \(10, 1\)"),
        ({"starts": np.ones(3)}, r"starts must be of shape \(3, m\)"),
        ({"starts": np.ones((2, 3))}, r"starts must be of shape \(3, m\)"),
        ({"tol": 0.0}, "tol=0.0 must be a positive number"),
        ({"max_nodes": 0}, "max_nodes=0 must be a positive integer"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    Z, v = random_instance(10, 3, 0)
    with pytest.raises(ValueError, match=message):
        price_by_branch_and_bound(Z, **{"v": v} | arguments)
