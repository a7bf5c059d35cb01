"""A cvxpy program solved in place, with options that mean the same for every solver."""

import warnings
from functools import cache

import cvxpy as cp

_TOLERANCES = {
    "CLARABEL": ("tol_gap_abs", "tol_gap_rel", "tol_feas"),
    "SCS": ("eps_abs", "eps_rel"),
    "ECOS": ("abstol", "reltol", "feastol"),
}
_SECONDS = {"CLARABEL": "time_limit", "SCS": "time_limit_secs"}
_ITERATIONS = {"CLARABEL": "max_iter", "SCS": "max_iters", "ECOS": "max_iters"}
# Clarabel's default step, 0.99 of the step to the boundary, often stalls on the exponential cones of the log loss;
# a step at which it stalls is followed by the next.
_STEPS = {"CLARABEL": tuple({"max_step_fraction": step} for step in (0.9, 0.8, 0.95, 0.7))}


def solve_program(
    program: cp.Problem,
    *,
    solver: str = "CLARABEL",
    tol: float = 1e-8,
    max_iter: int | None = None,
    max_time: float | None = None,
    verbose: bool = False,
) -> float:
    """Solve a program in place, with options that mean the same for every solver.

    Parameters
    ----------
    program : cvxpy.Problem
        Such as those of `primal_program` and `dual_program`; its variables hold the solution afterwards.
    solver : str, default="CLARABEL"
        Any installed cvxpy solver of second-order cone programs (of exponential cones for the log loss).
    tol : float, default=1e-8
        Absolute and relative tolerance of CLARABEL, SCS or ECOS; other solvers keep their own. A solver that ends
        close to it is not an error: the certificate has the gap.
    max_iter : int or None, default=None
        Iterations of CLARABEL, SCS or ECOS; None leaves the solver's own limit.
    max_time : float or None, default=None
        Seconds of CLARABEL or SCS; None leaves the solver's own limit.
    verbose : bool, default=False
        Whether cvxpy prints its progress.

    Returns
    -------
    value : float
        Value of the objective.

    Raises
    ------
    ValueError
        If the solver is not installed.
    RuntimeError
        If the solver fails or ends without a solution; the message holds its status.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import enumerate_patterns
    >>> from convexbn import Problem
    >>> from convexbn import primal_program, solve_program
    >>> problem = Problem(np.eye(2), [1.0, -2.0], weight_decay=0.1)
    >>> round(solve_program(primal_program(problem, enumerate_patterns(problem.Z))), 6)
    0.28
    """
    check_cvxpy_solver(solver)
    options: dict[str, float | bool] = dict.fromkeys(_TOLERANCES.get(solver, ()), tol)
    if max_iter is not None and solver in _ITERATIONS:
        options[_ITERATIONS[solver]] = max_iter
    if max_time is not None and solver in _SECONDS:
        options[_SECONDS[solver]] = max_time

    def attempt(step: dict[str, float]) -> cp.SolverError | None:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Solution may be inaccurate")
                program.solve(solver=solver, verbose=verbose, **options, **step)
        except cp.SolverError as error:
            return error
        return None

    inaccurate = None
    for step in _STEPS.get(solver, ({},)):
        failure = attempt(step)
        if failure is None and program.status != cp.OPTIMAL_INACCURATE:
            break
        if failure is None:
            inaccurate = step
    else:
        if failure is not None and inaccurate is not None:
            failure = attempt(inaccurate)
    if failure is not None:
        raise RuntimeError(
            f"cvxpy's solver {solver} failed with status {program.status!r}: {failure} The programs need second-order "
            "cones, and exponential cones for the log loss; CLARABEL and SCS handle both."
        ) from failure
    if any(variable.value is None for variable in program.variables()):
        raise RuntimeError(f"cvxpy's solver {solver} ended without a solution; its status is {program.status!r}.")
    return float(program.value)


def check_cvxpy_solver(solver: str) -> None:
    """Raise a ValueError unless cvxpy can call this solver."""
    if not isinstance(solver, str) or solver not in _installed_solvers():
        raise ValueError(
            f"solver={solver!r} is not installed for cvxpy; installed are {_installed_solvers()}. Choose one of these, "
            "install it, or take 'auto', 'closed_form' or 'column_generation'."
        )


@cache
def _installed_solvers() -> list[str]:
    return cp.installed_solvers()  # which takes longer than to solve a small program
