"""scikit-learn's checks of data, stricter: masked entries, dates and integers too large for a float are refused.

scikit-learn drops the mask of an array, and so takes what it hides for data.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import validation
from sklearn.utils.multiclass import check_classification_targets

from convexbn._utils.checks import real_array, refuse_unusual

_NAMES = ("X", "y")


def _stricter(check: Callable[..., Any], *, of_estimator: bool = False) -> Callable[..., Any]:
    """The same check, which looks at its data first."""

    @wraps(check)
    def checked(*given: Any, **options: Any) -> Any:
        names = (options["input_name"],) if "input_name" in options else _NAMES
        for name, values in zip(names, given[of_estimator:], strict=False):
            refuse_unusual(name, values)
        try:
            with np.errstate(invalid="ignore"):  # it adds up all numbers, to see whether one is NaN
                return check(*given, **options)
        except OverflowError as error:
            raise ValueError(f"{' or '.join(names)} holds an integer that is too large for a float.") from error

    return checked


check_array = _stricter(validation.check_array)
check_X_y = _stricter(validation.check_X_y)
validate_data = _stricter(validation.validate_data, of_estimator=True)


def as_targets(y: ArrayLike) -> np.ndarray:
    """Return targets (n,) or (n, C) in double precision, or raise a ValueError that names them; None counts as NaN."""
    try:
        numbers = real_array("y", y)
    except ValueError as error:
        raise ValueError(f"y must hold numbers; encode labels, say as -1 and 1. {error}") from None
    targets: np.ndarray = check_array(numbers, ensure_2d=False, input_name="y")
    return targets


def check_labels(y: np.ndarray) -> None:
    """Raise a ValueError unless targets are labels of classes; None beside strings, which cannot be sorted, is none."""
    try:
        check_classification_targets(y)
    except TypeError as error:
        if "between instances" not in str(error):  # as of bytes, which are no labels for scikit-learn
            raise
        raise ValueError(f"y must hold labels of one type, none of them missing: {error}.") from error
