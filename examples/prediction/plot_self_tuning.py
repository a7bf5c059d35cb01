"""
Choosing weight decay and spectral power on held-out samples
============================================================

The optimum of a training problem is not yet a good prediction: it depends on which problem was solved. Two values say
which. *Weight decay* penalises the weights: at a strong one the global optimum, with its certificate, is nearly a
straight line, and at hardly any it follows the noise. *Spectral power* is the penalty of neurons along directions in
which the data hardly varies. Batch normalization makes all directions alike, also those that are noise; gradient
descent avoids small directions by itself, and a spectral power above zero says so in the objective.

Neither value is known beforehand. Held-out samples decide: the default fit follows the weight decay
downwards for a few spectral powers while the loss on held-out samples falls, and trains on all samples at the values
with the least loss.

Run with ``python examples/prediction/plot_self_tuning.py [picture.png]``.
"""

import sys
import warnings

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from convexbn import ConvexBNClassifier, ConvexBNRegressor
from convexbn.plotting import ValidationDisplay

plt.style.use("convexbn.plotting.colors")

warnings.simplefilter("ignore", ConvergenceWarning)  # the last fit of a choice may stop short of tol; see certificates

figure, axes = plt.subplot_mosaic(
    [["fits"] * 6 + ["choice"] * 4, ["plain"] * 3 + ["weighted"] * 3 + ["patients"] * 4],
    figsize=(13, 8.5),
    layout="constrained",
)

# sphinx_gallery_defer_figures

# %%
# One feature. Every curve is the optimum of its weight decay: nothing went wrong in training, and only one of them
# predicts well.

rng = np.random.default_rng(0)
x = rng.uniform(-3, 3, 150)
X, y = x[:, None], np.sin(2 * x) + 0.3 * x + 0.35 * rng.standard_normal(150)
grid = np.linspace(-3, 3, 400)
truth = np.sin(2 * grid) + 0.3 * grid

chosen = ConvexBNRegressor(spectral_power=0).fit(X, y)
largest = chosen.validation_scores_["weight_decay"].max()
print("== one feature ==")
ax = axes["fits"]
ax.plot(x, y, ".", color="0.5", label="samples")
ax.plot(grid, truth, "k--", linewidth=1, label="truth")
for label, weight_decay, color in (
    ("strong", 0.3 * largest, "C0"),
    ("chosen", chosen.weight_decay_, "C3"),
    ("hardly any", 1e-5 * largest, "C4"),
):
    model = ConvexBNRegressor(weight_decay, tol=1e-3, max_time=3).fit(X, y)
    error = np.sqrt(np.mean((model.predict(grid[:, None]) - truth) ** 2))
    print(f"weight decay {weight_decay:.2g} ({label}): error {error:.2f}; {model.certificate_}")
    ax.plot(
        grid,
        model.predict(grid[:, None]),
        color=color,
        label=f"{label}: weight decay {weight_decay:.1g}, error {error:.2f}",
    )
ax.set(title="Three optima, one good prediction", xlabel="feature", ylabel="target", ylim=(-3, 4.5))
ax.legend(fontsize="small", loc="upper left")

ValidationDisplay.from_estimator(chosen, ax=axes["choice"])
axes["choice"].set_title("What held-out samples say")

# sphinx_gallery_defer_figures

# %%
# Eight features that measure the same thing, each with noise of its own. Along their mean the data varies a lot; along
# the seven other directions it varies little, and nothing but noise is to be found. At spectral power 0 all directions
# cost the same, and predictions scatter with the noise; at spectral power 1 neurons along small ones cost more.

n_train, n_features = 80, 8
thing = rng.uniform(-2, 2, 1000)
X = thing[:, None] + 0.3 * rng.standard_normal((1000, n_features))
y = np.abs(thing) + 0.5 * rng.standard_normal(1000)
test = np.arange(n_train, 1000)

print("\n== eight features that measure the same ==")
for key, spectral_power in (("plain", 0), ("weighted", 1)):
    model = ConvexBNRegressor(spectral_power=spectral_power).fit(X[:n_train], y[:n_train])
    prediction = model.predict(X[test])
    error = np.sqrt(np.mean((prediction - np.abs(thing[test])) ** 2))
    print(f"spectral power {spectral_power}: weight decay {model.weight_decay_:.2g}, error {error:.3f}")
    ax = axes[key]
    ax.plot(thing[test], prediction, ".", color="C0", markersize=3, label="predictions on new samples")
    ax.plot([-2, 0, 2], [2, 0, 2], "k--", linewidth=1, label="truth")
    ax.set(
        title=f"Spectral power {spectral_power}: error {error:.2f}", xlabel="what the features measure", ylim=(-2, 5)
    )
    ax.legend(fontsize="small", loc="upper center")

# sphinx_gallery_defer_figures

# %%
# A real set: 30 measurements of cells, many of which go together. Powers race: those that fall behind on two folds are
# not followed on the others (dashed). Power 1 is chosen unless another one is better by more than chance.

X, y = load_breast_cancer(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=200, stratify=y, random_state=0)
print("\n== breast cancer ==")
for spectral_power in (0, "auto"):
    model = ConvexBNClassifier(spectral_power=spectral_power).fit(X_train, y_train)
    print(
        f"spectral_power={spectral_power!r}: accuracy {model.score(X_test, y_test):.1%} on {len(y_test)} patients that "
        f"neither training nor choice saw, with spectral power {model.spectral_power_:g}"
    )
ValidationDisplay.from_estimator(model, ax=axes["patients"])
axes["patients"].set_title(f"Breast cancer: {model.score(X_test, y_test):.1%} of new patients right")

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=120)
    print(f"\nPicture: {sys.argv[1]}")
else:
    plt.show()
