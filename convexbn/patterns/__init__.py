"""Activation patterns of ReLU neurons: sampled, enumerated, counted, bit-packed."""

from convexbn.patterns._patterns import Patterns, count_patterns, enumerate_patterns, sample_patterns

__all__ = ["Patterns", "count_patterns", "enumerate_patterns", "sample_patterns"]
