"""What a search found, and how much lower a proof allows."""

from matplotlib import pyplot as plt
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import scale

from convexbn import ConvexBNRegressor

X, y = load_diabetes(return_X_y=True)
certificate = ConvexBNRegressor(0.05).fit(X[:150], scale(y[:150])).certificate_
assert certificate.scope == "local"
objective, proved = certificate.objective, certificate.global_lower_bound

figure, ax = plt.subplots(figsize=(7, 3.6))
ax.axhline(objective, color="#0072B2", label="objective of the network; the search found no better neuron")
ax.axhline(proved, color="#D55E00", label="lower bound that is proved")
ax.axhspan(0, proved, color="#D55E00", alpha=0.15)
ax.axhspan(proved, objective, facecolor="none", edgecolor="0.7", hatch="//")
ax.text(0.5, proved / 2, "no network is down here: proved", ha="center", va="center")
ax.text(
    0.5,
    (proved + objective) / 2,
    "the search found nothing here; no proof",
    ha="center",
    va="center",
    backgroundcolor="white",
)
ax.set(ylim=(0, 1.5 * objective), xlim=(0, 1), xticks=[], ylabel="training objective")
ax.legend(loc="upper right")
