r"""Gated ReLU networks: a group lasso over activation patterns, by working sets and Newton's method.

With ``F_i = D_i Z`` the design matrix masked by gate i, and ``w_l = p_l loss''(f_l)``, the solver rests on one
observation: the blocks of the Hessian, ``F_i^T diag(w) F_j``, are close to a number times one matrix. So

    ``F^T diag(w) F  ~  K (x) C``,  ``K_ij = sum_l w_l q_l D_i,l D_j,l``,  ``C = Z^T diag(p) Z``,

with q_l the leverage of row l divided by k. For whitened data C is the identity. A group lasso with this Hessian costs
next to nothing and tells which gates are in use; on these, conjugate gradients preconditioned by K (x) C and the
curvature of the norms solve the Newton system of the true Hessian in a handful of products.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import sqrt

import numpy as np
from numpy.typing import DTypeLike
from scipy.optimize import brentq

from convexbn._utils.threads import on_one_thread
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.oracles import price_of_gates
from convexbn.patterns._patterns import Patterns
from convexbn.solvers._certificate import Search, certify, relative_gap
from convexbn.solvers._monitor import Callback, Monitor
from convexbn.solvers._solution import Solution, Status, status_of
from convexbn.solvers._tolerance import Reference, Tolerance
from convexbn.solvers.gated._conjugate_gradients import conjugate_gradients
from convexbn.solvers.gated._nuclear_norm import NuclearNorm
from convexbn.solvers.gated._working_set import Point, Products, WorkingSets, matched

_STEPS = 5  # pairs of a proximal and a Newton step a round
_SWEEPS = 5  # of block coordinate descent on the model of a proximal step
_SWEEP_TOLERANCE = 0.05  # change in a sweep, as a fraction of weight_decay, at which the descent ends
_HALVINGS = 30  # of a step before it is given up
_LARGEST_BEND = 1e6  # curvature of the norm of a tiny neuron in the preconditioner, as a multiple of that of the loss


@on_one_thread
def solve_gated(
    problem: Problem,
    patterns: Patterns,
    *,
    tol: float = 1e-6,
    relative_to: Reference = "objective",
    max_iter: int | None = 500,
    max_time: float | None = None,
    start: Neurons | None = None,
    dtype: DTypeLike = "float64",
    callback: Callback | None = None,
    verbose: bool = False,
) -> Solution:
    r"""Optimal gated ReLU network with given gates.

    ``minimise  sum_i p_i loss(f_i, y_i) + weight_decay * sum_j |s_j|``,
    ``f = sum_j 1[Z g_j >= 0] * (Z s_j) + intercept``, over all patterns j. With several outputs the weights of a
    pattern are a matrix, which costs its nuclear norm, and neurons are its singular triplets.

    Each round prices the gates, drops those that a sphere around the dual optimum proves unused (gap-safe screening),
    lets the dearest enter the working set, and improves its weights by proximal and Newton steps. Memory grows with the
    gates in use, not with those given: masks are unpacked block by block.

    Parameters
    ----------
    problem : Problem
        Training problem with a smooth loss.
    patterns : Patterns
        Activation patterns of the gates.
    tol : float, default=1e-6
        Gap at which the solver stops, as a multiple of `relative_to`.
    relative_to : {"objective", "zero_network"}, default="objective"
        What the gap is measured against, as in `solve_column_generation`.
    max_iter : int or None, default=500
        Rounds after which the solver stops.
    max_time : float or None, default=None
        Seconds after which the solver stops.
    start : Neurons or None, default=None
        Gated neurons to start from, such as those of a solution for another `weight_decay`. Their gates must be among
        the patterns.
    dtype : {"float64", "float32"}, default="float64"
        Precision of the products with Z. In float32 they are twice as fast and take half the memory; objective and
        certificate are in float64 all the same.
    callback : callable or None, default=None
        Called with a `Progress` after every round; a true value ends the run.
    verbose : bool, default=False
        Whether to show progress.

    Returns
    -------
    solution : Solution
        Neurons with gates, in the order of the patterns, output weights of length one (and positive, if there is one
        output); scope "patterns". On a limit or Ctrl-C the best network so far; a second Ctrl-C is passed on.

    Raises
    ------
    ValueError
        If the loss is not smooth, patterns or start do not fit the problem, or an option is out of range.

    Warns
    -----
    ConvergenceWarning
        If the gap exceeds `tol`.

    References
    ----------
    .. [1] Mishkin, Sahiner, Pilanci, "Fast Convex Optimization for Two-Layer ReLU Networks", arXiv 2202.01331.
    .. [2] Sahiner, Ergen, Pauly, Pilanci, "Vector-output ReLU Neural Network Problems are Copositive Programs",
       arXiv 2012.13329.
    .. [3] Ndiaye, Fercoq, Gramfort, Salmon, "Gap Safe Screening Rules for Sparsity Enforcing Penalties",
       arXiv 1611.05780.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import sample_patterns
    >>> from convexbn import Problem
    >>> from convexbn import solve_gated
    >>> rng = np.random.default_rng(0)
    >>> Z = rng.standard_normal((100, 3))
    >>> problem = Problem(Z, np.abs(Z[:, 0]), weight_decay=0.01)
    >>> solution = solve_gated(problem, sample_patterns(Z, 50, random_state=0))
    >>> solution.status.name, solution.certificate.gap <= 1e-6
    ('CONVERGED', True)
    """
    _check(problem, patterns)
    tolerance = Tolerance.of(problem, tol, relative_to)
    rows_dtype = _precision(dtype)
    monitor = Monitor("gated", max_iter=max_iter, max_time=max_time, callback=callback, verbose=verbose)
    method = _GroupLasso if problem.n_outputs == 1 else NuclearNorm
    lasso = method(problem, patterns, rows_dtype)
    first = lasso.first(start)
    best, v, certificate = first, problem.zero_dual, None
    price = partial(price_of_gates, problem.Z, patterns)
    certificate_of = partial(certify, problem, price=price, search=Search.GATES, n_patterns=len(patterns))
    with monitor:
        for n_rounds, (best, v, gap) in enumerate(lasso.rounds(first, tolerance, monitor.out_of_time)):
            certificate = None
            goes_on = n_rounds == 0 or monitor.goes_on(best.objective, gap, len(lasso.neurons(best)))
            if gap <= tolerance.relative(best.objective):
                certificate = certificate_of(lasso.neurons(best), v)
                if tolerance.reached_by(certificate):
                    break
            if not goes_on:
                break
        if certificate is None:
            certificate = certificate_of(lasso.neurons(best), v)
    neurons = lasso.neurons(best)
    if certificate is None or monitor.ending is Status.INTERRUPTED:  # after Ctrl-C; another one is not caught here
        certificate = certificate_of(neurons, v)
    ending = monitor.ending or Status.NOT_CONVERGED
    status = status_of(certificate, tolerance, f"solve_gated in {rows_dtype}", ending)
    return Solution(neurons, v, certificate, status, monitor.n_iter, tuple(monitor.history))


class _GroupLasso(WorkingSets):
    """One output: the weights of a pattern are a vector, and what it costs is their length."""

    def first(self, start: Neurons | None) -> Point:
        """Where the solver starts."""
        k = self.problem.Z.n_columns
        if start is None:
            return self.point(np.zeros(0, dtype=int), np.zeros((0, k)), np.zeros(self.problem.Z.n_samples), 0.0)
        chosen, S = matched(self.problem, self.patterns, start)
        weights = S[:, :, 0] @ self.basis
        return self.point(chosen, weights, self.exact_outputs(chosen, weights), float(start.intercept[0]))

    def neurons(self, point: Point) -> Neurons:
        """The gated neurons of a point, in the order of the patterns."""
        kept = np.flatnonzero(point.used)
        kept = kept[np.argsort(point.chosen[kept])]
        return Neurons(
            self.basis @ point.S[kept].T,
            np.ones((len(kept), 1)),
            np.array([point.intercept]),
            self.patterns.directions[:, point.chosen[kept]],
        )

    def point(self, chosen: np.ndarray, S: np.ndarray, f: np.ndarray, intercept: float) -> Point:
        """A point with its best intercept, searched from the one given."""
        intercept = _best_intercept(self.problem, f, intercept) if self.problem.fit_intercept else 0.0
        point = Point(chosen, S, f, intercept, np.inf)
        return replace(point, objective=self.objective(point))

    def cost(self, S: np.ndarray) -> float:
        return float(np.linalg.norm(S, axis=1).sum())

    def improved(self, point: Point, precision: float, out_of_time: Callable[[], bool]) -> Point:
        """Proximal and Newton steps on the patterns of a point, until the gap over these is small enough."""
        products = self.products(point.chosen, hold=True)
        last_w, overlaps = None, np.zeros((0, 0))
        for _ in range(_STEPS):
            v = self.dual_point(point)
            G = products.adjoint(v[:, 0])
            if relative_gap(point.objective, self.bound(v, np.linalg.norm(G, axis=1))) <= precision or out_of_time():
                break
            w = self.curvatures(point)
            if last_w is None or not np.array_equal(w, last_w):
                overlaps, last_w = self.overlaps(products, w), w
            point = self.proximal_step(point, products, G, overlaps)
            point = self.newton_step(point, products, w, overlaps)
        return point

    def proximal_step(self, point: Point, products: Products, G: np.ndarray, overlaps: np.ndarray) -> Point:
        """A step towards the minimiser of the model with Hessian K (x) C, which finds out which gates are in use."""
        weight_decay = self.problem.weight_decay
        D = _model_minimiser(overlaps, self.columns, point.S, G, weight_decay) - point.S
        norms = np.linalg.norm(point.S, axis=1), np.linalg.norm(point.S + D, axis=1)
        slope = weight_decay * float((norms[1] - norms[0]).sum()) - float((G * D).sum())
        change = products.forward(D)
        return self.search(point, lambda t: (point.S + t * D, point.f + t * change), slope)

    def newton_step(self, point: Point, products: Products, w: np.ndarray, overlaps: np.ndarray) -> Point:
        """A Newton step in the weights that are not zero; where a neuron would pass through zero it stops there."""
        used = np.flatnonzero(point.used)
        if len(used) == 0:
            return point
        weight_decay, S = self.problem.weight_decay, point.S[used]
        norms = np.linalg.norm(S, axis=1)
        U, bend = S / norms[:, None], weight_decay / norms
        products = products.take(used)
        rhs = products.adjoint(self.dual_point(point)[:, 0]) - weight_decay * U
        total = w.sum()

        def hessian(X: np.ndarray) -> np.ndarray:
            change = products.forward(X)
            if self.problem.fit_intercept:
                change -= w @ change / total
            return products.adjoint(w * change) + bend[:, None] * (X - U * (U * X).sum(axis=1, keepdims=True))

        precondition = _model_inverse(overlaps[np.ix_(used, used)], self.columns, U, bend)
        D = conjugate_gradients(hessian, precondition, rhs)
        change = products.forward(D)

        def trial(t: float) -> tuple[np.ndarray, np.ndarray]:
            moved = S + t * D
            through = (U * moved).sum(axis=1) <= 0
            f = point.f + t * change
            if through.any():
                f = f - products.take(np.flatnonzero(through)).forward(moved[through])
                moved[through] = 0
            return _put(point.S, used, moved), f

        return self.search(point, trial, -float((rhs * D).sum()))

    def search(self, point: Point, trial: Callable[[float], tuple[np.ndarray, np.ndarray]], slope: float) -> Point:
        """Halve a step until the objective falls as it should (Armijo), or stay."""
        rounding = 1e-15 * abs(point.objective)
        for t in 0.5 ** np.arange(_HALVINGS):
            moved = self.point(point.chosen, *trial(t), point.intercept)
            if moved.objective <= point.objective + 1e-4 * t * slope + rounding:
                return moved
        return point

    def curvatures(self, point: Point) -> np.ndarray:
        """Weights w (n,) of the Hessian, away from zero."""
        return self.least_curvature(self.problem.loss.second_derivative(point.outputs, self.problem.y)[:, 0])


def _model_minimiser(K: np.ndarray, c: np.ndarray, S: np.ndarray, G: np.ndarray, weight_decay: float) -> np.ndarray:
    """Block coordinate descent on -<G, X - S> + <X - S, K (X - S) diag(c)> / 2 + weight_decay * sum_j |x_j|."""
    X, G = S.copy(), G.copy()
    used, diagonal, h_max = np.linalg.norm(X, axis=1) > 0, K.diagonal().tolist(), float(c.max())
    everything = True
    for _ in range(_SWEEPS):
        largest = 0.0
        for j in range(len(K)) if everything else np.flatnonzero(used):
            g = G[j]
            if not used[j] and g @ g <= weight_decay**2:
                continue
            new = _shrunk(diagonal[j] * c * X[j] + g, diagonal[j] * c, diagonal[j] * h_max, weight_decay)
            D = c * (new - X[j])
            G -= np.multiply.outer(K[j], D)
            X[j] = new
            used[j] = new.any()
            largest = max(largest, diagonal[j] * sqrt(D @ D))
        settled = largest <= _SWEEP_TOLERANCE * weight_decay
        if settled and everything:
            break
        everything = settled
    return X


def _shrunk(q: np.ndarray, h: np.ndarray, h_max: float, weight_decay: float) -> np.ndarray:
    """Minimise s·(h s)/2 - q·s + weight_decay |s|: the root of a secular equation in r = |s|, by Newton from below."""
    size = sqrt(q @ q)
    if size <= weight_decay:
        return np.zeros_like(q)
    r = (size - weight_decay) / h_max  # the root if h is constant
    for _ in range(50):
        shifted = h * r + weight_decay
        unit = q / shifted
        length = sqrt(unit @ unit)
        if length <= 1 + 1e-10:
            break
        r += (1 - 1 / length) * length**3 / float(unit**2 @ (h / shifted))
    return r * unit


def _model_inverse(K: np.ndarray, c: np.ndarray, U: np.ndarray, bend: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Inverse of K (x) C + the Hessian diag(bend_j (I - u_j u_j^T)) of the norms.

    Columns of similar c are taken for equal, each group needs one inverse; the radial directions u_j are put in by
    Woodbury's formula, in which U^T (A (x) I) U is the entrywise product of A and U U^T.
    """
    root = np.sqrt(np.minimum(bend, _LARGEST_BEND * K.diagonal() * c.max()))
    scaled, identity = K / np.multiply.outer(root, root), np.eye(len(K))
    levels = np.round(np.log(c / c.max()) / np.log(4.0))
    groups = [np.flatnonzero(levels == level) for level in np.unique(levels)]
    inverses = [np.linalg.inv(scaled * c[group].mean() + identity) for group in groups]
    radial = sum(
        (identity - inverse) * (U[:, group] @ U[:, group].T) for group, inverse in zip(groups, inverses, strict=True)
    )
    radial_inverse = np.linalg.inv(radial)

    def flat(X: np.ndarray) -> np.ndarray:
        found = np.empty_like(X)
        for group, inverse in zip(groups, inverses, strict=True):
            found[:, group] = inverse @ X[:, group]
        return found

    def inverse_of(R: np.ndarray) -> np.ndarray:
        X = flat(R / root[:, None])
        along = radial_inverse @ (U * X).sum(axis=1)
        return (X + flat(U * along[:, None])) / root[:, None]

    return inverse_of


def _best_intercept(problem: Problem, f: np.ndarray, start: float) -> float:
    """Intercept of least loss beside predictions f (n,): a root of a slope that never falls."""

    def slope(intercept: float) -> float:
        return -float(problem.dual_point((f + intercept)[:, None]).sum())

    low = high = start
    step = float(np.abs(problem.y[:, 0] - f - start).mean())
    if step == 0 or slope(start) == 0:
        return start
    while slope(low) > 0:
        low, step = low - step, 2 * step
    while slope(high) < 0:
        high, step = high + step, 2 * step
    rounding = 1e-15 * float(np.abs(f).max(initial=0) + np.abs(problem.y).max() + abs(low) + abs(high))
    return float(brentq(slope, low, high, xtol=rounding, rtol=1e-15, maxiter=1000))


def _put(S: np.ndarray, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    S = S.copy()
    S[rows] = values
    return S


def _check(problem: Problem, patterns: Patterns) -> None:
    if not np.isfinite(problem.loss.curvature):
        raise ValueError(
            f"solve_gated takes smooth losses, and loss {problem.loss.name!r} has a kink; use 'squared_hinge', or "
            "solve_reference(..., activation='gated_relu')."
        )
    shape = len(patterns.directions), patterns.n_rows
    if shape != (problem.Z.n_columns, problem.Z.n_rows) or len(patterns) == 0:
        raise ValueError(
            f"patterns must be at least one, of the problem's {problem.Z.n_rows} rows and {problem.Z.n_columns} "
            f"columns; got {len(patterns)} of {shape[1]} rows and {shape[0]} columns."
        )


def _precision(dtype: DTypeLike) -> np.dtype:
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found not in (np.float32, np.float64):
        raise ValueError(f"dtype={dtype!r} must be 'float64' or 'float32'.")
    return found
