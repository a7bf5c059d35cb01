"""The group lasso's norm: the length of the weights of a pattern, for one output."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np

from convexbn.model._neurons import Neurons
from convexbn.solvers.gated._levels import levels
from convexbn.solvers.gated._loss_model import LossModel
from convexbn.solvers.gated._products import Products

_LARGEST_BEND = 1e6  # curvature of the norm of a tiny neuron in the preconditioner, as a multiple of that of the loss
_SECULAR_STEPS, _SECULAR_TOLERANCE = 50, 1e-10


class EuclideanNorm:
    """Weight decay times the lengths of weights that are not zero: smooth as it is, so its coordinates are weights.

    Parameters
    ----------
    S : ndarray of shape (a, k, 1)
        Weights.
    G : ndarray of shape (a, k, 1)
        Minus the gradient of the loss in them.
    weight_decay : float
    """

    def __init__(self, S: np.ndarray, G: np.ndarray, weight_decay: float):
        self.S, lengths = S[:, :, 0], self.of(S)[:, None]
        self.U, self.bend = self.S / lengths, weight_decay / lengths
        self.gradient = weight_decay * self.U
        self.descent = G[:, :, 0] - self.gradient

    @staticmethod
    def of(S: np.ndarray) -> np.ndarray:
        """Lengths (a,) of weights (a, k, 1)."""
        return np.sqrt(np.einsum("jkc,jkc->j", S, S))

    @staticmethod
    def step(x: np.ndarray, g: np.ndarray, c: np.ndarray, weight_decay: float) -> np.ndarray:
        """Minimise ``(s - x)·c (s - x) / 2 - g·(s - x) + weight_decay |s|`` over s (k,), where c is at most one.

        By the secular equation in r = |s|, with Newton's method from below.
        """
        q = c * x + g
        size = sqrt(q.dot(q))
        if size <= weight_decay:
            return np.zeros_like(x)
        r = size - weight_decay  # the root if c is one
        for _ in range(_SECULAR_STEPS):
            shifted = c * r + weight_decay
            unit = q / shifted
            length = sqrt(unit.dot(unit))
            if length <= 1 + _SECULAR_TOLERANCE:
                break
            r += (1 - 1 / length) * length**3 / float((unit**2).dot(c / shifted))
        return r * unit

    @staticmethod
    def neurons(S: np.ndarray, intercept: np.ndarray, gates: np.ndarray) -> Neurons:
        """Weights S (a, k, 1) on gates (k, a) as neurons with output weight one."""
        return Neurons(S[:, :, 0].T, np.ones((len(S), 1)), np.array(intercept), gates)

    def derivative(self, products: Products) -> tuple[Callable[[np.ndarray], Any], Callable[[Any], np.ndarray]]:
        """The derivative (a, k) to (n, 1) of the outputs, and its adjoint."""
        return lambda D: products.forward(D[:, :, None]), lambda v: products.adjoint(v)[:, :, 0]

    def gram(self, loss: LossModel, features: Any) -> np.ndarray:
        """Hessian of the loss (a k, a k), of the masked design matrices (n, a k)."""
        return loss.gram(_jacobian, features)

    def curvatures(self) -> np.ndarray:
        """Hessians of the norms, (a, k, k)."""
        return self.bend[:, :, None] * (np.eye(self.U.shape[1]) - self.U[:, :, None] * self.U[:, None, :])

    def curvature(self, D: np.ndarray) -> np.ndarray:
        """Hessian of the norms times a direction."""
        return self.bend * (D - self.U * np.einsum("jk,jk->j", self.U, D)[:, None])

    def moved(self, D: np.ndarray, t: float) -> np.ndarray:
        """Weights after a step; those that would pass through zero stop there."""
        S = self.S + t * D
        S[self.through_zero(t * D)] = 0
        return S[:, :, None]

    def through_zero(self, D: np.ndarray) -> np.ndarray:
        """Whether weights reach zero in a step, or pass it: booleans (a,)."""
        return np.einsum("jk,jk->j", self.U, self.S + D) <= 0

    def preconditioner(self, K: np.ndarray, c: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Inverse of K (x) diag(c) + the Hessian diag(bend_j (I - u_j u_j^T)) of the norms.

        Columns of similar c are taken for equal, each group needs one inverse; the radial directions u_j are put in by
        Woodbury's formula, in which U^T (A (x) I) U is the entrywise product of A and U U^T.
        """
        U, identity = self.U, np.eye(len(K))
        root = np.sqrt(np.minimum(self.bend[:, 0], _LARGEST_BEND * K.diagonal() * c.max()))[:, None]
        pairs = root * root.T
        inverses = [(group, np.linalg.inv(K / pairs * mean + identity)) for group, mean in levels(c)]
        radial_inverse = np.linalg.inv(
            sum((identity - inverse) * (U[:, group] @ U[:, group].T) for group, inverse in inverses)
        )
        radial, inverses = root * U, [(group, inverse / pairs) for group, inverse in inverses]

        def flat(X: np.ndarray) -> np.ndarray:
            found = np.empty_like(X)
            for group, inverse in inverses:
                found[:, group] = inverse @ X[:, group]
            return found

        def inverse_of(R: np.ndarray) -> np.ndarray:
            X = flat(R)
            along = radial_inverse @ np.einsum("jk,jk->j", radial, X)
            return X + flat(radial * along[:, None])

        return inverse_of


def _jacobian(Z: Any, features: Any) -> Any:
    return features[:, None, :]
