"""Gradient descent on networks of several layers, with a GDNP step for the direction of every unit or without it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.checks import make_generator
from convexbn.gradient._options import check_integer, check_number
from convexbn.gradient._trace import Recorder, Trace
from convexbn.gradient.gdnp._multilayer import Batch, MultilayerNetwork
from convexbn.network._base import import_torch

_SMALLEST = 1e-300  # norm of a gradient, below which it is zero


def train_multilayer(
    X: ArrayLike,
    y: ArrayLike,
    start: MultilayerNetwork,
    *,
    learning_rate: float,
    direction_rate: float | None = None,
    n_steps: int = 500,
    callback: Callable[[int, MultilayerNetwork], None] | None = None,
    random_state: int | np.random.Generator | None = 0,
    verbose: bool = False,
) -> tuple[MultilayerNetwork, Trace]:
    """Train a network of several layers by gradient descent on the mean cross-entropy of the full batch.

    With a `direction_rate`, the directions of all units take the step of GDNP for halfspaces, each unit as if the
    others were fixed, while lengths, shifts and output weights take the plain one. For a unit of direction w and length
    g, whose layer has inputs of covariance S with largest eigenvalue L, that is w - s grad_w with

        s = direction_rate * |w|_S^2 / (L g^2 kappa),

    where kappa is the mean second derivative of a sample's loss in the unit's preactivation. This is the paper's
    s = -|w|_S^3 / (L g h) where inputs are Gaussian and the length is the best one, for then h = -g |w|_S kappa. The
    step turns no direction by more than 45 degrees in the metric of S; afterwards w has its former Euclidean length,
    which changes nothing: the steps are the same for directions of any length.

    Two things differ from the paper's algorithm. All units move at once, and all change the same outputs, so the step
    that is right for one alone is too long by up to the number of units; hence the `direction_rate`. And kappa is the
    Gauss-Newton part of the second derivative, which is never negative and for a halfspace is all of it: the expected
    square of the derivative for classes drawn from the network's own predictions, one draw a sample and step.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Training data.
    y : array-like of shape (n,)
        Classes 0 to C - 1.
    start : MultilayerNetwork
        Network to start from, with or without batch normalization.
    learning_rate : float
        Step size of plain gradient steps.
    direction_rate : float or None, default=None
        Step size of directions, in steps of GDNP; None takes plain gradient steps for them too.
    n_steps : int, default=500
        Steps of gradient descent.
    callback : callable or None, default=None
        Called with the number of a step and the network before it, and at last with the network at the end.
    random_state : int, Generator or None, default=0
        Seed of the classes that are drawn for kappa; plain gradient descent draws none.
    verbose : bool, default=False
        Whether to show a progress bar.

    Returns
    -------
    network : MultilayerNetwork
        The network after the last step; after Ctrl-C, that of the last whole one.
    trace : Trace
        Mean cross-entropy at every step, and "accuracy", the share of the samples whose class has the largest output.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    ValueError
        If the data or an option is not as it must be, or a normalized unit does not vary on X.
    DivergenceError
        If the step is too long.

    References
    ----------
    .. [1] Kohler et al., "Exponential convergence rates for Batch Normalization: The power of length-direction
       decoupling in non-convex optimization", arXiv 1805.10694.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.gdnp import MultilayerNetwork, train_multilayer
    >>> X = np.random.default_rng(0).standard_normal((50, 4))
    >>> y = X[:, 0] * X[:, 1] > 0
    >>> start = MultilayerNetwork.at_initialization(4, 2, depth=3, width=10, random_state=0)
    >>> network, trace = train_multilayer(X, y, start, learning_rate=0.5, direction_rate=0.1, n_steps=50)
    >>> bool(trace.objective[-1] < 0.1 * trace.objective[0])
    True
    """
    torch = import_torch()
    if not isinstance(start, MultilayerNetwork):
        raise ValueError(f"start must be a MultilayerNetwork, not a {type(start).__name__}.")
    check_number("learning_rate", learning_rate, positive=True)
    check_number("direction_rate", direction_rate, positive=True, optional=True)
    check_integer("n_steps", n_steps, 0)
    if direction_rate is not None and not start.normalized:
        raise ValueError(f"direction_rate={direction_rate!r} needs a start with lengths; drop it.")
    if not (callback is None or callable(callback)):
        raise ValueError(f"callback={callback!r} must be a function of a step and a network, or None.")
    data, labels = start._samples(X, y)
    start._checked_forward(data)
    rng, inputs, classes = make_generator(random_state), torch.tensor(data), torch.tensor(labels)
    parameters, cross_entropy = start._parameters(), torch.nn.functional.cross_entropy
    method = "gradient descent" if direction_rate is None else "gradient descent with a length-direction split"
    with Recorder(method, n_steps, verbose=verbose) as recorder:
        for step in range(n_steps + 1):
            changes = None
            if direction_rate is not None:
                changes = [inputs.new_zeros(len(data), len(w), requires_grad=True) for w in start.weights]
            outputs, layers = start._forward(parameters, inputs, changes)
            loss = cross_entropy(outputs, classes)
            accuracy = float((outputs.argmax(dim=1) == classes).double().mean())
            finite = all(parameter.isfinite().all() for parameter in parameters)
            recorder.record(step, loss.item() if finite else np.nan, accuracy=accuracy)
            if callback is not None:
                callback(step, start._with_parameters(parameters))
            if step == n_steps:
                break
            gradients = torch.autograd.grad(loss, parameters, retain_graph=changes is not None)
            with torch.no_grad():
                moved = [
                    parameter - learning_rate * gradient
                    for parameter, gradient in zip(parameters, gradients, strict=True)
                ]
            if direction_rate is not None and changes is not None:
                curvatures = mean_curvatures(outputs, changes, rng)
                lengths = parameters[-len(layers) :]
                with torch.no_grad():
                    for i, layer in enumerate(layers):
                        moved[i] = turned(
                            parameters[i], gradients[i], layer, lengths[i].square() * curvatures[i], direction_rate
                        )
            parameters = [parameter.requires_grad_() for parameter in moved]
    return start._with_parameters(parameters), recorder.trace()


def mean_curvatures(outputs: Any, changes: Sequence[Any], rng: np.random.Generator) -> list[Any]:
    """Estimate the mean Gauss-Newton second derivative of a sample's cross-entropy in every unit's preactivation.

    Parameters
    ----------
    outputs : torch.Tensor of shape (n, C)
        Outputs, computed from the changes.
    changes : sequence of torch.Tensor of shapes (n, m_1), (n, m_2), ...
        Zeros added to the preactivations, which require gradients.
    rng : Generator
        Draws the classes, by which the estimate is unbiased.

    Returns
    -------
    curvatures : list of torch.Tensor of shapes (m_1,), (m_2,), ...
    """
    torch = import_torch()
    cumulated = outputs.detach().softmax(dim=1).cumsum(dim=1)[:, :-1]
    drawn = (torch.tensor(rng.random((len(outputs), 1))) > cumulated).sum(dim=1)
    derivatives = torch.autograd.grad(torch.nn.functional.cross_entropy(outputs, drawn), changes)
    return [len(outputs) * derivative.square().sum(dim=0) for derivative in derivatives]


def turned(directions: Any, gradients: Any, batch: Batch, curvatures: Any, rate: float) -> Any:
    """Return directions (m, k) after the GDNP step of each, of the length that they had.

    Parameters
    ----------
    directions, gradients : torch.Tensor of shape (m, k)
        Directions and the gradients in them.
    batch : Batch
        What the layer sees.
    curvatures : torch.Tensor of shape (m,)
        g^2 kappa.
    rate : float
        Step size in steps of GDNP.
    """
    torch = import_torch()
    S = torch.cov(batch.inputs.T, correction=0).reshape(directions.shape[1], -1)
    largest = torch.linalg.eigvalsh(S)[-1]
    norms = ((gradients @ S) * gradients).sum(dim=1).clamp_min(0).sqrt().clamp_min(_SMALLEST)
    steps = torch.minimum(rate * batch.spreads.square() / (largest * curvatures), batch.spreads / norms)
    moved = directions - steps[:, None] * gradients
    return moved * (directions.norm(dim=1) / moved.norm(dim=1))[:, None]
