"""Gradient descent in normalized parametrization: batch normalization as an algorithm with a proved rate."""

from convexbn.gradient.gdnp._descent import LinearFit, gdnp
from convexbn.gradient.gdnp._functions import FUNCTIONS, SmoothFunction
from convexbn.gradient.gdnp._multilayer import MultilayerNetwork
from convexbn.gradient.gdnp._multilayer_descent import train_multilayer
from convexbn.gradient.gdnp._network import HiddenLayer, gdnp_network
from convexbn.gradient.gdnp._objectives import GaussianHalfspace, LearningHalfspace, LeastSquares, Moments, Objective
from convexbn.gradient.gdnp._peers import accelerated_gradient_descent, batch_norm_descent, gradient_descent, lbfgs

__all__ = [
    "FUNCTIONS",
    "GaussianHalfspace",
    "HiddenLayer",
    "LearningHalfspace",
    "LeastSquares",
    "LinearFit",
    "Moments",
    "MultilayerNetwork",
    "Objective",
    "SmoothFunction",
    "accelerated_gradient_descent",
    "batch_norm_descent",
    "gdnp",
    "gdnp_network",
    "gradient_descent",
    "lbfgs",
    "train_multilayer",
]
