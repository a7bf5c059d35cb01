"""What every solver returns."""

from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from convexbn._utils.enumeration import Enumeration
from convexbn._utils.summary import Summarized, counted
from convexbn._utils.user_warning import warn_user
from convexbn.model._neurons import Neurons
from convexbn.solvers._certificate import Certificate
from convexbn.solvers._tolerance import Tolerance


class Status(Enumeration):
    """How a solver ended; the value is the sentence shown to the user.

    Examples
    --------
    >>> from convexbn import Status
    >>> Status.CONVERGED.value
    'The gap is within the tolerance.'
    """

    CONVERGED = "The gap is within the tolerance."
    NOT_CONVERGED = "The solver stopped before the gap was within the tolerance."
    MAX_ITER = "The solver reached max_iter before the gap was within the tolerance."
    MAX_TIME = "The solver reached max_time before the gap was within the tolerance."
    INTERRUPTED = "The solver was interrupted; this is the best solution so far."


def status_of(
    certificate: Certificate, tolerance: Tolerance, method: str, ending: Status = Status.NOT_CONVERGED
) -> Status:
    """Return how a method ended, with a ConvergenceWarning if and only if the gap exceeds the tolerance."""
    reached = tolerance.reached_by(certificate)
    if not reached:
        limit = "max_time" if ending is Status.MAX_TIME else "max_iter"
        warn_user(
            f"{method} stopped at a {tolerance.in_words(certificate)}, above tol={tolerance.tol:.1e}. {ending.value} "
            f"Raise {limit}, tol or weight_decay.",
            ConvergenceWarning,
        )
    return Status.CONVERGED if reached and ending is not Status.INTERRUPTED else ending


def with_proof(certificate: Certificate, proof: Certificate, tolerance: Tolerance) -> Certificate:
    """Return a proof in place of a certificate if its gap is within the tolerance, else its bound beside the other."""
    if tolerance.reached_by(proof) or proof.lower_bound >= certificate.lower_bound:
        return proof
    return certificate.with_bound_of(proof)


@dataclass(frozen=True)
class Progress:
    """State of a solver after an iteration.

    Parameters
    ----------
    n_iter : int
        Iterations done.
    time : float
        Seconds since the start.
    objective : float
        Objective of the best network so far.
    gap : float
        Its relative gap, as far as known: nothing is claimed of it before the certificate.
    n_neurons : int
        Neurons of that network.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import Problem, solve_column_generation
    >>> from convexbn.solvers import Progress
    >>> reports = []
    >>> problem = Problem(np.eye(2), [1.0, -2.0], weight_decay=0.1)
    >>> solution = solve_column_generation(problem, callback=reports.append, random_state=0)
    >>> len(reports) == solution.n_iter, isinstance(reports[-1], Progress)
    (True, True)
    """

    n_iter: int
    time: float
    objective: float
    gap: float
    n_neurons: int


@dataclass(frozen=True, eq=False, repr=False)
class Solution(Summarized):
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
    history : tuple of Progress
        One entry an iteration, of the solvers that report them.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import Problem, solve
    >>> solution = solve(Problem(np.eye(2), [1.0, -2.0], weight_decay=0.1))
    >>> solution.status.name, len(solution.neurons), solution.certificate.scope
    ('CONVERGED', 2, 'global')
    """

    neurons: Neurons
    dual: np.ndarray
    certificate: Certificate
    status: Status
    n_iter: int
    history: tuple[Progress, ...] = ()

    def _summary(self) -> str:
        ending = self.status.name.lower().replace("_", " ")
        return f"{counted(len(self.neurons), 'neuron')}, {self.certificate._summary()}, {ending}"
