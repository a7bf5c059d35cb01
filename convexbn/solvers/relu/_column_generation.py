"""Column generation: neurons enter by their price, and after every round all active ones move to a joint optimum."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from convexbn._utils.threads import on_one_thread
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.operators._dense import DesignMatrix
from convexbn.oracles import (
    Peaks,
    Price,
    find_peaks,
    price_bound,
    price_by_branch_and_bound,
    price_by_enumeration,
    quickly_enumerated,
)
from convexbn.solvers._certificate import Certificate, certify, dual_bound, relative_gap
from convexbn.solvers._monitor import Callback, Monitor
from convexbn.solvers._solution import Solution, Status, status_of, with_proof
from convexbn.solvers._tolerance import Reference, Tolerance
from convexbn.solvers._units import Units
from convexbn.solvers.relu._newton import merged, refine
from convexbn.solvers.relu._quasi_newton import slide

Proof = bool | Literal["auto"]

_FIRST_NEURONS = 3, 100  # at the start: this many times k, but no more than so many
_NEW_NEURONS = 20  # a round
_SLIDE_STEPS, _LENGTH_STEPS, _NEWTON_STEPS = 500, 100, 40
_STARTS = 300  # directions of ascent in a round, with both signs if there is one output
_HARDER = 8  # times as many in the last round, before a gap is believed
_LIGHT_STARTS, _LIGHT_NEW_NEURONS = 60, 4  # of a light search, whose last round has the starts of others
_SEVERAL = 3  # times as many of all three with several outputs, whose price has more maxima
# Newton's method takes turns, and many weights take long ones. So many of them move by quasi-Newton steps, and as many
# neurons as are in use enter without polish, until the gap is small or a round gains little of it.
MANY_WEIGHTS, _COARSE_STEPS = 5000, 50
_COARSE_GAP, _COARSE_PROGRESS = 1e-2, 1e-2
_SEED = 1e-12  # length of a new neuron, in units in which targets and rows of Z are of order one
_STALLED_ROUNDS = 3
_PROOF_COLUMNS = 6  # up to so many prices are proved
_PROOF_NODES, _PROOF_ENTRIES = 500_000, 10**9  # budget of the proof: cones, and cones times rows
_LONG_PROOF_NODES = 2_000_000  # of a proof that is limited by its time
_NODES_A_START = 5  # of prove="auto", for each direction from which the search ascended: about as long as it took
_PROOF_SHARE, _PROOF_TOL = 0.9, 1e-3  # it aims at this share of the tolerance, but tells prices no better apart
_SHARP_COLUMNS, _SHARP_NODES, _SHARP_SHARE = 4, 50_000, 0.1  # up to so many columns it aims lower, however low that is
_HALVINGS = 40  # of the interval of prices in which its aim lies
_FOUND = "column generation, which found no neuron worth adding by ascent from many starts"
_DEARER = "column generation, which ended while ascent from many starts still found neurons worth adding"
_NOT_SEARCHED = "column generation, which ended before a thorough search for neurons worth adding"
_PROVED = "column generation, and branch and bound over all directions"
_PROVED_SEVERAL = "column generation, and a visit to every face of the cones of all activation patterns"


@on_one_thread
def solve_column_generation(
    problem: Problem,
    *,
    tol: float = 1e-6,
    relative_to: Reference = "objective",
    max_iter: int | None = 100,
    max_newton_steps: int | None = None,
    max_time: float | None = None,
    start: Neurons | None = None,
    prove: Proof = True,
    light_search: bool = False,
    random_state: int | np.random.Generator | None = None,
    callback: Callback | None = None,
    verbose: bool = False,
) -> Solution:
    """Train a ReLU network by column generation, the default solver.

    A round moves the active neurons to a joint local optimum (`refine`), looks for neurons whose price exceeds
    weight_decay, by ascent from many starts at once (`find_peaks`), and adds the dearest; when none is found, a search
    eight times as hard has the last word. While a large network is far from the optimum, its rounds are cheaper and
    coarser (`slide`). The objective never rises. With one output and up to six columns of Z the price of every
    direction is then proved by branch and bound, and what it finds goes on as a new neuron; the certificate is global
    if that proof is within the tolerance. So it is with several outputs on tiny problems, whose patterns' cones are
    enumerated face by face. Otherwise it is local: evidence, beside the best lower bound that is proved.

    Memory grows with n (k + active neurons), beside the squared matrix of the about 400 weights that move at once. With
    more columns than rows the problem is solved in the space of the rows of Z, which holds all optimal neurons; there
    with more than 1000 columns neurons move by quasi-Newton steps only. Linear algebra runs on one thread.

    Parameters
    ----------
    problem : Problem
        Training problem with a smooth loss.
    tol : float, default=1e-6
        Gap at which to stop, as a multiple of `relative_to`.
    relative_to : {"objective", "zero_network"}, default="objective"
        What the gap is measured against: the objective of the network, or that of the zero network, which with an
        intercept is the best constant. The second is the rule of scikit-learn's Lasso; it does not ask for more digits
        where the network fits well.
    max_iter : int or None, default=100
        Rounds at most.
    max_newton_steps : int or None, default=None
        Newton steps at most, of up to about 400 weights each: the costliest part of a round. None sets no limit.
    max_time : float or None, default=None
        Seconds after which the best network so far is returned. Without a search after that, the certificate rests on
        the last one.
    start : Neurons or None, default=None
        ReLU neurons to start from, such as those at another weight decay. None starts from random directions.
    prove : bool or "auto", default=True
        Whether to prove the price of every direction where that is possible. It takes up to half a minute; with "auto"
        about as long as the search took, by a count of its work, so that the outcome does not depend on the machine.
    light_search : bool, default=False
        Whether a fifth of the starts do in a round, and an eighth at the end: for problems of a path (`solve_path`).
    random_state : int, Generator or None, default=None
        Seed of the random starts.
    callback : callable or None, default=None
        Called with a `Progress` after every round; a true value ends the run.
    verbose : bool, default=False
        Whether to show progress.

    Returns
    -------
    solution : Solution
        Scope "global" where the proof is within the tolerance, "local" otherwise, with the proved bound beside.
        Interrupted by Ctrl-C, the best network so far, with status INTERRUPTED; a second Ctrl-C is passed on.

    Raises
    ------
    ValueError
        If the loss is not smooth, or an argument is out of range.

    Warns
    -----
    ConvergenceWarning
        If the gap exceeds `tol`.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, for the convex program
       and its dual, whose constraints the prices are.
    .. [2] Sahiner et al., "Vector-output ReLU Neural Network Problems are Copositive Programs", arXiv 2012.13329, for
       the program of several outputs.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import Problem
    >>> from convexbn import solve_column_generation
    >>> problem = Problem(np.eye(2), [1.0, -2.0], weight_decay=0.1)
    >>> solution = solve_column_generation(problem, random_state=0)
    >>> round(solution.certificate.objective, 6), solution.certificate.scope
    (0.28, 'global')
    """
    _check(problem, start)
    check_prove(prove)
    tolerance = Tolerance.of(problem, tol, relative_to)
    monitor = Monitor("column generation", max_iter=max_iter, max_time=max_time, callback=callback, verbose=verbose)
    search = _Search(
        Units.of(problem).with_fewest_columns(), np.random.default_rng(random_state), tolerance, prove, monitor
    )
    search.light = light_search
    search.newton_steps_left = np.inf if max_newton_steps is None else max_newton_steps
    if start is not None:
        search.started = True
        search.neurons = merged(search.problem, search.units.neurons_from(start).with_unit_outputs())
    with monitor:
        search.run()
        return search.solution(problem, tolerance)
    return search.solution(problem, tolerance)  # the best so far after Ctrl-C; another one is not caught here


@on_one_thread
def certify_by_proof(
    problem: Problem,
    neurons: Neurons,
    tolerance: Tolerance,
    *,
    max_time: float | None = None,
    random_state: int | np.random.Generator | None = None,
) -> Certificate:
    """Certificate of a network as it is, from a hard search and a proof of the prices of all directions.

    Parameters
    ----------
    problem : Problem
        Training problem.
    neurons : Neurons
        Its network, of ReLU neurons.
    tolerance : Tolerance
        Gap at which the proof ends.
    max_time : float or None, default=None
        Seconds for both. None takes a budget of cones, which lasts up to half a minute.
    random_state : int, Generator or None, default=None
        Seed of the search.

    Returns
    -------
    certificate : Certificate
        Scope "global" where the proof is within the tolerance; else "local", with the proved bound beside.
    """
    monitor = Monitor("proof", max_iter=None, max_time=max_time, callback=None, verbose=False)
    units = Units.of(problem).with_fewest_columns()
    search = _Search(units, np.random.default_rng(random_state), tolerance, True, monitor)
    search.neurons = search.units.neurons_from(neurons).with_unit_outputs()
    search.price_and_prove(_PROOF_NODES if max_time is None else _LONG_PROOF_NODES)
    return search.certified(problem, neurons, tolerance)[1]


def check_prove(prove: object) -> None:
    """Raise a ValueError unless `prove` is True, False or "auto"."""
    if not (isinstance(prove, (bool, np.bool)) or (isinstance(prove, str) and prove == "auto")):
        raise ValueError(f'prove={prove!r} must be True, False or "auto".')


@dataclass(frozen=True, eq=False)
class _Searched:
    """What a search for neurons worth adding found at the dual point v (n, C) of a network."""

    network: Neurons
    v: np.ndarray
    directions: np.ndarray  # (k, m) of the active neurons, and of the dearest outside the network if one was found
    bound: float  # lower bound, if no direction prices higher than these
    thorough: bool
    dearer: bool  # whether a neuron worth adding was found


class _Search:
    """The method and its state, in the units of `problem`; whatever interrupts it, `neurons` is the best network."""

    def __init__(self, units: Units, rng: np.random.Generator, tolerance: Tolerance, prove: Proof, monitor: Monitor):
        self.units, self.problem, self.rng, self.monitor = units, units.problem, rng, monitor
        scale = None if tolerance.scale is None else tolerance.scale / units.objective_to(1.0)
        self.tolerance = replace(tolerance, scale=scale)
        one_output = self.problem.n_outputs == 1
        Z = self.problem.Z
        provable = Z.n_columns <= _PROOF_COLUMNS if one_output else quickly_enumerated(Z, 2)
        self.prove: Proof = prove if provable else False
        self.several = 1 if one_output else _SEVERAL
        self.neurons = self.problem.zero_network
        self.coarse = False  # whether rounds are cheap and far from exact
        self.newton_steps_left = np.inf
        self.light = self.started = False
        self.n_starts = 0  # directions from which the searches ascended
        self.searched: _Searched | None = None
        self.proved: Price | None = None  # of all directions, at the dual point of the last search

    def run(self) -> None:
        """Rounds until the gap is within the tolerance, or nothing moves, or the monitor ends the run."""
        rtol, damping, stalled = 1e-8, 1e-4, 0
        if not self.started:
            self.neurons = self._first_neurons()
            rtol, damping = 1e-5, 0.1
        self.coarse = self._many_weights
        objective = self.problem.objective(self.neurons)
        while True:
            self._improve(rtol, damping)
            peaks = self._price()
            before, objective = objective, self.problem.objective(self.neurons)
            bound = 0.0 if self.searched is None else self.searched.bound
            gap = relative_gap(objective, bound)
            goes_on = self.monitor.goes_on(self.units.objective_to(objective), gap, len(self.neurons))
            if goes_on and self.newton_steps_left < 0:
                self.monitor.ending, goes_on = Status.MAX_ITER, False
            stalled = stalled + 1 if objective >= before and len(peaks) == 0 else 0
            reached = self.tolerance.reached(objective, bound)
            if reached and goes_on and self.prove:
                peaks = self._prove(*self._proof_plan())
                goes_on = len(peaks) > 0
            elif reached or stalled == _STALLED_ROUNDS:
                break
            if not goes_on:
                break
            self.neurons = self._with(peaks)
            # The objective is within about 10 gap^2 of that of a joint local optimum; to come closer can wait, as long
            # as there are new neurons and the rounds make progress. Newton's method takes most of the time.
            above = gap**2 if len(peaks) else (self.tolerance.relative(objective) / 10) ** 2
            progress = (before - objective) / objective
            rtol, damping = float(np.clip(10 * min(above, progress), 1e-14, 1e-3)), 1e-4
            goes_well = self.monitor.n_iter == 1 or progress > _COARSE_PROGRESS * gap
            self.coarse = self._many_weights and gap > _COARSE_GAP and goes_well
        if self.searched is not None and not self.searched.thorough and self.monitor.ending is not Status.INTERRUPTED:
            self.coarse = False
            self._price()

    def price_and_prove(self, max_nodes: int) -> None:
        """A hard search and a proof for the network as it is, with any number of columns if there is one output."""
        self._search(_HARDER * _STARTS)
        if self.searched is not None and (self.problem.n_outputs == 1 or self.prove):
            self._prove(max_nodes, self._price_within_tolerance(_PROOF_SHARE))

    @property
    def _many_weights(self) -> bool:
        return self.neurons.weights.size > MANY_WEIGHTS

    def _improve(self, rtol: float, damping: float) -> None:
        """Move all neurons, to a joint local optimum unless the round is coarse."""
        if self.coarse:
            moved = slide(self.problem, self.neurons, max_steps=_COARSE_STEPS, stop=self.monitor.out_of_time)
            self.neurons = merged(self.problem, moved)
            return
        self.neurons = refine(
            self.problem,
            self.neurons,
            rtol=rtol,
            max_steps=_NEWTON_STEPS,
            damping=damping,
            stop=self._no_newton_step,
        )

    def _no_newton_step(self) -> bool:
        """Whether there is no time, or no Newton step left, for another one."""
        self.newton_steps_left -= 1
        return self.newton_steps_left < 0 or self.monitor.out_of_time()

    def _first_neurons(self) -> Neurons:
        """Random directions after a quasi-Newton descent, or none if that is better."""
        k = self.problem.Z.n_columns
        m = min(self.several * _FIRST_NEURONS[0] * k, _FIRST_NEURONS[1])
        directions = self.rng.standard_normal((k, m))
        directions /= 10 * np.linalg.norm(directions, axis=0)
        if self.problem.n_outputs == 1:
            outputs = np.where(np.arange(m) % 2 == 0, 1.0, -1.0)[:, None]
        else:
            outputs = self.rng.standard_normal((m, self.problem.n_outputs))
            outputs /= np.linalg.norm(outputs, axis=1, keepdims=True)
        first = Neurons(directions, outputs, self.neurons.intercept)
        steps = _COARSE_STEPS if directions.size > MANY_WEIGHTS else _SLIDE_STEPS
        first = slide(self.problem, first, max_steps=steps, stop=self.monitor.out_of_time).without_zeros(1e-3)
        return first if self.problem.objective(first) < self.problem.objective(self.neurons) else self.neurons

    def _price(self) -> Peaks:
        """The dearest neurons outside the network; none are looked for when time is out."""
        peaks = self._search(_LIGHT_STARTS if self.light else _STARTS, polish=not self.coarse)
        if self.searched is not None and self.tolerance.reached(
            self.problem.objective(self.neurons), self.searched.bound
        ):
            peaks = self._search(_STARTS if self.light else _HARDER * _STARTS)
        return peaks

    def _search(self, n_starts: int, *, polish: bool = True) -> Peaks:
        """Look for neurons worth adding, and note what was found."""
        Z, C = self.problem.Z, self.problem.n_outputs
        count = self.several * (_LIGHT_NEW_NEURONS if self.light else _NEW_NEURONS)
        if self.monitor.out_of_time():
            return Peaks(np.zeros((Z.n_columns, 0)), np.zeros((0, C)), np.zeros(0))
        if self.coarse:
            count = max(count, len(self.neurons))
        starts, v = self._starts(self.several * n_starts), self._dual_point()
        peaks = find_peaks(
            Z, v, starts, threshold=self._threshold, count=count, polish=polish, stop=self.monitor.out_of_time
        )
        self.n_starts += starts.shape[1]
        directions = np.hstack([_directions(self.neurons), peaks.directions[:, :1]])
        bound = dual_bound(self.problem, v, _price_of(directions, Z, v))
        thorough = polish and not self.monitor.out_of_time()
        self.searched = _Searched(self.neurons, v, directions, bound, thorough, len(peaks) > 0)
        return peaks

    def _dual_point(self) -> np.ndarray:
        return self.problem.feasible_dual(self.problem.dual_point(self.neurons.outputs(self.problem.Z)))

    @property
    def _threshold(self) -> float:
        """Price above which a neuron is worth adding."""
        return self.problem.weight_decay * (1 + self.tolerance.relative(self.problem.objective(self.neurons)) / 10)

    def _proof_plan(self) -> tuple[int, float]:
        """Cones that the proof may visit, and the price that it aims at."""
        sharp = self.problem.Z.n_columns <= _SHARP_COLUMNS
        max_nodes = _SHARP_NODES if sharp else _PROOF_NODES
        if self.prove == "auto":
            max_nodes = min(max_nodes, _NODES_A_START * self.n_starts)
        aim = self._price_within_tolerance(_SHARP_SHARE if sharp else _PROOF_SHARE)
        aim = aim if sharp else max(aim, self.problem.weight_decay * (1 + _PROOF_TOL))
        return max(1, min(max_nodes, _PROOF_ENTRIES // self.problem.Z.n_rows)), aim

    def _prove(self, max_nodes: int, aim: float) -> Peaks:
        """Price all directions; none, or the one that turns out to be too dear for the tolerance."""
        assert self.searched is not None
        Z, v = self.problem.Z, self.searched.v
        if self.problem.n_outputs > 1:
            price = price_by_enumeration(Z, v)
        else:
            room = 1 - _price_of(self.searched.directions, Z, v).value / aim  # for what is not known yet
            price = price_by_branch_and_bound(
                Z,
                v,
                threshold=aim,
                tol=min(room / 10, _PROOF_TOL) if room > 0 else _PROOF_TOL,
                starts=np.hstack([self.neurons.weights, self.searched.directions]),
                max_nodes=max_nodes,
                stop=self.monitor.out_of_time,
            )
        self.proved = price if price.scope == "global" else None  # rounding may hide patterns of an enumeration
        enough = self.tolerance.reached(self.problem.objective(self.neurons), dual_bound(self.problem, v, price))
        dearer = np.zeros((Z.n_columns, 0)) if enough or price.direction is None else price.direction[:, None]
        return find_peaks(Z, v, dearer, threshold=self._threshold, count=1)

    def _price_within_tolerance(self, share: float) -> float:
        """The largest price of all directions at which the bound is within a share of the tolerance, about."""
        assert self.searched is not None
        v, tolerance = self.searched.v, replace(self.tolerance, tol=share * self.tolerance.tol)
        objective, low, high = self.problem.objective(self.neurons), 1.0, 2.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            bound = dual_bound(self.problem, v, Price(middle * self.problem.weight_decay, "global"))
            low, high = (middle, high) if tolerance.reached(objective, bound) else (low, middle)
        return low * self.problem.weight_decay

    def _starts(self, count: int) -> np.ndarray:
        """Starts of the ascent: half of them random, a quarter around active neurons, a quarter across their kinks."""
        Z, k = self.problem.Z, self.problem.Z.n_columns
        if len(self.neurons) == 0:
            return self.rng.standard_normal((k, count))
        quarter = count // 4
        active = _directions(self.neurons)
        chosen = self.rng.integers(len(self.neurons), size=quarter)
        around = active[:, chosen] + self.rng.uniform(0.1, 1, quarter) * self.rng.standard_normal((k, quarter)) / k**0.5
        planes = Z.hyperplanes.first
        n_near = min(k, len(planes))
        near = np.argpartition(np.abs(Z.Z[planes] @ active), n_near - 1, axis=0)[:n_near]
        rows = planes[near][self.rng.integers(n_near, size=quarter), chosen]
        normals = (Z.Z[rows] / np.maximum(Z.row_norms[rows], np.finfo(float).tiny)[:, None]).T
        across = active[:, chosen] + self.rng.uniform(-0.5, 0.5, quarter) * normals
        return np.hstack([self.rng.standard_normal((k, count - 2 * quarter)), around, across])

    def _with(self, peaks: Peaks) -> Neurons:
        """The network with new neurons, after the best lengths for all directions; zeros are dropped."""
        self.proved = None
        if len(peaks) == 0:
            return self.neurons
        grown = replace(
            self.neurons,
            weights=np.hstack([self.neurons.weights, _SEED * peaks.directions]),
            output_weights=np.vstack([self.neurons.output_weights, peaks.output_directions]),
        )
        grown = slide(self.problem, grown, max_steps=_LENGTH_STEPS, directions_too=False, stop=self.monitor.out_of_time)
        return grown if self.problem.objective(grown) <= self.problem.objective(self.neurons) else self.neurons

    def solution(self, problem: Problem, tolerance: Tolerance) -> Solution:
        """The network in the original units, with its certificate."""
        neurons = self.units.neurons_to(self.neurons)
        pruned = neurons.pruned(problem.Z)
        neurons = pruned if problem.objective(pruned) <= problem.objective(neurons) else neurons
        v, certificate = self.certified(problem, neurons, tolerance)
        status = status_of(certificate, tolerance, "Column generation", self.monitor.ending or Status.NOT_CONVERGED)
        return Solution(neurons, v, certificate, status, self.monitor.n_iter, tuple(self.monitor.history))

    def certified(self, problem: Problem, neurons: Neurons, tolerance: Tolerance) -> tuple[np.ndarray, Certificate]:
        """The dual point of the last search, and what it certifies of a network, both in the original units."""
        searched = self.searched
        v = self.units.dual_to(self._dual_point() if searched is None else searched.v)
        if searched is None:
            price, basis = partial(price_bound, problem.Z, sample_weight=problem.sample_weight), _NOT_SEARCHED
        else:
            price = partial(_price_of, self.units.directions_to(searched.directions), problem.Z)
            enough = self.tolerance.reached(self.problem.objective(self.neurons), searched.bound)
            found = _DEARER if searched.dearer and not enough else _FOUND
            basis = found if searched.thorough else _NOT_SEARCHED
        certificate = certify(problem, neurons, v, price, basis)
        if self.proved is not None:
            basis = _PROVED if problem.n_outputs == 1 else _PROVED_SEVERAL
            proof = certify(problem, neurons, v, self._proved_price(problem, v), basis)
            certificate = with_proof(certificate, proof, tolerance)
        return v, certificate

    def _proved_price(self, problem: Problem, known: np.ndarray) -> Callable[[np.ndarray], Price]:
        """What was proved in the units of the search, for dual points in the original units."""
        assert self.proved is not None
        value = self.proved.value * self.units.target_scale * self.units.column_scale

        def price(v: np.ndarray) -> Price:
            # Rounding may have moved the dual point; no price changes by more than this.
            moved = float(np.linalg.norm(problem.Z.unpool(v - known), axis=1) @ problem.Z.row_norms)
            return Price(value * (1 + 1e-12) + moved, "global")

        return price


def _directions(neurons: Neurons) -> np.ndarray:
    return neurons.weights / np.linalg.norm(neurons.weights, axis=0)


def _price_of(directions: np.ndarray, Z: DesignMatrix, v: np.ndarray) -> Price:
    """The largest price of some unit directions, in any units."""
    return Price(float(np.linalg.norm(v.T @ Z.neuron_outputs(directions), axis=0).max(initial=0)), "local")


def _check(problem: Problem, start: Neurons | None) -> None:
    if not np.isfinite(problem.loss.curvature):
        raise ValueError(
            f"Column generation takes smooth losses, not {problem.loss.name!r}; use 'squared_hinge' instead of "
            "'hinge', or solve_reference."
        )
    if start is not None and (start.gates is not None or start.weights.shape[0] != problem.Z.n_columns):
        raise ValueError(
            f"start must be ReLU neurons (without gates) with weights of {problem.Z.n_columns} rows, as many as Z has "
            "columns."
        )
    if start is not None and not (np.isfinite(start.weights).all() and np.isfinite(start.output_weights).all()):
        raise ValueError("start contains NaN or infinity; start from a network that was trained, or from None.")
    if start is not None and start.output_weights.shape[1] != problem.n_outputs:
        raise ValueError(f"start has {start.output_weights.shape[1]} outputs, the problem has {problem.n_outputs}.")
