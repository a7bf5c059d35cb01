"""Gradient-trained models of the same networks, to set beside the convex optimum."""

from convexbn.gradient.batch_norm import train

__all__ = ["train"]
