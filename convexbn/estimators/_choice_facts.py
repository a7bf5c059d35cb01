"""What a choice in a checkpoint depends on, beside its data."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

# Parameters that a choice does not depend on, or that its problem, folds, seed and limits stand for.
_FREE = {"loss", "cv", "random_state", "max_iter", "max_time", "checkpoint", "warm_start", "callback", "verbose"}
_FREE |= {"n_jobs", "client"}  # the latter of dask


def choice_facts(model: BaseEstimator) -> list[Any]:
    """The parameters of an estimator that its choice depends on."""
    parameters = {
        name: list(value.items()) if isinstance(value, dict) else value  # labels need be no keys of JSON
        for name, value in model.get_params(deep=False).items()
        if name not in _FREE
    }
    state: Any = model.random_state
    if isinstance(state, np.random.Generator):
        state = state.bit_generator.state
    elif isinstance(state, np.random.RandomState):
        state = state.get_state()
    return ["choice", parameters, state, model.max_iter is None if model._has_fast_path else model.max_iter]
