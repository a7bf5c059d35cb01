"""Solvers of the training problem, one file an algorithm; those that need cvxpy are in `convexbn.solvers.conic`."""

from convexbn.solvers._auto import solve
from convexbn.solvers._certificate import Certificate, Oracle, Search, Setting, certify
from convexbn.solvers._closed_form import solve_closed_form
from convexbn.solvers._path import solve_path
from convexbn.solvers._solution import Progress
from convexbn.solvers.gated._driver import solve_gated
from convexbn.solvers.relu._column_generation import solve_column_generation
from convexbn.solvers.relu._options import ACCURATE, FAST, Options, ProofOptions

__all__ = [
    "ACCURATE",
    "FAST",
    "Certificate",
    "Options",
    "Oracle",
    "Progress",
    "ProofOptions",
    "Search",
    "Setting",
    "certify",
    "solve",
    "solve_closed_form",
    "solve_column_generation",
    "solve_gated",
    "solve_path",
]
