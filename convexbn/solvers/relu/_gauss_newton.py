"""The Gauss-Newton matrix of the loss in hidden weights, output directions and intercept, of a block of rows.

The variables are the hidden weights s_j (k each), then the tangents t_j (C - 1 each) of the unit output
directions, ``c_j(t) = c_j + T_j t_j``, then the intercept (C), if there is one.
"""

from typing import Any

import numpy as np

from convexbn._utils.array_namespace import like

_FEW_OUTPUTS = 4  # up to which one product of the whole Jacobian is faster than many of its parts


def gauss_newton(
    Z: Any,
    masks: Any,
    hessian: Any,
    *,
    weights: Any,
    output_weights: Any,
    tangents: Any,
    fit_intercept: bool,
    single_precision: bool = False,
) -> Any:
    """Sum over samples of ``J_i^T H_i J_i``, with J_i the Jacobian of the outputs and H_i the Hessian of the loss.

    Parameters
    ----------
    Z : Operator
        Design matrix, or a block of it.
    masks : array of shape (N, m)
        Activation patterns of the neurons that move, as numbers.
    hessian : array of shape (n, C, C)
        Hessians H_i, times the weights of the samples.
    weights, output_weights : array of shape (k, m), (m, C)
        The neurons that move, with unit output weights.
    tangents : array of shape (m, C, C - 1)
        Orthonormal bases T_j of the complements of their output directions.
    fit_intercept : bool
        Whether the intercept moves.
    single_precision : bool, default=False
        Whether the matrix may be summed in single precision, which pays where it is a sum of many products.

    Returns
    -------
    matrix : array of shape (M, M)
        ``M = m * (k + C - 1)``, and C more if the intercept moves.
    """
    multiples, C = hessian[:, 0, 0], output_weights.shape[1]
    if C == 1 or Z.xp.all(hessian == multiples[:, None, None] * like(hessian, np.eye(C))[0]):
        matrix = _of_multiples(Z, masks, multiples, weights, output_weights, tangents)
    else:
        way, arrays = _of_roots, (masks, hessian, weights, output_weights, tangents)
        if C > _FEW_OUTPUTS:
            way, Z = _of_matrices, Z.in_single_precision if single_precision else Z
            arrays = tuple(Z.cast(array) for array in arrays)
        matrix = way(Z, *arrays)
    return matrix if fit_intercept else matrix[:-C, :-C]


def _of_multiples(Z: Any, masks: Any, multiples: Any, S: Any, outputs: Any, T: Any) -> Any:
    """The matrix where the Hessians are multiples of the identity: products of a Gram matrix with those of outputs."""
    xp, (m, C), k = Z.xp, outputs.shape, S.shape[0]
    n_weights, n_tangents = m * k, m * (C - 1)
    gram = xp.reshape(Z.masked_gram(masks, multiples), (m, k, m, k))
    weights_weights = xp.reshape(gram * (outputs @ outputs.T)[:, None, :, None], (n_weights, n_weights))
    # relu(Z s) = D Z s, so its products are those of D Z.
    with_hidden = xp.vecdot(gram, S.T)
    hidden_hidden = xp.vecdot(xp.permute_dims(with_hidden, (0, 2, 1)), S.T[:, None, :])
    projected = xp.reshape(outputs @ _flat(xp, T), (m, m, C - 1))
    weights_tangents = xp.reshape(with_hidden[:, :, :, None] * projected[:, None, :, :], (n_weights, n_tangents))
    projected = xp.tensordot(T, T, axes=((1,), (1,)))
    tangents_tangents = xp.reshape(hidden_hidden[:, None, :, None] * projected, (n_tangents, n_tangents))
    sums = Z.adjoint(masks * Z.unpool(multiples[:, None]))
    weights_b = xp.reshape(sums.T[:, :, None] * outputs[:, None, :], (n_weights, C))
    along = xp.sum(sums * S, axis=0)[:, None, None]
    tangents_b = xp.reshape(along * xp.permute_dims(T, (0, 2, 1)), (n_tangents, C))
    b_b = xp.sum(multiples) * like(sums, np.eye(C))[0]
    return _symmetric(xp, weights_weights, weights_tangents, weights_b, tangents_tangents, tangents_b, b_b)


def _of_roots(Z: Any, masks: Any, hessian: Any, S: Any, outputs: Any, T: Any) -> Any:
    """The matrix from the Jacobian times roots of the Hessians, some samples at a time."""
    xp, (m, C), k = Z.xp, outputs.shape, S.shape[0]
    values, vectors = xp.linalg.eigh(hessian)
    roots = xp.sqrt(xp.clip(values, 0.0, None))[:, :, None] * xp.permute_dims(vectors, (0, 2, 1))
    matrix: Any = 0.0
    for samples in Z.samples_at_once((m * (k + C - 1) + C) * C):
        R, features = roots[samples, :, :], Z.masked_features(masks, samples)
        rows, hidden = R.shape[0] * C, xp.vecdot(features, S.T)
        turned = xp.reshape(R @ _flat(xp, T), (R.shape[0], C, m, C - 1)) * hidden[:, None, :, None]
        J = [
            xp.reshape((R @ outputs.T)[:, :, :, None] * features[:, None, :, :], (rows, m * k)),
            xp.reshape(turned, (rows, m * (C - 1))),
            xp.reshape(R, (rows, C)),
        ]
        matrix = matrix + Z.square(xp.concat(J, axis=1))
    return matrix


def _of_matrices(Z: Any, masks: Any, hessian: Any, S: Any, outputs: Any, T: Any) -> Any:
    """The matrix from products of the masked features, weighted by what the Hessians are along the outputs.

    The Jacobian has a row for each sample and output; the features, one for each sample.
    """
    xp, (m, C), k = Z.xp, outputs.shape, S.shape[0]
    n_weights, n_tangents = m * k, m * (C - 1)
    # Products with the features of weights (of them the upper blocks), output weights, intercept, of shape
    # (m, k, m * k + m * C + C).
    of_weights: Any = 0.0
    of_outputs: Any = 0.0  # Hessians times pairs of activations, and times activations: (m * m + m, C * C)
    for samples in Z.samples_at_once(m * (k + m + C)):
        features, H = Z.masked_features(masks, samples), hessian[samples, :, :]
        n, hidden, along = H.shape[0], xp.vecdot(features, S.T), H @ outputs.T
        curvature, products = outputs @ along, []
        for j in range(m):
            parts = [
                xp.reshape(features[:, j:, :] * curvature[:, j, j:, None], (n, (m - j) * k)),
                xp.reshape(hidden[:, :, None] * along[:, None, :, j], (n, m * C)),
                along[:, :, j],
            ]
            product = features[:, j, :].T @ xp.concat(parts, axis=1)
            products.append(xp.concat([like(product, np.zeros((k, j * k)))[0], product], axis=1))
        of_weights = of_weights + xp.stack(products)
        pairs = xp.reshape(hidden[:, :, None] * hidden[:, None, :], (n, m * m))
        of_outputs = of_outputs + xp.concat([pairs, hidden], axis=1).T @ xp.reshape(H, (n, C * C))

    upper = xp.reshape(of_weights[:, :, :n_weights], (n_weights, n_weights))
    weights_weights = xp.triu(upper) + xp.triu(upper, k=1).T
    weights_outputs = xp.reshape(of_weights[:, :, n_weights:-C], (n_weights, m, C))
    weights_tangents = xp.permute_dims(xp.permute_dims(weights_outputs, (1, 0, 2)) @ T, (1, 0, 2))
    weights_tangents = xp.reshape(weights_tangents, (n_weights, n_tangents))
    across = xp.permute_dims(T, (0, 2, 1))
    projected = across[:, None, :, :] @ (xp.reshape(of_outputs[: m * m, :], (m, m, C, C)) @ T[None, :, :, :])
    tangents_tangents = xp.reshape(xp.permute_dims(projected, (0, 2, 1, 3)), (n_tangents, n_tangents))
    weights_b = xp.reshape(of_weights[:, :, -C:], (n_weights, C))
    tangents_b = xp.reshape(across @ xp.reshape(of_outputs[m * m :, :], (m, C, C)), (n_tangents, C))
    b_b = xp.sum(hessian, axis=0)
    return _symmetric(xp, weights_weights, weights_tangents, weights_b, tangents_tangents, tangents_b, b_b)


def _symmetric(xp: Any, ww: Any, wt: Any, wb: Any, tt: Any, tb: Any, bb: Any) -> Any:
    """The matrix of its blocks on and above the diagonal: of weights, tangents and intercept."""
    return xp.concat([xp.concat(row, axis=1) for row in ([ww, wt, wb], [wt.T, tt, tb], [wb.T, tb.T, bb])])


def _flat(xp: Any, T: Any) -> Any:
    """Bases (m, C, C - 1) as columns of one matrix (C, m * (C - 1))."""
    m, C, rank = T.shape
    return xp.reshape(xp.permute_dims(T, (1, 0, 2)), (C, m * rank))
