import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.base import clone

from convexbn import BatchNormDesign, ConvexBNConvRegressor, PatchDesign
from convexbn.designs import PatchGrid
from convexbn.designs._patches import check_images

GRIDS = [
    PatchGrid(2),
    PatchGrid((3, 2), stride=2, padding=1),
    PatchGrid((1, 4), stride=(3, 1), padding=(0, 2)),
    PatchGrid((7, 6)),
]


def images(n=6, channels=3, height=7, width=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, channels, height, width)) * np.array([1.0, 10.0, 0.1])[:channels, None, None] + 2


def patches_by_loops(X, grid):
    (kh, kw), (sh, sw), (ph, pw) = grid.kernel_size, grid.stride, grid.padding
    _, channels, height, width = X.shape
    rows = []
    for image in X:
        padded = np.zeros((channels, height + 2 * ph, width + 2 * pw))
        padded[:, ph : ph + height, pw : pw + width] = image
        for top in range(0, height + 2 * ph - kh + 1, sh):
            for left in range(0, width + 2 * pw - kw + 1, sw):
                rows.append(padded[:, top : top + kh, left : left + kw].ravel())
    return np.array(rows)


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_patches_are_those_of_loops_and_of_torch(grid):
    X = images()
    patches = grid.patches(X)
    np.testing.assert_array_equal(patches, patches_by_loops(X, grid))
    filters = np.random.default_rng(1).standard_normal((4, 3, *grid.kernel_size))
    maps = torch.nn.functional.conv2d(torch.tensor(X), torch.tensor(filters), stride=grid.stride, padding=grid.padding)
    assert maps.shape[2:] == grid.shape(7, 6)
    expected = maps.permute(0, 2, 3, 1).reshape(-1, 4).numpy()
    np.testing.assert_allclose(patches @ filters.reshape(4, -1).T, expected, atol=1e-9)


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_blocks_are_the_patches(grid, monkeypatch):
    monkeypatch.setattr("convexbn.designs._patches._BLOCK_ENTRIES", 1000)
    X = images(n=20)
    slices, blocks = zip(*grid.blocks(X), strict=True)
    assert len(blocks) > 1
    assert [(block.start, block.stop) for block in slices][-1][1] == 20
    np.testing.assert_array_equal(np.vstack(blocks), grid.patches(X))
    weights = np.arange(20.0)
    mean = grid.mean(X, weights)
    np.testing.assert_allclose(
        mean, np.average(grid.patches(X), axis=0, weights=weights.repeat(grid.n_patches(X))), atol=1e-12
    )


@pytest.mark.parametrize("grid", GRIDS[:3], ids=repr)
def test_design_is_that_of_the_whitened_patches(grid, monkeypatch):
    monkeypatch.setattr("convexbn.designs._patches._BLOCK_ENTRIES", 1000)
    X, new = images(n=30), images(n=4, seed=1)
    design = PatchDesign(grid.kernel_size, grid.stride, grid.padding).fit(X)
    dense = BatchNormDesign().fit(grid.patches(X))
    Z, Z_dense = design.transform(X), dense.transform(grid.patches(X))
    assert design.n_patches == np.prod(grid.shape(7, 6))
    assert Z.shape == Z_dense.shape
    np.testing.assert_allclose(Z.T @ Z / len(Z), np.eye(Z.shape[1]), atol=1e-12)
    np.testing.assert_allclose(Z @ Z.T, Z_dense @ Z_dense.T, atol=1e-8)
    np.testing.assert_allclose(design.mean_, dense.mean_)
    rotation = dense.transform(grid.patches(X)).T @ Z / len(Z)
    np.testing.assert_allclose(design.transform(new), dense.transform(grid.patches(new)) @ rotation, atol=1e-8)
    np.testing.assert_allclose(Z[:, :-1] @ design.coloring_ + design.mean_, grid.patches(X), atol=1e-8)


def test_whitening_is_exact_where_the_second_moments_are_not():
    X = images(n=200, channels=1, height=4, width=4)
    X[:, :, :, 1] = X[:, :, :, 0] + 1e-5 * X[:, :, :, 1]
    X = 1e3 + X
    Z = PatchDesign((1, 2), stride=(1, 2)).fit_transform(X)
    assert Z.shape[1] == 3
    np.testing.assert_allclose(Z.T @ Z / len(Z), np.eye(3), atol=1e-10)


def test_neurons_come_back_as_filters_and_return():
    X, new = images(n=20), images(n=3, seed=1)
    design = PatchDesign(3, stride=2, padding=1).fit(X)
    S = np.random.default_rng(0).standard_normal((design.transform(X).shape[1], 5))
    layer = design.neuron_weights(S)
    preactivations = design.grid.patches(new) @ layer.weights.T
    hidden = np.maximum(layer.gamma * (preactivations - layer.mean) / layer.std + layer.bias, 0)
    np.testing.assert_allclose(hidden, np.maximum(design.transform(new) @ S, 0), atol=1e-9)
    np.testing.assert_allclose((design.grid.patches(X) @ layer.weights.T).std(axis=0), layer.std)
    np.testing.assert_allclose(design.neurons(layer.weights, layer.gamma, layer.bias), S, atol=1e-9)
    slopes, offsets = design.affine(S)
    np.testing.assert_allclose(design.grid.patches(new) @ slopes.T + offsets, design.transform(new) @ S, atol=1e-9)


@pytest.mark.parametrize("n_components", [4, 0.9, 1.0, None])
def test_truncation_is_that_of_the_dense_design(n_components):
    X = images(n=20)
    design = PatchDesign(2, n_components=n_components).fit(X)
    patches = design.grid.patches(X)
    dense = BatchNormDesign(n_components, standardize=False).fit(patches)
    Z, Z_dense = design.transform(X), dense.transform(patches)
    assert Z.shape == Z_dense.shape
    np.testing.assert_allclose(Z @ Z.T, Z_dense @ Z_dense.T, atol=1e-7)
    if n_components is not None:
        np.testing.assert_allclose(design.singular_values_, dense.singular_values_)
    assert design.variance_share_ == pytest.approx(dense.variance_share_)


def test_constant_pixels_and_repeated_channels_do_not_count():
    X = images(n=20)
    redundant = np.concatenate([X, np.full_like(X[:, :1], 0.1), 3 * X[:, :1]], axis=1)
    Z, Z_redundant = (PatchDesign(2).fit_transform(data) for data in (X, redundant))
    assert Z.shape == Z_redundant.shape
    np.testing.assert_allclose(Z @ Z.T, Z_redundant @ Z_redundant.T, atol=1e-9)


def test_integer_weights_equal_repeated_images():
    X, weights = images(n=8), np.array([0, 1, 2, 3, 0, 1, 1, 2])
    weighted, repeated = PatchDesign(2).fit(X, sample_weight=weights), PatchDesign(2).fit(X.repeat(weights, axis=0))
    for name in ("mean_", "singular_values_", "whitening_", "coloring_"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-7, atol=1e-9)


def test_integer_images_are_read_as_they_are():
    X = np.random.default_rng(0).integers(0, 256, (20, 3, 7, 6), dtype=np.uint8)
    design = PatchDesign(2).fit(X)
    np.testing.assert_array_equal(design.transform(X), PatchDesign(2).fit(X.astype(float)).transform(X.astype(float)))
    assert check_images(X, design.grid) is X


def test_images_in_a_large_memory_map_are_images(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (9, 2, 5, 4)).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    monkeypatch.setattr("convexbn._utils.on_disk.LEAST_ENTRIES", 1)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    design = PatchDesign(kernel_size=2).fit(mapped)
    np.testing.assert_array_equal(design.matrix(mapped).rows(), design.transform(images))
    y = images.mean(axis=(1, 2, 3)) / 255
    model = ConvexBNConvRegressor(0.1, kernel_size=2)
    predicted = model.fit(images, y).predict(images)
    np.testing.assert_array_equal(model.fit(mapped, y).predict(mapped), predicted)


def test_memory_is_that_of_a_block_and_of_the_design_matrix():
    X = np.random.default_rng(0).standard_normal((700, 3, 24, 24))
    design = PatchDesign(8, stride=2, n_components=5)
    whole = 8 * design.grid.n_patches(X) * len(X) * 3 * 8 * 8
    assert whole > 80e6
    peaks = []
    for method in (design.fit, design.transform):
        tracemalloc.start()
        result = method(X)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < 20e6
    assert peaks[1] < 20e6 + result.nbytes


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kernel_size": 0}, "kernel_size=0 must be an integer from 1 on, or a pair"),
        ({"kernel_size": (2, 2, 2)}, r"kernel_size=\(2, 2, 2\) must be"),
        ({"kernel_size": 2.5}, "kernel_size=2.5 must be"),
        ({"stride": (1, 0)}, r"stride=\(1, 0\) must be an integer from 1 on"),
        ({"stride": True}, "stride=True must be"),
        ({"padding": -1}, "padding=-1 must be an integer from 0 on"),
        ({"kernel_size": 8}, r"kernel_size=\(8, 8\) is larger than the images, which are 7 x 6"),
        ({"kernel_size": (7, 9), "padding": (0, 1)}, r"kernel_size=\(7, 9\) is larger than the images.*\(0, 1\)"),
        ({"n_components": 28}, "n_components=28 is out of range: give None, an int from 1 to 27"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        PatchDesign(**parameters).fit(images())


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones((5, 12)), r"shape \(n, channels, height, width\), got \(5, 12\); reshape rows of pixels to images"),
        (np.ones((5, 8, 8)), r"got \(5, 8, 8\); give images of one channel as X\[:, None\]"),
        (np.ones((1, 1, 1, 1, 1)), "reshape it"),
        (np.ones((5, 8, 8, 3)), r"last axis looks like the channels: use np.moveaxis\(X, -1, 1\)"),
        (np.ones((5, 28, 28, 1)), r"last axis looks like the channels"),
        (np.ones((5, 2, 8, 8)), "All patches of X are equal"),
        (np.full((5, 1, 8, 8), 0.1), "All patches of X are equal"),
        (np.full((5, 1, 8, 8), np.nan), "NaN"),
        (np.array([[[["a"]]]]), "could not convert|dtype"),
        (np.empty((0, 1, 8, 8)), "0 sample"),
    ],
    ids=lambda case: str(getattr(case, "shape", "")),
)
def test_bad_images(X, message):
    with pytest.raises(ValueError, match=message):
        PatchDesign(3).fit(X)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((8, 8), {"kernel_size": 1}),
        ((8, 8), {"kernel_size": (3, 1)}),
        ((8, 8), {"kernel_size": 3, "padding": 1}),
        ((8, 9), {"kernel_size": 2}),
        ((8, 9), {"kernel_size": 9}),
    ],
)
def test_few_channels_last_are_refused_whatever_the_filter(channels, size, options):
    X = np.ones((5, *size, channels))
    with pytest.raises(ValueError, match=r"last axis looks like the channels: .*, swap height and width"):
        PatchDesign(**options).fit(X)
    swapped = check_images(X.swapaxes(2, 3), PatchGrid(1))
    assert swapped.shape == (5, size[0], channels, size[1])


def test_filter_too_large_asks_for_the_channels_where_the_last_axis_is_the_smallest():
    for shape, hint in (((5, 12, 12, 5), True), ((5, 3, 6, 6), False), ((5, 5, 12, 5), False)):
        with pytest.raises(ValueError, match="is larger than the images") as error:
            PatchDesign(7).fit(np.ones(shape))
        assert ("If the last axis holds the channels, use np.moveaxis(X, -1, 1)." in str(error.value)) == hint


def test_narrow_images_are_taken_where_they_can_be_meant():
    for shape, kernel_size in (((5, 8, 20, 1), (5, 1)), ((5, 3, 9, 3), 3), ((5, 16, 4, 4), 2), ((5, 16, 1, 1), 1)):
        X = np.random.default_rng(0).standard_normal(shape)
        assert len(PatchDesign(kernel_size).fit_transform(X)) % 5 == 0


def test_other_images_than_those_of_training_are_refused():
    design = PatchDesign(2).fit(images())
    with pytest.raises(ValueError, match=r"shape \(3, 7, 5\), those of training have shape \(3, 7, 6\)"):
        design.transform(images(width=5))
    assert clone(design).get_params() == design.get_params()


@pytest.mark.parametrize(
    ("trained", "given", "last"),
    [
        ((3, 7, 6), (7, 6, 3), True),
        ((5, 12, 12), (12, 12, 5), True),
        ((5, 12, 12), (20, 20, 5), True),
        ((3, 3, 8), (3, 8, 3), True),
        ((3, 7, 6), (3, 7, 3), False),
        ((3, 7, 6), (7, 7, 6), False),
        ((1,), (6, 8, 1), True),
        ((2,), (8, 3, 2), True),
        ((2,), (8, 3, 4), False),
    ],
)
def test_channels_last_are_told_by_the_images_of_training(trained, given, last):
    with pytest.raises(ValueError, match="of training have") as error:
        check_images(np.ones((4, *given)), PatchGrid(1), trained)
    assert ("its last axis looks like the channels: use np.moveaxis(X, -1, 1)" in str(error.value)) == last


def test_one_filter_on_the_whole_image_is_the_dense_design():
    X = images(n=40)
    design, flat = PatchDesign((7, 6)).fit(X), X.reshape(40, -1)
    Z, dense = design.transform(X), BatchNormDesign().fit_transform(flat)
    assert design.n_patches == 1
    assert Z.shape == dense.shape
    np.testing.assert_allclose(Z @ Z.T, dense @ dense.T, atol=1e-9)


def test_pooling_averages_over_the_patches_of_an_image():
    X = images()
    design = PatchDesign(2).fit(X)
    Z = design.matrix(X)
    S = np.random.default_rng(0).standard_normal((Z.n_columns, 2))
    alone = np.maximum(design.transform(X[3:4]) @ S, 0).mean(axis=0)
    np.testing.assert_allclose(Z.neuron_outputs(S)[3], alone)
