"""The fast preset of column generation: a path of coarse rounds, for networks that are to predict.

A network predicts well long before it is optimal. So every weight decay of a path is one round of the method of
`solve_column_generation`: neurons enter by their price, found by an ascent that is not polished, and a few quasi-Newton
steps in single precision move all of them. There are no Newton steps, no thorough search and no proof.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.oracles import find_peaks
from convexbn.solvers._units import Units
from convexbn.solvers.relu._quasi_newton import slide


@dataclass(frozen=True)
class FastOptions:
    """How much work a round of the fast preset is.

    Parameters
    ----------
    n_starts : int, default=60
        Directions from which the price ascends.
    max_steps : int, default=60
        Quasi-Newton steps.
    least_neurons, most_neurons, samples_a_neuron : int
        A network grows to a neuron for so many samples, but no fewer and no more neurons than these. Half of them enter
        in the first round.
    """

    n_starts: int = 60
    max_steps: int = 60
    least_neurons: int = 100
    most_neurons: int = 300
    samples_a_neuron: int = 50

    def max_neurons(self, n_samples: int) -> int:
        """Neurons of a network for so many samples, at most."""
        return int(np.clip(n_samples // self.samples_a_neuron, self.least_neurons, self.most_neurons))

    def work_a_row(self, n_samples: int) -> int:
        """Quasi-Newton steps times neurons of a round."""
        return self.max_steps * self.max_neurons(n_samples)


FAST = FastOptions()
_SEED = 1e-3  # length of a new neuron, in units in which targets and rows of Z are of order one


def fast_path(
    problem: Problem,
    weight_decays: ArrayLike,
    *,
    options: FastOptions = FAST,
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
        From the largest downwards. Networks are computed as they are asked for.
    options : FastOptions
        Work of a round.
    start : Neurons or None, default=None
        Network to start from; it may have more neurons than `options` would add.
    random_state : int, Generator or None, default=None
        Seed of the starts of the ascent.
    stop : callable or None, default=None
        Asked after every quasi-Newton step; when it says True rounds end where they are.

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
    rng = np.random.default_rng(random_state)
    units = Units.of(problem).with_fewest_columns()
    scaled = units.problem
    unit = scaled.weight_decay / problem.weight_decay
    neurons = scaled.zero_network if start is None else units.neurons_from(start).with_unit_outputs()
    for weight_decay in np.asarray(weight_decays, dtype=np.float64):
        now = replace(scaled, weight_decay=float(weight_decay) * unit)
        neurons = _grown(now, neurons, options, rng)
        if len(neurons):
            neurons = slide(now, neurons, max_steps=options.max_steps, single_precision=True, stop=stop)
        yield units.neurons_to(neurons)


def descend(problem: Problem, start: Neurons, *, max_steps: int, stop: Callable[[], bool] | None = None) -> Neurons:
    """Lower the objective from a network by quasi-Newton steps in single precision."""
    units = Units.of(problem).with_fewest_columns()
    neurons = units.neurons_from(start).with_unit_outputs()
    return units.neurons_to(slide(units.problem, neurons, max_steps=max_steps, single_precision=True, stop=stop))


def price_quickly(problem: Problem, *, random_state: int | np.random.Generator | None = None) -> float:
    """Weight decay from which on the zero network is optimal, about: a hasty `weight_decay_max`."""
    Z, v = problem.Z, problem.zero_dual
    starts = np.random.default_rng(random_state).standard_normal((Z.n_columns, 2 * FAST.n_starts))
    peaks = find_peaks(Z, v, starts, count=1, polish=False)
    return float(peaks.prices[0]) if len(peaks) else 0.0


def _grown(problem: Problem, neurons: Neurons, options: FastOptions, rng: np.random.Generator) -> Neurons:
    """The network with the dearest neurons that a hasty search finds, of almost no length."""
    Z = problem.Z
    most = options.max_neurons(Z.n_samples)
    count = min(max(most // 2, len(neurons)), most - len(neurons))
    if count <= 0:
        return neurons
    starts = rng.standard_normal((Z.n_columns, options.n_starts))
    if len(neurons):  # half of them around active neurons
        around = starts[:, ::2]
        chosen = neurons.weights[:, rng.integers(len(neurons), size=around.shape[1])]
        around *= rng.uniform(0.1, 1, around.shape[1]) / np.sqrt(Z.n_columns)
        around += chosen / np.linalg.norm(chosen, axis=0)
    v = problem.feasible_dual(problem.dual_point(neurons.outputs(Z)))
    peaks = find_peaks(Z, v, starts, threshold=problem.weight_decay, count=count, polish=False)
    return replace(
        neurons,
        weights=np.hstack([neurons.weights, _SEED * peaks.directions]),
        output_weights=np.vstack([neurons.output_weights, peaks.output_directions]),
    )
