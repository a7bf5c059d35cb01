"""Derivatives of f = sum_j F_j a_j b_j^T in the factors a_j (k,) and b_j (C,) of R neurons: (R, k + C) to (n, C)."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from convexbn.operators._protocol import Operator

_BLOCK_ENTRIES = 2**18  # hidden outputs of neurons made at once
_HELD_ENTRIES = 2**25  # up to this many are kept between products


class FactoredMasks:
    """With F_j = D_j Z: through the hidden outputs of the neurons, which cost less than matrices a_j b_j^T.

    Parameters
    ----------
    Z : DesignMatrix
        Design matrix with N rows; only its pooling is read.
    rows : ndarray of shape (N, k)
        Its rows in the precision of the products, in any orthogonal basis.
    packed : ndarray of uint8, shape (R, ceil(N / 8))
        Pattern of each neuron, as in `Patterns`.
    A : ndarray of shape (R, k)
    B : ndarray of shape (R, C)
    """

    def __init__(self, Z: Operator, rows: np.ndarray, packed: np.ndarray, A: np.ndarray, B: np.ndarray):
        self.Z, self.rows, self.packed = Z, rows, packed
        self.A, self.B = A.astype(rows.dtype), B.astype(rows.dtype)
        self._held = list(self._made()) if len(packed) * len(rows) <= _HELD_ENTRIES else None

    def forward(self, D: np.ndarray) -> np.ndarray:
        """Change of f (n, C) in a direction."""
        k = self.A.shape[1]
        D = D.astype(self.rows.dtype)
        parts = [(masks * (D[:, :k] @ rows.T)).T @ self.B + H.T @ D[:, k:] for rows, _, masks, H in self._blocks()]
        return self.Z.pool(np.concatenate(parts)).astype(np.float64)

    def adjoint(self, v: np.ndarray) -> np.ndarray:
        """The adjoint of `forward`: (n, C) to (R, k + C)."""
        k = self.A.shape[1]
        unpooled = self.Z.unpool(v).astype(self.rows.dtype)
        found = np.zeros((len(self.A), k + v.shape[1]))
        for rows, block, masks, H in self._blocks():
            found[:, :k] += (masks * (self.B @ unpooled[block].T)) @ rows
            found[:, k:] += H @ unpooled[block]
        return found

    def _blocks(self) -> Iterator[tuple[np.ndarray, slice, np.ndarray, np.ndarray]]:
        return iter(self._held) if self._held is not None else self._made()

    def _made(self) -> Iterator[tuple[np.ndarray, slice, np.ndarray, np.ndarray]]:
        """Blocks of the rows of Z: the rows, where they are, the masks and the hidden outputs (R, rows)."""
        n_bytes = max(1, _BLOCK_ENTRIES // (8 * max(1, len(self.A))))
        for start in range(0, self.packed.shape[1], n_bytes):
            block = slice(8 * start, min(8 * (start + n_bytes), len(self.rows)))
            rows = self.rows[block]
            masks = np.unpackbits(self.packed[:, start : start + n_bytes], axis=1, count=len(rows)).view(bool)
            yield rows, block, masks, masks * (self.A @ rows.T)


class _Products(Protocol):
    def __len__(self) -> int: ...

    def forward(self, S: np.ndarray) -> np.ndarray: ...

    def adjoint(self, v: np.ndarray) -> np.ndarray: ...


class FactoredMatrices:
    """With F_j that are only known by their products with matrices.

    Parameters
    ----------
    products : PooledProducts
        Products with the F_i of P patterns.
    owners : ndarray of int, shape (R,)
        Pattern of each neuron.
    A : ndarray of shape (R, k)
    B : ndarray of shape (R, C)
    """

    def __init__(self, products: _Products, owners: np.ndarray, A: np.ndarray, B: np.ndarray):
        self.products, self.owners, self.A, self.B = products, owners, A, B

    def forward(self, D: np.ndarray) -> np.ndarray:
        """Change of f (n, C) in a direction."""
        k = self.A.shape[1]
        outer = D[:, :k, None] * self.B[:, None, :] + self.A[:, :, None] * D[:, None, k:]
        matrices = np.zeros((len(self.products), *outer.shape[1:]))
        np.add.at(matrices, self.owners, outer)
        return self.products.forward(matrices)

    def adjoint(self, v: np.ndarray) -> np.ndarray:
        """The adjoint of `forward`: (n, C) to (R, k + C)."""
        return crossed(self.products.adjoint(v)[self.owners], self.A, self.B)


def crossed(G: np.ndarray, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """The factors (R, k + C) with G_j b_j in the place of a_j and G_j^T a_j in the place of b_j."""
    return np.hstack([np.einsum("jkc,jc->jk", G, B), np.einsum("jkc,jk->jc", G, A)])
