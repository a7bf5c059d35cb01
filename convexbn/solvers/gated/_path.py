"""Gated networks along weight decays: what does not depend on weight decay is computed once."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import DTypeLike

from convexbn.model._problem import Problem
from convexbn.patterns._patterns import Patterns
from convexbn.solvers._monitor import Monitor
from convexbn.solvers._scaling import Scaling
from convexbn.solvers._solution import Solution
from convexbn.solvers._tolerance import Reference, Tolerance
from convexbn.solvers.gated._driver import solved, working_sets
from convexbn.solvers.gated._steps import Point
from convexbn.solvers.gated._working_set import WorkingSets


def gated_path(
    problem: Problem,
    patterns: Patterns,
    weight_decays: Iterable[float],
    *,
    tol: float = 1e-6,
    relative_to: Reference = "objective",
    max_iter: int | None = 500,
    max_time: float | None = None,
    dtype: DTypeLike = "float64",
    stop: Callable[[], bool] | None = None,
) -> Iterator[Solution]:
    """Solutions of `solve_gated` at weight decays in falling order, each started from those before.

    Masks, the eigenvectors of the second moments, overlaps and prices are kept between weight decays. The weights of
    the last two solutions, extrapolated, are the next start where they have the lower objective.

    Parameters
    ----------
    problem : Problem
        Training problem with a smooth loss; its own weight decay is not used.
    patterns : Patterns
        Activation patterns of the gates.
    weight_decays : iterable of float
        The weight decays, falling.
    tol, relative_to, max_iter, max_time, dtype
        As in `solve_gated`, for each weight decay.
    stop : callable or None, default=None
        Asked in every round; where it returns True, the weight decays that are left get the network so far.

    Yields
    ------
    solution : Solution

    Raises
    ------
    ValueError
        As `solve_gated`.

    Warns
    -----
    ConvergenceWarning
        Once for every weight decay at which the gap exceeds `tol`.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import Problem, sample_patterns
    >>> from convexbn.solvers.gated._path import gated_path
    >>> Z = np.random.default_rng(0).standard_normal((100, 3))
    >>> problem = Problem(Z, np.abs(Z[:, 0]), weight_decay=1.0)
    >>> path = gated_path(problem, sample_patterns(Z, 50, random_state=0), [0.3, 0.1, 0.03])
    >>> [solution.status.name for solution in path]
    ['CONVERGED', 'CONVERGED', 'CONVERGED']
    """
    tolerance = Tolerance.of(problem, tol, relative_to)
    scaling = Scaling.of_targets(problem)
    sets = working_sets(scaling.problem, patterns, dtype)
    found = sets.first(None)
    known: list[tuple[float, Point]] = []
    for weight_decay in weight_decays:
        monitor = Monitor("gated", max_iter=max_iter, max_time=max_time, callback=None, verbose=False, stop=stop)
        at, scaled = problem.with_weight_decay(float(weight_decay)), float(weight_decay) / scaling.target_scale
        here, first = sets.at(scaled), found
        if len(known) == 2:
            first = min(found, extrapolated(here, *known), key=here.objective)
        solution, found = solved(at, scaling, here, first, tolerance, monitor)
        if found is not first and not (known and known[-1][0] == scaled):
            known = [*known[-1:], (scaled, found)]
        yield solution


def extrapolated(sets: WorkingSets, before: tuple[float, Point], last: tuple[float, Point]) -> Point:
    """The last point, extrapolated in proportion to weight decay; weights that would change sign are zero."""
    (first_decay, first), (last_decay, point) = before, last
    ratio = (last_decay - sets.problem.weight_decay) / (first_decay - last_decay)
    used = point.used
    chosen, S = point.chosen[used], point.S[used]
    _, here, there = np.intersect1d(chosen, first.chosen, assume_unique=True, return_indices=True)
    moved = S.copy()
    moved[here] -= first.S[there]
    moved = S + ratio * moved
    through_zero = np.einsum("jkc,jkc->j", moved, S) <= 0
    moved[through_zero] = 0
    linear = len(here) == len(first.chosen) and not through_zero.any()
    f = point.f + ratio * (point.f - first.f) if linear else None
    return sets.point(chosen, moved, point.intercept + ratio * (point.intercept - first.intercept), f)
