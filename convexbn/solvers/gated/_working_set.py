"""Gated networks by working sets: price the gates, let the dearest enter, improve their weights, repeat.

What a step on the working set does depends on the number of outputs, so it is left to a subclass; this file holds the
rounds, the bounds, gap-safe screening, and the way down in weight decay.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Self

import numpy as np

from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.operators._masked import MaskedProducts
from convexbn.operators._pooled import PooledProducts
from convexbn.oracles import Price, spectral_norms
from convexbn.patterns._patterns import Patterns
from convexbn.solvers._certificate import dual_bound, relative_gap
from convexbn.solvers._tolerance import Tolerance

_ENTERING = 50  # gates that enter at once while few are in use; later as many as are in use
_PRECISION = 0.3  # a round ends where the gap over its gates is this fraction of the gap over all
_STAGE_GAP = 0.2  # at which weight decay is halved, on the way down to that of the problem
_LEAST_CURVATURE = 1e-3  # of a sample, as a fraction of the mean: rows on flat parts of a loss keep a little
_PATIENCE = 5  # rounds without progress after which the solver gives up
_PRICED_ENTRIES = 2**24  # entries of the products Z^T D_i v at once

Products = MaskedProducts | PooledProducts


@dataclass(frozen=True, eq=False)
class Point:
    """Weights S of the chosen patterns (a,), f without intercept, the intercept, and the objective.

    One output: S (a, k), f (n,) and a number. Several: S (a, k, C), f (n, C) and (C,).
    """

    chosen: np.ndarray
    S: np.ndarray
    f: np.ndarray
    intercept: Any
    objective: float

    @property
    def outputs(self) -> np.ndarray:
        """Predictions (n, C)."""
        return (self.f + self.intercept).reshape(len(self.f), -1)

    @property
    def used(self) -> np.ndarray:
        """Which of the chosen patterns have weights that are not zero."""
        return np.asarray(self.S.any(axis=tuple(range(1, self.S.ndim))))


class WorkingSets(ABC):
    """The problem in the basis of the eigenvectors of C = Z^T diag(p) Z, in which C is diagonal."""

    def __init__(self, problem: Problem, patterns: Patterns, dtype: np.dtype):
        Z = problem.Z
        self.problem, self.patterns = problem, patterns
        self.p = problem.sample_weight
        rows_p = Z.unpool(self.p[:, None])
        eigenvalues, self.basis = np.linalg.eigh(Z.gram(rows_p))
        self.largest = max(float(eigenvalues[-1]), np.finfo(float).tiny)
        self.columns = np.maximum(eigenvalues, 1e-12 * self.largest)
        exact = Z @ self.basis
        self.leverage = np.einsum("ij,ij,j->i", exact, exact, 1 / self.columns) / Z.n_columns
        self.rows, self.eps = exact.astype(dtype, copy=False), float(np.finfo(dtype).eps)
        self._exact = exact

    @abstractmethod
    def first(self, start: Neurons | None) -> Point:
        """Where the solver starts."""

    @abstractmethod
    def neurons(self, point: Point) -> Neurons:
        """The gated neurons of a point, in the order of the patterns."""

    @abstractmethod
    def point(self, chosen: np.ndarray, S: np.ndarray, f: np.ndarray, intercept: Any) -> Point:
        """A point with its objective, and a good intercept where one is fitted."""

    @abstractmethod
    def cost(self, S: np.ndarray) -> float:
        """What weight decay penalises."""

    @abstractmethod
    def improved(self, point: Point, precision: float, out_of_time: Callable[[], bool]) -> Point:
        """A better point on the same patterns, if need be until the gap over these is the precision."""

    def objective(self, point: Point) -> float:
        """Objective of a point; that of `point` itself is for the weight decay at which it was made."""
        return self.problem.training_loss(point.outputs) + self.problem.weight_decay * self.cost(point.S)

    def rounds(
        self, point: Point, tolerance: Tolerance, out_of_time: Callable[[], bool]
    ) -> Iterator[tuple[Point, np.ndarray, float]]:
        """Improve a point round by round: the best point, the best dual point, and their relative gap.

        Goes on below the tolerance with all patterns priced again: a bound over the patterns that are not screened is
        one over all, but the caller may not get it from this dual point.
        """
        best, bound, best_v, since = point, -np.inf, self.problem.zero_dual, 0
        alive, stage = np.arange(len(self.patterns)), None
        last_gap, last_objective = np.inf, np.inf
        while True:
            v = self.dual_point(point)
            prices = self.prices(alive, v)
            found = self.bound(v, prices)
            if found > bound:
                bound, best_v = found, v
            objective = self.objective(point)
            if objective <= best.objective:
                best = replace(point, objective=objective)
            gap = relative_gap(best.objective, bound)
            yield best, best_v, gap
            if tolerance.reached(best.objective, bound) and len(alive) < len(self.patterns):
                alive, bound = np.arange(len(self.patterns)), -np.inf
                continue
            progress = gap < 0.9 * last_gap or best.objective < (1 - 1e-9) * last_objective
            since = 0 if progress else since + 1
            if since == _PATIENCE:
                return
            last_gap, last_objective = gap, best.objective

            alive, prices = self.screened(alive, prices, v, best.objective)
            stage, stage_gap = self.next_stage(stage, point, v, prices)
            last_stage = stage.problem.weight_decay == self.problem.weight_decay
            precision = _PRECISION * max(stage_gap, tolerance.relative(best.objective) if last_stage else _STAGE_GAP)
            working = stage.working_set(point, alive, prices)
            point = stage.improved(working, precision, out_of_time)
            point = stage.point(point.chosen, point.S, self.exact_outputs(point.chosen, point.S), point.intercept)

    def next_stage(self, stage: Self | None, point: Point, v: np.ndarray, prices: np.ndarray) -> tuple[Self, float]:
        """The problem to improve a point on, and the point's gap there.

        With little weight decay most steps from afar would end at once, where some neuron passes through zero. So the
        solver comes down from a weight decay for which the point is good, halving it where the gap is small.
        """
        target = self.problem.weight_decay
        if stage is None:
            stage = self.at(max(float(prices.max(initial=0)) / 2, target))
        while True:
            gap = relative_gap(stage.objective(point), stage.bound(v, prices))
            if gap > _STAGE_GAP or stage.problem.weight_decay == target:
                return stage, gap
            stage = self.at(max(stage.problem.weight_decay / 2, target))

    def at(self, weight_decay: float) -> Self:
        """The same with another weight decay."""
        other = copy(self)
        other.problem = replace(self.problem, weight_decay=weight_decay)
        return other

    def dual_point(self, point: Point) -> np.ndarray:
        """Dual point (n, C) in the domain of the conjugate."""
        return self.problem.feasible_dual(self.problem.dual_point(point.outputs))

    def prices(self, chosen: np.ndarray, v: np.ndarray) -> np.ndarray:
        """|Z^T D_i v| of the chosen patterns."""
        size = max(1, _PRICED_ENTRIES // (self.rows.shape[1] * v.shape[1]))
        blocks = [chosen[start : start + size] for start in range(0, len(chosen), size)]
        return np.concatenate([np.zeros(0), *(spectral_norms(self.products(block).adjoint(v)) for block in blocks)])

    def products(self, chosen: np.ndarray, *, hold: bool = False) -> Products:
        """Products with the masked design matrices of the chosen patterns."""
        return self._kind(self.problem.Z, self.rows, self.patterns.packed[chosen], hold=hold)

    def exact_outputs(self, chosen: np.ndarray, S: np.ndarray) -> np.ndarray:
        """F S in float64."""
        return self._kind(self.problem.Z, self._exact, self.patterns.packed[chosen]).forward(S)

    @property
    def _kind(self) -> type[MaskedProducts] | type[PooledProducts]:
        return MaskedProducts if self.problem.Z.n_patches == 1 else PooledProducts

    def overlaps(self, products: Products, w: np.ndarray) -> np.ndarray:
        """The matrix K of the model, with a little more on its diagonal."""
        if isinstance(products, PooledProducts):
            found = products.overlaps(w, self.columns)
        else:
            found = products.overlaps(w * self.leverage)
        found[np.diag_indices_from(found)] += np.sqrt(self.eps) * found.diagonal().max(initial=0)
        return found

    def least_curvature(self, second: np.ndarray) -> np.ndarray:
        """Weights w (n,) of the samples in the model, from second derivatives (n,): away from zero."""
        mean = float(self.p @ second)
        return self.p * np.maximum(second, _LEAST_CURVATURE * mean if mean > 0 else self.problem.loss.curvature)

    def bound(self, v: np.ndarray, prices: np.ndarray) -> float:
        """Lower bound from a dual point whose prices are known."""
        return dual_bound(self.problem, v, Price(float(prices.max(initial=0)), "patterns"))

    def screened(
        self, alive: np.ndarray, prices: np.ndarray, v: np.ndarray, objective: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Patterns that the optimum may use, and their prices.

        The dual objective falls from its maximum by at least sum_i |v_i - v*_i|^2 / (2 p_i curvature), which is no more
        than the gap of a feasible v, and Z^T D_i diag(p)^(1/2) has no larger norm than C^(1/2): in that sphere the
        price of a pattern rises by at most (2 curvature gap |C|)^(1/2). A pattern priced below weight_decay all over
        the sphere has zero weights.
        """
        weight_decay = self.problem.weight_decay
        rounding = 10 * self.eps * float(self.problem.Z.row_norms @ np.linalg.norm(self.problem.Z.unpool(v), axis=1))
        prices_above = prices + rounding
        scale = min(1.0, weight_decay / prices_above.max(initial=0))
        gap = objective - self.problem.dual_objective(scale * v)
        rise = np.sqrt(2 * self.problem.loss.curvature * max(gap, 0.0) * self.largest)
        kept = scale * prices_above + rise >= weight_decay
        return alive[kept], prices[kept]

    def working_set(self, point: Point, alive: np.ndarray, prices: np.ndarray) -> Point:
        """The patterns in use, and the dearest of the others."""
        used = point.used
        chosen, S = point.chosen[used], point.S[used]
        others = ~np.isin(alive, chosen) & (prices > self.problem.weight_decay)
        dearest = np.argsort(-np.where(others, prices, 0), kind="stable")
        dearest = dearest[: min(int(others.sum()), max(_ENTERING, len(chosen)))]
        chosen = np.concatenate([chosen, alive[dearest]])
        S = np.concatenate([S, np.zeros((len(dearest), *S.shape[1:]))])
        return self.point(chosen, S, point.f, point.intercept)


def matched(problem: Problem, patterns: Patterns, start: Neurons) -> tuple[np.ndarray, np.ndarray]:
    """Patterns of the gates of a network, by direction or else by mask, and the weights (a, k, C) on each."""
    gates = start.gates
    if gates is None:
        raise ValueError("start has no gates; solve_gated starts from gated neurons, such as those it returns.")
    if len(gates) != problem.Z.n_columns or start.output_weights.shape[1] != problem.n_outputs:
        raise ValueError(
            f"start has {len(gates)} weights a neuron and {start.output_weights.shape[1]} outputs; the problem has "
            f"{problem.Z.n_columns} columns and {problem.n_outputs} outputs."
        )
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
