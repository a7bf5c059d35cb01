"""ReLU activation patterns of a design matrix: sampled, enumerated, bit-packed.

The pattern of a direction g is D = diag(1[Z g >= 0]). Directions with the same pattern make up one cell of the
arrangement of the hyperplanes { g : z_l·g = 0 }, one hyperplane a row of Z.
"""

from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.checks import check_count, make_generator
from convexbn._utils.summary import Summarized, counted
from convexbn.operators._kinds import as_design_matrix
from convexbn.operators._protocol import Operator
from convexbn.patterns._arrangement import arrangement, cells, count_cells

MAX_PATTERNS = 100_000  # that are enumerated unless more are asked for
_BLOCK_ENTRIES = 2**22  # entries of the largest array


@dataclass(frozen=True, eq=False, repr=False)
class Patterns(Summarized):
    """A set of distinct activation patterns, one bit an entry, with a direction of each.

    Parameters
    ----------
    packed : ndarray of uint8, shape (P, ceil(N / 8))
        The patterns, one a row, as packed by ``numpy.packbits``.
    directions : ndarray of shape (k, P)
        Column i is a direction whose pattern is pattern i (up to rounding on rows almost orthogonal to it).
    n_rows : int
        Rows N of the design matrix.
    complete : bool, default=False
        Whether these are all patterns of the design matrix, so that an optimum over them is global.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import enumerate_patterns
    >>> patterns = enumerate_patterns(np.array([[1.0, 1.0], [-1.0, 1.0]]))
    >>> len(patterns), patterns.masks().astype(int)
    (4, array([[0, 0, 1, 1],
           [0, 1, 0, 1]]))
    """

    packed: np.ndarray
    directions: np.ndarray
    n_rows: int
    complete: bool = False

    def __len__(self) -> int:
        return len(self.packed)

    def _summary(self) -> str:
        complete = ", all there are" if self.complete else ""
        return f"{counted(len(self), 'pattern')} of {counted(self.n_rows, 'row')}{complete}"

    def take(self, chosen: np.ndarray) -> "Patterns":
        """Return the chosen patterns only."""
        return replace(self, packed=self.packed[chosen], directions=self.directions[:, chosen], complete=False)

    def masks(self, chosen: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Return the chosen patterns as a boolean array (N, number chosen), one pattern a column."""
        return np.unpackbits(self.packed[chosen], axis=1, count=self.n_rows).T.astype(bool)


def sample_patterns(
    Z: Operator | ArrayLike, n_directions: int, *, random_state: int | np.random.Generator | None = None
) -> Patterns:
    """Patterns of Gaussian directions, duplicates dropped.

    Parameters
    ----------
    Z : DesignMatrix or array-like of shape (N, k)
        Design matrix.
    n_directions : int
        Directions drawn. Patterns come in the order in which they were first met, so a longer sample with the same
        seed begins with the shorter one.
    random_state : int, Generator or None, default=None
        Seed of the directions.

    Returns
    -------
    patterns : Patterns
        At most `n_directions` distinct patterns.

    Raises
    ------
    ValueError
        If `n_directions` is not a positive integer.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import sample_patterns
    >>> len(sample_patterns(np.eye(2), 100, random_state=0))
    4
    """
    matrix = as_design_matrix(Z)
    check_count("n_directions", n_directions)
    rng = make_generator(random_state)
    packed = np.empty((n_directions, -(-matrix.n_rows // 8)), dtype=np.uint8)
    directions = np.empty((matrix.n_columns, n_directions))
    seen: set[bytes] = set()  # digests, since the patterns themselves would double the memory
    block = max(1, _BLOCK_ENTRIES // matrix.n_rows)
    for start in range(0, n_directions, block):
        drawn = rng.standard_normal((min(block, n_directions - start), matrix.n_columns))
        for row, direction in zip(matrix.packed_patterns(drawn.T), drawn, strict=True):
            key = blake2b(row.tobytes(), digest_size=16).digest()
            if key not in seen:
                packed[len(seen)], directions[:, len(seen)] = row, direction
                seen.add(key)
    found = len(seen)
    if found < n_directions:
        packed, directions = packed[:found].copy(), directions[:, :found].copy()
    return Patterns(packed, directions, matrix.n_rows)


def count_patterns(Z: Operator | ArrayLike) -> int:
    """Predict the number of patterns: 2 * sum_{i<k} C(n'-1, i) for n' distinct hyperplanes in rank k.

    The prediction is exact in general position and an upper bound otherwise (Cover, 1965).

    Parameters
    ----------
    Z : DesignMatrix or array-like of shape (N, k)
        Design matrix.

    Returns
    -------
    count : int

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import count_patterns
    >>> count_patterns(np.random.default_rng(0).standard_normal((15, 3)))
    212
    """
    return count_cells(arrangement(as_design_matrix(Z).rows())[0])


def enumerate_patterns(Z: Operator | ArrayLike, *, max_patterns: int = MAX_PATTERNS) -> Patterns:
    """All activation patterns of a design matrix, exactly, in time polynomial in n for fixed rank.

    Independent hyperplanes have all choices of sides for cells. A further hyperplane cuts as many of the cells so far
    as its intersections with the hyperplanes so far divide it into, which is the same problem in one dimension less,
    solved by recursion. All other cells lie on one side of it.

    Parameters
    ----------
    Z : DesignMatrix or array-like of shape (N, k)
        Design matrix of any rank; zero, equal and parallel rows are allowed.
    max_patterns : int, default=100_000
        Budget: a larger predicted number (`count_patterns`) is refused before any work.

    Returns
    -------
    patterns : Patterns
        All patterns, each with a direction inside its cell. Hyperplanes whose unit normals differ by less than 1e-9
        count as one, and so do their intersections with another within that. If some differ by more than 1e-12, which
        rounding does not explain, patterns may be missing, and ``complete`` is False; else it is True. Directions on
        whose side of a hyperplane rounding decides are left out: gates of them would be others in other arithmetic.

    Raises
    ------
    ValueError
        If the predicted number exceeds `max_patterns`, or Z is all zero.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import enumerate_patterns
    >>> len(enumerate_patterns(np.random.default_rng(0).standard_normal((15, 3))))
    212
    """
    matrix = as_design_matrix(Z)
    check_count("max_patterns", max_patterns)
    rows = matrix.rows()
    normals, basis, clear = arrangement(rows)
    count = count_cells(normals)
    if count > max_patterns:
        raise ValueError(
            f"{len(normals)} distinct hyperplanes in rank {normals.shape[1]} have up to {count} activation patterns, "
            f"more than max_patterns={max_patterns}; use sample_patterns, keep fewer components, or raise the budget."
        )
    inner, clear_cells = cells(normals)[1:]
    directions = basis @ inner.T
    packed, decided = _sides(rows, directions)
    distinct, first = np.unique(packed[decided], axis=0, return_index=True)
    complete = clear and clear_cells and len(distinct) == len(inner)  # as many patterns as there are cells
    return Patterns(distinct, directions[:, decided][:, first], matrix.n_rows, complete=complete)


def _sides(rows: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Patterns of directions (k, P), and whether each is the same in whatever order products are summed: (P,)."""
    rows = rows / np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.finfo(float).tiny)
    rounding, step = 4 * len(directions) * np.finfo(float).eps, max(1, _BLOCK_ENTRIES // len(rows))
    magnitudes = np.abs(rows)
    packed = np.empty((directions.shape[1], -(-len(rows) // 8)), dtype=np.uint8)
    decided = np.empty(len(packed), dtype=bool)
    for start in range(0, len(packed), step):
        block = slice(start, start + step)
        products, sizes = rows @ directions[:, block], magnitudes @ np.abs(directions[:, block])
        decided[block] = ((np.abs(products) > rounding * sizes) | (sizes == 0)).all(axis=0)
        packed[block] = np.packbits(products.T >= 0, axis=1)
    return packed, decided


def check_patterns(patterns: object, Z: Operator) -> None:
    """Raise a ValueError unless `patterns` are at least one pattern of the rows of Z."""
    if not isinstance(patterns, Patterns):
        raise ValueError(f"patterns={patterns!r} must be Patterns, such as those of sample_patterns(Z, n_directions).")
    shape = len(patterns.directions), patterns.n_rows
    if shape != (Z.n_columns, Z.n_rows) or len(patterns) == 0:
        raise ValueError(
            f"patterns must be at least one, of the problem's {Z.n_rows} rows and {Z.n_columns} columns; got "
            f"{len(patterns)} of {shape[1]} rows and {shape[0]} columns."
        )
