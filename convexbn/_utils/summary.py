"""One-line summaries of objects that hold arrays: kind and sizes."""

from abc import abstractmethod


class Summarized:
    """Mixin that gives a class a one-line ``repr``, its name and what `_summary` says; dataclasses take ``repr=False``.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import BatchNormNetwork
    >>> BatchNormNetwork.at_initialization(np.eye(3), 5, n_outputs=1)
    BatchNormNetwork(3 features, 5 neurons, 1 output)
    """

    @abstractmethod
    def _summary(self) -> str:
        """Sizes, separated by commas."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._summary()})"


def counted(number: int, noun: str) -> str:
    """Return a number and a noun, in the plural unless the number is one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
