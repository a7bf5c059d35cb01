"""Sums over blocks of samples that training is made of: each is a function of a block, for `Operator.summed`.

Arguments are a block of the design matrix, its targets y and sample weights p, and the same arrays for all blocks.
They are written in operators and the few names that all kinds of arrays share.
"""

from collections.abc import Callable
from typing import Any

from convexbn.losses import Loss


def network_outputs(Z: Any, *, weights: Any, output_weights: Any, intercept: Any) -> Any:
    """Predictions f (n, C) of ReLU neurons."""
    return Z.neuron_outputs(weights) @ output_weights + intercept


def gated_network_outputs(Z: Any, *, gates: Any, weights: Any, output_weights: Any, intercept: Any) -> Any:
    """Predictions f (n, C) of gated neurons."""
    return Z.gated_outputs(gates, weights) @ output_weights + intercept


def loss_of_outputs(Z: Any, y: Any, p: Any, *, loss: Loss, outputs: Callable[..., Any], **arrays: Any) -> Any:
    """Loss of the predictions that a function of blocks makes."""
    return p @ loss.value(outputs(Z, **arrays), y)


def neuron_outputs(Z: Any, *, weights: Any) -> Any:
    """Outputs (n, m) of ReLU neurons."""
    return Z.neuron_outputs(weights)


def along_outputs(Z: Any, v: Any, *, weights: Any) -> Any:
    """V^T relu(Z W) (C, m) of neurons W (k, m) and a dual point (n, C)."""
    return v.T @ Z.neuron_outputs(weights)


def along_rows(Z: Any, V: Any, *, weights: Any) -> Any:
    """The same for a dual point (N, C) of the rows, which are not pooled."""
    return V.T @ Z.hidden(weights)


def of_hidden_weights(
    Z: Any, y: Any, p: Any, *, loss: Loss, weights: Any, output_weights: Any, intercept: Any
) -> tuple[Any, Any, Any]:
    """Loss of a network with one output, sum of v_i z_i over active rows (k, m), and the sum of v (1,)."""
    hidden = Z.hidden(weights)
    f = Z.pool(hidden) @ output_weights + intercept
    value, gradient = loss.with_gradient(f, y)
    v = -p[:, None] * gradient
    return p @ value, Z.of_active(hidden, Z.unpool(v)), -p @ gradient


def of_all_weights(
    Z: Any, y: Any, p: Any, *, loss: Loss, weights: Any, output_weights: Any, intercept: Any
) -> tuple[Any, Any, Any, Any]:
    """Loss of a network; the sum of z_i (v_i·c_j) over active rows (k, m), H^T v (m, C), and the sum of v (C,)."""
    hidden = Z.hidden(weights)
    pooled = Z.pool(hidden)
    f = pooled @ output_weights + intercept
    value, gradient = loss.with_gradient(f, y)
    v = -p[:, None] * gradient
    of_outputs = pooled.T @ Z.cast(v)
    of_active = Z.of_active(hidden, Z.cast(Z.unpool(v)) @ output_weights.T)
    return p @ value, of_active, of_outputs, -p @ gradient


def of_lengths(
    Z: Any, y: Any, p: Any, hidden: Any, *, loss: Loss, output_weights: Any, intercept: Any
) -> tuple[Any, Any, Any]:
    """Loss of a network with outputs (n, m) of its neurons, H^T v (m, C), and the sum of v (C,)."""
    f = hidden @ output_weights + intercept
    value, gradient = loss.with_gradient(f, y)
    v = -p[:, None] * gradient
    return p @ value, (v.T @ hidden).T, -p @ gradient


def of_gradients(Z: Any, p: Any, *, weights: Any, slopes: Any) -> Any:
    """Sum of the outer products (k, k) of the gradients of each output along the rows, slopes (m, k) of its neurons."""
    active, total = Z.active(weights), 0.0
    for of_output in slopes:
        gradients = active @ of_output
        total = total + gradients.T @ (Z.cast(p[:, None]) * gradients)
    return total
