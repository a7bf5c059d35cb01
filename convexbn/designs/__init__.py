"""What normalization does to data: rows Z of the design matrix, and the way back from neurons to layer weights."""

from convexbn.designs._batch_norm import BatchNormDesign, LayerWeights, WeightNormDesign
from convexbn.designs._patches import PatchDesign, PatchGrid
from convexbn.designs._spectral_trace import SpectralTrace, spectral_trace

__all__ = [
    "BatchNormDesign",
    "LayerWeights",
    "PatchDesign",
    "PatchGrid",
    "SpectralTrace",
    "WeightNormDesign",
    "spectral_trace",
]
