"""The monitor of a solver run: progress, limits, a callback, and Ctrl-C without loss of the best network."""

from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Self

import numpy as np

from convexbn._utils.checks import is_number
from convexbn._utils.progress import progress_bar
from convexbn.solvers._solution import Progress, Status

Callback = Callable[[Progress], bool | None]
_LEAST_SECONDS = 1e-9  # time limit of a step of a run that is out of time, which does nothing


class Clock:
    """Seconds since it was made, and those left until a limit.

    Parameters
    ----------
    max_time : float or None, default=None
        Limit in seconds.
    """

    def __init__(self, max_time: float | None):
        self.max_time, self._start = max_time, perf_counter()

    def seconds(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self._start

    def is_out(self) -> bool:
        """Whether the limit has passed."""
        return self.max_time is not None and self.seconds() >= self.max_time

    def left(self, share: float = 1.0) -> float | None:
        """Share of the seconds that are left, as the `max_time` of a step; None without a limit."""
        return None if self.max_time is None else max(share * (self.max_time - self.seconds()), _LEAST_SECONDS)


class Monitor:
    """Count the iterations of a solver, in a context in which Ctrl-C ends the run but not the program.

    Parameters
    ----------
    method : str
        Name of the solver, shown beside its progress.
    max_iter : int or None, default=None
        Iterations after which the run ends.
    max_time : float or None, default=None
        Seconds after which the run ends.
    callback : callable or None, default=None
        Called with a `Progress` after every iteration; a true value ends the run.
    verbose : bool, default=False
        Whether to show progress: a bar, or plain lines where tqdm is not installed.
    stop : callable or None, default=None
        Another limit: when it returns True the time is out.

    Attributes
    ----------
    ending : Status or None
        Why the run was ended, None while nothing ended it.
    history : list of Progress
        One entry an iteration.

    Raises
    ------
    ValueError
        If a limit is not positive or the callback cannot be called.

    Examples
    --------
    >>> from convexbn.solvers._monitor import Monitor
    >>> with Monitor("halving", max_iter=3, max_time=None, callback=None, verbose=False) as monitor:
    ...     gap = 1.0
    ...     while monitor.goes_on(objective=1.0, gap=gap, n_neurons=0):
    ...         gap /= 2
    >>> monitor.ending.name, monitor.n_iter, gap
    ('MAX_ITER', 3, 0.25)
    """

    def __init__(
        self,
        method: str,
        *,
        max_iter: int | None = None,
        max_time: float | None = None,
        callback: Callback | None = None,
        verbose: bool = False,
        stop: Callable[[], bool] | None = None,
    ):
        check_max_iter(max_iter)
        check_max_time(max_time)
        check_callback(callback)
        self.max_iter, self.callback, self._stop = max_iter, callback, stop
        self.clock = Clock(max_time)
        self.ending: Status | None = None
        self.history: list[Progress] = []
        self._seconds_before = 0.0
        self._bar = progress_bar(method, max_iter) if verbose else None

    @property
    def n_iter(self) -> int:
        """Iterations done."""
        return len(self.history)

    def out_of_time(self) -> bool:
        """Whether `max_time` has passed or `stop` returns True, for checks within an iteration."""
        return self.clock.is_out() or (self._stop is not None and self._stop())

    def goes_on(self, objective: float, gap: float, n_neurons: int) -> bool:
        """Count an iteration; False if a limit or the callback ends the run."""
        seconds = self._seconds_before + self.clock.seconds()
        progress = Progress(self.n_iter + 1, seconds, objective, gap, n_neurons)
        self.history.append(progress)
        if self._bar is not None:
            self._bar.set_postfix_str(f"objective {objective:.8g}, gap {gap:.1e}, {n_neurons} neurons", refresh=False)
            self._bar.update()
        if self.callback is not None and answer_of(self.callback, progress):
            self.ending = Status.INTERRUPTED
        elif self.out_of_time():
            self.ending = Status.MAX_TIME
        elif self.max_iter is not None and self.n_iter >= self.max_iter:
            self.ending = Status.MAX_ITER
        return self.ending is None

    def resume(self, history: list[Progress]) -> None:
        """Go on after these iterations, whose seconds count in reports, but not in `max_time`."""
        self.history = list(history)
        self._seconds_before = history[-1].time if history else 0.0
        if self._bar is not None:
            self._bar.update(len(history))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._bar is not None:
            self._bar.close()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.ending = Status.INTERRUPTED
            return True
        return False


def check_max_iter(max_iter: object) -> None:
    """Raise a ValueError unless `max_iter` is None or a positive integer."""
    integer = isinstance(max_iter, (int, np.integer)) and not isinstance(max_iter, bool)
    if not (max_iter is None or (integer and max_iter >= 1)):  # type: ignore[operator]
        raise ValueError(f"max_iter={max_iter!r} must be a positive integer or None.")


def check_callback(callback: object) -> None:
    """Raise a ValueError unless `callback` is None or can be called."""
    if not (callback is None or callable(callback)):
        raise ValueError(f"callback={callback!r} must be a function of a Progress, or None.")


def answer_of(callback: Callback, progress: Progress) -> bool:
    """Whether a callback ends the run; a ValueError if its answer is neither true nor false."""
    answer = callback(progress)
    try:
        return bool(answer)
    except ValueError as error:
        raise ValueError(
            f"callback returned {answer!r}, which is neither true nor false; let it return True to end the run."
        ) from error


def check_max_time(max_time: object) -> None:
    """Raise a ValueError unless `max_time` is None or a positive number."""
    if not (max_time is None or (is_number(max_time) and max_time > 0)):  # type: ignore[operator]
        raise ValueError(f"max_time={max_time!r} must be a positive number of seconds or None.")
