"""The batch-normalized network trained by PyTorch's optimizers, full batch, in double precision.

This is `convexbn.gradient.train`, which takes a step in the time of a loop that was written by hand for these instances
(fused Adam and SGD, no running statistics, the optimizer's own weight decay). The weights to start from are PyTorch's
own. The objective at every step comes from the forward pass that the step makes anyway.
"""

from benchmarks.harness import PeerMissing, Run
from benchmarks.instances import Instance
from convexbn import BatchNormNetwork
from convexbn.gradient import train

try:
    import torch
except ImportError:
    torch = None

WIDTH = 100


def adam(instance: Instance, *, n_steps: int, seed: int) -> Run:
    """Adam with learning rate 1e-2."""
    return _train(instance, n_steps, seed, optimizer="adam", learning_rate=1e-2)


def sgd(instance: Instance, *, n_steps: int, seed: int) -> Run:
    """Gradient descent with learning rate 0.1 and momentum 0.9."""
    return _train(instance, n_steps, seed, optimizer="sgd", learning_rate=0.1, momentum=0.9)


def lbfgs(instance: Instance, *, n_steps: int, seed: int) -> Run:
    """L-BFGS with memory 20 and a strong Wolfe line search; a step of the curve is an iteration."""
    return _train(instance, n_steps, seed, optimizer="lbfgs")


def untrained(instance: Instance, seed: int) -> BatchNormNetwork:
    """Network with the weights that PyTorch starts from."""
    if torch is None:
        raise PeerMissing("PyTorch is not installed: pip install '.[bench]'.")
    torch.manual_seed(seed)
    module = torch.nn.Sequential(
        torch.nn.Linear(instance.X.shape[1], WIDTH, bias=False),
        torch.nn.BatchNorm1d(WIDTH),
        torch.nn.ReLU(),
        torch.nn.Linear(WIDTH, 1, bias=False),
    )
    return BatchNormNetwork.from_torch(module)


def _train(instance, n_steps, seed, **options) -> Run:
    start = untrained(instance, seed)
    _, trace = train(
        instance.X, instance.y, weight_decay=instance.weight_decay, n_steps=n_steps, start=start, **options
    )
    info = {"width": WIDTH, "n_steps": int(trace.steps[-1])}
    return Run(float(trace.times[-1]), trace.times, instance.n * trace.objective, info)
