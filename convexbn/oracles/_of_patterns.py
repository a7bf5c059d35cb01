"""Prices over a set of activation patterns: exact pattern by pattern, ReLU and gated."""

from collections.abc import Iterator

import numpy as np
from scipy.optimize import nnls

from convexbn.operators._kinds import check_operator
from convexbn.operators._protocol import Operator
from convexbn.oracles._checked_dual import checked_dual
from convexbn.oracles._faces import count_flats, flats_of_rows, largest_on_cone
from convexbn.oracles._price import Price
from convexbn.patterns._patterns import MAX_PATTERNS, Patterns, check_patterns, count_patterns, enumerate_patterns

_BLOCK_ENTRIES = 2**24  # entries of the masks unpacked at once
_MERGED = 1e-12  # angle at which hyperplanes count as one in an enumeration, and cells as none
_ROUNDING = 16 * float(np.finfo(float).eps)  # of a sum, relative to the sizes of its terms
_QUICK_PATTERNS, _QUICK_FACES = 10_000, 1_000_000  # of all cones together


def price_of_pattern(
    Z: Operator, mask: np.ndarray, v: np.ndarray, flats: list[np.ndarray] | None = None
) -> tuple[float, np.ndarray]:
    """Price of one pattern: max over unit w with that pattern of v^T relu(Zw), or |v^T relu(Zw)| of several outputs.

    With one output, and one sign, it is the length of the projection of Z^T D v on the pattern's cone, by Moreau
    ``min_{mu >= 0} |Z^T D v + Z^T (2D - I) mu|``, a non-negative least-squares problem. Any mu >= 0 gives an upper
    bound, so the price is too low by rounding at most.

    With several outputs a convex function is maximised, on every face of the cone: for tiny
    problems only, such as up to 199 rows of three columns or 49 of four.

    Parameters
    ----------
    Z : Operator
        Design matrix with N rows.
    mask : ndarray of bool, shape (N,)
        Pattern D.
    v : ndarray of shape (n, C)
        Dual point.
    flats : list of ndarray or None, default=None
        For several outputs, `flats_of_rows` of Z, if they are known.

    Returns
    -------
    price : float
    w : ndarray of shape (k,)
        The direction that attains it, of this length; zero if no direction of the cone has a positive price.

    Raises
    ------
    ValueError
        If there are several outputs, and more than 20,000 faces.

    References
    ----------
    .. [1] Ergen et al., arXiv 2103.01499, the constraint of the dual program, pattern by pattern.
    .. [2] Sahiner et al., arXiv 2012.13329, the same for several outputs.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.oracles import price_of_pattern
    >>> Z, v = DesignMatrix(np.eye(2)), np.array([[3.0], [-4.0]])
    >>> price_of_pattern(Z, np.array([True, True]), v)
    (3.0, array([3., 0.]))
    """
    return _price_of_pattern(Z, mask, v, flats)[:2]


def _price_of_pattern(
    Z: Operator, mask: np.ndarray, v: np.ndarray, flats: list[np.ndarray] | None
) -> tuple[float, np.ndarray, float]:
    """Price of one pattern, the direction that attains it, and what rounding of the sum over mu may hide."""
    cone = Z.rows().T * np.where(mask, 1.0, -1.0)
    if v.shape[1] > 1:
        return *largest_on_cone(_adjoints(Z, mask[:, None], v)[0], cone, flats or flats_of_rows(Z)), 0.0
    gated = Z.masked_adjoint(mask[:, None], v)[:, 0]
    mu, price = nnls(cone, -gated)
    return float(price), gated + cone @ mu, _ROUNDING * float(mu @ Z.row_norms)


def price_of_patterns(Z: Operator, patterns: Patterns, v: np.ndarray) -> Price:
    """Largest price over a pattern set and both signs of v.

    Patterns are priced from the largest gated price |Z^T D v| downwards. The gated price is an upper bound of the
    price, so the search ends at the first pattern whose gated price is no larger than the best price found.

    Parameters
    ----------
    Z : Operator
        Design matrix.
    patterns : Patterns
        Its patterns; if they are complete the scope is "global".
    v : ndarray of shape (n, C)
        Dual point.

    Returns
    -------
    price : Price
        Of complete patterns at least the price of every direction: more than the largest of the patterns by what cells
        of a width below 1e-12, which are not told from rounding, may hold.

    Raises
    ------
    ValueError
        If there are several outputs, and too many faces (`price_of_pattern`).

    References
    ----------
    .. [1] Ergen et al., arXiv 2103.01499, the constraint of the dual program, pattern by pattern.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn import enumerate_patterns
    >>> from convexbn.oracles import price_of_patterns
    >>> Z, v = DesignMatrix(np.eye(2)), np.array([[3.0], [-4.0]])
    >>> round(price_of_patterns(Z, enumerate_patterns(Z), v).value, 9)
    4.0
    """
    v = _checked(Z, patterns, v)
    flats, signs = _flats_and_signs(Z, v)
    gated = _gated_prices(Z, patterns, v)
    best = largest = 0.0
    direction = None
    for i in np.argsort(-gated, kind="stable"):
        if gated[i] <= best:
            break
        mask = patterns.masks(np.array([i]))[:, 0]
        for sign in signs:
            price, w, rounding = _price_of_pattern(Z, mask, sign * v, flats)
            largest = max(largest, price + rounding)
            if price > best:
                best, direction = price, w / price
    if not patterns.complete:
        return Price(largest, "patterns", direction)
    hidden = _MERGED * float(Z.row_norms @ np.linalg.norm(Z.unpool(v), axis=1))
    return Price(largest + hidden, "global", direction)


def most_violated_patterns(
    Z: Operator, patterns: Patterns, v: np.ndarray, threshold: float, count: int, *, gated: bool = False
) -> np.ndarray:
    """Patterns whose price exceeds a threshold, the most violated dual constraint first.

    Parameters
    ----------
    Z : Operator
        Design matrix.
    patterns : Patterns
        Its patterns.
    v : ndarray of shape (n, C)
        Dual point.
    threshold : float
        Patterns that price no higher are left out.
    count : int
        How many to return at most.
    gated : bool, default=False
        Whether prices are those of gated neurons.

    Returns
    -------
    chosen : ndarray of int, shape (<= count,)

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn import enumerate_patterns
    >>> from convexbn.oracles import most_violated_patterns
    >>> Z, v = DesignMatrix(np.eye(2)), np.array([[3.0], [-4.0]])
    >>> patterns = enumerate_patterns(Z)
    >>> patterns.masks(most_violated_patterns(Z, patterns, v, threshold=3.5, count=9)).astype(int)
    array([[0, 1],
           [1, 1]])
    """
    prices = _gated_prices(Z, patterns, v)
    if not gated:
        flats, signs = _flats_and_signs(Z, v)
        for i in np.flatnonzero(prices > threshold):
            mask = patterns.masks(np.array([i]))[:, 0]
            prices[i] = max(price_of_pattern(Z, mask, sign * v, flats)[0] for sign in signs)
    chosen = np.argsort(-prices, kind="stable")[:count]
    return chosen[prices[chosen] > threshold]


def price_of_gates(Z: Operator, patterns: Patterns, v: np.ndarray) -> Price:
    """Largest gated price |Z^T D v| over a pattern set, the price of a gated ReLU network.

    With several outputs |Z^T D v| is the largest singular value of a k x C matrix, the dual of the nuclear norm.

    Parameters
    ----------
    Z : Operator
        Design matrix.
    patterns : Patterns
        Gates of the network.
    v : ndarray of shape (n, C)
        Dual point.

    Returns
    -------
    price : Price
        Scope "patterns": the gates define the network, so nothing lies outside them.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn import enumerate_patterns
    >>> from convexbn.oracles import price_of_gates
    >>> Z = DesignMatrix(np.eye(2))
    >>> price_of_gates(Z, enumerate_patterns(Z), np.array([[3.0], [-4.0]])).value
    5.0
    """
    v = _checked(Z, patterns, v)
    gated = _gated_prices(Z, patterns, v)
    best = int(gated.argmax())
    adjoint = _adjoints(Z, patterns.masks(np.array([best])), v)[0]
    direction = np.linalg.svd(adjoint, full_matrices=False)[0][:, 0] if gated[best] > 0 else None
    return Price(float(gated[best]), "patterns", direction)


def price_by_enumeration(Z: Operator, v: np.ndarray, *, max_patterns: int = MAX_PATTERNS) -> Price:
    """Exact price of all directions, through all activation patterns: for low rank.

    Parameters
    ----------
    Z : Operator
        Design matrix.
    v : ndarray of shape (n, C)
        Dual point.
    max_patterns : int, default=100_000
        Budget of `enumerate_patterns`.

    Returns
    -------
    price : Price
        Scope "global".

    Raises
    ------
    ValueError
        If there are more patterns than the budget allows, or, of several outputs, more than 20,000 faces a cone.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.oracles import price_by_enumeration
    >>> price_by_enumeration(DesignMatrix(np.eye(2)), np.array([[3.0], [-4.0]])).scope
    'global'
    """
    v = checked_dual(Z, v)
    return price_of_patterns(Z, enumerate_patterns(Z, max_patterns=max_patterns), v)


def quickly_enumerated(Z: Operator, n_outputs: int) -> bool:
    """Whether `price_by_enumeration` takes about a second at most, by a bound of the number of patterns and faces.

    Never where the rows are too many for one array in memory, or all zero, which have no patterns.

    Parameters
    ----------
    Z : Operator
        Design matrix.
    n_outputs : int
        Outputs C.

    Returns
    -------
    quick : bool

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.oracles import quickly_enumerated
    >>> Z = DesignMatrix(np.random.default_rng(0).standard_normal((50, 3)))
    >>> quickly_enumerated(Z, n_outputs=1), quickly_enumerated(Z, n_outputs=2)
    (True, False)
    """
    if not Z.has_few_entries:
        return False
    if n_outputs > 1 and Z.n_columns > 1 and Z.n_rows**2 > _QUICK_FACES:  # a pattern and a face a row above rank one
        return False
    if not Z.row_norms.any():
        return False
    if n_outputs == 1:
        return count_patterns(Z) <= _QUICK_PATTERNS
    return count_patterns(Z) * count_flats(Z) <= _QUICK_FACES


def spectral_norms(G: np.ndarray) -> np.ndarray:
    """Largest singular values of matrices G (P, k, C), or lengths of vectors (P, k): shape (P,).

    From the eigenvalues of the smaller of G^T G and G G^T, in which small singular values have fewer digits.

    Parameters
    ----------
    G : ndarray of shape (P, k, C) or (P, k)
        The matrices, or vectors.

    Returns
    -------
    norms : ndarray of shape (P,)

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.oracles import spectral_norms
    >>> spectral_norms(np.array([[[3.0, 0.0], [0.0, -4.0]]]))
    array([4.])
    """
    if G.ndim == 2 or G.shape[2] == 1:
        return np.linalg.norm(G.reshape(len(G), G.shape[1]), axis=1)
    G = G if G.shape[2] <= G.shape[1] else np.swapaxes(G, 1, 2)
    gram = np.swapaxes(G, 1, 2) @ G
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[:, -1], 0))


def _checked(Z: Operator, patterns: Patterns, v: np.ndarray) -> np.ndarray:
    """The dual point as an array, if these are patterns of Z; else a ValueError."""
    check_operator(Z)
    check_patterns(patterns, Z)
    return checked_dual(Z, v)


def _flats_and_signs(Z: Operator, v: np.ndarray) -> tuple[list[np.ndarray] | None, tuple[float, ...]]:
    """What the prices of patterns need beside v; with several outputs the sign is the output direction's."""
    return (None, (1.0, -1.0)) if v.shape[1] == 1 else (flats_of_rows(Z), (1.0,))


def _gated_prices(Z: Operator, patterns: Patterns, v: np.ndarray) -> np.ndarray:
    """Largest singular value of Z^T D_i v of every pattern, shape (P,)."""
    return np.concatenate(
        [spectral_norms(_adjoints(Z, patterns.masks(block), v)) for block in _blocks(Z, len(patterns))]
    )


def _adjoints(Z: Operator, masks: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Z^T D_i v of the patterns with these masks (N, P), for a dual point (n, C): shape (P, k, C)."""
    return np.stack([Z.masked_adjoint(masks, v[:, [c]]).T for c in range(v.shape[1])], axis=2)


def _blocks(Z: Operator, n_patterns: int) -> Iterator[slice]:
    size = max(1, _BLOCK_ENTRIES // Z.n_rows)
    return (slice(start, start + size) for start in range(0, n_patterns, size))
