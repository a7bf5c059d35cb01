"""The batch-normalized convolutional network."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.array_namespace import double_mean
from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._patches import PatchDesign, PatchGrid, check_images
from convexbn.network._base import TORCH_EPS, import_torch
from convexbn.network._batch_norm import BatchNormNetwork, filled, initial_layers, read_layers
from convexbn.network._convolution import Convolution
from convexbn.network._onnx import Graph
from convexbn.network._torch_layers import array_of, layers_of


@dataclass(frozen=True, eq=False, repr=False)
class ConvBatchNormNetwork(Convolution, BatchNormNetwork):
    """Convolutional network Conv2d -> BatchNorm2d -> ReLU -> global average pooling -> Linear.

    On a patch x neuron j is relu(gamma_j (x·w_j - mean_j) / std_j + bias_j); the network averages the neurons over the
    patches of an image.

    Parameters
    ----------
    weights : ndarray of shape (m, h)
        Filters w_j, flattened in the order channel, row, column; h is channels times the kernel size.
    gamma, bias : ndarray of shape (m,)
        Scale and shift of the normalization layer.
    output_weights : ndarray of shape (m, C)
        Output weights c_j.
    intercept : ndarray of shape (C,)
        Output intercept.
    mean, std : ndarray of shape (m,)
        Population mean and standard deviation of x·w_j over all patches of the training images.
    filter_shape : tuple of int
        Channels, height and width of a filter.
    stride, padding : tuple of int
        Steps of the filters, and zeros on each side of an image: vertical, horizontal.

    Attributes
    ----------
    filters : ndarray of shape (m, channels, height, width)
        The filters, as in torch.nn.Conv2d.

    Raises
    ------
    ValueError
        If the shapes do not fit together, an entry is not finite, or a std is not positive.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, on convolutional
       networks.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import ConvBatchNormNetwork
    >>> one = np.ones(1)
    >>> geometry = {"filter_shape": (1, 1, 2), "stride": (1, 1), "padding": (0, 0)}
    >>> network = ConvBatchNormNetwork([[1.0, -1.0]], one, 0 * one, [[2.0]], 0 * one, 0 * one, one, **geometry)
    >>> network.predict([[[[5.0, 3.0, 4.0]]]])
    array([[2.]])
    """

    design = PatchDesign

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_geometry()

    @classmethod
    def at_initialization(
        cls,
        X: ArrayLike,
        n_neurons: int,
        *,
        kernel_size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        n_outputs: int = 0,
        sample_weight: ArrayLike | None = None,
        random_state: int | np.random.Generator | None = None,
    ) -> Self:
        """Untrained network: Gaussian filters, gamma one, bias and intercept zero, small output weights.

        Parameters
        ----------
        X : array-like of shape (n, channels, height, width)
            Images whose statistics the network carries.
        n_neurons : int
            Width m.
        kernel_size, stride : int or pair of int, default=3 and 1
            Height and width of the filters, and of their steps.
        padding : int or pair of int, default=0
            Rows and columns of zeros added on each side of an image.
        n_outputs : int, default=0
            Outputs C. Output weights are Gaussian over m.
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the images in the statistics. All equal if None.
        random_state : int, Generator or None, default=None
            Seed of the weights.

        Returns
        -------
        network : ConvBatchNormNetwork
        """
        grid = PatchGrid(kernel_size, stride, padding)
        images = check_images(X, grid)
        layers = initial_layers(n_neurons, grid.n_entries(images.shape[1]), n_outputs, random_state)
        filter_shape = np.array([images.shape[1], *grid.kernel_size])
        network = cls(**layers, filter_shape=filter_shape, stride=np.array(grid.stride), padding=np.array(grid.padding))
        return network.with_statistics(images, sample_weight)

    def origin(self, X: np.ndarray) -> np.ndarray:
        """Mean of each channel of X (n, channels, height, width); zero where images are padded with zeros."""
        if self.padding.any():
            return np.zeros((1, 1, 1))
        mean: np.ndarray = double_mean(X, (0, 2, 3))
        return mean[:, None, None]

    def hidden_to_torch(self, eps: float = TORCH_EPS) -> list[Any]:
        """Return Conv2d, BatchNorm2d, ReLU, AdaptiveAvgPool2d and Flatten; there must be a neuron."""
        nn, network = import_torch().nn, self._with_eps(eps)
        norm = filled(network, nn.BatchNorm2d(len(self), eps=eps, dtype=import_torch().float64))
        return [self._filters_to_torch(network.weights), norm, nn.ReLU(), *self._pooled_in_torch()]

    def _first_to_torch(self, weights: np.ndarray, offsets: np.ndarray) -> list[Any]:
        return [self._filters_to_torch(weights, offsets), import_torch().nn.ReLU(), *self._pooled_in_torch()]

    def _add_first(self, graph: Graph, x: str, weights: np.ndarray, offsets: np.ndarray) -> str:
        filtered = graph.convolution(x, weights.reshape(-1, *self.filter_shape), offsets, self.grid)
        return graph.pool(graph.add("Relu", filtered))

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        """Read a torch.nn.Sequential of Conv2d, BatchNorm2d, ReLU, AdaptiveAvgPool2d(1), Flatten, Linear.

        Parameters
        ----------
        module : torch.nn.Sequential
            Trained network, in whatever mode; `predict` equals its output in ``eval()``. Layers may be parametrized,
            and Dropout is left out. PyTorch's running statistics are moving averages with an unbiased variance;
            `with_statistics` sets those of the training data instead.

        Returns
        -------
        network : ConvBatchNormNetwork
            Its gamma_j is the module's times ``sqrt(var_j / (var_j + eps))``, since its std_j has no eps.

        Raises
        ------
        ValueError
            If the layers are others, or the convolution has groups, dilation, or a padding that is not of zeros and
            given in numbers.
        """
        names = "Conv2d", "BatchNorm2d", "ReLU", "AdaptiveAvgPool2d", "Flatten", "Linear"
        hidden, norm, _, pooling, _, output = layers_of(module, ", ".join(names), *names)
        plain = hidden.groups == 1 and hidden.dilation == (1, 1) and hidden.padding_mode == "zeros"
        if not plain or isinstance(hidden.padding, str):
            raise ValueError(
                f"module's Conv2d must have one group, no dilation and a padding in numbers, got {hidden}."
            )
        if pooling.output_size not in (1, (1, 1)):
            raise ValueError(f"module's AdaptiveAvgPool2d must average the whole image, got {pooling}.")
        filters = array_of(hidden, "weight")
        return cls(
            weights=filters.reshape(len(filters), -1),
            filter_shape=np.array(filters.shape[1:]),
            stride=np.array(hidden.stride),
            padding=np.array(hidden.padding),
            **read_layers(hidden, norm, output),
        )

    def _row_blocks(self, X: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        return self.grid.blocks(X)

    def _hidden(self, rows: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
        neurons = super()._hidden
        return self._pooled(rows, lambda patches: neurons(patches, mean, std))

    def _unfitted_design(self) -> BatchNormDesign:
        grid = self.grid
        return PatchDesign(grid.kernel_size, grid.stride, grid.padding)
