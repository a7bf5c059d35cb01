"""Errors that are raised at a moment given beforehand, a disk that is full after some bytes, and what both need."""

import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 60.0  # seconds that an interrupted call may go on


@contextmanager
def fault(
    kind: type[BaseException], seconds: float, lost: list[Any], *, of_the_clock: bool = False
) -> Iterator[list[float]]:
    """Raise an error after so many seconds of CPU time, or of the clock.

    Parameters
    ----------
    kind : exception class
    seconds : float
    lost : list
        To which what Python itself drops is appended, as an error in a finaliser.
    of_the_clock : bool, default=False
        Whether seconds are those of the clock: for a program that waits for others.

    Yields
    ------
    fired : list of float
        Empty until the error is raised; then the CPU time of that moment.
    """
    timer, sent = signal.ITIMER_PROF, signal.SIGPROF
    if of_the_clock:
        timer, sent = signal.ITIMER_REAL, signal.SIGALRM
    fired: list[float] = []
    armed = [True]

    def handler(*given: Any) -> None:
        if armed:
            fired.append(time.process_time())
            raise kind("injected")

    hook = sys.unraisablehook
    sys.unraisablehook = lost.append
    before = signal.signal(sent, handler)
    signal.setitimer(timer, max(seconds, 1e-6))
    try:
        yield fired
    finally:
        armed.clear()  # the time may be over while the timer is stopped
        signal.setitimer(timer, 0)
        signal.signal(sent, before)
        sys.unraisablehook = hook


@contextmanager
def full_after(most_bytes: int) -> Iterator[None]:
    """No file grows beyond so many bytes, as where the disk is full then."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def one_torch_thread() -> None:
    """Let PyTorch compute in this thread alone: a process with threads of its own cannot be forked."""
    import torch

    torch.set_num_threads(1)
