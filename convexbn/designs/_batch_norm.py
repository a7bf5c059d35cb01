"""What batch normalization does to data: whitened rows Z, and neurons on Z as layer weights.

A two-layer network with batch normalization is a plain ReLU network on the whitened data (arXiv 2103.01499).
"""

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cholesky, solve_triangular
from scipy.sparse import issparse
from sklearn.utils.validation import check_is_fitted

from convexbn._utils.all_or_nothing import all_or_nothing
from convexbn._utils.checks import is_integer
from convexbn._utils.data_checks import validate_data
from convexbn._utils.on_disk import is_on_disk
from convexbn._utils.row_order import as_rows
from convexbn._utils.sample_weight import weighted_samples
from convexbn.designs._checks import (
    check_components,
    check_features,
    check_rtol,
    check_spectral_power,
    check_standardize,
)
from convexbn.designs._column_statistics import column_statistics
from convexbn.designs._design import PRECISIONS, Design
from convexbn.designs._deviations import Deviations, slices
from convexbn.designs._feature_metric import check_feature_metric, metric_basis
from convexbn.designs._layer_weights import LayerWeights
from convexbn.designs._moments import Moments, TriangularMoments
from convexbn.designs._principal_directions import SMALLEST_WEIGHT, leading_directions, rank_to_keep
from convexbn.designs._row_statistics import EXACT_BELOW, RowStatistics
from convexbn.designs._sparse_deviations import SparseDeviations
from convexbn.operators._protocol import Operator
from convexbn.operators._row_blocks import of_source
from convexbn.rows import ArrayRows, RowSource


class BatchNormDesign(Design):
    r"""Whitened data: the design matrix of a batch-normalized layer.

    With the compact SVD ``X - 1 mu^T = U S V^T`` of rank r, ``Z = [sqrt(n) U, 1]`` has ``k = r + 1`` columns and
    ``Z^T Z = n I``. A batch-normalized neuron on X is a plain ReLU neuron on Z. With sample weights of sum W the batch
    statistics are weighted: the rows of the centred data enter the SVD times the roots of their weights, and
    ``Z^T diag(p) Z = I`` with p the weights divided by W.

    A direction in which the data hardly vary becomes a column of Z as long as any other, and so do the errors of new
    rows along it, divided by its standard deviation. PyTorch's layer is kept from this by its ``eps``; here such
    directions are left out, by default those whose singular value is at most 1e-4 of the largest. What is left is the
    exact problem of the data without them, as under `n_components`; where none is left out, nothing changes. (Weights
    that fall smoothly towards zero would keep them all, but change the penalty of every network.)

    The columns of X are divided by their standard deviations first. Batch normalization does not depend on the scale
    of the columns, so this changes no network and no penalty, only which directions count as large: where none is left
    out and ``spectral_power=0`` the problem is the same.

    Gradient descent favours large singular directions, whitening treats all alike. A `spectral_power` p > 0 lies
    between: column i is multiplied by ``(S_i / S_1)^p``. Neurons on the weighted Z still map back exactly to an
    ordinary batch-normalized network, but their penalty is another one. With D the diagonal of the weights it is
    ``weight_decay / 2 * sum_j (|D^-1 gamma_j q_j|^2 + bias_j^2 + |c_j|^2)``, q_j the unit vector along S V^T w_j, so
    a neuron along a small direction costs more. At p = 1 Z is the centred data over its largest standard
    deviation and gamma_j w_j / std_j itself is penalised. A certificate on the weighted Z is about this objective, not
    about the one that PyTorch minimises with plain weight decay.

    A `feature_metric` M does the same with directions that a target makes important, not the data: the columns of Z
    that hold the data are multiplied by a symmetric root R, so that a neuron costs less along directions that M finds
    important. R is the root of M in the coordinates of these columns, plus a ten-thousandth of its mean eigenvalue,
    scaled so that the largest standard deviation of the data along a direction of Z stays one; ``D^-1`` in the penalty
    is then ``(D R)^-1``. M may be the average outer product of the gradients of a network, `feature_metric_` of a
    fitted estimator [2]_.

    Parameters
    ----------
    n_components : int, float or None, default=None
        None keeps every direction that `rtol` does not leave out. An int keeps that many leading singular directions
        of the centred data (all of them if there are fewer); a float in (0, 1] keeps the smallest number of leading
        directions that reach this fraction of the variance. Sparse X takes an int, which it must be given.
    rtol : float, default=1e-4
        A direction is kept if its singular value exceeds `rtol` times the largest. 1e-10 leaves out what is rounding
        in double precision alone. From 1e-6 on the singular values come from the matrix of second moments, which is
        sooner made and takes less memory; of data that is read in blocks from 1e-4 on.
    spectral_power : float, default=0.0
        Column i of Z is multiplied by ``(S_i / S_1)^spectral_power``; 0 is batch normalization as it is. Columns of
        weight 1e-10 or less are left out.
    standardize : bool, default=True
        Whether the singular directions are those of columns divided by their standard deviations, so that they do not
        depend on the scale of the columns. False takes the centred data as they are, as arXiv 2103.01499 does;
        directions are then left out by `n_components` and `spectral_power` on the scale of X, and by `rtol` alone still
        on that of standardized columns.
    feature_metric : array-like of shape (d, d) or None, default=None
        Symmetric matrix without negative eigenvalues, in the units of X; its size does not count. None is the identity
        of the columns of Z.

    Attributes
    ----------
    mean_ : ndarray of shape (d,)
        Column means mu.
    singular_values_ : ndarray of shape (r,)
        Singular values S that were kept.
    spectral_weights_ : ndarray of shape (r,)
        The weights ``(S_i / S_1)^spectral_power`` of the first r columns of Z.
    metric_basis_ : ndarray of shape (r, r) or None
        The root R by which these columns are multiplied, where there is a `feature_metric`.
    whitening_ : ndarray of shape (d, r)
        ``(X - mu) @ whitening_`` are the first r columns of Z.
    coloring_ : ndarray of shape (r, d)
        The first r columns of Z times `coloring_` are the centred data (its kept part).
    variance_share_ : float
        Share of the variance along the directions that were kept; 1 up to rounding where none was left out.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, Section 2.
    .. [2] Radhakrishnan et al., "Mechanism for feature learning in neural networks and backpropagation-free machine
       learning models", Science 383 (2024), arXiv 2212.13881.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import BatchNormDesign
    >>> X = np.random.default_rng(0).standard_normal((6, 2))
    >>> Z = BatchNormDesign().fit_transform(X)
    >>> np.allclose(Z.T @ Z / 6, np.eye(3))
    True
    """

    whitens = True

    def __init__(
        self,
        n_components: int | float | None = None,
        rtol: float = 1e-4,
        *,
        spectral_power: float = 0.0,
        standardize: bool = True,
        feature_metric: ArrayLike | None = None,
    ):
        self.n_components = n_components
        self.rtol = rtol
        self.spectral_power = spectral_power
        self.standardize = standardize
        self.feature_metric = feature_metric

    @property
    def takes_sparse(self) -> bool:
        """Whether `fit` takes sparse X: with a number of directions, as the rows of all are dense."""
        return is_integer(self.n_components)

    @all_or_nothing
    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn mean and whitening.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n, d), or RowSource
            Training data, at least two rows that differ. Sparse data is centred in products with it, and its leading
            directions are found by a Lanczos method, so that it stays sparse; Z is dense. What `read_rows` returns is
            read once, a block at a time. Singular values of relative size r then have a relative error of about
            1e-16 / r^2; with ``rtol < 1e-4`` of 1e-16 / r, as in an SVD, for about four times the work (TSQR).
        y : ignored
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples; integer weights equal repeated rows. If None those of a `RowSource` that has any,
            else all equal.

        Returns
        -------
        self : BatchNormDesign

        Raises
        ------
        ValueError
            If X is not a finite 2-D array, if all its rows (of positive weight) are equal, or if a parameter or a
            sample weight is out of range. If X is sparse and `n_components` is not an int.
        """
        self._check_parameters()
        if isinstance(X, RowSource):
            check_features(self, X, reset=True)
            return self._learn(RowStatistics.of_source(X, sample_weight, kind=self.moments_kind))
        data = validate_data(self, X, dtype=PRECISIONS, accept_sparse="csr")
        if issparse(data):
            self._check_sparse()
            data = as_rows(data.astype(np.float64))
        weights, data = weighted_samples(sample_weight, data)
        check_components(self.n_components, min(data.shape))
        p = weights / weights.sum()
        mean, std = column_statistics(data, p)
        scale = self._column_scale(self._checked(std))
        deviations = (SparseDeviations if issparse(data) else Deviations)(data, mean, scale, np.sqrt(p))
        S, Vt, variance = leading_directions(deviations, self.n_components, self.rtol)
        self._set_directions(mean, scale, S, Vt, variance, weights.sum(), deviations.moments)
        return self

    @property
    def moments_kind(self) -> type[Moments]:
        """Moments of parts to learn from: triangular factors where `rtol` keeps directions that are so small."""
        return TriangularMoments if self.rtol < EXACT_BELOW else Moments

    def _learn(self, statistics: RowStatistics) -> Self:
        """Learn mean and whitening from the statistics of all rows, merged from those of blocks."""
        check_components(self.n_components, min(statistics.n_rows, len(statistics.moments.mean)))
        moments, scale = statistics.moments, self._column_scale(self._checked(statistics.std))
        S, Vt, variance = moments.directions(scale, self.n_components)
        keep = rank_to_keep(S, self.n_components, self.rtol)
        mean = moments.mean
        self._set_directions(
            mean, scale, S[:keep], Vt[:keep], variance, moments.weight, partial(moments.projected, mean)
        )
        return self

    @staticmethod
    def _checked(std: np.ndarray) -> np.ndarray:
        """The standard deviations of columns, which must not all be zero."""
        if not std.any():
            raise ValueError(
                "All rows of X are equal, 1 sample or one repeated, so batch normalization would divide by a zero "
                "variance; give data with at least two distinct rows."
            )
        return std

    def _check_parameters(self) -> None:
        check_spectral_power(self.spectral_power)
        check_standardize(self.standardize)
        check_feature_metric(self.feature_metric)
        check_rtol(self.rtol)

    @property
    def _divides_by_std(self) -> bool:
        """Whether each column is divided by its standard deviation, not all by the largest."""
        return self.standardize or (self.n_components is None and self.spectral_power == 0)

    def _column_scale(self, std: np.ndarray) -> np.ndarray:
        """What columns of these standard deviations are divided by; zero for constant ones, which do not count."""
        return std if self._divides_by_std else np.where(std > 0, std.max(), 0.0)

    def _set_directions(
        self,
        mean: np.ndarray,
        scale: np.ndarray,
        S: np.ndarray,
        Vt: np.ndarray,
        variance: float,
        total: float,
        moments: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    ) -> None:
        """Set the fitted attributes.

        Parameters
        ----------
        mean, scale : ndarray of shape (d,)
            The data minus `mean`, divided by `scale`, have the directions below.
        S : ndarray of shape (r,)
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
        D = (S / S[0]) ** self.spectral_power
        keep = D > SMALLEST_WEIGHT
        S, Vt, D = S[keep], Vt[keep], D[keep]
        whitening, coloring = Vt.T / S / np.where(scale > 0, scale, np.inf)[:, None], S[:, None] * Vt * scale
        # What rounding of the moments left of mean and correlation, which is much along small directions.
        shift, correlation = moments(whitening)
        real = correlation.diagonal() > 0.5  # or the direction is what rounding of the mean made, of columns far from 0
        S, D, whitening, coloring = S[real], D[real], whitening[:, real], coloring[real]
        shift, root = shift[real], cholesky(correlation[np.ix_(real, real)], lower=True)
        self.mean_ = mean + shift @ coloring
        self.whitening_ = solve_triangular(root, whitening.T, lower=True).T * D
        self.coloring_ = root.T @ coloring / D[:, None]
        self.singular_values_ = np.sqrt(total) * S * (1.0 if self._divides_by_std else scale.max())
        self.spectral_weights_ = D
        self.metric_basis_: np.ndarray | None = None
        self.variance_share_ = float(np.sum(S**2) / variance)
        if self.feature_metric is not None:
            self._measure(self.feature_metric)

    def _measure(self, metric: ArrayLike) -> np.ndarray:
        """Multiply the columns of Z that hold the data by the root of a metric, and return it."""
        basis = metric_basis(metric, self.coloring_, self.spectral_weights_)
        self.whitening_, self.coloring_ = self.whitening_ @ basis, np.linalg.solve(basis, self.coloring_)
        self.metric_basis_ = basis
        return basis

    def with_feature_metric(self, metric: ArrayLike) -> tuple[Self, np.ndarray]:
        """Return the same fitted design with a feature metric, and the matrix by which that multiplies Z.

        Parameters
        ----------
        metric : array-like of shape (d, d)
            Symmetric matrix without negative eigenvalues.

        Returns
        -------
        design : BatchNormDesign
            Whose rows are those of this one times `basis`; this one stays as it is.
        basis : ndarray of shape (k, k)
            The root of the metric, and 1 for the constant column.

        Raises
        ------
        ValueError
            If the metric is not such a matrix, or is zero along all directions of the data.

        Examples
        --------
        >>> import numpy as np
        >>> from convexbn import BatchNormDesign
        >>> X = np.random.default_rng(0).standard_normal((6, 2))
        >>> plain = BatchNormDesign().fit(X)
        >>> design, basis = plain.with_feature_metric(np.diag([1.0, 0.0]))  # the first feature alone is important
        >>> bool(np.allclose(design.transform(X), plain.transform(X) @ basis))
        True
        """
        check_is_fitted(self)
        check_feature_metric(metric)
        other = copy(self).set_params(feature_metric=metric)
        basis = np.eye(self._n_features_out)
        basis[:-1, :-1] = other._measure(metric)
        return other, basis

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Design rows z(x) = [sqrt(n) D S^-1 V^T (x - mu); 1] for any X (n', d): an array (n', k)."""
        check_is_fitted(self)
        data = validate_data(self, X, dtype=PRECISIONS, reset=False, accept_sparse="csr")
        Z = np.ones((data.shape[0], self.whitening_.shape[1] + 1), dtype=data.dtype)
        if issparse(data):
            Z[:, :-1] = data @ self.whitening_ - self.mean_ @ self.whitening_
            return Z
        for rows in slices(len(data), data.shape[1]):
            np.matmul(data[rows] - self.mean_, self.whitening_, out=Z[rows, :-1])
        return Z

    def matrix(self, X: ArrayLike) -> Operator:
        """Design matrix of any data: the rows that `transform` gives.

        Parameters
        ----------
        X : array-like of shape (n', d), or RowSource
            Data; in single precision it stays so. What `read_rows` returns, and a memory map of floats and at least
            2**27 numbers, a gibibyte of float64, is neither copied nor transformed as a whole: every product reads it a
            block of rows at a time.

        Returns
        -------
        Z : DesignMatrix or RowBlocks
            `RowBlocks` of data that is read in blocks, unless Z has up to 16 columns and an eighth of those of X.
        """
        if self.after_relu or isinstance(X, RowSource) or not is_on_disk(X):
            return super().matrix(X)
        check_is_fitted(self)
        return self._matrix_of_source(ArrayRows(validate_data(self, X, dtype=PRECISIONS, reset=False)))

    def _matrix_of_source(self, source: RowSource) -> Operator:
        slopes = np.pad(self.whitening_, ((0, 0), (0, 1)))
        return of_source(source, self.mean_, slopes, np.eye(slopes.shape[1])[-1])

    @property
    def _n_features_out(self) -> int:
        return len(self.coloring_) + 1

    def affine(self, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slopes (m, d) and offsets (m,) with ``transform(X) @ S == X @ slopes.T + offsets``."""
        slopes = (self.whitening_ @ S[:-1]).T
        return slopes, S[-1] - slopes @ self.mean_

    def neuron_weights(self, S: np.ndarray) -> LayerWeights:
        """Layer weights whose batch-normalized neurons equal relu(Z s) for every column s of S (k, m)."""
        gamma = self._standard_deviations(S[:-1])
        directions = np.divide(S[:-1], gamma, where=gamma > 0, out=np.eye(len(S) - 1, 1) + np.zeros_like(S[:-1]))
        weights = (self.whitening_ @ directions).T
        return LayerWeights(weights, gamma, S[-1].copy(), weights @ self.mean_, np.ones(len(gamma)))

    def neurons(self, weights: np.ndarray, gamma: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Undo `neuron_weights`: columns s (k, m) of the neurons with these weights on the training data.

        A neuron whose weights do not vary over the training data is refused with a ValueError.
        """
        directions = self.coloring_ @ weights.T
        std = self._standard_deviations(directions)
        if not (std > 0).all():
            raise ValueError("A neuron does not vary over X, so it cannot be batch-normalized on it.")
        return np.vstack([gamma * directions / std, bias])

    def _standard_deviations(self, S: np.ndarray) -> np.ndarray:
        """Of the data along directions of the columns of Z that hold them, (r, m)."""
        along = S if self.metric_basis_ is None else self.metric_basis_ @ S
        std: np.ndarray = np.linalg.norm(self.spectral_weights_[:, None] * along, axis=0)
        return std
