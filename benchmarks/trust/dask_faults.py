"""Faults in fits on a dask cluster: Ctrl-C, a lack of memory, and workers that are killed, at random moments.

``python -m benchmarks.trust.dask_faults SEED COUNT`` starts a cluster of two processes and prints a JSON list of pairs,
case and outcome: in a process of its own, since one with threads cannot be forked.
"""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

import numpy as np
from sklearn.base import clone

from benchmarks.trust.injected import PATIENCE, fault

RNG = np.random.default_rng(0)
X = RNG.standard_normal((400, 4))
Y = np.abs(X[:, 0]) + np.cos(2 * X[:, 1]) + 0.3 * RNG.standard_normal(400)
ERRORS: dict[str, type[BaseException]] = {"KeyboardInterrupt": KeyboardInterrupt, "MemoryError": MemoryError}
KILLED = {"a killed worker": 1, "two killed workers": 2}
RTOL, ATOL = 1e-3, 1e-4  # of predictions: a block that was computed again may be rounded otherwise


def broken_dask_fits(seed: int, count: int) -> list[tuple[str, str]]:
    """Cases and outcomes of so many faults, on a cluster in a process of its own."""
    command = [sys.executable, "-m", __name__, str(seed), str(count)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=count * 3 * PATIENCE)
    except subprocess.TimeoutExpired:
        return [("fits on a dask cluster", "FAILED: they went on for minutes")]
    if ran.returncode:
        return [("fits on a dask cluster", f"FAILED: {ran.stderr[-300:]}")]
    return [(case, outcome) for case, outcome in json.loads(ran.stdout.splitlines()[-1])]


@contextmanager
def _killed(cluster: Any, count: int, seconds: float) -> Iterator[list[float]]:
    """Kill so many workers of a cluster after some seconds."""
    workers = list(cluster.workers.values())[:count]
    timers = [Timer(seconds, os.kill, (worker.pid, signal.SIGKILL)) for worker in workers]
    for timer in timers:
        timer.start()
    try:
        yield []
    finally:
        for timer in timers:
            timer.cancel()


def broken_fit(cluster: Any, model: Any, whole: Any, rng: Any) -> tuple[str, str]:
    """A fault at a random moment of a fit: the network, the best so far or an error, and then the same fit again."""
    import dask.array as da

    rows, (expected, seconds) = da.from_array(X, chunks=(100, 4)), whole
    kind, moment = [*ERRORS, *KILLED][rng.integers(len(ERRORS) + len(KILLED))], float(rng.random()) * seconds
    broken, before = clone(model), set(vars(clone(model)))
    case, outcome = f"{kind} in {type(model).__name__}", "completed"
    lost: list[Any] = []
    made = fault(ERRORS[kind], moment, lost, of_the_clock=True) if kind in ERRORS else None
    started = time.perf_counter()
    try:
        with made or _killed(cluster, KILLED[kind], moment) as fired:
            broken.fit(rows, Y)
    except BaseException as error:
        outcome = type(error).__name__
        if outcome not in (kind, "RowsLostError"):
            return case, f"FAILED: {outcome}: {str(error)[:200]}"
    if time.perf_counter() - started > seconds + PATIENCE:
        return case, f"FAILED: it went on for {time.perf_counter() - started:.0f} s"
    fitted = set(vars(broken)) != before
    if outcome == "completed":
        if fired and not lost:
            return case, f"FAILED: {kind} was forgotten"
        if not np.allclose(broken.predict(X), expected, RTOL, ATOL):
            return case, "FAILED: another network"
    elif fitted and outcome != "KeyboardInterrupt":
        return case, f"FAILED: half an estimator is left after {outcome}"
    elif fitted and not np.isfinite(broken.predict(X)).all():
        return case, "FAILED: the best network so far is not finite"
    else:
        outcome += ", with a network" if fitted else ", as before"
    cluster.wait_for_workers(2)
    if not np.allclose(clone(model).fit(rows, Y).predict(X), expected, RTOL, ATOL):
        return case, "FAILED: the same fit again gives another network"
    return case, outcome


def main() -> None:
    """Faults of a seed, one after another on the same cluster."""
    import dask.array as da
    from distributed import Client, LocalCluster

    from convexbn.dask import DaskConvexBNRegressor

    seed, count = int(sys.argv[1]), int(sys.argv[2])
    rng = np.random.default_rng(seed)
    warnings.simplefilter("ignore")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with LocalCluster(**options, silence_logs=50) as cluster, Client(cluster):
        cluster.adapt(minimum=2, maximum=2)  # which also replaces a worker that was killed while it started
        models = [DaskConvexBNRegressor(0.02, tol=1e-4, prove=False), DaskConvexBNRegressor()]
        model = models[rng.integers(len(models))]
        rows = da.from_array(X, chunks=(100, 4))
        clone(model).fit(rows, Y)
        started = time.perf_counter()
        predicted = clone(model).fit(rows, Y).predict(X)
        whole = predicted, time.perf_counter() - started
        found = [broken_fit(cluster, model, whole, rng) for _ in range(count)]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
