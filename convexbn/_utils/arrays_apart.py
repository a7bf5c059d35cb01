"""Values as JSON, with their arrays apart: dataclasses of known kinds, containers, numbers, texts and arrays.

Nothing else is stored, and nothing else is made when they are read: no code runs, unlike with pickle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def taken_apart(value: Any, arrays: list[np.ndarray]) -> Any:
    """JSON of a value, whose arrays are appended to a list.

    Parameters
    ----------
    value : dataclass, dict with texts as keys, list, tuple, ndarray, number, str or None
        Or any of these within one another.
    arrays : list of ndarray
        Takes the arrays.

    Returns
    -------
    tree : dict, number, str or None
        What `put_together` undoes.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn._utils.arrays_apart import put_together, taken_apart
    >>> arrays = []
    >>> tree = taken_apart({"a": (1, np.ones(2))}, arrays)
    >>> put_together(tree, arrays, {})
    {'a': (1, array([1., 1.]))}
    """
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [taken_apart(item, arrays) for item in value]}
    if isinstance(value, dict):
        return {"dict": {name: taken_apart(item, arrays) for name, item in value.items()}}
    if is_dataclass(value):
        parts = {field.name: taken_apart(getattr(value, field.name), arrays) for field in fields(value)}
        return {"kind": type(value).__name__, "dict": parts}
    return value


def put_together(tree: Any, arrays: Sequence[np.ndarray], kinds: Mapping[str, type]) -> Any:
    """The value of a tree and its arrays; dataclasses are made of the kinds given, by name.

    Raises
    ------
    KeyError, IndexError, TypeError or ValueError
        If the tree is not one that `taken_apart` made of these kinds.
    """
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        return arrays[tree["array"]]
    for kind in (list, tuple):
        if kind.__name__ in tree:
            return kind(put_together(item, arrays, kinds) for item in tree[kind.__name__])
    parts = {name: put_together(item, arrays, kinds) for name, item in tree["dict"].items()}
    return kinds[tree["kind"]](**parts) if "kind" in tree else parts
