"""Picture of a regularization path: objectives, neurons, and losses on held-out samples over the weight decay."""

from inspect import signature
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.checks import check_kind, real_array
from convexbn.estimators import Path, convexbn_path
from convexbn.losses import Loss, make_loss
from convexbn.plotting._style import BOUND, color_of, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class PathDisplay:
    """Objective and lower bound, number of neurons, and loss on held-out samples along a regularization path.

    Parameters
    ----------
    path : Path
        As returned by `convexbn.convexbn_path`, of at least one weight decay.
    validation_losses : ndarray of shape (n_weight_decays,) or None, default=None
        Mean loss of each network on samples that it was not trained on.

    Attributes
    ----------
    axes_ : list of matplotlib Axes
        A panel for the objective, one for the neurons, and one for the losses if there are any.
    ax_ : matplotlib Axes
        The first of them.
    figure_ : matplotlib Figure
        Figure that holds them.
    best_ : matplotlib Line2D
        The mark of the least loss, where there are losses.

    See Also
    --------
    PathDisplay.from_estimator : Follow the path of an estimator, and draw it.
    PathDisplay.from_path : Draw a path, with the losses on held-out samples.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from convexbn import convexbn_path
    >>> from convexbn.datasets import make_teacher
    >>> from convexbn.plotting import PathDisplay
    >>> X, y = make_teacher(30, 2, random_state=0)
    >>> path = convexbn_path(X[:20], y[:20], n_weight_decays=5, tol=1e-2)
    >>> [ax.get_ylabel() for ax in PathDisplay.from_path(path, X[20:], y[20:]).axes_]
    ['objective', 'neurons', 'validation loss']
    """

    def __init__(self, path: Path, validation_losses: np.ndarray | None = None):
        check_kind("path", path, Path, "what convexbn_path returns")
        self.path = path
        self.validation_losses = validation_losses

    @classmethod
    def from_path(
        cls,
        path: Path,
        X: ArrayLike | None = None,
        y: ArrayLike | None = None,
        *,
        loss: str | Loss = "squared_error",
        ax: "Axes | None" = None,
    ) -> Self:
        """Draw a path, with the losses of its networks on held-out samples if these are given.

        Parameters
        ----------
        path : Path
            As returned by `convexbn.convexbn_path`.
        X : array-like of shape (n, d) or None, default=None
            Held-out samples.
        y : array-like of shape (n,) or (n, C) or None, default=None
            Their targets; labels -1 and +1, or one-hot rows, where the loss takes these.
        loss : str or Loss, default="squared_error"
            Loss on the held-out samples.
        ax : matplotlib Axes or None, default=None
            Axes of ``pyplot.subplots`` in whose place the panels are drawn; None makes a new figure.

        Returns
        -------
        display : PathDisplay

        Raises
        ------
        ValueError
            If `path` is empty, or only one of `X` and `y` is given.
        ImportError
            If matplotlib is not installed.
        """
        if (X is None) != (y is None):
            raise ValueError("X and y of held-out samples must be given together, or neither.")
        if X is None:
            return cls(path).plot(ax)
        check_kind("path", path, Path, "what convexbn_path returns")
        loss, targets = make_loss(loss), real_array("y", y)
        targets = targets[:, None] if targets.ndim == 1 else targets
        losses = [loss.value(network.predict(X), targets).mean() for network in path.networks]
        return cls(path, np.array(losses)).plot(ax)

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        X: ArrayLike,
        y: ArrayLike,
        *,
        X_validation: ArrayLike | None = None,
        y_validation: ArrayLike | None = None,
        n_weight_decays: int = 20,
        eps: float = 1e-3,
        ax: "Axes | None" = None,
    ) -> Self:
        """Follow the path of an estimator's training problem, and draw it; the estimator stays as it is.

        Parameters
        ----------
        model : ConvexBNRegressor, ConvexBNClassifier or a CV variant
            Its parameters are those of the path; its `spectral_power_` and `feature_metric_` too, if it is fitted, and
            else "auto" is 0 and no metric.
        X : array-like of shape (n, d)
            Training data.
        y : array-like of shape (n,) or (n, C)
            Targets or labels.
        X_validation, y_validation : array-like or None, default=None
            Held-out samples and their targets or labels.
        n_weight_decays : int, default=20
            Length of the path.
        eps : float, default=1e-3
            Smallest weight decay as a fraction of the largest.
        ax : matplotlib Axes or None, default=None
            Axes of ``pyplot.subplots`` in whose place the panels are drawn; None makes a new figure.

        Returns
        -------
        display : PathDisplay

        Raises
        ------
        ValueError
            If a parameter or the data is out of range, or labels of held-out samples are new.
        ImportError
            If matplotlib is not installed.
        """
        given = {name: value for name, value in model.get_params(deep=False).items() if name in _OF_THE_PATH}
        power = getattr(model, "spectral_power_", given["spectral_power"])
        given["spectral_power"] = 0.0 if isinstance(power, str) else power
        metric = getattr(model, "feature_metric_", given.get("feature_metric"))
        given["feature_metric"] = None if isinstance(metric, str) else metric
        path = convexbn_path(X, y, **given, n_weight_decays=n_weight_decays, eps=eps)
        loss = make_loss(model.loss)
        if loss.margin and y_validation is not None:
            classes, labels = np.unique(y), np.asarray(y_validation)
            if not np.isin(labels, classes).all():
                raise ValueError(f"y_validation has labels that y lacks: {np.setdiff1d(labels, classes).tolist()}.")
            loss = loss.of_classes(len(classes))
            one_hot = (labels[:, None] == classes).astype(float)
            y_validation = one_hot if loss.one_hot else 2 * one_hot[:, 1:] - 1
        return cls.from_path(path, X_validation, y_validation, loss=loss, ax=ax)

    def plot(self, ax: "Axes | None" = None) -> Self:
        """Draw the panels.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes of ``pyplot.subplots`` in whose place the panels are drawn; None makes a new figure.

        Returns
        -------
        display : PathDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        path, losses = self.path, self.validation_losses
        if len(path) == 0:
            raise ValueError("path has no weight decay, so there is nothing to draw.")
        self.axes_ = panels(ax, 2 if losses is None else 3)
        objective, neurons, *validation = self.axes_
        scopes = sorted({certificate.scope for certificate in path.certificates})
        bounds = [certificate.lower_bound for certificate in path.certificates]
        objective.plot(path.weight_decays, path.objectives, "k.-", label="objective")
        objective.plot(
            path.weight_decays, bounds, color=BOUND, linestyle="--", label=f"lower bound ({', '.join(scopes)})"
        )
        objective.legend(fontsize="small")
        objective.set(ylabel="objective")
        neurons.plot(path.weight_decays, path.n_neurons, color=color_of(0), marker=".", drawstyle="steps-mid")
        neurons.set(ylabel="neurons", ylim=(0, None))
        neurons.locator_params(axis="y", integer=True)
        for panel in validation:
            assert losses is not None
            panel.plot(path.weight_decays, losses, color=color_of(0), marker=".")
            best = int(np.argmin(losses))
            here = path.weight_decays[best], losses[best]
            options: dict[str, Any] = {
                "markeredgecolor": "black",
                "markersize": 13,
                "label": f"least: {here[1]:.4g} at {here[0]:.2g}",
            }
            self.best_: Any = panel.plot(*here, "*", color=BOUND, **options)[0]
            panel.legend(fontsize="small")
            panel.set(ylabel="validation loss")
        self.axes_[-1].set(xscale="log", xlabel="weight decay")
        self.ax_, self.figure_ = self.axes_[0], self.axes_[0].figure
        return self


_OF_THE_PATH = set(signature(convexbn_path).parameters) - {"n_weight_decays", "eps", "weight_decays", "verbose"}
