"""convexbn: batch-normalized ReLU networks trained to their global optimum, with a certificate."""

from typing import TYPE_CHECKING, Any

from convexbn._comparison import Comparison, compare
from convexbn._utils.version import __version__ as __version__
from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._patches import PatchDesign
from convexbn.designs._post_activation import PostActivationBatchNormDesign
from convexbn.designs._spectral_trace import SpectralTrace, spectral_trace
from convexbn.designs._weight_norm import WeightNormDesign
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
from convexbn.model._neurons import Neurons
from convexbn.model._normalized_neurons import NormalizedNeurons
from convexbn.model._post_activation import PostActivationProblem
from convexbn.model._problem import Problem
from convexbn.network import (
    BatchNormNetwork,
    ConvBatchNormNetwork,
    ConvGatedNetwork,
    DeepNetwork,
    GatedNetwork,
    PostActivationBatchNormNetwork,
    WeightNormNetwork,
    make_network,
)
from convexbn.operators import DesignMatrix, SparseDesignMatrix
from convexbn.oracles import weight_decay_max
from convexbn.patterns._patterns import Patterns, count_patterns, enumerate_patterns, sample_patterns
from convexbn.rows import read_rows
from convexbn.solvers import solve, solve_closed_form, solve_column_generation, solve_gated, solve_path
from convexbn.solvers._certificate import Certificate, certify
from convexbn.solvers._solution import Solution, Status

if TYPE_CHECKING:
    from convexbn.solvers.conic import decompose, dual_program, primal_program, solve_program, solve_reference

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
    "NormalizedNeurons",
    "PatchDesign",
    "Path",
    "Patterns",
    "PostActivationBatchNormDesign",
    "PostActivationBatchNormNetwork",
    "PostActivationProblem",
    "Problem",
    "RandomBatchNormLayers",
    "Solution",
    "SparseDesignMatrix",
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
    "read_rows",
    "sample_patterns",
    "solve",
    "solve_closed_form",
    "solve_column_generation",
    "solve_gated",
    "solve_path",
    "solve_program",
    "solve_reference",
    "spectral_trace",
    "weight_decay_max",
]


def __getattr__(name: str) -> Any:
    """What needs cvxpy, which is imported when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from convexbn.solvers import conic

    return getattr(conic, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
