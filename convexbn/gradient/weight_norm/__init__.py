"""Two-layer weight normalization in the regime where gradient descent is nearly linear: two Gram matrices say how fast.

The network is ``f(x) = m^-1/2 sum_k c_k relu(g_k v_k·x / |v_k|)`` with c_k = +-1 fixed, v_k(0) ~ N(0, alpha^2 I) and
g_k(0) = |v_k(0)| / alpha, trained by gradient descent on (v, g) of |f - y|^2 / 2 (arXiv 2006.06878).
"""

from convexbn.gradient.weight_norm._descent import decay_rate, train_weight_norm, weight_norm_start
from convexbn.gradient.weight_norm._gram import GramMatrices, gram_matrices, limit_gram_matrices

__all__ = [
    "GramMatrices",
    "decay_rate",
    "gram_matrices",
    "limit_gram_matrices",
    "train_weight_norm",
    "weight_norm_start",
]
