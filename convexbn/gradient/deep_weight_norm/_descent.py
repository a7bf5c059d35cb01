"""Gradient descent on a smooth deep network, and the curvature along it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import ArrayLike

from convexbn.gradient._options import check_integer, check_number, check_pair, check_samples, check_steps
from convexbn.gradient._trace import Recorder, Trace
from convexbn.gradient.deep_weight_norm._network import SmoothNetwork, evenly_spaced, loss_of
from convexbn.network._base import check_data, import_torch


def train_deep_weight_norm(
    X: ArrayLike,
    y: ArrayLike,
    start: SmoothNetwork,
    *,
    learning_rate: float,
    n_steps: int = 500,
    noted_steps: ArrayLike | None = None,
    test: tuple[ArrayLike, ArrayLike] | None = None,
    n_hessian_samples: int = 3,
    verbose: bool = False,
) -> tuple[SmoothNetwork, Trace]:
    """Train a smooth deep network by gradient descent on the squared loss, and watch its curvature.

    Gradient descent on the full batch, on all weights. The theory [1]_ rests on two numbers along training. The Hessian
    of the predictor must be small: its spectral norm falls with the smallest row norm and grows at most like the cube
    of the depth. And restricted strong convexity must hold, for which the squared gradient must not be small beside the
    loss; then the loss falls geometrically.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Training data.
    y : array-like of shape (n,)
        Targets.
    start : SmoothNetwork
        Network to start from.
    learning_rate : float
        Step size. Steps below ``2 / start.loss_hessian_norm(X, y)`` descend at first.
    n_steps : int, default=500
        Steps of gradient descent.
    noted_steps : array-like of int or None, default=None
        Steps that are recorded, from 0 to `n_steps`; Hessians take most of the time. None takes 11 steps, evenly
        spaced.
    test : tuple of arrays (X, y) or None, default=None
        Data for the test loss.
    n_hessian_samples : int, default=3
        Samples, evenly spaced in X, over which the predictor's Hessian norm is maximised. 0 leaves out all Hessians.
    verbose : bool, default=False
        Whether to show a progress bar.

    Returns
    -------
    network : SmoothNetwork
        The network after the last step.
    trace : Trace
        Loss at the recorded steps, and "smallest_row_norm", "rsc_ratio" (squared norm of the gradient over the loss,
        NaN where that is zero), "predictor_hessian_norm", "loss_hessian_norm" and, with test data, "test_loss".

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    ValueError
        If shapes do not fit together, an entry is not finite, or an option is out of its range.
    DivergenceError
        If the step is too long.

    References
    ----------
    .. [1] P. Cisneros-Velarde, Z. Chen, S. Koyejo, A. Banerjee, "Optimization and Generalization Guarantees for Weight
       Normalization", 2024, arXiv:2409.08935.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.deep_weight_norm import SmoothNetwork, train_deep_weight_norm
    >>> X = np.random.default_rng(0).standard_normal((10, 4))
    >>> start = SmoothNetwork.at_initialization(4, depth=2, width=20, random_state=0)
    >>> network, trace = train_deep_weight_norm(X, X[:, 0], start, learning_rate=1.0, n_steps=50)
    >>> bool(trace.objective[-1] < 0.1 * trace.objective[0])
    True
    """
    torch = import_torch()
    data, targets = check_samples(X, y)
    if not isinstance(start, SmoothNetwork):
        raise ValueError(f"start must be a SmoothNetwork, not a {type(start).__name__}.")
    check_data(data, start.weights[0].shape[1])
    check_number("learning_rate", learning_rate, positive=True)
    check_integer("n_steps", n_steps, 0)
    samples = evenly_spaced(data, n_hessian_samples, least=0)
    recorded = check_steps("noted_steps", noted_steps, n_steps)
    if test is not None:
        test = check_samples(*check_pair("test", test))
        check_data(test[0], data.shape[1])

    parameters, inputs = start._parameters(), torch.tensor(data)
    with Recorder("gradient descent with weight normalization", n_steps, verbose=verbose) as recorder:
        for step in range(n_steps + 1):
            loss = loss_of(start._outputs(parameters, inputs), targets)
            recorder.check(step, loss.item())
            gradients = torch.autograd.grad(loss, parameters)
            if step in recorded:
                network = _read(start, parameters)
                squares = sum(float((gradient**2).sum()) for gradient in gradients)
                ratio = squares / loss.item() if loss.item() else math.nan
                watched = {"smallest_row_norm": network.smallest_row_norm, "rsc_ratio": ratio}
                if test is not None:
                    watched["test_loss"] = network.loss(*test)
                if n_hessian_samples:
                    watched["predictor_hessian_norm"] = network.predictor_hessian_norm(samples)
                    watched["loss_hessian_norm"] = network.loss_hessian_norm(data, targets)
                recorder.record(step, loss.item(), **watched)
            if step < n_steps:
                with torch.no_grad():
                    for parameter, gradient in zip(parameters, gradients, strict=True):
                        parameter -= learning_rate * gradient
    return _read(start, parameters), recorder.trace()


def _read(start: SmoothNetwork, parameters: Sequence[Any]) -> SmoothNetwork:
    """The network of the same kind as `start` with these parameters."""
    *weights, output_weights = [parameter.detach().numpy() for parameter in parameters]
    return replace(start, weights=weights, output_weights=output_weights)
