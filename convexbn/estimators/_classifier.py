"""The classifier."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if

from convexbn._utils.array_namespace import is_elsewhere, namespace, to_numpy
from convexbn._utils.checks import is_number
from convexbn._utils.data_checks import check_labels
from convexbn._utils.sample_weight import check_sample_weight
from convexbn.estimators._base import BaseConvexBN
from convexbn.estimators._onnx import class_outputs
from convexbn.estimators._tabular import Tabular
from convexbn.losses import Loss, make_loss
from convexbn.network._onnx import Graph, Output


def _has_probabilities(model: "Classification") -> bool:
    make_loss(model.loss).probabilities(np.zeros((0, 1)))
    return True


@dataclass(kw_only=True, eq=False, repr=False)
class Classification(ClassifierMixin, BaseConvexBN):
    """What makes an estimator a classifier."""

    loss: str | Loss = "log_loss"
    class_weight: dict[Any, float] | str | None = None
    _margin: ClassVar[bool] = True
    classes_: np.ndarray = field(init=False)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        weights = self.class_weight
        if isinstance(weights, dict):
            valid = all(is_number(weight) and 0 < weight < np.inf for weight in weights.values())
        else:
            valid = weights is None or (isinstance(weights, str) and weights == "balanced")
        if not valid:
            raise ValueError(
                f'class_weight={weights!r} must be None, "balanced" or a dictionary from labels to positive numbers.'
            )

    def _samples(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        data, targets = self._validate(X, y, ensure_min_samples=2)
        check_labels(targets)
        weights = check_sample_weight(sample_weight, data.shape[0])
        present = weights > 0
        self.classes_ = np.unique(targets[present])
        if len(self.classes_) < 2:
            weighted = "" if present.all() else " among the samples of positive weight"
            raise ValueError(
                f"y has one class only{weighted}, {self.classes_.tolist()[0]!r}; give samples of two classes."
            )
        self._check_labels_of_class_weight()
        one_hot = (targets[:, None] == self.classes_).astype(np.float64)
        return data, one_hot if self._training_loss().one_hot else 2 * one_hot[:, 1:] - 1, weights

    def _training_loss(self) -> Loss:
        return make_loss(self.loss).of_classes(int(self.classes_.shape[0]))

    def _labels(self, y: Any) -> Any:
        """Labels of targets or outputs (n, C)."""
        xp = namespace(y)
        index = xp.argmax(y, axis=1) if y.shape[1] > 1 else xp.astype(y[:, 0] > 0, xp.int64)
        return xp.take(self.classes_, index) if is_elsewhere(self.classes_) else self.classes_[to_numpy(index)]

    def _check_labels_of_class_weight(self) -> None:
        """Raise a ValueError where a dictionary names labels that y lacks, but not all that it has, as scikit-learn."""
        named = self.class_weight if isinstance(self.class_weight, dict) else {}
        labels = self.classes_.tolist()
        unknown, unnamed = [label for label in named if label not in labels], [c for c in labels if c not in named]
        if unknown and unnamed:
            raise ValueError(
                f"class_weight={self.class_weight!r} names {unknown}, which y does not hold, and not {unnamed}, which "
                "it holds; name every label of y, or leave out the others."
            )

    def _class_weighted(self, y: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
        classes = np.searchsorted(self.classes_, self._labels(y))
        if self.class_weight is None:
            return sample_weight
        if isinstance(self.class_weight, dict):
            return sample_weight * np.array([self.class_weight.get(c, 1.0) for c in self.classes_.tolist()])[classes]
        totals = np.bincount(classes, sample_weight, len(self.classes_))
        return sample_weight * (sample_weight.sum() / np.count_nonzero(totals) / totals[classes])

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Network outputs (n, C) for X (n, d); for two classes (n,), and positive means ``classes_[1]``."""
        outputs = self._outputs(X, "decision_function")
        return outputs if outputs.shape[1] > 2 else outputs[:, -1] - namespace(outputs).sum(outputs[:, :-1], axis=1)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict labels (n,) of X (n, d), sparse or not."""
        return self._labels(self._outputs(X, "predict"))

    @available_if(_has_probabilities)
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probabilities (n, C) of the classes for X (n, d); only with the losses "log_loss" and "cross_entropy"."""
        outputs = self._outputs(X, "predict_proba")
        return self._training_loss().probabilities(outputs)

    def _named_outputs(self, graph: Graph, f: str) -> list[Output]:
        return class_outputs(graph, f, self.classes_, self._training_loss(), hasattr(self, "predict_proba"))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = hasattr(self, "predict_proba")
        return tags


@dataclass(kw_only=True, eq=False, repr=False)
class ConvexBNClassifier(Classification, Tabular):
    """Classification with a two-layer normalized ReLU network, trained by convex optimisation.

    The model for numeric columns with a smooth dependence, noise, and columns that go together, from some dozens to
    some ten thousands of samples: `fit` needs no learning rate, gives the same network every time, and its certificate
    says how much lower the objective could be. Gradient boosting is the better choice for many more samples, for
    categories, missing entries, thresholds and many columns that do not matter; logistic regression where it
    predicts as well.

    Parameters
    ----------
    weight_decay : float or "auto", default="auto"
        Weight decay of the objective (1/n) sum loss + weight_decay/2 * (squares of gamma, bias and output weights).
        "auto" chooses it on held-out samples: fast paths from the largest useful value downwards are followed while the
        loss on these samples falls, the value with the least loss is chosen, and the network is trained again on all
        samples. Small data is held out in five or three folds, other data once, one fifth of it. This last fit ends
        after about as much work as the choice, with a ConvergenceWarning if that is above `tol`; where `max_iter`,
        `max_time` or ``prove=True`` is given it goes on until `tol` or the limit that is given. Where `max_time` or the
        number of samples leaves nothing to compare, it is 0.03 of `weight_decay_max`.
    normalization : {"batch", "weight", "batch_after_relu"}, default="batch"
        Normalization of the hidden layer: of the inputs of its ReLUs, of its weights, or of the outputs of its ReLUs.
    activation : {"relu", "gated_relu"}, default="relu"
        Activation of the hidden layer.
    loss : {"log_loss", "squared_hinge", "hinge", "cross_entropy"} or Loss, default="log_loss"
        Training loss. With three or more classes the log loss is the cross entropy of the softmax of as many outputs;
        the hinge losses take two classes. "cross_entropy" has one output a class also for two.
    fit_intercept : bool, default=True
        Whether the output has an intercept that is not penalised.
    n_components : int, float or None, default=None
        Leading singular directions of X to keep, as a number or a fraction of the variance. None keeps all but those
        below 1e-4 of the largest, along which rounding errors of new rows would be largest (`BatchNormDesign`); the
        certificate says what was left out. Sparse X takes a number, which batch normalization requires.
    spectral_power : float or "auto", default="auto"
        Weight of small singular directions: direction i counts ``(S_i / S_1)^spectral_power``. 0 is the batch (or
        weight) normalized network with plain weight decay; a larger value penalises neurons along small
        directions (`BatchNormDesign`), as gradient descent fits them last, and objective and certificate are those of
        this penalty. "auto" chooses it together with `weight_decay`, from 1, 0.5, then 0 or larger ones while it helps;
        beside a `weight_decay` that is given, whose meaning depends on it, and for the other normalizations, it is 0.
    feature_metric : array-like of shape (d, d), "auto" or None, default="auto"
        Symmetric matrix M of the features: weights of neurons cost less along directions that it finds important
        (`BatchNormDesign`); of batch normalization alone. "auto" learns M where `weight_decay` and `spectral_power` are
        "auto" too, the data is so large that it is held out once, and features are no more than 2,000: it is the
        average outer product of the gradients of the network that is best on held-out samples [2]_, and is kept unless
        a path with it is worse on them by a standard error. Elsewhere, and with None, there is no metric.
    standardize : bool, default=True
        Whether columns are divided by their standard deviations before their singular directions are taken, so that
        `n_components` and `spectral_power` do not depend on the scale of columns; of batch normalization alone. Weight
        normalization takes the columns as they are.
    class_weight : dict, "balanced" or None, default=None
        Weight of each label, by which the sample weights are multiplied; labels that a dictionary leaves out have
        weight one. It may name labels that y lacks if it names all that y has, so that one dictionary serves every
        fold. "balanced" gives all classes the same total.
    n_patterns : int, default=50
        Directions drawn where activation patterns are sampled.
    solver : str, default="auto"
        "auto" takes the closed form where there is one, else column generation, or for gated networks the working-set
        solver; with as many features as samples, or about, and at most 12 distinct targets, column generation is
        certified globally. The hinge loss and small gated networks go to cvxpy. "closed_form" and "column_generation"
        are these solvers. The name of an installed cvxpy solver ("CLARABEL", "SCS", ...) solves the convex program over
        all activation patterns where they are few (at most a million entries n * k * P), over a sample otherwise.
        For ReLU networks of several outputs it is for tiny data, about 50 samples of two features or 20 of three, and
        refused where the patterns' cones have more than five million faces.
    tol : float, default=1e-4
        Gap of objective and lower bound at which to stop, as a multiple of the objective of the zero network, which
        with `fit_intercept` is the best constant; as in scikit-learn's Lasso. A ConvergenceWarning says if it is
        missed. The gap of a certificate is relative to the network's own objective, which is smaller.
    max_iter : int or None, default=None
        Iterations of the solver; None leaves its own limit. Where `weight_decay` is chosen a number takes the place of
        the limit on the work of the last fit.
    max_time : float or None, default=None
        Seconds after which `fit` ends with the best network so far. Where `weight_decay` is chosen half of them are for
        the choice, and the limit on the work of the last fit is lifted.
    prove : bool or "auto", default="auto"
        Whether to prove the price of every direction, for a global certificate, where that is possible: one output and
        up to seven features, or tiny data. True takes up to a minute, and lets the fit after a choice go on until
        `tol`; "auto" a few times as long as the search, by a count of its work, so that the outcome does not depend on
        the machine. `convexbn.prove` can do it later.
    n_jobs : int or None, default=None
        Threads, among which folds are divided while values are chosen, and blocks of rows where there are more than
        16,000; -1 takes all cores. The network does not depend on it. Gated networks take one fold after the other.
    device : str or None, default=None
        Device of PyTorch that the rows of NumPy X are copied to for training and prediction, as "cuda"; None is NumPy.
        X of PyTorch, or another library of the array API standard, is trained and predicted on where it is, and
        predictions are there, too, with ``sklearn.set_config(array_api_dispatch=True)``; its statistics, certificates
        and proofs are NumPy's.
    random_state : int, RandomState, Generator or None, default=0
        Seed of the solver's random starts and of sampled patterns; None draws another every time.
    checkpoint : path or None, default=None
        File, npz without pickle, that holds the last completed round of the solver, and what was validated and chosen
        where `weight_decay` is "auto", or how far `max_time` let it. After the process was killed the same `fit` goes
        on from it and ends in the same network; with other data or parameters it is refused. Closed forms, and the
        convex program of small gated problems, start again; losses with a kink and the solvers of cvxpy refuse it, and
        gated networks with ``random_state=None``.
    warm_start : bool, default=False
        Whether `fit` starts from the network of the `fit` before, where that has the same inputs and outputs, and
        `weight_decay` is given: to go on after `max_iter`, `max_time` or `callback` ended it, or along falling weight
        decays, which saves next to no time. The certificate is worth the same; the network may differ within `tol`.
        Closed forms, gated networks and cvxpy solvers take no start.
    callback : callable or None, default=None
        Called with a `convexbn.solvers.Progress` after every iteration of the last fit, where the solver has
        iterations of its own. A true value ends `fit` with the best network so far.
    verbose : bool, default=False
        Whether to print a line for every candidate of the choice, and to show the solver's progress.

    Attributes
    ----------
    network_ : BatchNormNetwork, WeightNormNetwork or GatedNetwork
        The trained network, which goes to PyTorch (`to_torch`), ONNX (`to_onnx`) and files (`save`).
    certificate_ : Certificate
        Objective, lower bound, and what the bound covers; print it.
    weight_decay_ : float
        The weight decay that was used.
    spectral_power_ : float
        The spectral power that was used.
    feature_metric_ : ndarray of shape (d, d) or None
        The feature metric that was used. Of one that was learned the diagonal says how much the outputs depend on each
        feature: the mean square of the derivative, up to a common factor.
    validation_scores_ : dict of ndarray
        What the choice rests on, where there was one; columns of a table with a row for each spectral power and weight
        decay that was tried. ``mean_score`` and ``std_score`` are over the folds of ``scores``, minus the loss on
        held-out samples; ``fraction`` is the weight decay over the largest of the path, ``n_train`` how many samples a
        fold trains on, and ``feature_metric`` whether the path is one with a learned metric.
        `convexbn.plotting.ValidationDisplay` draws it.
    n_iter_ : int
        Iterations of the solver; 0 for a closed form.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    n_features_in_ : int
        Features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where X has names that are all strings.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499.
    .. [2] Radhakrishnan et al., "Mechanism for feature learning in neural networks and backpropagation-free machine
       learning models", Science 383 (2024), arXiv 2212.13881.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from convexbn import ConvexBNClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = ConvexBNClassifier(0.01).fit(X[:25], y[:25])
    >>> model.certificate_.scope, len(model.network_)
    ('global', 1)
    >>> tuned = ConvexBNClassifier(tol=0.1).fit(X[:100], y[:100])
    >>> tuned.weight_decay_ in tuned.validation_scores_["weight_decay"], tuned.score(X[100:], y[100:]) > 0.9
    (True, True)
    """
