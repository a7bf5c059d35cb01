"""
Why deep networks with weight normalization can be trained
===========================================================

A step of gradient descent is along a straight line, and its length is limited by the second
derivatives: where the Hessian is large, the slope changes within a short step. In a deep network every layer
multiplies what the layers below did, and the Hessian may grow with every layer.

Weight normalization divides each row of hidden weights by its norm. Then only the direction of a row matters, and two
things follow [1]_. The Hessian of the network's output grows at most like the cube of the depth, and it is the smaller
the longer the rows are: a step of a given length rotates a long row by less. With the Hessian small, all hangs on the
slope. If the ratio of its square and the loss stayed above some constant, the loss would fall geometrically. That goes
with what is called restricted strong convexity, and the ratio can be watched along training: here it falls.

The data are handwritten digits, odd ones against even ones.

.. [1] P. Cisneros-Velarde, Z. Chen, S. Koyejo, A. Banerjee, "Optimization and Generalization Guarantees for Weight
   Normalization", 2024, arXiv:2409.08935.

Run with ``python examples/gradient/plot_deep_weight_norm.py [picture.png]``. Needs PyTorch.
"""

import sys

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from convexbn.gradient.deep_weight_norm import SmoothNetwork, train_deep_weight_norm

plt.style.use("convexbn.plotting.colors")

N, WIDTH, DEPTH, N_STEPS = 100, 64, 3, 400

X, y = load_digits(return_X_y=True)
X = X[:N] - X[:N].mean(axis=0)
X *= np.sqrt(X.shape[1]) / np.linalg.norm(X, axis=1, keepdims=True)
y = np.where(y[:N] % 2, 1.0, -1.0)


def draw(**options):
    """A network with random weights."""
    return SmoothNetwork.at_initialization(X.shape[1], width=WIDTH, **{"depth": DEPTH, "random_state": 0} | options)


def curvature(hidden_only=False, **options):
    """Spectral norm of the Hessian of f(x), the largest of three samples, averaged over two initial weights."""
    networks = [draw(random_state=seed, **options) for seed in range(2)]
    return np.mean([network.predictor_hessian_norm(X[:3], hidden_only=hidden_only) for network in networks])


# %%
# First, depth. A network without weight normalization multiplies with its weights as they are. It is drawn from weights
# of the usual size, where it is the same function as the normalized one, and from weights twice that size. The
# normalized network does not see the factor of two; the other one sees it in every layer.

depths = np.arange(1, 7)
doubled = {"normalized": False, "row_norm": 2.0}
by_depth = {
    "with weight normalization": ("C0", "-", [curvature(depth=L) for L in depths]),
    "without": ("C1", "--", [curvature(depth=L, normalized=False) for L in depths]),
    "without, weights doubled": ("C3", "-", [curvature(depth=L, **doubled) for L in depths]),
}
for label, (_, _, norms) in by_depth.items():
    print(f"Hessian norm at depth {depths[-1]} over that at depth 1: {norms[-1] / norms[0]:6.2f}  {label}")

# %%
# Then, the length of the rows. The function stays the same whatever it is, and the second derivatives with respect to
# hidden weights fall with its square, exactly. What remains for long rows are mixed derivatives, once with respect to a
# hidden and once to an output weight, and those fall with the length itself.

row_norms = np.geomspace(0.1, 10, 7)
by_norm = {
    "all weights": ("black", [curvature(row_norm=norm) for norm in row_norms]),
    "hidden weights alone": ("C0", [curvature(row_norm=norm, hidden_only=True) for norm in row_norms]),
}
exponent = np.polyfit(np.log(row_norms), np.log(by_norm["hidden weights alone"][1]), 1)[0]
print(f"The Hessian of the hidden weights goes like the row norm to the power {exponent:.4f}.")

# %%
# Now gradient descent. The first run records the loss and the ratio ``|gradient|^2 / loss`` at every step, the second
# repeats it and computes Hessians at a few. Where the Hessian norm of the loss is at most beta, a step of size eta
# multiplies the loss with at most 1 - eta ratio (1 - eta beta / 2). The largest recorded norm is taken for beta, and
# the factors are multiplied up.

start = draw()
eta = 0.2 / start.loss_hessian_norm(X, y)
options = {"learning_rate": eta, "n_steps": N_STEPS}
network, trace = train_deep_weight_norm(X, y, start, noted_steps=np.arange(N_STEPS + 1), n_hessian_samples=0, **options)
watched = train_deep_weight_norm(X, y, start, **options)[1]
beta = watched["loss_hessian_norm"].max()
factors = 1 - eta * trace["rsc_ratio"] * (1 - eta * beta / 2)
bound = trace.objective[0] * np.concatenate([[1.0], np.cumprod(factors[:-1])])
quarter = N_STEPS // 4
_, early, _, late = -100 * np.expm1(np.diff(np.log(trace.objective[::quarter])) / quarter)
print(
    f"Loss from {trace.objective[0]:.3f} to {trace.objective[-1]:.2g}; a step takes {early:.3f} % off it in the second"
)
print(
    f"quarter of training, {late:.3f} % in the last. |gradient|^2 / loss falls from {trace['rsc_ratio'][0]:.3f} at the"
)
print(f"start to {trace['rsc_ratio'][quarter]:.4f} after a quarter and {trace['rsc_ratio'][-1]:.4f} at the end.")
print(f"The loss was never above the bound: {bool((trace.objective <= bound * (1 + 1e-12)).all())}.")
print(
    f"Predictor's Hessian norm from {watched['predictor_hessian_norm'][0]:.3f} to "
    f"{watched['predictor_hessian_norm'][-1]:.3f}, loss's from {watched['loss_hessian_norm'][0]:.3f} to {beta:.3f}."
)
print(f"The smallest row norm never fell: {bool((np.diff(trace['smallest_row_norm']) >= 0).all())}.")

# %%
# Rows can only grow: the gradient with respect to a normalized row is orthogonal to it, and a step at a right angle
# makes it longer. So what the theory requires of the rows holds along all of training once it holds at the start.
#
# The theorem in one picture. On top, the Hessian is small: nearly flat in depth with weight normalization, far below
# the cube, and falling with the row norm. Without it the usual weights do as well, but twice those weights multiply the
# Hessian by about the same factor with every layer. Below, the Hessians grow only a little along training. But the
# ratio falls fifty-fold: fast at the start, in which the few directions that matter most are learned, then slowly, and
# to the end. So the loss stays under the bound that the ratio gives, and both bend: on a logarithmic scale, a geometric
# decrease would be a straight line. The theory needs a ratio above a constant; this run has none to show.

figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
(by_depth_ax, by_norm_ax), (loss_ax, ratio_ax) = axes
for label, (color, style, norms) in by_depth.items():
    by_depth_ax.plot(depths, norms, style, marker=".", color=color, label=label)
cube = by_depth["with weight normalization"][2][0] * depths**3
by_depth_ax.plot(depths, cube, ":", color="0.5", label="cube of the depth")
by_depth_ax.set(yscale="log", xlabel="depth L", title="Norm of the Hessian of the output, against depth ...")
for label, (color, norms) in by_norm.items():
    by_norm_ax.plot(row_norms, norms, ".-", color=color, label=label)
by_norm_ax.set(xscale="log", yscale="log", xlabel="norm of the rows / sqrt(entries)", title="... and against row norm")
loss_ax.plot(trace.steps, trace.objective, color="black", label="training loss")
loss_ax.plot(trace.steps, bound, "--", color="C2", label="bound by the ratio")
loss_ax.set(yscale="log", xlabel="step of gradient descent", title="The loss falls, and slows down ...")
ratio_ax.plot(trace.steps, trace["rsc_ratio"], color="C2", label="|gradient|² / loss")
ratio_ax.plot(watched.steps, watched["predictor_hessian_norm"], ".-", color="C0", label="Hessian of the output")
ratio_ax.plot(watched.steps, watched["loss_hessian_norm"], ".-", color="black", label="Hessian of the loss")
ratio_ax.set(
    yscale="log", xlabel="step of gradient descent", title="... with the green ratio, while Hessians stay small"
)
for ax in axes.ravel():
    ax.legend(fontsize="small")
    ax.grid(alpha=0.3)

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=120)
    print(f"\nPicture: {sys.argv[1]}")
else:
    plt.show()
