"""Gated networks along weight decays: what does not depend on weight decay is computed once."""

from collections.abc import Iterable, Iterator

from numpy.typing import DTypeLike

from convexbn._utils.threads import on_one_thread
from convexbn.model._problem import Problem
from convexbn.patterns._patterns import Patterns
from convexbn.solvers._monitor import Monitor
from convexbn.solvers._solution import Solution
from convexbn.solvers._tolerance import Reference, Tolerance
from convexbn.solvers.gated._driver import solved, working_sets


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
    point = sets.first(None)
    for weight_decay in weight_decays:
        monitor = Monitor("gated", max_iter=max_iter, max_time=None, callback=None, verbose=False)
        solution, point = solved(sets.at(weight_decay), point, tolerance, monitor)
        yield solution
