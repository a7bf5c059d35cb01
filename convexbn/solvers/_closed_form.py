"""Closed-form global optima of whitened data of full row rank (d >= n - 1 in general position).

With the sample weights p and P = diag(p) this is ``P^1/2 Z Z^T P^1/2 = c I``. Norms are weighted, ``|a|^2 = a^T P a``.
Every a >= 0 in R^n is then the output of one neuron, ``a = relu(Z s)`` with ``s = Z^T P a / c`` and
``|s| = |a| / sqrt(c)``, and the price of v = P u is ``sqrt(c) max(|u_+|, |u_-|)``. So the network is a choice of two
non-negative vectors f_+ and f_- with penalty ``radius * (|f_+| + |f_-|)``, ``radius = weight_decay / sqrt(c)``, and
the dual a choice of u with |u_+| and |u_-| at most `radius`.
"""

from dataclasses import dataclass
from functools import partial, singledispatch

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from convexbn.losses import Hinge, LogLoss, Loss, SquaredError
from convexbn.model._neurons import Neurons
from convexbn.model._post_activation import PostActivationProblem
from convexbn.model._problem import Problem
from convexbn.oracles import price_bound
from convexbn.solvers._certificate import Oracle, Search, certify
from convexbn.solvers._solution import Solution, status_of
from convexbn.solvers._tolerance import Reference, Tolerance
from convexbn.solvers.post_activation._closed_form import full_row_rank_obstacle, solve_full_row_rank

_FIRST_ROWS = 100  # of Z are looked at before all of them
_ROW_RANK_RTOL = 1e-8  # how far P^1/2 Z Z^T P^1/2 may be from a multiple of the identity


def solve_closed_form(problem: Problem, *, tol: float = 1e-6, relative_to: Reference = "objective") -> Solution:
    """Global optimum in closed form, where the whitened data has as many columns as samples.

    One output: two neurons, on the positive and the negative part of the target; squared error, log loss and hinge
    loss. Several outputs: one-hot targets (at most one entry a row that is not zero, none negative), one neuron an
    output, squared error without intercept.

    Normalized after the ReLU: any loss and any number of outputs, where Z has full row rank and a constant among the
    combinations of its columns; the singular values of the targets less weight_decay for the squared error, and for
    other losses a small convex problem of one row for each distinct target.

    Parameters
    ----------
    problem : Problem
        Training problem with ``P^1/2 Z Z^T P^1/2 = c I``, P the sample weights on a diagonal.
    tol : float, default=1e-6
        Gap that rounding may leave, as a multiple of `relative_to`; it leaves more only where the objective is close to
        zero.
    relative_to : {"objective", "zero_network"}, default="objective"
        What the gap is measured against, as in `solve_column_generation`.

    Returns
    -------
    solution : Solution
        Certificate of scope "global" and gap zero up to rounding.

    Raises
    ------
    ValueError
        If there is no closed form for the problem; the message says why.

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
    >>> from convexbn import BatchNormDesign
    >>> from convexbn import Problem
    >>> from convexbn import solve_closed_form
    >>> X = np.random.default_rng(0).standard_normal((5, 9))
    >>> problem = Problem(BatchNormDesign().fit_transform(X), [1.0, -1.0, 2.0, 0.5, -3.0], weight_decay=0.1)
    >>> solution = solve_closed_form(problem)
    >>> len(solution.neurons), solution.certificate.scope, solution.certificate.gap < 1e-12
    (2, 'global', True)
    """
    if isinstance(problem, PostActivationProblem):
        return solve_full_row_rank(problem, tol=tol, relative_to=relative_to)
    tolerance = Tolerance.of(problem, tol, relative_to)
    check_closed_form(problem)
    p, c = problem.sample_weight[:, None], row_scale(problem)
    radius = problem.weight_decay / np.sqrt(c)
    outputs, intercept, u = _optimum(problem.loss, problem.y, p, radius, problem.fit_intercept)
    weights, output_weights = [], []
    for column, axis in zip(outputs.T, np.eye(problem.n_outputs), strict=True):
        for sign in (1, -1):
            part = np.maximum(sign * column, 0)
            if part.any():
                weights.append(problem.Z.adjoint((problem.sample_weight * part)[:, None])[:, 0] / c)
                output_weights.append(sign * axis)
    neurons = Neurons(
        np.array(weights).reshape(-1, problem.Z.n_columns).T,
        np.array(output_weights).reshape(-1, problem.n_outputs),
        intercept,
    )
    price = partial(price_bound, problem.Z, sample_weight=problem.sample_weight)
    certificate = certify(problem, neurons, p * u, price, Search.CLOSED_FORM, Oracle.NORM_BOUND)
    return Solution(neurons, p * u, certificate, status_of(certificate, tolerance, "the closed form"), 0)


def check_closed_form(problem: Problem) -> None:
    """Raise a ValueError that says why, if there is no closed form for this problem."""
    obstacle = closed_form_obstacle(problem)
    if obstacle:
        raise ValueError(f"No closed form reaches this problem: {obstacle}.")


def closed_form_obstacle(problem: Problem) -> str | None:
    """Why there is no closed form for this problem, or None if there is one."""
    if isinstance(problem, PostActivationProblem):
        return full_row_rank_obstacle(problem)
    if type(problem.loss) not in _optimum.registry:
        return f"there is none for loss {problem.loss.name!r}"
    if problem.n_outputs > 1 and ((problem.y < 0).any() or (np.count_nonzero(problem.y, axis=1) > 1).any()):
        return "targets with several outputs must be one-hot"
    if problem.n_outputs > 1 and problem.fit_intercept:
        return "with several outputs there must be no intercept"
    return row_rank_obstacle(problem)


def row_rank_obstacle(problem: Problem) -> str | None:
    """Why ``P^1/2 Z Z^T P^1/2 = c I`` does not hold, or None if it does."""
    if problem.Z.n_patches > 1:
        return "the design pools patches"
    n, k = problem.Z.n_rows, problem.Z.n_columns
    if n > k:
        return f"Z has rank at most {k}, less than its {n} samples"
    some = slice(_FIRST_ROWS)  # which tell almost always, and take less memory than an n x n matrix
    for Z, p, rtol in (
        (problem.Z.of_samples(some), problem.sample_weight[some], 4 * _ROW_RANK_RTOL),
        (problem.Z, problem.sample_weight, _ROW_RANK_RTOL),
    ):
        gram = Z.row_gram(p[:, None])
        c = np.mean(gram.diagonal())
        if c == 0 or np.abs(gram - c * np.eye(len(p))).max() > rtol * c:
            return "weighted Z Z^T is not a multiple of the identity: the data is not whitened or not of full row rank"
    return None


def row_scale(problem: Problem) -> float:
    """The c of ``P^1/2 Z Z^T P^1/2 = c I``."""
    return float(np.mean(problem.sample_weight * problem.Z.row_norms**2))


@singledispatch
def _optimum(
    loss: Loss, y: np.ndarray, p: np.ndarray, radius: float, fit_intercept: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs without intercept (n, C), intercept (C,) and u (n, C), of weights p (n, 1) that add up to one."""
    raise NotImplementedError


@_optimum.register
def _squared_error(
    loss: SquaredError, y: np.ndarray, p: np.ndarray, radius: float, fit_intercept: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shrink the positive and the negative part of each column of y towards zero."""

    def dual_share(b: float) -> np.ndarray:
        """Share of the residual y - b that stays in u; the rest is fitted."""
        residual = y - b
        share = np.ones_like(y)
        for side in (residual > 0, residual < 0):
            length = np.linalg.norm(np.sqrt(p) * residual * side, axis=0)
            share = np.where(side, radius / np.maximum(length, radius), share)
        return share

    b = 0.0
    if fit_intercept and np.ptp(y) > 0:
        b = brentq(lambda b: (p * dual_share(b) * (y - b)).sum(), y.min(), y.max(), xtol=1e-15 * np.ptp(y))
    elif fit_intercept:
        b = float(y[0, 0])
    share = dual_share(b)
    return (1 - share) * (y - b), np.full(y.shape[1], b), share * (y - b)


@dataclass(frozen=True)
class _Classes:
    """The two classes of a margin loss: samples and weight of each, and the bound on its |u_i| by the penalty."""

    positive: np.ndarray
    weight_positive: float
    weight_negative: float
    cap_positive: float
    cap_negative: float

    @classmethod
    def of(cls, y: np.ndarray, p: np.ndarray, radius: float) -> "_Classes":
        positive = y > 0
        weights = float(p[positive].sum()), float(p[~positive].sum())
        caps = (min(radius / np.sqrt(weight), 1.0) if weight else 1.0 for weight in weights)
        return cls(positive, *weights, *caps)

    def vector(self, on_positive: float, on_negative: float) -> np.ndarray:
        """Vector with one value on each class."""
        return np.where(self.positive, on_positive, on_negative)


@_optimum.register
def _log_loss(
    loss: LogLoss, y: np.ndarray, p: np.ndarray, radius: float, fit_intercept: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each class moves away from zero until its slope has fallen to its cap."""
    classes = _Classes.of(y, p, radius)

    def slopes(b: float) -> tuple[float, float]:
        return min(expit(-b), classes.cap_positive), min(expit(b), classes.cap_negative)

    def imbalance(b: float) -> float:
        on_positive, on_negative = slopes(b)
        return classes.weight_positive * on_positive - classes.weight_negative * on_negative

    b = brentq(imbalance, -700, 700, xtol=1e-15) if fit_intercept else 0.0
    on_positive, on_negative = slopes(b)
    outputs = classes.vector(max(-logit(classes.cap_positive) - b, 0), min(logit(classes.cap_negative) - b, 0))
    return outputs, np.array([b]), classes.vector(on_positive, -on_negative)


@_optimum.register
def _hinge(
    loss: Hinge, y: np.ndarray, p: np.ndarray, radius: float, fit_intercept: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each class is at its margin or at the intercept, which is one of the margins."""
    classes = _Classes.of(y, p, radius)
    mass_positive = classes.weight_positive * classes.cap_positive
    mass_negative = classes.weight_negative * classes.cap_negative

    def outputs(b: float) -> np.ndarray:
        return classes.vector(max(1 - b, 0) * (classes.cap_positive < 1), min(-1 - b, 0) * (classes.cap_negative < 1))

    def objective(b: float) -> float:
        f = outputs(b)
        penalty = sum(np.linalg.norm((np.sqrt(p) * f)[side]) for side in (classes.positive, ~classes.positive))
        return float(p[:, 0] @ loss.value(f + b, y) + radius * penalty)

    b = min((-1.0, 1.0), key=objective) if fit_intercept else 0.0
    if fit_intercept:
        mass_positive = mass_negative = min(mass_positive, mass_negative)
    u = classes.vector(mass_positive / (classes.weight_positive or 1), -mass_negative / (classes.weight_negative or 1))
    return outputs(b), np.array([b]), u
