"""The corrective step: all neurons move together, to a joint local optimum unless the round is coarse."""

from dataclasses import replace

import numpy as np

from convexbn.model._merging import merge
from convexbn.model._neurons import Neurons
from convexbn.solvers.relu._newton import newton
from convexbn.solvers.relu._on_kinks import newton_on_kinks
from convexbn.solvers.relu._quasi_newton import best_lengths, quasi_newton
from convexbn.solvers.relu._state import Run, State

_FIRST_LENGTH, _LEAST_LENGTH = 0.1, 1e-3  # of random neurons, and of those kept, relative to the longest
_FIRST_RTOL, _FIRST_DAMPING = 1e-5, 0.1  # of the corrective step after them
_NEAR = 1e-5  # rtol of a corrective step below which neurons are close to a local optimum


def corrected(run: Run, state: State) -> State:
    """Lower the objective by L-BFGS in a coarse round, and by Newton's method with kinks in the others."""
    problem, stop = run.problem, run.monitor.out_of_time
    coarse = run.options.has_many_weights(state.neurons) and _far(run, state)
    options, left = run.coarse if coarse else run.options, state.newton_steps
    if len(state.neurons) == 0:
        neurons = min(state.neurons, problem.zero_network, key=problem.objective)
    elif options.newton_sweeps == 0:
        steps, single = options.quasi_newton_steps, options.single_precision
        neurons = quasi_newton(problem, state.neurons, max_steps=steps, single_precision=single, stop=stop)
        neurons = merge(problem, neurons) if coarse else neurons
    else:
        neurons, steps = _newton(run, state)
        left -= steps
    objective = problem.objective(neurons)
    before = state.objective
    progress = (before - objective) / max(objective, np.finfo(float).tiny)
    return replace(state, neurons=neurons, objective=objective, progress=progress, coarse=coarse, newton_steps=left)


def _newton(run: Run, state: State) -> tuple[Neurons, int]:
    """Neurons moved by Newton's method, and how many steps that took.

    Where little is left to gain they are close to a local optimum, and from there all move together on their kinks.
    """
    problem, stop = run.problem, run.monitor.out_of_time
    neurons, searched = state.neurons, state.searched is not None
    near = searched and state.rtol < _NEAR and problem.output_directions.fixed
    if near:
        neurons, converged = newton_on_kinks(problem, neurons, stop=stop)
        if converged or len(neurons) == 0:
            return merge(problem, neurons), 1
    neurons, steps = newton(
        problem,
        neurons,
        rtol=state.rtol,
        damping=state.damping,
        max_sweeps=run.options.newton_sweeps,
        block_weights=run.options.newton_weights,
        max_steps=state.newton_steps,
        single_precision=state.rtol >= _NEAR,
        stop=stop,
    )
    if near:
        neurons = merge(problem, newton_on_kinks(problem, neurons, stop=stop)[0])
    return neurons, steps


def with_first_neurons(run: Run, state: State) -> State:
    """Random neurons after a quasi-Newton descent, where many at their best lengths, unless none is better."""
    problem, options = run.problem, run.options
    most_a_column, most = options.first_neurons
    count = int(min(run.several * most_a_column * problem.Z.n_columns, most, problem.Z.most_directions / 16))
    if count == 0:
        return state
    weights = run.rng.standard_normal((problem.Z.n_columns, count))
    weights *= _FIRST_LENGTH / np.linalg.norm(weights, axis=0)
    neurons = Neurons(weights, problem.output_directions.random(count, run.rng), state.neurons.intercept)
    steps = (run.coarse if options.has_many_weights(neurons) else options).quasi_newton_steps
    neurons = quasi_newton(problem, neurons, max_steps=steps, stop=run.monitor.out_of_time)
    neurons = neurons.without_zeros(_LEAST_LENGTH)
    if options.master_steps and neurons.weights.size > options.newton_weights:  # of which many vanish
        neurons = best_lengths(problem, neurons, max_steps=options.master_steps, stop=run.monitor.out_of_time)
    first = State.of(problem, neurons, options)
    if first.objective >= state.objective:
        return state
    return replace(first, rtol=_FIRST_RTOL, damping=_FIRST_DAMPING)


def _far(run: Run, state: State) -> bool:
    """Whether the network is far from optimal, and coarse rounds make progress."""
    if state.searched is None:
        return True
    goes_well = run.monitor.n_iter == 1 or state.progress > run.options.coarse_progress * state.gap
    return goes_well and state.gap > run.options.coarse_gap
