"""A design matrix that counts its products by name, so that tests can check them or raise KeyboardInterrupt in one."""

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
