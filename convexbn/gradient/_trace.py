"""The trace of a training run, and the recorder with which every training loop of this folder writes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np

from convexbn._utils.progress import progress_bar
from convexbn._utils.summary import Summarized

_DIVERGED = 1e6  # objective of a diverged run, in multiples of the first one (or of one, if that is more)


class DivergenceError(RuntimeError):
    """A training run diverged; `trace` holds it up to there.

    Parameters
    ----------
    message : str
        What happened, and what to change.
    trace : Trace
        The run until then.

    Examples
    --------
    >>> from convexbn.gradient import DivergenceError
    >>> from convexbn.gradient.gdnp import LeastSquares, gradient_descent
    >>> try:
    ...     fit = gradient_descent(LeastSquares([[1.0], [2.0]], [1.0, 2.0]), learning_rate=10.0)
    ... except DivergenceError as error:
    ...     trace = error.trace
    >>> bool(trace.objective[-1] > 1e5)
    True
    """

    def __init__(self, message: str, trace: "Trace"):
        super().__init__(message)
        self.trace = trace

    def __reduce__(self) -> tuple[type, tuple[str, "Trace"]]:
        return type(self), (str(self), self.trace)


@dataclass(frozen=True, eq=False, repr=False)
class Trace(Summarized):
    """A training run: steps, seconds, objectives and other numbers recorded along it.

    Parameters
    ----------
    steps : ndarray of shape (T,)
        Recorded steps, from 0 on.
    times : ndarray of shape (T,)
        Seconds since the start.
    objective : ndarray of shape (T,)
        Training objective at these steps.
    watched : mapping of str to ndarray of shape (T, ...), default={}
        Other numbers by name; ``trace["name"]`` reads them.
    interrupted : bool, default=False
        Whether Ctrl-C ended the run.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient import Trace
    >>> trace = Trace(np.arange(2), np.array([0.0, 0.1]), np.array([4.0, 1.0]), {"norm": np.array([2.0, 1.0])})
    >>> len(trace), trace["norm"]
    (2, array([2., 1.]))
    """

    steps: np.ndarray
    times: np.ndarray
    objective: np.ndarray
    watched: Mapping[str, np.ndarray] = field(default_factory=dict)
    interrupted: bool = False

    def __len__(self) -> int:
        return len(self.steps)

    def _summary(self) -> str:
        if len(self) == 0:
            return "nothing recorded"
        watched = "".join(f", {name}" for name in self.watched)
        interrupted = ", interrupted" if self.interrupted else ""
        return (
            f"steps {self.steps[0]} to {self.steps[-1]}, {self.times[-1]:.3g} s, "
            f"objective {self.objective[0]:.8g} to {self.objective[-1]:.8g}{watched}{interrupted}"
        )

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.watched:
            raise KeyError(f"{name!r} was not watched; choose one of {list(self.watched)}.")
        return self.watched[name]


class Recorder:
    """Write a `Trace` along a training loop; a context in which Ctrl-C ends the loop but not the program.

    Before the first record there is nothing to return, and KeyboardInterrupt is raised.

    Parameters
    ----------
    method : str
        Name of the method, shown beside its progress and in errors.
    n_steps : int
        Steps that the loop will take.
    verbose : bool, default=False
        Whether to show a progress bar.

    Raises
    ------
    ImportError
        If `verbose` is set and tqdm is not installed.

    Examples
    --------
    >>> from convexbn.gradient._trace import Recorder
    >>> x = 1.0
    >>> with Recorder("halving", n_steps=3) as recorder:
    ...     for step in range(4):
    ...         recorder.record(step, x**2, position=x)
    ...         x /= 2
    >>> recorder.trace().objective
    array([1.      , 0.25    , 0.0625  , 0.015625])
    """

    def __init__(self, method: str, n_steps: int, *, verbose: bool = False):
        self.method, self.n_steps = method, n_steps
        self._records: list[tuple[int, float, float]] = []
        self._watched: dict[str, list[Any]] = {}
        self._interrupted = False
        self._bar = progress_bar(method, n_steps) if verbose else None
        self._start = perf_counter()

    def record(self, step: int, objective: float, **watched: Any) -> None:
        """Record a step; the names watched are the same every time.

        Raises
        ------
        DivergenceError
            If the objective is not finite, or a million times the first.
        """
        for name, value in watched.items():
            self._watched.setdefault(name, []).append(np.array(value))
        self._records.append((step, perf_counter() - self._start, float(objective)))
        self.check(step, objective)
        if self._bar is not None:
            self._bar.set_postfix_str(f"objective {objective:.8g}", refresh=False)
            self._bar.update(step - self._bar.n)

    def check(self, step: int, objective: float) -> None:
        """Raise the error of a diverged run, as `record` does, at a step that is not recorded.

        Raises
        ------
        DivergenceError
            If the objective is not finite, or a million times the first.
        """
        first = self._records[0][2] if self._records else float(objective)
        if not (np.isfinite(objective) and abs(objective) <= _DIVERGED * max(1.0, abs(first))):
            raise DivergenceError(
                f"{self.method} diverged: the objective is {objective:.3g} at step {step}, {first:.3g} at the start; "
                "take smaller steps.",
                self.trace(),
            )

    def trace(self) -> Trace:
        """The records so far."""
        steps, times, objective = np.array(self._records, dtype=float).reshape(-1, 3).T
        watched = {name: np.array(values[: len(steps)]) for name, values in self._watched.items()}
        return Trace(steps.astype(int), times, objective, watched, self._interrupted)

    def __enter__(self) -> Self:
        self._start = perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._bar is not None:
            self._bar.close()
        self._interrupted = kind is not None and issubclass(kind, KeyboardInterrupt) and bool(self._records)
        return self._interrupted
