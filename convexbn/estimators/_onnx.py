"""Fitted estimators in ONNX, with the outputs that converters of scikit-learn have."""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from convexbn.losses import CrossEntropy, LogLoss, Loss
from convexbn.network._onnx import Graph, Output

if TYPE_CHECKING:
    import onnx


class OnnxEstimator:
    """Mixin of an estimator that becomes an ONNX model, alone or as a step of what skl2onnx converts."""

    def to_onnx(self, *, dtype: Any = "float32") -> "onnx.ModelProto":
        """Return the fitted estimator as an ONNX model with the input "X".

        Regressors and transformers have one output, "variable" of shape (n, C); classifiers have "label" (n,) and
        "probabilities" (n, C), or "scores" like `decision_function` where the loss has no probabilities. Normalization
        is folded into the weights. skl2onnx converts pipelines with the estimator, too, and needs no registration.

        Parameters
        ----------
        dtype : {"float32", "float64"}, default="float32"
            As in `BatchNormNetwork.to_onnx`, with the same accuracy.

        Returns
        -------
        model : onnx.ModelProto

        Raises
        ------
        ImportError
            If onnx is not installed (``pip install 'convexbn[onnx]'``).
        ValueError
            If `dtype` is another one, weights leave its range, labels are neither numbers nor strings, or a part of the
            estimator has no form in ONNX.

        Examples
        --------
        >>> labels, probabilities = session.run(None, {"X": X.astype("float32")})  # doctest: +SKIP
        """
        check_is_fitted(self)
        graph = Graph(dtype)
        outputs = self._onnx_outputs(graph, "X")
        return graph.model("X", self._onnx_shape(), outputs)

    def onnx_converter(self) -> Callable:
        """Return what skl2onnx calls to convert the estimator."""
        return _convert

    def onnx_shape_calculator(self) -> Callable:
        """Return what skl2onnx calls for the types of the outputs."""
        return _set_types

    @abstractmethod
    def _onnx_outputs(self, graph: Graph, x: str) -> list[Output]:
        """Add the estimator to a graph, and return its outputs for x."""

    def _onnx_shape(self) -> list[int | str]:
        """Shape of X."""
        return ["n", self.n_features_in_]  # type: ignore[attr-defined]


def class_outputs(graph: Graph, f: str, classes: np.ndarray, loss: Loss, has_probabilities: bool) -> list[Output]:
    """Add labels, and probabilities or scores, of network outputs (n, C).

    Parameters
    ----------
    graph : Graph
        The graph.
    f : str
        Name of the outputs; one column for two classes, or one a class.
    classes : ndarray of shape (n_classes,)
        The labels.
    loss : Loss
        The training loss.
    has_probabilities : bool
        Whether the loss has probabilities.

    Returns
    -------
    outputs : list of Output

    Raises
    ------
    ValueError
        If labels are neither numbers nor strings, or it is not known how the loss makes probabilities.
    """
    kind = _type_of(classes)
    link = _LINKS.get(type(loss).probabilities)
    if has_probabilities and link is None:
        raise ValueError(
            f"loss={loss!r} makes probabilities in a way of its own, which has no form in ONNX; network_.to_onnx() has "
            "the outputs that they are made of."
        )
    single = loss.of_classes(len(classes)).one_hot is False
    index = (
        graph.add("Cast", graph.add("Greater", graph.add("Reshape", f, np.array([-1])), np.zeros(())), to=7)
        if single
        else graph.add("ArgMax", f, axis=1, keepdims=0)
    )
    label = Output("label", graph.add("Gather", classes.astype(kind), index), graph.real(kind), None)
    if has_probabilities and link is not None:
        return [label, Output("probabilities", link(graph, f), graph.dtype, len(classes))]
    if single:
        return [label, Output("scores", graph.add("Reshape", f, np.array([-1])), graph.dtype, None)]
    return [label, Output("scores", f, graph.dtype, len(classes))]


def _sigmoid(graph: Graph, f: str) -> str:
    return graph.add("Concat", graph.add("Sigmoid", graph.add("Neg", f)), graph.add("Sigmoid", f), axis=1)


def _softmax(graph: Graph, f: str) -> str:
    return graph.add("Softmax", f, axis=1)


_LINKS: dict[Any, Callable[[Graph, str], str]] = {LogLoss.probabilities: _sigmoid, CrossEntropy.probabilities: _softmax}


def _type_of(classes: np.ndarray) -> Any:
    """Type in which ONNX has the labels."""
    if classes.dtype.kind in "iub":
        return bool if classes.dtype.kind == "b" else np.int64
    if classes.dtype.kind == "f":
        return np.float64
    if classes.dtype.kind in "UT" or all(isinstance(label, str) for label in classes):
        return object
    raise ValueError(f"The labels {classes.tolist()!r} are neither numbers nor strings, which ONNX has alone.")


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Add an estimator to the model that skl2onnx makes."""
    variable = operator.inputs[0]
    graph = _graph_of(variable, scope.get_unique_operator_name(type(operator.raw_operator).__name__))
    x = graph.add("Cast", variable.full_name, to=graph.element_type(graph.dtype))  # integers too
    outputs = operator.raw_operator._onnx_outputs(graph, x)
    container.initializers.extend(graph.constants)
    get = graph.onnx.helper.get_attribute_value
    for node in graph.nodes:
        attributes = {attribute.name: get(attribute) for attribute in node.attribute}
        container.add_node(node.op_type, list(node.input), list(node.output), name=node.name, **attributes)
    for output, declared in zip(outputs, operator.outputs, strict=True):
        container.add_node("Identity", [output.value], [declared.full_name])


def _set_types(operator: Any) -> None:
    """Set the types of an estimator's outputs."""
    from skl2onnx.common import data_types as types

    graph, n = _graph_of(operator.inputs[0], ""), operator.inputs[0].get_first_dimension()
    kinds = {
        graph.element_type(dtype): getattr(types, f"{name}TensorType")
        for dtype, name in ((np.float32, "Float"), (np.float64, "Double"), (np.int64, "Int64"), (bool, "Boolean"))
    } | {graph.element_type(object): types.StringTensorType}
    for output, declared in zip(operator.raw_operator._onnx_outputs(graph, "X"), operator.outputs, strict=True):
        shape = [n] if output.width is None else [n, output.width]
        declared.set_type(kinds[graph.element_type(output.dtype)](shape))


def _graph_of(variable: Any, prefix: str) -> Graph:
    """Graph in the type of an input, if that is a real one."""
    from skl2onnx.common.data_types import DoubleTensorType

    return Graph("float64" if isinstance(variable.type, DoubleTensorType) else "float32", prefix)
