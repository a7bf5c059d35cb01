"""The binary classifier."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import validate_data

from convexbn.estimators.base import BaseConvexBN
from convexbn.losses import LogLoss, Loss, make_loss
from convexbn.programs import Activation


def _is_log_loss(model: "ConvexBNClassifier") -> bool:
    if not isinstance(make_loss(model.loss), LogLoss):
        raise AttributeError(f"predict_proba needs loss='log_loss', not {model.loss!r}.")
    return True


class ConvexBNClassifier(ClassifierMixin, BaseConvexBN):
    """Binary classification with a two-layer normalized ReLU network, trained by convex optimisation.

    Parameters
    ----------
    weight_decay : float or "auto", default="auto"
        Weight decay of the objective (1/n) sum loss + weight_decay/2 * (squares of gamma, bias and output weights).
        "auto" takes 0.03 times `Problem.weight_decay_max`, so it does not depend on the units of X and y.
    normalization : {"batch", "weight"}, default="batch"
        Normalization of the hidden layer.
    activation : {"relu", "gated_relu"}, default="relu"
        Activation of the hidden layer.
    loss : {"log_loss", "squared_hinge", "hinge"} or Loss, default="log_loss"
        Training loss.
    fit_intercept : bool, default=True
        Whether the output has an intercept that is not penalised.
    n_components : int, float or None, default=None
        Leading singular directions of X to keep, as a number or a fraction of the variance; None keeps all.
    n_patterns : int, default=50
        Directions drawn where activation patterns are sampled.
    solver : str, default="auto"
        "auto" takes the closed form where it reaches, all activation patterns where they are few (at most a million
        entries n * k * P of the convex program), sampled patterns otherwise. "closed_form" insists on the closed form.
        The name of an installed cvxpy solver ("CLARABEL", "SCS", ...) is like "auto" without the closed form.
    tol : float, default=1e-6
        Relative gap above which a ConvergenceWarning is raised.
    max_iter : int or None, default=None
        Iterations of the solver; None leaves its own limit.
    random_state : int, RandomState, Generator or None, default=None
        Seed of sampled patterns.
    verbose : bool, default=False
        Whether the solver prints its progress.

    Attributes
    ----------
    network_ : BatchNormNetwork, WeightNormNetwork or GatedNetwork
        The trained network.
    certificate_ : Certificate
        Objective, lower bound, and what the bound covers; print it.
    weight_decay_ : float
        The weight decay that was used.
    n_iter_ : int
        Iterations of the solver; 0 for a closed form.
    classes_ : ndarray of shape (2,)
        The labels.
    n_features_in_ : int
        Features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X has names that are all strings.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from convexbn import ConvexBNClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = ConvexBNClassifier().fit(X[:25], y[:25])
    >>> model.certificate_.scope, len(model.network_)
    ('global', 1)
    """

    _margin = True

    def __init__(
        self,
        weight_decay: float | str = "auto",
        *,
        normalization: str = "batch",
        activation: Activation = "relu",
        loss: str | Loss = "log_loss",
        fit_intercept: bool = True,
        n_components: int | float | None = None,
        n_patterns: int = 50,
        solver: str = "auto",
        tol: float = 1e-6,
        max_iter: int | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
        verbose: bool | int = False,
    ):
        super().__init__(
            weight_decay,
            normalization=normalization,
            activation=activation,
            loss=loss,
            fit_intercept=fit_intercept,
            n_components=n_components,
            n_patterns=n_patterns,
            solver=solver,
            tol=tol,
            max_iter=max_iter,
            random_state=random_state,
            verbose=verbose,
        )

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Training data, at least two samples.
        y : array-like of shape (n,)
            Labels of two classes, numbers or strings.

        Returns
        -------
        self : ConvexBNClassifier

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
            data, targets = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
            check_classification_targets(targets)
            self.classes_, codes = np.unique(targets, return_inverse=True)
            if len(self.classes_) > 2:
                raise ValueError(
                    f"Only binary classification is supported. The type of the target is {type_of_target(targets)}; "
                    f"y has {len(self.classes_)} classes. Use sklearn.multiclass.OneVsRestClassifier meanwhile."
                )
            if len(self.classes_) < 2:
                raise ValueError(f"y has one class only, {self.classes_.tolist()[0]!r}; give samples of two classes.")
            self._fit_network(data, np.where(codes == 1, 1.0, -1.0))
        except BaseException:
            self.__dict__ = before
            raise
        return self

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Network outputs (n,) for X (n, d); positive means ``classes_[1]``."""
        return self._outputs(X)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict labels (n,) of X (n, d)."""
        positive = self.decision_function(X) > 0
        return self.classes_[positive.astype(int)]

    @available_if(_is_log_loss)
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probabilities (n, 2) of the classes for X (n, d); only with the log loss."""
        positive = expit(self.decision_function(X))
        return np.column_stack([1 - positive, positive])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags
