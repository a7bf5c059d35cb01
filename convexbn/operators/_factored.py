"""Derivatives of f = sum_j F_j a_j b_j^T in the factors a_j (k,) and b_j (C,) of R neurons: (R, k + C) to (n, C).

As in `GatedProducts`, outputs and dual points are where the rows of Z are.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from convexbn.operators._bits import opened
from convexbn.operators._protocol import Operator
from convexbn.operators._slices import slices

_SMALLER = 16  # times smaller than those of other products are the blocks, so that they stay in the cache
_HELD_ENTRIES = 2**25  # up to this many hidden outputs are kept between products


class FactoredMasks:
    """With F_j = pool(D_j Z): through the hidden outputs of the neurons, which cost less than matrices a_j b_j^T.

    Parameters
    ----------
    Z : Operator
        Design matrix in the precision of the products, in any orthogonal basis.
    gates, places
        Masks (N, R) of the neurons, as of `opened`.
    A : ndarray of shape (R, k)
    B : ndarray of shape (R, C)
    """

    def __init__(self, Z: Operator, gates: Any, places: dict[str, np.ndarray], A: np.ndarray, B: np.ndarray):
        A, B = Z.cast(A), Z.cast(B)
        self.Z, self.placed, self.small = Z, [gates], {"A": A, "B": B, **places}
        if len(A) * Z.n_rows <= _HELD_ENTRIES:
            masks = Z.hold(opened, gates, **places)
            self.placed, self.small = [masks, Z.hold(_hidden, masks, A=A)], {"A": A, "B": B}

    def forward(self, D: np.ndarray) -> Any:
        """Change of f (n, C) in a direction."""
        return self.Z.hold(_changes, *self.placed, D=self.Z.cast(D), **self.small)

    def adjoint(self, v: Any) -> np.ndarray:
        """The adjoint of `forward`: (n, C) to (R, k + C)."""
        return self.Z.summed(_along, v, *self.placed, **self.small).astype(np.float64, copy=False)


def _hidden(Z: Any, masks: Any, *, A: Any) -> Any:
    return (masks.T * (A @ Z.rows().T)).T


def _changes(Z: Any, *placed: Any, D: Any, A: Any, B: Any, **places: Any) -> Any:
    of_a, of_b = D[:, : A.shape[1]], D[:, A.shape[1] :]
    parts = [(masks * (of_a @ rows.T)).T @ B + H.T @ of_b for _, rows, masks, H in _blocks(Z, placed, A, places)]
    return Z.pool(Z.xp.concat(parts))


def _along(Z: Any, v: Any, *placed: Any, A: Any, B: Any, **places: Any) -> Any:
    v, total = Z.cast(Z.unpool(v)), 0.0
    for block, rows, masks, H in _blocks(Z, placed, A, places):
        part = v[block, :]
        total = total + Z.xp.concat([(masks * (B @ part.T)) @ rows, H @ part], axis=1)
    return total


def _blocks(Z: Any, placed: tuple[Any, ...], A: Any, places: dict[str, Any]) -> Iterator[tuple[slice, Any, Any, Any]]:
    """Slices of the rows, the rows in them, the masks and the hidden outputs (R, rows)."""
    for block in slices(Z.rows().shape[0], _SMALLER * A.shape[0], Z.at_once):
        rows, (masks, *hidden) = Z.rows()[block, :], (values[block, :].T for values in placed)
        masks = opened(Z, masks.T, **places).T
        yield block, rows, masks, hidden[0] if hidden else masks * (A @ rows.T)


class _Products(Protocol):
    def __len__(self) -> int: ...

    def forward(self, S: np.ndarray) -> Any: ...

    def adjoint(self, v: Any) -> np.ndarray: ...


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

    def forward(self, D: np.ndarray) -> Any:
        """Change of f (n, C) in a direction."""
        k = self.A.shape[1]
        outer = D[:, :k, None] * self.B[:, None, :] + self.A[:, :, None] * D[:, None, k:]
        matrices = np.zeros((len(self.products), *outer.shape[1:]))
        np.add.at(matrices, self.owners, outer)
        return self.products.forward(matrices)

    def adjoint(self, v: Any) -> np.ndarray:
        """The adjoint of `forward`: (n, C) to (R, k + C)."""
        return crossed(self.products.adjoint(v)[self.owners], self.A, self.B)


def crossed(G: np.ndarray, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """The factors (R, k + C) with G_j b_j in the place of a_j and G_j^T a_j in the place of b_j."""
    return np.hstack([np.einsum("jkc,jc->jk", G, B), np.einsum("jkc,jk->jc", G, A)])
