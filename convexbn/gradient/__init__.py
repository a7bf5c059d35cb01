"""Gradient-trained models of the same networks, to set beside the convex optimum."""

from convexbn.gradient.batch_norm import train
from convexbn.gradient.identity_mapping import train_identity_mapping
from convexbn.gradient.trace import DivergenceError, Trace

__all__ = ["DivergenceError", "Trace", "train", "train_identity_mapping"]
