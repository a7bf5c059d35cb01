"""Solvers use the design matrix through the protocol alone: here is a kind of it without an array to reach for."""

from functools import cache, cached_property
from threading import get_ident

import numpy as np
import pytest
from sklearn.base import clone

from convexbn import (
    BatchNormDesign,
    ConvexBNRegressor,
    DesignMatrix,
    PatchDesign,
    Problem,
    WeightNormDesign,
    decompose,
    enumerate_patterns,
    read_rows,
    sample_patterns,
    solve,
    solve_closed_form,
    solve_column_generation,
    solve_gated,
    solve_reference,
)
from convexbn._utils.array_namespace import to_numpy
from convexbn._utils.threads import on_threads
from convexbn.model import prune
from convexbn.model._sums import along_outputs, neuron_outputs
from convexbn.operators import DeviceMatrix, Operator, RowBlocks
from convexbn.operators._masked import MaskedProducts
from convexbn.operators._pooled import PooledProducts
from convexbn.oracles import (
    price_bound,
    price_by_ascent,
    price_by_branch_and_bound,
    price_by_enumeration,
    weight_decay_max,
)
from convexbn.solvers._by_class import Classes, solve_by_class
from convexbn.solvers.relu._fast import fast_path
from tests.problems import products_of


class Chunks(Operator):
    """Rows in several arrays: what the protocol demands, and nothing else."""

    def __init__(self, chunks, n_patches=1):
        self.chunks, self.n_patches = chunks, n_patches

    n_rows = property(lambda self: sum(map(len, self.chunks)))
    n_columns = property(lambda self: self.chunks[0].shape[1])

    def __matmul__(self, S):
        return np.concatenate([chunk @ S.astype(chunk.dtype, copy=False) for chunk in self.chunks])

    def adjoint(self, A):
        parts = zip(self.chunks, self.split(A), strict=True)
        return sum(chunk.T @ part.astype(chunk.dtype, copy=False) for chunk, part in parts)

    def split(self, A):
        return np.split(A, np.cumsum([len(chunk) for chunk in self.chunks])[:-1])

    def rows(self, chosen=slice(None)):
        return np.concatenate(self.chunks)[chosen]

    def of_samples(self, samples):
        rows = self.rows().reshape(self.n_samples, self.n_patches, -1)[samples].reshape(-1, self.n_columns)
        return Chunks(np.array_split(rows, len(self.chunks)), self.n_patches)

    @property
    def unpooled(self):
        return Chunks(self.chunks)

    def __truediv__(self, size):
        return Chunks([chunk / size for chunk in self.chunks], self.n_patches)

    def times(self, basis):
        return Chunks([chunk @ basis for chunk in self.chunks], self.n_patches)

    def weighted(self, weights):
        parts = zip(self.chunks, self.split(weights), strict=True)
        return Chunks([chunk * part.astype(chunk.dtype, copy=False) for chunk, part in parts], self.n_patches)

    @cached_property
    def in_single_precision(self):
        return Chunks([chunk.astype(np.float32) for chunk in self.chunks], self.n_patches)


def kinds(rows, n_patches=1):
    """The dense kind, and two others of the same rows."""
    return DesignMatrix(rows, n_patches), *(Chunks(np.array_split(rows, n), n_patches) for n in (1, 3))


def rows_of(n, d, seed=0):
    return BatchNormDesign().fit_transform(np.random.default_rng(seed).standard_normal((n, d)))


RNG = np.random.default_rng(1)
TALL, TWICE, WIDE, TINY = rows_of(16, 2), np.repeat(rows_of(8, 2), 2, axis=0), rows_of(8, 10), rows_of(5, 2)
V, CLASS = RNG.standard_normal((16, 3)), np.array([0, 0, 1, 1, 1, 2, 2, 2])


def problem(Z, y, loss="squared_error"):
    return Problem(Z, y, loss, weight_decay=0.05, fit_intercept=loss != "squared_error")


def of_solution(solution):
    return solution.certificate.objective, solution.certificate.lower_bound, solution.neurons.weights, solution.dual


def columns(Z, y, loss="squared_error"):
    return of_solution(solve_column_generation(problem(Z, y, loss), random_state=0))


def by_class(Z):
    return of_solution(solve_by_class(Classes.of(problem(Z, np.eye(3)[CLASS], "cross_entropy")), random_state=0))


def gated(Z, y, loss="huber"):
    return of_solution(solve_gated(problem(Z, y, loss), sample_patterns(Z, 10, random_state=0)))


def conic(Z, y, **options):
    return of_solution(solve_reference(problem(Z, y), enumerate_patterns(Z), **options))


def decomposed(Z):
    p = problem(Z, V[:, :1])
    relu = decompose(p, solve_gated(p, sample_patterns(Z, 10, random_state=0)).neurons)
    return p.objective(relu), prune(relu, Z).weights


def along_path(Z, y):
    path = list(fast_path(problem(Z, y), np.array([0.1, 0.05]), random_state=0))
    return problem(Z, y).objective(path[-1]), *(neurons.weights for neurons in path)


def of_price(price):
    return (price.value,) if price.direction is None else (price.value, price.direction)


CASES = {
    "column generation": (TALL, 1, lambda Z: columns(Z, V[:, :1])),
    "log loss": (TALL, 1, lambda Z: columns(Z, np.sign(V[:, :1]), "log_loss")),
    "several outputs": (TINY, 1, lambda Z: columns(Z, V[:5])),
    "classes": (TALL, 1, lambda Z: columns(Z, np.eye(6)[np.arange(16) % 6], "cross_entropy")),
    "repeated rows": (TWICE, 1, lambda Z: columns(Z, V[:, :1])),
    "patches": (TALL, 2, lambda Z: columns(Z, V[:8, :1])),
    "more columns than rows": (WIDE, 1, lambda Z: columns(Z, V[:8, :1])),
    "fast path": (TALL, 1, lambda Z: along_path(Z, V[:, :1])),
    "fast path, several outputs": (TALL, 1, lambda Z: along_path(Z, V)),
    "fast path, patches": (TALL, 2, lambda Z: along_path(Z, V[:8, :1])),
    "gated": (TALL, 1, lambda Z: gated(Z, V[:, :1])),
    "gated, several outputs": (TALL, 1, lambda Z: gated(Z, np.eye(3)[np.tile(CLASS, 2)], "cross_entropy")),
    "gated, patches": (TALL, 2, lambda Z: gated(Z, V[:8, :1])),
    "closed form": (WIDE, 1, lambda Z: of_solution(solve_closed_form(problem(Z, V[:8, :1])))),
    "by class": (WIDE, 1, by_class),
    "hinge": (TINY, 1, lambda Z: of_solution(solve(problem(Z, np.sign(V[:5, :1]), "hinge")))),
    "conic": (TINY, 1, lambda Z: conic(Z, V[:5, :1])),
    "conic, patches": (WIDE[:, :3], 2, lambda Z: conic(Z, V[:4, :1])),
    "conic, several outputs": (TINY, 1, lambda Z: conic(Z, V[:5, :2])),
    "conic, gated": (TINY, 1, lambda Z: conic(Z, V[:5, :1], activation="gated_relu")),
    "conic, gated, several outputs": (TINY, 1, lambda Z: conic(Z, V[:5, :2], activation="gated_relu")),
    "decomposition": (TALL, 1, decomposed),
    "ascent": (TALL, 1, lambda Z: of_price(price_by_ascent(Z, V[:, :1], random_state=0))),
    "ascent, several outputs": (TWICE, 1, lambda Z: of_price(price_by_ascent(Z, V, random_state=0))),
    "bound": (TALL, 1, lambda Z: of_price(price_bound(Z, V[:, :1], np.arange(1.0, 17)))),
    "bound, more columns than rows": (WIDE, 1, lambda Z: of_price(price_bound(Z, V[:8, :1]))),
    "branch and bound": (TALL, 2, lambda Z: of_price(price_by_branch_and_bound(Z, V[:8, :1]))),
    "enumeration": (TWICE, 1, lambda Z: of_price(price_by_enumeration(Z, V[:, :1]))),
    "enumeration, several outputs": (TINY, 1, lambda Z: of_price(price_by_enumeration(Z, V[:5]))),
    "largest weight decay": (TALL, 2, lambda Z: (weight_decay_max(problem(Z, V[:8, :1])),)),
}


@cache
def on_dense(case):
    rows, n_patches, solved = CASES[case]
    return solved(DesignMatrix(rows, n_patches))


@pytest.mark.parametrize("case", CASES)
def test_every_solver_takes_every_kind(case):
    """In one chunk the arithmetic is that of the dense kind; in three it rounds differently."""
    rows, n_patches, solved = CASES[case]
    dense, (whole, chunks) = on_dense(case), (solved(Z) for Z in kinds(rows, n_patches)[1:])
    for found, expected in zip(whole, dense, strict=True):
        np.testing.assert_array_equal(found, expected)
    single_precision = case.startswith("fast path")
    assert chunks[0] == pytest.approx(dense[0], rel=1e-3 if single_precision else 1e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("library", ["numpy", "array_api_strict", "torch"])
def test_every_solver_takes_arrays_of_every_library(case, library):
    asarray = pytest.importorskip(library).asarray
    rows, n_patches, solved = CASES[case]
    expected, found = on_dense(case)[0], solved(DeviceMatrix(asarray(rows), n_patches))[0]
    assert found == pytest.approx(expected, rel=1e-3 if case.startswith("fast path") else 1e-6)


def in_blocks(rows, of_array=True):
    """The same rows, read three at a time, of the array itself or of a function that makes them."""
    k = rows.shape[1]
    source = rows if of_array else lambda: (rows[start : start + 3] for start in range(0, len(rows), 3))
    return RowBlocks(read_rows(source, block_bytes=24 * k), np.zeros(k), np.eye(k), np.zeros(k))


@pytest.mark.parametrize("of_array", [True, False])
@pytest.mark.parametrize("case", [case for case, (_, n_patches, _) in CASES.items() if n_patches == 1])
def test_every_solver_takes_rows_that_are_read_in_blocks(case, of_array):
    rows, _, solved = CASES[case]
    expected, found = on_dense(case)[0], solved(in_blocks(rows, of_array))[0]
    assert found == pytest.approx(expected, rel=1e-3 if case.startswith("fast path") else 1e-6)


def test_held_values_of_rows_on_disk_are_made_anew_unless_they_are_few():
    Z, calls = in_blocks(TALL), []

    def outputs(Z, *, S):
        calls.append(Z.n_rows)
        return Z.neuron_outputs(S)

    S, once = RNG.standard_normal((3, 20)), [3, 3, 3, 3, 3, 1]
    held, few = Z.hold(outputs, S=S), Z.hold(outputs, S=S[:, :2])
    assert calls == [3, *once]  # the first block tells how many they are
    calls.clear()
    for n_passes in (1, 2):
        np.testing.assert_allclose(Z.summed(lambda Z, h: h.sum(axis=0), held), np.maximum(TALL @ S, 0).sum(axis=0))
        assert calls == n_passes * once
    np.testing.assert_allclose(Z.fetch(few), np.maximum(TALL @ S[:, :2], 0))
    assert calls == 2 * once


@pytest.mark.parametrize("case", sorted(set(CASES) - {"closed form", "by class"}))  # which are of whitened rows
def test_rows_in_single_precision_are_solved_in_double(case):
    rows, n_patches, solved = CASES[case]
    rows = rows.astype(np.float32)
    expected, found = solved(DesignMatrix(rows.astype(np.float64), n_patches))[0], solved(DesignMatrix(rows, n_patches))
    assert found[0] == pytest.approx(expected, rel=1e-3 if case.startswith("fast path") else 1e-6)


@pytest.mark.parametrize("kind", [DesignMatrix, DeviceMatrix])
def test_rows_in_single_precision_stay_so(kind):
    rows = TALL.astype(np.float32)
    Z = kind(rows)
    S, A = RNG.standard_normal((3, 4)), RNG.standard_normal((16, 4))
    half = Z / Z.scale_near(1.9)
    assert Z.Z is rows
    assert Z.in_single_precision.Z is rows
    assert half.Z.dtype == np.float32
    assert Z.rows().dtype == (Z @ S).dtype == np.float64
    assert (Z.in_single_precision @ S).dtype == np.float32
    np.testing.assert_allclose(Z @ S, rows.astype(np.float64) @ S, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(Z.adjoint(A), rows.astype(np.float64).T @ A, rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(half.rows(), rows / 2)
    assert Z.spectral_norm == pytest.approx(np.linalg.norm(rows.astype(np.float64), 2))


def test_blocks_are_worked_on_by_threads_and_added_up_in_order(monkeypatch):
    monkeypatch.setattr(DesignMatrix, "rows_a_block", 4)
    seen, Z, S = set(), DesignMatrix(TALL), RNG.standard_normal((3, 4))

    def outputs(Z, *, S):
        seen.add(get_ident())
        return Z.neuron_outputs(S).sum(axis=0)

    alone = Z.summed(outputs, S=S)
    assert seen == {get_ident()}
    seen.clear()
    with on_threads(2):
        together = Z.summed(outputs, S=S)
    np.testing.assert_array_equal(together, alone)
    assert get_ident() not in seen


def flagged(Z, *, S):
    """Outputs of neurons, and the flag of an invalid operation, which BLAS raises now and then in single precision."""
    np.subtract(np.float32(np.inf), np.float32(np.inf))
    return Z.neuron_outputs(S)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("rows_a_block", [4, 16])
def test_an_invalid_operation_means_nothing_in_single_precision_alone(monkeypatch, rows_a_block, n_threads):
    monkeypatch.setattr(DesignMatrix, "rows_a_block", rows_a_block)
    Z, S = DesignMatrix(TALL), RNG.standard_normal((3, 4))
    with on_threads(n_threads):
        for single in (Z.in_single_precision, in_blocks(TALL).in_single_precision):
            np.testing.assert_allclose(single.mapped(flagged, S=S), Z.neuron_outputs(S), atol=1e-5)
        with pytest.warns(RuntimeWarning, match="invalid value"):
            Z.mapped(flagged, S=S)


def test_the_network_does_not_depend_on_threads(monkeypatch):
    monkeypatch.setattr(DesignMatrix, "rows_a_block", 64)
    X, noise = np.random.default_rng(0).standard_normal((100, 3)), 0.5  # so that few neurons are chosen
    X, y = X[:, :2], X[:, 0] ** 2 + X[:, 1] + noise * X[:, 2]
    model = ConvexBNRegressor(spectral_power=1.0, tol=0.1)
    one, two = (clone(model).set_params(n_jobs=n).fit(X, y) for n in (1, 2))
    np.testing.assert_array_equal(one.predict(X), two.predict(X))
    assert one.weight_decay_ == two.weight_decay_


@pytest.mark.parametrize("n_patches", [1, 2])
@pytest.mark.parametrize("kind", [DesignMatrix, DeviceMatrix])
def test_blocks_of_rows_add_up(monkeypatch, kind, n_patches):
    whole, Z = DesignMatrix(TALL, n_patches), kind(TALL, n_patches)
    assert len(whole._samples) == 1
    monkeypatch.setattr(kind, "rows_a_block", 4)
    S, v = RNG.standard_normal((3, 4)), V[: 16 // n_patches]
    along = {"weights": S}
    np.testing.assert_allclose(Z.summed(along_outputs, Z.place(v), **along), whole.summed(along_outputs, v, **along))
    np.testing.assert_allclose(Z.mapped(neuron_outputs, **along), whole.neuron_outputs(S))
    np.testing.assert_allclose(np.concatenate(Z.hold(neuron_outputs, **along).parts), whole.neuron_outputs(S))
    np.testing.assert_array_equal(Z.of_samples(np.array([1, 0])).rows(), whole.of_samples(np.array([1, 0])).rows())
    np.testing.assert_array_equal(Z.of_samples(slice(0, None, 3)).rows(), whole.of_samples(slice(0, None, 3)).rows())


@pytest.mark.parametrize("kind", [MaskedProducts, PooledProducts])
@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("library", ["numpy", "array_api_strict", "torch"])
def test_gated_products_on_a_device_are_those_in_memory(monkeypatch, kind, hold, library):
    n_patches = 2 if kind is PooledProducts else 1
    rows, masks, few = rows_of(48, 3), RNG.random((48, 11)) < 0.5, np.array([9, 2])
    whole, Z = DesignMatrix(rows, n_patches), DeviceMatrix(pytest.importorskip(library).asarray(rows), n_patches)
    S, v, w = RNG.standard_normal((11, 4, 2)), RNG.standard_normal((whole.n_samples, 2)), RNG.random(whole.n_samples)
    A, B, D = RNG.standard_normal((11, 4)), RNG.standard_normal((11, 2)), RNG.standard_normal((11, 6))
    in_memory = products_of(kind, whole, masks)
    monkeypatch.setattr(DeviceMatrix, "rows_a_block", 10)
    monkeypatch.setattr(type(Z.rows_there), "at_once", 200)
    monkeypatch.setattr("convexbn.operators._factored._HELD_ENTRIES", 1000 * hold)
    on_device = products_of(kind, Z, masks, hold=hold)
    for found, expected in (on_device, in_memory), (on_device.take(few), in_memory.take(few)):
        P, beside = len(expected), np.array([1, 0])
        np.testing.assert_allclose(Z.fetch(found.forward(S[:P])), expected.forward(S[:P]), atol=1e-12)
        np.testing.assert_allclose(found.adjoint(Z.place(v)), expected.adjoint(v), atol=1e-12)
        np.testing.assert_allclose(found.overlaps(w, np.ones(4), beside), expected.overlaps(w, np.ones(4), beside))
        in_factors, expected_in_factors = (products.factored(np.arange(11) % P, A, B) for products in (found, expected))
        np.testing.assert_allclose(
            Z.fetch(in_factors.forward(D)), whole.fetch(expected_in_factors.forward(D)), atol=1e-12
        )
        np.testing.assert_allclose(in_factors.adjoint(Z.place(v)), expected_in_factors.adjoint(v), atol=1e-12)


@pytest.mark.parametrize("library", ["array_api_strict", "torch"])
@pytest.mark.parametrize("n_patches", [1, 2])
@pytest.mark.parametrize("loss", ["huber", "cross_entropy"])
def test_gated_networks_on_a_device(monkeypatch, library, n_patches, loss):
    """The optimum is that of the dense kind, with blocks of rows, and no array of rows or masks comes to memory."""
    rows, n_patterns = rows_of(1000, 5), 40
    y = rows[: 1000 // n_patches, :3] ** 2 + RNG.standard_normal((1000 // n_patches, 3))
    y = y[:, :1] if loss == "huber" else np.eye(3)[y.argmax(axis=1)]

    def solved(Z):
        return solve_gated(problem(Z, y, loss), sample_patterns(Z, n_patterns, random_state=0), tol=1e-9).certificate

    moved = []

    def noted(function):
        def noting(*arguments):
            found = function(*arguments)
            array = found if isinstance(found, np.ndarray) else arguments[-1]
            moved.append(array.nbytes)
            return found

        return noting

    dense, asarray = solved(DesignMatrix(rows, n_patches)), pytest.importorskip(library).asarray
    Z = DeviceMatrix(asarray(rows), n_patches)
    monkeypatch.setattr(DeviceMatrix, "rows_a_block", 300)
    monkeypatch.setattr("convexbn.solvers.gated._newton_system._ENTRIES", 0)  # a system that is formed comes to memory
    monkeypatch.setattr("convexbn.operators._device.to_numpy", noted(to_numpy))
    monkeypatch.setattr(type(Z.rows_there), "asarray", noted(type(Z.rows_there).asarray))
    found = solved(Z)
    assert found.objective == pytest.approx(dense.objective, rel=1e-8)
    assert found.lower_bound == pytest.approx(dense.lower_bound, rel=1e-8)
    bits, of_overlaps, of_hessian = len(rows) * n_patterns // 8, 8 * n_patterns**2, 8 * y.shape[1] * y.size
    assert 0 < max(moved) <= max(bits, of_overlaps, of_hessian)


@pytest.mark.parametrize("library", ["array_api_strict", "torch"])
@pytest.mark.parametrize(("n_rows", "n_directions"), [(6, 11), (16, 8)])
def test_patterns_and_gated_outputs_of_a_device(monkeypatch, library, n_rows, n_directions):
    monkeypatch.setattr(DeviceMatrix, "rows_a_block", 4)
    rows, asarray = rows_of(n_rows, 2), pytest.importorskip(library).asarray
    whole, Z = DesignMatrix(rows, 2), DeviceMatrix(asarray(rows), 2)
    G, S = RNG.standard_normal((2, 3, n_directions))
    np.testing.assert_array_equal(Z.packed_patterns(G), whole.packed_patterns(G))
    np.testing.assert_allclose(Z.gated_outputs(G, S), whole.gated_outputs(G, S), atol=1e-14)


@pytest.mark.parametrize("library", ["array_api_strict", "torch"])
def test_outputs_of_a_device_are_made_of_few_samples_where_neurons_are_many(monkeypatch, library):
    rows, asarray, sizes = rows_of(64, 2), pytest.importorskip(library).asarray, []
    whole, Z = DesignMatrix(rows, 2), DeviceMatrix(asarray(rows), 2)
    G, S = RNG.standard_normal((2, 3, 20))
    block, product = type(Z.rows_there), type(Z.rows_there).__matmul__

    def noting(block, S):
        found = product(block, S)
        sizes.append(found.shape[0] * found.shape[1])
        return found

    monkeypatch.setattr(block, "at_once", 200)
    monkeypatch.setattr(block, "__matmul__", noting)
    np.testing.assert_allclose(Z.gated_outputs(G, S), whole.gated_outputs(G, S), atol=1e-14)
    np.testing.assert_allclose(Z.neuron_outputs(S), whole.neuron_outputs(S), atol=1e-14)
    assert max(sizes) <= 200


@pytest.mark.parametrize("n_patches", [1, 2])
def test_products_follow_from_the_protocol(n_patches):
    S, G, v = RNG.standard_normal((3, 4)), RNG.standard_normal((3, 4)), V[: 16 // n_patches, :1]
    dense, _, chunks = kinds(TWICE, n_patches)
    masks, weights = TWICE @ G >= 0, np.arange(1.0, 16 // n_patches + 1)
    of_samples = (masks[:, :, None] * TWICE[:, None]).reshape(-1, n_patches, 4, 3).mean(axis=1)
    F = of_samples.reshape(-1, 12)
    for Z in (dense, chunks):
        np.testing.assert_allclose(Z.neuron_outputs(S), Z.pool(np.maximum(TWICE @ S, 0)))
        np.testing.assert_allclose(Z.gated_outputs(G, S), Z.pool(masks * (TWICE @ S)))
        np.testing.assert_allclose(Z.masked_adjoint(masks, v).T.ravel(), F.T @ v[:, 0])
        np.testing.assert_allclose(Z.masked_gram(masks, weights), F.T @ (weights[:, None] * F), atol=1e-12)
        np.testing.assert_allclose(Z.masked_features(masks, slice(2, 5)), of_samples[2:5])
        np.testing.assert_array_equal(np.unpackbits(Z.packed_patterns(G), axis=1, count=16).T, masks)
        assert Z.row_norms == pytest.approx(np.linalg.norm(TWICE, axis=1))
        assert Z.spectral_norm == pytest.approx(np.linalg.svd(TWICE)[1][0])
        assert len(Z.hyperplanes.first) == 8
        assert Z.for_prices(v)[0].n_rows == 8
        assert (Z.in_single_precision @ S).dtype == Z.in_single_precision.adjoint(masks).dtype == np.float32


@pytest.mark.parametrize("p", [np.ones((8, 1)), np.arange(1.0, 9)[:, None]], ids=["equal", "weighted"])
def test_gram_matrices_of_weighted_rows(p):
    for Z in kinds(WIDE)[::2]:
        np.testing.assert_allclose(Z.gram(p), WIDE.T @ (p * WIDE), atol=1e-12)
        np.testing.assert_allclose(Z.row_gram(p), np.sqrt(p) * (WIDE @ WIDE.T) * np.sqrt(p.T), atol=1e-12)
        assert Z.weighted_norm(p) == pytest.approx(np.linalg.norm(np.sqrt(p) * WIDE, 2))


@pytest.mark.parametrize("design", [BatchNormDesign(), WeightNormDesign(bias=False), PatchDesign(2)])
def test_matrix_of_a_design(design):
    X = RNG.standard_normal((5, 1, 3, 3) if isinstance(design, PatchDesign) else (5, 3))
    Z = design.fit(X).matrix(X)
    np.testing.assert_array_equal(Z.rows(), design.transform(X))
    assert (Z.n_samples, Z.n_patches) == (5, 4 if isinstance(design, PatchDesign) else 1)
