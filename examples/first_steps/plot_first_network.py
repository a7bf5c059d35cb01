"""
A first network, trained by convex optimisation
===============================================

Two data sets, two networks each, at a weight decay that is given. The network on all features is trained by column
generation: neurons enter by their price until a search finds none worth adding. Its certificate is local: evidence, and
beside it the best lower bound that is proved. The network on the first principal component is small enough to price
every direction: its certificate is global, and no gradient training will ever get below it.

An optimum is not the best prediction; :ref:`sphx_glr_auto_examples_prediction_plot_self_tuning.py` goes on from here.

Run with ``python examples/first_steps/plot_first_network.py [picture.png]``.
"""

import sys
from importlib.util import find_spec

import numpy as np
from matplotlib import pyplot as plt
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from convexbn import ConvexBNClassifier, ConvexBNRegressor
from convexbn.plotting import plot_objectives


def fit_and_certify(model, X, y):
    """Fit the convex network and print how good it is, what the proof covers, and how large the network is."""
    model.fit(X, y)
    print(f"{len(model.network_)} neurons, weight decay {model.weight_decay_:.4g}")
    print(model.certificate_)
    return model


def train_by_adam(model, X, y, n_runs=3):
    """Train the same network by Adam in PyTorch from several starts; return the objectives, none without PyTorch."""
    if find_spec("torch") is None:
        print("PyTorch is not installed, so there is no gradient-trained network to compare with.")
        return {}
    from convexbn.gradient import train

    options = {"weight_decay": model.weight_decay_, "loss": model.loss, "fit_intercept": True, "n_neurons": 100}
    runs = {f"Adam, seed {seed}": train(X, y, n_steps=1000, random_state=seed, **options)[1] for seed in range(n_runs)}
    best = min(trace.objective.min() for trace in runs.values())
    print(f"The same network trained by Adam in PyTorch, best of {n_runs} starts: objective {best:.8g}")
    return runs


# %%
# The data. Targets of the regression are divided by their standard deviation, so that Adam starts close enough.

X, y = load_diabetes(return_X_y=True)
tasks = {
    "diabetes": (
        X,
        (y - y.mean()) / y.std(),
        ConvexBNRegressor(weight_decay=0.016),
        (Ridge(), MLPRegressor(max_iter=2000, early_stopping=True)),
    )
}
X, y = load_breast_cancer(return_X_y=True)
tasks["breast cancer"] = (
    X,
    np.where(y == 1, 1, -1),
    ConvexBNClassifier(weight_decay=0.01),
    (LogisticRegression(), MLPClassifier(max_iter=2000)),
)

# %%
# First the network on all features, and how well it predicts beside well-known models of scikit-learn;
# then the small network whose optimum is proved.

figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
for (name, (X, y, unfitted, peers)), (top, bottom) in zip(tasks.items(), axes.T, strict=True):
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)

    print(f"\n== {name}, all features ==")
    model = fit_and_certify(clone(unfitted), X_train, y_train)
    plot_objectives(model.certificate_, train_by_adam(model, X_train, y_train), top)
    top.set(title=f"{name}, all {X.shape[1]} features", yscale="log")
    scores = {type(model).__name__: model.score(X_test, y_test)}
    for peer in peers:
        if "random_state" in peer.get_params():
            peer.set_params(random_state=0)
        pipeline = make_pipeline(StandardScaler(), peer).fit(X_train, y_train)
        scores[type(peer).__name__] = pipeline.score(X_test, y_test)
    print("Test score: " + ", ".join(f"{label} {score:.3f}" for label, score in scores.items()))

    print(f"\n== {name}, first principal component ==")
    X_first = make_pipeline(StandardScaler(), PCA(n_components=1)).fit_transform(X_train)
    model = fit_and_certify(clone(unfitted), X_first, y_train)
    plot_objectives(model.certificate_, train_by_adam(model, X_first, y_train), bottom)
    bottom.set(title=f"{name}, first principal component", yscale="log")

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=120)
    print(f"\nPicture: {sys.argv[1]}")
else:
    plt.show()
