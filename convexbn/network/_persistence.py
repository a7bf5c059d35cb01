"""Save and load networks as JSON or npz."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from convexbn._utils.damage import damage_as_value_error
from convexbn._utils.npz import read_npz, write_npz
from convexbn._utils.whole_file import whole_file

_FORMAT = "convexbn-network-1"


class Stored:
    """Mixin of a dataclass of arrays that can be saved to a file and loaded from it.

    JSON keeps every bit of the numbers and can be read by other programs; npz is smaller.
    """

    _kinds: ClassVar[dict[str, type["Stored"]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Stored._kinds[cls.__name__] = cls

    def save(self, path: str | Path) -> None:
        """Write the network to `path`, which ends in .json or .npz.

        Raises
        ------
        ValueError
            If the path has another ending.
        OSError
            If the file cannot be written, and then it is as it was.
        """
        path = Path(path)
        header: dict[str, Any] = {"format": _FORMAT, "kind": type(self).__name__}
        arrays = self._contents()
        if _ending(path) == ".npz":
            write_npz(path, header | arrays)
        else:
            shaped = {name: {"shape": array.shape, "values": array.ravel().tolist()} for name, array in arrays.items()}
            with whole_file(path) as file:
                file.write(json.dumps(header | shaped).encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a network that `save` wrote.

        Raises
        ------
        ValueError
            If the path has another ending than .json or .npz, or the file is damaged or holds no network of this type.
        OSError
            If there is no such file.
        """
        path = Path(path)
        ending, stored = _ending(path), path.read_bytes()
        with damage_as_value_error(f"{path} is damaged, or holds no network saved by convexbn."):
            content = read_npz(stored) if ending == ".npz" else _content_of_json(stored)
        if str(content.pop("format", None)) != _FORMAT:
            raise ValueError(f"{path} holds no network saved by convexbn (format {_FORMAT}).")
        name = str(content.pop("kind", None))
        kind = Stored._kinds.get(name)
        if kind is None or not issubclass(kind, cls):
            raise ValueError(f"{path} holds a {name}, not a {cls.__name__}.")
        with damage_as_value_error(f"{path} is damaged: what it holds is no {name}."):
            return kind._restored(content)

    def _contents(self) -> dict[str, Any]:
        """The arrays that make up the network."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def _restored(cls, contents: dict[str, np.ndarray]) -> Self:
        """The network that these arrays make up."""
        return cls(**contents)


def _content_of_json(stored: bytes) -> dict[str, Any]:
    content = json.loads(stored)
    return {
        name: _array(**entry) if isinstance(entry, dict) else str(entry)
        for name, entry in (content.items() if isinstance(content, dict) else ())
    }


def _array(shape: list[int], values: list[Any]) -> np.ndarray:
    """Numbers, or strings as objects, of which each takes its own length alone."""
    strings = all(isinstance(value, str) for value in values)
    return np.array(values, dtype=object if strings and values else np.float64).reshape(shape)


def _ending(path: Path) -> str:
    if path.suffix not in (".json", ".npz"):
        raise ValueError(f"path={str(path)!r} must end in .json or .npz.")
    return path.suffix
