"""Sample weights: what counts as one, and equal samples added up.

An integer weight means as much as repeated rows, and a weight of zero as much as no row.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse

from convexbn._utils.checks import real_array
from convexbn._utils.on_disk import is_on_disk
from convexbn._utils.row_order import sorted_rows

_FAR = 1e100  # weights between its inverse and this are used as they are


def check_sample_weight(sample_weight: ArrayLike | None, n_samples: int) -> np.ndarray:
    """Return sample weights as an array, ones if None.

    They are as given, unless the largest is so far from one that sums and products could leave the range of floats;
    then all are divided by it. A weight that is nothing beside the largest, by a factor of 1e-308, is zero.

    Parameters
    ----------
    sample_weight : array-like of shape (n,), float or None
        Weights from zero on, not all of them zero; one number is the weight of every sample.
    n_samples : int
        Samples n.

    Returns
    -------
    weights : ndarray of shape (n,)

    Raises
    ------
    ValueError
        If they are no real numbers, the length is wrong, a weight is negative or not finite, or all are zero.

    Examples
    --------
    >>> from convexbn._utils.sample_weight import check_sample_weight
    >>> check_sample_weight([0, 2, 1], 3)
    array([0., 2., 1.])
    """
    if sample_weight is None:
        return np.ones(n_samples)
    weights = real_array("sample_weight", sample_weight)
    if weights.ndim == 0:
        weights = np.full(n_samples, weights)
    if weights.shape != (n_samples,):
        raise ValueError(
            f"sample_weight must hold one number for each of the {n_samples} samples, got shape {weights.shape}."
        )
    if not np.isfinite(weights).all():
        raise ValueError("sample_weight contains NaN or infinity.")
    if (weights < 0).any():
        raise ValueError(f"sample_weight must not be negative; its smallest entry is {weights.min():g}.")
    if not weights.any():
        raise ValueError("sample_weight must contain at least one non-zero number.")
    largest = weights.max()
    if not 1 / _FAR < largest < _FAR:
        weights = weights / largest
    return np.where(weights < np.finfo(float).tiny * weights.max(), 0, weights)


def weighted_samples(sample_weight: ArrayLike | None, X: Any) -> tuple[np.ndarray, Any]:
    """Return the weights that are not zero and their rows of X."""
    weights = check_sample_weight(sample_weight, X.shape[0])
    present = weights > 0
    return (weights, X) if present.all() else (weights[present], X[present])


def merge_equal_samples(X: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add up the weights of equal samples, in an order that does not depend on theirs.

    The training problem stays the same and becomes smaller, and repeated rows become the weights that they mean. Large
    memory maps are returned as they are, as this would copy them.

    Parameters
    ----------
    X : ndarray of shape (n, ...) or csr_array of shape (n, d)
        Data.
    y : ndarray of shape (n, C)
        Targets.
    weights : ndarray of shape (n,)
        Sample weights; samples of weight zero are left out.

    Returns
    -------
    X, y, weights : array of shape (n', ...), ndarray of shape (n', C) and (n',)
        The distinct samples and their total weights.

    Raises
    ------
    ValueError
        If a weight is zero and X is a large memory map.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn._utils.sample_weight import merge_equal_samples
    >>> X, y = np.array([[5.0], [3.0], [5.0]]), np.array([[1.0], [0.0], [1.0]])
    >>> X, y, weights = merge_equal_samples(X, y, np.ones(3))
    >>> X.ravel(), y.ravel(), weights
    (array([3., 5.]), array([0., 1.]), array([1., 2.]))
    """
    present = weights > 0
    if is_on_disk(X):
        if not present.all():
            raise ValueError(
                f"sample_weight is zero for {np.sum(~present)} samples of a memory map, which is not copied; leave "
                "them out of the file, or read it into memory with np.array(X)."
            )
        return X, y, weights
    if not present.all():
        X, y, weights = X[present], y[present], weights[present]
    order, new = sorted_rows(X if issparse(X) else X.reshape(len(X), -1))
    X, y, weights = X[order], y[order], weights[order]
    order = np.lexsort((weights, *y.T[::-1], np.cumsum(new)))  # among equal rows of X
    y, weights = y[order], weights[order]
    new[1:] |= (y[1:] != y[:-1]).any(axis=1)
    if new.all():
        return X, y, weights
    return X[new], y[new], np.bincount(np.cumsum(new) - 1, weights)


def standard_deviations(y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted standard deviation of each column, zero where only rounding varies.

    Parameters
    ----------
    y : ndarray of shape (n, C)
        Data.
    weights : ndarray of shape (n,)
        Positive weights.

    Returns
    -------
    std : ndarray of shape (C,)

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn._utils.sample_weight import standard_deviations
    >>> standard_deviations(np.array([[1.0, 5.0], [3.0, 5.0], [3.0, 5.0]]), np.array([2.0, 1.0, 1.0]))
    array([1., 0.])
    """
    ranges = np.ptp(y, axis=0)
    ranges[ranges <= 10 * np.finfo(float).eps * np.abs(y).max(axis=0)] = 0
    deviations = (y - np.average(y, axis=0, weights=weights)) / np.where(ranges > 0, ranges, np.inf)
    deviations -= np.average(deviations, axis=0, weights=weights)
    return ranges * np.sqrt(np.average(deviations**2, axis=0, weights=weights))
