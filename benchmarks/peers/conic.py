"""The convex program on sampled activation patterns, handed to a conic solver through cvxpy."""

from time import perf_counter

import numpy as np

from benchmarks.harness import Run
from benchmarks.instances import Instance
from convexbn import Neurons, Patterns, primal_program, solve_program


def solve_sampled(
    instance: Instance,
    patterns: Patterns,
    *,
    solver: str,
    activation: str = "relu",
    tol: float = 1e-7,
) -> Run:
    """CLARABEL or SCS; the one point of the curve is the network that the program's solution stands for."""
    problem = instance.problem
    start = perf_counter()
    program = primal_program(problem, patterns, activation)
    solve_program(program, solver=solver, tol=tol)
    seconds = perf_counter() - start
    objective = instance.n * problem.objective(_network(program, patterns, activation))
    info = {
        "n_patterns": len(patterns),
        "status": program.status,
        "program_value": instance.n * float(program.value),
        "seconds_inside_the_solver": program.solver_stats.solve_time,
    }
    return Run(seconds, np.array([seconds]), np.array([objective]), info)


def _network(program, patterns, activation) -> Neurons:
    variables = program.var_dict
    if activation == "gated_relu":
        weights, signs, gates = variables["S"].value, np.ones(len(patterns)), patterns.directions
    else:
        weights = np.hstack([variables["S"].value, variables["T"].value])
        signs, gates = np.repeat([1.0, -1.0], len(patterns)), None
    return Neurons(weights, signs[:, None], np.zeros(1), gates)
