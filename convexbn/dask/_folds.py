"""Blocks that are held out to validate on, so that no rows travel."""

from collections.abc import Sequence

import numpy as np

from convexbn.estimators._hold_out import HELD_OUT, n_folds
from convexbn.model._problem import Problem

_UNEVEN = 2.0  # times the even share of the samples, for the largest fold of blocks


def hold_out_blocks(
    problem: Problem, sizes: Sequence[int], y: np.ndarray, rng: np.random.Generator, *, stratified: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds of whole blocks: as many as of samples in memory, each with about an equal share of the samples.

    There are none where blocks are too few or too unequal, or where a fold would hold all samples of a class.

    Parameters
    ----------
    problem : Problem
        Training problem of all samples.
    sizes : sequence of int
        Samples of each block.
    y : ndarray of shape (n, C)
        Targets, or classes.
    rng : Generator
        Deals the blocks out.
    stratified : bool
        Whether y are classes.

    Returns
    -------
    folds : list of (train, test)
        Indices of samples.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import Problem
    >>> from convexbn.dask._folds import hold_out_blocks
    >>> problem = Problem(np.eye(10), np.arange(10.0), weight_decay=1.0)
    >>> folds = hold_out_blocks(problem, [2] * 5, problem.y, np.random.default_rng(0), stratified=False)
    >>> len(folds), sorted(np.concatenate([test for _, test in folds]).tolist()) == list(range(10))
    (5, True)
    """
    count = n_folds(problem)
    parts = count if count > 1 else HELD_OUT
    number, totals = np.zeros(len(sizes), dtype=int), np.zeros(parts)
    order = rng.permutation(len(sizes))
    for block in order[np.argsort(-np.asarray(sizes)[order], kind="stable")]:
        number[block] = totals.argmin()
        totals[number[block]] += sizes[block]
    if totals.min() == 0 or totals.max() > _UNEVEN * totals.mean():
        return []
    of_sample = np.repeat(number, sizes)
    folds = [(np.flatnonzero(of_sample != part), np.flatnonzero(of_sample == part)) for part in range(count)]
    if stratified:
        n_classes = len(np.unique(y, axis=0))
        if any(len(np.unique(y[train], axis=0)) < n_classes for train, _ in folds):
            return []
    return folds
