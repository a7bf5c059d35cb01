"""What every design has in common: scikit-learn's methods, and its rows as a design matrix."""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from convexbn.operators._dense import DesignMatrix
from convexbn.operators._protocol import Operator


class Design(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Base class of designs."""

    n_patches = 1  # rows of Z for one sample
    after_relu: ClassVar[bool] = False  # whether the layer is normalized after its ReLU
    whitens: ClassVar[bool] = False  # whether a spectral power of 0 makes all directions equally long

    @abstractmethod
    def transform(self, X: ArrayLike) -> np.ndarray:
        """Design rows of any data."""

    def matrix(self, X: ArrayLike) -> Operator:
        """Design matrix of any data: the rows that `transform` gives, pooled over the patches of each sample.

        Parameters
        ----------
        X : array-like
            Data as for `transform`.

        Returns
        -------
        Z : Operator
            A `DesignMatrix`, unless the design has another kind.

        Examples
        --------
        >>> from convexbn import WeightNormDesign
        >>> X = [[1.0, 2.0], [3.0, 4.0]]
        >>> WeightNormDesign().fit(X).matrix(X)
        DesignMatrix(2 samples, 3 columns)
        """
        return DesignMatrix(self.transform(X), self.n_patches)
