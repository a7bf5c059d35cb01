"""
A first network, trained by convex optimisation
===============================================

Two data sets, two networks each. The network on all features is trained on sampled activation patterns: its
certificate is a proof for those patterns only, and gradient training may find a better network on others. The
network on two components of forty samples is small enough to use all patterns: its certificate is global, and no
gradient training will ever get below the dashed line.

Run with ``python examples/plot_first_network.py [picture.png]``.
"""

import sys
from importlib.util import find_spec

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from convexbn import BatchNormDesign, ConvexBNClassifier, ConvexBNRegressor
from convexbn.plotting import plot_objectives

# %%
# Each task: the convex network, and two models every user of scikit-learn knows.

tasks = {
    "diabetes": (
        load_diabetes(return_X_y=True),
        ConvexBNRegressor,
        {"Ridge": Ridge(), "MLPRegressor": MLPRegressor(max_iter=3000, early_stopping=True, random_state=0)},
    ),
    "breast cancer": (
        load_breast_cancer(return_X_y=True),
        ConvexBNClassifier,
        {"LogisticRegression": LogisticRegression(), "MLPClassifier": MLPClassifier(max_iter=1000, random_state=0)},
    ),
}


def gradient_runs(model, X, y, n_runs=3):
    """Objectives of the same network trained by Adam in PyTorch from several starts; none without PyTorch."""
    if find_spec("torch") is None:
        return {}
    from convexbn.gradient import train

    options = {"weight_decay": model.weight_decay_, "loss": model.loss, "fit_intercept": True, "n_neurons": 100}
    return {f"Adam, seed {seed}": train(X, y, n_steps=1000, random_state=seed, **options)[1] for seed in range(n_runs)}


# %%
# Fit, certify, compare. ``certificate_`` says how good the network is and what the proof covers.

figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
for column, (name, ((X, y), Model, peers)) in enumerate(tasks.items()):
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    # Gradient training on two components sees the data projected on them, as the convex network does.
    leading = BatchNormDesign(n_components=2).fit(X_train[:40]).transform(X_train[:40])[:, :2]
    for row, (title, model, rows, inputs) in enumerate(
        [
            ("all features", Model(random_state=0), slice(None), X_train),
            ("two components, forty samples", Model(n_components=2), slice(40), leading),
        ]
    ):
        model.fit(X_train[rows], y_train[rows])
        certificate = model.certificate_
        print(f"\n{name}, {title}: {len(model.network_)} neurons, weight decay {model.weight_decay_:.4g}")
        print(certificate)
        targets = np.where(y_train[rows] == 1, 1.0, -1.0) if Model is ConvexBNClassifier else y_train[rows]
        # PyTorch starts at weights of order one, so it gets standardised targets in regression.
        scale, shift = (1.0, 0.0) if Model is ConvexBNClassifier else (targets.std(), targets.mean())
        model.weight_decay_ /= scale
        runs = gradient_runs(model, inputs, (targets - shift) / scale)
        runs = {label: objectives * scale**2 for label, objectives in runs.items()}
        model.weight_decay_ *= scale
        if runs:
            best = min(objectives.min() for objectives in runs.values())
            print(f"The same network trained by Adam in PyTorch, best of {len(runs)}: objective {best:.8g}")
        ax = plot_objectives(certificate, runs, axes[row, column])
        ax.set_title(f"{name}, {title}")
        ax.set_yscale("log")
        if row == 0:
            scores = {type(model).__name__: model.score(X_test, y_test)}
            for label, peer in peers.items():
                scores[label] = make_pipeline(StandardScaler(), peer).fit(X_train, y_train).score(X_test, y_test)
            print("Test score: " + ", ".join(f"{label} {score:.3f}" for label, score in scores.items()))

path = sys.argv[1] if len(sys.argv) > 1 else "first_network.png"
figure.savefig(path, dpi=120)
print(f"\nPicture: {path}")
