"""The convex solver and gradient training side by side, on the same objective."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.summary import Summarized
from convexbn._utils.user_warning import warn_user
from convexbn.designs._principal_directions import EXACT_RTOL
from convexbn.gradient import DivergenceError, Trace, train
from convexbn.gradient._batch_norm import check_data, unfitted_design
from convexbn.gradient._options import check_options
from convexbn.losses import Loss
from convexbn.model._make_problem import make_problem
from convexbn.network import NormalizedNetwork, make_network
from convexbn.solvers import solve
from convexbn.solvers._certificate import Certificate
from convexbn.solvers._solution import Solution, Status

RUNS: Mapping[str, Mapping[str, Any]] = {
    "SGD": {"optimizer": "sgd", "momentum": 0.9},
    "Adam": {"optimizer": "adam"},
    "L-BFGS": {"optimizer": "lbfgs"},
}
_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(train).parameters.items()
    if parameter.default is not parameter.empty
}
_OF_A_RUN = ("n_neurons", "optimizer", "learning_rate", "momentum", "n_steps", "dtype", "start", "callback", "verbose")


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Summarized):
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
        Label, and a gradient-trained run for every seed; fewer after Ctrl-C.

    Examples
    --------
    >>> from convexbn import compare
    >>> from convexbn.datasets import make_teacher
    >>> X, y = make_teacher(30, 2, random_state=0)
    >>> runs = {"Adam": {"n_steps": 100, "n_neurons": 10}}
    >>> comparison = compare(X, y, weight_decay=0.1, runs=runs, seeds=(0, 1))
    >>> len(comparison.traces["Adam"]), comparison.best("Adam") >= comparison.certificate.lower_bound
    (2, True)
    """

    solution: Solution
    network: NormalizedNetwork
    convex: Trace
    traces: Mapping[str, tuple[Trace, ...]]

    def _summary(self) -> str:
        runs = "".join(f", {label} {self.best(label):.8g}" for label in self.traces)
        return f"objective {self.certificate.objective:.8g}, lower bound {self.certificate.lower_bound:.8g}{runs}"

    @property
    def certificate(self) -> Certificate:
        """Certificate of the convex solution."""
        return self.solution.certificate

    def best(self, label: str) -> float:
        """Lowest objective that any run of this label came to.

        Raises
        ------
        ValueError
            If there is no run of this label.
        """
        if label not in self.traces:
            raise ValueError(f"label={label!r} is not among the runs, {list(self.traces)}.")
        return float(min(np.nanmin(trace.objective) for trace in self.traces[label]))


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

    Ctrl-C ends the comparison, which then holds the convex solver's best solution so far, or the runs until then.

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
        `n_neurons`, `dtype`, `start`, `callback`, `verbose`; all in full batch. None runs SGD with momentum 0.9, Adam
        and L-BFGS, otherwise as they are.
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
        If the data or an option is out of range, or a run has mini-batches, whose objective is another.

    Warns
    -----
    RuntimeWarning
        If a run diverged; its trace ends there.

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
    _check_runs(runs, seeds, weight_decay)
    objective: dict[str, Any] = {"weight_decay": weight_decay, "loss": loss, "fit_intercept": fit_intercept}
    network: dict[str, Any] = {
        "normalization": normalization,
        "kernel_size": kernel_size,
        "stride": stride,
        "padding": padding,
    }
    begun = perf_counter()
    design = unfitted_design(**network).set_params(rtol=EXACT_RTOL)  # gradient training uses all directions
    design.fit(check_data(X, design))
    problem = make_problem(design, X, y, **objective)
    made = perf_counter() - begun
    solution = solve(problem, tol=tol, max_time=max_time, random_state=random_state, verbose=verbose)
    seconds = perf_counter() - begun
    traces: dict[str, tuple[Trace, ...]] = {}
    interrupted = solution.status is Status.INTERRUPTED
    for label, seed in product(runs, seeds):
        if not interrupted:
            options = {"verbose": verbose} | dict(runs[label])
            name = f"runs[{label!r}] with seed {seed}"
            trace = _trained(name, X, y, random_state=seed, **network, **objective, **options)
            traces[label] = (*traces.get(label, ()), trace)
            interrupted = trace.interrupted
    times = np.array([*(made + progress.time for progress in solution.history), seconds])
    objectives = np.array([*(progress.objective for progress in solution.history), solution.certificate.objective])
    convex = Trace(np.arange(len(times)), times, objectives)
    trained = make_network(solution.neurons, design)
    assert isinstance(trained, NormalizedNetwork)
    return Comparison(solution, trained, convex, traces)


def _check_runs(runs: Any, seeds: Any, weight_decay: float) -> None:
    """Raise a ValueError, before any work, if runs or seeds are not as `compare` says."""
    if not isinstance(runs, Mapping):
        raise ValueError(f"runs={runs!r} must map labels to options of train, as in {{'Adam': {{'n_steps': 500}}}}.")
    for label, options in runs.items():
        if not isinstance(options, Mapping):
            raise ValueError(f"runs[{label!r}]={options!r} must map options of train to values.")
        if options.get("batch_size") is not None:
            raise ValueError(f"runs[{label!r}] has a batch_size; the objective is compared on the full batch.")
        for name in options:
            if name not in _OF_A_RUN:
                raise ValueError(f"runs[{label!r}] has {name!r}; a run takes {list(_OF_A_RUN)}.")
        names = inspect.signature(check_options).parameters.keys() - {"weight_decay"}
        check_options(weight_decay=weight_decay, **{name: options.get(name, _DEFAULTS[name]) for name in names})
    integers = isinstance(seeds, Sequence) and all(isinstance(seed, (int, np.integer)) for seed in seeds)
    if not (integers and seeds):
        raise ValueError(f"seeds={seeds!r} must be a sequence of one or more integers.")


def _trained(name: str, *args: Any, **options: Any) -> Trace:
    """The trace of a run, also of one that diverged."""
    try:
        return train(*args, **options)[1]
    except DivergenceError as error:
        warn_user(f"{name}: {error}", RuntimeWarning)
        return error.trace
