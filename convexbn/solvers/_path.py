"""The regularization path: a problem solved at falling weight decays, each from the network before."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning

from convexbn._utils.checks import check_choice, check_random_state, make_generator, real_array
from convexbn._utils.threads import on_one_thread
from convexbn.model._activation import ACTIVATIONS, Activation
from convexbn.model._neurons import Neurons
from convexbn.model._post_activation import PostActivationProblem
from convexbn.model._problem import Problem
from convexbn.oracles import Price, priced_neurons
from convexbn.solvers._auto import OWN_SOLVERS, check_solver, solve, working_set_path
from convexbn.solvers._certificate import Certificate, Search, dual_bound
from convexbn.solvers._monitor import Callback, Clock, Monitor, check_max_time
from convexbn.solvers._solution import Solution, Status
from convexbn.solvers._tolerance import Reference, Tolerance, warn_of_gaps
from convexbn.solvers.relu._options import ACCURATE, Options
from convexbn.solvers.relu._quasi_newton import best_lengths

# At all values but the last; normalized after the ReLU a gap within the tolerance is confirmed from more starts anyway.
_LIGHT = replace(ACCURATE, n_starts=200, last_search=1)
_LIGHT_AFTER = replace(ACCURATE, n_starts=60, new_neurons=4)


def solve_path(
    problem: Problem,
    weight_decays: ArrayLike,
    *,
    activation: Activation = "relu",
    solver: str = "auto",
    n_patterns: int = 50,
    tol: float = 1e-6,
    relative_to: Reference = "objective",
    max_iter: int | None = None,
    max_time: float | None = None,
    random_state: int | None = None,
    callback: Callback | None = None,
    verbose: bool = False,
) -> list[Solution]:
    """Solve a problem along falling weight decays, each from the network before.

    Column generation searches lightly at all values but the smallest, at each from other random starts. What it
    finds at any value is then priced at all values, and those whose gap is then above `tol` are solved again, from the
    smallest upwards, each from its own network and the neurons of another that violate its dual feasibility; where that
    is not enough, once more with the whole search. Nothing is proved; the certificates of ReLU networks are local,
    except where `price_bound` or a closed form makes them global.

    Parameters
    ----------
    problem : Problem
        Training problem; its own weight decay does not matter.
    weight_decays : array-like of shape (n_weight_decays,)
        Positive numbers in any order.
    activation, solver, n_patterns, tol, relative_to, max_iter
        As in `solve`.
    max_time : float or None, default=None
        Seconds, shared among the weight decays that are left; each ends with its best network so far, and where no
        time is left with the network of the weight decay before.
    random_state : int or None, default=None
        Seed of the random starts, and of sampled patterns, which are the same at all values.
    callback : callable or None, default=None
        Called with a `Progress` after every weight decay, from the largest to the smallest; a true value ends the path.
    verbose : bool, default=False
        Whether to show progress.

    Returns
    -------
    solutions : list of Solution
        At the weight decays from the largest to the smallest; fewer if Ctrl-C or the callback ended the path.

    Raises
    ------
    ValueError
        If a weight decay is not positive and finite, or as in `solve`.
    RuntimeError
        If a cvxpy solver fails.

    Warns
    -----
    ConvergenceWarning
        Once, if gaps exceed `tol`: how many, and the largest.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import Problem, solve_path
    >>> problem = Problem(np.eye(2), [1.0, -2.0], weight_decay=1.0)
    >>> [round(solution.certificate.objective, 3) for solution in solve_path(problem, [0.1, 1.0])]
    [1.25, 0.28]
    """
    grid = np.sort(np.atleast_1d(real_array("weight_decays", weight_decays)))[::-1]
    if grid.ndim != 1 or grid.size == 0 or not ((grid > 0) & (grid < np.inf)).all():
        raise ValueError(f"weight_decays={weight_decays!r} must be a list of positive finite numbers.")
    check_max_time(max_time)
    check_random_state(random_state)
    check_choice("activation", activation, ACTIVATIONS)
    check_solver(solver, activation)
    tolerance = Tolerance.of(problem, tol, relative_to)  # whose scale does not depend on the weight decay
    problems = [problem.with_weight_decay(float(weight_decay)) for weight_decay in grid]
    choices: dict[str, Any] = {"activation": activation, "solver": solver, "n_patterns": n_patterns, "tol": tol}
    choices |= {"relative_to": relative_to, "max_iter": max_iter, "random_state": random_state, "prove": False}
    searches = activation == "relu" and solver in OWN_SOLVERS and np.isfinite(problem.loss.curvature)
    if searches:  # there are no sampled patterns, which are the same at all values
        choices["random_state"] = make_generator(random_state)
    solutions: list[Solution] = []
    clock = Clock(max_time)
    monitor = Monitor("path", max_iter=len(grid), callback=callback, verbose=verbose)
    with monitor, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for solution in _within(clock, tolerance, problems, _downwards(problems, clock, choices)):
            if solution.status is Status.INTERRUPTED:
                break
            solutions.append(solution)
            monitor.goes_on(solution.certificate.objective, solution.certificate.gap, len(solution.neurons))
            if monitor.ending is Status.INTERRUPTED:
                break
        solutions = _priced_by_all(problems, solutions, tolerance)
        upwards = list(reversed(range(len(grid) - 1))) if monitor.ending is Status.MAX_ITER else []
        for index, light in [(index, light) for light in (True, False) for index in upwards]:
            if clock.is_out():
                break
            if tolerance.reached_by(solutions[index].certificate):
                continue
            start = solutions[index + 1].neurons
            if searches and not isinstance(problem, PostActivationProblem):
                start = _with_violating(problems[index], index, solutions)
            options, limit = _light(problem) if light else ACCURATE, clock.left(1 / (index + 1))
            again = solve(problems[index], start=start, max_time=limit, options=options, **choices)
            if again.status is Status.INTERRUPTED:
                break
            if again.certificate.gap < solutions[index].certificate.gap:
                solutions[index] = again
                solutions = _priced_by_all(problems, solutions, tolerance)
    certificates = [solution.certificate for solution in solutions]
    gaps = [tolerance.gap(found.objective, found.lower_bound) for found in certificates]
    warn_of_gaps(np.array(gaps), tol, relative_to)
    return solutions


def _within(
    clock: Clock, tolerance: Tolerance, problems: list[Problem], downwards: Iterator[Solution]
) -> Iterator[Solution]:
    """Solutions until the time is out; from then on the last one, at the weight decays that are left."""
    solution = next(downwards)
    yield solution
    for before, problem in pairwise(problems):
        if clock.is_out():
            share = problem.weight_decay / before.weight_decay
            certificate, dual = _carried(solution, problem, share), share * solution.dual
            status = Status.CONVERGED if tolerance.reached_by(certificate) else Status.MAX_TIME
            solution = replace(solution, dual=dual, certificate=certificate, status=status, n_iter=0, history=())
        else:
            solution = next(downwards)
        yield solution


def _carried(solution: Solution, problem: Problem, share: float) -> Certificate:
    """Certificate of a solution as one of `problem`, whose weight decay is a share of its own.

    The optimal value is concave in the weight decay and not negative at zero, so a lower bound holds in proportion.
    What the search found is of the weight decay before, unless it is a fixed set of patterns or gates.
    """
    before = solution.certificate
    proved = before.global_lower_bound
    return replace(
        before,
        objective=problem.objective(solution.neurons),
        search=before.search if share == 1 or before.n_patterns is not None else Search.DUAL_POINT,
        lower_bound=share * before.lower_bound,
        global_lower_bound=None if proved is None else share * proved,
    )


def _downwards(problems: list[Problem], clock: Clock, choices: dict[str, Any]) -> Iterator[Solution]:
    """Solutions at falling weight decays, each from the one before."""
    if choices["activation"] == "gated_relu":
        found = working_set_path(
            problems[0],
            [problem.weight_decay for problem in problems],
            max_iter=choices["max_iter"] or 500,
            max_time=clock.left(1 / len(problems)),
            **{name: choices[name] for name in ("n_patterns", "random_state", "solver", "tol", "relative_to")},
        )
        if found is not None:
            yield from found
            return
        start = None
    else:
        start = problems[0].zero_network
    for index, problem in enumerate(problems):
        options = _light(problem) if index < len(problems) - 1 else ACCURATE
        share = clock.left(1 / (len(problems) - index))
        solution = solve(problem, start=start, max_time=share, options=options, **choices)
        yield solution
        start = solution.neurons


def _light(problem: Problem) -> Options:
    return _LIGHT_AFTER if isinstance(problem, PostActivationProblem) else _LIGHT


def _priced_by_all(problems: list[Problem], solutions: list[Solution], tolerance: Tolerance) -> list[Solution]:
    """Solutions whose local certificates, and statuses, rest on the neurons of all of them."""
    local = [index for index, found in enumerate(solutions) if found.certificate.scope == "local"]
    if not local:
        return solutions
    duals = [solutions[index].dual for index in local]
    prices = np.max([_prices(problems[0], solutions[index].neurons, duals) for index in local], axis=0)
    priced = list(solutions)
    for index, price in zip(local, prices, strict=True):
        found = solutions[index]
        bound = dual_bound(problems[index], found.dual, Price(float(price), "local"))
        proved = found.certificate.global_lower_bound or 0.0
        bound = max(min(bound, found.certificate.lower_bound), proved)
        certificate, status = replace(found.certificate, lower_bound=bound), found.status
        if status is Status.CONVERGED and not tolerance.reached_by(certificate):
            status = Status.NOT_CONVERGED
        priced[index] = replace(found, certificate=certificate, status=status)
    return priced


def _prices(problem: Problem, neurons: Neurons, duals: list[np.ndarray]) -> np.ndarray:
    """Largest price of the neurons of a network at each of some dual points (n, C)."""
    if isinstance(problem, PostActivationProblem):
        Z, p = problem.Z, problem.sample_weight
        return np.array([priced_neurons(Z, p, v, neurons.weights).prices.max(initial=0) for v in duals])
    along = _along(problem, neurons, np.hstack(duals)).reshape(len(duals), problem.n_outputs, -1)
    return np.maximum(np.linalg.norm(along, axis=1).max(axis=1, initial=0), 0)


def _along(problem: Problem, neurons: Neurons, v: np.ndarray) -> np.ndarray:
    """Products V^T relu(Zw) of dual points (n, q) with the unit directions of neurons, shape (q, m)."""
    return v.T @ problem.Z.neuron_outputs(neurons.directions)


@on_one_thread
def _with_violating(problem: Problem, index: int, solutions: list[Solution]) -> Neurons:
    """The network of a solution, enlarged by violating neurons of another, all at their best lengths.

    The other is the one of whose neurons one violates dual feasibility most.
    """
    own = solutions[index].neurons.with_unit_outputs()
    known = [(found.neurons, _along(problem, found.neurons, solutions[index].dual)) for found in solutions]
    others, along = max(known, key=lambda pair: np.linalg.norm(pair[1], axis=0).max(initial=0))
    prices = np.linalg.norm(along, axis=0)
    violating = prices > problem.weight_decay
    neurons = replace(
        own,
        weights=np.hstack([own.weights, ACCURATE.new_length * others.with_unit_outputs().weights[:, violating]]),
        output_weights=np.vstack([own.output_weights, (along[:, violating] / prices[violating]).T]),
    )
    return best_lengths(problem, neurons, max_steps=ACCURATE.master_steps)
