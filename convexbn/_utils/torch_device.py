"""Devices of PyTorch: what names one, and NumPy arrays brought there."""

from typing import Any

import numpy as np


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
    device : str
        As torch.device takes: "cpu", "cuda", "cuda:1".

    Raises
    ------
    ImportError
        If PyTorch is not installed; it is not asked for "cpu".
    ValueError
        If PyTorch knows no such device, or this machine has none.

    Examples
    --------
    >>> from convexbn._utils.torch_device import check_device
    >>> check_device("gpu")
    Traceback (most recent call last):
        ...
    ValueError: device='gpu' is no device of PyTorch here; take 'cpu', or 'cuda' if torch.cuda.is_available().
    """
    if device == "cpu":
        return
    torch = import_torch(f"device={device!r}")
    try:
        if isinstance(device, str):
            torch.zeros(1, dtype=torch.float64, device=device).item()
            return
    except (RuntimeError, AssertionError, NotImplementedError, TypeError):  # torch raises each of them
        pass
    raise ValueError(
        f"device={device!r} is no device of PyTorch here; take 'cpu', or 'cuda' if torch.cuda.is_available()."
    )


def placed(values: np.ndarray, device: str) -> Any:
    """The array as a tensor on the device, of its own numeric type; NumPy's own array for "cpu".

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn._utils.torch_device import placed
    >>> placed(np.ones(2), "cpu")
    array([1., 1.])
    """
    return values if device == "cpu" else import_torch().asarray(np.array(values), device=device)
