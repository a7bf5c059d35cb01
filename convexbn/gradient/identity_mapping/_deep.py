"""Deep ReLU networks with identity links, dense or convolutional."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_consistent_length, column_or_1d

from convexbn._utils.checks import make_generator
from convexbn._utils.summary import Summarized, counted
from convexbn.designs import PatchGrid
from convexbn.designs._patches import check_images
from convexbn.gradient._options import (
    check_integer,
)
from convexbn.network._base import check_data, import_torch


@dataclass(frozen=True, eq=False, repr=False)
class LinkedNetwork(Summarized):
    r"""Deep ReLU network without biases, in which an identity link goes around every so many layers.

    The first layer is :math:`a = (W_0 x)_+`. A block of layers that a link goes around computes
    :math:`(a + W a)_+` if it is one layer, :math:`(a + W' (W a)_+)_+` if it is two; without links, a block is a layer
    :math:`(W a)_+`. The outputs are V a. In convolutional networks W is a convolution that keeps the size of images
    (zeros are added around them), and a is averaged over the pixels before V.

    With a link around every layer it is the network without links whose hidden weights are I + W, so that the links do
    nothing but move the start of training.

    Parameters
    ----------
    input_weights : ndarray of shape (m, d) or (m, channels, k, k)
        Weights of the first layer; k is odd.
    weights : ndarray of shape (L - 2, m, m) or (L - 2, m, m, k, k)
        Weights of the hidden layers; L counts the first and the output layer, too.
    output_weights : ndarray of shape (C, m)
        Weights V of the outputs, one a class.
    link : int, default=1
        Layers that each link goes around; 0 leaves the links out.

    Raises
    ------
    ValueError
        If the shapes do not fit together, an entry is not finite, or the hidden layers are no multiple of `link`.

    References
    ----------
    Li, Yuan: Convergence Analysis of Two-layer Neural Networks with ReLU Activation. arXiv:1705.09886, section 5.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.identity_mapping import LinkedNetwork
    >>> start = LinkedNetwork.at_initialization(3, 2, depth=6, width=5, link=2, random_state=0)
    >>> start
    LinkedNetwork(3 inputs, 6 layers of width 5, 2 outputs, a link around every 2 layers)
    >>> start.singular_values()  # of the two blocks: links around zero weights are the identity
    array([[1., 1.],
           [1., 1.]])
    """

    input_weights: np.ndarray
    weights: np.ndarray
    output_weights: np.ndarray
    link: int = 1

    def __post_init__(self) -> None:
        check_integer("link", self.link, 0)
        for name in ("input_weights", "weights", "output_weights"):
            array = np.asarray(getattr(self, name), dtype=np.float64)
            if not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite.")
            object.__setattr__(self, name, array)
        first, kernel = self.input_weights.shape, self.input_weights.shape[2:]
        if len(first) not in (2, 4) or kernel[:1] != kernel[1:] or not all(size % 2 for size in kernel):
            raise ValueError(
                f"input_weights must have shape (m, d), or (m, channels, k, k) with an odd k; got {first}."
            )
        if self.weights.shape[1:] != (first[0], first[0], *kernel):
            expected = ", ".join(map(str, ("L - 2", first[0], first[0], *kernel)))
            raise ValueError(f"weights must have shape ({expected}), as input_weights has; got {self.weights.shape}.")
        if self.output_weights.ndim != 2 or self.output_weights.shape[1] != first[0]:
            raise ValueError(f"output_weights must have shape (C, {first[0]}), got {self.output_weights.shape}.")
        _check_blocks(len(self.weights), self.link)

    def _summary(self) -> str:
        width, inputs, *kernel = self.input_weights.shape
        links = "no links" if not self.link else f"a link around every {counted(self.link, 'layer')}"
        links = links.replace("every 1 layer", "every layer")
        convolutional = f" ({kernel[0]} x {kernel[0]} convolutions)" if kernel else ""
        return (
            f"{counted(inputs, 'channel' if kernel else 'input')}, {len(self.weights) + 2} layers of width {width}"
            f"{convolutional}, {counted(len(self.output_weights), 'output')}, {links}"
        )

    @classmethod
    def at_initialization(
        cls,
        n_inputs: int,
        n_outputs: int,
        *,
        depth: int = 8,
        width: int = 32,
        link: int = 1,
        kernel_size: int | None = None,
        random_state: int | np.random.Generator | None = None,
    ) -> Self:
        """Draw Gaussian weights, and set the last layer inside each link to zero, so that blocks are the identity.

        All other layers before a ReLU have the variance 2 / fan-in [1]_, the output layer has 1 / fan-in.

        Parameters
        ----------
        n_inputs : int
            Features d, or channels of images.
        n_outputs : int
            Classes C.
        depth : int, default=8
            Layers L, of which L - 2 are hidden layers of the same width, the others the first and the output layer.
        width : int, default=32
            Units, or channels, m of each.
        link : int, default=1
            Layers that each link goes around; 0 leaves the links out.
        kernel_size : int or None, default=None
            Height and width k of the filters, an odd number; None makes a dense network.
        random_state : int, Generator or None, default=None
            Seed. Without a Generator, networks that differ in `link` alone agree where their weights are not zero.

        Returns
        -------
        network : LinkedNetwork

        Raises
        ------
        ValueError
            If a number is out of its range, or the hidden layers are no multiple of `link`.

        References
        ----------
        .. [1] K. He, X. Zhang, S. Ren, J. Sun, "Delving Deep into Rectifiers", 2015, arXiv:1502.01852.

        Examples
        --------
        >>> from convexbn.gradient.identity_mapping import LinkedNetwork
        >>> LinkedNetwork.at_initialization(3, 10, depth=56, width=8, kernel_size=3, link=0).weights.shape
        (54, 8, 8, 3, 3)
        """
        for name, number, least in (("n_inputs", n_inputs, 1), ("n_outputs", n_outputs, 2), ("width", width, 1)):
            check_integer(name, number, least)
        check_integer("depth", depth, 2)
        check_integer("link", link, 0)
        check_integer("kernel_size", kernel_size, 1, optional=True)
        if kernel_size is not None and kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size!r} must be odd, so that images keep their size.")
        _check_blocks(depth - 2, link)
        rng, kernel = make_generator(random_state), () if kernel_size is None else (kernel_size, kernel_size)

        def draw(*shape: int, gain: float = 2.0) -> np.ndarray:
            return rng.standard_normal(shape) * math.sqrt(gain / math.prod(shape[-1 - len(kernel) :]))

        first, output = draw(width, n_inputs, *kernel), rng.standard_normal((n_outputs, width)) / math.sqrt(width)
        weights = draw(depth - 2, width, width, *kernel)
        if link:
            weights[link - 1 :: link] = 0
        return cls(first, weights, output, link)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Outputs (n, C) on X of shape (n, d) or (n, channels, height, width); the class is that of the largest."""
        torch = import_torch()
        with torch.no_grad():
            return self._outputs(self._parameters(), torch.tensor(self._data(X))).numpy()

    def loss(self, X: ArrayLike, y: ArrayLike) -> float:
        """Mean cross-entropy of classes y, integers from 0 to C - 1."""
        return self._loss_and_error(X, y)[0]

    def error(self, X: ArrayLike, y: ArrayLike) -> float:
        """Share of samples whose class is not that of the largest output."""
        return self._loss_and_error(X, y)[1]

    def singular_values(self, image_size: tuple[int, int] | None = None) -> np.ndarray:
        """Smallest and largest singular value of the linear map of every block, its ReLUs taken as the identity.

        That map is I + W with a link around every layer, I + W' W with one around every second, W without links.

        Parameters
        ----------
        image_size : pair of int or None, default=None
            Height and width of images, on which the map of a convolutional layer depends; None if it is dense.

        Returns
        -------
        values : ndarray of shape (blocks, 2)

        Raises
        ------
        ValueError
            If `image_size` is given for a dense network, or missing for a convolutional one.

        Examples
        --------
        >>> from convexbn.gradient.identity_mapping import LinkedNetwork
        >>> LinkedNetwork(np.eye(2), [np.diag([0.5, -0.5])], np.eye(2)).singular_values()
        array([[0.5, 1.5]])
        """
        size = () if image_size is None else tuple(image_size)
        if len(size) != self.input_weights.ndim - 2:
            kind = "dense: leave out" if self.input_weights.ndim == 2 else "convolutional: give the height and width in"
            raise ValueError(f"The network is {kind} image_size={image_size!r}.")
        for number in size:
            check_integer("image_size", number, 1)
        return self._singular_values(self._parameters()[1], size)

    def _singular_values(self, weights: Any, size: tuple[int, ...]) -> np.ndarray:
        torch = import_torch()
        shape = (weights.shape[1], *size)
        basis = torch.eye(math.prod(shape), dtype=weights.dtype).reshape(-1, *shape)
        extremes = []
        with torch.no_grad():
            for layers in self._blocks(weights):
                values = torch.linalg.svdvals(_block(layers, basis, self.link > 0, lambda signal: signal).flatten(1))
                extremes.append([values[-1].item(), values[0].item()])
        return np.array(extremes).reshape(-1, 2)

    def _loss_and_error(self, X: ArrayLike, y: ArrayLike) -> tuple[float, float]:
        data, classes = map(import_torch().tensor, self._samples(X, y))
        return loss_and_error(self._outputs(self._parameters(), data), classes)

    def _data(self, X: ArrayLike) -> np.ndarray:
        _, inputs, *kernel = self.input_weights.shape
        data = check_images(X, PatchGrid(1), (inputs,)) if kernel else check_data(X, inputs)
        return data.astype(np.float64)

    def _samples(self, X: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        data, classes = self._data(X), column_or_1d(y)
        check_consistent_length(data, classes)
        n_outputs = len(self.output_weights)
        if classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= n_outputs:
            raise ValueError(
                f"y must hold the integers 0 to {n_outputs - 1}, one a class; encode labels with "
                "np.unique(y, return_inverse=True)[1]."
            )
        return data, classes.astype(np.int64)

    def _parameters(self, dtype: str = "float64") -> list[Any]:
        torch = import_torch()
        arrays = (self.input_weights, self.weights, self.output_weights)
        return [torch.tensor(array, dtype=getattr(torch, dtype)) for array in arrays]

    def _outputs(self, parameters: Sequence[Any], inputs: Any) -> Any:
        torch = import_torch()
        first, weights, output = parameters
        signal = torch.relu(_layer(first, inputs))
        for layers in self._blocks(weights):
            signal = torch.relu(_block(layers, signal, self.link > 0, torch.relu))
        return signal.flatten(2).mean(dim=2) @ output.T if signal.ndim == 4 else signal @ output.T

    def _blocks(self, weights: Any) -> Iterator[Sequence[Any]]:
        layers, size = weights.unbind(), max(self.link, 1)
        return (layers[first : first + size] for first in range(0, len(layers), size))


def loss_and_error(outputs: Any, classes: Any) -> tuple[float, float]:
    """Mean cross-entropy, and share of wrong classes."""
    wrong = outputs.argmax(dim=1) != classes
    return import_torch().nn.functional.cross_entropy(outputs, classes).item(), wrong.double().mean().item()


def _layer(weights: Any, signal: Any) -> Any:
    """A dense layer, or a convolution that keeps the size of images."""
    if weights.ndim == 2:
        return signal @ weights.T
    return import_torch().nn.functional.conv2d(signal, weights, padding=weights.shape[-1] // 2)


def _block(layers: Sequence[Any], signal: Any, linked: bool, activation: Callable[[Any], Any]) -> Any:
    """What a block computes before its last activation."""
    image = _layer(layers[0], signal)
    for layer in layers[1:]:
        image = _layer(layer, activation(image))
    return signal + image if linked else image


def _check_blocks(n_hidden: int, link: int) -> None:
    if link and n_hidden % link:
        raise ValueError(
            f"{counted(n_hidden, 'hidden layer')} (all but the first and the output layer) must be a multiple of "
            f"link={link!r}; change the depth, or link."
        )
