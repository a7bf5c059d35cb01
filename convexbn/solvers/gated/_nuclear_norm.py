r"""Gated ReLU networks with several outputs: nuclear norms over activation patterns, by Newton steps on factors.

The weights of pattern i are a matrix S_i (k, C), and the least cost of neurons that add up to it is its nuclear norm,
whose singular triplets are these neurons. A proximal step on the model of the loss of `solve_gated`, with a
number for the curvature of a sample, soft-thresholds singular values and so finds the ranks. With the ranks known,
``S_i = sum_j a_j b_j^T`` over the neurons j of pattern i, and

    ``minimise  loss(f) + weight_decay / 2 * sum_j (|a_j|^2 + |b_j|^2)``,  ``f = sum_j D_j Z a_j b_j^T``

is smooth and has the same optimum. Its Newton system costs no more than the neurons do: conjugate gradients solve it,
with the curvature of the loss in the directions of the a_j and of the b_j taken for Kronecker products, again
as in `convexbn.solvers.gated._driver`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from math import sqrt
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.operators._pooled import PooledProducts
from convexbn.operators._protocol import Operator
from convexbn.oracles import spectral_norms
from convexbn.patterns._patterns import Patterns
from convexbn.solvers._certificate import relative_gap
from convexbn.solvers.gated._conjugate_gradients import conjugate_gradients
from convexbn.solvers.gated._working_set import Point, Products, WorkingSets, matched

_STEPS = 5  # proximal steps a round, each with Newton steps after it
_NEWTON_STEPS = 2
_SWEEPS = 5  # of block coordinate descent on the model of a proximal step
_SWEEP_TOLERANCE = 0.05  # change in a sweep, as a fraction of weight_decay, at which the descent ends
_HALVINGS = 30  # of a step before it is given up
_RANK_TOLERANCE = 1e-13  # singular values below this fraction of the largest are rounding
_BLOCK_ENTRIES = 2**18  # hidden outputs of neurons made at once
_HELD_ENTRIES = 2**25  # up to this many are kept between products


def singular_neurons(S: np.ndarray, intercept: np.ndarray, gates: np.ndarray) -> Neurons:
    """The singular triplets of weights S (a, k, C) on gates (k, a) as neurons: none cost less."""
    owners, A, B = _factors(S)
    lengths = np.linalg.norm(B, axis=1)
    return Neurons((A * lengths[:, None]).T, B / lengths[:, None], np.array(intercept), gates[:, owners])


class NuclearNorm(WorkingSets):
    """Several outputs: the weights of a pattern are a matrix, and what it costs is its nuclear norm."""

    def __init__(self, problem: Problem, patterns: Patterns, dtype: np.dtype):
        super().__init__(problem, patterns, dtype)
        self.single = self.rows.astype(np.float32, copy=False)  # for the Hessian, which need not be exact

    def first(self, start: Neurons | None) -> Point:
        """Where the solver starts."""
        n, k, C = self.problem.Z.n_samples, self.problem.Z.n_columns, self.problem.n_outputs
        if start is None:
            intercept = self.problem.zero_network.intercept
            return self.point(np.zeros(0, dtype=int), np.zeros((0, k, C)), np.zeros((n, C)), intercept)
        chosen, S = matched(self.problem, self.patterns, start)
        S = self.basis.T @ S
        intercept = start.intercept if self.problem.fit_intercept else np.zeros(C)
        return self.point(chosen, S, self.exact_outputs(chosen, S), intercept)

    def neurons(self, point: Point) -> Neurons:
        """The gated neurons of a point, in the order of the patterns."""
        order = np.argsort(point.chosen)
        gates = self.patterns.directions[:, point.chosen[order]]
        return singular_neurons(self.basis @ point.S[order], point.intercept, gates)

    def point(self, chosen: np.ndarray, S: np.ndarray, f: np.ndarray, intercept: Any) -> Point:
        """A point with its objective; steps choose the intercept."""
        point = Point(chosen, S, f, intercept, np.inf)
        return replace(point, objective=self.objective(point))

    def cost(self, S: np.ndarray) -> float:
        """Nuclear norms, added up."""
        return float(np.linalg.svd(S, compute_uv=False).sum())

    def improved(self, point: Point, precision: float, out_of_time: Callable[[], bool]) -> Point:
        """Proximal and Newton steps on the patterns of a point, until the gap over these is small enough."""
        products = self.products(point.chosen, hold=True)
        for _ in range(_STEPS):
            v = self.dual_point(point)
            bound = self.bound(v, spectral_norms(products.adjoint(v)))
            if relative_gap(point.objective, bound) <= precision or out_of_time():
                break
            model = _LossModel(self, point)
            overlaps = self.overlaps(products, model.w)
            point = self.proximal_step(point, model, products, overlaps)
            for _ in range(_NEWTON_STEPS):
                if not out_of_time():
                    point = self.newton_step(point, products, overlaps)
        return point

    def proximal_step(self, point: Point, model: "_LossModel", products: Products, overlaps: np.ndarray) -> Point:
        """A step towards the minimiser of the model with Hessian K (x) C (x) I, which finds out the ranks."""
        weight_decay = self.problem.weight_decay
        G = products.adjoint(model.v)
        D = _model_minimiser(overlaps, self.columns, point.S, G, weight_decay) - point.S
        change = products.forward(D)
        shift = model.shift(change)
        slope = weight_decay * (self.cost(point.S + D) - self.cost(point.S)) - model.descent(change, shift)

        def trial(t: float) -> tuple[float, Callable[[], Point]]:
            moved = self.point(point.chosen, point.S + t * D, point.f + t * change, point.intercept + t * shift)
            return moved.objective, lambda: moved

        return _searched(point, trial, point.objective, slope)

    def newton_step(self, point: Point, products: Products, overlaps: np.ndarray) -> Point:
        """A Newton step in the factors (a_j, b_j) of the weights that are not zero."""
        owners, A, B = _factors(point.S)
        if len(owners) == 0:
            return point
        used, firsts, of_used = np.unique(owners, return_index=True, return_inverse=True)
        k, weight_decay = A.shape[1], self.problem.weight_decay
        model, products = _LossModel(self, point), products.take(used)
        G = products.adjoint(model.v)[of_used]
        X = np.hstack([A, B])
        crossed = partial(_crossed, G)
        rhs = crossed(X) - weight_decay * X

        def outer(A: np.ndarray, B: np.ndarray) -> np.ndarray:
            return np.add.reduceat(A[:, :, None] * B[:, None, :], firsts)

        def first_order(D: np.ndarray) -> np.ndarray:
            return outer(D[:, :k], B) + outer(A, D[:, k:])

        if isinstance(products, PooledProducts):

            def loss_hessian(D: np.ndarray) -> np.ndarray:
                G = products.adjoint(model.curved(products.forward(first_order(D))))
                return _crossed(G[of_used], X)
        else:
            hidden = _Hidden(self.problem.Z, self.single, products.packed[of_used], A, B)

            def loss_hessian(D: np.ndarray) -> np.ndarray:
                return hidden.adjoint(model.curved(hidden.forward(D)))

        def hessian(D: np.ndarray) -> np.ndarray:
            return loss_hessian(D) + weight_decay * D - crossed(D)

        K = overlaps[np.ix_(owners, owners)]
        D = conjugate_gradients(hessian, _model_inverse(K, self.columns, A, B, weight_decay), rhs)

        first, second = first_order(D), outer(D[:, :k], D[:, k:])
        change, bend = products.forward(first), products.forward(second)
        shift = model.shift(change)
        slope = weight_decay * float((X * D).sum()) - model.descent(change, shift)
        value = self.problem.training_loss(point.outputs) + weight_decay * float((X**2).sum()) / 2

        def trial(t: float) -> tuple[float, Callable[[], Point]]:
            f, intercept, moved = point.f + t * change + t**2 * bend, point.intercept + t * shift, X + t * D
            S = point.S.copy()
            S[used] += t * first + t**2 * second
            found = self.problem.training_loss(f + intercept) + weight_decay * float((moved**2).sum()) / 2
            return found, partial(self.point, point.chosen, S, f, intercept)

        return _searched(point, trial, value, slope)


def _searched(
    point: Point, trial: Callable[[float], tuple[float, Callable[[], Point]]], value: float, slope: float
) -> Point:
    """Halve a step until its value falls as it should (Armijo), or stay."""
    for t in 0.5 ** np.arange(_HALVINGS):
        found, moved = trial(t)
        if found <= value + 1e-4 * t * slope + 1e-15 * abs(value):
            return moved()
    return point


class _LossModel:
    """The quadratic model of the loss at a point, least in the intercept."""

    def __init__(self, program: NuclearNorm, point: Point):
        problem = program.problem
        self.raw_v = problem.dual_point(point.outputs)
        hessian = problem.loss.hessian(point.outputs, problem.y)
        self.w = program.least_curvature(np.einsum("icc->ic", hessian).max(axis=1))
        self.hessian = problem.sample_weight[:, None, None] * hessian
        C = problem.n_outputs
        self.inverse = np.linalg.pinv(self.hessian.sum(axis=0)) if problem.fit_intercept else np.zeros((C, C))
        self.best_shift = self.inverse @ self.raw_v.sum(axis=0)
        self.v = self.raw_v - self.hessian @ self.best_shift

    def _product(self, change: np.ndarray) -> np.ndarray:
        return np.einsum("icd,id->ic", self.hessian, change)

    def curved(self, change: np.ndarray) -> np.ndarray:
        """Hessian times a change of outputs (n, C), with the intercept that goes with it."""
        product = self._product(change)
        return product - self.hessian @ (self.inverse @ product.sum(axis=0))

    def shift(self, change: np.ndarray) -> np.ndarray:
        """Change of the intercept (C,) that goes with a change of outputs (n, C)."""
        return self.best_shift - self.inverse @ self._product(change).sum(axis=0)

    def descent(self, change: np.ndarray, shift: np.ndarray) -> float:
        """First-order decrease of the loss."""
        return float((self.raw_v * (change + shift)).sum())


class _Hidden:
    """The derivative of f = sum_j D_j Z a_j b_j^T in the factors (R, k + C), and its adjoint."""

    def __init__(self, Z: Operator, rows: np.ndarray, packed: np.ndarray, A: np.ndarray, B: np.ndarray):
        self.Z, self.rows, self.packed = Z, rows, packed
        self.A, self.B = A.astype(rows.dtype), B.astype(rows.dtype)
        self._held = list(self._made()) if len(packed) * len(rows) <= _HELD_ENTRIES else None

    def forward(self, D: np.ndarray) -> np.ndarray:
        """Change of f (n, C) in a direction."""
        k = self.A.shape[1]
        D = D.astype(self.rows.dtype)
        parts = [(masks * (D[:, :k] @ rows.T)).T @ self.B + H.T @ D[:, k:] for rows, _, masks, H in self]
        return self.Z.pool(np.concatenate(parts)).astype(np.float64)

    def adjoint(self, v: np.ndarray) -> np.ndarray:
        """The adjoint of `forward`: (n, C) to (R, k + C)."""
        k = self.A.shape[1]
        unpooled = self.Z.unpool(v).astype(self.rows.dtype)
        found = np.zeros((len(self.A), k + v.shape[1]))
        for rows, block, masks, H in self:
            found[:, :k] += (masks * (self.B @ unpooled[block].T)) @ rows
            found[:, k:] += H @ unpooled[block]
        return found

    def __iter__(self) -> Iterator[tuple[np.ndarray, slice, np.ndarray, np.ndarray]]:
        return iter(self._held) if self._held is not None else self._made()

    def _made(self) -> Iterator[tuple[np.ndarray, slice, np.ndarray, np.ndarray]]:
        """Blocks of the rows of Z: the rows, where they are, the masks and the hidden outputs (R, rows)."""
        n_bytes = max(1, _BLOCK_ENTRIES // (8 * max(1, len(self.A))))
        for start in range(0, self.packed.shape[1], n_bytes):
            block = slice(8 * start, min(8 * (start + n_bytes), len(self.rows)))
            rows = self.rows[block]
            masks = np.unpackbits(self.packed[:, start : start + n_bytes], axis=1, count=len(rows)).view(bool)
            yield rows, block, masks, masks * (self.A @ rows.T)


def _factors(S: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Singular triplets of matrices (a, k, C): whose they are (R,), and their factors (R, k) and (R, C)."""
    U, s, Vt = np.linalg.svd(S, full_matrices=False)
    owners, which = np.nonzero(s > _RANK_TOLERANCE * s.max(initial=0))
    roots = np.sqrt(s[owners, which])[:, None]
    return owners, roots * U[owners, :, which], roots * Vt[owners, which]


def _crossed(G: np.ndarray, X: np.ndarray) -> np.ndarray:
    """The factors (R, k + C) with G_j b_j in the place of a_j and G_j^T a_j in the place of b_j."""
    k = G.shape[1]
    return np.hstack([np.einsum("jkc,jc->jk", G, X[:, k:]), np.einsum("jkc,jk->jc", G, X[:, :k])])


def _soft_thresholded(S: np.ndarray, threshold: float) -> np.ndarray:
    """The proximal map of the nuclear norm."""
    U, s, Vt = np.linalg.svd(S, full_matrices=False)
    return (U * np.maximum(s - threshold, 0)) @ Vt


def _model_minimiser(K: np.ndarray, c: np.ndarray, S: np.ndarray, G: np.ndarray, weight_decay: float) -> np.ndarray:
    """Block coordinate descent on -<G, X - S> + <X - S, K diag(c) (X - S)> / 2 + weight_decay * sum_j |X_j|_*."""
    X, G = S.copy(), G.copy()
    used, curvatures = np.asarray(X.any(axis=(1, 2))), K.diagonal() * float(c.max())
    for _ in range(_SWEEPS):
        largest = 0.0
        for j, curvature in enumerate(curvatures):
            if not used[j] and (G[j] ** 2).sum() <= weight_decay**2:
                continue
            new = _soft_thresholded(X[j] + G[j] / curvature, weight_decay / curvature)
            D = new - X[j]
            G -= K[j][:, None, None] * (c[:, None] * D)
            X[j], used[j] = new, new.any()
            largest = max(largest, curvature * sqrt((D**2).sum()))
        if largest <= _SWEEP_TOLERANCE * weight_decay:
            break
    return X


def _model_inverse(
    K: np.ndarray, c: np.ndarray, A: np.ndarray, B: np.ndarray, weight_decay: float
) -> Callable[[np.ndarray], np.ndarray]:
    """Inverse of the diagonal blocks (K * B B^T) (x) diag(c) and (K * A diag(c) A^T) (x) I, plus weight_decay.

    Columns of similar c are taken for equal, so that each group of them needs one factorization.
    """
    k = A.shape[1]
    identity = weight_decay * np.eye(len(K))
    hidden, output = K * (B @ B.T), cho_factor(K * ((A * c) @ A.T) + identity)
    levels = np.round(np.log(c / c.max()) / np.log(4.0))
    groups = [np.flatnonzero(levels == level) for level in np.unique(levels)]
    inner = [(group, cho_factor(hidden * c[group].mean() + identity)) for group in groups]

    def inverse_of(R: np.ndarray) -> np.ndarray:
        found = np.empty_like(R)
        for group, factor in inner:
            found[:, group] = cho_solve(factor, R[:, group])
        found[:, k:] = cho_solve(output, R[:, k:])
        return found

    return inverse_of
