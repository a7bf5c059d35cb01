"""Whitened data of full row rank and few distinct targets: the problem of one sample for each of them.

With the notation of `closed_form`, a neuron on such data can have any output a >= 0, at the cost ``|a|_P / sqrt(c)``.
Replacing a by its mean over the samples of a class, that is of one target, makes this cost no larger; nor the loss,
which is convex. So the problem is that of one sample a class, whose weight is that of the class, on the design matrix
``sqrt(c) diag(weight)^-1/2``. Its prices are those of the cone of non-negative weights, exact by enumeration of its
faces.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from convexbn.model._neurons import Neurons
from convexbn.model._post_activation import PostActivationProblem
from convexbn.model._problem import Problem
from convexbn.operators._dense import DesignMatrix
from convexbn.oracles import Price, flats_of_rows, largest_on_cone
from convexbn.solvers._certificate import Oracle, Search, certify
from convexbn.solvers._closed_form import row_rank_obstacle, row_scale
from convexbn.solvers._solution import Solution, Status, status_of
from convexbn.solvers._tolerance import Reference, Tolerance
from convexbn.solvers.relu._column_generation import solve_column_generation

_MAX_CLASSES = 12


@dataclass(frozen=True, eq=False)
class Classes:
    """The problem with one sample for each distinct target, and its neurons as neurons of all samples.

    Parameters
    ----------
    whole : Problem
        The problem of all samples, at full row rank.
    of_sample : ndarray of shape (n,)
        Class of each sample.
    problem : Problem
        That of one sample for each of the K classes, on a diagonal matrix.
    """

    whole: Problem
    of_sample: np.ndarray
    problem: Problem

    @classmethod
    def of(cls, problem: Problem) -> "Classes | None":
        """Classes of a problem; None unless they are fewer than its samples, and few enough."""
        if isinstance(problem, PostActivationProblem):  # which has a closed form then
            return None
        targets, of_sample = np.unique(problem.y, axis=0, return_inverse=True)
        of_sample = of_sample.reshape(-1)
        few = len(targets) <= min(_MAX_CLASSES, len(problem.y) - 1)
        if not (few and np.isfinite(problem.loss.curvature)) or row_rank_obstacle(problem):
            return None
        weight = np.bincount(of_sample, problem.sample_weight)
        Z = DesignMatrix(np.diag(np.sqrt(row_scale(problem) / weight)))
        return cls(problem, of_sample, replace(problem, Z=Z, y=targets, sample_weight=weight))

    def mean(self, a: np.ndarray) -> np.ndarray:
        """Weighted mean (K, m) over each class of a (n, m)."""
        total = np.zeros((len(self.problem.y), a.shape[1]))
        np.add.at(total, self.of_sample, self.whole.sample_weight[:, None] * a)
        return total / self.problem.sample_weight[:, None]

    def reduced(self, neurons: Neurons) -> Neurons:
        """Neurons of all samples, with their mean outputs."""
        means = self.mean(self.whole.Z.neuron_outputs(neurons.weights))
        return replace(neurons, weights=means / self.problem.Z.row_norms[:, None])

    def restored(self, neurons: Neurons) -> Neurons:
        """Neurons for all samples, with the same outputs in each class."""
        outputs = self.problem.Z.neuron_outputs(neurons.weights)[self.of_sample]
        weighted = self.whole.sample_weight[:, None] * outputs / row_scale(self.whole)
        return replace(neurons, weights=self.whole.Z.adjoint(weighted))

    def restored_dual(self, v: np.ndarray) -> np.ndarray:
        """Dual point (n, C) with the same v_i / p_i in each class."""
        return self.whole.sample_weight[:, None] * (v / self.problem.sample_weight[:, None])[self.of_sample]

    def price(self, v: np.ndarray) -> Price:
        """Largest price of a dual point (n, C); exact if v_i / p_i differs between classes only."""
        means = self.mean(v / self.whole.sample_weight[:, None]) * self.problem.sample_weight[:, None]
        apart = np.linalg.norm(v - self.restored_dual(means), axis=1) @ self.whole.Z.row_norms
        Z = self.problem.Z
        found, _ = largest_on_cone(Z @ means, np.eye(len(means)), flats_of_rows(Z))
        # The weighted norm of the outputs of a unit direction, over that of whitened data: 1 but for what is not white.
        norm = self.whole.Z.weighted_norm(self.whole.sample_weight[:, None])
        return Price(found * max(1.0, norm / row_scale(self.whole) ** 0.5) + float(apart), "global")


def solve_by_class(
    classes: Classes,
    *,
    tol: float = 1e-6,
    relative_to: Reference = "objective",
    start: Neurons | None = None,
    **options: Any,
) -> Solution:
    """Global optimum at full row rank with few distinct targets, as in classification.

    Parameters
    ----------
    classes : Classes
        From `Classes.of`.
    tol : float, default=1e-6
        Largest gap, as a multiple of `relative_to`.
    relative_to : {"objective", "zero_network"}, default="objective"
        What the gap is measured against, as in `solve_column_generation`.
    start : Neurons or None, default=None
        Network on all samples to start from.
    **options
        Of `solve_column_generation`.

    Returns
    -------
    solution : Solution
        Certificate of scope "global".

    Warns
    -----
    ConvergenceWarning
        If the gap exceeds `tol`.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, whose closed form for
       one-hot targets on data of full row rank this extends to an intercept and to other losses.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import BatchNormDesign
    >>> from convexbn import Problem
    >>> from convexbn.solvers._by_class import Classes, solve_by_class
    >>> X, y = np.random.default_rng(0).standard_normal((7, 9)), np.eye(3)[[0, 0, 1, 1, 1, 2, 2]]
    >>> problem = Problem(BatchNormDesign().fit_transform(X), y, "cross_entropy", weight_decay=0.1, fit_intercept=True)
    >>> solution = solve_by_class(Classes.of(problem), random_state=0)
    >>> len(solution.neurons), solution.certificate.scope, solution.certificate.gap < 1e-6
    (3, 'global', True)
    """
    started = None if start is None else classes.reduced(start)
    within = solve_column_generation(classes.problem, tol=tol, relative_to=relative_to, start=started, **options)
    neurons, v = classes.restored(within.neurons), classes.restored_dual(within.dual)
    certificate = certify(classes.whole, neurons, v, classes.price, Search.CLASSES, Oracle.CLASS_CONE)
    tolerance, status = Tolerance.of(classes.whole, tol, relative_to), within.status
    if tolerance.reached_by(within.certificate):  # or there was a warning
        ending = status if status is Status.INTERRUPTED else Status.NOT_CONVERGED
        status = status_of(certificate, tolerance, "Column generation on one sample a class", ending)
    return replace(within, neurons=neurons, dual=v, certificate=certificate, status=status)
