"""What the estimators on dask collections share: rows stay on the workers."""

from copy import copy
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from convexbn._utils.dask_tasks import gathered
from convexbn._utils.data_checks import check_X_y
from convexbn.dask._rows import WorkerRows, is_array, is_collection, partitions
from convexbn.designs._checks import check_features
from convexbn.designs._normalizations import NORMALIZATIONS
from convexbn.estimators._base import Dense, Prepared
from convexbn.estimators._fixed import FixedWeightDecay
from convexbn.model._problem import Problem

_NO_CLIENT = (
    "There is no dask client; start one: from distributed import Client, LocalCluster; client = Client(LocalCluster())."
)


if TYPE_CHECKING:

    class _Estimator(Dense, FixedWeightDecay):
        pass

else:
    _Estimator = object  # so that its defaults do not take the place of those of a regressor or classifier


class OnDask(_Estimator):
    """What makes an estimator in memory, the next base of its class, one of dask collections."""

    client: Any
    _in_memory: ClassVar[type[FixedWeightDecay]]

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None) -> Self:
        """Choose what is "auto" on held-out samples, and train the network.

        The blocks of X are computed once and stay on their workers, with the design matrix beside them, which is as
        large, in a block for each thread; a design matrix of up to four million entries is brought into memory, and so
        are held-out samples. Targets, weights, and a few arrays with a row for each sample, are in memory here: about
        ``100 + 40 C`` bytes for each sample. A quasi-Newton step sends neurons out and gets sums of their size back.
        Newton steps, of the accurate fit, bring outputs of neurons into memory, a number for each row and neuron; they
        are for up to some hundred thousand rows.

        Sums are added up in a fixed order, so the same rows on as many threads give the same network, up to the
        rounding of products whose arrays lie elsewhere in memory, as after the loss of a worker. Equal samples are not
        merged.

        Parameters
        ----------
        X : dask array or dataframe of shape (n, d)
            Training data with blocks of rows of any size, of about ten to a hundred megabytes each and at least as many
            as the cluster has threads. An array must know its chunk sizes. In single precision it stays so.
        y : dask array, series or dataframe, or array-like, of shape (n,) or (n, C)
            Targets of a regressor, one column an output; labels of a classifier.
        sample_weight : dask array or series, or array-like, of shape (n,) or None, default=None
            Weights of the samples, from zero on. All equal if None.
        groups : dask array or series, or array-like, of shape (n,) or None, default=None
            Groups of the samples: those of one group are held out together.

        Returns
        -------
        self : estimator

        Raises
        ------
        ValueError
            If there is no client, or a parameter or the data is out of range. The estimator is left as it was.
        RuntimeError
            If rows are lost with a worker, and dask cannot compute them again. The estimator is left as it was.
        KeyboardInterrupt
            After Ctrl-C. The estimator keeps the best network so far, if there is one.

        Warns
        -----
        ConvergenceWarning
            If the gap exceeds `tol`.
        """
        self._check_parameters()
        client = self._find_client()
        y, sample_weight, groups = (_in_memory(client, values) for values in (y, sample_weight, groups))
        return self._fit(X, y, sample_weight, groups)

    def to_local(self) -> Any:
        """Return a fitted estimator for data in memory, with the same network, certificate and other attributes."""
        check_is_fitted(self)
        mine = {field.name for field in fields(type(self)) if field.init}
        parameters = {name: value for name, value in self.get_params(deep=False).items() if name != "client"}
        local = self._in_memory(**parameters)
        for name, value in vars(self).items():
            if name not in mine and name != "client_":
                setattr(local, name, value)
        return local

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if NORMALIZATIONS[self.normalization].after_relu:
            raise ValueError(
                f"normalization={self.normalization!r} needs the rows in memory; take 'batch' or 'weight', or the "
                f"estimator in memory, {self._in_memory.__name__}."
            )

    def _find_client(self) -> Any:
        from distributed import get_client

        if self.client is not None:
            return self.client
        try:
            return get_client()
        except ValueError:
            raise ValueError(_NO_CLIENT) from None

    def _validate(self, X: ArrayLike, y: Any = "no_validation", **options: Any) -> Any:
        if isinstance(y, str):
            return super()._validate(X, y, **options)
        self.client_ = self._find_client()
        rows = WorkerRows.of(self.client_, X)
        _, targets = check_X_y(np.zeros((rows.shape[0], 1), dtype=np.int8), y, dtype=None, estimator=self, **options)
        check_features(self, rows, reset=True)
        return rows, targets

    def _distinct(
        self, X: Any, y: np.ndarray, weights: np.ndarray, groups: np.ndarray | None
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray | None]:
        """Samples of positive weight; equal ones, which may be on different workers, stay apart."""
        rows, kept = X.weighted(weights)
        return rows, y[kept], weights[kept], None if groups is None else groups[kept]

    def _prepare(
        self,
        X: Any,
        y: np.ndarray,
        weights: np.ndarray,
        spectral_power: float,
        n_components: int | float | None,
    ) -> tuple[Prepared, Problem]:
        design = X.learned(self._unfitted_design(n_components, spectral_power))
        prepared = Prepared(design, self._output_scales(y, weights))
        problem = Problem(
            X.matrix(design),
            y / prepared.output_scales,
            self._training_loss(),
            weight_decay=1.0,
            fit_intercept=self.fit_intercept,
            sample_weight=weights,
        )
        return prepared, problem

    def _on_blocks(self, method: str, X: Any) -> Any:
        """Values of a method of the estimator in memory: of each block of a dask collection, lazily, or of X as it is.

        Those of a dataframe have unknown chunk sizes.
        """
        local = self.to_local()
        if not is_collection(X):
            return getattr(local, method)(X)
        from dask import array, delayed

        first = _first_value(local, method)
        arguments, meta = (local, method, first[:0]), np.empty((0,) * first.ndim, dtype=first.dtype)
        if is_array(X) and first.ndim == 1:
            return X.rechunk({1: -1}).map_blocks(_values, *arguments, meta=meta, drop_axis=1)
        if is_array(X):
            return X.rechunk({1: -1}).map_blocks(_values, *arguments, meta=meta, chunks=(X.chunks[0], first.shape[1:]))
        parts = [delayed(_values)(part, *arguments) for part in partitions(X)]
        return array.concatenate([array.from_delayed(part, (np.nan, *first.shape[1:]), meta=meta) for part in parts])

    def __sklearn_clone__(self) -> Self:
        parameters = {
            name: value if name == "client" else clone(value, safe=False)
            for name, value in self.get_params(deep=False).items()
        }
        return type(self)(**parameters)

    def __getstate__(self) -> Any:
        return {name: None if name == "client" else value for name, value in super().__getstate__().items()} | (
            {"client_": None} if hasattr(self, "client_") else {}
        )


def _in_memory(client: Any, values: Any) -> Any:
    """Targets or weights as they are, or computed if they are a dask collection."""
    return gathered(client, [client.compute(values)])[0] if is_collection(values) else values


def _first_value(local: Any, method: str) -> np.ndarray:
    """Values of a method for a row of zeros, which say their type and shape."""
    nameless = copy(local)
    vars(nameless).pop("feature_names_in_", None)
    values: np.ndarray = getattr(nameless, method)(np.zeros((1, local.n_features_in_)))
    return values


def _values(block: Any, local: Any, method: str, none: np.ndarray) -> np.ndarray:
    values: np.ndarray = getattr(local, method)(block) if len(block) else none
    return values
