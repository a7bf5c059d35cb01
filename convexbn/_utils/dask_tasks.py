"""Tasks on a dask cluster, and their values."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from typing import Any
from uuid import uuid4

from convexbn._utils.rows_lost import RowsLostError

_FAN_IN = 8  # of the tree in which values are merged
_name, _number = f"convexbn-{uuid4().hex[:8]}", count()


def submit(client: Any, tasks: Sequence[tuple[Any, ...]], merge: Callable[..., Any] | None = None) -> list[Any]:
    """Futures of tasks (function, *arguments), or the one of all their values merged, in a tree of a fixed order.

    Arguments are parts of the tasks, or futures, so that dask can compute everything again if a worker is lost.

    Parameters
    ----------
    client : distributed.Client
    tasks : sequence of tuple
    merge : callable or None, default=None
        Function of up to eight values.
    """
    from dask import config

    if not tasks:
        return []
    name = f"{_name}-{next(_number)}"
    graph: dict[str, tuple[Any, ...]] = {f"{name}-0-{i}": task for i, task in enumerate(tasks)}
    keys, level = list(graph), 0
    while merge is not None and len(keys) > 1:
        level += 1
        groups = [keys[start : start + _FAN_IN] for start in range(0, len(keys), _FAN_IN)]
        keys = [f"{name}-{level}-{i}" for i in range(len(groups))]
        graph |= {key: (merge, *group) for key, group in zip(keys, groups, strict=True)}
    limit = {"distributed.admin.large-graph-warning-threshold": "1TB"}  # of arrays with a row a sample
    with _clear_errors(client), config.set(limit):
        futures: list[Any] = client.get(graph, keys, sync=False)
    return futures


def values(client: Any, tasks: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The values of tasks (function, *arguments), in their order.

    One message asks all workers for the tasks whose futures they hold, outside of the scheduler's queue, which takes a
    fifth of the time. If any task is left, as its futures are on different workers or lost with one, all are submitted.

    Raises
    ------
    RowsLostError
        If values are lost with a worker or the cluster, and cannot be computed again.
    """
    from distributed import Future, wait

    named = [tuple(_Key(part.key) if isinstance(part, Future) else part for part in task) for task in tasks]
    pending = [part for task in tasks for part in task if isinstance(part, Future) and not part.done()]
    with _clear_errors(client):
        if pending:
            with client.as_current():
                wait(pending)
        found = dict(chain.from_iterable(client.run(_held_here, named, on_error="ignore").values()))
    if len(found) < len(tasks):
        return gathered(client, submit(client, tasks))
    return [found[i] for i in range(len(tasks))]


@dataclass(frozen=True)
class _Key:
    """The place of a future's value in a task."""

    key: Any


async def _held_here(tasks: list[tuple[Any, ...]], dask_worker: Any) -> list[tuple[int, Any]]:
    """Number and value of each task whose futures a worker holds."""
    data = dask_worker.data
    mine = [i for i, task in enumerate(tasks) if all(part.key in data for part in task if isinstance(part, _Key))]
    run = [asyncio.to_thread(*(data[part.key] if isinstance(part, _Key) else part for part in tasks[i])) for i in mine]
    return list(zip(mine, await asyncio.gather(*run), strict=True))


def gathered(client: Any, futures: list[Any]) -> list[Any]:
    """The values of futures, which are cancelled where this is interrupted.

    Raises
    ------
    RowsLostError
        If values are lost with a worker or the cluster, and cannot be computed again.
    """
    try:
        with _clear_errors(client):
            found: list[Any] = client.gather(futures)
    except KeyboardInterrupt:
        client.cancel(futures)
        raise
    return found


@contextmanager
def _clear_errors(client: Any) -> Iterator[None]:
    """Raise a `RowsLostError` where dask says that values are lost, or the cluster is gone."""
    from distributed import CancelledError, KilledWorker

    try:
        yield
    except Exception as error:
        if isinstance(error, (CancelledError, KilledWorker, OSError)) or client.status != "running":
            raise RowsLostError from error
        raise
