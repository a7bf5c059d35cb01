"""The choice of a solver for a problem."""

import numpy as np

from convexbn.patterns import count_patterns, enumerate_patterns, sample_patterns
from convexbn.problem import Problem
from convexbn.programs import Activation, check_cvxpy_solver
from convexbn.solution import Solution
from convexbn.solvers.closed_form import closed_form_obstacle, solve_closed_form
from convexbn.solvers.reference import solve_reference

ENUMERATION_ENTRIES = 1_000_000  # all patterns are used up to this many entries n * k * P of their program


def check_solver(solver: str, activation: Activation) -> None:
    """Raise a ValueError if `solve` has no such solver for this activation."""
    if solver not in ("auto", "closed_form"):
        check_cvxpy_solver(solver)
    if solver == "closed_form" and activation != "relu":
        raise ValueError(f"solver='closed_form' is for activation='relu', not {activation!r}.")


def solve(
    problem: Problem,
    *,
    activation: Activation = "relu",
    solver: str = "auto",
    n_patterns: int = 50,
    tol: float = 1e-6,
    max_iter: int | None = None,
    random_state: int | np.random.Generator | None = None,
    verbose: bool = False,
) -> Solution:
    """Train a network with the solver that fits the problem.

    The closed form where it reaches; else the convex program over all activation patterns where they are few (at most
    a million entries n * k * P), with a global certificate; else over sampled patterns.

    Parameters
    ----------
    problem : Problem
        Training problem.
    activation : {"relu", "gated_relu"}, default="relu"
        Which network.
    solver : str, default="auto"
        "auto"; "closed_form"; or the name of an installed cvxpy solver, which skips the closed form ("auto" uses
        CLARABEL).
    n_patterns : int, default=50
        Directions drawn where patterns are sampled.
    tol, max_iter, verbose
        As in `solve_reference`.
    random_state : int, Generator or None, default=None
        Seed of the sampled patterns.

    Returns
    -------
    solution : Solution

    Raises
    ------
    ValueError
        If the solver is unknown or not installed, or "closed_form" does not reach the problem.
    RuntimeError
        If the cvxpy solver fails.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import Problem, solve
    >>> solve(Problem(np.eye(2), [1.0, -2.0], weight_decay=0.1)).certificate.basis
    'closed form for whitened data of full row rank'
    """
    check_solver(solver, activation)
    if solver == "closed_form" or (solver == "auto" and activation == "relu" and closed_form_obstacle(problem) is None):
        return solve_closed_form(problem, tol=tol)
    if count_patterns(problem.Z) * problem.Z.Z.size <= ENUMERATION_ENTRIES:
        patterns = enumerate_patterns(problem.Z)
    else:
        patterns = sample_patterns(problem.Z, n_patterns, random_state=random_state)
    return solve_reference(
        problem,
        patterns,
        activation=activation,
        solver="CLARABEL" if solver == "auto" else solver,
        tol=tol,
        max_iter=max_iter,
        verbose=verbose,
    )
