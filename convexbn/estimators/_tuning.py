"""The self-tuned fit: weight decay and spectral power chosen on held-out samples, along warm-started fast paths.

Whitening is shared by all folds: it sees features only. The networks of the folds at the values that win, averaged, are
where training on all samples starts from.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from joblib import Parallel, delayed  # scikit-learn's, which set the filters of warnings, are not safe in threads

from convexbn._utils.threads import on_one_thread
from convexbn.losses import Loss
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.operators._protocol import Operator
from convexbn.solvers._monitor import Clock
from convexbn.solvers.relu._fast import descend, price_quickly
from convexbn.solvers.relu._options import ACCURATE, FAST

FRACTIONS = 10.0 ** -np.arange(0, 8.5, 0.5)  # of the largest weight decay, the grid of a path
_TURNED = 2  # values of weight decay without a better score after which a path has turned
_BETTER = 1e-2  # share of the best loss by which a better one is lower
FIRST_POWERS, _POWER_STEP, _LARGEST_POWER = (0.0, 0.5, 1.0), 0.5, 3.0
_USUAL_POWER = 1.0  # wins unless another one is better by more than two standard errors
_FIRST_FOLDS = 2  # that all powers are validated on; the best and the usual one see the others, too
# Five folds are held out in turn where the design matrix has so many entries and outputs, three where it has so many or
# rows are so few, and one fifth of the samples once where they are more.
_FIVE_FOLDS, _THREE_FOLDS, _FEW_ROWS, _HELD_OUT = 8_000, 30_000, 1_000, 5
_SAMPLED_ROWS = 2000  # to train on, and to validate on, when powers are compared and one fifth is held out
_FEWEST_SAMPLES = 4  # with fewer nothing is held out
_DESCENT_STEPS, _DESCENT_SHARE = (100, 1500), 0.5  # of the last fit, and of the time that is left
_ROUNDS, _NEWTON_SHARE = 10, 2  # of column generation after it; and of the work of the choice, for Newton steps
_STRONG = 0.03  # of the largest weight decay, from which on the last fit starts from nothing
_LEAST_NEWTON_STEPS = 500  # of such a fit, at most so many or what its share is
_FACTORISATIONS = 20  # about so many in a Newton step


@dataclass(frozen=True)
class Candidate:
    """What a path is made for.

    Parameters
    ----------
    spectral_power : float
        Weight of small singular directions.
    n_components : int, float or None
        Singular directions that are kept.
    """

    spectral_power: float
    n_components: int | float | None = None


@dataclass(eq=False)
class Curve:
    """Validation losses of a candidate along its path, for each fold.

    Parameters
    ----------
    candidate : Candidate
        What the path is made for.
    problem : Problem
        Training problem of all samples.
    weight_decays : ndarray of shape (n_weight_decays,)
        The grid, falling.
    folds : list of (train, test)
        Indices of samples.
    """

    candidate: Candidate
    problem: Problem
    weight_decays: np.ndarray
    folds: Sequence[tuple[np.ndarray, np.ndarray]]
    losses: np.ndarray = field(init=False)
    networks: list[dict[int, Neurons]] = field(init=False)  # of each weight decay, by fold
    of_samples: list[dict[int, np.ndarray]] = field(init=False)  # weighted losses of held-out samples, likewise
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.losses = np.full((len(self.weight_decays), len(self.folds)), np.nan)
        self.networks = [{} for _ in self.weight_decays]
        self.of_samples = [{} for _ in self.weight_decays]

    @property
    def n_validated(self) -> int:
        """Folds that were validated on."""
        return int(np.isfinite(self.losses[0]).sum())

    @property
    def mean(self) -> np.ndarray:
        """Mean loss over the folds that were validated on, for each weight decay; NaN where the path did not get."""
        return self.losses[:, np.isfinite(self.losses[0])].mean(axis=1)

    @property
    def work(self) -> int:
        """Quasi-Newton steps of the paths times rows and neurons."""
        rows = sum(len(train) for (train, _), done in zip(self.folds, np.isfinite(self.losses[0]), strict=True) if done)
        length = int(np.isfinite(self.losses).any(axis=1).sum())
        return rows * self.problem.Z.n_patches * length * FAST.work_a_row(rows)

    @property
    def best(self) -> int:
        """Index of the largest weight decay at which the mean loss is within one percent of the least."""
        return int(np.flatnonzero(self.mean <= (1 + _BETTER) * np.nanmin(self.mean))[0])

    @property
    def least(self) -> float:
        """Mean loss at the best weight decay."""
        return float(self.mean[self.best])

    def clearly_better(self, other: "Curve") -> bool:
        """Whether the loss is lower by two standard errors of the difference on the samples that both held out."""
        mine, theirs = self.of_samples[self.best], other.of_samples[other.best]
        difference = np.concatenate([theirs[fold] - mine[fold] for fold in mine if fold in theirs])
        return bool(difference.mean() > 2 * _standard_deviation(difference) / np.sqrt(len(difference)))

    def validate(self, folds: Sequence[int], follow: "Follow", parallel: Parallel, clock: Clock) -> None:
        """Follow the paths of some folds, all to the same weight decay: until the loss has turned, or as others did."""
        start = perf_counter()
        length = len(self.weight_decays) if self.n_validated == 0 else int(np.isfinite(self.losses).any(axis=1).sum())
        turns = self.n_validated == 0
        paths = [follow(self.problem.restricted(self.folds[fold][0]), self.weight_decays) for fold in folds]
        tests = [HeldOut.of(self.problem, self.folds[fold][1]) for fold in folds]
        least, since = np.inf, 0
        for index in range(length):
            steps = parallel(delayed(_step)(path, test) for path, test in zip(paths, tests, strict=True))
            for fold, (neurons, of_samples) in zip(folds, steps, strict=True):
                self.networks[index][fold], self.of_samples[index][fold] = neurons, of_samples
                self.losses[index, fold] = of_samples.mean()
            loss = float(self.losses[index, list(folds)].mean())
            since = 0 if loss < least * (1 - _BETTER) else since + 1
            least = min(least, loss)
            if (turns and since >= _TURNED) or clock.is_out():
                break
        self.seconds += perf_counter() - start

    def average(self) -> Neurons:
        """The networks of the folds at the best weight decay, averaged."""
        networks = list(self.networks[self.best].values())
        parts = [network for network in networks if len(network)] or networks[:1]
        return Neurons(
            np.hstack([network.weights for network in parts]) / len(networks),
            np.vstack([network.output_weights for network in parts]),
            np.mean([network.intercept for network in networks], axis=0),
        )

    def __str__(self) -> str:
        fraction = self.weight_decays[self.best] / self.weight_decays[0]
        return (
            f"spectral_power={self.candidate.spectral_power:g}: validation loss {self.least:.5g} at weight_decay="
            f"{self.weight_decays[self.best]:.3g} ({fraction:.0e} of the largest), "
            f"{self.n_validated} of {len(self.folds)} folds, {self.seconds:.1f} s"
        )


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


@dataclass(frozen=True, eq=False)
class Tuning:
    """How values were chosen.

    Parameters
    ----------
    curves : list of Curve
        Validation of every candidate, in the order of their least losses.
    """

    curves: list[Curve]

    @property
    def candidate(self) -> Candidate:
        """The candidate that won."""
        return self.curves[0].candidate

    @property
    def weight_decay(self) -> float:
        """The weight decay that won."""
        return float(self.curves[0].weight_decays[self.curves[0].best])

    @property
    def work(self) -> int:
        """Quasi-Newton steps of all paths times rows and neurons."""
        return sum(curve.work for curve in self.curves)

    @property
    def table(self) -> dict[str, np.ndarray]:
        """Columns of a table with a row for each candidate and weight decay that was validated."""
        rows = [(curve, index) for curve in self.curves for index in np.flatnonzero(np.isfinite(curve.mean))]
        scores = -np.array([_padded(curve.losses[index], self.curves) for curve, index in rows])
        return {
            "spectral_power": np.array([curve.candidate.spectral_power for curve, _ in rows]),
            "weight_decay": np.array([curve.weight_decays[index] for curve, index in rows]),
            "fraction": np.array([curve.weight_decays[index] / curve.weight_decays[0] for curve, index in rows]),
            "n_train": np.array([np.mean([len(train) for train, _ in curve.folds]) for curve, _ in rows]),
            "n_folds": np.isfinite(scores).sum(axis=1),
            "mean_score": np.nanmean(scores, axis=1),
            "std_score": _standard_deviation(scores, axis=1),
            "scores": scores,
        }


def _standard_deviation(values: np.ndarray, axis: int | None = None) -> Any:
    """Standard deviation without NaN, where squares may leave the range of floats."""
    scale = np.nanmax(np.abs(values)) or 1.0
    return scale * np.nanstd(values / scale, axis=axis)


def _padded(losses: np.ndarray, curves: list[Curve]) -> np.ndarray:
    """The losses, and NaN for the folds that other curves have."""
    width = max(len(curve.folds) for curve in curves)
    return np.append(losses, np.full(width - len(losses), np.nan))


@on_one_thread
def tune(
    problem_of: Callable[[Candidate], Problem],
    powers: Sequence[float] | None,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    follow: Follow,
    *,
    n_components: int | float | None,
    rng: np.random.Generator,
    n_jobs: int | None,
    clock: Clock,
    report: Callable[[Any], None],
) -> Tuning:
    """Choose spectral power and weight decay by the loss on held-out samples.

    Powers race: all of them are validated on two folds, the best one and 1 on the others, and 1 wins unless the best is
    better by more than two standard errors. Where 1 is better than 0.5, larger ones follow while that helps. Where
    there is one fold only, that is, on many samples, powers are compared on a subset, and the weight decay is chosen
    with all samples for the power that won.

    Parameters
    ----------
    problem_of : callable
        Training problem of all samples for a candidate.
    powers : sequence of float or None
        Spectral powers; None searches.
    folds : list of (train, test)
        Indices of samples.
    follow : callable
        Networks of a problem along falling weight decays.
    n_components : int, float or None
        Singular directions that are kept.
    rng : Generator
        Draws the subset.
    n_jobs : int or None
        Folds that are worked on at the same time.
    clock : Clock
        Tells when to end with what there is.
    report : callable
        Called with every curve when it is there.

    Returns
    -------
    tuning : Tuning
    """
    parallel = Parallel(n_jobs=n_jobs, prefer="threads")
    first, others = list(range(len(folds)))[:_FIRST_FOLDS], list(range(len(folds)))[_FIRST_FOLDS:]

    def curve_of(power: float, folds: Sequence[tuple[np.ndarray, np.ndarray]], validated: Sequence[int]) -> Curve:
        candidate = Candidate(power, n_components)
        problem = problem_of(candidate)
        curve = Curve(candidate, problem, (price_quickly(problem, random_state=0) or 1.0) * FRACTIONS, folds)
        curve.validate(validated, follow, parallel, clock)
        report(curve)
        return curve

    given = list(powers) if powers is not None else list(FIRST_POWERS)
    alone = len(given) == 1
    some = problem_of(Candidate(given[0], n_components))
    most = max(_SAMPLED_ROWS // some.Z.n_patches, 10 * some.n_outputs)
    subset = folds
    if len(folds) == 1 and len(folds[0][0]) > most and not alone:
        train, test = folds[0]
        subset = [(_some(train, some, most, rng), rng.permutation(test)[:most])]
    curves: list[Curve] = []
    for power in given:
        if not curves or not clock.is_out():
            curves.append(curve_of(power, subset, first if not alone else [*first, *others]))
    while powers is None and not clock.is_out():
        best, last = min(curves, key=lambda curve: curve.least), curves[-1]
        power = last.candidate.spectral_power
        better = last is best and last.least < (1 - _BETTER) * curves[-2].least
        if not better or power >= _LARGEST_POWER:
            break
        curves.append(curve_of(power + _POWER_STEP, subset, first))
    curves.sort(key=lambda curve: curve.least)
    if alone or clock.is_out():
        return Tuning(curves)
    usual = next((curve for curve in curves if curve.candidate.spectral_power == _USUAL_POWER), curves[0])
    finalists = [curves[0], usual if usual is not curves[0] else curves[1]]
    if len(folds) > 1:
        for curve in finalists if others else []:
            curve.validate(others, follow, parallel, clock)
            report(curve)
        finalists.sort(key=lambda curve: curve.least)
    winner = finalists[0] if finalists[0].clearly_better(usual) else usual
    if subset is not folds:
        winner = curve_of(winner.candidate.spectral_power, folds, first)
    return Tuning([winner, *(curve for curve in curves if curve is not winner)])


def _some(samples: np.ndarray, problem: Problem, count: int, rng: np.random.Generator) -> np.ndarray:
    """So many of the samples, drawn at random; where they have classes, one of each class first."""
    drawn = rng.permutation(samples)
    if problem.loss.margin:
        of_each = np.unique(problem.y[drawn], axis=0, return_index=True)[1]
        drawn = np.append(drawn[of_each], np.delete(drawn, of_each))
    return drawn[:count]


@on_one_thread
def last_fit(problem: Problem, start: Neurons, work: int, clock: Clock) -> dict[str, Any]:
    """Start and limits of the last fit, on all samples, which takes about as much work as the choice did.

    At a strong weight decay few neurons are optimal, and column generation finds them soonest from nothing. At a weak
    one the network goes on from where the choice ended, by quasi-Newton steps first.

    Parameters
    ----------
    problem : Problem
        Training problem of all samples at the weight decay that won.
    start : Neurons
        Network that the choice ended with.
    work : int
        Quasi-Newton steps of the choice times rows and neurons.
    clock : Clock
        Tells when to end with what there is.

    Returns
    -------
    options : dict
        Options of `solve`.
    """
    n, k = problem.Z.n_rows, problem.Z.n_columns
    if len(start) == 0 or problem.weight_decay >= _STRONG * price_quickly(problem, random_state=0):
        steps = max(_LEAST_NEWTON_STEPS, int(_NEWTON_SHARE * work / _newton_work(n, k, ACCURATE.newton_weights)))
        return {"max_newton_steps": steps}
    max_steps = int(np.clip(work / (n * len(start)), *_DESCENT_STEPS))
    start = descend(problem, start, max_steps=max_steps, stop=Clock(clock.left(_DESCENT_SHARE)).is_out)
    n_weights = len(start) * k
    newton_work = _newton_work(n, k, min(n_weights, ACCURATE.newton_weights))
    return {
        "start": start,
        "max_iter": 1 if n_weights > ACCURATE.many_weights else _ROUNDS,
        "max_newton_steps": max(1, int(_NEWTON_SHARE * work / newton_work)),
    }


def _newton_work(n: int, k: int, size: int) -> float:
    """Work of a Newton step of so many weights, in that of a quasi-Newton step of one neuron on one row."""
    return (n * size**2 + _FACTORISATIONS * size**3 / 3) / (3 * k)


def hold_out(
    problem: Problem, y: np.ndarray, rng: np.random.Generator, *, stratified: bool, groups: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds to validate on: five or three for small problems, one fifth of the samples once for others.

    There are none where there are hardly any samples.

    Parameters
    ----------
    problem : Problem
        Training problem of all samples.
    y : ndarray of shape (n, C)
        Their targets, or classes.
    rng : Generator
        Deals the samples out.
    stratified : bool
        Whether every class is dealt out evenly; the only sample of a class is never held out.
    groups : ndarray of shape (n,) or None, default=None
        Samples of one group are held out together.

    Returns
    -------
    folds : list of (train, test)
        Indices of samples.
    """
    n = len(y)
    if n < _FEWEST_SAMPLES:
        return []
    Z = problem.Z
    entries = Z.n_rows * (Z.n_columns + problem.n_outputs)
    few = entries <= _THREE_FOLDS or Z.n_rows <= _FEW_ROWS
    count = 5 if entries <= _FIVE_FOLDS else 3 if few else 1
    parts = count if count > 1 else _HELD_OUT
    number = np.full(n, -1)
    if groups is not None:
        labels, codes = np.unique(groups, return_inverse=True)
        number = (rng.permutation(len(labels)) % parts)[codes]
    else:
        strata = np.unique(y, axis=0, return_inverse=True)[1].ravel() if stratified else np.zeros(n, dtype=int)
        offset = 0
        for stratum in range(strata.max() + 1):
            members = rng.permutation(np.flatnonzero(strata == stratum))
            if len(members) > 1:
                number[members] = (offset + np.arange(len(members))) % parts
                offset += len(members)
    folds = [(np.flatnonzero(number != part), np.flatnonzero(number == part)) for part in range(count)]
    if stratified:
        classes = np.unique(y, axis=0)
        folds = [fold for fold in folds if len(np.unique(y[fold[0]], axis=0)) == len(classes)]
    return [(train, test) for train, test in folds if len(train) > 1 and len(test)]
