"""A proximal step and a Newton step on the weights of given patterns, and the line search of both."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import numpy as np

from convexbn.model._problem import Problem
from convexbn.solvers.gated._euclidean_norm import EuclideanNorm
from convexbn.solvers.gated._loss_model import LossModel
from convexbn.solvers.gated._newton_system import newton_directions
from convexbn.solvers.gated._nuclear_norm import NuclearNorm
from convexbn.solvers.gated._products import Products

_SWEEPS = 2  # of block coordinate descent on the model of a proximal step
_SWEEP_TOLERANCE = 0.05  # change in a sweep, as a fraction of weight_decay, at which the descent ends
_HALVINGS = 30  # of a step before it is rejected
_ARMIJO, _ROUNDING = 1e-4, 1e-15
_ENDING = 0.1  # of the slope of a step that ends weights at zero is the least that it gains

Norm = type[EuclideanNorm] | type[NuclearNorm]


@dataclass(frozen=True, eq=False)
class Point:
    """Weights S (a, k, C) of the chosen patterns (a,), outputs f (n, C) without intercept, the intercept (C,).

    With the loss, and the norms added up.
    """

    chosen: np.ndarray
    S: np.ndarray
    f: np.ndarray
    intercept: np.ndarray
    loss: float
    cost: float

    @classmethod
    def of(
        cls, problem: Problem, norm: Norm, chosen: np.ndarray, S: np.ndarray, f: np.ndarray, intercept: np.ndarray
    ) -> "Point":
        """The point of these weights and outputs."""
        return cls(chosen, S, f, intercept, problem.training_loss(f + intercept), float(norm.of(S).sum()))

    @cached_property
    def used(self) -> np.ndarray:
        """Indices of the chosen patterns with weights that are not zero."""
        return np.flatnonzero(self.S.any(axis=(1, 2)))


@dataclass(frozen=True, eq=False)
class Steps:
    """Steps on the patterns of a point.

    The loss is modelled with Hessian K (x) diag(columns), K the overlaps of the patterns. Its Hessian proper is taken
    in single precision, since Newton systems need not be solved exactly, and only until `stop` returns True.
    """

    problem: Problem
    norm: Norm
    columns: np.ndarray
    products: Products
    single: Products
    stop: Callable[[], bool]

    def proximal(self, point: Point, model: LossModel, G: np.ndarray, K: np.ndarray) -> Point:
        """A step towards the minimiser of the model with the norm, which sets the ranks of the weights."""
        D = model_minimiser(self.norm, K, self.columns, point.S, G, self.problem.weight_decay) - point.S
        change = self.problem.Z.fetch(self.products.forward(D))
        shift = model.shift(change)
        slope = self.problem.weight_decay * (float(self.norm.of(point.S + D).sum()) - point.cost)

        def trial(t: float) -> Point:
            return self._point(point, point.S + t * D, point.f + t * change, point.intercept + t * shift)

        return self.searched(point, trial, slope + model.slope(change, shift))

    def newton(self, point: Point, model: LossModel, G: np.ndarray, K: np.ndarray) -> Point:
        """A Newton step in the weights that are not zero, which keeps their ranks or lowers them."""
        used, fetch = point.used, self.problem.Z.fetch
        if len(used) == 0:
            return point
        smooth, products = self.norm(point.S[used], G[used], self.problem.weight_decay), self.products.take(used)
        single = products if self.single is self.products else self.single.take(used)
        overlaps, forward = K[np.ix_(used, used)], smooth.derivative(single)[0]

        def line(D: np.ndarray) -> tuple[Callable[[float], Point], float]:
            change = fetch(forward(D))
            shift = model.shift(change)

            def trial(t: float) -> Point:
                S = point.S.copy()
                S[used] = smooth.moved(D, t)
                f = point.f + fetch(products.forward(S[used] - point.S[used]))
                return self._point(point, S, f, point.intercept + t * shift)

            return trial, float((smooth.gradient * D).sum()) + model.slope(change, shift)

        *ending, newton = newton_directions(smooth, model, products, single, overlaps, self.columns, self.stop)
        for D in ending:
            trial, slope = line(D)
            whole = trial(1.0)
            if self._objective(whole) <= self._objective(point) + _ENDING * min(slope, 0.0):
                return whole
        return self.searched(point, *line(newton))

    def searched(self, point: Point, trial: Callable[[float], Point], slope: float) -> Point:
        """Halve a step until the objective falls as it should (Armijo), or stay."""
        start = self._objective(point)
        for t in 0.5 ** np.arange(_HALVINGS):
            moved = trial(t)
            if self._objective(moved) <= start + _ARMIJO * t * slope + _ROUNDING * abs(start):
                return moved
        return point

    def _objective(self, point: Point) -> float:
        return point.loss + self.problem.weight_decay * point.cost

    def _point(self, point: Point, S: np.ndarray, f: np.ndarray, intercept: np.ndarray) -> Point:
        return Point.of(self.problem, self.norm, point.chosen, S, f, intercept)


def model_minimiser(
    norm: Norm, K: np.ndarray, c: np.ndarray, S: np.ndarray, G: np.ndarray, weight_decay: float
) -> np.ndarray:
    """Block coordinate descent on -<G, X - S> + <X - S, K diag(c) (X - S)> / 2 + weight_decay * sum_j norm(X_j)."""
    a, k, C = S.shape
    X, G, change = S.reshape(a, k * C).copy(), G.reshape(a, k * C), np.zeros((a, k * C))  # change is of X diag(c)
    of_entries, curvatures = np.repeat(c, C), (K.diagonal() * c.max()).tolist()
    relative, blocks, everything = c / c.max(), list(zip(K.astype(float), X, G, change, strict=True)), True
    for _ in range(_SWEEPS):
        used, largest = np.asarray(X.any(axis=1)), 0.0
        for j in range(a) if everything else np.flatnonzero(used):
            (overlaps, x, given, moved), curvature = blocks[j], curvatures[j]
            g = given - overlaps.dot(change)  # `@` takes twice as long for arrays as small
            if not used[j] and g.dot(g) <= weight_decay**2:
                continue
            D = norm.step(x, g / curvature, relative, weight_decay / curvature) - x
            x += D
            moved += of_entries * D
            largest = max(largest, curvature * sqrt(D.dot(D)))
        settled = largest <= _SWEEP_TOLERANCE * weight_decay
        if settled and everything:
            break
        everything = settled
    return X.reshape(S.shape)
