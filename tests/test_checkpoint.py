import json
import os
import subprocess
import sys
import zipfile
from copy import deepcopy
from dataclasses import fields, replace
from time import sleep

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import ClassifierMixin, clone
from sklearn.metrics import make_scorer, max_error
from sklearn.model_selection import KFold

from convexbn import (
    BatchNormDesign,
    ConvexBNClassifier,
    ConvexBNClassifierCV,
    ConvexBNRegressor,
    ConvexBNRegressorCV,
    PostActivationProblem,
    Problem,
    sample_patterns,
    solve,
    solve_column_generation,
    solve_gated,
)
from convexbn.solvers import ACCURATE


class Killed(Exception):
    """Ends a run as a kill does, as far as files are concerned."""


def kill_after(n_rounds):
    def callback(progress):
        if progress.n_iter == n_rounds:
            raise Killed

    return callback


def data(n=40, d=4, n_outputs=1, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return X, np.abs(X[:, :n_outputs]) + np.cos(2 * X[:, 1:2]) + 0.3 * rng.standard_normal((n, n_outputs))


def problem(loss="squared_error", n_outputs=1, weight_decay=0.02, d=4, **changes):
    X, y = data(d=d, n_outputs=n_outputs)
    y = np.sign(y - np.median(y)) if loss == "log_loss" else y
    options = {"weight_decay": weight_decay, "fit_intercept": True} | changes
    return Problem(BatchNormDesign().fit_transform(X), y, loss, **options)


def wide(n=40):
    """A design matrix of more columns than rows, on which gated networks take the interior-point method."""
    return np.random.default_rng(1).standard_normal((n, n + 5)) / np.sqrt(n)


def same(one, other):
    """Whether two networks are equal to the last bit."""
    parts = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(one)]
    return all(a is b is None or np.array_equal(a, b) for a, b in parts)


def after_relu(d=4, n_outputs=1):
    X, y = data(d=d, n_outputs=n_outputs)
    return PostActivationProblem(X, y, weight_decay=0.05, fit_intercept=True)


def solve_with_gates(problem, **options):
    """The gated network of a hundred patterns."""
    patterns = sample_patterns(problem.Z, 100, random_state=0)
    return solve_gated(problem, patterns, **{name: value for name, value in options.items() if name != "random_state"})


LARGE = replace(ACCURATE, many_weights=100)  # coarse rounds first
CASES = {
    "one output": (problem(), {"prove": False, "tol": 1e-8}),
    "several outputs": (problem(n_outputs=2), {"max_iter": 5}),
    "log loss, proved": (
        problem("log_loss", weight_decay=0.003, d=2),
        {"prove": "auto", "tol": 1e-9, "random_state": 0},
    ),
    "coarse rounds": (problem(n_outputs=2, weight_decay=0.005), {"options": LARGE, "max_iter": 6}),
    "no first neurons": (problem(), {"options": replace(ACCURATE, first_neurons=(0, 0)), "prove": False}),
    "after the ReLU": (after_relu(), {"prove": False, "max_iter": 5}),
    "after the ReLU, proved": (after_relu(d=2), {"tol": 1e-9}),
    "after the ReLU, several outputs": (after_relu(n_outputs=2), {"max_iter": 4}),
    "gated": (problem(), {"tol": 1e-8}),
    "gated, log loss": (problem("log_loss", weight_decay=0.003), {"tol": 1e-9}),
    "gated, several outputs": (problem(n_outputs=2), {"tol": 1e-8}),
    "gated, float32": (problem(n_outputs=2), {"tol": 1e-5, "dtype": "float32"}),
    "gated, many columns": (replace(problem(), Z=wide()), {"tol": 1e-8}),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("case", CASES)
def test_a_run_killed_again_and_again_ends_in_the_same_network(case, tmp_path):
    problem, options = CASES[case]
    options = {"random_state": 3} | options
    path = tmp_path / "run.npz"
    solver = solve_with_gates if "gated" in case else solve_column_generation
    whole = solver(problem, **options)
    for n_rounds in range(1, whole.n_iter + 1):
        with pytest.raises(Killed):
            solver(problem, checkpoint=path, callback=kill_after(n_rounds), **options)
    n_calls = []
    resumed = solver(problem, checkpoint=path, callback=n_calls.append, **options)
    assert whole.n_iter >= 3
    assert len(n_calls) == 1  # the last round alone
    assert (whole.certificate.scope == "global") == ("proved" in case)
    assert same(resumed.neurons, whole.neurons)
    assert np.array_equal(resumed.dual, whole.dual)
    assert resumed.certificate == whole.certificate
    assert resumed.status == whole.status
    assert [(p.n_iter, p.objective, p.gap, p.n_neurons) for p in resumed.history] == [
        (p.n_iter, p.objective, p.gap, p.n_neurons) for p in whole.history
    ]
    assert np.all(np.diff([p.time for p in resumed.history]) > 0)


SCRIPT = """
import os, signal, sys
import numpy as np
from convexbn import ConvexBNRegressor, ConvexBNRegressorCV

number, model, path, *data = sys.argv[1:]
writes, fsync = [], os.fsync

def killed_in_a_write(file):
    writes.append(file)
    if len(writes) == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(file)

os.fsync = killed_in_a_write
X, y = (np.load(path) for path in data)
eval(model).set_params(checkpoint=path).fit(X, y)
"""


def assert_same_model(one, other, X):
    assert one.n_iter_ == other.n_iter_
    assert (one.weight_decay_, one.spectral_power_) == (other.weight_decay_, other.spectral_power_)
    assert np.array_equal(one.predict(X), other.predict(X))
    assert one.certificate_ == other.certificate_
    scores = [getattr(model, "validation_scores_", {}) for model in (one, other)]
    np.testing.assert_equal(*scores)


TO_KILL = {"tol": 1e-7, "max_iter": 20, "prove": False}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize(
    ("model", "moments"),
    [
        (ConvexBNRegressor(0.02, **TO_KILL), [3]),
        (ConvexBNRegressor(**TO_KILL), [3, 6]),
        (ConvexBNRegressorCV(n_weight_decays=4, eps=1e-3, cv=3, spectral_power=1.0, **TO_KILL), [3, 5]),
    ],
    ids=["given", "auto", "cross-validated"],
)
def test_sigkill_amid_a_write(model, moments, tmp_path):
    """Again and again: the moments count writes of a process, of seed, validated paths and rounds."""
    X, y = data()
    y, path = y[:, 0], tmp_path / "run.npz"
    files = tmp_path / "X.npy", tmp_path / "y.npy"
    for file, array in zip(files, (X, y), strict=True):
        np.save(file, array)
    for moment in moments:
        arguments = [str(moment), repr(model), path, *files]
        killed = subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments], timeout=60, check=False, capture_output=True
        )
        assert killed.returncode == -9, killed.stderr
        assert path.with_name("run.npz.draft").exists()
    kept = path.read_bytes()
    resumed = clone(model).set_params(checkpoint=path).fit(X, y)
    assert_same_model(resumed, model.fit(X, y), X)
    assert resumed.n_iter_ > 2
    assert path.read_bytes() != kept
    assert not path.with_name("run.npz.draft").exists()


QUICK = {"tol": 1e-9, "max_iter": 4, "prove": False}
FOLDED = QUICK | {"n_weight_decays": 3, "eps": 1e-2, "cv": 2, "spectral_power": 0.5}
CHOICES = {
    "classes": ConvexBNClassifier(**QUICK),
    "after the ReLU": ConvexBNRegressor(normalization="batch_after_relu", **QUICK),
    "weights": ConvexBNClassifier(normalization="weight", **QUICK),
    "gated": ConvexBNRegressor(
        activation="gated_relu", tol=0.1, n_patterns=5, max_iter=3, spectral_power=0.5, n_components=1
    ),
    "no seed": ConvexBNRegressor(random_state=None, **QUICK),
    "a generator": ConvexBNRegressor(random_state=np.random.default_rng(3), **QUICK),
    "cross-validated": ConvexBNRegressorCV(**FOLDED, n_components=[1, None], random_state=np.random.default_rng(3)),
    "cross-validated classes": ConvexBNClassifierCV(**FOLDED, class_weight={np.int64(0): 1.0, np.int64(1): 2.0}),
    "cross-validated, two jobs": ConvexBNRegressorCV(**FOLDED, n_jobs=2),
    "cross-validated, gated": ConvexBNRegressorCV(
        **FOLDED | {"tol": 0.1, "max_iter": 3}, activation="gated_relu", n_patterns=5, n_components=1
    ),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("case", CHOICES)
def test_a_choice_killed_again_and_again_ends_in_the_same_network(case, tmp_path, monkeypatch):
    X, y = data(n=15, d=2)
    y = (y[:, 0] > np.median(y)).astype(int) if isinstance(CHOICES[case], ClassifierMixin) else y[:, 0]
    path, again = tmp_path / "run", tmp_path / "whole"
    writes, fsync = [], os.fsync

    def killed_in_a_write(file):
        writes.append(file)
        if len(writes) == 3:
            raise Killed
        fsync(file)

    def model(path):
        return deepcopy(CHOICES[case]).set_params(checkpoint=path)

    n_kills, resumed = 0, None
    with monkeypatch.context() as context:
        context.setattr(os, "fsync", killed_in_a_write)
        while resumed is None and n_kills < 60:
            writes.clear()
            try:
                resumed = model(path).fit(X, y)
            except Killed:
                n_kills += 1
                if n_kills == 1:
                    again.write_bytes(path.read_bytes())
    assert n_kills >= 2
    if case == "no seed":  # the last fit of a copy draws its own
        other = model(again).fit(X, y)
        np.testing.assert_equal(other.validation_scores_, resumed.validation_scores_)
    else:
        assert_same_model(resumed, model(None).fit(X, y), X)
    assert_same_model(model(path).fit(X, y), resumed, X)


def test_a_finished_run_is_read_and_a_larger_limit_goes_on(tmp_path):
    options = {"prove": False, "random_state": 0}
    whole = solve_column_generation(problem(), **options)
    path = tmp_path / "run"  # no ending is asked for, and none is added
    with pytest.warns(UserWarning, match="max_iter"):
        short = solve_column_generation(problem(), max_iter=2, checkpoint=path, **options)
    assert short.n_iter == 2
    for n_rounds in (whole.n_iter - 2 + 1, 1):  # the last one is made again, to call the oracle
        rounds = []
        resumed = solve_column_generation(problem(), checkpoint=path, callback=rounds.append, **options)
        assert len(rounds) == n_rounds
        assert same(resumed.neurons, whole.neurons)
        assert resumed.n_iter == whole.n_iter
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_a_limit_of_rounds_in_the_options_counts_those_before(tmp_path):
    options = {"prove": False, "tol": 1e-10, "random_state": 0, "options": replace(ACCURATE, max_rounds=2)}
    with pytest.warns(UserWarning, match="stopped at"):
        whole = solve_column_generation(problem(), **options)
    with pytest.raises(Killed):
        solve_column_generation(problem(), checkpoint=tmp_path / "run", callback=kill_after(2), **options)
    for _ in range(2):
        with pytest.warns(UserWarning, match="stopped at"):
            resumed = solve_column_generation(problem(), checkpoint=tmp_path / "run", **options)
        assert same(resumed.neurons, whole.neurons)
        assert resumed.n_iter == whole.n_iter == 2


def test_a_round_cut_short_by_the_time_is_not_kept(tmp_path):
    options = {"prove": False, "random_state": 0}
    with pytest.warns(UserWarning, match="max_time"):
        solve_column_generation(problem(), max_time=1e-9, checkpoint=tmp_path / "run", **options)
    assert not list(tmp_path.iterdir())
    with pytest.raises(Killed):
        solve_column_generation(problem(), checkpoint=tmp_path / "run", callback=kill_after(3), **options)
    kept = (tmp_path / "run").read_bytes()
    with pytest.warns(UserWarning, match="max_time"):
        short = solve_column_generation(problem(), max_time=1e-9, checkpoint=tmp_path / "run", **options)
    assert short.n_iter == 3  # two were kept, and the one that the time has ended
    assert (tmp_path / "run").read_bytes() == kept
    resumed = solve_column_generation(problem(), checkpoint=tmp_path / "run", **options)
    assert same(resumed.neurons, solve_column_generation(problem(), **options).neurons)


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_generators_of_every_kind(kind, tmp_path):
    options = {"prove": False, "checkpoint": tmp_path / "run"}
    generator, resumed = np.random.Generator(kind(5)), np.random.Generator(kind(5))
    whole = solve_column_generation(problem(), prove=False, random_state=generator)
    with pytest.raises(Killed):
        solve_column_generation(problem(), random_state=np.random.Generator(kind(5)), callback=kill_after(3), **options)
    found = solve_column_generation(problem(), random_state=resumed, **options)
    assert same(found.neurons, whole.neurons)
    assert resumed.random() == generator.random()
    with pytest.raises(ValueError, match="other data, other parameters"):
        solve_column_generation(problem(), random_state=np.random.Generator(kind(6)), **options)


def test_a_run_without_a_seed_goes_on_with_its_own(tmp_path):
    path, again = tmp_path / "run", tmp_path / "again"
    with pytest.raises(Killed):
        solve_column_generation(problem(), prove=False, checkpoint=path, callback=kill_after(2))
    again.write_bytes(path.read_bytes())
    one, other = (solve_column_generation(problem(), prove=False, checkpoint=file) for file in (path, again))
    assert same(one.neurons, other.neurons)


def kept_run(path, **options):
    with pytest.raises(Killed):
        solve_column_generation(
            problem(), checkpoint=path, callback=kill_after(2), **{"prove": False, "random_state": 0} | options
        )


@pytest.mark.parametrize(
    ("other", "options"),
    [
        (problem(weight_decay=0.021), {}),
        (problem("huber"), {}),
        (problem(fit_intercept=False), {}),
        (problem(sample_weight=1 + np.arange(40) % 2), {}),
        (replace(problem(), y=np.nextafter(problem().y, np.inf)), {}),
        (replace(problem(), Z=problem().Z / 2), {}),
        (problem(n_outputs=2), {}),
        (problem(), {"random_state": 1}),
        (problem(), {"random_state": None}),
        (problem(), {"tol": 1e-5}),
        (problem(), {"relative_to": "zero_network"}),
        (problem(), {"prove": True}),
        (problem(), {"options": replace(ACCURATE, n_starts=200)}),
        (problem(), {"start": problem().zero_network}),
    ],
)
def test_a_checkpoint_of_other_data_or_parameters_is_refused(other, options, tmp_path):
    path = tmp_path / "run.npz"
    kept_run(path)
    kept = path.read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint=.*run.npz' is of other data, other parameters"):
        solve_column_generation(other, checkpoint=path, **{"prove": False, "random_state": 0} | options)
    assert path.read_bytes() == kept


def test_other_losses_of_one_name_are_told_apart(tmp_path):
    from convexbn.losses import Huber

    options = {"prove": False, "random_state": 0, "checkpoint": tmp_path / "run"}
    with pytest.raises(Killed):
        solve_column_generation(problem(Huber(1.0)), callback=kill_after(2), **options)
    with pytest.raises(ValueError, match="other parameters"):
        solve_column_generation(problem(Huber(2.0)), **options)


def test_another_version_is_refused(tmp_path, monkeypatch):
    kept_run(tmp_path / "run")
    monkeypatch.setattr("convexbn.solvers._checkpoint.__version__", "0.0.1")
    with pytest.raises(ValueError, match="another version"):
        solve_column_generation(problem(), prove=False, random_state=0, checkpoint=tmp_path / "run")


def test_another_format_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    kept_run(path)
    with np.load(path) as file:
        contents = {name: file[name] for name in file.files}
    facts = json.loads(str(contents["facts"]))
    contents["facts"] = np.array(json.dumps(facts | {"format": "convexbn-checkpoint-1"}))
    np.savez(path, **contents)
    with pytest.raises(ValueError, match="another version"):
        solve_column_generation(problem(), prove=False, random_state=0, checkpoint=path)


def _within_data(path):
    """Where in a file the middle of the data of its largest member is."""
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda member: member.compress_size)
    header = path.read_bytes()[largest.header_offset :]
    name_and_extra = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return largest.header_offset + 30 + name_and_extra + largest.compress_size // 2


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "run.npz"
    kept_run(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[_within_data(path)] ^= 255  # headers have bytes, as of a date, that nothing depends on
    damaged = [whole[: len(whole) * share // 8] for share in range(8)] + [bytes(flipped), b"garbage", b"\x93NUMPY"]
    for number, kind in enumerate([np.save, np.savez]):
        file = tmp_path / f"{number}.npz"
        with file.open("wb") as stream:
            kind(stream, np.arange(3))
        damaged.append(file.read_bytes())
    with path.open("wb") as stream:  # which reading would have to unpickle
        np.savez(stream, facts=np.array([{}]), weights=np.ones(1), output_weights=np.ones(1), intercept=np.ones(1))
    damaged.append(path.read_bytes())
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"checkpoint=.*run.npz' is damaged, or no checkpoint; delete it"):
            solve_column_generation(problem(), prove=False, random_state=0, checkpoint=path)
        assert path.read_bytes() == content


def test_a_draft_of_a_crash_is_ignored(tmp_path):
    path, draft = tmp_path / "run.npz", tmp_path / "run.npz.draft"
    draft.write_bytes(b"half a")
    kept_run(path)
    assert not draft.exists()
    draft.write_bytes(path.read_bytes()[:200])
    options = {"prove": False, "random_state": 0}
    resumed = solve_column_generation(problem(), checkpoint=path, **options)
    assert same(resumed.neurons, solve_column_generation(problem(), **options).neurons)


@pytest.mark.parametrize("path", [3, "", b"run.npz", "no such folder/run.npz", "."])
def test_paths_that_cannot_be_written(path):
    for function in (solve, solve_column_generation):
        with pytest.raises(ValueError, match="checkpoint="):
            function(problem(), checkpoint=path)
    X, y = data()
    with pytest.raises(ValueError, match="checkpoint="):
        ConvexBNRegressor(0.1, checkpoint=path).fit(X, y)


def test_solve_passes_it_on_or_refuses_it(tmp_path):
    path = tmp_path / "run"
    whole = solve(problem(), prove=False, random_state=0)
    with pytest.raises(Killed):
        solve(problem(), prove=False, random_state=0, checkpoint=path, callback=kill_after(3))
    assert same(solve(problem(), prove=False, random_state=0, checkpoint=path).neurons, whole.neurons)
    hinge = replace(problem("log_loss"), loss="hinge")
    for other, options in [
        (problem(), {"solver": "CLARABEL"}),
        (problem(), {"activation": "gated_relu", "solver": "CLARABEL", "random_state": 0}),
        (hinge, {}),
    ]:
        with pytest.raises(ValueError, match="takes a solver with rounds"):
            solve(other, checkpoint=path, **options)
    with pytest.raises(ValueError, match="takes gates that can be drawn again; set random_state"):
        solve(problem(), activation="gated_relu", checkpoint=path)


def test_one_sample_a_class(tmp_path):
    X, labels = data(n=7, d=9)[0], [0, 0, 1, 1, 1, 2, 2]
    Z = BatchNormDesign().fit_transform(X)
    few = Problem(Z, np.eye(3)[labels], "cross_entropy", weight_decay=0.01, fit_intercept=True)
    options = {"random_state": 0, "tol": 1e-7}
    whole = solve(few, **options)
    with pytest.raises(Killed):
        solve(few, checkpoint=tmp_path / "run", callback=kill_after(2), **options)
    resumed = solve(few, checkpoint=tmp_path / "run", **options)
    assert whole.certificate.search.name == "CLASSES"
    assert resumed.n_iter == whole.n_iter
    assert same(resumed.neurons, whole.neurons)


def test_estimators(tmp_path):
    X, y = data()
    labels = y[:, 0] > np.median(y)
    path = tmp_path / "run"
    options = {"prove": False, "tol": 1e-6}
    whole = ConvexBNClassifier(0.01, **options).fit(X, labels)
    first, second = (ConvexBNClassifier(0.01, checkpoint=path, **options).fit(X, labels) for _ in range(2))
    assert np.array_equal(first.predict_proba(X), whole.predict_proba(X))
    assert np.array_equal(second.predict_proba(X), whole.predict_proba(X))
    with pytest.raises(ValueError, match="other data"):
        ConvexBNClassifier(0.01, checkpoint=path, **options).fit(X[:-1], labels[:-1])
    for hasty in (ConvexBNClassifier(0.01, loss="hinge"), ConvexBNClassifier(solver="CLARABEL")):
        with pytest.raises(ValueError, match="takes a solver with rounds"):
            hasty.set_params(checkpoint=path).fit(X, labels)
    gated = ConvexBNClassifier(activation="gated_relu", random_state=None, checkpoint=path)
    with pytest.raises(ValueError, match="takes gates that can be drawn again; set random_state"):
        gated.fit(X, labels)


def test_a_choice_of_other_data_or_parameters_is_refused(tmp_path):
    X, y = data(n=20, d=2)
    path, y = tmp_path / "run", y[:, 0]
    options = {"spectral_power": 0.5, "tol": 0.1, "checkpoint": path}
    model = ConvexBNRegressor(**options).fit(X, y)
    assert_same_model(ConvexBNRegressor(**options, max_time=60, n_jobs=2, verbose=0).fit(X, y), model, X)
    kept = path.read_bytes()
    groups = np.arange(20) // 2
    others = [
        (options | {"spectral_power": 0.6}, (X, y)),
        (options | {"random_state": 1}, (X, y)),
        (options | {"fit_intercept": False}, (X, y)),
        (options | {"max_iter": 3}, (X, y)),
        (options | {"weight_decay": 0.1}, (X, y)),
        (options | {"tol": 0.2}, (X, y)),
        (options, (X[1:], y[1:])),
        (options, (X, 2 * y)),
        (options, (X, y, np.arange(1.0, 21.0))),
        (options, (X, y, None, groups)),
    ]
    for changed, given in others:
        with pytest.raises(ValueError, match=r"checkpoint=.*run' is of other data, other parameters"):
            ConvexBNRegressor(**changed).fit(*given)
        assert path.read_bytes() == kept


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_where_there_was_no_time_for_a_choice_it_is_made_later(tmp_path):
    X, y = data(n=20, d=2)
    path, whole = tmp_path / "run", ConvexBNRegressor().fit(X, y[:, 0])
    hasty = ConvexBNRegressor(max_time=1e-9, checkpoint=path).fit(X, y[:, 0])
    assert not hasattr(hasty, "validation_scores_")
    assert_same_model(ConvexBNRegressor(checkpoint=path).fit(X, y[:, 0]), whole, X)


def negative_error(model, X, y):
    return -np.abs(model.predict(X) - y).mean()


def test_cross_validation_of_other_data_folds_or_parameters_is_refused(tmp_path):
    X, y = data(n=12, d=2)
    path, y = tmp_path / "run", y[:, 0]
    options = FOLDED | {"tol": 1.0, "max_iter": None, "scoring": negative_error, "checkpoint": path}
    model = ConvexBNRegressorCV(**options).fit(X, y)
    same_folds = {"cv": KFold(2), "n_jobs": 2, "max_time": 60, "callback": lambda progress: None}
    assert_same_model(ConvexBNRegressorCV(**options | same_folds).fit(X, y), model, X)
    kept = path.read_bytes()
    others = [
        (options | {"cv": 3}, (X, y)),
        (options | {"scoring": None}, (X, y)),
        (options | {"scoring": make_scorer(max_error, greater_is_better=False)}, (X, y)),
        (options | {"spectral_power": [0.5]}, (X, y)),
        (options | {"n_weight_decays": 4}, (X, y)),
        (options | {"random_state": 1}, (X, y)),
        (options | {"tol": 0.5}, (X, y)),
        (options, (X[::-1], y[::-1])),  # other samples in the folds
        (options, (X, 2 * y)),
        (options, (X, y, np.arange(1.0, 13.0))),
    ]
    for changed, given in others:
        with pytest.raises(ValueError, match=r"checkpoint=.*run' is of other data, other parameters"):
            ConvexBNRegressorCV(**changed).fit(*given)
        assert path.read_bytes() == kept
    for hasty in (ConvexBNClassifierCV(loss="hinge"), ConvexBNClassifierCV(solver="CLARABEL")):
        with pytest.raises(ValueError, match="takes a solver with rounds"):
            hasty.set_params(checkpoint=path).fit(X, y > 0)
    with pytest.raises(ValueError, match=r"checkpoint=.* must be a file in a folder"):
        ConvexBNRegressorCV(checkpoint=tmp_path / "none" / "run").fit(X, y)


def test_cross_validation_follows_no_path_again(tmp_path):
    X, y = data(n=12, d=2)
    rows, path = csr_array(X), tmp_path / "run"
    model = ConvexBNRegressorCV(
        **FOLDED | {"spectral_power": 0.0, "cv": 3, "max_iter": 1}, normalization="weight", checkpoint=path
    )
    seen = []

    def killed_after_two_paths(progress):
        seen.append(progress)
        if len(seen) == 6:
            raise Killed

    with pytest.raises(Killed):
        clone(model).set_params(callback=killed_after_two_paths).fit(rows, y[:, 0])
    rest = []
    with pytest.warns(UserWarning, match="max_iter"):
        resumed = clone(model).set_params(callback=rest.append).fit(rows, y[:, 0])
    with pytest.warns(UserWarning, match="max_iter"):
        whole = clone(model).set_params(checkpoint=None).fit(rows, y[:, 0])
    assert len(rest) == 3 + resumed.n_iter_  # the third path, and the last fit
    assert_same_model(resumed, whole, rows)
    with pytest.raises(ValueError, match="other data"):
        clone(model).fit(csr_array(X + np.eye(12, 2)), y[:, 0])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_choice_among_some_paths_that_the_time_cut_short_is_made_again(tmp_path):
    X, y = data(n=12, d=2)
    options, path = FOLDED | {"scoring": negative_error, "tol": 1.0}, tmp_path / "run"
    # The time is out once the networks of the first path are reported.
    late = {"max_time": 1.0, "callback": lambda progress: sleep(0.4)}
    hasty = ConvexBNRegressorCV(**options, **late, checkpoint=path).fit(X, y[:, 0])
    assert np.ptp(hasty.scores_[0, :, 0]) > 0 == np.ptp(hasty.scores_[0, :, 1])
    whole = ConvexBNRegressorCV(**options).fit(X, y[:, 0])
    again = ConvexBNRegressorCV(**options, checkpoint=path).fit(X, y[:, 0])
    np.testing.assert_array_equal(again.scores_, whole.scores_)
    assert_same_model(again, whole, X)


def test_a_checkpoint_cannot_tell_lambdas_apart(tmp_path):
    model = ConvexBNRegressorCV(**FOLDED, scoring=lambda model, X, y: 0.0, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="scoring is a lambda"):
        model.fit(*data(n=12, d=2))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_paths_that_the_time_cut_short_are_followed_again(tmp_path):
    X, y = data(n=12, d=2)
    options, path = FOLDED | {"scoring": negative_error}, tmp_path / "run"
    hasty = ConvexBNRegressorCV(**options, max_time=1e-9, checkpoint=path).fit(X, y[:, 0])
    assert np.ptp(hasty.scores_) > 0 == np.ptp(hasty.scores_, axis=1).max()
    assert_same_model(
        ConvexBNRegressorCV(**options, checkpoint=path).fit(X, y[:, 0]),
        ConvexBNRegressorCV(**options).fit(X, y[:, 0]),
        X,
    )
