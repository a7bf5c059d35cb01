"""The choices of column generation: one frozen dataclass, and its two presets."""

from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from convexbn._utils.checks import refuse_huge
from convexbn.model._neurons import Neurons

_MANY_ROWS = 100_000  # of Z


def _check(options: Any, *, whole: dict[str, int], numbers: dict[str, float]) -> None:
    """Raise a ValueError that names the first option that is no number of its kind, or below its least value."""
    for kind, word, least in ((Integral, "an integer", whole), (Real, "a number", numbers)):
        for name, smallest in least.items():
            value = getattr(options, name)
            if isinstance(value, bool) or not isinstance(value, kind) or not value >= smallest:  # type: ignore[operator]
                raise ValueError(f"{name}={value!r} must be {word} of at least {smallest}.")
            if kind is Integral:
                refuse_huge(name, value)


@dataclass(frozen=True)
class ProofOptions:
    """How much work the proof that no direction violates dual feasibility may be.

    Parameters
    ----------
    columns : int, default=8
        Branch and bound is tried up to so many columns of Z.
    nodes, entries : int
        Cones that it bounds at most, and cones times rows of Z.
    sharp_columns, sharp_nodes, sharp_share : int, int and float
        Up to so many columns, with so many cones, it aims at this share of the tolerance, however small that is.
    share, least : float
        With more columns it aims at this share of the tolerance, and takes prices closer than `least` for equal.
    nodes_a_start : int, default=2
        With ``prove="auto"``, cones for each start of the oracle so far: a few times as long as that took.

    Examples
    --------
    >>> from convexbn.solvers import Options, ProofOptions
    >>> Options(proof=ProofOptions(columns=5)).proof.columns
    5
    """

    columns: int = 8
    nodes: int = 1_000_000
    entries: int = 10**9
    sharp_columns: int = 4
    sharp_nodes: int = 50_000
    sharp_share: float = 0.1
    share: float = 0.9
    least: float = 1e-3
    nodes_a_start: int = 2

    def __post_init__(self) -> None:
        whole = {"columns": 0, "nodes": 1, "entries": 1, "sharp_columns": 0, "sharp_nodes": 1, "nodes_a_start": 0}
        _check(self, whole=whole, numbers={"sharp_share": 0, "share": 0, "least": 0})


@dataclass(frozen=True)
class Options:
    """Choices of column generation for ReLU networks; the presets are `ACCURATE` and `FAST`.

    Parameters
    ----------
    max_rounds : int or None, default=None
        Rounds after which the loop ends without another call of the oracle.
    first_neurons : tuple of int, default=(3, 100)
        Random neurons to start from: so many for each column of Z, but no more than the second number.
    n_starts : int, default=300
        Directions from which the oracle ascends.
    several : int, default=3
        Times as many starts, first and new neurons with several outputs, for which the oracle has more local maxima.
    last_search : int, default=8
        Times as many before a gap within the tolerance ends the run; three times that up to a tolerance of 1e-8.
    around, across : float, default=0.25
        Share of the starts around active neurons, and of those on the other side of a kink of one.
    between : float, default=0.75
        Share of the starts that confirm a gap, and of those of coarse rounds, in planes of two active neurons.
    polish : bool, default=True
        Whether the oracle polishes what the ascent found.
    new_neurons : int, default=20
        Neurons that enter in a round.
    growth : bool, default=False
        Whether as many neurons enter as there are, if that is more.
    least_neurons, most_neurons, samples_a_neuron : float
        A network grows to a neuron for so many samples, but no fewer and no more neurons than these; half of them may
        enter in the first round. An infinite number sets no limit.
    new_length : float, default=1e-12
        Length of a new neuron where targets and rows of Z are of order one.
    master_steps : int, default=100
        Quasi-Newton steps of the restricted master problem, in the lengths of all neurons; 0 leaves it out.
    quasi_newton_steps : int, default=500
        Steps of L-BFGS, in all weights: of the first neurons, and of every round without Newton steps.
    single_precision : bool, default=False
        Whether its products are in single precision.
    newton_sweeps : int, default=40
        Newton steps of all neurons in a round; 0 leaves them out.
    newton_weights : int, default=400
        Weights that move together in a Newton step; more are split into blocks.
    newton_steps : float, default=inf
        Newton steps, of a block each, in all rounds together.
    many_weights : float, default=4000
        A network of more weights has `coarse` rounds while the gap is above `coarse_gap` and a round lowers the
        objective by more than `coarse_progress` times the gap.
    coarse_gap, coarse_progress : float, default=3e-3
        Gap, and progress as a multiple of the gap, below which rounds are no longer coarse.
    coarse_steps : tuple of int, default=(25, 50)
        Steps of L-BFGS of a coarse round: with up to 100,000 rows of Z, and with more, where a search takes as long as
        a hundred of them.
    stalled_rounds : int, default=3
        The loop ends when so many rounds in a row find no neuron and no decrease.
    proof : ProofOptions
        Work of a proof.

    Raises
    ------
    ValueError
        If an option is out of range.

    Examples
    --------
    >>> from dataclasses import replace
    >>> import numpy as np
    >>> from convexbn import Problem, solve_column_generation
    >>> from convexbn.solvers import ACCURATE
    >>> problem = Problem(np.eye(2), [1.0, -2.0], weight_decay=0.1)
    >>> options = replace(ACCURATE, n_starts=50)
    >>> solve_column_generation(problem, options=options, random_state=0).status.name
    'CONVERGED'
    """

    max_rounds: int | None = None
    first_neurons: tuple[int, int] = (3, 100)
    n_starts: int = 300
    several: int = 3
    last_search: int = 8
    around: float = 0.25
    across: float = 0.25
    between: float = 0.75
    polish: bool = True
    new_neurons: int = 20
    growth: bool = False
    least_neurons: float = np.inf
    most_neurons: float = np.inf
    samples_a_neuron: int = 50
    new_length: float = 1e-12
    master_steps: int = 100
    quasi_newton_steps: int = 500
    single_precision: bool = False
    newton_sweeps: int = 40
    newton_weights: int = 400
    newton_steps: float = np.inf
    many_weights: float = 4000
    coarse_gap: float = 3e-3
    coarse_progress: float = 3e-3
    coarse_steps: tuple[int, int] = (25, 50)
    stalled_rounds: int = 3
    proof: ProofOptions = field(default_factory=ProofOptions)

    def __post_init__(self) -> None:
        whole = {"n_starts": 1, "several": 1, "last_search": 1, "new_neurons": 0, "samples_a_neuron": 1}
        whole |= {"master_steps": 0, "quasi_newton_steps": 0, "newton_sweeps": 0, "newton_weights": 1}
        numbers: dict[str, float] = {"around": 0, "across": 0, "between": 0, "least_neurons": 0, "most_neurons": 0}
        numbers |= {"new_length": 0, "newton_steps": 0, "many_weights": 0, "coarse_gap": 0, "coarse_progress": 0}
        numbers |= {"stalled_rounds": 1}
        _check(self, whole=whole, numbers=numbers)
        if max(self.around, self.across) > 0.5:
            raise ValueError(f"around={self.around} and across={self.across} must be shares of at most 0.5.")
        if self.between > 1:
            raise ValueError(f"between={self.between} must be a share of at most 1.")
        if self.max_rounds is not None and not self.max_rounds >= 1:
            raise ValueError(f"max_rounds={self.max_rounds!r} must be None or an integer of at least 1.")
        for name in ("first_neurons", "coarse_steps"):
            value = getattr(self, name)
            whole_numbers = isinstance(value, tuple) and all(isinstance(number, Integral) for number in value)
            if not (whole_numbers and len(value) == 2 and min(value) >= 0):
                raise ValueError(f"{name}={value!r} must be a tuple of two integers that are not negative.")

    def max_neurons(self, n_samples: int) -> float:
        """Neurons to which a network for so many samples grows."""
        return float(np.clip(n_samples // self.samples_a_neuron, self.least_neurons, self.most_neurons))

    def has_many_weights(self, neurons: Neurons) -> bool:
        """Whether a network is so large that it moves in coarse rounds first."""
        return neurons.weights.size + neurons.output_weights.size > self.many_weights

    def work_a_row(self, n_samples: int) -> int:
        """Quasi-Newton steps times neurons of a round."""
        return int(self.quasi_newton_steps * self.max_neurons(n_samples))

    def coarse(self, n_rows: int) -> "Options":
        """The choices of a coarse round: no polish, few steps in single precision, and the network may double."""
        return replace(
            self,
            polish=False,
            newton_sweeps=0,
            growth=True,
            single_precision=True,
            quasi_newton_steps=self.coarse_steps[n_rows > _MANY_ROWS],
        )


ACCURATE = Options()
FAST = Options(
    max_rounds=1,
    first_neurons=(0, 0),
    n_starts=60,
    around=0.5,
    across=0.0,
    several=1,
    last_search=1,
    polish=False,
    new_neurons=0,
    growth=True,
    least_neurons=100,
    most_neurons=300,
    new_length=1e-3,
    master_steps=0,
    quasi_newton_steps=60,
    single_precision=True,
    newton_sweeps=0,
    many_weights=np.inf,
)


def check_options(options: object) -> None:
    """Raise a ValueError unless `options` are the choices of column generation."""
    if not isinstance(options, Options):
        raise ValueError(
            f"options={options!r} must be an Options, such as ACCURATE, FAST or replace(ACCURATE, n_starts=600)."
        )


def most_new(n_neurons: int, n_samples: int, several: int, options: Options) -> int:
    """How many neurons may enter a network."""
    limit = options.max_neurons(n_samples)
    half = limit // 2 if np.isfinite(limit) else 0
    wanted = max(several * options.new_neurons, half, n_neurons if options.growth else 0)
    return max(0, int(min(wanted, limit - n_neurons)))
