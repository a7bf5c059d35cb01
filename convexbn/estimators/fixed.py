"""Training at a weight decay that is given, or chosen on held-out samples."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from convexbn.estimators.base import BaseConvexBN, Prepared, fixed_seed
from convexbn.estimators.tuning import Candidate, hold_out, last_fit, tune
from convexbn.losses import Loss
from convexbn.neurons import Neurons
from convexbn.problem import Problem, check_weight_decay
from convexbn.programs import Activation
from convexbn.solution import Status
from convexbn.solvers.column_generation import Proof
from convexbn.solvers.fast import fast_path
from convexbn.solvers.monitor import Clock

AUTO_FRACTION = 0.03  # of weight_decay_max, where there are too few samples to hold any out
_TUNING_SHARE = 0.5  # of max_time, for the choice
_HASTY_TOL = 1e-2  # of the solvers that have no fast preset


class FixedWeightDecay(BaseConvexBN):
    """Base class of the estimators whose weight decay is a parameter: a number, or "auto"."""

    def __init__(
        self,
        weight_decay: float | str = "auto",
        *,
        normalization: str = "batch",
        activation: Activation = "relu",
        loss: str | Loss = "squared_error",
        fit_intercept: bool = True,
        n_components: int | float | None = None,
        spectral_power: float | str = "auto",
        standardize: bool = True,
        scale_outputs: bool = True,
        n_patterns: int = 50,
        solver: str = "auto",
        tol: float = 1e-4,
        max_iter: int | None = None,
        max_time: float | None = None,
        prove: Proof = "auto",
        n_jobs: int | None = None,
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
        self.n_jobs = n_jobs

    def _check_parameters(self) -> None:
        if not self._auto():
            check_weight_decay(self.weight_decay)
        super()._check_parameters()

    def _auto(self) -> bool:
        return isinstance(self.weight_decay, str) and self.weight_decay == "auto"

    def _train(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray, clock: Clock) -> None:
        merged = self._merged(X, y, sample_weight)
        self.__dict__.pop("validation_scores_", None)
        if self._auto():
            self._tune(*merged, clock)
        else:
            prepared, problem = self._prepare(*merged, self._plain_power, self.n_components)
            self._learn(prepared, replace(problem, weight_decay=float(self.weight_decay)), clock)

    def _tune(self, X: np.ndarray, y: np.ndarray, weights: np.ndarray, clock: Clock) -> None:
        """Choose weight decay and spectral power on held-out samples, then train on all."""
        seed = fixed_seed(self)
        rng = np.random.default_rng(seed)
        prepared: dict[float, tuple[Prepared, Problem]] = {}

        def problem_of(candidate: Candidate) -> Problem:
            power = candidate.spectral_power
            if power not in prepared:
                prepared[power] = self._prepare(X, y, weights, power, candidate.n_components)
            return prepared[power][1]

        chosen = isinstance(self.spectral_power, str) and self.normalization == "batch"
        powers = None if chosen else [self._plain_power]
        some = problem_of(Candidate((powers or [0.0])[0], self.n_components))
        folds = hold_out(some, y, rng, stratified=self._margin)
        if not folds:
            problem = problem_of(Candidate(self._plain_power, self.n_components))
            weight_decay = AUTO_FRACTION * problem.weight_decay_max or 1.0
            self._learn(prepared[self._plain_power][0], replace(problem, weight_decay=weight_decay), clock)
            return
        tuning = tune(
            problem_of,
            powers,
            folds,
            partial(self._follow, seed),
            n_components=self.n_components,
            rng=rng,
            n_jobs=self.n_jobs,
            clock=Clock(clock.left(_TUNING_SHARE)),
            report=print if self.verbose else lambda curve: None,
        )
        design, problem = prepared[tuning.candidate.spectral_power]
        problem = replace(problem, weight_decay=tuning.weight_decay)
        limits: dict[str, Any] = {}
        if self._takes_fast_path:
            limits = last_fit(problem, tuning.curves[0].average(), tuning.work, clock)
        self._learn(design, problem, clock, **limits)
        self.validation_scores_ = tuning.table

    def _follow(self, seed: int, problem: Problem, weight_decays: np.ndarray) -> Iterator[Neurons]:
        """Networks along a path, good enough to compare weight decays: the fast preset, or the solver in a hurry."""
        if self._takes_fast_path:
            yield from fast_path(problem, weight_decays, random_state=seed)
            return
        hasty, start = clone(self).set_params(tol=_HASTY_TOL, verbose=False), None
        for weight_decay in weight_decays:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                solution = hasty._solve(replace(problem, weight_decay=float(weight_decay)), seed, start)
            if solution.status is Status.INTERRUPTED:
                raise KeyboardInterrupt
            start = solution.neurons
            yield start
