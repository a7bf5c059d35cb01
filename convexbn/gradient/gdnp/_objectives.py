"""What is minimised over linear weights: least squares, learning halfspaces, and halfspaces of exactly Gaussian data.

All of them depend on w through preactivations, and have the moments S = E[x x^T] and u = E[-y x] of the data.
"""

from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve

from convexbn._utils.data_checks import check_array
from convexbn._utils.magnitude import check_magnitude
from convexbn.gradient._options import check_samples
from convexbn.gradient.gdnp._functions import LOSSES, SmoothFunction, named_function

_STRIDE = 1 / 64  # by which the bracket of a length grows at first, relative
_NODES, _REACH = 2001, 10  # of the trapezoidal rule for a standard normal, exact for functions this smooth


class Moments:
    """Second moment S and (negated) cross moment u of the data, and the geometry that they define.

    Parameters
    ----------
    S : ndarray of shape (d, d)
        Second moment E[x x^T], positive definite.
    u : ndarray of shape (d,)
        E[-y x].

    Attributes
    ----------
    L, mu : float
        Largest and smallest eigenvalue of S.
    optimal_direction : ndarray of shape (d,)
        -S^-1 u, optimal for least squares and Gaussian halfspaces.
    rho_star : float
        Least Rayleigh quotient, -u^T S^-1 u.

    Raises
    ------
    ValueError
        If S is singular.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.gdnp import Moments
    >>> moments = Moments(np.diag([4.0, 1.0]), np.array([-2.0, 0.0]))
    >>> moments.rho_star, moments.rho(np.array([1.0, 0.0])), moments.rate
    (-1.0, -1.0, 0.75)
    """

    def __init__(self, S: np.ndarray, u: np.ndarray):
        self.S, self.u = S, u
        eigenvalues = np.linalg.eigvalsh(S)
        self.mu, self.L = float(eigenvalues[0]), float(eigenvalues[-1])
        smallest = max(self.L, 0.0) * len(S) * np.finfo(float).eps
        if self.mu <= smallest:
            raise ValueError(
                f"S = E[x x^T] is singular: {np.count_nonzero(eigenvalues > smallest)} of its {len(S)} columns are "
                "linearly independent. Drop constant and dependent columns of X, or take its principal components."
            )
        self._factor = cho_factor(S)
        self.optimal_direction = -cho_solve(self._factor, u)
        self.rho_star = float(u @ self.optimal_direction)

    @property
    def rate(self) -> float:
        """Bound 1 - mu/L of the factor by which a step reduces gradients; squared, of the Rayleigh quotient's error."""
        return 1 - self.mu / self.L

    @property
    def local_rate(self) -> float:
        """The factor itself, near the optimal direction.

        There a step multiplies errors by I - S/L and takes away what lies along the optimal direction, in the metric
        of S. So this is the norm of I - S/L on what is left, which is `rate` if u is orthogonal to the eigenvector of
        mu, and less otherwise. Raises a ValueError if u is zero, where no direction is the optimal one.
        """
        if not self.u.any():
            raise ValueError("u = E[-y x] is zero, so there is no optimal direction and no rate near it.")
        eigenvalues, basis = np.linalg.eigh(self.S)
        along = basis.T @ self.optimal_direction * np.sqrt(eigenvalues)
        left_out = np.outer(along, along) / (along @ along)
        rest = np.eye(len(along)) - left_out
        return float(np.linalg.norm(rest * (1 - eigenvalues / self.L) @ rest, 2))

    def norm(self, w: np.ndarray) -> float:
        """Norm |w|_S of weights (d,)."""
        return float(np.sqrt(w @ self.S @ w))

    def dual_norm(self, gradient: np.ndarray) -> float:
        """Norm |v|_(S^-1) of a gradient (d,)."""
        return float(np.sqrt(gradient @ cho_solve(self._factor, gradient)))

    def rho(self, w: np.ndarray) -> float:
        """Rayleigh quotient -(u^T w)^2 / (w^T S w) of a direction (d,); zero at zero."""
        squares = w @ self.S @ w
        return -float((self.u @ w) ** 2 / squares) if squares > 0 else 0.0


class Objective(ABC):
    """E[psi(preactivation)] as a function of weights; directions w come with |w|_S = 1, lengths g beside them.

    Attributes
    ----------
    moments : Moments
        Moments of the data.
    curvature : float
        Largest absolute second derivative of psi.
    strong_convexity : float
        Smallest eigenvalue of the Hessian, where one is known everywhere; else 0.

    Examples
    --------
    >>> from convexbn.gradient.gdnp import LeastSquares, Objective
    >>> objective = LeastSquares([[1.0, 0.0], [0.0, 2.0]], [3.0, 4.0])
    >>> isinstance(objective, Objective), round(objective.smoothness, 12)
    (True, 2.0)
    """

    moments: Moments
    curvature: float
    strong_convexity = 0.0

    @property
    def smoothness(self) -> float:
        """Lipschitz constant of the gradient."""
        return self.curvature * self.moments.L

    @abstractmethod
    def along(self, w: np.ndarray) -> np.ndarray:
        """What the other methods take of w; preactivations, where there are samples."""

    @abstractmethod
    def value(self, a: np.ndarray, g: float) -> float:
        """Objective at g w, of ``a = along(w)``."""

    @abstractmethod
    def slope(self, a: np.ndarray, g: float) -> float:
        """Derivative of `value` in g."""

    @abstractmethod
    def gradient(self, w: np.ndarray, a: np.ndarray, g: float) -> np.ndarray:
        """Gradient (d,) in the weights, at g w."""

    @abstractmethod
    def h(self, w: np.ndarray, a: np.ndarray, g: float) -> float:
        """By which the direction step of GDNP is divided, and which vanishes where it ends."""

    def separated(self, a: np.ndarray, g: float) -> bool:
        """Whether every sample is on its side of g w, so that longer weights are always better."""
        return False

    def evaluate(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Objective and gradient (d,) at weights (d,)."""
        a = self.along(weights)
        return self.value(a, 1.0), self.gradient(weights, a, 1.0)

    def length(self, a: np.ndarray, guess: float, accuracy: float, longest: float) -> float:
        """Length g at which the slope vanishes up to `accuracy`, by bisection on the side where the objective falls.

        The bracket grows from an estimate; |g| is at most `longest`.
        """
        at_zero = self.slope(a, 0.0)
        if at_zero == 0:
            return 0.0
        sign = -float(np.sign(at_zero))
        low = high = min(abs(guess) or 1.0, longest)
        stride = high * _STRIDE
        while (slope := sign * self.slope(a, sign * high)) < -accuracy and high < longest:
            low, high, stride = high, min(high + stride, longest), 2 * stride
        while slope > accuracy and low > 0 and (low == high or sign * self.slope(a, sign * low) > 0):
            low, high, stride = max(low - stride, 0.0), low, 2 * stride
        if slope <= accuracy:
            return sign * high
        while high - low > 2 * np.finfo(float).eps * high:
            middle = (low + high) / 2
            slope = sign * self.slope(a, sign * middle)
            if abs(slope) <= accuracy:
                return sign * middle
            low, high = (low, middle) if slope > 0 else (middle, high)
        return sign * high


class LeastSquares(Objective):
    """E[(y - x^T w)^2] / 2 of data.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Inputs, with independent columns; centre them if there should be an intercept.
    y : array-like of shape (n,)
        Targets.

    Raises
    ------
    ValueError
        If the data is not finite or of unequal length, or the columns of X are linearly dependent.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.gdnp import LeastSquares
    >>> LeastSquares(np.eye(2), np.ones(2)).evaluate(np.ones(2))
    (0.0, array([0., 0.]))
    """

    curvature = 1.0

    def __init__(self, X: ArrayLike, y: ArrayLike):
        data, targets = check_samples(X, y)
        check_magnitude(data, "X")
        check_magnitude(targets, "y")
        self.moments = Moments(data.T @ data / len(data), -(data.T @ targets) / len(data))
        self.strong_convexity = self.moments.mu
        self._squares = float(targets @ targets) / len(data)

    def along(self, w: np.ndarray) -> np.ndarray:
        return np.array([self.moments.u @ w, w @ self.moments.S @ w])

    def value(self, a: np.ndarray, g: float) -> float:
        return float(self._squares / 2 + g * a[0] + g**2 * a[1] / 2)

    def slope(self, a: np.ndarray, g: float) -> float:
        return float(a[0] + g * a[1])

    def gradient(self, w: np.ndarray, a: np.ndarray, g: float) -> np.ndarray:
        return self.moments.u + g * (self.moments.S @ w)

    def h(self, w: np.ndarray, a: np.ndarray, g: float) -> float:
        return float(a[0])

    def length(self, a: np.ndarray, guess: float, accuracy: float, longest: float) -> float:
        """Length g at which the slope vanishes, in closed form."""
        return float(np.clip(-a[0] / a[1], -longest, longest)) if a[1] > 0 else 0.0


class LearningHalfspace(Objective):
    """E[phi(z^T w)] with z = -y x: a halfspace, learned with a smooth loss phi.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Inputs, with independent columns; add a column of ones if there should be an intercept.
    y : array-like of shape (n,)
        Labels -1 and +1.
    loss : {"softplus", "sigmoid"} or SmoothFunction, default="softplus"
        Increasing loss phi of -y x^T w; "softplus" is the logistic loss.

    Raises
    ------
    ValueError
        If the data is not finite or of unequal length, a label is not -1 or +1, the loss is unknown, or the columns of
        X are linearly dependent.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.gdnp import LearningHalfspace
    >>> value, gradient = LearningHalfspace([[1.0], [2.0]], [1, -1]).evaluate(np.zeros(1))
    >>> bool(np.isclose(value, np.log(2))), gradient
    (True, array([0.25]))
    """

    def __init__(self, X: ArrayLike, y: ArrayLike, loss: str | SmoothFunction = "softplus"):
        self.loss = named_function("loss", loss, LOSSES)
        self.curvature = self.loss.curvature
        data, labels = check_samples(X, y)
        check_magnitude(data, "X")
        if not np.isin(labels, (-1, 1)).all():
            raise ValueError("y must hold the labels -1 and +1 only.")
        self._z = -labels[:, None] * data
        self.moments = Moments(data.T @ data / len(data), self._z.mean(axis=0))

    def along(self, w: np.ndarray) -> np.ndarray:
        return self._z @ w

    def value(self, a: np.ndarray, g: float) -> float:
        return float(np.mean(self.loss.value(g * a)))

    def slope(self, a: np.ndarray, g: float) -> float:
        return float(self.loss.first(g * a) @ a) / len(a)

    def gradient(self, w: np.ndarray, a: np.ndarray, g: float) -> np.ndarray:
        return self._z.T @ (self.loss.first(g * a) / len(a))

    def h(self, w: np.ndarray, a: np.ndarray, g: float) -> float:
        first, second = float(np.mean(self.loss.first(g * a))), float(np.mean(self.loss.second(g * a)))
        return gaussian_h(float(self.moments.u @ w), g, first, second)

    def separated(self, a: np.ndarray, g: float) -> bool:
        return bool((g * a).max() < 0)


class GaussianHalfspace(Objective):
    """E[phi(z^T w)] of exactly Gaussian z with second moment S and mean u: no samples, no sampling error.

    Parameters
    ----------
    S : array-like of shape (d, d)
        Second moment E[z z^T].
    u : array-like of shape (d,)
        Mean of z, with u^T S^-1 u < 1, so that the covariance S - u u^T is positive definite.
    loss : {"softplus", "sigmoid"} or SmoothFunction, default="softplus"
        Increasing loss phi.

    Raises
    ------
    ValueError
        If the shapes do not fit, S is not symmetric and positive definite, or u is too long.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.gdnp import GaussianHalfspace, gdnp
    >>> halfspace = GaussianHalfspace(np.diag([4.0, 1.0]), [-1.0, -0.5])
    >>> weights = gdnp(halfspace, start=[1.0, 0.0], tol=1e-10).weights
    >>> bool(np.isclose(weights[0] / weights[1], 0.5))  # S^-1 u is (-0.25, -0.5)
    True
    """

    def __init__(self, S: ArrayLike, u: ArrayLike, loss: str | SmoothFunction = "softplus"):
        self.loss = named_function("loss", loss, LOSSES)
        self.curvature = self.loss.curvature
        second: np.ndarray = check_array(S, dtype=np.float64, input_name="S")
        first: np.ndarray = check_array(u, dtype=np.float64, ensure_2d=False, input_name="u")
        if second.shape != (first.size, first.size) or first.ndim != 1 or not np.allclose(second, second.T):
            raise ValueError(
                f"S must be symmetric of shape (d, d), and u of shape (d,); they have {second.shape} and {first.shape}."
            )
        self.moments = Moments(second, first)
        if self.moments.rho_star <= -1:
            raise ValueError("u is too long for S: S - u u^T must be positive definite, a covariance.")

    @cached_property
    def _quadrature(self) -> tuple[np.ndarray, np.ndarray]:
        nodes = np.linspace(-_REACH, _REACH, _NODES)
        weights = np.exp(-(nodes**2) / 2)
        return nodes, weights / weights.sum()

    def along(self, w: np.ndarray) -> np.ndarray:
        mean = self.moments.u @ w
        return mean + np.sqrt(max(w @ self.moments.S @ w - mean**2, 0.0)) * self._quadrature[0]

    def value(self, a: np.ndarray, g: float) -> float:
        return float(self._quadrature[1] @ self.loss.value(g * a))

    def slope(self, a: np.ndarray, g: float) -> float:
        return float(self._quadrature[1] @ (self.loss.first(g * a) * a))

    def gradient(self, w: np.ndarray, a: np.ndarray, g: float) -> np.ndarray:
        """Gradient by Stein's lemma, E[phi'] u + E[phi''] (S - u u^T) g w."""
        first, second = self._derivatives(a, g)
        u = self.moments.u
        return first * u + second * g * (self.moments.S @ w - u * (u @ w))

    def h(self, w: np.ndarray, a: np.ndarray, g: float) -> float:
        return gaussian_h(float(self.moments.u @ w), g, *self._derivatives(a, g))

    def _derivatives(self, a: np.ndarray, g: float) -> tuple[float, float]:
        weights = self._quadrature[1]
        return float(weights @ self.loss.first(g * a)), float(weights @ self.loss.second(g * a))


def gaussian_h(cross: float, g: float, first: float, second: float) -> float:
    """E[phi'] (u^T w) - E[phi''] (u^T w) (u^T g w) for |w|_S = 1, of u^T w and the means of the derivatives at g w."""
    return float(cross * (first - second * g * cross))
