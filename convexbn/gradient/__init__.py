"""Gradient-trained models of the same networks, to set beside the convex optimum."""

from convexbn.gradient.batch_norm import train
from convexbn.gradient.deep_weight_norm import SmoothNetwork, train_deep_weight_norm
from convexbn.gradient.trace import DivergenceError, Trace

__all__ = ["DivergenceError", "SmoothNetwork", "Trace", "train", "train_deep_weight_norm"]
