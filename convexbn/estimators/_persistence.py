"""Fitted estimators in files: one npz of arrays and a JSON text, from which nothing is executed."""

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from convexbn._utils.damage import damage_as_value_error
from convexbn._utils.npz import read_npz, write_npz
from convexbn._utils.version import __version__
from convexbn.estimators._place import Place
from convexbn.gradient._trace import Trace
from convexbn.losses import LOSSES
from convexbn.network._persistence import Stored
from convexbn.solvers._certificate import Certificate, Oracle, Search, Setting
from convexbn.solvers._solution import Status

_FORMAT = "convexbn-estimator-1"
_LARGEST_SAMPLE = 2**22  # entries, on which a loaded estimator is tried
_RECORDS: dict[str, Any] = {kind.__name__: kind for kind in (Certificate, Setting, Trace, Place, *LOSSES.values())}
_ENUMERATIONS: dict[str, Any] = {kind.__name__: kind for kind in (Oracle, Search, Status)}


class StoredEstimator:
    """Mixin of an estimator that is saved to a file, with all that was learned, and loaded from it."""

    _estimators: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        StoredEstimator._estimators[cls.__name__] = cls

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a file: parameters, network, certificate, classes, names of the features.

        Numbers keep every bit. The file is an npz of arrays and one JSON text, without pickle, that `load` reads.

        skops keeps estimators, too, in pipelines with others of scikit-learn: ``skops.io.load(path, trusted=...)``
        takes the types whose names begin with ``convexbn.``, as ``skops.io.get_untrusted_types(file=path)`` lists them.

        Parameters
        ----------
        path : str or path
            The file, which ends in .npz.

        Raises
        ------
        ValueError
            If the path has another ending, or a parameter or attribute is an object that such a file cannot hold, as a
            torch module, a splitter or a function; it is named.
        OSError
            If the file cannot be written, and then it is as it was.
        NotFittedError
            If the estimator is not fitted.
        """
        check_is_fitted(self)
        path = _checked(path)
        arrays: dict[str, np.ndarray] = {}
        content = _Writer(arrays).written("estimator", self)
        facts = json.dumps({"format": _FORMAT, "version": __version__, "estimator": content})
        contents: dict[str, Any] = {"facts": np.frombuffer(facts.encode(), dtype=np.uint8), **arrays}
        write_npz(path, contents)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an estimator that `save` wrote; it predicts the same, to the last bit.

        Parameters
        ----------
        path : str or path
            The file, which ends in .npz.

        Returns
        -------
        estimator : same type

        Raises
        ------
        ValueError
            If the path has another ending, or the file is damaged, is another one, is of a newer version, or holds an
            estimator of another type.
        OSError
            If there is no such file.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from convexbn import ConvexBNRegressor
        >>> model = ConvexBNRegressor(0.1).fit([[0.0], [1.0], [3.0]], [0.0, 1.0, 2.0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(Path(folder) / "model.npz")
        ...     loaded = ConvexBNRegressor.load(Path(folder) / "model.npz")
        >>> loaded.certificate_ == model.certificate_, (loaded.predict([[2.0]]) == model.predict([[2.0]])).item()
        (True, True)
        """
        path = _checked(path)
        stored = path.read_bytes()
        with damage_as_value_error(f"{path} is damaged, or holds no estimator saved by convexbn."):
            arrays = read_npz(stored)
            facts = json.loads(arrays.pop("facts").tobytes())
            form, version, content = facts["format"], facts["version"], facts["estimator"]
            name, parameters = str(content["kind"]), dict(content["parameters"])
        if form != _FORMAT:
            raise ValueError(f"{path} is of the format {form!r}, not {_FORMAT!r}; convexbn {version} wrote it.")
        kind = StoredEstimator._estimators.get(name)
        if kind is None or not issubclass(kind, cls):
            raise ValueError(f"{path} holds a {name}, not a {cls.__name__}.")
        unknown = sorted(set(parameters) - set(kind().get_params(deep=False)))
        if unknown:
            raise ValueError(
                f"{path} has parameters {unknown} of convexbn {version}, which this version does not have."
            )
        with damage_as_value_error(f"{path} is damaged: what it holds is no {name}."):
            estimator = _read(content, arrays)
            _check_works(estimator)
        return estimator


class _Writer:
    """Values as JSON, and their arrays under numbers.

    Parameters
    ----------
    arrays : dict of str to ndarray
        Where arrays go.
    """

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays

    def written(self, name: str, value: Any) -> Any:
        """JSON of a value, or a ValueError that names it."""
        if value is None or isinstance(value, (bool, str)) or type(value) in (int, float):
            return value
        if isinstance(value, (np.ndarray, np.generic)):
            return self._array(name, np.asarray(value))
        if isinstance(value, list):
            return [self.written(name, entry) for entry in value]
        kind, tagged = type(value).__name__, self._tagged(name, value)
        if tagged is None:
            raise ValueError(
                f"{name}={value!r} is a {kind}, which a file without code cannot hold. Where it is a parameter that is "
                "needed in fit alone, set_params another value before save."
            )
        return tagged

    def _tagged(self, name: str, value: Any) -> dict[str, Any] | None:
        kind = type(value).__name__
        if isinstance(value, tuple):
            return {"type": "tuple", "values": [self.written(name, entry) for entry in value]}
        if isinstance(value, dict):
            items = [[self.written(name, key), self.written(f"{name}[{key!r}]", entry)] for key, entry in value.items()]
            return {"type": "dict", "items": items}
        if isinstance(value, os.PathLike):
            return {"type": "path", "value": os.fspath(value)}
        if isinstance(value, Enum) and _ENUMERATIONS.get(kind) is type(value):
            return {"type": "enumeration", "kind": kind, "name": value.name}
        if is_dataclass(value) and _RECORDS.get(kind) is type(value):
            entries = {entry.name: getattr(value, entry.name) for entry in fields(value)}
            return {"type": "record", "kind": kind, "fields": self._all(entries)}
        if isinstance(value, Stored):
            return {"type": "network", "kind": kind, "arrays": self._all(value._contents())}
        if isinstance(value, StoredEstimator):
            parameters = value.get_params(deep=False)  # type: ignore[attr-defined]
            learned = {name: entry for name, entry in vars(value).items() if name not in parameters}
            return {
                "type": "estimator",
                "kind": kind,
                "parameters": self._all(parameters),
                "learned": self._all(learned),
            }
        return None

    def _all(self, entries: dict[str, Any]) -> dict[str, Any]:
        return {name: self.written(name, entry) for name, entry in entries.items()}

    def _array(self, name: str, array: np.ndarray) -> dict[str, Any]:
        if array.dtype.kind in "OT":  # labels or names of features
            if array.dtype.kind == "O" and not all(type(entry) in (str, int, float, bool) for entry in array.flat):
                raise ValueError(f"{name} holds objects that a file without code cannot hold.")
            return {"type": "objects", "shape": array.shape, "values": array.ravel().tolist()}
        key = f"array{len(self.arrays)}"
        self.arrays[key] = array
        return {"type": "array", "name": key}


def _read(content: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The value that JSON stands for."""
    if isinstance(content, list):
        return [_read(entry, arrays) for entry in content]
    return _READERS[content["type"]](content, arrays) if isinstance(content, dict) else content


def _entries(content: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: _read(entry, arrays) for name, entry in content.items()}


def _read_objects(content: dict[str, Any], arrays: dict[str, np.ndarray]) -> np.ndarray:
    values = np.empty(len(content["values"]), dtype=object)
    values[:] = content["values"]
    return values.reshape(content["shape"])


def _read_estimator(content: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    estimator = StoredEstimator._estimators[content["kind"]](**_entries(content["parameters"], arrays))
    methods = [name for name in content["learned"] if callable(getattr(estimator, name, None))]
    if methods:
        raise ValueError(f"it learned {methods}, which are methods")
    vars(estimator).update(_entries(content["learned"], arrays))
    return estimator


_READERS: dict[str, Callable[[dict[str, Any], dict[str, np.ndarray]], Any]] = {
    "array": lambda content, arrays: arrays[content["name"]][()],  # a scalar where it has no dimension
    "objects": _read_objects,
    "tuple": lambda content, arrays: tuple(_read(content["values"], arrays)),
    "dict": lambda content, arrays: {_read(key, arrays): _read(entry, arrays) for key, entry in content["items"]},
    "path": lambda content, arrays: Path(content["value"]),
    "enumeration": lambda content, arrays: _ENUMERATIONS[content["kind"]][content["name"]],
    "record": lambda content, arrays: _RECORDS[content["kind"]](**_entries(content["fields"], arrays)),
    "network": lambda content, arrays: Stored._kinds[content["kind"]]._restored(_entries(content["arrays"], arrays)),
    "estimator": _read_estimator,
}


def _check_works(estimator: Any) -> None:
    """Raise an error unless a fitted estimator takes samples of the shape that it was fitted on."""
    check_is_fitted(estimator)
    shape = getattr(estimator, "image_shape_", None) or (estimator.n_features_in_,)
    if prod(shape) <= _LARGEST_SAMPLE:
        method = "predict" if hasattr(estimator, "predict") else "transform"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the sample has no feature names
            outputs = getattr(estimator, method)(np.zeros((2, *shape)))
        if len(outputs) != 2:
            raise ValueError(f"{method} gives {len(outputs)} outputs for 2 samples")


def _checked(path: str | os.PathLike[str]) -> Path:
    if Path(path).suffix != ".npz":
        raise ValueError(f"path={str(path)!r} must end in .npz.")
    return Path(path)
