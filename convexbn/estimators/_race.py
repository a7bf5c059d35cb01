"""The race of candidates: spectral power and weight decay chosen by the loss on held-out samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from joblib import Parallel  # scikit-learn's, which sets the filters of warnings, is not safe in threads

from convexbn._utils.threads import on_one_thread
from convexbn.estimators._curve import BETTER, Candidate, Curve, Follow, Steps, score_table
from convexbn.model._problem import Problem
from convexbn.solvers._monitor import Clock
from convexbn.solvers.relu._fast import price_quickly

FRACTIONS = 10.0 ** -np.arange(0, 8.5, 0.5)  # of the largest weight decay, the grid of a path
AUTO_FRACTION = 0.03  # of weight_decay_max, where there are too few samples, or there is no time, to compare values
_USUAL_POWER = 1.0  # chosen unless another one is better by more than two standard errors
_POWER_STEP, _LARGEST_POWER = 0.5, 3.0
_FIRST_FOLDS = 2  # that all powers are validated on; the usual one, and one that may be better, are on all
# Standard errors by which another one is better; less than the first number on these folds hardly becomes two on all.
_MAY_BE_BETTER, _CLEARLY_BETTER = 1.0, 2.0
_VALUES_BEFORE = 12  # the best one of the path without a metric, at which a path with one begins: six decades
_WORK_BESIDE_A_METRIC, _WORK_WHERE_IT_FALLS = 0.5, 0.75  # of the last fit, in that of paths without a metric
_SAMPLED_ROWS = 2000  # to train on, and to validate on, when powers are compared and one fifth is held out

Once = Callable[[str, Callable[[], Steps], Callable[[], bool]], Steps]


@dataclass(frozen=True, eq=False)
class Tuning:
    """The chosen candidate and the validation of all.

    Parameters
    ----------
    curves : list of Curve
        Validation of every candidate, in the order of their least losses.
    """

    curves: list[Curve]

    @property
    def candidate(self) -> Candidate:
        """The chosen candidate."""
        return self.curves[0].candidate

    @property
    def weight_decay(self) -> float:
        """The chosen weight decay."""
        return float(self.curves[0].weight_decays[self.curves[0].best])

    @property
    def compared(self) -> bool:
        """Whether any path has more than its largest weight decay, whose network is a constant."""
        return any(curve.length > 1 for curve in self.curves)

    @property
    def work(self) -> int:
        """For the last fit: quasi-Newton steps of the paths without a learned metric times rows and neurons.

        Less of that beside a path with one, so that it costs little time: half, or three quarters where the loss still
        fell at the end of the grid and longer training is worth it.
        """
        plain = sum(curve.work for curve in self.curves if curve.candidate.feature_metric is None)
        chosen, learned = self.curves[0], any(curve.candidate.feature_metric is not None for curve in self.curves)
        falls = chosen.best == len(chosen.fractions) - 1
        return int((_WORK_WHERE_IT_FALLS if falls else _WORK_BESIDE_A_METRIC) * plain) if learned else plain

    @property
    def table(self) -> dict[str, np.ndarray]:
        """Columns of a table with a row for each candidate and weight decay that was validated."""
        rows = [(curve, index) for curve in self.curves for index in np.flatnonzero(np.isfinite(curve.mean))]
        return score_table(
            [curve.candidate.spectral_power for curve, _ in rows],
            [curve.weight_decays[index] for curve, index in rows],
            [curve.largest for curve, _ in rows],
            [np.mean([len(train) for train, _ in curve.folds]) for curve, _ in rows],
            -np.array([_padded(curve.losses[index], self.curves) for curve, index in rows]),
        ) | {"feature_metric": np.array([curve.candidate.feature_metric is not None for curve, _ in rows])}


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
    once: Once = lambda name, compute, whole: compute(),
    learned_metric: Callable[[Curve], np.ndarray | None] = lambda curve: None,
) -> Tuning:
    """Choose spectral power and weight decay by the loss on held-out samples.

    Powers race: the search goes from 1 and 0.5 to the side of the lower loss while that helps, on two folds. On the
    others 1 is validated, and the best one if it is better by a standard error; it is chosen if it is by two on all.
    Where there is one fold only, that is, on many samples, powers are compared on a subset, and the weight decay is
    chosen with all samples for the chosen power. There a feature metric is learned from the network that was chosen,
    and is taken unless the path with it has a loss that is higher by a standard error.

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
        Time limit, after which candidates so far are compared.
    report : callable
        Called with every curve once it is computed.
    once : callable, optional
        Returns the result of a step, given by its name, how to compute it, and how to know that no limit cut it short:
        `Checkpoint.once`.
    learned_metric : callable, optional
        Returns the feature metric that the best network of a curve teaches, or None.

    Returns
    -------
    tuning : Tuning
    """
    parallel = Parallel(n_jobs=n_jobs, prefer="threads")
    first, others = list(range(len(folds)))[:_FIRST_FOLDS], list(range(len(folds)))[_FIRST_FOLDS:]

    def curve_of(
        power: float,
        folds: Sequence[tuple[np.ndarray, np.ndarray]],
        validated: Sequence[int],
        metric: np.ndarray | None = None,
        fractions: np.ndarray = FRACTIONS,
    ) -> Curve:
        candidate = Candidate(power, n_components, metric)
        problem = problem_of(candidate)
        curve = Curve(candidate, problem, price_quickly(problem, random_state=0) or 1.0, fractions, folds)
        return validated_on(curve, validated)

    def validated_on(curve: Curve, validated: Sequence[int]) -> Curve:
        start = perf_counter()
        name = f"{curve.candidate.spectral_power}, {len(curve.folds[0][0])} samples, folds {list(validated)}"
        name += "" if curve.candidate.feature_metric is None else ", feature metric"
        steps = once(name, lambda: curve.validate(validated, follow, parallel, clock), lambda: not clock.is_out())
        curve.add(validated, steps)
        curve.seconds += perf_counter() - start
        report(curve)
        return curve

    given = list(powers) if powers is not None else [_USUAL_POWER, _USUAL_POWER - _POWER_STEP]
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
    if powers is None and len(curves) == 2:
        last, before = sorted(curves, key=lambda curve: curve.least)
        step = last.candidate.spectral_power - before.candidate.spectral_power
        while last.least < (1 - BETTER) * before.least and not clock.is_out():
            power = last.candidate.spectral_power + step
            if not 0 <= power <= _LARGEST_POWER:
                break
            last, before = curve_of(power, subset, first), last
            curves.append(last)
    curves.sort(key=lambda curve: curve.least)
    if alone or clock.is_out():
        return Tuning(curves)
    best = curves[0]
    usual = next((curve for curve in curves if curve.candidate.spectral_power == _USUAL_POWER), best)
    finalists = [usual, best] if best.better_by(_MAY_BE_BETTER, usual) else [usual]
    for curve in finalists if others else []:
        validated_on(curve, others)
    winner = best if best in finalists and best.better_by(_CLEARLY_BETTER, usual) else usual
    if subset is not folds:
        winner = curve_of(winner.candidate.spectral_power, folds, first)
        curves.append(winner)
    metric = learned_metric(winner) if len(folds) == 1 and not clock.is_out() else None
    if metric is not None:
        near = FRACTIONS[max(0, winner.best - _VALUES_BEFORE) :]
        measured = curve_of(winner.candidate.spectral_power, folds, first, metric, near)
        curves.append(measured)
        winner = winner if winner.better_by(_MAY_BE_BETTER, measured) else measured
    return Tuning([winner, *(curve for curve in curves if curve is not winner)])


def _some(samples: np.ndarray, problem: Problem, count: int, rng: np.random.Generator) -> np.ndarray:
    """So many of the samples, drawn at random; where they have classes, one of each class first."""
    drawn = rng.permutation(samples)
    if problem.loss.margin:
        of_each = np.unique(problem.y[drawn], axis=0, return_index=True)[1]
        drawn = np.append(drawn[of_each], np.delete(drawn, of_each))
    return drawn[:count]
