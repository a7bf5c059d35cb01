"""The regularization path: optimal networks from the weight decay at which they are zero downwards."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.checks import check_count, is_number, real_array
from convexbn._utils.html import Tabulated, sparkline
from convexbn._utils.summary import counted
from convexbn.estimators._base import fixed_seed
from convexbn.estimators._classifier import ConvexBNClassifier
from convexbn.estimators._regressor import ConvexBNRegressor
from convexbn.losses import LOSSES, Loss, make_loss
from convexbn.model._activation import Activation
from convexbn.model._neurons import Neurons
from convexbn.model._problem import Problem
from convexbn.network import GatedNetwork, NormalizedNetwork
from convexbn.oracles import weight_decay_max
from convexbn.solvers import solve_path
from convexbn.solvers._certificate import Certificate
from convexbn.solvers._monitor import Callback, Clock
from convexbn.solvers._tolerance import Tolerance

if TYPE_CHECKING:
    from convexbn.estimators._base import BaseConvexBN, Prepared


@dataclass(frozen=True, eq=False, repr=False)
class Path(Tabulated):
    """Networks along a grid of weight decays, the largest first.

    Parameters
    ----------
    weight_decays : ndarray of shape (n_weight_decays,)
        The grid, falling.
    neurons : tuple of Neurons
        The network at each weight decay, on the design matrix, with outputs scaled as in training.
    networks : tuple of BatchNormNetwork, WeightNormNetwork or GatedNetwork
        The same networks on the data.
    certificates : tuple of Certificate
        Objective and lower bound at each weight decay.

    Attributes
    ----------
    objectives : ndarray of shape (n_weight_decays,)
        Objective of each network.
    gaps : ndarray of shape (n_weight_decays,)
        Relative gap of each network; its certificate says to which lower bound.
    n_neurons : ndarray of int, shape (n_weight_decays,)
        Neurons of each network.

    Examples
    --------
    >>> from convexbn import convexbn_path
    >>> from convexbn.datasets import make_teacher
    >>> path = convexbn_path(*make_teacher(20, 2, random_state=0), n_weight_decays=3)
    >>> len(path), path.n_neurons.tolist() == [len(network) for network in path.networks]
    (3, True)
    """

    weight_decays: np.ndarray
    neurons: tuple[Neurons, ...]
    networks: tuple[NormalizedNetwork | GatedNetwork, ...]
    certificates: tuple[Certificate, ...]

    def __len__(self) -> int:
        return len(self.weight_decays)

    def _summary(self) -> str:
        if len(self) == 0:
            return counted(0, "weight decay")
        first, last = self.weight_decays[0], self.weight_decays[-1]
        neurons = f"{self.n_neurons[0]} to {counted(self.n_neurons[-1], 'neuron')}"
        return f"{counted(len(self), 'weight decay')} from {first:.4g} to {last:.4g}, {neurons}"

    def _rows(self) -> dict[str, object]:
        if len(self) == 0:
            return {"weight decays": 0}
        (first, last), (few, many) = self.weight_decays[[0, -1]], self.n_neurons[[0, -1]]
        return {
            "weight decays": f"{len(self)}, from {first:.4g} to {last:.4g}",
            "objective": f"from {self.objectives[0]:.6g} to {self.objectives[-1]:.6g}",
            "neurons": f"from {few} to {many}",
            "largest relative gap": f"{self.gaps.max():.2e}",
            "scopes": ", ".join(sorted({certificate.scope for certificate in self.certificates})),
        }

    def _picture(self) -> tuple[str, str]:
        return "objectives", sparkline(self.objectives, "objectives, that of the largest weight decay on the left")

    @property
    def objectives(self) -> np.ndarray:
        """Objective of each network."""
        return np.array([certificate.objective for certificate in self.certificates])

    @property
    def gaps(self) -> np.ndarray:
        """Relative gap of each network."""
        return np.array([certificate.gap for certificate in self.certificates])

    @property
    def n_neurons(self) -> np.ndarray:
        """Neurons of each network."""
        return np.array([len(neurons) for neurons in self.neurons])


def convexbn_path(
    X: ArrayLike,
    y: ArrayLike,
    *,
    loss: str | Loss = "squared_error",
    normalization: str = "batch",
    activation: Activation = "relu",
    fit_intercept: bool = True,
    n_components: int | float | None = None,
    spectral_power: float = 0.0,
    feature_metric: ArrayLike | None = None,
    standardize: bool = True,
    scale_outputs: bool = True,
    n_weight_decays: int = 50,
    eps: float = 1e-2,
    weight_decays: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_patterns: int = 50,
    solver: str = "auto",
    tol: float = 1e-4,
    max_iter: int | None = None,
    max_time: float | None = None,
    random_state: int | np.random.RandomState | np.random.Generator | None = 0,
    verbose: bool = False,
) -> Path:
    """Networks along a grid of weight decays, each started from the one before.

    Prices are not proved along the path, and the search for neurons is light (`solve_path`), so the certificates of
    ReLU networks are local; an estimator with a `weight_decay` of the path searches from more starts and proves
    its bound where that is possible.

    Parameters
    ----------
    X : array-like or sparse matrix of shape (n, d)
        Training data.
    y : array-like of shape (n,) or (n, C)
        Targets, one column an output; labels (n,) for the losses of a classifier. Of two labels the second in sorted
        order is positive.
    loss : str or Loss, default="squared_error"
        Training loss: "squared_error", of any number of outputs, or "huber"; "log_loss" or "cross_entropy", of any
        number of classes, "squared_hinge" or "hinge".
    normalization, activation, fit_intercept, n_components, spectral_power, standardize, scale_outputs
        As in `ConvexBNRegressor`; the outputs of a classifier are not scaled.
    feature_metric : array-like of shape (d, d) or None, default=None
        Symmetric matrix by which the penalty measures neurons (`BatchNormDesign`), such as `feature_metric_` of a fit.
    n_weight_decays : int, default=50
        Length of the grid.
    eps : float, default=1e-2
        Smallest weight decay of the grid, as a fraction of the largest, which is `weight_decay_max`. The grid
        is geometric.
    weight_decays : array-like of shape (n_weight_decays,) or None, default=None
        The grid, in any order, in place of one made from `n_weight_decays` and `eps`.
    sample_weight : array-like of shape (n,) or None, default=None
        Weights of the samples; integer weights equal repeated rows.
    n_patterns, solver, tol, max_iter, random_state
        As in `ConvexBNRegressor`. Patterns that are sampled, and the gates of gated networks, are the same at all
        values.
    max_time : float or None, default=None
        Seconds, shared among the weight decays that are left; each ends with its best network so far.
    verbose : bool, default=False
        Whether to show a progress bar.

    Returns
    -------
    path : Path
        Shorter than the grid if Ctrl-C ended it.

    Raises
    ------
    ValueError
        If a parameter or the data is out of range; the message names it.
    RuntimeError
        If a cvxpy solver fails.

    Warns
    -----
    ConvergenceWarning
        Once, if gaps exceed `tol`, which is a multiple of the objective of the zero network: how many, and the largest.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from convexbn import convexbn_path
    >>> X, y = load_diabetes(return_X_y=True)
    >>> path = convexbn_path(X[:30, :2], y[:30], n_weight_decays=3, eps=0.1)
    >>> path.n_neurons[0], bool(path.objectives[2] < path.objectives[0]), bool(path.gaps.max() < 1e-3)
    (np.int64(0), True, True)
    """
    known = isinstance(loss, Loss) or (isinstance(loss, str) and loss in LOSSES)
    margin = known and make_loss(loss).margin
    model = (ConvexBNClassifier if margin else ConvexBNRegressor)(
        normalization=normalization,
        activation=activation,
        loss=loss,
        fit_intercept=fit_intercept,
        n_components=n_components,
        spectral_power=spectral_power,
        feature_metric=feature_metric,
        standardize=standardize,
        n_patterns=n_patterns,
        solver=solver,
        tol=tol,
        max_iter=max_iter,
        max_time=max_time,
        random_state=random_state,
    )
    model.scale_outputs = scale_outputs
    clock = Clock(max_time)
    model._check_parameters()
    check_grid(weight_decays, n_weight_decays, eps)
    prepared, problem = model._problem(*model._samples(X, y, sample_weight), spectral_power, n_components)
    grid = make_grid(weight_decay_max(problem), weight_decays, n_weight_decays, eps)
    return follow_path(model, prepared, problem, grid, fixed_seed(model), max_time=clock.left(), verbose=verbose)


def check_grid(weight_decays: ArrayLike | None, n_weight_decays: int, eps: float) -> None:
    """Raise a ValueError that names the first parameter of a grid that is out of range."""
    check_count("n_weight_decays", n_weight_decays)
    if not (is_number(eps) and 0 < eps < 1):
        raise ValueError(f"eps={eps!r} must be a number between 0 and 1, the smallest weight decay over the largest.")
    if weight_decays is None:
        return
    grid = real_array("weight_decays", weight_decays)
    if grid.ndim != 1 or grid.size == 0 or not ((grid > 0) & (grid < np.inf)).all():
        raise ValueError(f"weight_decays={weight_decays!r} must be a list of positive finite numbers, or None.")


def make_grid(largest: float, weight_decays: ArrayLike | None, n_weight_decays: int, eps: float) -> np.ndarray:
    """Weight decays in falling order: those given, or a geometric grid from the largest downwards."""
    if weight_decays is not None:
        return np.sort(np.asarray(weight_decays, dtype=np.float64))[::-1]
    # At a weight_decay_max of zero the zero network fits perfectly and is optimal at any weight decay.
    return (largest or 1.0) * np.geomspace(1, eps, n_weight_decays)


def follow_path(
    model: "BaseConvexBN",
    prepared: "Prepared",
    problem: Problem,
    weight_decays: np.ndarray,
    seed: int,
    *,
    max_time: float | None = None,
    callback: Callback | None = None,
    verbose: bool = False,
) -> Path:
    """Path of a problem, by the solver and to the tolerance of an estimator."""
    solutions = solve_path(
        problem,
        weight_decays,
        activation=model.activation,
        solver=model.solver,
        n_patterns=model.n_patterns,
        tol=model.tol,
        relative_to="zero_network",
        max_iter=model.max_iter,
        max_time=max_time,
        random_state=seed,
        callback=callback,
        verbose=verbose,
    )
    return Path(
        weight_decays[: len(solutions)],
        tuple(solution.neurons for solution in solutions),
        tuple(prepared.network(solution.neurons) for solution in solutions),
        tuple(prepared.explained(solution.certificate) for solution in solutions),
    )


def gaps_along(path: Path, problem: Problem) -> np.ndarray:
    """Gaps of a path as multiples of the objective of the zero network, as the tolerance of an estimator has it."""
    tolerance = Tolerance(0.0, problem.zero_objective)
    return np.array([tolerance.gap(found.objective, found.lower_bound) for found in path.certificates])
