"""An upper bound of the price of every direction that needs no search."""

import numpy as np

from convexbn._utils.magnitude import power_of_two_above
from convexbn.operators._protocol import Operator
from convexbn.oracles._checked_dual import checked_dual
from convexbn.oracles._price import Price


def price_bound(Z: Operator, v: np.ndarray, sample_weight: np.ndarray | None = None) -> Price:
    """Upper bound of the price of every direction, for any rank, without a search.

    For one output it is the smaller of two: ``|P^1/2 Z| max(|P^-1/2 v_+|, |P^-1/2 v_-|)`` with the spectral norm of
    P^1/2 Z, which is attained when ``P^1/2 Z Z^T P^1/2`` is a multiple of the identity, and, for each sign,
    ``|Z^T v|/2 + sqrt(sum v_+ * lambda_max(Z^T diag(v_+) Z)) / 2`` over the absolute values in
    ``relu(t) = (t + |t|)/2``. For several outputs it is the product of the spectral norms of P^1/2 Z and P^-1/2 v.

    Parameters
    ----------
    Z : Operator
        Design matrix.
    v : ndarray of shape (n, C)
        Dual point.
    sample_weight : ndarray of shape (n,) or None, default=None
        Positive weights, the diagonal of P; equal if None. Any give a bound; that of the problem's weights is the
        same for integer weights and repeated rows.

    Returns
    -------
    price : Price
        Scope "global"; the bound need not be attained.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.oracles import price_bound
    >>> round(price_bound(DesignMatrix(np.eye(2)), np.array([[3.0], [-4.0]])).value, 12)
    4.0
    """
    v = checked_dual(Z, v)
    p = np.ones((Z.n_samples, 1)) if sample_weight is None else sample_weight[:, None]
    (Z, Z_size), v_size = Z.of_moderate_size, power_of_two_above(v)
    size, rows, p = Z_size * v_size, Z.unpool(v / v_size), Z.unpool(p)
    norm = Z.weighted_norm(p)
    if v.shape[1] > 1:
        return Price(size * norm * float(np.linalg.norm(rows / np.sqrt(p), 2)), "global")
    parts = np.maximum(rows, 0), np.maximum(-rows, 0)
    half_linear = np.linalg.norm(Z.adjoint(rows)) / 2
    absolute = max(np.sqrt(part.sum()) * Z.weighted_norm(part) for part in parts) / 2
    spectral = norm * max(np.linalg.norm(part / np.sqrt(p)) for part in parts)
    return Price(size * float(min(half_linear + absolute, spectral)), "global")
