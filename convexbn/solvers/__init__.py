"""Solvers of the training problem, one file an algorithm."""

from convexbn.solvers._auto import solve
from convexbn.solvers._closed_form import solve_closed_form
from convexbn.solvers._path import solve_path
from convexbn.solvers.conic._reference import solve_reference
from convexbn.solvers.gated._driver import solve_gated
from convexbn.solvers.relu._column_generation import solve_column_generation

__all__ = ["solve", "solve_closed_form", "solve_column_generation", "solve_gated", "solve_path", "solve_reference"]
