"""Losses: value, derivatives, conjugate and dual projection of each, one small class a loss.

Every method takes predictions f, targets y or dual values u as arrays of shape (n, C); only `SquaredError` and
`CrossEntropy` have more than one output. Margin losses take targets -1 and +1, or one-hot rows. The dual point of
`convexbn.Problem` is v_i = -p_i u_i, with p_i the weight of sample i (1/n), and its objective
-sum_i p_i conjugate(u_i, y_i).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, softmax, xlog1py, xlogy

from convexbn._utils.array_namespace import like, namespace

_NEWTON_STEPS = 100  # for the shift of outputs that balances the classes


class Loss(ABC):
    """A loss, as the training problem, its dual and the solvers use it.

    A loss of your own is a subclass; the convex programs need it in cvxpy, too
    (`convexbn.solvers.conic.loss_expression`).

    Attributes
    ----------
    name : str
        Its name as an argument of estimators and `Problem`.
    curvature : float
        Largest second derivative in f; infinite where the loss has a kink.
    margin : bool
        Whether targets are classes: labels -1 and +1, or one-hot rows (else real numbers).
    one_hot : bool
        Whether targets are one-hot rows.

    Examples
    --------
    >>> from convexbn.losses import Loss, make_loss
    >>> loss = make_loss("squared_hinge")
    >>> isinstance(loss, Loss), loss.curvature, loss.margin
    (True, 2.0, True)
    """

    name: ClassVar[str]
    curvature: ClassVar[float]
    margin: ClassVar[bool] = False
    one_hot: ClassVar[bool] = False

    def of_classes(self, n_classes: int) -> "Loss":
        """Return the loss for so many classes, this one if it takes them; else raise a ValueError."""
        if n_classes > 2 and not self.one_hot:
            raise ValueError(
                "Only binary classification is supported. "
                f"loss={self.name!r} takes two classes, y has {n_classes}; use loss='log_loss'."
            )
        return self

    def probabilities(self, f: np.ndarray) -> np.ndarray:
        """Probabilities of the classes at predictions f: shape (n, 2) for labels -1 and +1, else (n, C)."""
        raise AttributeError(f"predict_proba needs loss='log_loss' or 'cross_entropy', not {self.name!r}.")

    def check_targets(self, y: np.ndarray) -> None:
        """Raise a ValueError if this loss cannot be taken of targets y (n, C)."""
        if y.shape[1] != 1:
            raise ValueError(f"loss {self.name!r} takes one output, y has {y.shape[1]} columns.")
        if self.margin and not np.isin(y, (-1, 1)).all():
            raise ValueError(f"loss {self.name!r} takes labels -1 and +1 in y.")

    # Functions of blocks of rows that are not in memory call `value`, `gradient` and `hessian` with arrays of other
    # libraries.
    @abstractmethod
    def value(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Loss of each sample, shape (n,)."""

    @abstractmethod
    def gradient(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Derivative in f, shape (n, C); at a kink the subgradient of the side with the larger loss."""

    def with_gradient(self, f: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`value` and `gradient`, which descents need together."""
        return self.value(f, y), self.gradient(f, y)

    @abstractmethod
    def second_derivative(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Second derivative in f, shape (n, C); zero at the kinks of `gradient` and of the loss."""

    def hessian(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Matrix of second derivatives in f, shape (n, C, C)."""
        return self.second_derivative(f, y)[:, :, None] * like(f, np.eye(f.shape[1]))[0]

    @abstractmethod
    def conjugate(self, u: np.ndarray, y: np.ndarray) -> np.ndarray:
        """sup_f u·f - loss(f, y) of each sample, shape (n,); infinite outside the domain."""

    def project_dual(self, u: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Nearest u in the conjugate's domain, shape (n, C)."""
        return u

    def centred_dual(self, u: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Nearby u in the conjugate's domain with ``weights @ u == 0``, from a u in the domain: shape (n, C).

        The heavier of the positive and the negative entries of a column is scaled down, which keeps u in a domain that
        is a product over outputs, is convex and holds zero.
        """
        positive, negative = weights @ np.maximum(u, 0), weights @ np.maximum(-u, 0)
        least, heavy = np.minimum(positive, negative), np.where(u > 0, positive, negative)
        return u * np.divide(least, heavy, where=heavy > 0, out=np.zeros_like(u))

    @abstractmethod
    def best_constant(self, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Constant prediction (C,) of least weighted loss; weights (n,) add up to one."""

    def rescaled(self, scale: float) -> "Loss":
        """Return the loss l' with ``loss(scale * f, scale * y) = scale**2 * l'(f, y)``; not for margin losses."""
        if not self.margin:
            raise NotImplementedError(f"{type(self).__name__} must define `rescaled`, the loss for scaled targets.")
        return self


@dataclass(frozen=True)
class SquaredError(Loss):
    """(f - y)^2 / 2, added up over outputs.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.losses import SquaredError
    >>> SquaredError().value(np.array([[1.0], [3.0]]), np.zeros((2, 1)))
    array([0.5, 4.5])
    """

    name = "squared_error"
    curvature = 1.0

    def check_targets(self, y: np.ndarray) -> None:
        pass

    def value(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.with_gradient(f, y)[0]

    def gradient(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        return f - y

    def with_gradient(self, f: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        residual = f - y
        return namespace(f).sum(residual**2, axis=1) / 2, residual

    def second_derivative(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        return namespace(f).ones_like(f)

    def conjugate(self, u: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (u * y + u**2 / 2).sum(axis=1)

    def best_constant(self, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return y[0] + weights @ (y - y[0])  # exact for equal targets

    def rescaled(self, scale: float) -> "SquaredError":
        return self


@dataclass(frozen=True)
class Huber(Loss):
    """(f - y)^2 / 2 where |f - y| <= delta, delta |f - y| - delta^2 / 2 beyond.

    Parameters
    ----------
    delta : float, default=1.35
        Residual, on the scale of y, from which on the loss grows linearly.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.losses import Huber
    >>> Huber(delta=1.0).value(np.array([[1.0], [3.0]]), np.zeros((2, 1)))
    array([0.5, 2.5])
    """

    delta: float = 1.35

    name = "huber"
    curvature = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.delta) and self.delta > 0):
            raise ValueError(f"delta={self.delta} must be a positive number.")

    def value(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        xp = namespace(y)
        residual = xp.abs(f - y)[:, 0]
        inner = xp.clip(residual, None, self.delta)
        return inner**2 / 2 + self.delta * (residual - inner)

    def gradient(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        return namespace(y).clip(f - y, -self.delta, self.delta)

    def second_derivative(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        xp = namespace(f)
        return xp.where(xp.abs(f - y) < self.delta, xp.ones_like(f), xp.zeros_like(f))

    def conjugate(self, u: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(np.abs(u) <= self.delta, u * y + u**2 / 2, np.inf)[:, 0]

    def project_dual(self, u: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.clip(u, -self.delta, self.delta)

    def best_constant(self, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        low, high = y.min(), y.max()
        if low == high:
            return np.array([low])
        return np.array(
            [brentq(lambda b: (weights @ self.gradient(b, y)).item(), low, high, xtol=1e-15 * (high - low))]
        )

    def rescaled(self, scale: float) -> "Huber":
        return replace(self, delta=self.delta / scale)


@dataclass(frozen=True)
class LogLoss(Loss):
    """log(1 + exp(-y f)), labels -1 and +1.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.losses import LogLoss
    >>> LogLoss().value(np.array([[0.0], [2.0]]), np.array([[1.0], [-1.0]])).round(3)
    array([0.693, 2.127])
    """

    name = "log_loss"
    curvature = 0.25
    margin = True

    def of_classes(self, n_classes: int) -> Loss:
        return CrossEntropy() if n_classes > 2 else self

    def probabilities(self, f: np.ndarray) -> np.ndarray:
        return namespace(f).concat([_logistic(-f), _logistic(f)], axis=1)

    def value(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        xp = namespace(y)
        return xp.logaddexp(xp.zeros_like(y), -y * f)[:, 0]

    def gradient(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        return -y * _logistic(-y * f)

    def second_derivative(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        return _logistic(f) * _logistic(-f)

    def conjugate(self, u: np.ndarray, y: np.ndarray) -> np.ndarray:
        a = (-u * y)[:, 0]
        inside = (a >= 0) & (a <= 1)
        a = np.clip(a, 0, 1)
        return np.where(inside, xlogy(a, a) + xlog1py(1 - a, -a), np.inf)

    def project_dual(self, u: np.ndarray, y: np.ndarray) -> np.ndarray:
        return -y * np.clip(-u * y, 0, 1)

    def best_constant(self, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.log(weights @ (y > 0)) - np.log(weights @ (y < 0))


@dataclass(frozen=True)
class SquaredHinge(Loss):
    """max(0, 1 - y f)^2, labels -1 and +1.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.losses import SquaredHinge
    >>> SquaredHinge().value(np.array([[0.0], [2.0]]), np.array([[1.0], [-1.0]])).round(3)
    array([1., 9.])
    """

    name = "squared_hinge"
    curvature = 2.0
    margin = True

    def value(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        return namespace(y).clip(1 - y * f, 0.0, None)[:, 0] ** 2

    def gradient(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        return -2 * y * namespace(y).clip(1 - y * f, 0.0, None)

    def second_derivative(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        xp = namespace(f)
        return 2 * xp.where(y * f < 1, xp.ones_like(f), xp.zeros_like(f))

    def conjugate(self, u: np.ndarray, y: np.ndarray) -> np.ndarray:
        a = (-u * y)[:, 0]
        return np.where(a >= 0, a**2 / 4 - a, np.inf)

    def project_dual(self, u: np.ndarray, y: np.ndarray) -> np.ndarray:
        return -y * np.maximum(-u * y, 0)

    def best_constant(self, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return weights @ y


@dataclass(frozen=True)
class Hinge(Loss):
    """max(0, 1 - y f), labels -1 and +1.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.losses import Hinge
    >>> Hinge().value(np.array([[0.0], [2.0]]), np.array([[1.0], [-1.0]])).round(3)
    array([1., 3.])
    """

    name = "hinge"
    curvature = np.inf
    margin = True

    def value(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        return namespace(y).clip(1 - y * f, 0.0, None)[:, 0]

    def gradient(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        xp = namespace(y)
        return xp.where(y * f <= 1, -y, xp.zeros_like(y))

    def second_derivative(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        return namespace(f).zeros_like(f)

    def conjugate(self, u: np.ndarray, y: np.ndarray) -> np.ndarray:
        a = (-u * y)[:, 0]
        return np.where((a >= 0) & (a <= 1), -a, np.inf)

    def project_dual(self, u: np.ndarray, y: np.ndarray) -> np.ndarray:
        return -y * np.clip(-u * y, 0, 1)

    def best_constant(self, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.sign(weights @ y)


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """log sum_c exp(f_c) - f_y, the log loss of several classes, whose targets are one-hot rows.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.losses import CrossEntropy
    >>> CrossEntropy().value(np.array([[0.0, 0.0], [2.0, 0.0]]), np.eye(2)).round(3)
    array([0.693, 2.127])
    """

    name = "cross_entropy"
    curvature = 0.5
    margin = True
    one_hot = True

    def probabilities(self, f: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # of a difference of outputs, whose exponential is zero anyway
            return _softmax(f)

    def check_targets(self, y: np.ndarray) -> None:
        if not (np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all() and y.shape[1] > 1):
            raise ValueError(f"loss {self.name!r} takes one-hot rows in y, a column for each of two or more classes.")
        if not y.any(axis=0).all():
            raise ValueError(f"y has no sample of class {int(y.any(axis=0).argmin())}; drop its column.")

    def value(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.with_gradient(f, y)[0]

    def gradient(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.with_gradient(f, y)[1]

    def with_gradient(self, f: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As in the base class, at one exponential; products with ones are faster than sums of short rows."""
        xp = namespace(f)
        ones = xp.ones_like(f[:1, :]).T
        above = f - (f * y) @ ones  # the output of the class itself, which keeps small losses
        largest = xp.max(above, axis=1, keepdims=True)
        p = xp.exp(above - largest)
        others = p * (1 - y)
        value = largest + xp.log1p(others @ ones + xp.expm1(-largest))
        others = others / (p @ ones)
        return value[:, 0], others - y * (others @ ones)

    def second_derivative(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        p = _softmax(f)
        return p * (1 - p)

    def hessian(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        p = _softmax(f)
        return p[:, :, None] * (like(f, np.eye(f.shape[1]))[0] - p[:, None, :])

    def conjugate(self, u: np.ndarray, y: np.ndarray) -> np.ndarray:
        p, own = u * (1 - y), (u * y).sum(axis=1)  # probabilities of the other classes, and of the class itself less 1
        inside = (p >= -1e-15).all(axis=1) & (own >= -1 - 1e-15) & (np.abs(u.sum(axis=1)) <= 1e-12)
        p, own = np.clip(p, 0, 1), np.clip(own, -1, 0)
        return np.where(inside, xlogy(p, p).sum(axis=1) + xlog1py(1 + own, own), np.inf)

    def project_dual(self, u: np.ndarray, y: np.ndarray) -> np.ndarray:
        p = np.maximum(u, 0) * (1 - y)
        p /= np.maximum(p.sum(axis=1, keepdims=True), 1)
        return p - y * p.sum(axis=1, keepdims=True)

    def centred_dual(self, u: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """As in the base class: the probabilities u + y after the shift of outputs that gives them y's class totals."""
        logs = np.log(np.maximum(u + y, np.finfo(float).tiny))
        for _ in range(_NEWTON_STEPS):
            p = softmax(logs, axis=1)
            others = p * (1 - y)
            centred = others - y * others.sum(axis=1, keepdims=True)  # p - y to all digits
            residual = -weights @ centred
            if (np.abs(residual) <= 1e-14 * (weights @ np.abs(centred))).all():
                break
            # Equal shifts of all outputs change nothing; the added constant keeps them out of the step.
            hessian = np.diag(weights @ p) - (p * weights[:, None]).T @ p + 1
            logs = logs + np.clip(np.linalg.lstsq(hessian, residual, rcond=None)[0], -1, 1)
        return centred

    def best_constant(self, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        logs = np.log(weights @ y)
        return logs - logs.mean()


def _softmax(f: np.ndarray) -> np.ndarray:
    xp = namespace(f)
    if xp is np:
        return softmax(f, axis=1)
    p = xp.exp(f - xp.max(f, axis=1, keepdims=True))
    return p / xp.sum(p, axis=1, keepdims=True)


def _logistic(f: np.ndarray) -> np.ndarray:
    xp = namespace(f)
    return expit(f) if xp is np else xp.exp(-xp.logaddexp(xp.zeros_like(f), -f))  # which does not overflow


LOSSES: dict[str, type[Loss]] = {
    loss.name: loss for loss in (SquaredError, Huber, LogLoss, SquaredHinge, Hinge, CrossEntropy)
}


def make_loss(loss: "str | Loss") -> Loss:
    """Return the loss of this name, or the loss itself.

    Parameters
    ----------
    loss : {"squared_error", "huber", "log_loss", "squared_hinge", "hinge", "cross_entropy"} or Loss
        Name or instance.

    Returns
    -------
    loss : Loss

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> from convexbn.losses import make_loss
    >>> make_loss("huber")
    Huber(delta=1.35)
    """
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ValueError(f"loss={loss!r} is unknown; choose one of {sorted(LOSSES)}.")
    return LOSSES[loss]()
