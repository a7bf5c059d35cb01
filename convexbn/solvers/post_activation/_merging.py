"""Fewer neurons that are normalized after the ReLU: those that may be one are added up."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from convexbn.model._normalized_neurons import NormalizedNeurons, prune_normalized
from convexbn.model._post_activation import PostActivationProblem

_SAME_OUTPUTS = (1e-10, 1e-5, 1e-3)  # how far cosines of neurons and of output weights may be from 1
_ZERO = 1e-9  # cost relative to the largest up to which a neuron is left out, if that is no worse
_ROUNDING = 1e-13  # of the objective
_MOST_PAIRED = 1000  # neurons that are compared in pairs, of more when they are pruned to what the outputs need


def merge(problem: PostActivationProblem, neurons: NormalizedNeurons) -> NormalizedNeurons:
    """Add up neurons of equal pattern and output direction, and neurons that are close, unless the objective rises.

    Parameters
    ----------
    problem : PostActivationProblem
        Training problem.
    neurons : NormalizedNeurons
        A network.

    Returns
    -------
    neurons : NormalizedNeurons
        A network with no larger objective.
    """
    neurons = _no_worse(problem, neurons.without_zeros(), neurons.without_zeros(_ZERO))
    if len(neurons) < 2:
        return neurons
    if len(neurons) > _MOST_PAIRED:
        neurons = _no_worse(problem, neurons, prune_normalized(neurons, problem.Z, problem.sample_weight))
    patterns = np.packbits(problem.Z.products(neurons.weights) > 0, axis=0).T
    equal = np.unique(patterns, axis=0, return_inverse=True)[1].ravel()
    along = neurons.output_directions @ neurons.output_directions.T
    pairs = [(equal[:, None] == equal) & (along > 1 - distance) for distance in _SAME_OUTPUTS]
    hidden = np.sqrt(problem.sample_weight)[:, None] * neurons.hidden(problem.Z)
    hidden = hidden / np.maximum(np.linalg.norm(hidden, axis=0), np.finfo(float).tiny)
    both = (hidden.T @ hidden) * along
    pairs += [both > 1 - distance for distance in _SAME_OUTPUTS]
    for pair in pairs:
        groups = connected_components(coo_array(pair), directed=False)[1]
        if len(groups) == len(neurons):  # numbered before neurons were added up
            neurons = _no_worse(problem, neurons, neurons.added_up(groups, problem.Z, problem.sample_weight))
    return neurons


def _no_worse(
    problem: PostActivationProblem, neurons: NormalizedNeurons, fewer: NormalizedNeurons
) -> NormalizedNeurons:
    """The smaller network, unless its objective is larger."""
    if len(fewer) == len(neurons) or not fewer.finite:
        return neurons
    return fewer if problem.objective(fewer) <= problem.objective(neurons) * (1 + _ROUNDING) else neurons
