"""Linear algebra on one thread, as small products take longer on several; and several of them at once, on threads."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import scipy.linalg  # noqa: F401 (its own BLAS must be loaded before it can be limited)
from joblib import effective_n_jobs
from threadpoolctl import ThreadpoolController

_P = ParamSpec("_P")
_R = TypeVar("_R")


@cache
def _blas() -> Any:
    return ThreadpoolController().select(user_api="blas")  # which takes milliseconds to find the libraries


def on_one_thread(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorate a function whose linear algebra is to run on one thread, whatever the number outside.

    The threads are those of the process. A function that finds one thread, such as one that is called by another so
    decorated, leaves the number as it is; so each that limits threads restores the number of before all of them.

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
    >>> from convexbn._utils.threads import on_one_thread
    >>> @on_one_thread
    ... def n_threads():
    ...     return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}
    >>> n_threads()
    {1}
    """

    @wraps(function)
    def limited(*args: _P.args, **options: _P.kwargs) -> _R:
        if all(library["num_threads"] == 1 for library in _blas().info()):
            return function(*args, **options)
        with _blas().limit(limits=1):
            return function(*args, **options)

    return limited


_pool: ContextVar[ThreadPoolExecutor | None] = ContextVar("pool", default=None)


@contextmanager
def on_threads(n_jobs: int | None) -> Iterator[None]:
    """Let `in_order` run on so many threads, as scikit-learn counts them; inside of them it runs on one.

    Examples
    --------
    >>> from convexbn._utils.threads import in_order, on_threads
    >>> with on_threads(2):
    ...     list(in_order(lambda i: i**2, 3))
    [0, 1, 4]
    """
    n_threads = effective_n_jobs(n_jobs)
    if n_threads == 1:
        yield
        return
    with ThreadPoolExecutor(n_threads) as pool:
        token = _pool.set(pool)
        try:
            yield
        finally:
            _pool.reset(token)


def in_order(function: Callable[[int], _R], count: int) -> Iterator[_R]:
    """The values of a function at 0, 1, ..., count - 1, computed on the threads of `on_threads`.

    NumPy treats errors of floating-point numbers there as it does here.
    """
    pool, errors = _pool.get(), np.geterr()
    if pool is None:
        return map(function, range(count))

    def value(i: int) -> _R:
        with np.errstate(**errors):
            return function(i)

    return pool.map(value, range(count))
