"""Deep networks with smooth activations and weight normalization: curvature, convergence, generalisation.

Gradient descent converges where the predictor's Hessian is small, and the class of networks generalises
(arXiv 2409.08935).
"""

from convexbn.gradient.deep_weight_norm._descent import train_deep_weight_norm
from convexbn.gradient.deep_weight_norm._generalization import generalization_bound, rademacher_bound
from convexbn.gradient.deep_weight_norm._network import SmoothNetwork
from convexbn.gradient.deep_weight_norm._stable_rate import largest_stable_rate

__all__ = [
    "SmoothNetwork",
    "generalization_bound",
    "largest_stable_rate",
    "rademacher_bound",
    "train_deep_weight_norm",
]
