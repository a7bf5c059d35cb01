"""The training problem of a network that is batch-normalized after the ReLU."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from convexbn.model._normalized_neurons import NormalizedNeurons
from convexbn.model._problem import Problem

_GRAM_RTOL = 1e-6  # eigenvalues of the Gram matrix down to here, relative to the largest, are accurate


@dataclass(frozen=True, eq=False, init=False, repr=False)
class PostActivationProblem(Problem):
    r"""Two-layer network with batch normalization after the ReLU, with weight decay, on a design matrix.

    ``minimise  sum_i p_i loss(f_i, y_i) + weight_decay * sum_j |h_j| |c_j|``, ``f = sum_j h_j c_j^T + b``, where a
    neuron is ``h_j = relu(Z w_j) + shift_j`` and ``|h|^2 = sum_i p_i h_i^2``. The norm of h is that of gamma and bias
    after the normalization: with mean and std of the activations ``h = gamma (a - mean) / std + bias``, and the two
    parts are orthogonal. So the penalty is weight decay on gamma, bias and the output weights; the hidden weights are
    free of it, as their length drops out. With an output intercept b the bias is of no use, and the norm is the
    standard deviation of the activations.

    The problem does not change under invertible linear maps of the columns of Z.

    Parameters
    ----------
    Z : DesignMatrix or array-like of shape (n, k)
        Design matrix, a constant column included if the hidden layer has a bias; patches are not pooled.
    y, loss, weight_decay, fit_intercept, sample_weight
        As for `Problem`.

    Raises
    ------
    ValueError
        As for `Problem`, or if Z pools patches.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, which treats
       normalization before and after the ReLU.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import PostActivationProblem
    >>> problem = PostActivationProblem(np.eye(3), [1.0, -2.0, 3.0], weight_decay=0.1)
    >>> round(problem.objective(problem.zero_network), 6)
    2.333333
    """

    def __init__(self, *args: object, **options: object):
        super().__init__(*args, **options)  # type: ignore[arg-type]
        if self.Z.n_patches > 1:
            raise ValueError("Z pools patches; batch normalization after the ReLU is there for dense networks alone.")

    @cached_property
    def zero_network(self) -> NormalizedNeurons:  # type: ignore[override]
        """The network without neurons, with the best intercept if one is fitted."""
        intercept, none = super().zero_network.intercept, np.zeros(0)
        return NormalizedNeurons(
            np.zeros((self.Z.n_columns, 0)), none, none, none, none, np.zeros((0, self.n_outputs)), intercept
        )

    def objective(self, neurons: NormalizedNeurons) -> float:  # type: ignore[override]
        """Objective of a network on the design matrix, whose outputs come to where the targets are."""
        return self.training_loss(neurons.outputs(self.Z)) + self.weight_decay * float(neurons.cost.sum())

    @cached_property
    def whitening(self) -> np.ndarray:
        """Basis (k, r) in which the columns of Z are orthonormal times the root of n: the same problem in few columns.

        Columns are brought to one length first, so that their units do not matter; directions are left out that are
        rounding then.
        """
        (Z, basis), n = (self.Z, None) if self.Z.has_few_columns else self.Z.on_row_space, self.Z.n_rows
        gram = Z.gram(np.full((n, 1), 1 / n))
        lengths = np.sqrt(gram.diagonal())
        lengths = np.where(lengths > 0, lengths, 1.0)
        values, vectors = np.linalg.eigh(gram / lengths / lengths[:, None])
        if values[0] < _GRAM_RTOL * values[-1]:  # which squares what is small
            _, sizes, directions = np.linalg.svd(Z.rows() / lengths, full_matrices=False)
            kept = sizes > n * np.finfo(float).eps * sizes[0]
            values, vectors = sizes[kept] ** 2 / n, directions[kept].T
        whitening = vectors / np.sqrt(values) / lengths[:, None]
        return whitening if basis is None else basis @ whitening

    def neurons(  # type: ignore[override]
        self, weights: np.ndarray, output_weights: np.ndarray, intercept: np.ndarray
    ) -> NormalizedNeurons:
        """Return the network f = sum_j relu(Z w_j) c_j^T + intercept, as its neurons."""
        shift = np.zeros(len(output_weights))
        return NormalizedNeurons.on(self.Z, self.sample_weight, weights, shift, output_weights, intercept)


def check_not_gated(problem: Problem, activation: str = "gated_relu") -> None:
    """Raise a ValueError if the problem is of a gated network that is normalized after its activation."""
    if isinstance(problem, PostActivationProblem) and activation == "gated_relu":
        raise ValueError(
            "Gated networks are solved with normalization before the activation; for batch normalization after it "
            "primal_program and dual_program state the convex programs, which solve_program solves."
        )
