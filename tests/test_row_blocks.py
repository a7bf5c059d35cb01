"""Data in memory maps: the same problem, read a block of rows at a time."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from convexbn import (
    BatchNormDesign,
    ConvexBNClassifier,
    ConvexBNRegressor,
    DesignMatrix,
    Neurons,
    Problem,
    WeightNormDesign,
    read_rows,
    sample_patterns,
    solve_column_generation,
    solve_gated,
)
from convexbn._utils.on_disk import is_on_disk
from convexbn.designs._post_activation import PostActivationBatchNormDesign
from convexbn.operators import RowBlocks
from convexbn.oracles import price_bound
from convexbn.rows import ArrayRows
from convexbn.solvers import ACCURATE
from convexbn.solvers.relu._newton import newton


def mapped(X, folder):
    """The same data in a file."""
    file = np.memmap(folder / "X.dat", dtype=X.dtype, mode="w+", shape=X.shape)
    file[:] = X
    file.flush()
    return np.memmap(folder / "X.dat", dtype=X.dtype, mode="r", shape=X.shape)


@pytest.fixture
def all_maps(monkeypatch):
    """Memory maps of any size are read in blocks."""
    monkeypatch.setattr("convexbn._utils.on_disk.LEAST_ENTRIES", 1)


def data(n=200, d=4, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * np.logspace(0, 3, d) + 100
    signal = (X[:, 0] - 100) / X[:, 0].std()
    return X, np.abs(signal) + 0.3 * rng.standard_normal(n)


def test_what_is_on_disk(tmp_path, all_maps):
    X = data()[0]
    file = mapped(X, tmp_path)
    assert is_on_disk(file)
    assert is_on_disk(np.asarray(file)[3:, ::2].T)
    for other in (X, file[[2, 1]], file + 1, np.array(file), X.tolist(), None):  # copies, some of the class np.memmap
        assert not is_on_disk(other)


def test_small_maps_are_read_into_memory(tmp_path):
    X = data()[0]
    file = mapped(X, tmp_path)
    assert not is_on_disk(file)
    assert isinstance(BatchNormDesign().fit(file).matrix(file), DesignMatrix)


SAMPLES = [slice(None), slice(3, 150), slice(None, None, 7), np.array([5, 2, 2, 60])]


@pytest.mark.parametrize("block_entries", [2**22, 2**9])  # one block, and many
@pytest.mark.parametrize("weighted", [False, True])
def test_the_products_are_those_of_the_dense_kind(block_entries, weighted, tmp_path, all_maps, monkeypatch):
    monkeypatch.setattr("convexbn.operators._slices._BLOCK_ENTRIES", block_entries)
    X, rng = data()[0], np.random.default_rng(1)
    design = BatchNormDesign(spectral_power=0.5).fit(X)
    whole, dense = design.matrix(mapped(X, tmp_path)), design.matrix(X)
    assert isinstance(whole, RowBlocks)
    assert whole._summary() == dense._summary()
    weights, basis = rng.standard_normal((200, 1)), rng.standard_normal((5, 3))
    if weighted:
        whole, dense = whole.weighted(weights).weighted(weights + 1), dense.weighted(weights * (weights + 1))
    for one, other in [
        *((whole.of_samples(some), dense.of_samples(some)) for some in SAMPLES),
        (whole.of_samples(SAMPLES[3]).of_samples(slice(1, 3)), dense.of_samples(np.array([2, 2]))),
        (whole / 3, dense / 3),
        (whole.times(basis), dense.times(basis)),
        (whole.unpooled, dense.unpooled),
        (whole.in_single_precision, dense.in_single_precision),
    ]:
        n, k = one.n_samples, one.n_columns
        assert (n, k) == (other.n_samples, other.n_columns)
        S, A = rng.standard_normal((k, 2)), rng.standard_normal((n, 2))
        masks, p = A > 0, rng.uniform(size=n)
        single = one.rows().dtype == np.float32
        for found, expected in [
            (one @ S, other @ S),
            (one.adjoint(A), other.adjoint(A)),
            (one.rows(), other.rows()),
            (one.rows(slice(1, 3)), other.rows(slice(1, 3))),
            (one.rows(np.array([[1, 0, 3]]) % n), other.rows(np.array([[1, 0, 3]]) % n)),
            (one.rows(A[:, 0] >= A[0, 0]), other.rows(A[:, 0] >= A[0, 0])),
            (one.row_norms, other.row_norms),
            (one.neuron_outputs(S), other.neuron_outputs(S)),
            (one.masked_gram(masks, p), other.masked_gram(masks, p)),
            (one.gram(p[:, None]), other.gram(p[:, None])),
            (one.spectral_norm, other.spectral_norm),
            (one.hyperplanes.first, other.hyperplanes.first),
        ]:
            assert np.result_type(found) == np.result_type(expected)
            scale = np.abs(expected).max()
            assert np.abs(found - expected).max() <= (1e-5 if single else 1e-11) * scale


def test_prices_and_networks_of_problems(tmp_path, all_maps):
    X, y = data()
    design = BatchNormDesign().fit(X)
    whole, dense = (
        Problem(design.matrix(rows), y, weight_decay=0.1, fit_intercept=True) for rows in (mapped(X, tmp_path), X)
    )
    v = whole.zero_dual
    assert price_bound(whole.Z, v).value == pytest.approx(price_bound(dense.Z, v).value, rel=1e-12)
    one, other = (solve_column_generation(p, prove=False, tol=1e-7, random_state=0) for p in (whole, dense))
    assert one.certificate.objective == pytest.approx(other.certificate.objective, rel=1e-6)
    assert dense.objective(one.neurons) == pytest.approx(one.certificate.objective, rel=1e-10)


@pytest.mark.parametrize(("n", "d"), [(100, 4), (40, 60)])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_gated_networks_in_blocks(n, d, n_outputs, monkeypatch):
    """Blocks are the same in the basis of the rows, which has fewer columns where there are more columns than rows."""
    rng = np.random.default_rng(0)
    X, slopes, offsets = rng.standard_normal((n, d)), rng.standard_normal((d, d + 1)) / d, np.eye(d + 1)[-1]
    monkeypatch.setattr("convexbn.operators._slices._BLOCK_ENTRIES", 8 * 7 * (d + 1) - 1)
    in_blocks = RowBlocks(read_rows(X), X.mean(axis=0), slopes, offsets)
    y = X[:, :n_outputs] ** 2
    solutions = []
    for Z in (DesignMatrix(in_blocks.rows()), in_blocks):
        problem = Problem(Z, y, weight_decay=0.02, fit_intercept=True)
        solutions.append(solve_gated(problem, sample_patterns(Z, 15, random_state=0), tol=1e-9).certificate)
    assert len(in_blocks._samples) > 5
    assert solutions[1].objective == pytest.approx(solutions[0].objective, rel=1e-8)


@pytest.mark.parametrize("kind", [ConvexBNRegressor, ConvexBNClassifier])
def test_estimators_reach_the_same_objective(kind, tmp_path, all_maps):
    X, y = data()
    y = y if kind is ConvexBNRegressor else y > 0.7
    weights = 1.0 + np.arange(len(y)) % 3
    file = mapped(X, tmp_path)
    one, other = (kind(0.05, tol=1e-7, prove=False).fit(rows, y, weights) for rows in (file, X))
    assert one.certificate_.objective == pytest.approx(other.certificate_.objective, rel=1e-6)
    assert np.abs(one.network_.predict(file) - other.network_.predict(X)).max() < 1e-3
    assert np.array_equal(one.predict(file), one.predict(X))


@pytest.mark.filterwarnings("ignore:The last fit stopped:sklearn.exceptions.ConvergenceWarning")
def test_choices_on_held_out_samples(tmp_path, all_maps):
    X, y = data(n=90, d=2)
    one, other = (ConvexBNRegressor(tol=0.05, prove=False).fit(rows, y) for rows in (mapped(X, tmp_path), X))
    assert np.isin(one.weight_decay_, one.validation_scores_["weight_decay"])
    assert one.score(X, y) == pytest.approx(other.score(X, y), abs=0.05)


def test_normalization_after_the_relu_is_dense(tmp_path, all_maps):
    X = data()[0]
    assert isinstance(PostActivationBatchNormDesign().fit(X).matrix(mapped(X, tmp_path)), DesignMatrix)


def test_weights_of_zero_would_copy_it(tmp_path, all_maps):
    X, y = data()
    weights = np.ones(len(y))
    weights[3] = 0
    with pytest.raises(ValueError, match="sample_weight is zero for 1 samples of a memory map"):
        ConvexBNRegressor(0.1).fit(mapped(X, tmp_path), y, weights)


def traced(function):
    """The result, and the largest number of bytes that were allocated on the way."""
    tracemalloc.start()
    try:
        result = function()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_that_of_blocks_and_active_neurons(tmp_path, all_maps):
    """Also where Z has so few columns that all its rows are asked for at once."""
    n, d, rng = 20_000, 300, np.random.default_rng(0)
    X = rng.standard_normal((n, d)) + 1
    X[:, 1:] += X[:, :1] / 2
    y = np.maximum(X[:, 0] - 1, 0) + 0.1 * rng.standard_normal(n)
    file, size = mapped(X, tmp_path), X.nbytes
    del X
    few = {"n_starts": 8, "last_search": 1, "first_neurons": (0, 0), "new_neurons": 2, "newton_sweeps": 1}
    options = replace(ACCURATE, polish=False, **few)

    def trained():
        Z = BatchNormDesign(n_components=16).fit(file).matrix(file)
        assert isinstance(Z, RowBlocks)
        problem = Problem(Z, y, weight_decay=0.1, fit_intercept=True)
        return solve_column_generation(problem, options=options, prove=False, tol=1e-2, max_iter=2, random_state=0)

    solution, peak = traced(trained)
    assert len(solution.neurons) > 0
    assert solution.certificate.objective < 0.99 * np.var(y) / 2
    assert size > 8 * 2**22
    assert peak < size / 2


@pytest.mark.parametrize("design", [BatchNormDesign(n_components=4), WeightNormDesign(n_components=4)])
def test_a_matrix_of_few_columns_is_in_memory(design):
    """Which takes one pass over far wider data, where every product would take another."""
    X, passes = data(200, 40)[0], []

    def make():
        passes.append(None)
        return iter(np.split(X, 4))

    source = read_rows(make)
    design.fit(source)
    passes.clear()
    Z = design.matrix(source)
    assert isinstance(Z, DesignMatrix)
    np.testing.assert_allclose(Z.rows(), design.matrix(X).rows(), atol=1e-12)
    assert len(passes) == 1
    assert isinstance(design.set_params(n_components=5).fit(source).matrix(source), RowBlocks)


def test_memory_of_newton_steps_is_that_of_blocks(tmp_path, all_maps):
    """A step of many neurons, whose products with all rows would take more than is allowed."""
    n, m, rng = 300_000, 40, np.random.default_rng(0)
    file = mapped(rng.standard_normal((n, 4)), tmp_path)
    Z = BatchNormDesign().fit(file).matrix(file)
    problem = Problem(Z, np.abs(file[:, 0]), weight_decay=0.001)
    neurons = Neurons(rng.standard_normal((5, m)), np.where(np.arange(m) % 2, 1.0, -1.0)[:, None], np.zeros(1))
    limits = {"rtol": 0.0, "damping": 1.0, "max_sweeps": 1, "block_weights": 1000, "max_steps": 1}
    before = problem.objective(neurons)
    assert Z.hyperplanes.all_differ
    (moved, n_steps), peak = traced(lambda: newton(problem, neurons, **limits, stop=lambda: False))
    assert n_steps == 1
    assert problem.objective(moved) < before
    assert peak < 8 * n * m / 2


def test_an_estimator_copies_neither_data_nor_design_matrix(tmp_path, all_maps):
    file = mapped(np.random.default_rng(0).standard_normal((16_000, 200)), tmp_path)
    y = np.maximum(file[:, 0], 0)
    model = ConvexBNRegressor(0.1, max_time=1e-9, prove=False)  # out of time, and so after a step of its first neurons
    peaks = []
    for X in (file, np.array(file)):
        with pytest.warns(UserWarning, match="max_time"):
            peaks.append(traced(lambda X=X: model.fit(X, y).predict(X))[1])
    assert peaks[1] - peaks[0] > 2 * file.nbytes  # the samples in order, and their design matrix
    assert peaks[0] < 2 * file.nbytes  # neurons that move, and blocks


@pytest.mark.parametrize(("mean", "size"), [(1000.0, 1.0), (0.0, 1e-33)])
def test_blocks_of_single_precision_data_are_as_accurate_as_the_data(mean, size):
    """Far from zero, and where slopes are too large for single precision."""
    rng = np.random.default_rng(0)
    X = (mean + size * rng.standard_normal((200, 3))).astype(np.float32)
    centre, slopes = X.mean(axis=0, dtype=np.float64), rng.standard_normal((3, 4)) / size
    Z = RowBlocks(ArrayRows(X), centre, slopes, rng.standard_normal(4), rng.random((200, 1)))
    single = Z.in_single_precision
    assert single.rows().dtype == np.float32
    np.testing.assert_allclose(single.rows(), Z.rows(), atol=3e-6)
