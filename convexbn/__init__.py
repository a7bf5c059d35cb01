"""convexbn: batch-normalized ReLU networks trained to their global optimum, with a certificate."""

from convexbn.certificate import Certificate, certify
from convexbn.comparison import Comparison, compare
from convexbn.decomposition import decompose
from convexbn.design import BatchNormDesign, WeightNormDesign
from convexbn.estimators import (
    ConvexBNClassifier,
    ConvexBNClassifierCV,
    ConvexBNConvClassifier,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    ConvexBNRegressorCV,
    ConvexBNStackClassifier,
    ConvexBNStackRegressor,
    FrozenModule,
    GDNPClassifier,
    Path,
    RandomBatchNormLayers,
    convexbn_path,
    prove,
)
from convexbn.matrix import DesignMatrix
from convexbn.network import (
    BatchNormNetwork,
    ConvBatchNormNetwork,
    ConvGatedNetwork,
    DeepNetwork,
    GatedNetwork,
    WeightNormNetwork,
    make_network,
)
from convexbn.neurons import Neurons
from convexbn.patches import PatchDesign
from convexbn.patterns import Patterns, count_patterns, enumerate_patterns, sample_patterns
from convexbn.problem import Problem
from convexbn.programs import dual_program, primal_program, solve_program
from convexbn.solution import Solution, Status
from convexbn.solvers import solve, solve_closed_form, solve_column_generation, solve_gated, solve_reference
from convexbn.spectral import SpectralTrace, spectral_trace

__version__ = "0.1.0"

__all__ = [
    "BatchNormDesign",
    "BatchNormNetwork",
    "Certificate",
    "Comparison",
    "ConvBatchNormNetwork",
    "ConvGatedNetwork",
    "ConvexBNClassifier",
    "ConvexBNClassifierCV",
    "ConvexBNConvClassifier",
    "ConvexBNConvRegressor",
    "ConvexBNRegressor",
    "ConvexBNRegressorCV",
    "ConvexBNStackClassifier",
    "ConvexBNStackRegressor",
    "DeepNetwork",
    "DesignMatrix",
    "FrozenModule",
    "GDNPClassifier",
    "GatedNetwork",
    "Neurons",
    "PatchDesign",
    "Path",
    "Patterns",
    "Problem",
    "RandomBatchNormLayers",
    "Solution",
    "SpectralTrace",
    "Status",
    "WeightNormDesign",
    "WeightNormNetwork",
    "certify",
    "compare",
    "convexbn_path",
    "count_patterns",
    "decompose",
    "dual_program",
    "enumerate_patterns",
    "make_network",
    "primal_program",
    "prove",
    "sample_patterns",
    "solve",
    "solve_closed_form",
    "solve_column_generation",
    "solve_gated",
    "solve_program",
    "solve_reference",
    "spectral_trace",
]
