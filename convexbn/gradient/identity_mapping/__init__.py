"""ReLU networks with identity mapping: two layers that learn from a teacher, and many layers that learn classes."""

from convexbn.gradient.identity_mapping._deep import LinkedNetwork
from convexbn.gradient.identity_mapping._deep_training import train_linked
from convexbn.gradient.identity_mapping._phases import Phases, find_phases
from convexbn.gradient.identity_mapping._population import (
    one_point_convexity,
    population_gradient,
    population_loss,
    potential,
)
from convexbn.gradient.identity_mapping._training import draw_weights, train_identity_mapping

__all__ = [
    "LinkedNetwork",
    "Phases",
    "draw_weights",
    "find_phases",
    "one_point_convexity",
    "population_gradient",
    "population_loss",
    "potential",
    "train_identity_mapping",
    "train_linked",
]
