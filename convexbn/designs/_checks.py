"""Checks of the parameters of designs."""

from typing import Any, Protocol

import numpy as np

from convexbn._utils.checks import is_number


def check_components(n_components: object, largest: int) -> None:
    """Raise a ValueError unless `n_components` is None, an int in [1, largest] or a float in (0, 1]."""
    if n_components is None:
        return
    valid: bool | np.bool
    if isinstance(n_components, bool):
        valid = False
    elif isinstance(n_components, (int, np.integer)):
        valid = 1 <= n_components <= largest
    else:
        valid = isinstance(n_components, (float, np.floating)) and 0 < n_components <= 1
    if not valid:
        raise ValueError(
            f"n_components={n_components!r} is out of range: give None, an int from 1 to {largest}, the smaller side "
            "of the data X, or a float in (0, 1], the fraction of the variance to keep."
        )


def check_spectral_power(spectral_power: object) -> None:
    """Raise a ValueError unless `spectral_power` is a finite number from 0 on."""
    if not (is_number(spectral_power) and 0 <= spectral_power < np.inf):  # type: ignore[operator]
        raise ValueError(
            f"spectral_power={spectral_power!r} must be a finite number from 0 on: 0 treats all singular directions "
            "alike, 1 weighs them like the data itself."
        )


def check_standardize(standardize: object) -> None:
    """Raise a ValueError unless `standardize` is True or False."""
    if not isinstance(standardize, (bool, np.bool)):
        raise ValueError(f"standardize={standardize!r} must be True or False.")


def check_rtol(rtol: object) -> None:
    """Raise a ValueError unless `rtol` is a number from 0 to 1, 1 left out."""
    if not (is_number(rtol) and 0 <= rtol < 1):  # type: ignore[operator]
        raise ValueError(
            f"rtol={rtol!r} must be a number from 0 to 1, without 1: the smallest singular value to keep over the "
            "largest."
        )


class Features(Protocol):
    """Number and names of features, as a `RowSource` has them."""

    @property
    def n_features(self) -> int: ...

    @property
    def feature_names(self) -> Any: ...


def check_features(estimator: Any, source: Features, *, reset: bool) -> None:
    """Number and names of the features of a source: set as scikit-learn does where `reset`, else compared.

    Raises
    ------
    ValueError
        If they are not those that the estimator was fitted on.
    """
    names = source.feature_names
    if reset:
        estimator.n_features_in_ = source.n_features
        if names is not None:
            estimator.feature_names_in_ = np.asarray(names, dtype=object)
        elif hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
        return
    if source.n_features != estimator.n_features_in_:
        raise ValueError(
            f"X has {source.n_features} features, but {type(estimator).__name__} was fitted on "
            f"{estimator.n_features_in_}."
        )
    known = getattr(estimator, "feature_names_in_", None)
    if names is not None and known is not None and list(names) != list(known):
        raise ValueError(
            f"X has the features {list(names)}, but {type(estimator).__name__} was fitted on {list(known)}; give them "
            "in this order."
        )
