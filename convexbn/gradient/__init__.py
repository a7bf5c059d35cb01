"""Gradient-trained models of the same networks, to set beside the convex optimum; a module for each paper."""

from convexbn.gradient import deep_weight_norm, gdnp, identity_mapping, weight_norm
from convexbn.gradient._batch_norm import train
from convexbn.gradient._trace import DivergenceError, Trace

__all__ = ["DivergenceError", "Trace", "deep_weight_norm", "gdnp", "identity_mapping", "train", "weight_norm"]
