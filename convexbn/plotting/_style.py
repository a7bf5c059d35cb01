"""What pictures have in common: axes, and colours that the colour-blind can tell apart."""

from importlib.resources import files
from re import findall
from typing import TYPE_CHECKING, Any

from convexbn.plotting._pyplot import import_pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of Okabe and Ito, without black, which is the convex solution's, and yellow, which is too light for a white page.
_CYCLE = findall('"([0-9A-F]{6})"', files("convexbn.plotting").joinpath("colors.mplstyle").read_text())
*COLORS, BOUND = (f"#{_CYCLE[place]}" for place in (0, 1, 2, 4, 5, 3))
LIGHTEST = 0.85  # of the colour map, so that no curve is too light for a white page
SEQUENTIAL, DIVERGING = "viridis", "PuOr"


def color_of(number: int) -> str:
    """Return the colour of a curve."""
    return COLORS[number % len(COLORS)]


def axes_or_new(ax: "Axes | None", **options: Any) -> "Axes":
    """Return the axes that are given, or those of a new figure."""
    pyplot = import_pyplot()
    return pyplot.subplots(layout="constrained", **options)[1] if ax is None else ax


def panels(ax: "Axes | None", count: int) -> list["Axes"]:
    """Return panels below one another with a common horizontal axis, in the place of the axes, or in a new figure."""
    pyplot = import_pyplot()
    if ax is None:
        figure, axes = pyplot.subplots(
            count, 1, sharex=True, squeeze=False, layout="constrained", figsize=(6.4, 1.6 + 1.6 * count)
        )
        return list(axes[:, 0])
    place = ax.get_subplotspec()
    if place is None:
        raise ValueError("ax must be axes of pyplot.subplots, whose place panels can take, or None.")
    ax.set_axis_off()
    figure = ax.get_figure()
    assert figure is not None
    axes = place.subgridspec(count, 1).subplots(sharex=True, squeeze=False)
    return list(axes[:, 0])
