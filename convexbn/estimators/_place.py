"""Where the rows of an estimator are: in NumPy, or in the library and on the device of X."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from sklearn import get_config

from convexbn._utils.array_namespace import is_elsewhere, is_torch, namespace, to_numpy
from convexbn._utils.torch_device import placed
from convexbn.model._problem import Problem
from convexbn.operators import DesignMatrix, DeviceMatrix


@dataclass(frozen=True)
class Place:
    """Where the rows of an estimator are.

    Parameters
    ----------
    example : array of shape (0,) or None, default=None
        Array of the library, on the device; None is NumPy.
    follows : bool, default=False
        Whether the data was there, so that predictions stay there, too. Otherwise they are NumPy arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.estimators._place import Place
    >>> Place.of(np.ones((2, 1)), device=None)
    Place(example=None, follows=False)
    """

    example: Any = None
    follows: bool = False

    @classmethod
    def of(cls, X: Any, device: str | None) -> Self:
        """Where X is, by scikit-learn's setting `array_api_dispatch`; else the device of PyTorch that is given."""
        if is_dispatched(X):
            xp = namespace(X)
            return cls(xp.empty((0,), dtype=xp.float64, device=X.device), follows=True)
        return cls(None if device is None else placed(np.empty(0), device))

    def of_numpy(self) -> Self:
        """The same place for data in NumPy arrays, as held-out parts are."""
        return replace(self, follows=False)

    def bring(self, values: np.ndarray) -> Any:
        """The array at this place, of its own numeric type."""
        if self.example is None:
            return values
        return namespace(self.example).asarray(np.array(values), device=self.example.device)

    def attribute(self, value: Any) -> Any:
        """A fitted attribute, at the place of the data if it is an array of numbers."""
        numbers = isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
        return self.bring(value) if self.follows and numbers else value

    @property
    def torch_device(self) -> Any:
        """The device of PyTorch that modules go to: that of the data, if PyTorch has it."""
        return self.example.device if is_torch(self.example) else "cpu"

    def problem(self, problem: Problem) -> Problem:
        """The problem with its design matrix at this place.

        Raises
        ------
        ValueError
            If the matrix is sparse or on disk, and the place is not NumPy's.
        """
        Z = problem.Z
        if self.example is None:
            return problem
        if not isinstance(Z, DesignMatrix):
            raise ValueError(
                f"device={str(self.example.device)!r} takes dense X in memory; leave it at None for other X."
            )
        return replace(problem, Z=DeviceMatrix(self.bring(Z.Z), Z.n_patches))

    def check_same(self, X: Any, method: str) -> None:
        """Raise a ValueError if predictions are asked for at another place than the data of `fit`."""
        if not get_config()["array_api_dispatch"]:
            return
        there = is_elsewhere(X)
        same = there == self.follows
        if same and there:
            same = namespace(X) is namespace(self.example) and X.device == self.example.device
        if not same:
            raise ValueError(
                f"Inputs passed to {method}() must use the same namespace and the same device as those passed to "
                "fit(); move X there, or fit again."
            )


NUMPY = Place()


def host(values: Any) -> Any:
    """The array in NumPy, if scikit-learn's setting `array_api_dispatch` lets estimators take it; else as it is."""
    return to_numpy(values) if is_dispatched(values) else values


def is_dispatched(values: Any) -> bool:
    """Whether this is an array of another library that scikit-learn's setting lets estimators take."""
    return get_config()["array_api_dispatch"] and is_elsewhere(values)
