"""What the regressor and the classifier of tables share: a weight decay and a feature metric that may be chosen."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._feature_metric import check_feature_metric
from convexbn.designs._normalizations import NORMALIZATIONS, make_design
from convexbn.designs._weight_norm import WeightNormDesign
from convexbn.estimators._base import Dense, Prepared
from convexbn.estimators._fixed import FixedWeightDecay
from convexbn.model._problem import Problem
from convexbn.solvers._monitor import Clock


@dataclass(kw_only=True, eq=False, repr=False)
class Tabular(Dense, FixedWeightDecay):
    """Base class of the estimators of tables whose weight decay is a parameter."""

    feature_metric: Any = "auto"

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if isinstance(self.feature_metric, str) and self.feature_metric != "auto":
            raise ValueError(
                f'feature_metric={self.feature_metric!r} must be "auto", None or a symmetric matrix (d, d).'
            )
        check_feature_metric(self._given_metric)
        if self._given_metric is not None and not NORMALIZATIONS[self.normalization].whitens:
            raise ValueError(
                f"feature_metric is for normalization='batch', got normalization={self.normalization!r}; leave it at "
                '"auto" or None.'
            )

    @property
    def _given_metric(self) -> Any:
        return None if isinstance(self.feature_metric, str) else self.feature_metric

    @property
    def _learns_metric(self) -> bool:
        return isinstance(self.feature_metric, str) and self._has_fast_path

    def _unfitted_design(
        self, n_components: int | float | None, spectral_power: float
    ) -> BatchNormDesign | WeightNormDesign:
        return make_design(self.normalization, n_components, spectral_power, self.standardize, self._given_metric)

    def _learn(self, prepared: Prepared, problem: Problem, clock: Clock, **limits: Any) -> None:
        super()._learn(prepared, problem, clock, **limits)
        metric = getattr(prepared.design, "feature_metric", None)
        self.feature_metric_ = None if metric is None else np.array(metric, dtype=np.float64)
