"""Products of an operator as functions of blocks, for kinds whose rows are elsewhere."""

from typing import Any


def product(Z: Any, *, S: Any) -> Any:
    """Z S (N, m) of neurons S (k, m)."""
    return Z @ S


def adjoint(Z: Any, A: Any) -> Any:
    """Z^T A (k, m) of an array A (N, m)."""
    return Z.adjoint(A)


def neuron_outputs(Z: Any, *, S: Any) -> Any:
    """Outputs (n, m) of ReLU neurons S (k, m)."""
    return Z.neuron_outputs(S)


def gated_outputs(Z: Any, *, gates: Any, S: Any) -> Any:
    """Outputs (n, m) of gated neurons with gates and weights (k, m)."""
    return Z.gated_outputs(gates, S)
