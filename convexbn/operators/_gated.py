"""Products with the pooled masked design matrices F_i = pool(D_i Z) of activation patterns, as functions of blocks."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from typing import Any, Self

import numpy as np

from convexbn.operators._bits import places
from convexbn.operators._protocol import Operator


class GatedProducts(ABC):
    """The linear map f = sum_i F_i S_i of a set of patterns and its adjoint, by the functions of blocks of a subclass.

    Outputs f and dual points v (n, C) are where the rows of Z are, and so is what is kept of the patterns.

    Parameters
    ----------
    Z : Operator
        Design matrix in the precision of the products, in any orthogonal basis.
    bits : array of uint8 with a row for each row of Z
        Patterns, as `transposed` and placed there.
    chosen : ndarray of int, shape (P,)
        The patterns of these that are meant.
    hold : bool, default=False
        Whether to keep what the products need of the patterns, where it has no more than `most_held` entries.
    """

    most_held: int
    made: Callable[..., Any]  # what is kept, of bits
    some: Callable[..., Any]  # what is kept of the chosen patterns, of that of all
    beside: Callable[..., Any]  # [F_1, ..., F_P], of what is kept or of bits
    outputs: Callable[..., Any]  # f, of what is kept or of bits
    along: Callable[..., Any]  # F_i^T v, of that and v

    def __init__(self, Z: Operator, bits: Any, chosen: np.ndarray, *, hold: bool = False):
        self.Z, self.gates, self.places, self._size = Z, bits, places(chosen), len(chosen)
        if hold and self.entries(Z, len(chosen)) <= self.most_held:
            self.gates, self.places = Z.hold(self.made, bits, **self.places), {}

    @staticmethod
    @abstractmethod
    def entries(Z: Operator, n_patterns: int) -> int:
        """Entries that are kept of so many patterns."""

    def __len__(self) -> int:
        return self._size

    def take(self, chosen: np.ndarray) -> Self:
        """Return the products with the chosen patterns only."""
        if len(chosen) == len(self) and (chosen == np.arange(len(self))).all():
            return self
        taken = copy(self)
        taken._size, taken.places = len(chosen), {name: value[chosen] for name, value in self.places.items()}
        if not self.places:
            taken.gates = self.Z.hold(self.some, self.gates, chosen=chosen)
        return taken

    def features(self) -> Any:
        """The matrices F_i of few patterns, beside each other: shape (n, P k)."""
        return self.Z.hold(self.beside, self.gates, **self.places)

    def forward(self, S: np.ndarray) -> Any:
        """Sum_i F_i S_i of weights (P, k, C): shape (n, C)."""
        return self.Z.hold(self.outputs, self.gates, S=self.Z.cast(S), **self.places)

    def adjoint(self, v: Any) -> np.ndarray:
        """F_i^T v of every pattern for a dual point (n, C): shape (P, k, C)."""
        along = self.Z.summed(self.along, self.gates, v, **self.places)
        return np.ascontiguousarray(along, dtype=np.float64)
