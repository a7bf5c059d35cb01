"""The convex programs and their reference solver: the only part of the package that imports cvxpy."""

from convexbn.solvers.conic._decomposition import decompose
from convexbn.solvers.conic._losses import conjugate_expression, loss_expression
from convexbn.solvers.conic._program_solver import solve_program
from convexbn.solvers.conic._programs import dual_program, primal_program
from convexbn.solvers.conic._reference import solve_reference

__all__ = [
    "conjugate_expression",
    "decompose",
    "dual_program",
    "loss_expression",
    "primal_program",
    "solve_program",
    "solve_reference",
]
