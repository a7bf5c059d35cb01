"""The design matrix in blocks on the workers of a dask cluster."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial, reduce
from operator import attrgetter
from typing import Any, Self

import numpy as np

from convexbn._utils.dask_tasks import submit, values
from convexbn.operators._dense import DesignMatrix
from convexbn.operators._of_blocks import OfBlocks
from convexbn.operators._protocol import Operator, added

FEW_ENTRIES = 2**22  # of the chosen samples, up to which they are brought into memory


@dataclass(frozen=True, eq=False, repr=False)
class DaskMatrix(OfBlocks):
    """A design matrix Z whose blocks of rows are operators on the workers of a dask cluster, and stay there.

    Functions of blocks run where the blocks are, and their values are added up here, always in the same order, so that
    results depend on the blocks and not on which worker is first. A message to the workers takes milliseconds, so one
    block for each of their threads is best. A block that is lost with its worker is computed again by dask, with all
    that was placed beside it. Few samples that are chosen are brought into memory.

    Parameters
    ----------
    client : distributed.Client
        Client of the cluster.
    blocks : sequence of futures
        Futures of operators of one kind, such as `DesignMatrix`, each of at least one sample.
    sizes : sequence of int
        Their numbers of samples.
    width : int
        Columns k of Z.
    n_patches : int, default=1
        Rows pooled into one sample.
    dtype : dtype, default=float64
        Precision of the products.

    Examples
    --------
    >>> import pytest
    >>> distributed = pytest.importorskip("distributed")
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.operators import DaskMatrix
    >>> with distributed.Client(processes=False, dashboard_address=":0") as client:
    ...     blocks = [client.submit(DesignMatrix, rows) for rows in (np.eye(2), -np.ones((1, 2)))]
    ...     Z = DaskMatrix(client, blocks, [2, 1], 2)
    ...     Z.neuron_outputs(np.ones((2, 1)))
    array([[1.],
           [1.],
           [0.]])
    """

    client: Any
    blocks: Sequence[Any]
    sizes: Sequence[int]
    width: int
    n_patches: int = 1
    dtype: Any = field(default_factory=lambda: np.dtype(np.float64))

    @property
    def n_rows(self) -> int:
        """Rows of Z: N = n * n_patches."""
        return self.n_patches * sum(self.sizes)

    @property
    def n_columns(self) -> int:
        """Columns k of Z, the dimension of a neuron."""
        return self.width

    @cached_property
    def starts(self) -> np.ndarray:
        """The first sample of each block, and the number of all."""
        return np.append(0, np.cumsum(self.sizes))

    def place(self, values: np.ndarray) -> list[Any]:
        """Futures of the slices of an array, beside the blocks: arguments of tasks, so that they can be made again."""
        each = len(values) // self.n_samples  # rows a sample
        return self._submit(_method("place"), np.split(values, each * self.starts[1:-1]))

    def hold(self, function: Callable[..., Any], *placed: Any, **small: Any) -> list[Any]:
        """Futures of the values of a function of blocks, an array with a row for each sample or row."""
        return self._submit(_method("hold", function, **small), *placed)

    def mapped(self, function: Callable[..., Any], *placed: Any, **small: Any) -> np.ndarray:
        """The values of a function of blocks, as one array in memory."""
        return np.concatenate(values(self.client, self._tasks(_method("mapped", function, **small), placed)))

    def summed(self, function: Callable[..., Any], *placed: Any, **small: Any) -> Any:
        """The sum over blocks of the values of a function, an array or number or a tuple of them."""
        return reduce(added, values(self.client, self._tasks(_method("summed", function, **small), placed)))

    def rows(self, chosen: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Rows of Z as an array, all of them if none are chosen: the shape of `chosen`, and k."""
        wanted = np.arange(self.n_rows)[chosen]
        rows = np.empty((wanted.size, self.width), dtype=self.dtype)
        parts = list(self._in_blocks(wanted.ravel(), self.n_patches))
        tasks = [(_method("rows"), self.blocks[number], local) for number, _, local in parts]
        for (_, place, _), found in zip(parts, values(self.client, tasks), strict=True):
            rows[place] = found
        return rows.reshape(*wanted.shape, self.width)

    def of_samples(self, samples: slice | np.ndarray) -> Any:
        """Return the matrix of some samples, given by their indices: in memory if they are few.

        Blocks of which all samples are chosen are not copied. In an order that mixes blocks, samples travel between
        workers, to as many blocks.
        """
        wanted, P = np.arange(self.n_samples)[samples], self.n_patches
        if wanted.size * P * self.width <= FEW_ENTRIES:
            return _dense(self.rows((wanted[:, None] * P + np.arange(P)).ravel()), P)
        steps = np.diff(np.searchsorted(self.starts, wanted, side="right"))
        cuts = np.flatnonzero(steps) + 1 if (steps >= 0).all() else len(self.blocks)
        parts = [part for part in np.array_split(wanted, cuts) if len(part)]
        return replace(self, blocks=[self._block_of(part) for part in parts], sizes=[len(part) for part in parts])

    def _block_of(self, samples: np.ndarray) -> Any:
        """The future of a block of these samples."""
        numbers, places, local = zip(*self._in_blocks(samples), strict=True)
        if len(numbers) == 1 and np.array_equal(local[0], np.arange(self.sizes[numbers[0]])):
            return self.blocks[numbers[0]]
        tasks = [(_method("of_samples"), self.blocks[number], of) for number, of in zip(numbers, local, strict=True)]
        pieces = submit(self.client, tasks)
        return pieces[0] if len(pieces) == 1 else submit(self.client, [(partial(_joined, places), *pieces)])[0]

    @cached_property
    def unpooled(self) -> Self:
        """The matrix with each row a sample of its own."""
        if self.n_patches == 1:
            return self
        sizes = [self.n_patches * size for size in self.sizes]
        return replace(self._made(attrgetter("unpooled")), sizes=sizes, n_patches=1)

    def __truediv__(self, size: float) -> Self:
        return self if size == 1 else self._made(_method("__truediv__", size))

    def scale_near(self, size: float) -> float:
        """The nearest power of two, by which entries in single precision can be divided without rounding."""
        return float(2 ** np.round(np.log2(size)))

    def times(self, basis: np.ndarray) -> Self:
        """Return the matrix Z B for a basis B (k, r)."""
        return replace(self._made(_method("times", basis.astype(self.dtype, copy=False))), width=basis.shape[1])

    def weighted(self, weights: np.ndarray) -> Self:
        """Return the matrix with its rows times weights (N, 1)."""
        return self._made(_method("weighted"), self.place(weights))

    @cached_property
    def in_single_precision(self) -> Self:
        """The matrix with products in single precision."""
        single = np.dtype(np.float32)
        return self if self.dtype == single else replace(self._made(attrgetter("in_single_precision")), dtype=single)

    def _in_blocks(self, wanted: np.ndarray, each: int = 1) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Numbers of blocks of which anything is wanted, where it is among what is wanted, and places in the block."""
        of_block = np.searchsorted(each * self.starts, wanted, side="right") - 1
        for number in np.unique(of_block).tolist():
            place = np.flatnonzero(of_block == number)
            yield number, place, wanted[place] - each * self.starts[number]

    def _made(self, function: Callable[..., Operator], *placed: Any) -> Self:
        """The matrix whose blocks are made of those of this one and of what is placed, by a function."""
        return replace(self, blocks=self._submit(function, *placed))

    def _submit(self, function: Callable[..., Any], *placed: Any) -> list[Any]:
        return submit(self.client, self._tasks(function, placed))

    def _tasks(self, function: Callable[..., Any], placed: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """A task for each block, of the block and the parts of what is placed that belong to it."""
        parts = [values.blocks if isinstance(values, DaskMatrix) else values for values in placed]
        return [(function, *of_block) for of_block in zip(self.blocks, *parts, strict=True)]


def _method(name: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
    """The method of a block, as a function of the block and what follows these arguments."""
    return partial(_call, name, arguments, options)


def _call(name: str, arguments: tuple[Any, ...], options: dict[str, Any], Z: Operator, *placed: Any) -> Any:
    return getattr(Z, name)(*arguments, *placed, **options)


def _dense(rows: np.ndarray, n_patches: int) -> DesignMatrix:
    Z = DesignMatrix(rows, n_patches)
    return Z.in_single_precision if rows.dtype == np.float32 else Z


def _joined(places: tuple[np.ndarray, ...], *parts: Operator) -> DesignMatrix:
    """The samples of some parts, each at its places."""
    order, n_patches = np.argsort(np.concatenate(places)), parts[0].n_patches
    rows = np.concatenate([part.rows() for part in parts])
    return _dense(rows.reshape(-1, n_patches, rows.shape[1])[order].reshape(rows.shape), n_patches)
