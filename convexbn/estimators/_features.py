"""Fixed layers as transformers: random ones, and a torch module."""

from copy import deepcopy
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from convexbn._utils.all_or_nothing import all_or_nothing
from convexbn._utils.array_namespace import checked_array, is_torch
from convexbn._utils.checks import check_choice, is_integer, make_generator, refuse_huge
from convexbn._utils.data_checks import validate_data
from convexbn._utils.sample_weight import check_sample_weight, merge_equal_samples, weighted_samples
from convexbn.estimators._onnx import OnnxEstimator
from convexbn.estimators._persistence import StoredEstimator
from convexbn.estimators._place import NUMPY, Place, host, is_dispatched
from convexbn.network import BatchNormNetwork
from convexbn.network._base import import_torch
from convexbn.network._folded import affine_layers
from convexbn.network._onnx import Graph, Output

if TYPE_CHECKING:
    import torch

_BLOCK_SAMPLES = 128  # samples that a torch module is given at once


class RandomBatchNormLayers(
    OnnxEstimator, StoredEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Hidden layers of a batch-normalized ReLU network at its initialization.

    Weights are Gaussian, gamma is one, bias zero, and the statistics are those of the training data. With at least as
    many neurons in the last layer as samples the features generally have full row rank. Arrays of PyTorch and other
    libraries of the array API standard are transformed where they are, with
    ``sklearn.set_config(array_api_dispatch=True)``.

    Parameters
    ----------
    widths : sequence of int, default=(100,)
        Neurons of each layer, the first on the data.
    random_state : int, Generator or None, default=0
        Seed of the weights.

    Attributes
    ----------
    layers_ : tuple of BatchNormNetwork
        The layers, as networks without outputs.
    n_features_in_ : int
        Features seen in `fit`.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import RandomBatchNormLayers
    >>> X = np.random.default_rng(0).standard_normal((20, 3))
    >>> features = RandomBatchNormLayers((50, 40)).fit_transform(X)
    >>> features.shape, np.linalg.matrix_rank(features)
    ((20, 40), np.int64(20))
    """

    _place: Place = NUMPY

    def __init__(self, widths: Any = (100,), random_state: int | np.random.Generator | None = 0):
        self.widths = widths
        self.random_state = random_state

    @all_or_nothing
    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Draw the weights, and take the statistics of the data, in which equal rows are added up.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Training data, at least two samples that differ.
        y : ignored
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples in the statistics. All equal if None.

        Returns
        -------
        self : RandomBatchNormLayers

        Raises
        ------
        ValueError
            If `widths` is not a list of positive integers, `random_state` is no seed, or X is not finite, 2-D and with
            rows that differ.
        """
        listed = isinstance(self.widths, (list, tuple, np.ndarray)) and np.ndim(self.widths)
        widths = list(self.widths) if listed else []
        if not widths or not all(is_integer(m) and m >= 1 for m in widths):
            raise ValueError(f"widths={self.widths!r} must be a list of positive integers, one for each layer.")
        refuse_huge("widths", max(widths))
        rng = make_generator(self.random_state)
        place = Place.of(X, None)
        features = validate_data(self, host(X), dtype=np.float64, ensure_min_samples=2)
        weights = check_sample_weight(host(sample_weight), len(features))
        features, _, weights = merge_equal_samples(features, np.zeros((len(features), 0)), weights)
        layers = []
        for width in widths:
            layer = BatchNormNetwork.at_initialization(features, width, sample_weight=weights, random_state=rng)
            features = layer.hidden(features)
            layers.append(layer)
        self.layers_, self._place = tuple(layers), place
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Hidden neurons of the last layer, (n, widths[-1]) for X (n, d)."""
        check_is_fitted(self)
        self._place.check_same(X, f"{type(self).__name__}.transform")
        if is_dispatched(X):
            validate_data(self, X, reset=False, skip_check_array=True)
        features: Any = X if is_dispatched(X) else validate_data(self, X, dtype=np.float64, reset=False)
        for layer in self.layers_:
            features = layer.hidden(features)
        return features

    @property
    def _n_features_out(self) -> int:
        return len(self.layers_[-1])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags

    def _onnx_outputs(self, graph: Graph, x: str) -> list[Output]:
        for weights, offsets in affine_layers(self.layers_)[:-1]:
            x = graph.add("Relu", graph.affine(x, weights, offsets))
        return [Output("variable", x, graph.dtype, self._n_features_out)]

    def to_torch(self) -> "torch.nn.Sequential":
        """Return Linear, BatchNorm1d, ReLU, ... as a torch.nn.Sequential in double precision and ``eval()``.

        Call ``.train()`` to train on; see `BatchNormNetwork.to_torch` for the eps of batch normalization.
        """
        check_is_fitted(self)
        parts = [part for layer in self.layers_ for part in layer.hidden_to_torch()]
        return import_torch().nn.Sequential(*parts).eval()


class FrozenModule(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A torch module as a transformer: its outputs in ``eval()`` are features.

    X may have any number of dimensions, as images (n, channels, height, width) have. It becomes a tensor in double
    precision, except that integers stay integers for a module with an embedding layer. With
    ``sklearn.set_config(array_api_dispatch=True)`` features are where X is: the copy of the module goes to the device
    of a tensor X.

    Parameters
    ----------
    module : torch.nn.Module
        Takes a tensor whose first dimension is the samples to another one of two or more dimensions. It is copied,
        never changed or trained.
    statistics : {"running", "batch"}, default="running"
        "running" takes batch normalization layers as they are. "batch" gives them, in `fit`, the population mean and
        variance of the training data, as in training on the full batch.

    Attributes
    ----------
    module_ : torch.nn.Module
        The copy, in double precision and ``eval()``, with the weights that parametrizations such as weight
        normalization come to. It alone is pickled of a fitted transformer, and takes the place of `module`.
    n_features_in_ : int
        Features seen in `fit`; the second dimension of X.

    Examples
    --------
    >>> import torch
    >>> from convexbn import FrozenModule
    >>> FrozenModule(torch.nn.ReLU()).fit_transform([[1.0, -2.0], [-3.0, 4.0]])
    array([[1., 0.],
           [0., 4.]])
    """

    _place: Place = NUMPY

    def __init__(self, module: Any, statistics: str = "running"):
        self.module = module
        self.statistics = statistics

    @all_or_nothing
    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Copy the module, and take the statistics of X where ``statistics="batch"``.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, ...)
            Training data.
        y : ignored
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples in the statistics. All equal if None.

        Returns
        -------
        self : FrozenModule

        Raises
        ------
        ImportError
            If PyTorch is not installed.
        ValueError
            If `module` is no torch module or does not take X to rows of features, `statistics` is unknown, or X is
            not finite.
        """
        torch = import_torch()
        if not isinstance(self.module, torch.nn.Module):
            raise ValueError(f"module={self.module!r} must be a torch.nn.Module.")
        check_choice("statistics", self.statistics, ["running", "batch"])
        for part in self._normalizations(self.module):
            if self.statistics == "running" and part.running_mean is None:
                raise ValueError(f"module's {part} keeps no running statistics; give statistics='batch'.")
        place = Place.of(X, None)
        data = self._validate(host(X), self.module)
        weights, data = weighted_samples(host(sample_weight), data)
        self._place, self.module_ = place, _plain(self.module).to(place.torch_device)
        if self.statistics == "batch":
            self._take_statistics(data, weights)
        self._n_features_out = self._outputs(data[:1]).shape[1]
        return self

    @staticmethod
    def _normalizations(module: Any) -> list[Any]:
        kind = import_torch().nn.modules.batchnorm._BatchNorm
        return [part for part in module.modules() if isinstance(part, kind)]

    def _validate(self, X: Any, module: Any, reset: bool = True) -> Any:
        nn = import_torch().nn
        embeds = any(isinstance(part, (nn.Embedding, nn.EmbeddingBag)) for part in module.modules())
        if is_torch(X) and is_dispatched(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            X = checked_array(X, ensure_2d=False)
            return X.long() if embeds and not X.is_floating_point() else X.double()
        data: np.ndarray = validate_data(self, host(X), dtype="numeric", allow_nd=True, reset=reset)
        return data.astype(np.int64 if embeds and data.dtype.kind in "iu" else np.float64, copy=False)

    def _take_statistics(self, X: np.ndarray, sample_weight: np.ndarray) -> None:
        """Set statistics of normalization layers to those of the full batch, from the first to the last in one pass."""
        shares = import_torch().tensor(sample_weight / sample_weight.sum(), device=self._place.torch_device)

        def take(normalization: Any, inputs: tuple[Any, ...]) -> None:
            values = inputs[0].transpose(0, 1).flatten(1)  # of each channel, all positions of a sample in a row
            repeats = values.shape[1] // len(shares)
            weights = shares.repeat_interleave(repeats) / repeats
            mean = values @ weights
            normalization.running_mean, normalization.running_var = mean, (values - mean[:, None]) ** 2 @ weights

        hooks = [part.register_forward_pre_hook(take) for part in self._normalizations(self.module_)]
        self._outputs(X)
        for hook in hooks:
            hook.remove()

    def _outputs(self, X: Any) -> Any:
        """Outputs of the module for one batch, a tensor with one row for each sample."""
        torch = import_torch()
        try:
            outputs = self.module_(X if is_torch(X) else torch.tensor(X, device=self._place.torch_device))
        except (RuntimeError, IndexError) as error:
            raise ValueError(f"module does not take X of shape {X.shape} and dtype {X.dtype}: {error}") from error
        if not isinstance(outputs, torch.Tensor) or outputs.ndim < 2 or len(outputs) != len(X):
            got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, torch.Tensor) else type(outputs).__name__
            raise ValueError(
                f"module must return one tensor with a row of features for each sample, got {got} for X of shape "
                f"{X.shape}; wrap it in a module that returns the features alone."
            )
        return outputs.double().reshape(len(X), -1)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "module_" in state:
            del state["module"]
            state["module_"] = _compact(self.module_)
        elif _is_parametrized(self.module):
            state["module"] = _plain(self.module)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "module_" in state:
            self.module = self.module_ = self.module_.double()

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Outputs of the module, one row for each sample of X (n, ...), flattened."""
        check_is_fitted(self)
        self._place.check_same(X, f"{type(self).__name__}.transform")
        data = self._validate(X, self.module_, reset=False)
        starts = range(0, len(data), _BLOCK_SAMPLES)
        features = import_torch().cat([self._outputs(data[start : start + _BLOCK_SAMPLES]) for start in starts])
        return features if is_torch(data) else self._place.bring(features.cpu().numpy())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags

    def to_torch(self) -> "torch.nn.Sequential":
        """Return a copy of `module_` and a layer that flattens its outputs, in ``eval()``."""
        check_is_fitted(self)
        nn = import_torch().nn
        return nn.Sequential(deepcopy(self.module_), nn.Flatten()).eval()


def _is_parametrized(module: Any) -> bool:
    nn = import_torch().nn
    return isinstance(module, nn.Module) and any(map(nn.utils.parametrize.is_parametrized, module.modules()))


def _plain(module: Any) -> Any:
    """Copy of a torch module in double precision and ``eval()``, with plain weights, which a pickle takes."""
    nn = import_torch().nn
    try:
        copy = deepcopy(module).cpu().double().eval().requires_grad_(False)
    except RuntimeError as error:  # of torch.nn.utils.weight_norm and spectral_norm
        raise ValueError(
            f"module cannot be copied: {error}. Where hooks make its weights, use torch.nn.utils.parametrizations."
        ) from error
    for part in list(copy.modules()):
        if nn.utils.parametrize.is_parametrized(part):
            weights = {name: getattr(part, name) for name in part.parametrizations}
            # not by remove_parametrizations, which would take them from the class that part shares with the original
            part.__class__ = nn.utils.parametrize.type_before_parametrizations(part)
            del part.parametrizations
            for name, values in weights.items():
                part.register_parameter(name, nn.Parameter(values.clone(), requires_grad=False))
            part._load_state_dict_pre_hooks.clear()  # those of weight normalization, which no pickle takes either
    return copy


def _compact(module: Any) -> Any:
    """Copy of a torch module whose numbers are in single precision where that holds them exactly."""
    torch = import_torch()

    def compact(values: Any) -> Any:
        single = values.float()
        return single if values.dtype == torch.float64 and torch.equal(single.double(), values) else values

    return deepcopy(module)._apply(compact)
