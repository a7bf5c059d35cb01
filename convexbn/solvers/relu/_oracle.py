"""The step of the linear minimisation oracle: neurons whose price exceeds weight_decay."""

from dataclasses import replace
from typing import Any

import numpy as np

from convexbn._utils.array_namespace import like
from convexbn.model._neurons import Neurons
from convexbn.model._sums import along_outputs
from convexbn.operators import Operator
from convexbn.oracles import Price, find_local_maxima
from convexbn.oracles._kinks import Kinks, shared_kinks
from convexbn.solvers._certificate import dual_bound
from convexbn.solvers.relu._options import Options, most_new
from convexbn.solvers.relu._state import Run, Searched, State

_LEAST_RTOL, _MOST_RTOL, _DAMPING = 1e-14, 1e-3, 1e-4  # of the next corrective step
_SMALL_GAP, _MORE = 1e-8, 3  # tolerance up to which more starts confirm a gap, since small basins count; times as many
_BESIDE = 1e-3  # how far beside the plane of two active neurons a start is


def searched(run: Run, state: State) -> State:
    """Search for violated dual constraints; a gap within the tolerance is confirmed from many more starts.

    These searches grow until one finds a gap above the tolerance, or there were starts enough: more where the tolerance
    is small. They start between active neurons, and so does the search of a coarse round, whose gap they then seldom
    raise. There is no search in a single round that no neuron may enter.

    The next corrective step need not be more accurate than what remains: the objective is within about 10 gap^2 of that
    of a joint local optimum, and to come closer can wait as long as neurons are found and rounds make progress.
    """
    options = run.options
    if run.monitor.out_of_time() or (options.max_rounds == 1 and _most_new(run, state, options) == 0):
        return state
    state = _searched_with(run, state, run.coarse if state.coarse else options, 1, between=state.coarse)
    n_searches, most = 0 if state.coarse else 1, options.last_search
    if most > 1 and run.tolerance.relative(state.objective) <= _SMALL_GAP:
        most *= _MORE
    while n_searches < most and run.tolerance.reached(state.objective, state.bound):
        if run.monitor.out_of_time():
            break
        effort = min(max(n_searches, -(-most // 4)), most - n_searches)
        state, n_searches = _confirmed(run, state, effort), n_searches + effort
    remains = min(state.gap if state.has_found else run.tolerance.relative(state.objective) / 10, 1.0) ** 2
    return replace(
        state,
        rtol=float(np.clip(10 * min(remains, state.progress), _LEAST_RTOL, _MOST_RTOL)),
        damping=_DAMPING,
        stalled=state.stalled + 1 if state.progress <= 0 and not state.has_found else 0,
    )


def search_hard(run: Run, state: State) -> State:
    """Search from as many starts as confirm a gap within the tolerance, unless the time is out."""
    return state if run.monitor.out_of_time() else _searched_with(run, state, run.options, run.options.last_search)


def _confirmed(run: Run, state: State, effort: int) -> State:
    """Search again at the same dual point, from other starts; of two complete searches the lower bound counts."""
    before, state = state.searched, _searched_with(run, state, run.options, effort, between=True)
    if before is not None and before.thorough and before.bound < state.bound:
        return replace(state, searched=before)
    return state


def price_of(directions: np.ndarray, Z: Operator, v: np.ndarray) -> Price:
    """The largest price of some unit directions (k, m)."""
    along = Z.summed(along_outputs, Z.place(v), weights=directions)
    return Price(float(np.linalg.norm(along, axis=0).max(initial=0)), "local")


def _searched_with(run: Run, state: State, options: Options, effort: int, *, between: bool = False) -> State:
    """One call of the oracle, from so many times the usual number of starts."""
    problem, Z = run.problem, run.problem.Z
    v = problem.feasible_dual(problem.dual_point(state.neurons.outputs(Z)))
    count = int(min(effort * run.several * options.n_starts, Z.most_directions))
    starts = (_between if between else _starts)(Z, state.neurons, count, options, run.rng)
    found = find_local_maxima(
        Z,
        v,
        starts,
        threshold=problem.weight_decay * (1 + run.tolerance.relative(state.objective) / 10),
        count=_most_new(run, state, options),
        polish=options.polish,
        stop=run.monitor.out_of_time,
    )
    directions = np.hstack([state.neurons.directions, found.directions[:, :1]])
    bound = dual_bound(problem, v, price_of(directions, Z, v))
    call = Searched(v, directions, found, bound, options.polish and not run.monitor.out_of_time())
    return replace(state, searched=call, proof=None, n_starts=state.n_starts + starts.shape[1])


def _most_new(run: Run, state: State, options: Options) -> int:
    """How many neurons may enter."""
    return most_new(len(state.neurons), run.problem.Z.n_samples, run.several, options)


def _starts(Z: Operator, neurons: Neurons, count: int, options: Options, rng: np.random.Generator) -> np.ndarray:
    """Starts of the ascent (k, count): random directions, directions around active neurons, and across their kinks."""
    starts = rng.standard_normal((Z.n_columns, count))
    if len(neurons) == 0:
        return starts
    active = neurons.directions
    if options.around:
        around = starts[:, :: round(1 / options.around)]
        centres = active[:, rng.integers(len(neurons), size=around.shape[1])]
        around *= rng.uniform(0.1, 1, around.shape[1]) / np.sqrt(Z.n_columns)
        around += centres
    if options.across:
        across = starts[:, 1 :: round(1 / options.across)]
        chosen = rng.integers(len(neurons), size=across.shape[1:])
        across[:] = active[:, chosen] + rng.uniform(-0.5, 0.5, len(chosen)) * _normals(Z, active, chosen, rng)
    return starts


def _between(Z: Operator, neurons: Neurons, count: int, options: Options, rng: np.random.Generator) -> np.ndarray:
    """Starts of the ascent (k, count): random directions, and directions of planes of two active neurons."""
    starts = rng.standard_normal((Z.n_columns, count))
    if len(neurons):
        n_between = round(options.between * count)
        pairs = rng.integers(len(neurons), size=(2, n_between))
        weights = rng.standard_normal((2, 1, n_between))
        between = rng.permutation(count)[:n_between]
        starts[:, between] *= _BESIDE
        starts[:, between] += (neurons.directions[:, pairs].transpose(1, 0, 2) * weights).sum(axis=0)
    return starts


def _normals(Z: Operator, active: np.ndarray, chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each chosen neuron the unit normal (k, p) of one of the k kinks nearest to it."""
    shared = shared_kinks(Z, -np.ones((Z.n_rows, 1)))
    n_near = min(Z.n_columns, len(Z.hyperplanes.first))
    numbers = Z.place(np.arange(Z.n_rows)[:, None])
    near = Z.summed(_nearest_rows, numbers, *shared, directions=active, n_near=n_near).rows[:, :, 0]
    rows = near[chosen, rng.integers(n_near, size=len(chosen))]
    return (Z.rows(rows) / np.maximum(Z.row_norms[rows], np.finfo(float).tiny)[:, None]).T


def _nearest_rows(Z: Any, numbers: Any, *shared: Any, directions: Any, n_near: int) -> Kinks:
    """The numbers of the rows with the least products with each direction, one of those that share a kink."""
    xp, inner = Z.xp, Z @ directions
    distance = xp.abs(inner)
    if shared:
        distance = xp.where(shared[1] < 0, distance, like(distance, np.asarray(np.inf))[0])
    return Kinks.of(Z, distance, inner, inner, n_near, numbers)
