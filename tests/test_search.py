"""The searches of a round: from how many starts a gap is confirmed, and what the starts take of the rows."""

from dataclasses import replace

import numpy as np
import pytest

from convexbn import BatchNormDesign, DesignMatrix, Problem, solve_column_generation
from convexbn.solvers import ACCURATE
from convexbn.solvers._monitor import Monitor
from convexbn.solvers._tolerance import Tolerance
from convexbn.solvers.relu._oracle import _starts, searched
from convexbn.solvers.relu._state import Run, State


class Watched(DesignMatrix):
    """Keeps how many rows were asked for at once."""

    asked: list[int]

    def rows(self, chosen=slice(None)):
        found = super().rows(chosen)
        self.asked.append(found.size // self.n_columns)
        return found


@pytest.fixture(scope="module")
def trained():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 6))
    y = np.maximum(X @ rng.standard_normal((6, 3)), 0).sum(axis=1)
    problem = Problem(BatchNormDesign().fit_transform(X), y, weight_decay=0.05)
    return problem, solve_column_generation(problem, tol=1e-7, prove=False, random_state=0).neurons.with_unit_outputs()


@pytest.mark.parametrize(("tol", "times"), [(1e-2, 8), (1e-9, 24)])
@pytest.mark.parametrize("coarse", [False, True])
def test_a_gap_is_confirmed_from_so_many_starts(trained, coarse, tol, times):
    """The search of a coarse round is not polished, so that it confirms nothing and its starts do not count."""
    problem, neurons = trained
    options = replace(ACCURATE, n_starts=20)
    monitor = Monitor("", max_iter=None, max_time=None, callback=None, verbose=False)
    tolerance = Tolerance.of(problem, tol, "objective")
    state = replace(State.of(problem, neurons, options), coarse=coarse)
    state = searched(Run(problem, options, tolerance, np.random.default_rng(0), monitor), state)
    assert tolerance.reached(state.objective, state.bound)
    assert state.n_starts == 20 * (times + coarse)
    assert state.searched.thorough


@pytest.mark.parametrize("tied", [False, True])
def test_starts_across_kinks_take_one_near_row_each(trained, tied):
    problem, neurons = trained
    rows = problem.Z.rows().copy()
    if tied:
        rows[1::2] = -2 * rows[::2]
    Z = type("Fresh", (Watched,), {"asked": []})(rows)
    unit, first = rows / Z.row_norms[:, None], Z.hyperplanes.first
    Z.asked.clear()
    starts = _starts(Z, neurons, 40, replace(ACCURATE, around=0.0, across=0.5), np.random.default_rng(0))[:, 1::2]
    assert Z.asked == [20]
    near = np.argsort(np.abs(rows[first] @ neurons.directions), axis=0)[: Z.n_columns]
    normals = unit[first[near]]  # (k, m, k)
    step = starts.T[:, None, None] - neurons.directions.T
    along = (step * normals).sum(axis=-1, keepdims=True)
    assert np.linalg.norm(step - along * normals, axis=-1).min(axis=(1, 2)) == pytest.approx(0, abs=1e-12)
