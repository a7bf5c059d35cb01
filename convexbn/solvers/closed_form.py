"""Closed-form global optima of whitened data of full row rank, Z Z^T = c I (d >= n - 1 in general position).

Every a >= 0 in R^n is then the output of one neuron, ``a = relu(Z s)`` with ``s = Z^T a / c`` and
``|s| = |a| / sqrt(c)``, and the price of v is ``sqrt(c) max(|v_+|, |v_-|)``. So the network is a choice of two
non-negative vectors f_+ and f_- with penalty ``radius * (|f_+| + |f_-|)``, ``radius = weight_decay / sqrt(c)``, and
the dual a choice of v with |v_+| and |v_-| at most `radius`.
"""

from dataclasses import dataclass
from functools import singledispatch

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from convexbn.certificate import certify
from convexbn.losses import Hinge, LogLoss, Loss, SquaredError
from convexbn.neurons import Neurons
from convexbn.pricing import price_bound
from convexbn.problem import Problem
from convexbn.solution import Solution, status_of

_ROW_RANK_RTOL = 1e-8  # how far Z Z^T may be from a multiple of the identity


def solve_closed_form(problem: Problem, *, tol: float = 1e-6) -> Solution:
    """Global optimum in closed form, where the whitened data has as many columns as samples.

    One output: two neurons, on the positive and the negative part of the target; squared error, log loss and hinge
    loss. Several outputs: one-hot targets (at most one entry a row that is not zero, none negative), one neuron an
    output, squared error without intercept.

    Parameters
    ----------
    problem : Problem
        Training problem with ``Z Z^T = c I`` and equal sample weights.
    tol : float, default=1e-6
        Relative gap that rounding may leave; it leaves more only where the objective is next to nothing.

    Returns
    -------
    solution : Solution
        Certificate of scope "global" and gap zero up to rounding.

    Raises
    ------
    ValueError
        If the problem is outside the reach of the closed forms; the message says why.

    Warns
    -----
    ConvergenceWarning
        If the gap exceeds `tol`.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, the
       closed forms of two-layer networks whose data has full row rank.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.design import BatchNormDesign
    >>> from convexbn.problem import Problem
    >>> from convexbn.solvers import solve_closed_form
    >>> X = np.random.default_rng(0).standard_normal((5, 9))
    >>> problem = Problem(BatchNormDesign().fit_transform(X), [1.0, -1.0, 2.0, 0.5, -3.0], weight_decay=0.1)
    >>> solution = solve_closed_form(problem)
    >>> len(solution.neurons), solution.certificate.scope, solution.certificate.gap < 1e-12
    (2, 'global', True)
    """
    obstacle = closed_form_obstacle(problem)
    if obstacle:
        raise ValueError(f"No closed form reaches this problem: {obstacle}.")
    c = _row_scale(problem)
    outputs, intercept, v = _optimum(problem.loss, problem.y, problem.weight_decay / np.sqrt(c), problem.fit_intercept)
    weights, output_weights = [], []
    for column, axis in zip(outputs.T, np.eye(problem.n_outputs), strict=True):
        for sign in (1, -1):
            part = np.maximum(sign * column, 0)
            if part.any():
                weights.append(problem.Z.Z.T @ part / c)
                output_weights.append(sign * axis)
    neurons = Neurons(
        np.array(weights).reshape(-1, problem.Z.n_columns).T,
        np.array(output_weights).reshape(-1, problem.n_outputs),
        intercept,
    )
    certificate = certify(
        problem, neurons, v, lambda v: price_bound(problem.Z, v), "closed form for whitened data of full row rank"
    )
    return Solution(neurons, v, certificate, status_of(certificate, tol, "the closed form"), 0)


def closed_form_obstacle(problem: Problem) -> str | None:
    """Why no closed form reaches this problem, or None if one does."""
    if type(problem.loss) not in _optimum.registry:
        return f"there is none for loss {problem.loss.name!r}"
    if not np.allclose(problem.sample_weight, problem.sample_weight[0], rtol=1e-12, atol=0):
        return "sample weights differ"
    if problem.n_outputs > 1 and ((problem.y < 0).any() or (np.count_nonzero(problem.y, axis=1) > 1).any()):
        return "targets with several outputs must be one-hot"
    if problem.n_outputs > 1 and problem.fit_intercept:
        return "with several outputs there must be no intercept"
    if problem.Z.n_patches > 1:
        return "the design pools patches"
    n, k = problem.Z.Z.shape
    if n > k:
        return f"Z has rank at most {k}, less than its {n} samples"
    c = _row_scale(problem)
    if c == 0 or np.abs(problem.Z.Z @ problem.Z.Z.T - c * np.eye(n)).max() > _ROW_RANK_RTOL * c:
        return "Z Z^T is not a multiple of the identity, so the data is not whitened or not of full row rank"
    return None


def _row_scale(problem: Problem) -> float:
    return float(np.mean(np.sum(problem.Z.Z**2, axis=1)))


@singledispatch
def _optimum(
    loss: Loss, y: np.ndarray, radius: float, fit_intercept: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return outputs without intercept (n, C), intercept (C,) and dual point (n, C)."""
    raise NotImplementedError


@_optimum.register
def _squared_error(
    loss: SquaredError, y: np.ndarray, radius: float, fit_intercept: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shrink the positive and the negative part of each column of y towards zero."""
    n = len(y)

    def dual_share(b: float) -> np.ndarray:
        """Share of the residual y - b that stays in n v; the rest is fitted."""
        residual = y - b
        share = np.ones_like(y)
        for side in (residual > 0, residual < 0):
            length = np.linalg.norm(residual * side, axis=0) / n
            share = np.where(side, radius / np.maximum(length, radius), share)
        return share

    b = 0.0
    if fit_intercept and np.ptp(y) > 0:
        b = brentq(lambda b: (dual_share(b) * (y - b)).sum(), y.min(), y.max(), xtol=1e-15 * np.ptp(y))
    elif fit_intercept:
        b = float(y[0, 0])
    share = dual_share(b)
    return (1 - share) * (y - b), np.full(y.shape[1], b), share * (y - b) / n


@dataclass(frozen=True)
class _Classes:
    """The two classes of a margin loss: where each is, how many, and the cap on n |v_i| that the penalty sets."""

    positive: np.ndarray
    n_positive: int
    n_negative: int
    cap_positive: float
    cap_negative: float

    @classmethod
    def of(cls, y: np.ndarray, radius: float) -> "_Classes":
        positive = y > 0
        n_positive = int(positive.sum())
        sizes = n_positive, len(y) - n_positive
        caps = (min(radius * len(y) / np.sqrt(size), 1.0) if size else 1.0 for size in sizes)
        return cls(positive, *sizes, *caps)

    def spread(self, on_positive: float, on_negative: float) -> np.ndarray:
        """Vector with one value on each class."""
        return np.where(self.positive, on_positive, on_negative)


@_optimum.register
def _log_loss(
    loss: LogLoss, y: np.ndarray, radius: float, fit_intercept: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each class moves away from zero until its slope has fallen to its cap."""
    classes = _Classes.of(y, radius)

    def slopes(b: float) -> tuple[float, float]:
        return min(expit(-b), classes.cap_positive), min(expit(b), classes.cap_negative)

    def imbalance(b: float) -> float:
        on_positive, on_negative = slopes(b)
        return classes.n_positive * on_positive - classes.n_negative * on_negative

    b = brentq(imbalance, -700, 700, xtol=1e-15) if fit_intercept else 0.0
    on_positive, on_negative = slopes(b)
    outputs = classes.spread(max(-logit(classes.cap_positive) - b, 0), min(logit(classes.cap_negative) - b, 0))
    return outputs, np.array([b]), classes.spread(on_positive, -on_negative) / len(y)


@_optimum.register
def _hinge(loss: Hinge, y: np.ndarray, radius: float, fit_intercept: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each class moves to its margin or stays at the intercept, which sits at a margin too."""
    n, classes = len(y), _Classes.of(y, radius)
    mass_positive = classes.n_positive * classes.cap_positive
    mass_negative = classes.n_negative * classes.cap_negative

    def outputs(b: float) -> np.ndarray:
        return classes.spread(max(1 - b, 0) * (classes.cap_positive < 1), min(-1 - b, 0) * (classes.cap_negative < 1))

    def objective(b: float) -> float:
        f = outputs(b)
        penalty = np.linalg.norm(f[classes.positive]) + np.linalg.norm(f[~classes.positive])
        return float(loss.value(f + b, y).mean() + radius * penalty)

    b = min((-1.0, 1.0), key=objective) if fit_intercept else 0.0
    if fit_intercept:
        mass_positive = mass_negative = min(mass_positive, mass_negative)
    v = classes.spread(mass_positive / max(classes.n_positive, 1), -mass_negative / max(classes.n_negative, 1)) / n
    return outputs(b), np.array([b]), v
