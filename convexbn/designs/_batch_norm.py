"""What a normalization layer does to data: X -> design matrix Z, and neurons on Z -> layer weights.

A two-layer network with a normalization layer is a plain ReLU network on a fixed design matrix Z: the whitened
data for batch normalization (arXiv 2103.01499), the data itself for weight normalization.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cholesky, eigh, solve_triangular, svd
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from convexbn._utils.magnitude import check_magnitude, power_of_two_above
from convexbn._utils.sample_weight import weighted_samples
from convexbn._utils.summary import Summarized, counted

EXACT_RTOL = 1e-10  # as `rtol`: drops what is rounding in double precision, and nothing else
MOMENTS_RTOL = 1e-6  # second moments lose smaller singular values, relative to the largest
_SMALLEST_WEIGHT = 1e-10  # directions of smaller spectral weight are dropped
_BIAS_UNIT = 16.0  # of the constant column of weight normalization, in root mean squares of X, where those are small
_BLOCK_ENTRIES = 2**19  # entries of the data worked on at once


@dataclass(frozen=True, eq=False, repr=False)
class LayerWeights(Summarized):
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

    def _summary(self) -> str:
        return f"{counted(self.weights.shape[1], 'feature')}, {counted(len(self.weights), 'neuron')}"


class BatchNormDesign(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""Whitened data: the design matrix of a batch-normalized layer.

    With the compact SVD ``X - 1 mu^T = U S V^T`` of rank r, ``Z = [sqrt(n) U, 1]`` has ``k = r + 1`` columns and
    ``Z^T Z = n I``. A batch-normalized neuron on X is a plain ReLU neuron on Z. With sample weights of sum W the batch
    statistics are weighted: the rows of the centred data enter the SVD times the roots of their weights, and
    ``Z^T diag(p) Z = I`` with p the weights divided by W.

    A direction in which the data hardly vary becomes a column of Z as long as any other, and so do the errors of new
    rows along it, divided by its spread. PyTorch's layer is kept from this by its ``eps``; here such directions are
    left out, by default those whose singular value is at most 1e-4 of the largest. What is left is the exact problem
    of the data without them, as under `n_components`; where none is left out, nothing changes. (Weights that fall
    smoothly towards zero would keep them all, but change the penalty of every network.)

    The columns of X are divided by their standard deviations first. Batch normalization forgets the units of the
    columns, so this changes no network and no penalty, only which directions count as large: where none is left out
    and ``spectral_power=0`` the problem is the same.

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
        None keeps every direction that `rtol` does not leave out. An int keeps that many leading singular directions
        of the centred data (all of them if there are fewer); a float in (0, 1] keeps the smallest number of leading
        directions that reach this fraction of the variance.
    rtol : float, default=1e-4
        A direction is kept if its singular value exceeds `rtol` times the largest. 1e-10 leaves out what is rounding
        in double precision alone. From 1e-6 on the singular values come from the matrix of second moments, which is
        sooner made and takes less memory.
    spectral_power : float, default=0.0
        Column i of Z is multiplied by ``(S_i / S_1)^spectral_power``; 0 is batch normalization as it is. Columns of
        weight 1e-10 or less are left out.
    standardize : bool, default=True
        Whether the singular directions are those of columns divided by their standard deviations, so that they do not
        depend on units. False takes the centred data as they are, as arXiv 2103.01499 does; directions are then left
        out by `n_components` and `spectral_power` in the units of X, and by `rtol` alone still in units of the columns.

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
    variance_share_ : float
        Share of the variance along the directions that were kept; 1 up to rounding where none was left out.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, Section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import BatchNormDesign
    >>> X = np.random.default_rng(0).standard_normal((6, 2))
    >>> Z = BatchNormDesign().fit_transform(X)
    >>> np.allclose(Z.T @ Z / 6, np.eye(3))
    True
    """

    n_patches = 1

    def __init__(
        self,
        n_components: int | float | None = None,
        rtol: float = 1e-4,
        *,
        spectral_power: float = 0.0,
        standardize: bool = True,
    ):
        self.n_components = n_components
        self.rtol = rtol
        self.spectral_power = spectral_power
        self.standardize = standardize

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
            If X is not a finite 2-D array, if all its rows (of positive weight) are equal, or if a parameter or a
            sample weight is out of range.
        """
        self._check_parameters()
        weights, data = weighted_samples(sample_weight, validate_data(self, X, dtype=np.float64))
        check_components(self.n_components, min(data.shape))
        p = weights / weights.sum()
        mean, std = _column_statistics(data, p)
        if not std.any():
            raise ValueError(
                "All rows of X are equal, 1 sample or one repeated, so batch normalization would divide by a zero "
                "variance; give data with at least two distinct rows."
            )
        units = self._units(std)
        deviations = _Deviations(data, mean, units, np.sqrt(p))
        spread, Vt, variance = _leading_directions(deviations, self.n_components, self.rtol)
        self._set_directions(mean, units, spread, Vt, variance, weights.sum(), deviations.moments)
        return self

    def _check_parameters(self) -> None:
        check_spectral_power(self.spectral_power)
        check_standardize(self.standardize)
        check_rtol(self.rtol)

    @property
    def _own_units(self) -> bool:
        """Whether each column is divided by its standard deviation, not all by the largest."""
        return self.standardize or (self.n_components is None and self.spectral_power == 0)

    def _units(self, std: np.ndarray) -> np.ndarray:
        """What columns of these standard deviations are divided by; zero for constant ones, which do not count."""
        return std if self._own_units else np.where(std > 0, std.max(), 0.0)

    def _set_directions(
        self,
        mean: np.ndarray,
        units: np.ndarray,
        spread: np.ndarray,
        Vt: np.ndarray,
        variance: float,
        total: float,
        moments: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    ) -> None:
        """Set the fitted attributes.

        Parameters
        ----------
        mean, units : ndarray of shape (d,)
            The data minus `mean`, divided by `units`, have the directions below.
        spread : ndarray of shape (r,)
            Standard deviations along the directions.
        Vt : ndarray of shape (r, d)
            The directions.
        variance : float
            Variance along all directions together.
        total : float
            Sum of the weights of all rows.
        moments : callable
            From a basis (d, r) to mean and covariance matrix of the data minus `mean` times the basis.
        """
        D = (spread / spread[0]) ** self.spectral_power
        keep = D > _SMALLEST_WEIGHT
        spread, Vt, D = spread[keep], Vt[keep], D[keep]
        whitening, coloring = Vt.T / spread / np.where(units > 0, units, np.inf)[:, None], spread[:, None] * Vt * units
        # What rounding of the moments left of mean and correlation, which is much along small directions.
        shift, correlation = moments(whitening)
        root = cholesky(correlation, lower=True)
        self.mean_ = mean + shift @ coloring
        self.whitening_ = solve_triangular(root, whitening.T, lower=True).T * D
        self.coloring_ = root.T @ coloring / D[:, None]
        self.singular_values_ = np.sqrt(total) * spread * (1.0 if self._own_units else units.max())
        self.spectral_weights_ = D
        self.variance_share_ = float(np.sum(spread**2) / variance)

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Design rows z(x) = [sqrt(n) D S^-1 V^T (x - mu); 1] for any X (n', d): an array (n', k)."""
        check_is_fitted(self)
        data = validate_data(self, X, dtype=np.float64, reset=False)
        Z = np.ones((len(data), self.whitening_.shape[1] + 1))
        for rows in _slices(len(data), data.shape[1]):
            np.matmul(data[rows] - self.mean_, self.whitening_, out=Z[rows, :-1])
        return Z

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
    ``s = (g w / |w|, bias)`` and ``Z = [X, 1]``. Where the root mean square of X is below 1/16, the constant column is
    about 16 times as large as it instead, and the weight decay acts on the bias in this unit: a bias that moves the
    kink within the data then still costs next to nothing, and no digits are lost beside a column of ones.

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
        Entry of the constant column, a power of two; 1 unless X is small.

    Examples
    --------
    >>> from convexbn import WeightNormDesign
    >>> WeightNormDesign().fit_transform([[1.0, 2.0], [3.0, 4.0]])
    array([[1., 2., 1.],
           [3., 4., 1.]])
    """

    n_patches = 1

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
        self.bias_unit_ = min(1.0, _BIAS_UNIT * size * 2.0 ** np.round(np.log2(mean_square) / 2))
        if self.n_components is None and self.spectral_power == 0:
            self.basis_, self.spectral_weights_ = np.eye(data.shape[1]), np.ones(data.shape[1])
            self.variance_share_ = 1.0
        else:
            zero = np.zeros(data.shape[1])
            rows = _Deviations(data, zero, zero + max(data.max(), -data.min()), np.sqrt(weights / weights.sum()))
            spread, Vt, squares = _leading_directions(rows, self.n_components, self.rtol)
            D = (spread / spread[0]) ** self.spectral_power
            keep = D > _SMALLEST_WEIGHT
            self.basis_, self.spectral_weights_ = Vt[keep].T, D[keep]
            self.variance_share_ = float(np.sum(spread[keep] ** 2) / squares)
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


NORMALIZATIONS: dict[str, type[BatchNormDesign] | type[WeightNormDesign]] = {
    "batch": BatchNormDesign,
    "weight": WeightNormDesign,
}


def make_design(
    normalization: str, n_components: int | float | None, spectral_power: float, standardize: bool
) -> BatchNormDesign | WeightNormDesign:
    """Unfitted design of a normalization; `standardize` is for batch normalization alone."""
    if normalization == "weight":  # whose penalty knows the units of the columns
        return WeightNormDesign(n_components, spectral_power=spectral_power)
    return BatchNormDesign(n_components, spectral_power=spectral_power, standardize=standardize)


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


def check_standardize(standardize: object) -> None:
    """Raise a ValueError unless `standardize` is True or False."""
    if not isinstance(standardize, (bool, np.bool)):
        raise ValueError(f"standardize={standardize!r} must be True or False.")


def check_rtol(rtol: object) -> None:
    """Raise a ValueError unless `rtol` is a number from 0 to 1, 1 left out."""
    number = isinstance(rtol, (int, float, np.integer, np.floating)) and not isinstance(rtol, bool)
    if not (number and 0 <= rtol < 1):  # type: ignore[operator]
        raise ValueError(
            f"rtol={rtol!r} must be a number from 0 to 1, without 1: the smallest singular value to keep over the "
            "largest."
        )


def principal_directions(moments: np.ndarray, n_components: int | float | None) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations, falling, and directions (r, d) of a matrix of second moments, which is overwritten.

    All of them, or the leading ones where `n_components` is an int.
    """
    d = len(moments)
    leading = min(int(n_components), d) if isinstance(n_components, (int, np.integer)) else d
    variances, axes = eigh(moments.T, subset_by_index=(d - leading, d - 1), overwrite_a=True, check_finite=False)
    return np.sqrt(np.maximum(variances[::-1], 0)), _with_signs(axes.T[::-1])


def rank_to_keep(S: np.ndarray, n_components: int | float | None, rtol: float) -> int:
    """How many of the falling singular values S exceed `rtol` times the largest, or are the leading ones asked for."""
    keep = int(np.sum(rtol * S[0] < S))
    if isinstance(n_components, (int, np.integer)):
        keep = min(keep, int(n_components))
    elif n_components is not None:
        share = np.cumsum(S[:keep] ** 2) / np.sum(S[:keep] ** 2)
        keep = min(keep, int(np.searchsorted(share, n_components * (1 - 1e-12))) + 1)
    return keep


@dataclass(frozen=True, eq=False)
class _Deviations:
    """The matrix (n, d) of entries ``roots_i (x_ij - mean_j) / units_j``, made a block at a time.

    A column of unit zero is zero.
    """

    data: np.ndarray
    mean: np.ndarray
    units: np.ndarray
    roots: np.ndarray

    def block(self, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """Some rows and columns of the matrix."""
        block = self.data[rows, columns] - self.mean[columns]
        block /= np.where(self.units > 0, self.units, np.inf)[columns]
        block *= self.roots[rows, None]
        return block

    def gram(self) -> np.ndarray:
        """The products of its columns, or of its rows where these are fewer."""
        n, d = self.data.shape
        gram = np.zeros((min(n, d),) * 2)
        if n >= d:
            for rows in _slices(n, d):
                block = self.block(rows)
                gram += block.T @ block
        else:
            for columns in _slices(d, n):
                block = self.block(columns=columns)
                gram += block @ block.T
        return gram

    def left_multiplied(self, U: np.ndarray) -> np.ndarray:
        """U (r, n) times the matrix."""
        product = np.empty((len(U), self.data.shape[1]))
        for columns in _slices(self.data.shape[1], len(self.data)):
            product[:, columns] = U @ self.block(columns=columns)
        return product

    def moments(self, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted mean (r,) and covariance matrix (r, r) of the data minus `mean` times the basis (d, r)."""
        first, second = np.zeros(basis.shape[1]), np.zeros((basis.shape[1],) * 2)
        for rows in _slices(*self.data.shape):
            projected = self.roots[rows, None] * ((self.data[rows] - self.mean) @ basis)
            first += self.roots[rows] @ projected
            second += projected.T @ projected
        return first, second - np.outer(first, first)


def _leading_directions(
    matrix: _Deviations, n_components: int | float | None, rtol: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Singular values and right singular vectors that are kept, and the sum of the squares of all singular values."""
    if rtol < MOMENTS_RTOL:
        _, S, Vt = svd(matrix.block(), full_matrices=False, overwrite_a=True, check_finite=False)
        keep = rank_to_keep(S, n_components, rtol)
        return S[:keep], _with_signs(Vt[:keep]), float(np.sum(S**2))
    gram = matrix.gram()
    squares = float(np.trace(gram))
    S, directions = principal_directions(gram, n_components)
    keep = rank_to_keep(S, n_components, rtol)
    S, directions = S[:keep], directions[:keep]
    if directions.shape[1] < len(matrix.mean):  # they are left singular vectors, of a matrix with fewer rows
        Vt = matrix.left_multiplied(directions) / S[:, None]
        directions = _with_signs(solve_triangular(cholesky(Vt @ Vt.T, lower=True), Vt, lower=True))
    return S, directions, squares


def _column_statistics(data: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means, and standard deviations that are zero where only rounding varies, of columns under weights of sum one."""
    low, high = data.min(axis=0), data.max(axis=0)
    spread, largest = high - low, np.maximum(np.abs(low), np.abs(high))
    constant = spread <= np.maximum(10 * np.finfo(np.float64).eps * largest, np.finfo(np.float64).tiny)
    suspects = np.flatnonzero(spread <= 10 * np.finfo(np.float32).eps * largest)
    constant[suspects] |= _single_precision(data[:, suspects])
    mean, scale = p @ data, np.where(constant, np.inf, spread)
    first, second = np.zeros(len(mean)), np.zeros(len(mean))
    for rows in _slices(*data.shape):
        deviations = data[rows] - mean
        deviations /= scale
        first += p[rows] @ deviations
        second += p[rows] @ np.square(deviations, out=deviations)
    spread[constant] = 0
    return mean + spread * first, spread * np.sqrt(np.maximum(second - first**2, 0))


def _single_precision(columns: np.ndarray) -> np.ndarray:
    """Which columns hold numbers of single precision, not all of them integers, whose rounding is coarse."""
    with np.errstate(over="ignore"):
        single = columns.astype(np.float32) == columns
    return single.all(axis=0) & (columns != np.round(columns)).any(axis=0)


def _with_signs(directions: np.ndarray) -> np.ndarray:
    """The same directions (r, d), each with the sign that makes the first of its large entries positive."""
    sizes = np.abs(directions)
    first = (sizes > 0.9 * sizes.max(axis=1, keepdims=True)).argmax(axis=1)  # two columns of one std always tie
    return directions * np.sign(directions[np.arange(len(directions)), first])[:, None]


def _slices(length: int, width: int) -> Iterator[slice]:
    """Slices of an axis of this length, of a matrix whose other axis has that width, a block at a time."""
    size = max(1, _BLOCK_ENTRIES // width)
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
