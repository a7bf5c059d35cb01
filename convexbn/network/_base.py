"""What networks of every normalization have in common: forward pass, objective, pruning."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array, issparse
from sklearn.utils.validation import check_consistent_length

from convexbn._utils.array_namespace import all_finite, checked_array, doubles, is_elsewhere, like, positive_part
from convexbn._utils.checks import is_number, real_array
from convexbn._utils.html import Tabulated, sparkline
from convexbn._utils.row_order import as_rows
from convexbn._utils.sample_weight import check_sample_weight
from convexbn._utils.summary import counted
from convexbn._utils.torch_device import import_torch
from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._principal_directions import EXACT_RTOL
from convexbn.designs._weight_norm import WeightNormDesign
from convexbn.losses import Loss, make_loss
from convexbn.model._merging import prune
from convexbn.model._neurons import Neurons
from convexbn.network._exported import Exported
from convexbn.network._folded import affine_layers
from convexbn.network._onnx import Graph
from convexbn.network._persistence import Stored

if TYPE_CHECKING:
    import torch

TORCH_EPS = 1e-5  # what torch's batch normalization adds to variances unless told otherwise


@dataclass(frozen=True, eq=False, repr=False)
class NormalizedNetwork(Tabulated, Stored, Exported, ABC):
    """Two-layer ReLU network f(x) = sum_j relu(gamma_j (x·w_j - mean_j) / std_j + bias_j) c_j + intercept.

    Subclasses say where mean_j and std_j come from.

    Parameters
    ----------
    weights : ndarray of shape (m, d)
        Hidden weights w_j.
    gamma, bias : ndarray of shape (m,)
        Scale and shift after normalization.
    output_weights : ndarray of shape (m, C)
        Output weights c_j.
    intercept : ndarray of shape (C,)
        Output intercept.

    Raises
    ------
    ValueError
        If the shapes do not fit together or an entry is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import BatchNormNetwork
    >>> from convexbn.network import NormalizedNetwork
    >>> X = np.random.default_rng(0).standard_normal((20, 3))
    >>> network = BatchNormNetwork.at_initialization(X, n_neurons=4, random_state=0)
    >>> isinstance(network, NormalizedNetwork), network.hidden(X).shape
    (True, (20, 4))
    """

    weights: np.ndarray
    gamma: np.ndarray
    bias: np.ndarray
    output_weights: np.ndarray
    intercept: np.ndarray

    per_neuron: ClassVar[tuple[str, ...]] = ("gamma", "bias")
    design: ClassVar[type[BatchNormDesign] | type[WeightNormDesign]]

    def __post_init__(self) -> None:
        as_finite_arrays(self)
        if self.weights.ndim != 2 or self.output_weights.ndim != 2:
            raise ValueError("weights and output_weights must be 2-D arrays.")
        m = len(self.weights)
        per_neuron = dict.fromkeys(self.per_neuron, (m,))
        check_shapes(self, output_weights=(m, self.n_outputs), intercept=(self.n_outputs,), **per_neuron)

    def __len__(self) -> int:
        return len(self.weights)

    def _summary(self) -> str:
        return f"{self._inputs()}, {counted(len(self), 'neuron')}, {counted(self.n_outputs, 'output')}"

    def _rows(self) -> dict[str, object]:
        return {"inputs": self._inputs(), "neurons": len(self), "outputs": self.n_outputs}

    def _picture(self) -> tuple[str, str]:
        return "sizes of neurons", sparkline(np.sort(self._sizes())[::-1], "sizes of neurons, the largest first")

    def _inputs(self) -> str:
        """The inputs of a neuron, in words."""
        return counted(self.weights.shape[1], "feature")

    @property
    def n_outputs(self) -> int:
        """Outputs C."""
        return int(self.output_weights.shape[1])

    @classmethod
    def from_neurons(cls, neurons: Neurons, design: BatchNormDesign | WeightNormDesign) -> Self:
        """Map neurons on a fitted design back to layer weights, sharing |s||c| evenly between both layers."""
        neurons = neurons.balanced()
        layer = design.neuron_weights(neurons.weights)
        statistics = {name: getattr(layer, name) for name in cls.per_neuron}
        return cls(
            weights=layer.weights,
            output_weights=neurons.output_weights,
            intercept=neurons.intercept,
            **statistics,
            **cls._geometry(design),
        )

    @abstractmethod
    def population_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and std (m,) used by `predict`."""

    @abstractmethod
    def batch_statistics(self, X: np.ndarray, sample_weight: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Mean and std (m,) used in training on the full batch X."""

    @abstractmethod
    def origin(self, X: np.ndarray) -> np.ndarray:
        """What can be subtracted from the training data X without changing `objective`; zero if nothing can."""

    @abstractmethod
    def hidden_to_torch(self, eps: float = TORCH_EPS) -> list[Any]:
        """Return the torch modules that compute `hidden`; there must be a neuron. See `to_torch` for `eps`."""

    def to_torch(self, *, eps: float = TORCH_EPS, folded: bool = False) -> "torch.nn.Sequential":
        """Return the same network as a torch module in double precision and ``eval()``; call ``.train()`` to train on.

        The output equals `predict`, in ``train()`` on the full training batch too. A network without neurons gets one
        that is zero. ``torch.export.export`` takes the module.

        `objective` divides by the standard deviation itself. Torch adds `eps` to the variance first, which the module
        compensates: gamma_j is multiplied by ``sqrt(1 + eps / std_j^2)``, and where std_j^2 is below ``1e5 * eps``,
        w_j is lengthened until it is not, which changes no output. So weight decay sees a gamma^2 that is larger by a
        share of at most 1e-5.

        Parameters
        ----------
        eps : float, default=1e-5
            What batch normalization adds to variances. The default is torch's own, so that the ``state_dict()`` fits
            a module that was made with torch's defaults. Take a smaller one, as 1e-12, for a training objective that
            equals `objective` to more than five digits. Weight normalization has none.
        folded : bool, default=False
            Whether normalization is folded into the weights, so that there are Linear (or Conv2d) and ReLU layers only:
            for inference, since the weights that weight decay acts on are no longer apart.

        Returns
        -------
        module : torch.nn.Sequential

        Raises
        ------
        ImportError
            If PyTorch is not installed.
        ValueError
            If `eps` is not a positive number.
        """
        torch = import_torch()
        if not 0 < eps < np.inf:
            raise ValueError(f"eps={eps!r} must be a positive number; torch's batch normalization refuses zero.")
        if folded:
            return folded_to_torch([self])
        network = self if len(self) else self._idle()
        return torch.nn.Sequential(*network.hidden_to_torch(eps), output_layer(network)).eval()

    @abstractmethod
    def _idle(self) -> Self:
        """Network with one neuron, which is zero, in place of none."""

    @staticmethod
    @abstractmethod
    def decayed_parameters(module: Any) -> list[Any]:
        """Return the parameters of a `to_torch` module that weight decay acts on: gamma, bias and output weights."""

    @abstractmethod
    def with_statistics(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Return the network whose population statistics are those of X (n, d), weighted by `sample_weight` (n,)."""

    @classmethod
    @abstractmethod
    def from_torch(cls, module: Any) -> Self:
        """Read a torch module whose output in ``eval()`` is that of a network of this kind."""

    def _inside(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights (m, d) and offsets (m,) of the inputs of the ReLUs."""
        mean, std = self.population_statistics()
        scale = self.gamma / std
        return scale[:, None] * self.weights, self.bias - scale * mean

    def _switches(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights (m, d) and offsets (m,) of the affine functions at whose zeros neurons switch on and off."""
        return self._inside()

    def _sizes(self) -> np.ndarray:
        """How much the neurons (m,) may contribute: the products of their lengths in both layers."""
        return np.hypot(self.gamma, self.bias) * np.linalg.norm(self.output_weights, axis=1)

    def _outside(self) -> tuple[np.ndarray, np.ndarray]:
        """What the outputs of the ReLUs are multiplied by to become those of the neurons, and what is added."""
        return np.ones(len(self)), np.zeros(len(self))

    def _add_to(self, graph: Graph, x: str) -> str:
        return add_layers(graph, x, [self])

    def _onnx_shape(self) -> list[int | str]:
        return ["n", self.weights.shape[1]]

    def _first_to_torch(self, weights: np.ndarray, offsets: np.ndarray) -> list[Any]:
        """Return the torch modules of a first layer with these weights, and ReLU."""
        return [linear(weights, offsets), import_torch().nn.ReLU()]

    def _add_first(self, graph: Graph, x: str, weights: np.ndarray, offsets: np.ndarray) -> str:
        """Add a first layer with these weights, and ReLU."""
        return graph.add("Relu", graph.affine_on_data(x, weights, offsets))

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Network outputs (n, C) for X (n, d), sparse or not, with the population statistics; a ValueError."""
        data = self.check_data(X)
        return finite(lambda: self._forward(data, *self.population_statistics()))

    def hidden(self, X: ArrayLike) -> np.ndarray:
        """Hidden neurons relu(gamma_j (x·w_j - mean_j) / std_j + bias_j), (n, m) for X (n, d), sparse or not."""
        data = self.check_data(X)
        return finite(lambda: self._hidden(data, *self.population_statistics()))

    def objective(
        self,
        X: ArrayLike,
        y: ArrayLike,
        weight_decay: float,
        loss: str | Loss = "squared_error",
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Objective of the non-convex training problem on the full batch.

        ``mean_i loss(f(x_i), y_i) + weight_decay / 2 * sum_j (gamma_j^2 + bias_j^2 + |c_j|^2)``, with batch
        statistics of X as in training.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n, d)
            Training data.
        y : array-like of shape (n,) or (n, C)
            Targets; labels -1 and +1 for margin losses.
        weight_decay : float
            Weight decay.
        loss : str or Loss, default="squared_error"
            Name or instance of a loss.
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples, in the mean and in the batch statistics. All equal if None.

        Returns
        -------
        objective : float
        """
        data, loss = self.check_data(X), make_loss(loss)
        if not (is_number(weight_decay) and 0 <= weight_decay < np.inf):
            raise ValueError(f"weight_decay={weight_decay!r} must be a finite number from 0 on.")
        targets = real_array("y", y)
        targets = targets[:, None] if targets.ndim == 1 else targets
        check_consistent_length(data, targets)
        if targets.shape[1:] != (self.n_outputs,):
            raise ValueError(f"y must have {self.n_outputs} columns, one an output, got shape {targets.shape}.")
        if not np.isfinite(targets).all():
            raise ValueError("y contains NaN or infinity; remove these samples first.")
        loss.check_targets(targets)
        weights = check_sample_weight(sample_weight, data.shape[0])
        f = self._forward(data, *self.batch_statistics(data, weights))
        return float(weights @ loss.value(f, targets) / weights.sum() + weight_decay * self.penalty())

    def penalty(self) -> float:
        """Half the sum of squares that weight decay acts on."""
        return float((self.gamma**2).sum() + (self.bias**2).sum() + (self.output_weights**2).sum()) / 2

    def neurons(self, design: Any) -> Any:
        """Return the neurons on a fitted design of this network's kind, that of its training data.

        Parameters
        ----------
        design : BatchNormDesign, WeightNormDesign, PostActivationBatchNormDesign or PatchDesign
            The fitted design.

        Returns
        -------
        neurons : Neurons or NormalizedNeurons
            Those of which `from_neurons` makes the network, up to what is shared among layers.

        Examples
        --------
        >>> import numpy as np
        >>> from convexbn import BatchNormDesign, BatchNormNetwork
        >>> X = np.random.default_rng(0).standard_normal((20, 3))
        >>> network = BatchNormNetwork.at_initialization(X, n_neurons=4, n_outputs=1, random_state=0)
        >>> design = BatchNormDesign().fit(X)
        >>> bool(np.allclose(network.neurons(design).outputs(design.matrix(X)), network.predict(X)))
        True
        """
        return Neurons(design.neurons(self.weights, self.gamma, self.bias), self.output_weights, self.intercept)

    def prune(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Return a smaller network with the same predictions on the training data and no higher objective.

        Neurons of equal pattern and sign are merged, zeros dropped, and by Caratheodory's theorem at most n*C + 1
        neurons kept. The objective is `objective`, with plain weight decay and targets that are not
        scaled; of a network trained with another `spectral_power`, or with scaled outputs, the objective of training
        may rise.

        Parameters
        ----------
        X : array-like of shape (n, d)
            The training data, whose statistics the network carries.
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples in training. All equal if None.

        Returns
        -------
        network : same type

        Raises
        ------
        ValueError
            If the population statistics are not those of X, so that predictions would change.
        """
        data = self._check_statistics(X, sample_weight)
        design = self._unfitted_design().set_params(rtol=EXACT_RTOL).fit(data, sample_weight=sample_weight)
        return type(self).from_neurons(prune(self.neurons(design), design.matrix(data)), design)

    def _check_statistics(self, X: ArrayLike, sample_weight: ArrayLike | None) -> np.ndarray:
        """Return X as an array, or raise a ValueError if its statistics are not those of the network."""
        data = self.check_data(X)
        if issparse(data) and self.design is not WeightNormDesign:
            raise ValueError("prune whitens the data, which makes sparse X dense; give X.toarray() if that is small.")
        (mean, std), (batch_mean, batch_std) = self.population_statistics(), self.batch_statistics(data, sample_weight)
        moved = np.abs([mean - batch_mean, std - batch_std]) / std
        if moved.max(initial=0) > 1e-6:
            raise ValueError(
                "prune needs the training data X whose mean and std the network carries, and its weights; "
                "with_statistics(X, sample_weight) gives it those of X, in place of running averages of torch, say."
            )
        return data

    def _forward(self, X: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
        return network_outputs(self._hidden(X, mean, std), self.output_weights, self.intercept)

    def _hidden(self, rows: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
        """Outputs of the neurons on rows of data."""
        rows = doubles(rows) if is_elsewhere(rows) else rows
        W, gamma, bias, mean, std = like(rows, self.weights, self.gamma, self.bias, mean, std)
        return positive_part(gamma * (rows @ W.T - mean) / std + bias)

    def check_data(self, X: ArrayLike) -> np.ndarray | csr_array:
        """Return X, sparse or not, in its own numeric type, or raise a ValueError if the network does not take it."""
        return check_data(X, self.weights.shape[1], accept_sparse=True)

    def _unfitted_design(self) -> BatchNormDesign | WeightNormDesign:
        return self.design()

    @classmethod
    def _geometry(cls, design: BatchNormDesign | WeightNormDesign) -> dict[str, Any]:
        """Fields of the network that are read off the design."""
        return {}


def network_outputs(hidden: Any, output_weights: np.ndarray, intercept: np.ndarray) -> Any:
    """Outputs (n, C) of a network whose neurons have the outputs `hidden` (n, m)."""
    C, b = like(hidden, output_weights, intercept)
    return hidden @ C + b


def finite(outputs: Callable[[], np.ndarray]) -> np.ndarray:
    """Return what a function computes of X, or raise a ValueError if it overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = outputs()
    if not all_finite(values):
        raise ValueError("The outputs for X overflow: X holds numbers far larger than the training data.")
    return values


def as_finite_arrays(network: Any) -> None:
    """Convert the fields of a network to arrays, or raise a ValueError if an entry is not finite."""
    for field in fields(network):
        array = real_array(field.name, getattr(network, field.name))
        if not np.isfinite(array).all():
            raise ValueError(f"{field.name} contains NaN or infinity.")
        object.__setattr__(network, field.name, np.asarray(array, order="C"))


def check_shapes(network: Any, **shapes: tuple[int, ...]) -> None:
    """Raise a ValueError unless fields of a network, arrays, have these shapes."""
    for name, shape in shapes.items():
        if getattr(network, name).shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {getattr(network, name).shape}.")


def check_data(X: ArrayLike, n_features: int, *, accept_sparse: bool = False) -> np.ndarray:
    """Return X as a finite 2-D array of its own numeric type with `n_features` columns, or raise a ValueError."""
    data = checked_array(X, accept_sparse="csr" if accept_sparse else False)
    data = as_rows(data) if issparse(data) else data
    if data.shape[1] != n_features:
        raise ValueError(f"X has {data.shape[1]} features, the network was trained on {n_features}.")
    return data


def tensor(array: np.ndarray) -> Any:
    """Copy an array into a double-precision torch parameter, contiguous as torch's L-BFGS requires."""
    torch = import_torch()
    return torch.nn.Parameter(torch.tensor(np.ascontiguousarray(array), dtype=torch.float64))


def output_layer(network: NormalizedNetwork) -> Any:
    """Return the output layer as torch.nn.Linear; its bias is the intercept."""
    return linear(network.output_weights.T, network.intercept)


def linear(weights: np.ndarray, offsets: np.ndarray) -> Any:
    """Return weights (m, d) and offsets (m,) as torch.nn.Linear in double precision."""
    torch = import_torch()
    layer = torch.nn.Linear(weights.shape[1], len(weights), dtype=torch.float64)
    layer.weight, layer.bias = tensor(weights), tensor(offsets)
    return layer


def folded_to_torch(networks: Sequence[NormalizedNetwork]) -> "torch.nn.Sequential":
    """Return networks on top of each other as a torch.nn.Sequential in ``eval()`` without normalization."""
    nn = import_torch().nn
    first, *others = affine_layers(networks)
    parts = networks[0]._first_to_torch(*first)
    for number, layer in enumerate(others):
        parts += [linear(*layer)] if number == len(others) - 1 else [linear(*layer), nn.ReLU()]
    return nn.Sequential(*parts).eval()


def add_layers(graph: Graph, x: str, networks: Sequence[NormalizedNetwork]) -> str:
    """Add networks on top of each other to an ONNX graph, and return the name of the outputs."""
    first, *hidden, last = affine_layers(networks)
    x = networks[0]._add_first(graph, x, *first)
    for layer in hidden:
        x = graph.add("Relu", graph.affine(x, *layer))
    return graph.affine(x, *last)


def to_numpy(parameter: Any) -> np.ndarray:
    """Copy a torch parameter into an array."""
    return parameter.detach().cpu().double().numpy().copy()
