"""Certificates of optimality: a lower bound from a feasible dual point, and what it is a bound of."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.oracles import Price, Scope, price_bound

_ROUNDING = 1e-12  # relative gap of objective and bound that rounding alone may leave
_GATED_REACH = "No weights of the gated network with these gates have an objective below the lower bound (proved)."
_REACH = {
    "global": "No network of this architecture, of any width, has an objective below the lower bound (proved).",
    "patterns": "The lower bound is proved for networks on the patterns that were used; others may do better.",
    "local": "The lower bound rests on a search that may have missed a better neuron: evidence, not a proof.",
}


@dataclass(frozen=True)
class Certificate:
    """How good a network is: its objective, a lower bound, and what the bound covers.

    Parameters
    ----------
    objective : float
        Objective of the network.
    lower_bound : float
        No network in `scope` has a lower objective.
    scope : {"global", "patterns", "local"}
        "global": all networks of the architecture. "patterns": those on a named set of activation patterns, or with
        the gates of a gated network. "local": a search found nothing better, which proves nothing.
    global_lower_bound : float or None
        Best lower bound over all networks that is proved; equals `lower_bound` if the scope is global. None for a gated
        network, which its gates define: the bound over its patterns already covers all of its weights.
    basis : str
        What the lower bound rests on, in words.

    Attributes
    ----------
    gap : float
        ``(objective - lower_bound) / objective``.

    Examples
    --------
    >>> from convexbn import Certificate
    >>> print(Certificate(2.0, 1.9, "patterns", 1.0, "50 sampled activation patterns"))
    objective 2, lower bound 1.9: relative gap 5.00e-02, scope "patterns"
    Basis: 50 sampled activation patterns.
    The lower bound is proved for networks on the patterns that were used; others may do better.
    Over all networks the proved lower bound is 1 (relative gap 5.00e-01).
    """

    objective: float
    lower_bound: float
    scope: Scope
    global_lower_bound: float | None
    basis: str

    @property
    def gap(self) -> float:
        """Relative gap of objective and lower bound."""
        return self._relative(self.lower_bound)

    def _relative(self, bound: float) -> float:
        return relative_gap(self.objective, bound)

    def __str__(self) -> str:
        bound = self.global_lower_bound
        reach = _REACH[self.scope] if bound is not None else _GATED_REACH
        lines = [
            f"objective {self.objective:.8g}, lower bound {self.lower_bound:.8g}: "
            f'relative gap {self.gap:.2e}, scope "{self.scope}"',
            f"Basis: {self.basis}.",
            reach,
        ]
        if bound is not None and self.scope != "global":
            lines.append(
                f"Over all networks the proved lower bound is {bound:.8g} (relative gap {self._relative(bound):.2e})."
            )
        return "\n".join(lines)


def certify(
    problem: Problem, neurons: Neurons, v: np.ndarray, price: Callable[[np.ndarray], Price], basis: str
) -> Certificate:
    """Certificate of a network from a dual point near the optimal one.

    The dual point is moved into the domain of the conjugate, then scaled by ``min(1, weight_decay / M)`` with M its
    largest price; its dual objective is the lower bound (weak duality, arXiv 2103.01499). Every loss is at
    least zero, and so is every lower bound. If `price_bound`, which covers all networks, proves no less than `price`,
    the scope is global.

    Parameters
    ----------
    problem : Problem
        The training problem.
    neurons : Neurons
        The network.
    v : ndarray of shape (n, C)
        Dual point.
    price : callable
        Largest price of a dual point, with its scope.
    basis : str
        What the price covers, in words.

    Returns
    -------
    certificate : Certificate

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import certify
    >>> from convexbn.oracles import price_bound
    >>> from convexbn import Problem
    >>> problem = Problem(np.eye(3), [1.0, -2.0, 3.0], weight_decay=2.0)
    >>> certify(problem, problem.zero_network, problem.zero_dual, lambda v: price_bound(problem.Z, v), "a bound").gap
    0.0
    """
    objective = problem.objective(neurons)
    v = problem.feasible_dual(v)
    priced = price(v)
    lower_bound = min(dual_bound(problem, v, priced), objective)
    scope, global_lower_bound = priced.scope, None
    if neurons.gates is None:
        bounds = (
            dual_bound(problem, u, price_bound(problem.Z, u, problem.sample_weight)) for u in (v, problem.zero_dual)
        )
        global_lower_bound = lower_bound if scope == "global" else min(max(bounds), objective)
        if global_lower_bound >= lower_bound:
            scope, lower_bound = "global", global_lower_bound
    if len(neurons) == 0 and scope == "global" and objective - lower_bound <= _ROUNDING * objective:
        basis = f"{basis}; weight_decay is at or above weight_decay_max, where the zero network is optimal"
    return Certificate(objective, lower_bound, scope, global_lower_bound, basis)


def relative_gap(objective: float, bound: float) -> float:
    """Distance of an objective from a lower bound, relative to the objective; zero where rounding turned them round."""
    return (objective - bound) / objective if objective > bound else 0.0


def dual_bound(problem: Problem, v: np.ndarray, price: Price) -> float:
    """Dual objective of a feasible dual point v (n, C), scaled so that no direction prices above weight_decay."""
    scale = 1.0 if price.value <= problem.weight_decay else problem.weight_decay / price.value
    return max(0.0, problem.dual_objective(scale * v))  # in this order, since -0.0 is not larger than 0.0
