"""The products with the design matrix that solvers are written in; nothing outside this folder touches the array."""

from convexbn.operators._dense import DesignMatrix
from convexbn.operators._device import DeviceMatrix
from convexbn.operators._protocol import Operator
from convexbn.operators._row_blocks import RowBlocks
from convexbn.operators._sparse import SparseDesignMatrix

__all__ = ["DesignMatrix", "DeviceMatrix", "Operator", "RowBlocks", "SparseDesignMatrix"]
