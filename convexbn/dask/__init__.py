"""Estimators for rows on a dask cluster; they need the extra ``convexbn[dask]``."""

from convexbn._utils.rows_lost import RowsLostError
from convexbn.dask._classifier import DaskConvexBNClassifier
from convexbn.dask._regressor import DaskConvexBNRegressor

__all__ = ["DaskConvexBNClassifier", "DaskConvexBNRegressor", "RowsLostError"]
