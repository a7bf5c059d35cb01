"""What normalization does to data: rows Z of the design matrix, and neurons on Z as layer weights."""

from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._layer_weights import LayerWeights
from convexbn.designs._patches import PatchDesign, PatchGrid
from convexbn.designs._spectral_trace import SpectralTrace, spectral_trace
from convexbn.designs._weight_norm import WeightNormDesign

__all__ = [
    "BatchNormDesign",
    "LayerWeights",
    "PatchDesign",
    "PatchGrid",
    "SpectralTrace",
    "WeightNormDesign",
    "spectral_trace",
]
