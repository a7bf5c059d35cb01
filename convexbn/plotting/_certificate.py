"""Picture of a certificate: the objective and its lower bounds, beside gradient training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from sklearn.utils.validation import check_is_fitted

from convexbn._utils.checks import check_kind
from convexbn.gradient._trace import Trace
from convexbn.plotting._style import BOUND, axes_or_new, color_of
from convexbn.solvers._certificate import Certificate, relative_gap

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class CertificateDisplay:
    """Objective of a network and the lower bounds of its certificate, and runs of gradient training over their steps.

    Parameters
    ----------
    certificate : Certificate
        The certificate.
    runs : mapping of str to Trace, default={}
        Label and trace of full-batch runs on the same objective, as returned by `convexbn.gradient.train`.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the lines.
    figure_ : matplotlib Figure
        Figure that holds them.
    lines_ : list of matplotlib Line2D
        The runs, then the objective, the lower bound, and the proved one over all networks where that is another.

    See Also
    --------
    CertificateDisplay.from_estimator : Draw the certificate of a fitted estimator.
    plot_comparison : Runs and solver over seconds.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from convexbn import ConvexBNRegressor
    >>> from convexbn.datasets import make_teacher
    >>> from convexbn.plotting import CertificateDisplay
    >>> model = ConvexBNRegressor(0.1).fit(*make_teacher(30, 2, random_state=0))
    >>> display = CertificateDisplay.from_estimator(model)
    >>> [line.get_label().split(":")[0] for line in display.lines_]
    ['convexbn', 'lower bound (global)']
    """

    def __init__(self, certificate: Certificate, runs: Mapping[str, Trace] | None = None):
        check_kind("certificate", certificate, Certificate, "the certificate_ of an estimator")
        self.certificate = certificate
        self.runs = runs or {}

    @classmethod
    def from_estimator(cls, model: Any, runs: Mapping[str, Trace] | None = None, *, ax: "Axes | None" = None) -> Self:
        """Draw the certificate of an estimator.

        Parameters
        ----------
        model : estimator with `certificate_`
            A fitted estimator of convexbn.
        runs : mapping of str to Trace or None, default=None
            Runs of gradient training on the same objective.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : CertificateDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ImportError
            If matplotlib is not installed.
        """
        check_is_fitted(model, "certificate_")
        return cls(model.certificate_, runs).plot(ax)

    def plot(self, ax: "Axes | None" = None) -> Self:
        """Draw the lines on `ax`, or on the axes of a new figure if it is None, and return the display."""
        ax, found = axes_or_new(ax), self.certificate
        self.lines_: list[Any] = []
        for number, (label, trace) in enumerate(self.runs.items()):
            self.lines_ += ax.plot(1 + trace.steps, trace.objective, label=label, linewidth=1, color=color_of(number))
        self.lines_.append(ax.axhline(found.objective, color="black", label=f"convexbn: {found.objective:.6g}"))
        bounds = {f"lower bound ({found.scope})": (found.lower_bound, "--")}
        if found.global_lower_bound is not None and found.scope != "global":
            bounds["lower bound (global)"] = found.global_lower_bound, ":"
        for label, (bound, style) in bounds.items():
            gap = relative_gap(found.objective, bound)
            self.lines_.append(
                ax.axhline(bound, color=BOUND, linestyle=style, label=f"{label}: {bound:.6g}, gap {gap:.1e}")
            )
            ax.axhspan(bound, found.objective, color=BOUND, alpha=0.1, linewidth=0)
        if self.runs:
            ax.set(xscale="log", xlabel="step of gradient training")
        else:
            ax.set(
                xticks=[], ylim=(0, 1.1 * found.objective or 1.0)
            )  # gaps in proportion: objectives are at least zero
        ax.set(ylabel="objective")
        ax.legend(fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure
        return self
