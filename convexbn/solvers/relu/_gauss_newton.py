"""The Gauss-Newton matrix of the loss in hidden weights, output directions and intercept.

The variables are the hidden weights s_j (k each), then the tangents t_j (C - 1 each) of the unit output
directions, ``c_j(t) = c_j + T_j t_j``, then the intercept (C), if there is one.
"""

import numpy as np
from scipy.linalg.blas import dsyrk

from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.operators._protocol import Operator

_BLOCK_ENTRIES = 2**22  # entries of the Jacobian, or of what its products are made of, at once
_FEW_OUTPUTS = 4  # up to which one product of the whole Jacobian is faster than many of its parts


def gauss_newton(
    problem: Problem, neurons: Neurons, block: np.ndarray, on: np.ndarray, tangents: np.ndarray, f: np.ndarray
) -> np.ndarray:
    """Sum over samples of ``p_i J_i^T H_i J_i``, with J_i the Jacobian of the outputs and H_i the Hessian of the loss.

    Parameters
    ----------
    problem : Problem
        Training problem.
    neurons : Neurons
        Neurons with unit output weights.
    block : ndarray of int, shape (m,)
        The neurons that move.
    on : ndarray of bool, shape (N, m)
        Their activation patterns.
    tangents : ndarray of shape (m, C, C - 1)
        Orthonormal bases T_j of the complements of their output directions.
    f : ndarray of shape (n, C)
        Predictions.

    Returns
    -------
    matrix : ndarray of shape (M, M)
        ``M = m * (k + C - 1)``, and C more if the problem fits an intercept.
    """
    S, outputs = neurons.weights[:, block], neurons.output_weights[block]
    hessian = problem.sample_weight[:, None, None] * problem.loss.hessian(f, problem.y)
    multiples = hessian[:, 0, 0]
    if (hessian == multiples[:, None, None] * np.eye(problem.n_outputs)).all():
        return _of_multiples(problem.Z, S, on, outputs, tangents, multiples, problem.fit_intercept)
    if problem.n_outputs > _FEW_OUTPUTS:
        return _of_hessians(problem.Z, S, on, outputs, tangents, hessian, problem.fit_intercept)
    values, vectors = np.linalg.eigh(hessian)
    roots = np.sqrt(np.maximum(values, 0))[:, :, None] * vectors.transpose(0, 2, 1)
    return _of_roots(problem.Z, S, on, outputs, tangents, roots, problem.fit_intercept)


def _of_multiples(
    Z: Operator,
    S: np.ndarray,
    on: np.ndarray,
    outputs: np.ndarray,
    tangents: np.ndarray,
    weights: np.ndarray,
    fit_intercept: bool,
) -> np.ndarray:
    """The matrix where the Hessians are multiples of the identity: products of a Gram matrix with those of outputs."""
    (m, C), k = outputs.shape, len(S)
    gram = Z.masked_gram(on, weights).reshape(m, k, m, k)
    weights_weights = (gram * (outputs @ outputs.T)[:, None, :, None]).reshape(m * k, m * k)
    # relu(Z s) = D Z s, so its products are those of D Z.
    with_hidden = np.einsum("jalb,bl->jal", gram, S, optimize=True)
    hidden_hidden = np.einsum("jal,aj->jl", with_hidden, S)
    projected = np.einsum("jc,lcd->jld", outputs, tangents)
    weights_tangents = (with_hidden[:, :, :, None] * projected[:, None]).reshape(m * k, m * (C - 1))
    projected = np.einsum("jce,lcd->jeld", tangents, tangents, optimize=True)
    tangents_tangents = (hidden_hidden[:, None, :, None] * projected).reshape(m * (C - 1), m * (C - 1))
    if not fit_intercept:
        return np.block([[weights_weights, weights_tangents], [weights_tangents.T, tangents_tangents]])
    sums = Z.masked_adjoint(on, weights[:, None])
    weights_b = (sums.T[:, :, None] * outputs[:, None]).reshape(m * k, C)
    tangents_b = ((sums * S).sum(axis=0)[:, None, None] * tangents.transpose(0, 2, 1)).reshape(m * (C - 1), C)
    return np.block(
        [
            [weights_weights, weights_tangents, weights_b],
            [weights_tangents.T, tangents_tangents, tangents_b],
            [weights_b.T, tangents_b.T, weights.sum() * np.eye(C)],
        ]
    )


def _of_roots(
    Z: Operator,
    S: np.ndarray,
    on: np.ndarray,
    outputs: np.ndarray,
    tangents: np.ndarray,
    roots: np.ndarray,
    fit_intercept: bool,
) -> np.ndarray:
    """The matrix from the Jacobian times roots R_i of the Hessians (n, C, C), a block of samples at a time."""
    (m, C), k = outputs.shape, len(S)
    n_weights, n_tangents = m * k, m * (C - 1)
    size = n_weights + n_tangents + C * fit_intercept
    matrix = np.zeros((size, size), order="F")
    samples = max(1, _BLOCK_ENTRIES // (size * max(C, Z.n_patches)))
    for start in range(0, Z.n_samples, samples):
        block = slice(start, min(start + samples, Z.n_samples))
        R = roots[block]
        masked = Z.masked_features(on, block)
        hidden = np.einsum("ija,aj->ij", masked, S)
        J = np.empty((len(R), C, size))
        J[:, :, :n_weights] = ((R @ outputs.T)[:, :, :, None] * masked[:, None]).reshape(len(R), C, n_weights)
        projected = (R @ tangents.transpose(1, 0, 2).reshape(C, -1)).reshape(len(R), C, m, C - 1)
        J[:, :, n_weights : n_weights + n_tangents] = (projected * hidden[:, None, :, None]).reshape(len(R), C, -1)
        J[:, :, n_weights + n_tangents :] = R[:, :, : C * fit_intercept]
        matrix = dsyrk(1.0, J.reshape(-1, size).T, beta=1.0, c=matrix, overwrite_c=True, lower=True)
    return matrix + np.tril(matrix, -1).T


def _of_hessians(
    Z: Operator,
    S: np.ndarray,
    on: np.ndarray,
    outputs: np.ndarray,
    tangents: np.ndarray,
    hessian: np.ndarray,
    fit_intercept: bool,
) -> np.ndarray:
    """The matrix from products of the masked features, weighted by what the Hessians (n, C, C) are along the outputs.

    The Jacobian has a row for each sample and output; the features, one for each sample.
    """
    (m, C), k = outputs.shape, len(S)
    weights_weights, weights_outputs = np.zeros((m, k, m, k)), np.zeros((m, k, m, C))
    outputs_outputs, weights_b, outputs_b = np.zeros((m * m, C * C)), np.zeros((m, k, C)), np.zeros((m, C * C))
    samples = max(1, _BLOCK_ENTRIES // (m * max(k * Z.n_patches, m, C * C)))
    for start in range(0, Z.n_samples, samples):
        block = slice(start, min(start + samples, Z.n_samples))
        features, H = Z.masked_features(on, block), hessian[block]
        n = len(H)
        hidden, along = np.einsum("ija,aj->ij", features, S), H @ outputs.T
        curvature = outputs @ along
        for j in range(m):
            own, left = features[:, j].T, slice(j + 1)
            weighted = (features[:, left] * curvature[:, j, left, None]).reshape(n, -1)
            weights_weights[j, :, left] += (own @ weighted).reshape(k, j + 1, k)
            weighted = (hidden[:, :, None] * along[:, None, :, j]).reshape(n, -1)
            weights_outputs[j] += (own @ weighted).reshape(k, m, C)
            weights_b[j] += own @ along[:, :, j]
        outputs_outputs += (hidden[:, :, None] * hidden[:, None]).reshape(n, -1).T @ H.reshape(n, -1)
        outputs_b += hidden.T @ H.reshape(n, -1)
    lower = np.tril(weights_weights.reshape(m * k, m * k))
    weights_weights = lower + np.tril(lower, -1).T
    weights_tangents = np.einsum("jalc,lcd->jald", weights_outputs, tangents).reshape(m * k, -1)
    tangents_outputs = np.einsum("jcd,jlce->jdle", tangents, outputs_outputs.reshape(m, m, C, C), optimize=True)
    tangents_tangents = np.einsum("jdle,lef->jdlf", tangents_outputs, tangents).reshape(m * (C - 1), -1)
    matrix = np.block([[weights_weights, weights_tangents], [weights_tangents.T, tangents_tangents]])
    if not fit_intercept:
        return matrix
    tangents_b = (tangents.transpose(0, 2, 1) @ outputs_b.reshape(m, C, C)).reshape(-1, C)
    with_b = np.vstack([weights_b.reshape(m * k, C), tangents_b])
    return np.block([[matrix, with_b], [with_b.T, hessian.sum(axis=0)]])
