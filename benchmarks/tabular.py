"""How well, and how fast, beside the models that scikit-learn's users know, on scikit-learn's own data sets?

Nested cross-validation: five outer folds for the score, and inside each of them a cross-validation by which every
model chooses its parameters from a small grid. Two classes only: wine is class 0 against the rest, digits 0 against 1.
The time is that of a whole fit with its inner cross-validation, on one core.
"""

import warnings
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from benchmarks.harness import (
    caption,
    environment,
    median_of,
    parse_arguments,
    pyplot,
    target,
    threads,
    timed,
    write_json,
)
from convexbn import ConvexBNClassifierCV, ConvexBNRegressorCV

OUTER, INNER = 5, 3
# A grid as coarse as those of the others, and a gap far below what a score can tell.
OURS = {"n_weight_decays": 8, "eps": 0.05, "tol": 1e-3, "max_iter": 10, "random_state": 0}


def data_sets() -> dict[str, tuple[np.ndarray, np.ndarray, bool]]:
    """Name, then features, target and whether it is a classification."""
    X, y = load_diabetes(return_X_y=True)
    sets = {"diabetes": (X, (y - y.mean()) / y.std(), False)}  # a unit, which R2 does not depend on
    X, y = load_breast_cancer(return_X_y=True)
    sets["breast cancer"] = (X, y, True)
    X, y = load_wine(return_X_y=True)
    sets["wine, class 0"] = (X, (y == 0).astype(int), True)
    X, y = load_digits(n_class=2, return_X_y=True)
    sets["digits 0-1"] = (X, y, True)
    return sets


def models(classification: bool) -> dict:
    """Each model with its grid, searched in the inner folds."""
    inner = (StratifiedKFold if classification else KFold)(INNER, shuffle=True, random_state=0)

    def search(estimator, **grid):
        name = type(estimator).__name__.lower()
        pipeline = make_pipeline(StandardScaler(), estimator)
        return GridSearchCV(pipeline, {f"{name}__{key}": values for key, values in grid.items()}, cv=inner)

    mlp = {"hidden_layer_sizes": [(20,), (100,)], "alpha": [1e-3, 1e-1, 10.0]}
    boosting = {"learning_rate": [0.03, 0.1], "max_leaf_nodes": [4, 15]}
    kernel = {"C": [0.1, 1.0, 10.0, 100.0], "gamma": [1e-3, 1e-2, 1e-1]}
    if classification:
        return {
            "ConvexBNClassifierCV": ConvexBNClassifierCV(cv=inner, **OURS),
            "MLP": search(MLPClassifier(max_iter=500, random_state=0), **mlp),
            "HistGradientBoosting": search(HistGradientBoostingClassifier(random_state=0), **boosting),
            "LogisticRegression": search(LogisticRegression(max_iter=5000), C=np.logspace(-3, 3, 7)),
            "SVC": search(SVC(), **kernel),
        }
    return {
        "ConvexBNRegressorCV": ConvexBNRegressorCV(cv=inner, **OURS),
        "MLP": search(MLPRegressor(max_iter=500, random_state=0), **mlp),
        "HistGradientBoosting": search(HistGradientBoostingRegressor(random_state=0), **boosting),
        "Ridge": search(Ridge(), alpha=np.logspace(-3, 3, 7)),
        "SVR": search(SVR(), **kernel),
    }


def measure(X: np.ndarray, y: np.ndarray, classification: bool, n_outer: int) -> dict[str, dict]:
    """Scores of the outer folds, and seconds of their fits, for every model."""
    outer = (StratifiedKFold if classification else KFold)(OUTER, shuffle=True, random_state=1)
    folds = list(outer.split(X, y))[:n_outer]
    results = {}
    for name, model in models(classification).items():
        scores, seconds = [], []
        for train, test in folds:
            with threads(1), warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # of grid points that are too hard
                elapsed, fitted = timed(lambda model=model, train=train: clone(model).fit(X[train], y[train]))
            scores.append(float(fitted.score(X[test], y[test])))
            seconds.append(elapsed)
        results[name] = {
            "score": mean(scores),
            "standard_deviation": stdev(scores) if len(scores) > 1 else 0.0,
            "scores": scores,
            "fit_seconds": median_of(seconds),
        }
        print(f"  {name:22} {results[name]['score']:.3f}, fit {results[name]['fit_seconds']:.3g} s", flush=True)
    return results


def targets(data: dict[str, dict]) -> list[dict]:
    """The rows of the summary; nothing was required of these scores."""
    rows = []
    for name, entry in data.items():
        ours = next(model for model in entry["models"] if model.startswith("ConvexBN"))
        figures = [
            f"{'convexbn' if model == ours else model} {result['score']:.3f} ({result['fit_seconds']:.2g} s)"
            for model, result in entry["models"].items()
        ]
        rows.append(target(f"{name}: {entry['metric']} (fit time)", ", ".join(figures), None))
    return rows


def draw(results: dict, path: Path) -> None:
    """One panel a data set: score with the spread over the outer folds, and the fit time in words."""
    plt = pyplot()
    data = results["data"]
    figure, axes = plt.subplots(1, len(data), figsize=(4.4 * len(data), 3.6), layout="constrained", squeeze=False)
    for (name, entry), ax in zip(data.items(), axes[0], strict=True):
        for height, (model, result) in enumerate(reversed(entry["models"].items())):
            ours = model.startswith("ConvexBN")
            ax.plot(result["scores"], [height] * len(result["scores"]), ".", color="0.7")
            ax.plot(result["score"], height, "o", markersize=8, color="black" if ours else "C0")
            ax.annotate(
                f"{result['score']:.3f}, {result['fit_seconds']:.2g} s",
                (result["score"], height),
                xytext=(0, 9),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        labels = ["convexbn" if model.startswith("ConvexBN") else model for model in reversed(entry["models"])]
        ax.set_yticks(range(len(labels)), labels)
        ax.set(ylim=(-0.5, len(labels) - 0.3), xlabel=entry["metric"], title=f"{name} ({entry['n']} x {entry['d']})")
        ax.margins(x=0.15)
    machine = results["environment"]
    caption(
        figure,
        f"Large: mean over {results['n_outer']} outer folds, small: each fold. Beside it the median time of a fit with "
        f"its inner {INNER}-fold search over the model's grid, one core. {machine['cpu']}, {machine['date'][:10]}.",
    )
    figure.savefig(path)
    print(f"Drew {path}")


def main() -> None:
    """Run, write, draw."""
    args = parse_arguments("tabular", __doc__)
    n_outer = 1 if args.quick else OUTER
    chosen = {"wine, class 0": data_sets()["wine, class 0"]} if args.quick else data_sets()
    results = {"environment": environment(), "quick": args.quick, "n_outer": n_outer, "n_inner": INNER, "data": {}}
    for name, (X, y, classification) in chosen.items():
        print(name)
        metric = "accuracy" if classification else "R2"
        shape = {"n": len(X), "d": X.shape[1], "metric": metric}
        results["data"][name] = shape | {"models": measure(X, y, classification, n_outer)}
    results["targets"] = [] if args.quick else targets(results["data"])
    draw(write_json(args.json, results), args.png)


if __name__ == "__main__":
    main()
