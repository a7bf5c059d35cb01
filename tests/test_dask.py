"""Rows on the workers of a dask cluster: the operator, and the estimators on dask collections."""

import os
import pickle
import signal
import warnings
from functools import partial

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from convexbn import (
    ConvexBNClassifier,
    ConvexBNRegressor,
    DesignMatrix,
    Problem,
    sample_patterns,
    solve_column_generation,
    solve_gated,
)
from convexbn.dask import DaskConvexBNClassifier, DaskConvexBNRegressor, RowsLostError
from convexbn.model._sums import along_outputs, neuron_outputs
from convexbn.operators import DaskMatrix, _dask
from convexbn.oracles._kinks import Kinks
from tests.test_operators import CASES, TALL, V, on_dense, rows_of

distributed = pytest.importorskip("distributed")
da, dd = pytest.importorskip("dask.array"), pytest.importorskip("dask.dataframe")
pd = pytest.importorskip("pandas")
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def client():
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture
def all_stay(monkeypatch):
    """Few samples that are chosen are not brought into memory."""
    monkeypatch.setattr("convexbn.operators._dask.FEW_ENTRIES", -1)


def on_workers(client, rows, n_patches=1, sizes=None):
    n_samples = len(rows) // n_patches
    sizes = sizes or [n_samples // 2, 1, n_samples - n_samples // 2 - 1]
    parts = np.split(rows, n_patches * np.cumsum(sizes)[:-1])
    blocks = [client.submit(DesignMatrix, part, n_patches, pure=False) for part in parts]
    return DaskMatrix(client, blocks, sizes, rows.shape[1], n_patches)


FAST_CASES = ("fast path", "fast path, patches", "bound", "closed form")
SLOW_CASES = ("column generation", "several outputs", "repeated rows", "patches", "gated", "gated, several outputs")


@pytest.mark.parametrize("case", [*FAST_CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW_CASES)])
def test_every_solver_takes_rows_on_workers(client, case):
    rows, n_patches, solved = CASES[case]
    expected, found = on_dense(case)[0], solved(on_workers(client, rows, n_patches))[0]
    assert found == pytest.approx(expected, rel=1e-3 if case.startswith("fast path") else 1e-6)


@pytest.mark.parametrize("n_patches", [1, 2])
def test_products_of_rows_on_workers(client, all_stay, n_patches):
    whole, Z = DesignMatrix(TALL, n_patches), on_workers(client, TALL, n_patches)
    S, G, v = RNG.standard_normal((3, 4)), RNG.standard_normal((3, 4)), V[: 16 // n_patches]
    masks, weights = TALL @ G >= 0, np.arange(1.0, 17)[:, None]
    along = {"weights": S}
    close = partial(np.testing.assert_allclose, atol=1e-12)
    close(Z.summed(along_outputs, Z.place(v), **along), whole.summed(along_outputs, v, **along))
    close(Z.mapped(neuron_outputs, **along), whole.neuron_outputs(S))
    held = Z.hold(neuron_outputs, **along)
    close(np.concatenate(client.gather(held)), whole.neuron_outputs(S))
    close(Z @ S, whole @ S)
    close(Z.adjoint(masks), whole.adjoint(masks))
    close(Z.weighted(weights).rows(), whole.weighted(weights).rows())
    close(Z.times(S).rows(), whole.times(S).rows())
    close((Z / 2).rows(), (whole / 2).rows())
    close(Z.unpooled.neuron_outputs(S), whole.unpooled.neuron_outputs(S))
    close(Z.gram(weights), whole.gram(weights))
    close(Z.gated_outputs(G, S), whole.gated_outputs(G, S))
    close(Z.masked_adjoint(masks, v[:, :1]), whole.masked_adjoint(masks, v[:, :1]))
    of_samples = weights[: 16 // n_patches, 0]
    close(Z.masked_gram(masks, of_samples), whole.masked_gram(masks, of_samples))
    close(Z.row_norms, whole.row_norms)
    close(Z.column_extremes, whole.column_extremes)
    assert Z.spectral_norm == pytest.approx(whole.spectral_norm)
    np.testing.assert_array_equal(Z.packed_patterns(G), whole.packed_patterns(G))
    single = Z.in_single_precision
    assert (single @ S).dtype == single.adjoint(masks).dtype == np.float32
    assert single.in_single_precision is single


@pytest.mark.parametrize(
    "samples", [slice(None), slice(None, None, 3), np.array([1, 3, 4, 7]), np.array([6, 0, 5, 2]), np.arange(8) > 4]
)
@pytest.mark.parametrize("stays", [True, False])
def test_samples_of_rows_on_workers(client, monkeypatch, samples, stays):
    monkeypatch.setattr("convexbn.operators._dask.FEW_ENTRIES", -1 if stays else 1000)
    found = on_workers(client, TALL, 2).of_samples(samples)
    np.testing.assert_array_equal(found.rows(), DesignMatrix(TALL, 2).of_samples(samples).rows())
    assert isinstance(found, DaskMatrix) is stays


def test_whole_blocks_are_not_copied(client, all_stay):
    Z = on_workers(client, TALL, sizes=[4, 6, 6])
    some = Z.of_samples(np.arange(4, 15))
    assert some.sizes == [6, 5]
    assert some.blocks[0] is Z.blocks[1]
    np.testing.assert_array_equal(some.rows(), TALL[4:15])


def data(n=200, d=3, noise=0.1):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    return X, np.abs(X[:, 0]) + X[:, 1] + noise * rng.standard_normal(n)


def chunked(X, sizes):
    return da.from_array(X, chunks=(tuple(sizes), X.shape[1]))


@pytest.mark.parametrize("normalization", ["batch", "weight"])
def test_regressor_ends_where_the_one_in_memory_does(client, normalization):
    """The few rows are brought into memory."""
    X, y = data(60, 2)
    parameters = {"weight_decay": 0.05, "normalization": normalization, "tol": 1e-7, "prove": False}
    local = ConvexBNRegressor(**parameters).fit(X, y)
    model = DaskConvexBNRegressor(**parameters).fit(chunked(X, [30, 0, 25, 5]), da.from_array(y, chunks=20))
    assert model.certificate_.objective == pytest.approx(local.certificate_.objective, rel=1e-6)
    predicted = model.predict(chunked(X, [30, 0, 30]))
    assert predicted.chunks == ((30, 0, 30),)
    np.testing.assert_allclose(predicted.compute(), local.predict(X), rtol=1e-3, atol=1e-3)
    assert model.score(chunked(X, [60]), da.from_array(y, chunks=20)) == pytest.approx(local.score(X, y), abs=1e-3)
    assert model.client_ is client


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_regressor_whose_rows_stay_on_the_workers(client, all_stay, dtype):
    X, y = data(40, 2)
    parameters = {"weight_decay": 0.2, "tol": 1e-7, "prove": False}
    local = ConvexBNRegressor(**parameters).fit(X.astype(dtype), y)
    model = DaskConvexBNRegressor(**parameters).fit(chunked(X.astype(dtype), [20, 0, 15, 5]), y)
    assert model.certificate_.objective == pytest.approx(local.certificate_.objective, rel=1e-6)


def tuned(model, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(*args, **options)


@pytest.mark.slow
def test_choice_holds_blocks_out_and_is_the_same_twice(client, monkeypatch):
    """The rows of all folds together stay on the workers, those of a fold are few."""
    monkeypatch.setattr("convexbn.operators._dask.FEW_ENTRIES", 700)
    X, y = data(250, 2, noise=0.3)  # so that few neurons are chosen
    rows, parameters = chunked(X, [60, 40, 50, 50, 50]), {"max_iter": 1, "tol": 0.1, "spectral_power": 0.0}
    first, again = (tuned(DaskConvexBNRegressor(**parameters), rows, y) for _ in range(2))
    assert first.score(X, y) > 0.9
    np.testing.assert_array_equal(first.network_.weights, again.network_.weights)
    assert first.certificate_.objective == again.certificate_.objective
    assert set(first.validation_scores_["n_train"]) == {200.0}  # five blocks are five folds


def test_choice_with_one_block_holds_samples_out(client):
    X, y = data(250, 2, noise=0.3)
    model = tuned(DaskConvexBNRegressor(max_iter=1, tol=0.1, spectral_power=0.0), chunked(X, [250]), y)
    assert model.score(X, y) > 0.9
    assert set(model.validation_scores_["n_train"]) == {200.0}


def test_several_outputs_and_sample_weights(client):
    X, y = data(60, 2)
    Y, weights = np.column_stack([y, 100 * X[:, 0]]), np.tile([0.0, 1.0, 2.0], 20)
    parameters = {"weight_decay": 0.3, "tol": 1e-6}
    local = ConvexBNRegressor(**parameters).fit(X, Y, weights)
    model = DaskConvexBNRegressor(**parameters).fit(
        chunked(X, [1, 29, 30]), da.from_array(Y, chunks=(30, 1)), da.from_array(weights, chunks=15)
    )
    assert model.certificate_.objective == pytest.approx(local.certificate_.objective, rel=1e-5)
    assert model.predict(chunked(X, [30, 30])).shape == (60, 2)


def test_classifier_of_a_dataframe(client):
    X, y = data(90, 2)
    frame = pd.DataFrame(X, columns=["a", "b"])
    frame["label"] = np.digitize(y, [0, 1]).astype(str)
    frames = dd.from_pandas(frame, npartitions=3)
    names, parameters = ["a", "b"], {"weight_decay": 0.02, "tol": 1e-3}
    local = ConvexBNClassifier(**parameters).fit(frame[names], frame["label"])
    model = DaskConvexBNClassifier(**parameters).fit(frames[names], frames["label"])
    assert list(model.feature_names_in_) == names
    assert list(model.classes_) == ["0", "1", "2"]
    assert model.certificate_.objective == pytest.approx(local.certificate_.objective, rel=2e-3)
    labels, probabilities = model.predict(frames[names]).compute(), model.predict_proba(frames[names]).compute()
    assert (labels == local.predict(frame[names])).mean() > 0.95
    np.testing.assert_array_equal(labels, model.classes_[probabilities.argmax(axis=1)])
    np.testing.assert_array_equal(labels, model.to_local().predict(frame[names]))
    assert model.decision_function(frames[names]).compute().shape == (90, 3)


def test_single_precision_stays_so(client):
    X, y = data(100, 2)
    model = DaskConvexBNRegressor(0.1).fit(chunked(X.astype(np.float32), [50, 50]), y)
    expected = ConvexBNRegressor(0.1).fit(X.astype(np.float32), y)
    assert model.certificate_.objective == pytest.approx(expected.certificate_.objective, rel=1e-6)


def test_local_estimator_is_the_same(client):
    X, y = data(40, 2)
    model = DaskConvexBNRegressor(0.1, client=client).fit(chunked(X, [20, 20]), y)
    local = model.to_local()
    assert type(local) is ConvexBNRegressor
    assert local.certificate_ is model.certificate_
    assert local.n_features_in_ == 2
    np.testing.assert_array_equal(local.predict(X), model.predict(X))
    kept = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(kept.predict(X), model.predict(X))
    assert clone(model).client is client
    assert clone(model).get_params() == model.get_params()


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((4, 2)), "dask.array.from_array"),
        (da.zeros((4, 2), chunks=2)[da.zeros(4, chunks=2) == 0], "compute_chunk_sizes"),
        (da.zeros((4, 2, 2), chunks=2), "reshape"),
        (da.full((4, 2), np.nan, chunks=2), "contains NaN"),
        (da.zeros((4, 2), chunks=2), "All rows of X are equal"),
        (da.full((4, 2), "a", chunks=2), "must hold real numbers"),
        (da.zeros((0, 2), chunks=2), "no rows"),
        (da.zeros((5, 2), chunks=2), "inconsistent numbers of samples"),
    ],
)
def test_bad_data_is_refused(client, X, message):
    with pytest.raises(ValueError, match=message):
        DaskConvexBNRegressor(0.1, client=client).fit(X, np.arange(4.0))


def test_bad_parameters_are_refused(client):
    X, y = data(20, 2)
    with pytest.raises(ValueError, match="in memory"):
        DaskConvexBNRegressor(0.1, normalization="batch_after_relu").fit(chunked(X, [20]), y)
    with pytest.raises(ValueError, match="weight_decay"):
        DaskConvexBNRegressor(-1.0).fit(chunked(X, [20]), y)


def test_without_a_client_the_error_says_how_to_start_one(monkeypatch):
    def none():
        raise ValueError("No global client found")

    monkeypatch.setattr("distributed.get_client", none)
    X, y = data(20, 2)
    with pytest.raises(ValueError, match=r"Client\(LocalCluster\(\)\)"):
        DaskConvexBNRegressor(0.1).fit(chunked(X, [20]), y)


def test_interrupt_keeps_the_network(client, all_stay, monkeypatch):
    X, y = data(60, 2)
    calls, run = [], client.run

    def interrupted(*args, **options):
        calls.append(args)
        if len(calls) == 60:
            raise KeyboardInterrupt
        return run(*args, **options)

    monkeypatch.setattr(client, "run", interrupted)
    model = DaskConvexBNRegressor(0.01, client=client)
    with pytest.raises(KeyboardInterrupt, match="best network"), pytest.warns(ConvergenceWarning):
        model.fit(chunked(X, [30, 30]), y)
    assert len(calls) > 60
    assert model.certificate_.objective > 0


@pytest.mark.slow
def test_fit_goes_on_when_a_worker_is_lost():
    """Dask computes its blocks again, and what was placed beside them; products may be rounded otherwise there."""
    rows, y = rows_of(200, 2), np.abs(np.random.default_rng(3).standard_normal((200, 1)))
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    networks, killed, rounds = [], [], []
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        Z = on_workers(client, rows, sizes=[60, 40, 50, 50])

        def kill(progress):
            if not killed:
                where = client.who_has(Z.blocks)[Z.blocks[0].key][0]
                killed.append(next(w for w in cluster.workers.values() if w.worker_address == where).pid)
                os.kill(killed[0], signal.SIGKILL)
            rounds.append(progress.n_iter)
            return progress.n_iter >= 2

        for callback in (lambda progress: progress.n_iter >= 2, kill):
            limits = {"random_state": 0, "tol": 1e-12, "prove": False, "callback": callback}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                networks.append(solve_column_generation(Problem(Z, y, weight_decay=0.05), **limits).neurons)
    assert killed
    assert rounds == [1, 2]
    one, other = (network.outputs(DesignMatrix(rows)) for network in networks)  # neurons may change places
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_fit_goes_on_when_all_workers_are_lost_at_once():
    """The blocks are computed on the workers that come instead."""
    X, y = data(400, 2)
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        model = DaskConvexBNRegressor(0.02, tol=1e-3, prove=False, client=client)
        whole = model.fit(chunked(X, 4 * [100]), y).predict(X)
        for worker in cluster.workers.values():
            os.kill(worker.pid, signal.SIGKILL)
        again = model.fit(chunked(X, 4 * [100]), y).predict(X)
    np.testing.assert_allclose(again, whole, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("solver", ["column generation", "gated"])
def test_rows_that_cannot_be_computed_again_end_in_an_error_with_the_best_network(client, solver):
    rows, objectives = rows_of(60, 2), []
    y = np.abs(np.random.default_rng(3).standard_normal((60, 1)))
    Z = on_workers(client, rows)
    problem, in_memory = (Problem(of, y, weight_decay=0.02) for of in (Z, rows))

    def lose(progress):
        client.cancel(Z.blocks)
        objectives.append(progress.objective)

    solve = {
        "gated": partial(solve_gated, patterns=sample_patterns(rows, 30, random_state=0)),
        "column generation": partial(solve_column_generation, random_state=0, prove=False),
    }[solver]
    with pytest.raises(RowsLostError, match="lost with the worker") as lost:
        solve(problem, tol=1e-12, callback=lose)
    assert in_memory.objective(lost.value.best) == pytest.approx(objectives[-1], rel=1e-6)


def test_cluster_that_goes_away_leaves_the_best_network(all_stay):
    X, y = data(60)
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        model = DaskConvexBNRegressor(0.01, client=client, callback=lambda progress: cluster.close())
        with pytest.raises(RowsLostError, match="or with the cluster") as lost:
            model.fit(chunked(X, [30, 30]), y)
    assert not hasattr(model, "network_")
    assert np.mean((lost.value.best.predict(X)[:, 0] - y) ** 2) < 0.2 * y.var()


@pytest.mark.parametrize("case", ["differ", "repeated", pytest.param("classes", marks=pytest.mark.slow)])
def test_what_comes_to_the_client_is_small_beside_rows_times_neurons(client, all_stay, monkeypatch, case):
    """In Newton steps, polish and merging of the preset ACCURATE; a number a sample and output travels."""
    n = 4000
    rows, rng = rows_of(n, 2), np.random.default_rng(3)
    rows = np.concatenate([rows[: -n // 8], -2 * rows[: n // 8]]) if case == "repeated" else rows
    y = np.abs(rows[:, :1]) + np.sin(2 * rows[:, 1:2]) + 0.1 * rng.standard_normal((n, 1))
    loss = "squared_error"
    if case == "classes":
        y, loss = np.eye(2)[(y[:, 0] > 0.5).astype(int)], "cross_entropy"
    sizes, values = [], _dask.values

    def watched(*args):
        found = values(*args)
        sizes.extend(np.size(part) for value in found for part in parts_of(value))
        return found

    monkeypatch.setattr("convexbn.operators._dask.values", watched)
    options = {"random_state": 0, "prove": False, "max_iter": 1, "tol": 1e-12}
    of_rows = {"loss": loss, "weight_decay": 0.003}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        solution = solve_column_generation(Problem(on_workers(client, rows), y, **of_rows), **options)
    in_memory = Problem(rows, y, **of_rows)
    assert in_memory.objective(solution.neurons) == pytest.approx(solution.certificate.objective, rel=1e-9)
    assert solution.certificate.objective < 0.5 * in_memory.zero_objective
    assert len(solution.neurons) >= 6
    assert max(sizes) < n * len(solution.neurons) / 6


def parts_of(value):
    """The arrays and numbers in a value of a function of blocks."""
    parts = value if isinstance(value, tuple) else vars(value).values() if isinstance(value, Kinks) else [value]
    return [part for part in parts if isinstance(part, (np.ndarray, np.generic, float))] + [
        part for kinks in parts if isinstance(kinks, Kinks) for part in parts_of(kinks)
    ]
