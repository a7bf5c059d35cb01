"""How each loss, and its conjugate, is written in cvxpy.

A loss of your own needs these only for the convex programs; register them for its class::

    @loss_expression.register
    def _(loss: MyLoss, f, y):
        return cp.square(f - y)
"""

from functools import singledispatch
from typing import Any

import cvxpy as cp
import numpy as np

from convexbn.losses import CrossEntropy, Hinge, Huber, LogLoss, Loss, SquaredError, SquaredHinge

Conjugate = tuple[Any, list[Any]]


@singledispatch
def loss_expression(loss: Loss, f: Any, y: np.ndarray) -> Any:
    """Cvxpy expression of the loss of each sample.

    Parameters
    ----------
    loss : Loss
        The loss; what is registered for its class is called.
    f : cvxpy.Expression of shape (n,), or (n, C) for several outputs
        Predictions.
    y : ndarray of the same shape
        Targets.

    Returns
    -------
    expression : cvxpy.Expression
        Convex; of shape (n,), or (n, C) where it remains to be added up over outputs.

    Raises
    ------
    ValueError
        If nothing is registered for the class of the loss.

    Examples
    --------
    >>> import cvxpy as cp
    >>> import numpy as np
    >>> from convexbn.losses import SquaredError
    >>> from convexbn.solvers.conic import loss_expression
    >>> loss_expression(SquaredError(), cp.Constant([1.0, 3.0]), np.zeros(2)).value
    array([0.5, 4.5])
    """
    raise _not_registered(loss, "loss_expression")


@singledispatch
def conjugate_expression(loss: Loss, u: Any, y: np.ndarray) -> Conjugate:
    """Cvxpy expression of the conjugate of each sample, and the constraints that spell out its domain.

    Parameters
    ----------
    loss : Loss
        The loss; what is registered for its class is called.
    u : cvxpy.Expression of shape (n,), or (n, C) for several outputs
        Dual values.
    y : ndarray of the same shape
        Targets.

    Returns
    -------
    expression : cvxpy.Expression
        Convex; of shape (n,), or (n, C) where it remains to be added up over outputs.
    domain : list of cvxpy.Constraint

    Raises
    ------
    ValueError
        If nothing is registered for the class of the loss.

    Examples
    --------
    >>> import cvxpy as cp
    >>> import numpy as np
    >>> from convexbn.losses import Huber
    >>> from convexbn.solvers.conic import conjugate_expression
    >>> conjugate, domain = conjugate_expression(Huber(delta=1.0), cp.Constant([0.5, 1.0]), np.zeros(2))
    >>> conjugate.value, len(domain)
    (array([0.125, 0.5  ]), 1)
    """
    raise _not_registered(loss, "conjugate_expression")


def _not_registered(loss: Loss, name: str) -> ValueError:
    return ValueError(
        f"loss {loss.name!r} is not written in cvxpy: register it with convexbn.solvers.conic.{name}.register, or "
        "train by solve_column_generation or solve_gated, which need no cvxpy."
    )


@loss_expression.register
def _(loss: SquaredError, f: Any, y: np.ndarray) -> Any:
    return cp.square(f - y) / 2


@conjugate_expression.register
def _(loss: SquaredError, u: Any, y: np.ndarray) -> Conjugate:
    return cp.multiply(u, y) + cp.square(u) / 2, []


@loss_expression.register
def _(loss: Huber, f: Any, y: np.ndarray) -> Any:
    return cp.huber(f - y, loss.delta) / 2


@conjugate_expression.register
def _(loss: Huber, u: Any, y: np.ndarray) -> Conjugate:
    return cp.multiply(u, y) + cp.square(u) / 2, [cp.abs(u) <= loss.delta]


@loss_expression.register
def _(loss: LogLoss, f: Any, y: np.ndarray) -> Any:
    return cp.logistic(cp.multiply(-y, f))


@conjugate_expression.register
def _(loss: LogLoss, u: Any, y: np.ndarray) -> Conjugate:
    a = cp.multiply(-y, u)
    return -cp.entr(a) - cp.entr(1 - a), []


@loss_expression.register
def _(loss: SquaredHinge, f: Any, y: np.ndarray) -> Any:
    return cp.square(cp.pos(1 - cp.multiply(y, f)))


@conjugate_expression.register
def _(loss: SquaredHinge, u: Any, y: np.ndarray) -> Conjugate:
    a = cp.multiply(-y, u)
    return cp.square(a) / 4 - a, [a >= 0]


@loss_expression.register
def _(loss: Hinge, f: Any, y: np.ndarray) -> Any:
    return cp.pos(1 - cp.multiply(y, f))


@conjugate_expression.register
def _(loss: Hinge, u: Any, y: np.ndarray) -> Conjugate:
    a = cp.multiply(-y, u)
    return -a, [a >= 0, a <= 1]


@loss_expression.register
def _(loss: CrossEntropy, f: Any, y: np.ndarray) -> Any:
    return cp.log_sum_exp(f, axis=1) - cp.sum(cp.multiply(f, y), axis=1)


@conjugate_expression.register
def _(loss: CrossEntropy, u: Any, y: np.ndarray) -> Conjugate:
    p = u + y
    return -cp.sum(cp.entr(p), axis=1), [cp.sum(p, axis=1) == 1]
