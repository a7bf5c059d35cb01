"""Gated networks along weight decays: what does not depend on weight decay is computed once."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import DTypeLike

from convexbn._utils.threads import on_one_thread
from convexbn.model._problem import Problem
from convexbn.patterns._patterns import Patterns
from convexbn.solvers._monitor import Monitor
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
    dtype: DTypeLike = "float64",
) -> Iterator[Solution]:
    tolerance = Tolerance.of(problem, tol, relative_to)
    sets = working_sets(problem, patterns, dtype)
    found, known = sets.first(None), []
    for weight_decay in weight_decays:
        monitor = Monitor("gated", max_iter=max_iter, max_time=None, callback=None, verbose=False)
        here, first = sets.at(weight_decay), found
        if len(known) == 2:
            first = min(found, predicted(here, *known), key=here.objective)
        solution, found = solved(here, first, tolerance, monitor)
        if found is not first:
            known = [*known[-1:], (weight_decay, found)]
        yield solution


def predicted(sets: WorkingSets, before: tuple[float, Point], last: tuple[float, Point]) -> Point:
    """The weights of the last point, moved on as far as the step in weight decay is long beside the last one."""
    (first_decay, first), (last_decay, point) = before, last
    ratio = (last_decay - sets.problem.weight_decay) / (first_decay - last_decay)
    used = point.used
    chosen, S = point.chosen[used], point.S[used]
    _, here, there = np.intersect1d(chosen, first.chosen, assume_unique=True, return_indices=True)
    moved = S.copy()
    moved[here] -= first.S[there]
    moved = S + ratio * moved
    moved[(moved * S).sum(axis=(1, 2)) <= 0] = 0
    return sets.point(chosen, moved, point.intercept + ratio * (point.intercept - first.intercept))
