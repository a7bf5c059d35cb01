r"""The norm of several outputs: the weights S_i (k, C) of a pattern cost no less than their nuclear norm.

Their singular triplets are the neurons that cost it. With the ranks known, ``S_i = sum_j a_j b_j^T`` over the neurons j
of pattern i, and

    ``minimise  loss(f) + weight_decay / 2 * sum_j (|a_j|^2 + |b_j|^2)``,  ``f = sum_j D_j Z a_j b_j^T``

is smooth and has the same optimum; its Newton system costs no more than the neurons do.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from convexbn.model._neurons import Neurons
from convexbn.operators._factored import crossed
from convexbn.solvers.gated._levels import levels
from convexbn.solvers.gated._loss_model import LossModel
from convexbn.solvers.gated._products import Products

_RANK_TOLERANCE = 1e-13  # singular values below this fraction of the largest are rounding


class NuclearNorm:
    """Weight decay times the nuclear norms of weights that are not zero, in the coordinates (a_j, b_j), (R, k + C).

    Parameters
    ----------
    S : ndarray of shape (a, k, C)
        Weights.
    G : ndarray of shape (a, k, C)
        Minus the gradient of the loss in them.
    weight_decay : float
    """

    def __init__(self, S: np.ndarray, G: np.ndarray, weight_decay: float):
        self.S, self.weight_decay = S, weight_decay
        self.owners, self.A, self.B = factors(S)
        self.G = G[self.owners]
        self.gradient = weight_decay * np.hstack([self.A, self.B])
        self.descent = crossed(self.G, self.A, self.B) - self.gradient

    @staticmethod
    def of(S: np.ndarray) -> np.ndarray:
        """Nuclear norms (a,) of weights (a, k, C)."""
        return np.linalg.svd(S, compute_uv=False).sum(axis=1)

    @staticmethod
    def step(x: np.ndarray, g: np.ndarray, c: np.ndarray, weight_decay: float) -> np.ndarray:
        """Minimise ``|s - x|^2 / 2 - <g, s - x> + weight_decay |s|_*`` over s (k, C), flat: soft singular values.

        The curvature is one, the most of c (k,).
        """
        U, s, Vt = np.linalg.svd((x + g).reshape(len(c), -1), full_matrices=False)
        return ((U * np.maximum(s - weight_decay, 0)) @ Vt).ravel()

    @staticmethod
    def neurons(S: np.ndarray, intercept: np.ndarray, gates: np.ndarray) -> Neurons:
        """The singular triplets of weights S (a, k, C) on gates (k, a) as neurons with output weights of length one."""
        owners, A, B = factors(S)
        lengths = np.linalg.norm(B, axis=1)
        return Neurons((A * lengths[:, None]).T, B / lengths[:, None], np.array(intercept), gates[:, owners])

    def derivative(self, products: Products) -> tuple[Callable[[np.ndarray], Any], Callable[[Any], np.ndarray]]:
        """The derivative (R, k + C) to (n, C) of the outputs, and its adjoint."""
        factored = products.factored(self.owners, self.A, self.B)
        return factored.forward, factored.adjoint

    def gram(self, loss: LossModel, features: Any) -> np.ndarray:
        """Hessian of the loss in the factors, (p, p) with p = R (k + C), of the masked design matrices (n, a k).

        It is that of outputs that are linear; the rest is in `curvatures`.
        """
        small = {"A": self.A, "B": self.B, "identity": np.eye(self.B.shape[1])}
        cast = {name: loss.Z.cast(value) for name, value in small.items()}
        return loss.gram(_jacobian, features, owners=self.owners, **cast)

    def curvatures(self) -> np.ndarray:
        """The Hessian of `curvature` as blocks of neurons, (R, k + C, k + C)."""
        k, m = self.A.shape[1], self.gradient.shape[1]
        found = np.tile(self.weight_decay * np.eye(m), (len(self.A), 1, 1))
        found[:, :k, k:] -= self.G
        found[:, k:, :k] -= self.G.transpose(0, 2, 1)
        return found

    def curvature(self, D: np.ndarray) -> np.ndarray:
        """Hessian of the squared lengths, and what the loss adds since outputs are not linear in the factors."""
        k = self.A.shape[1]
        return self.weight_decay * D - crossed(self.G, D[:, :k], D[:, k:])

    def moved(self, D: np.ndarray, t: float) -> np.ndarray:
        """Weights after a step."""
        k = self.A.shape[1]
        outer = (self.A + t * D[:, :k])[:, :, None] * (self.B + t * D[:, k:])[:, None, :]
        found = np.zeros_like(self.S)
        np.add.at(found, self.owners, outer)
        return found

    def through_zero(self, D: np.ndarray) -> np.ndarray:
        """Booleans (R,) that are all false: the factors of a neuron are smooth at zero."""
        return np.zeros(len(D), dtype=bool)

    def preconditioner(self, K: np.ndarray, c: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Inverse of the diagonal blocks (K * B B^T) (x) diag(c) and (K * A diag(c) A^T) (x) I, plus weight_decay.

        Columns of similar c are taken for equal, so that each group of them needs one factorization.
        """
        A, B, k = self.A, self.B, self.A.shape[1]
        K, identity = K[np.ix_(self.owners, self.owners)], self.weight_decay * np.eye(len(A))
        hidden, output = K * (B @ B.T), cho_factor(K * ((A * c) @ A.T) + identity)
        inner = [(group, cho_factor(hidden * mean + identity)) for group, mean in levels(c)]

        def inverse_of(R: np.ndarray) -> np.ndarray:
            found = np.empty_like(R)
            for group, factor in inner:
                found[:, group] = cho_solve(factor, R[:, group])
            found[:, k:] = cho_solve(output, R[:, k:])
            return found

        return inverse_of


def _jacobian(Z: Any, features: Any, *, owners: Any, A: Any, B: Any, identity: Any) -> Any:
    xp, (R, k), n = Z.xp, A.shape, features.shape[0]
    of_owners = xp.take(xp.reshape(features, (n, -1, k)), owners, axis=1)
    hidden = xp.vecdot(of_owners, A)
    in_a = of_owners[:, None, :, :] * B.T[:, :, None]
    in_b = hidden[:, None, :, None] * identity[:, None, :]
    return xp.reshape(xp.concat([in_a, in_b], axis=3), (n, B.shape[1], R * (k + B.shape[1])))


def factors(S: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Singular triplets of matrices (a, k, C): whose they are (R,), and their factors (R, k) and (R, C)."""
    U, s, Vt = np.linalg.svd(S, full_matrices=False)
    owners, which = np.nonzero(s > _RANK_TOLERANCE * s.max(initial=0))
    roots = np.sqrt(s[owners, which])[:, None]
    return owners, roots * U[owners, :, which], roots * Vt[owners, which]
