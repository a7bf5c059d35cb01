"""
A first fit: how much alcohol is in a wine
==========================================

Twelve chemical measurements of 178 wines, and how much alcohol each has. The network is trained without choosing
anything: weight decay and spectral power are chosen on held-out samples. Beside it well-known models of
scikit-learn, by their defaults, on the same five folds; then the certificate of the network, and the picture of
the choice.

Run with ``python examples/first_steps/plot_first_fit.py [picture.png]``.
"""

import sys
import warnings
from time import perf_counter

from matplotlib import pyplot as plt
from sklearn.datasets import load_wine
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.svm import SVR

from convexbn import ConvexBNRegressor
from convexbn.plotting import ValidationDisplay

warnings.simplefilter("ignore", ConvergenceWarning)  # the certificate below says how far the last fit got

wine = load_wine()
X, y = wine.data[:, 1:], scale(wine.data[:, 0])

# %%
# Every model sees the same folds, and the networks and the support vectors also scaled features.

models = {
    "convexbn": ConvexBNRegressor(),
    "MLP": make_pipeline(StandardScaler(), MLPRegressor(max_iter=2000, random_state=0)),
    "boosting": HistGradientBoostingRegressor(random_state=0),
    "ridge": make_pipeline(StandardScaler(), RidgeCV()),
    "SVR": make_pipeline(StandardScaler(), SVR()),
}
folds = KFold(5, shuffle=True, random_state=0)
for name, model in models.items():
    start = perf_counter()
    scores = cross_val_score(model, X, y, cv=folds)
    print(f"{name:>8}: R2 {scores.mean():.3f}, {(perf_counter() - start) / len(scores):.2f} s a fit")

# %%
# The network of all wines, as it chose its values; a line for every candidate.

print()
model = ConvexBNRegressor(verbose=1).fit(X, y)
print(f"\n{model.network_}")
print(model.certificate_)

# %%
# Given values are taken as they are, without a search. Training goes on to the optimum of this weight decay: a search
# over all directions finds no neuron that would lower the objective by more than the tolerance.

optimum = ConvexBNRegressor(model.weight_decay_, spectral_power=model.spectral_power_).fit(X, y)
print(f"\nThe same weight decay, trained to the end: {optimum.certificate_}")

display = ValidationDisplay.from_estimator(model)
if len(sys.argv) > 1:
    display.figure_.savefig(sys.argv[1], dpi=120)
    print(f"\nPicture: {sys.argv[1]}")
else:
    plt.show()
