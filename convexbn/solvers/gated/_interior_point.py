r"""Gated networks by an interior-point method on the dual: where outputs are few, and many gates fit them equally well.

With at least as many columns as rows every gate fits all targets of its active rows, optimal networks fill a face of
many dimensions, and steps on their weights are short. This degeneracy is not one of the dual point v (n, C). Its
constraints ``|G_i|_2 <= weight_decay``, ``G_i = F_i^T v``, get the barrier ``mu * log det(weight_decay^2 I - G_i^T
G_i)``, whose derivative gives the weights ``S_i = 2 mu G_i (weight_decay^2 I - G_i^T G_i)^-1``. Newton's method solves

    ``f = sum_i F_i S_i(v) + intercept``,  ``v_i = -p_i loss'(f_i)``,  and ``sum_i v_i = 0`` with an intercept.

The gap is then at most mu times the number of gates and outputs.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from convexbn.model._merging import caratheodory
from convexbn.solvers._tolerance import Tolerance
from convexbn.solvers.gated._nuclear_norm import factors
from convexbn.solvers.gated._steps import Point
from convexbn.solvers.gated._working_set import State, WorkingSets

_MOST_ENTRIES = 2**24  # of the patterns' Hessians
_TO_BOUNDARY = 0.9  # of the step to the boundary, at most
_FALL, _N_FALLS = 0.1, 14  # of mu at once, and how often
_NEWTON_STEPS = 30  # for one mu
_CENTRED = 1e-3  # length of a step at which mu falls: the weights are as exact as its square
_RIDGE = 1e-9  # curvature of the loss that each sample has at least, in steps
_DROPPED = 0.1  # weights of this fraction of the gap are dropped


def fits_everything(sets: WorkingSets) -> bool:
    """Whether gates fit the targets of their active rows, are many, and outputs are few."""
    Z, n_patterns, size = sets.problem.Z, len(sets.patterns), sets.problem.y.size
    return Z.n_columns >= Z.n_rows and Z.n_patches == 1 and size <= n_patterns <= _MOST_ENTRIES // size**2


def interior_rounds(
    sets: WorkingSets, state: State, tolerance: Tolerance, out_of_time: Callable[[], bool]
) -> Iterator[State]:
    """A state, and those after it along the central path; then, where rounding ends the path too early, of rounds."""
    problem, over = sets.problem, _N_FALLS + 1
    mus = problem.zero_objective / problem.n_outputs / len(sets.patterns) * _FALL ** np.arange(_N_FALLS)
    if state.n_falls < over:
        yield state
        path = _CentralPath(sets, state.centre)
        with suppress(np.linalg.LinAlgError):
            for n_falls in range(state.n_falls, _N_FALLS):
                mu = mus[n_falls]
                path.centre(mu, out_of_time)
                v = problem.feasible_dual(path.v)
                state = state.bounded(v, sets.bound(v, sets.prices(v)))
                objective, n_rounds = path.objective(mu), state.n_rounds + 1
                slack = max(objective - state.bound, tolerance.relative(objective) * objective)
                point = path.point(mu, _DROPPED * slack, of_fewest_neurons=tolerance.reached(objective, state.bound))
                best = min(state.best, point, key=sets.objective)
                centre = path.v, path.f, path.intercept
                state = replace(state, point=best, best=best, centre=centre, n_falls=n_falls + 1, n_rounds=n_rounds)
                yield state
        state = replace(state, n_falls=over, n_rounds=state.n_rounds + 1)
    yield from sets.rounds(state, tolerance, out_of_time)


class _CentralPath:
    """The dual point v, the outputs f and the intercept, by Newton's method from where they are."""

    def __init__(self, sets: WorkingSets, centre: tuple[np.ndarray, np.ndarray, np.ndarray] | None):
        self.sets, self.problem, self.limit = sets, sets.problem, sets.problem.weight_decay
        rows = sets.rows[np.dtype("float64")].rows()
        self.F = np.unpackbits(sets.patterns.packed, axis=1, count=len(rows))[:, :, None] * rows
        if centre is not None:
            self.v, self.f, self.intercept = centre
            return
        self.intercept, self.v = self.problem.zero_network.intercept, self.problem.zero_dual
        self.f = np.zeros(self.problem.y.shape) + self.intercept
        self.v = self.v * min(1.0, self.limit / (2 * self._largest(self.v) or np.inf))

    def _adjoint(self, v: np.ndarray) -> np.ndarray:
        return np.swapaxes(self.F, 1, 2) @ v

    def _largest(self, v: np.ndarray) -> float:
        return float(np.linalg.norm(self._adjoint(v), 2, axis=(1, 2)).max())

    def weights(self, mu: float) -> np.ndarray:
        """Weights of all patterns at the dual point, shape (P, n, C)."""
        G = self._adjoint(self.v)
        return 2 * mu * G @ self._inverse(G)

    def _inverse(self, G: np.ndarray) -> np.ndarray:
        return np.linalg.inv(self.limit**2 * np.eye(G.shape[2]) - np.swapaxes(G, 1, 2) @ G)

    def objective(self, mu: float) -> float:
        """Objective of these weights."""
        S = self.weights(mu)
        f = (self.F @ S).sum(axis=0) + self.intercept
        return self.problem.training_loss(f) + self.limit * float(self.sets.norm.of(S).sum())

    def point(self, mu: float, slack: float, *, of_fewest_neurons: bool) -> Point:
        """These weights without those that cost less than a slack together, or of fewest neurons."""
        owners, A, B = factors(self.weights(mu))
        cost = (B**2).sum(axis=1)
        order = np.argsort(cost)
        kept = np.sort(order[self.limit * np.cumsum(cost[order]) > slack])
        owners, A, B, cost = owners[kept], A[kept], B[kept], cost[kept]
        if of_fewest_neurons and len(kept) > self.f.size + 1:
            hidden = np.einsum("jik,jk->ij", self.F[owners], A)
            outputs = (hidden[:, None, :] * B.T).reshape(-1, len(kept)) / cost
            left = caratheodory(np.vstack([outputs, np.full(len(kept), np.abs(outputs).max())]), cost)
            A = A * (left / cost)[:, None]
        used, of_used = np.unique(owners[A.any(axis=1)], return_inverse=True)
        S = np.zeros((len(used), self.sets.basis.shape[1], B.shape[1]))
        alive = A.any(axis=1)
        np.add.at(S[:, -A.shape[1] :], of_used, A[alive, :, None] * B[alive, None, :])
        return self.sets.point(used, S, self.intercept)

    def centre(self, mu: float, out_of_time: Callable[[], bool]) -> None:
        """Newton steps until they are short; LinAlgError where rounding is all that is left."""
        for _ in range(_NEWTON_STEPS):
            if self._step(mu) <= _CENTRED or out_of_time():
                return

    def _step(self, mu: float) -> float:
        """A Newton step that stays within the constraints; its length in the norm of the barrier's Hessian."""
        problem, (n, C) = self.problem, self.f.shape
        G = self._adjoint(self.v)
        X = self._inverse(G)
        M = self.F @ (G @ X)  # (P, n, C)
        outputs = 2 * mu * M.sum(axis=0) + self.intercept
        # The Hessian of the barrier: F_i Y_i F_i^T (x) X_i with Y_i = I + G_i X_i G_i^T, and M_i crossed with itself.
        Y = self.F @ np.swapaxes(self.F, 1, 2) + M @ np.linalg.solve(X, np.swapaxes(M, 1, 2))
        P = len(G)
        straight = (Y.reshape(P, -1).T @ X.reshape(P, -1)).reshape(n, n, C, C).transpose(0, 2, 1, 3)
        crossed = (M.reshape(P, -1).T @ M.reshape(P, -1)).reshape(n, C, n, C).transpose(0, 3, 2, 1)
        curvature = 2 * mu * (straight + crossed).reshape(n * C, n * C)
        second = problem.loss.hessian(self.f, problem.y)
        second += _RIDGE * problem.loss.curvature * np.eye(C)
        inverse = np.linalg.inv(problem.sample_weight[:, None, None] * second)
        system = curvature.copy().reshape(n, C, n, C)
        system[np.arange(n), :, np.arange(n)] += inverse
        factor, ones = cho_factor(system.reshape(n * C, n * C)), np.tile(np.eye(C), (n, 1))
        r_dual = self.v - problem.dual_point(self.f)
        dv = cho_solve(factor, (self.f - outputs - _each(inverse, r_dual)).ravel())
        shift = np.zeros(C)
        if problem.fit_intercept:
            of_shift = cho_solve(factor, ones)
            shift = np.linalg.solve(ones.T @ of_shift, ones.T @ dv + self.v.sum(axis=0))
            dv = dv - of_shift @ shift
        dv = dv.reshape(n, C)
        t = 1.0
        while self._largest(self.v + t / _TO_BOUNDARY * dv) >= self.limit:
            t /= 2
        self.f = self.f - t * _each(inverse, dv + r_dual)
        self.v, self.intercept = self.v + t * dv, self.intercept + t * shift
        return float(np.sqrt(max(dv.ravel() @ curvature @ dv.ravel(), 0) / mu))


def _each(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Product of a matrix (C, C) and a vector (C,) for each sample."""
    return np.einsum("icd,id->ic", matrices, vectors)
