"""Pictures: of networks and certificates, of paths and how values were chosen, and of training runs."""

from convexbn.plotting._certificate import CertificateDisplay
from convexbn.plotting._filters import FiltersDisplay
from convexbn.plotting._neurons import NeuronsDisplay
from convexbn.plotting._path import PathDisplay
from convexbn.plotting._runs import plot_comparison, plot_objectives, plot_spectral_trace, plot_trace
from convexbn.plotting._spectral import SpectralTraceDisplay
from convexbn.plotting._validation import ValidationDisplay

__all__ = [
    "CertificateDisplay",
    "FiltersDisplay",
    "NeuronsDisplay",
    "PathDisplay",
    "SpectralTraceDisplay",
    "ValidationDisplay",
    "plot_comparison",
    "plot_objectives",
    "plot_spectral_trace",
    "plot_trace",
]
