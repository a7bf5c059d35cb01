"""Estimators on samples that are read in blocks."""

import tracemalloc

import numpy as np
import pytest

from convexbn import (
    BatchNormDesign,
    ConvexBNClassifier,
    ConvexBNRegressor,
    ConvexBNRegressorCV,
    Problem,
    read_rows,
)
from convexbn.solvers.relu._fast import fast_path

RNG = np.random.default_rng(0)
X = RNG.standard_normal((300, 3))
Y = np.maximum(X[:, 0], 0) + X[:, 1] + 0.1 * RNG.standard_normal(300)


def blocks(target, **options):
    return read_rows(X, target=target, block_bytes=50 * 24, **options)


@pytest.fixture
def folder(tmp_path):
    for i, rows in enumerate(np.array_split(np.arange(300), 4)):
        np.savez(tmp_path / f"part-{i}.npz", X=X[rows], y=Y[rows])
    return read_rows(tmp_path)


@pytest.mark.parametrize("normalization", ["batch", "weight"])
def test_same_optimum_as_in_memory(folder, normalization):
    model = ConvexBNRegressor(weight_decay=0.2, normalization=normalization, tol=1e-6, prove=False)
    expected = model.fit(X, Y).certificate_.objective
    for source in (folder, blocks(Y)):
        model.fit(source)
        assert model.certificate_.objective == pytest.approx(expected, rel=1e-6)
        assert model.certificate_.gap < 1e-5
        assert model.network_.objective(X, Y, 0.2) == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(model.predict(source), model.predict(X), rtol=1e-12)


@pytest.mark.parametrize("seed", [19, 24, 52])
def test_a_bound_that_is_proved_for_several_outputs_holds(seed):
    """Its prices were those of two rows, where a mask of rows was taken for indices."""
    rng = np.random.default_rng(seed)
    rows, targets = rng.standard_normal((7, 2)), rng.standard_normal((7, 3))
    model = ConvexBNRegressor(weight_decay=0.003, tol=1e-2, prove=True)
    found, best = (model.fit(given, targets).certificate_ for given in (read_rows([rows[:3], rows[3:]]), rows))
    assert found.scope == "global"
    assert found.lower_bound <= best.objective


def test_weights_of_the_source_and_those_given():
    weights = RNG.uniform(0.5, 2, 300)
    weights[:20] = 0
    model = ConvexBNRegressor(weight_decay=0.05, tol=1e-6, prove=False)
    expected = model.fit(X, Y, sample_weight=weights).certificate_.objective
    assert model.fit(blocks(Y, sample_weight=weights)).certificate_.objective == pytest.approx(expected, rel=1e-6)
    assert model.fit(blocks(None), Y, sample_weight=weights).certificate_.objective == pytest.approx(expected, rel=1e-6)


def test_values_are_chosen_on_held_out_samples():
    model = ConvexBNRegressor(tol=0.01).fit(blocks(Y))
    assert model.score(blocks(None), Y) > 0.95
    assert len(model.validation_scores_["mean_score"]) > 5


def test_classes():
    labels = np.array(["a", "b", "c"])[np.digitize(X[:, 0] + X[:, 1], [-0.5, 0.5])]
    model = ConvexBNClassifier(weight_decay=0.02, tol=1e-3).fit(blocks(labels))
    assert model.score(X, labels) > 0.9
    np.testing.assert_allclose(model.predict_proba(blocks(None)), model.predict_proba(X), rtol=1e-12)


def test_a_large_source_is_chosen_on_a_part(monkeypatch):
    monkeypatch.setattr("convexbn.estimators._hold_out._MOST_ROWS", 100)
    model = ConvexBNRegressor(tol=0.01).fit(X, Y)
    assert (model.validation_scores_["n_train"] < 100).all()
    assert model.score(X, Y) > 0.9


def test_more_columns_than_rows():
    wide = RNG.standard_normal((20, 50))
    model = ConvexBNRegressor(0.1)
    expected = model.fit(wide, wide[:, 0]).certificate_
    found = model.fit(read_rows(wide, target=wide[:, 0], block_bytes=8 * 50 * 6)).certificate_
    assert found.objective == pytest.approx(expected.objective, rel=1e-9)
    assert found.scope == expected.scope == "global"


def test_what_cannot_be_read_in_blocks_is_refused():
    with pytest.raises(ValueError, match=r"X has no targets; give y, or name them in read_rows"):
        ConvexBNRegressor().fit(blocks(None))
    with pytest.raises(ValueError, match=r"read in blocks, which ConvexBNRegressorCV does not do; take ConvexBNReg"):
        ConvexBNRegressorCV().fit(blocks(Y), Y)
    with pytest.raises(ValueError, match="fitted on 2"):
        ConvexBNRegressor(weight_decay=0.1).fit(X[:, :2], Y).predict(blocks(None))


def test_memory_is_that_of_a_block_and_of_numbers_of_each_sample():
    n, d, size = 400_000, 10, 20_000

    def make():
        for seed in range(n // size):
            rows = np.random.default_rng(seed).random((size, d), dtype=np.float32) - np.float32(0.5)
            yield rows, np.maximum(rows[:, 0], 0) + rows[:, 1]

    source = read_rows(make)
    design = BatchNormDesign().fit(source)
    problem = Problem(design.matrix(source), source.y, weight_decay=0.05)
    tracemalloc.start()
    try:
        (neurons,) = fast_path(problem, [0.05], random_state=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(neurons) > 0
    assert (
        peak < 8 * n * 12 + 4e7
    )  # the rows alone are 10 numbers a sample, hidden outputs of 50 neurons five times that
