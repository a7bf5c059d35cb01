"""The convolutional regressor and classifier."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.data_checks import check_X_y
from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._design import PRECISIONS
from convexbn.designs._patches import PatchDesign, PatchGrid, check_images
from convexbn.designs._weight_norm import WeightNormDesign
from convexbn.estimators._classifier import Classification
from convexbn.estimators._fixed import FixedWeightDecay
from convexbn.estimators._place import is_dispatched
from convexbn.estimators._regressor import Regression


@dataclass(kw_only=True, eq=False, repr=False)
class Convolutional(FixedWeightDecay):
    """What makes an estimator convolutional: X are images."""

    kernel_size: int | tuple[int, int] = 3
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0
    image_shape_: tuple[int, ...] = field(init=False)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._grid()

    def _grid(self) -> PatchGrid:
        return PatchGrid(self.kernel_size, self.stride, self.padding)

    def _unfitted_design(
        self, n_components: int | float | None, spectral_power: float
    ) -> BatchNormDesign | WeightNormDesign:
        return PatchDesign(
            self.kernel_size,
            self.stride,
            self.padding,
            n_components=n_components,
            spectral_power=spectral_power,
        )

    def _validate(self, X: ArrayLike, y: Any = None, reset: bool = True, **options: Any) -> Any:
        images = check_images(X, self._grid(), None if reset else self.image_shape_)
        if is_dispatched(images):  # with `reset=False`, since `fit` works on a copy in NumPy
            return images
        images = images if images.dtype == np.float32 else images.astype(np.float64, copy=False)
        if not reset:
            return images
        images, targets = check_X_y(images, y, dtype=PRECISIONS, allow_nd=True, estimator=self, **options)
        self.image_shape_ = images.shape[1:]
        return images, targets

    def _onnx_shape(self) -> list[int | str]:
        return ["n", *self.image_shape_]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags


@dataclass(kw_only=True, eq=False, repr=False)
class ConvexBNConvRegressor(Regression, Convolutional):
    """Regression on images with a two-layer batch-normalized convolutional ReLU network and global average pooling.

    Methods take X of shape (n, channels, height, width). A filter reads every patch of an image, batch normalization
    takes its statistics over all patches, and the outputs are averaged over the image. X whose last axis looks like the
    channels is refused: at most four entries, fewer than the other two axes, where these are equal or the filter is
    more than one wide.

    Parameters
    ----------
    weight_decay : float or "auto", default="auto"
        Weight decay of the objective (1/n) sum loss + weight_decay/2 * (squares of gamma, bias and output weights).
        "auto" chooses it on held-out images, as in `ConvexBNRegressor`.
    kernel_size : int or pair of int, default=3
        Height and width of the filters.
    stride : int or pair of int, default=1
        Vertical and horizontal step of the filters.
    padding : int or pair of int, default=0
        Rows and columns of zeros added on each side of an image.
    activation : {"relu", "gated_relu"}, default="relu"
        Activation of the hidden layer.
    loss : {"squared_error", "huber"} or Loss, default="squared_error"
        Training loss.
    fit_intercept : bool, default=True
        Whether the output has an intercept that is not penalised.
    n_components : int, float or None, default=None
        Leading singular directions of the patches to keep, as a number or a fraction of the variance; None keeps all.
    spectral_power : float or "auto", default="auto"
        Weight of small singular directions of the patches, as in `ConvexBNRegressor`.
    scale_outputs : bool, default=True
        Whether each of several outputs is divided by its standard deviation in training, as in `ConvexBNRegressor`.
    n_patterns, solver, tol, max_iter, max_time, prove
        As in `ConvexBNRegressor`.
    n_jobs, device, random_state, checkpoint, warm_start, callback, verbose
        As in `ConvexBNRegressor`.

    Attributes
    ----------
    network_ : ConvBatchNormNetwork or ConvGatedNetwork
        The trained network, which goes to PyTorch (`to_torch`), ONNX (`to_onnx`) and files (`save`).
    certificate_ : Certificate
        Objective, lower bound, and what the bound covers; print it.
    weight_decay_ : float
        The weight decay that was used.
    spectral_power_ : float
        The spectral power that was used.
    validation_scores_ : dict of ndarray
        What the choice rests on, where there was one, as in `ConvexBNRegressor`.
    n_iter_ : int
        Iterations of the solver; 0 for a closed form.
    image_shape_ : tuple of int
        Channels, height and width of the images seen in `fit`. There is no `n_features_in_`.
    output_scales_ : ndarray of shape (C,)
        What the targets were divided by in training; ones unless there are several and `scale_outputs`.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, on convolutional
       networks.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import ConvexBNConvRegressor
    >>> images = np.random.default_rng(0).standard_normal((30, 1, 4, 4))
    >>> steps = np.maximum(images[:, 0, :, 1:] - images[:, 0, :, :-1], 0).mean(axis=(1, 2))
    >>> model = ConvexBNConvRegressor(0.01, kernel_size=(1, 2)).fit(images, steps)
    >>> model.certificate_.scope, model.network_.filters.shape[1:]
    ('global', (1, 1, 2))
    """


@dataclass(kw_only=True, eq=False, repr=False)
class ConvexBNConvClassifier(Classification, Convolutional):
    """Classification of images with a two-layer batch-normalized convolutional ReLU network.

    Methods take X of shape (n, channels, height, width). A filter reads every patch of an image, batch normalization
    takes its statistics over all patches, and the outputs are averaged over the image. X whose last axis looks like the
    channels is refused: at most four entries, fewer than the other two axes, where these are equal or the filter is
    more than one wide.

    Parameters
    ----------
    weight_decay : float or "auto", default="auto"
        Weight decay of the objective (1/n) sum loss + weight_decay/2 * (squares of gamma, bias and output weights).
        "auto" chooses it on held-out images, as in `ConvexBNClassifier`.
    kernel_size : int or pair of int, default=3
        Height and width of the filters.
    stride : int or pair of int, default=1
        Vertical and horizontal step of the filters.
    padding : int or pair of int, default=0
        Rows and columns of zeros added on each side of an image.
    activation : {"relu", "gated_relu"}, default="relu"
        Activation of the hidden layer.
    loss : {"log_loss", "squared_hinge", "hinge", "cross_entropy"} or Loss, default="log_loss"
        Training loss, as in `ConvexBNClassifier`.
    fit_intercept : bool, default=True
        Whether the output has an intercept that is not penalised.
    n_components : int, float or None, default=None
        Leading singular directions of the patches to keep, as a number or a fraction of the variance; None keeps all.
    spectral_power : float or "auto", default="auto"
        Weight of small singular directions of the patches, as in `ConvexBNRegressor`.
    class_weight, n_patterns, solver, tol, max_iter, max_time, prove
        As in `ConvexBNClassifier`.
    n_jobs, device, random_state, checkpoint, warm_start, callback, verbose
        As in `ConvexBNClassifier`.

    Attributes
    ----------
    network_ : ConvBatchNormNetwork or ConvGatedNetwork
        The trained network, which goes to PyTorch (`to_torch`), ONNX (`to_onnx`) and files (`save`).
    certificate_ : Certificate
        Objective, lower bound, and what the bound covers; print it.
    weight_decay_ : float
        The weight decay that was used.
    spectral_power_ : float
        The spectral power that was used.
    validation_scores_ : dict of ndarray
        What the choice rests on, where there was one, as in `ConvexBNRegressor`.
    n_iter_ : int
        Iterations of the solver; 0 for a closed form.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    image_shape_ : tuple of int
        Channels, height and width of the images seen in `fit`. There is no `n_features_in_`.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, on convolutional
       networks.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import ConvexBNConvClassifier
    >>> images = np.random.default_rng(0).standard_normal((40, 1, 4, 4))
    >>> noisy = np.abs(np.diff(images[:, 0])).mean(axis=(1, 2)) > 1.1
    >>> labels = np.where(noisy, "noisy", "calm")
    >>> model = ConvexBNConvClassifier(0.001, kernel_size=(1, 2)).fit(images, labels)
    >>> model.certificate_.scope, model.score(images, labels) > 0.9
    ('global', True)
    """
