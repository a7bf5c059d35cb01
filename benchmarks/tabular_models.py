"""The models of tabular.py, by default and tuned, and one fit of one of them, on one thread.

Models of scikit-learn that need it are given a StandardScaler; all other arguments are the defaults, apart from seeds,
threads and silence.
"""

import importlib.util
import time
import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from benchmarks.harness import PeerMissing, threads
from benchmarks.tabular_data import Table
from convexbn import ConvexBNClassifier, ConvexBNClassifierCV, ConvexBNRegressor, ConvexBNRegressorCV

OURS = "convexbn"
AFTER_RELU = "convexbn, BN after the ReLU"  # a second model of ours, which has no part in ranks and targets
SKLEARN = ("HistGradientBoosting", "MLP", "linear", "SVM")  # linear: ridge or logistic regression
PACKAGES = {
    "CatBoost": "catboost",
    "LightGBM": "lightgbm",
    "EBM": "interpret",
    "RealMLP": "pytabkit",
    "TabM": "pytabkit",
}
DISTRIBUTIONS = ("catboost", "lightgbm", "interpret-core", "pytabkit")  # as they are installed
MODELS = (OURS, AFTER_RELU, *SKLEARN, *PACKAGES)
INNER = 3  # folds in which a tuned model chooses
GRIDS: dict[str, dict[str, list]] = {
    "HistGradientBoosting": {"learning_rate": [0.03, 0.1, 0.3], "max_leaf_nodes": [4, 15, 31]},
    "MLP": {"hidden_layer_sizes": [(20,), (100,), (100, 100)], "alpha": [1e-4, 1e-2, 1.0]},
    "SVM": {"C": [0.1, 1.0, 10.0, 100.0], "gamma": [1e-3, 1e-2, 1e-1, 1.0]},
    "CatBoost": {"learning_rate": [0.03, 0.1], "depth": [4, 6]},
    "LightGBM": {"learning_rate": [0.03, 0.1], "num_leaves": [4, 15, 31], "n_estimators": [100, 400]},
    "EBM": {"learning_rate": [0.005, 0.015, 0.05]},
}
TUNED = (OURS, "linear", *GRIDS)  # the searches that the authors of the deep models advise take days on one core


def default_model(name: str, classification: bool) -> BaseEstimator:
    """The model as its users get it; PeerMissing where it is not installed."""
    if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
        raise PeerMissing(f"{name} is skipped: pip install {PACKAGES[name]}")
    if name == OURS:
        return ConvexBNClassifier() if classification else ConvexBNRegressor()
    if name == AFTER_RELU:
        return (ConvexBNClassifier if classification else ConvexBNRegressor)(normalization="batch_after_relu")
    if name == "HistGradientBoosting":
        kind = HistGradientBoostingClassifier if classification else HistGradientBoostingRegressor
        return kind(random_state=0)
    if name == "MLP":
        return _scaled(MLPClassifier(random_state=0) if classification else MLPRegressor(random_state=0))
    if name == "linear":
        return _scaled(LogisticRegression() if classification else Ridge())
    if name == "SVM":
        return _scaled(SVC() if classification else SVR())
    return _peer(name, classification)


def tuned_model(name: str, classification: bool) -> BaseEstimator:
    """The model with a search over its own usual grid, in three inner folds."""
    inner = (StratifiedKFold if classification else KFold)(INNER, shuffle=True, random_state=0)
    if name == OURS:
        return ConvexBNClassifierCV(cv=inner) if classification else ConvexBNRegressorCV(cv=inner)
    model = default_model(name, classification)
    grid = GRIDS[name] if name != "linear" else {"C" if classification else "alpha": list(np.logspace(-3, 3, 13))}
    prefix = f"{model.steps[-1][0]}__" if hasattr(model, "steps") else ""
    scoring = "accuracy" if classification else "neg_mean_squared_error"
    return GridSearchCV(model, {prefix + key: values for key, values in grid.items()}, cv=inner, scoring=scoring)


def measure(name: str, tuned: bool, table: Table, split: int) -> dict[str, Any]:
    """Score on the test part (root mean squared error in deviations of the train target, or accuracy), and seconds.

    An exception is a result too: its text stands in the place of the score.
    """
    X, y, X_test, y_test = table.split(split)
    model = (tuned_model if tuned else default_model)(name, table.classification)
    with threads(1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start, cpu = time.perf_counter(), time.process_time()
        try:
            model.fit(X, y)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"[:300]}
        fitted, fitted_cpu = time.perf_counter(), time.process_time()
        predicted = np.asarray(model.predict(X_test)).reshape(len(X_test))
        end = time.perf_counter()
    agree = predicted == y_test if table.classification else None
    score = np.mean(agree) if agree is not None else np.sqrt(np.mean((predicted - y_test) ** 2))
    return {
        "score": float(score),
        "n": len(X),
        "d": X.shape[1],
        "fit_seconds": fitted - start,
        "fit_cpu_seconds": fitted_cpu - cpu,
        "predict_seconds": end - fitted,
        "warnings": sorted({f"{entry.category.__name__}: {entry.message}".split("\n")[0][:200] for entry in caught}),
    }


def _scaled(model: BaseEstimator) -> BaseEstimator:
    return make_pipeline(StandardScaler(), model)


def _peer(name: str, classification: bool) -> BaseEstimator:
    """A model of another package; imported here, because it may be missing and takes seconds."""
    if name == "CatBoost":
        from catboost import CatBoostClassifier, CatBoostRegressor

        kind = CatBoostClassifier if classification else CatBoostRegressor
        return kind(random_seed=0, thread_count=1, verbose=False, allow_writing_files=False)
    if name == "LightGBM":
        from lightgbm import LGBMClassifier, LGBMRegressor

        return (LGBMClassifier if classification else LGBMRegressor)(random_state=0, n_jobs=1, verbosity=-1)
    if name == "EBM":
        from interpret.glassbox import ExplainableBoostingClassifier, ExplainableBoostingRegressor

        kind = ExplainableBoostingClassifier if classification else ExplainableBoostingRegressor
        return kind(random_state=0, n_jobs=1)
    import pytabkit

    short = {"RealMLP": "RealMLP_TD", "TabM": "TabM_D"}[name]
    kind = getattr(pytabkit, f"{short}_{'Classifier' if classification else 'Regressor'}")
    return kind(device="cpu", random_state=0, n_threads=1)
