"""
How time grows with the number of samples
=========================================

ReLU networks by column generation, to a local gap of a hundredth, and gated networks, to a proved gap of 1e-4: seconds
of the processor for 500 to 4,500 samples of twenty features, at the same fraction of the largest weight decay. Then a
sparse matrix, in which only one entry in a hundred is stored.

This is a small version of ``benchmarks/scaling.py``, which goes to 100,000 samples and is on the page of benchmarks.

Run with ``python examples/scale/plot_growth.py [picture.png]``.
"""

import sys
from time import process_time

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

FRACTION, SAMPLES = 0.1, [500, 1500, 4500]


def problem_of(Z, y):
    """The problem at a fraction of its largest weight decay."""
    largest = weight_decay_max(Problem(Z, y, weight_decay=1.0))
    return Problem(Z, y, weight_decay=FRACTION * largest)


def solve_relu(problem):
    """Column generation, whose gap is local."""
    return solve_column_generation(problem, tol=1e-2, prove=False, random_state=0)


def solve_with_gates(problem):
    """A gated network with fifty gates, whose gap is proved."""
    return solve_gated(problem, sample_patterns(problem.Z, 50, random_state=0), tol=1e-4)


# %%
# Every iteration of a solver is a few products with the design matrix, so that its seconds grow at most in
# proportion to the samples while the number of iterations stays about the same.

solvers = {"ReLU, local gap 1e-2": solve_relu, "50 gates, proved gap 1e-4": solve_with_gates}
seconds = {name: [] for name in solvers}
X_all, y_all = make_teacher(SAMPLES[-1], 20, random_state=0)
for n in SAMPLES:
    problem = problem_of(BatchNormDesign().fit_transform(X_all[:n]), y_all[:n])
    for name, solve in solvers.items():
        start = process_time()
        certificate = solve(problem).certificate
        seconds[name].append(process_time() - start)
        print(f"{n:6d} samples, {name}: {seconds[name][-1]:.2f} s, gap {certificate.gap:.1e} ({certificate.scope})")

# %%
# Sparse data stays sparse under weight normalization. Products take time in proportion to the entries that are stored,
# here one in a hundred of 2,000,000.

rng = np.random.default_rng(0)
X = random_array((2000, 1000), density=0.01, rng=rng, format="csr")
y = np.maximum(X[:, :40].sum(axis=1), 0.5) + 0.01 * rng.standard_normal(2000)
model = ConvexBNRegressor(0.01, normalization="weight", tol=1e-2, prove=False)
start = process_time()
model.fit(X, y)
print(f"\nsparse, 2000 x 1000: {process_time() - start:.2f} s, {len(model.network_)} neurons; {model.certificate_}")

figure, ax = plt.subplots(figsize=(8, 5), layout="constrained")
for (name, values), color, marker in zip(seconds.items(), ("#0072B2", "#D55E00"), "os", strict=True):
    ax.loglog(SAMPLES, values, marker + "-", color=color, label=name)
line = np.array([SAMPLES[0], SAMPLES[-1]])
first = seconds["ReLU, local gap 1e-2"][0]
ax.loglog(line, first * line / line[0], ":", color="0.5", label="in proportion to n")
ax.set(title="Seconds against samples, twenty features", xlabel="samples", ylabel="seconds")
ax.legend()

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=120)
    print(f"\nPicture: {sys.argv[1]}")
else:
    plt.show()
