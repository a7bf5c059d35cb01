"""The validation losses of a candidate along its path: one curve a fold.

Whitening is shared by all folds: it does not depend on targets.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from joblib import Parallel, delayed  # scikit-learn's, which set the filters of warnings, are not safe in threads
from numpy.typing import ArrayLike

from convexbn.losses import Loss
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.operators import Operator
from convexbn.solvers._monitor import Clock
from convexbn.solvers.relu._options import FAST

BETTER = 1e-2  # share of the best loss by which a better one is lower
_PATIENCE = 2  # values of weight decay without a better score after which a path ends


@dataclass(frozen=True)
class Candidate:
    """Spectral power and number of directions of a path.

    Parameters
    ----------
    spectral_power : float
        Weight of small singular directions.
    n_components : int, float or None
        Singular directions that are kept.
    feature_metric : ndarray of shape (d, d) or None
        Feature metric of the penalty, where one was learned.
    """

    spectral_power: float
    n_components: int | float | None = None
    feature_metric: np.ndarray | None = field(default=None, compare=False)


@dataclass(eq=False)
class Curve:
    """Validation losses of a candidate along its path, for each fold.

    Parameters
    ----------
    candidate : Candidate
        Spectral power and number of directions.
    problem : Problem
        Training problem of all samples.
    largest : float
        The largest weight decay, about, at which neurons are of use.
    fractions : ndarray of shape (n_weight_decays,)
        The grid over it, falling.
    folds : list of (train, test)
        Indices of samples.
    """

    candidate: Candidate
    problem: Problem
    largest: float
    fractions: np.ndarray
    folds: Sequence[tuple[np.ndarray, np.ndarray]]
    losses: np.ndarray = field(init=False)
    networks: list[dict[int, Neurons]] = field(init=False)  # of each weight decay, by fold
    of_samples: list[dict[int, np.ndarray]] = field(init=False)  # weighted losses of held-out samples, likewise
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.losses = np.full((len(self.fractions), len(self.folds)), np.nan)
        self.networks = [{} for _ in self.fractions]
        self.of_samples = [{} for _ in self.fractions]

    @property
    def weight_decays(self) -> np.ndarray:
        """The grid."""
        return self.largest * self.fractions

    @property
    def n_validated(self) -> int:
        """Folds that were validated on."""
        return int(np.isfinite(self.losses[0]).sum())

    @property
    def length(self) -> int:
        """Values of weight decay that were validated."""
        return int(np.isfinite(self.losses).any(axis=1).sum())

    @property
    def mean(self) -> np.ndarray:
        """Mean loss over the folds that were validated on, for each weight decay; NaN beyond the end of the path."""
        return self.losses[:, np.isfinite(self.losses[0])].mean(axis=1)

    @property
    def work(self) -> int:
        """Quasi-Newton steps of the paths times rows and neurons."""
        rows = sum(len(train) for (train, _), done in zip(self.folds, np.isfinite(self.losses[0]), strict=True) if done)
        return rows * self.problem.Z.n_patches * self.length * FAST.work_a_row(rows)

    @property
    def best(self) -> int:
        """Index of the largest weight decay at which the mean loss is within one percent of the least."""
        return int(np.flatnonzero(self.mean <= (1 + BETTER) * np.nanmin(self.mean))[0])

    @property
    def least(self) -> float:
        """Mean loss at the best weight decay."""
        return float(self.mean[self.best])

    def better_by(self, errors: float, other: "Curve") -> bool:
        """Whether the loss is lower by so many standard errors of the difference on the samples that both held out."""
        mine, theirs = self.of_samples[self.best], other.of_samples[other.best]
        difference = np.concatenate([theirs[fold] - mine[fold] for fold in mine if fold in theirs])
        return bool(difference.mean() > errors * _standard_deviation(difference) / np.sqrt(len(difference)))

    def validate(self, folds: Sequence[int], follow: "Follow", parallel: Parallel, clock: Clock) -> "Steps":
        """Follow the paths of some folds to the same weight decay: while the loss falls, or as far as earlier folds.

        Returns
        -------
        steps : list of list of (Neurons, ndarray)
            For each weight decay and fold the network, and its losses on the held-out samples; for `add`.
        """
        leads = self.n_validated == 0
        length = len(self.fractions) if leads else self.length
        paths = [follow(self.problem.restricted(self.folds[fold][0]), self.weight_decays) for fold in folds]
        tests = [HeldOut.of(self.problem, self.folds[fold][1]) for fold in folds]
        steps: Steps = []
        least, since = np.inf, 0
        for _ in range(length):
            steps.append(parallel(delayed(_step)(path, test) for path, test in zip(paths, tests, strict=True)))
            loss = float(np.mean([of_samples.mean() for _, of_samples in steps[-1]]))
            since = 0 if loss < least * (1 - BETTER) else since + 1
            least = min(least, loss)
            if (leads and since >= _PATIENCE) or clock.is_out():
                break
        return steps

    def add(self, folds: Sequence[int], steps: "Steps") -> None:
        """Take in what `validate` returned of some folds."""
        for index, step in enumerate(steps):
            for fold, (neurons, of_samples) in zip(folds, step, strict=True):
                self.networks[index][fold], self.of_samples[index][fold] = neurons, of_samples
                self.losses[index, fold] = of_samples.mean()

    def average(self) -> Neurons:
        """The networks of the folds at the best weight decay, averaged."""
        networks = list(self.networks[self.best].values())
        return type(networks[0]).averaged(networks)

    def __str__(self) -> str:
        metric = "" if self.candidate.feature_metric is None else ", learned feature metric"
        return (
            f"spectral_power={self.candidate.spectral_power:g}{metric}: validation loss {self.least:.5g} at "
            f"weight_decay={self.weight_decays[self.best]:.3g} ({self.fractions[self.best]:.0e} of the largest), "
            f"{self.n_validated} of {len(self.folds)} folds, {self.seconds:.1f} s"
        )


Steps = list[list[tuple[Neurons, np.ndarray]]]
Follow = Callable[[Problem, np.ndarray], Iterator[Neurons]]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Samples to score networks on: no training problem, as they may lack a class.

    Parameters
    ----------
    Z : Operator
        Their rows.
    y : ndarray of shape (n, C)
        Their targets.
    loss : Loss
        The training loss.
    weights : ndarray of shape (n,)
        Their sample weights over the mean.
    """

    Z: Operator
    y: np.ndarray
    loss: Loss
    weights: np.ndarray

    @classmethod
    def of(cls, problem: Problem, samples: np.ndarray) -> "HeldOut":
        """Some samples of a problem, given by their indices."""
        weights = problem.sample_weight[samples]
        return cls(problem.Z.of_samples(samples), problem.y[samples], problem.loss, weights / weights.mean())

    def losses(self, neurons: Neurons) -> np.ndarray:
        """Loss of each sample (n,), times its weight."""
        return self.weights * self.loss.value(neurons.outputs(self.Z), self.y)


def _step(path: Iterator[Neurons], test: HeldOut) -> tuple[Neurons, np.ndarray]:
    """The next network of a path, and its losses on other samples (n,)."""
    neurons = next(path)
    return neurons, test.losses(neurons)


def score_table(
    spectral_power: ArrayLike, weight_decay: ArrayLike, largest: ArrayLike, n_train: ArrayLike, scores: np.ndarray
) -> dict[str, np.ndarray]:
    """Columns of a table of scores (p, n_folds), NaN on folds that were not validated on, and what p they are of."""
    return {
        "spectral_power": np.asarray(spectral_power),
        "weight_decay": np.asarray(weight_decay),
        "fraction": np.asarray(weight_decay) / np.asarray(largest),
        "n_train": np.asarray(n_train),
        "n_folds": np.isfinite(scores).sum(axis=1),
        "mean_score": np.nanmean(scores, axis=1),
        "std_score": _standard_deviation(scores, axis=1),
        "scores": scores,
    }


def _standard_deviation(values: np.ndarray, axis: int | None = None) -> Any:
    """Standard deviation without NaN, where squares may leave the range of floats."""
    scale = np.nanmax(np.abs(values)) or 1.0
    return scale * np.nanstd(values / scale, axis=axis)
