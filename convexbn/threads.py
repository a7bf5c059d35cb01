"""Linear algebra on one thread: products as small as those of the solvers take longer on several."""

from collections.abc import Callable
from functools import cache, wraps
from threading import Lock
from typing import Any, ParamSpec, TypeVar

import scipy.linalg  # noqa: F401 (its own BLAS must be loaded before it can be limited)
from threadpoolctl import ThreadpoolController

_P = ParamSpec("_P")
_R = TypeVar("_R")


class _OneThread:
    """A context in which BLAS runs on one thread; the last one to leave it gives the threads back."""

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit = _controller().limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limit.restore_original_limits()


_one_thread = _OneThread()


@cache
def _controller() -> Any:
    return ThreadpoolController()  # which takes milliseconds to find the libraries


def on_one_thread(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorate a function whose linear algebra is to run on one thread, whatever the number outside.

    The threads are those of the process. They are given back when the last of all functions so decorated has ended, be
    they called by each other or side by side.

    Parameters
    ----------
    function : callable
        The function.

    Returns
    -------
    function : callable
        The same with one thread inside.

    Examples
    --------
    >>> from threadpoolctl import threadpool_info
    >>> from convexbn.threads import on_one_thread
    >>> @on_one_thread
    ... def n_threads():
    ...     return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}
    >>> n_threads()
    {1}
    """

    @wraps(function)
    def limited(*args: _P.args, **options: _P.kwargs) -> _R:
        with _one_thread:
            return function(*args, **options)

    return limited
