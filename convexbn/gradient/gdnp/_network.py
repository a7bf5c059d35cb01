"""One-hidden-layer networks, trained by GDNP unit by unit."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.checks import make_generator
from convexbn._utils.data_checks import check_array, check_X_y
from convexbn.gradient._options import check_integer, check_number
from convexbn.gradient._trace import Recorder, Trace
from convexbn.gradient.gdnp._descent import gdnp
from convexbn.gradient.gdnp._functions import ACTIVATIONS, LOSSES, SmoothFunction, named_function
from convexbn.gradient.gdnp._objectives import Moments, Objective
from convexbn.network._base import check_data


@dataclass(frozen=True, eq=False)
class HiddenLayer:
    """A network sum_j theta_j phi(x^T w_j) without biases.

    Parameters
    ----------
    weights : ndarray of shape (m, d)
        Weights w_j of the units.
    output_weights : ndarray of shape (m,)
        The theta_j.
    activation : SmoothFunction
        The activation phi.
    trace : Trace
        The run; a step is one unit trained. Watches `gradient_norms` (m,), in the metric of S^-1, `lengths` (m,),
        `alignment` (m,), the cosine of each unit with -S^-1 u in the metric of S (0 for a unit of zero weights), and
        `direction_steps`, those that the unit took.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.gdnp import FUNCTIONS, HiddenLayer
    >>> layer = HiddenLayer(np.ones((1, 2)), np.ones(1), FUNCTIONS["tanh"], None)
    >>> layer.predict([[0.0, 0.0], [1.0, 1.0]]).round(3)
    array([0.   , 0.964])
    """

    weights: np.ndarray
    output_weights: np.ndarray
    activation: SmoothFunction
    trace: Trace

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Outputs (n,) for X (n, d)."""
        data = check_data(X, self.weights.shape[1])
        return self.activation.value(data @ self.weights.T) @ self.output_weights


def gdnp_network(
    X: ArrayLike,
    y: ArrayLike,
    *,
    n_units: int = 5,
    activation: str | SmoothFunction = "tanh",
    loss: str | SmoothFunction = "softplus",
    output_weights: ArrayLike | None = None,
    max_length: float = 10.0,
    n_sweeps: int = 3,
    n_steps: int = 100,
    tol: float = 1e-6,
    random_state: int | np.random.Generator | None = 0,
    verbose: bool = False,
) -> HiddenLayer:
    """Train the hidden layer of F(x) = sum_j theta_j phi(x^T w_j) on E[loss(-y F(x))], one unit after another.

    Each unit is trained by `gdnp` while the others are fixed; all start at zero. For a unit the loss is
    psi(x^T w), a function of its own for every sample, and the direction step is that of `gdnp` with
    h = |w|_S (df/dg - g E[psi'']). For halfspaces of Gaussian z this is the h given there; here it needs no formula for
    the part of the gradient that the other units and the labels make.

    If z = -y x is Gaussian and the activation is odd (tanh), Stein's lemma puts the gradient of a unit into the span of
    u, S w and the S w_j of the other units. So once the others are on the line of S^-1 u, so are all critical points of
    this one, and every direction step is one on the Rayleigh quotient.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Inputs, with independent columns, centred.
    y : array-like of shape (n,)
        Labels -1 and +1.
    n_units : int, default=5
        Width m.
    activation : {"tanh", "sigmoid", "softplus"} or SmoothFunction, default="tanh"
        Activation phi.
    loss : {"softplus", "sigmoid"} or SmoothFunction, default="softplus"
        Loss of -y F(x).
    output_weights : array-like of shape (n_units,) or None, default=None
        The theta_j, which are not trained; None takes one for all.
    max_length : float, default=10.0
        Longest g of a unit, beyond which a bounded activation is flat at most samples.
    n_sweeps : int, default=3
        How often all units are trained, one after the other.
    n_steps : int, default=100
        Most direction steps of a unit in a sweep.
    tol : float, default=1e-6
        Gradient norm, in the metric of S^-1, at which a unit is left. The run ends where all are below it, after each
        unit was trained.
    random_state : int, Generator or None, default=0
        Seed of the first directions.
    verbose : bool, default=False
        Whether to show a progress bar.

    Returns
    -------
    layer : HiddenLayer
        Ctrl-C ends the run; the layer is then as after the last whole unit.

    Raises
    ------
    ValueError
        If the data or an argument is out of range.

    References
    ----------
    .. [1] Kohler et al., "Exponential convergence rates for Batch Normalization: The power of length-direction
       decoupling in non-convex optimization", arXiv 1805.10694.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.gdnp import gdnp_network
    >>> rng = np.random.default_rng(0)
    >>> y = np.where(rng.random(500) < 0.5, 1.0, -1.0)
    >>> layer = gdnp_network(y[:, None] * [0.5, -0.5] + rng.standard_normal((500, 2)), y, n_units=2)
    >>> bool((layer.trace["alignment"][-1] > 0.99).all())
    True
    """
    for name, value, least in (("n_units", n_units, 1), ("n_sweeps", n_sweeps, 1), ("n_steps", n_steps, 0)):
        check_integer(name, value, least)
    check_number("tol", tol)
    phi, ell = named_function("activation", activation, ACTIVATIONS), named_function("loss", loss, LOSSES)
    data, labels = check_X_y(X, y, dtype=np.float64)
    if labels.dtype.kind == "V" or not np.isin(labels, (-1, 1)).all():  # records are no labels
        raise ValueError("y must hold the labels -1 and +1 only.")
    theta = np.ones(n_units)
    if output_weights is not None:
        theta = check_array(output_weights, dtype=float, ensure_2d=False, input_name="output_weights")
    if theta.shape != (n_units,) or not theta.all():
        raise ValueError(f"output_weights must be {n_units} numbers other than zero, one for each unit.")
    rng = make_generator(random_state)
    moments = Moments(data.T @ data / len(data), -(data.T @ labels) / len(data))

    weights = np.zeros((n_units, data.shape[1]))
    preactivations = np.zeros((len(data), n_units))
    with Recorder("GDNP of units", n_sweeps * n_units, verbose=verbose) as recorder:
        for step in range(n_sweeps * n_units + 1):
            if step:
                j = (step - 1) % n_units
                others = phi.value(preactivations) @ theta - theta[j] * phi.value(preactivations[:, j])
                unit = HiddenUnit(data, labels, moments, others, theta[j], phi, ell)
                start = weights[j] if weights[j].any() else rng.standard_normal(data.shape[1])
                fit = gdnp(unit, start=start, n_steps=n_steps, tol=tol, max_length=max_length)
                if fit.trace.interrupted:
                    raise KeyboardInterrupt
                weights[j] = fit.weights
                preactivations[:, j] = data @ fit.weights
            outputs = phi.value(preactivations) @ theta
            outer = -labels * ell.first(-labels * outputs) / len(data)
            gradients = theta[:, None] * ((outer[:, None] * phi.first(preactivations)).T @ data)
            norms = np.array([moments.dual_norm(gradient) for gradient in gradients])
            lengths = np.array([moments.norm(w) for w in weights])
            recorder.record(
                step,
                float(np.mean(ell.value(-labels * outputs))),
                gradient_norms=norms,
                lengths=lengths,
                alignment=-weights @ moments.u / np.where(lengths > 0, lengths * np.sqrt(-moments.rho_star), 1),
                direction_steps=fit.trace.steps[-1] if step else 0,
            )
            if step >= n_units and norms.max() <= tol:
                break
    return HiddenLayer(weights, theta, phi, recorder.trace())


class HiddenUnit(Objective):
    """E[loss(-y (others + theta phi(x^T w)))] as a function of the weights w of one unit.

    Parameters
    ----------
    X, y : ndarray of shape (n, d), ndarray of shape (n,)
        Data, labels -1 and +1.
    moments : Moments
        Moments of the data.
    others : ndarray of shape (n,)
        Outputs of the other units.
    theta : float
        Output weight of this one.
    activation, loss : SmoothFunction
        As the names say.
    """

    def __init__(
        self,
        X: np.ndarray,
        y: np.ndarray,
        moments: Moments,
        others: np.ndarray,
        theta: float,
        activation: SmoothFunction,
        loss: SmoothFunction,
    ):
        self.moments, self._X, self._y, self._others = moments, X, y, others
        self._theta, self._phi, self._loss = theta, activation, loss
        self.curvature = (
            loss.curvature * (theta * activation.steepness) ** 2 + loss.steepness * abs(theta) * activation.curvature
        )

    def along(self, w: np.ndarray) -> np.ndarray:
        return self._X @ w

    def value(self, a: np.ndarray, g: float) -> float:
        return float(np.mean(self._loss.value(self._margins(g * a))))

    def slope(self, a: np.ndarray, g: float) -> float:
        return float(self._first(g * a) @ a) / len(a)

    def gradient(self, w: np.ndarray, a: np.ndarray, g: float) -> np.ndarray:
        return self._X.T @ (self._first(g * a) / len(a))

    def h(self, w: np.ndarray, a: np.ndarray, g: float) -> float:
        t = g * a
        margins = self._margins(t)
        second = (self._theta * self._phi.first(t)) ** 2 * self._loss.second(margins)
        second -= self._y * self._theta * self._phi.second(t) * self._loss.first(margins)
        return self.slope(a, g) - g * float(np.mean(second))

    def _margins(self, t: np.ndarray) -> np.ndarray:
        return -self._y * (self._others + self._theta * self._phi.value(t))

    def _first(self, t: np.ndarray) -> np.ndarray:
        return -self._y * self._theta * self._phi.first(t) * self._loss.first(self._margins(t))
