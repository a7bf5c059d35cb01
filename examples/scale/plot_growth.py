"""
How time grows with the number of samples
=========================================

ReLU networks by column generation, to a local gap of a hundredth, and gated networks, to a proved gap of 1e-4: seconds for
1,000 to 9,000 samples of twenty features, at the same fraction of the largest weight decay. Then the same on a sparse
matrix, in which only one entry in a hundred is stored.

This is a small version of ``benchmarks/scaling.py``, which goes to 100,000 samples and is on the page of benchmarks.

Run with ``python examples/scale/plot_growth.py [picture.png]``.
"""

import sys
from time import perf_counter

import numpy as np
from matplotlib import pyplot as plt
from scipy.sparse import random_array

from convexbn import (
    BatchNormDesign,
    ConvexBNRegressor,
    Problem,
    sample_patterns,
    solve_column_generation,
    solve_gated,
    weight_decay_max,
)
from convexbn.datasets import make_teacher

FRACTION, SAMPLES = 0.1, [1000, 3000, 9000]


def problem_of(Z, y):
    """The problem at a fraction of its largest weight decay."""
    largest = weight_decay_max(Problem(Z, y, weight_decay=1.0))
    return Problem(Z, y, weight_decay=FRACTION * largest)


# %%
# Every iteration of a solver is a few products with the design matrix, so that its seconds grow in proportion to the
# samples. The number of iterations grows little.

seconds = {"ReLU, local gap 1e-2": [], "50 gates, proved gap 1e-4": []}
X_all, y_all = make_teacher(SAMPLES[-1], 20, random_state=0)
for n in SAMPLES:
    X, y = X_all[:n], y_all[:n]
    problem = problem_of(BatchNormDesign().fit_transform(X), y)
    patterns = sample_patterns(problem.Z, 50, random_state=0)
    solvers = {
        "ReLU, local gap 1e-2": lambda: solve_column_generation(problem, tol=1e-2, prove=False, random_state=0),  # noqa: B023
        "50 gates, proved gap 1e-4": lambda: solve_gated(problem, patterns, tol=1e-4),  # noqa: B023
    }
    for name, solve in solvers.items():
        start = perf_counter()
        certificate = solve().certificate
        seconds[name].append(perf_counter() - start)
        print(f"{n:6d} samples, {name}: {seconds[name][-1]:.2f} s, gap {certificate.gap:.1e}, scope {certificate.scope}")

# %%
# Sparse data stays sparse under weight normalization. Products take time in proportion to the entries that are stored,
# here one in a hundred of 2,000,000.

rng = np.random.default_rng(0)
X = random_array((2000, 1000), density=0.01, rng=rng, format="csr")
y = np.maximum(X[:, :40].sum(axis=1), 0.5) + 0.01 * rng.standard_normal(2000)
model = ConvexBNRegressor(0.01, normalization="weight", tol=1e-2, prove=False)
start = perf_counter()
model.fit(X, y)
print(f"\nsparse, 2000 x 1000: {perf_counter() - start:.2f} s, {len(model.network_)} neurons; {model.certificate_}")

figure, ax = plt.subplots(figsize=(8, 5), layout="constrained")
for (name, values), color, marker in zip(seconds.items(), ("#0072B2", "#D55E00"), "os", strict=True):
    ax.loglog(SAMPLES, values, marker + "-", color=color, label=name)
line = np.array([SAMPLES[0], SAMPLES[-1]])
ax.loglog(line, max(values[0] for values in seconds.values()) * line / line[0], ":", color="0.5", label="in proportion to n")
ax.set(title="Seconds against samples, twenty features", xlabel="samples", ylabel="seconds")
ax.legend()

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=120)
    print(f"\nPicture: {sys.argv[1]}")
else:
    plt.show()
