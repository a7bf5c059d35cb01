r"""Gated ReLU networks: a group lasso over activation patterns, by working sets and Newton's method.

With ``F_i = D_i Z`` the design matrix masked by gate i, and ``w_l = p_l loss''(f_l)``, the solver uses
that the blocks of the Hessian, ``F_i^T diag(w) F_j`` are close to a number times one matrix:

    ``F^T diag(w) F  ~  K (x) C``,  ``K_ij = sum_l w_l q_l D_i,l D_j,l``,  ``C = Z^T diag(p) Z``,

with q_l the leverage of row l divided by k. For whitened data C is the identity. A group lasso with this Hessian is
solved at little cost and identifies the gates in use; on these, conjugate gradients preconditioned by K (x) C and the
curvature of the norms solve the Newton system of the true Hessian in a handful of products. Among all the patterns of
few rows many gates fit almost equally well, and they do not: there the Hessian is small, and is factorised.
"""

from functools import lru_cache, partial

import numpy as np
from numpy.typing import DTypeLike

from convexbn._utils.rows_lost import RowsLostError
from convexbn._utils.threads import on_one_thread
from convexbn.model._neurons import Neurons
from convexbn.model._post_activation import check_not_gated
from convexbn.model._problem import Problem, check_problem
from convexbn.patterns._patterns import Patterns, check_patterns
from convexbn.solvers._certificate import Certificate, Search, certify
from convexbn.solvers._checkpoint import (
    Checkpoint,
    CheckpointPath,
    Rounds,
    arrays_of,
    check_checkpoint,
    fingerprint_of,
)
from convexbn.solvers._monitor import Callback, Monitor
from convexbn.solvers._scaling import Scaling
from convexbn.solvers._solution import Solution, Status, status_of
from convexbn.solvers._tolerance import Reference, Tolerance
from convexbn.solvers.gated._euclidean_norm import EuclideanNorm
from convexbn.solvers.gated._interior_point import fits_everything, interior_rounds
from convexbn.solvers.gated._nuclear_norm import NuclearNorm
from convexbn.solvers.gated._steps import Point
from convexbn.solvers.gated._working_set import Known, State, WorkingSets, check_start


@on_one_thread
def solve_gated(
    problem: Problem,
    patterns: Patterns,
    *,
    tol: float = 1e-6,
    relative_to: Reference = "objective",
    max_iter: int | None = 500,
    max_time: float | None = None,
    start: Neurons | None = None,
    dtype: DTypeLike = "float64",
    checkpoint: CheckpointPath | Checkpoint | None = None,
    callback: Callback | None = None,
    verbose: bool = False,
) -> Solution:
    r"""Optimal gated ReLU network with given gates.

    ``minimise  sum_i p_i loss(f_i, y_i) + weight_decay * sum_j |s_j|``,
    ``f = sum_j 1[Z g_j >= 0] * (Z s_j) + intercept``, over all patterns j. With several outputs the weights of a
    pattern are a matrix, which costs its nuclear norm, and neurons are its singular triplets.

    Each round prices the gates that the change of the dual point may have brought above weight_decay, lets those of
    largest price enter the working set, and improves its weights by proximal and Newton steps. Memory grows with the
    gates in use, not with those given: masks are unpacked block by block. Where Z has at least as many columns as rows
    and there are many gates for few outputs, an interior-point method on the dual takes their place.

    Parameters
    ----------
    problem : Problem
        Training problem with a smooth loss.
    patterns : Patterns
        Activation patterns of the gates.
    tol : float, default=1e-6
        Gap at which the solver stops, as a multiple of `relative_to`.
    relative_to : {"objective", "zero_network"}, default="objective"
        What the gap is measured against, as in `solve_column_generation`.
    max_iter : int or None, default=500
        Rounds after which the solver stops.
    max_time : float or None, default=None
        Seconds after which the solver stops.
    start : Neurons or None, default=None
        Gated neurons to start from, such as those of a solution for another `weight_decay`. Their gates must be among
        the patterns.
    dtype : {"float64", "float32"}, default="float64"
        Precision of the products with Z. In float32 they are twice as fast and take half the memory; objective and
        certificate are in float64 all the same.
    checkpoint : path or None, default=None
        File that holds the last completed round, as in `solve_column_generation`.
    callback : callable or None, default=None
        Called with a `Progress` after every round; a true value ends the run.
    verbose : bool, default=False
        Whether to show progress.

    Returns
    -------
    solution : Solution
        Neurons with gates, in the order of the patterns, output weights of length one (and positive, if there is one
        output); scope "patterns". On a limit or Ctrl-C the best network so far; a second Ctrl-C is passed on.

    Raises
    ------
    ValueError
        If the loss is not smooth, patterns or start do not fit the problem, or an option is out of range; or if
        `checkpoint` is damaged, or of other data, parameters or version than this call.

    Warns
    -----
    ConvergenceWarning
        If the gap exceeds `tol`.

    References
    ----------
    .. [1] Mishkin, Sahiner, Pilanci, "Fast Convex Optimization for Two-Layer ReLU Networks", arXiv 2202.01331.
    .. [2] Sahiner, Ergen, Pauly, Pilanci, "Vector-output ReLU Neural Network Problems are Copositive Programs",
       arXiv 2012.13329.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import sample_patterns
    >>> from convexbn import Problem
    >>> from convexbn import solve_gated
    >>> rng = np.random.default_rng(0)
    >>> Z = rng.standard_normal((100, 3))
    >>> problem = Problem(Z, np.abs(Z[:, 0]), weight_decay=0.01)
    >>> solution = solve_gated(problem, sample_patterns(Z, 50, random_state=0))
    >>> solution.status.name, solution.certificate.gap <= 1e-6
    ('CONVERGED', True)
    """
    tolerance = Tolerance.of(problem, tol, relative_to)
    check_not_gated(problem)
    check_checkpoint(checkpoint)
    if not (start is None or isinstance(start, Neurons)):
        raise ValueError(f"start={start!r} must be the Neurons of a gated network, or None.")
    if start is not None:
        check_start(problem, start)
    scaling = Scaling.of_targets(problem)
    sets = working_sets(scaling.problem, patterns, dtype)
    first = sets.first(None if start is None else scaling.scaled(start))
    monitor = Monitor("gated", max_iter=max_iter, max_time=max_time, callback=callback, verbose=verbose)
    kept = [*arrays_of(start), patterns.directions, patterns.packed]
    parameters = ["gated", tolerance, sets.dtype]
    file = Checkpoint(checkpoint, lambda: fingerprint_of(problem, parameters, kept), State, Point, Known)
    return solved(problem, scaling, sets, first, tolerance, monitor, Rounds(file, monitor))[0]


def working_sets(problem: Problem, patterns: Patterns, dtype: DTypeLike) -> WorkingSets:
    """Prepare a problem for `solved`; raise a ValueError if problem, patterns or dtype are out of reach."""
    _check(problem, patterns)
    norm = EuclideanNorm if problem.output_directions.fixed else NuclearNorm
    return WorkingSets(problem, patterns, _precision(dtype), norm)


@on_one_thread
def solved(
    problem: Problem,
    scaling: Scaling,
    sets: WorkingSets,
    first: Point,
    tolerance: Tolerance,
    monitor: Monitor,
    kept: Rounds | None = None,
) -> tuple[Solution, Point]:
    """Solve a problem within the limits of a monitor: the solution, and its point to go on from.

    `sets` and the points are those of the scaled problem.
    """
    neurons_of = lru_cache(maxsize=1)(sets.neurons)

    def certificate_of(best: Point, v: np.ndarray) -> tuple[Neurons, np.ndarray, Certificate]:
        neurons, v = scaling.unscaled(neurons_of(best)), scaling.unscaled_dual(v)
        of_gates = partial(certify, price=sets.price, search=Search.GATES, n_patterns=len(sets.patterns))
        return neurons, v, of_gates(problem, neurons, v)

    best, v, found = first, sets.problem.zero_dual, None
    scaled_tolerance = scaling.scaled_tolerance(tolerance)
    interior = fits_everything(sets)
    start: State | None = None if kept is None else kept.resume()
    if start is not None:
        sets.known, best, v = start.known, start.best, start.v
    try:
        with monitor:
            if start is None:
                start = sets.priced(min(first, sets.first(None), key=sets.objective) if interior else first)
            rounds = interior_rounds if interior else WorkingSets.rounds
            for state in rounds(sets, start, scaled_tolerance, monitor.out_of_time):
                if kept is not None:
                    kept.keep(state)
                best, v, found = state.best, state.v, None
                objective, gap = sets.objective(best), sets.gap(state)
                goes_on = state.n_rounds == 0 or monitor.goes_on(
                    scaling.unscaled_objective(objective), gap, len(neurons_of(best))
                )
                if gap <= scaled_tolerance.relative(objective):
                    found = certificate_of(best, v)
                    if tolerance.reached_by(found[2]):
                        break
                if not goes_on:
                    break
        if found is None or monitor.ending is Status.INTERRUPTED:  # after Ctrl-C; another one is not caught here
            found = certificate_of(best, v)
    except RowsLostError as error:
        error.best = scaling.unscaled(neurons_of(best))
        raise
    ending = monitor.ending or Status.NOT_CONVERGED
    status = status_of(found[2], tolerance, f"solve_gated in {sets.dtype}", ending)
    return Solution(*found, status, monitor.n_iter, tuple(monitor.history)), best


def _check(problem: Problem, patterns: Patterns) -> None:
    check_problem(problem)
    if not np.isfinite(problem.loss.curvature):
        raise ValueError(
            f"solve_gated takes smooth losses, and loss {problem.loss.name!r} has a kink; use 'squared_hinge', or "
            "solve_reference(..., activation='gated_relu')."
        )
    check_patterns(patterns, problem.Z)


def _precision(dtype: DTypeLike) -> np.dtype:
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found not in (np.float32, np.float64):
        raise ValueError(f"dtype={dtype!r} must be 'float64' or 'float32'.")
    return found
