"""The training problem on a design matrix, its networks as lists of neurons, and what is known of a solution."""

from convexbn.model._certificate import Certificate, certify
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.model._solution import Progress, Solution, Status

__all__ = ["Certificate", "Neurons", "Problem", "Progress", "Solution", "Status", "certify"]
