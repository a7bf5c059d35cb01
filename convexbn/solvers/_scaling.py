"""A problem scaled so that targets and design matrix are of order one, and its solutions scaled back."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from convexbn._utils.magnitude import power_of_two_above
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.solvers._tolerance import Tolerance

_FAR = 1e75  # targets between its inverse and this are used as they are
_LARGEST = 1e300  # weight decay of a scaled problem, whose optimum is the zero network long before


@dataclass(frozen=True, eq=False)
class Scaling:
    """A problem scaled to order one, so that absolute tolerances of a solver mean the same for every problem.

    Methods `scaled...` take what belongs to the original problem, methods `unscaled...` what belongs to the scaled one.

    Parameters
    ----------
    problem : Problem
        The scaled problem.
    shift : ndarray of shape (C,)
        Targets are ``shift + target_scale * problem.y``; zero for margin losses.
    target_scale : float
        One scale for all outputs; 1 for margin losses.
    column_scale : float
        The design matrix is ``column_scale * problem.Z``, times the transpose of `basis` if there is one.
    basis : ndarray of shape (k, r) or None, default=None
        Orthonormal basis of the space of the rows of the design matrix, in which neurons have fewer weights.
    """

    problem: Problem
    shift: np.ndarray
    target_scale: float
    column_scale: float
    basis: np.ndarray | None = None

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """Scale Z by its spectral norm and targets by their standard deviation."""
        column_scale = problem.Z.scale_near(problem.Z.spectral_norm / np.sqrt(problem.Z.n_rows)) or 1.0
        shift, target_scale = np.zeros(problem.n_outputs), 1.0
        if not problem.loss.margin:
            if problem.fit_intercept:
                shift = problem.sample_weight @ problem.y
            target_scale = float(np.sqrt(problem.sample_weight @ ((problem.y - shift) ** 2).sum(axis=1))) or 1.0
        scaled = replace(
            problem,
            Z=problem.Z / column_scale,
            y=(problem.y - shift) / target_scale,
            loss=problem.loss.rescaled(target_scale),
            weight_decay=decay_divided(problem.weight_decay, target_scale * column_scale),
        )
        return cls(scaled, shift, target_scale, column_scale)

    @classmethod
    def of_targets(cls, problem: Problem) -> Self:
        """Divide targets alone, by a power of two, and only where their fourth powers leave the range of floats."""
        scale, shift = power_of_two_above(problem.y), np.zeros(problem.n_outputs)
        if problem.loss.margin or 1 / _FAR < scale < _FAR:
            return cls(problem, shift, 1.0, 1.0)
        scaled = replace(
            problem,
            y=problem.y / scale,
            loss=problem.loss.rescaled(scale),
            weight_decay=decay_divided(problem.weight_decay, scale),
        )
        return cls(scaled, shift, scale, 1.0)

    def with_fewest_columns(self) -> Self:
        """The same scaling with no more columns of Z than rows: optimal neurons lie in the space of the rows."""
        if self.problem.Z.has_few_columns:
            return self
        Z, basis = self.problem.Z.on_row_space
        return replace(self, problem=replace(self.problem, Z=Z), basis=basis)

    def scaled(self, neurons: Neurons) -> Neurons:
        """Neurons of the scaled problem, with the same outputs but for the scaling of targets."""
        weights = neurons.weights if self.basis is None else self.basis.T @ neurons.weights
        return replace(
            neurons,
            weights=weights * self.column_scale / self.target_scale,
            intercept=(neurons.intercept - self.shift) / self.target_scale,
        )

    def unscaled(self, neurons: Neurons) -> Neurons:
        """Neurons of the original problem: the inverse of `scaled`."""
        return replace(
            neurons,
            weights=self.unscaled_directions(neurons.weights) * self.target_scale / self.column_scale,
            intercept=self.shift + neurons.intercept * self.target_scale,
        )

    def unscaled_directions(self, directions: np.ndarray) -> np.ndarray:
        """Directions (k, m) of the original problem, from those (k', m) of the scaled one; lengths stay the same."""
        return directions if self.basis is None else self.basis @ directions

    def unscaled_dual(self, v: np.ndarray) -> np.ndarray:
        """Dual point (n, C) of the original problem."""
        return v * self.target_scale

    def unscaled_objective(self, objective: float) -> float:
        """Objective of the original problem."""
        return objective * self.target_scale**2

    def scaled_tolerance(self, tolerance: Tolerance) -> Tolerance:
        """Tolerance of the scaled problem."""
        scale = None if tolerance.scale is None else tolerance.scale / self.unscaled_objective(1.0)
        return replace(tolerance, scale=scale)


def decay_divided(weight_decay: float, scale: float) -> float:
    """The weight decay of the scaled problem, a finite number."""
    with np.errstate(over="ignore"):
        return min(float(weight_decay / scale), _LARGEST)
