"""The fast preset of column generation for networks that are normalized after the ReLU: a path of coarse rounds."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.checks import make_generator
from convexbn.model._normalized_neurons import NormalizedNeurons
from convexbn.model._post_activation import PostActivationProblem
from convexbn.solvers._monitor import Monitor
from convexbn.solvers._tolerance import Tolerance
from convexbn.solvers.post_activation._column_generation import Run, State, column_generation
from convexbn.solvers.post_activation._scaling import Whitened
from convexbn.solvers.relu._options import FAST, Options


def fast_path(
    problem: PostActivationProblem,
    weight_decays: ArrayLike,
    *,
    options: Options = FAST,
    random_state: int | np.random.Generator | None = None,
    stop: Callable[[], bool] | None = None,
) -> Iterator[NormalizedNeurons]:
    """Yield a network that predicts well at each weight decay, started from the one before.

    Parameters
    ----------
    problem : PostActivationProblem
        Training problem; of a loss with kinks the steps take subgradients.
    weight_decays : iterable of float
        From the largest downwards. Networks are computed one at a time, as the generator advances.
    options : Options, default=FAST
        Work of a round.
    random_state : int, Generator or None, default=None
        Seed of the starts of the ascent.
    stop : callable or None, default=None
        Called after every quasi-Newton step; when it returns True the rounds end.

    Yields
    ------
    neurons : NormalizedNeurons
        Far from optimal: nothing is certified.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import PostActivationProblem
    >>> from convexbn.solvers.post_activation._fast import fast_path
    >>> problem = PostActivationProblem(np.eye(2), [1.0, -2.0], weight_decay=0.1)
    >>> zero, trained = fast_path(problem, [2.0, 0.1], random_state=0)
    >>> len(zero), problem.objective(trained) < problem.zero_objective / 5
    (0, True)
    """
    whitened = Whitened.of(problem)
    inside, rng = whitened.problem, make_generator(random_state)
    monitor, neurons = Monitor("fast path", stop=stop), inside.zero_network
    for weight_decay in np.asarray(weight_decays, dtype=np.float64):
        scaled = inside.with_weight_decay(float(weight_decay) / whitened.target_scale)
        for state in column_generation(Run(scaled, options, Tolerance(0.0), rng, monitor), State(neurons)):
            neurons = state.neurons
        yield whitened.unscaled(neurons)
