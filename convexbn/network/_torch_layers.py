"""Layers of torch, as they compute in ``eval()``: their kinds, and their parameters as arrays."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from convexbn.network._base import import_torch, to_numpy


def layers_of(module: Any, expected: str, *kinds: str) -> list[Any]:
    """Return the layers of a torch Sequential, or raise a ValueError unless they compute what layers of these kinds do.

    Dropout and Identity, which do nothing in ``eval()``, are left out. A layer may be parametrized (weight or spectral
    normalization, say) or pruned: `array_of` reads what it computes with.

    Parameters
    ----------
    module : torch.nn.Sequential
        The network.
    expected : str
        The layers, in words for the error.
    *kinds : str
        Names of their classes in torch.nn.

    Returns
    -------
    layers : list of torch.nn.Module

    Raises
    ------
    ValueError
        If the layers are others, or hooks change what they compute.
    """
    nn = import_torch().nn
    plain = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    dropout = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
    layers = [layer for layer in module if type(layer) not in (nn.Identity, *dropout)] if plain else []
    found = [nn.utils.parametrize.type_before_parametrizations(layer) for layer in layers]
    if found != [getattr(nn, kind) for kind in kinds]:
        raise ValueError(f"module must be a torch.nn.Sequential of {expected}, got {module}.")
    for part in (module, *module):
        own = [hook for hook in part._forward_pre_hooks.values() if not isinstance(hook, _weight_hooks())]
        if own or part._forward_hooks:
            raise ValueError(f"module's {type(part).__name__} has forward hooks, which are not read; remove them.")
    return layers


def array_of(layer: Any, name: str) -> Any:
    """Return a parameter or buffer of a layer as it computes with it in ``eval()``, None if it has none."""
    with _evaluating(layer):
        for hook in layer._forward_pre_hooks.values():  # they make the weight anew before every forward pass
            hook(layer, ())
        value = getattr(layer, name)
        return None if value is None else to_numpy(value)


def directions_and_lengths(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows v_j and lengths g_j of a Linear layer whose weight has the rows g_j v_j / |v_j|.

    They are the parameters of weight normalization by rows (``dim=0``). For any other layer v_j is the row of the
    weight itself, and g_j its norm.
    """
    nn = import_torch().nn
    hooks = list(layer._forward_pre_hooks.values())
    chain = list(layer.parametrizations.weight) if nn.utils.parametrize.is_parametrized(layer, "weight") else []
    if len(chain) == 1 and not hooks and type(chain[0]).__name__ == "_WeightNorm" and chain[0].dim == 0:
        parameters = layer.parametrizations.weight
        return to_numpy(parameters.original1), to_numpy(parameters.original0)[:, 0]
    if len(hooks) == 1 and not chain and type(hooks[0]).__name__ == "WeightNorm" and hooks[0].dim == 0:
        return to_numpy(layer.weight_v), to_numpy(layer.weight_g)[:, 0]
    weights = array_of(layer, "weight")
    lengths = np.linalg.norm(weights, axis=1)
    return np.where(lengths[:, None] > 0, weights, np.eye(1, weights.shape[1])), lengths


def read_output(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights (m, C) and the intercept (C,) of an output layer."""
    weights, intercept = array_of(layer, "weight"), array_of(layer, "bias")
    return weights.T, np.zeros(len(weights)) if intercept is None else intercept


def _weight_hooks() -> tuple[type, ...]:
    """Hooks of torch that make a weight before a forward pass and change nothing else."""
    from torch.nn.utils.prune import BasePruningMethod
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    return BasePruningMethod, SpectralNorm, WeightNorm


@contextmanager
def _evaluating(layer: Any) -> Iterator[None]:
    """Put a layer into ``eval()``, and back into the mode that it and its parts were in."""
    training = {part: part.training for part in layer.modules()}
    try:
        layer.eval()
        with import_torch().no_grad():
            yield
    finally:
        for part, mode in training.items():
            part.training = mode
