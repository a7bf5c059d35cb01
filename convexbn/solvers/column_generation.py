"""Column generation: neurons enter by their price, and after every round all active ones move to a joint optimum."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from convexbn.certificate import certify, dual_bound, relative_gap
from convexbn.matrix import DesignMatrix
from convexbn.neurons import Neurons
from convexbn.pricing import (
    Peaks,
    Price,
    find_peaks,
    price_by_branch_and_bound,
    price_by_enumeration,
    quickly_enumerated,
)
from convexbn.problem import Problem
from convexbn.solution import Solution, Status, status_of
from convexbn.solvers.monitor import Callback, Monitor
from convexbn.solvers.newton import merged, refine
from convexbn.solvers.slide import slide
from convexbn.solvers.units import Units

_FIRST_NEURONS = 3, 100  # at the start: this many times k, but no more than so many
_NEW_NEURONS = 20  # a round
_SLIDE_STEPS, _LENGTH_STEPS, _NEWTON_STEPS = 500, 100, 40
_STARTS = 300  # directions of ascent in a round, with both signs if there is one output
_HARDER = 8  # times as many in the last round, before a gap is believed
_SEVERAL = 3  # times as many of all three with several outputs, whose price has more maxima
# Newton's method takes turns, and many weights take long ones. So many of them move by quasi-Newton steps, and as many
# neurons as are in use enter without polish, until the gap is small or a round gains little of it.
_MANY_WEIGHTS, _COARSE_STEPS = 5000, 50
_COARSE_GAP, _COARSE_PROGRESS = 1e-2, 1e-2
_SEED = 1e-12  # length of a new neuron, in units in which targets and rows of Z are of order one
_STALLED_ROUNDS = 3
_PROOF_COLUMNS = 6  # up to so many prices are proved
_PROOF_NODES, _PROOF_ENTRIES = 500_000, 10**9  # budget of the proof: cones, and cones times rows
_SHARP_COLUMNS, _SHARP_NODES = 4, 50_000  # up to so many the proof aims at tol, within this budget; else at 1e-3
_PROOF_TOL = 1e-3
_PROOF_GAP = 1e-2  # a proof that leaves a larger gap stands beside the local certificate, not in its place
_FOUND = "column generation, which found no neuron worth adding by ascent from many starts"
_PROVED = "column generation, and branch and bound over all directions"
_PROVED_SEVERAL = "column generation, and a visit to every face of the cones of all activation patterns"


def solve_column_generation(
    problem: Problem,
    *,
    tol: float = 1e-6,
    max_iter: int | None = 100,
    max_time: float | None = None,
    start: Neurons | None = None,
    prove: bool = True,
    random_state: int | np.random.Generator | None = None,
    callback: Callback | None = None,
    verbose: bool = False,
) -> Solution:
    """Train a ReLU network by column generation, the default solver.

    A round moves the active neurons to a joint local optimum (`refine`), looks for neurons whose price exceeds
    weight_decay, by ascent from many starts at once (`find_peaks`), and adds the dearest; when none is found, a search
    eight times as hard has the last word. While a large network is far from the optimum, its rounds are cheaper and
    coarser (`slide`). The objective never rises. With one output and up to six columns of Z the price of every
    direction is then proved by branch and bound, and what it finds goes on as a new neuron; the certificate is global.
    So it is with several outputs on tiny problems, whose patterns' cones are enumerated face by face. Otherwise it is
    local: evidence, beside the best lower bound that is proved.

    Memory grows with n (k + active neurons), beside the squared matrix of the about 400 weights that move at once.

    Parameters
    ----------
    problem : Problem
        Training problem with a smooth loss.
    tol : float, default=1e-6
        Relative gap at which to stop.
    max_iter : int or None, default=100
        Rounds at most.
    max_time : float or None, default=None
        Seconds after which the best network so far is returned.
    start : Neurons or None, default=None
        ReLU neurons to start from, such as those at another weight decay. None starts from random directions.
    prove : bool, default=True
        Whether to prove the price of every direction where that is possible. It takes up to a few seconds.
    random_state : int, Generator or None, default=None
        Seed of the random starts.
    callback : callable or None, default=None
        Called with a `Progress` after every round; a true value ends the run.
    verbose : bool, default=False
        Whether to show a progress bar.

    Returns
    -------
    solution : Solution
        Scope "global" where prices were proved, "local" otherwise. Interrupted by Ctrl-C, the best network so far.

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
    >>> from convexbn.solvers import solve_column_generation
    >>> problem = Problem(np.eye(2), [1.0, -2.0], weight_decay=0.1)
    >>> solution = solve_column_generation(problem, random_state=0)
    >>> round(solution.certificate.objective, 6), solution.certificate.scope
    (0.28, 'global')
    """
    _check(problem, tol, start)
    monitor = Monitor("column generation", max_iter=max_iter, max_time=max_time, callback=callback, verbose=verbose)
    units = Units.of(problem)
    search = _Search(units, np.random.default_rng(random_state), tol, prove, monitor)
    if start is not None:
        search.neurons = merged(search.problem, units.neurons_from(start).with_unit_outputs())
    with monitor:
        search.run()
    return search.solution(problem)


class _Search:
    """The method and its state, in the units of `problem`; whatever interrupts it, `neurons` is the best network."""

    def __init__(self, units: Units, rng: np.random.Generator, tol: float, prove: bool, monitor: Monitor):
        self.units, self.problem, self.rng, self.tol, self.monitor = units, units.problem, rng, tol, monitor
        one_output = self.problem.n_outputs == 1
        Z = self.problem.Z
        self.prove = prove and (Z.n_columns <= _PROOF_COLUMNS if one_output else quickly_enumerated(Z, 2))
        self.several = 1 if one_output else _SEVERAL
        self.neurons = self.problem.zero_network
        self.coarse = False  # whether rounds are cheap and far from exact
        self.dearest = np.zeros((self.problem.Z.n_columns, 0))  # unit direction outside the network, if one was found
        self.priced: Neurons | None = None  # the network outside which it was looked for
        self.proved: Price | None = None  # of all directions, at the dual point of these neurons

    def run(self) -> None:
        """Rounds until the gap is within the tolerance, or nothing moves, or the monitor ends the run."""
        rtol, damping, stalled = 1e-8, 1e-4, 0
        if len(self.neurons) == 0:
            self.neurons = self._first_neurons()
            rtol, damping = 1e-5, 0.1
        self.coarse = self._many_weights
        objective = self.problem.objective(self.neurons)
        while True:
            self._improve(rtol, damping)
            peaks, gap = self._price()
            before, objective = objective, self.problem.objective(self.neurons)
            goes_on = self.monitor.goes_on(self.units.objective_to(objective), gap, len(self.neurons))
            stalled = stalled + 1 if objective >= before and len(peaks) == 0 else 0
            if gap <= self.tol and goes_on and self.prove:
                peaks = self._prove()
                goes_on = len(peaks) > 0
            elif gap <= self.tol or stalled == _STALLED_ROUNDS:
                break
            if not goes_on:
                break
            self.neurons = self._with(peaks)
            # The objective is within about gap^2 of that of a joint local optimum; to come closer can wait, as long as
            # there are new neurons and the rounds make progress.
            above = gap**2 if len(peaks) else (self.tol / 10) ** 2
            progress = (before - objective) / objective
            rtol, damping = float(np.clip(0.1 * min(above, progress), 1e-14, 1e-3)), 1e-4
            goes_well = self.monitor.n_iter == 1 or progress > _COARSE_PROGRESS * gap
            self.coarse = self._many_weights and gap > _COARSE_GAP and goes_well

    @property
    def _many_weights(self) -> bool:
        return self.neurons.weights.size > _MANY_WEIGHTS

    def _improve(self, rtol: float, damping: float) -> None:
        """Move all neurons, to a joint local optimum unless the round is coarse."""
        if self.coarse:
            self.neurons = merged(self.problem, slide(self.problem, self.neurons, max_steps=_COARSE_STEPS))
            return
        self.neurons = refine(
            self.problem,
            self.neurons,
            rtol=rtol,
            max_steps=_NEWTON_STEPS,
            damping=damping,
            stop=self.monitor.out_of_time,
        )

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
        steps = _COARSE_STEPS if directions.size > _MANY_WEIGHTS else _SLIDE_STEPS
        first = slide(self.problem, first, max_steps=steps).without_zeros(1e-3)
        return first if self.problem.objective(first) < self.problem.objective(self.neurons) else self.neurons

    def _price(self) -> tuple[Peaks, float]:
        """The dearest neurons outside the network, and its gap if there is none dearer."""
        v = self._dual_point()
        peaks = self._peaks(v, _STARTS, polish=not self.coarse)
        gap = self._gap(v, peaks)
        if gap <= self.tol:
            peaks = self._peaks(v, _HARDER * _STARTS)
            gap = self._gap(v, peaks)
        return peaks, gap

    def _dual_point(self) -> np.ndarray:
        return self.problem.feasible_dual(self.problem.dual_point(self.neurons.outputs(self.problem.Z)))

    @property
    def _threshold(self) -> float:
        """Price above which a neuron is worth adding."""
        return self.problem.weight_decay * (1 + self.tol / 10)

    def _peaks(self, v: np.ndarray, n_starts: int, *, polish: bool = True) -> Peaks:
        starts = self._starts(self.several * n_starts)
        count = self.several * _NEW_NEURONS
        if self.coarse:
            count = max(count, len(self.neurons))
        return find_peaks(self.problem.Z, v, starts, threshold=self._threshold, count=count, polish=polish)

    def _prove(self) -> Peaks:
        """Price all directions; none, or the one that turns out to be dearer than weight_decay."""
        Z, v = self.problem.Z, self._dual_point()
        sharp = Z.n_columns <= _SHARP_COLUMNS
        if self.problem.n_outputs > 1:
            price = price_by_enumeration(Z, v)
        else:
            price = price_by_branch_and_bound(
                Z,
                v,
                threshold=self._threshold,
                tol=self.tol / 10 if sharp else _PROOF_TOL,
                starts=np.hstack([self.neurons.weights, self.dearest]),
                max_nodes=max(1, min(_SHARP_NODES if sharp else _PROOF_NODES, _PROOF_ENTRIES // Z.n_rows)),
                stop=self.monitor.out_of_time,
            )
        self.proved = price if price.scope == "global" else None  # rounding may hide patterns of an enumeration
        dearer = np.zeros((Z.n_columns, 0)) if price.direction is None else price.direction[:, None]
        return find_peaks(Z, v, dearer, threshold=self._threshold, count=1)

    def _gap(self, v: np.ndarray, peaks: Peaks) -> float:
        self.priced, self.dearest = self.neurons, peaks.directions[:, :1]
        bound = dual_bound(self.problem, v, self._found_price(self.problem.Z, v))
        return relative_gap(self.problem.objective(self.neurons), bound)

    def _found_price(self, Z: DesignMatrix, v: np.ndarray) -> Price:
        """The largest price that is known, that of active neurons or of the dearest outside, in any units."""
        directions = np.hstack([_directions(self.neurons), self.dearest])
        return Price(float(np.linalg.norm(v.T @ Z.neuron_outputs(directions), axis=0).max(initial=0)), "local")

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
        grown = slide(self.problem, grown, max_steps=_LENGTH_STEPS, directions_too=False)
        return grown if self.problem.objective(grown) <= self.problem.objective(self.neurons) else self.neurons

    def solution(self, problem: Problem) -> Solution:
        """The network in the original units, with its certificate."""
        v = self._dual_point()
        # Interrupted since, or after a coarse round: without a thorough search there would be no evidence.
        if self.priced is not self.neurons or self.coarse:
            self.coarse = False
            self._gap(v, self._peaks(v, _STARTS))
        neurons, v = self.units.neurons_to(self.neurons), self.units.dual_to(v)
        pruned = neurons.pruned(problem.Z)
        neurons = pruned if problem.objective(pruned) <= problem.objective(neurons) else neurons
        certificate = certify(problem, neurons, v, partial(self._found_price, problem.Z), _FOUND)
        ending = self.monitor.ending or Status.NOT_CONVERGED
        if certificate.gap <= self.tol:
            status = Status.CONVERGED
        else:
            status = status_of(certificate, self.tol, "Column generation", ending)
        if self.proved is not None:
            basis = _PROVED if problem.n_outputs == 1 else _PROVED_SEVERAL
            proof = certify(problem, neurons, v, self._proved_price(problem, v), basis)
            if proof.gap <= _PROOF_GAP:
                status = Status.PROVED_LESS if status is Status.CONVERGED and proof.gap > self.tol else status
                certificate = proof
            else:
                bounds = certificate.global_lower_bound or 0.0, proof.lower_bound
                certificate = replace(certificate, global_lower_bound=max(bounds))
        return Solution(neurons, v, certificate, status, self.monitor.n_iter, tuple(self.monitor.history))

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


def _check(problem: Problem, tol: float, start: Neurons | None) -> None:
    if not np.isfinite(problem.loss.curvature):
        raise ValueError(
            f"Column generation takes smooth losses, not {problem.loss.name!r}; use 'squared_hinge' instead of "
            "'hinge', or solve_reference."
        )
    if not (isinstance(tol, (int, float, np.floating)) and 0 < tol < np.inf):
        raise ValueError(f"tol={tol!r} must be a positive number.")
    if start is not None and (start.gates is not None or start.weights.shape[0] != problem.Z.n_columns):
        raise ValueError(
            f"start must be ReLU neurons (without gates) with weights of {problem.Z.n_columns} rows, as many as Z has "
            "columns."
        )
    if start is not None and not (np.isfinite(start.weights).all() and np.isfinite(start.output_weights).all()):
        raise ValueError("start contains NaN or infinity; start from a network that was trained, or from None.")
    if start is not None and start.output_weights.shape[1] != problem.n_outputs:
        raise ValueError(f"start has {start.output_weights.shape[1]} outputs, the problem has {problem.n_outputs}.")
