"""The products with the masked design matrices that a problem calls for."""

from convexbn.operators._masked import MaskedProducts
from convexbn.operators._pooled import PooledProducts
from convexbn.operators._protocol import Operator

Products = MaskedProducts | PooledProducts


def kind_of_products(Z: Operator) -> type[MaskedProducts] | type[PooledProducts]:
    """Masked rows, or features averaged over the patches of a sample."""
    return MaskedProducts if Z.n_patches == 1 else PooledProducts
