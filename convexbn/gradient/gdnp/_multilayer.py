"""Networks of several dense layers, with batch normalization before every activation or without it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.checks import check_choice, make_generator
from convexbn._utils.summary import Summarized, counted
from convexbn.gradient._hessian import block_norms
from convexbn.gradient._options import check_integer, check_samples
from convexbn.gradient.gdnp._functions import ACTIVATIONS
from convexbn.network._base import check_data, import_torch

_CONSTANT = 1e-12  # spread of a unit that does not vary, relative to its largest preactivation


class Batch(NamedTuple):
    """What a layer sees of a batch: its inputs (n, k) and, if it is normalized, the spreads (m,) of its units."""

    inputs: Any
    spreads: Any


@dataclass(frozen=True, eq=False, repr=False)
class MultilayerNetwork(Summarized):
    """Network f(x) = V a_L + c of dense layers a_l = phi(t_l), the direction and the length of every unit apart.

    The input is a_0 = x. A unit of layer l has a direction w, a length g and a shift b; its preactivation is
    t = g w^T (a - E[a]) / |w|_S + b with S the covariance of a = a_(l-1), so |w|_S is the standard deviation of w^T a.
    Means and covariances are those of the samples at hand: this is batch normalization before the activation, as in
    training. Without batch normalization there are no lengths, and t = w^T a + b.

    Parameters
    ----------
    weights : sequence of ndarray of shapes (m_1, d), (m_2, m_1) and so on
        A direction w, or weights, in each row; one array for each of the L hidden layers.
    shifts : sequence of ndarray of shapes (m_1,), (m_2,) and so on
        The b.
    output_weights : ndarray of shape (C, m_L)
        Output weights V.
    output_bias : ndarray of shape (C,)
        Output bias c.
    lengths : sequence of ndarray of shapes (m_1,), (m_2,), ... or None, default=None
        The g; None is a network without batch normalization.
    activation : {"tanh", "sigmoid", "softplus"}, default="tanh"
        Activation phi.

    Raises
    ------
    ValueError
        If the shapes do not fit together, an entry is not finite, a direction is zero or the activation is unknown.

    References
    ----------
    .. [1] Kohler et al., "Exponential convergence rates for Batch Normalization: The power of length-direction
       decoupling in non-convex optimization", arXiv 1805.10694.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.gdnp import MultilayerNetwork
    >>> X = np.random.default_rng(0).standard_normal((20, 3))
    >>> network = MultilayerNetwork.at_initialization(3, 2, depth=4, width=5, random_state=0)
    >>> network
    MultilayerNetwork(3 features, 5 + 5 + 5 + 5 units, 2 outputs, tanh, batch-normalized)
    >>> bool(np.allclose(network.outputs(X), network.without_normalization(X).outputs(X)))
    True
    """

    weights: Sequence[np.ndarray]
    shifts: Sequence[np.ndarray]
    output_weights: np.ndarray
    output_bias: np.ndarray
    lengths: Sequence[np.ndarray] | None = None
    activation: str = "tanh"

    def __post_init__(self) -> None:
        check_choice("activation", self.activation, ACTIVATIONS)
        if len(self.weights) == 0:
            raise ValueError("weights needs at least one layer.")
        *weights, output_weights = _arrays("weights and output_weights", 2, (*self.weights, self.output_weights))
        *shifts, output_bias = _arrays("shifts and output_bias", 1, (*self.shifts, self.output_bias))
        rows, columns = [len(layer) for layer in weights], [layer.shape[1] for layer in (*weights[1:], output_weights)]
        if rows != columns:
            raise ValueError(f"The hidden layers have {rows} units, but the layers after them take {columns} inputs.")
        lengths = None if self.lengths is None else _arrays("lengths", 1, self.lengths)
        for name, vectors in (("shifts", shifts), ("lengths", lengths)):
            if vectors is not None and [len(vector) for vector in vectors] != rows:
                raise ValueError(f"{name} must hold a number for each of the {rows} units of the hidden layers.")
        if len(output_bias) != len(output_weights):
            raise ValueError(f"output_bias must hold a number for each of the {len(output_weights)} outputs.")
        if lengths is not None and not all(layer.any(axis=1).all() for layer in weights):
            raise ValueError("weights has a row of zeros, which is no direction.")
        object.__setattr__(self, "weights", tuple(weights))
        object.__setattr__(self, "shifts", tuple(shifts))
        object.__setattr__(self, "output_weights", output_weights)
        object.__setattr__(self, "output_bias", output_bias)
        object.__setattr__(self, "lengths", None if lengths is None else tuple(lengths))

    def _summary(self) -> str:
        features, units = self.weights[0].shape[1], " + ".join(str(len(layer)) for layer in self.weights)
        kind = "batch-normalized" if self.normalized else "not normalized"
        outputs = counted(len(self.output_bias), "output")
        return f"{counted(features, 'feature')}, {units} units, {outputs}, {self.activation}, {kind}"

    @classmethod
    def at_initialization(
        cls,
        n_features: int,
        n_outputs: int,
        *,
        depth: int = 6,
        width: int = 50,
        activation: str = "tanh",
        normalized: bool = True,
        random_state: int | np.random.Generator | None = None,
    ) -> Self:
        """Draw normal weights of variance 1 / k for layers of k inputs; lengths are one, shifts and biases zero.

        Parameters
        ----------
        n_features : int
            Features d.
        n_outputs : int
            Outputs C.
        depth : int, default=6
            Hidden layers L.
        width : int, default=50
            Units m of each.
        activation : {"tanh", "sigmoid", "softplus"}, default="tanh"
            Activation.
        normalized : bool, default=True
            Whether there is batch normalization.
        random_state : int, Generator or None, default=None
            Seed.

        Returns
        -------
        network : MultilayerNetwork

        Raises
        ------
        ValueError
            If a number is out of its range, or the activation is unknown.

        Examples
        --------
        >>> from convexbn.gradient.gdnp import MultilayerNetwork
        >>> MultilayerNetwork.at_initialization(3, 2, depth=2, width=5, random_state=0).weights[1].shape
        (5, 5)
        """
        sizes = {"n_features": n_features, "n_outputs": n_outputs, "depth": depth, "width": width}
        for name, number in sizes.items():
            check_integer(name, number, 1)
        rng = make_generator(random_state)
        shapes = [(width, n_features), *[(width, width)] * (depth - 1), (n_outputs, width)]
        *weights, output_weights = [rng.standard_normal(shape) / np.sqrt(shape[1]) for shape in shapes]
        shifts, lengths = [np.zeros(width)] * depth, [np.ones(width)] * depth if normalized else None
        return cls(weights, shifts, output_weights, np.zeros(n_outputs), lengths, activation)

    @property
    def normalized(self) -> bool:
        """Whether there is batch normalization."""
        return self.lengths is not None

    def outputs(self, X: ArrayLike) -> np.ndarray:
        """Outputs (n, C) on X of shape (n, d), whose own statistics normalize; a ValueError if a unit does not vary."""
        values: np.ndarray = self._checked_forward(check_data(X, self.weights[0].shape[1]))[0].numpy()
        return values

    def loss(self, X: ArrayLike, y: ArrayLike) -> float:
        """Mean cross-entropy of the classes y of shape (n,), 0 to C - 1, on X of shape (n, d)."""
        data, classes = self._samples(X, y)
        return float(_cross_entropy(self._checked_forward(data)[0], import_torch().tensor(classes)))

    def without_normalization(self, X: ArrayLike) -> Self:
        """Return the network without batch normalization that is the same function on X of shape (n, d).

        Its weights are g w / |w|_S, and its shifts b - E[t].

        Examples
        --------
        >>> import numpy as np
        >>> from convexbn.gradient.gdnp import MultilayerNetwork
        >>> network = MultilayerNetwork([[[2.0]]], [[0.0]], [[1.0]], [0.0], [[3.0]])
        >>> network.without_normalization([[0.0], [2.0]]).weights
        (array([[3.]]),)
        """
        if self.lengths is None:
            return self
        layers = self._checked_forward(check_data(X, self.weights[0].shape[1]))[1]
        weights = [
            (g / layer.spreads.numpy())[:, None] * w
            for w, g, layer in zip(self.weights, self.lengths, layers, strict=True)
        ]
        means = [w @ layer.inputs.numpy().mean(axis=0) for w, layer in zip(weights, layers, strict=True)]
        shifts = [b - mean for b, mean in zip(self.shifts, means, strict=True)]
        return replace(self, weights=weights, shifts=shifts, lengths=None)

    def block_norms(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        n_probes: int | None = 10,
        random_state: int | np.random.Generator | None = 0,
    ) -> np.ndarray:
        """Frobenius norms of the blocks d^2 loss / dW_l dW_i of the Hessian: how layers depend on one another.

        The block (l, i) says how far the gradient of the weights of layer l changes with those of layer i; layer L + 1
        is the output. Directions have no scale of their own, so they are first given |w|_S = |g|: the weights are
        then those of the network without batch normalization that is the same function, but for signs.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Samples.
        y : array-like of shape (n,)
            Their classes, 0 to C - 1.
        n_probes : int or None, default=10
            Random vectors for each layer, a Hessian-vector product each; an estimate of a norm has a relative standard
            deviation of at most about 1 / sqrt(2 n_probes). None takes all unit vectors, which is exact.
        random_state : int, Generator or None, default=0
            Seed of the random vectors.

        Returns
        -------
        norms : ndarray of shape (L + 1, L + 1)
            Symmetric.

        Examples
        --------
        >>> import numpy as np
        >>> from convexbn.gradient.gdnp import MultilayerNetwork
        >>> X = np.random.default_rng(0).standard_normal((20, 3))
        >>> network = MultilayerNetwork.at_initialization(3, 2, depth=2, width=5, random_state=0)
        >>> network.block_norms(X, X[:, 0] > 0, n_probes=None).shape
        (3, 3)
        """
        check_integer("n_probes", n_probes, 1, optional=True)
        data, classes = self._samples(X, y)
        layers = self._checked_forward(data)[1]
        network = self
        if self.lengths is not None:
            scales = [
                np.where(g == 0, 1.0, abs(g) / layer.spreads.numpy())
                for g, layer in zip(self.lengths, layers, strict=True)
            ]
            network = replace(self, weights=[scale[:, None] * w for scale, w in zip(scales, self.weights, strict=True)])
        torch, parameters = import_torch(), network._parameters()
        loss = _cross_entropy(self._forward(parameters, torch.tensor(data))[0], torch.tensor(classes))
        blocks = parameters[: len(self.weights) + 1]
        return block_norms(loss, blocks, n_probes=n_probes, rng=make_generator(random_state))

    def _parameters(self) -> list[Any]:
        """Torch leaves in the order: weights, output weights, shifts, output bias, and lengths if there are any."""
        torch = import_torch()
        arrays = (*self.weights, self.output_weights, *self.shifts, self.output_bias, *(self.lengths or ()))
        return [torch.tensor(array, requires_grad=True) for array in arrays]

    def _with_parameters(self, parameters: Sequence[Any]) -> Self:
        """Return the network of the same kind with these torch tensors, in the order of `_parameters`."""
        depth, arrays = len(self.weights), [parameter.detach().numpy() for parameter in parameters]
        weights, output_weights, shifts, output_bias = (
            arrays[:depth], arrays[depth], arrays[depth + 1 : 2 * depth + 1], arrays[2 * depth + 1]
        )  # fmt: skip
        lengths = arrays[2 * depth + 2 :] or None
        return replace(
            self,
            weights=weights,
            output_weights=output_weights,
            shifts=shifts,
            output_bias=output_bias,
            lengths=lengths,
        )

    def _forward(
        self, parameters: Sequence[Any], inputs: Any, changes: Sequence[Any] | None = None
    ) -> tuple[Any, list[Batch]]:
        """Outputs (n, C) of torch inputs (n, d), and what each hidden layer saw; `changes` are added to preactivations.

        Parameters are in the order of `_parameters`, changes of shapes (n, m_1), (n, m_2), ...
        """
        torch, depth = import_torch(), len(self.weights)
        phi = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "softplus": torch.nn.functional.softplus}[self.activation]
        layers = []
        for layer, w, b in zip(range(depth), parameters, parameters[depth + 1 :], strict=False):
            t, spreads = inputs @ w.T, None
            if self.normalized:
                centred = t - t.mean(dim=0)
                spreads = centred.square().mean(dim=0).sqrt()
                t = parameters[2 * depth + 2 + layer] * centred / spreads
            layers.append(Batch(inputs.detach(), None if spreads is None else spreads.detach()))
            t = t + b
            inputs = phi(t if changes is None else t + changes[layer])
        return inputs @ parameters[depth].T + parameters[2 * depth + 1], layers

    def _samples(self, X: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        data, targets = check_samples(X, y)
        check_data(data, self.weights[0].shape[1])
        if not np.isin(targets, np.arange(len(self.output_bias))).all():
            n_outputs = len(self.output_bias)
            raise ValueError(f"y must hold the classes 0 to {n_outputs - 1} of the network's {n_outputs} outputs.")
        return data, targets.astype(np.int64)

    def _checked_forward(self, X: np.ndarray) -> tuple[Any, list[Batch]]:
        """Outputs and batches without gradients, or a ValueError where a unit does not vary."""
        torch = import_torch()
        with torch.no_grad():
            outputs, layers = self._forward(self._parameters(), torch.tensor(X, dtype=torch.float64))
        for number, (w, layer) in enumerate(zip(self.weights, layers, strict=True), start=1):
            if layer.spreads is not None:
                largest = np.abs(layer.inputs.numpy() @ w.T).max(axis=0)
                if not (layer.spreads.numpy() > _CONSTANT * largest).all():
                    raise ValueError(
                        f"A unit of hidden layer {number} is the same on all {len(X)} samples of X, so it cannot be "
                        "normalized; give more samples or other weights."
                    )
        return outputs, layers


def _cross_entropy(outputs: Any, classes: Any) -> Any:
    return import_torch().nn.functional.cross_entropy(outputs, classes)


def _arrays(name: str, n_axes: int, values: Sequence[Any]) -> list[np.ndarray]:
    """Return finite arrays in double precision with this number of axes, or raise a ValueError that names them."""
    arrays = [np.asarray(value, dtype=np.float64) for value in values]
    if not all(array.ndim == n_axes and array.size and np.isfinite(array).all() for array in arrays):
        raise ValueError(f"{name} must be finite {n_axes}-D arrays that are not empty.")
    return arrays
