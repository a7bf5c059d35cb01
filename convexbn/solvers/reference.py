"""The convex program of a pattern set, solved by cvxpy: the truth every faster solver is tested against."""

import warnings
from dataclasses import replace
from functools import partial

import cvxpy as cp
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from convexbn.certificate import certify
from convexbn.matrix import DesignMatrix
from convexbn.neurons import Neurons
from convexbn.patterns import Patterns
from convexbn.pricing import price_of_gates, price_of_patterns
from convexbn.problem import Problem
from convexbn.programs import Activation, primal_program
from convexbn.solution import Solution, Status

_TOLERANCES = {
    "CLARABEL": ("tol_gap_abs", "tol_gap_rel", "tol_feas"),
    "SCS": ("eps_abs", "eps_rel"),
    "ECOS": ("abstol", "reltol", "feastol"),
}
_ITERATIONS = {"CLARABEL": "max_iter", "SCS": "max_iters", "ECOS": "max_iters"}
_ZEROS = 10.0 ** np.arange(-8, -2)  # relative costs below which an interior point's neurons may be zeros


def solve_reference(
    problem: Problem,
    patterns: Patterns,
    *,
    activation: Activation = "relu",
    solver: str = "CLARABEL",
    tol: float = 1e-6,
    max_iter: int | None = None,
    verbose: bool = False,
) -> Solution:
    """Optimal network on given patterns, by cvxpy.

    Time grows with n * k * P and with every cone row; meant for a few hundred samples times a few dozen patterns, or a
    few thousand patterns of a few dozen samples.

    Parameters
    ----------
    problem : Problem
        Training problem with one output.
    patterns : Patterns
        Activation patterns; complete ones give the global optimum of a ReLU network.
    activation : {"relu", "gated_relu"}, default="relu"
        Which network.
    solver : str, default="CLARABEL"
        Any installed cvxpy solver of second-order cone programs (of exponential cones for the log loss).
    tol : float, default=1e-6
        Relative gap above which the solution is reported as not converged. CLARABEL, SCS and ECOS are run to a
        hundredth of it; other solvers to tolerances of their own.
    max_iter : int or None, default=None
        Iterations of CLARABEL, SCS or ECOS; None leaves the solver's own limit.
    verbose : bool, default=False
        Whether cvxpy prints its progress.

    Returns
    -------
    solution : Solution
        Scope "global" if the patterns are complete, "patterns" otherwise and for gated networks.

    Raises
    ------
    ValueError
        If the solver is not installed, or the problem has several outputs.
    RuntimeError
        If the solver fails; the message holds its status.

    Warns
    -----
    ConvergenceWarning
        If the gap exceeds `tol`.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, Theorem 2.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.patterns import enumerate_patterns
    >>> from convexbn.problem import Problem
    >>> from convexbn.solvers import solve_reference
    >>> problem = Problem(np.eye(2), [1.0, -2.0], weight_decay=0.1)
    >>> solution = solve_reference(problem, enumerate_patterns(problem.Z))
    >>> round(solution.certificate.objective, 6), solution.certificate.scope
    (0.28, 'global')
    """
    check_cvxpy_solver(solver)
    scaled, shift, target_scale, column_scale = _conditioned(problem)
    program = primal_program(scaled, patterns, activation)
    options: dict[str, float | bool] = dict.fromkeys(_TOLERANCES.get(solver, ()), tol / 100)
    if max_iter is not None and solver in _ITERATIONS:
        options[_ITERATIONS[solver]] = max_iter
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Solution may be inaccurate")
            program.solve(solver=solver, verbose=verbose, **options)
    except cp.SolverError as error:
        raise RuntimeError(f"cvxpy's solver {solver} failed: {error}") from error
    variables = program.var_dict
    if variables["f"].value is None:
        raise RuntimeError(f"cvxpy's solver {solver} ended without a solution; its status is {program.status!r}.")

    blocks = [variables["S"].value] + ([variables["T"].value] if "T" in variables else [])
    signs = np.repeat([1.0, -1.0][: len(blocks)], len(patterns))[:, None]
    intercept = variables["intercept"].value if problem.fit_intercept else 0.0
    neurons = Neurons(
        np.hstack(blocks) * target_scale / column_scale,
        signs,
        np.array([shift + target_scale * float(intercept)]),
        None if activation == "relu" else patterns.directions,
    )
    neurons = _best_sparse(problem, neurons)
    v = target_scale * program.constraints[0].dual_value[:, None]
    price_of = price_of_patterns if activation == "relu" else price_of_gates
    certificate = certify(problem, neurons, v, partial(price_of, problem.Z, patterns), _basis(patterns, activation))
    status = Status.CONVERGED if certificate.gap <= tol else Status.NOT_CONVERGED
    if status is Status.NOT_CONVERGED:
        warnings.warn(
            f"{solver} stopped at a relative gap of {certificate.gap:.1e}, above tol={tol:.1e} "
            f"(status {program.status!r}); raise max_iter or tol.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return Solution(neurons, v, certificate, status, int(program.solver_stats.num_iters or 0))


def check_cvxpy_solver(solver: str) -> None:
    """Raise a ValueError unless cvxpy can call this solver."""
    if solver not in cp.installed_solvers():
        raise ValueError(
            f"solver={solver!r} is not installed for cvxpy; installed are {cp.installed_solvers()}. "
            "Choose one of these or install it."
        )


def _conditioned(problem: Problem) -> tuple[Problem, float, float, float]:
    """Return the same problem in units in which targets and Z are of order one, and the three units.

    A solver's absolute tolerances then mean the same for every problem.
    """
    column_scale = problem.Z.spectral_norm / np.sqrt(problem.Z.n_rows)
    shift, target_scale = 0.0, 1.0
    if not problem.loss.margin:
        if problem.fit_intercept:
            shift = float(problem.sample_weight @ problem.y[:, 0])
        target_scale = float(np.sqrt(problem.sample_weight @ (problem.y[:, 0] - shift) ** 2)) or 1.0
    scaled = replace(
        problem,
        Z=DesignMatrix(problem.Z.Z / column_scale, problem.Z.n_patches),
        y=(problem.y - shift) / target_scale,
        loss=problem.loss.rescaled(target_scale),
        weight_decay=problem.weight_decay / (target_scale * column_scale),
    )
    return scaled, shift, target_scale, column_scale


def _best_sparse(problem: Problem, neurons: Neurons) -> Neurons:
    """Drop what an interior point left of zero neurons: the threshold of least objective, or no neuron at all."""
    empty = np.zeros((problem.Z.n_columns, 0))
    zero = replace(problem.zero_network, gates=None if neurons.gates is None else empty)
    candidates = [neurons.without_zeros(rtol) for rtol in _ZEROS] + [zero]
    return min(candidates, key=problem.objective).pruned(problem.Z)


def _basis(patterns: Patterns, activation: Activation) -> str:
    if activation != "relu":
        return f"the {len(patterns)} gates of the network"
    return f"all {len(patterns)} activation patterns" if patterns.complete else f"{len(patterns)} activation patterns"
