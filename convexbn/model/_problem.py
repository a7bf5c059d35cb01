"""The training problem on a design matrix: its objective and its dual.

Shapes, said once for the whole package: n samples, N = n * n_patches rows of Z, k columns of Z, C outputs, m neurons.
Targets, predictions and dual points are (n, C) arrays.
"""

from copy import copy
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.checks import check_flag, is_number, real_array
from convexbn._utils.summary import Summarized, counted
from convexbn.losses import Loss, make_loss
from convexbn.model._neurons import Neurons
from convexbn.model._outputs import OutputDirections, output_directions
from convexbn.operators._kinds import as_design_matrix
from convexbn.operators._protocol import Operator


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Problem(Summarized):
    r"""Two-layer ReLU network with weight decay on a design matrix.

    ``minimise  sum_i p_i loss(f_i, y_i) + weight_decay * sum_j |s_j| |c_j|``,
    ``f = sum_j relu(Z s_j) c_j^T + b``, with b = 0 unless `fit_intercept`. On the whitened design matrix this is the
    training problem of a batch-normalized network with weight decay on (gamma, bias) and the output weights.

    Parameters
    ----------
    Z : DesignMatrix, or array-like or sparse matrix of shape (N, k)
        Design matrix; a sparse one is taken as a `SparseDesignMatrix`.
    y : array-like of shape (n,) or (n, C)
        Targets; labels -1 and +1 for margin losses.
    loss : {"squared_error", "huber", "log_loss", "squared_hinge", "hinge"} or Loss, default="squared_error"
        Name or instance of a loss.
    weight_decay : float
        Positive; the papers' beta is ``weight_decay * sqrt(n)`` with a loss that is not averaged.
    fit_intercept : bool, default=False
        Whether the output has an intercept b that is not penalised.
    sample_weight : array-like of shape (n,) or None, default=None
        Positive weights; scaled to add up to one, p_i = 1/n if None.

    Raises
    ------
    ValueError
        If lengths do not match, an entry is not finite, the loss does not take these targets, `weight_decay` is not
        a positive number, or a sample weight is not.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, Section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import Problem
    >>> problem = Problem(np.eye(3), [1.0, -2.0, 3.0], weight_decay=0.1)
    >>> round(problem.objective(problem.zero_network), 6)
    2.333333
    """

    Z: Operator
    y: np.ndarray
    loss: Loss
    weight_decay: float
    fit_intercept: bool
    sample_weight: np.ndarray

    def __init__(
        self,
        Z: Operator | ArrayLike,
        y: ArrayLike,
        loss: str | Loss = "squared_error",
        *,
        weight_decay: float,
        fit_intercept: bool = False,
        sample_weight: ArrayLike | None = None,
    ):
        Z, loss = as_design_matrix(Z), make_loss(loss)
        y = _numbers("y", y)
        y = y[:, None] if y.ndim == 1 else y
        if y.ndim != 2 or len(y) != Z.n_samples or y.shape[1] == 0:
            raise ValueError(
                f"y must have one row for each of the {Z.n_samples} samples of Z, and a column for each output, "
                f"got shape {y.shape}."
            )
        if not np.isfinite(y).all():
            raise ValueError("y contains NaN or infinity; remove these samples first.")
        loss.check_targets(y)
        if loss.margin and fit_intercept and (y == y[0]).all():
            raise ValueError("y holds one class only, which an intercept fits alone; give samples of both classes.")
        check_weight_decay(weight_decay)
        check_flag("fit_intercept", fit_intercept)
        weights = np.ones(len(y)) if sample_weight is None else _numbers("sample_weight", sample_weight)
        if weights.shape != (len(y),) or not np.isfinite(weights).all() or not (weights > 0).all():
            raise ValueError(f"sample_weight must hold {len(y)} positive numbers; drop samples of weight zero.")
        weights = weights / weights.max()
        values = (Z, y, loss, float(weight_decay), bool(fit_intercept), weights / weights.sum())
        for field, value in zip(fields(self), values, strict=True):
            object.__setattr__(self, field.name, value)

    def _summary(self) -> str:
        intercept = "with" if self.fit_intercept else "without"
        return (
            f"{self.Z._summary()}, {counted(self.n_outputs, 'output')}, {self.loss.name}, "
            f"weight decay {self.weight_decay:.4g}, {intercept} intercept"
        )

    @property
    def n_outputs(self) -> int:
        """Outputs C."""
        return int(self.y.shape[1])

    @cached_property
    def output_directions(self) -> OutputDirections:
        """Geometry of the output directions: signs for one output, the unit sphere for several."""
        return output_directions(self.n_outputs)

    @cached_property
    def placed(self) -> tuple[Any, Any]:
        """Targets and sample weights, where the rows of Z are."""
        return self.Z.place(self.y), self.Z.place(self.sample_weight)

    def neurons(self, weights: np.ndarray, output_weights: np.ndarray, intercept: np.ndarray) -> Neurons:
        """Return the network f = sum_j relu(Z s_j) c_j^T + intercept, as its neurons."""
        return Neurons(weights, output_weights, intercept)

    def with_weight_decay(self, weight_decay: float) -> Self:
        """Return the same problem with another weight decay; nothing else that is known of it depends on that.

        Parameters
        ----------
        weight_decay : float
            Positive weight decay.

        Returns
        -------
        problem : Problem

        Raises
        ------
        ValueError
            If `weight_decay` is no positive finite number.

        Examples
        --------
        >>> import numpy as np
        >>> from convexbn import Problem
        >>> Problem(np.eye(2), [1.0, -2.0], weight_decay=0.1).with_weight_decay(0.2).weight_decay
        0.2
        """
        check_weight_decay(weight_decay)
        other = copy(self)
        object.__setattr__(other, "weight_decay", float(weight_decay))
        return other

    def restricted(self, samples: np.ndarray) -> "Problem":
        """Return the same problem for some of the samples, given by their indices; weights add up to one again."""
        return replace(self, Z=self.Z.of_samples(samples), y=self.y[samples], sample_weight=self.sample_weight[samples])

    def training_loss(self, f: np.ndarray) -> float:
        """Weighted loss of predictions f (n, C)."""
        return float(self.sample_weight @ self.loss.value(f, self.y))

    def objective(self, neurons: Neurons) -> float:
        """Objective of a network on the design matrix."""
        loss = neurons.training_loss(self.Z, self.loss, *self.placed)
        return loss + self.weight_decay * float(neurons.cost.sum())

    def dual_point(self, f: np.ndarray) -> np.ndarray:
        """Dual point v_i = -p_i loss'(f_i) of predictions f (n, C): shape (n, C)."""
        return -self.sample_weight[:, None] * self.loss.gradient(f, self.y)

    def feasible_dual(self, v: np.ndarray) -> np.ndarray:
        """Nearby dual point in the domain of the conjugate, with columns that add up to zero under an intercept."""
        v, p = self.checked_dual(v), self.sample_weight[:, None]
        u = self.loss.project_dual(-v / p, self.y)
        return -p * (self.loss.centred_dual(u, self.y, self.sample_weight) if self.fit_intercept else u)

    def checked_dual(self, v: ArrayLike) -> np.ndarray:
        """Return a dual point as an array, or raise a ValueError unless it is finite and of shape (n, C)."""
        dual = real_array("v", v)
        if dual.shape != self.y.shape or not np.isfinite(dual).all():
            raise ValueError(f"v must be a finite array of shape {self.y.shape}, got shape {dual.shape}.")
        return dual

    def dual_objective(self, v: np.ndarray) -> float:
        """Dual objective -sum_i p_i loss*(-v_i / p_i) of a dual point (n, C).

        It is a lower bound of the objective of every network none of whose directions prices higher than
        `weight_decay`. It is -infinity where the loss is not bounded below, and under an intercept unless the columns
        of v add up to zero.
        """
        v = self.checked_dual(v)
        if self.fit_intercept and (np.abs(v.sum(axis=0)) > 1e-12 * np.abs(v).sum(axis=0)).any():
            return -np.inf
        return -float(self.sample_weight @ self.loss.conjugate(-v / self.sample_weight[:, None], self._near_targets))

    def dual_size(self, v: np.ndarray) -> float:
        """Sum of the sizes of the terms that `dual_objective` adds up, by which its rounding is bounded."""
        u = -v / self.sample_weight[:, None]
        products = np.abs(u * self._near_targets).sum(axis=1)
        return float(self.sample_weight @ (np.abs(self.loss.conjugate(u, self._near_targets)) + products))

    @cached_property
    def _near_targets(self) -> np.ndarray:
        """Targets less a shift of all, which changes no dual objective where v adds up to zero, to lose few digits."""
        return self.y - self.zero_network.intercept if self.fit_intercept and not self.loss.margin else self.y

    @cached_property
    def zero_network(self) -> Neurons:
        """The network without neurons, with the best intercept if one is fitted."""
        if self.fit_intercept:
            intercept = self.loss.best_constant(self.y, self.sample_weight)
        else:
            intercept = np.zeros(self.n_outputs)
        return Neurons(np.zeros((self.Z.n_columns, 0)), np.zeros((0, self.n_outputs)), intercept)

    @cached_property
    def zero_dual(self) -> np.ndarray:
        """Dual point (n, C) of the zero network; exactly zero where only rounding is left of the residual."""
        v = self.feasible_dual(self.dual_point(self.zero_network.outputs(self.Z)))
        rounding = 1e-14 * self.sample_weight[:, None] * np.abs(self.y).max()
        return np.zeros_like(v) if (np.abs(v) <= rounding).all() else v

    @cached_property
    def zero_objective(self) -> float:
        """Objective of the zero network; exactly zero where only rounding is left of the residual."""
        return self.objective(self.zero_network) if self.zero_dual.any() else 0.0


def _numbers(name: str, values: ArrayLike) -> np.ndarray:
    return np.array(real_array(name, values), ndmin=1)


def check_problem(problem: object) -> None:
    """Raise a ValueError unless `problem` is a Problem."""
    if not isinstance(problem, Problem):
        raise ValueError(f"problem={problem!r} must be a Problem, as Problem(Z, y, weight_decay=0.1) is.")


def check_weight_decay(weight_decay: object) -> None:
    """Raise a ValueError unless `weight_decay` is a positive finite number."""
    if not (is_number(weight_decay) and 0 < weight_decay < np.inf):  # type: ignore[operator]
        raise ValueError(
            f"weight_decay={weight_decay!r} must be a positive finite number; without decay the network and its "
            "convex program are different problems."
        )
