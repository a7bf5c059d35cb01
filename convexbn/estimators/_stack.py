"""Deep networks, trained from the first layer to the last by one convex problem after the other."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    has_fit_parameter,
)

from convexbn._utils.all_or_nothing import all_or_nothing
from convexbn._utils.array_namespace import to_numpy
from convexbn._utils.checks import check_count
from convexbn._utils.data_checks import as_targets, check_array, check_labels, validate_data
from convexbn._utils.sample_weight import check_sample_weight, merge_equal_samples
from convexbn.estimators._base import BaseConvexBN
from convexbn.estimators._classifier import ConvexBNClassifier
from convexbn.estimators._convolutional import Convolutional
from convexbn.estimators._cross_validation import CrossValidated
from convexbn.estimators._onnx import OnnxEstimator
from convexbn.estimators._persistence import StoredEstimator
from convexbn.estimators._place import NUMPY, Place, host, is_dispatched
from convexbn.estimators._regressor import ConvexBNRegressor
from convexbn.network import DeepNetwork, NormalizedNetwork
from convexbn.network._base import import_torch
from convexbn.network._onnx import Graph, Output
from convexbn.solvers._certificate import Certificate

if TYPE_CHECKING:
    import torch


class _Stack(OnnxEstimator, StoredEstimator, MetaEstimatorMixin, BaseEstimator):
    """Base class of the stacks; `_default` is the estimator where none is given."""

    _default: type[BaseConvexBN]
    _place: Place = NUMPY

    def __init__(self, estimator: Any = None, *, n_stages: int = 2, features: Any = None):
        self.estimator = estimator
        self.n_stages = n_stages
        self.features = features

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Train one stage after the other, each on the hidden neurons of the one before.

        Parameters
        ----------
        X : array-like of shape (n, d), or whatever `features` takes
            Training data, at least two samples.
        y : array-like of shape (n,)
            Targets or labels, as `estimator` takes them.
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples. All equal if None.
        groups : array-like of shape (n,) or None, default=None
            Groups of the samples, which stages that choose their weight decay hold out together.

        Returns
        -------
        self : estimator

        Raises
        ------
        ValueError
            If a parameter or the data is out of range; the message names it. The stack is left as it was.
        RuntimeError
            If a cvxpy solver fails; the stack is left as it was.
        TypeError
            If X or y is sparse or no array; the stack is left as it was.
        KeyboardInterrupt
            After Ctrl-C, so that a search around the stack ends, too. The stack keeps the stages so far, the last as
            far as it was trained; it is left as it was if there is none yet.

        Warns
        -----
        ConvergenceWarning
            If the gap of a stage exceeds its `tol`.
        """
        estimator = self._estimator()
        self._check_parameters(estimator)
        interrupted = self._train(estimator, X, y, sample_weight, groups)
        if interrupted:
            stages = f"{len(self.estimators_)} of {self.n_stages} stages"
            raise KeyboardInterrupt(f"The stack was interrupted: it has {stages}, the last as far as it was trained.")
        return self

    @all_or_nothing
    def _train(
        self, estimator: BaseConvexBN, X: Any, y: Any, sample_weight: ArrayLike | None, groups: ArrayLike | None
    ) -> bool:
        """Train the stages; True if Ctrl-C ended them early."""
        self._place, features = Place.of(X, None), self.features
        data, targets = self._validate(X if features is not None else host(X), host(y))
        sample_weight, groups = host(sample_weight), host(groups)
        weights = check_sample_weight(sample_weight, len(targets))
        if features is not None:
            weighted = {"sample_weight": sample_weight} if has_fit_parameter(features, "sample_weight") else {}
            features = clone(features).fit(data, targets, **weighted)
        numbers = isinstance(data, np.ndarray) and data.dtype.kind in "biuf"
        folded = isinstance(estimator, CrossValidated)
        if numbers and not folded and groups is None:  # folds depend on the order of the samples
            data, targets, weights = _merged(data, targets, weights)
        for_stage: dict[str, Any] = {} if folded and sample_weight is None else {"sample_weight": weights}
        if groups is not None:
            for_stage["groups"] = groups
        H = self._place.bring(data) if features is None else _outputs(features, data)
        stages: list[BaseConvexBN] = []
        networks: list[NormalizedNetwork] = []
        interrupted = False
        try:
            while len(stages) < self.n_stages and (not stages or _vary(to_numpy(H)[weights > 0])):
                stage = clone(estimator)
                try:
                    stage.fit(H, targets, **for_stage)
                finally:
                    if hasattr(stage, "network_"):
                        assert isinstance(stage.network_, NormalizedNetwork)
                        stages.append(stage)
                        networks.append(stage.network_)
                H = networks[-1].hidden(H)
        except KeyboardInterrupt:
            interrupted = True
            if not stages:
                raise
        self.features_, self.estimators_ = features, tuple(stages)
        self.network_ = DeepNetwork(tuple(networks[:-1]), networks[-1])
        self.certificates_ = tuple(
            stage.certificate_ if number == 0 and features is None else _of_last_layers(stage.certificate_)
            for number, stage in enumerate(stages)
        )
        self.certificate_ = self.certificates_[-1]
        return interrupted

    def _validate(self, X: Any, y: Any) -> tuple[Any, np.ndarray]:
        """Data as the first stage takes it, or as it is for given features, and targets."""
        classifier = self._default._margin
        if self.features is None:
            X, targets = validate_data(self, X, y, dtype=np.float64, multi_output=not classifier, ensure_min_samples=2)
        else:
            options = {"dtype": None, "ensure_2d": False, "input_name": "y", "estimator": self}
            targets = None if y is None else check_array(y, **options)
            check_consistent_length(X, targets)
            validate_data(self, X, y, skip_check_array=True)  # the names and the number of features alone
        if classifier:
            targets = column_or_1d(targets, warn=True)
            check_labels(targets)
        else:
            targets = as_targets(targets)
        return X, targets

    def _estimator(self) -> Any:
        return self._default() if self.estimator is None else self.estimator

    def _check_parameters(self, estimator: Any) -> None:
        """Raise a ValueError that names the first parameter out of range, before any work."""
        if not isinstance(estimator, BaseConvexBN) or estimator._margin != self._default._margin:
            raise ValueError(f"estimator={estimator!r} must be a {self._default.__name__}, its CV variant, or None.")
        if isinstance(estimator, Convolutional):
            raise ValueError(
                f"estimator={estimator!r} takes images, the stages of a stack take features; give a "
                f"{self._default.__name__}, and features=FrozenModule(...) if X are images."
            )
        if estimator.activation != "relu":
            raise ValueError(f"A stack takes activation='relu', not {estimator.activation!r}.")
        check_count("n_stages", self.n_stages)
        if self.features is not None and not (hasattr(self.features, "fit") and hasattr(self.features, "transform")):
            raise ValueError(
                f"features={self.features!r} must be a transformer or None; wrap a torch module in FrozenModule."
            )

    def hidden_features(self, X: ArrayLike) -> np.ndarray:
        """Features (n, m) that the last two layers are trained on, for X (n, d)."""
        return self._hidden(X, "hidden_features")

    def _hidden(self, X: Any, method: str) -> Any:
        """The same for a method of this name, where X is."""
        check_is_fitted(self)
        self._place.check_same(X, f"{type(self).__name__}.{method}")
        if self.features_ is None and not is_dispatched(X):
            return self.network_.features(validate_data(self, X, dtype=np.float64, reset=False))
        H = X if self.features_ is None else _outputs(self.features_, X)
        validate_data(self, X, reset=False, skip_check_array=True)  # the names and the number of features alone
        return self.network_.features(H)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict targets or labels of X (n, d)."""
        return self._last.predict(self._hidden(X, "predict"))

    @property
    def _last(self) -> Any:
        check_is_fitted(self)
        return self.estimators_[-1]

    def to_torch(self, *, folded: bool = False) -> "torch.nn.Sequential":
        """Return the whole network, from X to the outputs, as one torch.nn.Sequential.

        It is in double precision and ``eval()``; call ``.train()`` to train on. Its outputs are those of a regressor's
        `predict` or a classifier's `decision_function`.

        Parameters
        ----------
        folded : bool, default=False
            Whether normalization is folded into the weights of the trained layers.

        Returns
        -------
        module : torch.nn.Sequential

        Raises
        ------
        ImportError
            If PyTorch is not installed.
        ValueError
            If `features` is a transformer without a `to_torch` method.
        """
        check_is_fitted(self)
        if self.features_ is not None and not hasattr(self.features_, "to_torch"):
            raise ValueError(
                f"features={self.features!r} has no to_torch method, so there is no torch module of the whole network; "
                "network_.to_torch() is the part behind the features."
            )
        given = [] if self.features_ is None else self.features_.to_torch()
        return import_torch().nn.Sequential(*given, *self.network_.to_torch(folded=folded)).eval()

    def _onnx_outputs(self, graph: Graph, x: str) -> list[Output]:
        given = self.features_
        if given is not None:
            if not isinstance(given, OnnxEstimator):
                whole = (
                    "torch.onnx.export(model.to_torch(), ...) writes the whole network, and "
                    if hasattr(given, "to_torch")
                    else ""
                )
                raise ValueError(
                    f"features={given!r} has no form in ONNX here; {whole}network_.to_onnx() is the part behind the "
                    "features."
                )
            (features,) = given._onnx_outputs(graph, x)
            x = features.value
        return self._last._named_outputs(graph, self.network_._add_to(graph, x))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags = get_tags(self._estimator()).target_tags
        tags.array_api_support = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")


class ConvexBNStackRegressor(RegressorMixin, _Stack):
    """Deep network for regression: each two-layer problem is solved on the hidden neurons of the one before.

    The first stage is trained on the data, or on `features` that are given and stay fixed. The hidden layers of all
    stages and the output layer of the last are one deep network. Each stage has its certificate. It holds for
    fixed layers before it, which were never trained together with it.

    With ``n_stages=1`` and ``features=RandomBatchNormLayers(...)`` the last two layers are trained on random ones.
    Where the features have full row rank their global optimum is a closed form.

    With ``sklearn.set_config(array_api_dispatch=True)`` all layers are where X is, as in `ConvexBNRegressor`; the
    device of NumPy X is that of `estimator`.

    Parameters
    ----------
    estimator : ConvexBNRegressor, ConvexBNRegressorCV or None, default=None
        How each stage is trained, which takes its `max_time` for itself; None takes a `ConvexBNRegressor` with its
        defaults.
    n_stages : int, default=2
        Two-layer problems to solve, so that the network has n_stages hidden layers beside those of `features`. There
        are fewer if no hidden neuron of a stage varies, or Ctrl-C ended one.
    features : transformer or None, default=None
        First layers, which are fitted to X without being trained here: `RandomBatchNormLayers`, a torch module as a
        `FrozenModule`, or any transformer of scikit-learn. X is passed to it as it is, images or texts; sparse
        outputs are made dense.

    Attributes
    ----------
    network_ : DeepNetwork
        The trained network, on the outputs of `features`.
    certificate_ : Certificate
        Certificate of the last two layers on the features of those before.
    certificates_ : tuple of Certificate
        Certificate of each stage.
    estimators_ : tuple of ConvexBNRegressor or ConvexBNRegressorCV
        The stages.
    features_ : transformer or None
        The fitted first layers.
    n_features_in_ : int
        Features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where X has names that are all strings.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, on deep networks.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from convexbn import ConvexBNRegressor, ConvexBNStackRegressor, RandomBatchNormLayers
    >>> X, y = load_diabetes(return_X_y=True)
    >>> features = RandomBatchNormLayers((80, 80))
    >>> model = ConvexBNStackRegressor(ConvexBNRegressor(5.0), n_stages=1, features=features).fit(X[:30], y[:30])
    >>> model.certificate_.scope, model.certificate_.search.name, model.certificate_.setting.last_layers
    ('global', 'CLOSED_FORM', True)
    """

    _default = ConvexBNRegressor


class ConvexBNStackClassifier(ClassifierMixin, _Stack):
    """Deep network for classification: each two-layer problem is solved on the hidden neurons of the one before.

    See `ConvexBNStackRegressor`.

    Parameters
    ----------
    estimator : ConvexBNClassifier, ConvexBNClassifierCV or None, default=None
        How each stage is trained, which takes its `max_time` for itself; None takes a `ConvexBNClassifier` with its
        defaults.
    n_stages : int, default=2
        Two-layer problems to solve; there are fewer if no hidden neuron of a stage varies, or Ctrl-C ended one.
    features : transformer or None, default=None
        First layers, which are fitted to X without being trained here.

    Attributes
    ----------
    network_, certificate_, certificates_, estimators_, features_, n_features_in_, feature_names_in_
        As in `ConvexBNStackRegressor`.
    classes_ : ndarray
        The labels.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, on deep networks.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from convexbn import ConvexBNStackClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = ConvexBNStackClassifier().fit(X[:25], y[:25])
    >>> len(model.estimators_), model.score(X[:25], y[:25])
    (2, 1.0)
    """

    _default = ConvexBNClassifier

    @property
    def classes_(self) -> np.ndarray:
        """The labels."""
        return self._last.classes_

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Network outputs for X (n, d), as those of the last stage."""
        return self._last.decision_function(self._hidden(X, "decision_function"))

    @available_if(lambda stack: hasattr(stack._estimator(), "predict_proba"))
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probabilities of the classes for X (n, d); only where `estimator` has them."""
        return self._last.predict_proba(self._hidden(X, "predict_proba"))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags = get_tags(self._estimator()).classifier_tags
        return tags


def _outputs(features: Any, X: Any) -> np.ndarray:
    """Outputs of a transformer, sparse ones and data frames too, as an array of finite numbers."""
    outputs = features.transform(X)
    if is_dispatched(outputs):
        return outputs
    array: np.ndarray = check_array(
        outputs.toarray() if issparse(outputs) else outputs, dtype=np.float64, input_name="features"
    )
    return array


def _merged(X: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add up the weights of equal samples here, since rounding might make them differ after a layer."""
    values, codes = np.unique(y, axis=0 if y.ndim > 1 else None, return_inverse=True)
    X, codes, weights = merge_equal_samples(X, codes.reshape(-1, 1), weights)
    return X, values[codes[:, 0].astype(int)], weights


def _vary(features: np.ndarray) -> bool:
    """Whether some column varies by more than rounding."""
    return bool((np.ptp(features, axis=0) > 20 * np.finfo(float).eps * np.abs(features).max(axis=0)).any())


def _of_last_layers(certificate: Certificate) -> Certificate:
    """The same certificate, saying that it is about two layers only."""
    return replace(certificate, setting=replace(certificate.setting, last_layers=True))
