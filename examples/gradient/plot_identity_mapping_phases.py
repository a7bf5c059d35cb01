r"""
The two phases of training with identity mapping
================================================

A student network learns to imitate a teacher of the same form, :math:`f(x) = \sum_j \max((e_j + w_j) \cdot x, 0)`,
under Gaussian inputs. The identity, the :math:`e_j`, is that of a residual connection: at :math:`W = 0` the network
passes its inputs on. The loss is not convex in W, and gradient descent has no reason to find the teacher's
:math:`W^*`. It does, and not along the straight line.

Li and Yuan (arXiv:1705.09886) prove it for W and W* of small norm, where it takes two phases. In phase I, the gradient
may point away from the teacher, and the distance :math:`|W - W^*|` rises. But a potential falls,
:math:`g = \sum_i (|e_i + w^*_i| - |e_i + w_i|)`: the student first gets the total length of its neurons right, which is
the mean of its outputs. In phase II, the loss is one-point convex: the slope towards the teacher is at least
:math:`\delta |W - W^*|^2`, with :math:`\delta > 0`, and the distance falls geometrically.

For Gaussian inputs, loss and gradient have closed forms, so this can be watched without noise.

Run with ``python examples/gradient/plot_identity_mapping_phases.py [picture.png]``.
"""

import sys

import numpy as np
from matplotlib import pyplot as plt

from convexbn.gradient.identity_mapping import draw_weights, find_phases, train_identity_mapping
from convexbn.plotting import plot_trace

plt.style.use("convexbn.plotting.colors")

D = 100

# %%
# The teacher's neurons are longer than the student's, and point elsewhere: W* is 0.9 times an orthogonal matrix, W is
# small. That makes phase I long. Here it is in slow motion, in small steps. SGD never sees the population loss, only
# fresh samples, here 200 a step; its path is the same.

rng = np.random.default_rng(0)
W_star = 0.9 * np.linalg.qr(rng.standard_normal((D, D)))[0]
start = draw_weights(D, 0.2, random_state=rng)
slow = {"learning_rate": 0.1 / D, "n_steps": 300, "note_every": 2}
_, slow_descent = train_identity_mapping(start, W_star, **slow)
_, slow_sgd = train_identity_mapping(start, W_star, batch_size=2 * D, random_state=0, **slow)
phases = find_phases(slow_descent)
print(f"Phase I takes {phases.step} steps of size {0.1 / D:g}. The distance rises by {100 * (phases.rise - 1):.1f} %,")
print(f"the potential falls to {100 * phases.potential:.1f} % of what it was.")

# %%
# Then the whole run, in steps that are ten times as large. The network without identity mapping starts from the same
# small matrix W, but its neurons are the columns of W itself. From I + W it would do just the same as the other: all
# that the identity does is to move the start. Its neurons have no place of their own, so its distance is that to the
# nearest order of the teacher's.

fast = {"learning_rate": 1 / D, "n_steps": 6000, "note_every": 20}
_, descent = train_identity_mapping(start, W_star, **fast)
_, sgd = train_identity_mapping(start, W_star, batch_size=2 * D, random_state=0, **fast)
_, plain = train_identity_mapping(start, W_star, identity=False, **fast)
runs = {"gradient descent": descent, "SGD": sgd, "without identity": plain}
for label, trace in runs.items():
    distances, losses = trace["distance"][[0, -1]], trace["loss"][[0, -1]]
    print(f"{label:>16}: distance {distances[0]:.3g} to {distances[1]:.2g}, loss {losses[0]:.3g} to {losses[1]:.2g}")
late = find_phases(descent)
constant = late.one_point_convexity
print(f"In the second half, one-point convexity has a constant of at least {constant:.3f}, so that a step takes about")
print(f"{100 / D * constant:.3f} % or more off the distance. It took {100 * (1 - late.rate):.3f} %.")

# %%
# Above, phase I: the distance rises while the potential falls, until there is little of the potential left. Below, the
# constant of one-point convexity: negative at first, where the gradient points away from the teacher. Phase II is, by
# definition, where it has become positive for good; what had to be seen is that it comes to that, that it then stays
# well above zero, and that the distance falls as fast as it says. And the whole run, on a logarithmic scale, where a
# constant rate would be a straight line: the rate changes, but stays above what the least constant says. The student
# without identity never comes near the teacher.

figure, ((distance, potential), (convexity, whole)) = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
slow_runs = {"gradient descent": slow_descent, "SGD": slow_sgd}
for ax, name, title in (
    (distance, "distance", "the distance |W - W*| rises ..."),
    (potential, "potential", "... while the potential g falls"),
):
    for label, trace in slow_runs.items():
        ax.plot(trace.steps, trace[name] / trace[name][0], label=label)
    ax.axhline(1 if ax is distance else 0, color="black", linewidth=0.5)
    ax.set(title=title, xlabel=f"small step ({0.1 / D:g})", ylabel="relative to the start")
plot_trace(slow_runs, "one_point_convexity", convexity)
convexity.axhline(0, color="black", linewidth=0.5)
convexity.set_ylim(-1, 0.4)
convexity.set(
    title="because the gradient points away from it, at first",
    xlabel=f"small step ({0.1 / D:g})",
    ylabel=r"$\langle\nabla L, W - W^*\rangle\ /\ |W - W^*|^2$",
)
for ax in (distance, potential, convexity):
    ax.axvspan(0, phases.step, color="0.85", linewidth=0)
    ax.set_xlim(0, 300)
    for x, text in ((phases.step / 2, "phase I"), ((phases.step + 300) / 2, "phase II")):
        ax.text(x, 0.98, text, transform=ax.get_xaxis_transform(), ha="center", va="top", color="0.3")
    ax.legend(loc="center right" if ax is not distance else "lower center")

plot_trace(runs, "distance", whole)
whole.set(title="phase II: the distance falls to a thousandth", ylabel="|W - W*|", yscale="log")
whole.set_xlabel(f"step ({1 / D:g})")

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=120)
    print(f"\nPicture: {sys.argv[1]}")
else:
    plt.show()
