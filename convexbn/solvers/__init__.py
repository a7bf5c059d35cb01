"""Solvers of the training problem, one file an algorithm."""

from convexbn.solvers.auto import solve
from convexbn.solvers.closed_form import solve_closed_form
from convexbn.solvers.column_generation import solve_column_generation
from convexbn.solvers.gated import solve_gated
from convexbn.solvers.reference import solve_reference

__all__ = ["solve", "solve_closed_form", "solve_column_generation", "solve_gated", "solve_reference"]
