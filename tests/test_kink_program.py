import cvxpy as cp
import numpy as np
import pytest

from convexbn.kink_program import solve_kink_program


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
