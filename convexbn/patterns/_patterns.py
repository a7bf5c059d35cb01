"""ReLU activation patterns of a design matrix: sampled, enumerated, bit-packed.

The pattern of a direction g is D = diag(1[Z g >= 0]). Directions with the same pattern make up one cell of the
arrangement of the hyperplanes { g : z_l·g = 0 }, one hyperplane a row of Z.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import combinations, islice, product
from math import comb

import numpy as np
from numpy.typing import ArrayLike

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

    Every cell of the arrangement is the set of directions around some ray in which k - 1 independent hyperplanes
    meet. Around a ray in which exactly k - 1 meet, all 2^(k-1) sides exist; where more meet, the cells around it
    are those of the arrangement of these hyperplanes in the k - 1 dimensions across the ray, found by recursion.

    Parameters
    ----------
    Z : DesignMatrix or array-like of shape (N, k)
        Design matrix of any rank; zero, equal and parallel rows are allowed.
    max_patterns : int, default=100_000
        Budget: a larger predicted number (`count_patterns`) is refused before any work.

    Returns
    -------
    patterns : Patterns
        All patterns; the direction of each is the mean of the rays of its cell. Hyperplanes that are so close to
        parallel, or to meeting in a ray, that rounding decides (between 1e-12 and 1e-9) count as such, and since
        patterns may then be missing, ``complete`` is False; else it is True.

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
    packed = np.packbits(masks[order], axis=1)
    return Patterns(packed, basis @ centres[order].T, matrix.n_rows, complete=clear and cells_clear)


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
    side = np.zeros(len(Z))
    side[nonzero] = np.where(unit @ np.random.default_rng(0).standard_normal(Z.shape[1]) >= 0, 1.0, -1.0)
    unit = unit * side[nonzero, None]
    _, first, group = np.unique(np.round(unit, 9), axis=0, return_index=True, return_inverse=True)
    member = np.zeros(len(Z), dtype=int)
    member[nonzero] = group.ravel()
    merged = np.abs(unit - unit[first][group.ravel()]).max(axis=1)
    return unit[first], member, side, bool((merged <= _ROUNDING).all())


def _cells(normals: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Signs (P, n) and inner directions (P, k) of all cells, and if they are clear; normals (n, k) span R^k."""
    n, k = normals.shape
    if k == 1:
        return np.sign(normals[:, 0]) * np.array([[1], [-1]]), np.array([[1.0], [-1.0]]), True
    keys, rays, clear = zip(*_cells_around_rays(normals), strict=True)
    packed, cell = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
    sums = np.stack([np.bincount(cell.ravel(), column) for column in np.concatenate(rays).T], axis=1)
    centres = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return 2.0 * np.unpackbits(packed, axis=1, count=n) - 1, centres, all(clear)


def _cells_around_rays(normals: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Packed signs of the cells around each ray in which hyperplanes meet, the ray, and if it is clear, in blocks."""
    n, k = normals.shape
    every_side = np.array(list(product((1.0, -1.0), repeat=k - 1)))
    crowded: set[bytes] = set()
    for rays, tight, clear in _rays(normals):
        simple = tight.sum(axis=1) == k - 1
        signs = np.sign(rays[simple] @ normals.T)[:, None, :].repeat(len(every_side), axis=1)
        at = np.nonzero(tight[simple])[1].reshape(-1, 1, k - 1)
        np.put_along_axis(signs, at.repeat(len(every_side), axis=1), every_side[None], axis=2)
        yield from _both_ways(signs.reshape(-1, n), rays[simple].repeat(len(every_side), axis=0), clear)
        for ray, through in zip(rays[~simple], tight[~simple], strict=True):
            key = np.packbits(through).tobytes()
            if key not in crowded:
                crowded.add(key)
                across = np.linalg.svd(ray[None])[2][1:].T
                local, member, side, merged_clear = _distinct_normals(normals[through] @ across)
                local_signs, _, local_clear = _cells(local)
                signs = np.sign(normals @ ray)[None].repeat(len(local_signs), axis=0)
                signs[:, through] = local_signs[:, member] * side
                yield from _both_ways(signs, ray[None].repeat(len(signs), axis=0), merged_clear and local_clear)


def _both_ways(signs: np.ndarray, rays: np.ndarray, clear: bool) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Pack the cells around a ray and, mirrored, those around its opposite."""
    yield np.packbits(signs > 0, axis=1), rays, clear
    yield np.packbits(signs < 0, axis=1), -rays, clear


def _rays(normals: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Lines in which k - 1 independent hyperplanes meet, which hyperplanes hold them, if that is clear; in blocks."""
    n, k = normals.shape
    subsets = combinations(range(n), k - 1)
    size = max(1, _BLOCK_ENTRIES // (n * 2**k))
    while block := list(islice(subsets, size)):
        _, S, Vt = np.linalg.svd(normals[np.array(block)])
        rays = Vt[S[:, -1] > _ZERO, -1]
        distances = np.abs(rays @ normals.T)
        yield rays, distances <= _ZERO, not (_unclear(S[:, -1]) or _unclear(distances))
