"""Normalized networks trained by gradient steps in PyTorch, on exactly the objective of the convex program."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.utils.validation import check_consistent_length

from convexbn._utils.array_namespace import is_elsewhere, to_numpy
from convexbn._utils.checks import make_generator
from convexbn._utils.data_checks import as_targets, check_array
from convexbn._utils.torch_device import placed
from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._normalizations import NORMALIZATIONS
from convexbn.designs._patches import PatchDesign, check_images
from convexbn.designs._weight_norm import WeightNormDesign
from convexbn.gradient._objective import SMALLEST_EPS, TrainingObjective
from convexbn.gradient._optimizers import LEARNING_RATES, by_lbfgs, make_optimizer, on_full_batch, on_mini_batches
from convexbn.gradient._options import check_options
from convexbn.gradient._trace import Recorder, Trace
from convexbn.losses import Loss, make_loss
from convexbn.model._neurons import Neurons
from convexbn.model._normalized_neurons import NormalizedNeurons
from convexbn.network import NormalizedNetwork, make_network
from convexbn.network._base import TORCH_EPS, import_torch

Callback = Callable[[int, np.ndarray], None]

_START_ENTRIES = 2**22  # of the data, or of its patches, from which directions are drawn


def train(
    X: ArrayLike,
    y: ArrayLike,
    *,
    weight_decay: float,
    loss: str | Loss = "squared_error",
    normalization: str = "batch",
    kernel_size: int | tuple[int, int] | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    fit_intercept: bool = False,
    n_neurons: int = 50,
    optimizer: str = "adam",
    learning_rate: float | None = None,
    momentum: float = 0.0,
    n_steps: int = 1000,
    batch_size: int | None = None,
    dtype: str = "float64",
    device: str | None = None,
    start: NormalizedNetwork | None = None,
    callback: Callback | None = None,
    random_state: int | np.random.Generator | None = None,
    verbose: bool = False,
) -> tuple[NormalizedNetwork, Trace]:
    """Train a normalized network by gradient steps.

    The objective is that of the convex program: the averaged loss, plus ``weight_decay / 2`` times the sum of squares
    of gamma, bias and output weights. Batch statistics are those of the batch that a step is taken on. Mini-batches, on
    which a neuron may not vary, are normalized with torch's eps of 1e-5, the full batch with none.

    Parameters
    ----------
    X : array-like of shape (n, d) or (n, channels, height, width)
        Training data, or images where `kernel_size` is given. Mini-batches are cut from it as it is, so that it may be
        of any numeric type and a memory map, or beside a `start` a tensor on a device, which goes before `device`.
    y : array-like of shape (n,) or (n, C)
        Targets; labels -1 and +1 for margin losses, one-hot rows for "cross_entropy".
    weight_decay : float
        Weight decay on gamma, bias and output weights.
    loss : str or Loss, default="squared_error"
        Name or instance of a loss.
    normalization : {"batch", "weight", "batch_after_relu"}, default="batch"
        Normalization of the hidden layer; "batch_after_relu" normalizes the outputs of its ReLUs.
    kernel_size : int, pair of int or None, default=None
        Size of the filters of a convolutional network; None trains a dense one.
    stride, padding : int or pair of int, default=1 and 0
        Steps of the filters, and zeros on each side of an image.
    fit_intercept : bool, default=False
        Whether the output bias is trained (without weight decay).
    n_neurons : int, default=50
        Width m.
    optimizer : {"adam", "lbfgs", "sgd"}, default="adam"
        "lbfgs" has a strong Wolfe line search and takes the full batch.
    learning_rate : float or None, default=None
        Step size; None takes 0.01 for "adam", 0.1 for "sgd", 1 for "lbfgs" (the first one its line search tries).
    momentum : float, default=0.0
        Momentum of "sgd", from 0 on and below 1.
    n_steps : int, default=1000
        Steps of the optimizer. With mini-batches an epoch is ``n // batch_size`` of them. "lbfgs" may end sooner,
        where its line search finds nothing lower.
    batch_size : int or None, default=None
        Samples of a mini-batch; None takes the full batch. Mini-batches are drawn without replacement; the samples that
        do not fill another one are left out of an epoch.
    dtype : {"float64", "float32"}, default="float64"
        Precision of the training. The mean of the data is subtracted before rounding where the network does not change
        by it: under batch normalization, unless images are padded.
    device : str or None, default=None
        Device of PyTorch, as "cuda": all of X is copied to it once, in its own numeric type, and losses and statistics
        are computed there. None trains on the CPU, and mini-batches are copied one by one.
    start : NormalizedNetwork or None, default=None
        Network to start from; its type, filters and width go before `normalization`, `kernel_size` and `n_neurons`.
        None draws random directions of the whitened data (of a sample of it where it is large), `n_neurons` of them,
        and small output weights. `BatchNormNetwork.at_initialization` is the usual start, with random
        directions of the data as it is, and `ConvBatchNormNetwork` has one too.
    callback : callable or None, default=None
        Called with the number of a step and the outputs (n, C) on X before it, and at last with those at the end; for
        the full batch.
    random_state : int, Generator or None, default=None
        Seed of the initial weights and of the mini-batches.
    verbose : bool, default=False
        Whether to show a progress bar.

    Returns
    -------
    network : NormalizedNetwork
        The network after the last step, with statistics of all of X. Ctrl-C ends the training, and what was reached
        until then is returned.
    trace : Trace
        Full batch: the objective before each step and after the last. Mini-batches: an entry an epoch, the mean of the
        objectives of its mini-batches, each before its step; that is not the objective of any one network.

    Raises
    ------
    ImportError
        If PyTorch is not installed, `verbose` is set and tqdm is not, or `device` is given and array-api-compat is not.
    ValueError
        If the data is not finite or of unequal length, the loss does not take the targets, an option is unknown, out
        of range, or does not go with another, or a neuron of `start` does not vary over X.
    DivergenceError
        If the objective is not finite any more, or a million times the first; it holds the trace.

    Warns
    -----
    UserWarning
        If `dtype` is "float32" and the mean of the data is so large that rounding removes its variation.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient import train
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((20, 2))
    >>> network, trace = train(X, X[:, 0], weight_decay=0.01, n_steps=50, random_state=0)
    >>> len(trace), bool(trace.objective[-1] < trace.objective[0])
    (51, True)
    """
    import_torch()
    loss = make_loss(loss)
    check_options(
        weight_decay=weight_decay,
        n_neurons=n_neurons,
        optimizer=optimizer,
        learning_rate=learning_rate,
        momentum=momentum,
        n_steps=n_steps,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        fit_intercept=fit_intercept,
        start=start,
        callback=callback,
    )
    rng, design = make_generator(random_state), unfitted_design(normalization, kernel_size, stride, padding)
    if issparse(X):
        raise TypeError("X is sparse, and gradient training takes dense data; give X.toarray().")
    data = check_data(X, design) if start is None else start.check_data(X)
    targets = as_targets(y)
    targets = targets[:, None] if targets.ndim == 1 else targets
    check_consistent_length(data, targets)
    loss.check_targets(targets)
    if batch_size is not None and batch_size > len(data):
        raise ValueError(f"batch_size={batch_size} must be at most {len(data)}, the number of samples.")
    network = _initial(data, targets.shape[1], design, n_neurons, rng) if start is None else start
    if network.n_outputs != targets.shape[1] or len(network) == 0:
        raise ValueError(
            f"start must have neurons, and an output for each of the {targets.shape[1]} columns of y; it has "
            f"{len(network)} neurons and {network.n_outputs} outputs."
        )
    if is_elsewhere(data):
        device, there = str(data.device), data
    else:
        there = placed(data, device)
    targets = placed(targets, device)
    full_batch = batch_size is None or batch_size == len(data)
    if start is not None:
        network = start.with_statistics(there)
    origin = network.origin(data)
    if dtype == "float32" and not origin.any():
        _warn_of_lost_digits(data)
    objective = TrainingObjective(
        network,
        loss,
        weight_decay,
        fit_intercept,
        dtype,
        device=device,
        eps=SMALLEST_EPS if full_batch else TORCH_EPS,
        origin=origin,
    )
    rate = LEARNING_RATES[optimizer] if learning_rate is None else learning_rate
    steps = make_optimizer(optimizer, objective.parameters, rate, momentum)

    with Recorder(optimizer, n_steps, verbose=verbose) as recorder:

        def record(step: int, value: Any, outputs: Any) -> None:
            recorder.record(step, float(value))
            if callback is not None:
                callback(step, to_numpy(outputs))

        if batch_size is not None:
            on_mini_batches(objective, there, targets, steps, n_steps, batch_size, rng, recorder)
        else:
            loop = by_lbfgs if optimizer == "lbfgs" else on_full_batch
            loop(objective, objective.inputs(there), targets, steps, n_steps, record)
    return objective.network().with_statistics(there), recorder.trace()


def unfitted_design(
    normalization: str, kernel_size: Any, stride: Any, padding: Any
) -> BatchNormDesign | WeightNormDesign:
    """Design of the network, or a ValueError if there is no such network."""
    if normalization not in list(NORMALIZATIONS):
        raise ValueError(f"normalization={normalization!r} is unknown; choose one of {list(NORMALIZATIONS)}.")
    if kernel_size is None:
        return NORMALIZATIONS[normalization]()
    if normalization != "batch":
        raise ValueError(
            f"A convolutional network is batch-normalized; drop kernel_size={kernel_size!r} or take "
            "normalization='batch'."
        )
    return PatchDesign(kernel_size, stride, padding)


def check_data(X: ArrayLike, design: BatchNormDesign | WeightNormDesign) -> np.ndarray:
    """Return rows or images as the design takes them, of their own numeric type, or raise a ValueError."""
    if isinstance(design, PatchDesign):
        return check_images(X, design.grid)
    if np.ndim(X) == 4:
        raise ValueError("X holds images: give kernel_size for a convolutional network, or rows X.reshape(len(X), -1).")
    data: np.ndarray = check_array(X, dtype="numeric")
    return data


def _warn_of_lost_digits(X: np.ndarray) -> None:
    """Warn if float32 keeps fewer than three digits of how X varies, where the origin of X matters to the network."""
    samples = to_numpy(X[:: max(1, prod(X.shape) // _START_ENTRIES)])
    mean, std = samples.mean(axis=0, dtype=np.float64), samples.std(axis=0, dtype=np.float64)
    if np.linalg.norm(mean) * np.finfo(np.float32).eps > 1e-3 * np.linalg.norm(std):
        warnings.warn(
            "X lies so far from zero, measured by how much it varies, that dtype='float32' loses it; subtract the mean "
            "of X, or take dtype='float64'.",
            UserWarning,
            stacklevel=3,
        )


def _initial(
    X: np.ndarray,
    n_outputs: int,
    design: BatchNormDesign | WeightNormDesign,
    n_neurons: int,
    rng: np.random.Generator,
) -> NormalizedNetwork:
    """Network of random directions of the design matrix, of a sample of X where it is large."""
    entries = prod(X.shape[1:])
    if isinstance(design, PatchDesign):
        entries = design.grid.n_patches(X) * design.grid.n_entries(X.shape[1])
    n_samples = max(2, _START_ENTRIES // entries)
    if n_samples < len(X):
        X = X[np.sort(rng.choice(len(X), n_samples, replace=False))]
    design.fit(X)
    Z = design.matrix(X)
    directions = rng.standard_normal((Z.n_columns, n_neurons)) * np.sqrt(Z.n_rows) / Z.spectral_norm
    output_weights = rng.standard_normal((n_neurons, n_outputs)) / n_neurons
    neurons: Neurons | NormalizedNeurons = Neurons(directions, output_weights, np.zeros(n_outputs))
    if design.after_relu:
        p, one = np.full(len(X), 1 / len(X)), np.ones(n_neurons)
        neurons = NormalizedNeurons.on(Z, p, directions, 0 * one, output_weights, np.zeros(n_outputs))
        neurons = replace(neurons, gamma=one, bias=0 * one)
    network = make_network(neurons, design)
    assert isinstance(network, NormalizedNetwork)
    return network
