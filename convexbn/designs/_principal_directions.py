"""Principal directions of data, and how many of them are kept."""

import numpy as np
from scipy.linalg import cholesky, eigh, solve_triangular, svd

from convexbn.designs._deviations import Deviations
from convexbn.designs._sparse_deviations import SparseDeviations

EXACT_RTOL = 1e-10  # as `rtol`: drops what is rounding in double precision, and nothing else
MOMENTS_RTOL = 1e-6  # below it, relative to the largest, second moments have no digits of singular values
SMALLEST_WEIGHT = 1e-10  # directions of smaller spectral weight are dropped


def principal_directions(moments: np.ndarray, n_components: int | float | None) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations, falling, and directions (r, d) of a matrix of second moments, which is overwritten.

    All of them, or the leading ones where `n_components` is an int.
    """
    d = len(moments)
    leading = min(int(n_components), d) if isinstance(n_components, (int, np.integer)) else d
    variances, axes = eigh(moments.T, subset_by_index=(d - leading, d - 1), overwrite_a=True, check_finite=False)
    return np.sqrt(np.maximum(variances[::-1], 0)), with_signs(axes.T[::-1])


def rank_to_keep(S: np.ndarray, n_components: int | float | None, rtol: float) -> int:
    """How many of the falling singular values S exceed `rtol` times the largest, or are the leading ones required."""
    keep = int(np.sum(rtol * S[0] < S))
    if isinstance(n_components, (int, np.integer)):
        keep = min(keep, int(n_components))
    elif n_components is not None:
        share = np.cumsum(S[:keep] ** 2) / np.sum(S[:keep] ** 2)
        keep = min(keep, int(np.searchsorted(share, n_components * (1 - 1e-12))) + 1)
    return keep


def leading_directions(
    matrix: Deviations | SparseDeviations, n_components: int | float | None, rtol: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Singular values and right singular vectors that are kept, and the sum of the squares of all singular values."""
    if isinstance(matrix, SparseDeviations):
        assert n_components is not None
        S, Vt = matrix.leading(int(n_components))
        keep = rank_to_keep(S, n_components, rtol)
        return S[:keep], with_signs(Vt[:keep]), matrix.squares
    if rtol < MOMENTS_RTOL:
        _, S, Vt = svd(matrix.block(), full_matrices=False, overwrite_a=True, check_finite=False)
        keep = rank_to_keep(S, n_components, rtol)
        return S[:keep], with_signs(Vt[:keep]), float(np.sum(S**2))
    gram = matrix.gram()
    squares = float(np.trace(gram))
    S, directions = principal_directions(gram, n_components)
    keep = rank_to_keep(S, n_components, rtol)
    S, directions = S[:keep], directions[:keep]
    if directions.shape[1] < len(matrix.mean):  # they are left singular vectors, of a matrix with fewer rows
        Vt = matrix.left_multiplied(directions) / S[:, None]
        directions = with_signs(solve_triangular(cholesky(Vt @ Vt.T, lower=True), Vt, lower=True))
    return S, directions, squares


def with_signs(directions: np.ndarray) -> np.ndarray:
    """The same directions (r, d), each with the sign that makes the first of its large entries positive."""
    sizes = np.abs(directions)
    first = (sizes > 0.9 * sizes.max(axis=1, keepdims=True)).argmax(axis=1)  # two columns of one std always tie
    return directions * np.sign(directions[np.arange(len(directions)), first])[:, None]
