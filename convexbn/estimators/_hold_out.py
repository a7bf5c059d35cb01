"""Which samples are held out to validate on, where values are chosen without folds that are given."""

import numpy as np

from convexbn.model._problem import Problem

# Five folds are held out, one after the other, where the design matrix has so many entries and outputs, three where it
# has so many or rows are so few, and one fifth of the samples once where they are more.
_FIVE_FOLDS, _THREE_FOLDS, _FEW_ROWS, _HELD_OUT = 8_000, 30_000, 1_000, 5
_FEWEST_SAMPLES = 4  # with fewer nothing is held out
_MOST_ROWS = 100_000  # of the design matrix: of more, a random part is trained and validated on


def hold_out(
    problem: Problem, y: np.ndarray, rng: np.random.Generator, *, stratified: bool, groups: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds to validate on: five or three for small problems, one fifth of the samples once for others.

    Of more than 100,000 rows so many are trained and validated on.

    There are none where there are hardly any samples.

    Parameters
    ----------
    problem : Problem
        Training problem of all samples.
    y : ndarray of shape (n, C)
        Their targets, or classes.
    rng : Generator
        Deals the samples out.
    stratified : bool
        Whether every class is dealt out evenly; the only sample of a class is never held out.
    groups : ndarray of shape (n,) or None, default=None
        Samples of one group are held out together.

    Returns
    -------
    folds : list of (train, test)
        Indices of samples.
    """
    n = len(y)
    if n < _FEWEST_SAMPLES:
        return []
    count = _n_folds(problem)
    parts = count if count > 1 else _HELD_OUT
    number = np.full(n, -1)
    if groups is not None:
        labels, codes = np.unique(groups, return_inverse=True)
        number = (rng.permutation(len(labels)) % parts)[codes]
    else:
        strata = np.unique(y, axis=0, return_inverse=True)[1].ravel() if stratified else np.zeros(n, dtype=int)
        offset = 0
        for stratum in range(strata.max() + 1):
            members = rng.permutation(np.flatnonzero(strata == stratum))
            if len(members) > 1:
                number[members] = (offset + np.arange(len(members))) % parts
                offset += len(members)
    folds = [(np.flatnonzero(number != part), np.flatnonzero(number == part)) for part in range(count)]
    share = _MOST_ROWS / problem.Z.n_rows
    if share < 1:
        folds = [(_some(train, share, rng), _some(test, share, rng)) for train, test in folds]
    if stratified:
        classes = np.unique(y, axis=0)
        folds = [fold for fold in folds if len(np.unique(y[fold[0]], axis=0)) == len(classes)]
    return [(train, test) for train, test in folds if len(train) > 1 and len(test)]


def _some(samples: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A random part of some samples, in their order."""
    return np.sort(rng.choice(samples, max(1, int(share * len(samples))), replace=False))


def _n_folds(problem: Problem) -> int:
    """How many folds are held out: five or three for small problems, else one."""
    Z = problem.Z
    entries = Z.n_rows * (Z.n_columns + problem.n_outputs)
    few = entries <= _THREE_FOLDS or Z.n_rows <= _FEW_ROWS
    return 5 if entries <= _FIVE_FOLDS else 3 if few else 1
