"""Certificates under attack: a short campaign, and bounds in exact rational arithmetic."""

import ast
import json
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from benchmarks import trust_mutants
from benchmarks.trust.__main__ import run
from benchmarks.trust.cases import Case
from benchmarks.trust.check import check
from benchmarks.trust.long_double import long, losses
from benchmarks.trust.machine import SAME_BITS, TOLERANCE, differences
from benchmarks.trust.mutants import MUTANTS, Mutant
from benchmarks.trust.rivals import descended
from benchmarks.trust.summary import summed_up
from convexbn import (
    BatchNormDesign,
    DesignMatrix,
    PostActivationProblem,
    Problem,
    WeightNormDesign,
    enumerate_patterns,
    solve,
    weight_decay_max,
)
from convexbn.losses import make_loss
from convexbn.oracles import price_of_normalized_patterns, priced_neurons
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


def test_columns_that_rounding_makes_dependent_are_left_by_pruning():
    case = Case(0, 9484)  # a hinge loss on targets and rows of heavy tails, whose neurons are more than its samples
    found = check(case, 1.0)
    assert found["scope"] == "global"
    assert found["gap"] < 1e-3


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


@pytest.mark.parametrize("number", [7011, 7030])
def test_prices_of_zero_and_rows_that_differ_by_rounding_are_searched(number):
    assert "error" not in check(Case(0, number), 1.0)


def test_a_neuron_that_hardly_varies_on_rows_that_hardly_differ_is_in_the_proved_bound():
    line = check(Case(0, 83))  # rows 1e-13 apart, on which a direction of small activations has a price above the decay
    assert line["scope"] == "global"
    assert line["oracle"] == "ENUMERATION"
    assert line["unsupported"] < 0


def test_a_small_cross_entropy_keeps_its_digits_in_long_double():
    problem = Problem(np.eye(2), np.eye(2), "cross_entropy", weight_decay=0.1)
    found = losses(problem, long(30 * np.eye(2)), np.zeros(2))
    np.testing.assert_allclose(found, np.log1p(np.exp(long(-30))), rtol=1e-17)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    path = tmp_path_factory.mktemp("trust") / "record.jsonl"
    run(150, 7, path, max_time=0.3, most=24)
    return path


def test_no_proved_bound_of_a_short_campaign_is_undercut(record):
    lines = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
    assert len(lines) >= 24
    assert not [line["error"] for line in lines if "error" in line]
    assert max(line["global_undercut"] for line in lines) <= 0
    assert max(line.get("unsupported", 0.0) for line in lines) <= 0
    assert sum(line["scope"] == "global" for line in lines) >= 3


def test_a_campaign_goes_on_where_it_was(record):
    before = record.read_text("utf-8")
    run(150, 7, record, max_time=0.3, most=1)
    after = record.read_text("utf-8")
    assert after.startswith(before)
    assert len({json.loads(line)["number"] for line in after.splitlines()}) == len(after.splitlines()) == 25


def test_cases_are_functions_of_seed_and_number():
    one, other = Case(3, 5), Case(3, 5)
    np.testing.assert_array_equal(one.X, other.X)
    np.testing.assert_array_equal(one.y, other.y)
    assert one.as_json() == other.as_json() != Case(3, 6).as_json()


def test_a_record_is_summed_up(record):
    lines = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
    result = summed_up(lines, {})
    assert result["quick"]
    assert result["campaign"]["cases"] == len(lines) == sum(result["campaign"]["scopes"].values())
    assert result["targets"][0]["met"] is True
    for wrong in ({"global_undercut": 1e-12}, {"objective_error": 1e-5}):
        assert summed_up([lines[0] | wrong, *lines[1:]], {})["targets"][0]["met"] is False


def test_other_kinds_of_rows_are_counted_apart(record, tmp_path):
    path = tmp_path / "record.jsonl"
    path.write_bytes(record.read_bytes())
    for kind in ("blocks", "sparse", "sparse"):  # each goes on where it was
        run(150, 7, path, max_time=0.3, most=3, kind=kind)
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    one, result = summed_up([line for line in lines if line["kind"] == "array"], {}), summed_up(lines, {})
    assert result["campaign"] == one["campaign"]
    assert result["other_kinds"]["kinds"] == {"blocks": 3, "sparse": 6}
    assert {line["normalization"] for line in lines if line["kind"] != "array"} == {"batch", "weight"}
    assert [row["met"] for row in result["targets"][:2]] == [True, True]
    lines[-1]["unsupported"] = 1e-12
    assert [row["met"] for row in summed_up(lines, {})["targets"][:2]] == [True, False]


@pytest.mark.parametrize("name", ["batch", "gated"])
def test_a_network_depends_on_its_problem_alone(name):
    for change, difference in differences(name).items():
        assert difference["fitted"] <= TOLERANCE, change
        assert difference["objective"] <= 1e-9, change
        assert difference["same_bits"] or change not in SAME_BITS, change


def test_rows_that_are_almost_parallel_hide_no_neuron_that_is_normalized_after_the_relu():
    # A neuron that is active on the first and the third sample alone varies by 1e-9 of the length of its weights.
    Z = DesignMatrix(np.column_stack([[2 / 3, 2 / 3 - 4e-9, 2 / 3, -1.0, -1.0], np.ones(5)]))
    p, v = np.full(5, 0.2), np.array([[0.32], [-0.48], [0.32], [0.32], [-0.48]])
    alone = np.array([[1.0], [-2 / 3 + 2e-9]])
    price = price_of_normalized_patterns(Z, p, enumerate_patterns(Z), v)
    attained = priced_neurons(Z, p, v, alone).prices.max()
    assert attained > 1.0
    assert price.value >= attained * (1 - 1e-6)  # activations have as many digits


def test_directions_that_rounding_of_the_mean_made_are_left_out():
    # Two rows that differ in their last digits, and a mean that is rounded by more.
    case = Case(1, 390)
    assert np.abs(case.X).min() > 1e7
    assert case.Z.shape == (5, 4)
    np.testing.assert_allclose(case.Z.T @ case.Z / 5, np.eye(4), atol=1e-6)


def test_small_cross_entropies_keep_their_digits():
    loss, y = make_loss("cross_entropy"), np.array([[1.0, 0.0, 0.0]])
    f = np.array([[40.0, 0.0, -1.0]])
    others = np.exp(-40.0) + np.exp(-41.0)
    np.testing.assert_allclose(loss.value(f, y), others, rtol=1e-12)
    u = loss.project_dual(loss.gradient(f, y), y)
    np.testing.assert_allclose(u[0], [-others, np.exp(-40.0), np.exp(-41.0)], rtol=1e-12)
    np.testing.assert_allclose(loss.conjugate(u, y), (u * f).sum(axis=1) - loss.value(f, y), rtol=1e-9)


def test_what_rounding_adds_to_a_dual_objective_is_taken_off():
    # Targets far from zero, without an intercept: the dual objective cancels all but one of ten digits.
    rng = np.random.default_rng(3)
    problem = Problem(np.ones((6, 1)), 1e8 + rng.standard_normal(6), weight_decay=1e-3)
    certificate = solve(problem, solver="column_generation", random_state=0, tol=1e-3).certificate
    exact = objective_below(problem, problem.neurons(np.full((1, 1), 1e4), np.full((1, 1), 1e4), np.zeros(1)))
    assert Fraction(certificate.global_lower_bound) <= exact


def test_after_relu_problems_of_the_short_campaign_are_there(record):
    lines = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
    assert {line["normalization"] for line in lines} == {"batch", "weight", "after"}
    assert isinstance(Case(7, lines[0]["number"]).problem(1.0), (Problem, PostActivationProblem))


def test_every_mutant_is_a_change_of_the_code_as_it_is():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 60
    tests = Path(__file__).parent
    for mutant in MUTANTS:
        text = trust_mutants.mutated(mutant)
        assert text is not None, f"{mutant.name}: {mutant.old!r} does not occur exactly once"
        assert mutant.old != mutant.new, mutant.name
        ast.parse(text)
        for argument in mutant.arguments:
            file, *parts = argument.split("::")
            source = (tests.parent / file).read_text("utf-8")
            assert all(f"def {part}(" in source or f"class {part}:" in source for part in parts), argument


@pytest.mark.slow
def test_mutants_are_found_in_a_copy_that_is_restored():
    tests = "losses::test_squared_error_adds_up_outputs"
    killed = Mutant("losses.py", "(residual**2, axis=1) / 2", "(residual**2, axis=1)", tests, "no half")
    survivor = Mutant("losses.py", "return f - y", "return y - f", tests, "sign of the gradient")
    missing = Mutant("losses.py", "no such text", "", tests, "nothing")
    with trust_mutants.copied() as folder:
        outcomes = [trust_mutants.run(mutant, folder)["outcome"] for mutant in (killed, survivor, missing)]
        assert outcomes == ["killed", "survived", "text not found"]
        late = trust_mutants.run(survivor, folder, seconds=0.01)
        assert late["by"] == "the limit of 0.01 seconds"
        same = [
            path.read_bytes() for path in (folder / "convexbn/losses.py", trust_mutants.CHECKOUT / "convexbn/losses.py")
        ]
        assert same[0] == same[1]


def test_mutants_are_summed_up():
    mutants = [
        Mutant("a.py", "1", "2", "x", "found"),
        Mutant("b.py", "1", "2", "x", "added", added="y::test_new"),
        Mutant("c.py", "1", "2", "x", "explained", equivalent="It is the same."),
    ]
    outcomes = ("killed", "killed", "survived")
    record = {m.name: {"outcome": outcome, "seconds": 1.0} for m, outcome in zip(mutants, outcomes, strict=True)}
    result = trust_mutants.summed_up(mutants, record)
    assert result["outcomes"] == {"killed": 2, "survived": 1}
    assert [result[key] for key in ("killed_by_tests_that_were_there", "killed_by_tests_that_were_added")] == [1, 1]
    assert result["targets"][0]["met"] is True
    assert mutants[1].arguments == ["tests/test_x.py", "tests/test_y.py::test_new"]
    record[mutants[0].name]["outcome"] = "survived"
    result = trust_mutants.summed_up(mutants, record)
    assert result["unexplained"] == [mutants[0].name]
    assert result["targets"][0]["met"] is False
