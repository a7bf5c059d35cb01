"""Gated networks by working sets: price the gates, let those of largest price enter, improve their weights, repeat.

The rounds, the bounds on prices and the continuation in weight decay; steps are in `_steps`, norms of the weights in
`_euclidean_norm` and `_nuclear_norm`.
"""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Self

import numpy as np

from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.operators._bits import transposed
from convexbn.oracles import Price, spectral_norms
from convexbn.patterns._patterns import Patterns
from convexbn.solvers._certificate import dual_bound, relative_gap
from convexbn.solvers._tolerance import Tolerance
from convexbn.solvers.gated._loss_model import LossModel
from convexbn.solvers.gated._products import Products, kind_of_products
from convexbn.solvers.gated._steps import Norm, Point, Steps

_ENTERING = 50  # gates that enter at once while few are in use; later as many as are in use
_STEPS = 10  # a round, alternately proximal and Newton's
_PRECISION = 0.3  # a round ends where the gap over its gates is this fraction of the gap over all
_STAGE_GAP = 0.2  # at which weight decay is halved, until it is that of the problem
_ROUNDING = 1e-12  # of a dual point
_PATIENCE = 5  # rounds without progress after which the solver stops
_PRICED_ENTRIES = 2**24  # entries of the products Z^T D_i v at once
_OVERLAP_PRODUCTS = 2**24  # up to this many, overlaps of all patterns are computed at once
_HELD_ENTRIES = 2**22  # up to this many, masks of all patterns stay unpacked


@dataclass
class Known:
    """Cache of the last round, for the next round or the next weight decay."""

    v: np.ndarray
    prices: np.ndarray  # upper bounds of the prices at v, apart from rounding
    exact: np.ndarray  # which of them are the prices
    w: np.ndarray | None = None
    overlapping: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))
    K: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))


@dataclass(frozen=True, eq=False)
class State:
    """What is known between two rounds.

    Parameters
    ----------
    point, best : Point
        The point of the last round, and that of least objective.
    v : ndarray of shape (n, C)
        The best dual point.
    bound : float
        Its lower bound of the objective.
    known : Known
        Cache of the last round.
    weight_decay : float or None
        Weight decay of the last round.
    last_gap, last_objective : float
        Before the last round.
    since : int
        Rounds without progress.
    n_rounds : int
        Completed rounds.
    n_falls, centre : int, tuple of ndarray or None
        How often mu has fallen along the central path of the interior-point method, and its point there: v, outputs
        and intercept.
    """

    point: Point
    best: Point
    v: np.ndarray
    bound: float
    known: Known
    weight_decay: float | None = None
    last_gap: float = np.inf
    last_objective: float = np.inf
    since: int = 0
    n_rounds: int = 0
    n_falls: int = 0
    centre: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def bounded(self, v: np.ndarray, bound: float) -> "State":
        """The same with another dual point, if its bound is better."""
        return replace(self, v=v, bound=bound) if bound > self.bound else self


class WorkingSets:
    """The problem in the basis of the eigenvectors of C = Z^T diag(p) Z, in which C is diagonal."""

    def __init__(self, problem: Problem, patterns: Patterns, dtype: np.dtype, norm: Norm):
        Z = problem.Z
        self.problem, self.patterns, self.norm = problem, patterns, norm
        of_rows, row_basis = (Z, None) if Z.has_few_columns else Z.on_row_space  # where optimal weights lie
        eigenvalues, basis = np.linalg.eigh(of_rows.gram(Z.unpool(problem.sample_weight[:, None])))
        self.basis = basis if row_basis is None else row_basis @ basis
        self.largest = max(float(eigenvalues[-1]), np.finfo(float).tiny)
        self.columns = np.maximum(eigenvalues, 1e-12 * self.largest)
        unpriced = np.full(len(patterns), np.inf), np.zeros(len(patterns), dtype=bool)
        self.dtype, self.known = dtype, Known(problem.zero_dual, *unpriced)
        rotated = Z.times(self.basis)
        self.rows = {np.dtype("float64"): rotated, np.dtype("float32"): rotated.in_single_precision}
        self.bits = Z.place(transposed(patterns.packed, Z.n_rows))
        self.held: dict[np.dtype, Products] = {}
        if kind_of_products(Z).entries(Z, len(patterns)) <= _HELD_ENTRIES:
            everything = np.arange(len(patterns))
            self.held = {kind: self.products(everything, kind, hold=True) for kind in {dtype, np.dtype("float32")}}

    def first(self, start: Neurons | None) -> Point:
        """The point to start from."""
        n, k, C = self.problem.Z.n_samples, self.basis.shape[1], self.problem.n_outputs
        intercept = self.problem.zero_network.intercept
        if start is None:
            return self.point(np.zeros(0, dtype=int), np.zeros((0, k, C)), intercept, np.zeros((n, C)))
        chosen, S = matched(self.problem, self.patterns, start)
        return self.point(chosen, self.basis.T @ S, start.intercept if self.problem.fit_intercept else 0 * intercept)

    def point(self, chosen: np.ndarray, S: np.ndarray, intercept: np.ndarray, f: np.ndarray | None = None) -> Point:
        """The point of these weights; its outputs in float64 unless they are given."""
        f = self.problem.Z.fetch(self.products(chosen, np.dtype("float64")).forward(S)) if f is None else f
        return Point.of(self.problem, self.norm, chosen, S, f, intercept)

    def neurons(self, point: Point) -> Neurons:
        """The gated neurons of a point, in the order of the patterns."""
        kept = point.used[np.argsort(point.chosen[point.used])]
        gates = self.patterns.directions[:, point.chosen[kept]]
        return self.norm.neurons(self.basis @ point.S[kept], point.intercept, gates)

    def objective(self, point: Point) -> float:
        """Objective of a point."""
        return point.loss + self.problem.weight_decay * point.cost

    def priced(self, point: Point) -> "State":
        """The state of a point before the first round."""
        v = self.dual_point(point)
        return State(point, point, v, self.bound(v, self.prices(v)), self.known)

    def rounds(self, state: "State", tolerance: Tolerance, out_of_time: Callable[[], bool]) -> Iterator["State"]:
        """A state, and those after the rounds that improve its point."""
        while True:
            yield state
            point, objective, gap = state.point, self.objective(state.best), self.gap(state)
            progress = gap < 0.9 * state.last_gap or objective < (1 - 1e-9) * state.last_objective
            since = 0 if progress else state.since + 1
            if since == _PATIENCE:
                return

            v = self.dual_point(point)
            prices = self.prices(v)
            stage, stage_gap = self.next_stage(state.weight_decay, point, v, prices)
            last_stage = stage.problem.weight_decay == self.problem.weight_decay
            precision = _PRECISION * max(stage_gap, tolerance.relative(objective) if last_stage else _STAGE_GAP)
            point = stage.improved(stage.working_set(point, prices), precision, out_of_time)
            used = point.used
            point = stage.point(point.chosen[used], point.S[used], point.intercept)

            v = self.dual_point(point)
            state = replace(
                state.bounded(v, self.bound(v, self.prices(v))),
                point=point,
                best=point if self.objective(point) <= objective else state.best,
                weight_decay=stage.problem.weight_decay,
                last_gap=gap,
                last_objective=objective,
                since=since,
                n_rounds=state.n_rounds + 1,
            )

    def gap(self, state: "State") -> float:
        """Relative gap of the best point and the best bound."""
        return relative_gap(self.objective(state.best), state.bound)

    def next_stage(
        self, weight_decay: float | None, point: Point, v: np.ndarray, prices: np.ndarray
    ) -> tuple[Self, float]:
        """The problem of the next round, of the same or larger weight decay, and the point's gap there.

        At small weight decay most steps from a distant point would be cut short, where some neuron passes through zero.
        So weight decay starts where the point has a small gap, and is halved where the gap is small.
        """
        target = self.problem.weight_decay
        stage = self.at(max(float(prices.max(initial=0)) / 2, target) if weight_decay is None else weight_decay)
        while True:
            gap = stage.unproved_gap(point, v, prices)
            if gap > _STAGE_GAP or stage.problem.weight_decay == target:
                return stage, gap
            stage = self.at(max(stage.problem.weight_decay / 2, target))

    def at(self, weight_decay: float) -> Self:
        """The same with another weight decay; what is known is shared."""
        if weight_decay == self.problem.weight_decay:
            return self
        other = copy(self)
        other.problem = self.problem.with_weight_decay(weight_decay)
        return other

    def improved(self, point: Point, precision: float, out_of_time: Callable[[], bool]) -> Point:
        """Proximal and Newton steps on the patterns of a point, until the gap over these is the precision."""
        products = self.products(point.chosen, self.dtype, hold=True)
        single = products
        if self.dtype != np.float32:
            single = self.products(point.chosen, np.dtype("float32"), hold=True)
        steps = Steps(self.problem, self.norm, self.columns, products, single, out_of_time)
        K = np.zeros((0, 0))
        for n_steps in range(_STEPS):
            v = self.dual_point(point)
            G = products.adjoint(self.problem.Z.place(v))
            gap = self.unproved_gap(point, v, spectral_norms(G))
            if gap <= precision or out_of_time():
                break
            model = LossModel(self.problem, point.f + point.intercept)
            if np.abs(model.v - v).max() > _ROUNDING * np.abs(v).max():
                G = products.adjoint(self.problem.Z.place(model.v))
            if n_steps % 2 == 0:
                K = self.overlaps(single, point.chosen, model.w)
                point = steps.proximal(point, model, G, K)
            else:
                point = steps.newton(point, model, G, K)
        return point

    def dual_point(self, point: Point) -> np.ndarray:
        """Dual point (n, C) in the domain of the conjugate."""
        return self.problem.feasible_dual(self.problem.dual_point(point.f + point.intercept))

    def prices(self, v: np.ndarray) -> np.ndarray:
        """|Z^T D_i v| of the patterns where it exceeds weight_decay, and an upper bound that does not elsewhere.

        Z^T D_i diag(p)^(1/2) has no larger norm than C^(1/2), which bounds how far prices rise from one dual point to
        the next. Only those that may exceed weight_decay are computed again.
        """
        known = self.known
        if not np.array_equal(v, known.v):
            known.prices += self._rise(v)
            known.v, known.exact = v, np.zeros_like(known.exact)
        chosen = np.flatnonzero((known.prices > self.problem.weight_decay) & ~known.exact)
        known.prices[chosen], known.exact[chosen] = self._priced(chosen, v, self.dtype), True
        return known.prices.copy()

    def price(self, v: np.ndarray) -> Price:
        """Largest price over all patterns in float64, or an upper bound that does not exceed weight_decay."""
        known, rise = self.known, self._rise(v)
        found = float(known.prices[known.exact].max(initial=0)) - rise
        prices = known.prices + rise
        candidates = prices >= max(found, self.problem.weight_decay)
        prices[candidates] = self._priced(np.flatnonzero(candidates), v, np.dtype("float64"))
        return Price(float(prices.max()), "patterns")

    def _rise(self, v: np.ndarray) -> float:
        """Upper bound of the change of a price from the dual point where they are known to another, with rounding."""
        change = np.linalg.norm((v - self.known.v) / np.sqrt(self.problem.sample_weight[:, None]))
        return float(np.sqrt(self.largest) * change) + self.rounding(self.known.v) + self.rounding(v)

    def _priced(self, chosen: np.ndarray, v: np.ndarray, dtype: np.dtype) -> np.ndarray:
        size = max(1, _PRICED_ENTRIES // (self.problem.Z.n_columns * v.shape[1]))
        blocks, placed = (
            (chosen[start : start + size] for start in range(0, len(chosen), size)),
            self.problem.Z.place(v),
        )
        found = [spectral_norms(self.products(block, dtype).adjoint(placed)) for block in blocks]
        return np.concatenate([np.zeros(0), *found])

    def rounding(self, v: np.ndarray) -> float:
        """Upper bound of the rounding error of a price."""
        sizes = np.linalg.norm(self.problem.Z.unpool(v), axis=1)
        return 10 * float(np.finfo(self.rows[self.dtype].dtype).eps) * float(self.problem.Z.row_norms @ sizes)

    def products(self, chosen: np.ndarray, dtype: np.dtype, *, hold: bool = False) -> Products:
        """Products with the masked design matrices of the chosen patterns."""
        if dtype in self.held:
            return self.held[dtype].take(chosen)
        return kind_of_products(self.problem.Z)(self.rows[dtype], self.bits, chosen, hold=hold)

    def overlaps(self, products: Products, chosen: np.ndarray, w: np.ndarray) -> np.ndarray:
        """The matrix K of the model, with a little more on its diagonal.

        What is known is kept while w stays; of few patterns the overlaps of all are taken at once.
        """
        known, everything = self.known, np.arange(len(self.patterns))
        if known.w is None or not np.array_equal(w, known.w):
            known.w, known.overlapping, known.K = w, np.zeros(0, dtype=int), np.zeros((0, 0))
        if self.held and len(everything) ** 2 * len(w) <= _OVERLAP_PRODUCTS:
            if len(known.K) < len(everything):
                known.overlapping = everything
                known.K = self.held[np.dtype("float32")].overlaps(w, self.columns, everything)
            K = known.K[np.ix_(chosen, chosen)]
        else:
            _, old, of_known = np.intersect1d(chosen, known.overlapping, assume_unique=True, return_indices=True)
            new = np.setdiff1d(np.arange(len(chosen)), old, assume_unique=True)
            K = np.empty((len(chosen), len(chosen)))
            K[np.ix_(old, old)] = known.K[np.ix_(of_known, of_known)]
            if len(new):
                K[new] = products.overlaps(w, self.columns, new)
                K[:, new] = K[new].T
            known.overlapping, known.K = chosen, K.copy()
        K.flat[:: len(K) + 1] += np.sqrt(np.finfo(np.float32).eps) * K.diagonal().max(initial=0)
        return K

    def bound(self, v: np.ndarray, prices: np.ndarray) -> float:
        """Lower bound from a dual point whose prices are known."""
        return dual_bound(self.problem, v, Price(float(prices.max(initial=0)), "patterns"))

    def unproved_gap(self, point: Point, v: np.ndarray, prices: np.ndarray) -> float:
        """Relative gap of a point over the patterns of these prices, in which rounding is left out of account."""
        bound = dual_bound(self.problem, v, Price(float(prices.max(initial=0)), "local"))
        return relative_gap(self.objective(point), bound)

    def working_set(self, point: Point, prices: np.ndarray) -> Point:
        """The patterns in use, and those of largest price of the others."""
        others = prices > self.problem.weight_decay
        others[point.chosen] = False
        count = min(int(others.sum()), max(_ENTERING, len(point.chosen)))
        entering = np.argsort(-np.where(others, prices, 0), kind="stable")[:count]
        S = np.concatenate([point.S, np.zeros((count, *point.S.shape[1:]))])
        return replace(point, chosen=np.concatenate([point.chosen, entering]), S=S)


def check_start(problem: Problem, start: Neurons) -> None:
    """Raise a ValueError unless neurons are gated, finite, and of a problem."""
    gates = start.gates
    if gates is None:
        raise ValueError("start has no gates; solve_gated starts from gated neurons, such as those it returns.")
    if len(gates) != problem.Z.n_columns or start.output_weights.shape[1] != problem.n_outputs:
        raise ValueError(
            f"start has {len(gates)} weights a neuron and {start.output_weights.shape[1]} outputs; the problem has "
            f"{problem.Z.n_columns} columns and {problem.n_outputs} outputs."
        )
    if not start.finite:
        raise ValueError("start contains NaN or infinity; start from a network that was trained, or from None.")


def matched(problem: Problem, patterns: Patterns, start: Neurons) -> tuple[np.ndarray, np.ndarray]:
    """Patterns of the gates of a network, by direction or else by mask, and the weights (a, k, C) on each."""
    gates = start.gates
    assert gates is not None
    by_direction = {column.tobytes(): i for i, column in enumerate(np.ascontiguousarray(patterns.directions.T))}
    found = [by_direction.get(column.tobytes(), -1) for column in np.ascontiguousarray(gates.T)]
    if -1 in found:
        by_mask = {_digest(row): i for i, row in enumerate(patterns.packed)}
        masks = problem.Z.packed_patterns(gates)
        found = [i if i >= 0 else by_mask.get(_digest(row), -1) for i, row in zip(found, masks, strict=True)]
    missing = found.count(-1)
    if missing:
        raise ValueError(
            f"{missing} of the {len(start)} gates of start are not among the patterns; add them, or start from a "
            "network with these patterns as gates."
        )
    chosen, group = np.unique(np.array(found, dtype=int), return_inverse=True)
    S = np.zeros((len(chosen), len(gates), problem.n_outputs))
    np.add.at(S, group, start.weights.T[:, :, None] * start.output_weights[:, None, :])
    return chosen, S


def _digest(row: np.ndarray) -> bytes:
    return blake2b(row.tobytes(), digest_size=16).digest()
