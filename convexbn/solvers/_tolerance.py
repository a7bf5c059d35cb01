"""When the gap of objective and lower bound is small enough for a solver to stop."""

from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from convexbn._utils.checks import check_choice, is_number
from convexbn._utils.user_warning import warn_user
from convexbn.model._problem import Problem, check_problem
from convexbn.solvers._certificate import Certificate, relative_gap

Reference = Literal["objective", "zero_network"]
ZERO_NETWORKS = "of the zero network's objective"


@dataclass(frozen=True)
class Tolerance:
    """The largest gap of objective and lower bound at which a solver stops.

    Parameters
    ----------
    tol : float
        The largest gap, as a multiple of `scale`.
    scale : float or None, default=None
        Objective that the gap is measured against; None is that of the network itself. Where it is zero the zero
        network fits perfectly, and any gap is rounding.

    Examples
    --------
    >>> from convexbn.solvers._tolerance import Tolerance
    >>> Tolerance(1e-2).reached(1.0, 0.98), Tolerance(1e-2, scale=5.0).reached(1.0, 0.98)
    (False, True)
    """

    tol: float
    scale: float | None = None

    @classmethod
    def of(cls, problem: Problem, tol: float, relative_to: Reference = "objective") -> Self:
        """Tolerance of a problem.

        Parameters
        ----------
        problem : Problem
            Training problem.
        tol : float
            The largest gap.
        relative_to : {"objective", "zero_network"}, default="objective"
            What the gap is measured against: the objective of the network, or that of the network without neurons.

        Raises
        ------
        ValueError
            If `problem` is none, `tol` is not a positive number, or `relative_to` is unknown.
        """
        check_problem(problem)
        check_tol(tol)
        check_choice("relative_to", relative_to, get_args(Reference))
        return cls(float(tol), problem.zero_objective if relative_to == "zero_network" else None)

    def gap(self, objective: float, lower_bound: float) -> float:
        """The gap in the terms of `tol`."""
        if self.scale is None:
            return relative_gap(objective, lower_bound)
        return max(objective - lower_bound, 0.0) / self.scale if self.scale > 0 else 0.0

    def reached(self, objective: float, lower_bound: float) -> bool:
        """Whether the gap is small enough."""
        return self.gap(objective, lower_bound) <= self.tol

    def reached_by(self, certificate: Certificate) -> bool:
        """Whether the gap of a certificate is small enough."""
        return self.reached(certificate.objective, certificate.lower_bound)

    def relative(self, objective: float) -> float:
        """The largest gap relative to an objective; infinite where any gap is small enough."""
        if self.scale is None:
            return self.tol
        return self.tol * self.scale / objective if self.scale > 0 and objective > 0 else np.inf

    def in_words(self, certificate: Certificate) -> str:
        """The gap of a certificate in the terms of `tol`."""
        gap = self.gap(certificate.objective, certificate.lower_bound)
        return f"relative gap of {gap:.1e}" if self.scale is None else f"gap of {gap:.1e} {ZERO_NETWORKS}"


def warn_of_gaps(gaps: np.ndarray, tol: float, relative_to: Reference) -> None:
    """Warn once, with a ConvergenceWarning, if gaps of problems along a path exceed the tolerance."""
    missed = gaps[gaps > tol]
    if missed.size:
        of_zero = f" {ZERO_NETWORKS}" if relative_to == "zero_network" else ""
        warn_user(
            f"{missed.size} of {gaps.size} problems along the path stopped at a gap above tol={tol:.1e}{of_zero}; the "
            f"largest is {missed.max():.1e}. Raise max_iter, max_time, tol or the smallest weight decay.",
            ConvergenceWarning,
        )


def check_tol(tol: object) -> None:
    """Raise a ValueError unless `tol` is a positive finite number."""
    if not (is_number(tol) and 0 < tol < np.inf):  # type: ignore[operator]
        raise ValueError(f"tol={tol!r} must be a positive number.")
