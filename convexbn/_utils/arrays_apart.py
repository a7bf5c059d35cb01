"""Values as JSON, with their arrays apart: containers, numbers, texts, arrays, and dataclasses of known kinds.

Nothing else is stored, and nothing else is made when they are read: no code runs, unlike with pickle.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Form:
    """How values of some types are stored, under a tag of their own.

    Parameters
    ----------
    tag : str
        Name of the form.
    types : type or tuple of type
        Whose values it takes.
    parts : callable
        Returns the parts of a value by name, which are stored in turn; those that are dicts have texts as keys. None
        leaves the value to other forms.
    whole : callable
        Makes the value of its parts, which are keywords.
    """

    tag: str
    types: type | tuple[type, ...]
    parts: Callable[[Any], dict[str, Any] | None]
    whole: Callable[..., Any]


def records(*types: Any) -> Form:
    """The form of dataclasses of these types, which subclasses are not."""
    known = {kind.__name__: kind for kind in types}

    def parts(value: Any) -> dict[str, Any] | None:
        entries = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"kind": type(value).__name__, "fields": entries} if type(value) in types else None

    return Form("record", types, parts, lambda kind, fields: known[kind](**fields))


def taken_apart(value: Any, arrays: dict[str, np.ndarray], forms: Sequence[Form] = (), name: str = "value") -> Any:
    """JSON of a value, whose arrays go to a dict.

    Parameters
    ----------
    value : dict, list, tuple, ndarray, number, str, None, or what a form takes
        Or any of these within one another.
    arrays : dict of str to ndarray
        Takes the arrays.
    forms : sequence of Form, default=()
        Of other values.
    name : str, default="value"
        Of the value in the message of an error.

    Returns
    -------
    tree : dict, list, number, str or None
        What `put_together` undoes.

    Raises
    ------
    ValueError
        If no form takes a value; it is named.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn._utils.arrays_apart import put_together, taken_apart
    >>> arrays = {}
    >>> tree = taken_apart({"a": (1, np.ones(2))}, arrays)
    >>> put_together(tree, arrays)
    {'a': (1, array([1., 1.]))}
    """
    if value is None or isinstance(value, (bool, str)) or type(value) in (int, float):
        return value

    def apart(entry: Any, name: str = name) -> Any:
        return taken_apart(entry, arrays, forms, name)

    if isinstance(value, list):
        return [apart(entry) for entry in value]
    for form in (*forms, *_FORMS):
        parts = form.parts(value) if isinstance(value, form.types) else None
        if parts is not None:
            return {"type": form.tag} | {
                part: {key: apart(one, key) for key, one in entry.items()} if isinstance(entry, dict) else apart(entry)
                for part, entry in parts.items()
            }
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind not in "OT":
        key = f"array{len(arrays)}"
        arrays[key] = np.asarray(value)
        return {"type": "array", "name": key}
    if isinstance(value, np.ndarray):
        raise ValueError(f"{name} holds objects that a file without code cannot hold.")
    raise ValueError(f"{name}={value!r} is a {type(value).__name__}, which a file without code cannot hold.")


def put_together(tree: Any, arrays: Mapping[str, np.ndarray], forms: Sequence[Form] = ()) -> Any:
    """The value of a tree and its arrays.

    Raises
    ------
    KeyError, TypeError or ValueError
        If the tree is not one that `taken_apart` made with these forms.
    """
    if isinstance(tree, list):
        return [put_together(entry, arrays, forms) for entry in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.get("type") == "array":
        return arrays[tree["name"]][()]  # a scalar where it has no dimension
    parts = {name: put_together(entry, arrays, forms) for name, entry in tree.items() if name != "type"}
    if "type" not in tree:
        return parts
    (whole,) = (form.whole for form in (*forms, *_FORMS) if form.tag == tree["type"])
    return whole(**parts)


def _objects(array: np.ndarray) -> dict[str, Any] | None:
    """Parts of an array of texts and numbers, as labels or names of features."""
    values = array.ravel().tolist()
    of_objects = array.dtype.kind in "OT" and all(type(entry) in (str, int, float, bool) for entry in values)
    return {"shape": list(array.shape), "values": values} if of_objects else None


def _of_objects(shape: list[int], values: list[Any]) -> np.ndarray:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found.reshape(shape)


_FORMS = (
    Form("tuple", tuple, lambda value: {"values": list(value)}, lambda values: tuple(values)),
    Form("dict", dict, lambda value: {"items": [list(item) for item in value.items()]}, lambda items: dict(items)),
    Form("objects", np.ndarray, _objects, _of_objects),
)
