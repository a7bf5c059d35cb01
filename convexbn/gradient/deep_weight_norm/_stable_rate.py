"""The largest step size of gradient descent on a smooth deep network, found by runs."""

import math

import numpy as np
from numpy.typing import ArrayLike

from convexbn.gradient._options import check_integer, check_number
from convexbn.gradient._trace import DivergenceError
from convexbn.gradient.deep_weight_norm._descent import train_deep_weight_norm
from convexbn.gradient.deep_weight_norm._network import SmoothNetwork

_DOUBLINGS = 60  # or halvings of the first rate, after which no other is looked for


def largest_stable_rate(
    X: ArrayLike,
    y: ArrayLike,
    start: SmoothNetwork,
    *,
    n_steps: int = 100,
    monotone: bool = True,
    rtol: float = 0.02,
) -> float:
    """Largest learning rate with which gradient descent is stable, by bisection between runs.

    The first run has the rate ``2 / start.loss_hessian_norm(X, y)``, at which a quadratic loss would cease to descend.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Training data.
    y : array-like of shape (n,)
        Targets.
    start : SmoothNetwork
        Network that every run starts from.
    n_steps : int, default=100
        Steps of a run.
    monotone : bool, default=True
        Whether stable means that the loss rises at no step, which is what convergence theorems promise. Otherwise it
        means that the loss is no higher in the end than at the start.
    rtol : float, default=0.02
        Relative distance of the rate returned, which is stable, from one that is not.

    Returns
    -------
    rate : float
        Infinity if all rates are stable, as at a loss of zero, and zero if none is. Stable rates beyond an unstable one
        are not looked for.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    ValueError
        If shapes do not fit together, an entry is not finite, or an option is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.deep_weight_norm import SmoothNetwork, largest_stable_rate
    >>> X = np.random.default_rng(0).standard_normal((10, 4))
    >>> start = SmoothNetwork.at_initialization(4, depth=2, width=20, random_state=0)
    >>> largest_stable_rate(X, X[:, 0], start, n_steps=20) > 1 / start.smoothness_bound(X, X[:, 0])
    True
    """
    check_integer("n_steps", n_steps, 1)
    check_number("rtol", rtol, positive=True)

    def stable(rate: float) -> bool:
        try:
            losses = train_deep_weight_norm(
                X, y, start, learning_rate=rate, n_steps=n_steps, noted_steps=noted, n_hessian_samples=0
            )[1].objective
        except DivergenceError:
            return False
        return bool((np.diff(losses) <= 0).all() if monotone else losses[-1] <= losses[0])

    noted = np.arange(n_steps + 1) if monotone else [0, n_steps]
    train_deep_weight_norm(X, y, start, learning_rate=1.0, n_steps=0, n_hessian_samples=0)  # names what is wrong
    curvature = start.loss_hessian_norm(X, y)
    high = 2 / curvature if curvature > 0 else 1.0
    factor = 2.0 if stable(high) else 0.5
    for _ in range(_DOUBLINGS):
        low, high = high, factor * high
        if stable(high) is (factor < 1):
            break
    else:
        return math.inf if factor > 1 else 0.0
    low, high = min(low, high), max(low, high)
    while high > (1 + rtol) * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if stable(middle) else (low, middle)
    return low
