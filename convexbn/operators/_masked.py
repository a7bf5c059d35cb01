"""Products with the masked design matrices D_i Z of bit-packed activation patterns, block by block."""

from collections.abc import Iterator
from functools import reduce

import numpy as np

from convexbn.operators._factored import FactoredMasks
from convexbn.operators._protocol import Operator

_BLOCK_ENTRIES = 2**22  # entries of the masks unpacked at once
_HELD_ENTRIES = 2**27  # up to this many entries the masks stay unpacked
_GRAM_ROWS = 2**14  # rows from which `overlaps` is estimated
_WIDE_ENTRIES = 2**24  # entries of the rows of Z times several outputs at once


class MaskedProducts:
    """The linear map f = sum_i D_i Z S_i of a set of patterns, its adjoint, and the overlaps of the patterns.

    The rows of Z do not depend on the pattern, so for each output sum_i D_i Z s_i is the row-wise product of Z and
    M^T S, with the masks the rows of M: every product is one with M, and no D_i Z is ever formed.

    Parameters
    ----------
    Z : DesignMatrix
        Design matrix with N rows; only its shape and pooling are read.
    rows : ndarray of shape (N, k)
        Its rows in the precision of the products, in any orthogonal basis.
    packed : ndarray of uint8, shape (P, ceil(N / 8))
        Patterns, as in `Patterns`.
    hold : bool, default=False
        Whether to keep the masks unpacked, where they are no more than 2**27 entries.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.operators._masked import MaskedProducts
    >>> Z = DesignMatrix(np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> products = MaskedProducts(Z, Z.Z, np.packbits([[True, False], [True, True]], axis=1))
    >>> products.forward(np.ones((2, 2, 1))).ravel(), products.adjoint(np.ones((2, 1)))[:, :, 0]
    (array([6., 7.]), array([[1., 2.],
           [4., 6.]]))
    """

    def __init__(self, Z: Operator, rows: np.ndarray, packed: np.ndarray, *, hold: bool = False):
        self.Z, self.rows, self.packed = Z, rows, packed
        self._masks = self._unpacked(packed) if hold and self.entries(Z, len(packed)) <= _HELD_ENTRIES else None

    @staticmethod
    def entries(Z: Operator, n_patterns: int) -> int:
        """Entries that are kept of so many patterns."""
        return n_patterns * Z.n_rows

    def __len__(self) -> int:
        return len(self.packed)

    def take(self, chosen: np.ndarray) -> "MaskedProducts":
        """Return the products with the chosen patterns only."""
        if np.array_equal(chosen, np.arange(len(self))):
            return self
        taken = MaskedProducts(self.Z, self.rows, self.packed[chosen])
        taken._masks = None if self._masks is None else self._masks[chosen]
        return taken

    def forward(self, S: np.ndarray) -> np.ndarray:
        """Pooled sum_i D_i Z S_i of weights (P, k, C): shape (n, C)."""
        n_rows, k = self.rows.shape
        per_output = np.swapaxes(S, 1, 2).astype(self.rows.dtype, copy=False)
        f = np.empty((n_rows, S.shape[2]), dtype=self.rows.dtype)
        for outputs in self._outputs(S.shape[2]):
            width = outputs.stop - outputs.start
            part = np.ascontiguousarray(per_output[:, outputs]).reshape(len(self), width * k)
            # In row l of the weights: the sum of those with open gates.
            weights = reduce(np.add, (masks.T @ part[block] for block, masks in self._blocks()))
            np.einsum("ick,ik->ic", weights.reshape(n_rows, width, k), self.rows, out=f[:, outputs])
        return self.Z.pool(f).astype(np.float64)

    def adjoint(self, v: np.ndarray) -> np.ndarray:
        """Z^T D_i v of every pattern for a dual point (n, C): shape (P, k, C)."""
        n_rows, k = self.rows.shape
        unpooled = self.Z.unpool(v).astype(self.rows.dtype)
        found = np.empty((len(self), k, v.shape[1]))
        for outputs in self._outputs(v.shape[1]):
            width = outputs.stop - outputs.start
            weighted = (unpooled[:, outputs, None] * self.rows[:, None, :]).reshape(n_rows, width * k)
            for block, masks in self._blocks():
                found[block, :, outputs] = (masks @ weighted).reshape(len(masks), width, k).transpose(0, 2, 1)
        return found

    def overlaps(self, w: np.ndarray, columns: np.ndarray, beside: np.ndarray) -> np.ndarray:
        """Sum over the rows l of w_l q_l times the product of two masks, of some patterns beside all: (b, P).

        With w (n,) and the leverage ``q_l = sum_a Z_la^2 / (k columns_a)``. From about 2**14 rows, evenly spaced, where
        there are more; the diagonal is no less than exact then.
        """
        weights = self.Z.unpool(w[:, None])[:, 0] * (self.rows**2 @ (1 / columns)) / len(columns)
        n_bytes = self.packed.shape[1]
        chosen = np.unique(np.linspace(0, n_bytes - 1, min(n_bytes, _GRAM_ROWS // 8)).astype(int))
        padded = np.zeros(8 * n_bytes)
        padded[: len(weights)] = weights
        sampled = padded.reshape(-1, 8)[chosen]
        scale = weights.sum() / sampled.sum() if sampled.any() else 1.0
        found = np.zeros((len(beside), len(self)))
        size = max(1, _BLOCK_ENTRIES // (8 * max(1, len(self))))
        for start in range(0, len(chosen), size):
            block = slice(start, start + size)
            masks = self._cast(np.unpackbits(self.packed[:, chosen[block]], axis=1))
            found += (masks[beside] * (scale * sampled[block].ravel()).astype(self.rows.dtype)) @ masks.T
        if len(chosen) < n_bytes:
            ones = np.arange(len(beside)), beside
            exact = [masks @ weights.astype(self.rows.dtype) for _, masks in self.take(beside)._blocks()]
            found[ones] = np.maximum(found[ones], np.concatenate(exact))
        return found

    def factored(self, owners: np.ndarray, A: np.ndarray, B: np.ndarray) -> FactoredMasks:
        """The derivative in the factors of the neurons (a_j, b_j) of these patterns, a row each of A and B."""
        return FactoredMasks(self.Z, self.rows, self.packed[owners], A, B)

    def _outputs(self, n_outputs: int) -> Iterator[slice]:
        size = max(1, _WIDE_ENTRIES // self.rows.size)
        return (slice(start, min(start + size, n_outputs)) for start in range(0, n_outputs, size))

    def _blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        if self._masks is not None:
            yield slice(None), self._masks
            return
        size = max(1, _BLOCK_ENTRIES // len(self.rows))
        for start in range(0, max(1, len(self)), size):
            block = slice(start, start + size)
            yield block, self._unpacked(self.packed[block])

    def _unpacked(self, packed: np.ndarray) -> np.ndarray:
        return self._cast(np.unpackbits(packed, axis=1, count=len(self.rows)))

    def _cast(self, masks: np.ndarray) -> np.ndarray:
        return masks.astype(self.rows.dtype)
