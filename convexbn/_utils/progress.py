"""The progress of long runs, on the standard error stream."""

import sys
from time import perf_counter
from typing import Any

_SECONDS = 1.0  # between two lines


def progress_bar(method: str, total: int | None) -> Any:
    """Return a progress bar of tqdm, or of plain lines with the same methods where tqdm is not installed."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _Lines(method, total)
    return tqdm(desc=method, total=total, unit="it")


class _Lines:
    """Progress in plain lines, at most one a second, and the last."""

    def __init__(self, method: str, total: int | None):
        self.method, self.total = method, total
        self.n, self._state = 0, ""
        self._written, self._time = 0, -float("inf")

    def set_postfix_str(self, state: str, refresh: bool = True) -> None:
        """Set the state that the next line shows."""
        self._state = state

    def update(self, n: int = 1) -> None:
        """Count `n` more iterations."""
        self.n += n
        if perf_counter() - self._time >= _SECONDS:
            self._write()

    def close(self) -> None:
        """Write the last line."""
        if self._written < self.n:
            self._write()

    def _write(self) -> None:
        of_total = "" if self.total is None else f" of {self.total}"
        print(f"{self.method}: {self.n}{of_total} iterations, {self._state}", file=sys.stderr, flush=True)
        self._written, self._time = self.n, perf_counter()
