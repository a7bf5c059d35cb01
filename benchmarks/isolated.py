"""A call in a process of its own, which is ended when its time is up; and calls kept in a file as they end."""

import fcntl
import json
import multiprocessing
import os
from collections.abc import Callable
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.harness import plain

PRELOADED = ["benchmarks.tabular_models"]


def call(function: Callable[..., dict], arguments: tuple, limit: float) -> dict:
    """What the function returns, or an "error" where it took more than `limit` seconds or its process died."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        if not ours.poll(limit):
            return {"error": f"not done in {limit:g} s", "limit": limit}
        return ours.recv()
    except EOFError:
        process.join()
        return {"error": f"the process ended with exit code {process.exitcode}"}
    finally:
        process.kill()
        process.join()
        ours.close()


def _answer(connection: Connection, function: Callable[..., dict], arguments: tuple) -> None:
    connection.send(function(*arguments))


class Record:
    """Results by their key in a JSON file, which several processes may add to at once."""

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> dict[str, dict]:
        """All results so far."""
        return json.loads(self.path.read_text("utf-8")) if self.path.exists() else {}

    def add(self, key: str, result: dict[str, Any]) -> None:
        """Add or replace a result; a reader never sees half a file."""
        with self._locked():
            results = self.read() | {key: plain(result)}
            lines = (f"{json.dumps(name)}: {json.dumps(results[name])}" for name in sorted(results))
            draft = self.path.with_suffix(f".{os.getpid()}.tmp")
            draft.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
            draft.replace(self.path)

    @contextmanager
    def _locked(self):
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
