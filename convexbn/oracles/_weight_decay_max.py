"""The weight decay from which on the zero network is optimal."""

import numpy as np

from convexbn._utils.threads import on_one_thread
from convexbn.model._post_activation import PostActivationProblem
from convexbn.model._problem import Problem, check_problem
from convexbn.oracles._ascent import price_by_ascent
from convexbn.oracles._bound import price_bound
from convexbn.oracles._normalized import find_normalized_maxima, normalized_price_bound
from convexbn.oracles._normalized_cones import normalized_quickly_enumerated, price_of_normalized_patterns
from convexbn.oracles._of_patterns import price_by_enumeration, quickly_enumerated
from convexbn.patterns._patterns import enumerate_patterns

_STARTS = 1000  # of the ascent


@on_one_thread
def weight_decay_max(problem: Problem) -> float:
    """Smallest weight decay at which the zero network is optimal, as far as known.

    It is the price of the zero network's dual point. That is exact where there are at most 10,000 patterns, which are
    enumerated (of several outputs a million faces of their cones, those of a few dozen samples in three columns), and
    where `price_bound` is attained (whitened data of rank n). Elsewhere it is what an ascent from 1,000 directions
    finds, a lower bound. For the hinge loss with an intercept the zero network has
    many dual points; the one with equal entries in each class is used, whose price is an upper bound.

    Parameters
    ----------
    problem : Problem
        Training problem; its own weight decay does not matter.

    Returns
    -------
    weight_decay : float
        Zero where the zero network fits perfectly.

    Raises
    ------
    ValueError
        If `problem` is no Problem.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import Problem, weight_decay_max
    >>> problem = Problem(np.eye(3), [1.0, -2.0, 3.0], weight_decay=0.1)
    >>> round(3 * weight_decay_max(problem), 6)  # two neurons: the positive and the negative part of y
    3.162278
    """
    check_problem(problem)
    if isinstance(problem, PostActivationProblem):
        return _of_post_activation(problem)
    bound = price_bound(problem.Z, problem.zero_dual, problem.sample_weight).value
    if quickly_enumerated(problem.Z, problem.n_outputs):
        return min(price_by_enumeration(problem.Z, problem.zero_dual).value, bound)
    found = price_by_ascent(problem.Z, problem.zero_dual, random_state=0).value
    return bound if found >= bound * (1 - 1e-6) else found


def _of_post_activation(problem: PostActivationProblem) -> float:
    """The same for batch normalization after the ReLU, whose bound is attained at full row rank."""
    Z, p, v = problem.Z.times(problem.whitening), problem.sample_weight, problem.zero_dual
    bound = normalized_price_bound(v, p).value
    if normalized_quickly_enumerated(Z, problem.n_outputs):
        price = price_of_normalized_patterns(Z, p, enumerate_patterns(Z), v)
        assert price is not None
        return min(price.value, bound)
    starts = np.random.default_rng(0).standard_normal((Z.n_columns, _STARTS))
    found = find_normalized_maxima(Z, p, v, starts, count=1).prices.max(initial=float(np.linalg.norm(v.sum(axis=0))))
    return bound if found >= bound * (1 - 1e-6) else float(found)
