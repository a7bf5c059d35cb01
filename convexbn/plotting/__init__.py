"""Pictures: of training runs beside a certificate, and of how values were chosen."""

from convexbn.plotting._runs import plot_comparison, plot_objectives, plot_spectral_trace, plot_trace
from convexbn.plotting._validation import ValidationDisplay

__all__ = ["ValidationDisplay", "plot_comparison", "plot_objectives", "plot_spectral_trace", "plot_trace"]
