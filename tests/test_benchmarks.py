"""The benchmarks run and write what they say; no timings here."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gated_paths, gated_vs_peers, harness, scaling, solves, summary
from benchmarks.comparison import OURS, Method, compare
from benchmarks.harness import PeerMissing, Run
from benchmarks.instances import SIZES, named_instance
from benchmarks.peers import conic, gradient
from convexbn import sample_patterns, solve_gated, solve_reference

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def instance():
    return named_instance("R0")


def run_of(*points, **info):
    times, objectives = np.array(points, dtype=float).T
    return Run(times[-1], times, objectives, info)


@pytest.mark.parametrize(
    ("name", "weight_decay"), [("R0", 0.019335), ("R1", 0.018382), ("R2", 0.016647), ("R3", 0.016999)]
)
def test_instances_are_those_of_the_published_figures(name, weight_decay):
    instance = named_instance(name)
    assert instance.X.shape == SIZES[name]
    assert instance.weight_decay == pytest.approx(weight_decay, abs=1e-6)
    assert instance.y.mean() == pytest.approx(0, abs=1e-12)
    assert instance.y.std() == pytest.approx(1)


class TestRun:
    run = run_of((0.1, 5.0), (0.2, 3.0), (0.4, 4.0), (0.8, 2.0))

    def test_time_to_target(self):
        assert self.run.time_to(3.5) == 0.2
        assert self.run.time_to(1.0) == np.inf
        assert self.run.time_of_step(2) == 0.4
        assert self.run.time_of_step(4) == np.inf

    def test_curve_of_a_result_file_is_the_best_so_far(self):
        assert self.run.as_json()["n_objectives"].tolist() == [5.0, 3.0, 3.0, 2.0]
        long = Run(1.0, np.linspace(0, 1, 5000), np.linspace(2, 1, 5000)).as_json()
        assert len(long["times"]) <= harness.POINTS
        assert (long["times"][0], long["times"][-1]) == (0.0, 1.0)

    def test_median_counts_a_run_that_never_got_there(self):
        assert harness.median_of([1.0, np.inf, np.inf]) == np.inf
        assert harness.median_of([1.0, np.inf, 2.0]) == 2.0


def test_comparison_takes_turns_and_skips_missing_peers():
    calls = []

    def method(name):
        def run(seed):
            calls.append((name, seed))
            return run_of((1.0 + seed, 10.0 + seed), least_gap=0.1)

        return Method(run, lambda: None)

    def missing():
        raise PeerMissing("pip install it")

    methods = {OURS: method(OURS), "peer": method("peer"), "absent": Method(lambda seed: None, missing)}
    comparison = compare("toy", methods, seeds=(0, 1, 2))
    assert calls == [(name, seed) for seed in (0, 1, 2) for name in (OURS, "peer")]
    assert comparison.median("peer", lambda run: run.objective) == 11.0
    assert comparison.lower_bound == 10.0  # two runs claim more, which a known network refutes
    assert comparison.skipped == {"absent": "pip install it"}
    assert comparison.as_json()["methods"]["peer"]["drawn"] == 1


@pytest.mark.parametrize("train", [gradient.adam, gradient.sgd, gradient.lbfgs])
def test_gradient_peers_descend(instance, train):
    run = train(instance, n_steps=30, seed=0)
    assert len(run.times) == len(run.objectives)
    assert run.objectives[-1] < run.objectives[0]
    assert (np.diff(run.times) >= 0).all()


def test_objective_recorded_in_training_is_ours(instance):
    recorded = gradient.adam(instance, n_steps=0, seed=0).objectives[0]
    network = gradient.untrained(instance, 0).with_statistics(instance.X)
    squares = sum(np.sum(array**2) for array in (network.gamma, network.bias, network.output_weights))
    loss = np.mean((network.predict(instance.X)[:, 0] - instance.y) ** 2) / 2
    assert recorded == pytest.approx(instance.n * (loss + instance.weight_decay / 2 * squares), rel=1e-10)


@pytest.mark.parametrize("activation", ["relu", "gated_relu"])
def test_conic_peers_reach_the_reference_on_the_same_patterns(instance, activation):
    patterns = sample_patterns(instance.problem.Z, 10, random_state=0)
    run = conic.solve_sampled(instance, patterns, solver="CLARABEL", activation=activation)
    reference = solve_reference(instance.problem, patterns, activation=activation)
    assert run.objective == pytest.approx(instance.n * reference.certificate.objective, rel=1e-5)


def test_exponents_are_fitted_to_points_that_reached_their_gap():
    points = [
        {"activation": "relu", "n": n, "seconds": n**1.5, "peak_mebibytes": 3.0 * n, "reached": n < 1000}
        for n in (10, 100, 500, 1000)
    ]
    points[-1]["seconds"] = 1.0
    fitted = scaling.exponents({"n": points})["n"]["relu"]
    assert fitted == {"n_points": 3, "seconds": pytest.approx(1.5), "peak_mebibytes": pytest.approx(1.0)}


def test_quick_run_writes_results_and_picture(tmp_path, monkeypatch, pictures):
    monkeypatch.setattr(sys, "argv", ["gated_vs_peers", "--quick", "--output", str(tmp_path)])
    gated_vs_peers.main()
    results = json.loads((tmp_path / "gated_vs_peers.json").read_text())
    assert results["quick"] is True
    assert results["environment"]["versions"]["numpy"] == np.__version__
    drawn = results["instances"]["R0"]
    entry = drawn["methods"][OURS]
    assert entry["runs"][0]["gap"] <= 1e-6
    (ax,) = pictures["gated_vs_peers.png"].axes
    assert ax.get_title().startswith(f"R0: n = {drawn['n']}, d = {drawn['d']}")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert set(drawn["methods"]) <= {text.get_text() for text in ax.texts}
    ours, *_, tolerance = ax.lines
    np.testing.assert_allclose(ours.get_xdata(), entry["runs"][0]["times"])
    above = np.array(entry["runs"][0]["n_objectives"]) / drawn["n_lower_bound"] - 1
    np.testing.assert_allclose(ours.get_ydata(), np.maximum(above, gated_vs_peers.FLOOR))
    assert set(tolerance.get_ydata()) == {gated_vs_peers.TOL}
    with pytest.raises(SystemExit, match="smoke run"):
        summary.read_results(tmp_path, ("gated_vs_peers",))


def test_gated_networks_on_a_device_are_those_of_numpy(tmp_path, monkeypatch, pictures):
    pytest.importorskip("torch")
    monkeypatch.setattr(sys, "argv", ["gated_vs_peers", "--quick", "--device", "cpu", "--output", str(tmp_path)])
    gated_vs_peers.main()
    results = json.loads((tmp_path / "gated_vs_peers_gpu.json").read_text())
    assert results["device"] == "cpu"
    drawn = results["instances"]["R0"]
    problem = named_instance("R0").problem
    expected = solve_gated(problem, sample_patterns(problem.Z, 20, random_state=0), tol=1e-6)
    found = drawn["methods"][OURS]["runs"][0]["n_objectives"][-1] / drawn["n"]
    assert found == pytest.approx(expected.certificate.objective, rel=1e-5)


def test_gated_paths_without_adelie_say_so(tmp_path, monkeypatch, capsys, pictures):
    monkeypatch.setattr(sys, "argv", ["gated_paths", "--quick", "--output", str(tmp_path)])
    gated_paths.main()
    assert "adelie skipped. Give an interpreter" in capsys.readouterr().out
    measured = json.loads((tmp_path / "gated_paths.json").read_text())["cases"]["small"]
    assert max(measured["methods"][OURS]["suboptimality"]) <= 1e-2
    assert "adelie" not in measured["methods"]
    (ax,) = pictures["gated_paths.png"].axes
    (text,), (ours, *accuracies) = ax.texts, ax.lines
    assert text.get_text() == OURS
    np.testing.assert_allclose(ours.get_xdata(), measured["methods"][OURS]["median_seconds"])
    np.testing.assert_allclose(ours.get_ydata(), measured["methods"][OURS]["suboptimality"])
    assert [line.get_ydata()[0] for line in accuracies] == list(gated_paths.ACCURACIES)


class TestSolves:
    def test_quick_run_proves_the_first_problem(self, tmp_path, monkeypatch, pictures):
        monkeypatch.setattr(sys, "argv", ["solves", "--quick", "--output", str(tmp_path)])
        solves.main()
        (name, (run,)), *others = json.loads((tmp_path / "solves.json").read_text())["solves"].items()
        assert not others
        assert (run["reached"], run["scope"]) == (True, "global")
        assert run["gap"] <= solves.CASES[name].gap
        (ax,) = pictures["solves.png"].axes
        assert [label.get_text() for label in ax.get_yticklabels()] == [name]

    def test_a_gap_that_was_missed_is_reported_with_its_seconds(self):
        name, case = next(iter(solves.CASES.items()))
        runs = [{"seconds": 0.5, "gap": 0.02, "reached": False}]
        agree = {"spread": 2e-5, "wrong": 3, "seconds": [1.0]}
        first, last = solves.targets({"solves": {name: runs}, "agreement": agree})
        assert first == harness.target(f"{name}, in {case.seconds:g} s", "gap 2.0e-02 after 0.5 s", False)
        assert (last["met"], last["figure"][:20]) == (False, "2.0e-05 apart in 1 s")
        runs = [{"seconds": seconds, "gap": 1e-5, "reached": True} for seconds in (0.5, 0.7, 5.0)]
        assert solves.targets({"solves": {name: runs}, "agreement": agree})[0]["figure"] == "0.7 s"


def test_quick_run_never_replaces_measured_results(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gated_vs_peers", "--quick"])
    with pytest.raises(SystemExit):
        harness.parse_arguments("gated_vs_peers", None)
    assert "--quick needs --output" in capsys.readouterr().err


class TestSummary:
    def results(self, tmp_path):
        environment = {"cpu": "a processor", "cores": 2, "date": "2026-01-02T03:04:05+00:00"}
        rows = [harness.target("R0 soon", "2 times sooner", True), harness.target("R1 sooner", "never", False)]
        harness.write_json(tmp_path / "path.json", {"quick": False, "environment": environment, "targets": rows})
        return summary.read_results(tmp_path, ("path", "scaling"))

    def test_table(self, tmp_path):
        assert summary.table(self.results(tmp_path)).splitlines()[2:] == [
            "| R0 soon | 2 times sooner | yes |",
            "| R1 sooner | never | **no** |",
            "",
            "Measured on a processor, 2 cores; 2026-01-02.",
        ]

    def test_goes_between_the_markers(self):
        text = f"before\n{summary.BEGIN}\nold\n{summary.END}\nafter\n"
        assert summary.insert(text, "new") == f"before\n{summary.BEGIN}\nnew\n{summary.END}\nafter\n"
        with pytest.raises(SystemExit, match="markers"):
            summary.insert("no markers", "new")

    def test_pages_have_the_markers_and_what_was_measured(self):
        results = summary.read_results(harness.RESULTS, summary.RESULT_FILES)
        assert list(results) == list(summary.RESULT_FILES)
        for page, rows in ((summary.ALL, results), (summary.README, summary.headlines(results))):
            text = page.read_text("utf-8")
            assert summary.insert(text, summary.table(rows)) == text

    def test_a_headline_that_is_not_measured_is_refused(self, monkeypatch, tmp_path):
        monkeypatch.setattr(summary, "HEADLINES", {"path": ("R0", "R1")})
        assert summary.headlines(self.results(tmp_path)) == self.results(tmp_path)
        monkeypatch.setattr(summary, "HEADLINES", {"path": ("R0", "R2")})
        with pytest.raises(SystemExit, match=r"path\.json must have one target each"):
            summary.headlines(self.results(tmp_path))
