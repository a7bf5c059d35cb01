import numpy as np
import pytest
import torch
from scipy.linalg import svd
from sklearn.base import clone

from convexbn import (
    BatchNormDesign,
    BatchNormNetwork,
    ConvexBNClassifier,
    ConvexBNConvClassifier,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    ConvexBNRegressorCV,
    PatchDesign,
    Problem,
    WeightNormDesign,
    convexbn_path,
    enumerate_patterns,
    solve_reference,
)
from convexbn.datasets import make_teacher

DESIGNS = [BatchNormDesign, WeightNormDesign]
X, Y = make_teacher(14, 3, random_state=0)
X = X + 2
NEW = make_teacher(9, 3, random_state=1)[0] + 2
WEIGHT_DECAY = 0.02


def relu_layer(layer, data):
    return np.maximum(layer.gamma * (data @ layer.weights.T - layer.mean) / layer.std + layer.bias, 0)


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_columns_are_the_whitened_ones_times_powers_of_singular_values(power):
    plain, weighted = (
        BatchNormDesign(**options, standardize=False).fit(X)
        for options in ({"n_components": 3}, {"spectral_power": power})
    )
    S = svd(X - X.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(weighted.singular_values_, S)
    np.testing.assert_allclose(weighted.spectral_weights_, (S / S[0]) ** power)
    np.testing.assert_allclose(
        weighted.transform(NEW), plain.transform(NEW) * np.append((S / S[0]) ** power, 1), atol=1e-12
    )


def test_power_one_is_the_centred_data_itself():
    Z = BatchNormDesign(spectral_power=1.0, standardize=False).fit_transform(X)[:, :-1]
    centred = X - X.mean(axis=0)
    largest = np.linalg.norm(centred, 2) / np.sqrt(len(X))
    np.testing.assert_allclose(Z @ Z.T, centred @ centred.T / largest**2, atol=1e-12)


def test_weight_norm_columns_are_components_times_powers():
    U, S, _ = svd(X, full_matrices=False)
    for power in (0.5, 2.0):
        Z = WeightNormDesign(spectral_power=power).fit_transform(X)
        np.testing.assert_allclose(np.abs(Z[:, :-1]), np.abs(U * S * (S / S[0]) ** power), atol=1e-12)
        np.testing.assert_array_equal(Z[:, -1], 1)
    np.testing.assert_array_equal(WeightNormDesign(bias=False).fit_transform(X), X)


@pytest.mark.parametrize("Design", DESIGNS)
@pytest.mark.parametrize("n_components", [None, 2])
@pytest.mark.parametrize("power", [0.7, 2.0])
def test_layer_weights_reproduce_neurons_on_new_rows(Design, n_components, power):
    design = Design(n_components=n_components, spectral_power=power).fit(X)
    S = np.random.default_rng(0).standard_normal((design.transform(X).shape[1], 5))
    S[:-1, 4] = 0  # a constant neuron
    layer = design.neuron_weights(S)
    for data in (X, NEW):
        np.testing.assert_allclose(relu_layer(layer, data), np.maximum(design.transform(data) @ S, 0), atol=1e-10)
    np.testing.assert_allclose(design.neurons(layer.weights, layer.gamma, layer.bias), S, atol=1e-10)
    slopes, offsets = design.affine(S)
    np.testing.assert_allclose(NEW @ slopes.T + offsets, design.transform(NEW) @ S, atol=1e-10)
    if Design is BatchNormDesign:
        np.testing.assert_allclose((X @ layer.weights.T).std(axis=0), layer.std)


def test_sample_weights_equal_repeated_rows():
    counts = np.arange(len(X)) % 3 + 1
    weighted = BatchNormDesign(spectral_power=1.5).fit(X, sample_weight=counts)
    repeated = BatchNormDesign(spectral_power=1.5).fit(np.repeat(X, counts, axis=0))
    np.testing.assert_allclose(weighted.transform(NEW), repeated.transform(NEW), atol=1e-10)


@pytest.mark.parametrize("design", [BatchNormDesign(spectral_power=400.0), WeightNormDesign(spectral_power=40.0)])
def test_directions_of_vanishing_weight_are_dropped(design):
    design.fit(X)
    assert design.transform(X).shape[1] == 2
    np.testing.assert_array_equal(design.spectral_weights_, 1)
    assert design.variance_share_ < 0.99


@pytest.mark.parametrize(
    "model",
    [ConvexBNRegressor(0.02, spectral_power=1.0, tol=1e-9), ConvexBNRegressor(0.02, n_components=1, tol=1e-9)],
    ids=repr,
)
def test_units_of_columns_do_not_matter_to_an_estimator(model):
    units = np.array([1e-6, 1.0, 1e6])
    plain, scaled = (clone(model).fit(data, Y) for data in (X, X * units))
    np.testing.assert_allclose(scaled.predict(NEW * units), plain.predict(NEW), rtol=1e-6, atol=1e-6)
    raw = clone(model).set_params(standardize=False).fit(X * units, Y)
    assert np.abs(raw.predict(NEW * units) - plain.predict(NEW)).max() > 0.01
    with pytest.raises(ValueError, match="standardize=1 must be True or False"):
        clone(model).set_params(standardize=1).fit(X, Y)


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("power", [0.5, 1.0])
def test_objective_of_the_certificate_is_that_of_the_documented_penalty(power, standardize):
    options = {"spectral_power": power, "fit_intercept": False, "standardize": standardize}
    model = ConvexBNRegressor(WEIGHT_DECAY, **options).fit(X, Y)
    assert f"spectral_power={power:g}" in str(model.certificate_)
    network = model.network_
    assert type(network) is BatchNormNetwork
    std = network.batch_statistics(X)[1]
    np.testing.assert_allclose(std, network.std)
    units = X.std(axis=0) if standardize else np.ones(3)
    _, S, Vt = svd((X - X.mean(axis=0)) / units, full_matrices=False)
    q = (S[:, None] * Vt * units) @ network.weights.T / (std * np.sqrt(len(X)))
    np.testing.assert_allclose(np.linalg.norm(q, axis=0), 1)
    directions = ((S[0] / S) ** power)[:, None] * q * network.gamma
    penalty = (directions**2).sum() + (network.bias**2).sum() + (network.output_weights**2).sum()
    loss = np.mean((network.predict(X)[:, 0] - Y) ** 2) / 2
    assert model.certificate_.objective == pytest.approx(loss + WEIGHT_DECAY / 2 * penalty)
    # Plain weight decay is another objective, and this network is not its optimum.
    plain = ConvexBNRegressor(WEIGHT_DECAY, fit_intercept=False).fit(X, Y)
    assert network.objective(X, Y, WEIGHT_DECAY) > plain.certificate_.objective * (1 + 1e-4)
    assert plain.network_.objective(X, Y, WEIGHT_DECAY) == pytest.approx(plain.certificate_.objective)
    assert "spectral_power" not in str(plain.certificate_)


@pytest.mark.parametrize("normalization", ["batch", "weight"])
def test_optimum_is_that_of_the_program_on_the_weighted_design(normalization):
    Design = dict(zip(("batch", "weight"), DESIGNS, strict=True))[normalization]
    model = ConvexBNRegressor(WEIGHT_DECAY, spectral_power=1.0, normalization=normalization).fit(X, Y)
    problem = Problem(Design(spectral_power=1.0).fit_transform(X), Y, weight_decay=WEIGHT_DECAY, fit_intercept=True)
    program = solve_reference(problem, enumerate_patterns(problem.Z)).certificate
    assert model.certificate_.objective == pytest.approx(program.objective, rel=1e-6)
    assert model.certificate_.scope == "global"


def test_no_other_network_is_better_in_the_weighted_objective():
    """Networks trained in the weighted objective come down to the proved bound, and never below it."""
    design = BatchNormDesign(spectral_power=1.0).fit(X)
    bound = ConvexBNRegressor(WEIGHT_DECAY, spectral_power=1.0, fit_intercept=False).fit(X, Y).certificate_.lower_bound
    Z, y = (torch.tensor(a) for a in (design.transform(X), Y))
    torch.manual_seed(0)
    S, c = torch.randn(20, Z.shape[1], 15, dtype=torch.float64), torch.randn(20, 15, 1, dtype=torch.float64)
    parameters = [(0.5 * part).requires_grad_() for part in (S, c)]

    def objectives(S, c):
        f = (torch.relu(Z @ S) @ c)[..., 0]
        return ((f - y) ** 2).mean(dim=1) / 2 + WEIGHT_DECAY / 2 * ((S**2).sum(dim=(1, 2)) + (c**2).sum(dim=(1, 2)))

    optimizer = torch.optim.Adam(parameters, lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        objectives(*parameters).sum().backward()
        optimizer.step()
    trained = objectives(*parameters).detach().numpy()
    assert (trained >= bound).all()
    assert trained.min() <= bound * 1.01


def test_pruned_network_predicts_the_same_on_the_training_data():
    network = ConvexBNRegressor(WEIGHT_DECAY, spectral_power=1.0).fit(X, Y).network_
    pruned = network.prune(X)
    np.testing.assert_allclose(pruned.predict(X), network.predict(X), atol=1e-10)
    assert pruned.objective(X, Y, WEIGHT_DECAY) <= network.objective(X, Y, WEIGHT_DECAY) * (1 + 1e-12)


def test_path_and_cross_validation_know_the_power():
    options = {"weight_decays": [0.2, 0.05], "spectral_power": 1.0, "solver": "CLARABEL"}
    path = convexbn_path(X, Y, **options)
    assert all("spectral_power=1" in certificate.basis for certificate in path.certificates)
    model = ConvexBNRegressorCV(cv=2, **options).fit(X, Y)
    assert "spectral_power=1" in model.certificate_.basis
    chosen = path.certificates[list(path.weight_decays).index(model.weight_decay_)]
    assert model.certificate_.objective == pytest.approx(chosen.objective, rel=1e-5)
    labels = np.where(Y > 0, 1, 0)
    assert "spectral_power=2" in ConvexBNClassifier(0.01, spectral_power=2.0).fit(X, labels).certificate_.basis


@pytest.mark.parametrize("power", [-1.0, np.inf, np.nan, "one", True, None])
def test_power_out_of_range(power):
    for estimator in (*(Design(spectral_power=power) for Design in DESIGNS), ConvexBNRegressor(spectral_power=power)):
        with pytest.raises(ValueError, match=r"spectral_power=.* must be a finite number"):
            estimator.fit(X, Y)


@pytest.mark.parametrize("n_components", [None, 3])
@pytest.mark.parametrize("power", [0.0, 0.7, 2.0])
def test_one_filter_on_the_whole_image_is_the_dense_design(power, n_components):
    rng = np.random.default_rng(0)
    images, new = (rng.standard_normal((n, 2, 1, 2)) * np.array([1, 5])[:, None, None] + 3 for n in (20, 9))
    patches = PatchDesign((1, 2), n_components=n_components, spectral_power=power).fit(images)
    dense = BatchNormDesign(n_components, spectral_power=power, standardize=False).fit(images.reshape(20, 4))
    np.testing.assert_allclose(patches.spectral_weights_, dense.spectral_weights_)
    Z, expected = patches.transform(new), dense.transform(new.reshape(9, 4))
    np.testing.assert_allclose(Z @ Z.T, expected @ expected.T, atol=1e-9)
    np.testing.assert_allclose(patches.whitening_ @ patches.coloring_, dense.whitening_ @ dense.coloring_, atol=1e-9)


@pytest.mark.parametrize("power", [0.7, 2.0])
def test_patches_are_weighted_along_their_singular_directions(power):
    images = np.random.default_rng(0).standard_normal((12, 2, 3, 3)) * np.array([1, 5])[:, None, None]
    plain = PatchDesign(2, n_components=8).fit(images)
    weighted = PatchDesign(2, spectral_power=power).fit(images)
    S = plain.singular_values_
    np.testing.assert_allclose(weighted.spectral_weights_, (S / S[0]) ** power)
    np.testing.assert_allclose(
        weighted.transform(images), plain.transform(images) * np.append((S / S[0]) ** power, 1), atol=1e-9
    )


def test_convolutional_estimator_is_the_dense_one_under_one_filter():
    rng = np.random.default_rng(0)
    images = rng.standard_normal((30, 1, 1, 3)) * np.array([1.0, 4.0, 0.3])
    y = np.abs(images[:, 0, 0, 0]) + 0.1 * rng.standard_normal(30)
    options = {"weight_decay": 0.02, "spectral_power": 1.0, "tol": 1e-3}
    conv = ConvexBNConvRegressor(kernel_size=(1, 3), **options).fit(images, y)
    dense = ConvexBNRegressor(standardize=False, **options).fit(images.reshape(30, 3), y)
    plain = ConvexBNConvRegressor(kernel_size=(1, 3), **options | {"spectral_power": 0.0}).fit(images, y)
    assert conv.certificate_.objective == pytest.approx(dense.certificate_.objective, rel=1e-5)
    assert conv.certificate_.objective > plain.certificate_.objective * 1.01
    assert "spectral_power=1" in conv.certificate_.basis
    np.testing.assert_allclose(conv.predict(images), dense.predict(images.reshape(30, 3)), atol=1e-3)
    signs = np.where(y > np.median(y), 1, -1)
    classifier = ConvexBNConvClassifier(kernel_size=(1, 3), **options).fit(images, signs)
    expected = ConvexBNClassifier(standardize=False, **options).fit(images.reshape(30, 3), signs).certificate_.objective
    assert classifier.certificate_.objective == pytest.approx(expected, rel=2e-3)
    with pytest.raises(ValueError, match="spectral_power=-1"):
        conv.set_params(spectral_power=-1).fit(images, y)
