"""Tasks on a dask cluster, and their values."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any
from uuid import uuid4

_FAN_IN = 8  # of the tree in which values are merged
_LOST = (
    "Rows on the dask cluster are lost with the worker that held them, and dask cannot compute them again. Give it "
    "collections that it can, such as those of files, and none of scattered data; or more memory, if that was short."
)
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
    with config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):  # of arrays with a row a sample
        futures: list[Any] = client.get(graph, keys, sync=False)
    return futures


def gathered(client: Any, futures: list[Any]) -> list[Any]:
    """The values of futures, which are cancelled where this is interrupted.

    Raises
    ------
    RuntimeError
        If values are lost with a worker, and cannot be computed again.
    """
    from distributed import CancelledError, KilledWorker

    try:
        values: list[Any] = client.gather(futures)
    except (CancelledError, KilledWorker) as error:
        raise RuntimeError(_LOST) from error
    except BaseException:
        client.cancel(futures)
        raise
    return values
