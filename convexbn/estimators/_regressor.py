"""The regressor."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin

from convexbn._utils.checks import check_flag
from convexbn._utils.data_checks import as_targets
from convexbn._utils.magnitude import check_magnitude
from convexbn._utils.sample_weight import check_sample_weight, standard_deviations
from convexbn.estimators._base import BaseConvexBN, Prepared
from convexbn.estimators._tabular import Tabular
from convexbn.losses import make_loss
from convexbn.model._problem import Problem
from convexbn.network._onnx import Graph, Output
from convexbn.solvers._monitor import Clock


@dataclass(kw_only=True, eq=False, repr=False)
class Regression(RegressorMixin, BaseConvexBN):
    """What makes an estimator a regressor."""

    scale_outputs: bool = True
    _margin: ClassVar[bool] = False
    _y_ndim: int = field(init=False)

    def _check_parameters(self) -> None:
        check_flag("scale_outputs", self.scale_outputs)
        super()._check_parameters()

    def _samples(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        data, targets = self._validate(X, y, y_numeric=True, multi_output=True, ensure_min_samples=2)
        self._y_ndim = targets.ndim
        targets = as_targets(targets).reshape(len(targets), -1)
        make_loss(self.loss).check_targets(targets)
        check_magnitude(targets, "y")
        return data, targets, check_sample_weight(sample_weight, data.shape[0])

    def _output_scales(self, y: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
        if y.shape[1] == 1 or not self.scale_outputs:
            return np.ones(y.shape[1])
        std, size = standard_deviations(y, sample_weight), np.abs(y).max(axis=0)
        return np.where(std > 0, std, np.where(size > 0, size, 1.0))

    def _learn(self, prepared: Prepared, problem: Problem, clock: Clock, **limits: Any) -> None:
        super()._learn(prepared, problem, clock, **limits)
        self.output_scales_ = prepared.output_scales

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict targets of X (n, d), sparse or not: shape (n, C), or (n,) if y had one dimension in `fit`."""
        outputs = self._outputs(X, "predict")
        return outputs[:, 0] if self._y_ndim == 1 else outputs

    def _named_outputs(self, graph: Graph, f: str) -> list[Output]:
        return [Output("variable", f, graph.dtype, self.network_.n_outputs)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


@dataclass(kw_only=True, eq=False, repr=False)
class ConvexBNRegressor(Regression, Tabular):
    """Regression with a two-layer normalized ReLU network, trained by convex optimisation.

    The model for numeric columns with a smooth dependence, noise, and columns that go together, from some dozens to
    some ten thousands of samples: `fit` needs no learning rate, gives the same network every time, and its certificate
    says how much lower the objective could be. Gradient boosting is the better choice for many more samples, for
    categories, missing entries, thresholds and many columns that do not matter; ridge regression where it
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
    loss : {"squared_error", "huber"} or Loss, default="squared_error"
        Training loss.
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
    scale_outputs : bool, default=True
        Whether each of several outputs is divided by its standard deviation in training. The network's outputs are on
        the scale of y; objective, certificate and weight decay are those of the targets divided by `output_scales_`.
        One output is fitted as it is.
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
    output_scales_ : ndarray of shape (C,)
        What the targets were divided by in training; ones unless there are several and `scale_outputs`. With
        ``scaled = replace(network_, output_weights=network_.output_weights / output_scales_,
        intercept=network_.intercept / output_scales_)`` the objective is
        ``scaled.objective(X, y / output_scales_, weight_decay_)``.
    n_iter_ : int
        Iterations of the solver; 0 for a closed form.
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
    >>> from sklearn.datasets import load_diabetes
    >>> from convexbn import ConvexBNRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = ConvexBNRegressor(10.0, n_components=1).fit(X[:60], y[:60])
    >>> model.certificate_.scope, model.certificate_.gap < 1e-3
    ('global', True)
    >>> tuned = ConvexBNRegressor(n_components=1, tol=1e-2).fit(X[:60], y[:60])
    >>> tuned.weight_decay_ in tuned.validation_scores_["weight_decay"], tuned.spectral_power_
    (True, 1.0)
    """
