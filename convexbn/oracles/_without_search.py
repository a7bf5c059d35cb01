"""The upper bound of all prices that needs no search, of every kind of training problem."""

import numpy as np

from convexbn.model._post_activation import PostActivationProblem
from convexbn.model._problem import Problem
from convexbn.oracles._bound import price_bound
from convexbn.oracles._normalized import normalized_price_bound
from convexbn.oracles._price import Price


def price_without_search(problem: Problem, v: np.ndarray) -> Price:
    """Upper bound of the price of every neuron of a problem at a dual point v (n, C): `price_bound`, or its like."""
    if isinstance(problem, PostActivationProblem):
        return normalized_price_bound(v, problem.sample_weight)
    return price_bound(problem.Z, v, problem.sample_weight)
