"""Results by their key in a JSON file, kept as they come, so that an interrupted benchmark goes on where it was."""

import argparse
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import parse_arguments, plain


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


def run_numbers(
    name: str,
    description: str | None,
    run: Callable[[int, argparse.Namespace], dict[str, Any]],
    *,
    unit: str = "seeds",
    count: int,
    steps: tuple[int, int] = (1, 1),
    **further: Any,
) -> tuple[argparse.Namespace, list[dict]]:
    """Run the numbers that the record does not hold, a step from each at once; the arguments, and what all found.

    The command line says how many, `count` unless it is given, the first, and `further` arguments with these defaults.
    The second of `steps` is that of a quick run, which is one step.
    """

    def arguments(parser: argparse.ArgumentParser) -> None:
        for argument, default in {unit: count, "first": 0, **further}.items():
            parser.add_argument(f"--{argument}", type=type(default), default=default)

    args = parse_arguments(name, description, arguments)
    record, step = Record(args.json.with_suffix(f".{unit}.json")), steps[args.quick]
    for number in range(args.first, args.first + (step if args.quick else vars(args)[unit]), step):
        if str(number) not in record.read():
            record.add(str(number), run(number, args))
    return args, list(record.read().values())
