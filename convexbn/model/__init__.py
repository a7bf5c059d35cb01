"""The training problem on a design matrix, and networks as lists of neurons."""

from convexbn.model._merging import prune
from convexbn.model._neurons import Neurons
from convexbn.model._normalized_neurons import NormalizedNeurons
from convexbn.model._post_activation import PostActivationProblem
from convexbn.model._problem import Problem

__all__ = ["Neurons", "NormalizedNeurons", "PostActivationProblem", "Problem", "prune"]
