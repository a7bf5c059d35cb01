"""The layer of gated neurons in PyTorch, which has none of its own; imported where it is used."""

import torch


class GatedLayer(torch.nn.Module):
    """Neurons ``1[gates(x) >= 0] values(x)``, whose gates are fixed.

    Parameters
    ----------
    gates, values : torch.nn.Module
        Layers of as many outputs.

    Examples
    --------
    >>> import torch
    >>> from convexbn.network._torch_gated import GatedLayer
    >>> GatedLayer(torch.nn.Identity(), torch.nn.Identity())(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def __init__(self, gates: torch.nn.Module, values: torch.nn.Module):
        super().__init__()
        self.gates, self.values = gates.requires_grad_(False), values

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the neurons' outputs."""
        return torch.where(self.gates(x) >= 0, self.values(x), 0.0)
