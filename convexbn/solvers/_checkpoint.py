"""The checkpoint of a run: a file of the steps that are completed, from which a killed run goes on.

All later steps follow from those in the file, so a run that goes on ends in the network of one that was never stopped.
Every step is written to a draft beside the file, which then takes its place at once: whenever the power fails, the file
holds whole steps. It is an npz of arrays and one JSON text; nothing is pickled.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from re import sub
from typing import Any, TypeVar

import numpy as np

from convexbn._utils.arrays_apart import Form, put_together, records, taken_apart
from convexbn._utils.damage import damage_as_value_error
from convexbn._utils.npz import read_npz, write_npz
from convexbn._utils.version import __version__
from convexbn.model._neurons import Neurons
from convexbn.model._normalized_neurons import NormalizedNeurons
from convexbn.model._problem import Problem
from convexbn.oracles import LocalMaxima, NormalizedMaxima, Price
from convexbn.solvers._monitor import Monitor
from convexbn.solvers._solution import Progress

Value = TypeVar("Value")
CheckpointPath = str | os.PathLike[str]
_FORMAT = "convexbn-checkpoint-3"
_BLOCK_ENTRIES = 2**22  # of Z, that are made at once
_KINDS = (Neurons, NormalizedNeurons, LocalMaxima, NormalizedMaxima, Price, Progress)
_NUMBERS = Form(  # many in a history, where each as an array would take a while
    "number",
    np.generic,
    lambda number: {"dtype": number.dtype.str, "value": number.item()},
    lambda dtype, value: np.dtype(dtype).type(value),
)


class Checkpoint:
    """The completed steps of a run by name, in a file; without a path nothing is kept.

    A run within it, such as the last fit after a choice, keeps its steps in the same file.

    Parameters
    ----------
    path : path, Checkpoint or None
        The file, which need not exist yet, or the checkpoint of the run around this one.
    fingerprint : callable
        Returns the fingerprint of data and parameters; not called without a path.
    *kinds : type
        Dataclasses that the steps hold, beside those of every solver.

    Raises
    ------
    ValueError
        If the file is damaged or no checkpoint, or is one of other data or parameters.
    """

    def __init__(self, path: "CheckpointPath | Checkpoint | None", fingerprint: Callable[[], str], *kinds: type):
        self._forms = (records(*_KINDS, *kinds), _NUMBERS)
        self.path: Path | None
        self._depth: int
        self._runs: list[_Run]  # this one, and those around it and within
        if isinstance(path, Checkpoint):
            self.path, self._runs, self._depth = path.path, path._runs, path._depth + 1
        else:
            self.path, self._depth = None if path is None else Path(path), 0
            self._runs = self._read()
        self._fingerprint = "" if self.path is None else fingerprint()
        if self._depth < len(self._runs) and self._runs[self._depth].fingerprint != self._fingerprint:
            raise ValueError(
                f"{self._name} is of other data, other parameters or another version of convexbn; go on with those "
                "that it was made with, delete it, or name another file."
            )

    def get(self, name: str) -> Any:
        """The value of a completed step, None if it is not there."""
        run = self._runs[self._depth] if self._depth < len(self._runs) else None
        if run is None or name not in run.trees:
            return None
        with damage_as_value_error(self.damage):
            return put_together(run.trees[name], run.arrays[name], self._forms)

    def keep(self, name: str, value: Any, *, alone: bool = False) -> None:
        """Write a completed step, in the place of one of this name, or of all; runs within start again."""
        if self.path is None:
            return
        known = self._runs[self._depth] if self._depth < len(self._runs) and not alone else None
        run = _Run(self._fingerprint) if known is None else known
        run.arrays[name] = {}
        run.trees[name] = taken_apart(value, run.arrays[name], self._forms)
        self._runs[self._depth :] = [run]
        self._write(self.path)

    def once(self, name: str, compute: Callable[[], Value], whole: Callable[[], bool] = lambda: True) -> Value:
        """The value of a step: as it was kept, or computed now and kept if it is whole then."""
        found = self.get(name)
        if found is None:
            found = compute()
            if whole():
                self.keep(name, found)
        return found

    @property
    def _name(self) -> str:
        return f"checkpoint={str(self.path)!r}"

    @property
    def damage(self) -> str:
        """What to say of a file that cannot be gone on from."""
        return f"{self._name} is damaged, or no checkpoint; delete it, or name another file."

    def _read(self) -> "list[_Run]":
        if self.path is None or not self.path.exists():
            return []
        with damage_as_value_error(self.damage):
            arrays = read_npz(self.path.read_bytes())
            facts = json.loads(str(arrays["facts"]))
            if facts["format"] != _FORMAT:
                return [_Run("of another version")]
            if str(arrays.pop("digest")) != _digest(arrays):
                raise ValueError("it is not as it was written")
            return [
                _Run(
                    fingerprint,
                    trees,
                    {step: {name: arrays[key] for name, key in of.items()} for step, of in keys.items()},
                )
                for fingerprint, trees, keys in facts["runs"]
            ]

    def _write(self, path: Path) -> None:
        arrays: dict[str, np.ndarray] = {}
        runs = []
        for depth, run in enumerate(self._runs):
            keys = {step: {name: f"{depth}.{step}.{name}" for name in of} for step, of in run.arrays.items()}
            for step, of in run.arrays.items():
                arrays |= {keys[step][name]: array for name, array in of.items()}
            runs.append((run.fingerprint, run.trees, keys))
        arrays["facts"] = np.array(json.dumps({"format": _FORMAT, "runs": runs}))
        write_npz(path, arrays | {"digest": np.array(_digest(arrays))})


@dataclass
class _Run:
    """The steps of a run as trees, and their arrays, by the name of the step."""

    fingerprint: str
    trees: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


class Rounds:
    """The last completed round of a solver: its state, the history, the random generator.

    Parameters
    ----------
    checkpoint : Checkpoint
        Where the round is kept.
    monitor : Monitor
        Of the run.
    rng : Generator or None, default=None
        Of the run.
    """

    def __init__(self, checkpoint: Checkpoint, monitor: Monitor, rng: np.random.Generator | None = None):
        self.checkpoint, self.monitor, self.rng = checkpoint, monitor, rng

    def keep(self, state: Any) -> None:
        """Write a completed round; one that was cut short by the time limit is none, and changes nothing."""
        if self.checkpoint.path is None or self.monitor.out_of_time():
            return
        random = None if self.rng is None else self.rng.bit_generator.state
        self.checkpoint.keep("round", {"state": state, "history": self.monitor.history, "random": random})

    def resume(self) -> Any:
        """The state of the last completed round, with history and random generator as they were; None without one."""
        kept = self.checkpoint.get("round")
        if kept is None:
            return None
        with damage_as_value_error(self.checkpoint.damage):
            self.monitor.resume(kept["history"])
            if self.rng is not None:
                self.rng.bit_generator.state = kept["random"]
            return kept["state"]


def fingerprint_of(problem: Problem, parameters: Any, arrays: Iterable[np.ndarray] = ()) -> str:
    """Fingerprint of a problem, and of parameters and arrays that steps depend on."""
    Z, loss = problem.Z, problem.loss
    facts = [__version__, loss.name, vars(loss), problem.weight_decay, problem.fit_intercept, Z.n_patches]
    digest = sha256(_json([type(problem).__name__, *facts, parameters]).encode())
    size = max(1, _BLOCK_ENTRIES // Z.n_columns)
    blocks = (Z.rows(slice(first, min(first + size, Z.n_rows))) for first in range(0, Z.n_rows, size))
    for array in (problem.y, problem.sample_weight, *arrays, *blocks):
        _update(digest, array)
    return digest.hexdigest()


def arrays_of(neurons: Any) -> list[np.ndarray]:
    """The arrays of a network to start from, none if it is None."""
    arrays: dict[str, np.ndarray] = {}
    taken_apart(neurons, arrays, [records(*_KINDS)])
    return list(arrays.values())


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Of arrays and their names, so that a file that was changed is known."""
    digest = sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        _update(digest, arrays[name])
    return digest.hexdigest()


def _update(digest: Any, array: np.ndarray) -> None:
    digest.update(repr((array.shape, array.dtype)).encode())
    digest.update(np.ascontiguousarray(array).tobytes())


def check_checkpoint(path: object) -> None:
    """Raise a ValueError unless `path` is None, or names a file in a folder that can be written to."""
    if path is None or isinstance(path, Checkpoint):
        return
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise ValueError(f"checkpoint={path!r} must be the path of a file, such as 'run.npz', or None.")
    folder = Path(path).parent
    if Path(path).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"checkpoint={str(path)!r} must be a file in a folder that exists and can be written to.")


def _json(facts: Any) -> str:
    """JSON, with arrays as lists, and what has no JSON as its `repr` without an address."""

    def known(value: Any) -> Any:
        return value.tolist() if hasattr(value, "tolist") else sub(" at 0x[0-9A-Fa-f]+", "", repr(value))

    return json.dumps(facts, default=known)
