"""ReLU activation patterns of a design matrix: sampled, enumerated, bit-packed.

The pattern of a direction g is D = diag(1[Z g >= 0]). Directions with the same pattern make up one cell of the
arrangement of the hyperplanes { g : z_l·g = 0 }, one hyperplane a row of Z.
"""

from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import product
from math import comb

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import qr

from convexbn._utils.checks import check_count, make_generator
from convexbn._utils.summary import Summarized, counted
from convexbn.operators._kinds import as_design_matrix
from convexbn.operators._protocol import Operator

_ZERO = 1e-9  # what separates unit vectors, or a unit normal from a ray, counts as zero up to here
_ROUNDING = 1e-12  # and up to here it is rounding; in between it may be either
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
    return _count(_arrangement(as_design_matrix(Z).rows())[0])


def enumerate_patterns(Z: Operator | ArrayLike, *, max_patterns: int = 100_000) -> Patterns:
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
        rounding does not explain, patterns may be missing, and ``complete`` is False; else it is True.

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
    normals, member, side, basis, clear = _arrangement(matrix.rows())
    count = _count(normals)
    if count > max_patterns:
        raise ValueError(
            f"{len(normals)} distinct hyperplanes in rank {normals.shape[1]} have up to {count} activation patterns, "
            f"more than max_patterns={max_patterns}; use sample_patterns, keep fewer components, or raise the budget."
        )
    signs, centres, cells_clear = _cells(normals)
    masks = signs[:, member] * side >= 0
    order = np.lexsort(masks.T[::-1])
    packed, directions = np.packbits(masks[order], axis=1), basis @ centres[order].T
    own = matrix.packed_patterns(directions)
    if (own == packed).all():
        return Patterns(packed, directions, matrix.n_rows, complete=clear and cells_clear)
    own, first = np.unique(own, axis=0, return_index=True)  # of cells narrower than rounding
    return Patterns(own, directions[:, first], matrix.n_rows)


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


def _arrangement(Z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool]:
    """Distinct hyperplanes of the rows of Z in coordinates of their span.

    Neither the length of a row nor a change of coordinates matters to patterns, so both are scaled to order one.

    Returns
    -------
    normals (n', rank), the hyperplane and the side of each row, the basis (k, rank) that takes directions back, and
    whether rank and hyperplanes are clear of rounding.
    """
    used = Z.any(axis=0)
    if not used.any():
        raise ValueError("Z is all zero: it has no activation patterns.")
    scaled, units = Z[:, used], np.ones(int(used.sum()))
    for _ in range(3):
        scaled = scaled / np.maximum(np.abs(scaled).max(axis=1, keepdims=True), np.finfo(float).tiny)
        largest = np.abs(scaled).max(axis=0)
        scaled, units = scaled / largest, units / largest
    _, S, Vt = np.linalg.svd(scaled, full_matrices=False)
    rank = int(np.sum(_ZERO * S[0] < S))
    normals, member, side, clear = _distinct_normals(scaled @ Vt[:rank].T)
    basis = np.zeros((Z.shape[1], rank))
    basis[used] = units[:, None] * Vt[:rank].T
    return normals, member, side, basis, clear and not _unclear(S / S[0])


def _count(normals: np.ndarray) -> int:
    n, k = normals.shape
    return 2 * sum(comb(n - 1, i) for i in range(k))


def _unclear(sizes: np.ndarray) -> bool:
    """Whether rounding decides if some of these are zero."""
    return bool(((sizes > _ROUNDING) & (sizes <= _ZERO)).any())


def _distinct_normals(Z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Unit normals of distinct hyperplanes; for each row its hyperplane and side (-1, 0 or 1); if they are clear."""
    size = np.linalg.norm(Z, axis=1)
    nonzero = size > _ROUNDING * size.max()
    unit = Z[nonzero] / size[nonzero, None]
    along = unit @ np.random.default_rng(0).standard_normal((Z.shape[1], 2))
    side = np.zeros(len(Z), dtype=np.int8)
    side[nonzero] = np.where(np.where(np.abs(along[:, 0]) > _ZERO, along[:, 0], along[:, 1]) >= 0, 1, -1)
    unit, along = unit * side[nonzero, None], along * side[nonzero, None]
    group = _groups(along[:, 0]) * len(unit) + _groups(along[:, 1])
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    member = np.zeros(len(Z), dtype=int)
    member[nonzero] = group
    merged = np.abs(unit - unit[first][group]).max(axis=1)
    return unit[first], member, side, bool((merged <= _ROUNDING).all())


def _groups(numbers: np.ndarray) -> np.ndarray:
    """The group of each number: of those that follow one another by less than what counts as zero."""
    order = np.argsort(numbers, kind="stable")
    groups = np.empty(len(numbers), dtype=int)
    groups[order] = np.cumsum(np.diff(numbers[order], prepend=numbers[order[0]]) > _ZERO)
    return groups


def _cells(normals: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Signs (P, n) and inner directions (P, k) of all cells, and if they are clear, for unit normals (n, k)."""
    n, k = normals.shape
    if k == 2:
        return _sectors(normals)
    triangle, order = qr(normals.T, mode="r", pivoting=True)
    sizes = np.abs(np.diagonal(triangle))
    if (rank := int((sizes > _ZERO * sizes[0]).sum())) < k:  # since close ones became one
        basis = np.linalg.svd(normals)[2][:rank].T
        signs, inner, _ = _cells(normals @ basis)
        return signs, inner @ basis.T, False
    normals = normals[order]  # independent ones first
    signs = np.empty((_count(normals), n), dtype=np.int8)
    inner = np.empty((len(signs), k))
    weights = np.random.default_rng(0).integers(2**63, size=(n,), dtype=np.uint64)
    keys = np.empty(len(signs), dtype=np.uint64)  # of signs: no two are equal, but for a chance of 1e-9 at 100,000
    count, clear = 2**k, True
    signs[:count, :k] = list(product((1, -1), repeat=k))
    inner[:count] = _unit(np.linalg.solve(normals[:k], signs[:count, :k].T.astype(float)).T)
    keys[:count] = (signs[:count, :k] > 0) @ weights[:k]
    for j in range(k, n):
        walls, above, below, clear_walls = _walls(normals[:j], normals[j])
        wanted = (walls > 0) @ weights[:j]
        by_key = np.argsort(keys[:count])
        cut = by_key[np.minimum(np.searchsorted(keys[:count], wanted, sorter=by_key), count - 1)]
        known = keys[cut] == wanted
        cut = cut[known]
        height = inner[:count] @ normals[j]
        signs[:count, j] = np.where(height > 0, 1, -1)
        height[cut] = np.inf
        clear = clear and clear_walls and bool(known.all()) and bool(np.abs(height).min() > _ROUNDING)
        clear = clear and len(np.unique(cut)) == len(cut)
        new = slice(count, count + len(cut))
        signs[cut, j] = 1
        signs[new, :j], signs[new, j], keys[new] = signs[cut, :j], -1, keys[cut]
        inner[cut], inner[new] = above[known], below[known]
        count = new.stop
        keys[:count] += weights[j] * (signs[:count, j] > 0)
    in_order = np.empty((count, n), dtype=np.int8)
    in_order[:, order] = signs[:count]
    return in_order, inner[:count], clear


def _sectors(normals: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """The cells of lines through the origin of a plane: between one and the next, and opposite."""
    angles = np.sort(np.arctan2(normals[:, 0], -normals[:, 1]) % np.pi)
    middles = (angles + np.append(angles[1:], angles[0] + np.pi)) / 2
    inner = np.column_stack([np.cos(middles), np.sin(middles)])
    signs = np.where(inner @ normals.T > 0, 1, -1).astype(np.int8)
    return np.vstack([signs, -signs]), np.vstack([inner, -inner]), True


def _walls(normals: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """The cells that a further hyperplane cuts: signs, an inner direction of either part, and if they are clear.

    Each is cut along a cell of the arrangement within the hyperplane, and has inner directions halfway from an inner
    direction of that to the next hyperplane.
    """
    within = np.linalg.svd(normal[None])[2][1:].T
    local, member, side, clear = _distinct_normals(normals @ within)
    signs, inner, clear_cells = _cells(local)
    walls = signs[:, member] * side
    middle = inner @ within.T
    slopes = walls * (normals @ normal)
    distances = walls * (middle @ normals.T)
    parts = []
    for sign in (1, -1):
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.where(sign * slopes < 0, distances / np.abs(slopes), 2.0).min(axis=1)
        parts.append(_unit(middle + sign * np.minimum(reach, 2.0)[:, None] / 2 * normal))
    return walls, parts[0], parts[1], clear and clear_cells


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
