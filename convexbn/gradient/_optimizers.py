"""The optimizers of PyTorch and their training loops: on the full batch, by L-BFGS, on mini-batches."""

from collections.abc import Callable
from typing import Any

import numpy as np

from convexbn.gradient._objective import TrainingObjective
from convexbn.gradient._trace import Recorder
from convexbn.network._base import import_torch

LEARNING_RATES = {"adam": 1e-2, "lbfgs": 1.0, "sgd": 1e-1}
_MEMORY = 20  # pairs of steps and changes of the gradient that L-BFGS keeps
_LINE_SEARCH = 25  # evaluations of one line search

Record = Callable[[int, Any, Any], None]


def make_optimizer(name: str, parameters: list[Any], learning_rate: float, momentum: float) -> Any:
    """Return a torch optimizer of these parameters.

    Parameters
    ----------
    name : {"adam", "lbfgs", "sgd"}
        Which one; L-BFGS has a strong Wolfe line search and makes one iteration a step.
    parameters : list of torch.nn.Parameter
        What is trained.
    learning_rate : float
        Step size.
    momentum : float
        Momentum of "sgd".

    Returns
    -------
    optimizer : torch.optim.Optimizer

    Examples
    --------
    >>> import torch
    >>> from convexbn.gradient._optimizers import make_optimizer
    >>> type(make_optimizer("sgd", [torch.nn.Parameter(torch.zeros(1))], 0.1, 0.9)).__name__
    'SGD'
    """
    optim = import_torch().optim
    if name == "adam":
        return optim.Adam(parameters, lr=learning_rate, fused=True)
    if name == "sgd":
        return optim.SGD(parameters, lr=learning_rate, momentum=momentum, fused=True)
    return optim.LBFGS(
        parameters,
        lr=learning_rate,
        max_iter=1,
        max_eval=1 + _LINE_SEARCH,
        history_size=_MEMORY,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )


def on_full_batch(
    objective: TrainingObjective, inputs: Any, y: Any, optimizer: Any, n_steps: int, record: Record
) -> None:
    """Take steps of Adam or SGD; every step, and the end, is recorded with its number, objective and outputs."""
    for step in range(n_steps + 1):
        record(step, *objective.evaluate(inputs, y))
        if step < n_steps:
            optimizer.step()


def by_lbfgs(objective: TrainingObjective, inputs: Any, y: Any, optimizer: Any, n_steps: int, record: Record) -> None:
    """Take iterations of L-BFGS; recorded are the points between them, not those of line searches.

    Where a line search fails, as it may at a kink of the ReLU, the memory is emptied; where the gradient descends no
    further either, the run ends. PyTorch evaluates at the start of an iteration what the line search before it
    evaluated last; that value is kept.
    """
    torch = import_torch()
    parameters = objective.parameters
    evaluations: list[tuple[Any, list[Any], Any, Any]] = []

    def position() -> Any:
        return torch.cat([parameter.detach().ravel() for parameter in parameters])

    def evaluate() -> tuple[Any, Any]:
        here = position()
        for there, gradients, value, f in evaluations:
            if torch.equal(there, here):
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient
                return value, f
        value, f = objective.evaluate(inputs, y)
        evaluations.append((here, [parameter.grad for parameter in parameters], value, f))
        return value, f

    for step in range(n_steps + 1):
        record(step, *evaluate())
        here = position()
        evaluations[:] = [entry for entry in evaluations if torch.equal(entry[0], here)]
        if step < n_steps:
            optimizer.step(lambda: evaluate()[0])
            if torch.equal(here, position()):
                if optimizer.state[parameters[0]]["n_iter"] <= 1:
                    break
                optimizer.state.clear()


def on_mini_batches(
    objective: TrainingObjective,
    X: Any,
    y: Any,
    optimizer: Any,
    n_steps: int,
    batch_size: int,
    rng: np.random.Generator,
    recorder: Recorder,
) -> None:
    """Take steps of Adam or SGD on batches drawn without replacement; the mean of an epoch's batches is recorded."""
    n_batches, step = len(X) // batch_size, 0
    while step < n_steps:
        order = rng.permutation(len(X))[: n_batches * batch_size].reshape(n_batches, batch_size)
        values = []
        for samples in np.sort(order[: n_steps - step]):  # in order, since X may lie on a disk
            values.append(objective.evaluate(objective.inputs(X[samples]), y[samples])[0])
            optimizer.step()
        step += len(values)
        recorder.record(step, float(sum(values)) / len(values) if objective.is_finite() else np.nan)
