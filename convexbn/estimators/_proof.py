"""A sharper certificate of an estimator that is trained already."""

from copy import copy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from convexbn.estimators._base import BaseConvexBN, Prepared
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.network import NormalizedNetwork, PostActivationBatchNormNetwork
from convexbn.solvers._certificate import Certificate
from convexbn.solvers._monitor import check_max_time
from convexbn.solvers._tolerance import Tolerance
from convexbn.solvers.relu._certify import certify_by_proof

_SAME = 1e-6  # relative difference of objectives that rounding may make


def prove(
    model: Any,
    X: ArrayLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    max_time: float | None = None,
    random_state: int | np.random.Generator | None = None,
) -> Certificate:
    """Sharpen the certificate of a trained network, with more work than in `fit`.

    With one output the price of every direction is bounded by branch and bound, which closes the gap with up to about
    six features, with seven where `max_time` allows it minutes; with several outputs on tiny data their patterns are
    enumerated. The proof ends where the gap is within the `tol` of the model, and the certificate is then global.
    Elsewhere the best proved bound is given beside the certificate of a search.

    The network stays as it is. If more is proved than before, `certificate_` of the model becomes the new certificate.

    Parameters
    ----------
    model : ConvexBNRegressor, ConvexBNClassifier, or their CV or convolutional variants
        Trained, with ``activation="relu"``. Of a stack give a stage, with the features that it was trained on.
    X : array-like or sparse matrix of shape (n, d), or (n, channels, height, width) for convolutions
        Its training data.
    y : array-like of shape (n,) or (n, C)
        Its targets or labels.
    sample_weight : array-like of shape (n,) or None, default=None
        Its sample weights.
    max_time : float or None, default=None
        Seconds after which the proof ends with what is proved by then. None takes up to a minute.
    random_state : int, Generator or None, default=None
        Seed of the search for violated constraints before the proof.

    Returns
    -------
    certificate : Certificate

    Raises
    ------
    ValueError
        If the model is not one of these, is gated or normalized after the ReLU, the data is not its training data, or
        `max_time` is out of range.
    NotFittedError
        If the model is not trained.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, the dual program.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import ConvexBNRegressor, prove
    >>> X = np.random.default_rng(0).standard_normal((20, 2))
    >>> y = np.abs(X[:, 0]) + X[:, 1]
    >>> model = ConvexBNRegressor(0.1, prove=False).fit(X, y)
    >>> model.certificate_.scope, prove(model, X, y, random_state=0).scope, model.certificate_.scope
    ('local', 'global', 'global')
    """
    check_max_time(max_time)
    if not isinstance(model, BaseConvexBN):
        raise ValueError(f"model={model!r} must be a convexbn estimator; of a stack give one of its estimators_.")
    check_is_fitted(model)
    if not isinstance(model.network_, NormalizedNetwork):
        raise ValueError(
            "model has activation='gated_relu', whose gates define the network: its certificate covers all of its "
            "weights, and nothing is left to prove."
        )
    known = model.certificate_
    if isinstance(model.network_, PostActivationBatchNormNetwork):
        raise ValueError(
            "model has normalization='batch_after_relu', of which fit(prove=True) proves all that can be proved; its "
            "certificate_ has the bound."
        )
    prepared, problem, neurons = _trained_problem(model, X, y, sample_weight)
    if known.scope == "global":
        return known
    tolerance = Tolerance.of(problem, model.tol, "zero_network")
    found = certify_by_proof(problem, neurons, tolerance, max_time=max_time, random_state=random_state)
    found = prepared.explained(found)
    if found.scope == "global" and tolerance.reached_by(found):
        model.certificate_ = found
        return found
    # Where no search was made, or one proves less than the bound over the patterns, what is known stays.
    certificate = (found if found.scope == known.scope == "local" else known).with_bound_of(found).with_bound_of(known)
    if (certificate.global_lower_bound or 0.0) > (known.global_lower_bound or 0.0):
        model.certificate_ = certificate
    return certificate


def _trained_problem(
    model: BaseConvexBN, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None
) -> tuple[Prepared, Problem, Neurons]:
    """The data and the problem that a model was trained on, and its network on the design matrix."""
    network, known = model.network_, model.certificate_
    assert isinstance(network, NormalizedNetwork)
    other = copy(model)  # the checks of the data set attributes such as the classes
    if hasattr(model, "feature_metric_"):
        other.feature_metric = model.feature_metric_
    n_components = getattr(model, "n_components_", model.n_components)
    prepared, problem = other._problem(*other._samples(X, y, sample_weight), model.spectral_power_, n_components)
    problem = problem.with_weight_decay(model.weight_decay_)
    here = None
    if problem.n_outputs == network.n_outputs and _inputs(other) == _inputs(model):
        neurons = prepared.neurons(network)
        here = problem.objective(neurons)
    if here is None or not abs(here - known.objective) <= _SAME * max(known.objective, problem.zero_objective):
        objective = "has other inputs or outputs" if here is None else f"has the objective {here:.8g}"
        raise ValueError(
            f"X, y and sample_weight are not what model was trained on: there its network has the objective "
            f"{known.objective:.8g}, here it {objective}. Give the training data, with the parameters as they were."
        )
    return prepared, problem, neurons


def _inputs(model: BaseConvexBN) -> Any:
    """Number of features, or shape of the images, that a model was fitted with."""
    return getattr(model, "image_shape_", None) or getattr(model, "n_features_in_", None)
