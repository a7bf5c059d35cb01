"""The training problem on a design matrix, and networks as lists of neurons."""

from convexbn.model._merging import prune
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem

__all__ = ["Neurons", "Problem", "prune"]
