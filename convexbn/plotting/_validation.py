"""Picture of how weight decay and spectral power were chosen on held-out samples."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from convexbn.plotting._pyplot import import_pyplot
from convexbn.plotting._style import BOUND, LIGHTEST, SEQUENTIAL, axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "osD^vP<>X"


class ValidationDisplay:
    """Loss on held-out samples against weight decay, a curve for each spectral power, and the point that was chosen.

    Scores of a cross-validation that are not all negative, as R^2 and the accuracy, are drawn as they are.

    Curves of few folds, of powers that were dropped early, are scaled by the ratio of the chosen network's loss on all
    folds to that on these folds, so that all curves can be compared.

    Parameters
    ----------
    scores : mapping of str to ndarray
        `validation_scores_` of an estimator.
    weight_decay, spectral_power : float
        What was chosen.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the curves.
    figure_ : matplotlib Figure
        Figure that holds them.
    lines_ : list of matplotlib Line2D
        The curves, in the order of their spectral powers.
    chosen_ : matplotlib Line2D
        The mark of the chosen point.

    See Also
    --------
    ValidationDisplay.from_estimator : Draw the choice of a fitted estimator.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from sklearn.datasets import load_diabetes
    >>> from convexbn import ConvexBNRegressor
    >>> from convexbn.plotting import ValidationDisplay
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = ConvexBNRegressor(tol=0.1).fit(X[:60], y[:60])
    >>> display = ValidationDisplay.from_estimator(model)
    >>> display.ax_.get_xlabel(), display.ax_.get_xscale()
    ('weight decay', 'log')
    """

    def __init__(self, scores: Mapping[str, np.ndarray], *, weight_decay: float, spectral_power: float):
        self.scores = scores
        self.weight_decay = weight_decay
        self.spectral_power = spectral_power

    @classmethod
    def from_estimator(cls, model: Any, ax: "Axes | None" = None) -> Self:
        """Draw how the values of an estimator were chosen.

        Parameters
        ----------
        model : ConvexBNRegressor, ConvexBNClassifier or another estimator with `validation_scores_`
            The estimator, fitted with ``weight_decay="auto"``, or a CV variant.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : ValidationDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If nothing was chosen on held-out samples.
        ImportError
            If matplotlib is not installed.
        """
        check_is_fitted(model)
        if not hasattr(model, "validation_scores_"):
            raise ValueError(
                f"This {type(model).__name__} has no validation_scores_, since nothing was chosen on held-out "
                'samples; fit it with weight_decay="auto" on four samples or more.'
            )
        display = cls(model.validation_scores_, weight_decay=model.weight_decay_, spectral_power=model.spectral_power_)
        return display.plot(ax)

    def plot(self, ax: "Axes | None" = None) -> Self:
        """Draw the curves on `ax`, or on the axes of a new figure if it is None, and return the display."""
        ax = axes_or_new(ax)
        table, colors = self.scores, import_pyplot().get_cmap(SEQUENTIAL)
        metrics = self._metrics
        curves = np.unique(np.column_stack([table["spectral_power"], table["n_train"], metrics]), axis=0)
        powers, most = np.unique(table["spectral_power"]), table["n_train"].max()
        chosen, losses = self._chosen, self._losses
        are_losses = bool((losses > 0).all())
        heights = losses if are_losses else -losses
        self.lines_: list[Any] = []
        for power, n_train, metric in curves:
            rows = (table["spectral_power"] == power) & (table["n_train"] == n_train) & (metrics == metric)
            index = int(np.searchsorted(powers, power))
            partial = n_train < most or table["n_folds"][rows].max() < table["n_folds"].max()
            label = f"spectral power {power:g}" + (", feature metric" if metric else "")
            if n_train < most:
                label += f", {n_train:,.0f} samples"
            elif partial:
                label += f", {table['n_folds'][rows].max()} of {table['n_folds'].max()} folds"
            self.lines_ += ax.plot(
                table["weight_decay"][rows],
                heights[rows],
                color=colors(LIGHTEST * index / max(len(powers) - 1, 1)),
                linestyle="--" if partial else "-." if metric else "-",
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=4,
                label=label,
            )
        chosen_line: Any = ax.plot(
            table["weight_decay"][chosen],
            heights[chosen],
            "*",
            color=BOUND,
            markeredgecolor="black",
            markersize=15,
            label=f"chosen: weight decay {self.weight_decay:.2g}, spectral power {self.spectral_power:g}",
        )[0]
        self.chosen_ = chosen_line
        ax.set(xscale="log", xlabel="weight decay")
        ax.set(**{"yscale": "log", "ylabel": "validation loss"} if are_losses else {"ylabel": "validation score"})
        ax.legend(fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @property
    def _metrics(self) -> np.ndarray:
        """Whether each row is of a learned feature metric, which CV estimators do not learn."""
        return np.asarray(self.scores.get("feature_metric", np.zeros(len(self.scores["n_train"]), dtype=bool)))

    @property
    def _chosen(self) -> int:
        """Row of the choice, of the curve that was trained on most."""
        table = self.scores
        here = (table["spectral_power"] == self.spectral_power) & (table["weight_decay"] == self.weight_decay)
        return int(np.flatnonzero(here & (table["n_train"] == table["n_train"][here].max()))[0])

    @property
    def _losses(self) -> np.ndarray:
        """Mean losses of the rows, those of few folds in proportion to the chosen network's on these folds."""
        losses = -self.scores["scores"]
        seen, best = np.isfinite(losses), losses[self._chosen]
        on_its_folds = np.nanmean(np.where(seen, best, np.nan), axis=1)
        ratios = np.ones(len(losses))
        np.divide(np.nanmean(best), on_its_folds, out=ratios, where=on_its_folds != np.nanmean(best))
        return np.nanmean(losses, axis=1) * ratios
