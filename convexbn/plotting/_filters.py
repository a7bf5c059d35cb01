"""Picture of the filters of a convolutional network."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from convexbn._utils.checks import check_count
from convexbn.network._convolution import Convolution
from convexbn.plotting._style import DIVERGING, axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class FiltersDisplay:
    """Filters of a convolutional network as tiles, those that contribute most first, with channels side by side.

    Each filter is what multiplies the pixels, the normalization folded in, divided by its largest weight: orange for
    one sign, white for zero, purple for the other.

    Parameters
    ----------
    filters : ndarray of shape (m, channels, height, width)
        The filters, in their order.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the tiles.
    figure_ : matplotlib Figure
        Figure that holds them.
    image_ : matplotlib AxesImage
        The tiles.

    See Also
    --------
    FiltersDisplay.from_estimator : Draw the filters of a fitted estimator.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np
    >>> from convexbn.plotting import FiltersDisplay
    >>> display = FiltersDisplay(np.random.default_rng(0).standard_normal((5, 3, 4, 4))).plot()
    >>> display.ax_.get_title()
    '5 filters of 3 channels'
    """

    def __init__(self, filters: np.ndarray):
        self.filters = filters

    @classmethod
    def from_estimator(cls, model: Any, *, n_filters: int = 32, ax: "Axes | None" = None) -> Self:
        """Draw the filters of an estimator.

        Parameters
        ----------
        model : ConvexBNConvRegressor or ConvexBNConvClassifier
            A fitted estimator.
        n_filters : int, default=32
            How many at most, those first whose hidden and output weights have the largest product of norms.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : FiltersDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If its network is not convolutional or has no filters, or `n_filters` is not positive.
        ImportError
            If matplotlib is not installed.
        """
        check_is_fitted(model, "network_")
        check_count("n_filters", n_filters)
        network: Any = model.network_
        if not isinstance(model.network_, Convolution) or len(network) == 0:
            raise ValueError(f"model has a {network!r}, which has no filters; give a convolutional one with neurons.")
        largest = np.argsort(-network._sizes(), kind="stable")[:n_filters]
        return cls(network._inside()[0][largest].reshape(-1, *network.filter_shape)).plot(ax)

    def plot(self, ax: "Axes | None" = None) -> Self:
        """Draw the tiles on `ax`, or on the axes of a new figure if it is None, and return the display."""
        m, channels, height, width = self.filters.shape
        columns = int(np.ceil(np.sqrt(m * height / (width * channels)))) or 1
        rows = -(-m // columns)
        tile_height, tile_width = height + 1, channels * width + 1
        mosaic = np.full((rows * tile_height + 1, columns * tile_width + 1), np.nan)
        for number, kernel in enumerate(self.filters):
            row, column = divmod(number, columns)
            top, left = 1 + row * tile_height, 1 + column * tile_width
            tile = np.concatenate(list(kernel), axis=1)
            mosaic[top : top + height, left : left + tile.shape[1]] = tile / (np.abs(tile).max() or 1.0)
        ax = axes_or_new(ax)
        self.image_ = ax.imshow(mosaic, cmap=DIVERGING, vmin=-1, vmax=1, interpolation="nearest")
        ax.set_facecolor("0.6")
        ax.set(xticks=[], yticks=[])
        of_channels = "" if channels == 1 else f" of {channels} channels"
        ax.set_title(f"{m} filter{'s' * (m > 1)}{of_channels}")
        self.ax_, self.figure_ = ax, ax.figure
        return self
