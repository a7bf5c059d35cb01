"""ReLU networks of several outputs, exactly, for tiny problems: cutting planes with exact prices."""

from functools import partial
from typing import Any

import cvxpy as cp
import numpy as np

from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.oracles import flats_of_rows, most_violated_patterns, price_of_pattern
from convexbn.patterns._patterns import Patterns
from convexbn.solvers._monitor import Clock
from convexbn.solvers._scaling import Scaling
from convexbn.solvers.conic._programs import rank_one_program
from convexbn.solvers.conic._solve import solve_scaled

_NEURONS_ADDED = 10  # a round
_MAX_ROUNDS = 100


def solve_rank_one(
    problem: Problem, patterns: Patterns, *, tol: float, clock: Clock, **options: Any
) -> tuple[Neurons, np.ndarray, int, str]:
    """Neurons whose norm is the nuclear norm constrained to the patterns' cones, by cutting planes.

    A round solves `rank_one_program` over the neurons s_j c_j^T found so far, and adds those of the patterns that price
    above weight_decay: the dual's violated constraints, exact by enumeration of the faces of the patterns' cones. Both
    factors move in the program, so a few rounds suffice.

    Parameters
    ----------
    problem : Problem
        Training problem, tiny.
    patterns : Patterns
        Activation patterns.
    tol : float
        Relative price above weight_decay at which a neuron is still added, times ten.
    clock : Clock
        No round begins once it has passed.
    **options
        Of `solve_program`.

    Returns
    -------
    neurons : Neurons
    v : ndarray of shape (n, C)
        Dual point.
    n_iter : int
        Iterations of the solver, all rounds together.
    ending : str
        Its status.
    """
    scaling = Scaling.of(problem)
    Z, (k, C), flats = problem.Z, (problem.Z.n_columns, problem.n_outputs), flats_of_rows(problem.Z)
    threshold = problem.weight_decay * (1 + tol / 10)
    most_violated = partial(most_violated_patterns, Z, patterns, threshold=threshold, count=_NEURONS_ADDED)
    neurons, v, n_iter, ending = problem.zero_network, problem.zero_dual, 0, cp.OPTIMAL
    chosen, S, c = np.zeros(0, dtype=int), np.zeros((k, 0)), np.zeros((0, C))
    for _ in range(_MAX_ROUNDS):
        added = most_violated(problem.feasible_dual(v))
        if len(added) == 0 or ending == cp.USER_LIMIT or clock.is_out():
            break
        W = np.stack([price_of_pattern(Z, mask, v, flats)[1] for mask in patterns.masks(added).T], axis=1)
        W /= np.linalg.norm(W, axis=0)
        outputs = Z.neuron_outputs(W).T @ v
        chosen, S = np.append(chosen, added), np.hstack([S, W])
        c = np.vstack([c, outputs / np.linalg.norm(outputs, axis=1, keepdims=True)])
        build = partial(rank_one_program, patterns=patterns.take(chosen), S=S, c=c)
        variables, v, iterations, ending = solve_scaled(
            scaling, build, tol=tol / 1000, max_time=clock.left(), **options
        )
        intercept = variables["intercept"].reshape(-1) if problem.fit_intercept else np.zeros(C)
        hidden, output = np.hstack([S, variables["T"]]), np.vstack([variables["X"], c])
        neurons = scaling.unscaled(Neurons(hidden, output, intercept))
        n_iter += iterations
    return neurons, v, n_iter, ending
