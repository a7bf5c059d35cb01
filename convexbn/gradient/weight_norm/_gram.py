"""The Gram matrices of a weight-normalized network, and the rates and steps that they predict."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from convexbn._utils.data_checks import check_array
from convexbn.gradient._options import check_number
from convexbn.network import WeightNormNetwork

_UNIT, _UNIT_HALF = 1e-6, 1e-3  # errors of a length that rounding of the data to single and half precision explains
_SINGULAR = 1e-12  # smallest eigenvalue of a Gram matrix, relative to the largest, that is not zero
_LEAST, _MOST = 1e-150, 1e150  # alphas whose squares are ordinary floats


@dataclass(frozen=True, eq=False)
class GramMatrices:
    """Gram matrices V, G and H of a network on n inputs.

    Under gradient flow on (v, g) the outputs obey ``df/dt = -(V / alpha^2 + G) (f - y)``: V is the part of
    the directions v, G that of the lengths g. Plain gradient flow on w = g v / |v| has H in their place.

    Parameters
    ----------
    V, G, H : ndarray of shape (n, n)
        The matrices; V + G = H at the start of training and in the limit of many neurons.

    References
    ----------
    .. [1] Dukler et al., "Optimization Theory for ReLU Neural Networks Trained with Normalization Layers",
       arXiv 2006.06878.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.weight_norm import limit_gram_matrices
    >>> gram = limit_gram_matrices(np.eye(3))
    >>> [round(gram.rate(alpha), 3) for alpha in (0.1, 1.0, 10.0)]
    [22.996, 0.5, 0.117]
    >>> round(gram.crossover, 3)
    1.414
    """

    V: np.ndarray
    G: np.ndarray
    H: np.ndarray

    def kernel(self, alpha: float) -> np.ndarray:
        """V / alpha^2 + G, shape (n, n)."""
        check_alpha(alpha)
        return self.V / alpha**2 + self.G

    def rate(self, alpha: float) -> float:
        """Smallest eigenvalue of V / alpha^2 + G: the rate at which the slowest part of the error decays."""
        return _smallest_eigenvalue(self.kernel(alpha))

    def rate_of_directions(self, alpha: float) -> float:
        """Smallest eigenvalue of V over alpha^2, what `rate` tends to for small alpha."""
        check_alpha(alpha)
        return _smallest_eigenvalue(self.V) / alpha**2

    @property
    def rate_of_lengths(self) -> float:
        """Smallest eigenvalue of G, what `rate` tends to for large alpha."""
        return _smallest_eigenvalue(self.G)

    @property
    def rate_without_normalization(self) -> float:
        """Smallest eigenvalue of H."""
        return _smallest_eigenvalue(self.H)

    @property
    def crossover(self) -> float:
        """The alpha at which directions and lengths have the same rate: directions lead below, lengths above.

        Raises a ValueError if V or G is singular, as one of the rates is then zero at every alpha.
        """
        for name, matrix in (("V", self.V), ("G", self.G)):
            if _is_singular(matrix):
                raise ValueError(
                    f"{name} is singular, so there is no crossover; drop inputs that are parallel, or take more "
                    "neurons than inputs."
                )
        return float(np.sqrt(_smallest_eigenvalue(self.V) / _smallest_eigenvalue(self.G)))

    def learning_rate(self, alpha: float) -> float:
        """Inverse of the largest eigenvalue of V / alpha^2 + G; gradient descent is unstable from twice that on."""
        return 1 / float(np.linalg.eigvalsh(self.kernel(alpha))[-1])


def gram_matrices(network: WeightNormNetwork, X: ArrayLike, *, alpha: float = 1.0) -> GramMatrices:
    """Gram matrices of a network as it is, at the start of training or along it.

    Parameters
    ----------
    network : WeightNormNetwork
        Network of one output, without bias and intercept.
    X : array-like of shape (n, d)
        Inputs, of any length.
    alpha : float, default=1.0
        Scale of the start: V is alpha^2 times the Gram matrix of the gradients by v.

    Returns
    -------
    gram : GramMatrices

    Raises
    ------
    ValueError
        If X does not fit the network, the network is of another kind or has a bias, an intercept or several outputs, or
        alpha is not between 1e-150 and 1e150.

    References
    ----------
    .. [1] Dukler et al., "Optimization Theory for ReLU Neural Networks Trained with Normalization Layers",
       arXiv 2006.06878.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.weight_norm import gram_matrices, weight_norm_start
    >>> X = np.random.default_rng(0).standard_normal((4, 3))
    >>> gram = gram_matrices(weight_norm_start(3, 50, alpha=0.1, random_state=0), X, alpha=0.1)
    >>> np.allclose(gram.V + gram.G, gram.H)
    True
    """
    check_alpha(alpha)
    if not isinstance(network, WeightNormNetwork):
        raise ValueError(f"network must be a WeightNormNetwork, not a {type(network).__name__}.")
    data: np.ndarray = check_array(X, dtype=np.float64)
    if data.shape[1] != network.weights.shape[1]:
        raise ValueError(f"X has {data.shape[1]} features, the network takes {network.weights.shape[1]}.")
    if network.n_outputs != 1 or network.bias.any() or network.intercept.any():
        raise ValueError("network must have one output, and bias and intercept zero: the theory is without them.")
    return GramMatrices(*gram_of_weights(network.weights, network.gamma, network.output_weights[:, 0], data, alpha))


def check_alpha(alpha: object) -> None:
    """Raise a ValueError unless alpha is a positive number whose square neither overflows nor vanishes."""
    check_number("alpha", alpha, positive=True)
    if not _LEAST <= float(alpha) <= _MOST:  # type: ignore[arg-type]
        raise ValueError(f"alpha={alpha!r} must be between {_LEAST:g} and {_MOST:g}, so that its square is a number.")


def gram_of_weights(
    v: np.ndarray, g: np.ndarray, c: np.ndarray, X: np.ndarray, alpha: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """V, G and H (n, n) of neurons c_k relu(g_k v_k·x / |v_k|), v (m, d), on X (n, d)."""
    lengths = np.linalg.norm(v, axis=1)
    projections = X @ (v / lengths[:, None]).T
    active = (g * projections > 0).astype(np.float64)
    inner = X @ X.T
    by_lengths = projections * active * c
    by_directions = active * (c * g / lengths * alpha)
    along = projections * by_directions
    by_weights = active * c
    return (
        inner * (by_directions @ by_directions.T) - along @ along.T,
        by_lengths @ by_lengths.T,
        inner * (by_weights @ by_weights.T),
    )


def limit_gram_matrices(X: ArrayLike) -> GramMatrices:
    """Gram matrices at the start in the limit of many neurons, in closed form for inputs of length one.

    With th the angle of two inputs, ``H = cos th (pi - th) / (2 pi)``, ``G = (sin th + (pi - th) cos th) / (2 pi d)``
    and ``V = H - G``.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Inputs of length one, no two of them equal; d from 2 on.

    Returns
    -------
    gram : GramMatrices

    Raises
    ------
    ValueError
        If an input is not of length one, or V or G is singular: two inputs are parallel, or there is one feature only.

    References
    ----------
    .. [1] Dukler et al., "Optimization Theory for ReLU Neural Networks Trained with Normalization Layers",
       arXiv 2006.06878.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.weight_norm import limit_gram_matrices
    >>> limit_gram_matrices(np.eye(2)).G.round(3)
    array([[0.25, 0.08],
           [0.08, 0.25]])
    """
    data: np.ndarray = check_array(X, dtype=np.float64)
    n, d = data.shape
    if d < 2:
        raise ValueError("X has one feature, and on a line no direction can change (V = 0); give two or more.")
    with np.errstate(over="ignore"):  # of lengths that are far from one
        lengths = np.linalg.norm(data, axis=1)
    worst = int(np.abs(lengths - 1).argmax())
    if abs(lengths[worst] - 1) > (_UNIT_HALF if getattr(X, "dtype", None) == np.float16 else _UNIT):
        raise ValueError(
            f"The closed forms need inputs of length one, but |X[{worst}]| - 1 = {lengths[worst] - 1:.3g}; divide each "
            "row by its length, or use gram_matrices, which takes any."
        )
    apart = cdist(data, data)
    th = 2 * np.arctan2(apart, cdist(data, -data))
    H = np.cos(th) * (np.pi - th) / (2 * np.pi)
    G = (np.sin(th) + (np.pi - th) * np.cos(th)) / (2 * np.pi * d)
    for name, matrix in (("V", H - G), ("G", G)):
        if _is_singular(matrix):
            i, j = np.unravel_index((apart + np.diag(np.full(n, np.inf))).argmin(), apart.shape)
            raise ValueError(
                f"{name} is singular, so no rate can be predicted: inputs that are parallel are one input to the "
                f"network. The closest are X[{i}] and X[{j}], at a distance of {apart[i, j]:.3g}; drop one of them."
            )
    return GramMatrices(H - G, G, H)


def _is_singular(matrix: np.ndarray) -> bool:
    eigenvalues = np.linalg.eigvalsh(matrix)
    return bool(eigenvalues[0] <= _SINGULAR * eigenvalues[-1])


def _smallest_eigenvalue(matrix: np.ndarray) -> float:
    return float(np.linalg.eigvalsh(matrix)[0])
