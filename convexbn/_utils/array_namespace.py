"""Arrays of other libraries than NumPy, by the Python array API standard: their functions, and ways there and back."""

import sys
from typing import Any

import numpy as np

from convexbn._utils.data_checks import check_array

_BLOCKS_THERE = 256  # times as many entries are made at once where the array may be on a device


def namespace(values: Any) -> Any:
    """The functions of the library whose array this is: NumPy, or one of the array API standard.

    Raises
    ------
    ImportError
        If this is an array of another library, and array-api-compat is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn._utils.array_namespace import namespace
    >>> namespace(np.ones(2)) is np
    True
    """
    if isinstance(values, (np.ndarray, np.generic, float, int)):
        return np
    return import_array_api_compat().array_namespace(values)


def import_array_api_compat() -> Any:
    """Import array_api_compat, or say which extra is missing."""
    try:
        import array_api_compat
    except ImportError as error:
        raise ImportError(
            "Arrays of other libraries than NumPy need array-api-compat: pip install 'convexbn[array-api]'."
        ) from error
    return array_api_compat


def is_elsewhere(values: Any) -> bool:
    """Whether this is an array of another library than NumPy that follows the array API standard.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn._utils.array_namespace import is_elsewhere
    >>> is_elsewhere(np.ones(2)), is_elsewhere([1.0])
    (False, False)
    """
    if isinstance(values, (np.ndarray, np.generic)):
        return False
    return hasattr(values, "__array_namespace__") or is_torch(values)


def is_torch(values: Any) -> bool:
    """Whether this is a tensor of PyTorch.

    Examples
    --------
    >>> from convexbn._utils.array_namespace import is_torch
    >>> is_torch([1.0])
    False
    """
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def like(values: Any, *arrays: np.ndarray) -> Any:
    """NumPy arrays in the library, on the device and in the precision of `values`; as they are beside NumPy's own.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn._utils.array_namespace import like
    >>> like(np.ones(2), np.zeros(1), np.ones(1))
    (array([0.]), array([1.]))
    """
    if not is_elsewhere(values):
        return arrays
    xp = namespace(values)
    return tuple(xp.asarray(array, dtype=values.dtype, device=values.device) for array in arrays)


def doubles(values: Any) -> Any:
    """The array in double precision."""
    if not is_elsewhere(values):
        double: np.ndarray = values.astype(np.float64)
        return double
    xp = namespace(values)
    return xp.astype(values, xp.float64)


def double_mean(values: Any, axis: int | tuple[int, ...]) -> np.ndarray:
    """Mean along axes, in double precision."""
    if not is_elsewhere(values):
        return np.asarray(np.mean(values, axis=axis, dtype=np.float64))
    return to_numpy(namespace(values).mean(doubles(values), axis=axis))


def block_entries(values: Any, entries: int) -> int:
    """Entries to be made at once of arrays like `values`, where those of NumPy are `entries`."""
    return entries * _BLOCKS_THERE if is_elsewhere(values) else entries


def positive_part(values: Any) -> Any:
    """max(values, 0), entry by entry."""
    return namespace(values).clip(values, 0.0, None) if is_elsewhere(values) else np.maximum(values, 0)


def all_finite(values: Any) -> bool:
    """Whether no entry is NaN or infinite."""
    xp = namespace(values)
    return bool(xp.all(xp.isfinite(values)))


def checked_array(X: Any, *, ensure_2d: bool = True, **options: Any) -> Any:
    """Return what scikit-learn's `check_array` makes of X, numbers of any type; arrays of other libraries stay there.

    Raises
    ------
    ValueError
        If X is not an array of finite numbers, or has other than two dimensions where `ensure_2d`.
    """
    if not is_elsewhere(X):
        return check_array(X, dtype="numeric", ensure_2d=ensure_2d, **options)
    if ensure_2d and X.ndim != 2:
        raise ValueError(f"Expected 2D array, got an array of shape {tuple(X.shape)}; reshape it to rows.")
    if not all_finite(X):
        raise ValueError("X contains NaN or infinity.")
    return X


def to_numpy(values: Any) -> np.ndarray:
    """The array in NumPy, copied from its device if it is on one."""
    if isinstance(values, np.ndarray):
        return values
    compat = import_array_api_compat()
    if compat.is_torch_array(values):
        return np.asarray(values.detach().cpu())
    if compat.is_cupy_array(values):
        return np.asarray(values.get())
    main = namespace(values).__array_namespace_info__().default_device()
    return np.asarray(values if main is None else compat.to_device(values, main))
