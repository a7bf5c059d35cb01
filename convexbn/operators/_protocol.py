"""The protocol of a design matrix: the products with it that solvers are written in."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from scipy.linalg import eigh, qr
from scipy.linalg.blas import dsyrk

from convexbn._utils.invalid_flag import false_flags_ignored
from convexbn._utils.magnitude import power_of_two_above
from convexbn._utils.scratch import scratch
from convexbn._utils.summary import Summarized, counted
from convexbn._utils.threads import in_order
from convexbn.operators._hyperplanes import Hyperplanes
from convexbn.operators._slices import slices

CONSTANT_RTOL = 1e-8  # how far products that are to be one may be from it
_NUMBERS, _BELOW = 3, 2**20  # of a row, and what they are below, so that sums over 2**33 rows are exact
_FAR = 1e6  # entries between its inverse and this allow sums of squares in single precision


@dataclass(frozen=True, eq=False)
class Held:
    """Values of a function of blocks, one of each block."""

    parts: Sequence[Any]


def added(one: Any, other: Any) -> Any:
    """The sum of two values of a function of blocks."""
    if isinstance(one, tuple):
        return tuple(map(added, one, other))
    return one + other


class Operator(Summarized, ABC):
    """A design matrix Z (N, k) with its pooling, as solvers use it: through its products, never its array.

    A convolutional network reads `n_patches` consecutive rows of Z for one sample and averages the outputs of a neuron
    over them; a dense network has one row a sample.

    A kind of array (dense, sparse, on a GPU, in blocks of rows) is a subclass. It must say its sizes, and implement
    the two products, `rows`, and the matrices that are made of it: `of_samples`, `unpooled`, `/`, `times`, `weighted`
    and `in_single_precision`. Everything else follows from these, mostly a block of rows at a time, and may be
    overridden where the kind has a faster method. Arguments and results are NumPy arrays: S (k, m) holds m neurons,
    A (N, m) has a row for each row of Z and V (n, C) one for each sample.

    Where the rows are not in one array in memory, products whose result has a row for each sample are expensive. What
    is done most often is therefore a function of a block of rows, whose results are added up (`summed`) or stay where
    the rows are (`hold`, `mapped`); arrays with a row for each sample are brought there once (`place`). Such a function
    ``function(Z, *placed, **small)`` is given a block of Z and of what is placed, and arrays as they are. It uses
    `@`, `hidden`, `active`, `adjoint`, `of_active`, `pool`, `unpool`, `neuron_outputs`, `gated_outputs`, `cast`,
    `rows`, `row_norms`, `masked_features`, `masked_gram`, `samples_at_once`, `square`, `nearest`,
    `in_single_precision`, and of arrays operators and the functions of `xp`. Values of other kinds than arrays are
    added up by a `+` of their own.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.operators import Operator
    >>> Z = DesignMatrix(np.array([[1.0, 2.0], [-3.0, 1.0]]))
    >>> isinstance(Z, Operator), Z.neuron_outputs(np.eye(2))
    (True, array([[1., 2.],
           [0., 1.]]))
    """

    n_patches: int  # rows pooled into one sample
    rows_a_block = 2**14  # of a function of blocks, so that what is made of them stays in the cache
    xp = np  # functions of arrays, for functions of blocks
    at_once: int | None = None  # entries of the largest array a function of blocks should make, if not the usual ones

    @property
    @abstractmethod
    def n_rows(self) -> int:
        """Rows of Z: N = n * n_patches."""

    @property
    @abstractmethod
    def n_columns(self) -> int:
        """Columns k of Z, the dimension of a neuron."""

    @abstractmethod
    def __matmul__(self, S: np.ndarray) -> np.ndarray:
        """Z S (N, m) of neurons S (k, m)."""

    @abstractmethod
    def adjoint(self, A: np.ndarray) -> np.ndarray:
        """Z^T A (k, m) of an array A (N, m)."""

    @abstractmethod
    def rows(self, chosen: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Rows of Z as an array, all of them if none are chosen: the shape of `chosen`, and k."""

    @abstractmethod
    def of_samples(self, samples: slice | np.ndarray) -> Self:
        """Return the matrix of some samples, given by their indices."""

    @property
    @abstractmethod
    def unpooled(self) -> Self:
        """The matrix with each row a sample of its own."""

    @abstractmethod
    def __truediv__(self, size: float) -> Self:
        """The matrix with its entries divided by a number."""

    def scale_near(self, size: float) -> float:
        """A number near `size` that the entries can be divided by without loss."""
        return size

    @abstractmethod
    def times(self, basis: np.ndarray) -> "Operator":
        """Return the matrix Z B for a basis B (k, r)."""

    @abstractmethod
    def weighted(self, weights: np.ndarray) -> Self:
        """Return the matrix with its rows times weights (N, 1)."""

    @property
    @abstractmethod
    def in_single_precision(self) -> Self:
        """The matrix with products in single precision."""

    def place(self, values: np.ndarray) -> Any:
        """Bring an array with a row for each sample, or each row, to where the rows are."""
        return values

    def hold(self, function: Callable[..., Any], *placed: Any, **small: Any) -> Any:
        """The values of a function of blocks, arrays with a row for each sample or row, which stay where they are."""
        values = tuple(self._values(function, placed, small))
        return values[0] if len(values) == 1 else Held(values)

    def mapped(self, function: Callable[..., Any], *placed: Any, **small: Any) -> np.ndarray:
        """The values of a function of blocks, as one array in memory."""
        values = list(self._values(function, placed, small))
        return values[0] if len(values) == 1 else np.concatenate(values)

    def summed(self, function: Callable[..., Any], *placed: Any, **small: Any) -> Any:
        """The sum over blocks of the values of a function, an array or number or a tuple of them."""
        values = self._values(function, placed, small)
        total = next(values)
        for value in values:
            total = added(total, value)
            del value  # before the next is made
        return total

    def _values(self, function: Callable[..., Any], placed: tuple[Any, ...], small: dict[str, Any]) -> Iterator[Any]:
        """The values of a function of blocks, in the order of the blocks."""
        if len(self._samples) == 1:
            return iter([_applied(function, self, placed, small)])
        return in_order(lambda i: self._value(i, function, placed, small), len(self._samples))

    def _value(self, i: int, function: Callable[..., Any], placed: tuple[Any, ...], small: dict[str, Any]) -> Any:
        """The value of a function of blocks at a block."""
        return _applied(function, self._block(i), tuple(self._part(values, i) for values in placed), small)

    @cached_property
    def _samples(self) -> list[slice]:
        """The samples of each block."""
        size = max(1, self.rows_a_block // self.n_patches)
        return [slice(start, min(start + size, self.n_samples)) for start in range(0, self.n_samples, size)]

    def _block(self, i: int) -> Any:
        """The matrix of the samples of a block."""
        return self.of_samples(self._samples[i])

    def _part(self, values: Any, i: int) -> Any:
        """The part of what is placed that belongs to a block."""
        if isinstance(values, Held):
            return values.parts[i]
        if isinstance(values, Operator):
            return values._block(i)
        samples, each = self._samples[i], values.shape[0] // self.n_samples
        return values[samples.start * each : samples.stop * each, ...]

    def fetch(self, held: Any) -> np.ndarray:
        """Bring what was placed or held to memory, as one array."""
        return self.mapped(_same, held)

    def hidden(self, S: np.ndarray) -> np.ndarray:
        """relu(Z S) (N, m) of neurons S (k, m)."""
        inner = self @ S
        return np.clip(inner, 0, np.inf, out=inner)  # a third of the time of `maximum` with a number

    def active(self, S: np.ndarray) -> np.ndarray:
        """1[Z S > 0] (N, m) of neurons S (k, m), as numbers."""
        inner = self @ S
        return np.greater(inner, 0, out=inner)

    def of_active(self, hidden: np.ndarray, A: np.ndarray) -> np.ndarray:
        """Z^T (1[hidden > 0] * A) (k, m) for A (N, m) or (N, 1); `hidden` (N, m) is overwritten."""
        if A.shape[1] == 1:
            return self.weighted(A).adjoint(np.greater(hidden, 0, out=hidden))
        return self.adjoint(np.multiply(np.greater(hidden, 0, out=hidden), A, out=hidden))

    @cached_property
    def dtype(self) -> Any:
        """Precision of the products."""
        return self.rows(slice(0, 1)).dtype

    def cast(self, values: np.ndarray) -> np.ndarray:
        """The array in the precision of the products."""
        return values.astype(self.dtype, copy=False)

    def _summary(self) -> str:
        patches = "" if self.n_patches == 1 else f" of {self.n_patches} patches"
        return f"{counted(self.n_samples, 'sample')}{patches}, {counted(self.n_columns, 'column')}"

    @property
    def n_samples(self) -> int:
        """Samples n."""
        return self.n_rows // self.n_patches

    @cached_property
    def row_norms(self) -> np.ndarray:
        """Euclidean norms of the rows, shape (N,)."""
        return self.mapped(_row_norms)

    @cached_property
    def spectral_norm(self) -> float:
        """Largest singular value of Z."""
        return float(np.linalg.norm(self.rows(), 2))

    @cached_property
    def of_moderate_size(self) -> tuple[Self, float]:
        """The matrix over a power of two, and that: 1 unless its entries are so far from one that products overflow."""
        size = power_of_two_above(np.concatenate(self.column_extremes))
        return (self, 1.0) if 1 / _FAR < size < _FAR else (self / size, size)

    @cached_property
    def column_extremes(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest entry of each column, shape (k,)."""
        extremes = self.mapped(_column_extremes)
        return extremes[:, 0].min(axis=0), extremes[:, 1].max(axis=0)

    @property
    def has_few_columns(self) -> bool:
        """Whether there are no more columns than rows, so that `on_row_space` has no fewer."""
        return self.n_columns <= self.n_rows

    @property
    def has_few_entries(self) -> bool:
        """Whether `rows` may be all of them, as one dense array in memory."""
        return True

    @property
    def most_directions(self) -> float:
        """Directions (k, m) that a search may start from, so that they take little memory beside the matrix."""
        return np.inf

    @cached_property
    def on_row_space(self) -> tuple["Operator", np.ndarray]:
        """The matrix times an orthonormal basis (k, r) of the space of its rows, and the basis.

        It has no more columns than rows, and is as good as the matrix for neurons: a part of one that is across the
        rows changes no output, and only costs.
        """
        basis, triangle, _ = qr(self.rows().T, mode="economic", pivoting=True)
        sizes = np.abs(np.diagonal(triangle))
        basis = basis[:, : max(1, int((sizes > self.n_columns * np.finfo(float).eps * sizes[0]).sum()))]
        return self.times(basis), basis

    @cached_property
    def constant(self) -> np.ndarray | None:
        """The direction e (k,) with Z e = 1 in every row, or None if there is none."""
        gram, sums = self.gram(np.ones((self.n_rows, 1))), self.adjoint(np.ones((self.n_rows, 1)))
        direction = np.linalg.lstsq(gram, sums, rcond=None)[0]
        return direction[:, 0] if np.abs(self @ direction - 1).max() < CONSTANT_RTOL else None

    @cached_property
    def hyperplanes(self) -> Hyperplanes:
        """The kinks of the rows, which equal rows and multiples of each other share."""
        return Hyperplanes.of(self)

    @cached_property
    def _rays(self) -> tuple[Hyperplanes, Self, np.ndarray]:
        rays, rows = self.hyperplanes.rays(), self.unpooled
        if rays.all_differ:
            return rays, rows, np.zeros(self.n_rows)
        fewer = rows.of_samples(rays.first)
        moved = np.concatenate(
            [
                np.linalg.norm(self.rows(block) - rays.ratio[block, None] * fewer.rows(rays.group[block]), axis=1)
                for block in self._blocks(self.n_columns)
            ]
        )
        return rays, fewer, moved + self.n_rows * np.finfo(float).eps * self.row_norms

    def for_prices(self, v: np.ndarray) -> tuple[Self, np.ndarray, float]:
        """Fewest rows with the same prices: ``|V^T relu(Zw)|`` is that of rows (G, k) and a dual point (G, C) for them.

        Positive multiples of a row are one row, since ``relu(c z·w) = c relu(z·w)`` for c > 0. Rows that are multiples
        up to rounding count, too: prices of unit directions differ by no more than the number that is returned.
        """
        rays, rows, moved = self._rays
        V = self.unpool(v)
        return rows, rays.summed(V), float(np.linalg.norm(V, axis=1) @ moved)

    def products(self, S: np.ndarray) -> np.ndarray:
        """Z S (N, m) of neurons S (k, m), in which rows that are multiples of each other are on the same side."""
        planes = self.hyperplanes
        return self @ S if planes.all_differ else planes.ratio[:, None] * (self._first_rows @ S)[planes.group]

    @cached_property
    def _first_rows(self) -> Self:
        return self.unpooled.of_samples(self.hyperplanes.first)

    @cached_property
    def random_numbers(self) -> Any:
        """Whole random numbers (N, 3) whose sums over rows, exact, tell sets of rows apart; placed.

        They are zero but for the first of the rows that share a kink, whose side is that of all.
        """
        first = self.hyperplanes.first
        numbers = np.zeros((self.n_rows, _NUMBERS), dtype=np.float32)
        numbers[first] = np.random.default_rng(0).integers(_BELOW, size=(len(first), _NUMBERS), dtype=np.int32)
        return self.place(numbers)

    def packed_patterns(self, G: np.ndarray) -> np.ndarray:
        """Activation patterns 1[Z g >= 0] of directions G (k, m), as in `Patterns`: (m, ceil(N / 8)) bytes."""
        return np.packbits(self.mapped(_patterns, G=G), axis=0).T

    def pool(self, A: np.ndarray) -> np.ndarray:
        """Average an (N, m) array over the patches of each sample: (n, m)."""
        P = self.n_patches
        return A if P == 1 else A.reshape(len(A) // P, P, *A.shape[1:]).mean(axis=1)

    def unpool(self, V: np.ndarray) -> np.ndarray:
        """Apply the transpose of `pool` to an (n, C) array: (N, C)."""
        return V if self.n_patches == 1 else np.repeat(V, self.n_patches, axis=0) / self.n_patches

    def neuron_outputs(self, S: np.ndarray) -> np.ndarray:
        """Outputs of ReLU neurons, one a column of S (k, m): pooled relu(Z S), (n, m)."""
        outputs = scratch((self.n_samples, S.shape[1]), np.float64)
        for samples, Z in self._parts(S.shape[1]):
            active = Z @ S
            outputs[samples] = Z.pool(np.clip(active, 0, np.inf, out=active))
        return outputs

    def gated_outputs(self, gates: np.ndarray, S: np.ndarray) -> np.ndarray:
        """Outputs of gated neurons with gates and weights (k, m): pooled 1[Z g >= 0] * (Z s), (n, m)."""
        outputs = np.empty((self.n_samples, S.shape[1]))
        for samples, Z in self._parts(S.shape[1]):
            outputs[samples] = Z.pool((Z @ gates >= 0) * (Z @ S))
        return outputs

    def masked_adjoint(self, masks: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Z^T D_i v for every activation pattern: masks (N, P) and a dual point (n, 1) give (k, P)."""
        return self.summed(_masked_adjoint, self.place(masks), self.place(v))

    def masked_features(self, masks: np.ndarray, samples: slice) -> np.ndarray:
        """Pooled features D_j Z of some samples, for masks (N, m), which may hold signs: (samples, m, k)."""
        rows = slice(samples.start * self.n_patches, samples.stop * self.n_patches)
        return self.pool(masks[rows, :, None] * self.rows(rows)[:, None, :])

    def masked_gram(self, masks: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """F^T diag(weights) F of the pooled features F = [D_1 Z, ..., D_m Z]: a symmetric (mk, mk) array.

        The masks (N, m) may hold signs; weights (n,) are not negative. F is made a block of samples at a time.
        """
        gram = self.summed(_masked_gram, self.place(masks), self.place(weights))
        return gram + np.tril(gram, -1).T

    def square(self, J: np.ndarray) -> np.ndarray:
        """J^T J (M, M) of an array J (rows, M)."""
        lower = dsyrk(1.0, J.T, lower=True)
        return lower + np.tril(lower, -1).T

    def nearest(self, distance: np.ndarray, count: int) -> np.ndarray:
        """Rows of the least entries of each column of an array (N, m): (m, count), in any order."""
        return np.argpartition(distance, count - 1, axis=0)[:count].T

    def gram(self, weights: np.ndarray) -> np.ndarray:
        """Z^T diag(weights) Z (k, k) for weights (N, 1)."""
        return self.unpooled.summed(_gram, self.place(weights))

    def row_gram(self, weights: np.ndarray) -> np.ndarray:
        """P^1/2 Z Z^T P^1/2 (N, N) for P the diagonal matrix of weights (N, 1) that are not negative."""
        rows = self.weighted(np.sqrt(weights)).rows()
        return rows @ rows.T

    def weighted_norm(self, weights: np.ndarray) -> float:
        """Spectral norm of Z with its rows times the roots of the weights (N, 1)."""
        gram = self.gram(weights) if self.n_columns <= self.n_rows else self.row_gram(weights)
        return float(np.sqrt(max(eigh(gram, eigvals_only=True)[-1], 0)))

    def _blocks(self, entries: int) -> Iterator[slice]:
        """Slices of the rows, with so many entries made for each."""
        return slices(self.n_rows, entries)

    def _parts(self, entries: int) -> Iterator[tuple[slice, Self]]:
        """Slices of the samples, and the matrix of these, with so many entries made for each row."""
        for samples in self.samples_at_once(entries):
            yield samples, self.of_samples(samples)

    def samples_at_once(self, entries: int) -> Iterator[slice]:
        """Slices of the samples of a block, with so many entries made for each row."""
        return slices(self.n_samples, entries * self.n_patches)


def _applied(function: Callable[..., Any], Z: Operator, placed: tuple[Any, ...], small: dict[str, Any]) -> Any:
    """The value of a function at a block."""
    with false_flags_ignored(Z.dtype):
        return function(Z, *placed, **small)


def _masked_gram(Z: Operator, masks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The lower triangle of `masked_gram`."""
    size = masks.shape[1] * Z.n_columns
    gram, roots = np.zeros((size, size), order="F"), np.sqrt(weights)
    for samples in Z.samples_at_once(size):
        features = Z.masked_features(masks, samples).reshape(-1, size)
        features *= roots[samples, None]
        gram = dsyrk(1.0, features.T, beta=1.0, c=gram, overwrite_c=True, lower=True)
        del features  # before the next are made
    return gram


def _row_norms(Z: Any) -> Any:
    rows = Z.rows()
    return Z.xp.sqrt(Z.xp.sum(rows * rows, axis=1))


def _column_extremes(Z: Any) -> Any:
    rows = Z.rows()
    return Z.xp.stack([Z.xp.min(rows, axis=0), Z.xp.max(rows, axis=0)])[None, ...]


def _patterns(Z: Any, *, G: Any) -> Any:
    return Z @ G >= 0


def _masked_adjoint(Z: Any, masks: Any, v: Any) -> Any:
    return Z.adjoint(Z.cast(masks) * Z.unpool(v))


def _same(Z: Any, held: Any) -> Any:
    return held


def _gram(Z: Operator, weights: np.ndarray) -> np.ndarray:
    rows = Z.rows()
    gram: np.ndarray = rows.T @ (weights * rows)
    return gram
