"""Errors that are raised at a moment given beforehand, wherever the program is then."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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
