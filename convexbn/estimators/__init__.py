"""scikit-learn's face of the package."""

from convexbn.estimators.classifier import ConvexBNClassifier
from convexbn.estimators.regressor import ConvexBNRegressor

__all__ = ["ConvexBNClassifier", "ConvexBNRegressor"]
