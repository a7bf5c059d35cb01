"""Products with pooled masked design matrices, for gates of convolutional networks.

A gate is fixed, so what it lets through is averaged over the patches of an image before any weights are known:
``pool(D_i Z s) = F_i s`` with F_i of n rows, where D_i Z has n * n_patches. Products with the F_i cost as many times
less.
"""

from collections.abc import Iterator

import numpy as np

from convexbn.operators._factored import FactoredMatrices
from convexbn.operators._protocol import Operator

_BLOCK_ENTRIES = 2**24  # entries of the features, and of the masks, made at once
_HELD_ENTRIES = 2**29  # up to this many entries the features are kept between products


class PooledProducts:
    """The linear map f = sum_i F_i S_i of a set of patterns, its adjoint, and the overlaps of the patterns.

    Parameters
    ----------
    Z : DesignMatrix
        Design matrix with N rows; only its shape and pooling are read.
    rows : ndarray of shape (N, k)
        Its rows in the precision of the products, in any orthogonal basis.
    packed : ndarray of uint8, shape (P, ceil(N / 8))
        Patterns, as in `Patterns`.
    hold : bool, default=False
        Whether to keep the features, where they are no more than 2**29 entries.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.operators._pooled import PooledProducts
    >>> Z = DesignMatrix(np.array([[1.0, 2.0], [3.0, 4.0]]), n_patches=2)
    >>> products = PooledProducts(Z, Z.Z, np.packbits([[True, False], [True, True]], axis=1))
    >>> products.forward(np.ones((2, 2, 1))).ravel(), products.adjoint(np.ones((1, 1)))[:, :, 0]
    (array([6.5]), array([[0.5, 1. ],
           [2. , 3. ]]))
    """

    def __init__(self, Z: Operator, rows: np.ndarray, packed: np.ndarray, *, hold: bool = False):
        self.Z, self.rows, self.packed = Z, rows, packed
        held = hold and self.entries(Z, len(packed)) <= _HELD_ENTRIES
        self._held = list(self._made()) if held else None

    @staticmethod
    def entries(Z: Operator, n_patterns: int) -> int:
        """Entries that are kept of so many patterns."""
        return n_patterns * Z.n_samples * Z.n_columns

    def __len__(self) -> int:
        return len(self.packed)

    def take(self, chosen: np.ndarray) -> "PooledProducts":
        """Return the products with the chosen patterns only."""
        if np.array_equal(chosen, np.arange(len(self))):
            return self
        taken = PooledProducts(self.Z, self.rows, self.packed[chosen])
        if self._held is not None:
            taken._held = [(block, features[chosen]) for block, features in self._held]
        return taken

    def forward(self, S: np.ndarray) -> np.ndarray:
        """Sum_i F_i S_i of weights (P, k, C): shape (n, C)."""
        weights = S.astype(self.rows.dtype, copy=False)
        f = np.zeros((self.Z.n_samples, S.shape[2]))
        for block, features in self.blocks():
            f[block] = (features @ weights).sum(axis=0)
        return f

    def adjoint(self, v: np.ndarray) -> np.ndarray:
        """F_i^T v of every pattern for a dual point (n, C): shape (P, k, C)."""
        columns = v.astype(self.rows.dtype, copy=False)
        found = np.zeros((len(self), self.rows.shape[1], v.shape[1]))
        for block, features in self.blocks():
            found += features.transpose(0, 2, 1) @ columns[block]
        return found

    def overlaps(self, w: np.ndarray, columns: np.ndarray, beside: np.ndarray) -> np.ndarray:
        """Trace of F_i^T diag(w) F_j diag(columns)^-1 over k, of some patterns beside all: shape (b, P)."""
        found = np.zeros((len(beside), len(self)))
        for block, features in self.blocks():
            scaled = features * np.sqrt(w[block][:, None] / (len(columns) * columns)).astype(features.dtype)
            flat = scaled.reshape(len(self), -1)
            found += flat[beside] @ flat.T
        return found

    def factored(self, owners: np.ndarray, A: np.ndarray, B: np.ndarray) -> FactoredMatrices:
        """The derivative in the factors of the neurons (a_j, b_j) of these patterns, a row each of A and B."""
        return FactoredMatrices(self, owners, A, B)

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of the samples, and the features (P, samples, k) of these."""
        return iter(self._held) if self._held is not None else self._made()

    def _made(self) -> Iterator[tuple[slice, np.ndarray]]:
        n_patches, k = self.Z.n_patches, self.rows.shape[1]
        size = max(1, _BLOCK_ENTRIES // (max(1, len(self)) * max(k, n_patches)))
        size = -(-size // 8) * 8  # so that a block of masks begins with a byte
        for start in range(0, self.Z.n_samples, size):
            block = slice(start, min(start + size, self.Z.n_samples))
            rows = slice(block.start * n_patches, block.stop * n_patches)
            packed = self.packed[:, rows.start // 8 : -(-rows.stop // 8)]
            masks = np.unpackbits(packed, axis=1, count=rows.stop - rows.start).astype(self.rows.dtype)
            masks = masks.reshape(len(self), -1, n_patches).transpose(1, 0, 2)
            patches = self.rows[rows].reshape(-1, n_patches, k)
            yield block, np.ascontiguousarray((masks @ patches).transpose(1, 0, 2)) / n_patches
