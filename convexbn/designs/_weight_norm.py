"""What weight normalization does to data: a bias column at most, and neurons on Z as layer weights."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted, validate_data

from convexbn._utils.magnitude import check_magnitude, power_of_two_above
from convexbn._utils.sample_weight import weighted_samples
from convexbn.designs._checks import check_components, check_rtol, check_spectral_power
from convexbn.designs._design import Design
from convexbn.designs._deviations import Deviations
from convexbn.designs._layer_weights import LayerWeights
from convexbn.designs._principal_directions import MOMENTS_RTOL, SMALLEST_WEIGHT, leading_directions

_SMALL = 2.0**-8  # root mean square of X below which the bias has a unit
_BIAS_UNIT = 16.0  # that, in root mean squares of X


class WeightNormDesign(Design):
    """The data itself: the design matrix of a weight-normalized layer.

    A neuron ``relu(g w·x / |w| + bias)`` with weight decay on (g, bias) is ``relu(Z s)`` with
    ``s = (g w / |w|, bias)`` and ``Z = [X, 1]``. Where the root mean square of X is below 1/256, the constant column is
    about 16 times as large as it instead, and the weight decay acts on the bias in this unit: beside a column of ones
    such an X would be rounding.

    Parameters
    ----------
    n_components : int, float or None, default=None
        None takes X as it is. An int or a fraction of the sum of squares keeps the leading right singular directions
        of X (not centred), as in `BatchNormDesign`.
    spectral_power : float, default=0.0
        With p > 0, Z holds the components of X along its right singular vectors, component i multiplied by
        ``(S_i / S_1)^p``; the penalty on g w / |w| is weighted by the inverse, as in `BatchNormDesign`.
    bias : bool, default=True
        Whether the neurons have a (penalised) bias, that is, whether Z has a constant column.
    rtol : float, default=1e-6
        Relative tolerance of the numerical rank, used with `n_components` and `spectral_power`.

    Attributes
    ----------
    basis_ : ndarray of shape (d, r)
        Orthonormal columns; ``X @ basis_ * spectral_weights_`` are the first columns of Z.
    spectral_weights_ : ndarray of shape (r,)
        Weights of these columns, all one if ``spectral_power=0``.
    variance_share_ : float
        Share of the sum of squares along the directions that were kept; 1 up to rounding where none was left out.
    bias_unit_ : float
        Entry of the constant column: 1, or a power of two where X is small.

    Examples
    --------
    >>> from convexbn import WeightNormDesign
    >>> WeightNormDesign().fit_transform([[1.0, 2.0], [3.0, 4.0]])
    array([[1., 2., 1.],
           [3., 4., 1.]])
    """

    def __init__(
        self,
        n_components: int | float | None = None,
        bias: bool = True,
        rtol: float = MOMENTS_RTOL,
        *,
        spectral_power: float = 0.0,
    ):
        self.n_components = n_components
        self.bias = bias
        self.rtol = rtol
        self.spectral_power = spectral_power

    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn the directions that are kept.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Training data.
        y : ignored
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples; integer weights equal repeated rows. All equal if None.

        Returns
        -------
        self : WeightNormDesign

        Raises
        ------
        ValueError
            If X is not a finite 2-D array, is all zero or so large or small that squares are no floats, or
            `n_components`, `spectral_power` or a sample weight is out of range.
        """
        check_spectral_power(self.spectral_power)
        check_rtol(self.rtol)
        weights, data = weighted_samples(sample_weight, validate_data(self, X, dtype=np.float64))
        check_components(self.n_components, min(data.shape))
        if not data.any():
            raise ValueError("X is all zero; a weight-normalized network learns nothing from it.")
        check_magnitude(data, "X")
        size = power_of_two_above(data)
        mean_square = float(weights / weights.sum() @ np.square(data / size).mean(axis=1))
        root_mean_square = size * 2.0 ** np.round(np.log2(mean_square) / 2)
        self.bias_unit_ = 1.0 if root_mean_square >= _SMALL else _BIAS_UNIT * root_mean_square
        if self.n_components is None and self.spectral_power == 0:
            self.basis_, self.spectral_weights_ = np.eye(data.shape[1]), np.ones(data.shape[1])
            self.variance_share_ = 1.0
        else:
            zero = np.zeros(data.shape[1])
            rows = Deviations(data, zero, zero + max(data.max(), -data.min()), np.sqrt(weights / weights.sum()))
            S, Vt, squares = leading_directions(rows, self.n_components, self.rtol)
            D = (S / S[0]) ** self.spectral_power
            keep = D > SMALLEST_WEIGHT
            self.basis_, self.spectral_weights_ = Vt[keep].T, D[keep]
            self.variance_share_ = float(np.sum(S[keep] ** 2) / squares)
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Design rows [D basis^T x; bias_unit] for any X (n', d): an array (n', k)."""
        check_is_fitted(self)
        Z = validate_data(self, X, dtype=np.float64, reset=False) @ self.basis_ * self.spectral_weights_
        return np.hstack([Z, np.full((len(Z), 1), self.bias_unit_)]) if self.bias else Z

    @property
    def _n_features_out(self) -> int:
        return self.basis_.shape[1] + bool(self.bias)

    def affine(self, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slopes (m, d) and offsets (m,) with ``transform(X) @ S == X @ slopes.T + offsets``."""
        r = self.basis_.shape[1]
        slopes = (self.basis_ * self.spectral_weights_ @ S[:r]).T
        return slopes, self.bias_unit_ * S[r] if self.bias else np.zeros(S.shape[1])

    def neuron_weights(self, S: np.ndarray) -> LayerWeights:
        """Layer weights whose weight-normalized neurons equal relu(Z s) for every column s of S (k, m)."""
        slopes, bias = self.affine(S)
        gamma = np.linalg.norm(slopes, axis=1)
        weights = np.where(gamma[:, None] > 0, slopes, self.basis_[:, 0])
        std = np.linalg.norm(weights, axis=1)
        return LayerWeights(weights, gamma, bias.copy(), np.zeros(len(gamma)), std)

    def neurons(self, weights: np.ndarray, gamma: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Undo `neuron_weights`: columns s (k, m) of the neurons with these weights."""
        S = (self.basis_ / self.spectral_weights_).T @ (gamma * weights.T / np.linalg.norm(weights, axis=1))
        return np.vstack([S, bias / self.bias_unit_]) if self.bias else S
