"""Gradient-trained models of the same networks, to set beside the convex optimum."""

from convexbn.gradient import gdnp
from convexbn.gradient.batch_norm import train
from convexbn.gradient.trace import DivergenceError, Trace

__all__ = ["DivergenceError", "Trace", "gdnp", "train"]
