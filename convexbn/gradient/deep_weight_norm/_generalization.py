"""What uniform convergence promises of weight-normalized networks: Rademacher complexity and generalisation gap."""

import math

import numpy as np

from convexbn.gradient._options import check_integer, check_number, is_number
from convexbn.gradient.deep_weight_norm._network import SmoothNetwork

_RANGE = 2.0  # of the loss (f - y)^2 / 2 with f and y between -1 and 1
_LIPSCHITZ = 2.0  # of that loss with respect to f
_CLASSES = 10  # of output weights, by the norm of v / sqrt(m), to a step of one


def rademacher_bound(network: SmoothNetwork, n_samples: int, *, input_norm: float) -> float:
    """Bound on the Rademacher complexity of all weight-normalized networks of a shape.

    The class: hidden layers of the same widths m_1, ..., m_L and activation as the network, output weights no longer
    than its own. Let s_l be the root mean square, over random signs, of the largest ``|sum_i sign_i a_l(x_i)|`` in the
    class. Then ``s_0 <= sqrt(n) input_norm``, and the complexity is at most ``|v| s_L / (n sqrt(m_L))``. A layer is
    peeled off in two steps:

    - The rows of a layer are independent of each other, so ``s_l^2`` is at most m_l times that of a single row.
    - A row w of length one and an activation of slope one at most leave ``c s_(l-1) + phi(0) sqrt(n)`` of it: the
      contraction principle for ``F(u) = max(u, 0)^2`` ([1]_, theorem 4.12), and the supremum of ``w·z``, which is |z|.
      An odd activation makes the class symmetric, so that suprema need no absolute value and c = 1; otherwise c = 2.

    For tanh it is ``|v| input_norm sqrt(m_1 ... m_(L-1)) / sqrt(n)``, so like ``m^(L / 2) / sqrt(n)`` where |v| is
    sqrt(m). The factor sqrt(m) of a layer is not slack of the proof, as all rows may be equal. A bound free of the
    width, as that of [2]_, needs a class in which such layers are divided by sqrt(m). This one is peeled like that of
    [3]_, for the network as it is scaled here; it is not the theorem of [2]_.

    Parameters
    ----------
    network : SmoothNetwork
        A weight-normalized network.
    n_samples : int
        Number n of training samples.
    input_norm : float
        Bound on the norm of all inputs.

    Returns
    -------
    complexity : float

    Raises
    ------
    ValueError
        If the network is not normalized, or a number is out of its range.

    References
    ----------
    .. [1] M. Ledoux, M. Talagrand, "Probability in Banach Spaces", 1991.
    .. [2] P. Cisneros-Velarde, Z. Chen, S. Koyejo, A. Banerjee, "Optimization and Generalization Guarantees for Weight
       Normalization", 2024, arXiv:2409.08935.
    .. [3] N. Golowich, A. Rakhlin, O. Shamir, "Size-Independent Sample Complexity of Neural Networks", 2018,
       arXiv:1712.06541.

    Examples
    --------
    >>> from convexbn.gradient.deep_weight_norm import SmoothNetwork, rademacher_bound
    >>> network = SmoothNetwork.at_initialization(4, depth=2, width=25, random_state=0)
    >>> round(rademacher_bound(network, 100, input_norm=2.0), 6)
    5.0
    """
    check_number("input_norm", input_norm, positive=True)
    check_integer("n_samples", n_samples, 1)
    return _output_norm(network) * _unit_complexity(network, n_samples, input_norm)


def generalization_bound(
    network: SmoothNetwork, n_samples: int, *, input_norm: float, confidence: float = 0.95
) -> float:
    """Bound on the generalisation gap of every weight-normalized network of a shape, trained in whatever way.

    With probability `confidence` over n independent samples, for all networks of this shape at once: the expectation of
    ``(clip(f(x)) - y)^2 / 2``, with predictions clipped to [-1, 1] and targets there, is at most its mean over the
    samples plus this bound. The bound is twice the Rademacher complexity of the loss, which by the contraction
    principle is at most twice that of the networks, plus ``2 sqrt(log(k (k + 1) / (1 - confidence)) / (2 n))``, as the
    loss is between 0 and 2 ([1]_, theorem 3.3). The norm of v / sqrt(m) is rounded up to k / 10: the classes of k = 1,
    2, ... share what is left of the probability, so that output weights may be as long as training made them.

    Parameters
    ----------
    network : SmoothNetwork
        A weight-normalized network.
    n_samples : int
        Number n of training samples.
    input_norm : float
        Bound on the norm of all inputs, known before the samples.
    confidence : float, default=0.95
        Probability with which the bound holds.

    Returns
    -------
    gap : float
        Vacuous from 2 on, the largest loss there is. At targets -1 and 1, a bound from 0.5 on promises nothing that
        the prediction 0 would not keep.

    Raises
    ------
    ValueError
        If the network is not normalized, or a number is out of its range.

    References
    ----------
    .. [1] M. Mohri, A. Rostamizadeh, A. Talwalkar, "Foundations of Machine Learning", 2nd edition, 2018.

    Examples
    --------
    >>> from convexbn.gradient.deep_weight_norm import SmoothNetwork, generalization_bound
    >>> network = SmoothNetwork.at_initialization(4, depth=1, width=25, random_state=0)
    >>> [round(generalization_bound(network, n, input_norm=2.0), 2) for n in (100, 1_000_000)]
    [4.39, 0.04]
    """
    if not (is_number(confidence) and 0 < confidence < 1):
        raise ValueError(f"confidence={confidence!r} must be a number between 0 and 1.")
    check_number("input_norm", input_norm, positive=True)
    check_integer("n_samples", n_samples, 1)
    k = max(1, math.ceil(_CLASSES * _output_norm(network) - 1e-9))
    complexity = _LIPSCHITZ * (k / _CLASSES) * _unit_complexity(network, n_samples, input_norm)
    deviation = _RANGE * math.sqrt(math.log(k * (k + 1) / (1 - confidence)) / (2 * n_samples))
    return 2 * complexity + deviation


def _output_norm(network: SmoothNetwork) -> float:
    """Norm of v / sqrt(m)."""
    if not isinstance(network, SmoothNetwork):
        raise ValueError(f"network must be a SmoothNetwork, not a {type(network).__name__}.")
    if not network.normalized:
        raise ValueError("network is not weight-normalized, so that its rows may be of any length; give one that is.")
    return float(np.linalg.norm(network.output_weights)) / math.sqrt(len(network.output_weights))


def _unit_complexity(network: SmoothNetwork, n_samples: int, input_norm: float) -> float:
    """Rademacher complexity of the class where v / sqrt(m) is no longer than one: s_L / n."""
    factor, at_zero = (1.0, 0.0) if network.activation == "tanh" else (2.0, math.log(2))
    total = math.sqrt(n_samples) * input_norm
    for layer in network.weights:
        total = math.sqrt(len(layer)) * (factor * total + at_zero * math.sqrt(n_samples))
    return total / n_samples
