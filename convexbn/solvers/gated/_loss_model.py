"""The quadratic model of the loss of a gated network."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from convexbn.model._problem import Problem

_LEAST_CURVATURE = 1e-3  # of a sample, as a fraction of the mean: of rows on flat parts of a loss


class LossModel:
    """The quadratic model of the loss at outputs (n, C), least in the intercept.

    Attributes
    ----------
    v : ndarray of shape (n, C)
        Minus its gradient in f.
    w : ndarray of shape (n,)
        Largest curvature of each sample.
    """

    def __init__(self, problem: Problem, outputs: np.ndarray):
        self.Z, p = problem.Z, problem.sample_weight
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

    def gram(self, jacobian: Callable[..., Any], features: Any, **small: Any) -> np.ndarray:
        """Hessian (p, p) in weights of which outputs have the derivative J (n, C, p), least in the intercept.

        J is `jacobian`, a function of blocks, of features and small arrays.
        """
        H, total = self.Z.summed(_gram, features, self._placed, jacobian=jacobian, **small)
        return H - total.T @ self._inverse @ total if self.fit_intercept else H

    def shift(self, change: np.ndarray) -> np.ndarray:
        """Change of the intercept (C,) that goes with a change of outputs (n, C)."""
        if not self.fit_intercept:
            return np.zeros(change.shape[1])
        return self._best_shift - self._inverse @ np.einsum("icd,id->c", self.hessian, change)

    def slope(self, change: np.ndarray, shift: np.ndarray) -> float:
        """First-order increase of the loss."""
        return -float((self.raw_v * (change + shift)).sum())


def _gram(Z: Any, features: Any, hessian: Any, *, jacobian: Callable[..., Any], **small: Any) -> tuple[Any, Any]:
    J = jacobian(Z, Z.cast(features), **small)
    curved, p = Z.cast(hessian) @ J, J.shape[2]
    return Z.xp.reshape(J, (-1, p)).T @ Z.xp.reshape(curved, (-1, p)), Z.xp.sum(curved, axis=0)


def _product(Z: Any, hessian: Any, change: Any) -> Any:
    return Z.xp.vecdot(hessian, change[:, None, :])


def _total(Z: Any, product: Any) -> Any:
    return Z.xp.sum(product, axis=0)


def _shifted(Z: Any, product: Any, hessian: Any, *, shift: Any) -> Any:
    return product - Z.xp.vecdot(hessian, shift)
