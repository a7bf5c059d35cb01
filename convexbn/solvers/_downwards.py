"""The first pass of a path: in which order weight decays are solved, and from which networks."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from convexbn._utils.threads import on_one_thread
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.solvers._auto import patterns_of, solve, takes_working_sets
from convexbn.solvers._monitor import Clock
from convexbn.solvers._solution import Solution, Status
from convexbn.solvers.gated._path import gated_path
from convexbn.solvers.relu._options import ACCURATE, Options
from convexbn.solvers.relu._quasi_newton import best_lengths


def downwards(
    problems: list[Problem], clock: Clock, choices: dict[str, Any], *, light: Options, joins: bool
) -> Iterator[Solution | None]:
    """Yield solutions at falling weight decays, from networks that were found before; None where no time is left.

    With `joins` every other weight decay is solved from the network of the last one, and each of those between from
    the networks on both sides, to which the oracle has little to add.

    Parameters
    ----------
    problems : list of Problem
        The problem at falling weight decays.
    clock : Clock
        The time, shared among the weight decays that are left.
    choices : dict
        Keyword arguments of `solve`.
    light : Options
        Choices of column generation at all weight decays but the last.
    joins : bool
        Whether networks may be joined; without it each is solved from the one before.

    Yields
    ------
    solution : Solution or None
        In the order of `problems`, up to the first that is interrupted.
    """
    if choices["activation"] == "gated_relu":
        patterns = patterns_of(problems[0], choices["n_patterns"], choices["random_state"])
        if takes_working_sets(problems[0], patterns, choices["solver"], choices["tol"]):
            found = gated_path(
                problems[0],
                patterns,
                [problem.weight_decay for problem in problems],
                tol=choices["tol"],
                relative_to=choices["relative_to"],
                max_iter=choices["max_iter"] or 500,
                max_time=clock.left(1 / len(problems)),
            )
            yield next(found)
            for _ in problems[1:]:
                yield None if clock.is_out() else next(found)
            return
    left = len(problems)

    def solved(index: int, *sides: Solution | None) -> Solution | None:
        nonlocal left
        if sides and clock.is_out():
            return None
        share, left = clock.left(1 / left), left - 1
        networks = [solution.neurons for solution in sides if solution is not None]
        if not networks:
            start = None if choices["activation"] == "gated_relu" else problems[0].zero_network
        else:
            start = _joined(problems[index], *networks) if len(networks) == 2 else networks[0]
        options = ACCURATE if index == len(problems) - 1 else light
        return solve(problems[index], start=start, max_time=share, options=options, **choices)

    before = solved(0)
    yield before
    step = 2 if joins else 1
    for index in range(1 + (len(problems) - 2) % step, len(problems), step):
        after = solved(index, before)
        interrupted = after is not None and after.status is Status.INTERRUPTED
        if joins and index > 1 and not interrupted:
            yield solved(index - 1, before, after)
        yield after
        before = after


@on_one_thread
def _joined(problem: Problem, before: Neurons, after: Neurons) -> Neurons:
    """The neurons of two networks at their best lengths."""
    before, after = before.with_unit_outputs(), after.with_unit_outputs()
    neurons = replace(
        before,
        weights=np.hstack([before.weights, after.weights]) / 2,
        output_weights=np.vstack([before.output_weights, after.output_weights]),
        intercept=(before.intercept + after.intercept) / 2,
    )
    return best_lengths(problem, neurons, max_steps=ACCURATE.master_steps)
