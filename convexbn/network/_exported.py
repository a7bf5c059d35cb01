"""Networks in ONNX: one input X, one output."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from convexbn.network._onnx import Graph, Output

if TYPE_CHECKING:
    import onnx


class Exported:
    """Mixin of a network that becomes an ONNX model."""

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """Outputs C."""

    def to_onnx(self, *, dtype: Any = "float32") -> "onnx.ModelProto":
        """Return the network as an ONNX model with input "X" and output "variable" (n, C), those of `predict`.

        Normalization is folded into the weights. float64 agrees with `predict` to rounding, float32 to about 1e-6 of
        the largest output, to 1e-5 where columns of X are nearly equal, and to 1e-4 where they are far from zero with
        weight normalization. In float32 a gate of a gated network may open or close on a sample that lies on it.

        Parameters
        ----------
        dtype : {"float32", "float64"}, default="float32"
            Type of input, weights and output.

        Returns
        -------
        model : onnx.ModelProto
            For `onnx.save`, or ``onnxruntime.InferenceSession(model.SerializeToString())``.

        Raises
        ------
        ImportError
            If onnx is not installed (``pip install 'convexbn[onnx]'``).
        ValueError
            If `dtype` is another one, or weights leave its range.

        Examples
        --------
        >>> import onnx, onnxruntime  # doctest: +SKIP
        >>> model = network.to_onnx()  # doctest: +SKIP
        >>> session = onnxruntime.InferenceSession(model.SerializeToString())  # doctest: +SKIP
        >>> (outputs,) = session.run(None, {"X": X.astype("float32")})  # doctest: +SKIP
        """
        graph = Graph(dtype)
        outputs = self._add_to(graph, "X")
        return graph.model("X", self._onnx_shape(), [Output("variable", outputs, graph.dtype, self.n_outputs)])

    @abstractmethod
    def _add_to(self, graph: Graph, x: str) -> str:
        """Add the outputs (n, C) for x to a graph, and return their name."""

    @abstractmethod
    def _onnx_shape(self) -> list[int | str]:
        """Shape of X; what is free has a name."""
