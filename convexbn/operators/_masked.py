"""Products with masked design matrices D_i Z, through the masks alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from convexbn.operators._bits import opened
from convexbn.operators._factored import FactoredMasks
from convexbn.operators._gated import GatedProducts
from convexbn.operators._protocol import Operator
from convexbn.operators._slices import slices

_SMALLER = 4  # times smaller are the blocks of masks that are opened, so that they stay in the cache
_GRAM_ROWS = 2**14  # up to so many rows `overlaps` are sums over


def _some(Z: Any, masks: Any, *, chosen: Any) -> Any:
    return Z.xp.take(masks.T, chosen, axis=0).T


def _beside(Z: Any, gates: Any, **places: Any) -> Any:
    n = gates.shape[0] // Z.n_patches
    return Z.xp.reshape(Z.masked_features(opened(Z, gates, **places), slice(0, n)), (n, -1))


def _outputs(Z: Any, gates: Any, *, S: Any, **places: Any) -> Any:
    xp, rows, (P, k, C) = Z.xp, Z.rows(), S.shape
    S, f = xp.reshape(xp.permute_dims(S, (0, 2, 1)), (P, C * k)), []
    for block, masks in _opened(Z, gates, C * k, places):
        weights = xp.reshape(masks @ S, (masks.shape[0], C, k))  # in each row the sum of those with open gates
        f.append(xp.vecdot(weights, rows[block, :][:, None, :]))
    return Z.pool(xp.concat(f))


def _along(Z: Any, gates: Any, v: Any, **places: Any) -> Any:
    xp, rows, v = Z.xp, Z.rows(), Z.cast(Z.unpool(v))
    C, k = v.shape[1], rows.shape[1]
    total: Any = 0.0
    for block, masks in _opened(Z, gates, C * k, places):
        weighted = v[block, :][:, :, None] * rows[block, :][:, None, :]
        total = total + masks.T @ xp.reshape(weighted, (masks.shape[0], C * k))
    return xp.permute_dims(xp.reshape(total, (total.shape[0], C, k)), (0, 2, 1))


def _leverages(Z: Any, w: Any, *, inverse: Any) -> Any:
    return Z.unpool(w) * (Z.rows() ** 2 @ inverse)


def _overlaps(Z: Any, gates: Any, weights: Any, *, beside: Any, step: int, **places: Any) -> tuple[Any, Any, Any]:
    gates, sampled, total = gates[::step, :], Z.cast(weights[::step, :]), 0.0
    for block, masks in _opened(Z, gates, 1, places):
        total = total + (Z.xp.take(masks.T, beside, axis=0) * sampled[block, :].T) @ masks
    return total, Z.xp.sum(sampled), Z.xp.sum(weights)


def _totals(Z: Any, gates: Any, weights: Any, **places: Any) -> Any:
    return sum(masks.T @ Z.cast(weights[block, :]) for block, masks in _opened(Z, gates, 1, places))


def _opened(Z: Any, gates: Any, entries: int, places: dict[str, Any]) -> Iterator[tuple[slice, Any]]:
    """Slices of the rows, with no more than so many entries or masks made for each, and the masks in them."""
    entries = max(entries, _SMALLER * places["byte"].shape[0] if places else gates.shape[1])
    for block in slices(gates.shape[0], entries, Z.at_once):
        yield block, opened(Z, gates[block, :], **places)


class MaskedProducts(GatedProducts):
    """Products of patterns that are kept as masks (N, P).

    The rows of Z do not depend on the pattern, so for each output sum_i D_i Z s_i is the row-wise product of Z and
    M S, with the masks the columns of M: every product is one with M, and no D_i Z is ever formed.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.operators._bits import transposed
    >>> from convexbn.operators._masked import MaskedProducts
    >>> Z = DesignMatrix(np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> bits = transposed(np.packbits([[True, False], [True, True]], axis=1), 2)
    >>> products = MaskedProducts(Z, bits, np.arange(2))
    >>> Z.fetch(products.forward(np.ones((2, 2, 1)))).ravel(), products.adjoint(np.ones((2, 1)))[:, :, 0]
    (array([6., 7.]), array([[1., 2.],
           [4., 6.]]))
    """

    most_held = 2**27
    made, some, beside = staticmethod(opened), staticmethod(_some), staticmethod(_beside)
    outputs, along = staticmethod(_outputs), staticmethod(_along)

    @staticmethod
    def entries(Z: Operator, n_patterns: int) -> int:
        """Entries that are kept of so many patterns."""
        return n_patterns * Z.n_rows

    def overlaps(self, w: np.ndarray, columns: np.ndarray, beside: np.ndarray) -> np.ndarray:
        """Sum over the rows l of w_l q_l times the product of two masks, of some patterns beside all: (b, P).

        With w (n,) and the leverage ``q_l = sum_a Z_la^2 / (k columns_a)``. From about 2**14 rows, evenly spaced, where
        there are more; the diagonal is no less than exact then.
        """
        Z, step = self.Z, -(-self.Z.n_rows // _GRAM_ROWS)
        inverse = Z.cast(1 / (len(columns) * columns[:, None]))
        weights = Z.hold(_leverages, Z.place(w[:, None]), inverse=inverse)
        found, sampled, whole = Z.summed(_overlaps, self.gates, weights, beside=beside, step=step, **self.places)
        if step > 1:
            found = found * (whole / sampled if sampled else 1.0)
            ones, these = (np.arange(len(beside)), beside), self.take(beside)
            found[ones] = np.maximum(found[ones], Z.summed(_totals, these.gates, weights, **these.places)[:, 0])
        return found

    def factored(self, owners: np.ndarray, A: np.ndarray, B: np.ndarray) -> FactoredMasks:
        """The derivative in the factors of the neurons (a_j, b_j) of these patterns, a row each of A and B."""
        of_owners = self.take(owners)
        return FactoredMasks(self.Z, of_owners.gates, of_owners.places, A, B)
