"""
A convex head on frozen features
================================

A common recipe: take features that something else has learned, keep them fixed, and put a linear classifier on top.
Here the head is a two-layer network instead, trained to its optimum by convex optimisation, in the place of
`LogisticRegression` in a pipeline of scikit-learn. Nothing else changes, and the head says how good its training is.

What the certificate covers: the head, on these features. It says nothing about the features, which were not trained
with it, and nothing about new data. Where its scope is "local" it is evidence and no proof, and stands beside the best
bound that is proved.

Run with ``python examples/prediction/plot_convex_head.py [picture.png]``.
"""

import sys
import warnings

import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomTreesEmbedding
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from convexbn import ConvexBNClassifier, FrozenModule, RandomBatchNormLayers

plt.style.use("convexbn.plotting.colors")

warnings.simplefilter("ignore", ConvergenceWarning)  # the gap is printed with the certificate

# %%
# Two tasks: tumours, and the handwritten digits 3 and 8, of which few are used for training. Three kinds of frozen
# features: principal components, leaves of random trees, and the hidden layers of a random network. The latter two have
# more features than there are samples: whitened, any labels can be fitted. So the head chooses on held-out samples how
# much weight decay it needs, and how much less small directions of the features count.

digits = load_digits()
chosen = (digits.target == 3) | (digits.target == 8)
tasks = {
    "breast cancer": load_breast_cancer(return_X_y=True),
    "digits 3 and 8": (digits.data[chosen], digits.target[chosen]),
}
embeddings = {
    "5 principal\ncomponents": make_pipeline(StandardScaler(), PCA(5, random_state=0)),
    "random trees": RandomTreesEmbedding(50, max_depth=4, sparse_output=False, random_state=0),
    "random BN\nnetwork": make_pipeline(StandardScaler(), RandomBatchNormLayers((300, 300), random_state=0)),
}

# %%
# For the digits there is a fourth, the usual case of frozen features: a convolutional network in PyTorch that was
# trained on something else, here on the other eight digits. It has never seen a 3 or an 8. What remains of it without
# its output layer is a transformer of scikit-learn as a `FrozenModule`.

torch.manual_seed(0)
layers = torch.nn.Sequential(
    torch.nn.Unflatten(1, (1, 8, 8)),
    torch.nn.Conv2d(1, 8, 3, padding=1),
    torch.nn.BatchNorm2d(8),
    torch.nn.ReLU(),
    torch.nn.MaxPool2d(2),
    torch.nn.Conv2d(8, 8, 3),
    torch.nn.BatchNorm2d(8),
    torch.nn.ReLU(),
    torch.nn.Flatten(),
)
network = torch.nn.Sequential(layers, torch.nn.Linear(32, 10))
images, labels = torch.tensor(digits.data[~chosen]).float(), torch.tensor(digits.target[~chosen])
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(100):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(network(images), labels).backward()
    optimizer.step()
pretrained = {"network trained on\nother digits": FrozenModule(layers)}

figure, axes = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained", width_ratios=(3, 4))
for ax, (name, (X, y)) in zip(axes, tasks.items(), strict=True):
    X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=100, stratify=y, random_state=0)
    of_task = embeddings | (pretrained if name.startswith("digits") else {})
    for place, (label, embedding) in enumerate(of_task.items()):
        heads = {"logistic regression": LogisticRegression(max_iter=1000), "convex head": ConvexBNClassifier(tol=1e-3)}
        print(f"\n== {name}, {' '.join(label.split())} ==")
        for shift, color, (title, head) in zip((-0.2, 0.2), ("0.5", "C0"), heads.items(), strict=True):
            model = make_pipeline(embedding, head).fit(X_train, y_train)
            accuracy = model.score(X_test, y_test)
            print(f"{title}: accuracy {accuracy:.3f} on {len(y_test)} test samples")
            bars = ax.bar(place + shift, accuracy, 0.38, color=color, label=title if place == 0 else None)
            ax.bar_label(bars, fmt="%.3f", fontsize="small")
        certificate = model[-1].certificate_
        print(f"{len(model[-1].network_)} neurons. {certificate}")
        ax.text(
            place + 0.2,
            0.62,
            f"{certificate.scope}\ngap {certificate.gap:.0e}",
            ha="center",
            color="white",
            fontsize="x-small",
        )
    ax.set(title=name, ylabel="test accuracy", ylim=(0.6, 1.06), xticks=range(len(of_task)))
    ax.set_xticklabels(list(of_task))
    ax.legend(loc="upper center", ncols=2, fontsize="small")

# %%
# The two heads differ by three test samples at most: a draw. A convex head is no better where a linear classifier on
# these features is all that is needed. What it offers is that no time goes into learning rates and starts, and that it
# says how far its training is from what it could reach.

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=120)
    print(f"\nPicture: {sys.argv[1]}")
else:
    plt.show()
