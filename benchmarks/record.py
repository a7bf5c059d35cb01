"""Results by their key in a JSON file, kept as they come, so that an interrupted benchmark goes on where it was."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import plain


class Record:
    """A file of results, to which several processes may add at once."""

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> dict[str, dict]:
        """All results so far."""
        return json.loads(self.path.read_text("utf-8")) if self.path.exists() else {}

    def add(self, key: str, result: dict) -> None:
        """Add a result, or replace the one of this key; a reader never sees half a file."""
        with self._locked():
            results = self.read() | {key: plain(result)}
            lines = [f"{json.dumps(name)}: {json.dumps(results[name], ensure_ascii=False)}" for name in sorted(results)]
            draft = self.path.with_suffix(f".{os.getpid()}.draft")
            draft.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
            draft.replace(self.path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
