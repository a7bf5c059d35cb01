"""npz files from which nothing is executed, and which take no more memory than they have bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from math import prod
from tokenize import TokenError
from typing import Any, Self
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np
from numpy.lib import format as npy

from convexbn._utils.whole_file import Target, whole_file

_LEAST_BYTES = 2**26  # of arrays that are compressed, which may be more than the file has
_LARGEST_RATIO = 1032  # of deflate
HEADER_BYTES = 2**14  # of an array, more than NumPy reads


@dataclass(frozen=True)
class Header:
    """What the header of an array says.

    Parameters
    ----------
    shape : tuple of int
        Its shape.
    dtype : dtype
        Type of its entries: numbers, truth values, strings or bytes.
    fortran_order : bool
        Whether the first index runs fastest.
    size : int
        Bytes of the header itself.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    size: int

    @classmethod
    def of(cls, beginning: bytes) -> Self:
        """The header of a .npy file that begins with these bytes.

        Raises
        ------
        ValueError
            If it is none, or the array is of Python objects or records.
        """
        file = BytesIO(beginning[:HEADER_BYTES])
        read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
        try:
            shape, fortran_order, dtype = read(file)
        except (MemoryError, OverflowError, RecursionError, SyntaxError, TokenError, TypeError) as error:
            raise ValueError("the header of an array cannot be read") from error
        if dtype.kind not in "biufcSU":
            what = "Python objects, which are not read" if dtype.hasobject else dtype
            raise ValueError(f"it holds {what}; save an array of numbers")
        if min(shape, default=0) < 0:
            raise ValueError(f"an array claims the shape {shape}")
        return cls(shape, dtype, fortran_order, file.tell())

    @property
    def n_bytes(self) -> int:
        """Bytes of header and entries."""
        return self.size + prod(self.shape) * self.dtype.itemsize


def member_header(archive: ZipFile, name: str, n_bytes: int) -> Header:
    """The header of an array in a file of so many bytes, which hold all that it claims.

    Raises
    ------
    ValueError, or another error of `zipfile`
        If the file is damaged, or the array is not as large as it claims.
    """
    member = archive.getinfo(name)
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in a way that NumPy does not know")
    with archive.open(member) as file:
        header = Header.of(file.read(HEADER_BYTES))
    if header.n_bytes != member.file_size or member.file_size > _LARGEST_RATIO * n_bytes:
        raise ValueError(f"{name} claims {header.n_bytes} bytes, and there are not as many")
    return header


def write_npz(path: Target, arrays: Mapping[str, Any]) -> None:
    """Write arrays by name, not compressed; the file is as it was until all of it is written."""
    with whole_file(path) as file:
        np.savez(file, **arrays)


def read_npz(stored: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name.

    Arrays that are not compressed, as `write_npz` leaves them, cannot take more memory than the file has bytes;
    others may take 64 MiB.

    Parameters
    ----------
    stored : bytes
        The file.

    Returns
    -------
    arrays : dict of str to ndarray

    Raises
    ------
    ValueError, or another error of `zipfile`
        If the file is damaged, claims more than it has, or holds Python objects.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from convexbn._utils.npz import read_npz, write_npz
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "arrays.npz")
    ...     write_npz(path, {"x": np.arange(3)})
    ...     read_npz(path.read_bytes())
    {'x': array([0, 1, 2])}
    """
    with ZipFile(BytesIO(stored)) as archive:
        members = archive.infolist()
        claimed = sum(member.file_size for member in members)
        if claimed > max(len(stored), _LEAST_BYTES):
            raise ValueError(f"it claims {claimed} bytes of arrays")
        if any(member.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for member in members):
            raise ValueError("it is compressed in a way that NumPy does not know")
        arrays = {}
        for member in members:
            with archive.open(member) as file:  # not more is unpacked than it claims, whatever is packed
                arrays[member.filename.removesuffix(".npy")] = _array(file.read(member.file_size))
        return arrays


def _array(stored: bytes) -> np.ndarray:
    header = Header.of(stored)
    if header.n_bytes != len(stored):
        raise ValueError(f"an array claims {header.n_bytes} bytes and has {len(stored)}")
    entries = np.frombuffer(stored, header.dtype, prod(header.shape), header.size)
    return entries.reshape(header.shape, order="F" if header.fortran_order else "C").copy(order="K")
