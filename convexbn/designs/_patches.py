"""What a convolutional layer does to images: images -> design matrix of whitened patches, and filters back."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from convexbn._utils.all_or_nothing import all_or_nothing
from convexbn._utils.array_namespace import (
    block_entries,
    checked_array,
    doubles,
    is_elsewhere,
    like,
    namespace,
    to_numpy,
)
from convexbn._utils.checks import refuse_huge
from convexbn._utils.magnitude import check_magnitude
from convexbn._utils.sample_weight import weighted_samples
from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._checks import check_components
from convexbn.designs._design import Design
from convexbn.designs._principal_directions import MOMENTS_RTOL, principal_directions, rank_to_keep
from convexbn.operators._protocol import Operator

_BLOCK_ENTRIES = 2**19  # entries of the patch matrix made at once
_MOST_PADDING = 10**6  # pixels: a square of so many more on each side has a size that NumPy can name


@dataclass(frozen=True, init=False)
class PatchGrid:
    """Positions of a filter on an image: size, stride and zero padding, as in torch.nn.Conv2d.

    Parameters
    ----------
    kernel_size, stride : int or pair of int
        Height and width of the filter, and of its steps.
    padding : int or pair of int
        Rows and columns of zeros added on each side.

    Raises
    ------
    ValueError
        If an entry is not an integer in its range.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.designs import PatchGrid
    >>> PatchGrid(2, stride=(1, 2)).patches(np.arange(12.0).reshape(1, 1, 3, 4))
    array([[ 0.,  1.,  4.,  5.],
           [ 2.,  3.,  6.,  7.],
           [ 4.,  5.,  8.,  9.],
           [ 6.,  7., 10., 11.]])
    """

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
    ):
        for name, value, least in (("kernel_size", kernel_size, 1), ("stride", stride, 1), ("padding", padding, 0)):
            object.__setattr__(self, name, _pair(name, value, least))
        refuse_huge("padding", max(self.padding), _MOST_PADDING)

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of filter positions on an image; not positive where the filter is larger."""
        padded = np.array([height, width]) + 2 * np.array(self.padding)
        rows, columns = (padded - self.kernel_size) // self.stride + 1
        return int(rows), int(columns)

    def n_patches(self, images: np.ndarray) -> int:
        """Patches P of an image."""
        return int(np.prod(self.shape(*images.shape[2:])))

    def n_entries(self, channels: int) -> int:
        """Entries h of a patch."""
        return int(channels * np.prod(self.kernel_size))

    def patches(self, images: np.ndarray) -> np.ndarray:
        """Flattened patches of images (n, channels, height, width): float64, (n * P, channels * kernel size).

        The patches of an image are consecutive. The entries of one are in the order of torch's filters: channel, row,
        column.
        """
        if is_elsewhere(images):
            return self._patches_elsewhere(images)
        sides = [(0, 0), (0, 0), *((zeros, zeros) for zeros in self.padding)]
        padded = np.pad(images.astype(np.float64), sides)
        vertical, horizontal = self.stride
        windows = sliding_window_view(padded, self.kernel_size, axis=(2, 3))[:, :, ::vertical, ::horizontal]
        return windows.transpose(0, 2, 3, 1, 4, 5).copy().reshape(-1, self.n_entries(images.shape[1]))

    def _patches_elsewhere(self, images: Any) -> Any:
        """Patches of images of another library than NumPy, there: an entry of all patches at a time."""
        (rows, columns), xp, images = self.shape(*images.shape[2:]), namespace(images), doubles(images)
        for axis, zeros in ((2, self.padding[0]), (3, self.padding[1])):
            if zeros:
                shape = tuple(zeros if i == axis else size for i, size in enumerate(images.shape))
                border = xp.zeros(shape, dtype=images.dtype, device=images.device)
                images = xp.concat([border, images, border], axis=axis)
        (height, width), (down, right) = self.kernel_size, self.stride
        entries = [
            images[:, :, i : i + down * (rows - 1) + 1 : down, j : j + right * (columns - 1) + 1 : right]
            for i in range(height)
            for j in range(width)
        ]
        patches = xp.permute_dims(xp.stack(entries, axis=-1), (0, 2, 3, 1, 4))
        return xp.reshape(patches, (-1, self.n_entries(images.shape[1])))

    def blocks(self, images: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of the images and their patches, a block at a time."""
        entries = self.n_patches(images) * self.n_entries(images.shape[1])
        for samples in _slices(images.shape[0], entries, block_entries(images, _BLOCK_ENTRIES)):
            yield samples, self.patches(images[samples, ...])

    def mean(self, images: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Mean patch of weighted images: that of their average image."""
        average = np.zeros(images.shape[1:])
        for samples in _slices(images.shape[0], average.size, block_entries(images, _BLOCK_ENTRIES)):
            block = doubles(images[samples, ...])
            average += to_numpy(namespace(block).tensordot(*like(block, weights[samples]), block, axes=1))
        return self.patches(average[None] / weights.sum()).mean(axis=0)

    def moments(
        self, images: np.ndarray, weights: np.ndarray, mean: np.ndarray, basis: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean, and covariance matrix, of the patches of weighted images, minus `mean`, times the basis if any."""
        weights = weights / weights.sum() / self.n_patches(images)
        size = len(mean) if basis is None else basis.shape[1]
        first, second = np.zeros(size), np.zeros((size, size))
        for samples, patches in self.blocks(images):
            patches -= like(patches, mean)[0]
            rows = patches if basis is None else patches @ like(patches, basis)[0]
            row_weights = np.repeat(weights[samples], self.n_patches(images))
            of_rows, roots = like(patches, row_weights, np.sqrt(row_weights)[:, None])
            first += to_numpy(of_rows @ rows)
            rows *= roots
            second += to_numpy(rows.T @ rows)
        return first, second - np.outer(first, first)


class PatchDesign(BatchNormDesign):
    r"""Whitened patches of images: the design matrix of a batch-normalized convolutional layer.

    A filter of a convolutional layer is a neuron that reads every patch of an image. Batch normalization takes its
    mean and variance over all patches of all images, and global average pooling averages the outputs over the patches
    of an image. So the design matrix is that of `BatchNormDesign` on the n * P patches, ``Z^T Z = n P I``, and
    `DesignMatrix` pools `n_patches` consecutive rows.

    The patch matrix is made a block of images at a time. Its singular values come from the matrix of second moments,
    which has no digits of those below about 1e-8 of the largest; a second pass over the patches makes the columns of Z
    orthonormal to rounding.

    Parameters
    ----------
    kernel_size, stride : int or pair of int, default=3 and 1
        Height and width of the filter, and of its steps.
    padding : int or pair of int, default=0
        Rows and columns of zeros added on each side of an image.
    n_components : int, float or None, default=None
        None keeps every direction of numerical rank, an int so many leading singular directions of the centred
        patches, a float in (0, 1] the smallest number that reach this fraction of the variance.
    rtol : float, default=1e-4
        A direction is kept if its singular value exceeds `rtol` times the largest, or 1e-6 where that is more. With
        ``n_components=None`` and ``spectral_power=0`` the entries of a patch are divided by their standard deviation
        first, and otherwise taken as they are, since they share a unit.
    spectral_power : float, default=0.0
        Column i of Z is multiplied by ``(S_i / S_1)^spectral_power``, as in `BatchNormDesign`.

    Attributes
    ----------
    image_shape_ : tuple of int
        Channels, height and width of the images.
    n_patches : int
        Patches P of an image, once fitted.
    mean_ : ndarray of shape (h,)
        Mean patch; h is channels times the kernel size.
    singular_values_ : ndarray of shape (r,)
        Singular values of the centred patches that were kept; of the patches over their entries' standard
        deviations where ``n_components=None`` and ``spectral_power=0``.
    spectral_weights_ : ndarray of shape (r,)
        The weights ``(S_i / S_1)^spectral_power`` of the first r columns of Z.
    whitening_ : ndarray of shape (h, r)
        ``(patches - mean_) @ whitening_`` are the first r columns of Z.
    coloring_ : ndarray of shape (r, h)
        The first r columns of Z times `coloring_` are the centred patches (their kept part).
    variance_share_ : float
        Share of the variance along the directions that were kept; 1 up to rounding where none was left out.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, on convolutional
       networks.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import PatchDesign
    >>> images = np.random.default_rng(0).standard_normal((10, 1, 4, 4))
    >>> design = PatchDesign(kernel_size=2, stride=2).fit(images)
    >>> Z = design.matrix(images)
    >>> Z.n_samples, Z.n_rows, bool(np.allclose(Z.adjoint(Z.rows()) / Z.n_rows, np.eye(5)))
    (10, 40, True)
    """

    _matrix_of_source = Design._matrix_of_source

    def __init__(
        self,
        kernel_size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        n_components: int | float | None = None,
        rtol: float = 1e-4,
        *,
        spectral_power: float = 0.0,
    ):
        super().__init__(n_components, rtol, spectral_power=spectral_power, standardize=False)
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding

    @property
    def takes_sparse(self) -> bool:
        """No: images are dense."""
        return False

    @property
    def grid(self) -> PatchGrid:
        """Positions of the filters."""
        return PatchGrid(self.kernel_size, self.stride, self.padding)

    @all_or_nothing
    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn mean and whitening of the patches.

        Parameters
        ----------
        X : array-like of shape (n, channels, height, width)
            Training images, of any numeric type.
        y : ignored
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the images; integer weights equal repeated images. All equal if None.

        Returns
        -------
        self : PatchDesign

        Raises
        ------
        ValueError
            If X are not finite images that the filter fits on, if all their patches are equal, or if a parameter or a
            sample weight is out of range.
        """
        self._check_parameters()
        grid = self.grid
        weights, images = weighted_samples(sample_weight, check_images(X, grid))
        check_magnitude(images, "X")
        n_rows = images.shape[0] * grid.n_patches(images)
        check_components(self.n_components, min(n_rows, grid.n_entries(images.shape[1])))
        mean = grid.mean(images, weights)
        shift, moments = grid.moments(images, weights, mean)
        mean = mean + shift
        std = np.sqrt(np.maximum(moments.diagonal(), 0))
        std[std <= 10 * np.finfo(float).eps * np.abs(mean)] = 0
        if not std.any():
            raise ValueError(
                "All patches of X are equal, so batch normalization would divide by a zero variance; give images "
                "that vary."
            )
        scale = self._column_scale(std)
        divisors = np.where(scale > 0, scale, np.inf)
        moments /= np.outer(divisors, divisors)
        variance = float(np.trace(moments))
        S, Vt = principal_directions(moments, self.n_components)
        keep = rank_to_keep(S, self.n_components, max(self.rtol, MOMENTS_RTOL))
        S, Vt = S[:keep], Vt[:keep]
        of_basis = partial(grid.moments, images, weights, mean)
        self._set_directions(mean, scale, S, Vt, variance, weights.sum() * grid.n_patches(images), of_basis)
        self.image_shape_ = tuple(images.shape[1:])
        self.n_patches = grid.n_patches(images)
        return self

    def matrix(self, X: ArrayLike) -> Operator:
        """Design matrix of the patches of any images, all of it in memory, wherever the images are."""
        return Design.matrix(self, X)

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Design rows (n' * P, k) of the patches of any X (n', channels, height, width), image by image."""
        check_is_fitted(self)
        images = check_images(X, self.grid, self.image_shape_)
        if is_elsewhere(images):
            return self._transformed_elsewhere(images)
        dtype = np.float32 if images.dtype == np.float32 else np.float64
        Z = np.ones((len(images) * self.n_patches, self.whitening_.shape[1] + 1), dtype=dtype)
        for samples, patches in self.grid.blocks(images):
            rows = Z[samples.start * self.n_patches : samples.stop * self.n_patches]
            np.matmul(patches - self.mean_, self.whitening_, out=rows[:, :-1])
        return Z

    def _transformed_elsewhere(self, images: Any) -> Any:
        """Design rows of images of another library than NumPy, there."""
        parts = []
        for _, patches in self.grid.blocks(images):
            xp, (mean, whitening) = namespace(patches), like(patches, self.mean_, self.whitening_)
            one = xp.ones((patches.shape[0], 1), dtype=patches.dtype, device=patches.device)
            part = xp.concat([(patches - mean) @ whitening, one], axis=1)
            parts.append(xp.astype(part, xp.float32) if images.dtype == xp.float32 else part)
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)


def check_images(X: ArrayLike, grid: PatchGrid, image_shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Return X as finite images (n, channels, height, width) on which the filter fits.

    Images with the channels last are refused where they can be told: where the channels are known, and otherwise where
    the last axis has at most four entries, fewer than the other two, and these are equal or the filter is more than one
    wide. Narrow images that look like this can be given with height and width swapped.

    Parameters
    ----------
    X : array-like of shape (n, channels, height, width)
        Images of any numeric type, which is kept.
    grid : PatchGrid
        Positions of the filter.
    image_shape : tuple of int or None, default=None
        Channels, and perhaps height and width, that the images must have.

    Returns
    -------
    images : ndarray of shape (n, channels, height, width)

    Raises
    ------
    ValueError
        If X is something else; the message names the axis or the size that looks wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.designs import PatchGrid
    >>> from convexbn.designs._patches import check_images
    >>> check_images(np.zeros((7, 3, 8, 8)), PatchGrid(3)).shape
    (7, 3, 8, 8)
    """
    if np.ndim(X) == 0:
        raise ValueError(f"X must have shape (n, channels, height, width), got {X!r}.")
    images: np.ndarray = checked_array(X, ensure_2d=False, allow_nd=True)
    if images.ndim != 4:
        fix = {
            2: "reshape rows of pixels to images with X.reshape(len(X), channels, height, width)",
            3: "give images of one channel as X[:, None], or one image as X[None]",
        }.get(images.ndim, "reshape it")
        raise ValueError(f"X must have shape (n, channels, height, width), got {images.shape}; {fix}.")
    channels, height, width = images.shape[1:]
    last = (
        f"X of shape {images.shape} must have shape (n, channels, height, width), but its last axis looks like the "
        "channels: use np.moveaxis(X, -1, 1)"
    )
    thin = image_shape is None and width < min(channels, height)
    if thin and width <= 4 and (channels == height or grid.kernel_size[1] > 1):
        raise ValueError(f"{last}. If the images really are narrow, swap height and width.")
    if image_shape is not None and tuple(images.shape[1 : 1 + len(image_shape)]) != image_shape:
        rotated = (width, channels, height)[: len(image_shape)] == image_shape
        if rotated or channels != image_shape[0] == width:
            raise ValueError(f"{last}. The images of training have {_named(image_shape)}.")
        raise ValueError(
            f"X holds images of shape {images.shape[1:]}, those of training have {_named(image_shape)}; give such "
            "images."
        )
    if min(grid.shape(height, width)) < 1:
        fix = " If the last axis holds the channels, use np.moveaxis(X, -1, 1)." if thin else ""
        raise ValueError(
            f"kernel_size={grid.kernel_size} is larger than the images, which are {height} x {width} with "
            f"padding={grid.padding} on each side; take a smaller filter or more padding.{fix}"
        )
    return images


def _named(image_shape: tuple[int, ...]) -> str:
    return f"{image_shape[0]} channels" if len(image_shape) == 1 else f"shape {image_shape}"


def _pair(name: str, value: Any, least: int) -> tuple[int, int]:
    """Return the value as two integers from `least` on, or raise a ValueError that names it."""
    pair = value if isinstance(value, (tuple, list, np.ndarray)) and np.ndim(value) else (value, value)
    valid = len(pair) == 2 and all(
        isinstance(entry, (int, np.integer)) and not isinstance(entry, bool) and entry >= least for entry in pair
    )
    if not valid:
        raise ValueError(f"{name}={value!r} must be an integer from {least} on, or a pair of them: height and width.")
    return int(pair[0]), int(pair[1])


def _slices(n_samples: int, entries: int, at_once: int = _BLOCK_ENTRIES) -> Iterator[slice]:
    """Slices of samples with so many entries each, a block at a time."""
    samples = max(1, at_once // entries)
    for start in range(0, n_samples, samples):
        yield slice(start, min(start + samples, n_samples))
