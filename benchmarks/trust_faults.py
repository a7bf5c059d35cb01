"""Does a fault at any moment leave the best network so far, or a clear error, and every file whole?

Ctrl-C, MemoryError, a full disk and signals fall at random moments into fits, searches, paths, saves, checkpointed runs
and the stages of the benchmark on CIFAR-10; workers of a dask cluster are killed. After Ctrl-C an estimator is as
before or has a network that predicts, and KeyboardInterrupt is raised, so that a search around it ends; after a
MemoryError it is as before. A file has its former contents or the new ones, and no draft is left. Settings of the
process are as before, and the same call again gives the same result.
"""

import gc
import os
import resource
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_info

import convexbn as cb
from benchmarks.harness import environment, target, write_json
from benchmarks.record import run_numbers
from benchmarks.trust.dask_faults import broken_dask_fits
from benchmarks.trust.injected import PATIENCE, fault, full_after, one_torch_thread
from benchmarks.trust.stage_faults import broken_stage
from convexbn.gradient import train

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 4))
Y = np.abs(X[:, 0]) + np.cos(2 * X[:, 1]) + 0.3 * RNG.standard_normal(40)
LABELS = np.array(["no", "yes"])[(np.median(Y) < Y).astype(int)]
IMAGES = RNG.standard_normal((12, 1, 5, 5))
TRIALS, DASK_TRIALS = 14, 2  # of a seed


@dataclass(frozen=True)
class Subject:
    """What faults fall into.

    Parameters
    ----------
    run : callable
        Makes it anew, and returns the numbers that it comes to.
    estimator : estimator or None, default=None
        Fitted by ``run(estimator)``.
    """

    run: Callable[..., np.ndarray]
    estimator: Any = None
    data: np.ndarray | None = None


def _fit(model: Any, data: np.ndarray, targets: Any) -> Subject:
    return Subject(lambda model: model.fit(data, targets).predict(data), model, data)


@cache
def subjects() -> dict[str, Subject]:
    """Everything that faults fall into, by name."""
    tight = {"tol": 1e-6, "prove": False}
    regressor, problem = cb.ConvexBNRegressor(0.02, **tight), _problem()
    patterns = cb.sample_patterns(problem.Z, 30, random_state=0)
    conv_gated = cb.ConvexBNConvRegressor(0.02, kernel_size=2, activation="gated_relu")
    by_gradient = {"weight_decay": 0.02, "n_steps": 200, "n_neurons": 5, "random_state": 0}
    few = {"n_weight_decays": 3, "cv": 2, "spectral_power": (0.0,), "tol": 1e-3}
    stages = cb.ConvexBNStackRegressor(cb.ConvexBNRegressor(0.05, tol=1e-3, prove=False), n_stages=2)
    grid = GridSearchCV(
        cb.ConvexBNRegressor(tol=1e-3, prove=False), {"weight_decay": [0.1, 0.05]}, cv=2, error_score="raise"
    )
    return {
        "regressor": _fit(regressor, X, Y),
        "choice": _fit(cb.ConvexBNRegressor(n_components=2, tol=1e-2), X, Y),
        "classifier": _fit(cb.ConvexBNClassifier(0.02, **tight), X, LABELS),
        "gated": _fit(cb.ConvexBNRegressor(0.02, activation="gated_relu", tol=1e-6), X, Y),
        "after the ReLU": _fit(cb.ConvexBNRegressor(0.02, normalization="batch_after_relu", **tight), X, Y),
        "convolution": _fit(cb.ConvexBNConvRegressor(0.02, kernel_size=2, **tight), IMAGES, Y[:12]),
        "gated convolution": _fit(conv_gated, IMAGES, Y[:12]),
        "CV": _fit(cb.ConvexBNRegressorCV(**few), X, Y),
        "stack": _fit(stages, X, Y),
        "halfspace": _fit(cb.GDNPClassifier(max_iter=300, tol=1e-9, max_length=5.0), X, LABELS),
        "GridSearchCV": _fit(grid, X, Y),
        "path": Subject(lambda: np.array([n.predict(X) for n in cb.convexbn_path(X, Y, n_weight_decays=4).networks])),
        "solve": Subject(lambda: cb.solve(problem, random_state=0).neurons.outputs(problem.Z)),
        "solve_gated": Subject(lambda: cb.solve_gated(problem, patterns).neurons.outputs(problem.Z)),
        "solve_reference": Subject(lambda: cb.solve_reference(problem, patterns).neurons.outputs(problem.Z)),
        "gradient": Subject(lambda: train(X, Y, **by_gradient)[0].predict(X)),
    }  # fmt: skip


def _problem() -> cb.Problem:
    return cb.Problem(cb.BatchNormDesign().fit_transform(X), Y, weight_decay=0.02, fit_intercept=True)


def _settings() -> Any:
    """What a call must leave as it was, of the process."""
    threads = tuple(pool["num_threads"] for pool in threadpool_info())
    signals = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    return np.geterr(), list(warnings.filters), sklearn.get_config(), threads, signals, os.environ.copy()


@cache
def _whole(name: str) -> tuple[np.ndarray, float]:
    """What a subject comes to without a fault, and its CPU seconds."""
    subject = subjects()[name]
    _run(subject)
    start = time.process_time()
    result, _ = _run(subject)
    return result, time.process_time() - start


def _run(subject: Subject, model: Any = None) -> tuple[np.ndarray, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if subject.estimator is None:
            return subject.run(), None
        model = clone(subject.estimator) if model is None else model
        return subject.run(model), model


def _same(result: np.ndarray, expected: np.ndarray) -> bool:
    """Whether numbers are close, or labels equal."""
    return bool(np.allclose(result, expected) if expected.dtype.kind == "f" else np.array_equal(result, expected))


def raised_within(name: str, kind: type[BaseException], share: float) -> str:
    """Raise an error at a share of the CPU time of a subject, and say how that ended."""
    subject, (expected, whole) = subjects()[name], _whole(name)
    model = None if subject.estimator is None else clone(subject.estimator)
    settings, before = _settings(), None if model is None else set(vars(model))
    lost: list[Any] = []
    outcome, result = "completed", None
    warnings_before = list(warnings.filters)
    gc.disable()  # an exception in a callback of the collector is lost in Python itself
    with fault(kind, share * whole, lost) as fired:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = subject.run() if model is None else subject.run(model)
        except BaseException as error:
            outcome = type(error).__name__
            passed_on = kind is MemoryError and isinstance(error.__cause__, kind)  # as np.linalg.norm does
            if not (isinstance(error, kind) or passed_on):
                outcome = f"FAILED: {type(error).__name__}: {str(error)[:120]}"
        ended = time.process_time()
    gc.enable()
    warnings.filters[:] = warnings_before if not fired else warnings.filters
    if outcome.startswith("FAILED"):
        return outcome
    if not fired or (lost and outcome == "completed"):
        return "too late" if not fired else "lost by Python"
    if ended - fired[0] > PATIENCE:
        return "FAILED: it went on for a minute"
    if _settings() != settings:
        return f"FAILED: settings of the process were changed ({outcome})"
    if outcome == "completed":
        interruptible = name in ("solve", "solve_gated", "gradient", "path", "solve_reference")
        if kind is KeyboardInterrupt and interruptible:
            if result is None or not np.isfinite(result).all():
                return "FAILED: the best network so far is not finite"
            outcome = "best so far"
        elif result is not None and _same(result, expected):
            outcome = "completed after the fault"  # it fell into the prediction, say
            if model is not None and kind is KeyboardInterrupt:
                return "FAILED: Ctrl-C was forgotten"
        else:
            return f"FAILED: {kind.__name__} was swallowed"
    elif model is not None and name != "GridSearchCV":  # which is not ours
        if set(vars(model)) == before:
            outcome += ", as before"
        else:  # it is the best so far, or the fault fell into the prediction
            predicted = model.predict(subject.data)
            if kind is not KeyboardInterrupt and not (predicted == expected).all():
                return "FAILED: half an estimator is left"
            if predicted.dtype.kind == "f" and not np.isfinite(predicted).all():
                return "FAILED: the best network so far is not finite"
            outcome += ", with a network"
    again, _ = _run(subject)
    if again.shape != expected.shape or not (again == expected).all():
        return "FAILED: the same call again gives another result"
    return outcome


def broken_call(rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    """Ctrl-C or a lack of memory at a random moment of one of the subjects: the case and how it ended."""
    kind = [KeyboardInterrupt, MemoryError][int(rng.integers(2))]
    name = list(subjects())[rng.integers(len(subjects()))]
    return f"{kind.__name__} in {name}", raised_within(name, kind, float(rng.random()))


def full_disk(rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    """Save, or keep a checkpoint, where the disk is full after some bytes: the name of the case and how it ended."""
    network = cb.BatchNormNetwork.at_initialization(X, 20, n_outputs=1, random_state=0)
    model = _saved_model()
    problem = _problem()

    def checkpointed(path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cb.solve_column_generation(problem, prove=False, random_state=0, checkpoint=path)

    cases: dict[str, tuple[str, Callable[[Path], Any], Callable[[Path], Any]]] = {
        "network.npz": (".npz", network.save, cb.BatchNormNetwork.load),
        "network.json": (".json", network.save, cb.BatchNormNetwork.load),
        "estimator": (".npz", model.save, cb.ConvexBNRegressor.load),
        "checkpoint": ("", checkpointed, checkpointed),
    }
    name = list(cases)[rng.integers(len(cases))]
    ending, write, read = cases[name]
    path = folder / f"file{ending}"
    write(path)
    size, former = path.stat().st_size, path.read_bytes()
    existed = bool(rng.integers(2))
    if not existed:
        path.unlink()
    try:
        with full_after(int(rng.integers(0, int(1.2 * size)))):
            write(path)
        outcome = "written"
    except OSError as error:
        outcome = "OSError" if str(path) in str(error) else f"FAILED: OSError without the file: {error}"
    except BaseException as error:
        outcome = f"FAILED: {type(error).__name__}: {error}"
    others = [entry.name for entry in folder.iterdir() if entry != path]
    if others:
        outcome = f"FAILED: {others} were left"
        for other in others:
            (folder / other).unlink()
    if path.exists() and not outcome.startswith("FAILED"):
        if name != "checkpoint" and outcome == "OSError" and not existed:
            outcome = "FAILED: a file was left"
        elif name != "checkpoint" and outcome == "OSError" and path.read_bytes() != former:
            outcome = "FAILED: the file was changed"
        else:
            read(path)
    path.unlink(missing_ok=True)
    return name, outcome


def interrupted_save(rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    """Ctrl-C while a file is replaced: it is the former one or the new one."""
    network = cb.BatchNormNetwork.at_initialization(X, 2000, n_outputs=1, random_state=0)
    other = cb.BatchNormNetwork.at_initialization(X, 2000, n_outputs=1, random_state=1)
    ending = [".npz", ".json"][rng.integers(2)]
    path = folder / f"file{ending}"
    other.save(path)
    former = path.read_bytes()
    start = time.process_time()
    network.save(path)
    seconds, new = time.process_time() - start, path.read_bytes()
    other.save(path)
    lost: list[Any] = []
    try:
        with fault(KeyboardInterrupt, float(rng.random()) * seconds, lost) as fired:
            network.save(path)
    except KeyboardInterrupt:
        pass
    loaded = cb.BatchNormNetwork.load(path)
    whole = any(np.array_equal(loaded.weights, one.weights) for one in (network, other))
    outcome = "too late" if not fired else "whole" if whole else "FAILED: neither the former nor the new file"
    del former, new
    others = [entry.name for entry in folder.iterdir() if entry != path]
    if others and not lost:
        outcome = f"FAILED: {others} were left"
    for entry in folder.iterdir():
        entry.unlink()
    return f"save {ending}", outcome


@cache
def _saved_model() -> Any:
    return cb.ConvexBNRegressor(0.05, tol=1e-2).fit(X, Y)


def killed(rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    """Send a signal to a run with a checkpoint, in a process of its own; the next run ends in the same network."""
    path, problem = folder / "run", _problem()
    options = {"prove": False, "tol": 1e-8, "random_state": 0, "checkpoint": path}
    sent = [signal.SIGTERM, signal.SIGINT, signal.SIGKILL][rng.integers(3)]

    def solved() -> cb.Solution:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cb.solve_column_generation(problem, **options)

    start = time.perf_counter()
    whole = solved()
    seconds = time.perf_counter() - start
    path.unlink()
    child = os.fork()
    if child == 0:
        try:
            solved()
            os._exit(0)
        except KeyboardInterrupt:
            os._exit(0)
        except BaseException:
            os._exit(3)
    time.sleep(float(rng.random()) * seconds)
    os.kill(child, sent)
    _, status = os.waitpid(child, 0)
    ended = os.WTERMSIG(status) == sent if os.WIFSIGNALED(status) else os.WEXITSTATUS(status) == 0
    name = f"{sent.name} in a run with a checkpoint"
    if not ended:
        return name, f"FAILED: it ended with status {status}"
    resumed = solved()
    same = np.array_equal(whole.neurons.weights, resumed.neurons.weights) and whole.n_iter == resumed.n_iter
    left = [entry.name for entry in folder.iterdir() if entry != path]
    for entry in folder.iterdir():
        entry.unlink()
    if not same:
        return name, "FAILED: the run that went on ended in another network"
    return name, f"FAILED: {left} were left" if left else "the same network"


def out_of_memory(rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    """Fit with a limit of the memory, in a process of its own: it ends with the same result, or a MemoryError."""
    names = ["regressor", "classifier", "gated", "CV", "stack", "convolution", "solve_gated", "path"]
    name = names[rng.integers(len(names))]
    expected, _ = _whole(name)
    child = os.fork()
    if child == 0:
        try:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            limit = used + int(rng.integers(0, 24 * 2**20))
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            result, _ = _run(subjects()[name])
            os._exit(0 if (result == expected).all() else 4)
        except MemoryError:
            os._exit(1)
        except BaseException as error:
            resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[1],) * 2)
            (folder / "error").write_text(f"{type(error).__name__}: {str(error)[:150]}")
            os._exit(3)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"memory, {name}", f"FAILED: it was ended by signal {os.WTERMSIG(status)}"
    outcomes = {0: "the same result", 1: "MemoryError", 4: "FAILED: another result"}
    code = os.WEXITSTATUS(status)
    error = (folder / "error").read_text() if code == 3 and (folder / "error").exists() else ""
    (folder / "error").unlink(missing_ok=True)
    return f"memory, {name}", outcomes.get(code, f"FAILED: {error}")


def run_seed(number: int, trials: int = TRIALS, dask_trials: int = DASK_TRIALS) -> dict[str, Any]:
    """Counts of outcomes of the faults that are drawn with this seed, and the failures."""
    one_torch_thread()
    rng = np.random.default_rng(number)
    outcomes: Counter[str] = Counter()
    failures: dict[str, str] = {}
    acts = [full_disk, interrupted_save, killed, out_of_memory, broken_stage]
    found = broken_dask_fits(number, dask_trials)
    with tempfile.TemporaryDirectory() as made:
        for _ in range(trials):
            act = acts[which] if (which := rng.integers(2 * len(acts))) < len(acts) else broken_call
            found.append(act(rng, Path(made)))
    for trial, (case, outcome) in enumerate(found):
        outcomes[f"{case}: {outcome.partition(':')[0]}"] += 1
        if outcome.startswith("FAILED"):
            failures[f"seed {number}, trial {trial}, {case}"] = outcome
            print(f"seed {number}, trial {trial}, {case}: {outcome}", flush=True)
    return {"trials": len(found), "outcomes": dict(outcomes), "failures": failures}


def main() -> None:
    """Run the seeds that are not done yet, each kept as it comes, and write the counts."""
    args, done = run_numbers(
        "trust_faults", __doc__, lambda number, args: run_seed(number, *((10, 1) if args.quick else ())), count=60
    )
    outcomes = sum((Counter(found["outcomes"]) for found in done), Counter())
    failures = {case: outcome for found in done for case, outcome in found["failures"].items()}
    results = {"seeds": len(done), "trials": sum(outcomes.values()), "outcomes": dict(sorted(outcomes.items()))}
    statement = "Ctrl-C, signals, no memory, a full disk at any moment: the best network or an error, whole files"
    figure = f"{len(failures)} failures in {results['trials']:,} trials"
    results |= {"failures": failures, "targets": [target(statement, figure, not failures)]}
    write_json(args.json, {"environment": environment(), "quick": args.quick, **results})


if __name__ == "__main__":
    main()
