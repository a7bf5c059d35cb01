"""Trained networks: weights, statistics, forward pass, to and from PyTorch."""

from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._patches import PatchDesign
from convexbn.designs._weight_norm import WeightNormDesign
from convexbn.model._neurons import Neurons
from convexbn.model._normalized_neurons import NormalizedNeurons
from convexbn.network._base import NormalizedNetwork
from convexbn.network._batch_norm import BatchNormNetwork
from convexbn.network._conv_batch_norm import ConvBatchNormNetwork
from convexbn.network._conv_gated import ConvGatedNetwork
from convexbn.network._deep import DeepNetwork
from convexbn.network._gated import GatedNetwork
from convexbn.network._post_activation import PostActivationBatchNormNetwork
from convexbn.network._weight_norm import WeightNormNetwork

__all__ = [
    "BatchNormNetwork",
    "ConvBatchNormNetwork",
    "ConvGatedNetwork",
    "DeepNetwork",
    "GatedNetwork",
    "NormalizedNetwork",
    "PostActivationBatchNormNetwork",
    "WeightNormNetwork",
    "make_network",
]

_NETWORKS: dict[type, type[NormalizedNetwork]] = {
    network.design: network
    for network in (BatchNormNetwork, WeightNormNetwork, ConvBatchNormNetwork, PostActivationBatchNormNetwork)
}
_GATED_NETWORKS: dict[type, type[GatedNetwork]] = {
    BatchNormDesign: GatedNetwork,
    WeightNormDesign: GatedNetwork,
    PatchDesign: ConvGatedNetwork,
}


def make_network(
    neurons: Neurons | NormalizedNeurons, design: BatchNormDesign | WeightNormDesign
) -> NormalizedNetwork | GatedNetwork:
    """Network of neurons on a fitted design: gated if the neurons are, else of the design's normalization.

    Parameters
    ----------
    neurons : Neurons or NormalizedNeurons
        Neurons on the design matrix.
    design : BatchNormDesign, WeightNormDesign, PostActivationBatchNormDesign or PatchDesign
        The fitted design.

    Returns
    -------
    network : NormalizedNetwork or GatedNetwork
        Of the type that belongs to the design; its predictions on any X are the neurons' outputs on
        ``design.transform(X)``.

    Raises
    ------
    ValueError
        If the neurons are not of the design's kind: `NormalizedNeurons` where it normalizes after the ReLU, `Neurons`
        elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import BatchNormDesign, Problem, solve
    >>> from convexbn import make_network
    >>> X, y = np.random.default_rng(0).standard_normal((5, 9)), np.arange(5.0)
    >>> design = BatchNormDesign().fit(X)
    >>> solution = solve(Problem(design.transform(X), y, weight_decay=0.1))
    >>> network = make_network(solution.neurons, design)
    >>> abs(network.objective(X, y, weight_decay=0.1) - solution.certificate.objective) < 1e-10
    True
    """
    if isinstance(neurons, Neurons) and neurons.gates is not None:
        return _GATED_NETWORKS[type(design)].from_neurons(neurons, design)
    if isinstance(neurons, NormalizedNeurons) and not design.after_relu:
        raise ValueError(
            f"neurons are normalized after the ReLU, and {type(design).__name__} normalizes before it; give a "
            "PostActivationBatchNormDesign."
        )
    return _NETWORKS[type(design)].from_neurons(neurons, design)  # type: ignore[arg-type]
