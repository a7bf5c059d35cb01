"""The designs of a dense network, by the name of their normalization."""

from numpy.typing import ArrayLike

from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._post_activation import PostActivationBatchNormDesign
from convexbn.designs._weight_norm import WeightNormDesign

NORMALIZATIONS: dict[str, type[BatchNormDesign] | type[WeightNormDesign]] = {
    "batch": BatchNormDesign,
    "weight": WeightNormDesign,
    "batch_after_relu": PostActivationBatchNormDesign,
}


def make_design(
    normalization: str,
    n_components: int | float | None,
    spectral_power: float,
    standardize: bool,
    feature_metric: ArrayLike | None = None,
) -> BatchNormDesign | WeightNormDesign:
    """Unfitted design of a normalization; `standardize` and `feature_metric` are for batch normalization alone."""
    if normalization == "batch_after_relu":  # whose problem does not depend on the lengths of directions
        return PostActivationBatchNormDesign(n_components)
    if normalization == "weight":  # whose penalty depends on the scale of the columns
        return WeightNormDesign(n_components, spectral_power=spectral_power)
    return BatchNormDesign(
        n_components, spectral_power=spectral_power, standardize=standardize, feature_metric=feature_metric
    )
