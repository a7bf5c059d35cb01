"""Norms of Hessians by Hessian-vector products: spectral ones by Lanczos, those of blocks by random vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from convexbn.network._base import import_torch


def hessian_norm(value: Any, parameters: Sequence[Any], *, tol: float = 1e-8) -> float:
    """Spectral norm of the Hessian of a value with respect to some parameters.

    Parameters
    ----------
    value : torch.Tensor of shape ()
        A number, computed from the parameters.
    parameters : sequence of torch.Tensor
        Leaves of its graph, which require gradients.
    tol : float, default=1e-8
        Relative accuracy.

    Returns
    -------
    norm : float

    Raises
    ------
    ImportError
        If PyTorch is not installed.

    Examples
    --------
    >>> import torch
    >>> from convexbn.gradient._hessian import hessian_norm
    >>> w = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64, requires_grad=True)
    >>> round(hessian_norm(w[0] ** 2 - 3 * w[1] ** 2 + w[2] * w[3], [w]), 6)
    6.0
    """
    torch = import_torch()
    gradient = torch.autograd.grad(value, parameters, create_graph=True)
    varying = [i for i, entry in enumerate(gradient) if entry.requires_grad]  # the value is linear in the others
    if not varying:
        return 0.0
    sizes = [parameter.numel() for parameter in parameters]

    def product(vector: np.ndarray) -> np.ndarray:
        pieces = torch.tensor(vector).ravel().split(sizes)
        shaped = [piece.reshape(parameter.shape) for piece, parameter in zip(pieces, parameters, strict=True)]
        outputs, weights = [gradient[i] for i in varying], [shaped[i] for i in varying]
        products = torch.autograd.grad(outputs, parameters, weights, retain_graph=True, materialize_grads=True)
        return torch.cat([entry.ravel() for entry in products]).numpy()

    size = sum(sizes)
    start = np.random.default_rng(0).standard_normal(size)
    if not product(start).any():  # a zero Hessian, almost surely; ARPACK refuses it
        return 0.0
    if size == 1:  # and a single parameter
        return float(abs(product(np.ones(1))[0]))
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    return abs(float(eigsh(operator, k=1, which="LM", v0=start, tol=tol, return_eigenvectors=False)[0]))


def block_norms(value: Any, parameters: Sequence[Any], *, n_probes: int | None, rng: np.random.Generator) -> np.ndarray:
    """Frobenius norms of the blocks of the Hessian of a value, one block for each pair of parameters.

    A Hessian-vector product with a vector v of random signs in parameter i alone has |H_li v|^2 = |H_li|^2 on
    average, for all l at once. As H is symmetric, the means over l, i and i, l are taken.

    Parameters
    ----------
    value : torch.Tensor of shape ()
        A number, computed from the parameters.
    parameters : sequence of torch.Tensor
        Leaves of its graph, which require gradients; P of them.
    n_probes : int or None
        Random vectors for each parameter; None takes all unit vectors, which is exact.
    rng : Generator
        Draws the random vectors.

    Returns
    -------
    norms : ndarray of shape (P, P)

    Raises
    ------
    ImportError
        If PyTorch is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from convexbn.gradient._hessian import block_norms
    >>> v, w = (torch.tensor(entries, requires_grad=True) for entries in ([1.0], [2.0, 3.0]))
    >>> block_norms(v[0] ** 2 + v[0] * (3 * w[0] + 4 * w[1]), [v, w], n_probes=None, rng=np.random.default_rng(0))
    array([[2., 5.],
           [5., 0.]])
    """
    torch = import_torch()
    gradient = torch.autograd.grad(value, parameters, create_graph=True)
    squares = np.zeros((len(parameters), len(parameters)))
    for i, parameter in enumerate(parameters):
        if not gradient[i].requires_grad:  # a constant, so that its row of blocks is zero
            continue
        size = parameter.numel()
        probes = np.eye(size) if n_probes is None else rng.choice((-1.0, 1.0), (n_probes, size))
        for probe in torch.tensor(probes, dtype=parameter.dtype):
            products = torch.autograd.grad(
                gradient[i], parameters, probe.reshape(parameter.shape), retain_graph=True, materialize_grads=True
            )
            squares[i] += [float(product.square().sum()) for product in products]
        squares[i] *= 1 if n_probes is None else 1 / n_probes
    return np.sqrt((squares + squares.T) / 2)
