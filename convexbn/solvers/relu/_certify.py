"""Certificates of column generation, for the original problem."""

from collections.abc import Callable
from functools import partial

import numpy as np

from convexbn._utils.checks import make_generator
from convexbn._utils.threads import on_one_thread
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.oracles import Price, price_bound
from convexbn.solvers._certificate import Certificate, Oracle, Search, certify
from convexbn.solvers._monitor import Monitor
from convexbn.solvers._scaling import Scaling
from convexbn.solvers._solution import with_proof
from convexbn.solvers._tolerance import Tolerance
from convexbn.solvers.relu._options import ACCURATE
from convexbn.solvers.relu._oracle import price_of, search_hard
from convexbn.solvers.relu._proof import Plan, price_within_tolerance, provable, proved
from convexbn.solvers.relu._state import Run, State

_LONG_PROOF_NODES = 10_000_000  # of a proof that is limited by its time: a gibibyte or so of cones of rank eight


@on_one_thread
def certify_by_proof(
    problem: Problem,
    neurons: Neurons,
    tolerance: Tolerance,
    *,
    max_time: float | None = None,
    random_state: int | np.random.Generator | None = None,
) -> Certificate:
    """Certificate of a network as it is, from a search from many starts and a proof of the prices of all directions.

    Parameters
    ----------
    problem : Problem
        Training problem.
    neurons : Neurons
        Its network, of ReLU neurons.
    tolerance : Tolerance
        Gap at which the proof ends.
    max_time : float or None, default=None
        Seconds for both. None takes a budget of cones, which lasts up to a minute.
    random_state : int, Generator or None, default=None
        Seed of the search.

    Returns
    -------
    certificate : Certificate
        Scope "global" where the proof is within the tolerance; else "local", with the proved bound beside.
    """
    scaling, options = Scaling.of(problem).with_fewest_columns(), ACCURATE
    monitor = Monitor("proof", max_iter=None, max_time=max_time, callback=None, verbose=False)
    run = Run(scaling.problem, options, scaling.scaled_tolerance(tolerance), make_generator(random_state), monitor)
    state = State.of(scaling.problem, scaling.scaled(neurons).with_unit_outputs(), options)
    state = search_hard(run, state)
    if state.searched is not None and (
        scaling.problem.output_directions.fixed or provable(scaling.problem, options.proof)
    ):
        aim = price_within_tolerance(run, state, options.proof.share)
        state = proved(run, state, Plan(options.proof.nodes if max_time is None else _LONG_PROOF_NODES, aim))
    return certified(run, state, scaling, problem, neurons, tolerance)[1]


def certified(
    run: Run, state: State, scaling: Scaling, problem: Problem, neurons: Neurons, tolerance: Tolerance
) -> tuple[np.ndarray, Certificate]:
    """The dual point of the last search, and what it certifies of a network, both of the original problem."""
    searched = state.searched
    if searched is None:
        scaled = scaling.problem
        v = scaling.unscaled_dual(scaled.feasible_dual(scaled.dual_point(state.neurons.outputs(scaled.Z))))
        price = partial(price_bound, problem.Z, sample_weight=problem.sample_weight)
        return v, certify(problem, neurons, v, price, Search.NOT_SEARCHED, Oracle.NORM_BOUND)
    v = scaling.unscaled_dual(searched.v)
    price = partial(price_of, scaling.unscaled_directions(searched.directions), problem.Z)
    enough = run.tolerance.reached(state.objective, searched.bound)
    search = Search.UNFINISHED if state.has_found and not enough else Search.ASCENT
    search = search if searched.thorough else Search.NOT_SEARCHED
    certificate = certify(problem, neurons, v, price, search, Oracle.NORM_BOUND)
    if state.proof is not None:
        oracle = Oracle.ENUMERATION if state.enumerated else Oracle.BRANCH_AND_BOUND
        proof = certify(problem, neurons, v, _proved_price(state.proof, scaling, problem, v), search, oracle)
        certificate = with_proof(certificate, proof, tolerance)
    return v, certificate


def _proved_price(proof: Price, scaling: Scaling, problem: Problem, known: np.ndarray) -> Callable[[np.ndarray], Price]:
    """The price that was proved for the scaled problem, as one for dual points of the original problem."""
    value = proof.value * scaling.target_scale * scaling.column_scale

    def price(v: np.ndarray) -> Price:
        # Rounding may have moved the dual point; no price changes by more than this.
        moved = float(np.linalg.norm(problem.Z.unpool(v - known), axis=1) @ problem.Z.row_norms)
        return Price(value * (1 + 1e-12) + moved, "global")

    return price
