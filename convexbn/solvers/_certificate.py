"""Certificates of optimality: a lower bound from a feasible dual point, and the networks that it bounds."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from convexbn._utils.checks import check_kind
from convexbn._utils.enumeration import Enumeration
from convexbn._utils.html import Tabulated, bar
from convexbn.model._base_neurons import BaseNeurons
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem, check_problem
from convexbn.oracles import Price, Scope, price_size, price_without_search

_ROUNDING = 1e-12  # relative gap of objective and bound that rounding alone may leave
_FEW_OPERATIONS = 64  # that make a term of a sum, about
_GATED_REACH = "No weights of the gated network with these gates have an objective below the lower bound (proved)."
_REACH = {
    "global": "No network of this architecture, of any width, has an objective below the lower bound (proved).",
    "patterns": "The lower bound is proved for networks on the patterns that were used; others may do better.",
    "local": "The lower bound rests on a search that may have missed a better neuron: evidence, not a proof.",
}


class Search(Enumeration):
    """The search for neurons to add, and its outcome; the value is the phrase of the basis.

    Examples
    --------
    >>> from convexbn.solvers import Search
    >>> Search.CLOSED_FORM.value
    'closed form for data of full row rank'
    """

    DUAL_POINT = "a dual point"
    ZERO_NETWORK = "weight_decay is at or above weight_decay_max, where the zero network is optimal"
    CLOSED_FORM = "closed form for data of full row rank"
    CLASSES = "column generation on one sample a class, for whitened data of full row rank"
    ASCENT = "column generation, which found no neuron worth adding by ascent from many starts"
    UNFINISHED = "column generation, which ended while ascent from many starts still found neurons worth adding"
    NOT_SEARCHED = "column generation, which ended before a thorough search for neurons worth adding"
    PATTERNS = "the convex program of {n_patterns} activation patterns"
    GATES = "the {n_patterns} gates of the network"


class Oracle(Enumeration):
    """What proved that no direction prices higher; the value is the phrase of the basis.

    Examples
    --------
    >>> from convexbn.solvers import Oracle
    >>> Oracle.BRANCH_AND_BOUND.value
    'branch and bound over all directions'
    """

    GIVEN = "the largest price that was given"
    NORM_BOUND = "a bound on all prices from norms"
    BRANCH_AND_BOUND = "branch and bound over all directions"
    ENUMERATION = "enumeration of the cones of all activation patterns"
    CLASS_CONE = "enumeration of the faces of the cone of one sample a class"


@dataclass(frozen=True)
class Setting:
    """The training problem of an objective, where it is not all of the data with plain weight decay.

    Parameters
    ----------
    spectral_power : float, default=0.0
        Power of the penalty of `BatchNormDesign`; 0 is plain weight decay.
    standardized : bool, default=False
        Whether singular directions are those of columns divided by their standard deviations.
    feature_metric : bool, default=False
        Whether the penalty measures weights by a feature metric.
    n_directions : int or None, default=None
        Singular directions to which X was truncated; None if none was left out.
    variance_left_out : float, default=0.0
        Share of the variance of X along the others.
    bias_unit : float, default=1.0
        Unit of the biases of weight normalization, on which the weight decay acts.
    scaled_outputs : bool, default=False
        Whether each output was divided by its standard deviation.
    last_layers : bool, default=False
        Whether only the last two layers of a deep network were trained, on features that are fixed.

    Examples
    --------
    >>> from convexbn.solvers import Setting
    >>> Setting(spectral_power=1.0).clauses
    ['with the penalty of spectral_power=1, not plain weight decay']
    """

    spectral_power: float = 0.0
    standardized: bool = False
    feature_metric: bool = False
    n_directions: int | None = None
    variance_left_out: float = 0.0
    bias_unit: float = 1.0
    scaled_outputs: bool = False
    last_layers: bool = False

    @property
    def clauses(self) -> list[str]:
        """What the basis of a certificate says of it, in the order of the fields."""
        of_columns = " of the standardized columns" if self.standardized else ""
        clauses = []
        if self.n_directions is not None:
            clauses.append(
                f"for X truncated to {self.n_directions} of the singular directions{of_columns}, without "
                f"{self.variance_left_out:.1e} of its variance"
            )
        penalties = [f"of spectral_power={self.spectral_power:g}{of_columns}"] if self.spectral_power else []
        penalties += ["of a feature metric"] if self.feature_metric else []
        if penalties:
            clauses.append(f"with the penalty {' and '.join(penalties)}, not plain weight decay")
        if self.bias_unit != 1:
            clauses.append(f"with biases in units of {self.bias_unit:.1e}, as X is small")
        if self.scaled_outputs:
            clauses.append("for each output in units of its standard deviation")
        if self.last_layers:
            clauses.append("of the last two layers alone, the features before them being fixed")
        return clauses


@dataclass(frozen=True, repr=False)
class Certificate(Tabulated):
    """How good a network is: its objective, a lower bound, and what the bound covers and rests on.

    Parameters
    ----------
    objective : float
        Objective of the network.
    lower_bound : float
        No network in `scope` has a lower objective; of a proved bound rounding is taken off.
    scope : {"global", "patterns", "local"}
        "global": all networks of the architecture. "patterns": those on a named set of activation patterns, or with
        the gates of a gated network. "local": a search found nothing better, which proves nothing.
    global_lower_bound : float or None
        Best lower bound over all networks that is proved; equals `lower_bound` if the scope is global. None for a gated
        network, which its gates define: the bound over its patterns already covers all of its weights.
    search : Search, default=Search.DUAL_POINT
        The search for neurons to add, and its outcome.
    oracle : Oracle or None, default=None
        What proved `global_lower_bound`; None for a gated network.
    n_patterns : int or None, default=None
        Activation patterns or gates that were searched, where they are a fixed set.
    setting : Setting, default=Setting()
        The training problem of the objective.

    Attributes
    ----------
    gap : float
        ``(objective - lower_bound) / objective``.
    basis : str
        What the lower bound rests on: `search`, `oracle` if it proved the bound, and `setting`, in words.

    Examples
    --------
    >>> from convexbn import Certificate
    >>> from convexbn.solvers import Oracle, Search
    >>> print(Certificate(2.0, 1.9, "patterns", 1.0, Search.PATTERNS, Oracle.NORM_BOUND, n_patterns=50))
    objective 2, lower bound 1.9: relative gap 5.00e-02, scope "patterns"
    Basis: the convex program of 50 activation patterns.
    The lower bound is proved for networks on the patterns that were used; others may do better.
    Over all networks the proved lower bound is 1 (relative gap 5.00e-01), by a bound on all prices from norms.
    """

    objective: float
    lower_bound: float
    scope: Scope
    global_lower_bound: float | None
    search: Search = Search.DUAL_POINT
    oracle: Oracle | None = None
    n_patterns: int | None = None
    setting: Setting = Setting()

    @property
    def gap(self) -> float:
        """Relative gap of objective and lower bound."""
        return relative_gap(self.objective, self.lower_bound)

    @property
    def basis(self) -> str:
        """What the lower bound rests on, in words."""
        clauses = [self.search.value.format(n_patterns=self.n_patterns)]
        if self.scope == "global" and self.oracle is not None:
            clauses.append(f"proved by {self.oracle.value}")
        return "; ".join(clauses + self.setting.clauses)

    def with_bound_of(self, other: Self) -> Self:
        """The same certificate, with the global lower bound of another of the same problem if that is higher."""
        if (other.global_lower_bound or 0.0) <= (self.global_lower_bound or 0.0):
            return self
        return replace(self, global_lower_bound=other.global_lower_bound, oracle=other.oracle)

    def _summary(self) -> str:
        return f"objective {self.objective:.8g}, relative gap {self.gap:.2e}, scope {self.scope}"

    def _rows(self) -> dict[str, object]:
        rows: dict[str, object] = {"objective": self.objective, f"lower bound ({self.scope})": self.lower_bound}
        rows |= {"relative gap": f"{self.gap:.2e}", "basis": self.basis}
        if self.global_lower_bound is not None and self.scope != "global":
            rows["lower bound (global)"] = self.global_lower_bound
        return rows

    def _picture(self) -> tuple[str, str]:
        bounds = [self.lower_bound, self.lower_bound if self.global_lower_bound is None else self.global_lower_bound]
        shares = [1 - relative_gap(self.objective, bound) for bound in bounds]
        name = f"lower bounds of {shares[0]:.4g} and {shares[1]:.4g} of the objective"
        return "bounds beside the objective", bar(shares, name)

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
            by = "" if self.oracle is None else f", by {self.oracle.value}"
            gap = relative_gap(self.objective, bound)
            lines.append(f"Over all networks the proved lower bound is {bound:.8g} (relative gap {gap:.2e}){by}.")
        return "\n".join(lines)


def certify(
    problem: Problem,
    neurons: BaseNeurons,
    v: np.ndarray,
    price: Callable[[np.ndarray], Price],
    search: Search = Search.DUAL_POINT,
    oracle: Oracle = Oracle.GIVEN,
    n_patterns: int | None = None,
) -> Certificate:
    """Certificate of a network from a dual point near the optimal one.

    The dual point is moved into the domain of the conjugate, then scaled by ``min(1, weight_decay / M)`` with M its
    largest price; its dual objective, less what rounding may have added to it, is the lower bound (weak duality, arXiv
    2103.01499). Every loss is at least zero, and so is every lower bound. If the bound without a search, which covers
    all networks, proves no less, the scope is global.

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
    search : Search, default=Search.DUAL_POINT
        The search for neurons to add, and its outcome.
    oracle : Oracle, default=Oracle.GIVEN
        What proves `price`, where its scope is global.
    n_patterns : int or None, default=None
        Activation patterns or gates that `price` covers, where they are a fixed set.

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
    >>> certify(problem, problem.zero_network, problem.zero_dual, lambda v: price_bound(problem.Z, v)).gap < 1e-12
    True
    """
    check_problem(problem)
    check_kind("neurons", neurons, BaseNeurons, "the Neurons of a network")
    if not callable(price):
        raise ValueError(f"price={price!r} must be a function of a dual point, as lambda v: price_bound(Z, v) is.")
    if not isinstance(neurons, type(problem.zero_network)):
        raise ValueError(f"neurons={neurons!r} are not of problem={problem!r}, whose normalization is another.")
    objective = problem.objective(neurons)
    v = problem.feasible_dual(v)
    priced = price(v)
    lower_bound = min(dual_bound(problem, v, priced), objective)
    scope = priced.scope
    if isinstance(neurons, Neurons) and neurons.gates is not None:
        return Certificate(objective, lower_bound, scope, None, search, None, n_patterns)
    global_lower_bound = lower_bound
    if scope != "global":
        bounds = (dual_bound(problem, u, price_without_search(problem, u)) for u in (v, problem.zero_dual))
        global_lower_bound, oracle = min(max(bounds), objective), Oracle.NORM_BOUND
        if global_lower_bound >= lower_bound:
            scope, lower_bound = "global", global_lower_bound
    if len(neurons) == 0 and scope == "global" and objective - lower_bound <= _ROUNDING * objective:
        search = Search.ZERO_NETWORK
    return Certificate(objective, lower_bound, scope, global_lower_bound, search, oracle, n_patterns)


def relative_gap(objective: float, bound: float) -> float:
    """Distance of an objective from a lower bound, relative to the objective; zero where rounding makes it negative."""
    return (objective - bound) / objective if objective > bound else 0.0


def dual_bound(problem: Problem, v: np.ndarray, price: Price) -> float:
    """Lower bound from a feasible dual point v (n, C), scaled so that no direction prices above weight_decay.

    Unless the price is that of a local search, which proves nothing anyway, the bound is proved: rounding of the price
    and of the dual objective is taken off it, so that the bound in exact arithmetic is no lower.
    """
    units = 0.0 if price.scope == "local" else _units_of_rounding(problem, v)
    largest = price.value + (units * price_size(problem, v) if units else 0.0)
    scale = 1.0 if largest <= problem.weight_decay else problem.weight_decay / largest
    # In this order, as max(-0.0, 0.0) is -0.0.
    return max(0.0, problem.dual_objective(scale * v) - (units * problem.dual_size(scale * v) if units else 0.0))


def _units_of_rounding(problem: Problem, v: np.ndarray) -> float:
    """What rounding may change sums of n terms by, relative to the sum of their sizes.

    Sums are made in blocks, whose errors grow no faster than the square root of n. Under an intercept the columns of v
    add up to zero in exact arithmetic only after entries of one sign were moved by what they miss of it.
    """
    units = (_FEW_OPERATIONS + float(np.sqrt(problem.Z.n_rows))) * float(np.finfo(float).eps)
    if not problem.fit_intercept:
        return units
    size = np.abs(v).sum(axis=0)
    return units + _FEW_OPERATIONS * float(np.max(np.abs(v.sum(axis=0)) / np.where(size > 0, size, 1.0)))
