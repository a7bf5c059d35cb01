"""Paths of coarse rounds, for networks that are to predict, of every kind of training problem."""

from collections.abc import Callable, Iterator

from numpy.typing import ArrayLike

from convexbn.model._neurons import Neurons
from convexbn.model._post_activation import PostActivationProblem
from convexbn.model._problem import Problem
from convexbn.solvers.post_activation._fast import fast_path as post_activation_path
from convexbn.solvers.relu._fast import fast_path as relu_path


def fast_path(
    problem: Problem, weight_decays: ArrayLike, *, random_state: int, stop: Callable[[], bool] | None = None
) -> Iterator[Neurons]:
    """Yield a network that predicts well at each weight decay, from the largest downwards; nothing is certified."""
    if isinstance(problem, PostActivationProblem):
        return post_activation_path(problem, weight_decays, random_state=random_state, stop=stop)  # type: ignore[return-value]
    return relu_path(problem, weight_decays, random_state=random_state, stop=stop)
