"""What the options of `convexbn.gradient.train` may be."""

from typing import Any

import numpy as np

from convexbn.gradient.optimizers import LEARNING_RATES

_DTYPES = ("float64", "float32")


def check_options(
    *,
    weight_decay: Any,
    n_neurons: Any,
    optimizer: Any,
    learning_rate: Any,
    momentum: Any,
    n_steps: Any,
    batch_size: Any,
    dtype: Any,
    callback: Any,
) -> None:
    """Raise a ValueError that names the option which is unknown, out of range, or does not go with another.

    Parameters
    ----------
    weight_decay, n_neurons, optimizer, learning_rate, momentum, n_steps, batch_size, dtype, callback
        As in `convexbn.gradient.train`.

    Raises
    ------
    ValueError
        If one is not as it must be.

    Examples
    --------
    >>> from convexbn.gradient.options import check_options
    >>> options = {"learning_rate": 0.1, "momentum": 0.9, "n_steps": 10, "batch_size": 32, "dtype": "float64"}
    >>> check_options(weight_decay=0.1, n_neurons=5, optimizer="adam", callback=None, **options)
    Traceback (most recent call last):
        ...
    ValueError: momentum=0.9 goes with optimizer='sgd', not 'adam'.
    """
    if not (_is_number(weight_decay) and 0 <= weight_decay < np.inf):
        raise ValueError(f"weight_decay={weight_decay!r} must be a finite number from 0 on.")
    for name, value, choices in (("optimizer", optimizer, list(LEARNING_RATES)), ("dtype", dtype, list(_DTYPES))):
        if value not in choices:
            raise ValueError(f"{name}={value!r} is unknown; choose one of {choices}.")
    if learning_rate is not None and not (_is_number(learning_rate) and 0 < learning_rate < np.inf):
        raise ValueError(f"learning_rate={learning_rate!r} must be a positive finite number or None.")
    if not (_is_number(momentum) and 0 <= momentum < 1):
        raise ValueError(f"momentum={momentum!r} must be a number from 0 on and below 1.")
    for name, value, least in (("n_neurons", n_neurons, 1), ("n_steps", n_steps, 0), ("batch_size", batch_size, 2)):
        if not ((_is_integer(value) and value >= least) or (name == "batch_size" and value is None)):
            alternative = " or None" if name == "batch_size" else ""
            raise ValueError(f"{name}={value!r} must be an integer from {least} on{alternative}.")
    if momentum and optimizer != "sgd":
        raise ValueError(f"momentum={momentum!r} goes with optimizer='sgd', not {optimizer!r}.")
    if batch_size is not None and optimizer == "lbfgs":
        raise ValueError(f"optimizer='lbfgs' takes the full batch; drop batch_size={batch_size!r}.")
    if batch_size is not None and callback is not None:
        raise ValueError(f"callback sees outputs on the full batch; drop batch_size={batch_size!r}.")


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or isinstance(value, (float, np.floating))
