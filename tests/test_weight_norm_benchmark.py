"""The benchmark of two-layer weight normalization counts steps, predicts them and says yes or no."""

import json
import sys

import numpy as np
import pytest

from benchmarks import weight_norm as benchmark
from convexbn.gradient.weight_norm import gram_matrices, train_weight_norm, weight_norm_start

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((5, 3)), np.array([1.0, -1.0, 1.0, -1.0, 1.0])


def test_limit_is_that_of_inputs_of_any_length():
    m = 100_000
    limit, sampled = benchmark.limit(X), gram_matrices(weight_norm_start(3, m, alpha=1.0, random_state=0), X)
    scale = np.outer(*[np.linalg.norm(X, axis=1)] * 2)
    for name in "VGH":
        error = (getattr(sampled, name) - getattr(limit, name)) / scale
        assert np.abs(error).max() < 4 * 0.5 / np.sqrt(m)


@pytest.mark.parametrize("size", [1.0, 30.0])
def test_predicted_steps_are_those_of_the_linear_recursion(size):
    kernel, residual = benchmark.limit(X).H, size * Y
    rate, error, steps = 1 / np.linalg.eigvalsh(kernel)[-1], residual, 0
    while np.mean(error**2) > benchmark.ERROR:
        error, steps = error - rate * kernel @ error, steps + 1
    assert benchmark.predicted_steps(kernel, residual) == steps > 10


def test_steps_of_a_run_are_the_first_with_the_error():
    rate = benchmark.limit(X).learning_rate(0.1)
    steps, seconds = benchmark.run(X, Y, benchmark.DIRECTIONS, rate, 1000, 100, 0)
    options = {"alpha": 0.1, "learning_rate": rate, "n_neurons": 100, "random_state": 0}
    before, there = (train_weight_norm(X, Y, n_steps=int(steps) + more, **options)[1].objective[-1] for more in (-1, 0))
    assert 2 * there / len(Y) <= benchmark.ERROR < 2 * before / len(Y)
    assert seconds > 0
    assert benchmark.run(X, Y, benchmark.DIRECTIONS, rate, int(steps) - 1, 100, 0) == (np.inf, np.inf)
    assert benchmark.run(X, Y, benchmark.WITHOUT, 1e3, 50, 100, 0) == (np.inf, np.inf)


def test_quick_benchmark_writes_results_and_picture(tmp_path, monkeypatch, pictures):
    monkeypatch.setattr(sys, "argv", ["weight_norm", "--quick", "--output", str(tmp_path)])
    benchmark.main()
    results = json.loads((tmp_path / "weight_norm.json").read_text())
    assert (results["quick"], results["targets"]) == (True, [])
    assert list(results["data"]) == ["Gaussian", "sphere", "digits"]
    axes = np.reshape(pictures["weight_norm.png"].axes, (3, 3))
    for (by_rate, bars, by_width), measured in zip(axes, results["data"].values(), strict=True):
        methods = measured["methods"]
        assert list(methods) == list(benchmark.METHODS)
        for i, row in enumerate(methods.values()):
            grid = np.array(row["steps_of_multiples"], dtype=float)
            np.testing.assert_array_equal(by_rate.lines[i].get_ydata(), grid)
            assert row["best_steps"] == np.nanmin(grid) < row["steps"]
            assert row["best_multiple"] == pytest.approx(measured["multiples"][np.nanargmin(grid)])
            assert row["steps"] == grid[measured["multiples"].index(1)]
            ratios = np.array(row["steps_over_predicted"], dtype=float)
            np.testing.assert_array_equal(by_width.lines[i].get_ydata(), ratios)
        for container, key in zip(bars.containers, benchmark.BARS, strict=True):
            assert [bar.get_height() for bar in container] == [row[key] for row in methods.values()]


def row(steps, seconds, ratios):
    return {
        "steps": 2 * steps,
        "seconds": 2 * seconds,
        "best_steps": steps,
        "best_seconds": seconds,
        "best_multiple": 2.0,
        "condition": 10.0,
        "smallest_eigenvalue": 0.1,
        "steps_over_predicted": ratios,
    }


def canned():
    """Measurements in which every statement of the summary holds."""
    methods = {benchmark.DIRECTIONS: row(5, 1.0, [1.2, 1.05]), benchmark.LENGTHS: row(7, 3.0, [0.95, 0.95])}
    return {"widths": [50, 100], "methods": methods | {benchmark.WITHOUT: row(8, 2.0, [np.inf, 1.0])}}


@pytest.mark.parametrize(
    ("unmet", "method", "key", "value"),
    [
        (0, benchmark.DIRECTIONS, "steps", 16),
        (1, benchmark.LENGTHS, "steps", np.inf),
        (0, benchmark.DIRECTIONS, "steps", 14.5),
        (2, benchmark.DIRECTIONS, "best_steps", 8),
        (3, benchmark.LENGTHS, "best_steps", np.inf),
        (4, benchmark.DIRECTIONS, "best_seconds", 1.9),
        (5, benchmark.WITHOUT, "steps_over_predicted", [1.0, 1.2]),
        (5, benchmark.LENGTHS, "steps_over_predicted", [1.0, np.inf]),
    ],
)
def test_statements_of_the_summary_are_held_against_what_was_measured(unmet, method, key, value):
    measured = canned()
    assert all(entry["met"] for entry in benchmark.targets("sphere", measured))
    measured["methods"][method][key] = value
    assert [entry["met"] for entry in benchmark.targets("sphere", measured)] == [i != unmet for i in range(6)]


def test_a_method_that_never_arrives_is_not_faster():
    assert benchmark.faster(5, np.inf)
    assert not benchmark.faster(np.inf, np.inf)


def test_widths_and_seconds_of_the_summary():
    rows = benchmark.targets("sphere", canned())
    assert rows[2]["figure"] == "5 (1 s); without 8 (2 s); at 2 and 2 times that step"
    assert rows[4]["figure"] == "1 s (directions lead) against 2 s"
    assert rows[5]["figure"] == "directions lead: from 100 on, lengths lead: from 50 on, without: from 100 on"
    measured = canned()
    measured["methods"][benchmark.WITHOUT]["steps_over_predicted"] = [1.0, np.inf]
    assert benchmark.targets("sphere", measured)[5]["figure"].endswith("without: at no width tried")
