"""What reading a file of ours raises where the file is damaged, or is another one."""

from collections.abc import Iterator
from contextlib import contextmanager
from struct import error as StructError
from zipfile import BadZipFile
from zlib import error as ZlibError

DAMAGE = (
    ArithmeticError,
    AttributeError,
    BadZipFile,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    StructError,
    SyntaxError,
    TypeError,
    ValueError,
    ZlibError,
)


@contextmanager
def damage_as_value_error(message: str) -> Iterator[None]:
    """Raise a ValueError with this message in place of whatever a damaged file leads to.

    Parameters
    ----------
    message : str
        What the file is not.

    Examples
    --------
    >>> from convexbn._utils.damage import damage_as_value_error
    >>> with damage_as_value_error("run.npz is damaged."):
    ...     {}["facts"]
    Traceback (most recent call last):
    ...
    ValueError: run.npz is damaged.
    """
    try:
        yield
    except DAMAGE as error:
        raise ValueError(message) from error
