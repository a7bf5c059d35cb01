"""Halfspaces, trained by gradient descent in normalized parametrization."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from convexbn._utils.all_or_nothing import all_or_nothing
from convexbn._utils.checks import check_choice, check_count, check_flag, check_verbose, is_number
from convexbn._utils.data_checks import check_labels, validate_data
from convexbn._utils.user_warning import warn_user
from convexbn.estimators._onnx import OnnxEstimator, class_outputs
from convexbn.estimators._persistence import StoredEstimator
from convexbn.gradient.gdnp import LearningHalfspace, gdnp
from convexbn.gradient.gdnp._functions import LOSSES
from convexbn.losses import LogLoss
from convexbn.network._base import finite
from convexbn.network._onnx import Graph, Output

_SIGMOID_LENGTH = 10.0
_CONSTANT = 1e-12  # standard deviation of a column that is constant up to rounding, relative to its mean
_DEPENDENT = 1e-6  # singular value of columns that are dependent up to rounding, relative to the largest


def _is_logistic(model: "GDNPClassifier") -> bool:
    if model.loss != "softplus":
        raise AttributeError(f"predict_proba needs loss='softplus', not {model.loss!r}, which is no likelihood.")
    return True


class GDNPClassifier(OnnxEstimator, StoredEstimator, ClassifierMixin, BaseEstimator):
    """Binary classification with a halfspace, by gradient descent in normalized parametrization.

    It minimises the mean of phi(-y (coef·x + intercept)) without any penalty. Columns are centred and scaled to
    variance one first, so their scale does not matter; an intercept is the weight of a column of ones, and dependent
    columns are replaced by principal components. None of this changes the halfspaces that can be learned. It works in
    NumPy and does not follow arrays of other libraries (`array_api_dispatch`).

    Parameters
    ----------
    loss : {"softplus", "sigmoid"}, default="softplus"
        Loss phi. "softplus" is logistic regression; "sigmoid" is a smooth count of mistakes and not convex.
    fit_intercept : bool, default=True
        Whether there is an intercept; else columns are scaled to mean square one, not centred.
    max_length : float or None, default=None
        Longest weights, as the root mean square of their outputs on the training data. None takes no limit with
        "softplus" and 10 with "sigmoid", where the best length is mostly infinite.
    tol : float, default=1e-3
        Norm of the gradient, in the metric of S^-1, at which the run ends.
    max_iter : int, default=10000
        Most direction steps.
    verbose : bool, default=False
        Whether to show a progress bar.

    Attributes
    ----------
    coef_ : ndarray of shape (1, d)
        Weights, on the scale of X.
    intercept_ : ndarray of shape (1,)
        The intercept.
    separable_ : bool
        Whether `coef_` separates the classes and no length was the best. Its length is then arbitrary, and
        probabilities are meaningless.
    n_iter_ : int
        Direction steps.
    trace_ : Trace
        The run; watches what `convexbn.gradient.gdnp` lists.
    classes_ : ndarray of shape (2,)
        The labels.
    n_features_in_ : int
        Features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where X has names that are all strings.

    References
    ----------
    .. [1] Kohler et al., "Exponential convergence rates for Batch Normalization: The power of length-direction
       decoupling in non-convex optimization", arXiv 1805.10694.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from convexbn import GDNPClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = GDNPClassifier().fit(X[:, :2], y)
    >>> bool(model.score(X[:, :2], y) > 0.85)
    True
    """

    def __init__(
        self,
        loss: str = "softplus",
        *,
        fit_intercept: bool = True,
        max_length: float | None = None,
        tol: float = 1e-3,
        max_iter: int = 10000,
        verbose: bool | int = False,
    ):
        self.loss = loss
        self.fit_intercept = fit_intercept
        self.max_length = max_length
        self.tol = tol
        self.max_iter = max_iter
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Learn the halfspace.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Training data.
        y : array-like of shape (n,)
            Labels of two classes, numbers or strings.

        Returns
        -------
        self : GDNPClassifier

        Raises
        ------
        ValueError
            If a parameter or the data is out of range; the message names it. The estimator is left as it was.
        KeyboardInterrupt
            After Ctrl-C, so that a search around the estimator ends, too. The estimator keeps the weights so far, as if
            it had been trained; it is left as it was if there are none yet.

        Warns
        -----
        ConvergenceWarning
            If the gradient exceeds `tol` after `max_iter` steps, or the classes are separable, so that the loss has no
            minimiser.
        """
        self._check_parameters()
        self._train(X, y)
        if self.trace_.interrupted:
            raise KeyboardInterrupt(
                f"fit was interrupted after {self.n_iter_} steps, at a gradient of norm "
                f"{self.trace_['gradient_norm'][-1]:.3g}; the estimator has the weights so far."
            )
        return self

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Outputs (n,) for X (n, d); positive means ``classes_[1]``."""
        check_is_fitted(self)
        data = validate_data(self, X, dtype=np.float64, reset=False)
        return finite(lambda: data @ self.coef_[0] + self.intercept_[0])

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict labels (n,) of X (n, d)."""
        positive = self.decision_function(X) > 0
        return self.classes_[positive.astype(int)]

    @available_if(_is_logistic)
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probabilities (n, 2) of the classes for X (n, d); only with the loss "softplus"."""
        outputs = self.decision_function(X)
        return np.column_stack([expit(-outputs), expit(outputs)])

    def _onnx_outputs(self, graph: Graph, x: str) -> list[Output]:
        f = graph.affine_on_data(x, self.coef_, self.intercept_)
        return class_outputs(graph, f, self.classes_, LogLoss(), hasattr(self, "predict_proba"))

    @all_or_nothing
    def _train(self, X: ArrayLike, y: ArrayLike) -> None:
        data, labels = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_labels(labels)
        self.classes_ = np.unique(labels)
        if len(self.classes_) == 1:
            raise ValueError(f"y has one class only, {self.classes_.tolist()[0]!r}; give samples of two classes.")
        if len(self.classes_) > 2:
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"{type_of_target(labels, input_name='y')}; y has {len(self.classes_)} classes. Wrap this "
                "classifier in sklearn.multiclass.OneVsRestClassifier."
            )
        centre = data.mean(axis=0) * self.fit_intercept
        basis = _principal_components(data, centre)
        columns = (data - centre) @ basis
        if self.fit_intercept:
            columns = np.column_stack([columns, np.ones(len(data))])
        elif not columns.size:
            raise ValueError("X is zero; without an intercept there is nothing to learn from.")
        fit = gdnp(
            LearningHalfspace(columns, np.where(labels == self.classes_[1], 1.0, -1.0), self.loss),
            n_steps=self.max_iter,
            tol=self.tol,
            max_length=self._longest(),
            verbose=bool(self.verbose),
        )
        coef = basis @ fit.weights[: basis.shape[1]]
        self.coef_ = coef[None]
        self.intercept_ = np.array([fit.weights[-1] - centre @ coef if self.fit_intercept else 0.0])
        self.trace_, self.n_iter_ = fit.trace, int(fit.trace.steps[-1])
        self.separable_ = fit.status == "separable"
        if self.separable_:
            warn_user(
                "The classes are separable: the loss falls for ever as the weights grow, so it has no minimiser. coef_ "
                "separates the training data; its length and probabilities are arbitrary. Give max_length for weights "
                "of bounded length, or use a model with weight decay.",
                ConvergenceWarning,
            )
        elif fit.status == "stopped":
            warn_user(
                f"The gradient has norm {fit.trace['gradient_norm'][-1]:.3g} after {self.n_iter_} steps; increase "
                f"max_iter, or tol={self.tol:g}.",
                ConvergenceWarning,
            )

    def _longest(self) -> float:
        if self.max_length is not None:
            return float(self.max_length)
        return _SIGMOID_LENGTH if self.loss == "sigmoid" else np.inf

    def _check_parameters(self) -> None:
        """Raise a ValueError that names the first parameter out of range, before any work."""
        check_choice("loss", self.loss, LOSSES)
        check_flag("fit_intercept", self.fit_intercept)
        if self.max_length is not None and not (is_number(self.max_length) and self.max_length > 0):
            raise ValueError(f"max_length={self.max_length!r} must be a positive number or None.")
        if not (is_number(self.tol) and 0 < self.tol < np.inf):
            raise ValueError(f"tol={self.tol!r} must be a positive number.")
        check_count("max_iter", self.max_iter)
        check_verbose(self.verbose)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


def _principal_components(X: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Basis (d, r) of the weights of X - centre, scaled to mean square one: orthogonal, constant columns left out."""
    centred = X - centre
    largest = np.abs(centred).max(axis=0)
    scale = largest * np.sqrt(np.mean((centred / np.where(largest > 0, largest, 1)) ** 2, axis=0))
    inverse = np.divide(1, scale, where=scale > _CONSTANT * np.abs(centre), out=np.zeros_like(scale))
    _, singular_values, rows = np.linalg.svd(centred * inverse, full_matrices=False)
    kept = singular_values > _DEPENDENT * singular_values.max()
    return inverse[:, None] * rows[kept].T
