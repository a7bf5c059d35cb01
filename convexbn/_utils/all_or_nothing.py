"""Methods that leave their object as it was where they fail."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

Object = TypeVar("Object")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


def all_or_nothing(
    method: Callable[Concatenate[Object, Arguments], Result],
) -> Callable[Concatenate[Object, Arguments], Result]:
    """Decorate a method, such as `fit`, which sets attributes: whatever it raises, they are as before.

    Examples
    --------
    >>> from convexbn._utils.all_or_nothing import all_or_nothing
    >>> class Halves:
    ...     number = 8
    ...     @all_or_nothing
    ...     def divide(self, by):
    ...         self.number = None
    ...         self.number = 8 / by
    >>> halves = Halves()
    >>> try:
    ...     halves.divide(0)
    ... except ZeroDivisionError:
    ...     print(halves.number)
    8
    """

    @wraps(method)
    def undone(self: Any, /, *given: Arguments.args, **options: Arguments.kwargs) -> Result:
        before = vars(self).copy()
        try:
            return method(self, *given, **options)
        except BaseException:
            self.__dict__ = before
            raise

    return undone
