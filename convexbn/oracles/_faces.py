"""The largest |G^T w| over the unit directions of a pattern's cone, exactly: an eigenvalue problem on each face."""

from itertools import combinations
from math import comb

import numpy as np

from convexbn.operators._protocol import Operator

_MAX_FLATS = 20_000
_ZERO = 1e-9  # relative size that counts as rank
_INSIDE = 1e-6  # sine of the angle by which an eigenvector may leave the cone; what it gains is second order
# Relative. Rounding moves an eigenvector out of the cone only if the next eigenvalue is within 1e-9 of it; then the
# boundary in between loses no more than that.
_ROUNDING = 1e-8


def count_flats(Z: Operator) -> int:
    """Most subspaces in which independent rows of Z vanish, those of dimension zero left out.

    Parameters
    ----------
    Z : Operator
        Design matrix.

    Returns
    -------
    count : int
        Upper bound of the number of subspaces of `flats_of_rows`, attained in general position.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.oracles import count_flats
    >>> count_flats(DesignMatrix(np.random.default_rng(0).standard_normal((10, 3))))  # 1 + 10 + 45
    56
    """
    return sum(comb(int((Z.row_norms > 0).sum()), t) for t in range(len(_row_space(Z))))


def flats_of_rows(Z: Operator) -> list[np.ndarray]:
    """Subspaces in which independent rows of Z vanish: orthonormal bases (number, k, dim), one array a dimension.

    The faces of all pattern cones lie in them. Directions across the row space of Z, which change nothing, are left
    out, so that no cone holds a line.

    Parameters
    ----------
    Z : Operator
        Design matrix.

    Returns
    -------
    flats : list of ndarray

    Raises
    ------
    ValueError
        If there may be more than 20,000.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.oracles import flats_of_rows
    >>> [bases.shape for bases in flats_of_rows(DesignMatrix(np.random.default_rng(0).standard_normal((10, 3))))]
    [(1, 3, 3), (10, 3, 2), (45, 3, 1)]
    """
    axes, rows, count = _row_space(Z), Z.rows(Z.row_norms > 0), count_flats(Z)
    rank = len(axes)
    if count > _MAX_FLATS:
        raise ValueError(
            f"exact ReLU prices of several outputs take all faces of a cone, up to {count} for {len(rows)} rows of "
            f"rank {rank}, more than {_MAX_FLATS}: they are for tiny problems. Use price_by_ascent, or "
            "solve_column_generation."
        )
    normals = rows @ axes.T
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    flats = [axes.T[None]]
    for t in range(1, rank):
        _, sizes, bases = np.linalg.svd(normals[np.array(list(combinations(range(len(rows)), t)))])
        flats.append((bases[sizes[:, -1] > _ZERO, t:] @ axes).swapaxes(1, 2))
    return flats


def _row_space(Z: Operator) -> np.ndarray:
    """Orthonormal basis of the rows of Z, one a row."""
    _, sizes, axes = np.linalg.svd(Z.rows(), full_matrices=False)
    return axes[sizes > _ZERO * sizes[0]]


def largest_on_cone(G: np.ndarray, cone: np.ndarray, flats: list[np.ndarray]) -> tuple[float, np.ndarray]:
    """Maximum of |G^T w| over unit w with ``cone^T w >= 0``, and w times it.

    Inside a face, the maximum is a local one over the face's flat, so it is the leading eigenvector of G G^T there. If
    the leading eigenvalue is a double one, the maximum is also attained on the face's boundary, a face of its own.

    Parameters
    ----------
    G : ndarray of shape (k, C)
        Coefficients.
    cone : ndarray of shape (k, N)
        Inner normals of the cone.
    flats : list of ndarray
        From `flats_of_rows`.

    Returns
    -------
    value : float
        Too large by no more than a relative 1e-8, never too small.
    w : ndarray of shape (k,)
        Direction of this length; zero if G vanishes on the cone.

    References
    ----------
    .. [1] Sahiner et al., "Vector-output ReLU Neural Network Problems are Copositive Programs", arXiv 2012.13329, on
       the dual constraint, whose largest value this is.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.oracles import flats_of_rows, largest_on_cone
    >>> value, w = largest_on_cone(np.diag([3.0, 4.0]), np.eye(2), flats_of_rows(DesignMatrix(np.eye(2))))
    >>> round(value, 6), w.round(6)
    (4.0, array([0., 4.]))
    """
    lengths = np.linalg.norm(cone, axis=0)
    unit = cone / np.where(lengths > 0, lengths, 1)
    best, direction = 0.0, np.zeros(len(G))
    for bases in flats:
        H = bases.swapaxes(1, 2) @ G
        values, vectors = np.linalg.eigh(H @ H.swapaxes(1, 2))
        leading = values[:, -1]
        open_ = leading > best
        W = np.einsum("fkj,fj->fk", bases[open_], vectors[open_, :, -1])
        sides = W @ unit
        inside = (sides >= -_INSIDE).all(axis=1)
        opposite = (sides <= _INSIDE).all(axis=1)
        reached = np.where(inside | opposite, leading[open_], 0.0)
        if reached.max(initial=0) > best:
            top = reached.argmax()
            best, direction = float(reached[top]), W[top] if inside[top] else -W[top]
    value = best**0.5 * (1 + _ROUNDING)
    return value, value * direction
