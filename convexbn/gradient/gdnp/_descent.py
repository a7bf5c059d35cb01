"""Gradient descent in normalized parametrization: directions by gradient steps, lengths by bisection."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.checks import check_kind, is_number
from convexbn._utils.data_checks import check_array
from convexbn._utils.magnitude import check_magnitude
from convexbn.gradient._options import check_integer, check_number
from convexbn.gradient._trace import Recorder, Trace
from convexbn.gradient.gdnp._objectives import Objective

_LENGTH_SHARE = 0.01  # of the gradient, or the tolerance if that is more, which a length may leave
_ROUNDING = 1e-14  # of an objective, relative to that of zero weights
_LONGEST, _SHORTEST = 2.0**30, 2.0**-20  # steps, of that which is safe at the best length


@dataclass(frozen=True, eq=False)
class LinearFit:
    """The weights of a run, its end and its trace.

    Parameters
    ----------
    weights : ndarray of shape (d,)
        The weights g w / |w|_S.
    length : float
        |weights|_S, that is |g|.
    status : {"converged", "separable", "stopped", "interrupted"}
        "converged": the gradient's norm in the metric of S^-1 is at most the tolerance. "separable": the weights have
        every sample on its right side, so the loss has no minimiser; it falls for ever along these weights. "stopped":
        neither, after the last step allowed, or before it where the line search of `lbfgs` finds nothing lower.
        "interrupted": by Ctrl-C.
    trace : Trace
        The run; watches `rho`, `gradient_norm` (in the metric of S^-1) and `length`.

    Examples
    --------
    >>> from convexbn.gradient.gdnp import LeastSquares, gdnp
    >>> fit = gdnp(LeastSquares([[1.0, 0.0], [0.0, 2.0]], [3.0, 4.0]))
    >>> fit.status, fit.weights.round(4)
    ('converged', array([3., 2.]))
    """

    weights: np.ndarray
    length: float
    status: str
    trace: Trace


def gdnp(
    objective: Objective,
    *,
    start: ArrayLike | None = None,
    n_steps: int = 1000,
    tol: float = 1e-6,
    max_length: float = np.inf,
    verbose: bool = False,
) -> LinearFit:
    """Minimise over weights g w / |w|_S: a gradient step for the direction w, then the best length g, and again.

    The direction step is w - s grad_w f(w, g) with s = -|w|_S^3 / (L g h(w, g)), where
    h = E[phi'] (u^T w) - E[phi''] (u^T w) (u^T g w / |w|_S) for halfspaces. For least squares this is the step
    w^T S w / (2 L |rho(w)|) on the Rayleigh quotient rho. Where z is Gaussian every step is exactly that one too,
    whatever the loss, and rho(w_t) - rho* falls at least like (1 - mu/L)^(2t).

    Once the length is the best one, the step is a gradient step on the weights themselves, of size -g |w|_S / (L h);
    for Gaussian z this is 1 / (L E[phi'']). On other data it may be too long. So it is halved while the objective would
    rise, which it does not at 1 / (L max phi''). The trace counts halvings. With Gaussian z and a convex loss there are
    none: the objective at the best length depends on rho alone, and rises with it.

    The run ends at a small gradient, where the paper's ends at h = 0; for Gaussian z the two are the same. Where h has
    the sign of g, so that -1 / (g h) is no step, the one that never makes the objective rise is taken.

    Parameters
    ----------
    objective : Objective
        `LeastSquares`, `LearningHalfspace` or `GaussianHalfspace`.
    start : array-like of shape (d,) or None, default=None
        First direction; None takes -u, the direction of steepest descent at zero.
    n_steps : int, default=1000
        Most direction steps.
    tol : float, default=1e-6
        The run ends where the gradient's norm in the metric of S^-1 is at most this.
    max_length : float, default=inf
        Longest g. With a loss that is bounded, such as the sigmoid, the best length is often infinite, and all samples
        but the wrong ones would be saturated after one step; a length of about 10 avoids that. A run also ends
        where the length is this and the gradient is small but for its part along w.
    verbose : bool, default=False
        Whether to show a progress bar.

    Returns
    -------
    fit : LinearFit
        Besides the watched numbers of every method, the trace has `rho_bound`, the bound
        rho* + (1 - mu/L)^(2t) (rho(w_0) - rho*), `rho_star`, and `halvings`.

    Raises
    ------
    ValueError
        If an argument is out of range, or `start` is orthogonal to u while u is not zero.

    References
    ----------
    .. [1] Kohler et al., "Exponential convergence rates for Batch Normalization: The power of length-direction
       decoupling in non-convex optimization", arXiv 1805.10694.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.gdnp import LeastSquares, gdnp
    >>> X = np.random.default_rng(0).standard_normal((50, 3))
    >>> fit = gdnp(LeastSquares(X, X @ [1.0, 2.0, 3.0]))
    >>> fit.status, fit.weights.round(4)
    ('converged', array([1., 2., 3.]))
    >>> bool((fit.trace["rho"] <= fit.trace["rho_bound"] + 1e-12).all())
    True
    """
    check_objective(objective)
    check_integer("n_steps", n_steps, 0)
    check_number("tol", tol)
    if not (is_number(max_length) and max_length > 0):
        raise ValueError(f"max_length={max_length!r} must be a positive number.")
    moments = objective.moments
    w = -moments.u if start is None else check_start(start, len(moments.u))
    if start is not None and moments.rho(w) == 0 and moments.rho_star < 0:
        raise ValueError("start is zero or orthogonal to u = E[-y x], so no length helps; choose another, or None.")
    lengths = _Lengths(objective, tol, max_length)
    at = lengths.best(w, 1.0, tol)
    excess, halvings, status = moments.rho(at.w) - moments.rho_star, 0, "stopped"
    with Recorder("GDNP", n_steps, verbose=verbose) as recorder:
        for step in range(n_steps + 1):
            gradient = objective.gradient(at.w, at.a, at.g)
            if objective.separated(at.a, at.g) and np.isinf(max_length):
                status = "separable"
                at, gradient = lengths.until_small(at)
            slope = at.w @ gradient
            tangential = gradient - slope * (moments.S @ at.w)
            capped = abs(at.g) == max_length and slope * at.g < 0
            norm = moments.dual_norm(gradient)
            if status == "stopped" and (moments.dual_norm(tangential) if capped else norm) <= tol:
                status = "converged"
            recorder.record(
                step,
                at.value,
                rho=moments.rho(at.w),
                gradient_norm=norm,
                length=abs(at.g),
                rho_bound=moments.rho_star + moments.rate ** (2 * step) * excess,
                rho_star=moments.rho_star,
                halvings=halvings,
            )
            if status != "stopped":
                break
            if step < n_steps:
                at, halvings = _direction_step(lengths, at, at.g * tangential, norm)
    trace = recorder.trace()
    return LinearFit(at.g * at.w, abs(at.g), "interrupted" if trace.interrupted else status, trace)


@dataclass(frozen=True)
class _Weights:
    """A direction w with |w|_S = 1, its preactivations a, a length g and the objective there."""

    w: np.ndarray
    a: np.ndarray
    g: float
    value: float


@dataclass(frozen=True)
class _Lengths:
    """The length step: the best length of a direction, about as exact as the gradient is small, up to a longest one."""

    objective: Objective
    tol: float
    longest: float

    def best(self, w: np.ndarray, guess: float, norm: float) -> _Weights:
        """Normalize a direction and give it its best length, where gradients have about this norm."""
        w = w / (self.objective.moments.norm(w) or 1.0)
        a = self.objective.along(w)
        g = self.objective.length(a, guess, _LENGTH_SHARE * max(norm, self.tol), self.longest)
        return _Weights(w, a, g, self.objective.value(a, g))

    def until_small(self, at: _Weights) -> tuple[_Weights, np.ndarray]:
        """Make separating weights longer until the gradient is small; return them and the gradient."""
        while True:
            gradient = self.objective.gradient(at.w, at.a, at.g)
            if self.objective.moments.dual_norm(gradient) <= self.tol:
                return at, gradient
            at = _Weights(at.w, at.a, 2 * at.g, self.objective.value(at.a, 2 * at.g))


def _direction_step(lengths: _Lengths, at: _Weights, gradient_w: np.ndarray, norm: float) -> tuple[_Weights, int]:
    """One direction step with its length step, and how often it was halved."""
    objective = lengths.objective
    h = objective.h(at.w, at.a, at.g)
    safe = 1 / (objective.smoothness * at.g**2)
    s = min(-1 / (objective.moments.L * at.g * h), _LONGEST * safe) if at.g * h < 0 else safe
    highest = at.value + _ROUNDING * abs(objective.value(at.a, 0.0))
    halvings = 0
    while True:
        stepped = lengths.best(at.w - s * gradient_w, at.g, norm)
        if stepped.value <= highest or s <= _SHORTEST * safe:
            return stepped, halvings
        s, halvings = s / 2, halvings + 1


def check_objective(objective: object) -> None:
    """Raise a ValueError unless this is an objective."""
    check_kind("objective", objective, Objective, "LeastSquares(X, y), or another objective of this module")


def check_start(start: ArrayLike, d: int) -> np.ndarray:
    """Return the weights (d,) to start from, or raise a ValueError."""
    weights = check_array(start, dtype=np.float64, ensure_2d=False, copy=True, input_name="start")
    if weights.shape != (d,):
        raise ValueError(f"start has shape {weights.shape}; give one weight for each of the {d} columns of X.")
    check_magnitude(weights, "start")
    return weights
