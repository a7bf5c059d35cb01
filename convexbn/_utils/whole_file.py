"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

Target = str | os.PathLike[str]


@contextmanager
def whole_file(path: Target) -> Iterator[IO[bytes]]:
    """Write to a draft beside a file, which takes its place in one step when all of it is on the disk.

    Whatever ends the writing before, an error, Ctrl-C or a power failure, the file is as it was.

    Parameters
    ----------
    path : str or path
        The file, which need not exist.

    Yields
    ------
    file : binary file
        The draft.

    Raises
    ------
    OSError
        If the file cannot be written, as where the disk is full; its name is in the error.

    Examples
    --------
    >>> import tempfile
    >>> from convexbn._utils.whole_file import whole_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "text")
    ...     with whole_file(path) as file:
    ...         _ = file.write(b"whole")
    ...     path.read_bytes(), len(list(path.parent.iterdir()))
    (b'whole', 1)
    """
    path = Path(os.path.realpath(path))  # the file itself, where it is a link
    draft = path.with_name(path.name + ".draft")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
