"""Cone decomposition: a gated ReLU network as a ReLU network with the same predictions on the training data."""

import cvxpy as cp
import numpy as np

from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.solvers.conic._program_solver import solve_program

_ROUNDING = 1e-7  # by which a row may leave its cone, relative to the neurons and the row
_ROWS = 8  # rows a column that enter the program at once


def decompose(problem: Problem, neurons: Neurons) -> Neurons:
    """ReLU network with the same predictions on the training data as a gated ReLU network.

    A gated neuron ``D Z s`` is split as ``s = a - b`` with a and b in the cone ``K = {u : (2D - I) Z u >= 0}`` of its
    gate, where ``relu(Z a) - relu(Z b) = D Z s``. Of all splits the one with least ``|a| + |b|`` is taken, a
    second-order cone program a gate; it costs no less than s, and much more where the cone is thin. Where K has full
    dimension there is a split of every s. The network is not optimal for the ReLU problem; it is a start for a solver,
    and `problem.objective` is its objective.

    Parameters
    ----------
    problem : Problem
        The problem whose design matrix the network was trained on. Pooling and several outputs are allowed.
    neurons : Neurons
        Gated neurons, such as those of `solve_gated`.

    Returns
    -------
    neurons : Neurons
        At most twice as many ReLU neurons. Predictions agree up to about 1e-7 of the cost of the neurons.

    Raises
    ------
    ValueError
        If the neurons have no gates, do not fit the problem, or the weights of some gate are not a difference of two
        vectors of its cone, which then has no interior (or one too thin for the solver); the message names these gates.

    References
    ----------
    .. [1] Mishkin, Sahiner, Pilanci, "Fast Convex Optimization for Two-Layer ReLU Networks", arXiv 2202.01331.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import Problem, decompose, sample_patterns, solve_gated
    >>> rng = np.random.default_rng(0)
    >>> Z = rng.standard_normal((30, 3))
    >>> problem = Problem(Z, Z[:, 0] * (Z[:, 1] >= 0), weight_decay=0.01)
    >>> gated = solve_gated(problem, sample_patterns(Z, 20, random_state=0)).neurons
    >>> relu = decompose(problem, gated)
    >>> bool(np.allclose(relu.outputs(problem.Z), gated.outputs(problem.Z), atol=1e-6))
    True
    """
    gates = neurons.gates
    if gates is None:
        raise ValueError("These neurons have no gates: they are a ReLU network already.")
    Z = problem.Z.rows()
    if len(neurons.weights) != Z.shape[1]:
        raise ValueError(f"neurons have {len(neurons.weights)} weights each, the design matrix {Z.shape[1]} columns.")
    lengths = problem.Z.row_norms
    rows = Z[lengths > 0] / lengths[lengths > 0, None]
    weights, output_weights, outside = [], [], []
    for j in np.flatnonzero(neurons.cost):
        gate, s, c = gates[:, j], neurons.weights[:, j], neurons.output_weights[j]
        sides = np.where((Z @ gate >= 0)[lengths > 0], 1.0, -1.0)[:, None]
        split = _split(sides * rows, s, np.abs(rows @ gate))
        if split is None:
            outside.append(int(j))
        else:
            weights += split
            output_weights += [c, -c]
    if outside:
        raise ValueError(
            f"The cones of {len(outside)} of {len(neurons)} gates do not allow a decomposition, those of the neurons "
            f"{outside}: a cone has no interior, or one too thin for the solver, and the weights are not a difference "
            "of two of its vectors. Train without these gates; those of sample_patterns have an interior in general."
        )
    found = Neurons(
        np.array(weights).reshape(-1, Z.shape[1]).T,
        np.array(output_weights).reshape(-1, neurons.output_weights.shape[1]),
        neurons.intercept,
    )
    return found.without_zeros()


def _split(cone: np.ndarray, s: np.ndarray, distance: np.ndarray) -> list[np.ndarray] | None:
    """Vectors a, b of {u : cone u >= 0} with a - b = s and least |a| + |b|; None if there are none.

    With b = a - s the constraint is ``cone a >= max(cone s, 0)``. Its rows enter as they are violated, first those
    nearest to the gate.
    """
    size = np.linalg.norm(s)
    unit = s / size
    least = np.maximum(cone @ unit, 0)
    for a in (unit, np.zeros_like(unit)):
        if (cone @ a >= least - _ROUNDING).all():
            return [size * a, size * (a - unit)]
    count = _ROWS * len(s)
    chosen = np.argsort(distance, kind="stable")[:count]
    while True:
        variable = cp.Variable(len(s))
        cost = cp.norm(variable) + cp.norm(variable - unit)
        program = cp.Problem(cp.Minimize(cost), [cone[chosen] @ variable >= least[chosen]])
        try:
            solve_program(program)
        except RuntimeError:
            return None
        a = variable.value
        short = least - cone @ a
        violated = np.flatnonzero(short > _ROUNDING * np.linalg.norm(a))
        new = np.setdiff1d(violated, chosen)
        if len(new) == 0:
            return None if len(violated) else [size * a, size * (a - unit)]
        chosen = np.concatenate([chosen, new[np.argsort(-short[new], kind="stable")[:count]]])
