"""Gradient-trained models of the same networks, to set beside the convex optimum."""

from convexbn.gradient.batch_norm import train
from convexbn.gradient.trace import DivergenceError, Trace
from convexbn.gradient.weight_norm import (
    GramMatrices,
    decay_rate,
    gram_matrices,
    limit_gram_matrices,
    train_weight_norm,
    weight_norm_start,
)

__all__ = [
    "DivergenceError",
    "GramMatrices",
    "Trace",
    "decay_rate",
    "gram_matrices",
    "limit_gram_matrices",
    "train",
    "train_weight_norm",
    "weight_norm_start",
]
