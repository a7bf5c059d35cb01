"""What a normalization layer does to data: X -> design matrix Z, and neurons on Z -> layer weights.

A two-layer network with a normalization layer is a plain ReLU network on a fixed design matrix Z: the whitened
data for batch normalization (arXiv 2103.01499), the data itself for weight normalization.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import svd
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.extmath import svd_flip
from sklearn.utils.validation import check_is_fitted, validate_data

from convexbn.sample_weight import weighted_samples


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """Weights of a normalized hidden layer: neuron j is relu(gamma_j (x·w_j - mean_j) / std_j + bias_j).

    Parameters
    ----------
    weights : ndarray of shape (m, d)
        Directions w_j.
    gamma, bias : ndarray of shape (m,)
        Scale and shift after normalization.
    mean, std : ndarray of shape (m,)
        Population statistics of x·w_j; zero and |w_j| for weight normalization.
    """

    weights: np.ndarray
    gamma: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    std: np.ndarray


class BatchNormDesign(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""Whitened data: the design matrix of a batch-normalized layer.

    With the compact SVD ``X - 1 mu^T = U S V^T`` of rank r, ``Z = [sqrt(n) U, 1]`` has ``k = r + 1`` columns and
    ``Z^T Z = n I``. A batch-normalized neuron on X is a plain ReLU neuron on Z. With sample weights of sum W the batch
    statistics are weighted: the rows of the centred data enter the SVD times the roots of their weights, and
    ``Z^T diag(p) Z = I`` with p the weights divided by W.

    Gradient descent favours large singular directions, whitening treats all alike. A `spectral_power` p > 0 lies
    between: column i is multiplied by ``(S_i / S_1)^p``. Neurons on the weighted Z still map back exactly to an
    ordinary batch-normalized network, but their penalty is another one. With D the diagonal of the weights it is
    ``weight_decay / 2 * sum_j (|D^-1 gamma_j q_j|^2 + bias_j^2 + |c_j|^2)``, q_j the unit vector along S V^T w_j, so
    it costs a neuron more to look along a small direction. At p = 1 Z is the centred data over its largest standard
    deviation and gamma_j w_j / std_j itself is penalised. A certificate on the weighted Z is about this objective, not
    about the one that PyTorch minimises with plain weight decay.

    Parameters
    ----------
    n_components : int, float or None, default=None
        None keeps every direction of numerical rank. An int keeps that many leading singular directions of the
        centred data (all of them if the rank is smaller); a float in (0, 1] keeps the smallest number of leading
        directions that reach this fraction of the variance.
    spectral_power : float, default=0.0
        Column i of Z is multiplied by ``(S_i / S_1)^spectral_power``; 0 is batch normalization as it is.
    rtol : float, default=1e-10
        A singular value counts towards the rank if it exceeds `rtol` times the largest, and so must its weight. With
        ``n_components=None`` and ``spectral_power=0`` columns are divided by their largest deviation from the mean
        first, which makes the decision independent of the units of the columns (and changes nothing else, since
        whitening forgets them).

    Attributes
    ----------
    mean_ : ndarray of shape (d,)
        Column means mu.
    singular_values_ : ndarray of shape (r,)
        Singular values S that were kept.
    spectral_weights_ : ndarray of shape (r,)
        The weights ``(S_i / S_1)^spectral_power`` of the first r columns of Z.
    whitening_ : ndarray of shape (d, r)
        ``(X - mu) @ whitening_`` are the first r columns of Z.
    coloring_ : ndarray of shape (r, d)
        The way back: the first r columns of Z times `coloring_` are the centred data (its kept part).

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, Section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.design import BatchNormDesign
    >>> X = np.random.default_rng(0).standard_normal((6, 2))
    >>> Z = BatchNormDesign().fit_transform(X)
    >>> np.allclose(Z.T @ Z / 6, np.eye(3))
    True
    """

    n_patches = 1

    def __init__(self, n_components: int | float | None = None, rtol: float = 1e-10, *, spectral_power: float = 0.0):
        self.n_components = n_components
        self.rtol = rtol
        self.spectral_power = spectral_power

    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn mean and whitening.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Training data, at least two rows that differ.
        y : ignored
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples; integer weights equal repeated rows. All equal if None.

        Returns
        -------
        self : BatchNormDesign

        Raises
        ------
        ValueError
            If X is not a finite 2-D array, if all its rows (of positive weight) are equal, or if `n_components`,
            `spectral_power` or a sample weight is out of range.
        """
        check_spectral_power(self.spectral_power)
        weights, data = weighted_samples(sample_weight, validate_data(self, X, dtype=np.float64))
        check_components(self.n_components, min(data.shape))
        mean = np.average(data, axis=0, weights=weights)
        centred = data - mean
        rounding = np.average(
            centred, axis=0, weights=weights
        )  # of the mean, which a column far from zero would turn into a direction
        mean, centred = mean + rounding, centred - rounding
        spread = np.abs(centred).max(axis=0)
        constant = spread <= 10 * np.finfo(float).eps * np.abs(data).max(axis=0)
        if constant.all():
            raise ValueError(
                "All rows of X are equal, 1 sample or one repeated, so batch normalization would divide by a zero "
                "variance; give data with at least two distinct rows."
            )
        centred[:, constant] = 0
        directions_matter = self.n_components is not None or self.spectral_power > 0
        units = np.ones_like(mean) if directions_matter else np.where(constant, 1, spread)
        n_distinct = len({row.tobytes() for row in data + 0.0})
        S, Vt = _leading_directions(
            np.sqrt(weights)[:, None] * centred / units, self.n_components, self.rtol, largest_rank=n_distinct - 1
        )
        S, Vt, D = weighted_directions(S, Vt, self.spectral_power, self.rtol)
        self.mean_ = mean
        self.singular_values_ = S
        self.spectral_weights_ = D
        self.whitening_ = np.sqrt(weights.sum()) * (Vt.T / S * D) / units[:, None]
        self.coloring_ = ((S / D)[:, None] * Vt) * units / np.sqrt(weights.sum())
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Design rows z(x) = [sqrt(n) D S^-1 V^T (x - mu); 1] for any X (n', d): an array (n', k)."""
        check_is_fitted(self)
        whitened = (validate_data(self, X, dtype=np.float64, reset=False) - self.mean_) @ self.whitening_
        return np.hstack([whitened, np.ones((len(whitened), 1))])

    @property
    def _n_features_out(self) -> int:
        return len(self.coloring_) + 1

    def affine(self, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slopes (m, d) and offsets (m,) with ``transform(X) @ S == X @ slopes.T + offsets``."""
        slopes = (self.whitening_ @ S[:-1]).T
        return slopes, S[-1] - slopes @ self.mean_

    def neuron_weights(self, S: np.ndarray) -> LayerWeights:
        """Layer weights whose batch-normalized neurons equal relu(Z s) for every column s of S (k, m)."""
        gamma = np.linalg.norm(self.spectral_weights_[:, None] * S[:-1], axis=0)
        directions = np.divide(S[:-1], gamma, where=gamma > 0, out=np.eye(len(S) - 1, 1) + np.zeros_like(S[:-1]))
        weights = (self.whitening_ @ directions).T
        return LayerWeights(weights, gamma, S[-1].copy(), weights @ self.mean_, np.ones(len(gamma)))

    def neurons(self, weights: np.ndarray, gamma: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Undo `neuron_weights`: columns s (k, m) of the neurons with these weights on the training data.

        A neuron whose weights do not vary over the training data is refused with a ValueError.
        """
        directions = self.coloring_ @ weights.T
        std = np.linalg.norm(self.spectral_weights_[:, None] * directions, axis=0)
        if not (std > 0).all():
            raise ValueError("A neuron does not vary over X, so it cannot be batch-normalized on it.")
        return np.vstack([gamma * directions / std, bias])


class WeightNormDesign(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """The data itself: the design matrix of a weight-normalized layer.

    A neuron ``relu(g w·x / |w| + bias)`` with weight decay on (g, bias) is ``relu(Z s)`` with
    ``s = (g w / |w|, bias)`` and ``Z = [X, 1]``.

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
    rtol : float, default=1e-10
        Relative tolerance of the numerical rank, used with `n_components` and `spectral_power`.

    Attributes
    ----------
    basis_ : ndarray of shape (d, r)
        Orthonormal columns; ``X @ basis_ * spectral_weights_`` are the first columns of Z.
    spectral_weights_ : ndarray of shape (r,)
        Weights of these columns, all one if ``spectral_power=0``.

    Examples
    --------
    >>> from convexbn.design import WeightNormDesign
    >>> WeightNormDesign().fit_transform([[1.0, 2.0], [3.0, 4.0]])
    array([[1., 2., 1.],
           [3., 4., 1.]])
    """

    n_patches = 1

    def __init__(
        self,
        n_components: int | float | None = None,
        bias: bool = True,
        rtol: float = 1e-10,
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
            If X is not a finite 2-D array, is all zero, or `n_components`, `spectral_power` or a sample weight is out
            of range.
        """
        check_spectral_power(self.spectral_power)
        weights, data = weighted_samples(sample_weight, validate_data(self, X, dtype=np.float64))
        check_components(self.n_components, min(data.shape))
        if not data.any():
            raise ValueError("X is all zero; a weight-normalized network learns nothing from it.")
        if self.n_components is None and self.spectral_power == 0:
            self.basis_, self.spectral_weights_ = np.eye(data.shape[1]), np.ones(data.shape[1])
        else:
            rows = np.sqrt(weights)[:, None] * data
            S, Vt = _leading_directions(rows, self.n_components, self.rtol, largest_rank=len(rows))
            _, Vt, self.spectral_weights_ = weighted_directions(S, Vt, self.spectral_power, self.rtol)
            self.basis_ = Vt.T
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Design rows [D basis^T x; 1] for any X (n', d): an array (n', k)."""
        check_is_fitted(self)
        Z = validate_data(self, X, dtype=np.float64, reset=False) @ self.basis_ * self.spectral_weights_
        return np.hstack([Z, np.ones((len(Z), 1))]) if self.bias else Z

    @property
    def _n_features_out(self) -> int:
        return self.basis_.shape[1] + bool(self.bias)

    def affine(self, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slopes (m, d) and offsets (m,) with ``transform(X) @ S == X @ slopes.T + offsets``."""
        r = self.basis_.shape[1]
        return (self.basis_ * self.spectral_weights_ @ S[:r]).T, S[r] if self.bias else np.zeros(S.shape[1])

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
        return np.vstack([S, bias]) if self.bias else S


NORMALIZATIONS = {"batch": BatchNormDesign, "weight": WeightNormDesign}


def check_components(n_components: object, largest: int) -> None:
    """Raise a ValueError unless `n_components` is None, an int in [1, largest] or a float in (0, 1]."""
    if n_components is None:
        return
    valid: bool | np.bool
    if isinstance(n_components, bool):
        valid = False
    elif isinstance(n_components, (int, np.integer)):
        valid = 1 <= n_components <= largest
    else:
        valid = isinstance(n_components, (float, np.floating)) and 0 < n_components <= 1
    if not valid:
        raise ValueError(
            f"n_components={n_components!r} is out of range: give None, an int from 1 to {largest}, the smaller side "
            "of the data, or a float in (0, 1], the fraction of the variance to keep."
        )


def check_spectral_power(spectral_power: object) -> None:
    """Raise a ValueError unless `spectral_power` is a finite number from 0 on."""
    number = isinstance(spectral_power, (int, float, np.integer, np.floating)) and not isinstance(spectral_power, bool)
    if not (number and 0 <= spectral_power < np.inf):  # type: ignore[operator]
        raise ValueError(
            f"spectral_power={spectral_power!r} must be a finite number from 0 on: 0 treats all singular directions "
            "alike, 1 weighs them like the data itself."
        )


def weighted_directions(
    S: np.ndarray, Vt: np.ndarray, power: float, rtol: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Singular values, vectors and weights (S_i / S_1)^power of the directions whose weight is above `rtol`."""
    weights = (S / S[0]) ** power
    keep = weights > rtol
    return S[keep], Vt[keep], weights[keep]


def _leading_directions(
    X: np.ndarray, n_components: int | float | None, rtol: float, largest_rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """Singular values and right singular vectors that make up the rank, or the leading ones asked for."""
    U, S, Vt = svd(X, full_matrices=False)
    Vt = svd_flip(U, Vt, u_based_decision=False)[1]
    keep = rank_to_keep(S, n_components, rtol, largest_rank)
    return S[:keep], Vt[:keep]


def rank_to_keep(S: np.ndarray, n_components: int | float | None, rtol: float, largest_rank: int) -> int:
    """How many of the falling singular values S make up the rank, or are the leading ones asked for."""
    keep = min(int(np.sum(rtol * S[0] < S)), largest_rank)
    if isinstance(n_components, (int, np.integer)):
        keep = min(keep, int(n_components))
    elif n_components is not None:
        share = np.cumsum(S[:keep] ** 2) / np.sum(S[:keep] ** 2)
        keep = min(keep, int(np.searchsorted(share, n_components * (1 - 1e-12))) + 1)
    return keep
