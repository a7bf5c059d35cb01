"""The convex solver and gradient training side by side, on the same objective."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from convexbn.certificate import Certificate
from convexbn.gradient import Trace, train
from convexbn.gradient.batch_norm import unfitted_design
from convexbn.losses import Loss
from convexbn.matrix import DesignMatrix
from convexbn.network import NormalizedNetwork, make_network
from convexbn.problem import Problem
from convexbn.solution import Solution
from convexbn.solvers import solve

RUNS: Mapping[str, Mapping[str, Any]] = {
    "SGD": {"optimizer": "sgd", "momentum": 0.9},
    "Adam": {"optimizer": "adam"},
    "L-BFGS": {"optimizer": "lbfgs"},
}


@dataclass(frozen=True, eq=False)
class Comparison:
    """A convex solution, and the gradient-trained runs beside it.

    Parameters
    ----------
    solution : Solution
        What the convex solver found.
    network : NormalizedNetwork
        Its network.
    convex : Trace
        Its objective over time, from the making of the design matrix to the certificate.
    traces : mapping of str to tuple of Trace
        Label, and a gradient-trained run for every seed.
    """

    solution: Solution
    network: NormalizedNetwork
    convex: Trace
    traces: Mapping[str, tuple[Trace, ...]]

    @property
    def certificate(self) -> Certificate:
        """Certificate of the convex solution."""
        return self.solution.certificate

    def best(self, label: str) -> float:
        """Lowest objective that any run of this label came to."""
        return float(min(trace.objective.min() for trace in self.traces[label]))


def compare(
    X: ArrayLike,
    y: ArrayLike,
    *,
    weight_decay: float,
    loss: str | Loss = "squared_error",
    normalization: str = "batch",
    kernel_size: int | tuple[int, int] | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    fit_intercept: bool = False,
    runs: Mapping[str, Mapping[str, Any]] | None = None,
    seeds: Sequence[int] = (0,),
    tol: float = 1e-6,
    max_time: float | None = None,
    random_state: int | np.random.Generator | None = None,
    verbose: bool = False,
) -> Comparison:
    """Train a network by convex optimisation, and by gradient steps on the same objective.

    Parameters
    ----------
    X : array-like of shape (n, d) or (n, channels, height, width)
        Training data, or images where `kernel_size` is given.
    y : array-like of shape (n,) or (n, C)
        Targets; labels -1 and +1 for margin losses, one-hot rows for "cross_entropy".
    weight_decay : float
        Positive weight decay.
    loss, normalization, kernel_size, stride, padding, fit_intercept
        The network and its objective, as in `convexbn.gradient.train`.
    runs : mapping of str to mapping, or None, default=None
        Label, and what else `convexbn.gradient.train` is to be called with: `optimizer`, `learning_rate`, `n_steps`,
        `n_neurons` and so on, in full batch. None runs SGD with momentum 0.9, Adam and L-BFGS, otherwise as they are.
    seeds : sequence of int, default=(0,)
        Every run is made with each of them as its `random_state`.
    tol, max_time, random_state
        As in `convexbn.solve`.
    verbose : bool, default=False
        Whether to show progress.

    Returns
    -------
    comparison : Comparison
        `convexbn.plotting.plot_comparison` draws it.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    ValueError
        If the data or an option is not as it must be, or a run asks for mini-batches, whose objective is another.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import compare
    >>> X, y = np.array([[-1.0], [0.0], [2.0]]), np.array([1.0, 0.0, 3.0])
    >>> comparison = compare(X, y, weight_decay=0.1, runs={"Adam": {"n_steps": 200}}, seeds=(0, 1))
    >>> comparison.certificate.scope, comparison.best("Adam") >= comparison.certificate.lower_bound
    ('global', True)
    """
    runs = RUNS if runs is None else runs
    for label, options in runs.items():
        if options.get("batch_size") is not None:
            raise ValueError(f"runs[{label!r}] has a batch_size; the objective is compared on the full batch.")
    objective: dict[str, Any] = {"weight_decay": weight_decay, "loss": loss, "fit_intercept": fit_intercept}
    network: dict[str, Any] = {
        "normalization": normalization,
        "kernel_size": kernel_size,
        "stride": stride,
        "padding": padding,
    }
    begun = perf_counter()
    design = unfitted_design(**network).fit(X)
    problem = Problem(DesignMatrix(design.transform(X), design.n_patches), y, **objective)
    made = perf_counter() - begun
    traces = {
        label: tuple(
            train(X, y, **network, **objective, **{"random_state": seed, "verbose": verbose} | dict(options))[1]
            for seed in seeds
        )
        for label, options in runs.items()
    }
    begun = perf_counter()
    solution = solve(problem, tol=tol, max_time=max_time, random_state=random_state, verbose=verbose)
    seconds = perf_counter() - begun
    times = made + np.array([*(progress.time for progress in solution.history), seconds])
    objectives = np.array([*(progress.objective for progress in solution.history), solution.certificate.objective])
    convex = Trace(np.arange(len(times)), times, objectives)
    trained = make_network(solution.neurons, design)
    assert isinstance(trained, NormalizedNetwork)
    return Comparison(solution, trained, convex, traces)
