"""The lexicographic order of the rows of data, and which of them are equal."""

import numpy as np
from scipy.sparse import csr_array, issparse


def sorted_rows(X: np.ndarray | csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Sort rows of numbers lexicographically.

    Parameters
    ----------
    X : ndarray of shape (n, d) or csr_array of shape (n, d)
        Rows; those of a `csr_array` in the form that `as_rows` gives.

    Returns
    -------
    order : ndarray of int, shape (n,)
        Indices of the rows in their order.
    new : ndarray of bool, shape (n,)
        Whether a row, in that order, differs from the one before.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> from convexbn._utils.row_order import sorted_rows
    >>> X = np.array([[5.0, 0.0], [-3.0, 1.0], [5.0, 0.0]])
    >>> sorted_rows(X)[1], sorted_rows(csr_array(X))
    (array([ True,  True, False]), (array([1, 0, 2]), array([ True,  True, False])))
    """
    new = np.ones(X.shape[0], dtype=bool)
    if issparse(X):
        keys = _keys_of_entries(X)
        order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
        new[1:] = [keys[i] != keys[j] for i, j in zip(order[1:], order[:-1], strict=True)]
        return order, new
    order = np.argsort(_sort_keys(X))
    rows = X[order]
    new[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return order, new


def as_rows(X: csr_array) -> csr_array:
    """Return sparse data with the entries of a row in the order of their columns, each once, and no zeros."""
    rows = csr_array(X)
    if rows.has_canonical_format and rows.data.all():
        return rows
    rows = rows.copy()
    rows.sum_duplicates()
    rows.eliminate_zeros()
    return rows


def _sort_keys(rows: np.ndarray) -> np.ndarray:
    """Keys (n,) of rows (n, d) whose order, byte by byte, is the lexicographic one of the numbers."""
    keys = np.empty(rows.shape, dtype=">u4" if rows.dtype == np.float32 else ">u8")
    size = max(1, 2**15 // rows.shape[1])
    for start in range(0, len(rows), size):
        keys[start : start + size] = _ordered_bits(rows[start : start + size])
    return keys.view(f"V{keys.strides[0]}").ravel()


def _keys_of_entries(X: csr_array) -> list[bytes]:
    """The same keys of sparse rows, of length in proportion to their entries.

    At the first column in which only one of two rows has an entry, this one is smaller if the entry is negative. So the
    key of an entry is its place, the column of a negative one and 2d less that of a positive one, and its value; a row
    ends with the place d.
    """
    (n, d), counts = X.shape, np.diff(X.indptr)
    ends = X.indptr[1:] + np.arange(n)
    entries = np.ones(X.nnz + n, dtype=bool)
    entries[ends] = False
    keys = np.zeros((X.nnz + n, 2), dtype=">u8")
    keys[ends, 0] = d
    keys[entries, 0] = np.where(X.data < 0, X.indices, 2 * d - X.indices.astype(np.int64))
    keys[entries, 1] = _ordered_bits(X.data)
    of_rows, size = keys.tobytes(), 2 * keys.itemsize
    starts = ends - counts
    return [of_rows[size * start : size * (end + 1)] for start, end in zip(starts, ends, strict=True)]


def _ordered_bits(numbers: np.ndarray) -> np.ndarray:
    """Unsigned integers in the order of the numbers."""
    single = numbers.dtype == np.float32
    signed, unsigned = (np.int32, np.uint32) if single else (np.int64, np.uint64)
    bits = np.add(numbers, 0.0, order="C", dtype=np.float32 if single else np.float64).view(signed)  # 0.0 equals -0.0
    flips = bits >> (8 * bits.itemsize - 1)  # all bits of a negative number, and the sign of any
    flips |= np.iinfo(signed).min
    flips ^= bits
    return flips.view(unsigned)
