"""ONNX graphs: nodes in one floating-point type, and the model that they make up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from convexbn._utils.version import __version__
from convexbn.designs._patches import PatchGrid

if TYPE_CHECKING:
    import onnx

_OPSET, _IR_VERSION = 18, 8  # of onnx 1.13 and all that came after
_TO_THE_END = np.iinfo(np.int64).max
_FAR = 4  # times larger offsets
_DTYPES = "float32", "float64"


def import_onnx() -> Any:
    """Import onnx, or say which extra is missing."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError("This needs onnx: pip install 'convexbn[onnx]'.") from error
    return onnx


@dataclass(frozen=True)
class Output:
    """An output of a model.

    Parameters
    ----------
    name : str
        Its name in the model.
    value : str
        The name that it has in the graph.
    dtype : dtype
        Its type.
    width : int or None
        Columns; None where it is one-dimensional.
    """

    name: str
    value: str
    dtype: Any
    width: int | None


class Graph:
    """Nodes and constants, added one after the other; what is computed has a name.

    Parameters
    ----------
    dtype : {"float32", "float64"} or the dtype
        Type of all real numbers.
    prefix : str, default=""
        What names begin with, where the graph becomes part of another one.

    Raises
    ------
    ImportError
        If onnx is not installed.
    ValueError
        If `dtype` is another one.
    """

    def __init__(self, dtype: Any = "float32", prefix: str = ""):
        self.onnx = import_onnx()
        try:
            name = np.dtype(dtype).name
        except TypeError:
            name = ""
        if name not in _DTYPES:
            raise ValueError(f"dtype={dtype!r} must be 'float32' or 'float64'.")
        self.dtype, self.prefix = np.dtype(name), prefix
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, *inputs: str | np.ndarray, **attributes: Any) -> str:
        """Add a node of an operator and return the name of its output; arrays among the inputs become constants."""
        names = [name if isinstance(name, str) else self.constant(name) for name in inputs]
        output = f"{self.prefix}{kind}{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, names, [output], name=output, **attributes))
        return output

    def constant(self, values: np.ndarray) -> str:
        """Add a constant, real numbers in the type of the graph, and return its name."""
        array = np.asarray(values)
        if array.dtype.kind in "OUT":
            array = array.astype(object)
        elif array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                array = array.astype(self.dtype)
            if not np.isfinite(array).all():
                raise ValueError("The weights leave the range of float32; give dtype='float64'.")
        name = f"{self.prefix}constant{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def affine(self, x: str, weights: np.ndarray, offsets: np.ndarray) -> str:
        """Add x @ weights.T + offsets (n, m) of x (n, d)."""
        return self.add("Gemm", x, np.ascontiguousarray(weights), offsets, transB=1)

    def affine_on_data(self, x: str, weights: np.ndarray, offsets: np.ndarray) -> str:
        """Add the same of columns that may be far from zero.

        In single precision columns are first moved by the point that is nearest to all zeros of the affine functions,
        which lie among the data, if offsets are much smaller there: terms that cancel would take the last digits.
        """
        if self.dtype == np.float32:
            nearest = -np.linalg.lstsq(weights, offsets, rcond=None)[0]
            centre = nearest.astype(self.dtype).astype(np.float64)  # what is subtracted, to the last digit
            moved = offsets + weights @ centre
            if np.abs(offsets).max() > _FAR * np.abs(moved).max():
                return self.affine(self.add("Sub", x, centre), weights, moved)
        return self.affine(x, weights, offsets)

    def convolution(self, x: str, filters: np.ndarray, offsets: np.ndarray, grid: PatchGrid) -> str:
        """Add filters (m, channels, height, width) on images, plus offsets: shape (n, m, rows, columns).

        It is a Conv in float32. For float64, of which onnxruntime has none, it is made of slices of the images.
        """
        vertical, horizontal = grid.padding
        if self.dtype == np.float32:
            pads = [vertical, horizontal, vertical, horizontal]
            return self.add("Conv", x, filters, offsets, pads=pads, strides=list(grid.stride))
        if any(grid.padding):
            x = self.add("Pad", x, np.array([0, 0, vertical, horizontal] * 2))
        height, width = grid.kernel_size
        axes, steps = np.array([2, 3]), np.array(grid.stride)
        slices = []
        for row, column in np.ndindex(height, width):
            left = np.array([row - height + 1, column - width + 1])  # what lies beyond the last position, negative
            slices.append(
                self.add("Slice", x, np.array([row, column]), np.where(left < 0, left, _TO_THE_END), axes, steps)
            )
        patches = self.add("Transpose", self.add("Concat", *slices, axis=1), perm=[0, 2, 3, 1])
        weights = filters.transpose(2, 3, 1, 0).reshape(-1, len(filters))
        outputs = self.add("Add", self.add("MatMul", patches, weights), offsets)
        return self.add("Transpose", outputs, perm=[0, 3, 1, 2])

    def pool(self, x: str) -> str:
        """Add the mean over each image, (n, m) of x (n, m, rows, columns)."""
        return self.add("ReduceMean", x, np.array([2, 3]), keepdims=0)

    def model(self, x: str, shape: Sequence[int | str], outputs: Sequence[Output]) -> "onnx.ModelProto":
        """Return the checked model with the input `x` of this shape and the outputs."""
        helper = self.onnx.helper
        named = [
            helper.make_node("Identity", [output.value], [output.name], name=output.name)  # keeps inner names
            for output in outputs
        ]
        graph = helper.make_graph(
            self.nodes + named,
            "convexbn",
            [helper.make_tensor_value_info(x, self.element_type(self.dtype), shape)],
            [
                helper.make_tensor_value_info(
                    output.name,
                    self.element_type(output.dtype),
                    ["n"] if output.width is None else ["n", output.width],
                )
                for output in outputs
            ],
            self.constants,
        )
        model = helper.make_model(
            graph,
            producer_name="convexbn",
            producer_version=__version__,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
        )
        self.onnx.checker.check_model(model)
        return model

    def real(self, dtype: Any) -> Any:
        """Return a type as it is in the graph, where real numbers have one type."""
        return self.dtype if np.dtype(dtype).kind == "f" else dtype

    def element_type(self, dtype: Any) -> int:
        """Return the number that ONNX has for a type."""
        if np.dtype(dtype).kind in "OUT":
            return int(self.onnx.TensorProto.STRING)
        return int(self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
