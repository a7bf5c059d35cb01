import subprocess
import sys

import cvxpy as cp
import numpy as np
import pytest

import convexbn
from convexbn import (
    DesignMatrix,
    Problem,
    dual_program,
    enumerate_patterns,
    primal_program,
    sample_patterns,
    solve_program,
)
from tests.problems import CASES, ONE_OUTPUT


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return request.param


def test_gated_primal_equals_dual_and_is_below_relu(case):
    problem = case.problem()
    patterns = sample_patterns(problem.Z, 15, random_state=0)
    gated = solve_program(primal_program(problem, patterns, "gated_relu"))
    assert gated == pytest.approx(solve_program(dual_program(problem, patterns, "gated_relu")), rel=1e-6)
    assert gated <= solve_program(primal_program(problem, patterns)) * (1 + 1e-8)


@pytest.mark.parametrize("loss", ONE_OUTPUT)
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_pooled_primal_equals_dual(loss, fit_intercept):
    rng = np.random.default_rng(0)
    Z = DesignMatrix(rng.standard_normal((12, 2)), n_patches=2)
    y = np.array([1.0, -1, 1, 1, -1, -1])
    problem = Problem(Z, y, loss, weight_decay=0.02, fit_intercept=fit_intercept)
    patterns = enumerate_patterns(Z)
    primal = solve_program(primal_program(problem, patterns))
    assert primal == pytest.approx(solve_program(dual_program(problem, patterns)), rel=1e-6)


def test_variables_have_the_names_of_the_theory():
    problem = CASES[1].problem()
    assert problem.fit_intercept
    patterns = sample_patterns(problem.Z, 5, random_state=0)
    assert set(primal_program(problem, patterns).var_dict) == {"f", "S", "T", "intercept"}
    assert set(primal_program(problem, patterns, "gated_relu").var_dict) == {"f", "S", "intercept"}
    assert set(dual_program(problem, patterns).var_dict) == {"v", "mu_plus", "mu_minus"}
    assert set(dual_program(problem, patterns, "gated_relu").var_dict) == {"v"}


def test_dual_value_of_the_definition_of_f_is_the_dual_point():
    problem = CASES[8].problem()
    patterns = enumerate_patterns(problem.Z)
    program = primal_program(problem, patterns)
    solve_program(program)
    v = program.constraints[0].dual_value[:, None]
    np.testing.assert_allclose(v, problem.dual_point(program.var_dict["f"].value[:, None]), atol=1e-5)
    dual = dual_program(problem, patterns)
    solve_program(dual)
    np.testing.assert_allclose(v[:, 0], dual.var_dict["v"].value, atol=1e-5)


def test_other_solver_by_name():
    problem = CASES[0].problem()
    program = primal_program(problem, sample_patterns(problem.Z, 5, random_state=0))
    assert solve_program(program, solver="SCS", tol=1e-6) == pytest.approx(solve_program(program), rel=1e-4)


def test_missing_and_failing_solvers():
    problem = CASES[0].problem()
    program = primal_program(problem, sample_patterns(problem.Z, 5, random_state=0))
    with pytest.raises(ValueError, match=r"solver='NONE' is not installed for cvxpy; installed are .*CLARABEL"):
        solve_program(program, solver="NONE")
    with pytest.raises(RuntimeError, match="OSQP failed"):
        solve_program(program, solver="OSQP")
    x = cp.Variable()
    with pytest.raises(RuntimeError, match="status is 'infeasible'"):
        solve_program(cp.Problem(cp.Minimize(x), [x >= 1, x <= 0]))


class Program:
    """Stands for a program on which Clarabel ends as told, one ending a step fraction."""

    value = 1.0

    def __init__(self, endings):
        self.endings = dict(zip((0.9, 0.8, 0.95, 0.7), endings, strict=True))
        self.tried = []
        self.status = None

    def variables(self):
        return []

    def solve(self, *, max_step_fraction, **options):
        self.tried.append(max_step_fraction)
        self.status = self.endings[max_step_fraction]
        if self.status == cp.SOLVER_ERROR:
            raise cp.SolverError("stalled")


@pytest.mark.parametrize(
    ("endings", "tried"),
    [
        ((cp.OPTIMAL, None, None, None), [0.9]),
        ((cp.SOLVER_ERROR, cp.OPTIMAL_INACCURATE, cp.OPTIMAL, None), [0.9, 0.8, 0.95]),
        ((cp.SOLVER_ERROR, cp.OPTIMAL_INACCURATE, cp.SOLVER_ERROR, cp.SOLVER_ERROR), [0.9, 0.8, 0.95, 0.7, 0.8]),
        ((cp.SOLVER_ERROR, cp.SOLVER_ERROR, cp.SOLVER_ERROR, cp.OPTIMAL_INACCURATE), [0.9, 0.8, 0.95, 0.7]),
        ((cp.USER_LIMIT, None, None, None), [0.9]),
    ],
)
def test_steps_are_tried_until_one_is_accurate_and_the_last_usable_one_is_kept(endings, tried):
    program = Program(endings)
    assert solve_program(program) == 1.0
    assert program.tried == tried
    assert program.status != cp.SOLVER_ERROR


def test_all_steps_failing_is_an_error():
    with pytest.raises(RuntimeError, match="CLARABEL failed with status 'solver_error': stalled"):
        solve_program(Program([cp.SOLVER_ERROR] * 4))


def test_bad_input():
    problem = CASES[0].problem()
    patterns = sample_patterns(problem.Z, 5, random_state=0)
    for build in (primal_program, dual_program):
        with pytest.raises(ValueError, match="activation='tanh'"):
            build(problem, patterns, "tanh")
        vector = Problem(problem.Z, np.ones((problem.Z.n_samples, 2)), weight_decay=0.1)
        with pytest.raises(ValueError, match="take one output, y has 2"):
            build(vector, patterns)


@pytest.mark.slow
def test_cvxpy_is_imported_where_a_program_is_built_and_no_sooner():
    code = """
import sys, convexbn
assert "cvxpy" not in sys.modules
problem = convexbn.Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -2.0, 0.5], weight_decay=0.1)
convexbn.solve(problem, random_state=0)
assert "cvxpy" not in sys.modules
assert {"primal_program", "solve_reference", "solve"} <= set(dir(convexbn))
assert convexbn.solve(problem, solver="CLARABEL").certificate.scope == "global"
assert "cvxpy" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="module 'convexbn' has no attribute 'nothing'"):
        _ = convexbn.nothing
