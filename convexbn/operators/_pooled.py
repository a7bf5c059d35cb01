"""Products with pooled masked design matrices, for gates of convolutional networks.

A gate is fixed, so what it lets through is averaged over the patches of an image before any weights are known:
``pool(D_i Z s) = F_i s`` with F_i of n rows, where D_i Z has n * n_patches. Products with the F_i cost as many times
less.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from convexbn.operators._bits import opened
from convexbn.operators._factored import FactoredMatrices
from convexbn.operators._gated import GatedProducts
from convexbn.operators._protocol import Operator
from convexbn.operators._slices import slices


def _made(Z: Any, bits: Any, **places: Any) -> Any:
    return _swapped(Z, Z.xp.concat([features for _, features in _features(Z, bits, places)], axis=1))


def _some(Z: Any, gates: Any, *, chosen: Any) -> Any:
    return _swapped(Z, Z.xp.take(_swapped(Z, gates), chosen, axis=0))


def _beside(Z: Any, gates: Any, **places: Any) -> Any:
    made = _made(Z, gates, **places) if places else gates
    return Z.xp.reshape(made, (made.shape[0], -1))


def _outputs(Z: Any, gates: Any, *, S: Any, **places: Any) -> Any:
    return Z.xp.concat([Z.xp.sum(features @ S, axis=0) for _, features in _features(Z, gates, places)])


def _along(Z: Any, gates: Any, v: Any, **places: Any) -> Any:
    v, transpose = Z.cast(v), (0, 2, 1)
    return sum(Z.xp.permute_dims(features, transpose) @ v[block, :] for block, features in _features(Z, gates, places))


def _overlaps(Z: Any, gates: Any, w: Any, *, inverse: Any, beside: Any, **places: Any) -> Any:
    total: Any = 0.0
    for block, features in _features(Z, gates, places):
        scaled = features * Z.cast((w[block, :] * inverse) ** 0.5)
        flat = Z.xp.reshape(scaled, (scaled.shape[0], scaled.shape[1] * scaled.shape[2]))
        total = total + Z.xp.take(flat, beside, axis=0) @ flat.T
    return total


def _features(Z: Any, gates: Any, places: dict[str, Any]) -> Iterator[tuple[slice, Any]]:
    """Slices of the samples, and the features (P, samples, k) of these, of bits or of all features."""
    xp, k, n_patches = Z.xp, Z.rows().shape[1], Z.n_patches
    P = places["byte"].shape[0] if places else gates.shape[1]
    for block in slices(gates.shape[0] // (n_patches if places else 1), P * max(k, n_patches), Z.at_once):
        if not places:
            yield block, _swapped(Z, gates[block, :, :])
            continue
        n, rows = block.stop - block.start, slice(block.start * n_patches, block.stop * n_patches)
        masks = _swapped(Z, xp.reshape(opened(Z, gates[rows, :], **places).T, (P, n, n_patches)))
        made = masks @ (xp.reshape(Z.rows()[rows, :], (n, n_patches, k)) / n_patches)
        yield block, xp.reshape(xp.reshape(_swapped(Z, made), (P, n * k)), (P, n, k))  # in this order in memory, too


def _swapped(Z: Any, values: Any) -> Any:
    return Z.xp.permute_dims(values, (1, 0, 2))


class PooledProducts(GatedProducts):
    """Products of patterns that are kept as features (n, P, k).

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.operators._bits import transposed
    >>> from convexbn.operators._pooled import PooledProducts
    >>> Z = DesignMatrix(np.array([[1.0, 2.0], [3.0, 4.0]]), n_patches=2)
    >>> bits = transposed(np.packbits([[True, False], [True, True]], axis=1), 2)
    >>> products = PooledProducts(Z, bits, np.arange(2))
    >>> Z.fetch(products.forward(np.ones((2, 2, 1)))).ravel(), products.adjoint(np.ones((1, 1)))[:, :, 0]
    (array([6.5]), array([[0.5, 1. ],
           [2. , 3. ]]))
    """

    most_held = 2**28
    made, some, beside = staticmethod(_made), staticmethod(_some), staticmethod(_beside)
    outputs, along = staticmethod(_outputs), staticmethod(_along)

    @staticmethod
    def entries(Z: Operator, n_patterns: int) -> int:
        """Entries that are kept of so many patterns."""
        return n_patterns * Z.n_samples * Z.n_columns

    def overlaps(self, w: np.ndarray, columns: np.ndarray, beside: np.ndarray) -> np.ndarray:
        """Trace of F_i^T diag(w) F_j diag(columns)^-1 over k, of some patterns beside all: shape (b, P)."""
        Z, inverse = self.Z, 1 / (len(columns) * columns[None])
        where = self.gates, Z.place(w[:, None])
        return Z.summed(_overlaps, *where, inverse=inverse, beside=beside, **self.places)

    def factored(self, owners: np.ndarray, A: np.ndarray, B: np.ndarray) -> FactoredMatrices:
        """The derivative in the factors of the neurons (a_j, b_j) of these patterns, a row each of A and B."""
        return FactoredMatrices(self, owners, A, B)
