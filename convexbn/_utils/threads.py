"""Linear algebra on one thread: products as small as those of the solvers take longer on several."""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import scipy.linalg  # noqa: F401 (its own BLAS must be loaded before it can be limited)
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
