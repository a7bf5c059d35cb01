"""The state of column generation: the run, the last call of the oracle, the network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.oracles import LocalMaxima, Price
from convexbn.solvers._certificate import relative_gap
from convexbn.solvers._monitor import Monitor
from convexbn.solvers._tolerance import Tolerance
from convexbn.solvers.relu._options import Options

Proof = bool | Literal["auto"]


@dataclass(frozen=True, eq=False)
class Run:
    """What stays the same in a run of column generation.

    Parameters
    ----------
    problem : Problem
        Training problem, with targets and rows of Z of order one.
    options : Options
        Choices of the algorithm.
    tolerance : Tolerance
        Gap at which to stop.
    rng : Generator
        Source of the random starts.
    monitor : Monitor
        Limits, progress and interrupts.
    prove : bool or "auto", default=False
        Whether to prove the prices of all directions.
    objective_scale : float, default=1.0
        Objective of the original problem over that of the scaled one, for the monitor.
    keep : callable, optional
        Called with the state after every completed round.
    """

    problem: Problem
    options: Options
    tolerance: Tolerance
    rng: np.random.Generator
    monitor: Monitor
    prove: Proof = False
    objective_scale: float = 1.0
    keep: Callable[["State"], None] = lambda state: None

    @property
    def several(self) -> int:
        """Times as many starts and neurons as with one output."""
        return 1 if self.problem.output_directions.fixed else self.options.several

    @property
    def coarse(self) -> Options:
        """The choices of a coarse round."""
        return self.options.coarse(self.problem.Z.n_rows)


@dataclass(frozen=True, eq=False)
class Searched:
    """What the linear minimisation oracle found at the dual point of a network.

    Parameters
    ----------
    v : ndarray of shape (n, C)
        Dual point.
    directions : ndarray of shape (k, m)
        Unit directions of the network's neurons, and the one of the largest price outside the network if one was found.
    found : LocalMaxima
        Violated dual constraints, neurons to add: the largest violation first.
    bound : float
        Lower bound of the objective, if no direction prices higher than `directions`.
    thorough : bool
        Whether the search was complete, with polish.
    """

    v: np.ndarray
    directions: np.ndarray
    found: LocalMaxima
    bound: float
    thorough: bool


@dataclass(frozen=True, eq=False)
class State:
    """The network and what is known of it, between two steps of the loop.

    Parameters
    ----------
    neurons : Neurons
        The network, with unit output weights.
    objective : float
        Its objective.
    newton_steps : float
        Newton steps that are left.
    coarse : bool
        Whether the round is coarse.
    rtol, damping : float
        Tolerance of the next corrective step, as a share of the objective, and damping of its first Newton step.
    searched : Searched or None, default=None
        The last call of the oracle: for this network or, after a corrective step, for the one before.
    proof : Price or None, default=None
        Proved price of all directions at the dual point of that search.
    enumerated : bool, default=False
        Whether all activation patterns were enumerated for it.
    progress : float, default=inf
        Relative decrease of the objective in the last round.
    n_starts : int, default=0
        Directions from which the oracle has ascended so far.
    n_proofs : int, default=0
        Proofs that were tried.
    stalled : int, default=0
        Rounds in a row without a new neuron and without a decrease.
    n_rounds : int, default=0
        Completed rounds.
    """

    neurons: Neurons
    objective: float
    newton_steps: float
    coarse: bool
    rtol: float = 1e-6
    damping: float = 1e-4
    searched: Searched | None = None
    proof: Price | None = None
    enumerated: bool = False
    progress: float = np.inf
    n_starts: int = 0
    n_proofs: int = 0
    stalled: int = 0
    n_rounds: int = 0

    @classmethod
    def of(cls, problem: Problem, neurons: Neurons, options: Options) -> "State":
        """The state of a network before the first call of the oracle."""
        return cls(neurons, problem.objective(neurons), options.newton_steps, options.has_many_weights(neurons))

    @property
    def bound(self) -> float:
        """Lower bound of the objective, as good as the last search was."""
        return 0.0 if self.searched is None else self.searched.bound

    @property
    def gap(self) -> float:
        """Relative gap of objective and bound."""
        return relative_gap(self.objective, self.bound)

    @property
    def has_found(self) -> bool:
        """Whether the last search found a neuron to add."""
        return self.searched is not None and len(self.searched.found) > 0
