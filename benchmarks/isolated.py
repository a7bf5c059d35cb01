"""Calls, each in a process of its own that is ended when its time is up."""

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any

PRELOADED = ["benchmarks.tabular_models"]  # imported once, not once a call


def calls(
    function: Callable[..., dict], tasks: Iterable[tuple], *, limit: float, jobs: int = 1
) -> Iterator[tuple[tuple, dict]]:
    """Each task (the arguments of a call) and what the function returned, as they end.

    The result is ``{"error": text}`` where the process died, and has "limit" besides where it took more than `limit`
    seconds. Tasks are drawn only when one of the `jobs` places is free. Leaving the loop early ends all processes.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    tasks = iter(tasks)
    running: dict[Connection, tuple[Any, tuple, float]] = {}
    try:
        while True:
            for task in islice(tasks, jobs - len(running)):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_answer, args=(theirs, function, task))
                process.start()
                theirs.close()
                running[ours] = process, task, time.monotonic() + limit
            if not running:
                return
            wait(list(running), max(0.0, min(deadline for *_, deadline in running.values()) - time.monotonic()))
            for connection, (process, task, deadline) in list(running.items()):
                result = _result(connection, process, time.monotonic() > deadline, limit)
                if result is not None:
                    _end(connection, process)
                    del running[connection]
                    yield task, result
    finally:
        for connection, (process, *_) in running.items():
            _end(connection, process)


def _answer(connection: Connection, function: Callable[..., dict], task: tuple) -> None:
    connection.send(function(*task))


def _result(connection: Connection, process: Any, overdue: bool, limit: float) -> dict | None:
    """What came from the process; None while it is at work."""
    if connection.poll():
        try:
            return connection.recv()
        except EOFError:
            process.join()
            return {"error": f"the process ended with exit code {process.exitcode}"}
    return {"error": f"not done in {limit:g} s", "limit": limit} if overdue else None


def _end(connection: Connection, process: Any) -> None:
    connection.close()
    process.kill()
    process.join()
