"""
What gradient descent prefers, and the convex program does not
==============================================================

Gradient descent on the weights of a linear model moves the fit along singular direction i of the data in proportion to
S_i^2: large directions are fitted long before small ones. A batch-normalized network is trained on whitened data in
effect, and its global optimum treats all directions alike. So the two can predict differently although they minimise
the same objective, and which of them predicts better depends on where the signal is. The data here is made to show
both cases: four large directions, four that are more than ten times smaller, and targets that depend on one group only.

The bias of gradient descent can be had explicitly: `n_components` keeps the leading directions, `spectral_power`
raises the penalty of small ones instead of leaving them out. Both are chosen on a validation set, not on the test set.

Run with ``python examples/theory/plot_implicit_regularization.py [picture.png]``. Needs PyTorch.
"""

import sys
import warnings

import numpy as np
from matplotlib import pyplot as plt
from sklearn.exceptions import ConvergenceWarning

from convexbn import BatchNormDesign, BatchNormNetwork, convexbn_path, spectral_trace
from convexbn.gradient import train
from convexbn.plotting import plot_spectral_trace

plt.style.use("convexbn.plotting.colors")

warnings.simplefilter("ignore", ConvergenceWarning)  # relative gaps of about 1e-3 do not show in a test error

N_LARGE, D, WEIGHT_DECAY, N_STEPS = 4, 8, 0.01, 2000
SCALES = np.geomspace(1, 0.5, D) * np.where(np.arange(D) < N_LARGE, 1, 0.1)


def make_data(n, signal, rng):
    """Draw data whose targets depend on the columns `signal`, each as much as the next, with noise."""
    Z = rng.standard_normal((n, D))
    directions = np.random.default_rng(5).standard_normal((N_LARGE, 3)) / 2
    y = Z[:, signal].sum(axis=1) + np.abs(Z[:, signal] @ directions).sum(axis=1)
    return Z * SCALES, y / 2 + 0.5 * rng.standard_normal(n)


def descend(X, y, callback=None):
    """Train a network by gradient descent from the usual start, Gaussian weights on the data as it is."""
    return train(
        X,
        y,
        weight_decay=WEIGHT_DECAY,
        fit_intercept=True,
        start=BatchNormNetwork.at_initialization(X, 50, n_outputs=1, random_state=0),
        optimizer="sgd",
        learning_rate=0.05,
        n_steps=N_STEPS,
        callback=callback,
    )


def solve(X, y, weight_decays=(WEIGHT_DECAY,), **options):
    """Solve the convex program at falling weight decays, on the singular directions of the data as they are."""
    options = {"weight_decays": weight_decays, "tol": 1e-3, "max_iter": 10, "standardize": False, **options}
    return convexbn_path(X, y, **options).networks


def error(network, X, y):
    return float(np.mean((network.predict(X)[:, 0] - y) ** 2))


# %%
# How fast is each direction fitted? The target of this part has the same component along every left singular vector.
# Gradient descent is followed over its steps. The convex program has no steps of its own, so it is followed along its
# path, from a large weight decay, where the network is zero, down to the one that gradient descent has. Each point of
# the path is an optimum, whatever solver found it. Truncated to the large directions, the path leaves the small ones
# all but unfitted, as gradient descent does in its first hundred steps. What it still reaches of them, where it
# overfits at the end, is what 100 samples let functions of the large directions have in common with them.

figure, axes = plt.subplot_mosaic(
    [["descent"] * 2 + ["path"] * 2 + ["truncated"] * 2, ["large"] * 3 + ["small"] * 3],
    figsize=(14, 8),
    layout="constrained",
)
X = make_data(100, slice(0, D // 2), np.random.default_rng(0))[0]
y = BatchNormDesign().fit_transform(X)[:, :-1].sum(axis=1) / np.sqrt(D)
fits = []
descend(X, y, lambda step, f: fits.append(f[:, 0].copy()))
by_descent = spectral_trace(X, y, fits)
grid = WEIGHT_DECAY * np.geomspace(60, 1, 8)
by_path, by_truncated_path = (
    spectral_trace(X, y, [network.predict(X)[:, 0] for network in solve(X, y, grid, n_components=kept)], steps=grid)
    for kept in (None, N_LARGE)
)
for name, title, xlabel, trace in (
    ("descent", "gradient descent: large directions first", "step", by_descent),
    ("path", "convex program along its path: all alike", "weight decay", by_path),
    ("truncated", f"truncated: {N_LARGE} large directions only", "weight decay", by_truncated_path),
):
    plot_spectral_trace(trace, axes[name], xlabel=xlabel).set_title(title)
    reached = [int(np.argmax(share >= 0.5)) if (share >= 0.5).any() else "never" for share in trace.shares.T]
    print(
        f"{title}. Half of each component, from the largest direction down, is fitted after so many points: {reached}"
    )
for name in ("path", "truncated"):
    axes[name].invert_xaxis()

# sphinx_gallery_defer_figures

# %%
# What does that do to predictions? Once the signal is in the large directions, once in the small ones.

for name, signal in {"large": slice(0, N_LARGE), "small": slice(N_LARGE, D)}.items():
    rng = np.random.default_rng(0)
    X, y = make_data(100, signal, rng)
    X_validation, y_validation = make_data(300, signal, rng)
    X_test, y_test = make_data(2000, signal, rng)
    print(f"\n== Signal in the {name} directions; variance of the target {y_test.var():.2f}, of its noise 0.25 ==")

    descended, convex = descend(X, y)[0], solve(X, y)[0]
    networks = {f"gradient descent,\n{N_STEPS} steps": descended, "convex,\nall directions": convex}
    for option, label, choices in (
        ("n_components", "convex,\n{} directions", (2, 4, 6, 8)),
        ("spectral_power", "convex,\npower {}", (0.0, 0.25, 0.5, 1.0)),
    ):
        candidates = {choice: solve(X, y, **{option: choice})[0] for choice in choices}
        best = min(candidates, key=lambda choice: error(candidates[choice], X_validation, y_validation))
        networks[label.format(best)] = candidates[best]
    errors = {label: error(network, X_test, y_test) for label, network in networks.items()}
    for network, (label, value) in zip(networks.values(), errors.items(), strict=True):
        objective = network.objective(X, y, WEIGHT_DECAY)
        print(f"Test error {value:.3f}, training objective {objective:.4f}: {' '.join(label.split())}")
    axes[name].barh(list(errors), list(errors.values()), color=["C1"] + ["C0"] * 3)
    axes[name].invert_yaxis()
    axes[name].set(title=f"test error, signal in {name} directions", xlabel="mean squared error")

# %%
# The convex network has the lowest training objective every time. Where the signal is in the large directions that is
# no merit: it fits noise along the small ones. Where the signal is in the small directions it is, and gradient descent
# is on the path to it at best. Truncation and weighting are prior knowledge; validation says whether it is right.

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=120)
    print(f"\nPicture: {sys.argv[1]}")
else:
    plt.show()
