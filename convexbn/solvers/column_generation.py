"""Column generation: the fast way to the best network known, one neuron by its price after another."""

from dataclasses import replace

import numpy as np

from convexbn.certificate import certify, dual_bound
from convexbn.neurons import Neurons
from convexbn.pricing import Peaks, Price, find_peaks
from convexbn.problem import Problem
from convexbn.solution import Solution, Status, status_of
from convexbn.solvers.monitor import Callback, Monitor
from convexbn.solvers.newton import merged, refine
from convexbn.solvers.slide import slide
from convexbn.solvers.units import Units

_WIDTH = 4, 100  # neurons at the start: this many times k, but no more than so many
_SLIDE_STEPS, _NEWTON_STEPS, _LENGTH_STEPS = 200, 40, 100
_STARTS, _HARDER = 600, 8  # ascents of a pricing round, and how many times that in the last one
DAMP0,DAMP1,RT=.1,1e-2,1e-3
_NEW = 10  # neurons added in a round


def solve_column_generation(
    problem: Problem,
    *,
    tol: float = 1e-6,
    max_iter: int | None = 100,
    max_time: float | None = None,
    start: Neurons | None = None,
    random_state: int | np.random.Generator | None = None,
    callback: Callback | None = None,
    verbose: bool = False,
) -> Solution:
    monitor = Monitor(
        "column generation", max_iter=max_iter, max_time=max_time, callback=callback, verbose=verbose
    )
    units = Units.of(problem)
    scaled = units.problem
    rng = np.random.default_rng(random_state)
    neurons = scaled.zero_network if start is None else _signed(units.neurons_from(start))
    price = Price(np.inf, "local")
    gap, converged = np.inf, False
    with monitor:
        if len(neurons) == 0:
            neurons = _first(scaled, rng)
        damping, rtol = DAMP0, 1e-7
        while True:
            neurons = refine(
                scaled, neurons, rtol=rtol, max_steps=_NEWTON_STEPS, damping=damping, stop=monitor.out_of_time
            )
            damping = DAMP1
            v = scaled.feasible_dual(scaled.dual_point(neurons.outputs(scaled.Z)))
            peaks = find_peaks(scaled.Z, v, _starts(scaled, neurons, _STARTS, rng), threshold=scaled.weight_decay, count=_NEW)
            gap = _gap(scaled, neurons, v, peaks)
            if verbose==2: print('newton done')
            if gap <= tol:
                harder = find_peaks(scaled.Z, v, _starts(scaled, neurons, _HARDER * _STARTS, rng), threshold=scaled.weight_decay, count=_NEW)
                peaks = harder if len(harder) else peaks
                gap = _gap(scaled, neurons, v, peaks)
            rtol = np.clip(RT * gap**2, 1e-14, 1e-7)
            if not monitor.goes_on(problem.objective(units.neurons_to(neurons)), gap, len(neurons)) or gap <= tol:
                break
            neurons = slide(scaled, _with(neurons, peaks, scaled), max_steps=_LENGTH_STEPS, directions_too=False)
    return neurons, monitor, peaks, units


def _gap(problem, neurons, v, peaks):
    M = max(peaks.prices[0] if len(peaks) else 0.0, problem.weight_decay)
    objective = problem.objective(neurons)
    return (objective - dual_bound(problem, v, Price(M, "local"))) / objective


def _signed(neurons: Neurons) -> Neurons:
    """The same network with output weights +1 and -1."""
    size = np.abs(neurons.output_weights)
    return replace(neurons, weights=neurons.weights * size.T, output_weights=np.sign(neurons.output_weights)).without_zeros()


def _first(problem: Problem, rng: np.random.Generator) -> Neurons:
    k = problem.Z.n_columns
    m = min(_WIDTH[0] * k, _WIDTH[1])
    directions = rng.standard_normal((k, m))
    directions /= 10 * np.linalg.norm(directions, axis=0)
    signs = np.where(np.arange(m) % 2 == 0, 1.0, -1.0)[:, None]
    neurons = slide(problem, Neurons(directions, signs, problem.zero_network.intercept), max_steps=_SLIDE_STEPS)
    return merged(problem, neurons.without_zeros(1e-3))


def _starts(problem: Problem, neurons: Neurons, count: int, rng: np.random.Generator) -> np.ndarray:
    Z, k = problem.Z, problem.Z.n_columns
    random = rng.standard_normal((k, count - 2 * (count // 4) if len(neurons) else count))
    if len(neurons) == 0:
        return random
    active = neurons.weights / np.linalg.norm(neurons.weights, axis=0)
    chosen = rng.integers(len(neurons), size=count // 4)
    around = active[:, chosen] + rng.uniform(0.1, 1.0, count // 4) * rng.standard_normal((k, count // 4)) / np.sqrt(k)
    near = np.argpartition(np.abs(Z.Z @ active), min(k, Z.n_rows) - 1, axis=0)[: min(k, Z.n_rows)]
    rows = Z.Z[near[rng.integers(len(near), size=count // 4), chosen]].T
    rows = rows / np.maximum(np.linalg.norm(rows, axis=0), np.finfo(float).tiny)
    across = active[:, chosen] + rng.uniform(-0.5, 0.5, count // 4) * rows
    return np.hstack([random, around, across])


def _with(neurons: Neurons, peaks: Peaks, problem) -> Neurons:
    tiny = 1e-12
    return replace(
        neurons,
        weights=np.hstack([neurons.weights, tiny * peaks.directions]),
        output_weights=np.vstack([neurons.output_weights, peaks.signs[:, None]]),
    )
