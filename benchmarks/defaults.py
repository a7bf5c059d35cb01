"""What a first fit costs: time to the default tolerance, at 20,000 samples, with two BLAS threads, in check_estimator.

Every point is measured in a process of its own, whose BLAS and OpenMP have the number of threads that it names. The
seconds are those of `fit`, the median over three processes; of check_estimator those of all its checks, once.
"""

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits, make_friedman1, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

import convexbn
from benchmarks.harness import environment, median_of, parse_arguments, seconds_text, target, write_json
from convexbn import BatchNormDesign, Problem, weight_decay_max
from convexbn.datasets import make_teacher

ROOT = Path(__file__).parent.parent
FRACTIONS = (0.1, 0.03, 0.01)  # of the largest weight decay
SMALL = ("n = 200, d = 10", "n = 455, d = 13, discrete columns")
LARGE = "n = 20,000, d = 10"
THREADED = (SMALL[0], "n = 2,000, d = 20", "digits", LARGE)
CHECKED = (  # images are no input of check_estimator, so that the convolutions are not here
    *("ConvexBNRegressor", "ConvexBNClassifier", "ConvexBNRegressorCV", "ConvexBNClassifierCV"),
    *("ConvexBNStackRegressor", "ConvexBNStackClassifier", "GDNPClassifier", "RandomBatchNormLayers"),
)
REPEATS, REPEATS_OF_SHORT = 3, 9  # a fit of a second varies by a tenth
SAME = 1.05  # two threads against one: less is noise
LIMIT = 600.0  # seconds of a point


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Features and targets of this name."""
    if name == "digits":
        return load_digits(return_X_y=True)
    if name == SMALL[0]:
        return make_regression(200, 10, noise=20.0, random_state=0)
    if name == SMALL[1]:
        rng = np.random.default_rng(0)
        levels = np.array([2, 2, 2, 3, 3, 4, 5, 5, 7, 9, 9, 20, 100])
        X = rng.integers(levels, size=(455, 13)) / (levels - 1)
        return X, np.maximum(X @ rng.standard_normal((13, 5)), 1) @ rng.standard_normal(5) + rng.normal(0, 0.3, 455)
    n, d = (int(part.split("=")[1].replace(",", "")) for part in name.split(", "))
    return make_friedman1(n, d, noise=1.0, random_state=0) if name == LARGE else make_teacher(n, d, random_state=0)


def fit(name: str, fraction: float | None) -> dict:
    """One fit: by default, or at a fraction of the largest weight decay with nothing to choose."""
    X, y = data(name)
    model = convexbn.ConvexBNClassifier() if name == "digits" else convexbn.ConvexBNRegressor()
    if fraction is not None:
        problem = Problem(BatchNormDesign().fit_transform(X), y, weight_decay=1.0, fit_intercept=True)
        model.set_params(weight_decay=fraction * weight_decay_max(problem), spectral_power=0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.perf_counter()
        model.fit(X, y)
        seconds = time.perf_counter() - start
    missed = any(issubclass(entry.category, ConvergenceWarning) for entry in caught)
    return {"seconds": seconds, "reached": not missed, "gap": model.certificate_.gap}


def check(name: str) -> dict:
    """Every check of scikit-learn on the estimator as it is by default."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        results = check_estimator(getattr(convexbn, name)(), on_skip=None, on_fail=None)
        seconds = time.perf_counter() - start
    failed = [result["check_name"] for result in results if result["status"] == "failed"]
    return {"seconds": seconds, "failed": failed}


POINTS = {"fit": fit, "check": check}


def measured(point: list, threads: int = 1) -> dict:
    """The point in a process of its own; an "error" in the place of a result that does not come."""
    variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    command = [sys.executable, "-m", "benchmarks.defaults", "--point", json.dumps(point)]
    print(*point, f"{threads} threads" if threads > 1 else "", end=": ", flush=True)
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=os.environ | variables, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        result: dict[str, Any] = {"error": f"not done in {LIMIT:g} s"}
    else:
        lines = process.stdout.splitlines() if process.returncode == 0 else process.stderr.splitlines()
        result = json.loads(lines[-1]) if process.returncode == 0 else {"error": lines[-1][:300]}
    print(result, flush=True)
    return result


def repeated(point: list, threads: Sequence[int] = (1,), repeats: int = REPEATS) -> dict[str, dict]:
    """Medians of several processes by number of threads; these take turns, since the speed of machines drifts.

    A process that fails is not repeated.
    """
    results: dict[int, list[dict]] = {number: [] for number in threads}
    for _ in range(repeats):
        for number, found in results.items():
            if not any("error" in result for result in found):
                found.append(measured(point, number))
    return {str(number): _median(found) for number, found in results.items()}


def _median(results: list[dict]) -> dict:
    if "error" in results[-1]:
        return results[-1] | {"seconds": np.inf, "reached": False}
    return {
        "seconds": median_of([result["seconds"] for result in results]),
        "all_seconds": [result["seconds"] for result in results],
        "reached": all(result["reached"] for result in results),
        "gap": max(result["gap"] for result in results),
    }


def targets(results: dict) -> list[dict]:
    """The rows of the summary."""
    rows = []
    for name, by_fraction in results["given"].items():
        figure = ", ".join(
            f"{seconds_text(point['seconds'])} at {fraction}{'' if point['reached'] else ' (missed)'}"
            for fraction, point in by_fraction.items()
        )
        met = all(point["reached"] and point["seconds"] <= 3 for point in by_fraction.values())
        rows.append(target(f"{name}, at a fraction of the largest weight decay: `tol` reached in 3 s", figure, met))
    seconds = {name: [point["seconds"] for point in points.values()] for name, points in results["default"].items()}
    large = seconds[LARGE][0]
    rows.append(target(f"{LARGE}: a default fit in 60 s", seconds_text(large), large <= 60))
    ratios = {name: two / one if np.isfinite(one) else np.inf for name, (one, two) in seconds.items()}
    rows.append(
        target(
            f"default fits with two BLAS threads are not slower than with one (by more than {SAME - 1:.0%})",
            ", ".join(f"{ratio:.2f} times ({name})" for name, ratio in ratios.items()),
            max(ratios.values()) <= SAME,
        )
    )
    checks = results["check_estimator"]
    figure = ", ".join(
        f"{name} {point.get('error') or seconds_text(point['seconds'])}"
        + (f" (failed: {', '.join(point['failed'])})" if point.get("failed") else "")
        for name, point in checks.items()
    )
    met = all("error" not in point and point["seconds"] <= 120 and not point["failed"] for point in checks.values())
    rows.append(target("check_estimator on the defaults: all pass, in 2 minutes each", figure, met))
    return rows


def main() -> None:
    """Run one point, or all of them and write what they say."""
    if sys.argv[1:2] == ["--point"]:
        kind, *arguments = json.loads(sys.argv[2])
        print(json.dumps(POINTS[kind](*arguments)))
        return
    args = parse_arguments("defaults", __doc__)
    results = {"environment": environment(), "quick": args.quick}
    if args.quick:
        results["given"] = {SMALL[0]: {"0.5": repeated(["fit", SMALL[0], 0.5], repeats=1)["1"]}}
        results["targets"] = []
    else:
        results["given"] = {
            name: {f"{fraction:g}": repeated(["fit", name, fraction])["1"] for fraction in FRACTIONS} for name in SMALL
        }
        results["default"] = {
            name: repeated(["fit", name, None], (1, 2), REPEATS_OF_SHORT if name in THREADED[:2] else REPEATS)
            for name in THREADED
        }
        results["check_estimator"] = {name: measured(["check", name]) for name in CHECKED}
        results["targets"] = targets(results)
    write_json(args.json, results)


if __name__ == "__main__":
    main()
