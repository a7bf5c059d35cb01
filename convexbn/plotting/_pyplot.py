"""Matplotlib, imported where it is used."""

from typing import Any


def import_pyplot() -> Any:
    """Import matplotlib.pyplot, or say which extra is missing."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("This needs matplotlib: pip install 'convexbn[plot]'.") from error
    return pyplot
