"""Fewer neurons with the same outputs: merging those of equal pattern, and pruning by Caratheodory's theorem.

A pattern is 1[Z s >= 0], as in the papers: a row on the kink of a neuron counts as active, which changes no output.
"""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.linalg import qr, qr_delete, qr_insert, solve_triangular
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.operators import Operator

# With several outputs neurons are merged, if that is no worse, whose output directions agree to so many digits in one
# pattern, or whose directions are so close.
_SAME_OUTPUT, _SAME_DIRECTION = (2, 4, 6), (1e-1, 1e-2, 1e-3)  # falling: where none are close none are closer
_EMPTY = 1e-13  # share of the largest entry of a vertex up to which another one is empty


def merge(problem: Problem, neurons: Neurons) -> Neurons:
    """Add up neurons of equal pattern and output direction, which changes no output and costs no more; drop zeros.

    Of several outputs, neurons of equal pattern whose output directions are close, and neurons that are close, are
    added up if the objective does not rise: at an optimum they are one.

    Parameters
    ----------
    problem : Problem
        Training problem.
    neurons : Neurons
        ReLU neurons with unit output weights.

    Returns
    -------
    neurons : Neurons
        Neurons with no larger objective.
    """
    neurons = neurons.without_zeros()
    neurons = _added_up(neurons, _equal_patterns(problem.Z, neurons, neurons.output_weights))
    for digits in () if problem.output_directions.fixed else _SAME_OUTPUT:
        outputs = np.round(neurons.output_weights, digits) + 0.0
        neurons = _added_up_if_no_worse(problem, neurons, _equal_patterns(problem.Z, neurons, outputs))
    for distance in _SAME_DIRECTION:
        group = _close(neurons, distance)
        if len(np.unique(group)) == len(neurons):
            break
        neurons = _added_up_if_no_worse(problem, neurons, group)
    return neurons


def merge_directions(neurons: Neurons, distance: float = 1e-9) -> Neurons:
    """Add up neurons whose unit weights and unit output weights are no further apart than `distance`.

    The outputs stay the same up to `distance` times the cost of the neurons. Gates are not looked at.
    """
    return _added_up(neurons, _close(neurons, distance))


def prune(neurons: Neurons, Z: Operator) -> Neurons:
    """Fewer neurons with the same outputs on Z at no higher cost.

    Zeros are dropped, and neurons of equal direction or equal activation pattern are added up if their output
    directions are equal too. If more than n*C + 1 neurons are left, Caratheodory's theorem gives as many with the same
    outputs and total cost (compare arXiv 2002.10553 on the number of neurons that suffices). Gated neurons are only
    freed of zeros.

    Parameters
    ----------
    neurons : Neurons
        Neurons on the design matrix.
    Z : DesignMatrix
        Design matrix.

    Returns
    -------
    neurons : Neurons

    Raises
    ------
    ValueError
        If the neurons are no `Neurons`, not finite, or not of Z.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import DesignMatrix, Neurons
    >>> from convexbn.model import prune
    >>> twins = Neurons(np.array([[1.0, 2.0]]), np.array([[1.0], [1.0]]), np.zeros(1))
    >>> prune(twins, DesignMatrix(np.ones((3, 1)))).weights
    array([[3.]])
    """
    if not isinstance(neurons, Neurons):
        raise ValueError(f"neurons={neurons!r} must be Neurons; networks normalized after the ReLU have `prune`.")
    if not neurons.finite:
        raise ValueError("neurons contain NaN or infinity; prune a network that was trained.")
    if len(neurons.weights) != Z.n_columns:
        raise ValueError(f"neurons have {len(neurons.weights)} weights each, and Z has {Z.n_columns} columns.")
    neurons = neurons.without_zeros()
    if neurons.gates is not None or len(neurons) == 0:
        return neurons
    neurons = merge_directions(neurons)
    outputs = np.round(neurons.output_directions, 10) + 0.0
    neurons = _added_up(neurons, _equal_patterns(Z, neurons, outputs)).without_zeros()
    return _vertex(neurons, Z) if len(neurons) > Z.n_samples * len(neurons.intercept) + 1 else neurons


def _added_up(neurons: Neurons, group: np.ndarray) -> Neurons:
    """Add up the neurons of each group (m,), which share an output direction; without zeros among them."""
    first = np.unique(group, return_index=True)[1]
    if len(first) == len(neurons):
        return neurons
    weights = np.zeros((len(first), len(neurons.weights)))
    np.add.at(weights, group, (neurons.weights * np.linalg.norm(neurons.output_weights, axis=1)).T)
    return replace(neurons, weights=weights.T, output_weights=neurons.output_directions[first])


def _added_up_if_no_worse(problem: Problem, neurons: Neurons, group: np.ndarray) -> Neurons:
    """The neurons of each group added up along their mean output direction, unless that raises the objective."""
    means = np.zeros((len(neurons), problem.n_outputs))
    np.add.at(means, group, neurons.cost[:, None] * neurons.output_weights)
    outputs = means[group] / np.linalg.norm(means[group], axis=1)[:, None]
    along = (neurons.output_weights * outputs).sum(axis=1)
    fewer = _added_up(replace(neurons, weights=neurons.weights * along, output_weights=outputs), group)
    better = len(fewer) < len(neurons) and problem.objective(fewer) <= problem.objective(neurons)
    return fewer if better else neurons


def _equal_patterns(Z: Operator, neurons: Neurons, outputs: np.ndarray) -> np.ndarray:
    """Number the neurons of equal pattern and equal row of `outputs`: shape (m,)."""
    patterns = Z.summed(_pattern_numbers, Z.random_numbers, S=neurons.weights).T
    groups: dict[tuple[bytes, bytes], int] = {}
    keys = ((pattern.tobytes(), output.tobytes()) for pattern, output in zip(patterns, outputs, strict=True))
    return np.array([groups.setdefault(key, len(groups)) for key in keys], dtype=int)


def _pattern_numbers(Z: Any, numbers: Any, *, S: Any) -> Any:
    """Sums (r, m) of the numbers (N, r) of rows on which neurons are active, which are equal for equal patterns."""
    return Z.cast(numbers).T @ Z.cast(Z @ S >= 0)


def _close(neurons: Neurons, distance: float) -> np.ndarray:
    """Number the groups (m,) in which unit weights and unit output weights are no further apart."""
    directions = np.hstack([neurons.directions.T, neurons.output_directions])
    pairs = cKDTree(directions).query_pairs(distance, output_type="ndarray")
    if len(pairs) == 0:
        return np.arange(len(neurons))
    edges = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(neurons), len(neurons)))
    return connected_components(edges, directed=False)[1]


def _vertex(neurons: Neurons, Z: Operator) -> Neurons:
    """Keep as few neurons as Caratheodory's theorem allows: a vertex of { a >= 0 : same outputs, same total cost }."""
    cost, hidden = neurons.cost, Z.neuron_outputs(neurons.weights)
    parts = (hidden[:, None, :] * neurons.output_weights.T[None]).reshape(-1, len(neurons)) / cost
    system = np.vstack([parts, np.full(len(neurons), np.abs(parts).max())])
    fewer = caratheodory(system, cost)
    return replace(neurons, weights=neurons.weights * (fewer / cost)).take(fewer > 0)


def caratheodory(system: np.ndarray, point: np.ndarray) -> np.ndarray:
    """From x > 0 to x >= 0 with the same product with `system` and as few positive entries as its rank.

    Columns enter a basis one by one. One that depends on the basis is expressed in it, and mass is moved from it to
    the basis, or, if a basis column would run empty first, in its place.
    """
    point = point.copy()
    order = np.argsort(-point, kind="stable")
    basis = [order[0]]
    Q, R = qr(system[:, basis], mode="economic")
    with suppress(np.linalg.LinAlgError):  # rounding may make the basis dependent: what is left stays as it is
        for entering in order[1:]:
            column = system[:, entering]
            inner = Q.T @ column
            if np.linalg.norm(column - Q @ inner) > 1e-9 * np.linalg.norm(column) and len(basis) < len(system):
                Q, R = qr_insert(Q, R, column, len(basis), which="col")
                basis.append(entering)
                continue
            moves = solve_triangular(R, inner)
            # Of the columns that run empty first, or almost, the one that moves most leaves: so the basis stays
            # independent.
            longest = np.divide(-point[basis], moves, where=moves < 0, out=np.full_like(moves, np.inf))
            slack = np.divide(-_EMPTY * point.max(), moves, where=moves < 0, out=np.full_like(moves, np.inf))
            first = np.flatnonzero(longest <= (longest + slack).min())
            leaving = int(first[np.abs(moves[first]).argmax()]) if len(first) else int(longest.argmin())
            step = min(longest[leaving], point[entering])
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
