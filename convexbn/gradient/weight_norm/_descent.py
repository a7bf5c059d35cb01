"""Gradient descent on directions and lengths of a weight-normalized network, and on its weights without."""

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.checks import make_generator, real_array
from convexbn.gradient._options import check_integer, check_number, check_samples
from convexbn.gradient._trace import Recorder, Trace
from convexbn.gradient.weight_norm._gram import check_alpha, gram_of_weights
from convexbn.network import WeightNormNetwork


def weight_norm_start(
    n_features: int, n_neurons: int, *, alpha: float, random_state: int | np.random.Generator | None = None
) -> WeightNormNetwork:
    """Network at the start of training: v ~ N(0, alpha^2 I), g = |v| / alpha, signs c of equal chance.

    Its function does not depend on alpha, given the seed: alpha is only the time scale of its directions.

    Parameters
    ----------
    n_features : int
        Inputs d.
    n_neurons : int
        Width m.
    alpha : float
        Scale of the directions.
    random_state : int, Generator or None, default=None
        Seed of the weights.

    Returns
    -------
    network : WeightNormNetwork
        With output weights c / sqrt(m), bias and intercept zero.

    Raises
    ------
    ValueError
        If alpha is not between 1e-150 and 1e150, or there is not one feature and one neuron at least.

    References
    ----------
    .. [1] Dukler et al., "Optimization Theory for ReLU Neural Networks Trained with Normalization Layers",
       arXiv 2006.06878.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.weight_norm import weight_norm_start
    >>> slow, fast = (weight_norm_start(3, 5, alpha=alpha, random_state=0) for alpha in (10.0, 0.1))
    >>> np.allclose(slow.predict(np.eye(3)), fast.predict(np.eye(3)))
    True
    """
    check_alpha(alpha)
    check_integer("n_features", n_features, 1)
    check_integer("n_neurons", n_neurons, 1)
    rng = make_generator(random_state)
    v = alpha * rng.standard_normal((n_neurons, n_features))
    c = rng.choice([-1.0, 1.0], size=(n_neurons, 1)) / np.sqrt(n_neurons)
    return WeightNormNetwork(v, np.linalg.norm(v, axis=1) / alpha, np.zeros(n_neurons), c, np.zeros(1))


def train_weight_norm(
    X: ArrayLike,
    y: ArrayLike,
    *,
    alpha: float,
    learning_rate: float,
    n_neurons: int = 1000,
    n_steps: int = 100,
    note_every: int = 1,
    note_gram: bool = False,
    normalized: bool = True,
    random_state: int | np.random.Generator | None = None,
    verbose: bool = False,
) -> tuple[WeightNormNetwork, Trace]:
    """Gradient descent of ``|f - y|^2 / 2`` on directions and lengths, the output weights fixed.

    It starts from `weight_norm_start`. `GramMatrices.learning_rate` is the step of the theory. A larger one makes the
    directions longer, which slows them down until they are stable again; the lengths have no such mechanism.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Inputs, of any length.
    y : array-like of shape (n,)
        Targets.
    alpha : float
        Scale of the directions at the start.
    learning_rate : float
        Step size.
    n_neurons : int, default=1000
        Width m.
    n_steps : int, default=100
        Steps.
    note_every : int, default=1
        Steps from one record to the next.
    note_gram : bool, default=False
        Whether records hold the Gram matrices. They take n^2 (m + d) operations, a step n m d; `gram_matrices` gives
        those of the network at the end.
    normalized : bool, default=True
        False descends on the weights w = g v / |v| themselves, from the same function.
    random_state : int, Generator or None, default=None
        Seed of the start.
    verbose : bool, default=False
        Whether to show a progress bar.

    Returns
    -------
    network : WeightNormNetwork
        The network at the end; without normalization v = w and g = |w|.
    trace : Trace
        Objective ``|f - y|^2 / 2``, and at every recorded step (T of them) "residual" f - y (T, n), and with
        `note_gram` the Gram matrices "V", "G", "H" (T, n, n).

    Raises
    ------
    DivergenceError
        If the objective grows without bound.
    ValueError
        If X and y do not fit or are not finite, or an option is out of range.

    References
    ----------
    .. [1] Dukler et al., "Optimization Theory for ReLU Neural Networks Trained with Normalization Layers",
       arXiv 2006.06878.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.weight_norm import limit_gram_matrices, train_weight_norm
    >>> X, y = np.eye(3), [1.0, -1.0, 0.0]
    >>> learning_rate = limit_gram_matrices(X).learning_rate(0.1)
    >>> network, trace = train_weight_norm(X, y, alpha=0.1, learning_rate=learning_rate, random_state=0)
    >>> np.allclose(network.predict(X)[:, 0], y)
    True
    """
    data, targets = check_samples(X, y)
    check_number("learning_rate", learning_rate, positive=True)
    check_integer("n_steps", n_steps, 0)
    check_integer("note_every", note_every, 1)
    start = weight_norm_start(data.shape[1], n_neurons, alpha=alpha, random_state=random_state)
    g, c = start.gamma, start.output_weights[:, 0]
    v = start.weights if normalized else start.weights / alpha

    recorder = Recorder("weight normalization" if normalized else "plain descent", n_steps, verbose=verbose)
    with recorder, np.errstate(over="ignore", invalid="ignore"):
        for step in range(n_steps + 1):
            residual, by_weights, by_lengths = _gradients(v, g, c, data, targets)
            if step % note_every == 0 or step == n_steps:
                watched = {"residual": residual}
                if note_gram:
                    gram = gram_of_weights(v, g, c, data, alpha if normalized else 1.0)
                    watched |= zip("VGH", gram, strict=True)
                recorder.record(step, residual @ residual / 2, **watched)
            if step < n_steps and normalized:
                v, g = v - learning_rate * _by_directions(v, g, by_weights, by_lengths), g - learning_rate * by_lengths
            elif step < n_steps:
                w = v - learning_rate * by_weights
                v, g = w, np.linalg.norm(w, axis=1)
    return WeightNormNetwork(v, g, np.zeros(n_neurons), c[:, None], np.zeros(1)), recorder.trace()


def _gradients(
    v: np.ndarray, g: np.ndarray, c: np.ndarray, X: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residual (n,) and gradients by the weights w = g v / |v| (m, d) and by the lengths g (m,)."""
    unit = v / np.linalg.norm(v, axis=1)[:, None]
    hidden = np.maximum(g * (X @ unit.T), 0)
    residual = hidden @ c - y
    by_weights = ((hidden > 0) * (residual[:, None] * c)).T @ X
    return residual, by_weights, (by_weights * unit).sum(axis=1)


def _by_directions(v: np.ndarray, g: np.ndarray, by_weights: np.ndarray, by_lengths: np.ndarray) -> np.ndarray:
    """Gradient (m, d) by v: that by the weights, projected on what is orthogonal to v, times g / |v|."""
    lengths = np.linalg.norm(v, axis=1)
    return (g / lengths)[:, None] * (by_weights - (by_lengths / lengths)[:, None] * v)


def decay_rate(steps: ArrayLike, sizes: ArrayLike, learning_rate: float) -> np.ndarray:
    """Rates at which errors decay, measured: the eigenvalues that explain the decay under gradient descent.

    Gradient descent shrinks the error along an eigenvector by ``1 - learning_rate * eigenvalue`` a step. The factor
    is read off a straight line through the logarithms of the sizes.

    Parameters
    ----------
    steps : array-like of shape (T,)
        Steps, as in a `Trace`.
    sizes : array-like of shape (T,) or (T, p)
        Positive sizes of p errors at these steps.
    learning_rate : float
        Step size.

    Returns
    -------
    rates : ndarray of shape () or (p,)

    Raises
    ------
    ValueError
        If there are fewer than two different steps, their numbers differ, or a size or the step size is not positive.

    Examples
    --------
    >>> from convexbn.gradient.weight_norm import decay_rate
    >>> round(float(decay_rate([0, 1, 2], [4.0, 3.0, 2.25], learning_rate=0.5)), 6)
    0.5
    """
    check_number("learning_rate", learning_rate, positive=True)
    steps, sizes = real_array("steps", steps), real_array("sizes", sizes)
    if steps.ndim != 1 or sizes.ndim not in (1, 2) or len(steps) < 2 or len(sizes) != len(steps):
        raise ValueError(
            f"steps and sizes must be equally many, two at least; got arrays of shapes {steps.shape} and {sizes.shape}."
        )
    if not np.isfinite(steps).all():
        raise ValueError("steps contains NaN or infinity.")
    if not ((sizes > 0) & (sizes < np.inf)).all():
        raise ValueError(
            "sizes must be positive and finite; an error of zero has no logarithm, so leave such steps out."
        )
    if np.ptp(steps) == 0:
        raise ValueError(f"steps are all {steps[0]:g}; give sizes at two different ones at least.")
    centred = steps - steps.mean()
    return -np.expm1(centred @ np.log(sizes) / (centred @ centred)) / learning_rate
