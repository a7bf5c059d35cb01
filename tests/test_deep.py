import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import issparse
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomTreesEmbedding
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from convexbn import (
    BatchNormDesign,
    BatchNormNetwork,
    ConvBatchNormNetwork,
    ConvexBNClassifier,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    ConvexBNRegressorCV,
    ConvexBNStackClassifier,
    ConvexBNStackRegressor,
    DeepNetwork,
    FrozenModule,
    Problem,
    RandomBatchNormLayers,
    make_network,
    solve,
)
from convexbn.datasets import make_teacher
from convexbn.gradient import train
from convexbn.losses import SquaredError
from tests.watched import watched_loss

X, Y = make_teacher(16, 3, random_state=0)
NEW = make_teacher(11, 3, random_state=1)[0]
LABELS = np.where(Y > 0, "high", "low")
WIDE = RandomBatchNormLayers((40, 30))
WEIGHT_DECAY = 0.05


def closed_form_value(y, weight_decay):
    """Optimum of one output without intercept on features of full row rank: both signs of y shrink on their own."""
    lengths = np.array([np.linalg.norm(np.maximum(sign * y, 0)) / np.sqrt(len(y)) for sign in (1, -1)])
    return np.where(lengths > weight_decay, weight_decay * lengths - weight_decay**2 / 2, lengths**2 / 2).sum()


@parametrize_with_checks(
    [
        ConvexBNStackRegressor(
            ConvexBNRegressor(weight_decay=0.1, n_components=0.9, tol=0.5, prove=False),
            features=RandomBatchNormLayers((14,)),
        ),
        ConvexBNStackClassifier(ConvexBNClassifier(weight_decay=0.05, tol=0.5, prove=False)),
        RandomBatchNormLayers((7, 5)),
        FrozenModule(torch.nn.ReLU()),
    ],
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def wide_module():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 40), torch.nn.BatchNorm1d(40), torch.nn.ReLU())


@pytest.mark.parametrize("features", [WIDE, FrozenModule(wide_module(), statistics="batch")], ids=["random", "given"])
def test_last_two_layers_reach_the_closed_form(features):
    model = ConvexBNStackRegressor(ConvexBNRegressor(WEIGHT_DECAY, fit_intercept=False), n_stages=1, features=features)
    model.fit(X, Y)
    certificate = model.certificate_
    assert certificate.objective == pytest.approx(closed_form_value(Y, WEIGHT_DECAY), rel=1e-9)
    assert certificate.scope == "global"
    assert certificate.gap < 1e-9
    assert "of the last two layers alone" in str(certificate)
    assert model.network_.head.objective(model.features_.transform(X), Y, WEIGHT_DECAY) == pytest.approx(
        certificate.objective
    )


def test_gradient_training_of_the_last_two_layers_comes_down_to_the_closed_form():
    features = WIDE.fit_transform(X)
    options = {"weight_decay": WEIGHT_DECAY, "n_neurons": 40, "learning_rate": 3e-3}
    best = train(features, Y, n_steps=3500, random_state=0, **options)[1].objective.min()
    value = closed_form_value(Y, WEIGHT_DECAY)
    assert value * (1 - 1e-9) <= best <= value * 1.01


def test_one_hot_targets_on_deep_features_reach_the_closed_form():
    features, classes = WIDE.fit_transform(X), np.arange(len(X)) % 3
    design, targets = BatchNormDesign().fit(features), np.eye(3)[classes]
    solution = solve(Problem(design.transform(features), targets, weight_decay=WEIGHT_DECAY))
    lengths = np.sqrt(np.bincount(classes) / len(X))
    assert solution.certificate.objective == pytest.approx((WEIGHT_DECAY * lengths - WEIGHT_DECAY**2 / 2).sum())
    assert solution.certificate.scope == "global"
    deep = DeepNetwork(WIDE.layers_, make_network(solution.neurons, design))
    np.testing.assert_allclose(deep.to_torch().eval()(torch.tensor(X)).detach().numpy(), deep.predict(X), atol=1e-9)
    assert (deep.predict(X).argmax(axis=1) == classes).all()
    trace = train(features, targets, weight_decay=WEIGHT_DECAY, n_neurons=60, n_steps=2000, random_state=0)[1]
    assert solution.certificate.objective * (1 - 1e-9) <= trace.objective.min() <= solution.certificate.objective * 1.02


def module():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 4), torch.nn.Tanh()]
    network = torch.nn.Sequential(*layers)
    network(torch.tensor(NEW, dtype=torch.float32))  # other statistics than those of X
    return network.eval()


def convolutions():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.BatchNorm2d(2, affine=False, track_running_stats=False),
        torch.nn.Conv2d(2, 3, 2),
        torch.nn.BatchNorm2d(3),
        torch.nn.ReLU(),
    )


@pytest.mark.parametrize(
    "model",
    [
        ConvexBNStackRegressor(ConvexBNRegressor(0.1)),
        ConvexBNStackRegressor(ConvexBNRegressor(0.02, normalization="weight"), n_stages=3),
        ConvexBNStackRegressor(ConvexBNRegressor(0.02, spectral_power=1.0), n_stages=2),
        ConvexBNStackRegressor(ConvexBNRegressorCV(weight_decays=[0.1, 0.02], cv=2, tol=0.1)),
        ConvexBNStackRegressor(ConvexBNRegressor(0.02), n_stages=1, features=WIDE),
        ConvexBNStackRegressor(ConvexBNRegressor(1e6)),
        ConvexBNStackClassifier(ConvexBNClassifier(0.01), n_stages=2, features=WIDE),
        ConvexBNStackClassifier(ConvexBNClassifier(0.01), n_stages=1, features=FrozenModule(module())),
        ConvexBNStackClassifier(
            ConvexBNClassifier(0.01), n_stages=2, features=FrozenModule(module(), statistics="batch")
        ),
    ],
)
def test_one_torch_module_has_the_same_outputs(model):
    y = Y if isinstance(model, ConvexBNStackRegressor) else LABELS
    model.fit(X, y)
    whole = model.to_torch().eval()
    assert type(whole) is torch.nn.Sequential
    expected = model.predict(NEW) if isinstance(model, ConvexBNStackRegressor) else model.decision_function(NEW)
    np.testing.assert_allclose(whole(torch.tensor(NEW)).detach().numpy()[:, 0], expected, atol=1e-9)


@pytest.mark.parametrize("features", [None, RandomBatchNormLayers((10,))], ids=["data", "features"])
@pytest.mark.parametrize(
    ("model", "y"),
    [
        (ConvexBNStackRegressor(ConvexBNRegressor(0.02, tol=0.1)), np.column_stack([Y, X[:, 0]])),
        (ConvexBNStackClassifier(ConvexBNClassifier(0.01, tol=0.1)), np.array(["a", "b", "c"])[np.arange(16) % 3]),
    ],
    ids=["two targets", "three classes"],
)
def test_several_outputs_in_torch(model, y, features):
    model.set_params(features=features).fit(X, y)
    outputs = model.predict if isinstance(model, ConvexBNStackRegressor) else model.decision_function
    for training, data in ((False, NEW), (False, X), (True, X)):
        module = model.to_torch().train(training)
        np.testing.assert_allclose(module(torch.tensor(data)).detach().numpy(), outputs(data), atol=1e-9)


def test_each_stage_is_the_two_layer_problem_on_the_hidden_neurons_before():
    model = ConvexBNStackRegressor(ConvexBNRegressor(0.1), n_stages=3).fit(X, Y)
    assert len(model.estimators_) == len(model.certificates_) == 3
    features = X
    for stage, certificate in zip(model.estimators_, model.certificates_, strict=True):
        alone = ConvexBNRegressor(0.1).fit(features, Y)
        np.testing.assert_allclose(stage.predict(features), alone.predict(features), rtol=1e-4)
        assert certificate.objective == pytest.approx(alone.certificate_.objective, rel=1e-6)
        last, features = features, stage.network_.hidden(features)
    np.testing.assert_array_equal(model.hidden_features(X), last)
    np.testing.assert_array_equal(model.predict(X), model.network_.predict(X)[:, 0])
    said = ["of the last two layers alone" in str(certificate) for certificate in model.certificates_]
    assert said == [False, True, True]
    assert model.certificate_ is model.certificates_[-1]


def test_classifier_has_the_face_of_its_estimator():
    model = ConvexBNStackClassifier(ConvexBNClassifier(0.01)).fit(X, LABELS)
    assert list(model.classes_) == ["high", "low"]
    assert set(model.predict(NEW)) <= {"high", "low"}
    np.testing.assert_allclose(model.predict_proba(NEW).sum(axis=1), 1)
    np.testing.assert_array_equal(model.decision_function(NEW) > 0, model.predict(NEW) == "low")
    assert not hasattr(ConvexBNStackClassifier(ConvexBNClassifier(loss="hinge")), "predict_proba")


def test_stack_ends_where_no_hidden_neuron_varies():
    model = ConvexBNStackRegressor(ConvexBNRegressor(1e6), n_stages=4).fit(X, Y)
    assert len(model.estimators_) == 1
    np.testing.assert_allclose(model.predict(NEW), Y.mean(), atol=1e-12)


def test_ctrl_c_leaves_the_stages_so_far():
    stages = []

    def press_in_the_second_stage(progress):
        stages.extend([progress] if progress.n_iter == 1 else [])
        if len(stages) == 2:
            raise KeyboardInterrupt

    estimator = ConvexBNRegressor(0.1, tol=0.1, callback=press_in_the_second_stage)
    model = ConvexBNStackRegressor(estimator, n_stages=4)
    with pytest.raises(KeyboardInterrupt, match="was interrupted: it has 2 of 4 stages"):
        model.fit(X, Y)
    assert len(model.estimators_) == len(model.certificates_) == len(stages) == 2
    np.testing.assert_array_equal(model.predict(NEW), model.network_.predict(NEW)[:, 0])


@pytest.mark.parametrize("stage", [0, 1])
def test_ctrl_c_before_a_stage_has_a_network(stage):
    stages = []

    def press(name, y):
        if name == "check_targets" and len(stages) == stage:
            raise KeyboardInterrupt

    def count(progress):
        stages.extend([progress] if progress.n_iter == 1 else [])

    estimator = ConvexBNRegressor(0.1, tol=0.1, loss=watched_loss(SquaredError, press), callback=count, prove=False)
    model = ConvexBNStackRegressor(estimator, n_stages=4)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert hasattr(model, "network_") == (stage == 1)
    if stage == 1:
        assert len(model.estimators_) == 1
        assert np.isfinite(model.predict(NEW)).all()


def test_any_transformer_gives_features():
    pca, order = PCA(2), X[:, 0].argsort()  # the order that samples are merged in, so that the same is rounded
    data, y = X[order], Y[order]
    model = ConvexBNStackRegressor(ConvexBNRegressor(0.02), n_stages=1, features=pca).fit(data, y)
    assert not hasattr(pca, "components_")  # a copy was fitted
    fitted = PCA(2).fit(data)
    alone = ConvexBNRegressor(0.02).fit(fitted.transform(data), y)
    np.testing.assert_allclose(model.predict(NEW), alone.predict(fitted.transform(NEW)))
    with pytest.raises(ValueError, match="no to_torch method"):
        model.to_torch()


WORDS = np.where(np.random.default_rng(0).random((16, 6)) < 0.5, "salt", "pepper")
IMAGES = np.random.default_rng(0).random((16, 2, 4, 3))
GROUPS = pd.DataFrame({"number": X[:, 0], "word": WORDS[:, 0]})


@pytest.mark.parametrize(
    ("features", "data"),
    [
        (RandomTreesEmbedding(3, random_state=0), X),  # sparse outputs
        (TfidfVectorizer(ngram_range=(1, 3)), [" ".join(words) for words in WORDS]),
        (OneHotEncoder(), WORDS),
        (StandardScaler().set_output(transform="pandas"), X),
        (ColumnTransformer([("one", StandardScaler(), ["number"]), ("two", OneHotEncoder(), ["word"])]), GROUPS),
        (FrozenModule(convolutions(), statistics="batch"), IMAGES),
    ],
    ids=["sparse", "texts", "words", "pandas outputs", "data frame", "images"],
)
@pytest.mark.parametrize("stack", [ConvexBNStackRegressor, ConvexBNStackClassifier])
def test_given_features_take_their_own_kind_of_data(stack, features, data):
    y = Y if stack is ConvexBNStackRegressor else LABELS
    estimator = stack._default(0.1, tol=1e-6)
    model = stack(estimator, n_stages=1, features=features).fit(data, y)
    outputs = features.fit(data).transform(data)
    outputs = outputs.toarray() if issparse(outputs) else np.asarray(outputs)
    np.testing.assert_allclose(model.hidden_features(data), outputs, rtol=1e-12)
    expected = estimator.fit(outputs, y).network_.predict(outputs)
    np.testing.assert_allclose(model.network_.predict(outputs), expected, atol=1e-3)
    assert model.predict(data).shape == (len(y),)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(data, y[1:])


def test_weights_of_a_stack_on_a_frozen_module_are_repeated_rows():
    features = FrozenModule(wide_module(), statistics="batch")
    model = ConvexBNStackRegressor(ConvexBNRegressor(0.02), n_stages=1, features=features)
    counts = np.arange(16) % 3
    weighted = model.fit(X, Y, sample_weight=counts).predict(NEW)
    repeated = model.fit(np.repeat(X, counts, axis=0), np.repeat(Y, counts)).predict(NEW)
    np.testing.assert_allclose(weighted, repeated, atol=1e-5)
    assert np.abs(model.fit(X, Y).predict(NEW) - weighted).max() > 0.01


def test_outputs_of_given_features_are_checked():
    with pytest.raises(ValueError, match="Input features contains NaN"):
        ConvexBNStackRegressor(features=StandardScaler()).fit(np.where(X > 1, np.nan, X), Y)


def test_random_layers_carry_the_statistics_of_the_data_and_their_seed():
    layers = RandomBatchNormLayers((6, 5), random_state=3).fit(X)
    first, second = layers.layers_
    for layer, inputs in ((first, X), (second, first.hidden(X))):
        normalized = (inputs @ layer.weights.T - layer.mean) / layer.std
        np.testing.assert_allclose(normalized.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(normalized.std(axis=0), 1)
        np.testing.assert_allclose(layer.hidden(inputs), np.maximum(normalized, 0))
    np.testing.assert_array_equal(layers.transform(X), second.hidden(first.hidden(X)))
    again, other = (RandomBatchNormLayers((6, 5), random_state=seed).fit(X).transform(NEW) for seed in (3, 4))
    np.testing.assert_array_equal(layers.transform(NEW), again)
    assert np.abs(other - again).max() > 0.1
    counts = np.arange(len(X)) % 3
    weighted = RandomBatchNormLayers((20,)).fit(X, sample_weight=counts).transform(NEW)
    np.testing.assert_allclose(weighted, RandomBatchNormLayers((20,)).fit(np.repeat(X, counts, axis=0)).transform(NEW))


def test_frozen_module_takes_running_or_batch_statistics():
    network = module()
    running = FrozenModule(network).fit(X)
    with torch.no_grad():
        np.testing.assert_allclose(running.transform(NEW), network(torch.tensor(NEW, dtype=torch.float32)), atol=1e-5)
        batch = FrozenModule(network, statistics="batch").fit(X)
        in_training = network.train()(torch.tensor(X, dtype=torch.float32))
    np.testing.assert_allclose(batch.transform(X), in_training, atol=1e-5)
    assert np.abs(batch.transform(X) - running.transform(X)).max() > 0.01
    assert network[0].weight.requires_grad  # the module itself is left alone
    np.testing.assert_allclose(batch.transform(NEW[:1]), batch.transform(NEW)[:1])  # no statistics of new data
    many = np.tile(NEW, (30, 1))  # more than one block
    np.testing.assert_allclose(running.transform(many), np.tile(running.transform(NEW), (30, 1)))


@pytest.mark.parametrize(
    ("network", "data"),
    [
        (module(), X),
        (convolutions(), np.random.default_rng(0).random((16, 2, 4, 3))),
        (torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.BatchNorm1d(5)), np.arange(80).reshape(16, 5) % 7),
    ],
    ids=["rows", "images", "integers"],
)
def test_weights_of_a_frozen_module_are_repeated_rows(network, data):
    counts, repeated = np.arange(16) % 3, np.repeat(data, np.arange(16) % 3, axis=0)
    weighted = FrozenModule(network, statistics="batch").fit(data, sample_weight=counts)
    features = weighted.transform(repeated)
    np.testing.assert_allclose(features, FrozenModule(network, statistics="batch").fit_transform(repeated), atol=1e-12)
    network.train().double()
    expected = network(torch.tensor(repeated)).detach().flatten(1)
    np.testing.assert_allclose(features, expected, atol=1e-12)
    assert np.abs(features - FrozenModule(network, "batch").fit(data).transform(repeated)).max() > 0.01
    np.testing.assert_array_equal(weighted.to_torch()(torch.tensor(repeated[:9])), weighted.transform(repeated[:9]))


def test_frozen_module_takes_integers_as_torch_does():
    images = np.random.default_rng(0).integers(0, 255, (3, 2, 4, 3), dtype=np.uint8)
    layers = convolutions()[1:3].eval()
    np.testing.assert_array_equal(
        FrozenModule(layers).fit_transform(images), FrozenModule(layers).fit_transform(images.astype(float))
    )
    words = torch.nn.Embedding(10, 4)
    assert FrozenModule(words).fit_transform(np.array([[1, 2], [3, 9]], dtype=np.uint8)).shape == (2, 8)


@pytest.mark.parametrize(
    ("network", "data", "message"),
    [
        (torch.nn.LSTM(3, 4), X, r"must return one tensor with a row .*, got tuple for X of shape \(1, 3\)"),
        (torch.nn.Flatten(0), X, r"must return one tensor with a row .*, got shape \(3,\)"),
        (torch.nn.Unflatten(1, (3, 1)), X[:, :2], r"module does not take X of shape \(1, 2\) and dtype float64: unfl"),
        (torch.nn.Embedding(3, 2), X, "does not take X of .* dtype float64: Expected tensor .* types: Long"),
        (torch.nn.Embedding(3, 2), [[5], [1]], "does not take X of .* dtype int64: index out of range"),
        (convolutions(), X, "BatchNorm2d.* keeps no running statistics; give statistics='batch'"),
    ],
)
def test_modules_that_give_no_features(network, data, message):
    with pytest.raises(ValueError, match=message):
        FrozenModule(network).fit(data)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ConvexBNStackRegressor(ConvexBNClassifier()), "must be a ConvexBNRegressor"),
        (ConvexBNStackClassifier("log_loss"), "must be a ConvexBNClassifier"),
        (ConvexBNStackRegressor(ConvexBNConvRegressor()), "takes images, .* give a ConvexBNRegressor, and features="),
        (ConvexBNStackRegressor(ConvexBNRegressor(activation="gated_relu")), "takes activation='relu'"),
        (ConvexBNStackRegressor(n_stages=0), "n_stages=0"),
        (ConvexBNStackRegressor(n_stages=True), "n_stages=True"),
        (ConvexBNStackRegressor(features=torch.nn.ReLU()), "wrap a torch module in FrozenModule"),
        (ConvexBNStackRegressor(features=RandomBatchNormLayers(())), r"widths=\(\)"),
        (ConvexBNStackRegressor(features=RandomBatchNormLayers(30)), "widths=30"),
        (ConvexBNStackRegressor(features=RandomBatchNormLayers((30, 0))), "widths=.30, 0."),
        (RandomBatchNormLayers((True,)), r"widths=\(True,\) must be a list of positive integers"),
        (
            RandomBatchNormLayers(random_state="a"),
            "random_state='a' must be None, an integer from 0 on, or a Generator",
        ),
        (RandomBatchNormLayers(random_state=-1), "random_state=-1 must be"),
        (ConvexBNStackRegressor(features=FrozenModule(len)), "must be a torch.nn.Module"),
        (ConvexBNStackRegressor(features=FrozenModule(torch.nn.ReLU(), statistics="mine")), "statistics='mine'"),
    ],
)
def test_bad_parameters(model, message):
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y if isinstance(model, ConvexBNStackRegressor) else LABELS)


def test_first_layer_may_be_a_convolution(tmp_path):
    first = ConvBatchNormNetwork.at_initialization(
        IMAGES, 5, kernel_size=(3, 2), stride=(1, 2), padding=1, n_outputs=1, random_state=0
    )
    head = BatchNormNetwork.at_initialization(first.hidden(IMAGES), 4, n_outputs=2, random_state=0)
    deep = DeepNetwork((first,), head)
    for mode in (True, False):
        outputs = deep.to_torch().train(mode)(torch.tensor(IMAGES)).detach().numpy()
        np.testing.assert_allclose(outputs, deep.predict(IMAGES), atol=1e-9)
    deep.save(tmp_path / "deep.npz")
    np.testing.assert_array_equal(DeepNetwork.load(tmp_path / "deep.npz").predict(IMAGES), deep.predict(IMAGES))
    for layers, last in (((head, first), head), ((first,), first)):
        with pytest.raises(ValueError, match="Layer 2 is convolutional; only the first layer takes images"):
            DeepNetwork(layers, last)


@pytest.mark.parametrize("features", [None, FrozenModule(torch.nn.ReLU())])
def test_failed_refit_leaves_the_stack_as_it_was(features):
    model = ConvexBNStackRegressor(ConvexBNRegressor(0.1, tol=0.1), features=features).fit(X, Y)
    before = model.predict(NEW)
    with pytest.raises(ValueError, match="weight_decay=-1"):
        model.set_params(estimator__weight_decay=-1).fit(np.eye(7), np.arange(7))
    assert model.n_features_in_ == 3
    np.testing.assert_array_equal(model.predict(NEW), before)


def test_layers_that_do_not_fit_and_stacks_that_are_not_fitted():
    layer = WIDE.fit(X).layers_[0]
    with pytest.raises(ValueError, match="Layer 1 has 40 neurons, the one after takes 3 features"):
        DeepNetwork((layer,), layer)
    for call in (lambda: ConvexBNStackRegressor().predict(X), lambda: ConvexBNStackClassifier().to_torch()):
        with pytest.raises(NotFittedError):
            call()


@pytest.mark.parametrize("ending", [".json", ".npz"])
@pytest.mark.parametrize("n_layers", [0, 2, 11])
def test_save_and_load(tmp_path, ending, n_layers):
    head = ConvexBNRegressor(WEIGHT_DECAY, tol=0.1, normalization="weight" if n_layers == 2 else "batch")
    features = RandomBatchNormLayers((4,) * n_layers, random_state=0) if n_layers else None
    fitted = features.fit_transform(X) if n_layers else X
    network = DeepNetwork(features.layers_ if n_layers else (), head.fit(fitted, Y).network_)
    network.save(tmp_path / f"deep{ending}")
    again = DeepNetwork.load(tmp_path / f"deep{ending}")
    assert [type(layer) for layer in (*again.layers, again.head)] == [
        type(layer) for layer in (*network.layers, network.head)
    ]
    np.testing.assert_array_equal(again.predict(NEW), network.predict(NEW))
    with pytest.raises(ValueError, match="holds a DeepNetwork, not a BatchNormNetwork"):
        BatchNormNetwork.load(tmp_path / f"deep{ending}")
