"""From data to the training problem that belongs to a design."""

from typing import Any

from numpy.typing import ArrayLike

from convexbn.designs._design import Design
from convexbn.model._post_activation import PostActivationProblem
from convexbn.model._problem import Problem


def make_problem(design: Design, X: ArrayLike, y: ArrayLike, *args: Any, **options: Any) -> Problem:
    """Training problem of a fitted design: normalized before the ReLU, or after it where the design says so.

    Parameters
    ----------
    design : Design
        The fitted design.
    X : array-like
        The data that it was fitted on.
    y : array-like of shape (n,) or (n, C)
        Targets.
    *args, **options
        As for `Problem`.

    Returns
    -------
    problem : Problem or PostActivationProblem
    """
    kind = PostActivationProblem if design.after_relu else Problem
    return kind(design.matrix(X), y, *args, **options)
