"""What weight normalization does to data: a bias column at most, and neurons on Z as layer weights."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array, eye_array, hstack, issparse
from sklearn.utils.validation import check_is_fitted

from convexbn._utils.all_or_nothing import all_or_nothing
from convexbn._utils.checks import check_flag, is_integer
from convexbn._utils.data_checks import validate_data
from convexbn._utils.magnitude import check_magnitude, power_of_two_above
from convexbn._utils.row_order import as_rows
from convexbn._utils.sample_weight import weighted_samples
from convexbn.designs._checks import check_components, check_features, check_rtol, check_spectral_power
from convexbn.designs._design import PRECISIONS, Design
from convexbn.designs._deviations import Deviations
from convexbn.designs._layer_weights import LayerWeights
from convexbn.designs._moments import Moments, TriangularMoments, Variances
from convexbn.designs._principal_directions import MOMENTS_RTOL, SMALLEST_WEIGHT, leading_directions, rank_to_keep
from convexbn.designs._row_statistics import EXACT_BELOW, RowStatistics
from convexbn.designs._sparse_deviations import SparseDeviations
from convexbn.operators._protocol import Operator
from convexbn.operators._row_blocks import of_source
from convexbn.rows import RowSource

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
        of X (not centred), as in `BatchNormDesign`; of sparse X an int.
    spectral_power : float, default=0.0
        With p > 0, Z holds the components of X along its right singular vectors, component i multiplied by
        ``(S_i / S_1)^p``; the penalty on g w / |w| is weighted by the inverse, as in `BatchNormDesign`.
    bias : bool, default=True
        Whether the neurons have a (penalised) bias, that is, whether Z has a constant column.
    rtol : float, default=1e-6
        Relative tolerance of the numerical rank, used with `n_components` and `spectral_power`.

    Attributes
    ----------
    basis_ : ndarray of shape (d, r), or None
        Orthonormal columns; ``X @ basis_ * spectral_weights_`` are the first columns of Z. None where X is taken as it
        is.
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

    @property
    def _takes_as_it_is(self) -> bool:
        return self.n_components is None and self.spectral_power == 0

    @property
    def takes_sparse(self) -> bool:
        """Whether `fit` takes sparse X: as it is, or with a number of directions."""
        return self._takes_as_it_is or is_integer(self.n_components)

    @all_or_nothing
    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn the directions that are kept.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n, d), or RowSource
            Training data. Sparse data stays sparse, in Z too where it is taken as it is. What `read_rows` returns is
            read once, a block at a time, with the accuracy that `BatchNormDesign` states.
        y : ignored
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples; integer weights equal repeated rows. If None those of a `RowSource` that has any,
            else all equal.

        Returns
        -------
        self : WeightNormDesign

        Raises
        ------
        ValueError
            If X is not a finite 2-D array, is all zero or so large or small that squares are no floats, or
            `n_components`, `bias`, `spectral_power` or a sample weight is out of range.
        """
        check_spectral_power(self.spectral_power)
        check_rtol(self.rtol)
        check_flag("bias", self.bias)
        if isinstance(X, RowSource):
            check_features(self, X, reset=True)
            return self._learn(RowStatistics.of_source(X, sample_weight, kind=self.moments_kind))
        data = self._validated(X, reset=True)
        if issparse(data):
            self._check_sparse()
        weights, data = weighted_samples(sample_weight, data)
        check_components(self.n_components, min(data.shape))
        self._check_size(data.data if isinstance(data, csr_array) else data)
        size = power_of_two_above(data)
        squares = (data / size).power(2) if isinstance(data, csr_array) else np.square(data / size)
        mean_square = float(weights / weights.sum() @ squares.mean(axis=1, dtype=np.float64))
        self._set_bias_unit(size, mean_square)
        if self._takes_as_it_is:
            self._set_identity(data.shape[1])
        else:
            zero = np.zeros(data.shape[1])
            kind = SparseDeviations if issparse(data) else Deviations
            rows = kind(data, zero, zero + max(data.max(), -data.min()), np.sqrt(weights / weights.sum()))
            self._set_directions(*leading_directions(rows, self.n_components, self.rtol))
        return self

    @property
    def moments_kind(self) -> type[Moments]:
        """Moments of parts to learn from: triangular factors where `rtol` keeps directions that are so small."""
        if self._takes_as_it_is:
            return Variances
        return TriangularMoments if self.rtol < EXACT_BELOW else Moments

    def _learn(self, statistics: RowStatistics) -> Self:
        """Learn the directions from the statistics of all rows, merged from those of blocks."""
        extremes = np.stack([statistics.ranges.low, statistics.ranges.high])
        n_features = extremes.shape[1]
        check_components(self.n_components, min(statistics.n_rows, n_features))
        self._check_size(extremes)
        size, zero = power_of_two_above(extremes), np.zeros(n_features)
        moments = statistics.moments.about(zero)
        self._set_bias_unit(size, float(np.square(moments.std / size).mean()))
        if self._takes_as_it_is:
            self._set_identity(n_features)
        else:
            S, Vt, square = moments.directions(zero + size, self.n_components)
            keep = rank_to_keep(S, self.n_components, self.rtol)
            self._set_directions(S[:keep], Vt[:keep], square)
        return self

    @staticmethod
    def _check_size(values: np.ndarray) -> None:
        if not values.any():
            raise ValueError("X is all zero; a weight-normalized network learns nothing from it.")
        check_magnitude(values, "X")

    def _set_bias_unit(self, size: float, mean_square: float) -> None:
        """Set the entry of the constant column, for data with this mean square after division by `size`."""
        root_mean_square = size * 2.0 ** np.round(np.log2(mean_square) / 2)
        self.bias_unit_ = 1.0 if root_mean_square >= _SMALL else _BIAS_UNIT * root_mean_square

    def _set_identity(self, n_features: int) -> None:
        self.basis_, self.spectral_weights_, self.variance_share_ = None, np.ones(n_features), 1.0

    def _set_directions(self, S: np.ndarray, Vt: np.ndarray, squares: float) -> None:
        D = (S / S[0]) ** self.spectral_power
        keep = D > SMALLEST_WEIGHT
        self.basis_, self.spectral_weights_ = Vt[keep].T, D[keep]
        self.variance_share_ = float(np.sum(S[keep] ** 2) / squares)

    def _matrix_of_source(self, source: RowSource) -> Operator:
        shape = source.n_features, self._n_features_out
        slopes = eye_array(*shape, format="csr")
        if self.basis_ is not None:
            slopes = np.pad(self.basis_ * self.spectral_weights_, ((0, 0), (0, int(self.bias))))
        offsets = np.zeros(shape[1])
        if self.bias:
            offsets[-1] = self.bias_unit_
        return of_source(source, np.zeros(source.n_features), slopes, offsets)

    def _validated(self, X: ArrayLike, reset: bool) -> Any:
        data = validate_data(self, X, dtype=PRECISIONS, accept_sparse="csr", reset=reset)
        return as_rows(data.astype(np.float64)) if issparse(data) else data

    def transform(self, X: ArrayLike) -> np.ndarray | csr_array:
        """Design rows [D basis^T x; bias_unit] for any X (n', d): (n', k), sparse where sparse X is taken as it is."""
        check_is_fitted(self)
        Z = self._validated(X, reset=False)
        if self.basis_ is not None:
            Z = Z @ (self.basis_ * self.spectral_weights_).astype(Z.dtype)
        if not self.bias:
            return Z
        column = np.full((Z.shape[0], 1), self.bias_unit_, dtype=Z.dtype)
        return hstack([Z, csr_array(column)], format="csr") if issparse(Z) else np.hstack([Z, column])

    @property
    def _n_features_out(self) -> int:
        return len(self.spectral_weights_) + bool(self.bias)

    def affine(self, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slopes (m, d) and offsets (m,) with ``transform(X) @ S == X @ slopes.T + offsets``."""
        r = len(self.spectral_weights_)
        slopes = (S[:r] if self.basis_ is None else self.basis_ * self.spectral_weights_ @ S[:r]).T
        return slopes, self.bias_unit_ * S[r] if self.bias else np.zeros(S.shape[1])

    def neuron_weights(self, S: np.ndarray) -> LayerWeights:
        """Layer weights whose weight-normalized neurons equal relu(Z s) for every column s of S (k, m)."""
        slopes, bias = self.affine(S)
        gamma = np.linalg.norm(slopes, axis=1)
        first = np.eye(1, slopes.shape[1])[0] if self.basis_ is None else self.basis_[:, 0]
        weights = np.where(gamma[:, None] > 0, slopes, first)
        std = np.linalg.norm(weights, axis=1)
        return LayerWeights(weights, gamma, bias.copy(), np.zeros(len(gamma)), std)

    def neurons(self, weights: np.ndarray, gamma: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Undo `neuron_weights`: columns s (k, m) of the neurons with these weights."""
        S = gamma * weights.T / np.linalg.norm(weights, axis=1)
        if self.basis_ is not None:
            S = (self.basis_ / self.spectral_weights_).T @ S
        return np.vstack([S, bias / self.bias_unit_]) if self.bias else S
