"""The training objective of a network as a function of the weights of its torch module, with gradients."""

from typing import Any

import numpy as np

from convexbn._utils.array_namespace import doubles, is_elsewhere, like
from convexbn.losses import Loss
from convexbn.network import NormalizedNetwork
from convexbn.network._base import import_torch

SMALLEST_EPS = 1e-300  # torch's batch normalization refuses zero


class TrainingObjective:
    """Averaged loss, plus ``weight_decay / 2 * sum_j (gamma_j^2 + bias_j^2 + |c_j|^2)``.

    Parameters
    ----------
    network : NormalizedNetwork
        Network to start from, with at least one neuron.
    loss : Loss
        The loss.
    weight_decay : float
        Weight decay.
    fit_intercept : bool
        Whether the output bias is trained (without weight decay).
    dtype : {"float64", "float32"}
        Precision of weights and activations; losses are added up in double precision.
    eps : float, default=1e-300
        What batch normalization adds to variances; next to nothing, unless a neuron may not vary on a batch.
    device : str or None, default=None
        Device of PyTorch, None for the CPU. Elsewhere batches must be tensors on it. Of targets that are tensors the
        loss is computed there, too.
    origin : ndarray or float, default=0.0
        What is subtracted from samples before they are rounded to `dtype`, as `NormalizedNetwork.origin` says.

    Attributes
    ----------
    parameters : list of torch.nn.Parameter
        What is trained.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import BatchNormNetwork
    >>> from convexbn.gradient._objective import TrainingObjective
    >>> from convexbn.losses import SquaredError
    >>> X, y = np.array([[-1.0], [1.0]]), np.array([[0.0], [4.0]])
    >>> one = np.ones(1)
    >>> network = BatchNormNetwork([[1.0]], one, 0 * one, [[2.0]], 0 * one, 0 * one, one)
    >>> objective = TrainingObjective(network, SquaredError(), 0.1, False, "float64")
    >>> round(float(objective.evaluate(objective.inputs(X), y)[0]), 9)
    1.25
    >>> [parameter.grad.item() for parameter in objective.parameters[1:]]
    [-1.9, -2.0, -0.8]
    """

    def __init__(
        self,
        network: NormalizedNetwork,
        loss: Loss,
        weight_decay: float,
        fit_intercept: bool,
        dtype: str,
        *,
        device: str | None = None,
        eps: float = SMALLEST_EPS,
        origin: np.ndarray | float = 0.0,
    ):
        torch = import_torch()
        self.loss, self.weight_decay, self.dtype, self.origin = loss, weight_decay, dtype, origin
        self._read = type(network).from_torch
        self._module = network.to_torch(eps=eps).train().to(device, getattr(torch, dtype))
        self._module[-1].bias.requires_grad_(fit_intercept)
        self.parameters = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
        self._decayed = network.decayed_parameters(self._module)

    def inputs(self, X: Any) -> Any:
        """Samples as a torch tensor in the precision of the weights, moved to the origin in double precision."""
        if is_elsewhere(X):
            X = doubles(X)
            return (X - like(X, np.asarray(self.origin))[0]).to(getattr(import_torch(), self.dtype))
        moved = np.empty(X.shape, dtype=self.dtype)
        np.subtract(X, self.origin, out=moved, dtype=np.float64, casting="same_kind")
        return import_torch().from_numpy(moved)

    def tensor(self, array: Any) -> Any:
        """Copy of an array as a torch tensor in the precision of the weights."""
        torch = import_torch()
        return torch.as_tensor(array).to(getattr(torch, self.dtype), copy=True)

    def evaluate(self, inputs: Any, y: Any) -> tuple[Any, Any]:
        """Objective and outputs (n, C) on a batch; the gradient is left in the parameters.

        On another device than the CPU these are tensors there, so that nothing waits for them.
        """
        for parameter in self.parameters:
            parameter.grad = None
        outputs = self._module(inputs)
        f = outputs.detach().double()
        f = f if is_elsewhere(y) else f.numpy()
        with np.errstate(over="ignore", invalid="ignore"):  # the recorder raises where the objective is not finite
            value = self.loss.value(f, y).mean()
            gradient = self.tensor(self.loss.gradient(f, y) / len(y))
        outputs.backward(gradient)
        squares: Any = 0.0
        for parameter in self._decayed:
            values = parameter.detach()
            parameter.grad.add_(values, alpha=self.weight_decay)
            squares += values.square().sum()
        squares = squares.double() if is_elsewhere(y) else squares.item()
        return value + self.weight_decay / 2 * squares, f

    def is_finite(self) -> bool:
        """Whether all weights are finite."""
        return all(parameter.isfinite().all().item() for parameter in self.parameters)

    def network(self) -> NormalizedNetwork:
        """Return the network as it is now; its statistics are not those of the data."""
        return self._read(self._module)
