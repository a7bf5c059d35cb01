"""The hidden and output weights of a two-layer network on a design matrix."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from scipy.linalg import qr, qr_delete, qr_insert, solve_triangular
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from convexbn._utils.summary import Summarized, counted
from convexbn.operators._dense import DesignMatrix

_EMPTY = 1e-13  # share of the largest entry of a vertex up to which another one is empty


@dataclass(frozen=True, eq=False, repr=False)
class Neurons(Summarized):
    """Neurons (s_j, c_j) on a design matrix: f = sum_j relu(Z s_j) c_j^T + intercept.

    With `gates` the network is gated: f = sum_j 1[Z g_j >= 0] * (Z s_j) c_j^T + intercept.

    Parameters
    ----------
    weights : ndarray of shape (k, m)
        Hidden weights, column j is s_j.
    output_weights : ndarray of shape (m, C)
        Output weights, row j is c_j.
    intercept : ndarray of shape (C,)
        Output intercept, which is not penalised; zero if none is fitted.
    gates : ndarray of shape (k, m) or None, default=None
        Gate directions g_j of a gated ReLU network.

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import Neurons
    >>> twins = Neurons(np.array([[1.0, 2.0]]), np.array([[1.0], [1.0]]), np.zeros(1))
    >>> twins.cost
    array([1., 2.])
    """

    weights: np.ndarray
    output_weights: np.ndarray
    intercept: np.ndarray
    gates: np.ndarray | None = None

    def __post_init__(self) -> None:
        fits = (
            self.weights.ndim == self.output_weights.ndim == 2
            and self.weights.shape[1] == len(self.output_weights)
            and self.intercept.shape == self.output_weights.shape[1:]
            and (self.gates is None or self.gates.shape == self.weights.shape)
        )
        if not fits:
            raise ValueError(
                "Neurons take weights (k, m), output_weights (m, C), intercept (C,) and gates (k, m) or None; got "
                f"{self.weights.shape}, {self.output_weights.shape}, {self.intercept.shape}"
                + ("." if self.gates is None else f", {self.gates.shape}.")
            )

    def __len__(self) -> int:
        return self.weights.shape[1]

    def _summary(self) -> str:
        columns, outputs = counted(len(self.weights), "column"), counted(len(self.intercept), "output")
        return f"{columns}, {counted(len(self), 'neuron' if self.gates is None else 'gated neuron')}, {outputs}"

    @cached_property
    def cost(self) -> np.ndarray:
        """|s_j| |c_j| of each neuron, shape (m,): what weight decay penalises."""
        return np.linalg.norm(self.weights, axis=0) * np.linalg.norm(self.output_weights, axis=1)

    def outputs(self, Z: DesignMatrix) -> np.ndarray:
        """Predictions f on the samples of a design matrix, shape (n, C)."""
        hidden = Z.neuron_outputs(self.weights) if self.gates is None else Z.gated_outputs(self.gates, self.weights)
        return hidden @ self.output_weights + self.intercept

    def balanced(self) -> Self:
        """Return the same network with |s_j| = |c_j|, at which the two-layer penalty is least."""
        hidden, output = np.linalg.norm(self.weights, axis=0), np.linalg.norm(self.output_weights, axis=1)
        alive = self.cost > 0  # the others add nothing, and are least at zero
        ratio = np.sqrt(np.divide(output, hidden, where=alive, out=np.zeros_like(output)))
        inverse = np.divide(1, ratio, where=alive, out=np.zeros_like(ratio))
        return replace(self, weights=self.weights * ratio, output_weights=self.output_weights * inverse[:, None])

    def with_unit_outputs(self) -> Self:
        """Return the same network with |c_j| = 1, without zeros."""
        neurons = self.without_zeros()
        sizes = np.linalg.norm(neurons.output_weights, axis=1)
        return replace(neurons, weights=neurons.weights * sizes, output_weights=neurons._output_directions)

    def without_zeros(self, rtol: float = 0.0) -> Self:
        """Drop neurons that cost nothing, or no more than `rtol` times the most expensive one."""
        return self._take(self.cost > rtol * self.cost.max(initial=0))

    def pruned(self, Z: DesignMatrix) -> Self:
        """Fewest neurons this package knows how to reach with the same outputs on Z at no higher cost.

        Zeros are dropped, and neurons of equal direction or equal activation pattern are added up if their output
        directions are equal too. If more than n*C + 1 neurons are left, Caratheodory's theorem gives as many with the
        same outputs and total cost (compare arXiv 2002.10553 on the number of neurons that suffices). Gated neurons are
        only freed of zeros.
        """
        neurons = self.without_zeros()
        if self.gates is not None or len(neurons) == 0:
            return neurons
        neurons = neurons.merged_directions()
        patterns = np.packbits(Z.Z @ neurons.weights >= 0, axis=0)
        neurons = neurons.added_up(_equal_rows(np.hstack([patterns.T, np.round(neurons._output_directions, 10)])))
        neurons = neurons.without_zeros()
        if len(neurons) > Z.n_samples * len(self.intercept) + 1:
            neurons = neurons._reduced(Z)
        return neurons

    def _take(self, keep: np.ndarray) -> Self:
        gates = None if self.gates is None else self.gates[:, keep]
        return replace(self, weights=self.weights[:, keep], output_weights=self.output_weights[keep], gates=gates)

    def merged_directions(self, distance: float = 1e-9) -> Self:
        """Add up neurons whose unit weights and unit output weights are no further apart than `distance`.

        The outputs stay the same up to `distance` times the cost of the neurons. Gates are not looked at.
        """
        return self.added_up(self.close_directions(distance))

    def close_directions(self, distance: float) -> np.ndarray:
        """Number the groups (m,) in which unit weights and unit output weights are no further apart."""
        directions = np.hstack([(self.weights / np.linalg.norm(self.weights, axis=0)).T, self._output_directions])
        pairs = cKDTree(directions).query_pairs(distance, output_type="ndarray")
        edges = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(self), len(self)))
        return connected_components(edges, directed=False)[1]

    @property
    def _output_directions(self) -> np.ndarray:
        return self.output_weights / np.linalg.norm(self.output_weights, axis=1)[:, None]

    def added_up(self, group: np.ndarray) -> Self:
        """Add up the neurons of each group (m,), which share an output direction; without zeros among them."""
        first = np.unique(group, return_index=True)[1]
        weights = np.zeros((len(first), len(self.weights)))
        np.add.at(weights, group, (self.weights * np.linalg.norm(self.output_weights, axis=1)).T)
        return replace(self, weights=weights.T, output_weights=self._output_directions[first])

    def _reduced(self, Z: DesignMatrix) -> Self:
        """Keep as few neurons as Caratheodory's theorem allows: a vertex of { a >= 0 : same outputs, same total }."""
        cost = self.cost
        hidden = Z.neuron_outputs(self.weights)
        parts = (hidden[:, None, :] * self.output_weights.T[None]).reshape(-1, len(self)) / cost
        system = np.vstack([parts, np.full(len(self), np.abs(parts).max())])
        new_cost = vertex(system, cost)
        scaled = replace(self, weights=self.weights * (new_cost / cost))
        return scaled._take(new_cost > 0)


def vertex(system: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Caratheodory: from x > 0 to x >= 0 with the same product with `system` and as few entries > 0 as its rank.

    Columns enter a basis one by one. One that depends on the basis is expressed in it, and mass is moved from it to
    the basis, or, if a basis column would run empty first, in its place.
    """
    point = point.copy()
    order = np.argsort(-point, kind="stable")
    basis = [order[0]]
    Q, R = qr(system[:, basis], mode="economic")
    for entering in order[1:]:
        column = system[:, entering]
        inner = Q.T @ column
        if np.linalg.norm(column - Q @ inner) > 1e-9 * np.linalg.norm(column) and len(basis) < len(system):
            Q, R = qr_insert(Q, R, column, len(basis), which="col")
            basis.append(entering)
            continue
        try:
            moves = solve_triangular(R, inner)
        except np.linalg.LinAlgError:  # rounding has made the basis dependent: what is left stays as it is
            break
        # Of the columns that run empty first, or almost, the one that moves most leaves: the basis stays independent.
        room = np.divide(-point[basis], moves, where=moves < 0, out=np.full_like(moves, np.inf))
        slack = np.divide(-_EMPTY * point.max(), moves, where=moves < 0, out=np.full_like(moves, np.inf))
        first = np.flatnonzero(room <= (room + slack).min())
        leaving = int(first[np.abs(moves[first]).argmax()]) if len(first) else int(room.argmin())
        step = min(room[leaving], point[entering])
        point[basis] = np.maximum(point[basis] + step * moves, 0)
        if step == point[entering]:
            point[entering] = 0
            continue
        point[entering] -= step
        point[basis[leaving]] = 0
        del basis[leaving]
        Q, R = qr_delete(Q, R, leaving, which="col")
        Q, R = qr_insert(Q, R, column, len(basis), which="col")
        basis.append(entering)
    return point


def _equal_rows(rows: np.ndarray) -> np.ndarray:
    """Number the distinct rows; for each row its number."""
    return np.unique(rows, axis=0, return_inverse=True)[1].ravel()
