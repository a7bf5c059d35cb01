"""The feature metric that a choice learns from a network, and the training problem with it."""

from dataclasses import replace

import numpy as np

from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.estimators._base import Prepared
from convexbn.estimators._curve import Curve
from convexbn.model._problem import Problem
from convexbn.model._sums import of_gradients

_MOST_FEATURES = 2_000  # of which a metric has the square


def learned_metric(curve: Curve, design: BatchNormDesign) -> np.ndarray | None:
    """The average outer product (d, d) of the gradients of the best network of a curve, over its training samples.

    None where the network is a constant on them, or the features are more than 2,000. The samples that the curve held
    out have no part in it.

    References
    ----------
    .. [1] Radhakrishnan et al., "Mechanism for feature learning in neural networks and backpropagation-free machine
       learning models", Science 383 (2024), arXiv 2212.13881.
    """
    if len(design.whitening_) > _MOST_FEATURES:
        return None
    problem, neurons = curve.problem.restricted(curve.folds[0][0]), curve.networks[curve.best][0]
    Z, weights = problem.Z.in_single_precision, _of_unit_size(neurons.weights)  # the size of a metric does not count
    slopes = Z.cast((weights * _of_unit_size(neurons.output_weights).T[:, None, :]).swapaxes(1, 2))
    products = np.asarray(Z.summed(of_gradients, problem.placed[1], weights=weights, slopes=slopes), dtype=float)
    if not np.isfinite(products).all():
        return None
    eigenvalues, vectors = np.linalg.eigh(products[:-1, :-1])  # rounding in single precision makes some negative
    with np.errstate(over="ignore", invalid="ignore"):  # of columns whose squares are no floats
        root = design.whitening_ @ (vectors * np.sqrt(np.maximum(eigenvalues, 0)))
        metric: np.ndarray = root @ root.T
    return metric if np.isfinite(metric).all() and metric.any() else None


def _of_unit_size(values: np.ndarray) -> np.ndarray:
    """The values over the largest of them, so that their squares are numbers in single precision."""
    return values / (np.abs(values).max(initial=0) or 1.0)


def with_feature_metric(prepared: Prepared, problem: Problem, metric: np.ndarray) -> tuple[Prepared, Problem]:
    """The prepared data and the training problem with a penalty that measures weights by a metric (d, d)."""
    design, basis = prepared.design.with_feature_metric(metric)
    return replace(prepared, design=design), replace(problem, Z=problem.Z.times(basis))
