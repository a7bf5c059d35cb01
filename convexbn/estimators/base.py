"""What the estimators share: from validated data to a certified network."""

from abc import ABC, abstractmethod
from dataclasses import replace
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from convexbn.design import NORMALIZATIONS
from convexbn.losses import LOSSES, Loss, make_loss
from convexbn.matrix import DesignMatrix
from convexbn.network import make_network
from convexbn.problem import Problem, check_weight_decay
from convexbn.programs import ACTIVATIONS, Activation
from convexbn.sample_weight import merge_equal_samples
from convexbn.solvers import solve
from convexbn.solvers.auto import check_solver

AUTO_FRACTION = 0.03  # weight_decay="auto" is this fraction of weight_decay_max


class BaseConvexBN(BaseEstimator, ABC):
    """Base class of the estimators; `_margin` says which losses they take."""

    _margin: bool

    def __init__(
        self,
        weight_decay: float | str = "auto",
        *,
        normalization: str = "batch",
        activation: Activation = "relu",
        loss: str | Loss = "squared_error",
        fit_intercept: bool = True,
        n_components: int | float | None = None,
        n_patterns: int = 50,
        solver: str = "auto",
        tol: float = 1e-6,
        max_iter: int | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
        verbose: bool | int = False,
    ):
        self.weight_decay = weight_decay
        self.normalization = normalization
        self.activation = activation
        self.loss = loss
        self.fit_intercept = fit_intercept
        self.n_components = n_components
        self.n_patterns = n_patterns
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train the network.

        Equal samples are trained on as one of their total weight, so repeated rows and integer weights give the same
        network, and the order of the rows does not matter.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Training data, at least two samples.
        y : array-like of shape (n,)
            Targets of a regressor; labels of two classes, numbers or strings, of a classifier.
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples, from zero on, in the loss and in the batch statistics. A weight of zero is as good
            as no sample. All equal if None.

        Returns
        -------
        self : estimator

        Raises
        ------
        ValueError
            If a parameter or the data is out of range; the message names it. The estimator is left as it was.
        RuntimeError
            If a cvxpy solver fails; the estimator is left as it was.

        Warns
        -----
        ConvergenceWarning
            If the gap exceeds `tol`.
        """
        self._check_parameters()
        before = vars(self).copy()
        try:
            self._train(*merge_equal_samples(*self._samples(X, y, sample_weight)))
        except BaseException:
            self.__dict__ = before
            raise
        return self

    @abstractmethod
    def _samples(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Validated data (n, d), targets (n,), which are labels -1 and +1 for a margin loss, and weights (n,)."""

    def _train(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray) -> None:
        """Learn the network."""
        design = NORMALIZATIONS[self.normalization](n_components=self.n_components)
        design.fit(X, sample_weight=sample_weight)
        problem = Problem(
            DesignMatrix(design.transform(X), design.n_patches),
            y,
            self.loss,
            weight_decay=1.0,
            fit_intercept=self.fit_intercept,
            sample_weight=sample_weight,
        )
        problem = replace(problem, weight_decay=self._weight_decay_of(problem))
        solution = solve(
            problem,
            activation=self.activation,
            solver=self.solver,
            n_patterns=self.n_patterns,
            tol=self.tol,
            max_iter=self.max_iter,
            random_state=self._seed(),
            verbose=bool(self.verbose),
        )
        self.network_ = make_network(solution.neurons, design)
        self.certificate_ = solution.certificate
        self.weight_decay_ = problem.weight_decay
        self.n_iter_ = solution.n_iter

    def _weight_decay_of(self, problem: Problem) -> float:
        if not self._auto():
            return float(self.weight_decay)
        # At a weight_decay_max of zero the zero network fits perfectly and is optimal at any weight decay.
        return AUTO_FRACTION * problem.weight_decay_max or 1.0

    def _auto(self) -> bool:
        return isinstance(self.weight_decay, str) and self.weight_decay == "auto"

    def _seed(self) -> int | np.random.Generator | None:
        if isinstance(self.random_state, np.random.RandomState):
            return int(self.random_state.randint(2**31))
        return self.random_state

    def _check_parameters(self) -> None:
        """Raise a ValueError that names the first parameter out of range, before any work."""
        if not self._auto():
            check_weight_decay(self.weight_decay)
        for name, choices in (("normalization", NORMALIZATIONS), ("activation", ACTIVATIONS)):
            if getattr(self, name) not in list(choices):
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; choose one of {list(choices)}.")
        losses = sorted(name for name, loss in LOSSES.items() if loss.margin == self._margin)
        if (
            not (isinstance(self.loss, Loss) or self.loss in list(LOSSES))
            or make_loss(self.loss).margin != self._margin
        ):
            raise ValueError(f"loss={self.loss!r} is not one that {type(self).__name__} takes; choose one of {losses}.")
        check_solver(self.solver, self.activation)
        if not isinstance(self.fit_intercept, (bool, np.bool)):
            raise ValueError(f"fit_intercept={self.fit_intercept!r} must be True or False.")
        seed = self.random_state
        seeded = isinstance(seed, (np.random.RandomState, np.random.Generator)) or seed is None
        if not (seeded or (isinstance(seed, (int, np.integer)) and seed >= 0)):
            raise ValueError(
                f"random_state={seed!r} must be None, an integer from 0 on, or a RandomState or Generator."
            )
        for name, optional in (("n_patterns", False), ("max_iter", True)):
            value = getattr(self, name)
            integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 1
            if not (integer or (optional and value is None)):
                raise ValueError(f"{name}={value!r} must be a positive integer{' or None' if optional else ''}.")
        if not (isinstance(self.tol, Real) and 0 < self.tol < np.inf):
            raise ValueError(f"tol={self.tol!r} must be a positive number.")

    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return self.network_.predict(X)[:, 0]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")
