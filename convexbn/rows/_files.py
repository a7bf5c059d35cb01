"""Errors of files that cannot be read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convexbn._utils.damage import DAMAGE


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is read into a ValueError with its name."""
    try:
        yield
    except DAMAGE as error:
        raise ValueError(f"{path} cannot be read, it may be truncated or of another kind: {error}") from error
