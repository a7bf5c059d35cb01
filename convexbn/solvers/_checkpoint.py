"""The checkpoint of a run of column generation: a file from which a killed run goes on.

The file holds the last completed round: network, counters, state of the random generator, history. All later rounds
follow from these, so a run that goes on ends in the network of one that was never stopped. Every round is written to a
draft beside the file, which then takes its place in one step: whenever the power fails, the file holds a whole round.
It is an npz of arrays and one JSON text; nothing is pickled.
"""

import json
import os
from dataclasses import astuple, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np

from convexbn._utils.damage import damage_as_value_error
from convexbn._utils.npz import read_npz, write_npz
from convexbn._utils.version import __version__
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.solvers._solution import Progress
from convexbn.solvers.relu._state import Run, State

_FORMAT = "convexbn-checkpoint-1"
_BLOCK_ENTRIES = 2**22  # of Z, that are made at once
_ROUNDING = 1e-6  # of an objective that is computed on another machine
_MADE_ANEW = ("neurons", "searched", "proof")  # by the next call of the oracle, but for the neurons, which are arrays
_ARRAYS = ("weights", "output_weights", "intercept")


@dataclass(frozen=True)
class Checkpoint:
    """A file of the last completed round, and what it must be of.

    Parameters
    ----------
    path : Path
        The file, which need not exist yet.
    fingerprint : str
        Of data and parameters; a file of another one is refused.
    """

    path: Path
    fingerprint: str

    @classmethod
    def of(cls, path: str | os.PathLike[str], problem: Problem, start: Neurons | None, parameters: list[Any]) -> Self:
        """The checkpoint of a problem, a start, and the other parameters that rounds depend on."""
        Z, loss = problem.Z, problem.loss
        facts = [__version__, loss.name, vars(loss), problem.weight_decay, problem.fit_intercept, Z.n_patches]
        digest = sha256(_json(facts + parameters).encode())
        size = max(1, _BLOCK_ENTRIES // Z.n_columns)
        blocks = (Z.rows(slice(first, min(first + size, Z.n_rows))) for first in range(0, Z.n_rows, size))
        small = [problem.y, problem.sample_weight, *(() if start is None else _arrays(start).values())]
        for array in (*small, *blocks):
            digest.update(repr((array.shape, array.dtype)).encode())
            digest.update(np.ascontiguousarray(array).data)
        return cls(Path(path), digest.hexdigest())

    def keep(self, run: Run, state: State) -> None:
        """Write a completed round; one that was cut short by the time limit is none, and changes nothing."""
        if run.monitor.out_of_time():
            return
        counters = {field.name: getattr(state, field.name) for field in fields(state) if field.name not in _MADE_ANEW}
        history = [astuple(progress) for progress in run.monitor.history]
        facts = {"format": _FORMAT, "fingerprint": self.fingerprint, "state": counters, "history": history}
        facts["random"] = run.rng.bit_generator.state
        write_npz(self.path, {"facts": _json(facts), **_arrays(state.neurons)})

    def resume(self, run: Run) -> State | None:
        """The state of the last completed round, with history and random generator as they were; None without a file.

        Raises
        ------
        ValueError
            If the file is damaged or no checkpoint, or is one of other data or parameters.
        """
        if not self.path.exists():
            return None
        name = f"checkpoint={str(self.path)!r}"
        with damage_as_value_error(f"{name} is damaged, or no checkpoint; delete it, or name another file."):
            contents = read_npz(self.path.read_bytes())
            facts = json.loads(str(contents["facts"]))
            known = facts["format"] == _FORMAT and facts["fingerprint"] == self.fingerprint
        if not known:
            raise ValueError(
                f"{name} is of other data, other parameters or another version of convexbn; go on with those that it "
                "was made with, delete it, or name another file."
            )
        with damage_as_value_error(f"{name} is damaged; delete it, or name another file."):
            history = facts["history"]
            numbers = [*facts["state"].values(), *(entry for progress in history for entry in progress)]
            if not all(isinstance(number, (int, float)) for number in numbers):
                raise ValueError("it counts what is no number")
            state = State(Neurons(*(contents[part] for part in _ARRAYS)), **facts["state"])
            if not np.isclose(run.problem.objective(state.neurons), state.objective, rtol=_ROUNDING):
                raise ValueError("the network has another objective")
            run.monitor.resume([Progress(*progress) for progress in history])
            run.rng.bit_generator.state = facts["random"]
            return state


def check_checkpoint(path: object) -> None:
    """Raise a ValueError unless `path` is None, or names a file in a folder that can be written to."""
    if path is None:
        return
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise ValueError(f"checkpoint={path!r} must be the path of a file, such as 'run.npz', or None.")
    folder = Path(path).parent
    if Path(path).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"checkpoint={str(path)!r} must be a file in a folder that exists and can be written to.")


def _arrays(neurons: Neurons) -> dict[str, np.ndarray]:
    return {name: getattr(neurons, name) for name in _ARRAYS}


def _json(facts: Any) -> str:
    """JSON, with arrays as lists, and what has no JSON as its `repr`."""
    return json.dumps(facts, default=lambda value: value.tolist() if hasattr(value, "tolist") else repr(value))
