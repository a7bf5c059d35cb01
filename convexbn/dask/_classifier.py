"""The classifier on dask collections."""

from dataclasses import dataclass
from typing import Any

from sklearn.utils.metaestimators import available_if

from convexbn.dask._estimator import OnDask
from convexbn.estimators._classifier import ConvexBNClassifier, _has_probabilities


@dataclass(kw_only=True, eq=False, repr=False)
class DaskConvexBNClassifier(OnDask, ConvexBNClassifier):
    """`ConvexBNClassifier` for rows on a dask cluster, more than one machine's memory holds.

    Parameters
    ----------
    weight_decay, normalization, ... :
        As of `ConvexBNClassifier`, with the differences that `DaskConvexBNRegressor` states.
    client : distributed.Client or None, default=None
        Client of the cluster; None takes the one that was made last.

    Attributes
    ----------
    client_ : distributed.Client
        The client that was used.
    network_, certificate_, ... :
        As of `ConvexBNClassifier`.

    Examples
    --------
    >>> import pytest
    >>> distributed, da = pytest.importorskip("distributed"), pytest.importorskip("dask.array")
    >>> from convexbn.dask import DaskConvexBNClassifier
    >>> with distributed.Client(processes=False, dashboard_address=":0") as client:
    ...     X = da.random.default_rng(0).standard_normal((60, 2), chunks=(20, 2))
    ...     model = DaskConvexBNClassifier(0.02).fit(X, abs(X[:, 0]) > 0.7)
    ...     print(model.classes_, model.predict_proba(X).chunks)
    [False  True] ((20, 20, 20), (2,))
    """

    client: Any = None
    _in_memory = ConvexBNClassifier

    def decision_function(self, X: Any) -> Any:
        """Network outputs (n, C) for X (n, d), for two classes (n,): a dask array of dask collections."""
        return self._on_blocks("decision_function", X)

    def predict(self, X: Any) -> Any:
        """Predict labels (n,) of X (n, d): a dask array of dask collections, which are not computed."""
        return self._on_blocks("predict", X)

    @available_if(_has_probabilities)
    def predict_proba(self, X: Any) -> Any:
        """Probabilities (n, C) of the classes for X (n, d): a dask array of dask collections."""
        return self._on_blocks("predict_proba", X)
