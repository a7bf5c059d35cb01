"""The folds of cross-validation: which samples train and which test."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.model_selection import check_cv

from convexbn._utils.checks import is_integer

Fold = tuple[np.ndarray, np.ndarray]


def make_folds(
    cv: Any,
    X: Any,
    y: Any,
    *,
    classifier: bool,
    sample_weight: np.ndarray,
    metadata: dict[str, Any] | None = None,
) -> list[Fold]:
    """Return the folds that `cv` makes of the samples, as arrays of indices.

    Samples of weight zero are in no fold. An iterator is read once.

    Parameters
    ----------
    cv : int, splitter, iterable of (train, test) or None
        As `sklearn.model_selection.check_cv` takes it; None means five folds. The two parts of an iterable's fold are
        whatever indexes an array of n entries: integers or a mask, as an array, list or tuple, or a slice.
    X : array-like of shape (n, ...)
        Data, which is handed to the splitter as it is.
    y : array-like of shape (n,) or (n, C)
        Targets or labels, likewise.
    classifier : bool
        Whether a number of folds means stratified ones.
    sample_weight : ndarray of shape (n,)
        Weights of the samples.
    metadata : dict or None, default=None
        What else the splitter is given, as ``groups``.

    Returns
    -------
    folds : list of (train, test)
        Arrays of indices from 0 to n - 1.

    Raises
    ------
    ValueError
        If `cv` does not split these samples, or a fold has fewer than two samples of positive weight to train on or
        none to test on; the message says what to give instead.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.estimators._folds import make_folds
    >>> X, y = np.zeros((4, 1)), np.arange(4)
    >>> halves = [([True, True, False, False], [2, 3]), (slice(2, 4), (0, 1))]
    >>> make_folds(iter(halves), X, y, classifier=False, sample_weight=np.ones(4))
    [(array([0, 1]), array([2, 3])), (array([2, 3]), array([0, 1]))]
    """
    folds = []
    for number, parts in enumerate(_split(cv, X, y, classifier, metadata or {})):
        try:
            train, test = parts
        except (TypeError, ValueError):
            raise ValueError(f"cv must give pairs (train, test) of indices, but fold {number} is {parts!r}.") from None
        train = _indices(train, sample_weight, f"the training samples of fold {number}")
        test = _indices(test, sample_weight, f"the test samples of fold {number}")
        if len(np.unique(train)) < 2 or not len(test):
            lack = "no test sample" if not len(test) else "fewer than two training samples"
            raise ValueError(
                f"cv leaves {lack} of positive weight in fold {number}; give fewer folds, or folds that hold more of "
                "the samples whose weight is not zero."
            )
        folds.append((train, test))
    if not folds:
        used = "; it is an iterator, which can be read once: give list(...) of it" if hasattr(cv, "__next__") else ""
        raise ValueError(f"cv={cv!r} gives no folds{used}.")
    return folds


def check_cv_parameter(cv: Any) -> None:
    """Raise a ValueError if `cv` is nothing that makes folds; an iterator is not read."""
    makes_folds = not isinstance(cv, (str, bytes)) and (hasattr(cv, "split") or np.iterable(cv))
    if not (cv is None or makes_folds or (is_integer(cv) and cv >= 2)):
        raise ValueError(
            f"cv={cv!r} must be None, an integer from 2 on, a splitter, or an iterable of pairs (train, test)."
        )


def _is_list_of_folds(cv: Any) -> bool:
    return isinstance(cv, Iterable) and not hasattr(cv, "split")


def _split(cv: Any, X: Any, y: Any, classifier: bool, metadata: dict[str, Any]) -> list[Any]:
    if _is_list_of_folds(cv):
        return list(cv)
    try:
        return list(check_cv(cv, y, classifier=classifier).split(X, y, **metadata))
    except (TypeError, ValueError) as error:
        if "groups" in metadata or "groups" not in str(error):
            raise ValueError(f"cv={cv!r} does not split these samples by their y: {error}") from error
        raise ValueError(
            f"cv={cv!r} needs the groups of the samples ({error}); give them as fit(X, y, groups=groups), or give the "
            "folds themselves: cv=list(splitter.split(X, y, groups))."
        ) from error


def _indices(part: Any, sample_weight: np.ndarray, name: str) -> np.ndarray:
    """Return the samples of positive weight that a part of a fold indexes."""
    key = part if isinstance(part, slice) else np.asarray(part, dtype=None if np.size(part) else int)
    try:
        indices = np.arange(len(sample_weight))[key]
    except IndexError as error:
        raise ValueError(
            f"cv must give indices, or a mask, of the {len(sample_weight)} samples, but {name} are {part!r}: {error}."
        ) from error
    if indices.ndim != 1:
        raise ValueError(f"cv must give one list of indices a part, but {name} are {part!r}.")
    return indices[sample_weight[indices] > 0]
