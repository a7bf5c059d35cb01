"""Errors of files that cannot be read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile
from zlib import error as ZlibError


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is read into a ValueError with its name."""
    try:
        yield
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, ZlibError) as error:
        raise ValueError(f"{path} cannot be read, it may be truncated or of another kind: {error}") from error
