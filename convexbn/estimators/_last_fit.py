"""The last fit after a choice: its start and its limits of work."""

from dataclasses import replace
from typing import Any

import numpy as np
from joblib import Parallel, delayed  # scikit-learn's, which set the filters of warnings, are not safe in threads

from convexbn._utils.threads import on_one_thread
from convexbn.estimators._hold_out import hold_out
from convexbn.model._neurons import Neurons
from convexbn.model._post_activation import PostActivationProblem
from convexbn.model._problem import Problem
from convexbn.solvers._fast_path import fast_path
from convexbn.solvers._monitor import Clock
from convexbn.solvers.relu._fast import descend, price_quickly
from convexbn.solvers.relu._options import ACCURATE

# Quasi-Newton steps of the last fit, their share of the work of the choice, and of the time that is left.
_DESCENT_STEPS, _DESCENT_WORK, _DESCENT_TIME = (100, 1500), 0.75, 0.5
# Of column generation after it, where weights are not many; and of the work of the choice, for Newton steps.
_ROUNDS, _NEWTON_SHARE = 10, 2
# Share of the largest weight decay from which on the last fit starts from the zero network, and entries of Z at most.
_STRONG, _MOST_ENTRIES = 0.03, 100_000
_LEAST_NEWTON_STEPS = 500  # of such a fit, at most so many or what its share is
_FACTORISATIONS = 20  # about so many in a Newton step
# A fit that starts from the choice, where quasi-Newton steps lower the objective faster than Newton's. Of the work of
# the choice, for Newton steps, and for the search that confirms a gap, whose starts take as long as so many steps, and
# with polish as so many more times k^2 / n.
_FEWEST_NEWTON_STEPS, _FEW_NEWTON_SHARE = 5, 0.125
_SEARCH_SHARE, _STEPS_A_START, _STEPS_OF_POLISH = 0.125, 50, 100
_FEWEST_STARTS = 30  # of a search after which no round follows
# Its rounds are few: a coarse one descends further, and Newton steps come sooner. A proof takes about as long as the
# search.
_OPTIONS = replace(
    ACCURATE,
    many_weights=3000,
    coarse_gap=1e-2,
    coarse_progress=1e-2,
    coarse_steps=(50, 50),
    proof=replace(ACCURATE.proof, nodes_a_start=1),
)


@on_one_thread
def last_fit(problem: Problem, start: Neurons, work: int, clock: Clock) -> dict[str, Any]:
    """Start and limits of the last fit, on all samples, which takes about as much work as the choice did.

    At a strong weight decay few neurons are optimal, and on small data column generation from the zero network is
    fastest. Else the fit starts from the network of the choice, with quasi-Newton steps.

    Parameters
    ----------
    problem : Problem
        Training problem of all samples at the chosen weight decay.
    start : Neurons
        Network that the choice ended with.
    work : int
        Quasi-Newton steps of the choice times rows and neurons.
    clock : Clock
        Time limit, after which the best network so far is returned.

    Returns
    -------
    options : dict
        Options of `solve`.
    """
    if isinstance(problem, PostActivationProblem):
        return _last_fit_after_relu(problem, start, work)
    n, k = problem.Z.n_rows, problem.Z.n_columns
    rows = n * problem.n_outputs  # of the Jacobian
    small = n * k <= _MOST_ENTRIES
    searches = _SEARCH_SHARE * work / ((_STEPS_A_START * n + _STEPS_OF_POLISH * k**2) * _n_starts(problem))
    n_searches = int(np.clip(searches, 1, ACCURATE.last_search))
    options = replace(_OPTIONS, last_search=n_searches)
    if len(start) == 0 or (small and problem.weight_decay >= _STRONG * price_quickly(problem, random_state=0)):
        steps = max(_LEAST_NEWTON_STEPS, int(_NEWTON_SHARE * work / _newton_work(rows, k, ACCURATE.newton_weights)))
        return {"options": replace(options, newton_steps=steps)}
    n_steps = int(np.clip(_DESCENT_WORK * work / (n * len(start)), *_DESCENT_STEPS))
    start = descend(problem, start, n_steps=n_steps, stop=Clock(clock.left(_DESCENT_TIME)).is_out)
    n_weights = len(start) * k
    newton_work = _newton_work(rows, k, min(n_weights, ACCURATE.newton_weights))
    steps = max(_FEWEST_NEWTON_STEPS, int(_FEW_NEWTON_SHARE * work / newton_work))
    options = replace(options, newton_steps=steps)
    if not options.has_many_weights(start):
        return {"start": start, "max_iter": _ROUNDS, "options": options}
    n_starts = int(np.clip(searches * ACCURATE.n_starts, _FEWEST_STARTS, ACCURATE.n_starts))
    return {"start": start, "max_iter": 1, "options": replace(options, n_starts=n_starts, new_neurons=1)}


@on_one_thread
def average_of_parts(
    problem: Problem, weight_decays: np.ndarray, seed: int, *, stratified: bool, n_jobs: int | None, clock: Clock
) -> Neurons:
    """A start of the last fit: the ends of fast paths, each without some of the samples, averaged.

    On small data their mean predicts better than the end of one path of all samples. Samples are left out as `hold_out`
    deals them, not as the test folds of a choice, which may be any. On large data, and within a time limit, in which
    not all of these paths may end, one path of all samples is followed.

    Parameters
    ----------
    problem : Problem
        Training problem of all samples.
    weight_decays : ndarray of shape (n_weight_decays,)
        The path, falling to the chosen value.
    seed : int
        Seed of the parts, and of the starts of the paths.
    stratified : bool
        Whether the targets are classes.
    n_jobs : int or None
        Paths that are followed at the same time.
    clock : Clock
        Time limit of the paths.

    Returns
    -------
    start : Neurons
    """
    parts = hold_out(problem, problem.y, np.random.default_rng(seed), stratified=stratified)
    several = len(parts) > 1 and clock.max_time is None
    problems = [problem.restricted(kept) for kept, _ in parts] if several else [problem]
    ends = Parallel(n_jobs=n_jobs, prefer="threads")(
        delayed(_end_of_path)(some, weight_decays, seed, clock) for some in problems
    )
    return type(ends[0]).averaged(ends)


def _end_of_path(problem: Problem, weight_decays: np.ndarray, seed: int, clock: Clock) -> Neurons:
    """The last network of a fast path."""
    *_, end = fast_path(problem, weight_decays, random_state=seed, stop=clock.is_out)
    return end


def _last_fit_after_relu(problem: PostActivationProblem, start: Neurons, work: int) -> dict[str, Any]:
    """The same for networks that are normalized after the ReLU: rounds of column generation from the start."""
    n, k, several = problem.Z.n_rows, problem.Z.n_columns, problem.n_outputs
    size = max(1, len(start)) * (k + 1 + several)
    steps = int(np.clip(work / (n * max(1, len(start))), *_DESCENT_STEPS))
    sweeps = _NEWTON_SHARE * work / _newton_work(n * several, k, size) / _ROUNDS
    options = replace(
        ACCURATE,
        quasi_newton_steps=steps,
        newton_sweeps=int(np.clip(sweeps, 0, ACCURATE.newton_sweeps)),
        polish=sweeps >= 1,
    )
    return {"start": start if len(start) else None, "max_iter": _ROUNDS if sweeps >= 1 else 1, "options": options}


def _n_starts(problem: Problem) -> int:
    """Starts of a call of the oracle."""
    return ACCURATE.n_starts * (1 if problem.output_directions.fixed else ACCURATE.several)


def _newton_work(n: int, k: int, size: int) -> float:
    """Work of a Newton step of so many weights, in that of a quasi-Newton step of one neuron on one row."""
    return (n * size**2 + _FACTORISATIONS * size**3 / 3) / (3 * k)
