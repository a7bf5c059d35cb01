"""The kind of operator for an array."""

from numpy.typing import ArrayLike
from scipy.sparse import issparse

from convexbn._utils.array_namespace import is_elsewhere
from convexbn._utils.checks import check_kind
from convexbn.operators._dense import DesignMatrix
from convexbn.operators._device import DeviceMatrix
from convexbn.operators._protocol import Operator
from convexbn.operators._sparse import SparseDesignMatrix


def check_operator(Z: object) -> None:
    """Raise a ValueError unless Z is an operator."""
    check_kind("Z", Z, Operator, "a DesignMatrix, as DesignMatrix(array) is")


def as_design_matrix(Z: Operator | ArrayLike, n_patches: int = 1) -> Operator:
    """Return Z as an operator: a `DesignMatrix`, or the kind for sparse arrays or those of other libraries."""
    if isinstance(Z, Operator):
        return Z
    if is_elsewhere(Z):
        return DeviceMatrix(Z, n_patches)
    return SparseDesignMatrix(Z) if issparse(Z) else DesignMatrix(Z, n_patches)  # type: ignore[arg-type]
