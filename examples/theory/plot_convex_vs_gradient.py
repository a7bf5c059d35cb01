"""
The same network, by gradient steps and by convex optimisation
==============================================================

A two-layer batch-normalized ReLU network has a non-convex training objective, and gradient training ends wherever its
start and its step size lead it. The curve alone does not show whether it is the best there is: a curve that has
become flat looks the same at the optimum and above it. The same objective is a convex program in disguise. Its solution
comes with a lower bound that no network of this architecture gets below, whatever its width and however it was trained,
and on data with few features the bound is a proof. With it every curve can be read: how far is it still to go?

Here SGD, Adam and L-BFGS train the network on two features from several starts. Everything is on the same objective and
on the same clock.

Run with ``python examples/theory/plot_convex_vs_gradient.py [picture.png]``. Needs PyTorch.
"""

import sys

from matplotlib import pyplot as plt

from convexbn import compare
from convexbn.datasets import make_teacher
from convexbn.plotting import plot_comparison

SEEDS = range(4)
RUNS = {
    "SGD, momentum 0.9": {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "n_steps": 2000},
    "Adam": {"optimizer": "adam", "learning_rate": 0.01, "n_steps": 2000},
    "L-BFGS": {"optimizer": "lbfgs", "n_steps": 300},
}

# %%
# The targets come from a network with five neurons. The networks trained by gradient steps have 50, more than the
# optimum needs, so that width holds none of them back; the convex program takes as many as it needs.

X, y = make_teacher(100, 2, random_state=0)
comparison = compare(X, y, weight_decay=0.02, runs=RUNS, seeds=SEEDS, random_state=0)
certificate = comparison.certificate
print(certificate)
print(f"The convex program took {comparison.convex.times[-1]:.2f} s and needs {len(comparison.network)} neurons.\n")

for label, traces in comparison.traces.items():
    above = [trace.objective.min() / certificate.lower_bound - 1 for trace in traces]
    seconds = max(trace.times[-1] for trace in traces)
    print(f"{label}: {min(above):.1e} to {max(above):.1e} above the lower bound after at most {seconds:.1f} s")
    assert min(above) > 0, "a network below a proved lower bound would refute it"

# %%
# The vertical axis is the distance from the lower bound, relative to the objective: a curve that ends at 1e-3 still has
# a thousandth to go. Gradient training comes close soon and then slows down. Different starts end at different heights,
# L-BFGS gets stuck at kinks of the ReLU, Adam keeps jumping by its step size, and no run shows that there is
# something below. None of them gets below the line. The convex solver comes to its first network later than gradient
# steps come to theirs, then closes the gap to its tolerance; the last stretch of its curve is the proof,
# a search over all directions, at the end of which stands the certificate.

figure, ax = plt.subplots(figsize=(9, 6), layout="constrained")
plot_comparison(comparison, ax)
ax.set_title(f"{len(X)} samples, {X.shape[1]} features: {len(SEEDS)} starts of each optimizer")

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=120)
    print(f"\nPicture: {sys.argv[1]}")
else:
    plt.show()
