"""The kind of operator for an array."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse

from convexbn._utils.array_namespace import is_elsewhere
from convexbn.operators._dense import DesignMatrix
from convexbn.operators._device import DeviceMatrix
from convexbn.operators._protocol import Operator
from convexbn.operators._sparse import SparseDesignMatrix


def as_design_matrix(Z: Operator | ArrayLike, n_patches: int = 1) -> Operator:
    """Return Z as an operator: a `DesignMatrix`, or the kind for sparse arrays or those of other libraries."""
    if isinstance(Z, Operator):
        return Z
    if is_elsewhere(Z):
        return DeviceMatrix(Z, n_patches)
    return SparseDesignMatrix(Z) if issparse(Z) else DesignMatrix(np.asarray(Z), n_patches)
