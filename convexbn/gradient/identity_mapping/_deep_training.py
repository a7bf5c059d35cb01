"""SGD on deep networks with identity links, their errors and the singular values of their maps along it."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.checks import check_choice, make_generator
from convexbn.gradient._optimizers import make_optimizer
from convexbn.gradient._options import DTYPES, check_integer, check_momentum, check_number, check_pair, check_steps
from convexbn.gradient._trace import Recorder, Trace
from convexbn.gradient.identity_mapping._deep import LinkedNetwork, loss_and_error
from convexbn.network._base import import_torch


def train_linked(
    X: ArrayLike,
    y: ArrayLike,
    start: LinkedNetwork,
    *,
    learning_rate: float,
    momentum: float = 0.9,
    n_steps: int = 1000,
    batch_size: int = 64,
    noted_steps: ArrayLike | None = None,
    test: tuple[ArrayLike, ArrayLike] | None = None,
    dtype: str = "float64",
    verbose: bool = False,
    random_state: int | np.random.Generator | None = None,
) -> tuple[LinkedNetwork, Trace]:
    """Train a deep network with or without identity links by SGD on the cross-entropy, and watch its errors and maps.

    Parameters
    ----------
    X : array-like of shape (n, d) or (n, channels, height, width)
        Training data.
    y : array-like of shape (n,)
        Classes, integers from 0 to C - 1.
    start : LinkedNetwork
        Network to start from.
    learning_rate : float
        Step size.
    momentum : float, default=0.9
        Momentum of SGD.
    n_steps : int, default=1000
        Steps of SGD.
    batch_size : int, default=64
        Samples a step, drawn without replacement until fewer are left.
    noted_steps : array-like of int or None, default=None
        Steps that are recorded, from 0 to `n_steps`. None takes 11 steps, evenly spaced.
    test : tuple of arrays (X, y) or None, default=None
        Data for the test error.
    dtype : {"float64", "float32"}, default="float64"
        Precision of training and of what is recorded.
    verbose : bool, default=False
        Whether to show a progress bar.
    random_state : int, Generator or None, default=None
        Seed of the batches.

    Returns
    -------
    network : LinkedNetwork
        The network after the last step.
    trace : Trace
        Mean cross-entropy of the training data at the recorded steps, and "train_error" (share of samples),
        "smallest_singular_value" and "largest_singular_value" (a column a block, see `LinkedNetwork.singular_values`)
        and, with test data, "test_error".

    Raises
    ------
    ImportError
        If PyTorch is not installed, or `verbose` is set and tqdm is not.
    ValueError
        If shapes do not fit together, an entry is not finite, or an option is out of its range.
    DivergenceError
        If the step is too long.

    References
    ----------
    Li, Yuan: Convergence Analysis of Two-layer Neural Networks with ReLU Activation. arXiv:1705.09886, section 5.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.identity_mapping import LinkedNetwork, train_linked
    >>> X = np.random.default_rng(0).standard_normal((100, 4))
    >>> y = (X[:, 0] > 0).astype(int)
    >>> start = LinkedNetwork.at_initialization(4, 2, depth=6, width=10, random_state=0)
    >>> network, trace = train_linked(X, y, start, learning_rate=0.01, n_steps=100, random_state=0)
    >>> bool(trace["train_error"][-1] < 0.1), trace["smallest_singular_value"].shape
    (True, (11, 4))
    """
    torch = import_torch()
    if not isinstance(start, LinkedNetwork):
        raise ValueError(f"start must be a LinkedNetwork, not a {type(start).__name__}.")
    samples = {"train": start._samples(X, y)}
    if test is not None:
        samples["test"] = start._samples(*check_pair("test", test))
    check_number("learning_rate", learning_rate, positive=True)
    check_momentum(momentum)
    check_integer("n_steps", n_steps, 0)
    check_integer("batch_size", batch_size, 1)
    data = samples["train"][0]
    if batch_size > len(data):
        raise ValueError(f"batch_size={batch_size!r} must be at most {len(data)}, the number of samples.")
    recorded = check_steps("noted_steps", noted_steps, n_steps)
    check_choice("dtype", dtype, DTYPES)

    parameters = [parameter.requires_grad_() for parameter in start._parameters(dtype)]
    watched = {name: (parameters[0].new_tensor(x), torch.tensor(c)) for name, (x, c) in samples.items()}
    inputs, labels = watched["train"]
    optimizer = make_optimizer("sgd", parameters, learning_rate, momentum)
    batches = batches_of(len(data), batch_size, make_generator(random_state))
    with Recorder("SGD", n_steps, verbose=verbose) as recorder:
        for step in range(n_steps + 1):
            if step in recorded:
                with torch.no_grad():
                    measured = {
                        name: loss_and_error(start._outputs(parameters, x), c) for name, (x, c) in watched.items()
                    }
                loss = measured["train"][0]
                recorder.check(step, loss)
                smallest, largest = start._singular_values(parameters[1], data.shape[2:]).T
                recorder.record(
                    step,
                    loss,
                    **{f"{name}_error": error for name, (_, error) in measured.items()},
                    smallest_singular_value=smallest,
                    largest_singular_value=largest,
                )
            if step < n_steps:
                chosen = next(batches)
                outputs = start._outputs(parameters, inputs[chosen])
                loss = torch.nn.functional.cross_entropy(outputs, labels[chosen])
                recorder.check(step, loss.item())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    first, weights, output = [parameter.detach().double().numpy() for parameter in parameters]
    return replace(start, input_weights=first, weights=weights, output_weights=output), recorder.trace()


def batches_of(n_samples: int, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of batches without end, an order of the samples after the other."""
    while True:
        order = rng.permutation(n_samples)
        for first in range(0, n_samples - batch_size + 1, batch_size):
            yield order[first : first + batch_size]
