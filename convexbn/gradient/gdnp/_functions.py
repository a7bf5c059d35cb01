"""Smooth losses and activations: a function of one number, two derivatives and their bounds."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

Map = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class SmoothFunction:
    """A smooth function of one number, applied entry by entry.

    Parameters
    ----------
    name : str
        Its name as an argument.
    value, first, second : callable
        The function and its first two derivatives.
    steepness, curvature : float
        Largest absolute first and second derivative.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.gdnp import FUNCTIONS
    >>> softplus = FUNCTIONS["softplus"]
    >>> softplus.first(np.zeros(1)), softplus.curvature
    (array([0.5]), 0.25)
    """

    name: str
    value: Map
    first: Map
    second: Map
    steepness: float
    curvature: float


def _sigmoid_first(t: np.ndarray) -> np.ndarray:
    return expit(t) * expit(-t)


def _sigmoid_second(t: np.ndarray) -> np.ndarray:
    return -_sigmoid_first(t) * np.tanh(t / 2)


def _tanh_first(t: np.ndarray) -> np.ndarray:
    return 4 * _sigmoid_first(2 * t)


def _softplus(t: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, t)


def _tanh_second(t: np.ndarray) -> np.ndarray:
    return -2 * np.tanh(t) * _tanh_first(t)


FUNCTIONS = {
    function.name: function
    for function in (
        SmoothFunction("softplus", _softplus, expit, _sigmoid_first, 1.0, 1 / 4),
        SmoothFunction("sigmoid", expit, _sigmoid_first, _sigmoid_second, 1 / 4, 1 / (6 * np.sqrt(3))),
        SmoothFunction("tanh", np.tanh, _tanh_first, _tanh_second, 1.0, 4 / (3 * np.sqrt(3))),
    )
}
LOSSES = ("softplus", "sigmoid")
ACTIVATIONS = ("tanh", "sigmoid", "softplus")


def named_function(role: str, function: str | SmoothFunction, choices: tuple[str, ...]) -> SmoothFunction:
    """Return the function that an argument names, or raise a ValueError that names the argument."""
    if isinstance(function, SmoothFunction):
        return function
    if function not in list(choices):
        raise ValueError(f"{role}={function!r} is unknown; choose one of {list(choices)}, or give a SmoothFunction.")
    return FUNCTIONS[function]
