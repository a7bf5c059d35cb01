"""Operators whose rows are elsewhere: products are functions of blocks."""

from functools import cached_property
from typing import Any

import numpy as np

from convexbn.operators._protocol import Operator


class OfBlocks(Operator):
    """An operator whose products are made where the blocks of its rows are, by its `mapped` and `summed`."""

    def __matmul__(self, S: np.ndarray) -> np.ndarray:
        return self.mapped(product, S=S)

    def adjoint(self, A: np.ndarray) -> np.ndarray:
        """Z^T A (k, m) of an array A (N, m)."""
        return self.summed(_adjoint, self.place(A))

    def neuron_outputs(self, S: np.ndarray) -> np.ndarray:
        """Outputs of ReLU neurons, one a column of S (k, m): pooled relu(Z S), (n, m)."""
        return self.mapped(_neuron_outputs, S=S)

    def gated_outputs(self, gates: np.ndarray, S: np.ndarray) -> np.ndarray:
        """Outputs of gated neurons with gates and weights (k, m): pooled 1[Z g >= 0] * (Z s), (n, m)."""
        return self.mapped(_gated_outputs, gates=gates, S=S)

    @cached_property
    def spectral_norm(self) -> float:
        """Largest singular value of Z, from its Gram matrix."""
        return self.weighted_norm(np.ones((self.n_rows, 1)))


def product(Z: Any, *, S: Any) -> Any:
    """Z S (N, m) of neurons S (k, m)."""
    return Z @ S


def _adjoint(Z: Any, A: Any) -> Any:
    return Z.adjoint(A)


def _neuron_outputs(Z: Any, *, S: Any) -> Any:
    return Z.neuron_outputs(S)


def _gated_outputs(Z: Any, *, gates: Any, S: Any) -> Any:
    return Z.gated_outputs(gates, S)
