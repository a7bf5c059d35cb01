"""Arrays of other libraries than NumPy, by the Python array API standard: their functions, and ways there and back."""

from typing import Any

import numpy as np


def namespace(values: Any) -> Any:
    """The functions of the library whose array this is: NumPy, or one of the array API standard.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn._utils.array_namespace import namespace
    >>> namespace(np.ones(2)) is np
    True
    """
    if isinstance(values, (np.ndarray, np.generic, float, int)):
        return np
    from array_api_compat import array_namespace

    return array_namespace(values)


def to_numpy(values: Any) -> np.ndarray:
    """The array in NumPy, copied from its device if it is on one."""
    if isinstance(values, np.ndarray):
        return values
    from array_api_compat import is_cupy_array, is_torch_array

    if is_torch_array(values):
        return np.asarray(values.detach().cpu())
    return np.asarray(values.get() if is_cupy_array(values) else values)
