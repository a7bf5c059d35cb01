"""Pictures of training runs: beside a certificate, and along the singular directions of the data."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from convexbn._comparison import Comparison
from convexbn.designs._spectral_trace import SpectralTrace
from convexbn.gradient._trace import Trace
from convexbn.plotting._certificate import CertificateDisplay
from convexbn.plotting._pyplot import import_pyplot
from convexbn.plotting._spectral import SpectralTraceDisplay
from convexbn.plotting._style import BOUND, color_of
from convexbn.solvers._certificate import Certificate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINEAR_BELOW = 1e-8  # relative distances from a lower bound that are drawn on a linear axis


def plot_objectives(certificate: Certificate, runs: Mapping[str, Trace], ax: "Axes | None" = None) -> "Axes":
    """Draw the objective of gradient training over its steps beside the convex objective and its lower bounds.

    Parameters
    ----------
    certificate : Certificate
        Certificate of the convex solution.
    runs : mapping of str to Trace
        Label and trace of full-batch runs, as returned by `convexbn.gradient.train`.
    ax : matplotlib Axes or None, default=None
        Where to draw; None takes the current axes.

    Returns
    -------
    ax : matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np
    >>> from convexbn import Certificate
    >>> from convexbn.gradient import Trace
    >>> from convexbn.plotting import plot_objectives
    >>> certificate = Certificate(2.0, 1.9, "global", 1.9)
    >>> adam = Trace(np.arange(3), np.arange(3) / 10, np.array([5.0, 3.0, 2.5]))
    >>> plot_objectives(certificate, {"Adam": adam}).get_ylabel()
    'objective'
    """
    ax = import_pyplot().gca() if ax is None else ax
    return CertificateDisplay(certificate, runs).plot(ax).ax_


def plot_comparison(comparison: Comparison, ax: "Axes | None" = None) -> "Axes":
    """Draw how far the convex solver and gradient training are above the lower bound, over seconds, both logarithmic.

    The vertical axis is the distance of the objective from the lower bound, relative to the objective of the convex
    solution; the bound is the line at zero. The axis is linear below 1e-8, so that zero is on it. Where the bound is
    evidence and no proof, its label says so, and the best proved bound is in the legend.

    Parameters
    ----------
    comparison : Comparison
        As returned by `convexbn.compare`.
    ax : matplotlib Axes or None, default=None
        Where to draw; None takes the current axes.

    Returns
    -------
    ax : matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from convexbn import compare
    >>> from convexbn.plotting import plot_comparison
    >>> X, y = [[-1.0], [0.0], [2.0]], [1.0, 0.0, 3.0]
    >>> comparison = compare(X, y, weight_decay=0.1, runs={"Adam": {"n_steps": 20}})
    >>> plot_comparison(comparison).get_xlabel()
    'seconds'
    """
    ax = import_pyplot().gca() if ax is None else ax
    certificate = comparison.certificate
    scale = certificate.objective or 1.0

    def above(trace: Trace) -> np.ndarray:
        return (trace.objective - certificate.lower_bound) / scale

    for i, (label, traces) in enumerate(comparison.traces.items()):
        for j, trace in enumerate(traces):
            options: dict[str, Any] = {"linewidth": 1, "alpha": 0.8, "label": label if j == 0 else None}
            ax.plot(trace.times, above(trace), color=color_of(i), **options)
    convex = comparison.convex
    ax.plot(convex.times, above(convex), "k.-", linewidth=2, drawstyle="steps-post", label="convexbn")
    ax.plot(convex.times[-1:], above(convex)[-1:], "k*", markersize=11, label="its certificate")
    proved = {"global": "proved", "patterns": "proved on its patterns", "local": "evidence, no proof"}
    style = "-" if certificate.scope == "global" else ":"
    ax.axhline(
        0,
        color=BOUND,
        linestyle=style,
        label=f"lower bound, scope {certificate.scope}: {proved[certificate.scope]}",
    )
    bound = certificate.global_lower_bound
    if bound is not None and certificate.scope != "global":
        below = (certificate.lower_bound - bound) / scale
        ax.plot([], [], " ", label=f"proved over all networks: {below:.1%} below this line")
    ax.set(xscale="log", xlabel="seconds", ylabel="objective above the lower bound, relative")
    ax.set_yscale("symlog", linthresh=_LINEAR_BELOW, linscale=0.5)
    lowest = min(np.nanmin(above(trace)) for traces in (*comparison.traces.values(), (convex,)) for trace in traces)
    ax.set_ylim(bottom=2 * min(lowest, 0) - _LINEAR_BELOW)
    ax.legend(fontsize="small", loc="lower left", bbox_to_anchor=(0, 0.07))
    return ax


def plot_spectral_trace(trace: SpectralTrace, ax: "Axes | None" = None, *, xlabel: str = "step") -> "Axes":
    """Draw how much of the targets is fitted along each singular direction, dark for large and light for small ones.

    Parameters
    ----------
    trace : SpectralTrace
        As returned by `convexbn.spectral_trace`; steps at zero are left out, since their axis is logarithmic.
    ax : matplotlib Axes or None, default=None
        Where to draw; None takes the current axes.
    xlabel : str, default="step"
        What the steps are.

    Returns
    -------
    ax : matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np
    >>> from convexbn.plotting import plot_spectral_trace
    >>> from convexbn import spectral_trace
    >>> X = np.array([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0]])
    >>> y = X.sum(axis=1)
    >>> plot_spectral_trace(spectral_trace(X, y, [0 * y, X[:, 0], y])).get_ylabel()
    'fitted share of the target'
    """
    ax = import_pyplot().gca() if ax is None else ax
    return SpectralTraceDisplay(trace).plot(ax, xlabel=xlabel).ax_


def plot_trace(
    traces: Mapping[str, Trace], watch: str = "objective", ax: "Axes | None" = None, *, against: str = "steps"
) -> "Axes":
    """Draw what was watched along training runs.

    Parameters
    ----------
    traces : mapping of str to Trace
        Label and run.
    watch : str, default="objective"
        "objective", or the name of a watched number.
    ax : matplotlib Axes or None, default=None
        Where to draw; None takes the current axes.
    against : {"steps", "times"}, default="steps"
        What the horizontal axis is.

    Returns
    -------
    ax : matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    KeyError
        If a run did not watch it; the message lists what it watched.
    ValueError
        If `against` is something else.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np
    >>> from convexbn.gradient import Trace
    >>> from convexbn.plotting import plot_trace
    >>> trace = Trace(np.arange(3), np.arange(3) / 10, np.array([4.0, 1.0, 0.5]))
    >>> plot_trace({"a run": trace}).get_xlabel()
    'step'
    """
    labels = {"steps": "step", "times": "seconds"}
    if against not in labels:
        raise ValueError(f"against={against!r} is unknown; choose one of {list(labels)}.")
    values = {label: trace.objective if watch == "objective" else trace[watch] for label, trace in traces.items()}
    ax = import_pyplot().gca() if ax is None else ax
    for number, (label, trace) in enumerate(traces.items()):
        ax.plot(getattr(trace, against), values[label], label=label, color=color_of(number))
    ax.set(xlabel=labels[against], ylabel=watch)
    ax.legend(fontsize="small")
    return ax
