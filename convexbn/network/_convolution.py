"""What convolutional networks have in common: their neurons are filters, whose outputs are averaged over an image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.array_namespace import namespace
from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._patches import PatchDesign, PatchGrid, check_images
from convexbn.designs._weight_norm import WeightNormDesign
from convexbn.network._base import import_torch, tensor

_MOST = 2**31  # what sizes are below, so that they are integers of any platform


@dataclass(frozen=True, eq=False, repr=False)
class Convolution:
    """Mixin of a network whose rows of `weights` are flattened filters.

    Parameters
    ----------
    weights : ndarray of shape (m, channels * kernel size)
        Filters, flattened in the order channel, row, column.
    filter_shape : tuple of int
        Channels, height and width of a filter.
    stride, padding : tuple of int
        Steps of the filters, and zeros on each side of an image: vertical, horizontal.

    Raises
    ------
    ValueError
        If the filters are not of this shape, or an entry is out of range.
    """

    weights: np.ndarray
    filter_shape: np.ndarray
    stride: np.ndarray
    padding: np.ndarray

    @property
    def filters(self) -> np.ndarray:
        """Filters (m, channels, height, width)."""
        return self.weights.reshape(-1, *self.filter_shape)

    @property
    def grid(self) -> PatchGrid:
        """Positions of the filters."""
        return PatchGrid(*map(tuple, (self.filter_shape[1:].tolist(), self.stride.tolist(), self.padding.tolist())))

    def _check_geometry(self) -> None:
        """Convert the geometry to integers, or raise a ValueError if it does not fit the weights."""
        for name, size in (("filter_shape", 3), ("stride", 2), ("padding", 2)):
            given = np.asarray(getattr(self, name))
            if given.shape != (size,) or not (np.abs(given) < _MOST).all() or (given % 1 != 0).any():
                raise ValueError(f"{name} must hold {size} integers below {_MOST:,}, got {given}.")
            object.__setattr__(self, name, given.astype(int))
        h = self.grid.n_entries(self.filter_shape[0])
        if self.weights.shape[1] != h:
            raise ValueError(f"weights must have shape {(len(self.weights), h)}, got {self.weights.shape}.")

    def _inputs(self) -> str:
        return f"patches of {' x '.join(str(size) for size in self.filter_shape)}"

    def check_data(self, X: ArrayLike) -> np.ndarray:
        """Return X as an array of its own numeric type, or raise a ValueError if the network does not take it."""
        return check_images(X, self.grid, (int(self.filter_shape[0]),))

    def _onnx_shape(self) -> list[int | str]:
        return ["n", int(self.filter_shape[0]), "height", "width"]

    def _filters_to_torch(self, weights: np.ndarray, offsets: np.ndarray | None = None) -> Any:
        """Return flattened filters (m, h), and their offsets (m,) if any, as torch.nn.Conv2d."""
        torch, grid = import_torch(), self.grid
        geometry = {"kernel_size": grid.kernel_size, "stride": grid.stride, "padding": grid.padding}
        options = {"bias": offsets is not None, "dtype": torch.float64}
        layer = torch.nn.Conv2d(int(self.filter_shape[0]), len(weights), **geometry, **options)
        layer.weight = tensor(weights.reshape(-1, *self.filter_shape))
        if offsets is not None:
            layer.bias = tensor(offsets)
        return layer

    @staticmethod
    def _pooled_in_torch() -> list[Any]:
        """Return the torch modules that average over an image."""
        nn = import_torch().nn
        return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]

    def _pooled(self, images: np.ndarray, neurons: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Outputs (n, m) of neurons on patches, averaged over each image."""
        parts = []
        for samples, patches in self.grid.blocks(images):
            outputs = neurons(patches)
            shape = samples.stop - samples.start, self.grid.n_patches(images), len(self.weights)
            xp = namespace(outputs)
            parts.append(xp.mean(xp.reshape(outputs, shape), axis=1))
        return parts[0] if len(parts) == 1 else namespace(parts[0]).concat(parts, axis=0)

    @classmethod
    def _geometry(cls, design: BatchNormDesign | WeightNormDesign) -> dict[str, Any]:
        assert isinstance(design, PatchDesign)
        grid = design.grid
        return {
            "filter_shape": np.array(design.image_shape_[:1] + grid.kernel_size),
            "stride": np.array(grid.stride),
            "padding": np.array(grid.padding),
        }
