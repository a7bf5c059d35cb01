"""Training at the weight decay, and the number of components, that cross-validation chooses."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import ArrayLike
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils.parallel import Parallel, delayed

from convexbn.estimators.base import BaseConvexBN, fixed_seed
from convexbn.estimators.path import check_grid, follow_path, gaps_along, make_grid, warn_of_gaps
from convexbn.losses import Loss
from convexbn.programs import Activation
from convexbn.solvers.column_generation import Proof
from convexbn.solvers.monitor import Clock

Components = int | float | None


class CrossValidated(BaseConvexBN):
    """Base class of the estimators that choose their weight decay along the path."""

    def __init__(
        self,
        *,
        weight_decays: ArrayLike | None = None,
        n_weight_decays: int = 10,
        eps: float = 3e-2,
        normalization: str = "batch",
        activation: Activation = "relu",
        loss: str | Loss = "squared_error",
        fit_intercept: bool = True,
        n_components: Components | Sequence[Components] = None,
        spectral_power: float | str = "auto",
        standardize: bool = True,
        scale_outputs: bool = True,
        n_patterns: int = 50,
        solver: str = "auto",
        tol: float = 1e-4,
        max_iter: int | None = None,
        max_time: float | None = None,
        prove: Proof = "auto",
        cv: Any = None,
        scoring: str | Callable | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = 0,
        verbose: bool | int = False,
    ):
        super().__init__(
            normalization=normalization,
            activation=activation,
            loss=loss,
            fit_intercept=fit_intercept,
            n_components=n_components,  # type: ignore[arg-type]
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
        self.weight_decays = weight_decays
        self.n_weight_decays = n_weight_decays
        self.eps = eps
        self.cv = cv
        self.scoring = scoring
        self.n_jobs = n_jobs

    def _check_parameters(self) -> None:
        check_grid(self.weight_decays, self.n_weight_decays, self.eps)
        if not (self.scoring is None or isinstance(self.scoring, str) or callable(self.scoring)):
            raise ValueError(f"scoring={self.scoring!r} must be the name of a scorer, a function, or None.")
        check_scoring(self, self.scoring)
        check_cv(self.cv)
        if not self._component_choices():
            raise ValueError("n_components=[] is empty; give at least one number of components, or None.")
        super()._check_parameters()

    def _component_choices(self) -> list[Components]:
        choices: Any = self.n_components
        return list(choices) if isinstance(choices, (list, tuple, np.ndarray)) else [choices]

    def _targets(self, y: np.ndarray) -> np.ndarray:
        """Targets as the scorers know them."""
        return y[:, 0] if y.shape[1] == 1 else y

    def _train(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray, clock: Clock) -> None:
        folds = list(check_cv(self.cv, self._targets(y), classifier=self._margin).split(X, self._targets(y)))
        self._check_folds(folds, y, sample_weight)
        choices = self._component_choices()
        problems = [self._problem(X, y, sample_weight, choice, self._plain_power) for choice in choices]
        largest = max(problem.weight_decay_max for _, problem in problems)
        self.weight_decays_ = make_grid(largest, self.weight_decays, self.n_weight_decays, self.eps)

        seed = fixed_seed(self)
        turns = -(-len(choices) * len(folds) // effective_n_jobs(self.n_jobs))
        share = clock.left(1 / (turns + 1))
        results = Parallel(n_jobs=self.n_jobs, verbose=self.verbose)(
            delayed(_score_path)(self, X, y, sample_weight, *fold, choice, self.weight_decays_, seed, share)
            for choice in choices
            for fold in folds
        )
        scores, gaps = (np.stack(parts) for parts in zip(*results, strict=True))
        warn_of_gaps(gaps, self.tol)
        self.scores_ = scores.reshape(len(choices), len(folds), -1).transpose(0, 2, 1)
        mean = self.scores_.mean(axis=2)
        if not np.isfinite(mean).any():
            raise ValueError("No score is finite; check scoring, and whether every test fold of cv can be scored.")
        best = np.unravel_index(int(np.nanargmax(mean)), mean.shape)
        self.best_score_ = float(mean[best])
        self.n_components_ = choices[best[0]]
        prepared, problem = problems[best[0]]
        self._learn(prepared, replace(problem, weight_decay=float(self.weight_decays_[best[1]])), clock)

    def _check_folds(self, folds: list[Any], y: np.ndarray, sample_weight: np.ndarray) -> None:
        if not folds:
            raise ValueError(f"cv={self.cv!r} gives no folds.")
        for number, (train, test) in enumerate(folds):
            for part, name in ((train, "training"), (test, "test")):
                if not sample_weight[part].any():
                    raise ValueError(f"cv leaves no {name} sample of positive weight in fold {number}.")
            if self._margin:
                present = train[sample_weight[train] > 0]
                missing = np.setdiff1d(self._targets(y[sample_weight > 0]), self._targets(y[present]))
                if len(missing):
                    raise ValueError(f"cv leaves no training sample of class {missing.tolist()[0]!r} in fold {number}.")


def _score_path(
    model: CrossValidated,
    X: np.ndarray,
    y: np.ndarray,
    sample_weight: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    n_components: Components,
    weight_decays: np.ndarray,
    seed: int,
    max_time: float | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores on the test samples, and gaps in the terms of `tol`, along the path of the training samples."""
    prepared, problem = model._problem(X[train], y[train], sample_weight[train], n_components, model._plain_power)
    path = follow_path(model, prepared, problem, weight_decays, seed, max_time=max_time)
    if len(path) < len(weight_decays):
        raise KeyboardInterrupt
    scorer = check_scoring(model, model.scoring)
    test = test[sample_weight[test] > 0]
    # Scorers that know no weights can be used where all weights are equal.
    weights = {} if np.ptp(sample_weight) == 0 else {"sample_weight": sample_weight[test]}
    fitted = copy(model)
    scores = []
    for network in path.networks:
        fitted.network_ = network
        scores.append(scorer(fitted, X[test], model._targets(y[test]), **weights))
    return np.array(scores, dtype=np.float64), gaps_along(path, problem)
