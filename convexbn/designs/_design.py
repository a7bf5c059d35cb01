"""What every design has in common: scikit-learn's methods, and its rows as a design matrix."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from convexbn.designs._checks import check_features
from convexbn.operators._kinds import as_design_matrix
from convexbn.operators._protocol import Operator
from convexbn.rows import RowSource

SPARSE = (
    "X is sparse: give n_components=..., the number of leading singular directions to keep, an integer; or weight "
    "normalization (normalization='weight', or a WeightNormDesign) with n_components=None and spectral_power=0, which "
    "takes X as it is."
)

PRECISIONS = [np.float64, np.float32]  # of data, that are kept


class Design(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Base class of designs."""

    n_patches = 1  # rows of Z for one sample
    after_relu: ClassVar[bool] = False  # whether the layer is normalized after its ReLU
    whitens: ClassVar[bool] = False  # whether a spectral power of 0 makes all directions equally long

    @property
    def takes_sparse(self) -> bool:
        """Whether `fit` takes sparse X, with these parameters."""
        return False

    def _check_sparse(self) -> None:
        """Raise a ValueError unless `fit` takes sparse X."""
        if not self.takes_sparse:
            raise ValueError(SPARSE)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.takes_sparse
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @abstractmethod
    def transform(self, X: ArrayLike) -> np.ndarray:
        """Design rows of any data."""

    def matrix(self, X: ArrayLike) -> Operator:
        """Design matrix of any data: the rows that `transform` gives, pooled over the patches of each sample.

        Parameters
        ----------
        X : array-like, or RowSource
            Data as for `transform`, or what `read_rows` returns, which every product then reads a block at a time.

        Returns
        -------
        Z : Operator
            A `DesignMatrix`, a `SparseDesignMatrix` where `transform` gives a sparse array, or `RowBlocks` of a
            `RowSource` unless it has up to 16 columns and an eighth of those of X.

        Examples
        --------
        >>> from convexbn import WeightNormDesign
        >>> X = [[1.0, 2.0], [3.0, 4.0]]
        >>> WeightNormDesign().fit(X).matrix(X)
        DesignMatrix(2 samples, 3 columns)
        """
        if isinstance(X, RowSource):
            check_is_fitted(self)
            check_features(self, X, reset=False)
            return self._matrix_of_source(X)
        return as_design_matrix(self.transform(X), self.n_patches)

    def _matrix_of_source(self, source: RowSource) -> Operator:
        """The design matrix of a source, unless the problem needs the rows in memory."""
        raise ValueError(
            f"{type(self).__name__} takes data in memory, such as source.take(numpy.arange(source.n_rows)).X; batch "
            "normalization before the ReLU and weight normalization read rows in blocks."
        )
