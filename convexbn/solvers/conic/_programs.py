r"""The convex programs of two-layer ReLU and gated ReLU networks, in plain cvxpy.

Written to be read beside arXiv 2103.01499 (batch normalization) and arXiv 2002.10553, Theorem 1. With
``D_i = diag(1[Z g_i >= 0])`` the activation patterns and ``p_i`` the sample weights (1/n):

ReLU, primal
    ``min  sum p loss(f, y) + weight_decay * sum_i (|s_i| + |t_i|)``,
    ``f = sum_i D_i Z (s_i - t_i) + intercept``, ``(2 D_i - I) Z s_i >= 0``, ``(2 D_i - I) Z t_i >= 0``
ReLU, dual
    ``max  -sum p loss*(-v/p)`` with ``1^T v = 0`` if there is an intercept, and for every i and both signs some
    ``mu_i >= 0`` with ``|Z^T D_i (+-v) + Z^T (2 D_i - I) mu_i| <= weight_decay``
gated ReLU
    the same without cones: one block ``s_i`` a pattern, and ``|Z^T D_i v| <= weight_decay``
gated ReLU, several outputs
    blocks are matrices ``S_i``, the primal norm is the nuclear norm and that of the dual the largest singular value
ReLU, several outputs
    the nuclear norm constrained to the cones: the least ``sum_j |s_j| |c_j|`` with ``S_i = sum_j s_j c_j^T``, s_j in
    the cone of pattern i (arXiv 2012.13329). This norm is no cone of a standard solver; `rank_one_program` is conic,
    with one factor of each neuron given, and `solve_reference` finds these factors

A pooled design matrix averages the rows of a sample; a matrix A stands for this average (the identity without
pooling).
"""

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from convexbn.model._activation import ACTIVATIONS, Activation
from convexbn.model._post_activation import PostActivationProblem
from convexbn.model._problem import Problem
from convexbn.operators._protocol import Operator
from convexbn.patterns._patterns import Patterns
from convexbn.solvers.conic._losses import conjugate_expression, loss_expression
from convexbn.solvers.conic._post_activation import post_activation_dual, post_activation_primal


def primal_program(problem: Problem, patterns: Patterns, activation: Activation = "relu") -> cp.Problem:
    """Build the convex program whose blocks are the neurons on given patterns.

    Parameters
    ----------
    problem : Problem
        Training problem, for ReLU with one output.
    patterns : Patterns
        Activation patterns; all of them make the optimum the network's global one.
    activation : {"relu", "gated_relu"}, default="relu"
        ReLU blocks lie in the cones of their patterns, gated blocks are free.

    Returns
    -------
    program : cvxpy.Problem
        Variables "S" and, for ReLU, "T" (k, P); "f" (n,) and, if fitted, "intercept". The constraint that defines f is
        the first, and its dual value is the dual point v up to the sign of the convention. With C > 1 outputs "S" is
        (P * k, C), one block below the other, "f" (n, C) and "intercept" (1, C).

    Raises
    ------
    ValueError
        If a ReLU problem has several outputs or the activation is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import enumerate_patterns
    >>> from convexbn import Problem
    >>> from convexbn import primal_program
    >>> problem = Problem(np.eye(2), [1.0, -2.0], weight_decay=0.1)
    >>> program = primal_program(problem, enumerate_patterns(problem.Z))
    >>> program.is_dcp(), [variable.name() for variable in program.variables()]
    (True, ['f', 'S', 'T'])
    """
    _check(problem, activation)
    if isinstance(problem, PostActivationProblem):
        return post_activation_primal(problem, patterns, activation)
    Z, D = problem.Z.rows(), patterns.masks().astype(float)
    n, k, P = problem.Z.n_samples, problem.Z.n_columns, len(patterns)
    A = _averaging(problem.Z)
    if problem.n_outputs > 1:
        return _nuclear_norm_program(problem, D, A)

    f = cp.Variable(n, name="f")
    S = cp.Variable((k, P), name="S")
    intercept = cp.Variable(name="intercept") if problem.fit_intercept else 0.0
    if activation == "relu":
        T = cp.Variable((k, P), name="T")
        fits = f == A @ cp.sum(cp.multiply(D, Z @ (S - T)), axis=1) + intercept
        cones = [cp.multiply(2 * D - 1, Z @ S) >= 0, cp.multiply(2 * D - 1, Z @ T) >= 0]
        norms = cp.sum(cp.norm(S, 2, axis=0)) + cp.sum(cp.norm(T, 2, axis=0))
    else:
        fits = f == A @ cp.sum(cp.multiply(D, Z @ S), axis=1) + intercept
        cones = []
        norms = cp.sum(cp.norm(S, 2, axis=0))
    loss = problem.sample_weight @ loss_expression(problem.loss, f, problem.y[:, 0])
    return cp.Problem(cp.Minimize(loss + problem.weight_decay * norms), [fits, *cones])


def dual_program(problem: Problem, patterns: Patterns, activation: Activation = "relu") -> cp.Problem:
    """Build the dual of `primal_program`.

    Parameters
    ----------
    problem : Problem
        Training problem, for ReLU with one output.
    patterns : Patterns
        Activation patterns.
    activation : {"relu", "gated_relu"}, default="relu"
        Which network.

    Returns
    -------
    program : cvxpy.Problem
        Variables "v", (n,) or (n, C), and, for ReLU, the cone multipliers "mu_plus" and "mu_minus" (N, P).

    Raises
    ------
    ValueError
        If a ReLU problem has several outputs or the activation is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import enumerate_patterns
    >>> from convexbn import Problem
    >>> from convexbn import dual_program, solve_program
    >>> problem = Problem(np.eye(2), [1.0, -2.0], weight_decay=0.1)
    >>> round(solve_program(dual_program(problem, enumerate_patterns(problem.Z))), 6)
    0.28
    """
    _check(problem, activation)
    if isinstance(problem, PostActivationProblem):
        return post_activation_dual(problem, patterns, activation)
    Z, D = problem.Z.rows(), patterns.masks().astype(float)
    n, N, P = problem.Z.n_samples, problem.Z.n_rows, len(patterns)
    A = _averaging(problem.Z)
    if problem.n_outputs > 1:
        return _spectral_norm_program(problem, D, A)

    v = cp.Variable(n, name="v")
    columns = cp.outer(A.T @ v, np.ones(P))
    if activation == "relu":
        mu_plus = cp.Variable((N, P), name="mu_plus", nonneg=True)
        mu_minus = cp.Variable((N, P), name="mu_minus", nonneg=True)
        prices = [
            cp.norm(Z.T @ (cp.multiply(D, sign * columns) + cp.multiply(2 * D - 1, mu)), 2, axis=0)
            for sign, mu in ((1, mu_plus), (-1, mu_minus))
        ]
    else:
        prices = [cp.norm(Z.T @ cp.multiply(D, columns), 2, axis=0)]
    conjugate, domain = conjugate_expression(problem.loss, -v / problem.sample_weight, problem.y[:, 0])
    constraints = [price / problem.weight_decay <= 1 for price in prices] + domain
    if problem.fit_intercept:
        constraints.append(cp.sum(v) == 0)
    return cp.Problem(cp.Maximize(-problem.sample_weight @ conjugate), constraints)


def rank_one_program(problem: Problem, patterns: Patterns, S: np.ndarray, c: np.ndarray) -> cp.Problem:
    """Build the program of ReLU neurons of several outputs, one factor of each of which is given.

    ``min  sum p loss(f, y) + weight_decay * sum_j (|x_j| + |t_j|)``,
    ``f = sum_j relu(Z s_j) x_j^T + D_j Z t_j c_j^T + intercept``, ``(2 D_j - I) Z t_j >= 0``: a convex restriction of
    the program with a constrained nuclear norm, which is not one of cones. Around neurons ``s_j c_j^T`` it is right to
    first order, since both factors may move, so at an optimum it agrees with the whole.

    Parameters
    ----------
    problem : Problem
        Training problem.
    patterns : Patterns
        Pattern D_j of each factor, m of them.
    S : ndarray of shape (k, m)
        Unit hidden weights s_j, whose output weights x_j are free.
    c : ndarray of shape (m, C)
        Unit output weights c_j, whose hidden weights t_j are free in the cone of D_j.

    Returns
    -------
    program : cvxpy.Problem
        Variables "f" (n, C), "X" (m, C), "T" (k, m) and, if fitted, "intercept" (1, C). The constraint that defines f
        is the first.

    References
    ----------
    .. [1] Sahiner et al., "Vector-output ReLU Neural Network Problems are Copositive Programs", arXiv 2012.13329.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import enumerate_patterns
    >>> from convexbn import Problem
    >>> from convexbn import solve_program
    >>> from convexbn.solvers.conic._programs import rank_one_program
    >>> problem = Problem(np.eye(2), np.eye(2), weight_decay=0.1)
    >>> patterns = enumerate_patterns(problem.Z)
    >>> both = patterns.take(np.array([1, 2]))  # each on at one row
    >>> round(solve_program(rank_one_program(problem, both, np.eye(2)[:, ::-1], np.eye(2)[::-1])), 6)
    0.18
    """
    Z, D, A, (n, C), (k, m) = (
        problem.Z.rows(),
        patterns.masks().astype(float),
        _averaging(problem.Z),
        problem.y.shape,
        S.shape,
    )
    f, X, T = cp.Variable((n, C), name="f"), cp.Variable((m, C), name="X"), cp.Variable((k, m), name="T")
    outputs = problem.Z.neuron_outputs(S) @ X + A @ cp.multiply(D, Z @ T) @ c
    if problem.fit_intercept:
        outputs += np.ones((n, 1)) @ cp.Variable((1, C), name="intercept")
    costs = cp.sum(cp.norm(X, 2, axis=1)) + cp.sum(cp.norm(T, 2, axis=0))
    loss = cp.sum(problem.sample_weight @ loss_expression(problem.loss, f, problem.y))
    cones = cp.multiply(2 * D - 1, Z @ T) >= 0
    return cp.Problem(cp.Minimize(loss + problem.weight_decay * costs), [f == outputs, cones])


def _nuclear_norm_program(problem: Problem, D: np.ndarray, A: sp.csr_array) -> cp.Problem:
    """The primal of a gated network with several outputs."""
    Z, (n, C), k, P = problem.Z.rows(), problem.y.shape, problem.Z.n_columns, D.shape[1]
    f = cp.Variable((n, C), name="f")
    S = cp.Variable((P * k, C), name="S")
    outputs = A @ np.hstack([D[:, [i]] * Z for i in range(P)]) @ S
    if problem.fit_intercept:
        outputs += np.ones((n, 1)) @ cp.Variable((1, C), name="intercept")
    norms = sum(cp.normNuc(S[i * k : (i + 1) * k]) for i in range(P))
    loss = cp.sum(problem.sample_weight @ loss_expression(problem.loss, f, problem.y))
    return cp.Problem(cp.Minimize(loss + problem.weight_decay * norms), [f == outputs])


def _spectral_norm_program(problem: Problem, D: np.ndarray, A: sp.csr_array) -> cp.Problem:
    """The dual of a gated network with several outputs."""
    Z = problem.Z.rows()
    v = cp.Variable(problem.y.shape, name="v")
    prices = [cp.sigma_max((A @ (D[:, [i]] * Z)).T @ v) for i in range(D.shape[1])]
    conjugate, domain = conjugate_expression(problem.loss, -v / problem.sample_weight[:, None], problem.y)
    constraints = [price / problem.weight_decay <= 1 for price in prices] + domain
    if problem.fit_intercept:
        constraints.append(cp.sum(v, axis=0) == 0)
    return cp.Problem(cp.Maximize(-cp.sum(problem.sample_weight @ conjugate)), constraints)


def _check(problem: Problem, activation: str) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r} is unknown; choose one of {list(ACTIVATIONS)}.")
    if problem.n_outputs != 1 and activation == "relu":
        raise ValueError(
            f"The convex programs of ReLU networks take one output, y has {problem.n_outputs} columns; the norm that "
            "several outputs need is not conic. Use solve_column_generation, or, for a tiny problem, solve_reference."
        )


def _averaging(Z: Operator) -> sp.csr_array:
    return sp.csr_array(sp.kron(sp.eye_array(Z.n_samples), np.full((1, Z.n_patches), 1 / Z.n_patches)))
