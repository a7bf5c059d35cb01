"""The convex program of a pattern set, solved by cvxpy: the reference of the tests of every faster solver."""

from dataclasses import replace
from functools import partial
from typing import Any

import cvxpy as cp
import numpy as np

from convexbn._utils.checks import check_choice
from convexbn.model._activation import ACTIVATIONS, Activation
from convexbn.model._merging import merge_directions, prune
from convexbn.model._neurons import Neurons
from convexbn.model._post_activation import PostActivationProblem
from convexbn.model._problem import Problem, check_problem
from convexbn.oracles import count_flats, most_violated_patterns, price_of_gates, price_of_patterns
from convexbn.patterns._patterns import Patterns, check_patterns
from convexbn.solvers._certificate import Oracle, Search, certify
from convexbn.solvers._monitor import Clock, check_max_iter, check_max_time
from convexbn.solvers._scaling import Scaling
from convexbn.solvers._solution import Solution, Status, status_of
from convexbn.solvers._tolerance import Reference, Tolerance
from convexbn.solvers.conic._post_activation import solve_post_activation_program
from convexbn.solvers.conic._program_solver import check_cvxpy_solver
from convexbn.solvers.conic._programs import primal_program
from convexbn.solvers.conic._rank_one import solve_rank_one
from convexbn.solvers.conic._solve import solve_scaled
from convexbn.solvers.gated._nuclear_norm import NuclearNorm

_PATTERNS_ADDED = 5  # at once; of 5, 10, 20 and 50 the first left Clarabel the fewest log-loss programs it fails on
_MAX_FACES = 5_000_000  # of all cones together, which take about a minute
# Relative costs below which, and distances of directions within which, neurons of an interior point may be one.
_THRESHOLDS = 10.0 ** np.arange(-12, -2, 2)


def solve_reference(
    problem: Problem,
    patterns: Patterns,
    *,
    activation: Activation = "relu",
    solver: str = "CLARABEL",
    tol: float = 1e-6,
    relative_to: Reference = "objective",
    max_iter: int | None = None,
    max_time: float | None = None,
    verbose: bool = False,
) -> Solution:
    """Optimal network on given patterns, by cvxpy.

    Patterns enter the program a few at a time, by their price, until none that is left out could lower the objective.
    Meant for a few hundred samples: time grows fast with n, and with the number of patterns that are needed. The norm
    of a ReLU network with several outputs, the nuclear norm constrained to the patterns' cones, is not conic; it is
    reached by cutting planes (`rank_one_program`) whose exact prices enumerate all faces of the cones. That is for tiny
    problems: a few dozen samples in three columns, or a dozen in four.

    Parameters
    ----------
    problem : Problem
        Training problem.
    patterns : Patterns
        Activation patterns; complete ones give the global optimum of a ReLU network.
    activation : {"relu", "gated_relu"}, default="relu"
        Which network.
    solver : str, default="CLARABEL"
        Any installed cvxpy solver of second-order cone programs (of exponential cones for the log loss).
    tol : float, default=1e-6
        Gap above which the solution is reported as not converged, as a multiple of `relative_to`. The solver is run to
        a thousandth of it.
    relative_to : {"objective", "zero_network"}, default="objective"
        What the gap is measured against, as in `solve_column_generation`.
    max_time : float or None, default=None
        Seconds after which the best network so far is returned. No program is begun after them, and CLARABEL and SCS
        end the current one.
    max_iter, verbose
        As in `convexbn.solve_program`.

    Returns
    -------
    solution : Solution
        Scope "global" if the patterns are complete, "patterns" otherwise and for gated networks.

    Raises
    ------
    ValueError
        If the solver is not installed, an argument is out of range, or a ReLU problem with several outputs has more
        than 20,000 faces a cone or five million in all.
    RuntimeError
        If the solver fails; the message holds its status.

    Warns
    -----
    ConvergenceWarning
        If the gap exceeds `tol`.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, the convex
       program of two-layer networks with one output.
    .. [2] Sahiner et al., "Vector-output ReLU Neural Network Problems are Copositive Programs", arXiv 2012.13329.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import enumerate_patterns
    >>> from convexbn import Problem
    >>> from convexbn import solve_reference
    >>> problem = Problem(np.eye(2), [1.0, -2.0], weight_decay=0.1)
    >>> solution = solve_reference(problem, enumerate_patterns(problem.Z))
    >>> round(solution.certificate.objective, 6), solution.certificate.scope
    (0.28, 'global')
    """
    check_problem(problem)
    check_choice("activation", activation, ACTIVATIONS)
    check_patterns(patterns, problem.Z)
    check_cvxpy_solver(solver)
    tolerance = Tolerance.of(problem, tol, relative_to)
    check_max_iter(max_iter)
    check_max_time(max_time)
    clock = Clock(max_time)
    if isinstance(problem, PostActivationProblem):
        return solve_post_activation_program(
            problem,
            patterns,
            activation,
            tolerance,
            solver=solver,
            tol=tol,
            max_iter=max_iter,
            max_time=max_time,
            verbose=verbose,
        )
    several_relu = activation == "relu" and problem.n_outputs > 1
    if several_relu and len(patterns) * count_flats(problem.Z) > _MAX_FACES:
        raise ValueError(
            f"solver={solver!r} enumerates the faces of all cones for ReLU networks of {problem.n_outputs} outputs, "
            f"up to {count_flats(problem.Z)} for each of {len(patterns)} patterns, more than {_MAX_FACES} in all: that "
            "is for tiny problems. Use solver='auto', which is column generation, or fewer samples, columns, patterns."
        )
    price_of = price_of_patterns if activation == "relu" else price_of_gates
    certificate_of = partial(
        certify,
        problem,
        price=partial(price_of, problem.Z, patterns),
        search=Search.PATTERNS if activation == "relu" else Search.GATES,
        oracle=Oracle.ENUMERATION,
        n_patterns=len(patterns),
    )
    zero, v = _zero_network(problem, activation), problem.zero_dual
    certificate = certificate_of(zero, v)
    if certificate.gap <= 1e-12:
        return Solution(zero, v, certificate, Status.CONVERGED, 0)

    options: dict[str, Any] = {"solver": solver, "tol": tol, "max_iter": max_iter, "verbose": verbose, "clock": clock}
    if several_relu:
        neurons, v, n_iter, ending = solve_rank_one(problem, patterns, **options)
    else:
        neurons, v, n_iter, ending = _grow(problem, patterns, activation, **options)
    neurons = _sparsest(problem, neurons, tol / 100)
    certificate = certificate_of(neurons, v)
    limit = Status.MAX_TIME if clock.is_out() else Status.NOT_CONVERGED
    status = status_of(certificate, tolerance, f"{solver} (status {ending!r})", limit)
    return Solution(neurons, v, certificate, status, n_iter)


def _grow(
    problem: Problem, patterns: Patterns, activation: Activation, *, tol: float, clock: Clock, **options: Any
) -> tuple[Neurons, np.ndarray, int, str]:
    """Solve over a growing subset of the patterns until none outside it prices above weight_decay.

    The optimum is that of all patterns; a subset is faster, and it is better conditioned, since a neuron on a kink
    belongs to the cones of all the patterns around it.
    """
    most_violated = partial(
        most_violated_patterns, problem.Z, patterns, count=_PATTERNS_ADDED, gated=activation == "gated_relu"
    )
    n_iter = 0
    chosen = np.arange(min(_PATTERNS_ADDED, len(patterns)))
    if len(patterns) > _PATTERNS_ADDED:
        violating = most_violated(problem.zero_dual, threshold=problem.weight_decay)
        chosen = violating if len(violating) else chosen
    while True:
        neurons, v, iterations, ending = _solve_on(
            problem, patterns.take(chosen), activation, tol=tol / 1000, max_time=clock.left(), **options
        )
        n_iter += iterations
        if len(chosen) == len(patterns) or ending == cp.USER_LIMIT or clock.is_out():
            break
        violating = most_violated(problem.feasible_dual(v), threshold=problem.weight_decay * (1 + tol / 10))
        larger = np.union1d(chosen, violating)
        if len(larger) == len(chosen):
            break
        chosen = larger
    return neurons, v, n_iter, ending


def _solve_on(
    problem: Problem, patterns: Patterns, activation: Activation, **options: Any
) -> tuple[Neurons, np.ndarray, int, str]:
    """Neurons and dual point of the program over these patterns, the solver's iterations and its status."""
    scaling = Scaling.of(problem)
    build = partial(primal_program, patterns=patterns, activation=activation)
    variables, v, n_iter, ending = solve_scaled(scaling, build, **options)
    blocks = [variables[name] for name in ("S", "T") if name in variables]
    intercept = variables["intercept"].reshape(-1) if problem.fit_intercept else np.zeros(problem.n_outputs)
    if problem.n_outputs > 1:
        S = blocks[0].reshape(len(patterns), -1, problem.n_outputs)
        neurons = NuclearNorm.neurons(S, intercept, patterns.directions)
    else:
        neurons = Neurons(
            np.hstack(blocks),
            np.repeat([1.0, -1.0][: len(blocks)], len(patterns))[:, None],
            intercept,
            None if activation == "relu" else patterns.directions,
        )
    return scaling.unscaled(neurons), v, n_iter, ending


def _zero_network(problem: Problem, activation: Activation) -> Neurons:
    gates = None if activation == "relu" else np.zeros((problem.Z.n_columns, 0))
    return replace(problem.zero_network, gates=gates)


def _sparsest(problem: Problem, neurons: Neurons, slack: float) -> Neurons:
    """Drop what an interior point left of zero neurons, and join what it split among neighbouring patterns.

    Of several thresholds, and of no neuron at all, the sparsest network within a relative `slack` of the best.
    """
    candidates = [_zero_network(problem, "relu" if neurons.gates is None else "gated_relu")]
    for threshold in _THRESHOLDS:
        kept = neurons.without_zeros(threshold)
        candidates.append(prune(kept, problem.Z))
        if neurons.gates is None and len(kept) > 0:
            candidates.append(prune(merge_directions(kept, threshold), problem.Z))
    objectives = np.array([problem.objective(candidate) for candidate in candidates])
    good = np.flatnonzero(objectives <= objectives.min() * (1 + slack))
    return min((candidates[i] for i in good), key=len)
