"""The fast preset of column generation: a path of coarse rounds, for networks that are to predict.

A network predicts well long before it is optimal, so every weight decay of a path is one round of the method of
`solve_column_generation`: neurons enter by their price, found by an ascent that is not polished, and a few quasi-Newton
steps in single precision move all of them. There are no Newton steps, no thorough search and no proof.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.checks import make_generator
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.oracles import find_local_maxima
from convexbn.solvers._monitor import Monitor
from convexbn.solvers._scaling import Scaling
from convexbn.solvers._tolerance import Tolerance
from convexbn.solvers.relu._column_generation import column_generation
from convexbn.solvers.relu._options import FAST, Options
from convexbn.solvers.relu._quasi_newton import quasi_newton
from convexbn.solvers.relu._state import Run, State

_LEAST_STEPS = 100  # of a descent
_LEAST_GAIN, _LARGE_GAIN = 0.005, 1 / 3  # decreases by the later half of its steps that end it, or let it go on


def fast_path(
    problem: Problem,
    weight_decays: ArrayLike,
    *,
    options: Options = FAST,
    start: Neurons | None = None,
    random_state: int | np.random.Generator | None = None,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Neurons]:
    """Yield a network that predicts well at each weight decay, started from the one before.

    Parameters
    ----------
    problem : Problem
        Training problem; of a loss with kinks the steps take subgradients.
    weight_decays : iterable of float
        From the largest downwards. Networks are computed one at a time, as the generator advances.
    options : Options, default=FAST
        Work of a round.
    start : Neurons or None, default=None
        Network to start from; it may have more neurons than `options` would add.
    random_state : int, Generator or None, default=None
        Seed of the starts of the ascent.
    stop : callable or None, default=None
        Called after every quasi-Newton step; when it returns True the rounds end.

    Yields
    ------
    neurons : Neurons
        ReLU neurons on the design matrix, far from optimal: nothing is certified.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import Problem
    >>> from convexbn.solvers.relu._fast import fast_path
    >>> problem = Problem(np.eye(2), [1.0, -2.0], weight_decay=0.1)  # the least objective is 0.28
    >>> zero, trained = fast_path(problem, [2.0, 0.1], random_state=0)
    >>> len(zero), round(problem.objective(trained), 3)
    (0, 0.28)
    """
    scaling = Scaling.of(problem).with_fewest_columns()
    scaled, rng = scaling.problem, make_generator(random_state)
    unit = scaled.weight_decay / problem.weight_decay
    monitor = Monitor("fast path", stop=stop)
    neurons = scaled.zero_network if start is None else scaling.scaled(start).with_unit_outputs()
    for weight_decay in np.asarray(weight_decays, dtype=np.float64):
        run = Run(scaled.with_weight_decay(float(weight_decay) * unit), options, Tolerance(0.0), rng, monitor)
        for state in column_generation(run, State.of(run.problem, neurons, options)):
            neurons = state.neurons
        yield scaling.unscaled(neurons)


def descend(problem: Problem, start: Neurons, *, n_steps: int, stop: Callable[[], bool] | None = None) -> Neurons:
    """Lower the objective from a network by quasi-Newton steps in single precision.

    About `n_steps` of them: fewer where the later half lowers it by less than half a percent, and up to twice as
    many where by more than a third.
    """

    def enough(objectives: Sequence[float]) -> bool:
        done = len(objectives) - 1
        least = _LEAST_GAIN if done < n_steps else _LARGE_GAIN
        return done >= _LEAST_STEPS and objectives[-1] > (1 - least) * objectives[done // 2]

    scaling = Scaling.of(problem).with_fewest_columns()
    neurons = scaling.scaled(start).with_unit_outputs()
    descended = quasi_newton(
        scaling.problem, neurons, max_steps=2 * n_steps, single_precision=True, stop=stop, enough=enough
    )
    return scaling.unscaled(descended)


def price_quickly(problem: Problem, *, random_state: int | np.random.Generator | None = None) -> float:
    """Lower estimate of `weight_decay_max`, by an ascent without polish."""
    Z, v = problem.Z, problem.zero_dual
    starts = make_generator(random_state).standard_normal((Z.n_columns, 2 * FAST.n_starts))
    found = find_local_maxima(Z, v, starts, count=1, polish=False)
    return float(found.prices[0]) if len(found) else 0.0
