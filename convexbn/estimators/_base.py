"""What the estimators share: from data to a problem, and from a problem to a certified network."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from convexbn._utils.array_namespace import to_numpy
from convexbn._utils.checks import (
    check_choice,
    check_count,
    check_flag,
    check_n_jobs,
    check_verbose,
    is_integer,
    is_seed,
)
from convexbn._utils.data_checks import check_X_y, validate_data
from convexbn._utils.row_order import as_rows
from convexbn._utils.sample_weight import merge_equal_samples
from convexbn._utils.threads import on_threads
from convexbn._utils.torch_device import check_device
from convexbn._utils.user_warning import warn_user
from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._checks import check_features, check_spectral_power
from convexbn.designs._design import PRECISIONS, SPARSE
from convexbn.designs._normalizations import NORMALIZATIONS, make_design
from convexbn.designs._weight_norm import WeightNormDesign
from convexbn.estimators._last_fit import last_fit
from convexbn.estimators._onnx import OnnxEstimator
from convexbn.estimators._persistence import StoredEstimator
from convexbn.estimators._place import NUMPY, Place, host, is_dispatched
from convexbn.losses import LOSSES, Loss, make_loss
from convexbn.model._activation import ACTIVATIONS, Activation
from convexbn.model._make_problem import make_problem
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.network import GatedNetwork, NormalizedNetwork, make_network
from convexbn.network._onnx import Graph, Output
from convexbn.rows import RowSource
from convexbn.solvers import solve
from convexbn.solvers._auto import check_has_rounds, check_solver
from convexbn.solvers._certificate import Certificate, Setting
from convexbn.solvers._checkpoint import check_checkpoint
from convexbn.solvers._monitor import Callback, Clock, answer_of, check_callback, check_max_time
from convexbn.solvers._solution import Progress, Solution, Status
from convexbn.solvers._tolerance import Tolerance, check_tol
from convexbn.solvers.relu._proof import check_prove
from convexbn.solvers.relu._state import Proof

_ROUNDING = 1e-12  # of a share of the variance


@dataclass(frozen=True, eq=False)
class Prepared:
    """The fitted design and output scales of a problem, which map its neurons to a network on the data.

    Parameters
    ----------
    design : BatchNormDesign or WeightNormDesign
        The fitted design.
    output_scales : ndarray of shape (C,)
        What the targets were divided by.
    """

    design: BatchNormDesign | WeightNormDesign
    output_scales: np.ndarray

    def network(self, neurons: Neurons) -> NormalizedNetwork | GatedNetwork:
        """Network on the data, with outputs on the scale of the targets."""
        network = make_network(neurons, self.design)
        if (self.output_scales == 1).all():
            return network
        return replace(
            network,
            output_weights=network.output_weights * self.output_scales,
            intercept=network.intercept * self.output_scales,
        )

    def neurons(self, network: NormalizedNetwork) -> Any:
        """Undo `network`: the neurons on the design matrix, with outputs scaled as in training."""
        return replace(
            network.neurons(self.design),
            output_weights=network.output_weights / self.output_scales,
            intercept=network.intercept / self.output_scales,
        )

    def explained(self, certificate: Certificate) -> Certificate:
        """The same certificate, with the data and the penalty of its training problem."""
        design = self.design
        truncated = design.variance_share_ < 1 - _ROUNDING
        setting = Setting(
            spectral_power=float(design.spectral_power),
            standardized=bool(getattr(design, "standardize", False)),
            feature_metric=getattr(design, "feature_metric", None) is not None,
            n_directions=len(design.spectral_weights_) if truncated else None,
            variance_left_out=1 - float(design.variance_share_) if truncated else 0.0,
            bias_unit=float(getattr(design, "bias_unit_", 1.0)),
            scaled_outputs=bool((self.output_scales != 1).any()),
        )
        return replace(certificate, setting=setting)


@dataclass(kw_only=True, eq=False, repr=False)
class BaseConvexBN(OnnxEstimator, StoredEstimator, BaseEstimator, ABC):
    """Base class of the estimators; `_margin` says which losses they take. Its fields are their parameters."""

    activation: Activation = "relu"
    loss: str | Loss = "squared_error"
    fit_intercept: bool = True
    n_components: Any = None
    spectral_power: Any = "auto"
    n_patterns: int = 50
    solver: str = "auto"
    tol: float = 1e-4
    max_iter: int | None = None
    max_time: float | None = None
    prove: Proof = "auto"
    n_jobs: int | None = None
    device: str | None = None
    random_state: int | np.random.RandomState | np.random.Generator | None = 0
    checkpoint: str | PathLike[str] | None = None
    callback: Callback | None = None
    verbose: bool | int = False
    _margin: ClassVar[bool]
    _reads_blocks: ClassVar[bool] = False  # whether X may be a `RowSource`
    _status: Status = field(init=False)
    _place: Place = field(init=False, default=NUMPY)

    def _fit(self, X: Any, y: Any, sample_weight: ArrayLike | None, given: Any) -> Self:
        """Train; an error leaves the estimator as it was, and so does an interrupt before there is a network."""
        clock = Clock(self.max_time)
        self._check_parameters()
        if isinstance(X, RowSource):
            y, sample_weight = self._of_source(X, y, sample_weight)
        before = vars(self).copy()
        try:
            self._place = Place.of(X, self.device)
            with on_threads(self.n_jobs):
                self._train(*self._samples(host(X), host(y), host(sample_weight)), clock, given)
            self.__dict__.update({name: self._place.attribute(value) for name, value in vars(self).items()})
        except BaseException:
            self.__dict__ = before
            raise
        if self._status is Status.INTERRUPTED:
            raise KeyboardInterrupt("fit was interrupted; the estimator has the best network so far.")
        return self

    def _of_source(self, X: RowSource, y: Any, sample_weight: Any) -> tuple[Any, Any]:
        """Targets and weights of samples that are read in blocks, those given before those of the source."""
        if not self._reads_blocks:
            raise ValueError(
                f"X={X!r} is read in blocks, which {type(self).__name__} does not do; take ConvexBNRegressor or "
                "ConvexBNClassifier, or read a part of it into memory by X.take(indices)."
            )
        y = X.y if y is None else y
        if y is None:
            raise ValueError("X has no targets; give y, or name them in read_rows(..., target=...).")
        return y, X.sample_weight if sample_weight is None else sample_weight

    @abstractmethod
    def _samples(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Validated data (n, ...), targets (n, C) as the loss takes them, and weights (n,)."""

    @abstractmethod
    def _train(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray, clock: Clock, given: Any) -> None:
        """Learn the network of what `_samples` returned; `given` is what else `fit` was given."""

    def _training_loss(self) -> Loss:
        return make_loss(self.loss)

    @abstractmethod
    def _validate(self, X: ArrayLike, y: Any = "no_validation", **options: Any) -> Any:
        """Data, and targets if given, as scikit-learn checks them, with its options."""

    @abstractmethod
    def _unfitted_design(
        self, n_components: int | float | None, spectral_power: float
    ) -> BatchNormDesign | WeightNormDesign:
        """The design of the data, to be fitted."""

    def _output_scales(self, y: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
        """What the outputs (n, C) are divided by in training."""
        return np.ones(y.shape[1])

    def _class_weighted(self, y: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
        """Sample weights times those of the classes."""
        return sample_weight

    def _problem(
        self,
        X: np.ndarray,
        y: np.ndarray,
        sample_weight: np.ndarray,
        spectral_power: float,
        n_components: int | float | None,
    ) -> tuple[Prepared, Problem]:
        """Prepared data and training problem, whose weight decay is not set yet."""
        merged = merge_equal_samples(X, y, self._class_weighted(y, sample_weight))
        return self._prepare(*merged, spectral_power, n_components)

    def _prepare(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weights: np.ndarray,
        spectral_power: float,
        n_components: int | float | None,
    ) -> tuple[Prepared, Problem]:
        """Prepared data and training problem of distinct samples."""
        design = self._unfitted_design(n_components, spectral_power).fit(X, sample_weight=weights)
        prepared = Prepared(design, self._output_scales(y, weights))
        problem = make_problem(
            design,
            X,
            y / prepared.output_scales,
            self._training_loss(),
            weight_decay=1.0,
            fit_intercept=self.fit_intercept,
            sample_weight=weights,
        )
        return prepared, self._place.problem(problem)

    @property
    def _auto_power(self) -> bool:
        return isinstance(self.spectral_power, str) and self.spectral_power == "auto"

    @property
    def _searches_power(self) -> bool:
        """Whether a choice that is left to the estimator compares spectral powers."""
        return self._auto_power and self._unfitted_design(None, 0.0).whitens

    def _power_choices(self) -> list[float]:
        """Spectral powers to choose among; where none is searched, "auto" is plain batch normalization."""
        return [0.0 if self._auto_power else self.spectral_power]

    @property
    def _has_fast_path(self) -> bool:
        """Whether the fast preset of column generation trains such networks."""
        return self.activation == "relu"

    def _last_fit(self, problem: Problem, start: Callable[[], Neurons], work: int, clock: Clock) -> dict[str, Any]:
        """Options of the last fit, after a choice along fast paths that ended at a network and took so much work."""
        smooth = bool(np.isfinite(problem.loss.curvature))
        if not (self._has_fast_path and smooth and self.solver in ("auto", "column_generation")):
            return {}
        options = last_fit(problem, start(), work, clock)
        proves = self.prove != "auto" and bool(self.prove)
        if proves or self.max_iter is not None or self.max_time is not None:  # until tol, or the limit that is given
            return {name: value for name, value in options.items() if name == "start"}
        return options

    def _solve(
        self,
        problem: Problem,
        random_state: int | np.random.Generator | None,
        start: Neurons | None = None,
        max_time: float | None = None,
        prove: Proof = False,
        verbose: bool = False,
        **limits: Any,
    ) -> Solution:
        return solve(
            problem,
            activation=self.activation,
            solver=self.solver,
            n_patterns=self.n_patterns,
            tol=self.tol,
            relative_to="zero_network",
            max_time=max_time,
            random_state=random_state,
            verbose=verbose,
            start=start,
            prove=prove,
            **{"max_iter": self.max_iter, **limits},
        )

    def _learn(self, prepared: Prepared, problem: Problem, clock: Clock, **limits: Any) -> None:
        """Set the fitted attributes of the network that solves a problem, from a start and within limits if given."""
        options: dict[str, Any] = {"max_time": clock.left(), "prove": self.prove, "verbose": bool(self.verbose)}
        limited, tolerance = "options" in limits, Tolerance.of(problem, self.tol, "zero_network")
        answers: list[bool] = []
        if self.callback is not None:
            options["callback"] = partial(_answered, self.callback, answers)
        with warnings.catch_warnings():
            if limited:
                warnings.simplefilter("ignore", ConvergenceWarning)
            solution = self._solve(problem, self._seed(), **options, **limits)
        ended = any(answers)
        if limited and not ended and not tolerance.reached_by(solution.certificate):
            warn_user(
                f"The last fit stopped at a {tolerance.in_words(solution.certificate)}, above tol={self.tol:.1e}, "
                "after about as much work as the choice of the weight decay. Give max_time or max_iter, or prove=True, "
                "and it goes on until that limit; or raise tol.",
                ConvergenceWarning,
            )
        self.network_ = prepared.network(solution.neurons)
        self.certificate_ = prepared.explained(solution.certificate)
        self.weight_decay_ = problem.weight_decay
        self.spectral_power_ = float(prepared.design.spectral_power)
        self.n_iter_ = solution.n_iter
        self._status = Status.NOT_CONVERGED if ended else solution.status

    def _seed(self) -> int | np.random.Generator | None:
        if isinstance(self.random_state, np.random.RandomState):
            return int(self.random_state.randint(2**31))
        return self.random_state

    def _check_parameters(self) -> None:
        """Raise a ValueError that names the first parameter out of range, before any work."""
        check_choice("activation", self.activation, ACTIVATIONS)
        losses = sorted(name for name, loss in LOSSES.items() if loss.margin == self._margin)
        known = isinstance(self.loss, Loss) or (isinstance(self.loss, str) and self.loss in LOSSES)
        if not known or make_loss(self.loss).margin != self._margin:
            raise ValueError(f"loss={self.loss!r} is not one that {type(self).__name__} takes; choose one of {losses}.")
        if not isinstance(self.solver, str):
            raise ValueError(f"solver={self.solver!r} must be the name of a solver, such as 'auto'.")
        check_solver(self.solver, self.activation)
        for power in self._power_choices():
            check_spectral_power(power)
        check_flag("fit_intercept", self.fit_intercept)
        seed = self.random_state
        if not (isinstance(seed, (np.random.RandomState, np.random.Generator)) or seed is None or is_seed(seed)):
            raise ValueError(
                f"random_state={seed!r} must be None, an integer from 0 on, or a RandomState or Generator."
            )
        check_count("n_patterns", self.n_patterns)
        check_count("max_iter", self.max_iter, optional=True)
        check_n_jobs(self.n_jobs)
        check_verbose(self.verbose)
        check_tol(self.tol)
        check_max_time(self.max_time)
        check_callback(self.callback)
        check_checkpoint(self.checkpoint)
        check_prove(self.prove)
        check_device(self.device)
        check_has_rounds(self.checkpoint, self.activation, make_loss(self.loss), self.solver, seed)

    def _outputs(self, X: Any, method: str) -> Any:
        """Outputs (n, C) of the network for a method of this name, where X is."""
        check_is_fitted(self)
        if isinstance(X, RowSource):
            check_features(self, X, reset=False)
            return np.concatenate([self.network_.predict(block.X) for block in X])
        self._place.check_same(X, f"{type(self).__name__}.{method}")
        data = self._validate(X, reset=False)
        if self._place.example is None or self._place.follows:
            return self.network_.predict(data)
        return to_numpy(self.network_.predict(self._place.bring(data)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags

    def _onnx_outputs(self, graph: Graph, x: str) -> list[Output]:
        return self._named_outputs(graph, self.network_._add_to(graph, x))

    @abstractmethod
    def _named_outputs(self, graph: Graph, f: str) -> list[Output]:
        """Add what the estimator makes of network outputs (n, C), and return it."""

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")


@dataclass(kw_only=True, eq=False, repr=False)
class Dense(BaseConvexBN):
    """What makes an estimator dense: X is a table."""

    normalization: str = "batch"
    standardize: bool = True

    def _check_parameters(self) -> None:
        check_choice("normalization", self.normalization, NORMALIZATIONS)
        check_flag("standardize", self.standardize)
        super()._check_parameters()
        if not NORMALIZATIONS[self.normalization].after_relu:
            return
        if self.activation != "relu":
            raise ValueError(
                f"activation={self.activation!r} is trained with normalization before the activation; take "
                "normalization='batch', or activation='relu'."
            )
        if any(self._power_choices()):
            raise ValueError(
                f"spectral_power={self.spectral_power!r} has no meaning for normalization='batch_after_relu', whose "
                "problem does not depend on the lengths of singular directions; leave it at 'auto' or 0."
            )

    def _unfitted_design(
        self, n_components: int | float | None, spectral_power: float
    ) -> BatchNormDesign | WeightNormDesign:
        return make_design(self.normalization, n_components, spectral_power, self.standardize)

    def _validate(self, X: ArrayLike, y: Any = "no_validation", **options: Any) -> Any:
        if is_dispatched(X):  # with `reset=False`, since `fit` works on a copy in NumPy
            validate_data(self, X, skip_check_array=True, **options)
            return X
        if isinstance(X, RowSource):  # in `fit` alone
            zeros = np.zeros((X.n_rows, 1), dtype=np.int8)
            _, targets = check_X_y(zeros, y, dtype=None, estimator=self, **options)
            check_features(self, X, reset=True)
            return X, targets
        if issparse(X) and options.get("reset", True) and not self._takes_sparse():
            raise ValueError(f"{SPARSE} Gated networks take the first only.")
        if getattr(X, "ndim", 2) > 2:
            raise ValueError(
                f"X must have shape (n, d), got {np.shape(X)}; use X.reshape(len(X), -1), or for images "
                "ConvexBNConvRegressor or ConvexBNConvClassifier."
            )
        alone = isinstance(y, str)
        found = validate_data(self, X, y, dtype=PRECISIONS, accept_sparse="csr", **options)
        data, *targets = [found] if alone else found
        data = as_rows(data) if issparse(data) else data
        return data if alone else (data, *targets)

    def _component_choices(self) -> list[Any]:
        """Numbers of components to choose among."""
        return [self.n_components]

    def _takes_sparse(self) -> bool:
        """Whether `fit` takes sparse X: where the design does; gated networks work on dense rows."""
        choices = self._component_choices()
        few = self.activation == "relu" or all(map(is_integer, choices))
        return few and all(self._unfitted_design(n, p).takes_sparse for n in choices for p in self._power_choices())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self._takes_sparse()
        return tags


def _answered(callback: Callback, answers: list[bool], progress: Progress) -> bool:
    """Call a callback, and keep its answer."""
    answers.append(answer_of(callback, progress))
    return answers[-1]


def fixed_seed(model: BaseConvexBN) -> int:
    """Seed that gives every problem of a path the same patterns."""
    seed = model._seed()
    return int(
        np.random.default_rng(seed).integers(2**31) if seed is None or isinstance(seed, np.random.Generator) else seed
    )
