"""
Weight normalization: directions rotate, lengths grow, and alpha decides which of them fits the data
====================================================================================================

A weight-normalized neuron ``relu(g v·x / |v|)`` has a direction v and a length g. Gradient descent moves both. How fast
v rotates depends on how long it is: the gradient by v is proportional to ``1 / |v|``, while the function does not see
``|v|`` at all. So the scale alpha of v at the start, which changes nothing in the function, decides what the network
learns with.

In a wide network the error f - y obeys d(f - y)/dt = -(V / alpha^2 + G)(f - y), with two n × n Gram matrices that
hardly move in training: V is the part of the directions, G that of the lengths. Small alpha: the
directions do the work, at the rate lambda_min(V) / alpha^2. Large alpha: the lengths do, at the rate lambda_min(G). For
unit inputs both matrices have a closed form, so the rates are known before any network is drawn (arXiv 2006.06878).

Run with ``python examples/gradient/plot_weight_norm_regimes.py [picture.png]``. The last part needs PyTorch.
"""

import sys

import numpy as np
from matplotlib import pyplot as plt

from convexbn import Problem, WeightNormDesign, solve
from convexbn.gradient import train
from convexbn.gradient.weight_norm import (
    decay_rate,
    gram_matrices,
    limit_gram_matrices,
    train_weight_norm,
    weight_norm_start,
)

plt.style.use("convexbn.plotting.colors")

N, D, N_NEURONS = 10, 20, 4000
rng = np.random.default_rng(0)
X = rng.standard_normal((N, D))
X /= np.linalg.norm(X, axis=1)[:, None]
y = rng.standard_normal(N)
gram = limit_gram_matrices(X)
print(f"Smallest eigenvalues: V {gram.rate_of_directions(1):.4f}, G {gram.rate_of_lengths:.4f}.")
print(f"Directions lead below alpha = {gram.crossover:.2f}, lengths above; the square root of d is {D**0.5:.2f}.")


def descend(alpha, learning_rate, y=y, n_steps=300, normalized=True):
    options = {"n_neurons": N_NEURONS, "normalized": normalized, "random_state": 0}
    return train_weight_norm(X, y, alpha=alpha, learning_rate=learning_rate, n_steps=n_steps, **options)[1]


def measure(trace, learning_rate):
    """Rate of the error once only its slowest part is left, and the steps to a millionth of the error."""
    sizes = np.linalg.norm(trace["residual"], axis=1) / np.linalg.norm(trace["residual"][0])
    tail = (sizes < 1e-5) & (sizes > 1e-10)
    return float(decay_rate(trace.steps[tail], sizes[tail], learning_rate)), int(np.argmax(sizes < 1e-6))


# %%
# Measured against predicted, with the step size that the closed forms give. The un-normalized network starts from the
# same function and descends on ``w = g v / |v|`` itself; its Gram matrix is H = V + G, whatever alpha.

alphas = np.geomspace(1e-2, 1e2, 13)
print("\n   alpha   predicted    measured   ratio   steps to 1e-6")
measured, steps_needed = [], []
for alpha in alphas:
    learning_rate = gram.learning_rate(alpha)
    rate, steps = measure(descend(alpha, learning_rate), learning_rate)
    measured.append(rate)
    steps_needed.append(steps)
    print(f"{alpha:8.3g}  {gram.rate(alpha):10.4g}  {rate:10.4g}  {rate / gram.rate(alpha):6.3f}  {steps:6d}")
plain_step = gram.learning_rate(1)  # at alpha = 1 the Gram matrix is H
plain_rate, plain_steps = measure(descend(1, plain_step, normalized=False), plain_step)
print(f"   plain  {gram.rate_without_normalization:10.4g}  {plain_rate:10.4g}", end="")
print(f"  {plain_rate / gram.rate_without_normalization:6.3f}  {plain_steps:6d}")

figure, axes = plt.subplots(2, 2, figsize=(11, 8.5), layout="constrained")
ax, fine = axes[0, 0], np.geomspace(alphas[0], alphas[-1], 200)
ax.loglog(
    fine, [gram.rate(alpha) for alpha in fine], color="black", label="predicted: $\\lambda_{min}(V/\\alpha^2 + G)$"
)
ax.loglog(
    fine,
    [gram.rate_of_directions(a) for a in fine],
    "--",
    color="C0",
    label="directions: $\\lambda_{min}(V)/\\alpha^2$",
)
ax.axhline(gram.rate_of_lengths, linestyle="--", color="C1", label="lengths: $\\lambda_{min}(G)$")
ax.axhline(plain_rate, linestyle=":", color="C2", label="no normalization, measured")
ax.loglog(alphas, measured, "o", color="C3", label=f"measured, {N_NEURONS} neurons")
ax.axvline(gram.crossover, color="0.5", linewidth=0.8)
ax.text(gram.crossover * 1.15, 300, f"crossover\n$\\alpha$ = {gram.crossover:.1f}", color="0.5")
ax.set(xlabel="$\\alpha$", ylabel="rate of decay", title="two regimes", ylim=(gram.rate_of_lengths / 4, 1e4))
ax.legend(fontsize="small")

# sphinx_gallery_defer_figures

# %%
# A larger rate is worth less than it looks, because the stable step shrinks with alpha^2 as well. What counts in steps
# is the condition number. V is about as well conditioned as H here, and G much worse: one length a neuron is a poorer
# set of features than a direction a neuron.

conditions = {name: float(np.linalg.cond(getattr(gram, name))) for name in "VHG"}
print("\nCondition numbers:", ", ".join(f"{name} {value:.1f}" for name, value in conditions.items()))

ax = axes[0, 1]
ax.loglog(alphas, steps_needed, "o-", color="C3", label="weight normalization")
ax.axhline(plain_steps, linestyle=":", color="C2", label="no normalization")
ax.axvline(gram.crossover, color="0.5", linewidth=0.8)
ax.set(xlabel="$\\alpha$", ylabel="steps", title="steps to a millionth of the error, each with its own step")
ax.set_ylim(10, 1000)
ax.text(gram.crossover * 1.15, 13, "crossover", color="0.5")
ax.legend(fontsize="small")

# sphinx_gallery_defer_figures

# %%
# The whole course, not the slowest rate alone: the error along each eigenvector of V / alpha^2 + G shrinks by
# 1 - step · eigenvalue a step. The targets of this part have the same error along every eigenvector at the start, and
# the matrices are those of the network drawn, not of the limit. Lines are the theory, dots the network.

for ax, alpha, shown in zip(axes[1], (0.1, 30.0), (14, 70), strict=True):
    start = weight_norm_start(D, N_NEURONS, alpha=alpha, random_state=0)
    drawn = gram_matrices(start, X, alpha=alpha)
    eigenvalues, U = np.linalg.eigh(drawn.kernel(alpha))
    learning_rate = drawn.learning_rate(alpha)
    trace = descend(alpha, learning_rate, start.predict(X)[:, 0] - U.sum(axis=1), n_steps=shown)
    errors, some = trace["residual"] @ U, slice(None, None, shown // 14)
    for i, k in enumerate((0, 3, 6, 8)):
        color = plt.get_cmap("viridis")(i / 3.5)
        ax.semilogy(trace.steps, (1 - learning_rate * eigenvalues[k]) ** trace.steps, color=color)
        dots = np.abs(errors[some, k])
        ax.semilogy(trace.steps[some], dots, "o", color=color, label=f"eigenvalue {eigenvalues[k]:.3g}")
    leads = "directions" if alpha < gram.crossover else "lengths"
    ax.set(title=f"error along eigenvectors, $\\alpha$ = {alpha:g}: {leads} lead", xlabel="step", ylabel="error")
    ax.set_ylim(1e-2, 1.2)
    ax.legend(fontsize="small")

# %%
# The theory is about fitting the data exactly. With weight decay on the lengths and on output weights that are trained
# too, the optimum is that of a convex program on the data as it is. There alpha matters for the path, not for the
# limit.

weight_decay = 0.005
X_small = np.random.default_rng(0).standard_normal((15, 2))
y_small = np.abs(X_small[:, 0]) - X_small[:, 1] + 0.3 * np.random.default_rng(1).standard_normal(15)
certificate = solve(Problem(WeightNormDesign().fit_transform(X_small), y_small, weight_decay=weight_decay)).certificate
print(f"\nWith weight decay, {certificate}")
for alpha in (0.1, 1.0, 10.0):
    network = weight_norm_start(2, 50, alpha=alpha, random_state=0)
    for learning_rate in (1e-2, 1e-3):
        options = {"weight_decay": weight_decay, "learning_rate": learning_rate, "n_steps": 1500}
        network = train(X_small, y_small, start=network, **options)[0]
    objective = network.objective(X_small, y_small, weight_decay)
    print(f"Adam from alpha = {alpha:g}: objective {objective:.8f}, {objective / certificate.objective - 1:.1e} above")

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=120)
    print(f"\nPicture: {sys.argv[1]}")
else:
    plt.show()
