"""The two phases of training with identity mapping, read off a trace."""

from dataclasses import dataclass

import numpy as np

from convexbn.gradient._options import check_integer
from convexbn.gradient._trace import Trace


@dataclass(frozen=True)
class Phases:
    """Where the first phase of a run ends, and what was measured in the two.

    Phase I lasts until the gradient points to the teacher for good: its potential falls, and its distance may rise.
    Phase II is what follows: there, the constant of one-point convexity is positive at all recorded steps, by
    definition. That the distance falls with it is a matter of the step size.

    Parameters
    ----------
    step : int or None
        First step of phase II; None if the run never entered it.
    rise : float
        Largest distance from the teacher over that at the start; 1 if it never rose, also from the teacher.
    potential : float
        |g| at the end of phase I over that at the start; NaN without phase II.
    one_point_convexity : float
        Least constant of one-point convexity in the second half of phase II; NaN without phase II.
    rate : float
        What the distance is multiplied by in a step, fitted to that half; NaN if fewer than four steps of phase II
        were recorded.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.identity_mapping import draw_weights, find_phases, train_identity_mapping
    >>> W, W_star = draw_weights(4, 0.3, n_runs=2, random_state=0)
    >>> phases = find_phases(train_identity_mapping(W, W_star, n_steps=200)[1])
    >>> phases.step is not None, bool(phases.rate < 1)
    (True, True)
    """

    step: int | None
    rise: float
    potential: float
    one_point_convexity: float
    rate: float


def find_phases(trace: Trace, run: int = 0) -> Phases:
    """Find the end of phase I in a trace, and measure both phases.

    Parameters
    ----------
    trace : Trace
        As returned by `train_identity_mapping`.
    run : int, default=0
        Which run, if the trace is one of several.

    Returns
    -------
    phases : Phases

    Raises
    ------
    ValueError
        If the trace is not one of `train_identity_mapping`, or `run` not one of its runs.

    References
    ----------
    Li, Yuan: Convergence Analysis of Two-layer Neural Networks with ReLU Activation. arXiv:1705.09886.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient import Trace
    >>> from convexbn.gradient.identity_mapping import find_phases
    >>> watched = {
    ...     "distance": np.array([1.0, 1.1, 0.8, 0.4, 0.2]),
    ...     "potential": np.array([4.0, 1.0, 0.1, 0.0, 0.0]),
    ...     "one_point_convexity": np.array([-1.0, 0.5, 0.5, 0.6, 0.6]),
    ... }
    >>> phases = find_phases(Trace(np.arange(5), np.zeros(5), np.zeros(5), watched))
    >>> phases.step, phases.rise, phases.one_point_convexity, round(phases.rate, 12)
    (1, 1.1, 0.6, 0.5)
    """
    names = ("distance", "potential", "one_point_convexity")
    if not trace.watched.keys() >= set(names):
        raise ValueError(f"trace must be one of train_identity_mapping; it watches {list(trace.watched)} only.")
    check_integer("run", run, 0)
    runs = [trace[name].reshape(len(trace), -1) for name in names]
    if run >= runs[0].shape[1]:
        raise ValueError(f"run={run} must be below {runs[0].shape[1]}, the number of runs.")
    distance, potential, convexity = (values[:, run] for values in runs)
    changes = np.flatnonzero(np.diff(distance))
    end = int(changes[-1]) + 2 if len(changes) else 1  # a run that has ended stays there until the others end
    wrong = np.flatnonzero(convexity[:end] <= 0)
    first = int(wrong[-1]) + 1 if len(wrong) else 0
    rise = float(distance.max() / distance[0]) if distance.any() else 1.0
    if first == end:
        return Phases(None, rise, np.nan, np.nan, np.nan)
    late = slice((first + end) // 2, end)
    rate = np.exp(np.polyfit(trace.steps[late], np.log(distance[late]), 1)[0]) if end - first >= 4 else np.nan
    left = abs(potential[first] / potential[0]) if potential[0] else 0.0
    return Phases(int(trace.steps[first]), rise, float(left), float(convexity[late].min()), float(rate))
