"""Normalized networks trained by gradient steps in PyTorch, on exactly the objective of the convex program."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_X_y

from convexbn.design import NORMALIZATIONS
from convexbn.losses import Loss, make_loss
from convexbn.matrix import DesignMatrix
from convexbn.network import NormalizedNetwork, make_network
from convexbn.network.base import import_torch
from convexbn.neurons import Neurons

Callback = Callable[[int, np.ndarray], None]


def train(
    X: ArrayLike,
    y: ArrayLike,
    *,
    weight_decay: float,
    loss: str | Loss = "squared_error",
    normalization: str = "batch",
    fit_intercept: bool = False,
    n_neurons: int = 50,
    n_steps: int = 1000,
    learning_rate: float = 1e-2,
    optimizer: str = "adam",
    start: NormalizedNetwork | None = None,
    callback: Callback | None = None,
    random_state: int | np.random.Generator | None = None,
) -> tuple[NormalizedNetwork, np.ndarray]:
    """Train a normalized network with full-batch gradient steps in double precision.

    The network starts with random directions of the whitened data, as wide as asked for, and small output weights.
    `BatchNormNetwork.at_initialization` is the start that is usual elsewhere, with random directions of the data as it
    is.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Training data.
    y : array-like of shape (n,)
        Targets; labels -1 and +1 for margin losses.
    weight_decay : float
        Weight decay on gamma, bias and output weights.
    loss : str or Loss, default="squared_error"
        Name or instance of a loss.
    normalization : {"batch", "weight"}, default="batch"
        Normalization of the hidden layer.
    fit_intercept : bool, default=False
        Whether the output bias is trained (without weight decay).
    n_neurons : int, default=50
        Width m.
    n_steps : int, default=1000
        Full-batch steps.
    learning_rate : float, default=1e-2
        Step size of the optimizer.
    optimizer : {"adam", "sgd"}, default="adam"
        "sgd" is gradient descent as it is, every step on the full batch.
    start : NormalizedNetwork or None, default=None
        Network to start from; its type and width go before `normalization` and `n_neurons`. None draws one.
    callback : callable or None, default=None
        Called with the number of a step and the outputs (n, C) on X before it, and at last with those at the end.
    random_state : int, Generator or None, default=None
        Seed of the initial weights.

    Returns
    -------
    network : BatchNormNetwork or WeightNormNetwork
        The network after the last step, with statistics of X.
    objectives : ndarray of shape (n_steps + 1,)
        Objective before each step and after the last.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    ValueError
        If the data is not finite or of unequal length, the loss does not take the targets, or an option is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient import train
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((20, 2))
    >>> network, objectives = train(X, X[:, 0], weight_decay=0.01, n_steps=50, random_state=0)
    >>> bool(objectives[-1] < objectives[0])
    True
    """
    torch = import_torch()
    loss = make_loss(loss)
    if normalization not in list(NORMALIZATIONS):
        raise ValueError(f"normalization={normalization!r} is unknown; choose one of {list(NORMALIZATIONS)}.")
    if optimizer not in ("adam", "sgd"):
        raise ValueError(f"optimizer={optimizer!r} is unknown; choose one of ['adam', 'sgd'].")
    if not 0 <= weight_decay < np.inf:
        raise ValueError(f"weight_decay={weight_decay!r} must be a finite number from 0 on.")
    data, targets = check_X_y(X, y, dtype=np.float64, y_numeric=True, multi_output=True)
    targets = targets[:, None] if targets.ndim == 1 else targets
    loss.check_targets(targets)
    if start is None:
        network = _initial(data, targets, normalization, n_neurons, np.random.default_rng(random_state))
    elif start.weights.shape[1] == data.shape[1] and start.n_outputs == targets.shape[1]:
        network = start
    else:
        raise ValueError(
            f"start takes {start.weights.shape[1]} features to {start.n_outputs} outputs, X has {data.shape[1]} "
            f"features and y {targets.shape[1]} columns."
        )
    module = network.to_torch().train()
    module[-1].bias.requires_grad_(fit_intercept)
    descent = (torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam)(module.parameters(), lr=learning_rate)
    inputs = torch.tensor(data)

    objectives = np.empty(n_steps + 1)
    for step in range(n_steps + 1):
        descent.zero_grad()
        objectives[step], outputs = _backward(module, network, inputs, targets, loss, weight_decay)
        if callback is not None:
            callback(step, outputs)
        if step < n_steps:
            descent.step()
    return type(network).from_torch(module).with_statistics(data), objectives


def _initial(
    X: np.ndarray, y: np.ndarray, normalization: str, n_neurons: int, rng: np.random.Generator
) -> NormalizedNetwork:
    design = NORMALIZATIONS[normalization]().fit(X)
    Z = DesignMatrix(design.transform(X))
    directions = rng.standard_normal((Z.n_columns, n_neurons)) * np.sqrt(Z.n_rows) / Z.spectral_norm
    output_weights = rng.standard_normal((n_neurons, y.shape[1])) / n_neurons
    network = make_network(Neurons(directions, output_weights, np.zeros(y.shape[1])), design)
    assert isinstance(network, NormalizedNetwork)
    return network


def _backward(
    module: Any, network: NormalizedNetwork, inputs: Any, y: np.ndarray, loss: Loss, weight_decay: float
) -> tuple[float, np.ndarray]:
    """Add the gradient of the objective to the parameters of the module; return the objective and the outputs."""
    outputs = module(inputs)
    f = outputs.detach().numpy()
    penalty = sum((parameter**2).sum() for parameter in network.decayed_parameters(module)) * weight_decay / 2
    outputs.backward(inputs.new_tensor(loss.gradient(f, y) / len(y)))
    penalty.backward()
    return float(loss.value(f, y).mean() + penalty.item()), f.copy()
