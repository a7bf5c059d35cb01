"""The regressor on dask collections."""

from dataclasses import dataclass
from typing import Any

from convexbn.dask._estimator import OnDask
from convexbn.estimators._regressor import ConvexBNRegressor


@dataclass(kw_only=True, eq=False, repr=False)
class DaskConvexBNRegressor(OnDask, ConvexBNRegressor):
    """`ConvexBNRegressor` for rows on a dask cluster, more than one machine's memory holds.

    Parameters
    ----------
    weight_decay, normalization, ... :
        As of `ConvexBNRegressor`, but for ``normalization="batch_after_relu"``, which needs the rows in memory. Where a
        choice is left to the estimator whole blocks are held out, about a fifth of the samples, if there are five
        blocks of about equal size, so blocks should be alike: rows in the order of time or class are shuffled first.
        Samples that powers are compared on, up to 2000, are brought into memory. Gated networks work, but bring all
        rows of the design matrix into memory.
    client : distributed.Client or None, default=None
        Client of the cluster; None takes the one that was made last.

    Attributes
    ----------
    client_ : distributed.Client
        The client that was used.
    network_, certificate_, ... :
        As of `ConvexBNRegressor`.

    Examples
    --------
    >>> import pytest
    >>> distributed, da = pytest.importorskip("distributed"), pytest.importorskip("dask.array")
    >>> from convexbn.dask import DaskConvexBNRegressor
    >>> with distributed.Client(processes=False, dashboard_address=":0") as client:
    ...     X = da.random.default_rng(0).standard_normal((60, 2), chunks=(20, 2))
    ...     model = DaskConvexBNRegressor(0.1).fit(X, abs(X[:, 0]))
    ...     print(model.predict(X).chunks, model.certificate_.gap < 1e-3)
    ((20, 20, 20),) True
    >>> model.to_local().predict([[0.0, 1.0]]).shape
    (1,)
    """

    client: Any = None
    _in_memory = ConvexBNRegressor

    def predict(self, X: Any) -> Any:
        """Predict targets of X (n, d): a dask array (n, C) or (n,) of dask collections, which are not computed."""
        return self._on_blocks("predict", X)
