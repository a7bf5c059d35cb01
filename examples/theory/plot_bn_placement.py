"""
Batch normalization before or after the ReLU
============================================

``Linear -> BatchNorm -> ReLU -> Linear`` or ``Linear -> ReLU -> BatchNorm -> Linear``: both are in use. With weight
decay on gamma, bias and output weights they are two different models. Before the ReLU, a neuron pays for the spread of
what goes *into* its ReLU; after it, for the spread of what comes *out*. Both training problems are convex programs in
disguise, so the two models can be compared at their global optima, where neither a start nor a learning rate has a say.

Run with ``python examples/theory/plot_bn_placement.py [picture.png]``. Needs PyTorch.
"""

import sys
import warnings

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from convexbn import ConvexBNRegressor, compare, convexbn_path
from convexbn.gradient import train
from convexbn.plotting import plot_comparison

plt.style.use("convexbn.plotting.colors")

warnings.simplefilter("ignore", ConvergenceWarning)  # the last fit of a choice may stop short of tol

PLACEMENTS = {"before": ("batch", "C0"), "after": ("batch_after_relu", "C3")}
FRACTION = 0.03  # of the weight decay from which on the network is a constant
ADAM = {"optimizer": "adam", "n_steps": 2000, "n_neurons": 50}
RUNS = {"Adam": ADAM, "SGD, no momentum": {**ADAM, "optimizer": "sgd"}}

figure, axes = plt.subplot_mosaic(
    [["fits", "cost"], ["before", "after"], ["runs before", "runs after"]], figsize=(13, 14), layout="constrained"
)

# sphinx_gallery_defer_figures

# %%
# 40 noisy samples of a function with a kink. Two of them went wrong, one inside the data and one at its end.

rng = np.random.default_rng(0)
x = np.sort(rng.uniform(-3, 3, 40))
truth = np.abs(x)
y = truth + 0.2 * rng.standard_normal(40)
errors = {27: 2, 39: -2}  # of these samples; the last one is the largest x
for sample, error in errors.items():
    y[sample] += error
X, grid = x[:, None], np.linspace(-3.1, 3.1, 621)[:, None]

# sphinx_gallery_defer_figures

# %%
# What does a neuron relu(x - t) cost at output weight one? Before the ReLU, normalization has to let x - t through: its
# gamma is the standard deviation of x and its bias the mean of x - t, and weight decay is on both. After the ReLU,
# beside an output intercept, the cost is the standard deviation of the neuron's outputs. At the left end of the curves
# all samples are active, and the neuron is a straight line: after the ReLU it costs half. At the right end it is active
# on the last sample alone. To lift that sample by one it has to be steep, as the one before is close, and only before
# the ReLU does it pay for that.

kinks = np.linspace(x[0], x[-1], 500)
costs = {"before": np.hypot(x.std(), x.mean() - kinks), "after": np.maximum(X - kinks, 0).std(axis=0)}
print("== cost of a neuron that lifts the last sample by one, and no other ==")
for placement, (_, color) in PLACEMENTS.items():
    cost = np.interp(x[-2], kinks, costs[placement]) / (x[-1] - x[-2])
    print(f"normalized {placement} the ReLU: {cost:.2f}")
    axes["cost"].plot(kinks, costs[placement], color=color, label=f"normalized {placement} the ReLU")
axes["cost"].plot(x, 0 * x, "|", color="0.5", markersize=12, label="samples")
axes["cost"].set(title="What a neuron relu(x - t) costs", xlabel="where its kink t is", ylabel="cost")
axes["cost"].legend(fontsize="small", loc="upper center")

# sphinx_gallery_defer_figures

# %%
# Both networks at the same fraction of their largest weight decay, each with its certificate. Both have the kink, and
# neither follows the sample inside that went wrong: a spike there takes several neurons, which are expensive under both
# normalizations. The one at the end takes a single neuron. After the ReLU it is worth its cost, and the network falls
# steeply from the sample before, and on beyond the data; as it does at the other end, where a sample is low by chance.
#
# Gradient steps on the same objectives end above the lower bounds, all of them. Before the ReLU they come close. After
# it, Adam ends a fifth above, from every start, and with no neuron on the last sample alone. Such a neuron has the same
# outputs wherever between the last two samples its kink is, so that its hidden weights have no gradient there; neurons
# that move towards the last sample are carried past it by momentum, to where a neuron is active nowhere and nothing
# brings it back. SGD without momentum mostly keeps one. In this example the missed optimum is the better fit: the
# objective asks for the sample at the end, and Adam fails to give it.

ax = axes["fits"]
ax.plot(x, y, ".", color="0.5", label="samples")
ax.plot(x[list(errors)], y[list(errors)], "ko", fillstyle="none", markersize=10, label="went wrong")
ax.plot(grid, np.abs(grid), "k--", linewidth=1, label="truth")
for placement, (normalization, color) in PLACEMENTS.items():
    largest = convexbn_path(X, y, normalization=normalization, n_weight_decays=1).weight_decays[0]
    problem = {"weight_decay": FRACTION * largest, "normalization": normalization, "fit_intercept": True}
    comparison = compare(X, y, **problem, runs=RUNS, seeds=range(3), random_state=0)
    network, bound = comparison.network, comparison.certificate.lower_bound
    print(
        f"\n== normalized {placement} the ReLU: {len(network)} neurons, weight decay {problem['weight_decay']:.2g} =="
    )
    print(comparison.certificate)
    within, at_end = ((network.predict(X).item(i) - truth[i]) / error for i, error in errors.items())
    print(f"The optimum follows {within:.0%} of the error inside and {at_end:.0%} of that at the end.")
    for name, traces in comparison.traces.items():
        above = [trace.objective[-1] / bound - 1 for trace in traces]
        print(f"{name} ends {', '.join(f'{part:.1e}' for part in above)} above the lower bound.")
        assert comparison.certificate.scope == "global"
        assert comparison.best(name) > bound, "a network below a proved lower bound would refute it"

    ax.plot(grid, network.predict(grid), color=color, label=f"normalized {placement} the ReLU")

    hidden = network.hidden(grid) * network.output_weights[:, 0]
    size = np.hypot(network.gamma, network.bias) * np.abs(network.output_weights[:, 0])
    for j in np.argsort(-size):
        axes[placement].plot(grid, hidden[:, j] - np.median(hidden[:, j]), label=f"cost {size[j]:.2f}")
    axes[placement].plot(x, 0 * x - 2.9, "|", color="0.5", markersize=12)
    axes[placement].set(
        title=f"The {len(network)} neurons, normalized {placement} the ReLU", xlabel="x", ylabel="output", ylim=(-3, 4)
    )
    axes[placement].legend(fontsize="small", loc="upper center")
    plot_comparison(comparison, axes[f"runs {placement}"])
    axes[f"runs {placement}"].set_title(f"Gradient training, normalized {placement} the ReLU")
by_adam, _ = train(X, y, **problem, **ADAM, random_state=0)
active = (X @ by_adam.weights.T + by_adam.offsets > 0).sum(axis=0)
print(f"First run of Adam: {(active == 1).sum()} neurons on a single sample, {(active == 0).sum()} on none.")
ax.plot(grid, by_adam.predict(grid), color=color, linestyle=":", label="by Adam, on the same objective")
ax.set(title="Two optima at 3 % of the largest weight decay", xlabel="x", ylabel="target", ylim=(-0.5, 5.5))
ax.legend(fontsize="small", loc="upper left")

# %%
# Which one predicts better? Default fits choose the weight decay on held-out samples, here of eight features that
# measure the same thing, each with noise of its own, and of patients. The default fit ends after about as much work as
# the choice. After the ReLU that is far from the optimum, so the last row has the optimum at the same weight decay.

thing = rng.uniform(-2, 2, 1000)
same = thing[:, None] + 0.3 * rng.standard_normal((1000, 8)), np.abs(thing) + 0.5 * rng.standard_normal(1000)
sets = {"eight of the same": (*same, 80), "diabetes": (*load_diabetes(return_X_y=True), 100)}
chosen, test_errors = {}, {}  # weight decays of the model before, by set and split; and errors of every model
models = {
    "before, power 0": ConvexBNRegressor(spectral_power=0),
    "before, chosen power": ConvexBNRegressor(),
    "after": ConvexBNRegressor(normalization="batch_after_relu"),
    "after, its optimum": ConvexBNRegressor(normalization="batch_after_relu", prove=False),
}
print("\n== test error relative to the standard deviation of the targets, and gap of training, on two splits ==")
print(f"{'':22}" + "".join(f"{name:^32}" for name in sets))
for model_name, model in models.items():
    print(f"{model_name:22}", end="")
    for set_name, (X, y, n_train) in sets.items():
        cells = []
        for seed in range(2):
            X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=n_train, random_state=seed)
            if model_name == "after, its optimum":
                model.weight_decay = chosen[set_name, seed]
            score = model.fit(X_train, y_train).score(X_test, y_test)
            chosen[set_name, seed] = model.weight_decay_
            test_errors[model_name, set_name, seed] = np.sqrt(1 - score)
            cells.append(f"{np.sqrt(1 - score):.3f} ({model.certificate_.gap:.0e})")
        print(f"{'  '.join(cells):^32}", end="")
    print()
for name in sets:
    stopped, optimal = (sum(test_errors[m, name, seed] for seed in range(2)) for m in ("after", "after, its optimum"))
    assert stopped < optimal, "the optimum predicts as well as the network before it: the text below is out of date"

# %%
# What to take from it:
#
# - The objective after the ReLU does not change under invertible linear maps of the features. Units and mixtures of
#   columns do not matter, but no direction of the data is small either, so there is no spectral power. On the first
#   set, where the small directions are noise, a spectral power before the ReLU is the best choice by far.
# - After the ReLU a sample at the edge of the data can be fitted alone, at a cost that depends on its share of the data
#   and not on how near the others are. With eight or ten features nearly all samples are, and the optimum has steep
#   neurons there: beyond the data they are far off, and its error on new samples is larger than that of the
#   network that the default fit stops at. On the first set it is larger than that of the mean.
# - So after the ReLU a low objective and a certificate are no recommendation; held-out samples are. On these sets a
#   network that stopped early predicts better than the optimum at the same weight decay.
# - On the patients, the default fits of both placements differ by no more than the splits do. Nothing here says that
#   normalization after the ReLU predicts better, and before the ReLU the optimum itself can be used.

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=120)
    print(f"\nPicture: {sys.argv[1]}")
else:
    plt.show()
