"""The kinks of the ReLU nearest to neurons, found a block of rows at a time."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from convexbn._utils.array_namespace import like, to_numpy
from convexbn.operators._protocol import Operator

_ON_KINK = 1e-12  # of |z| |s|: products of rows that share a kink count as zero up to here
_TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True, eq=False)
class Kinks:
    """The rows nearest to each of m neurons; the sum of those of two blocks is the nearest of both.

    Parameters
    ----------
    distance : ndarray of shape (m, K)
        Distances of the neurons, infinite where a row only fills up.
    rows : ndarray of shape (m, K, k)
        The rows, or what is given of them.
    inner : ndarray of shape (m, K)
        Their products with the neurons.
    corners : ndarray of shape (m, K)
        Dual point at the rows, times the output direction of the neuron.
    most : int
        Rows a neuron that are kept of a sum.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.oracles._kinks import Kinks
    >>> one = np.ones((1, 1))
    >>> far, near = (Kinks(distance * one, one[:, None], one, -one, most=1) for distance in (3.0, 2.0))
    >>> (far + near).distance
    array([[2.]])
    """

    distance: np.ndarray
    rows: np.ndarray
    inner: np.ndarray
    corners: np.ndarray
    most: int

    @classmethod
    def of(cls, Z: Any, distance: Any, inner: Any, corners: Any, most: int, numbers: Any = None) -> Self:
        """The rows of a block of the least distances, (N, m) as products and corners, or only their numbers (N, 1)."""
        near = Z.nearest(distance, min(most, distance.shape[0]))
        columns = np.arange(near.shape[0])[:, None]
        places = Z.xp.reshape(near * near.shape[0] + like(near, columns)[0], (-1,))

        def taken(values: Any, places: Any = places) -> np.ndarray:
            return to_numpy(Z.xp.take(Z.xp.reshape(values, (-1,)), places)).reshape(near.shape)

        rows = Z.rows(near) if numbers is None else taken(numbers, Z.xp.reshape(near, (-1,)))[:, :, None]
        return cls(taken(distance), to_numpy(rows), taken(inner), taken(corners), most)

    def __add__(self, other: Self) -> "Kinks":
        count = min(self.most, self.distance.shape[1] + other.distance.shape[1])
        near = np.argpartition(np.hstack([self.distance, other.distance]), count - 1, axis=1)[:, :count]
        neurons = np.arange(len(near))[:, None]

        def kept(one: np.ndarray, another: np.ndarray) -> np.ndarray:
            return np.concatenate([one, another], axis=1)[neurons, near]

        return Kinks(
            kept(self.distance, other.distance),
            kept(self.rows, other.rows),
            kept(self.inner, other.inner),
            kept(self.corners, other.corners),
            self.most,
        )

    def program(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Normals (m, K, k), distances (m, K) and slopes (m, K), as `solve_kink_program` takes them."""
        outward = np.where(self.inner > 0, -1.0, 1.0)
        slope = np.where(np.isinf(self.distance), 0.0, -self.corners)
        return self.rows * outward[:, :, None], np.abs(self.inner), slope


def nearest(Z: Any, inner: Any, corners: Any, most: int) -> Kinks:
    """The nearest rows of a block at which the objective has a convex corner: those with negative `corners`.

    Parameters
    ----------
    Z : Operator
        Design matrix, or a block of it.
    inner : array of shape (N, m)
        Products with the neurons.
    corners : array of shape (N, m)
        Dual point of the rows, times the output direction of each neuron.
    most : int
        Rows a neuron, if there are as many; where fewer are convex, others fill up.

    Returns
    -------
    kinks : Kinks
    """
    xp, norms = Z.xp, Z.row_norms[:, None]
    distance = xp.abs(inner) / xp.clip(norms, _TINY, None)
    infinite = like(distance, np.asarray(np.inf))[0]
    return Kinks.of(Z, xp.where((corners < 0) & (norms > 0), distance, infinite), inner, corners, most)


def nearest_kinks(
    Z: Operator, inner: np.ndarray, signed_v: np.ndarray, n_kinks: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the kinks nearest to each neuron at which the objective has a convex corner: rows with sign * v_i < 0.

    Rows that are multiples of each other share a kink, whose corner is that of their sum.

    Parameters
    ----------
    Z : Operator
        Design matrix.
    inner : ndarray of shape (N, m)
        Products Z S with the neurons, from `DesignMatrix.products`.
    signed_v : ndarray of shape (N, m)
        Dual point times the sign of each neuron.
    n_kinks : int
        How many a neuron, if Z has as many; where fewer are convex, others fill up with slope zero.

    Returns
    -------
    A, b, c : ndarray of shape (m, n_kinks, k), (m, n_kinks) and (m, n_kinks)
        Normals, distances and slopes, as `solve_kink_program` takes them.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.oracles._kinks import nearest_kinks
    >>> from convexbn import DesignMatrix
    >>> A, b, c = nearest_kinks(DesignMatrix(np.eye(2)), np.array([[3.0], [-1.0]]), np.array([[1.0], [-2.0]]), 1)
    >>> A[0], b[0], c[0]
    (array([[0., 1.]]), array([1.]), array([2.]))
    """
    corners = signed_v if Z.hyperplanes.all_differ else _corners(Z, signed_v)
    return nearest(Z, inner, corners, min(n_kinks, len(Z.hyperplanes.first))).program()


def shared_kinks(Z: Operator, V: np.ndarray) -> tuple[Any, ...]:
    """What functions of blocks need of rows that share a kink, placed: nothing where no rows do.

    Parameters
    ----------
    Z : Operator
        Design matrix.
    V : ndarray of shape (N, C)
        Dual point of its rows.

    Returns
    -------
    reflected : placed array of shape (N, 1)
        Whether a row is a negative multiple of the first that shares its kink.
    corners : placed array of shape (N, C)
        Sum of the dual points of all that share a kink, times their absolute ratio, at the first row; else zero.
    """
    planes = Z.hyperplanes
    return () if planes.all_differ else (Z.place(planes.ratio[:, None] < 0), Z.place(_corners(Z, V)))


def sided_products(Z: Any, *shared: Any, S: Any) -> Any:
    """Z S (N, m) of a block, in which rows that share a kink are on the same side of neurons on it.

    Products of such rows are rounded differently in different blocks; on the kink those of reflected rows count as
    positive, and the others as zero.
    """
    inner = Z @ S
    if not shared:
        return inner
    xp = Z.xp
    zero = Z.row_norms[:, None] * (_ON_KINK * xp.sqrt(xp.sum(S * S, axis=0)))
    return xp.where(xp.abs(inner) <= zero, Z.cast(shared[0]) * zero, inner)


def _corners(Z: Operator, V: np.ndarray) -> np.ndarray:
    corners = np.zeros(V.shape)
    corners[Z.hyperplanes.first] = Z.hyperplanes.summed(V)
    return corners
