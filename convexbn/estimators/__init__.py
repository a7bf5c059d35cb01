"""Estimators with scikit-learn's interface: no mathematics of their own."""

from convexbn.estimators._classifier import ConvexBNClassifier
from convexbn.estimators._classifier_cv import ConvexBNClassifierCV
from convexbn.estimators._convolutional import ConvexBNConvClassifier, ConvexBNConvRegressor
from convexbn.estimators._features import FrozenModule, RandomBatchNormLayers
from convexbn.estimators._gdnp import GDNPClassifier
from convexbn.estimators._path import Path, convexbn_path
from convexbn.estimators._proof import prove
from convexbn.estimators._regressor import ConvexBNRegressor
from convexbn.estimators._regressor_cv import ConvexBNRegressorCV
from convexbn.estimators._stack import ConvexBNStackClassifier, ConvexBNStackRegressor

__all__ = [
    "ConvexBNClassifier",
    "ConvexBNClassifierCV",
    "ConvexBNConvClassifier",
    "ConvexBNConvRegressor",
    "ConvexBNRegressor",
    "ConvexBNRegressorCV",
    "ConvexBNStackClassifier",
    "ConvexBNStackRegressor",
    "FrozenModule",
    "GDNPClassifier",
    "Path",
    "RandomBatchNormLayers",
    "convexbn_path",
    "prove",
]
