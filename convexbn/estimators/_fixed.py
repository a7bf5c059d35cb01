"""Training at a weight decay that is given, or chosen on held-out samples."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from convexbn._utils.checks import check_flag
from convexbn._utils.sample_weight import merge_equal_samples
from convexbn._utils.summary import counted
from convexbn.estimators._base import BaseConvexBN, Prepared, fixed_seed
from convexbn.estimators._choice_facts import choice_facts
from convexbn.estimators._curve import Candidate, Curve
from convexbn.estimators._feature_metric import learned_metric, with_feature_metric
from convexbn.estimators._hold_out import hold_out
from convexbn.estimators._place import host
from convexbn.estimators._race import AUTO_FRACTION, tune
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem, check_weight_decay
from convexbn.oracles import weight_decay_max
from convexbn.rows import RowSource
from convexbn.solvers._auto import working_set_path
from convexbn.solvers._checkpoint import Checkpoint, fingerprint_of
from convexbn.solvers._closed_form import check_closed_form
from convexbn.solvers._fast_path import fast_path
from convexbn.solvers._monitor import Clock
from convexbn.solvers._solution import Solution, Status
from convexbn.solvers.relu._options import Options, ProofOptions

_TUNING_SHARE = 0.5  # of max_time, for the choice
_COARSE_TOL = 3e-3  # of the solvers that have no fast preset


@dataclass(kw_only=True, eq=False, repr=False)
class FixedWeightDecay(BaseConvexBN):
    """Base class of the estimators whose weight decay is a parameter: a number, or "auto"."""

    weight_decay: float | str = field(default="auto", kw_only=False)
    _reads_blocks: ClassVar[bool] = True
    warm_start: bool = False

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Choose what is "auto" on held-out samples, and train the network.

        Equal samples are trained on as one of their total weight, so repeated rows and integer weights give the same
        network, and the order of the rows does not matter.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n, d), or (n, channels, height, width) for convolutions
            Training data, at least two samples. Sparse X requires `n_components` (an int), or
            ``normalization="weight"``. A memory map (`numpy.memmap`) of float64 and at least 2**27 numbers, a gibibyte,
            is not copied by ReLU networks of ``normalization="batch"``, which read it a block of rows at a time in
            every product. That takes several times as long, and equal samples stay apart. The same holds for samples
            that are read in blocks from files or a function, the result of `read_rows`.
        y : array-like of shape (n,) or (n, C), or None
            Targets of a regressor, one column an output; labels, numbers or strings, of a classifier. None takes those
            of X, if it is read in blocks.
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples, from zero on, in the loss, in the batch statistics and in the choice. A weight of
            zero is as good as no sample. All equal if None.
        groups : array-like of shape (n,) or None, default=None
            Groups of the samples: those of one group are held out together.

        Returns
        -------
        self : estimator

        Raises
        ------
        ValueError
            If a parameter or the data is out of range; the message names it. The estimator is left as it was.
        RuntimeError
            If a cvxpy solver fails; the estimator is left as it was.
        TypeError
            If y is sparse, or images are, or X or y is no array; the estimator is left as it was.
        KeyboardInterrupt
            After Ctrl-C, so that a search around the estimator ends, too. The estimator keeps the best network so far
            with its certificate, as if it had been trained; it is left as it was if there is none yet, or if Ctrl-C
            is pressed again.

        Warns
        -----
        ConvergenceWarning
            If the gap exceeds `tol`.
        """
        return self._fit(X, y, sample_weight, host(groups))

    def _check_parameters(self) -> None:
        if isinstance(self.weight_decay, str) and not self._auto():
            raise ValueError(f'weight_decay={self.weight_decay!r} must be a positive finite number or "auto".')
        if not self._auto():
            check_weight_decay(self.weight_decay)
        check_flag("warm_start", self.warm_start)
        super()._check_parameters()

    @property
    def _learns_metric(self) -> bool:
        """Whether a choice that is left to the estimator learns a feature metric."""
        return False

    def _auto(self) -> bool:
        return isinstance(self.weight_decay, str) and self.weight_decay == "auto"

    def _train(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray, clock: Clock, given: Any) -> None:
        self.__dict__.pop("validation_scores_", None)
        weights, codes = self._class_weighted(y, sample_weight), _group_codes(given, len(y))
        X, y, weights, codes = self._distinct(X, y, weights, codes)
        if self._auto():
            self._tune(X, y, weights, codes, clock)
        else:
            prepared, problem = self._prepare(X, y, weights, self._power_choices()[0], self.n_components)
            problem = problem.with_weight_decay(float(self.weight_decay))
            start = self._start(prepared, problem, X, weights) if self.warm_start else None
            self._learn(prepared, problem, clock, checkpoint=self.checkpoint, start=start)

    def _start(self, prepared: Prepared, problem: Problem, X: np.ndarray, weights: np.ndarray) -> Any:
        """Neurons of the network of the last fit, None if there is none that the problem could start from."""
        network: Any = getattr(self, "network_", None)
        empty: Any = prepared.network(problem.zero_network)
        if self.activation != "relu" or type(network) is not type(empty) or len(network) == 0:
            return None
        if network.weights.shape[1] != empty.weights.shape[1] or network.n_outputs != empty.n_outputs:
            return None
        try:
            neurons = prepared.neurons(network.with_statistics(X, weights))
        except ValueError:  # a neuron does not vary over X
            return None
        return neurons if self.fit_intercept else replace(neurons, intercept=np.zeros(problem.n_outputs))

    def _distinct(
        self, X: np.ndarray, y: np.ndarray, weights: np.ndarray, groups: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """Samples of positive weight, equal ones merged unless they are read in blocks, and their groups."""
        if isinstance(X, RowSource):
            kept = weights > 0
            X = X if kept.all() else X.part(np.flatnonzero(kept))
            return X, y[kept], weights[kept], None if groups is None else groups[kept]
        if groups is None:
            return *merge_equal_samples(X, y, weights), None
        X, targets, weights = merge_equal_samples(X, np.column_stack([y, groups]), weights)
        return X, targets[:, :-1], weights, targets[:, -1]

    def _folds(
        self, problem: Problem, y: np.ndarray, rng: np.random.Generator, groups: np.ndarray | None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Samples to train on and to validate on, for each fold."""
        return hold_out(problem, y, rng, stratified=self._margin, groups=groups)

    def _tune(self, X: np.ndarray, y: np.ndarray, weights: np.ndarray, groups: np.ndarray | None, clock: Clock) -> None:
        """Choose weight decay and spectral power on held-out samples, then train on all."""
        facts, seed = choice_facts(self), fixed_seed(self)
        prepared: dict[tuple[float, bool], tuple[Prepared, Problem]] = {}

        def of_candidate(candidate: Candidate) -> tuple[Prepared, Problem]:
            power, metric = candidate.spectral_power, candidate.feature_metric
            key = power, metric is not None
            if key not in prepared and metric is not None:
                prepared[key] = with_feature_metric(*of_candidate(Candidate(power, candidate.n_components)), metric)
            elif key not in prepared:
                prepared[key] = self._prepare(X, y, weights, power, candidate.n_components)
            return prepared[key]

        def problem_of(candidate: Candidate) -> Problem:
            return of_candidate(candidate)[1]

        def learned(curve: Curve) -> np.ndarray | None:
            return learned_metric(curve, of_candidate(curve.candidate)[0].design)

        closed_form = self.solver == "closed_form"  # of power 0 alone
        powers = None if self._searches_power and not closed_form else self._power_choices()
        some = problem_of(Candidate((powers or [0.0])[0], self.n_components))
        if closed_form:
            check_closed_form(some)
        of_groups = [] if groups is None else [groups]
        file = Checkpoint(self.checkpoint, lambda: fingerprint_of(some, facts, of_groups), Options, ProofOptions)
        choice = file.get("choice")
        if choice is None:
            drawn = file.once("seed", lambda: seed)
            learns = learned if self._learns_metric and powers is None else lambda curve: None
            choice = self._choice(problem_of, powers, some, y, groups, drawn, clock, file, learns)
            if choice[2] is not None:  # else nothing was compared
                file.keep("choice", choice, alone=True)
        power, weight_decay, table, limits, metric = choice
        ready, problem = of_candidate(Candidate(power, self.n_components, metric))
        problem = replace(problem, weight_decay=weight_decay)
        if self.verbose and table is not None:
            learned_too = "" if metric is None else ", learned feature metric"
            print(f"chosen: spectral_power={power:g}{learned_too}, {weight_decay=:.3g}; last fit", flush=True)
        within = None if self.checkpoint is None else file
        self._learn(ready, problem, clock, checkpoint=within, **limits)
        if table is None:
            return
        if self.verbose:
            print(f"last fit: {counted(len(self.network_), 'neuron')}, {self.certificate_._summary()}", flush=True)
        self.validation_scores_ = table

    def _choice(
        self,
        problem_of: Callable[[Candidate], Problem],
        powers: list[float] | None,
        some: Problem,
        y: np.ndarray,
        groups: np.ndarray | None,
        seed: int,
        clock: Clock,
        file: Checkpoint,
        learns: Callable[[Curve], np.ndarray | None],
    ) -> tuple[float, float, dict[str, np.ndarray] | None, dict[str, Any], np.ndarray | None]:
        """Spectral power, weight decay, table of the validation, start and limits of the last fit, feature metric.

        Where nothing is compared on held-out samples, the usual share of the largest weight decay, without a table.
        """
        power, rng = (powers or [0.0])[0], np.random.default_rng(seed)
        folds = self._folds(some, y, rng, groups)
        if not folds:
            return power, AUTO_FRACTION * weight_decay_max(some) or 1.0, None, {}, None
        time = Clock(clock.left(_TUNING_SHARE))
        with warnings.catch_warnings():  # outside of the threads, which share the filters
            warnings.simplefilter("ignore", ConvergenceWarning)
            tuning = tune(
                problem_of,
                powers,
                folds,
                partial(self._follow, seed, time),
                n_components=self.n_components,
                rng=rng,
                n_jobs=self.n_jobs if self._has_fast_path else None,  # cvxpy sets the filters, too
                clock=time,
                report=_Stages().report if self.verbose else lambda curve: None,
                once=file.once,
                learned_metric=learns,
            )
        if not tuning.compared:  # there was no time to
            power, largest = tuning.candidate.spectral_power, tuning.curves[0].largest
            return power, AUTO_FRACTION * largest or 1.0, None, {}, None
        problem = replace(problem_of(tuning.candidate), weight_decay=tuning.weight_decay)
        limits = self._last_fit(problem, tuning.curves[0].average, tuning.work, clock)
        chosen = tuning.candidate
        return chosen.spectral_power, tuning.weight_decay, tuning.table, limits, chosen.feature_metric

    def _follow(self, seed: int, clock: Clock, problem: Problem, weight_decays: np.ndarray) -> Iterator[Neurons]:
        """Networks along a path, to compare weight decays: by the fast preset, or the solver at a coarse tolerance."""
        if self._has_fast_path:
            yield from fast_path(problem, weight_decays, random_state=seed, stop=clock.is_out)
            return
        for solution in self._coarse_path(seed, clock, problem, weight_decays):
            if solution.status is Status.INTERRUPTED:
                raise KeyboardInterrupt
            yield solution.neurons

    def _coarse_path(self, seed: int, clock: Clock, problem: Problem, weight_decays: np.ndarray) -> Iterator[Solution]:
        """Solutions along a path to a coarse tolerance."""
        if self.activation == "gated_relu":
            found = working_set_path(
                problem,
                weight_decays,
                n_patterns=self.n_patterns,
                random_state=seed,
                solver=self.solver,
                tol=_COARSE_TOL,
                relative_to="zero_network",
                max_iter=self.max_iter or 500,
                stop=clock.is_out,
            )
            if found is not None:
                yield from found
                return
        coarse, start = clone(self).set_params(tol=_COARSE_TOL, callback=None, verbose=False), None
        for weight_decay in weight_decays:
            solution = coarse._solve(problem.with_weight_decay(float(weight_decay)), seed, start, clock.left())
            yield solution
            start = solution.neurons


class _Stages:
    """Lines of the stages of a choice, each with the best loss so far on the same held-out samples."""

    def __init__(self) -> None:
        self.best: dict[tuple[int, int], float] = {}

    def report(self, curve: Curve) -> None:
        """Print the line of a candidate's curve."""
        held_out = curve.n_validated, len(curve.folds[0][1])
        self.best[held_out] = min(curve.least, self.best.get(held_out, np.inf))
        print(f"{curve}; best so far {self.best[held_out]:.5g}", flush=True)


def _group_codes(groups: ArrayLike | None, n_samples: int) -> np.ndarray | None:
    """Numbers of the groups (n,), or None if none are given; a ValueError if they are not as many as samples."""
    if groups is None:
        return None
    labels = np.asarray(groups)
    if labels.shape != (n_samples,):
        raise ValueError(f"groups must hold a label for each of the {n_samples} samples, got shape {labels.shape}.")
    try:
        return np.unique(labels, return_inverse=True)[1].astype(float)
    except TypeError as error:
        raise ValueError("groups must hold labels of one kind, numbers or strings, none of them missing.") from error
