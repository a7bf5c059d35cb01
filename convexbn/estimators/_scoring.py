"""Scores of fitted networks on test samples, by any scorer of scikit-learn."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from inspect import signature
from numbers import Number
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.metrics import check_scoring, get_scorer
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _check_method_params

from convexbn.estimators._folds import Fold


def make_scorer(model: Any, scoring: str | Callable | None, default: str) -> Callable:
    """Return the scorer ``scorer(estimator, X, y)`` that `scoring` means.

    Parameters
    ----------
    model : estimator
        Estimator that the scorer is for.
    scoring : str, callable or None
        Name of a scorer, or a scorer; None takes the default.
    default : str
        Name of the default, which requests sample weights where metadata are routed.

    Returns
    -------
    scorer : callable

    Raises
    ------
    ValueError
        If `scoring` is no scorer.

    Examples
    --------
    >>> from convexbn import ConvexBNRegressorCV
    >>> from convexbn.estimators._scoring import make_scorer
    >>> make_scorer(ConvexBNRegressorCV(), "neg_max_error", "r2")
    make_scorer(max_error, greater_is_better=False, response_method='predict')
    """
    if scoring is None:
        with config_context(enable_metadata_routing=True):
            return get_scorer(default).set_score_request(sample_weight=True)
    if not (isinstance(scoring, str) or callable(scoring)):
        raise ValueError(f"scoring={scoring!r} must be the name of a scorer, a function, or None.")
    return check_scoring(model, scoring)


def takes_sample_weight(scorer: Callable) -> bool:
    """Whether a scorer has an argument ``sample_weight``, or its metric if scikit-learn made it of one."""
    try:
        return "sample_weight" in signature(getattr(scorer, "_score_func", scorer)).parameters
    except ValueError:  # a function of a C extension, without a signature
        return False


@dataclass(frozen=True)
class FoldScorer:
    """Scores of fitted models on test samples, which the scorer gets as the user gave them.

    Parameters
    ----------
    scoring : str, callable or None
        Name of the scorer in messages.
    scorer : callable
        Scorer ``scorer(estimator, X, y)``.
    X, y : array-like of n samples
        Data and targets, as they were given.
    metadata : dict
        What else the scorer is given; entries of n samples are cut to those that are tested.
    """

    scoring: str | Callable | None
    scorer: Callable
    X: Any = field(repr=False)
    y: Any = field(repr=False)
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)

    def __call__(self, model: Any, test: np.ndarray) -> float:
        """Score of a fitted model on the samples `test`.

        Raises
        ------
        ValueError
            If the scorer returns something else than one number.
        """
        metadata = _check_method_params(self.X, self.metadata, indices=test) | self._labels(model)
        # A scorer of scikit-learn takes keywords, if not always then where metadata are routed.
        routes = {"enable_metadata_routing": True} if metadata and hasattr(self.scorer, "_score_func") else {}
        with config_context(**routes):
            score = self.scorer(model, _safe_indexing(self.X, test), _safe_indexing(self.y, test), **metadata)
        score = score.item() if isinstance(score, (np.generic, np.ndarray)) and score.size == 1 else score
        if not isinstance(score, Number):
            raise ValueError(f"scoring must return one number, got {score!r}.")
        return float(score)  # type: ignore[arg-type]

    def _labels(self, model: Any) -> dict[str, Any]:
        """All labels, for metrics of probabilities: a test sample of each class there need not be."""
        metric = getattr(self.scorer, "_score_func", None)
        if metric is None or not hasattr(model, "classes_") or "labels" in getattr(self.scorer, "_kwargs", {}):
            return {}
        of_labels = getattr(self.scorer, "_response_method", "predict") == "predict"
        return {} if of_labels or "labels" not in signature(metric).parameters else {"labels": model.classes_}

    def check(self, models: Sequence[Any], folds: Sequence[Fold]) -> None:
        """Raise a ValueError if none of some fitted models has a finite score on a fold."""
        for number, (_, test) in enumerate(folds):
            failures: list[tuple[str, Exception | None]] = []
            for model in models:
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        score = self(model, test)
                except Exception as error:
                    failures.append((f"{type(error).__name__}: {error}".removesuffix("."), error))
                    continue
                if np.isfinite(score):
                    break
                failures.append((f"the score is {score}", None))
            else:
                reason, cause = failures[-1]
                size = "one test sample" if len(test) == 1 else f"{len(test)} test samples"
                larger = "larger test folds" + (" that hold every class" if hasattr(models[0], "classes_") else "")
                raise ValueError(
                    f"scoring={self.scoring!r} does not score fold {number} of cv, which has {size}: {reason}. Give a "
                    f"scoring for such targets and outputs, or a cv with {larger}."
                ) from cause
