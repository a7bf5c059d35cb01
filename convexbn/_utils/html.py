"""Small tables with a sparkline, as notebooks show objects."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from convexbn._utils.summary import Summarized

_WIDTH, _HEIGHT, _MARGIN = 160, 32, 2
_MOST_POINTS = 200
_CELL = "text-align: left; padding: 1px 10px 1px 0"


class Tabulated(Summarized):
    """Mixin of a class that notebooks show as a table of `_rows`, with a `_picture`.

    Examples
    --------
    >>> from convexbn import Certificate
    >>> html = Certificate(2.0, 1.9, "patterns", 1.0)._repr_html_()
    >>> html.startswith("<table"), "<svg" in html, "relative gap" in html
    (True, True, True)
    """

    @abstractmethod
    def _rows(self) -> Mapping[str, object]:
        """Names and values of the rows; floats are shown to six digits."""

    @abstractmethod
    def _picture(self) -> tuple[str, str]:
        """What the picture shows, and the picture as inline SVG, empty if there is none."""

    def _repr_html_(self) -> str:
        name, picture = self._picture()
        rows = {key: f"{value:.6g}" if isinstance(value, float) else str(value) for key, value in self._rows().items()}
        cells = {escape(key): escape(value) for key, value in rows.items()}
        if picture:
            cells[escape(name)] = picture
        body = "".join(f'<tr><th style="{_CELL}">{key}</th><td>{value}</td></tr>' for key, value in cells.items())
        return f"<table><caption>{escape(type(self).__name__)}</caption><tbody>{body}</tbody></table>"


def sparkline(heights: Sequence[float] | np.ndarray, name: str) -> str:
    """Return a curve as inline SVG, in the colour of the text; empty where there are fewer than two finite heights.

    Parameters
    ----------
    heights : array-like of shape (n,)
        Heights, from left to right.
    name : str
        What they are, for those who do not see the picture.

    Returns
    -------
    svg : str

    Examples
    --------
    >>> from convexbn._utils.html import sparkline
    >>> sparkline([0.0, 1.0], "loss <of all>").count("&lt;of all&gt;")
    1
    """
    values = np.asarray(heights, dtype=float)
    if len(values) < 2 or not np.isfinite(values).all():
        return ""
    values = values[np.unique(np.linspace(0, len(values) - 1, _MOST_POINTS).round().astype(int))]
    low, span = values.min(), np.ptp(values)
    x = _MARGIN + np.linspace(0, 1, len(values)) * (_WIDTH - 2 * _MARGIN)
    shares = (values - low) / span if span > 0 else np.full(len(values), 0.5)
    y = _HEIGHT - _MARGIN - shares * (_HEIGHT - 2 * _MARGIN)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    what = escape(f"{name}: from {values[0]:.4g} to {values[-1]:.4g}, at least {low:.4g}, at most {low + span:.4g}")
    return _svg(what, f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"/>')


def bar(shares: Sequence[float], name: str) -> str:
    """Return a frame as inline SVG that is filled from the left to some shares of its width, one upon the other.

    Parameters
    ----------
    shares : sequence of float
        Numbers from 0 to 1.
    name : str
        What they are, for those who do not see the picture.

    Returns
    -------
    svg : str

    Examples
    --------
    >>> from convexbn._utils.html import bar
    >>> bar([0.5], "half").count("<rect")
    2
    """
    height, width = _HEIGHT / 2, _WIDTH - 2 * _MARGIN
    at = f'x="{_MARGIN}" y="{_HEIGHT / 4}" height="{height}"'
    filled = "".join(f'<rect {at} width="{width * s:.1f}" fill="currentColor" fill-opacity="0.4"/>' for s in shares)
    return _svg(escape(name), f'{filled}<rect {at} width="{width}" fill="none" stroke="currentColor"/>')


def _svg(title: str, content: str) -> str:
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return f'<svg {size} role="img"><title>{title}</title>{content}</svg>'
