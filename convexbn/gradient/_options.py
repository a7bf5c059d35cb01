"""What the arguments of the methods in this folder may be, and what the options of `convexbn.gradient.train` may be."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.checks import check_choice, is_integer, is_number, refuse_huge
from convexbn._utils.data_checks import as_targets, check_X_y
from convexbn._utils.torch_device import check_device
from convexbn.gradient._optimizers import LEARNING_RATES
from convexbn.network import NormalizedNetwork

DTYPES = ("float64", "float32")


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
    device: Any,
    fit_intercept: Any,
    start: Any,
    callback: Any,
) -> None:
    """Raise a ValueError that names the option which is unknown, out of range, or does not go with another.

    Parameters
    ----------
    weight_decay, n_neurons, optimizer, learning_rate, momentum, n_steps, batch_size, dtype, device : object
        As in `convexbn.gradient.train`.
    fit_intercept, start, callback : object
        As in `convexbn.gradient.train`.

    Raises
    ------
    ValueError
        If one is not as it must be.
    ImportError
        If PyTorch is not installed.

    Examples
    --------
    >>> from convexbn.gradient._options import check_options
    >>> options = {"learning_rate": 0.1, "momentum": 0.9, "n_steps": 10, "batch_size": 32, "dtype": "float64"}
    >>> others = {"device": None, "fit_intercept": False, "start": None, "callback": None}
    >>> check_options(weight_decay=0.1, n_neurons=5, optimizer="adam", **options, **others)
    Traceback (most recent call last):
        ...
    ValueError: momentum=0.9 goes with optimizer='sgd', not 'adam'.
    """
    check_number("weight_decay", weight_decay)
    check_choice("optimizer", optimizer, LEARNING_RATES)
    check_choice("dtype", dtype, DTYPES)
    check_device(device)
    check_number("learning_rate", learning_rate, positive=True, optional=True)
    check_momentum(momentum)
    check_integer("n_neurons", n_neurons, 1)
    check_integer("n_steps", n_steps, 0)
    check_integer("batch_size", batch_size, 2, optional=True)
    if not isinstance(fit_intercept, (bool, np.bool)):
        raise ValueError(f"fit_intercept={fit_intercept!r} must be True or False.")
    if not (start is None or isinstance(start, NormalizedNetwork)):
        raise ValueError(
            f"start is a {type(start).__name__}; give a BatchNormNetwork, WeightNormNetwork or ConvBatchNormNetwork, "
            "or None."
        )
    if not (callback is None or callable(callback)):
        raise ValueError(f"callback={callback!r} must be a function of a step and outputs, or None.")
    if momentum and optimizer != "sgd":
        raise ValueError(f"momentum={momentum!r} goes with optimizer='sgd', not {optimizer!r}.")
    if batch_size is not None and optimizer == "lbfgs":
        raise ValueError(f"optimizer='lbfgs' takes the full batch; drop batch_size={batch_size!r}.")
    if batch_size is not None and callback is not None:
        raise ValueError(f"callback sees outputs on the full batch; drop batch_size={batch_size!r}.")


def check_integer(name: str, value: Any, least: int, *, optional: bool = False) -> None:
    """Raise a ValueError that names the argument unless it is an integer from `least` on.

    One that may be None is of any size, since it is a limit.
    """
    if not ((is_integer(value) and value >= least) or (optional and value is None)):
        raise ValueError(f"{name}={value!r} must be an integer from {least} on{' or None' if optional else ''}.")
    if not optional:
        refuse_huge(name, value)


def check_number(name: str, value: Any, *, positive: bool = False, optional: bool = False) -> None:
    """Raise a ValueError that names the argument unless it is a finite number from 0 on, 0 itself if not `positive`."""
    fits = is_number(value) and 0 <= value < np.inf and not (positive and value == 0)
    if not (fits or (optional and value is None)):
        kind = "positive finite number" if positive else "finite number from 0 on"
        raise ValueError(f"{name}={value!r} must be a {kind}{' or None' if optional else ''}.")


def check_momentum(momentum: Any) -> None:
    """Raise a ValueError unless it is a number from 0 on and below 1."""
    if not (is_number(momentum) and 0 <= momentum < 1):
        raise ValueError(f"momentum={momentum!r} must be a number from 0 on and below 1.")


def check_steps(name: str, steps: ArrayLike | None, n_steps: int) -> set[int]:
    """Return the steps to be recorded (11, evenly spaced, for None), or raise a ValueError that names the argument."""
    chosen = np.linspace(0, n_steps, 11).astype(int) if steps is None else np.asarray(steps)
    integers = chosen.ndim == 1 and chosen.dtype.kind in "iu" and chosen.size > 0
    if not (integers and chosen.min() >= 0 and chosen.max() <= n_steps):
        raise ValueError(f"{name} must be a list of integers from 0 to n_steps={n_steps}.")
    return set(chosen.tolist())


def check_pair(name: str, pair: Any) -> tuple[ArrayLike, ArrayLike]:
    """Return a pair of inputs and targets, or raise a ValueError that names the argument."""
    if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
        raise ValueError(f"{name} must be a pair (X, y) of inputs and targets, or None.")
    return pair[0], pair[1]


def check_samples(X: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (n, d) and targets (n,) in double precision, or raise a ValueError that names what is wrong."""
    data, targets = check_X_y(X, y, dtype=np.float64, order="C")  # PyTorch takes no negative strides
    return data, as_targets(targets)
