"""convexbn: batch-normalized ReLU networks trained to their global optimum, with a certificate."""

from convexbn.certificate import Certificate, certify
from convexbn.design import BatchNormDesign, WeightNormDesign
from convexbn.neurons import Neurons
from convexbn.patterns import Patterns, count_patterns, enumerate_patterns, sample_patterns
from convexbn.problem import Problem
from convexbn.programs import dual_program, primal_program
from convexbn.solution import Solution, Status
from convexbn.solvers import solve, solve_closed_form, solve_reference

__version__ = "0.1.0"
