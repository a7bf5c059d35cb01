"""The choice of a solver for a problem."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from convexbn._utils.checks import check_choice, check_count, check_random_state
from convexbn.losses import Loss
from convexbn.model._activation import ACTIVATIONS, Activation
from convexbn.model._base_neurons import BaseNeurons
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem, check_problem
from convexbn.patterns._patterns import Patterns, count_patterns, enumerate_patterns, sample_patterns
from convexbn.solvers._by_class import Classes, solve_by_class
from convexbn.solvers._checkpoint import Checkpoint, CheckpointPath, check_checkpoint
from convexbn.solvers._closed_form import closed_form_obstacle, solve_closed_form
from convexbn.solvers._monitor import Callback, check_max_iter, check_max_time
from convexbn.solvers._solution import Solution
from convexbn.solvers._tolerance import Reference
from convexbn.solvers.gated._driver import solve_gated
from convexbn.solvers.gated._path import gated_path
from convexbn.solvers.relu._column_generation import solve_column_generation
from convexbn.solvers.relu._options import ACCURATE, Options
from convexbn.solvers.relu._state import Proof

ENUMERATION_ENTRIES = 1_000_000  # patterns are enumerated up to this many entries n * k * P of their program
_LOOSE = 1e-3  # tolerance up to which small gated problems of one output are solved by an interior point
OWN_SOLVERS = ("auto", "closed_form", "column_generation")


def check_solver(solver: str, activation: Activation) -> None:
    """Raise a ValueError if `solve` has no such solver for this activation."""
    if not isinstance(solver, str) or solver not in OWN_SOLVERS:
        from convexbn.solvers.conic._program_solver import check_cvxpy_solver

        check_cvxpy_solver(solver)
    elif solver != "auto" and activation != "relu":
        raise ValueError(f"solver={solver!r} is for activation='relu', not {activation!r}.")


def check_has_rounds(checkpoint: object, activation: Activation, loss: Loss, solver: str, random_state: object) -> None:
    """Raise a ValueError if a checkpoint is asked for of a solver that has no rounds, or of gates drawn anew."""
    if checkpoint is None:
        return
    if activation != "relu" and random_state is None:
        raise ValueError(
            f"checkpoint={str(checkpoint)!r} of a gated network takes gates that can be drawn again; set random_state "
            "to an integer."
        )
    if not (solver in OWN_SOLVERS and np.isfinite(loss.curvature)):
        raise ValueError(
            f"checkpoint={str(checkpoint)!r} takes a solver with rounds: one of {list(OWN_SOLVERS)} at a smooth loss, "
            f"got solver={solver!r} and loss {loss.name!r}; leave it at None for these."
        )


def solve(
    problem: Problem,
    *,
    activation: Activation = "relu",
    solver: str = "auto",
    n_patterns: int = 50,
    tol: float = 1e-6,
    relative_to: Reference = "objective",
    max_iter: int | None = None,
    max_time: float | None = None,
    start: Neurons | None = None,
    prove: Proof = True,
    options: Options = ACCURATE,
    random_state: int | np.random.Generator | None = None,
    checkpoint: CheckpointPath | Checkpoint | None = None,
    callback: Callback | None = None,
    verbose: bool = False,
) -> Solution:
    """Train a network with the solver that fits the problem.

    For ReLU: the closed form where one exists, column generation otherwise; on one sample a class where targets are few
    and the whitened data has full row rank. For gated ReLU: the working-set solver. The convex program is solved by
    cvxpy for the hinge loss, for small gated problems with one output, and where `solver` names a cvxpy solver. Gates,
    and the patterns of the convex program, are all activation patterns where they are few (at most a million entries
    n * k * P), a sample otherwise.

    Parameters
    ----------
    problem : Problem
        Training problem.
    activation : {"relu", "gated_relu"}, default="relu"
        Which network.
    solver : str, default="auto"
        "auto"; "closed_form" or "column_generation"; or the name of an installed cvxpy solver.
    n_patterns : int, default=50
        Directions drawn where patterns are sampled.
    tol : float, default=1e-6
        Gap above which the solution is reported as not converged, as a multiple of `relative_to`.
    relative_to : {"objective", "zero_network"}, default="objective"
        What the gap is measured against, as in `solve_column_generation`.
    max_iter : int or None, default=None
        Iterations of the solver; None leaves its own limit.
    max_time, start, prove, callback, verbose
        As in `solve_column_generation` and `solve_gated`; cvxpy solvers take `max_time` and `verbose` only.
    options : Options, default=ACCURATE
        Choices of column generation.
    random_state : int, Generator or None, default=None
        Seed of whatever is random.
    checkpoint : path or None, default=None
        File from which the run goes on after the process was killed, as in `solve_column_generation`. Closed forms, and
        the convex program that small gated problems are solved by, have no rounds: nothing is written, and they start
        again. Losses with a kink and the solvers of cvxpy refuse it.

    Returns
    -------
    solution : Solution

    Raises
    ------
    ValueError
        If the solver is unknown or not installed, or does not take the problem or a checkpoint, or an argument is out
        of range.
    RuntimeError
        If a cvxpy solver fails.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import Problem, solve
    >>> solve(Problem(np.eye(2), [1.0, -2.0], weight_decay=0.1)).certificate.search.name
    'CLOSED_FORM'
    """
    check_problem(problem)
    check_choice("activation", activation, ACTIVATIONS)
    check_solver(solver, activation)
    check_max_iter(max_iter)
    check_max_time(max_time)
    check_count("n_patterns", n_patterns)
    check_random_state(random_state)
    check_checkpoint(checkpoint)
    if not (start is None or isinstance(start, BaseNeurons)):
        raise ValueError(f"start={start!r} must be neurons, such as those of a solution, or None.")
    check_has_rounds(checkpoint, activation, problem.loss, solver, random_state)
    smooth = bool(np.isfinite(problem.loss.curvature))
    rule: dict[str, Any] = {"tol": tol, "relative_to": relative_to}
    limits: dict[str, Any] = {"max_time": max_time, "start": start, "callback": callback, "verbose": verbose}
    if activation == "relu":
        if solver == "closed_form" or (solver == "auto" and closed_form_obstacle(problem) is None):
            return solve_closed_form(problem, **rule)
        search = rule | {"max_iter": max_iter or 100, "prove": prove, "random_state": random_state} | limits
        search["checkpoint"] = checkpoint
        classes = Classes.of(problem) if solver == "auto" else None
        if classes is not None:
            return solve_by_class(classes, **search)
        if solver == "column_generation" or (solver == "auto" and smooth):
            return solve_column_generation(problem, options=options, **search)
    patterns = patterns_of(problem, n_patterns, random_state)
    if activation == "gated_relu" and takes_working_sets(problem, patterns, solver, tol):
        return solve_gated(problem, patterns, max_iter=max_iter or 500, checkpoint=checkpoint, **rule, **limits)
    from convexbn.solvers.conic import solve_reference  # imports cvxpy, which takes a while

    return solve_reference(
        problem,
        patterns,
        activation=activation,
        solver="CLARABEL" if solver == "auto" else solver,
        max_iter=max_iter,
        max_time=max_time,
        verbose=verbose,
        **rule,
    )


def patterns_of(problem: Problem, n_patterns: int, random_state: int | np.random.Generator | None) -> Patterns:
    """Activation patterns of a problem: all of them where they are few, sampled ones where they are many."""
    if count_patterns(problem.Z) * problem.Z.n_rows * problem.Z.n_columns <= ENUMERATION_ENTRIES:
        return enumerate_patterns(problem.Z)
    return sample_patterns(problem.Z, n_patterns, random_state=random_state)


def working_set_path(
    problem: Problem,
    weight_decays: Iterable[float],
    *,
    n_patterns: int,
    random_state: int | np.random.Generator | None,
    solver: str,
    tol: float,
    **options: Any,
) -> Iterator[Solution] | None:
    """Gated networks along falling weight decays, with gates of `patterns_of`; None where a cvxpy solver takes them."""
    patterns = patterns_of(problem, n_patterns, random_state)
    if not takes_working_sets(problem, patterns, solver, tol):
        return None
    return gated_path(problem, patterns, weight_decays, tol=tol, **options)


def takes_working_sets(problem: Problem, patterns: Patterns, solver: str, tol: float) -> bool:
    """Whether `solve_gated` solves a gated problem, and no cvxpy solver.

    Small gated problems are degenerate, as many gates fit equally well, which does not slow down an interior point; but
    nuclear norms are slow in it, and at a loose tolerance the working sets are faster.
    """
    large = len(patterns) * problem.Z.n_rows * problem.Z.n_columns > ENUMERATION_ENTRIES
    smooth = bool(np.isfinite(problem.loss.curvature))
    return solver == "auto" and smooth and (large or problem.n_outputs > 1 or tol > _LOOSE)
