"""How far a fit has moved along each singular direction of the data."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.data_checks import check_array
from convexbn._utils.summary import Summarized, counted
from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._principal_directions import EXACT_RTOL


@dataclass(frozen=True, eq=False, repr=False)
class SpectralTrace(Summarized):
    """Components of fitted outputs along the left singular vectors u_i of the centred data.

    Parameters
    ----------
    steps : ndarray of shape (n_steps,)
        When the outputs were taken: steps of training, or a parameter that falls or grows along a path.
    components : ndarray of shape (n_steps, r)
        ``u_i^T f`` of the outputs f at each step.
    targets : ndarray of shape (r,)
        ``u_i^T y`` of the targets.
    singular_values : ndarray of shape (r,)
        Singular values of the centred data, falling.

    Attributes
    ----------
    shares : ndarray of shape (n_steps, r)
        ``u_i^T f / u_i^T y``: zero is not fitted, one fitted. Of little meaning where the target has next to no
        component.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import SpectralTrace
    >>> components, targets = np.array([[0.0, 0.0], [3.0, 1.0]]), np.array([3.0, 2.0])
    >>> SpectralTrace(np.arange(2), components, targets, singular_values=np.array([4.0, 1.0])).shares
    array([[0. , 0. ],
           [1. , 0.5]])
    """

    steps: np.ndarray
    components: np.ndarray
    targets: np.ndarray
    singular_values: np.ndarray

    def _summary(self) -> str:
        return f"{counted(len(self.steps), 'step')}, {counted(len(self.targets), 'direction')}"

    @property
    def shares(self) -> np.ndarray:
        """Fitted share of each component of the targets."""
        return self.components / self.targets


def spectral_trace(
    X: ArrayLike,
    y: ArrayLike,
    outputs: ArrayLike,
    *,
    steps: ArrayLike | None = None,
    n_components: int | float | None = 1.0,
) -> SpectralTrace:
    """Split fitted outputs into components along the left singular vectors of the centred data.

    A linear model trained by gradient descent moves along direction i in proportion to S_i^2, so it fits large
    directions long before small ones; one on whitened data moves along all alike. The trace shows what a network does.
    For gradient training take outputs from the `callback` of `convexbn.gradient.train`. The convex program has no
    training time; what corresponds to it is its path from weight_decay_max downwards, `convexbn_path`, and the trace
    along it is a property of the optima, not of the solver that found them.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Training data.
    y : array-like of shape (n,)
        Targets.
    outputs : array-like of shape (n_steps, n)
        Fitted outputs on X, one row a step.
    steps : array-like of shape (n_steps,) or None, default=None
        What to call the steps; None numbers them.
    n_components : int or float, default=1.0
        Leading directions to follow, as in `BatchNormDesign` with ``standardize=False``; 1.0 follows all of them.

    Returns
    -------
    trace : SpectralTrace

    Raises
    ------
    ValueError
        If an array is not finite, or lengths do not match.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import spectral_trace
    >>> X = np.array([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0]])
    >>> y = X.sum(axis=1)
    >>> spectral_trace(X, y, [0 * y, X[:, 0], y]).shares.round(12) + 0.0
    array([[0., 0.],
           [1., 0.],
           [1., 1.]])
    """
    data, f = check_array(X, dtype=np.float64), check_array(outputs, dtype=np.float64, input_name="outputs")
    targets = check_array(y, dtype=np.float64, ensure_2d=False, input_name="y")
    if targets.shape != (len(data),) or f.shape[1] != len(data):
        raise ValueError(
            f"y must have shape ({len(data)},) and outputs (n_steps, {len(data)}), one entry for each row of X; got "
            f"{targets.shape} and {f.shape}."
        )
    times = np.arange(len(f)) if steps is None else np.asarray(steps)
    if times.shape != (len(f),):
        raise ValueError(f"steps must have shape ({len(f)},), one for each row of outputs, got {times.shape}.")
    design = BatchNormDesign(n_components, EXACT_RTOL, standardize=False).fit(data)
    U = np.asarray(design.transform(data))[:, :-1] / np.sqrt(len(data))
    return SpectralTrace(times, f @ U, targets @ U, design.singular_values_)
