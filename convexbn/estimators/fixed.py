"""Training at one weight decay."""

from dataclasses import replace

import numpy as np

from convexbn.estimators.base import BaseConvexBN
from convexbn.losses import Loss
from convexbn.problem import check_weight_decay
from convexbn.programs import Activation
from convexbn.solvers.column_generation import Proof
from convexbn.solvers.monitor import Clock

AUTO_FRACTION = 0.03  # weight_decay="auto" is this fraction of weight_decay_max


class FixedWeightDecay(BaseConvexBN):
    """Base class of the estimators whose weight decay is a parameter."""

    def __init__(
        self,
        weight_decay: float | str = "auto",
        *,
        normalization: str = "batch",
        activation: Activation = "relu",
        loss: str | Loss = "squared_error",
        fit_intercept: bool = True,
        n_components: int | float | None = None,
        spectral_power: float = 0.0,
        standardize: bool = True,
        scale_outputs: bool = True,
        n_patterns: int = 50,
        solver: str = "auto",
        tol: float = 1e-4,
        max_iter: int | None = None,
        max_time: float | None = None,
        prove: Proof = "auto",
        random_state: int | np.random.RandomState | np.random.Generator | None = 0,
        verbose: bool | int = False,
    ):
        super().__init__(
            normalization=normalization,
            activation=activation,
            loss=loss,
            fit_intercept=fit_intercept,
            n_components=n_components,
            spectral_power=spectral_power,
            standardize=standardize,
            scale_outputs=scale_outputs,
            n_patterns=n_patterns,
            solver=solver,
            tol=tol,
            max_iter=max_iter,
            max_time=max_time,
            prove=prove,
            random_state=random_state,
            verbose=verbose,
        )
        self.weight_decay = weight_decay

    def _check_parameters(self) -> None:
        if not self._auto():
            check_weight_decay(self.weight_decay)
        super()._check_parameters()

    def _auto(self) -> bool:
        return isinstance(self.weight_decay, str) and self.weight_decay == "auto"

    def _train(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray, clock: Clock) -> None:
        prepared, problem = self._problem(X, y, sample_weight, self.n_components)
        # At a weight_decay_max of zero the zero network fits perfectly and is optimal at any weight decay.
        weight_decay = AUTO_FRACTION * problem.weight_decay_max or 1.0 if self._auto() else float(self.weight_decay)
        self._learn(prepared, replace(problem, weight_decay=weight_decay), clock)
