"""Picture of how much of the targets is fitted along each singular direction of the data."""

from typing import TYPE_CHECKING, Any, Self

from numpy.typing import ArrayLike

from convexbn._utils.checks import check_kind
from convexbn.designs._spectral_trace import SpectralTrace, spectral_trace
from convexbn.plotting._pyplot import import_pyplot
from convexbn.plotting._style import LIGHTEST, SEQUENTIAL, axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class SpectralTraceDisplay:
    """Fitted share of the targets along each singular direction, dark for large and light for small ones.

    Parameters
    ----------
    trace : SpectralTrace
        As returned by `convexbn.spectral_trace`; steps at zero are left out, since their axis is logarithmic.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the curves.
    figure_ : matplotlib Figure
        Figure that holds them.
    lines_ : list of matplotlib Line2D
        A curve for each direction, the largest first.

    See Also
    --------
    SpectralTraceDisplay.from_predictions : Draw predictions that were taken along training or a path.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np
    >>> from convexbn.plotting import SpectralTraceDisplay
    >>> X = np.array([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0]])
    >>> y = X.sum(axis=1)
    >>> display = SpectralTraceDisplay.from_predictions(X, y, [0 * y, X[:, 0], y], steps=[1, 10, 100], xlabel="epoch")
    >>> len(display.lines_), display.ax_.get_xlabel()
    (2, 'epoch')
    """

    def __init__(self, trace: SpectralTrace):
        check_kind("trace", trace, SpectralTrace, "what spectral_trace returns")
        self.trace = trace

    @classmethod
    def from_predictions(
        cls,
        X: ArrayLike,
        y: ArrayLike,
        predictions: ArrayLike,
        *,
        steps: ArrayLike | None = None,
        n_components: int | float | None = 1.0,
        xlabel: str = "step",
        ax: "Axes | None" = None,
    ) -> Self:
        """Draw predictions for the training data, taken along training or a path.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Training data.
        y : array-like of shape (n,)
            Targets.
        predictions : array-like of shape (n_steps, n)
            Predictions for X, one row a step.
        steps : array-like of shape (n_steps,) or None, default=None
            What to call the steps; None numbers them from 0 on.
        n_components : int or float, default=1.0
            Leading directions to follow, as in `convexbn.spectral_trace`.
        xlabel : str, default="step"
            What the steps are.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : SpectralTraceDisplay

        Raises
        ------
        ValueError
            If an array is not finite, or lengths do not match.
        ImportError
            If matplotlib is not installed.
        """
        trace = spectral_trace(X, y, predictions, steps=steps, n_components=n_components)
        return cls(trace).plot(ax, xlabel=xlabel)

    def plot(self, ax: "Axes | None" = None, *, xlabel: str = "step") -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.
        xlabel : str, default="step"
            What the steps are.

        Returns
        -------
        display : SpectralTraceDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax, colors, trace = axes_or_new(ax), import_pyplot().get_cmap(SEQUENTIAL), self.trace
        r = len(trace.singular_values)
        self.lines_: list[Any] = []
        for i, (share, value) in enumerate(zip(trace.shares.T, trace.singular_values, strict=True)):
            label = f"singular value {value:.3g}" if i in (0, r - 1) else None
            color = colors(LIGHTEST * i / max(r - 1, 1))
            self.lines_ += ax.plot(trace.steps, share, color=color, linewidth=1, label=label)
        for level in (0, 1):
            ax.axhline(level, color="black", linewidth=0.5)
        ax.set(xscale="log", ylim=(-0.3, 1.5), xlabel=xlabel, ylabel="fitted share of the target")
        ax.legend(fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure
        return self
