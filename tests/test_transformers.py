import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline, make_union
from sklearn.utils import estimator_checks

from convexbn import (
    BatchNormDesign,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    ConvexBNRegressorCV,
    ConvexBNStackRegressor,
    FrozenModule,
    PatchDesign,
    RandomBatchNormLayers,
    WeightNormDesign,
    spectral_trace,
)

TRANSFORMERS = [BatchNormDesign(), WeightNormDesign(), RandomBatchNormLayers((5,)), FrozenModule(torch.nn.ReLU())]


@estimator_checks.parametrize_with_checks([BatchNormDesign(n_components=1), BatchNormDesign(), WeightNormDesign()])
def test_designs_keep_the_contract(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names")  # the checks mix frames and arrays
@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=repr)
@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_transformer_get_feature_names_out,
        estimator_checks.check_transformer_get_feature_names_out_pandas,
        estimator_checks.check_set_output_transform,
        estimator_checks.check_set_output_transform_pandas,
        estimator_checks.check_global_output_transform_pandas,
    ],
)
def test_features_have_names(transformer, check):
    check(type(transformer).__name__, transformer)


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=repr)
def test_features_keep_their_names_in_compositions(transformer):
    frame = pd.DataFrame(np.random.default_rng(0).standard_normal((20, 3)), columns=list("abc"), index=range(5, 25))
    values = clone(transformer).fit(frame).transform(frame)
    prefix = type(transformer).__name__.lower()
    names = [f"{prefix}{number}" for number in range(values.shape[1])]
    assert clone(transformer).fit(frame).get_feature_names_out().tolist() == names
    columns = ColumnTransformer([("hidden", transformer, ["a", "b", "c"])], verbose_feature_names_out=False)
    for composed in (make_pipeline(clone(transformer)), make_union(columns), columns):
        out = composed.set_output(transform="pandas").fit_transform(frame)
        assert [name.rpartition("__")[2] for name in out.columns] == names
        assert out.index.equals(frame.index)
        np.testing.assert_allclose(out, values)
    with pytest.raises(NotFittedError):
        clone(transformer).get_feature_names_out()


def test_patches_have_names():
    images = np.random.default_rng(0).standard_normal((5, 1, 4, 4))
    rows = PatchDesign(2).set_output(transform="pandas").fit_transform(images)
    assert list(rows.columns) == [f"patchdesign{number}" for number in range(5)]
    np.testing.assert_array_equal(rows, PatchDesign(2).fit(images).transform(images))


def test_training_does_not_depend_on_the_container_of_transformers():
    data = np.random.default_rng(0).standard_normal((20, 3))
    frame, targets = pd.DataFrame(data, columns=list("abc")), np.abs(data[:, 0])
    images = data[:, None, None, :]
    estimator = ConvexBNRegressor(0.01, n_components=1, tol=1e-2)
    layers = RandomBatchNormLayers((4,))

    def predictions():
        models = (
            (estimator, frame),
            (ConvexBNRegressorCV(n_components=1, n_weight_decays=2, eps=0.01, cv=2, tol=1.0), frame),
            (ConvexBNStackRegressor(estimator, n_stages=1, features=layers), frame),
            (ConvexBNConvRegressor(0.01, kernel_size=(1, 2), n_components=1, tol=1e-2), images),
        )
        return [clone(model).fit(X, targets).predict(X) for model, X in models]

    expected, components = predictions(), spectral_trace(data, targets, [targets]).components
    with config_context(transform_output="pandas"):
        np.testing.assert_array_equal(predictions(), expected)
        np.testing.assert_array_equal(spectral_trace(data, targets, [targets]).components, components)
