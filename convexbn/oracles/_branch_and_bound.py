"""The price of every direction, proved by branch and bound over simplicial cones."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from heapq import heappop, heappush
from itertools import count, product
from typing import Self

import numpy as np
from numpy.typing import DTypeLike

from convexbn._utils.checks import check_count, is_number
from convexbn._utils.invalid_flag import false_flags_ignored
from convexbn._utils.threads import on_one_thread
from convexbn.operators._protocol import Operator
from convexbn.oracles._bound import price_bound
from convexbn.oracles._checked_dual import checked_dual
from convexbn.oracles._largest_on_cones import LOOSE, largest_on_cones
from convexbn.oracles._price import Price

_MOST_ROOTS = 2**14  # cones to begin with; 2^rank of each sign are needed
_BLOCK_ENTRIES = 2**22  # entries of the largest array, about
_ASCENT_STEPS = 50
_LONG = 0.3  # squared length of an edge that may be split, relative to the longest
_INNER = 0.2  # least distance of a split from the ends of its edge, as a share of the edge
_STANDS_OUT = 0.3  # share of the excess along an edge that one row must make to decide where the edge is split
_OFF_MAXIMUM = 0.1  # weight of an edge of whose ends the maximiser of the bound needs but one
_SINGLE = 1e-5  # distance of the target from the best price, where none exceeds one, that single precision tells apart
_ZERO = 1e-12  # squared angle of a cone that is not split further, and relative size that counts as rank


@on_one_thread
def price_by_branch_and_bound(
    Z: Operator,
    v: np.ndarray,
    *,
    threshold: float = 0.0,
    tol: float = 1e-3,
    starts: np.ndarray | None = None,
    max_nodes: int = 1_000_000,
    stop: Callable[[], bool] | None = None,
) -> Price:
    r"""Proved upper bound of the price of every direction, for low rank: up to about eight columns.

    All directions are covered by simplicial cones, at first the orthants of the principal axes. Each sign of v makes
    ``v^T relu(Zw)`` a difference of convex functions, ``p(w) - q(w)``, both homogeneous. On the cone of u_1 ... u_k,
    p lies below the linear function with the same values at the u_t, its concave envelope; that less q is concave, and
    its largest value in the unit ball, a small quadratic program, bounds the price there. A cone that may still hold a
    price above ``max(threshold, (1 + tol) best)`` is split at one of its longer edges, where the envelope is most above
    p, the largest bound first.

    Parameters
    ----------
    Z : Operator
        Design matrix.
    v : ndarray of shape (n, 1)
        Dual point.
    threshold : float, default=0.0
        No price up to here is bounded more tightly.
    tol : float, default=1e-3
        Relative distance to the best direction found at which the bound is close enough.
    starts : ndarray of shape (k, m), optional
        Further starts of the search for the best direction.
    max_nodes : int, default=1_000_000
        Budget of cones.
    stop : callable, optional
        Called without arguments between steps; the search ends when it returns True.

    Returns
    -------
    price : Price
        Scope "global". The value is never above `price_bound`, and at most ``max(threshold, (1 + tol) best)`` unless
        the search was cut short or `tol` is beyond rounding: cones narrower than 1e-6 are not split, which in bad
        cases (scales far apart, rows that cancel) leaves 1e-5 or so. With more than 13 independent columns it is
        `price_bound`. The direction is the one of the largest price found, which may be lower than the bound.

    Raises
    ------
    ValueError
        If v is not of shape (n, 1), `starts` does not have k rows, `tol` is not positive or `max_nodes` is not.

    References
    ----------
    .. [1] Horst and Tuy, "Global Optimization: Deterministic Approaches", Springer 1996, on branch and bound over cones
       for differences of convex functions, and its convergence.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix
    >>> from convexbn.oracles import price_by_branch_and_bound
    >>> price = price_by_branch_and_bound(DesignMatrix(np.eye(2)), np.array([[3.0], [-4.0]]), tol=1e-6)
    >>> round(price.value, 4), price.scope, price.direction.round(4) + 0.0
    (4.0, 'global', array([0., 1.]))
    """
    v = checked_dual(Z, v)
    _check(Z, v, tol, starts, max_nodes)
    cheap = price_bound(Z, v).value
    Z, v, moved = Z.for_prices(v)
    rows = np.abs(v) * Z.rows()
    scale = float(np.linalg.norm(rows, axis=1).sum())
    if scale == 0:
        return Price(moved, "global")
    rows /= scale
    _, sizes, axes = np.linalg.svd(rows, full_matrices=False)
    axes = axes[sizes > _ZERO * sizes[0]]
    left_out = np.linalg.norm(rows - rows @ axes.T @ axes, axis=1).sum()
    slack = 4 * np.finfo(float).eps * (len(rows) + Z.n_columns**2 + 64) + left_out
    rows, positive = rows @ axes.T, v[:, 0] > 0
    search = _Search(
        _Relus.of_rows(rows[positive]),
        _Relus.of_rows(rows[~positive & rows.any(axis=1)]),
        None if starts is None else axes @ starts,
        threshold=(threshold - moved) / scale - slack,
        factor=1 + tol,
        slack=slack,
        stop=stop or (lambda: False),
    )
    value = cheap
    few_roots = 2 ** (len(axes) + 1) <= min(max_nodes, _MOST_ROOTS)
    if few_roots and cheap > search.target * scale and search.run(max_nodes):
        value = float(min((search.bound() + slack) * scale + moved, cheap))
    direction = axes.T @ search.direction
    direction /= np.linalg.norm(direction)
    attained = abs(float((v.T @ Z.neuron_outputs(direction[:, None]))[0, 0]))
    value = max(value, attained)
    return Price(value, "global", direction)


def _check(Z: Operator, v: np.ndarray, tol: float, starts: np.ndarray | None, max_nodes: int) -> None:
    if v.shape[1] != 1:
        raise ValueError(f"v must be of shape ({Z.n_samples}, 1), one output, got {v.shape}.")
    if starts is not None and (np.ndim(starts) != 2 or len(starts) != Z.n_columns):
        raise ValueError(f"starts must be of shape ({Z.n_columns}, m), a direction a column, got {np.shape(starts)}.")
    if not (is_number(tol) and tol > 0):
        raise ValueError(f"tol={tol!r} must be a positive number.")
    check_count("max_nodes", max_nodes)


@dataclass(frozen=True, eq=False)
class _Relus:
    """The convex function ``linear·w + sum_i relu(rows_i·w)``; points are rows of W (B, k)."""

    linear: np.ndarray
    rows: np.ndarray

    @classmethod
    def of_rows(cls, rows: np.ndarray) -> Self:
        return cls(np.zeros(rows.shape[1]), rows)

    def values(self, W: np.ndarray) -> np.ndarray:
        return np.maximum(W @ self.rows.T, 0).sum(axis=1) + W @ self.linear

    def values_and_slopes(self, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        products = W @ self.rows.T
        slopes = (products > 0).astype(float) @ self.rows + self.linear
        return np.maximum(products, 0).sum(axis=1) + W @ self.linear, slopes

    def kinks(self, U: np.ndarray, W: np.ndarray) -> np.ndarray:
        """Where to split edges from U to W (B, k), a share of each: at the zero of the row with the largest kink there.

        It is the middle where no row has a large share of the excess.
        """
        if not len(self.rows):
            return np.full(len(U), 0.5)
        ends = U @ self.rows.T, W @ self.rows.T
        before, after = np.abs(ends[0]), np.abs(ends[1])
        bend = np.where(ends[0] * ends[1] < 0, before * after / np.maximum(before + after, _ZERO), 0.0)
        most = np.arange(len(U)), bend.argmax(axis=1)
        share = before[most] / np.maximum(before[most] + after[most], _ZERO)
        stands_out = bend[most] > _STANDS_OUT * bend.sum(axis=1)
        return np.clip(np.where(stands_out, share, 0.5), _INNER, 1 - _INNER)

    def on(self, generators: np.ndarray) -> "_Relus":
        """The same function on the cone of the generators: rows of one sign there are linear or vanish."""
        products = generators @ self.rows.T
        linear, vanish = products.min(axis=0) >= 0, products.max(axis=0) <= 0
        return _Relus(self.linear + self.rows[linear].sum(axis=0), self.rows[~linear & ~vanish])


@dataclass(frozen=True, eq=False)
class _Cones:
    """Neighbouring cones on which the price of one sign, ``convex - concave``, may be too large.

    `generators` (B, k, k) are unit vectors, row t of a cone is u_t; `values` (B, k) are those of the convex part in
    them; `bounds` (B,) are proved. ``weights @ generators``, with weights (B, k), is the unit vector in which the bound
    is attained, or nearly so; a child in which it does not lie has a negative weight. `below` (B,) is the value of the
    concave part in it.
    """

    generators: np.ndarray
    values: np.ndarray
    bounds: np.ndarray
    weights: np.ndarray
    below: np.ndarray
    convex: _Relus
    concave: _Relus

    @classmethod
    def of_orthants(cls, convex: _Relus, concave: _Relus) -> Self:
        k = convex.rows.shape[1]
        upwards = np.array(list(product((0, 1), repeat=k)))
        values = np.stack([convex.values(-np.eye(k)), convex.values(np.eye(k))])[upwards, range(k)]
        generators = (2.0 * upwards - 1)[:, :, None] * np.eye(k)
        nowhere = np.full(len(upwards), np.inf)
        return cls(generators, values, nowhere, np.full(values.shape, -1.0), nowhere, convex, concave)

    def take(self, chosen: np.ndarray) -> Self:
        arrays = (field.name for field in fields(self) if field.name not in ("convex", "concave"))
        return replace(self, **{name: getattr(self, name)[chosen] for name in arrays})

    def part(self, chosen: np.ndarray) -> Self:
        """Some of the cones, with the functions restricted to them."""
        taken = self.take(chosen)
        every = taken.generators.reshape(-1, taken.generators.shape[2])
        return replace(taken, convex=self.convex.on(every), concave=self.concave.on(every))

    def halves(self) -> tuple[Self, Self]:
        """Two groups of neighbours, cut across the longest axis."""
        centres = self.generators.sum(axis=1)
        centres = centres - centres.mean(axis=0)
        order = np.argsort(centres @ np.linalg.eigh(centres.T @ centres)[1][:, -1], kind="stable")
        middle = len(order) // 2
        return self.part(order[:middle]), self.part(order[middle:])

    def worst_edges(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Both ends of the edge to split, and its squared length.

        Of the edges that are not much shorter than the longest (so that no cone degenerates) it is the one in the
        middle of which the convex part is overestimated most, the more so if the maximiser of the bound lies there.
        """
        k = self.generators.shape[2]
        first, second = np.triu_indices(k, min(1, k - 1))
        gram = self.generators @ self.generators.transpose(0, 2, 1)
        length = 2 - 2 * gram[:, first, second]
        cone, edge = np.nonzero(length >= _LONG * length.max(axis=1, keepdims=True))
        s, t = first[edge], second[edge]
        chord = self.values[cone, s] + self.values[cone, t]
        excess = np.maximum(chord - self.convex.values(self.generators[cone, s] + self.generators[cone, t]), 0)
        inside = np.minimum(self.weights[cone, s], self.weights[cone, t])
        score = np.full(length.shape, -np.inf)
        score[cone, edge] = (excess + _ZERO) * (inside + _OFF_MAXIMUM)
        worst = score.argmax(axis=1)
        return first[worst], second[worst], length[np.arange(len(length)), worst]

    def split(self, first: np.ndarray, second: np.ndarray) -> Self:
        """Twice as many cones: a point of the edge in the place of either end."""
        every, n_cones = np.arange(len(self.bounds)), len(self.bounds)
        u, w = self.generators[every, first], self.generators[every, second]
        share = self.convex.kinks(u, w)
        middle = (1 - share)[:, None] * u + share[:, None] * w
        size = np.linalg.norm(middle, axis=1)
        middle /= size[:, None]
        children = self.take(np.tile(every, 2))
        replaced = np.arange(2 * n_cones), np.concatenate([first, second])
        children.generators[replaced] = np.tile(middle, (2, 1))
        children.values[replaced] = np.tile(self.convex.values(middle), 2)
        a, b = self.weights[every, first], self.weights[every, second]
        kept = np.arange(2 * n_cones), np.concatenate([second, first])
        children.weights[replaced] = np.concatenate([a * size / (1 - share), b * size / share])
        children.weights[kept] = np.concatenate([b - a * share / (1 - share), a - b * (1 - share) / share])
        return children

    def bounded(self, target: float, dtype: DTypeLike) -> tuple[Self, np.ndarray]:
        """Lower the bounds, to `target` only where few steps suffice; also directions of large price, one a cone.

        No bound is below the target where the maximiser of the parent's is still above it; there the parent's is kept
        if it is close.
        """
        attained = (self.values * self.weights).sum(axis=1) - self.below
        known = (self.weights >= 0).all(axis=1) & (attained > target) & (self.bounds <= LOOSE * attained)
        unsure = np.flatnonzero(~known)
        generators, values = self.generators[unsure], self.values[unsure]
        with false_flags_ignored(dtype):
            maxima = largest_on_cones(generators, values, self.concave.linear, self.concave.rows, target, dtype)
        bounds, weights, below = self.bounds.copy(), self.weights.copy(), self.below.copy()
        bounds[unsure] = np.minimum(bounds[unsure], maxima.bounds)
        weights[unsure] = maxima.weights
        below[unsure] = (values * maxima.weights).sum(axis=1) - maxima.attained
        points = np.einsum("bt,btk->bk", weights, self.generators)
        return replace(self, bounds=bounds, weights=weights, below=below), points


class _Search:
    """Best first search over groups of cones, scaled so that no price exceeds one."""

    def __init__(
        self,
        plus: _Relus,
        minus: _Relus,
        starts: np.ndarray | None,
        *,
        threshold: float,
        factor: float,
        slack: float,
        stop: Callable[[], bool],
    ) -> None:
        self.plus, self.minus, self.stop, self.stopped = plus, minus, stop, False
        self.threshold, self.factor, self.slack = threshold, factor, slack
        self.best, self.closed, self.nodes = 0.0, 0.0, 0
        self.open: list[tuple[float, int, _Cones]] = []
        self.order = count()
        k = plus.rows.shape[1]
        self.size = max(16, min(1024, _BLOCK_ENTRIES // (k**2 * (len(plus.rows) + len(minus.rows)))))
        self.direction = np.eye(k)[0]
        self.ascend(np.random.default_rng(0).standard_normal((min(256, self.size), k)))
        if starts is not None:
            self.ascend(starts.T)

    @property
    def target(self) -> float:
        return max(self.threshold, self.factor * self.best - self.slack)

    def ended(self) -> bool:
        """Whether the search is to end, which it was told now or before."""
        self.stopped = self.stopped or self.stop()
        return self.stopped

    def bound(self) -> float:
        """Proved by now, apart from rounding."""
        return max(self.best, self.closed, *(-key for key, _, _ in self.open[:1]))

    def ascend(self, W: np.ndarray) -> None:
        """Improve the best direction by steps along the normalized slope of either sign."""
        for _ in range(_ASCENT_STEPS):
            if self.ended():
                return
            size = np.linalg.norm(W, axis=1, keepdims=True)
            W = W[size[:, 0] > 0] / size[size[:, 0] > 0]
            if not len(W):
                return
            (positive, up), (negative, down) = self.plus.values_and_slopes(W), self.minus.values_and_slopes(W)
            prices = positive - negative
            top = np.abs(prices).argmax()
            if abs(prices[top]) > self.best:
                self.best, self.direction = float(abs(prices[top])), W[top]
            slopes = np.sign(prices)[:, None] * (up - down)
            W = W + slopes / np.maximum(np.linalg.norm(slopes, axis=1, keepdims=True), np.finfo(float).tiny)

    def run(self, max_nodes: int) -> bool:
        """Bound cones until all that are left are, or a limit is reached; False if that was before they covered all."""
        for convex, concave in ((self.plus, self.minus), (self.minus, self.plus)):
            roots = _Cones.of_orthants(convex, concave)
            for start in range(0, len(roots.bounds), self.size):
                if self.ended():
                    return False
                self.add(roots.part(np.arange(len(roots.bounds))[start : start + self.size]))
        while self.open and -self.open[0][0] > self.target and not self.ended():
            cones = self.open[0][2]
            if self.nodes + 2 * len(cones.bounds) > max_nodes:
                break
            heappop(self.open)
            cones = self.close(cones, cones.bounds <= self.target)
            first, second, squared_length = cones.worst_edges()
            thin = squared_length <= _ZERO
            self.add(self.close(cones, thin).split(first[~thin], second[~thin]))
        return True

    def close(self, cones: _Cones, done: np.ndarray) -> _Cones:
        """Keep the bounds of the cones that are done and return the others."""
        self.closed = max(self.closed, *cones.bounds[done], 0.0)
        return cones.take(np.flatnonzero(~done))

    def add(self, cones: _Cones) -> None:
        """Bound new cones and store those that are not done."""
        if not len(cones.bounds):
            return
        self.nodes += len(cones.bounds)
        single = self.target - self.best > _SINGLE
        cones, points = cones.bounded(self.target, np.float32 if single else np.float64)
        alive = cones.bounds > self.target
        points = points[alive]
        if len(points):
            prices = cones.convex.values(points) - cones.concave.values(points)
            if prices.max() > self.best:
                self.ascend(points[[prices.argmax()]])
        groups = [self.close(cones, cones.bounds <= self.target)]
        while groups:
            group = groups.pop()
            if len(group.bounds) > self.size:
                groups.extend(group.halves())
            elif len(group.bounds):
                heappush(self.open, (-float(group.bounds.max()), next(self.order), group))
