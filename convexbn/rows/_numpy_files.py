"""NumPy files as sources: pairs of .npy files, or .npz files."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate, pairwise
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from convexbn._utils.npz import HEADER_BYTES, Header, member_header
from convexbn._utils.summary import counted
from convexbn.rows._arrays import BLOCK_BYTES, sizes_of
from convexbn.rows._block import Block, float_type
from convexbn.rows._files import reading
from convexbn.rows._layout import Layout
from convexbn.rows._source import RowSource

_FIELDS = ("X", "y", "sample_weight")


@dataclass(frozen=True)
class _Arrays:
    """X, y and sample_weight of one .npz file, or of .npy files that belong together."""

    path: Path  # of the .npz file, or of X
    files: dict[str, Path]  # those of the arrays

    @classmethod
    def of(cls, path: Path) -> "_Arrays":
        if path.suffix == ".npz":
            with reading(path), ZipFile(path) as file:
                present = {name.removesuffix(".npy") for name in file.namelist()}
            if "X" not in present:
                raise ValueError(
                    f"{path} has no array X, only {sorted(present)}; save it with numpy.savez(path, X=X, y=y)."
                )
            return cls(path, {field: path for field in _FIELDS if field in present})
        others = {field: path.with_name(field + path.name.removeprefix("X")) for field in _FIELDS[1:]}
        return cls(path, {"X": path} | {field: other for field, other in others.items() if other.exists()})

    @property
    def zipped(self) -> bool:
        return self.path.suffix == ".npz"

    def headers(self) -> dict[str, Header]:
        return {field: self._header(field) for field in self.files}

    def _header(self, field: str) -> Header:
        path = self.files[field]
        with reading(path):
            if self.zipped:
                with ZipFile(path) as archive:
                    return member_header(archive, f"{field}.npy", path.stat().st_size)
            with path.open("rb") as file:
                header = Header.of(file.read(HEADER_BYTES))
            if path.stat().st_size < header.n_bytes:
                raise ValueError(f"it has {path.stat().st_size} bytes of {header.n_bytes}")
            return header

    def load(self, field: str) -> np.ndarray | None:
        """An array, as a memory map where it is a file, or None if there is none."""
        if field not in self.files:
            return None
        path = self.files[field]
        with reading(path):
            if not self.zipped:
                return np.load(path, mmap_mode="r", allow_pickle=False)
            with np.load(path, allow_pickle=False) as arrays:  # its size is that of the header
                return np.asarray(arrays[field])


class NumpyRows(RowSource):
    """Samples in NumPy files: .npz files with arrays X, y and sample_weight, or .npy files X*.npy, y*.npy, ....

    Of .npy files, y-3.npy and sample_weight-3.npy belong to X-3.npy; they are memory maps, cut into blocks of a number
    of bytes. A .npz file is one block. Nothing is unpickled. Files without rows are skipped.

    Parameters
    ----------
    paths : sequence of Path
        Files of X, in their order.
    block_bytes : int, default=2**24
        Bytes of a block of a .npy file.

    Raises
    ------
    ValueError
        With the name of the file, if one cannot be read, or they differ in width or in whether they have targets or
        weights.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from convexbn.rows import NumpyRows
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "part.npz")
    ...     np.savez(path, X=np.zeros((5, 2)), y=np.zeros(5))
    ...     NumpyRows([path])
    NumpyRows(5 rows in 1 block, 2 features)
    """

    def __init__(self, paths: Sequence[Path], block_bytes: int = BLOCK_BYTES):
        self._places: list[tuple[_Arrays, slice]] = []
        layouts, dtypes = [], set()
        for arrays in map(_Arrays.of, paths):
            headers, name = arrays.headers(), str(arrays.path)
            X = headers["X"]
            layout = Layout.of(X, headers.get("y"), headers.get("sample_weight"), name)
            if not layout.n_rows:
                continue
            layouts.append(layout)
            layout.check_like(layouts[0])
            dtypes.add(float_type(X.dtype, name))
            cut = not arrays.zipped
            sizes = sizes_of(X.shape, X.dtype.itemsize, block_bytes) if cut else [layout.n_rows]
            self._places.extend((arrays, slice(*ends)) for ends in pairwise([0, *accumulate(sizes)]))
        if not layouts:
            raise ValueError(f"{paths[0].parent} holds no rows in its {counted(len(paths), 'file')}.")
        sizes = [rows.stop - rows.start for _, rows in self._places]
        super().__init__(sizes, layouts[0].n_features, reduce(np.promote_types, dtypes))

    def _read(self, i: int) -> Block:
        arrays, rows = self._places[i]
        X = arrays.load("X")
        assert X is not None
        return Block(X[rows], *self._read_targets(i))

    def _read_targets(self, i: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        arrays, rows = self._places[i]
        y, sample_weight = (None if part is None else part[rows] for part in map(arrays.load, _FIELDS[1:]))
        return y, sample_weight

    def _name(self, i: int) -> str:
        arrays, rows = self._places[i]
        return f"{arrays.path}, rows {rows.start} to {rows.stop - 1}"
