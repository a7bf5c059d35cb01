"""Training samples that lack classes: training without these, and networks that never choose them."""

from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._weight_norm import WeightNormDesign
from convexbn.model._neurons import Neurons
from convexbn.network import GatedNetwork, NormalizedNetwork, make_network

if TYPE_CHECKING:
    from convexbn.estimators._classifier import Classification

Classifier = TypeVar("Classifier", bound="Classification")

_NEVER = float(np.finfo(np.float64).min) / 4  # output of a class that is never chosen: its probability is zero


def present_classes(y: np.ndarray) -> np.ndarray:
    """Which classes there are, a mask (n_classes,), in targets y: (n, 1) of -1 and +1, or one-hot rows (n, C)."""
    return np.any(y if y.shape[1] > 1 else np.hstack([y < 0, y > 0]), axis=0)


def without_absent(model: "Classification", y: np.ndarray, present: np.ndarray) -> tuple["Classification", np.ndarray]:
    """Return a copy of a classifier restricted to the classes that are present, and its targets.

    Parameters
    ----------
    model : Classification
        A classifier with the attribute ``classes_``.
    y : ndarray of shape (n, 1) or (n, C)
        Its targets.
    present : ndarray of bool, shape (n_classes,)
        The classes, at least two.

    Returns
    -------
    model : Classification
    y : ndarray of shape (n, 1) or (n, C')
    """
    if present.all():
        return model, y
    model = copy(model)
    model.classes_ = model.classes_[present]
    y = y[:, present]
    return model, y if model._training_loss().one_hot else 2 * y[:, 1:] - 1


def with_absent(network: NormalizedNetwork | GatedNetwork, present: np.ndarray) -> NormalizedNetwork | GatedNetwork:
    """Return the network with outputs for all classes, of one with outputs for those that are present.

    Parameters
    ----------
    network : network of one output, for two classes that are present, or C'
        A network trained without the absent classes.
    present : ndarray of bool, shape (n_classes,)
        The classes that are present.

    Returns
    -------
    network : same type
        Its probabilities are those of `network`, and zero for the absent classes.
    """
    if present.all():
        return network
    weights, intercept = network.output_weights, network.intercept
    if weights.shape[1] == 1:  # f is the difference of two outputs
        weights, intercept = np.hstack([-weights, weights]) / 2, np.hstack([-intercept, intercept]) / 2
    outputs, offsets = np.zeros((len(weights), len(present))), np.full(len(present), _NEVER)
    outputs[:, present], offsets[present] = weights, intercept
    return replace(network, output_weights=outputs, intercept=offsets)


def constant_network(
    design: BatchNormDesign | WeightNormDesign, present: np.ndarray, n_outputs: int
) -> NormalizedNetwork | GatedNetwork:
    """Return the network without neurons that always chooses the one class that is present."""
    intercept = np.where(present, 0.0, _NEVER) if n_outputs > 1 else np.where(present[1:], -_NEVER, _NEVER)
    k = design._n_features_out
    return make_network(Neurons(np.zeros((k, 0)), np.zeros((0, n_outputs)), intercept), design)
