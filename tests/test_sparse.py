"""Sparse data: the same results as the same data as an array, and never an array of the whole."""

import tracemalloc
import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import estimator_checks

from convexbn import (
    BatchNormDesign,
    ConvexBNClassifier,
    ConvexBNClassifierCV,
    ConvexBNRegressor,
    ConvexBNRegressorCV,
    ConvexBNStackRegressor,
    PatchDesign,
    PostActivationBatchNormDesign,
    Problem,
    SparseDesignMatrix,
    WeightNormDesign,
    convexbn_path,
    count_patterns,
    prove,
    read_rows,
    sample_patterns,
    solve_column_generation,
    solve_gated,
    weight_decay_max,
)
from convexbn._utils.row_order import as_rows, sorted_rows
from convexbn._utils.sample_weight import merge_equal_samples
from convexbn.gradient import train
from convexbn.operators import DesignMatrix
from convexbn.solvers import ACCURATE
from tests.test_operators import CASES

FORMATS = [sparse.csr_array, sparse.csc_matrix, sparse.coo_array, sparse.lil_matrix]


def data_of(n, d, share=0.4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) * (rng.random((n, d)) < share)


X = np.vstack([data_of(60, 6), data_of(10, 6)])  # the last ten are the first ten again
Y = np.abs(X[:, 0]) + X[:, 1] - X[:, 2]
WEIGHTS = np.arange(1.0, 71)


@pytest.mark.parametrize("case", [case for case, (_, n_patches, _) in CASES.items() if n_patches == 1])
def test_every_solver_takes_sparse_rows(case):
    rows, _, solved = CASES[case]
    dense, found = solved(DesignMatrix(rows)), solved(SparseDesignMatrix(sparse.csr_array(rows)))
    assert found[0] == pytest.approx(dense[0], rel=1e-3 if case.startswith("fast path") else 1e-6)


def test_products_are_those_of_the_dense_matrix():
    rng = np.random.default_rng(0)
    S, G, A, v = (rng.standard_normal(shape) for shape in ((6, 4), (6, 4), (70, 3), (70, 1)))
    dense, Z = DesignMatrix(X), SparseDesignMatrix(sparse.csr_array(X))
    masks, p, chosen = X @ G >= 0, WEIGHTS[:, None], np.array([[3, 5], [3, 69]])
    for found, expected in [
        (Z @ S, X @ S),
        (Z.adjoint(A), X.T @ A),
        (Z.rows(), X),
        (Z.rows(slice(2, 9, 3)), X[2:9:3]),
        (Z.rows(chosen), X[chosen]),
        (Z.rows(masks[:, 0]), X[masks[:, 0]]),
        (Z.of_samples(chosen[0]).rows(), X[chosen[0]]),
        ((Z / 3).rows(), X / 3),
        (Z.times(S).rows(), X @ S),
        (Z.weighted(p).rows(), p * X),
        (Z.neuron_outputs(S), dense.neuron_outputs(S)),
        (Z.gated_outputs(G, S), dense.gated_outputs(G, S)),
        (Z.packed_patterns(G), dense.packed_patterns(G)),
        (Z.masked_adjoint(masks, v), dense.masked_adjoint(masks, v)),
        (Z.masked_gram(masks, WEIGHTS), dense.masked_gram(masks, WEIGHTS)),
        (Z.gram(p), dense.gram(p)),
        (Z.row_gram(p), dense.row_gram(p)),
        (Z.weighted_norm(p), dense.weighted_norm(p)),
        (Z.weighted_norm(0 * p), 0.0),
        (Z.row_norms, dense.row_norms),
        (Z.spectral_norm, dense.spectral_norm),
        (Z.column_extremes, dense.column_extremes),
        (Z.hyperplanes.first, dense.hyperplanes.first),
        (Z.for_prices(v)[1], dense.for_prices(v)[1]),
        ((Z / 1e9).of_moderate_size[1], (dense / 1e9).of_moderate_size[1]),
    ]:
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-11)
    single = Z.in_single_precision
    assert (single @ S).dtype == single.adjoint(masks).dtype == single.weighted(p).rows().dtype == np.float32
    assert (Z.n_rows, Z.n_samples, Z.n_columns, repr(Z)) == (70, 70, 6, "SparseDesignMatrix(70 samples, 6 columns)")


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (2, 3)])
@pytest.mark.parametrize("scale", [1e-120, 1.0, 1e120])
def test_norm_of_narrow_and_of_far_matrices(shape, scale):
    rows = scale * np.random.default_rng(0).standard_normal(shape)
    assert SparseDesignMatrix(sparse.csr_array(rows)).spectral_norm == pytest.approx(np.linalg.norm(rows, 2))


def test_constant_direction():
    with_ones = np.hstack([X, np.full((70, 1), 4.0)])
    e = SparseDesignMatrix(sparse.csr_array(with_ones)).constant
    np.testing.assert_allclose(with_ones @ e, 1)
    assert SparseDesignMatrix(sparse.csr_array(X)).constant is None


@pytest.mark.parametrize("rows", [[[np.nan, 1.0]], [[np.inf, 1.0]], np.zeros((0, 2))])
def test_matrices_that_are_refused(rows):
    with pytest.raises(ValueError, match=r"^Z "):
        SparseDesignMatrix(sparse.csr_array(rows))


def test_problem_takes_sparse_rows_and_reaches_the_same_optimum():
    Z = WeightNormDesign().fit_transform(X[:40, :2])
    problem = Problem(sparse.coo_array(Z), Y[:40], weight_decay=0.05, fit_intercept=True)
    found = solve_column_generation(problem, tol=1e-9, random_state=0).certificate
    dense = solve_column_generation(replace(problem, Z=DesignMatrix(Z)), tol=1e-9, random_state=0).certificate
    assert found.scope == dense.scope == "global"
    assert found.objective == pytest.approx(dense.objective, rel=1e-8)


DESIGNS = [
    BatchNormDesign(1),
    BatchNormDesign(3),
    BatchNormDesign(6),  # all of them
    BatchNormDesign(4, standardize=False),
    BatchNormDesign(4, spectral_power=0.5),
    PostActivationBatchNormDesign(4),
    WeightNormDesign(),
    WeightNormDesign(bias=False),
    WeightNormDesign(3, spectral_power=1.0),
]


@pytest.mark.parametrize("container", FORMATS)
@pytest.mark.parametrize("design", DESIGNS, ids=str)
def test_designs_are_those_of_the_array(design, container):
    rng = np.random.default_rng(1)
    columns = np.hstack([X + 3 * np.eye(1, 6), np.zeros((70, 1)), np.full((70, 1), 0.1)])
    for weights in (None, np.append(WEIGHTS[:-1], 0)):
        dense = design.fit(columns, sample_weight=weights)
        expected, affine, layer = dense.transform(columns[:9]), dense.affine, dense.neuron_weights
        S = rng.standard_normal((expected.shape[1], 3))
        slopes, offsets = affine(S)
        share, weights_of_layer = dense.variance_share_, layer(S).weights
        found = design.fit(container(columns), sample_weight=weights)
        np.testing.assert_allclose(found.matrix(container(columns[:9])).rows(), expected, atol=1e-10)
        np.testing.assert_allclose(found.affine(S)[0], slopes, atol=1e-10)
        np.testing.assert_allclose(found.affine(S)[1], offsets, atol=1e-10)
        assert found.variance_share_ == pytest.approx(share, abs=1e-12)
        layer = found.neuron_weights(S)
        np.testing.assert_allclose(layer.weights, weights_of_layer, atol=1e-10)
        np.testing.assert_allclose(found.neurons(layer.weights, layer.gamma, layer.bias), S, atol=1e-10)
        assert len(found.get_feature_names_out()) == len(S)


@pytest.mark.parametrize("shape", [(8, 30), (30, 30), (9, 8)])
def test_as_many_components_as_there_are(shape):
    rows = data_of(*shape)
    expected = BatchNormDesign(min(shape)).fit_transform(rows)
    found = BatchNormDesign(min(shape)).fit_transform(sparse.csr_array(rows))
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_rank_below_the_number_of_components():
    rows = data_of(40, 3) @ data_of(3, 12, share=1.0)
    Z = BatchNormDesign(8).fit_transform(sparse.csr_array(rows))
    assert Z.shape == (40, 4)
    np.testing.assert_allclose(Z.T @ Z / 40, np.eye(4), atol=1e-10)


@pytest.mark.parametrize(
    "design", [BatchNormDesign(), BatchNormDesign(0.5), WeightNormDesign(0.5), WeightNormDesign(spectral_power=1.0)]
)
def test_designs_name_what_sparse_data_requires(design):
    assert not design.__sklearn_tags__().input_tags.sparse
    with pytest.raises(ValueError, match=r"X is sparse: give n_components=\.\.\."):
        design.fit(sparse.csr_array(X))


def test_constant_sparse_data_is_refused():
    with pytest.raises(ValueError, match="All rows of X are equal"):
        BatchNormDesign(1).fit(sparse.csr_array(np.full((5, 2), 0.1)))
    with pytest.raises(ValueError, match="X is all zero"):
        WeightNormDesign().fit(sparse.csr_array((5, 2)))
    with pytest.raises(TypeError, match=r"[sS]parse"):
        PatchDesign(2).fit(sparse.csr_array(X))


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_sorted_as_those_of_the_array(seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-2, 3, (80, 4)) * (rng.random((80, 4)) < 0.6) * rng.choice([1.0, 1e-300, 1e300], (80, 1))
    (order, new), expected = sorted_rows(sparse.csr_array(rows)), sorted_rows(rows)
    np.testing.assert_array_equal(rows[order], rows[expected[0]])
    np.testing.assert_array_equal(new, expected[1])
    assert not new.all()


def test_equal_samples_are_merged():
    y = np.round(X.sum(axis=1, keepdims=True))
    rows, targets, weights = merge_equal_samples(sparse.csr_array(X), y, WEIGHTS - 1)
    expected = merge_equal_samples(X, y, WEIGHTS - 1)
    assert len(targets) < 69
    for found, array in zip((rows.toarray(), targets, weights), expected, strict=True):
        np.testing.assert_array_equal(found, array)


def test_stored_zeros_and_repeated_entries_count_as_what_they_add_up_to():
    entries = sparse.coo_array(([1.0, 2.0, 5.0, 0.0], ([0, 0, 1, 1], [1, 1, 1, 0])), shape=(2, 2))
    rows = as_rows(entries.tocsr())
    unsummed = sparse.csr_array(([2.0, 1.0, 0.0], [1, 1, 0], [0, 2, 3]), shape=(2, 2))
    summed = as_rows(unsummed)
    assert (rows.nnz, summed.nnz, unsummed.nnz) == (2, 1, 3)  # what is given stays as it is
    np.testing.assert_array_equal(summed.toarray(), [[0, 3], [0, 0]])


@pytest.mark.parametrize(
    "model",
    [
        ConvexBNRegressor(0.02, normalization="weight"),
        ConvexBNRegressor(0.02, n_components=2),
        ConvexBNRegressor(0.02, n_components=3, activation="gated_relu"),
        ConvexBNRegressor(0.5, n_components=2, normalization="batch_after_relu"),
        ConvexBNClassifier(0.02, n_components=2, class_weight="balanced"),
        ConvexBNClassifier(0.02, normalization="weight", loss="squared_hinge"),
    ],
    ids=str,
)
def test_estimators_reach_the_optimum_of_the_array(model):
    y = Y if isinstance(model, ConvexBNRegressor) else Y > 0.5
    model.set_params(tol=1e-9, max_iter=500)
    columns = X[:, :3] if model.normalization == "weight" else X
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        dense = model.fit(columns, y, WEIGHTS).certificate_
        expected = model.predict(columns)
        found = model.fit(sparse.csc_array(columns), y, WEIGHTS).certificate_
    assert found.objective == pytest.approx(dense.objective, rel=1e-8)
    assert found.scope == dense.scope
    if found.scope == "global" and y is Y:
        np.testing.assert_allclose(model.predict(sparse.coo_matrix(columns)), expected, atol=1e-3)
    np.testing.assert_allclose(model.predict(sparse.coo_matrix(columns)), model.predict(columns), atol=1e-10)


@pytest.mark.parametrize(
    "model",
    [
        ConvexBNRegressor(n_components=2),
        ConvexBNRegressor(normalization="weight"),
        ConvexBNRegressorCV(n_components=[1, 2], cv=3, n_weight_decays=3, eps=0.01),
        ConvexBNClassifierCV(normalization="weight", cv=3, n_weight_decays=3, eps=0.01),
    ],
    ids=str,
)
def test_choices_are_as_good_as_those_of_the_array(model):
    """Searches in single precision go their own ways after a rounding error, as those of arrays do."""
    y = Y + 0.3 * np.random.default_rng(2).standard_normal(70)
    y = y > 0.5 if isinstance(model, ConvexBNClassifierCV) else y
    rows = sparse.csr_matrix(X[:, :3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        expected = model.fit(X[:, :3], y).score(X[:, :3], y), model.validation_scores_["mean_score"].max()
        found = model.fit(rows, y).score(rows, y), model.validation_scores_["mean_score"].max()
    assert expected[0] > 0.8
    np.testing.assert_allclose(found, expected, atol=0.04)


def test_order_and_repetitions_of_sparse_rows_change_nothing():
    model, rows = ConvexBNRegressor(0.05, normalization="weight"), sparse.csr_array(X[:, :3])
    first = model.fit(rows, Y).predict(rows)
    order = np.random.default_rng(0).permutation(70)
    np.testing.assert_array_equal(model.fit(rows[order], Y[order]).predict(rows), first)
    twice = np.repeat(order, 2)
    np.testing.assert_array_equal(model.fit(rows[twice], Y[twice]).predict(rows), first)


def test_path_and_proof_take_sparse_rows():
    rows = sparse.csr_array(X[:, :2])
    path = convexbn_path(rows, Y, normalization="weight", n_weight_decays=3, eps=0.1)
    dense = convexbn_path(X[:, :2], Y, normalization="weight", n_weight_decays=3, eps=0.1)
    np.testing.assert_allclose(path.objectives, dense.objectives, rtol=1e-4)
    model = ConvexBNRegressor(0.05, normalization="weight", prove=False).fit(rows, Y)
    assert prove(model, rows, Y, random_state=0).scope == "global"


@pytest.mark.parametrize(
    "model",
    [
        ConvexBNRegressor(),
        ConvexBNRegressor(0.1, n_components=0.9),
        ConvexBNRegressor(0.1, normalization="batch_after_relu"),
        ConvexBNRegressor(0.1, normalization="weight", spectral_power=1.0),
        ConvexBNRegressor(0.1, normalization="weight", activation="gated_relu"),
        ConvexBNClassifierCV(n_components=[2, None]),
    ],
    ids=str,
)
def test_estimators_name_what_sparse_data_requires(model):
    assert not model.__sklearn_tags__().input_tags.sparse
    with pytest.raises(ValueError, match=r"X is sparse: give n_components=\.\.\..*normalization='weight'"):
        model.fit(sparse.csr_array(X), Y > 0)


@pytest.mark.parametrize(
    "model",
    [
        ConvexBNRegressor(0.1, n_components=2, tol=0.1),
        ConvexBNClassifier(0.1, n_components=2, tol=0.1),
        BatchNormDesign(2),
        WeightNormDesign(),
    ],
    ids=str,
)
def test_sparse_checks_of_scikit_learn(model):
    checks = ["check_estimator_sparse_tag"]
    if not isinstance(model, ConvexBNClassifier):
        checks += ["check_estimator_sparse_array", "check_estimator_sparse_matrix"]
    if isinstance(model, ConvexBNRegressor):
        checks.append("check_sample_weight_equivalence_on_sparse_data")
    assert model.__sklearn_tags__().input_tags.sparse
    for check in checks:
        if hasattr(estimator_checks, check):  # some came with a later release
            getattr(estimator_checks, check)(type(model).__name__, model)


@pytest.mark.parametrize(
    "options",
    [{"n_components": 3}, {"normalization": "weight"}, {"n_components": 3, "normalization": "batch_after_relu"}],
)
def test_networks_take_sparse_rows(options):
    network = ConvexBNRegressor(0.05, **options).fit(X, Y).network_
    for container in FORMATS:
        rows = container(X)
        np.testing.assert_allclose(network.predict(rows), network.predict(X), atol=1e-12)
        np.testing.assert_allclose(network.hidden(rows), network.hidden(X), atol=1e-12)
        objective = network.objective(X, Y, 0.05, sample_weight=WEIGHTS)
        assert network.objective(rows, Y, 0.05, sample_weight=WEIGHTS) == pytest.approx(objective, rel=1e-12)
        statistics = network.with_statistics(rows, WEIGHTS).population_statistics()
        np.testing.assert_allclose(statistics, network.with_statistics(X, WEIGHTS).population_statistics(), atol=1e-12)
    if "n_components" in options:
        with pytest.raises(ValueError, match=r"give X\.toarray\(\)"):
            network.prune(rows)
    else:
        np.testing.assert_allclose(network.prune(rows).predict(X), network.predict(X), atol=1e-10)


def test_neurons_that_do_not_vary_over_sparse_rows_are_refused():
    network = ConvexBNRegressor(0.05).fit(X, Y).network_
    with pytest.raises(ValueError, match="does not vary over X"):
        network.with_statistics(sparse.csr_array(np.repeat(X[:1], 3, axis=0)))


def test_gated_network_takes_sparse_rows():
    network = ConvexBNRegressor(0.05, activation="gated_relu").fit(X, Y).network_
    np.testing.assert_allclose(network.predict(sparse.csr_array(X)), network.predict(X), atol=1e-12)


def test_what_takes_dense_data_alone_says_so():
    network = ConvexBNRegressor(0.05).fit(X, Y).network_
    with pytest.raises(TypeError, match=r"give X\.toarray\(\)"):
        train(sparse.csr_array(X), Y, weight_decay=0.1, start=network)
    with pytest.raises(TypeError, match=r"[sS]parse"):
        train(sparse.csr_array(X), Y, weight_decay=0.1)
    with pytest.raises(TypeError, match=r"[sS]parse"):
        ConvexBNStackRegressor(ConvexBNRegressor(0.1)).fit(sparse.csr_array(X), Y)


N, D = 1000, 5000


@pytest.fixture
def large(monkeypatch):
    """Large sparse data, of which nothing with half as many entries may become an array; and targets."""

    def refusing(convert):
        def checked(self, *args, **kwargs):
            assert np.prod(self.shape) < N * D / 2, "the data was made dense"
            return convert(self, *args, **kwargs)

        return checked

    for kind in (sparse.csr_array, sparse.csc_array, sparse.coo_array, sparse.csr_matrix, sparse.csc_matrix):
        for name in ("toarray", "todense"):
            monkeypatch.setattr(kind, name, refusing(getattr(kind, name)))
    rng = np.random.default_rng(0)
    rows = sparse.csr_array(sparse.random_array((N, D), density=0.002, rng=rng, format="csr"))
    tracemalloc.start()
    yield rows, rows @ rng.standard_normal(D)
    tracemalloc.stop()


def test_the_check_of_large_data_can_fail(large):
    with pytest.raises(AssertionError, match="made dense"):
        large[0].toarray()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"normalization": "weight"}, {"n_components": 3}, {"n_components": 3, "normalization": "weight"}],
    ids=str,
)
def test_large_data_is_never_made_dense(options, large):
    rows, y = large
    model = ConvexBNRegressor(1.0, prove=False, max_iter=1, tol=0.1, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows, y)
    assert np.isfinite(model.predict(rows)).all()
    assert model.network_.objective(rows, y, 1.0) < 10 * y.var()
    if options == {"n_components": 3}:
        assert tracemalloc.get_traced_memory()[1] < N * D * 8 / 2


@pytest.mark.parametrize("solver", [solve_gated, None])
def test_solvers_of_dense_rows_refuse_large_matrices(solver, large):
    rows, y = large
    problem = Problem(rows, y, weight_decay=1.0)
    with pytest.raises(ValueError, match=r"Z is sparse.*n_components of the design"):
        count_patterns(problem.Z) if solver is None else solver(problem, sample_patterns(problem.Z, 3, random_state=0))


def test_a_search_starts_from_fewer_directions(large):
    Z = SparseDesignMatrix(large[0])
    assert 60 <= Z.most_directions == 2**22 // D < 8 * ACCURATE.n_starts
    assert DesignMatrix(X).most_directions == np.inf


def test_weight_decay_max_of_a_matrix_that_is_never_dense():
    """Columns of zeros, so many that all entries would be too many, change nothing: of few patterns an exact value."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 3)), rng.standard_normal(40)
    wide = SparseDesignMatrix(sparse.hstack([sparse.csr_array(X), sparse.csr_array((40, 110_000))], format="csr"))
    assert not wide.has_few_entries
    exact = weight_decay_max(Problem(X, y, weight_decay=1.0, fit_intercept=True))
    found = weight_decay_max(Problem(wide, y, weight_decay=1.0, fit_intercept=True))
    assert found == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("kind", ["dense", "sparse", "blocks"])
def test_a_design_of_data_as_it_is_makes_no_square_matrix_of_the_columns(kind):
    d = 3000  # of which a square matrix takes 72 MB
    X = 1e-3 * np.random.default_rng(0).standard_normal((8, d))
    expected = WeightNormDesign().fit(X)
    data = {"dense": X, "sparse": sparse.csr_array(X), "blocks": read_rows(X)}[kind]
    tracemalloc.start()
    design = WeightNormDesign().fit(data)
    Z = design.matrix(data)
    S = np.ones((d + 1, 2))
    products = Z @ S, Z.adjoint(np.ones((8, 1))), Z.rows(np.array([[0, 1], [2, 3]]))
    neurons = design.neurons(*list(vars(design.neuron_weights(S)).values())[:3])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6
    rows = np.hstack([X, np.full((8, 1), expected.bias_unit_)])
    assert 0 < expected.bias_unit_ < 1
    assert design.bias_unit_ == expected.bias_unit_
    for product, there in zip(products, (rows @ S, rows.sum(axis=0)[:, None], rows[[[0, 1], [2, 3]]]), strict=True):
        np.testing.assert_allclose(product, there, atol=1e-12)
    np.testing.assert_allclose(neurons, S)
