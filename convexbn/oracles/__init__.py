"""Prices of directions: max over |w| <= 1 of |v^T relu(Zw)|, which decides dual feasibility.

With normalization after the ReLU it is the maximum over neurons h = relu(Zw) + shift of norm 1 of |v^T h|.

A dual point v is feasible if no direction prices higher than weight_decay. Over which directions that was shown is the
scope of a price: all of them for a global certificate, those of a pattern set, or those that a search reached.
"""

from convexbn.oracles._ascent import LocalMaxima, find_local_maxima, price_by_ascent
from convexbn.oracles._bound import price_bound
from convexbn.oracles._branch_and_bound import price_by_branch_and_bound
from convexbn.oracles._faces import count_flats, flats_of_rows, largest_on_cone
from convexbn.oracles._normalized import (
    NormalizedMaxima,
    find_normalized_maxima,
    normalized_price_bound,
    priced_neurons,
)
from convexbn.oracles._normalized_cones import normalized_quickly_enumerated, price_of_normalized_patterns
from convexbn.oracles._of_patterns import (
    most_violated_patterns,
    price_by_enumeration,
    price_of_gates,
    price_of_pattern,
    price_of_patterns,
    quickly_enumerated,
    spectral_norms,
)
from convexbn.oracles._price import Price, Scope
from convexbn.oracles._weight_decay_max import weight_decay_max
from convexbn.oracles._without_search import price_size, price_without_search

__all__ = [
    "LocalMaxima",
    "NormalizedMaxima",
    "Price",
    "Scope",
    "count_flats",
    "find_local_maxima",
    "find_normalized_maxima",
    "flats_of_rows",
    "largest_on_cone",
    "most_violated_patterns",
    "normalized_price_bound",
    "normalized_quickly_enumerated",
    "price_bound",
    "price_by_ascent",
    "price_by_branch_and_bound",
    "price_by_enumeration",
    "price_of_gates",
    "price_of_normalized_patterns",
    "price_of_pattern",
    "price_of_patterns",
    "price_size",
    "price_without_search",
    "priced_neurons",
    "quickly_enumerated",
    "spectral_norms",
    "weight_decay_max",
]
