"""Fitted estimators in files: one npz of arrays and a JSON text, from which nothing is executed."""

import json
import os
import warnings
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from convexbn._utils.arrays_apart import Form, put_together, records, taken_apart
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
        try:
            content = taken_apart(self, arrays, _FORMS, "estimator")
        except ValueError as error:
            raise ValueError(
                f"{error} Where it is a parameter that is needed in fit alone, set_params another value before save."
            ) from None
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
            estimator = put_together(content, arrays, _FORMS)
            _check_works(estimator)
        return estimator


def _parts(estimator: Any) -> dict[str, Any]:
    parameters = estimator.get_params(deep=False)
    learned = {name: entry for name, entry in vars(estimator).items() if name not in parameters}
    return {"kind": type(estimator).__name__, "parameters": parameters, "learned": learned}


def _whole(kind: str, parameters: dict[str, Any], learned: dict[str, Any]) -> Any:
    estimator = StoredEstimator._estimators[kind](**parameters)
    methods = [name for name in learned if callable(getattr(estimator, name, None))]
    if methods:
        raise ValueError(f"it learned {methods}, which are methods")
    vars(estimator).update(learned)
    return estimator


_ENUMERATIONS: dict[str, Any] = {kind.__name__: kind for kind in (Oracle, Search, Status)}
_FORMS = (
    Form("path", os.PathLike, lambda path: {"value": os.fspath(path)}, lambda value: Path(value)),
    Form(
        "enumeration",
        tuple(_ENUMERATIONS.values()),
        lambda member: {"kind": type(member).__name__, "name": member.name},
        lambda kind, name: _ENUMERATIONS[kind][name],
    ),
    records(Certificate, Setting, Trace, Place, *LOSSES.values()),
    Form(
        "network",
        Stored,
        lambda network: {"kind": type(network).__name__, "arrays": network._contents()},
        lambda kind, arrays: Stored._kinds[kind]._restored(arrays),
    ),
    Form("estimator", StoredEstimator, _parts, _whole),
)


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
