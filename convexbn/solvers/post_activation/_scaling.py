"""A problem of batch normalization after the ReLU in whitened columns, with targets of order one, and back."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from convexbn.model._normalized_neurons import NormalizedNeurons
from convexbn.model._post_activation import PostActivationProblem
from convexbn.solvers._scaling import decay_divided
from convexbn.solvers._tolerance import Tolerance


@dataclass(frozen=True, eq=False)
class Whitened:
    """A problem in a basis of the columns of Z that are orthonormal, which changes no network, and scaled targets.

    Parameters
    ----------
    original, problem : PostActivationProblem
        The problem, and the same one as solvers see it.
    basis : ndarray of shape (k, r)
        The whitened design matrix is Z times it.
    shift : ndarray of shape (C,)
        Targets are ``shift + target_scale * problem.y``; zero for margin losses.
    target_scale : float
        One scale for all outputs; 1 for margin losses.
    """

    original: PostActivationProblem
    problem: PostActivationProblem
    basis: np.ndarray
    shift: np.ndarray
    target_scale: float

    @classmethod
    def of(cls, problem: PostActivationProblem) -> Self:
        """Whiten the columns of Z, and scale the targets by their standard deviation."""
        basis = problem.whitening
        shift, target_scale = np.zeros(problem.n_outputs), 1.0
        if not problem.loss.margin:
            if problem.fit_intercept:
                shift = problem.sample_weight @ problem.y
            target_scale = float(np.sqrt(problem.sample_weight @ ((problem.y - shift) ** 2).sum(axis=1))) or 1.0
        inside = replace(
            problem,
            Z=problem.Z.times(basis),
            y=(problem.y - shift) / target_scale,
            loss=problem.loss.rescaled(target_scale),
            weight_decay=decay_divided(problem.weight_decay, target_scale),
        )
        return cls(problem, inside, basis, shift, target_scale)

    def scaled_tolerance(self, tolerance: Tolerance) -> Tolerance:
        """The tolerance in the unit of the scaled problem."""
        if tolerance.scale is None:
            return tolerance
        return replace(tolerance, scale=self.problem.zero_objective)

    def scaled(self, neurons: NormalizedNeurons) -> NormalizedNeurons:
        """Neurons of the scaled problem."""
        weights = np.linalg.lstsq(self.basis, neurons.scaled_weights, rcond=None)[0]
        found = NormalizedNeurons.on(
            self.problem.Z,
            self.problem.sample_weight,
            weights / self.target_scale,
            neurons.shift / self.target_scale,
            neurons.output_weights,
            (neurons.intercept - self.shift) / self.target_scale,
        )
        return found if self.problem.fit_intercept else replace(found, intercept=self.problem.zero_network.intercept)

    def unscaled(self, neurons: NormalizedNeurons) -> NormalizedNeurons:
        """Neurons of the original problem, which have the same outputs but for the scaling of targets."""
        return NormalizedNeurons.on(
            self.original.Z,
            self.original.sample_weight,
            self.basis @ neurons.scaled_weights * self.target_scale,
            neurons.shift * self.target_scale,
            neurons.output_weights,
            self.shift + neurons.intercept * self.target_scale,
        )

    def unscaled_dual(self, v: np.ndarray) -> np.ndarray:
        """Dual point (n, C) of the original problem."""
        return v * self.target_scale
