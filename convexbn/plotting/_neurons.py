"""Picture of what a network computes of one or two columns of the data: its outputs, and the kinks of its neurons."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from convexbn._utils.checks import check_kind, is_integer, real_array
from convexbn._utils.data_checks import check_array
from convexbn.network import GatedNetwork, NormalizedNetwork
from convexbn.plotting._style import BOUND, SEQUENTIAL, axes_or_new, color_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = {1: 400, 2: 80}  # of the grid, along each column
_ROWS = 200  # of the data, at most, over which the other columns are averaged
_MARGIN = 0.05  # of the range of a column, beside it
_MARKERS = "osD^vP"


class NeuronsDisplay:
    """Output of a network over one or two columns of the data, and where its neurons switch on and off.

    Over one column it is a curve, with thin lines for the contributions of the neurons and ticks at their kinks; over
    two columns it is a coloured plane with the lines along which neurons switch. Where the data has other columns, too,
    output and contributions are averaged over their values in the data, which is the partial dependence; there are no
    kinks then.

    Parameters
    ----------
    grid : list of ndarray
        Values of the one or two columns.
    outputs : ndarray of shape (n_values,) or (n_values_1, n_values_2)
        Output of the network on the grid.
    contributions : ndarray of shape (n_values, m) or None
        The intercept and what each neuron adds to it; over one column alone.
    switches : (ndarray of shape (m, 1 or 2), ndarray of shape (m,)) or None
        Weights and offsets of the affine functions whose zeros are the kinks.
    names : list of str
        Names of the columns, and of the output.
    X : ndarray of shape (n, 1 or 2)
        The columns of the data.
    y : ndarray of shape (n,) or None
        Targets, or labels.
    labels : ndarray or None
        The labels, where there are classes.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the picture.
    figure_ : matplotlib Figure
        Figure that holds it.

    See Also
    --------
    NeuronsDisplay.from_estimator : Draw the neurons of a fitted estimator.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np
    >>> from convexbn import ConvexBNRegressor
    >>> from convexbn.plotting import NeuronsDisplay
    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> model = ConvexBNRegressor(0.01).fit(x, np.abs(x[:, 0]))
    >>> display = NeuronsDisplay.from_estimator(model, x, np.abs(x[:, 0]))
    >>> display.ax_.get_xlabel(), len(display.kinks_) == len(model.network_)
    ('column 0', True)
    """

    def __init__(
        self,
        grid: list[np.ndarray],
        outputs: np.ndarray,
        *,
        contributions: np.ndarray | None,
        switches: tuple[np.ndarray, np.ndarray] | None,
        names: list[str],
        X: np.ndarray,
        y: np.ndarray | None,
        labels: np.ndarray | None,
    ):
        self.grid = grid
        self.outputs = outputs
        self.contributions = contributions
        self.switches = switches
        self.names = names
        self.X = X
        self.y = y
        self.labels = labels

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        features: Sequence[int | str] | None = None,
        output: int = 0,
        ax: "Axes | None" = None,
    ) -> Self:
        """Draw the network of an estimator over one or two columns.

        Parameters
        ----------
        model : ConvexBNRegressor, ConvexBNClassifier, or a CV variant or stack
            A fitted estimator on a table. A classifier's outputs are drawn, not its probabilities; with one output a
            line is where they are zero. The neurons of a stack are not drawn.
        X : array-like of shape (n, d)
            Data, such as the training data.
        y : array-like of shape (n,) or None, default=None
            Targets or labels of the data, drawn as points.
        features : sequence of one or two int or str, default=None
            Numbers or names of the columns; None takes all, where there are at most two.
        output : int, default=0
            Which output, where there are several.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : NeuronsDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If columns or output are not among those there are, or the network does not take a table.
        ImportError
            If matplotlib is not installed.
        """
        check_kind("model", model, BaseEstimator, "a fitted estimator")
        check_is_fitted(model, "network_")
        network, data = model.network_, check_array(X, dtype=np.float64)
        d = getattr(model, "n_features_in_", None)
        if d is None or getattr(model, "features_", None) is not None:
            raise ValueError(f"model={model!r} has a network that takes no table; give an estimator on columns.")
        if data.shape[1] != d:
            raise ValueError(f"X has {data.shape[1]} columns, model was trained on {d}.")
        names = [str(name) for name in getattr(model, "feature_names_in_", [f"column {number}" for number in range(d)])]
        columns = _columns(features, names)
        if not (is_integer(output) and 0 <= output < network.n_outputs):
            raise ValueError(f"output={output!r} must be a number from 0 to {network.n_outputs - 1}.")
        grid = [_grid(data[:, column], _POINTS[len(columns)]) for column in columns]
        shape = tuple(len(values) for values in grid)
        points = np.stack([axis.ravel() for axis in np.meshgrid(*grid, indexing="ij")], axis=1)
        everything = len(columns) == d
        others = data[:1] if everything else data[np.unique(np.linspace(0, len(data) - 1, _ROWS).astype(int))]
        two_layers = isinstance(network, (NormalizedNetwork, GatedNetwork))
        outputs, contributions = np.zeros(len(points)), None
        if len(columns) == 1 and two_layers:
            contributions = np.full((len(points), len(network)), network.intercept[output])
        for row in others:
            rows = np.repeat(row[None], len(points), axis=0)
            rows[:, columns] = points
            outputs += network.predict(rows)[:, output] / len(others)
            if contributions is not None:
                contributions += network.hidden(rows) * network.output_weights[:, output] / len(others)
        switches = None
        if everything and two_layers:
            weights, offsets = network._switches()
            switches = weights[:, columns], offsets
        classes = getattr(model, "classes_", None)
        several = network.n_outputs > 1
        what = "output" if classes is None or not several else f"output of {classes[output]}"
        what = f"output {output}" if classes is None and several else what
        targets = None if y is None else real_array("y", y) if classes is None else np.asarray(y)
        if targets is not None and classes is not None and not np.isin(targets, classes).all():
            raise ValueError(f"y must hold labels that model was trained on, {classes.tolist()}.")
        if targets is not None and targets.ndim > 1:
            if targets.ndim > 2 or output >= targets.shape[1]:
                raise ValueError(f"y has shape {targets.shape}; give a column for each of {network.n_outputs} outputs.")
            targets = targets[:, output]
        return cls(
            grid,
            outputs.reshape(shape),
            contributions=contributions,
            switches=switches,
            names=[*(names[column] for column in columns), what if everything else f"{what}, averaged"],
            X=data[:, columns],
            y=targets,
            labels=classes,
        ).plot(ax)

    def plot(self, ax: "Axes | None" = None) -> Self:
        """Draw the picture on `ax`, or on the axes of a new figure if it is None, and return the display."""
        ax = axes_or_new(ax)
        if len(self.grid) == 1:
            self._plot_curve(ax)
        else:
            self._plot_plane(ax)
        ax.set(xlabel=self.names[0], ylabel=self.names[1])
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _plot_curve(self, ax: Any) -> None:
        (values,) = self.grid
        if self.contributions is not None:
            for number, contribution in enumerate(self.contributions.T):
                label = "intercept and a neuron" if number == 0 else None
                ax.plot(values, contribution, color="0.7", linewidth=0.7, label=label, zorder=1)
        if self.y is not None and self.labels is None:
            ax.plot(self.X[:, 0], self.y, ".", color=color_of(0), label="data", zorder=2)
        elif self.y is not None and self.labels is not None:
            for number, label in enumerate(self.labels):
                here = self.X[self.y == label, 0]
                ax.plot(
                    here,
                    np.full(len(here), 1.0 - 0.04 * number),
                    _MARKERS[number % len(_MARKERS)],
                    transform=ax.get_xaxis_transform(),
                    color=color_of(number),
                    markersize=4,
                    clip_on=False,
                    label=str(label),
                )
        ax.plot(values, self.outputs, color="black", label="network", zorder=3)
        self.kinks_: Any = []
        if self.switches is not None:
            weights, offsets = self.switches
            moving = weights[:, 0] != 0
            kinks = -offsets[moving] / weights[moving, 0]
            self.kinks_ = kinks[(kinks >= values[0]) & (kinks <= values[-1])]
            heights = np.interp(self.kinks_, values, self.outputs)
            ax.plot(self.kinks_, heights, "|", color=BOUND, markersize=11, label="kinks", zorder=4)
        shown = self.outputs if self.labels is not None or self.y is None else np.append(self.outputs, self.y)
        margin = 0.15 * (np.ptp(shown) or 1.0)  # neurons may go far beyond, and cancel
        ax.set_ylim(shown.min() - margin, shown.max() + margin)
        ax.legend(fontsize="small")

    def _plot_plane(self, ax: Any) -> None:
        first, second = self.grid
        plane = ax.contourf(first, second, self.outputs.T, levels=24, cmap=SEQUENTIAL)
        ax.figure.colorbar(plane, ax=ax, label=self.names[-1])
        if self.labels is not None and len(self.labels) == 2 and self.outputs.min() < 0 < self.outputs.max():
            ax.contour(first, second, self.outputs.T, levels=[0.0], colors="black", linewidths=2)
        self.kinks_ = self._lines(ax)
        if self.y is None:
            return
        if self.labels is None:
            ax.scatter(*self.X.T, c=self.y, cmap=SEQUENTIAL, norm=plane.norm, edgecolors="white", s=22, linewidths=0.7)
            return
        for number, label in enumerate(self.labels):
            here = self.X[self.y == label].T
            marker, color = _MARKERS[number % len(_MARKERS)], color_of(number + 1)
            ax.scatter(*here, marker=marker, color=color, edgecolors="white", s=24, linewidths=0.7, label=str(label))
        ax.legend(fontsize="small")

    def _lines(self, ax: Any) -> list[Any]:
        """Draw the lines along which neurons switch."""
        lines: list[Any] = []
        if self.switches is None:
            return lines
        first, second = self.grid
        for (a, b), offset in zip(*self.switches, strict=True):
            if a or b:
                point = -offset * np.array([a, b]) / (a**2 + b**2)
                lines.append(ax.axline(point, point + np.array([-b, a]), color="white", linewidth=0.8, alpha=0.8))
        ax.set(xlim=(first[0], first[-1]), ylim=(second[0], second[-1]))
        return lines


def _columns(features: Sequence[int | str] | None, names: list[str]) -> list[int]:
    """Numbers of the columns to draw."""
    d = len(names)
    if features is None:
        if d > 2:
            raise ValueError(f"X has {d} columns; give features, the numbers or names of one or two of them.")
        return list(range(d))
    given = list(features) if np.iterable(features) else []
    columns: list[Any] = [names.index(name) if isinstance(name, str) and name in names else name for name in given]
    if not 1 <= len(columns) <= 2 or not all(is_integer(column) and 0 <= column < d for column in columns):
        raise ValueError(f"features={features!r} must hold one or two numbers from 0 to {d - 1}, or of {names}.")
    if len(set(columns)) < len(columns):
        raise ValueError(f"features={features!r} must hold different columns.")
    return [int(column) for column in columns]


def _grid(values: np.ndarray, count: int) -> np.ndarray:
    margin = _MARGIN * (np.ptp(values) or 1.0)
    return np.linspace(values.min() - margin, values.max() + margin, count)
