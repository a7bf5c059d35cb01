"""Save and load networks as JSON or npz."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

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
        """
        path = Path(path)
        header: dict[str, Any] = {"format": _FORMAT, "kind": type(self).__name__}
        arrays = self._contents()
        if _ending(path) == ".npz":
            np.savez(path, **header, **arrays)
        else:
            shaped = {name: {"shape": array.shape, "values": array.ravel().tolist()} for name, array in arrays.items()}
            path.write_text(json.dumps(header | shaped))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a network that `save` wrote.

        Raises
        ------
        ValueError
            If the path has another ending than .json or .npz, or the file holds no network of this type.
        """
        path = Path(path)
        if _ending(path) == ".npz":
            with np.load(path, allow_pickle=False) as file:
                content = {name: file[name] for name in file.files}
        else:
            stored = json.loads(path.read_text())
            content = {
                name: np.reshape(np.array(entry["values"]), entry["shape"]) if isinstance(entry, dict) else entry
                for name, entry in (stored.items() if isinstance(stored, dict) else ())
            }
        if str(content.pop("format", None)) != _FORMAT:
            raise ValueError(f"{path} holds no network saved by convexbn (format {_FORMAT}).")
        name = str(content.pop("kind", None))
        kind = Stored._kinds.get(name)
        if kind is None or not issubclass(kind, cls):
            raise ValueError(f"{path} holds a {name}, not a {cls.__name__}.")
        return kind._restored(content)

    def _contents(self) -> dict[str, Any]:
        """The arrays that make up the network."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def _restored(cls, contents: dict[str, np.ndarray]) -> Self:
        """The network that these arrays make up."""
        return cls(**contents)


def _ending(path: Path) -> str:
    if path.suffix not in (".json", ".npz"):
        raise ValueError(f"path={str(path)!r} must end in .json or .npz.")
    return path.suffix
