"""The design matrix in blocks on the workers of a dask cluster."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial, reduce
from typing import Any, Self

import numpy as np

from convexbn._utils.dask_tasks import gathered, submit
from convexbn.operators._dense import DesignMatrix
from convexbn.operators._of_blocks import adjoint, gated_outputs, neuron_outputs, product
from convexbn.operators._protocol import Operator, added

FEW_ENTRIES = 2**20  # of the chosen samples, up to which they are brought into memory


@dataclass(frozen=True, eq=False, repr=False)
class DaskMatrix(Operator):
    """A design matrix Z whose blocks of rows are operators on the workers of a dask cluster, and stay there.

    Functions of blocks run where the blocks are, and their values are added up there, always in the same order, so that
    results depend on the blocks and not on which worker is first. A block that is lost with its worker is computed
    again by dask, with all that was placed beside it. Few samples that are chosen are brought into memory.

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
        parts = [values[each * start : each * stop] for start, stop in self._ranges]
        return self._submit([(_place, block, part) for block, part in zip(self.blocks, parts, strict=True)])

    def hold(self, function: Callable[..., Any], *placed: Any, **small: Any) -> list[Any]:
        """Futures of the values of a function of blocks, an array with a row for each sample or row."""
        return self._submit(self._tasks("hold", function, placed, small))

    def mapped(self, function: Callable[..., Any], *placed: Any, **small: Any) -> np.ndarray:
        """The values of a function of blocks, as one array in memory."""
        return np.concatenate(self._gathered(self._submit(self._tasks("mapped", function, placed, small))))

    def summed(self, function: Callable[..., Any], *placed: Any, **small: Any) -> Any:
        """The sum over blocks of the values of a function, an array or number or a tuple of them."""
        return self._gathered(self._submit(self._tasks("summed", function, placed, small), _sum))[0]

    def __matmul__(self, S: np.ndarray) -> np.ndarray:
        return self.mapped(product, S=S)

    def adjoint(self, A: np.ndarray) -> np.ndarray:
        """Z^T A (k, m) of an array A (N, m)."""
        return self.summed(adjoint, self.place(A))

    def rows(self, chosen: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Rows of Z as an array, all of them if none are chosen: the shape of `chosen`, and k."""
        wanted = np.arange(self.n_rows)[chosen]
        rows = np.empty((wanted.size, self.width), dtype=self.dtype)
        places, tasks = [], []
        for block, place, local in self._in_blocks(wanted.ravel(), self.n_patches):
            places.append(place)
            tasks.append((_rows, block, local))
        for place, found in zip(places, self._gathered(self._submit(tasks)), strict=True):
            rows[place] = found
        return rows.reshape(*wanted.shape, self.width)

    def of_samples(self, samples: slice | np.ndarray) -> Any:
        """Return the matrix of some samples, given by their indices: in memory if they are few.

        Blocks of which all samples are chosen are not copied.
        """
        wanted, P = np.arange(self.n_samples)[samples], self.n_patches
        if wanted.size * P * self.width <= FEW_ENTRIES:
            return _dense(self.rows((wanted[:, None] * P + np.arange(P)).ravel()), P)
        if np.array_equal(wanted, np.arange(self.n_samples)):
            return self
        in_blocks = list(self._in_blocks(wanted))
        if (np.diff(np.searchsorted(self.starts, wanted, side="right")) < 0).any():
            return self._shuffled(wanted)
        tasks, blocks = [], []
        for block, _, local in in_blocks:
            whole = np.array_equal(local, np.arange(self.sizes[self.blocks.index(block)]))
            blocks.append(block if whole else None)
            tasks.extend([] if whole else [(_of_samples, block, local)])
        made = iter(self._submit(tasks))
        blocks = [next(made) if block is None else block for block in blocks]
        return replace(self, blocks=blocks, sizes=[len(local) for _, _, local in in_blocks])

    def _shuffled(self, wanted: np.ndarray) -> Self:
        """The matrix of samples in an order that mixes blocks, which travel between workers, in as many blocks."""
        parts = [part for part in np.array_split(wanted, len(self.blocks)) if len(part)]
        blocks = []
        for part in parts:
            places, locals_, sources = [], [], []
            for block, place, local in self._in_blocks(part):
                places.append(place)
                locals_.append(local)
                sources.append(block)
            pieces = self._submit([(_of_samples, block, local) for block, local in zip(sources, locals_, strict=True)])
            blocks += self._submit([(partial(_assembled, places, self.n_patches), *pieces)])
        return replace(self, blocks=blocks, sizes=[len(part) for part in parts])

    @property
    def unpooled(self) -> Self:
        """The matrix with each row a sample of its own."""
        if self.n_patches == 1:
            return self
        sizes = [self.n_patches * size for size in self.sizes]
        return replace(self._made(_unpooled), sizes=sizes, n_patches=1)

    def __truediv__(self, size: float) -> Self:
        return self if size == 1 else self._made(partial(_divided, size))

    def scale_near(self, size: float) -> float:
        """The nearest power of two, by which entries in single precision can be divided without rounding."""
        return float(2 ** np.round(np.log2(size)))

    def times(self, basis: np.ndarray) -> Self:
        """Return the matrix Z B for a basis B (k, r)."""
        return replace(self._made(partial(_times, basis.astype(self.dtype, copy=False))), width=basis.shape[1])

    def weighted(self, weights: np.ndarray) -> Self:
        """Return the matrix with its rows times weights (N, 1)."""
        return self._made(_weighted, self.place(weights))

    @cached_property
    def in_single_precision(self) -> Self:
        """The matrix with products in single precision."""
        single = np.dtype(np.float32)
        return self if self.dtype == single else replace(self._made(_in_single_precision), dtype=single)

    @cached_property
    def row_norms(self) -> np.ndarray:
        """Euclidean norms of the rows, shape (N,)."""
        return self.mapped(_row_norms)

    @cached_property
    def column_extremes(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest entry of each column, shape (k,)."""
        low, high = zip(
            *self._gathered(self._submit([(_column_extremes, block) for block in self.blocks])), strict=True
        )
        return np.min(low, axis=0), np.max(high, axis=0)

    @cached_property
    def spectral_norm(self) -> float:
        """Largest singular value of Z, from its Gram matrix."""
        return self.weighted_norm(np.ones((self.n_rows, 1)))

    def packed_patterns(self, G: np.ndarray) -> np.ndarray:
        """Activation patterns 1[Z g >= 0] of directions G (k, m), as in `Patterns`: (m, ceil(N / 8)) bytes."""
        return np.packbits(self.mapped(_patterns, G=G), axis=0).T

    def neuron_outputs(self, S: np.ndarray) -> np.ndarray:
        """Outputs of ReLU neurons, one a column of S (k, m): pooled relu(Z S), (n, m)."""
        return self.mapped(neuron_outputs, S=S)

    def gated_outputs(self, gates: np.ndarray, S: np.ndarray) -> np.ndarray:
        """Outputs of gated neurons with gates and weights (k, m): pooled 1[Z g >= 0] * (Z s), (n, m)."""
        return self.mapped(gated_outputs, gates=gates, S=S)

    def masked_adjoint(self, masks: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Z^T D_i v for every activation pattern: masks (N, P) and a dual point (n, 1) give (k, P)."""
        return self.summed(_masked_adjoint, self.place(masks), self.place(v))

    @property
    def _ranges(self) -> Iterator[tuple[int, int]]:
        return zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True)

    def _in_blocks(self, wanted: np.ndarray, each: int = 1) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        """Blocks of which anything is wanted, where it is among what is wanted, and its places in the block."""
        of_block = np.searchsorted(each * self.starts, wanted, side="right") - 1
        for number in np.unique(of_block):
            place = np.flatnonzero(of_block == number)
            yield self.blocks[number], place, wanted[place] - each * self.starts[number]

    def _made(self, function: Callable[..., Operator], *placed: Any) -> Self:
        """The matrix whose blocks are made of those of this one and of what is placed, by a function."""
        return replace(self, blocks=self._submit([(function, *of_block) for of_block in self._beside(placed)]))

    def _beside(self, placed: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        """Each block with the parts of what is placed that belong to it."""
        parts = [values.blocks if isinstance(values, DaskMatrix) else values for values in placed]
        return zip(self.blocks, *parts, strict=True)

    def _tasks(
        self, method: str, function: Callable[..., Any], placed: tuple[Any, ...], small: dict[str, Any]
    ) -> list[tuple[Any, ...]]:
        """A task for each block: a method of it, with a function of blocks."""
        of_block = partial(_of_block, method, function, small)
        return [(of_block, *parts) for parts in self._beside(placed)]

    def _submit(self, tasks: Sequence[tuple[Any, ...]], merge: Callable[..., Any] | None = None) -> list[Any]:
        return submit(self.client, tasks, merge)

    def _gathered(self, futures: list[Any]) -> list[Any]:
        return gathered(self.client, futures)


def _of_block(method: str, function: Callable[..., Any], small: dict[str, Any], Z: Operator, *placed: Any) -> Any:
    return getattr(Z, method)(function, *placed, **small)


def _sum(*values: Any) -> Any:
    return reduce(added, values)


def _dense(rows: np.ndarray, n_patches: int) -> DesignMatrix:
    Z = DesignMatrix(rows, n_patches)
    return Z.in_single_precision if rows.dtype == np.float32 else Z


def _assembled(places: list[np.ndarray], n_patches: int, *parts: Operator) -> DesignMatrix:
    """The samples of some parts, each at its places."""
    order = np.argsort(np.concatenate(places))
    rows = np.concatenate([part.rows() for part in parts])
    return _dense(rows.reshape(-1, n_patches, rows.shape[1])[order].reshape(rows.shape), n_patches)


def _place(Z: Operator, values: np.ndarray) -> Any:
    return Z.place(values)


def _rows(Z: Operator, chosen: np.ndarray) -> np.ndarray:
    return Z.rows(chosen)


def _of_samples(Z: Operator, samples: np.ndarray) -> Operator:
    return Z.of_samples(samples)


def _unpooled(Z: Operator) -> Operator:
    return Z.unpooled


def _divided(size: float, Z: Operator) -> Operator:
    return Z / size


def _times(basis: np.ndarray, Z: Operator) -> Operator:
    return Z.times(basis)


def _weighted(Z: Operator, weights: np.ndarray) -> Operator:
    return Z.weighted(weights)


def _in_single_precision(Z: Operator) -> Operator:
    return Z.in_single_precision


def _column_extremes(Z: Operator) -> tuple[np.ndarray, np.ndarray]:
    return Z.column_extremes


def _row_norms(Z: Any) -> Any:
    return Z.row_norms


def _patterns(Z: Any, *, G: Any) -> Any:
    return Z @ G >= 0


def _masked_adjoint(Z: Any, masks: Any, v: Any) -> Any:
    return Z.masked_adjoint(masks, v)
