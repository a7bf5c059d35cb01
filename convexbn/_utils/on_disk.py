"""Memory maps: large arrays in files, which are read where they are and never copied whole."""

from mmap import mmap

import numpy as np

LEAST_ENTRIES = 2**27  # smaller memory maps are read into memory, where products are faster


def is_on_disk(X: object) -> bool:
    """Whether X is a memory map, or a view of one, of at least 2**27 entries, a gibibyte.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn._utils.on_disk import is_on_disk
    >>> is_on_disk(np.zeros(3))
    False
    """
    if not isinstance(X, np.ndarray) or X.size < LEAST_ENTRIES:
        return False
    owner: object = X
    while not (owner is None or isinstance(owner, mmap)):
        owner = getattr(owner, "base", None)
    return owner is not None
