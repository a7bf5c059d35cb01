"""From ten thousand rows to ten million: seconds and memory of the fast preset, in memory, on disk and on dask.

Data are rows of single precision with 30 Gaussian columns; targets are those of ten hidden neurons, and noise. The
fast preset follows three weight decays. Beside it is what a user would take at that size, and when it first has the
test error of our network: SGDRegressor, MLPRegressor and HistGradientBoostingRegressor of scikit-learn, and Adam in
PyTorch with a data loader. Every run is a process of its own, on two cores, and its memory is the largest resident
size of the process and its workers. Optima of the accurate preset are compared at n = 2,000.

``--only`` runs some of the parts, and adds them to those of the result file.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.harness import caption, environment, parse_arguments, plain, pyplot, target, threads, write_json
from convexbn import BatchNormDesign, Neurons, Problem, read_rows, solve_column_generation
from convexbn._utils.threads import on_one_thread, on_threads
from convexbn.solvers.relu._fast import fast_path

D, N_TEST, SHARD = 30, 20_000, 250_000
FRACTIONS = (0.1, 0.01, 0.001)  # weight decays, relative to the largest
LARGEST, NOISE = 1.3, 0.3
PLACES = ("memory", "disk", "dask")
PEERS = ("SGDRegressor", "MLPRegressor", "HistGradientBoosting", "Adam")
PARTS = (*PLACES, "one thread", "double precision", *PEERS, "agreement")
SIZES, PEER_SIZES, THREADS_AT = (10**4, 10**5, 10**6, 10**7), (10**5, 10**6), 10**5


def shard(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and targets of a shard."""
    teacher, rng = np.random.default_rng(0), np.random.default_rng(seed)
    W, c = teacher.standard_normal((D, 10)) / np.sqrt(D), teacher.standard_normal(10)
    X = rng.standard_normal((rows, D), dtype=np.float32)
    y = np.maximum(X @ W.astype(np.float32), 0) @ c + NOISE * rng.standard_normal(rows)
    return X, y


def shards(n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The shards of n rows."""
    for i in range(-(-n // SHARD)):
        yield shard(i + 1, min(SHARD, n - i * SHARD))


def in_memory(n: int) -> tuple[np.ndarray, np.ndarray]:
    """All rows and targets."""
    X, y = np.empty((n, D), dtype=np.float32), np.empty(n)
    for i, (rows, targets) in enumerate(shards(n)):
        X[i * SHARD : i * SHARD + len(rows)], y[i * SHARD : i * SHARD + len(rows)] = rows, targets
    return X, y


def on_disk(n: int, folder: Path) -> Any:
    """The same as files of NumPy, read in blocks."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, (X, y) in enumerate(shards(n)):
        np.save(folder / f"X-{i:04}.npy", X)
        np.save(folder / f"y-{i:04}.npy", y)
    return read_rows(folder)


def on_dask(n: int, client: Any) -> tuple[Any, np.ndarray]:
    """The rows as an array of dask in about eight blocks or more, made where they stay; and the targets."""
    from dask import array, delayed

    size = min(SHARD, -(-n // 8))
    parts = [(i, start, min(size, n - start)) for i, start in enumerate(range(0, n, size))]
    made = [delayed(shard)(i + 1, rows) for i, _, rows in parts]
    X = array.concatenate(
        [array.from_delayed(made[i][0], (rows, D), dtype=np.float32) for i, _, rows in parts]
    ).persist()
    return X, np.concatenate(client.gather(client.compute([part[1] for part in made])))


def problem_of(X: Any, y: np.ndarray) -> tuple[BatchNormDesign, Problem]:
    """Design and training problem of rows in memory or in blocks."""
    design = BatchNormDesign().fit(X)
    return design, Problem(design.matrix(X), y, weight_decay=LARGEST, fit_intercept=True)


def dask_problem(client: Any, X: Any, y: np.ndarray) -> tuple[BatchNormDesign, Problem]:
    """Design and training problem of rows on workers."""
    from convexbn.dask._rows import WorkerRows

    rows = WorkerRows.of(client, X)
    design = rows.learned(BatchNormDesign())
    return design, Problem(rows.matrix(design), y, weight_decay=LARGEST, fit_intercept=True)


@on_one_thread
def follow(problem: Problem) -> Neurons:
    """The network at the end of the path."""
    *_, neurons = fast_path(problem, LARGEST * np.array(FRACTIONS), random_state=0)
    return neurons


def test_error(predict: Callable[[np.ndarray], np.ndarray]) -> float:
    """Root mean square error on other rows, over the standard deviation of their targets."""
    X, y = shard(0, N_TEST)
    return float(np.sqrt(np.mean((predict(X) - y) ** 2)) / y.std())


def ours(made: Callable[[], tuple[BatchNormDesign, Problem]], n_jobs: int = 2) -> dict[str, Any]:
    """Seconds of design and training, objective and test error."""
    start = perf_counter()
    with on_threads(n_jobs):
        design, problem = made()
        prepared = perf_counter() - start
        neurons = follow(problem)
    seconds = perf_counter() - start
    error = test_error(lambda X: neurons.outputs(design.matrix(X))[:, 0])
    objective = problem.objective(neurons)
    return {
        "seconds": seconds,
        "design_seconds": prepared,
        "objective": objective,
        "n_neurons": len(neurons),
        "error": error,
    }


def run_part(part: str, n: int, limit: float) -> dict[str, Any]:
    """One part, in this process."""
    if part in PEERS:
        return peer(part, n, limit)
    if part == "dask":
        from dask.distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            X, y = on_dask(n, client)
            client.wait_for_workers(2)
            return ours(lambda: dask_problem(client, X, y), n_jobs=1)
    if part == "disk":
        with tempfile.TemporaryDirectory() as folder:
            source = on_disk(n, Path(folder))
            return ours(lambda: problem_of(source, source.y))
    X, y = in_memory(n)
    X = X.astype(np.float64) if part == "double precision" else X
    return ours(lambda: problem_of(X, y), n_jobs=1 if part == "one thread" else 2)


def peer(name: str, n: int, limit: float) -> dict[str, Any]:
    """Test errors of a peer over the seconds it trained, to the end of an epoch after `limit`: where they fell."""
    X, y = in_memory(n)
    scale = y.std()
    curve: list[tuple[float, float]] = []
    if name == "HistGradientBoosting":
        from sklearn.ensemble import HistGradientBoostingRegressor

        start = perf_counter()
        model = HistGradientBoostingRegressor(random_state=0).fit(X, y)
        return {"curve": [(perf_counter() - start, test_error(model.predict))]}
    step, predict = _incremental(name, X, y / scale)
    spent = 0.0
    while spent < limit:
        start = perf_counter()
        step()
        spent += perf_counter() - start
        curve.append((spent, test_error(lambda X: scale * predict(X))))
    return {"curve": where_it_fell(curve)}


def where_it_fell(curve: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points, of seconds and an error, whose error is less than all before, and the last one."""
    lowest = np.minimum.accumulate([np.inf, *(error for _, error in curve)])
    fell = [point for point, before in zip(curve, lowest, strict=False) if point[1] < before]
    return fell if fell[-1] is curve[-1] else [*fell, curve[-1]]


def _incremental(
    name: str, X: np.ndarray, y: np.ndarray
) -> tuple[Callable[[], Any], Callable[[np.ndarray], np.ndarray]]:
    """A fifth of an epoch of a model, and its predictions."""
    rng = np.random.default_rng(0)
    if name == "Adam":
        return _adam(X, y)
    from sklearn.linear_model import SGDRegressor
    from sklearn.neural_network import MLPRegressor

    model = {"SGDRegressor": SGDRegressor, "MLPRegressor": MLPRegressor}[name](random_state=0)

    def step() -> None:
        rows = rng.choice(len(X), len(X) // 5, replace=False)
        model.partial_fit(X[rows], y[rows])

    return step, model.predict


def _adam(X: np.ndarray, y: np.ndarray) -> tuple[Callable[[], Any], Callable[[np.ndarray], np.ndarray]]:
    """Adam at its usual learning rate, on a network of 100 neurons and batches of 1,000 of a data loader."""
    import torch
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

    torch.manual_seed(0)
    torch.set_num_threads(2)
    network = torch.nn.Sequential(
        torch.nn.Linear(D, 100), torch.nn.BatchNorm1d(100), torch.nn.ReLU(), torch.nn.Linear(100, 1)
    )
    data = TensorDataset(torch.from_numpy(X), torch.from_numpy(y.astype(np.float32))[:, None])
    batches = BatchSampler(RandomSampler(data), 1000, drop_last=True)
    loader = DataLoader(data, sampler=batches, batch_size=None)
    optimiser = torch.optim.Adam(network.parameters())

    def step() -> None:
        network.train()
        for i, (rows, targets) in enumerate(loader):
            if i == len(batches) // 5:
                break
            optimiser.zero_grad()
            torch.nn.functional.mse_loss(network(rows), targets).backward()
            optimiser.step()

    def predict(X: np.ndarray) -> np.ndarray:
        network.eval()
        with torch.no_grad():
            return network(torch.from_numpy(X))[:, 0].numpy()

    return step, predict


def agreement(n: int) -> dict[str, Any]:
    """Objectives of the accurate preset on the same rows in each place, and whether two runs are bit-equal."""
    from dask.distributed import Client, LocalCluster

    X, y = in_memory(n)
    found: dict[str, Any] = {}

    def solved(made: Callable[[], tuple[BatchNormDesign, Problem]]) -> tuple[float, bool]:
        one, other = (
            solve_column_generation(made()[1], tol=1e-6, prove=False, random_state=0, max_iter=30) for _ in range(2)
        )
        equal = np.array_equal(one.neurons.weights, other.neurons.weights)
        return float(one.certificate.objective), bool(equal)

    found["memory"] = solved(lambda: problem_of(X, y))
    with tempfile.TemporaryDirectory() as folder:
        on_disk(n, Path(folder))
        source = read_rows(folder, block_bytes=4 * D * 300)
        found["disk"] = solved(lambda: problem_of(source, y))
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        from dask import array

        rows = array.from_array(X, chunks=(-(-n // 5), -1)).persist()
        found["dask"] = solved(lambda: dask_problem(client, rows, y))
    return found


def measured(part: str, n: int, limit: float) -> dict[str, Any]:
    """One part in a process of its own, with its peak memory."""
    command = [sys.executable, "-m", "benchmarks.scale", "--part", part, "--n", str(n), "--limit", str(limit)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20 * limit, check=False)
    except subprocess.TimeoutExpired:
        return {"part": part, "n": n, "error": f"not done in {20 * limit:g} s"}
    if done.returncode:
        return {"part": part, "n": n, "error": done.stderr.strip().splitlines()[-1]}
    return {"part": part, "n": n, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Run all parts, or one of them in this process."""
    if "--part" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--part")
        parser.add_argument("--n", type=int)
        parser.add_argument("--limit", type=float)
        one = parser.parse_args()
        with threads(2):
            row = agreement(one.n) if one.part == "agreement" else run_part(one.part, one.n, one.limit)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        workers = 2 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss if one.part == "dask" else 0
        print(json.dumps(plain(row | {"gibibytes": (peak + workers) / 2**20})))
        return

    def extra(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
        parser.add_argument("--largest", type=int, default=SIZES[-1], help="most rows")
        parser.add_argument("--limit", type=float, default=120.0, help="seconds that a peer trains")

    args = parse_arguments("scale", __doc__, extra)
    sizes = (2000, 4000) if args.quick else tuple(n for n in SIZES if n <= args.largest)
    earlier = json.loads(args.json.read_text("utf-8"))["rows"] if args.json.exists() else []
    rows = [row for row in earlier if row["part"] not in args.only]
    for part, n in _plan(args.only, sizes, args.quick):
        row = measured(part, n, 2.0 if args.quick else args.limit)
        print({name: value for name, value in row.items() if name != "curve"}, flush=True)
        rows.append(row)
        results = {"environment": environment(["dask", "torch"]), "quick": args.quick, "rows": rows}
        written = write_json(args.json, results | {"targets": targets(rows)})
    draw(written, args.png)


def _plan(only: tuple[str, ...], sizes: tuple[int, ...], quick: bool) -> Iterator[tuple[str, int]]:
    """Parts and sizes, the small ones first."""
    at = {
        "one thread": sizes[:1] if quick else (THREADS_AT,),
        "double precision": sizes[-1:] if quick else (10**6,),
        "agreement": (300 if quick else 2000,),
    }
    peers_at = sizes if quick else PEER_SIZES
    for n in sorted({*sizes, *peers_at, *(size for group in at.values() for size in group)}):
        for part in only:
            if n in at.get(part, peers_at if part in PEERS else sizes):
                yield part, n


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was to be shown, the figure, and whether it was."""
    done = {(row["part"], row["n"]): row for row in rows if "error" not in row or isinstance(row["error"], float)}
    found = []
    for place in PLACES:
        runs = [(n, row) for (part, n), row in sorted(done.items()) if part == place and "seconds" in row]
        if len(runs) > 1:
            large = [(n, row) for n, row in runs if n >= 10**5] or runs
            large = large if len(large) > 1 else runs
            logs = np.log([[n, row["seconds"]] for n, row in large])
            exponent = float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
            text = ", ".join(f"n = {n:.0e}: {row['seconds']:.3g} s, {row['gibibytes']:.2g} GiB" for n, row in runs)
            statement = f"fast preset, rows {_where(place)}: linear in n or better"
            found.append(target(statement, f"exponent {exponent:.2f}; {text}", exponent <= 1.05))
    n = max((n for part, n in done if part == "dask" and ("memory", n) in done and n <= 10**6), default=None)
    if n is not None:
        overhead = done["dask", n]["seconds"] / done["memory", n]["seconds"]
        found.append(
            target(f"dask at n = {n:.0e} within 1.5 times of memory", f"{overhead:.2f} times", overhead <= 1.5)
        )
    for part, label, most in (("one thread", "two threads 1.6 times as fast as one", 1.6), ("double precision", "", 0)):
        for (name, n), row in done.items():
            other = done.get(("memory", n))
            if name != part or other is None:
                continue
            if part == "one thread":
                gain = row["seconds"] / other["seconds"]
                found.append(target(f"{label} at n = {n:.0e}", f"{gain:.2f} times", gain >= most))
            else:
                share = other["gibibytes"] / row["gibibytes"]
                text = f"{other['gibibytes']:.2f} GiB beside {row['gibibytes']:.2f} at n = {n:.0e}"
                found.append(target("single precision takes half the memory of double", f"{text}, {share:.2f}", None))
    for (part, n), row in sorted(done.items(), key=lambda item: (item[0][1], PARTS.index(item[0][0]))):
        if part in PEERS and ("memory", n) in done:
            found.append(_beside(part, n, row["curve"], done["memory", n]))
    for (part, _), row in done.items():
        if part == "agreement":
            objectives = [row[place][0] for place in PLACES]
            spread = (max(objectives) - min(objectives)) / min(objectives)
            equal = all(row[place][1] for place in PLACES)
            text = f"{spread:.1e} apart, two runs bit-equal: {'yes' if equal else 'no'}"
            found.append(target("objective in memory = on disk = on dask to 1e-6", text, spread <= 1e-6 and equal))
    return found


def _where(place: str) -> str:
    return {"memory": "in memory", "disk": "on disk", "dask": "on two workers of dask"}[place]


def _beside(part: str, n: int, curve: list, ours: dict[str, Any]) -> dict[str, Any]:
    """When a peer first has our test error."""
    reached = next((seconds for seconds, error in curve if error <= ours["error"]), None)
    best = min(error for _, error in curve)
    figure = f"ours {ours['error']:.4f} in {ours['seconds']:.3g} s; "
    figure += (
        f"{part} in {reached:.3g} s" if reached is not None else f"{part} {best:.4f} at best in {curve[-1][0]:.3g} s"
    )
    sooner = reached is None or reached >= ours["seconds"]
    return target(f"test error of ours sooner than by {part}, n = {n:.0e}", figure, sooner)


def draw(results: dict[str, Any], path: Path) -> None:
    """Seconds and memory over rows."""
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for place in PLACES:
        runs = sorted((row["n"], row) for row in results["rows"] if row["part"] == place and "seconds" in row)
        for axis, name in zip(axes, ("seconds", "gibibytes"), strict=True):
            axis.loglog([n for n, _ in runs], [row[name] for _, row in runs], "o-", label=_where(place))
    for axis, label in zip(axes, ("seconds of the fast preset", "peak memory, GiB"), strict=True):
        axis.set(xlabel="rows n", ylabel=label)
        axis.grid(alpha=0.3)
        axis.yaxis.set_major_formatter("{x:g}")
    memory = [row["gibibytes"] for row in results["rows"] if row["part"] in PLACES and "gibibytes" in row]
    powers = np.arange(np.floor(np.log2(min(memory))), np.log2(max(memory)) + 1)
    axes[1].set_yticks(2.0**powers)
    axes[1].yaxis.set_minor_locator(plt.NullLocator())
    axes[0].legend()
    machine = results["environment"]
    caption(figure, f"{machine['cpu']}, {machine['cores']} cores, {machine['date'][:10]}.")
    figure.savefig(path)
    print(f"Drew {path}")


if __name__ == "__main__":
    main()
