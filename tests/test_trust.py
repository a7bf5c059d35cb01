"""Certificates under attack: a short campaign, and bounds in exact rational arithmetic."""

import json
import warnings
from fractions import Fraction

import numpy as np
import pytest

from benchmarks.trust.__main__ import run
from benchmarks.trust.cases import Case
from benchmarks.trust.rivals import descended
from convexbn import BatchNormDesign, Problem, WeightNormDesign, solve, weight_decay_max
from tests.exact import dual_bound, objective_below

EXACT_LOSSES = ("squared_error", "huber", "squared_hinge")


def tiny(seed):
    """A problem of up to six rows and two columns, with the troubles of floating point."""
    rng = np.random.default_rng(seed)
    n, loss = int(rng.integers(3, 7)), EXACT_LOSSES[seed % 3]
    X = rng.standard_normal((n, 1))
    X = [X, np.round(X), X * 1e-6 + 1.0, X**9][seed % 4]
    X[0] += 1.0
    design = (WeightNormDesign() if rng.random() < 0.5 else BatchNormDesign(rtol=1e-10)).fit(X)
    y = np.where(rng.random(n) < 0.5, 1.0, -1.0) if loss == "squared_hinge" else rng.standard_normal(n)
    y = y if loss == "squared_hinge" else y * 10.0 ** rng.integers(-3, 4) + rng.choice([0, 1e4])
    if loss == "squared_hinge":
        y[0] = -y[1]
    options = {
        "fit_intercept": bool(rng.random() < 0.5),
        "sample_weight": 10.0 ** rng.uniform(-4, 4, n) if rng.random() < 0.3 else None,
    }
    zero = Problem(design.transform(X), y, loss, weight_decay=1.0, **options)
    share = rng.choice([1e-5, 1e-3, 0.1, 0.9, 0.999, 1.0, 1.001])
    return Problem(zero.Z, y, loss, weight_decay=share * (weight_decay_max(zero) or 1.0), **options)


@pytest.mark.parametrize("seed", range(24))
def test_a_proved_bound_is_below_the_exact_dual_bound_and_every_network(seed):
    problem, rng = tiny(seed), np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solution = solve(problem, tol=1e-9, max_time=2.0, random_state=0)
    bound = Fraction(solution.certificate.global_lower_bound)
    points = problem.feasible_dual(solution.dual), problem.zero_dual
    assert bound <= max(Fraction(0), *(dual_bound(problem, v) for v in points))
    assert bound <= objective_below(problem, solution.neurons)
    start = np.hstack([solution.neurons.weights, rng.standard_normal((2, 3))])
    outputs = np.vstack([solution.neurons.output_weights, 0.1 * rng.standard_normal((3, 1))])
    rival = descended(problem, start, outputs, rng, of=solution.neurons)
    assert bound <= objective_below(problem, rival)


def test_the_bounds_that_were_proved_are_not_empty():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solutions = [solve(tiny(seed), tol=1e-6, max_time=2.0, random_state=0) for seed in range(12)]
    assert sum(solution.certificate.scope == "global" for solution in solutions) >= 9
    assert sum(solution.certificate.gap < 1e-5 for solution in solutions) >= 9


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    path = tmp_path_factory.mktemp("trust") / "record.jsonl"
    run(24, 7, path, max_time=0.3)
    return path


def test_no_proved_bound_of_a_short_campaign_is_undercut(record):
    lines = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
    assert len(lines) == 24
    assert not [line["error"] for line in lines if "error" in line]
    assert max(line["global_undercut"] for line in lines) <= 0
    assert max(line.get("unsupported", 0.0) for line in lines) <= 0
    assert sum(line["scope"] == "global" for line in lines) >= 8


def test_a_campaign_goes_on_where_it_was(record):
    before = record.read_text("utf-8")
    done = [json.loads(line)["number"] for line in before.splitlines()]
    run(max(done) + 1, 7, record)
    assert record.read_text("utf-8") == before


def test_cases_are_functions_of_seed_and_number():
    one, other = Case(3, 5), Case(3, 5)
    np.testing.assert_array_equal(one.X, other.X)
    np.testing.assert_array_equal(one.y, other.y)
    assert one.as_json() == other.as_json() != Case(3, 6).as_json()
