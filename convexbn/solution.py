"""What every solver returns."""

import warnings
from dataclasses import dataclass
from enum import Enum

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from convexbn.certificate import Certificate
from convexbn.neurons import Neurons


class Status(Enum):
    """How a solver ended; the value is the sentence shown to the user."""

    CONVERGED = "The gap is within the tolerance."
    NOT_CONVERGED = "The solver stopped before the gap was within the tolerance."


def status_of(certificate: Certificate, tol: float, method: str) -> Status:
    """Return how a method ended, with a ConvergenceWarning if the gap exceeds the tolerance."""
    if certificate.gap <= tol:
        return Status.CONVERGED
    warnings.warn(
        f"{method} stopped at a relative gap of {certificate.gap:.1e}, above tol={tol:.1e}; raise max_iter, tol or "
        "weight_decay.",
        ConvergenceWarning,
        stacklevel=3,
    )
    return Status.NOT_CONVERGED


@dataclass(frozen=True, eq=False)
class Solution:
    """A network on the design matrix, the dual point that certifies it, and how the solver ended.

    Parameters
    ----------
    neurons : Neurons
        The network.
    dual : ndarray of shape (n, C)
        Dual point v.
    certificate : Certificate
        Objective, lower bound, and what the bound covers.
    status : Status
        How the solver ended.
    n_iter : int
        Iterations of the solver; 0 for a closed form.
    """

    neurons: Neurons
    dual: np.ndarray
    certificate: Certificate
    status: Status
    n_iter: int
