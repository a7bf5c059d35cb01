import cvxpy as cp
import numpy as np
import pytest

from convexbn import DesignMatrix
from convexbn.oracles._kink_program import solve_kink_program
from convexbn.oracles._kinks import nearest_kinks


def program(seed, m=3, K=5, k=2, extra=1):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((m * k + extra, m * k + extra))
    A, b, c = rng.standard_normal((m, K, k)), rng.uniform(0, 0.3, (m, K)), rng.uniform(0, 2, (m, K))
    b[0, 0] = c[1, 0] = 0
    return root @ root.T + np.eye(len(root)), rng.standard_normal(len(root)), A, b, c


@pytest.mark.parametrize("seed", range(10))
def test_same_step_as_cvxpy(seed):
    H, g, A, b, c = program(seed)
    d, decrease = solve_kink_program(H, g, A, b, c, rtol=1e-10)
    x = cp.Variable(len(g))
    kinks = sum(c[j] @ cp.pos(A[j] @ x[2 * j : 2 * j + 2] - b[j]) for j in range(len(A)))
    stated = cp.Problem(cp.Minimize(g @ x + cp.quad_form(x, cp.psd_wrap(H)) / 2 + kinks))
    stated.solve(solver="CLARABEL")
    np.testing.assert_allclose(d, x.value, atol=1e-6)
    assert decrease == pytest.approx(-stated.value, abs=1e-8)


@pytest.mark.parametrize(("K", "k"), [(5, 2), (40, 3), (4, 30), (40, 20), (20, 40)])
def test_neurons_beside_the_identity_are_programs_of_their_own(K, k):
    _, g, A, b, c = program(0, K=K, k=k, extra=0)
    together, decrease = solve_kink_program(None, g, A, b, c, rtol=1e-10)
    alone = [
        solve_kink_program(np.eye(k), g[j * k : (j + 1) * k], A[[j]], b[[j]], c[[j]], rtol=1e-10) for j in range(3)
    ]
    np.testing.assert_allclose(together, np.concatenate([d for d, _ in alone]), atol=1e-6)
    assert decrease == pytest.approx(sum(decrease for _, decrease in alone), rel=1e-8)


def test_no_gradient_no_step():
    H, g, A, b, c = program(0)
    d, decrease = solve_kink_program(H, 0 * g, A, b, c)
    assert not d.any()
    assert decrease == 0


def test_indefinite_matrix_is_refused():
    H, g, A, b, c = program(0)
    with pytest.raises(np.linalg.LinAlgError):
        solve_kink_program(-100 * H, g, A, b, c)


@pytest.mark.parametrize("H", [None, np.eye(2)], ids=["identity", "matrix"])
def test_a_step_that_rests_on_a_kink_up_to_rounding(H):
    """Beside a gradient of 1e-18 the kinks are stiffer by so much that they would swallow the identity."""
    A = np.array([[[-1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [-1.0, -1.0]]])
    b, c = np.array([[0.0, 0.0, 0.03, 0.03]]), np.array([[0.1, 0.0, 0.0, 0.0]])
    d, decrease = solve_kink_program(H, np.full(2, -3.5e-18), A, b, c, rtol=1e-6)
    assert np.abs(d).max() <= 1e-12
    assert abs(decrease) <= 1e-12


@pytest.mark.parametrize("g", [3.0, 0.3, 1e-4, 1e-9])
@pytest.mark.parametrize("copies", [2, 50])
def test_copies_of_a_kink_are_one_kink_with_the_sum_of_their_slopes(copies, g):
    gradient = np.array([-g, g / 3])  # up to a slope of 2 the first entry stays on the kink
    A = np.repeat([[[1.0, 0.0]]], copies, axis=1)
    d, decrease = solve_kink_program(
        None, gradient, A, np.zeros((1, copies)), np.full((1, copies), 2 / copies), rtol=1e-9
    )
    np.testing.assert_allclose(d, [max(g - 2, 0), -g / 3], atol=1e-6 * g + 1e-13)
    assert decrease == pytest.approx(max(g - 2, 0) ** 2 / 2 + g**2 / 18, rel=1e-5, abs=1e-14)


def test_kinks_of_equal_rows_are_added_up():
    row, other = np.array([1.0, 2.0]), np.array([2.0, -1.0])
    Z = DesignMatrix(np.stack([row, 2 * row, other, -row, np.zeros(2)]))
    s = np.array([[1.0], [0.5]])
    signed_v = np.array([[1.0], [-3.0], [0.5], [0.5], [-9.0]])  # 1 - 6 + 0.5 on the first hyperplane
    A, b, c = nearest_kinks(Z, Z.products(s), signed_v, 2)
    real = c[0] > 0
    np.testing.assert_array_equal(A[0][real], [-row])
    np.testing.assert_allclose(b[0][real], [2.0])
    np.testing.assert_allclose(c[0][real], [4.5])


def test_nearest_kinks_are_nearest_whatever_the_length_of_their_rows():
    Z = DesignMatrix(np.array([[1e3, 0.0], [0.0, 1e-3]]))
    s, signed_v = np.array([[1.0], [2.0]]), -np.ones((2, 1))
    A, b, _ = nearest_kinks(Z, Z.products(s), signed_v, 1)  # at a distance of 1, the other of 2
    np.testing.assert_array_equal(A[0], [[-1e3, 0]])
    np.testing.assert_array_equal(b[0], [1e3])


def test_out_of_time_the_step_so_far_is_returned():
    _, g, A, b, c = program(0, extra=0)
    d, decrease = solve_kink_program(None, g, A, b, c, stop=lambda: True)
    assert not d.any()
    assert decrease == 0
