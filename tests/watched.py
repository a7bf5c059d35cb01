"""Design matrices, losses and callbacks that tell what a solver does, or interrupt it."""

import signal
from collections import Counter

from convexbn import DesignMatrix


class Watched(DesignMatrix):
    """Counts its products, and presses Ctrl-C in the calls of one of them that `press` names."""

    calls: Counter
    press: dict

    @classmethod
    def fresh(cls, array, n_patches=1, press=None):
        """A matrix whose class counts from zero; `press` holds the numbers of the calls of a method to interrupt."""
        kind = type(cls.__name__, (cls,), {"calls": Counter(), "press": press or {}})
        return kind(array, n_patches)

    def _counted(self, name):
        self.calls[name] += 1
        if self.calls[name] in self.press.get(name, ()):
            signal.raise_signal(signal.SIGINT)

    def masked_gram(self, masks, weights):
        """Made once a Newton step."""
        self._counted("masked_gram")
        return super().masked_gram(masks, weights)

    def for_prices(self, v):
        """Made once a call of the oracle."""
        self._counted("for_prices")
        return super().for_prices(v)

    def weighted(self, weights):
        """Made in every step of L-BFGS with one output."""
        self._counted("weighted")
        return super().weighted(weights)

    def weighted_norm(self, weights):
        """Made in the bound of every certificate."""
        self._counted("weighted_norm")
        return super().weighted_norm(weights)


def watched_loss(kind, watch):
    """A loss of this kind that calls `watch` with its targets (n, C) before it checks, values or derives."""

    def check_targets(self, y):
        watch("check_targets", y)
        kind.check_targets(self, y)

    def value(self, f, y):
        watch("value", y)
        return kind.value(self, f, y)

    def gradient(self, f, y):
        watch("gradient", y)
        return kind.gradient(self, f, y)

    return type(kind.__name__, (kind,), {"check_targets": check_targets, "value": value, "gradient": gradient})()


def untouched(kind):
    """A loss of this kind that must not be computed, though targets may be checked."""

    def watch(name, y):
        assert name == "check_targets", name

    return watched_loss(kind, watch)


def unsolved(progress):
    """A callback of a solver that must not run."""
    raise AssertionError("A problem was solved.")


def pressed_at(number):
    """A callback that raises KeyboardInterrupt when it is called for this time."""
    calls = []

    def callback(progress):
        calls.append(progress)
        if len(calls) == number:
            raise KeyboardInterrupt

    return callback
