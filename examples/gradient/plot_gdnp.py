"""
Why batch normalization makes gradient descent fast: direction and length apart
===============================================================================

A batch-normalized unit has weights ``g w / |w|_S``, where S is the second moment of its inputs: w is their direction
and g their length. Kohler et al. (arXiv 1805.10694) take that apart into an algorithm, GDNP: a gradient step for
the direction, then the best length, which is a search in one dimension. What is left for the direction is a Rayleigh
quotient, rho(w) = -(u·w)^2 / (w·Sw) with u = E[-y x], and gradient descent on it converges exponentially although it is
not convex:

    rho(w_t) - rho* <= (1 - mu/L)^(2t) (rho(w_0) - rho*),

where mu and L are the extreme eigenvalues of S. This is a theorem for least squares, and for learning halfspaces with
any smooth loss if the data is Gaussian. Here it is seen at work, beside gradient descent and Nesterov's method.

Run with ``python examples/gradient/plot_gdnp.py [picture.png]``.
"""

import sys

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from convexbn.gradient.gdnp import (
    GaussianHalfspace,
    LeastSquares,
    accelerated_gradient_descent,
    gdnp,
    gradient_descent,
)
from convexbn.plotting import plot_trace

plt.style.use("convexbn.plotting.colors")

D = 10
METHODS = {"gradient descent": gradient_descent, "Nesterov": accelerated_gradient_descent}
COLORS = {"GDNP": "black", "gradient descent": "C0", "Nesterov": "C1"}
figure, axes = plt.subplots(2, 2, figsize=(11.5, 9), layout="constrained")


def moments(condition, d, rng):
    """Draw a second moment S of this condition number, and u with u·S^-1 u = 1/2."""
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    S = basis * np.geomspace(1, 1 / condition, d) @ basis.T
    u = np.linalg.cholesky(S) @ rng.standard_normal(d)
    return S, u / np.sqrt(2 * u @ np.linalg.solve(S, u))


# sphinx_gallery_defer_figures

# %%
# Two weights first, so that one can look: the logistic loss of Gaussian data, whose level sets are long and narrow. The
# dotted curve is where the length is the best for its direction; it goes through the origin and through the minimum.
# GDNP jumps from ray to ray on this curve. Gradient descent, from the same point, walks into the valley and then along
# it, with steps that fit the largest curvature anywhere.

rng = np.random.default_rng(2)
N_STEPS = 30
halfspace = GaussianHalfspace(*moments(10, 2, rng))
optimum = gdnp(halfspace, tol=1e-10).weights
angle = np.radians(85)
rotated = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ optimum
start = gdnp(halfspace, start=rotated, n_steps=0).weights
paths = {
    name: np.array([method(halfspace, start=start, n_steps=t, tol=0).weights for t in range(N_STEPS + 1)])
    for name, method in {"GDNP": gdnp, "gradient descent": gradient_descent}.items()
}
angles = np.linspace(0, np.pi, 181)
best = np.array([gdnp(halfspace, start=[np.cos(t), np.sin(t)], n_steps=0).weights for t in angles])
ax = axes[0, 0]
low, high = np.min([best.min(axis=0), 0 * optimum], axis=0), np.max([best.max(axis=0), 0 * optimum], axis=0)
margin = 0.15 * (high - low).max()
grid = [np.linspace(low[i] - margin, high[i] + margin, 81) for i in (0, 1)]
values = np.array([[halfspace.evaluate(np.array([x, y]))[0] for x in grid[0]] for y in grid[1]])
least = halfspace.evaluate(optimum)[0]
ax.contour(*grid, values, levels=least + np.geomspace(1e-3, values.max() - least, 12), colors="0.85", linewidths=0.8)
ax.plot(*best.T, ":", color="0.4", label="best length of every direction")
for end in paths["GDNP"][:8]:
    ax.plot(*np.array([[0, 0], end]).T, color="black", linewidth=0.5, alpha=0.5)
for name, path in paths.items():
    ax.plot(*path.T, ".-", color=COLORS[name], label=name)
    above = max(halfspace.evaluate(path[-1])[0] - least, 0)
    print(f"{name}: {above:.2g} above the minimum after {N_STEPS} steps")
ax.plot(*optimum, "*", color="C3", markersize=14, label="minimum", zorder=3)
ax.set(title=f"logistic loss, two weights: {N_STEPS} steps", xlabel="first weight", ylabel="second weight")
ax.set_aspect("equal", "box")
ax.legend(fontsize="small")

# sphinx_gallery_defer_figures

# %%
# Least squares: the excess of the Rayleigh quotient (solid) stays below the theorem's bound (dashed) at every step, for
# condition numbers L/mu from 10 to 10^4.

ax = axes[0, 1]
for i, condition in enumerate((10, 100, 1000, 10000)):
    rng = np.random.default_rng(i)
    X = rng.standard_normal((200, D)) @ np.linalg.cholesky(moments(condition, D, rng)[0]).T
    y = X @ rng.standard_normal(D) + rng.standard_normal(200) / 10
    objective = LeastSquares(X, y)
    trace = gdnp(objective, start=rng.standard_normal(D), n_steps=3000, tol=1e-9).trace
    excess, bound = trace["rho"] - trace["rho_star"], trace["rho_bound"] - trace["rho_star"]
    ratio = objective.moments.L / objective.moments.mu
    print(f"Condition number {ratio:8.1f}: never above the bound by more than {max((excess - bound).max(), 0):.1g}")
    ax.plot(trace.steps + 1, np.maximum(excess, 1e-12), color=f"C{i}", label=f"L/mu = {ratio:,.0f}")
    ax.plot(trace.steps + 1, np.maximum(bound, 1e-12), color=f"C{i}", linestyle="--", linewidth=1)
ax.set(
    title="least squares: measured (solid) below the bound (dashed)",
    xlabel="step",
    ylabel="rho - rho*",
    xscale="log",
    yscale="log",
)
ax.set_ylim(1e-10, None)
ax.legend(fontsize="small", loc="lower left")

# sphinx_gallery_defer_figures

# %%
# A halfspace, with the logistic loss and exactly Gaussian data (its expectations are computed, not sampled). The bound
# is not tight unless the optimal direction is orthogonal to the eigenvector of mu; the rate that the linearised
# iteration predicts is. A step of GDNP depends on the curvature at hand, one of gradient descent on the largest
# anywhere. Nesterov's method, with the momentum for functions of unknown strong convexity, starts faster and then
# oscillates. (On worse conditioned data it is ahead for longer: the rate of GDNP has mu/L in it, not its square root.)


def traces_of(halfspace, start, **options):
    """Run GDNP, with options, and its peers from the same start."""
    methods = {"GDNP": lambda *args, **kwargs: gdnp(*args, **kwargs, **options), **METHODS}
    return {name: method(halfspace, start=start, n_steps=1500, tol=1e-9).trace for name, method in methods.items()}


rng = np.random.default_rng(0)
S, u = moments(50, D, rng)
halfspace = GaussianHalfspace(S, u)
start = rng.standard_normal(D)
start /= halfspace.moments.norm(start)
ax = axes[1, 0]
ax.set_prop_cycle(color=[to_hex(color) for color in COLORS.values()])
traces = traces_of(halfspace, start)
plot_trace(traces, "gradient_norm", ax)
trace = traces["GDNP"]
norms, half = trace["gradient_norm"], len(trace) // 2
fitted = np.exp(np.polyfit(trace.steps[half:], np.log(norms[half:]), 1)[0])
rate, predicted = halfspace.moments.rate, halfspace.moments.local_rate
print(f"A step multiplies the gradient by {fitted:.5f}; predicted {predicted:.5f}, bound 1 - mu/L = {rate:.5f}")
ax.plot(trace.steps, norms[0] * rate**trace.steps, color="black", linestyle="--", linewidth=1, label="rate 1 - mu/L")
ax.plot(
    trace.steps,
    norms[-1] * predicted ** (trace.steps - trace.steps[-1]),
    color="C3",
    linestyle=":",
    label="predicted rate",
)
ax.set(title="halfspace, logistic loss (convex)", xlabel="step", ylabel="gradient norm", yscale="log", ylim=(1e-9, 1))
ax.legend(fontsize="small")

# sphinx_gallery_defer_figures

# %%
# The same data with the sigmoid loss, a smooth count of mistakes, which is not convex and flat far from the origin.
# Starting there, gradient descent crawls on the plateau, and then in the valley. The directions of GDNP are those that
# it had with the logistic loss, and would have with least squares: the loss only changes the length. (The sigmoid loss
# has an infinite optimum; it is limited to 10.)

ax = axes[1, 1]
sigmoid = GaussianHalfspace(S, u, "sigmoid")
traces = traces_of(sigmoid, 10 * start, max_length=10.0)
for name, run in traces.items():
    excess = np.maximum(run["rho"] - sigmoid.moments.rho_star, 1e-12)
    ax.plot(run.steps, excess, color=COLORS[name], label=name)
by_sigmoid = traces["GDNP"]
excess = np.maximum(trace["rho"] - trace["rho_star"], 1e-12)
ax.plot(trace.steps, excess, ".", color="C3", markevery=40, label="GDNP with the logistic loss")
ax.plot(by_sigmoid.steps, by_sigmoid["rho_bound"] - by_sigmoid["rho_star"], "k--", linewidth=1, label="bound")
common = min(len(trace), len(by_sigmoid))
apart = np.abs(trace["rho"][:common] - by_sigmoid["rho"][:common]).max()
print(f"The Rayleigh quotients of both losses are at most {apart:.1g} apart at any step.")
ax.set(title="halfspace, sigmoid loss (not convex)", xlabel="step", ylabel="rho - rho*", yscale="log", ylim=(1e-11, 1))
ax.legend(fontsize="small")

# %%
# What the theorem does not say: data that is not Gaussian. There a direction step may be too long, so it is halved if
# the objective would rise; ``benchmarks/gdnp.py`` has the figures.

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=120)
    print(f"\nPicture: {sys.argv[1]}")
else:
    plt.show()
