"""Two-layer ReLU networks with identity mapping that learn from a teacher, under Gaussian inputs."""

from convexbn.gradient.identity_mapping._phases import Phases, find_phases
from convexbn.gradient.identity_mapping._population import (
    one_point_convexity,
    population_gradient,
    population_loss,
    potential,
)
from convexbn.gradient.identity_mapping._training import draw_weights, train_identity_mapping

__all__ = [
    "Phases",
    "draw_weights",
    "find_phases",
    "one_point_convexity",
    "population_gradient",
    "population_loss",
    "potential",
    "train_identity_mapping",
]
