"""Deep networks of smooth activations with weight normalization, and their curvature."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.checks import make_generator
from convexbn._utils.summary import Summarized, counted
from convexbn.gradient._hessian import hessian_norm
from convexbn.gradient._options import check_integer, check_number, check_samples
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
    weights : sequence of ndarray of shapes (m, d), (m, m) and so on
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
        rng = make_generator(random_state)
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
        return hessian_norm(loss_of(self._outputs(parameters, self._data(data)), targets), parameters)

    def smoothness_bound(self, X: ArrayLike, y: ArrayLike, *, n_hessian_samples: int | None = None) -> float:
        """Bound on the spectral norm of the loss's Hessian as in the convergence theorem of the paper, here and now.

        The Hessian of the loss is the mean of ``grad f grad f' + (f - y) Hessian f``, so its norm is at most
        ``rho^2 + h sqrt(2 loss)``, with rho the largest norm of the gradient of f over the samples, and h that of its
        Hessian. The learning rate of gradient descent that the theorem allows is the inverse.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Training data.
        y : array-like of shape (n,)
            Targets.
        n_hessian_samples : int or None, default=None
            Samples, evenly spaced in X, over which h is the maximum; each is an eigenvalue problem. None takes all;
            from fewer, the bound is an estimate.

        Returns
        -------
        bound : float
            With all samples, at least `loss_hessian_norm`.

        Raises
        ------
        ValueError
            If shapes do not fit together, or there are not as many samples.

        Examples
        --------
        >>> import numpy as np
        >>> from convexbn.gradient.deep_weight_norm import SmoothNetwork
        >>> X = np.random.default_rng(0).standard_normal((10, 4))
        >>> network = SmoothNetwork.at_initialization(4, depth=2, width=20, random_state=0)
        >>> network.smoothness_bound(X, X[:, 0]) > network.loss_hessian_norm(X, X[:, 0])
        True
        """
        torch = import_torch()
        data, targets = check_samples(X, y)
        samples = data if n_hessian_samples is None else evenly_spaced(data, n_hessian_samples, least=1)
        parameters = self._parameters()
        gradients = [
            torch.autograd.grad(output, parameters, retain_graph=True)
            for output in self._outputs(parameters, self._data(data))
        ]
        squares = max(sum(float((entry**2).sum()) for entry in gradient) for gradient in gradients)
        return squares + self.predictor_hessian_norm(samples) * math.sqrt(2 * self.loss(data, targets))

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


def _rows_of_norm_sqrt(matrix: np.ndarray) -> np.ndarray:
    """Scale the rows to the norm of the square root of their number of entries."""
    return matrix * (np.sqrt(matrix.shape[1]) / np.linalg.norm(matrix, axis=1, keepdims=True))


def loss_of(outputs: Any, y: np.ndarray) -> Any:
    return ((outputs - outputs.new_tensor(y)) ** 2).mean() / 2


def evenly_spaced(X: np.ndarray, n_hessian_samples: int, *, least: int) -> np.ndarray:
    """So many rows of X (n, d), or a ValueError if there are not as many."""
    check_integer("n_hessian_samples", n_hessian_samples, least)
    if n_hessian_samples > len(X):
        raise ValueError(f"n_hessian_samples={n_hessian_samples!r} must be at most {len(X)}, the number of samples.")
    return X[np.linspace(0, len(X) - 1, n_hessian_samples).astype(int)]
