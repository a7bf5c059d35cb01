"""Hyperplanes through the origin, one a row of a design matrix, and the cells into which they divide its directions."""

from itertools import product
from math import comb

import numpy as np
from scipy.linalg import qr

_ZERO = 1e-9  # what separates unit vectors counts as zero up to here
_ROUNDING = 1e-12  # and up to here it is rounding; in between it may be either


def arrangement(Z: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Distinct hyperplanes of the rows of Z in coordinates of their span.

    Neither the length of a row nor a change of coordinates matters to patterns, so both are scaled to order one.

    Returns
    -------
    normals (n', rank), the basis (k, rank) that takes directions back, and whether rank and hyperplanes are clear of
    rounding.
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
    normals, _, _, clear = _distinct_normals(scaled @ Vt[:rank].T)
    basis = np.zeros((Z.shape[1], rank))
    basis[used] = units[:, None] * Vt[:rank].T
    return normals, basis, clear and not _unclear(S / S[0])


def count_cells(normals: np.ndarray) -> int:
    """Number of cells in general position, and at most; for normals (n, k)."""
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


def cells(normals: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Signs (P, n) and inner directions (P, k) of all cells, and if they are clear, for unit normals (n, k)."""
    n, k = normals.shape
    if k == 2:
        return _sectors(normals)
    triangle, order = qr(normals.T, mode="r", pivoting=True)
    sizes = np.abs(np.diagonal(triangle))
    if (rank := int((sizes > _ZERO * sizes[0]).sum())) < k:  # since close ones became one
        basis = np.linalg.svd(normals)[2][:rank].T
        signs, inner, _ = cells(normals @ basis)
        return signs, inner @ basis.T, False
    normals = normals[order]  # independent ones first
    signs = np.empty((count_cells(normals), n), dtype=np.int8)
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
    signs, inner, clear_cells = cells(local)
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
