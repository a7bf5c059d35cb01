"""What the blocks of a source must have in common."""

from dataclasses import dataclass
from typing import Protocol, Self


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Layout:
    """Rows and features of a block, and the shapes of its targets and weights without the rows, or None."""

    name: str
    n_rows: int
    n_features: int
    y: tuple[int, ...] | None
    sample_weight: tuple[int, ...] | None

    @classmethod
    def of(cls, X: _Shaped, y: _Shaped | None, sample_weight: _Shaped | None, name: str) -> Self:
        """The layout of a block, or of the headers of its arrays; a ValueError unless the shapes are those of one."""
        if len(X.shape) != 2:
            raise ValueError(f"X of {name} must have shape (m, d), got {X.shape}.")
        if not X.shape[1]:
            raise ValueError(f"X of {name} must have a column at least, got shape {X.shape}.")
        n = X.shape[0]
        if y is not None and (len(y.shape) not in (1, 2) or y.shape[0] != n):
            raise ValueError(f"y of {name} must hold one target for each of its {n} rows, got shape {y.shape}.")
        if sample_weight is not None and sample_weight.shape != (n,):
            raise ValueError(
                f"sample_weight of {name} must hold one number for each of its {n} rows, got shape "
                f"{sample_weight.shape}."
            )
        tails = (None if part is None else part.shape[1:] for part in (y, sample_weight))
        return cls(name, *X.shape, *tails)

    def check_like(self, first: "Layout") -> None:
        """Raise a ValueError if blocks differ in more than their rows."""
        if (self.n_features, self.y, self.sample_weight) != (first.n_features, first.y, first.sample_weight):
            raise ValueError(f"{self._in_words()}, and {first._in_words()}; all must be alike.")

    def _in_words(self) -> str:
        y = "no y" if self.y is None else f"y of {self.y[0]} columns" if self.y else "y"
        weights = "no sample_weight" if self.sample_weight is None else "sample_weight"
        return f"{self.name} has {self.n_features} features, {y}, {weights}"
