"""The kind of operator for an array."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse

from convexbn.operators._dense import DesignMatrix
from convexbn.operators._protocol import Operator
from convexbn.operators._sparse import SparseDesignMatrix


def as_design_matrix(Z: Operator | ArrayLike, n_patches: int = 1) -> Operator:
    """Return Z as an operator: an array as a `DesignMatrix`, a sparse one as a `SparseDesignMatrix`."""
    if isinstance(Z, Operator):
        return Z
    return SparseDesignMatrix(Z) if issparse(Z) else DesignMatrix(np.asarray(Z), n_patches)
