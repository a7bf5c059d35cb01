"""A proximal step and a Newton step on the weights of given patterns, and the line search of both."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any

import numpy as np

from convexbn.model._problem import Problem
from convexbn.solvers.gated._conjugate_gradients import conjugate_gradients
from convexbn.solvers.gated._euclidean_norm import EuclideanNorm
from convexbn.solvers.gated._nuclear_norm import NuclearNorm
from convexbn.solvers.gated._products import Products

_SWEEPS = 2  # of block coordinate descent on the model of a proximal step
_SWEEP_TOLERANCE = 0.05  # change in a sweep, as a fraction of weight_decay, at which the descent ends
_HALVINGS = 30  # of a step before it is rejected
_ARMIJO, _ROUNDING = 1e-4, 1e-15
_LEAST_CURVATURE = 1e-3  # of a sample, as a fraction of the mean: of rows on flat parts of a loss

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


class LossModel:
    """The quadratic model of the loss at a point, least in the intercept.

    Attributes
    ----------
    v : ndarray of shape (n, C)
        Minus its gradient in f.
    w : ndarray of shape (n,)
        Largest curvature of each sample.
    """

    def __init__(self, problem: Problem, point: Point):
        self.Z, outputs, p = problem.Z, point.f + point.intercept, problem.sample_weight
        self.raw_v, second = problem.dual_point(outputs), problem.loss.hessian(outputs, problem.y)
        largest = np.einsum("icc->ic", second).max(axis=1)
        mean = float(p @ largest)
        least = _LEAST_CURVATURE * mean if mean > 0 else problem.loss.curvature
        if largest.min() < least:
            second = second + np.maximum(least - largest, 0)[:, None, None] * np.eye(second.shape[1])
            largest = np.maximum(largest, least)
        self.w, self.hessian = p * largest, p[:, None, None] * second
        self.fit_intercept, self.v = problem.fit_intercept, self.raw_v
        if self.fit_intercept:
            self._inverse = np.linalg.pinv(self.hessian.sum(axis=0))
            self._best_shift = self._inverse @ self.raw_v.sum(axis=0)
            self.v = self.raw_v - self.hessian @ self._best_shift

    @cached_property
    def _placed(self) -> Any:
        return self.Z.place(self.hessian)

    def curved(self, change: Any) -> Any:
        """Hessian times a change of outputs (n, C), with the intercept that goes with it; both where the rows are."""
        product = self.Z.hold(_product, self._placed, change)
        if not self.fit_intercept:
            return product
        shift = self._inverse @ self.Z.summed(_total, product)
        return self.Z.hold(_shifted, product, self._placed, shift=shift)

    def shift(self, change: np.ndarray) -> np.ndarray:
        """Change of the intercept (C,) that goes with a change of outputs (n, C)."""
        if not self.fit_intercept:
            return np.zeros(change.shape[1])
        return self._best_shift - self._inverse @ np.einsum("icd,id->c", self.hessian, change)

    def slope(self, change: np.ndarray, shift: np.ndarray) -> float:
        """First-order increase of the loss."""
        return -float((self.raw_v * (change + shift)).sum())


def _product(Z: Any, hessian: Any, change: Any) -> Any:
    return Z.xp.vecdot(hessian, change[:, None, :])


def _total(Z: Any, product: Any) -> Any:
    return Z.xp.sum(product, axis=0)


def _shifted(Z: Any, product: Any, hessian: Any, *, shift: Any) -> Any:
    return product - Z.xp.vecdot(hessian, shift)


@dataclass(frozen=True, eq=False)
class Steps:
    """Steps on the patterns of a point.

    The loss is modelled with Hessian K (x) diag(columns), K the overlaps of the patterns. Its Hessian proper is taken
    in single precision, since Newton systems need not be solved exactly.
    """

    problem: Problem
    norm: Norm
    columns: np.ndarray
    products: Products
    single: Products

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
        forward, adjoint = smooth.derivative(single)
        D = conjugate_gradients(
            lambda D: adjoint(model.curved(forward(D))) + smooth.curvature(D),
            smooth.preconditioner(K[np.ix_(used, used)], self.columns),
            smooth.descent,
        )
        change = fetch(forward(D))
        shift = model.shift(change)

        def trial(t: float) -> Point:
            S = point.S.copy()
            S[used] = smooth.moved(D, t)
            f = point.f + fetch(products.forward(S[used] - point.S[used]))
            return self._point(point, S, f, point.intercept + t * shift)

        return self.searched(point, trial, float((smooth.gradient * D).sum()) + model.slope(change, shift))

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
