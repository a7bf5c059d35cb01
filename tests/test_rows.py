"""Samples that are read in blocks: every kind of source is the same data, design and products as in memory."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from convexbn import BatchNormDesign, PatchDesign, Problem, WeightNormDesign, read_rows, solve_column_generation
from convexbn.designs._post_activation import PostActivationBatchNormDesign
from convexbn.operators import RowBlocks
from convexbn.rows import RowSource

CUTS = [0, 40, 40, 110, 111, 200]  # blocks of unequal sizes, one of them empty
KINDS = ["array", "memory map", "npz", "npy", "parquet", "callable", "list"]
DESIGNS = [
    BatchNormDesign(),
    BatchNormDesign(rtol=1e-9),
    BatchNormDesign(2, spectral_power=0.5, standardize=False),
    BatchNormDesign(0.9),
    WeightNormDesign(),
    WeightNormDesign(2, bias=False),
    WeightNormDesign(spectral_power=0.5),
]


def data(dtype=np.float64, n=200, d=4, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * np.logspace(0, 2, d) + 10
    X[:, 1] += X[:, 0]
    return X.astype(dtype), np.abs(X[:, 0] - 10) + 0.3 * rng.standard_normal(n), rng.uniform(0.5, 2, n)


def source_of(kind, folder, X, y, weights):
    """A source of this kind with the same samples."""
    parts = [slice(*ends) for ends in pairwise(CUTS)]
    blocks = [(X[part], y[part], weights[part]) for part in parts]
    if kind == "array":
        return read_rows(X, target=y, sample_weight=weights, block_bytes=1000)
    if kind == "memory map":
        np.save(folder / "all.npy", X)
        X = np.load(folder / "all.npy", mmap_mode="r")
        return read_rows(X, target=y, sample_weight=weights, block_bytes=1000)
    if kind == "callable":
        return read_rows(lambda: iter(blocks))
    if kind == "list":
        return read_rows(blocks)
    for i, (data, targets, of_block) in enumerate(blocks):
        if kind == "npz":
            np.savez(folder / f"part-{i}.npz", X=data, y=targets, sample_weight=of_block)
        elif kind == "npy":
            for name, values in (("X", data), ("y", targets), ("sample_weight", of_block)):
                np.save(folder / f"{name}-{i}.npy", values)
        else:
            write_parquet(folder / f"{i}.parquet", data, target=targets, weight=of_block)
    names = {"target": "target", "sample_weight": "weight"} if kind == "parquet" else {}
    return read_rows(folder, **names, block_bytes=1000)


def write_parquet(path, X, rows=30, **others):
    """A file whose targets and weights lie between the features."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"x0": X[:, 0], **others, **{f"x{j}": X[:, j] for j in range(1, X.shape[1])}}
    parquet.write_table(pyarrow.table(columns), path, row_group_size=rows)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_samples_are_those_in_memory(kind, dtype, tmp_path):
    X, y, weights = data(dtype)
    source = source_of(kind, tmp_path, X, y, weights)
    assert isinstance(source, RowSource)
    assert source.shape == X.shape
    assert source.dtype == dtype
    assert source.n_blocks > 3
    for _ in range(2):  # as often as asked for
        blocks = list(source)
        assert [len(block.X) for block in blocks] == np.diff(source.starts).tolist()
        for part, whole in enumerate((X, y, weights)):
            assert np.array_equal(np.concatenate([block[part] for block in blocks]), whole)
    assert np.array_equal(source.y, y)
    assert np.array_equal(source.sample_weight, weights)
    backwards = [source.block(i).X for i in reversed(range(source.n_blocks))]
    assert np.array_equal(np.concatenate(backwards[::-1]), X)
    assert all(block.X.dtype == dtype for block in blocks)
    rng = np.random.default_rng(1)
    for some in (np.array([5, 199, 5, 0]), rng.permutation(200)[:150], np.flatnonzero(y > 0.5), np.array([], int)):
        for found, whole in zip(source.take(some), (X, y, weights), strict=True):
            assert np.array_equal(found, whole[some])
        assert np.array_equal(source.rows(some), X[some])
        if len(some):
            part = source.part(some)
            assert np.array_equal(np.concatenate([block.X for block in part]), X[some])
            assert np.array_equal(part.y, y[some])
            assert np.array_equal(part.part(np.array([1, 0])).sample_weight, weights[some][[1, 0]])
    assert np.array_equal(source.rows(y > 0.5), X[y > 0.5])
    with pytest.raises(IndexError):
        source.rows(y[:-1] > 0.5)
    for rows in (slice(None), slice(3, 150), slice(40, 40), slice(150, 3), slice(1, 199, 7), slice(-5, None)):
        assert np.array_equal(source.rows(rows), X[rows])
        if len(X[rows]):
            assert np.array_equal(np.concatenate([block.X for block in source.part(rows)]), X[rows])


@pytest.mark.parametrize("design", DESIGNS, ids=repr)
def test_designs_are_those_in_memory(kind, design, tmp_path):
    X, y, weights = data()
    source = source_of(kind, tmp_path, X, y, weights)
    other = type(design)(**design.get_params())
    for given in (None, 3 - weights):  # weights of the source, or others instead
        design.fit(X, sample_weight=weights if given is None else given)
        other.fit(source, sample_weight=given)
        assert other.n_features_in_ == 4
        names = [name for name in vars(design) if name.endswith("_") and name != "n_features_in_"]
        assert len(names) > 3
        for name in names:
            found, expected = getattr(other, name), getattr(design, name)
            if expected is None:
                assert found is None
                continue
            assert np.shape(found) == np.shape(expected)
            assert np.abs(found - expected).max() <= 1e-10 * np.abs(expected).max()


def test_small_directions_of_small_tolerances_are_accurate(tmp_path):
    rng = np.random.default_rng(5)
    X = rng.standard_normal((3000, 3))
    X[:, 2] = X[:, 0] + 1e-7 * X[:, 2]
    source = read_rows(X, block_bytes=5000)
    one, other = (BatchNormDesign(rtol=1e-9).fit(rows) for rows in (source, X))
    assert one.singular_values_ == pytest.approx(other.singular_values_, rel=1e-7)
    Z = one.matrix(source)
    assert np.abs(Z.gram(np.full((3000, 1), 1 / 3000)) - np.eye(4)).max() < 1e-6  # of second moments it has no digits
    assert BatchNormDesign().fit(source).singular_values_.shape == (2,)


@pytest.mark.parametrize("block_entries", [2**22, 2**9])
@pytest.mark.parametrize("design", [BatchNormDesign(), WeightNormDesign()], ids=repr)
def test_products_are_those_in_memory(kind, design, block_entries, tmp_path, monkeypatch):
    monkeypatch.setattr("convexbn.operators._slices._BLOCK_ENTRIES", block_entries)
    X, y, weights = data()
    source = source_of(kind, tmp_path, X, y, weights)
    design.fit(source)
    Z, dense, rng = design.matrix(source), design.fit(X, sample_weight=weights).matrix(X), np.random.default_rng(1)
    assert isinstance(Z, RowBlocks)
    fold = np.flatnonzero(rng.uniform(size=200) < 0.8)
    for one, other in [
        (Z, dense),
        (Z.of_samples(fold), dense.of_samples(fold)),
        (Z.of_samples(slice(30, 45)), dense.of_samples(slice(30, 45))),
        (Z.weighted(weights[:, None]).of_samples(fold), dense.weighted(weights[:, None]).of_samples(fold)),
        (Z / 3, dense / 3),
    ]:
        n, k = one.n_samples, one.n_columns
        S, A = rng.standard_normal((k, 2)), rng.standard_normal((n, 2))
        for found, expected in [
            (one @ S, other @ S),
            (one.adjoint(A), other.adjoint(A)),
            (one.rows(), other.rows()),
            (one.rows(np.array([[1, 0, 3]])), other.rows(np.array([[1, 0, 3]]))),
            (one.gram(A[:, :1] ** 2), other.gram(A[:, :1] ** 2)),
            (one.masked_gram(A > 0, A[:, 0] ** 2), other.masked_gram(A > 0, A[:, 0] ** 2)),
            (one.row_norms, other.row_norms),
        ]:
            assert np.abs(found - expected).max() <= 1e-10 * np.abs(expected).max()


def test_problems_have_the_same_optimum(tmp_path):
    X, y, weights = data()
    source = source_of("npz", tmp_path, X, y, weights)
    objectives = []
    for samples in (source, X):
        design = BatchNormDesign().fit(samples, sample_weight=weights)
        problem = Problem(design.matrix(samples), y, weight_decay=1.0, fit_intercept=True, sample_weight=weights)
        objectives.append(solve_column_generation(problem, prove=False, tol=1e-7).certificate.objective)
    assert objectives[0] == pytest.approx(objectives[1], rel=1e-6)


def test_single_precision_blocks_are_learned_from_in_double_precision(tmp_path):
    X, y, weights = data(np.float32)
    source = source_of("npy", tmp_path, X + np.float32(1000), y, weights)
    one, other = (BatchNormDesign().fit(rows, sample_weight=weights) for rows in (source, X + np.float32(1000)))
    assert np.abs(one.whitening_ - other.whitening_).max() < 1e-10 * np.abs(other.whitening_).max()
    assert (one.matrix(source) @ np.eye(5)).dtype == np.float64


@pytest.mark.parametrize("design", [BatchNormDesign(), BatchNormDesign(rtol=1e-9), WeightNormDesign()], ids=repr)
def test_memory_is_that_of_a_block(design):
    n_blocks, rows, d = 40, 4000, 40

    def make():
        for seed in range(n_blocks):
            yield np.random.default_rng(seed).standard_normal((rows, d))

    block, Z = 8 * rows * d, None
    tracemalloc.start()
    try:
        source = read_rows(make)
        Z = design.fit(source).matrix(source)
        Z.adjoint(Z @ np.eye(Z.n_columns, 1))
        Z.gram(np.ones((Z.n_rows, 1)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    vectors = 8 * n_blocks * rows
    assert peak < 5 * block + 4 * vectors
    assert 5 * block + 4 * vectors < n_blocks * block / 3


def test_blocks_without_targets_and_of_several(tmp_path):
    X = data()[0]
    for source in (read_rows(X), read_rows([X[:50], X[50:]])):
        assert source.y is None
        assert source.sample_weight is None
        assert source.block(0).y is None
    several = read_rows([(X[:50], X[:50, :2]), (X[50:], X[50:, :2])])
    assert np.array_equal(several.y, X[:, :2])
    assert read_rows(several) is several


def test_integers_become_double_precision_and_mixed_blocks_too(tmp_path):
    X = np.arange(12).reshape(6, 2)
    np.savez(tmp_path / "a.npz", X=X)
    np.savez(tmp_path / "b.npz", X=X.astype(np.float32))
    source = read_rows(tmp_path)
    assert source.dtype == np.float64
    assert all(block.X.dtype == np.float64 for block in source)


def test_targets_may_be_strings(tmp_path):
    X, names = data()[0][:4], np.array(["cat", "dog", "cat", "bird"])
    np.savez(tmp_path / "a.npz", X=X, y=names)
    assert np.array_equal(read_rows(tmp_path).y, names)
    write_parquet(tmp_path / "b.parquet", X, kind=names)
    assert np.array_equal(read_rows(tmp_path / "b.parquet", target="kind").y, names)


def test_row_groups_are_joined_to_blocks(tmp_path):
    X = data()[0]
    write_parquet(tmp_path / "a.parquet", X, rows=30)
    assert np.diff(read_rows(tmp_path, block_bytes=1).starts).tolist() == [30] * 6 + [20]
    assert np.diff(read_rows(tmp_path, block_bytes=32 * 65).starts).tolist() == [60, 60, 60, 20]


def test_names_of_features_must_agree(tmp_path):
    X = data()[0]
    write_parquet(tmp_path / "a.parquet", X)
    source = read_rows(tmp_path)
    design = BatchNormDesign().fit(source)
    assert design.feature_names_in_.tolist() == ["x0", "x1", "x2", "x3"]
    write_parquet(tmp_path / "other.parquet", X, x9=X[:, 0])
    with pytest.raises(ValueError, match=r"other\.parquet has the features \['x0', 'x9'.*all must be alike"):
        read_rows(tmp_path)
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(ValueError, match="has 5 features, but BatchNormDesign was fitted on 4"):
        design.matrix(read_rows(tmp_path))
    write_parquet(tmp_path / "other.parquet", X[:, :3], x9=X[:, 0])
    with pytest.raises(ValueError, match="give them in this order"):
        design.matrix(read_rows(tmp_path))
    assert not hasattr(design.fit(read_rows(X)), "feature_names_in_")


def saved(folder, **files):
    for name, arrays in files.items():
        np.savez(folder / f"{name}.npz", **arrays)
    return folder


ONES = np.ones((3, 2))
NAN = np.array([[1.0, np.nan]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "absent", "does not exist; give the path of a folder"),
        (lambda path: path, "no .npz, X.*.npy or .parquet file"),
        (lambda path: saved(path, a={"X": ONES}, b={"X": np.ones((3, 4))}), r"b\.npz has 4 features.*a\.npz has 2"),
        (lambda path: saved(path, a={"X": ONES, "y": np.ones(3)}, b={"X": ONES}), r"b\.npz .* no y.*must be alike"),
        (lambda path: saved(path, a={"X": ONES, "y": np.ones(2)}), r"y of .*a\.npz must hold one target for each of"),
        (lambda path: saved(path, a={"X": ONES, "sample_weight": np.ones((3, 1))}), r"sample_weight of .*a\.npz must"),
        (lambda path: saved(path, a={"x": ONES}), r"a\.npz has no array X, only \['x'\]; save it"),
        (lambda path: saved(path, a={"X": np.ones(3)}), r"X of .*a\.npz must have shape \(m, d\)"),
        (lambda path: saved(path, a={"X": ONES[:0]}), "holds no rows in its 1 file"),
        (lambda path: saved(path, a={"X": np.array([["a"]])}), r"a\.npz holds <U1, and must hold real numbers"),
        (lambda path: iter([ONES]), r"iterator, which can be read once.*read_rows\(lambda"),
        (lambda path: (block for block in [ONES]), "give the function that makes it"),
        (lambda path: 3, "source is a int; give an array"),
        (lambda path: [], "source yields no rows"),
        (lambda path: [ONES[:0]], "source yields no rows"),
        (lambda path: [ONES, np.ones((3, 4))], "block 1 has 4 features.*block 0 has 2"),
        (lambda path: [(ONES, np.ones(2))], "y of block 0 must hold one target for each of its 3 rows"),
        (lambda path: [(ONES, np.ones((3, 1))), (ONES, np.ones(3))], "all must be alike"),
        (lambda path: [ONES, NAN], "X of block 1 contains NaN or infinity, first in column 1"),
        (lambda path: [(ONES, np.array([1, np.inf, 2]))], "y of block 0 contains NaN"),
        (lambda path: ["rows"], "block 0 must be an array X of shape"),
        (lambda path: [(ONES, None, None, None)], "block 0 must be an array X of shape"),
        (lambda path: np.ones(3), "at least one row and one column"),
        (lambda path: np.ones((0, 3)), "at least one row"),
        (lambda path: np.ones((2, 2), dtype=complex), "holds complex128"),
    ],
)
def test_what_cannot_be_read_is_named(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_rows(make(tmp_path))


def test_blocks_that_change_are_refused():
    passes = []

    def fewer():
        passes.append(0)
        return iter([ONES] * (4 - len(passes)))

    with pytest.raises(ValueError, match="3 blocks in the first pass and fewer in a later one"):
        list(read_rows(fewer))
    sizes = iter([3, 2])
    with pytest.raises(ValueError, match=r"Block 0 has shape \(2, 2\) and had \(3, 2\) in the first pass"):
        list(read_rows(lambda: iter([ONES[: next(sizes)]])))


@pytest.mark.parametrize("name", ["a.npz", "X.npy", "a.parquet"])
def test_truncated_files_are_named(name, tmp_path):
    path, X = tmp_path / name, data()[0]
    if name == "a.npz":
        np.savez(path, X=X)
    elif name == "X.npy":
        np.save(path, X)
    else:
        write_parquet(path, X)
    whole = path.read_bytes()
    for length in (len(whole) - 100, 3):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"{name} cannot be read, it may be truncated"):
            read_rows(tmp_path)


def test_nothing_is_unpickled(tmp_path):
    for make in (
        lambda: np.save(tmp_path / "X.npy", [[{}]], allow_pickle=True),
        lambda: saved(tmp_path, a={"X": [[{}]]}),
    ):
        make()
        with pytest.raises(ValueError, match=r"holds Python objects|must hold real numbers"):
            read_rows(tmp_path)
        for file in tmp_path.iterdir():
            file.unlink()


@pytest.mark.parametrize("kind", ["array", "npz", "npy", "parquet"])
def test_nan_in_stored_data_is_refused_when_it_is_read(kind, tmp_path):
    X, y, weights = data()
    X[150, 2] = np.nan
    source = source_of(kind, tmp_path, X, y, weights)
    with pytest.raises(ValueError, match=r"X of .* contains NaN or infinity, first in column 2"):
        BatchNormDesign().fit(source)


def test_missing_values_and_other_columns_of_parquet_files(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"a": [1.0, None], "b": ["x", "y"]}), path)
    for options, message in [
        ({}, r"column 'b', holds object, and must hold real numbers"),
        ({"target": "price"}, r"target='price' is no column of .*a\.parquet; it has \['a', 'b'\]"),
        ({"target": "a", "sample_weight": "b"}, "no columns but the target and the weights"),
        ({"target": np.ones(2)}, "target must be a column of Parquet files; give its name"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_rows(path, **options)
    with pytest.raises(ValueError, match=r"Column 'a' of .*a\.parquet, row groups 0 to 0 has 1 missing value;"):
        read_rows(path, target="b").block(0)


def test_options_that_belong_to_another_kind(tmp_path):
    saved(tmp_path, a={"X": ONES})
    for source, options, message in [
        (ONES, {"target": "y"}, "names a column of Parquet files; give an array"),
        (ONES, {"block_bytes": 0}, "block_bytes=0 must be a positive integer"),
        ([ONES], {"target": np.ones(3)}, "target is for arrays and Parquet files; list has its own"),
        (tmp_path, {"target": "y"}, r"target must be a column of Parquet files; save it beside X, as the \.npz files"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_rows(source, **options)
    np.save(tmp_path / "X.npy", ONES)
    with pytest.raises(ValueError, match=r"files of the kinds \['\.npz', '\.npy'\]; give a folder with files of one"):
        read_rows(tmp_path)


def test_samples_that_do_not_exist():
    source = read_rows(ONES)
    for block in (-1, 1):
        with pytest.raises(IndexError, match=f"Block {block} does not exist; there are 1"):
            source.block(block)
    for indices, message in [([3], "from 0 to 2"), ([-1], "from 0 to 2"), ([0.5], "integers"), ([[0]], "a list of")]:
        with pytest.raises(ValueError, match=message):
            source.take(indices)
    with pytest.raises(ValueError, match="at least one row"):
        source.part(np.array([], dtype=int))


def test_sources_are_not_arrays():
    source = read_rows(data()[0])
    with pytest.raises(TypeError, match="is read in blocks and is no array"):
        np.asarray(source)
    for design in (PostActivationBatchNormDesign().fit(source), PatchDesign(1).fit(np.arange(8.0).reshape(2, 1, 2, 2))):
        design.n_features_in_ = 4
        with pytest.raises(ValueError, match="takes data in memory"):
            design.matrix(source)


def test_equal_rows_and_zeros_are_refused():
    with pytest.raises(ValueError, match="All rows of X are equal"):
        BatchNormDesign().fit(read_rows([ONES, ONES]))
    with pytest.raises(ValueError, match="X is all zero"):
        WeightNormDesign().fit(read_rows([0 * ONES, 0 * ONES]))
    with pytest.raises(ValueError, match="sample_weight must not be negative"):
        BatchNormDesign().fit(read_rows([(ONES, np.ones(3), -np.ones(3))]))
    with pytest.raises(ValueError, match="n_components=3 is out of range"):
        BatchNormDesign(3).fit(read_rows(ONES))
