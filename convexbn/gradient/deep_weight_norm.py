"""Deep networks with smooth activations and weight normalization: gradient descent, and the curvature along it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.summary import Summarized, counted
from convexbn.gradient._hessian import hessian_norm
from convexbn.gradient._options import check_integer, check_number, check_pair, check_samples, check_steps
from convexbn.gradient._trace import Recorder, Trace
from convexbn.network._base import check_data, import_torch

ACTIVATIONS = ("tanh", "softplus")


@dataclass(frozen=True, eq=False, repr=False)
class SmoothNetwork(Summarized):
    """Network f(x) = v·a_L / sqrt(m) of smooth layers a_l = phi(W_l a_(l-1)), each row of W_l divided by its norm.

    The input is a_0 = x. The scale is chosen so that all layers are of the same order of magnitude when inputs have a
    norm of about sqrt(d). Without weight normalization, W_l is divided by the square root of its number of columns
    instead; rows of that norm make both networks the same function.

    Parameters
    ----------
    weights : sequence of ndarray of shapes (m, d), (m, m), ...
        Hidden weights W_1, ..., W_L; the number of rows may differ from layer to layer.
    output_weights : ndarray of shape (m,)
        Output weights v.
    activation : {"tanh", "softplus"}, default="tanh"
        Activation phi.
    normalized : bool, default=True
        Whether there is weight normalization.

    Raises
    ------
    ValueError
        If the shapes do not fit together, an entry is not finite, a row to be normalized is zero, or the activation is
        unknown.

    References
    ----------
    .. [1] P. Cisneros-Velarde, Z. Chen, S. Koyejo, A. Banerjee, "Optimization and Generalization Guarantees for Weight
       Normalization", 2024, arXiv:2409.08935.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.deep_weight_norm import SmoothNetwork
    >>> network = SmoothNetwork.at_initialization(3, depth=2, width=50, random_state=0)
    >>> X = np.random.default_rng(0).standard_normal((4, 3))
    >>> bool(np.allclose(network.predict(X), network.scale_rows(5.0).predict(X)))
    True
    """

    weights: Sequence[np.ndarray]
    output_weights: np.ndarray
    activation: str = "tanh"
    normalized: bool = True

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation={self.activation!r} is unknown; choose one of {list(ACTIVATIONS)}.")
        if len(self.weights) == 0:
            raise ValueError("weights needs at least one layer.")
        arrays = [np.asarray(array, dtype=np.float64) for array in (*self.weights, self.output_weights)]
        *weights, output_weights = arrays
        if any(layer.ndim != 2 for layer in weights) or output_weights.ndim != 1:
            raise ValueError("weights must be 2-D arrays, and output_weights a 1-D array.")
        rows = [len(layer) for layer in weights]
        columns = [layer.shape[1] for layer in weights[1:]] + [len(output_weights)]
        if rows != columns:
            raise ValueError(f"The hidden layers have {rows} units, but the layers after them take {columns} inputs.")
        if not all(np.isfinite(array).all() for array in arrays):
            raise ValueError("weights and output_weights must be finite.")
        object.__setattr__(self, "weights", tuple(weights))
        object.__setattr__(self, "output_weights", output_weights)
        if self.normalized and self.smallest_row_norm == 0:
            raise ValueError("weights has a row of zeros, which cannot be normalized.")

    def _summary(self) -> str:
        units = " + ".join(str(len(layer)) for layer in self.weights)
        normalized = "weight-normalized" if self.normalized else "not normalized"
        return f"{counted(self.weights[0].shape[1], 'feature')}, {units} units, {self.activation}, {normalized}"

    @classmethod
    def at_initialization(
        cls,
        n_features: int,
        *,
        depth: int = 3,
        width: int = 64,
        activation: str = "tanh",
        normalized: bool = True,
        row_norm: float = 1.0,
        random_state: int | np.random.Generator | None = None,
    ) -> Self:
        """Draw random directions for all rows, all of one norm.

        Parameters
        ----------
        n_features : int
            Features d.
        depth : int, default=3
            Hidden layers L.
        width : int, default=64
            Units m of each.
        activation, normalized
            As of the class.
        row_norm : float, default=1.0
            Norm of the rows of hidden weights, over the square root of their number of entries.
        random_state : int, Generator or None, default=None
            Seed.

        Returns
        -------
        network : SmoothNetwork
            Its output weights have norm sqrt(m).

        Raises
        ------
        ValueError
            If a number is out of its range, or the activation is unknown.

        Examples
        --------
        >>> from convexbn.gradient.deep_weight_norm import SmoothNetwork
        >>> round(SmoothNetwork.at_initialization(9, width=9, row_norm=2.0, random_state=0).smallest_row_norm, 6)
        6.0
        """
        for name, number in (("n_features", n_features), ("depth", depth), ("width", width)):
            check_integer(name, number, 1)
        check_number("row_norm", row_norm, positive=True)
        rng = np.random.default_rng(random_state)
        weights = [
            row_norm * _rows_of_norm_sqrt(rng.standard_normal((width, columns)))
            for columns in (n_features, *[width] * (depth - 1))
        ]
        return cls(weights, _rows_of_norm_sqrt(rng.standard_normal((1, width)))[0], activation, normalized)

    @property
    def smallest_row_norm(self) -> float:
        """Norm of the shortest row of hidden weights."""
        return min(float(np.linalg.norm(layer, axis=1).min()) for layer in self.weights)

    def scale_rows(self, factor: float) -> Self:
        """Multiply all hidden weights with a factor, under which a weight-normalized network is invariant."""
        return replace(self, weights=[factor * layer for layer in self.weights])

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Outputs (n,) on X of shape (n, d)."""
        return self._outputs(self._parameters(), self._data(X)).detach().numpy()

    def loss(self, X: ArrayLike, y: ArrayLike) -> float:
        """Mean of (f(x) - y)^2 / 2."""
        data, targets = check_samples(X, y)
        return float(np.mean((self.predict(data) - targets) ** 2) / 2)

    def predictor_hessian_norm(self, X: ArrayLike, *, hidden_only: bool = False) -> float:
        """Largest spectral norm, over the samples of X, of the Hessian of f(x).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Samples; a Hessian each.
        hidden_only : bool, default=False
            Whether the Hessian is that of the hidden weights alone; output weights count otherwise.

        Returns
        -------
        norm : float
        """
        parameters = self._parameters()
        outputs = self._outputs(parameters, self._data(X))
        return max(hessian_norm(output, parameters[:-1] if hidden_only else parameters) for output in outputs)

    def loss_hessian_norm(self, X: ArrayLike, y: ArrayLike) -> float:
        """Spectral norm of the Hessian of the loss with respect to all weights."""
        data, targets = check_samples(X, y)
        parameters = self._parameters()
        return hessian_norm(_loss(self._outputs(parameters, self._data(data)), targets), parameters)

    def _data(self, X: ArrayLike) -> Any:
        return import_torch().tensor(check_data(X, self.weights[0].shape[1]))

    def _parameters(self) -> list[Any]:
        torch = import_torch()
        return [torch.tensor(array, requires_grad=True) for array in (*self.weights, self.output_weights)]

    def _outputs(self, parameters: Sequence[Any], inputs: Any) -> Any:
        torch = import_torch()
        phi = {"tanh": torch.tanh, "softplus": torch.nn.functional.softplus}[self.activation]
        *weights, output_weights = parameters
        for layer in weights:
            scale = torch.linalg.vector_norm(layer, dim=1) if self.normalized else math.sqrt(layer.shape[1])
            inputs = phi(inputs @ layer.T / scale)
        return inputs @ output_weights / math.sqrt(len(output_weights))


def train_deep_weight_norm(
    X: ArrayLike,
    y: ArrayLike,
    start: SmoothNetwork,
    *,
    learning_rate: float,
    n_steps: int = 500,
    noted_steps: ArrayLike | None = None,
    test: tuple[ArrayLike, ArrayLike] | None = None,
    n_hessian_samples: int = 3,
    verbose: bool = False,
) -> tuple[SmoothNetwork, Trace]:
    """Train a smooth deep network by gradient descent on the squared loss, and watch its curvature.

    Gradient descent on the full batch, on all weights. The theory [1]_ rests on two numbers along training. The Hessian
    of the predictor must be small: its spectral norm falls with the smallest row norm and grows at most like the cube
    of the depth. And restricted strong convexity must hold, for which the squared gradient must not be small beside the
    loss; then the loss falls geometrically.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Training data.
    y : array-like of shape (n,)
        Targets.
    start : SmoothNetwork
        Network to start from.
    learning_rate : float
        Step size. Steps below ``2 / start.loss_hessian_norm(X, y)`` descend at first.
    n_steps : int, default=500
        Steps of gradient descent.
    noted_steps : array-like of int or None, default=None
        Steps that are recorded, from 0 to `n_steps`; Hessians take most of the time. None takes 11 steps, evenly
        spaced.
    test : tuple of arrays (X, y) or None, default=None
        Data for the test loss.
    n_hessian_samples : int, default=3
        Samples, evenly spaced in X, over which the predictor's Hessian norm is maximised. 0 leaves out all Hessians.
    verbose : bool, default=False
        Whether to show a progress bar.

    Returns
    -------
    network : SmoothNetwork
        The network after the last step.
    trace : Trace
        Loss at the recorded steps, and "smallest_row_norm", "rsc_ratio" (squared norm of the gradient over the loss,
        NaN where that is zero), "predictor_hessian_norm", "loss_hessian_norm" and, with test data, "test_loss".

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    ValueError
        If shapes do not fit together, an entry is not finite, or an option is out of its range.
    DivergenceError
        If the step is too long.

    References
    ----------
    .. [1] P. Cisneros-Velarde, Z. Chen, S. Koyejo, A. Banerjee, "Optimization and Generalization Guarantees for Weight
       Normalization", 2024, arXiv:2409.08935.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.deep_weight_norm import SmoothNetwork, train_deep_weight_norm
    >>> X = np.random.default_rng(0).standard_normal((10, 4))
    >>> start = SmoothNetwork.at_initialization(4, depth=2, width=20, random_state=0)
    >>> network, trace = train_deep_weight_norm(X, X[:, 0], start, learning_rate=1.0, n_steps=50)
    >>> bool(trace.objective[-1] < 0.1 * trace.objective[0])
    True
    """
    torch = import_torch()
    data, targets = check_samples(X, y)
    if not isinstance(start, SmoothNetwork):
        raise ValueError(f"start must be a SmoothNetwork, not a {type(start).__name__}.")
    check_data(data, start.weights[0].shape[1])
    check_number("learning_rate", learning_rate, positive=True)
    check_integer("n_steps", n_steps, 0)
    check_integer("n_hessian_samples", n_hessian_samples, 0)
    if n_hessian_samples > len(data):
        raise ValueError(f"n_hessian_samples={n_hessian_samples!r} must be at most {len(data)}, the number of samples.")
    recorded = check_steps("noted_steps", noted_steps, n_steps)
    if test is not None:
        test = check_samples(*check_pair("test", test))
        check_data(test[0], data.shape[1])
    samples = data[np.linspace(0, len(data) - 1, n_hessian_samples).astype(int)]

    parameters, inputs = start._parameters(), torch.tensor(data)
    with Recorder("gradient descent with weight normalization", n_steps, verbose=verbose) as recorder:
        for step in range(n_steps + 1):
            loss = _loss(start._outputs(parameters, inputs), targets)
            recorder.check(step, loss.item())
            gradients = torch.autograd.grad(loss, parameters)
            if step in recorded:
                network = _read(start, parameters)
                squares = sum(float((gradient**2).sum()) for gradient in gradients)
                ratio = squares / loss.item() if loss.item() else math.nan
                watched = {"smallest_row_norm": network.smallest_row_norm, "rsc_ratio": ratio}
                if test is not None:
                    watched["test_loss"] = network.loss(*test)
                if n_hessian_samples:
                    watched["predictor_hessian_norm"] = network.predictor_hessian_norm(samples)
                    watched["loss_hessian_norm"] = network.loss_hessian_norm(data, targets)
                recorder.record(step, loss.item(), **watched)
            if step < n_steps:
                with torch.no_grad():
                    for parameter, gradient in zip(parameters, gradients, strict=True):
                        parameter -= learning_rate * gradient
    return _read(start, parameters), recorder.trace()


def _rows_of_norm_sqrt(matrix: np.ndarray) -> np.ndarray:
    """Scale the rows to the norm of the square root of their number of entries."""
    return matrix * (np.sqrt(matrix.shape[1]) / np.linalg.norm(matrix, axis=1, keepdims=True))


def _loss(outputs: Any, y: np.ndarray) -> Any:
    return ((outputs - outputs.new_tensor(y)) ** 2).mean() / 2


def _read(start: SmoothNetwork, parameters: Sequence[Any]) -> SmoothNetwork:
    """The network of the same kind as `start` with these parameters."""
    *weights, output_weights = [parameter.detach().numpy() for parameter in parameters]
    return replace(start, weights=weights, output_weights=output_weights)
