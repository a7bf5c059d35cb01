"""The restricted master problem: the best lengths of all neurons, those that enter among them, a convex problem."""

from dataclasses import replace

import numpy as np

from convexbn.solvers.relu._quasi_newton import best_lengths
from convexbn.solvers.relu._state import Run, State


def enlarged(run: Run, state: State) -> State:
    """Let the neurons of the last search enter, at the best lengths for all; those that vanish are dropped."""
    if state.searched is None or not state.has_found:
        return state
    found, problem, options = state.searched.found, run.problem, run.options
    neurons = replace(
        state.neurons,
        weights=np.hstack([state.neurons.weights, options.new_length * found.directions]),
        output_weights=np.vstack([state.neurons.output_weights, found.output_directions]),
    )
    if options.master_steps:
        neurons = best_lengths(problem, neurons, max_steps=options.master_steps, stop=run.monitor.out_of_time)
        if problem.objective(neurons) > state.objective:
            return state
    return replace(state, neurons=neurons)
