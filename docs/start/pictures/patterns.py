"""The optimum of gated networks falls as they are given more gates; each is proved for its own."""

import numpy as np
from matplotlib import pyplot as plt

from convexbn import BatchNormDesign, Problem, sample_patterns, solve_gated
from convexbn.datasets import make_teacher

X, y = make_teacher(60, 3, random_state=0)
problem = Problem(BatchNormDesign().fit_transform(X), y, weight_decay=0.02)
patterns = sample_patterns(problem.Z, 400, random_state=0)
counts = [5, 10, 20, 40, 80, 160]
certificates = [solve_gated(problem, patterns.take(range(count))).certificate for count in counts]
assert all(certificate.scope == "patterns" for certificate in certificates)

figure, ax = plt.subplots(figsize=(7, 3.6))
bounds = np.array([certificate.lower_bound for certificate in certificates])
ax.plot(counts, bounds, "o-", color="#0072B2", label="optimum = lower bound for networks with these gates")
ax.vlines(counts, 0, bounds, color="#0072B2", alpha=0.3, linewidth=6)
ax.text(
    30,
    bounds[0] * 0.35,
    "nothing is down here with the same gates: proved;\nother gates may do better",
    va="center",
    ha="center",
    backgroundcolor="white",
)
ax.set(xscale="log", xticks=counts, xticklabels=counts, ylim=(0, 1.15 * bounds[0]))
ax.set(xlabel="gates that were drawn", ylabel="training objective")
ax.minorticks_off()
ax.legend(loc="upper right")
