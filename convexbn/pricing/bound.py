"""An upper bound of the price of every direction that needs no search."""

import numpy as np
from scipy.linalg import eigh

from convexbn.matrix import DesignMatrix
from convexbn.pricing.price import Price


def price_bound(Z: DesignMatrix, v: np.ndarray) -> Price:
    """Upper bound of the price of every direction, for any rank, without a search.

    For one output it is the smaller of two: ``|Z| max(|v_+|, |v_-|)`` with |Z| the spectral norm, which is attained
    when Z Z^T is a multiple of the identity, and, for each sign,
    ``|Z^T v|/2 + sqrt(sum v_+ * lambda_max(Z^T diag(v_+) Z)) / 2`` over the absolute values in
    ``relu(t) = (t + |t|)/2``. For several outputs it is the product of the spectral norms of Z and v.

    Parameters
    ----------
    Z : DesignMatrix
        Design matrix.
    v : ndarray of shape (n, C)
        Dual point.

    Returns
    -------
    price : Price
        Scope "global"; the bound need not be attained.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.matrix import DesignMatrix
    >>> from convexbn.pricing import price_bound
    >>> round(price_bound(DesignMatrix(np.eye(2)), np.array([[3.0], [-4.0]])).value, 12)
    4.0
    """
    rows = Z.unpool(v)
    if v.shape[1] > 1:
        return Price(Z.spectral_norm * float(np.linalg.norm(rows, 2)), "global")
    parts = np.maximum(rows[:, 0], 0), np.maximum(-rows[:, 0], 0)
    half_linear = np.linalg.norm(Z.Z.T @ rows) / 2
    largest = (eigh(Z.Z.T @ (part[:, None] * Z.Z), eigvals_only=True)[-1] for part in parts)
    absolute = max(np.sqrt(part.sum() * max(top, 0)) for part, top in zip(parts, largest, strict=True)) / 2
    spectral = Z.spectral_norm * max(np.linalg.norm(part) for part in parts)
    return Price(float(min(half_linear + absolute, spectral)), "global")
