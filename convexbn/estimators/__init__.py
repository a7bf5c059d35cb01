"""scikit-learn's face of the package."""

from convexbn.estimators.classifier import ConvexBNClassifier
from convexbn.estimators.classifier_cv import ConvexBNClassifierCV
from convexbn.estimators.convolutional import ConvexBNConvClassifier, ConvexBNConvRegressor
from convexbn.estimators.features import FrozenModule, RandomBatchNormLayers
from convexbn.estimators.gdnp import GDNPClassifier
from convexbn.estimators.path import Path, convexbn_path
from convexbn.estimators.proof import prove
from convexbn.estimators.regressor import ConvexBNRegressor
from convexbn.estimators.regressor_cv import ConvexBNRegressorCV
from convexbn.estimators.stack import ConvexBNStackClassifier, ConvexBNStackRegressor

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
