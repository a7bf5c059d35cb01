"""Training at the weight decay, and the number of components, that cross-validation chooses."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn import get_config
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import indexable
from sklearn.utils.metadata_routing import UNUSED, MetadataRouter, MethodMapping, process_routing
from sklearn.utils.parallel import Parallel, delayed

from convexbn._utils.threads import on_one_thread
from convexbn.estimators._base import Dense, Prepared, fixed_seed
from convexbn.estimators._choice_facts import choice_facts
from convexbn.estimators._curve import Candidate, score_table
from convexbn.estimators._folds import Fold, check_cv_parameter, make_folds
from convexbn.estimators._last_fit import average_of_parts
from convexbn.estimators._path import check_grid, follow_path, gaps_along, make_grid
from convexbn.estimators._place import host
from convexbn.estimators._race import AUTO_FRACTION
from convexbn.estimators._scoring import FoldScorer, make_scorer, takes_sample_weight
from convexbn.model._problem import Problem
from convexbn.network import GatedNetwork, NormalizedNetwork
from convexbn.oracles import weight_decay_max
from convexbn.solvers._checkpoint import Checkpoint, fingerprint_of
from convexbn.solvers._fast_path import fast_path
from convexbn.solvers._monitor import Clock, Monitor, answer_of
from convexbn.solvers._solution import Progress
from convexbn.solvers._tolerance import warn_of_gaps
from convexbn.solvers.relu._fast import price_quickly
from convexbn.solvers.relu._options import FAST, Options, ProofOptions

Components = int | float | None
PathScores = tuple[np.ndarray, np.ndarray]  # scores on the test samples, and gaps
_POWERS = (0.0, 0.5, 1.0)  # spectral powers that are compared unless others are given
_EQUAL = 1e-6  # share of the range of mean scores by which they may differ and count as equal


@dataclass(frozen=True)
class Given:
    """What `fit` was given, before it was validated: data and targets as they are, and metadata."""

    X: Any
    y: Any
    groups: Any
    params: dict[str, Any]


@dataclass(kw_only=True, eq=False, repr=False)
class CrossValidated(Dense):
    """Base class of the estimators that choose their weight decay along the path."""

    weight_decays: Sequence[float] | np.ndarray | None = None
    n_weight_decays: int = 11
    eps: float = 1e-5
    cv: Any = None
    scoring: str | Callable | None = None
    __metadata_request__fit: ClassVar = {"groups": UNUSED}  # the splitter's, not the estimator's own

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        **params: Any,
    ) -> Self:
        """Choose the weight decay, and train the network.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n, d)
            Training data, at least two samples. Sparse X requires `n_components` (ints), or ``normalization="weight"``.
        y : array-like of shape (n,) or (n, C)
            Targets of a regressor, one column an output; labels, numbers or strings, of a classifier.
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples, from zero on, in the loss and in the batch statistics, and in the scores if the
            scorer takes weights. A weight of zero is as good as no sample. All equal if None.
        groups : array-like of shape (n,) or None, default=None
            Groups of the samples, for splitters that keep them together.
        **params : dict
            Further metadata for splitter and scorer, where scikit-learn routes metadata
            (``set_config(enable_metadata_routing=True)``). Its rules then also decide whether the scorer is given
            `sample_weight`; the default score requests it.

        Returns
        -------
        self : estimator

        Raises
        ------
        ValueError
            If a parameter or the data is out of range, or the test folds cannot be scored; the message names it. The
            estimator is left as it was.
        RuntimeError
            If a cvxpy solver fails; the estimator is left as it was.
        TypeError
            If y is sparse, or X or y is no array, or metadata are routed that neither splitter nor scorer takes.
        KeyboardInterrupt
            After Ctrl-C. The estimator keeps the best network so far if the last fit has begun; else it is left as it
            was.

        Warns
        -----
        ConvergenceWarning
            If the gap exceeds `tol`.
        """
        if params and not get_config()["enable_metadata_routing"]:
            raise ValueError(
                f"fit got {sorted(params)}, which scikit-learn gives to splitter and scorer where metadata are routed; "
                "call sklearn.set_config(enable_metadata_routing=True), or leave them out."
            )
        return self._fit(X, y, sample_weight, Given(host(X), host(y), host(groups), params))

    def get_metadata_routing(self) -> MetadataRouter:
        """Return what splitter and scorer request of the metadata of `fit`."""
        return (
            MetadataRouter(owner=self)
            .add_self_request(self)
            .add(splitter=self.cv, method_mapping=MethodMapping().add(caller="fit", callee="split"))
            .add(scorer=self._scorer(), method_mapping=MethodMapping().add(caller="fit", callee="score"))
        )

    @property
    @abstractmethod
    def _default_scoring(self) -> str:
        """Name of the scorer that is taken where none is given."""

    def _scorer(self) -> Callable:
        return make_scorer(self, self.scoring, self._default_scoring)

    def _check_parameters(self) -> None:
        check_grid(self.weight_decays, self.n_weight_decays, self.eps)
        self._scorer()
        if self.checkpoint is not None and getattr(self.scoring, "__name__", "") == "<lambda>":
            raise ValueError(
                "scoring is a lambda, and a checkpoint tells functions by their names; give one that has a name."
            )
        check_cv_parameter(self.cv)
        super()._check_parameters()
        for name, choices in (("n_components", self._component_choices()), ("spectral_power", self._power_choices())):
            if not choices:
                raise ValueError(f"{name}=[] is empty; give at least one value, or leave it out.")

    def _component_choices(self) -> list[Components]:
        return _listed(self.n_components)

    def _power_choices(self) -> list[float]:
        if self._searches_power:
            return list(_POWERS)
        return super()._power_choices() if self._auto_power else _listed(self.spectral_power)

    def _train(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray, clock: Clock, given: Given) -> None:
        folds, scorer = self._folds_and_scorer(given, y, sample_weight)
        choices = [Candidate(power, n) for n in self._component_choices() for power in self._power_choices()]
        problems = [
            self._problem(X, y, sample_weight, choice.spectral_power, choice.n_components) for choice in choices
        ]
        scorer.check([self._with_network(network) for network in _trial_networks(*problems[0])], folds)
        # The grid starts at the largest of all choices: that of the choice with the largest estimate is computed.
        _, steepest = max(problems, key=lambda pair: price_quickly(pair[1], random_state=0))
        largest = weight_decay_max(steepest)
        self.weight_decays_ = make_grid(largest, self.weight_decays, self.n_weight_decays, self.eps)

        file, seed = self._file(problems[0][1], X, y, sample_weight, folds, given), fixed_seed(self)
        seed = file.once("seed", lambda: seed)
        choice = file.get("choice")
        if choice:
            paths, whole = choice["paths"], True
        else:
            paths, whole = self._paths(X, y, sample_weight, folds, scorer, choices, seed, clock, file)
        done = np.array([path is not None for path in paths]).reshape(len(choices), len(folds))
        scores, gaps = (np.stack(parts) for parts in zip(*filter(None, paths), strict=True))
        warn_of_gaps(gaps, self.tol, "zero_network")
        self.scores_ = np.full((len(choices), len(folds), len(self.weight_decays_)), np.nan)
        self.scores_[done] = scores
        self.scores_ = self.scores_.transpose(0, 2, 1)
        mean = self.scores_[:, :, done[0]].mean(axis=2)
        if not np.isfinite(mean).any():
            raise ValueError("No score is finite; check scoring, and whether every test fold of cv can be scored.")
        best = choice["best"] if choice else self._best(mean)
        self.best_score_ = float(mean[best])
        self.n_components_ = choices[best[0]].n_components
        self.validation_scores_ = self._table(choices, folds)
        prepared, problem = problems[best[0]]
        problem = problem.with_weight_decay(float(self.weight_decays_[best[1]]))
        if choice is None:
            work = scores.size * problem.Z.n_rows * FAST.work_a_row(problem.Z.n_samples)
            values = self.weight_decays_[: best[1] + 1]
            start = partial(
                average_of_parts, problem, values, seed, stratified=self._margin, n_jobs=self.n_jobs, clock=clock
            )
            choice = {"paths": paths, "best": best, "limits": self._last_fit(problem, start, work, clock)}
            if whole:  # else a later fit chooses again
                file.keep("choice", choice, alone=True)
        within = file if file.get("choice") else None
        self._learn(prepared, problem, clock, checkpoint=within, **choice["limits"])

    def _file(
        self,
        problem: Problem,
        X: Any,
        y: np.ndarray,
        sample_weight: np.ndarray,
        folds: list[Fold],
        given: Given,
    ) -> Checkpoint:
        """The checkpoint of these data, in their order, of folds and parameters."""
        rows = [X.data, X.indices, X.indptr] if issparse(X) else [X]
        arrays = [*rows, y, sample_weight, *(part for fold in folds for part in fold)]
        facts = [choice_facts(self), given.params]
        return Checkpoint(self.checkpoint, lambda: fingerprint_of(problem, facts, arrays), Options, ProofOptions)

    def _paths(
        self,
        X: np.ndarray,
        y: np.ndarray,
        sample_weight: np.ndarray,
        folds: list[Fold],
        scorer: FoldScorer,
        choices: list[Candidate],
        seed: int,
        clock: Clock,
        file: Checkpoint,
    ) -> tuple[list[PathScores | None], bool]:
        """Scores and gaps along the path of each choice on each fold, and whether no limit cut one short.

        After the callback ended the comparison they are None. Paths in the file are not followed again. Where paths are
        kept or reported, `n_jobs` of them are awaited.
        """
        pairs = [(choice, number) for choice in choices for number in range(len(folds))]
        names = [f"{choice}, fold {number}" for choice, number in pairs]
        paths: list[PathScores | None] = [file.get(name) for name in names]
        missing = [index for index, path in enumerate(paths) if path is None]
        n_jobs = effective_n_jobs(self.n_jobs)
        rounds = -(-len(missing) // n_jobs)
        share, time = clock.left(1 / (rounds + 1)), Clock(clock.left(rounds / (rounds + 1)))
        together = len(missing) if file.path is None and self.callback is None else n_jobs
        all_whole = True
        worker = copy(self)
        worker.cv = worker.callback = None  # an iterator, and many a function, cannot be pickled
        with Parallel(n_jobs=self.n_jobs, verbose=self.verbose) as parallel:
            while missing:
                some, missing = missing[:together], missing[together:]
                results = parallel(
                    delayed(_score_path)(
                        worker,
                        X,
                        y,
                        sample_weight,
                        folds[number],
                        scorer,
                        choice,
                        self.weight_decays_,
                        seed,
                        share,
                        time,
                    )
                    for choice, number in (pairs[index] for index in some)
                )
                for index, (path, _, whole) in zip(some, results, strict=True):
                    paths[index] = path
                    all_whole &= whole
                    if whole:
                        file.keep(names[index], path)
                reports = [progress for _, history, _ in results for progress in history]
                if self.callback is not None and any(answer_of(self.callback, progress) for progress in reports):
                    break
        return paths, all_whole and all(path is not None for path in paths)

    def _out_of_time(self, mean: np.ndarray) -> bool:
        """Whether there was no time for networks that differ."""
        return self.max_time is not None and np.ptp(mean[np.isfinite(mean)]) == 0

    def _best(self, mean: np.ndarray) -> tuple[int, int]:
        """Indices of the choice and the weight decay of the best mean score (n_choices, n_weight_decays)."""
        if self._out_of_time(mean):
            usual = int(np.abs(np.log(self.weight_decays_ / self.weight_decays_[0] / AUTO_FRACTION)).argmin())
            return int(np.isfinite(mean[:, usual]).argmax()), usual
        finite = mean[np.isfinite(mean)]
        first = np.argmax(mean >= finite.max() - _EQUAL * np.ptp(finite))
        choice, index = np.unravel_index(int(first), mean.shape)
        return int(choice), int(index)

    def _table(self, choices: list[Candidate], folds: list[Fold]) -> dict[str, np.ndarray]:
        """Columns of a table of the scores that are finite, for the number of components that was chosen."""
        rows = [
            (choice, index)
            for choice, candidate in enumerate(choices)
            for index in range(len(self.weight_decays_))
            if candidate.n_components == self.n_components_ and np.isfinite(self.scores_[choice, index]).any()
        ]
        return score_table(
            [choices[choice].spectral_power for choice, _ in rows],
            [self.weight_decays_[index] for _, index in rows],
            self.weight_decays_[0],
            np.full(len(rows), np.mean([len(train) for train, _ in folds])),
            np.array([self.scores_[choice, index] for choice, index in rows]),
        )

    def _folds_and_scorer(
        self, given: Given, targets: np.ndarray, sample_weight: np.ndarray
    ) -> tuple[list[Fold], FoldScorer]:
        """Folds of the samples, and the scorer with what it is given."""
        X, y = indexable(given.X, given.y)
        scorer, metadata = self._scorer(), {"groups": given.groups, **given.params}
        for_splitter = {name: value for name, value in metadata.items() if value is not None}
        counted = self._class_weighted(targets, sample_weight) if self.scoring is None else sample_weight
        differ = np.ptp(counted[counted > 0]) > 0  # equal weights are left out: a scorer may take none
        weights = {"sample_weight": counted} if differ else {}
        for_scorer = weights if takes_sample_weight(scorer) else {}
        if get_config()["enable_metadata_routing"]:
            routed = process_routing(self, "fit", **weights, **for_splitter)
            for_splitter, for_scorer = routed["splitter"]["split"], routed["scorer"]["score"]
        folds = make_folds(self.cv, X, y, classifier=self._margin, sample_weight=sample_weight, metadata=for_splitter)
        return folds, FoldScorer(self.scoring, scorer, X, y, for_scorer)

    def _with_network(self, network: NormalizedNetwork | GatedNetwork) -> Self:
        """Return a copy that predicts with a network."""
        model = copy(self)
        model.network_, model._place = network, self._place.of_numpy()
        return model

    def _fold_networks(
        self,
        X: np.ndarray,
        y: np.ndarray,
        sample_weight: np.ndarray,
        choice: Candidate,
        weight_decays: np.ndarray,
        seed: int,
        max_time: float | None,
    ) -> tuple[Sequence[NormalizedNetwork | GatedNetwork], np.ndarray, list[Progress]]:
        """Networks along the path of training samples, gaps (n_weight_decays,) in the terms of `tol`, and progress."""
        return path_networks(self, X, y, sample_weight, choice, weight_decays, seed, max_time)


def _listed(choices: Any) -> list[Any]:
    """The values of a list, or the one value that is given instead."""
    return list(choices) if isinstance(choices, (list, tuple, np.ndarray)) and np.ndim(choices) else [choices]


@on_one_thread
def path_networks(
    model: CrossValidated,
    X: np.ndarray,
    y: np.ndarray,
    sample_weight: np.ndarray,
    choice: Candidate,
    weight_decays: np.ndarray,
    seed: int,
    max_time: float | None,
) -> tuple[Sequence[NormalizedNetwork | GatedNetwork], np.ndarray, list[Progress]]:
    """Networks along a path, their gaps (n_weight_decays,) in the terms of `tol`, and progress; an interrupt is raised.

    Along the fast path nothing is certified, and gaps are NaN; so they are where no time is left, and all networks are
    constants, of which no progress is reported.
    """
    clock = Clock(max_time)
    prepared, problem = model._problem(X, y, sample_weight, choice.spectral_power, choice.n_components)
    if model._has_fast_path:
        monitor, networks = Monitor("fast path"), []
        path_of_neurons = fast_path(problem, weight_decays, random_state=seed, stop=clock.is_out)
        for weight_decay, neurons in zip(weight_decays, path_of_neurons, strict=True):
            objective = problem.with_weight_decay(float(weight_decay)).objective(neurons)
            monitor.goes_on(objective, np.nan, len(neurons))
            networks.append(prepared.network(neurons))
        return networks, np.full(len(weight_decays), np.nan), monitor.history
    if clock.is_out():
        return [prepared.network(problem.zero_network)] * len(weight_decays), np.full(len(weight_decays), np.nan), []
    history: list[Progress] = []
    with warnings.catch_warnings():  # one warning is for all folds
        warnings.simplefilter("ignore", ConvergenceWarning)
        path = follow_path(
            model, prepared, problem, weight_decays, seed, max_time=clock.left(), callback=history.append
        )
    if len(path) < len(weight_decays):
        raise KeyboardInterrupt
    return path.networks, gaps_along(path, problem), history


def _score_path(
    model: CrossValidated,
    X: np.ndarray,
    y: np.ndarray,
    sample_weight: np.ndarray,
    fold: Fold,
    scorer: FoldScorer,
    choice: Candidate,
    weight_decays: np.ndarray,
    seed: int,
    share: float | None,
    time: Clock,
) -> tuple[PathScores, list[Progress], bool]:
    """Scores on the test samples and gaps in the terms of `tol` along a path, progress, and whether it is whole.

    The path may take a share of the time, but no longer than is left of all.
    """
    train, test = fold
    max_time = None if share is None else min(share, time.left() or share)
    clock = Clock(max_time)
    try:
        networks, gaps, history = model._fold_networks(
            X[train], y[train], sample_weight[train], choice, weight_decays, seed, max_time
        )
    except ValueError as error:
        raise ValueError(f"On the training samples of a fold of cv: {error}") from error
    whole = max_time is None or not (clock.is_out() or (gaps > model.tol).any())
    return (np.array([scorer(model._with_network(network), test) for network in networks]), gaps), history, whole


def _trial_networks(prepared: Prepared, problem: Problem) -> list[NormalizedNetwork | GatedNetwork]:
    """A network with constant outputs and one whose outputs vary, to test whether they can be scored."""
    (low, high), y = problem.Z.column_extremes, problem.y
    ranges = high - low
    column = ranges.argmax()
    direction = np.zeros((problem.Z.n_columns, 1))
    if ranges[column] > 0:
        direction[column] = (1 if high[column] > 0 else -1) / ranges[column]
    heights = np.ptp(y, axis=0) * (-1.0) ** np.arange(y.shape[1])
    constant = replace(problem, fit_intercept=True).zero_network
    return [
        prepared.network(neurons) for neurons in (constant, problem.neurons(direction, heights[None], y.mean(axis=0)))
    ]
