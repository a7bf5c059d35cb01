"""The proof that no direction violates dual feasibility: branch and bound, or enumeration, for small problems."""

from dataclasses import dataclass, replace

import numpy as np

from convexbn.model._problem import Problem
from convexbn.oracles import (
    Price,
    find_local_maxima,
    price_by_branch_and_bound,
    price_by_enumeration,
    quickly_enumerated,
)
from convexbn.patterns import count_patterns
from convexbn.solvers._certificate import dual_bound
from convexbn.solvers.relu._options import ProofOptions
from convexbn.solvers.relu._oracle import price_of
from convexbn.solvers.relu._state import Proof, Run, State

_HALVINGS = 40  # of the interval in which the aim lies


def check_prove(prove: object) -> None:
    """Raise a ValueError unless `prove` is True, False or "auto"."""
    if not (isinstance(prove, (bool, np.bool)) or (isinstance(prove, str) and prove == "auto")):
        raise ValueError(f'prove={prove!r} must be True, False or "auto".')


def provable(problem: Problem, options: ProofOptions) -> bool:
    """Whether the prices of all directions can be proved."""
    if problem.output_directions.fixed:
        return problem.Z.n_columns <= options.columns
    return quickly_enumerated(problem.Z, problem.n_outputs)


@dataclass(frozen=True)
class Plan:
    """How far a proof goes.

    Parameters
    ----------
    max_nodes : int
        Cones that branch and bound bounds at most.
    aim : float
        Price at which it ends.
    """

    max_nodes: int
    aim: float


def plan(run: Run, state: State, prove: Proof) -> Plan:
    """Return the plan of a proof; each has half the budget of the one before, so that all take twice that of one."""
    options, Z = run.options.proof, run.problem.Z
    sharp = Z.n_columns <= options.sharp_columns
    max_nodes = options.sharp_nodes if sharp else options.nodes
    if prove == "auto":
        max_nodes = min(max_nodes, options.nodes_a_start * state.n_starts)
    aim = price_within_tolerance(run, state, options.sharp_share if sharp else options.share)
    aim = aim if sharp else max(aim, run.problem.weight_decay * (1 + options.least))
    return Plan(max(1, min(max_nodes, options.entries // Z.n_rows) >> state.n_proofs), aim)


def proved(run: Run, state: State, planned: Plan) -> State:
    """Prove the prices of all directions at the dual point of the last search.

    Returns
    -------
    state : State
        With the proof; the search has found the direction of the largest price, if that violates dual feasibility by
        too much for the tolerance, or nothing.
    """
    assert state.searched is not None
    problem, v = run.problem, state.searched.v
    price, enumerated = _price(run, state, planned)
    enough = run.tolerance.reached(state.objective, dual_bound(problem, v, price))
    violating = np.zeros((problem.Z.n_columns, 0)) if enough or price.direction is None else price.direction[:, None]
    threshold = problem.weight_decay * (1 + run.tolerance.relative(state.objective) / 10)
    found = find_local_maxima(problem.Z, v, violating, threshold=threshold, count=1)
    proof = price if price.scope == "global" else None  # rounding may hide patterns of an enumeration
    searched = replace(state.searched, found=found)
    return replace(state, n_proofs=state.n_proofs + 1, proof=proof, enumerated=enumerated, searched=searched)


def _price(run: Run, state: State, planned: Plan) -> tuple[Price, bool]:
    """A proved price of all directions, and whether all activation patterns were enumerated for it.

    That is so with several outputs; with one where the patterns are few and branch and bound does not come to its aim
    with as many cones: neurons inside a cone can take any number of them.
    """
    assert state.searched is not None
    Z, v, least = run.problem.Z, state.searched.v, run.options.proof.least
    if not run.problem.output_directions.fixed:
        return price_by_enumeration(Z, v), True
    n_patterns = count_patterns(Z) if quickly_enumerated(Z, 1) else np.inf
    open_share = 1 - price_of(state.searched.directions, Z, v).value / planned.aim
    price = price_by_branch_and_bound(
        Z,
        v,
        threshold=planned.aim,
        tol=min(open_share / 10, least) if open_share > 0 else least,
        starts=np.hstack([state.neurons.weights, state.searched.directions]),
        max_nodes=int(min(planned.max_nodes, n_patterns)),
        stop=run.monitor.out_of_time,
    )
    if price.value <= planned.aim or n_patterns > planned.max_nodes or run.monitor.out_of_time():
        return price, False
    exact = price_by_enumeration(Z, v)
    return (exact, True) if exact.scope == "global" else (price, False)


def price_within_tolerance(run: Run, state: State, share: float) -> float:
    """The largest price of all directions at which the bound is within a share of the tolerance, about."""
    assert state.searched is not None
    v, tolerance = state.searched.v, replace(run.tolerance, tol=share * run.tolerance.tol)
    low, high = 1.0, 2.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        bound = dual_bound(run.problem, v, Price(middle * run.problem.weight_decay, "global"))
        low, high = (middle, high) if tolerance.reached(state.objective, bound) else (low, middle)
    return low * run.problem.weight_decay
