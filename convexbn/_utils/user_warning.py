"""Warnings that point to the user's line."""

import sys
import warnings
from types import FrameType

_PACKAGE = __name__.partition(".")[0]


def warn_user(message: str, category: type[Warning]) -> None:
    """Warn at the line outside this package that called into it.

    Parameters
    ----------
    message : str
        The message.
    category : type
        Its class.

    Examples
    --------
    >>> import warnings
    >>> from convexbn._utils.user_warning import warn_user
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_user("The gap is large.", UserWarning)
    >>> caught[0].filename == warn_user.__code__.co_filename
    False
    """
    frame: FrameType | None = sys._getframe()
    level, depth = 1, 1
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
            level = depth + 1
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, category, stacklevel=level)
