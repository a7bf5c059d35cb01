"""The feature metric: what the penalty of a neuron measures its weights by, learned from the gradients of a network."""

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.checks import real_array

_RIDGE = 1e-4  # of the mean eigenvalue, so that no direction is forbidden
_ASYMMETRY = 1e-8  # of the largest entry


def check_feature_metric(metric: ArrayLike | None) -> None:
    """Raise a ValueError unless a metric is None or a symmetric matrix without negative eigenvalues, not zero."""
    if metric is None:
        return
    M = real_array("feature_metric", metric)
    wanted = "must be a symmetric matrix (d, d) without negative eigenvalues, such as `feature_metric_` of a fit"
    if M.ndim != 2 or M.shape[0] != M.shape[1]:
        raise ValueError(f"feature_metric of shape {M.shape} {wanted}.")
    size = np.abs(M).max(initial=0)
    if not 0 < size < np.inf or np.abs(M - M.T).max() > _ASYMMETRY * size:
        raise ValueError(f"feature_metric {wanted}; it is zero, not finite, or not symmetric.")
    if np.linalg.eigvalsh(M / size)[0] < -_ASYMMETRY * len(M):
        raise ValueError(f"feature_metric {wanted}; it has negative ones.")


def metric_basis(metric: ArrayLike, coloring: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """The matrix (r, r) by which the columns of Z that hold the data are multiplied, symmetric.

    It is the root of the metric in the coordinates of these columns, plus a ten-thousandth of its mean eigenvalue,
    scaled so that the data vary as much along their largest direction as before: by one.

    Parameters
    ----------
    metric : array-like of shape (d, d)
        Metric of the features.
    coloring : ndarray of shape (r, d)
        The columns of Z times it are the centred data.
    deviations : ndarray of shape (r,)
        Standard deviations of the columns of Z.

    Raises
    ------
    ValueError
        If the metric has another size, or vanishes along all directions of the data.
    """
    M = np.asarray(metric, dtype=np.float64)
    if len(M) != coloring.shape[1]:
        raise ValueError(f"feature_metric has {len(M)} rows, but X has {coloring.shape[1]} features.")
    of_columns = coloring @ (M / np.abs(M).max()) @ coloring.T
    values, vectors = np.linalg.eigh(of_columns)
    if not values[-1] > 0:
        raise ValueError("feature_metric is zero along all directions of X; give None.")
    values = np.maximum(values, 0)
    root = vectors * np.sqrt(values + _RIDGE * values.mean()) @ vectors.T
    basis: np.ndarray = root / np.linalg.norm(deviations[:, None] * root, 2)
    return basis
