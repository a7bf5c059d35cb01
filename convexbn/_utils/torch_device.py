"""Devices of PyTorch: what names one, and NumPy arrays brought there."""

from typing import Any

import numpy as np

from convexbn._utils.array_namespace import import_array_api_compat


def import_torch(needed_for: str = "This") -> Any:
    """Import torch, or say which extra is missing."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"{needed_for} needs PyTorch: pip install 'convexbn[torch]'.") from error
    return torch


def check_device(device: object) -> None:
    """Raise an error unless this names a device of PyTorch that is there.

    Parameters
    ----------
    device : str or None
        As torch.device takes: "cpu", "cuda", "cuda:1"; None is NumPy.

    Raises
    ------
    ImportError
        If PyTorch is not installed, or array-api-compat, which calls it.
    ValueError
        If PyTorch knows no such device, or this machine has none.

    Examples
    --------
    >>> from convexbn._utils.torch_device import check_device
    >>> check_device("gpu")
    Traceback (most recent call last):
        ...
    ValueError: device='gpu' is no device of PyTorch here; take None or 'cpu', or 'cuda' if torch.cuda.is_available().
    """
    if device is None:
        return
    torch = import_torch(f"device={device!r}")
    import_array_api_compat()
    try:
        if isinstance(device, str):
            torch.zeros(1, dtype=torch.float64, device=device).item()
            return
    except (RuntimeError, AssertionError, NotImplementedError, TypeError):  # torch raises each of them
        pass
    raise ValueError(
        f"device={device!r} is no device of PyTorch here; take None or 'cpu', or 'cuda' if torch.cuda.is_available()."
    )


def placed(values: np.ndarray, device: str | None) -> Any:
    """The array as a tensor on the device, of its own numeric type; NumPy's own array for None.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn._utils.torch_device import placed
    >>> placed(np.ones(2), None)
    array([1., 1.])
    """
    return values if device is None else import_torch().asarray(np.array(values), device=device)
