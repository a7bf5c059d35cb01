"""What is known of all prices without a search, of every kind of training problem."""

import numpy as np

from convexbn.model._post_activation import PostActivationProblem
from convexbn.model._problem import Problem
from convexbn.oracles._bound import price_bound
from convexbn.oracles._normalized import normalized_price_bound
from convexbn.oracles._price import Price


def price_without_search(problem: Problem, v: np.ndarray) -> Price:
    """Upper bound of the price of every neuron of a problem: `price_bound`, or `normalized_price_bound` after the ReLU.

    Parameters
    ----------
    problem : Problem or PostActivationProblem
        Training problem.
    v : ndarray of shape (n, C)
        Dual point.

    Returns
    -------
    price : Price
        Scope "global".

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import PostActivationProblem
    >>> from convexbn.oracles import price_without_search
    >>> problem = PostActivationProblem(np.eye(2), [1.0, -2.0], weight_decay=0.1)
    >>> round(price_without_search(problem, np.array([[1.5], [-1.5]])).value, 12)
    3.0
    """
    if isinstance(problem, PostActivationProblem):
        return normalized_price_bound(v, problem.sample_weight)
    return price_bound(problem.Z, v, problem.sample_weight)


def price_size(problem: Problem, v: np.ndarray) -> float:
    """Largest sum of the sizes of the terms that the price of a neuron adds up, by which its rounding is bounded.

    Parameters
    ----------
    problem : Problem or PostActivationProblem
        Training problem.
    v : ndarray of shape (n, C)
        Dual point.

    Returns
    -------
    size : float
        At least ``sum_i |v_i| |h_i|`` for every neuron h of unit cost.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import Problem
    >>> from convexbn.oracles import price_size
    >>> price_size(Problem(np.eye(2), [1.0, -2.0], weight_decay=0.1), np.array([[1.0], [-2.0]]))
    3.0
    """
    if isinstance(problem, PostActivationProblem):
        return float(np.linalg.norm(v / np.sqrt(problem.sample_weight)[:, None]))
    return float(problem.Z.row_norms @ np.linalg.norm(problem.Z.unpool(v), axis=1))
