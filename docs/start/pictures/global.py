"""Gradient training above a bound that is proved for every network of the architecture."""

from matplotlib import pyplot as plt

from convexbn import compare
from convexbn.datasets import make_teacher

X, y = make_teacher(40, 2, random_state=0)
runs = {"Adam": {"n_steps": 400, "n_neurons": 30}}
comparison = compare(X, y, weight_decay=0.05, runs=runs, seeds=range(4), tol=1e-8, random_state=0)
bound = comparison.certificate.lower_bound
assert comparison.certificate.scope == "global"

figure, ax = plt.subplots(figsize=(7, 3.6))
for i, trace in enumerate(comparison.traces["Adam"]):
    ax.plot(trace.steps, trace.objective, color="#E69F00", label="Adam, four starts" if i == 0 else None)
ax.axhline(bound, color="#0072B2", label="optimum of the convex program = lower bound")
low, high = bound - 0.25 * (bound), 2 * bound
ax.axhspan(low, bound, color="#0072B2", alpha=0.15)
ax.text(200, (low + bound) / 2, "no network is down here, of any width: proved", ha="center", va="center")
ax.set(ylim=(low, high), xlim=(0, 400), xlabel="gradient step", ylabel="training objective")
ax.legend(loc="upper right")
