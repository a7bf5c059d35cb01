"""The batch-normalized network trained by PyTorch's optimizers, full batch, in double precision.

Written for speed as a user who knows PyTorch would: no running statistics (training does not need them), fused Adam,
and for Adam and SGD the optimizer's own weight decay, whose gradient is that of the penalty. The objective at every
step comes from the forward pass that the step makes anyway.
"""

from time import perf_counter

import numpy as np

from benchmarks.harness import PeerMissing, Run
from benchmarks.instances import Instance

try:
    import torch
except ImportError:
    torch = None

WIDTH = 100


def adam(instance: Instance, *, n_steps: int, seed: int) -> Run:
    """Adam with learning rate 1e-2."""
    _require_torch()
    return _train(instance, n_steps, seed, lambda groups: torch.optim.Adam(groups, lr=1e-2, fused=True))


def sgd(instance: Instance, *, n_steps: int, seed: int) -> Run:
    """Gradient descent with learning rate 0.1 and momentum 0.9."""
    _require_torch()
    return _train(instance, n_steps, seed, lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, fused=True))


def lbfgs(instance: Instance, *, n_steps: int, seed: int) -> Run:
    """L-BFGS with memory 20 and a strong Wolfe line search; a step of the curve is an evaluation."""
    _require_torch()
    module, inputs, targets = _network(instance, seed)
    decayed = [module[1].weight, module[1].bias, module[3].weight]
    optimizer = torch.optim.LBFGS(
        module.parameters(),
        max_iter=n_steps,
        max_eval=n_steps,
        history_size=20,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )
    times, objectives = [], []

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(module(inputs), targets) / 2
        objective = loss + instance.weight_decay / 2 * sum(torch.sum(parameter**2) for parameter in decayed)
        objective.backward()
        objectives.append(objective.item())
        times.append(perf_counter() - start)
        return objective

    start = perf_counter()
    optimizer.step(closure)
    return Run(perf_counter() - start, np.array(times), instance.n * np.array(objectives), {"width": WIDTH})


def _train(instance, n_steps, seed, make_optimizer) -> Run:
    module, inputs, targets = _network(instance, seed)
    decayed = [module[1].weight, module[1].bias, module[3].weight]
    optimizer = make_optimizer(
        [{"params": [module[0].weight]}, {"params": decayed, "weight_decay": instance.weight_decay}]
    )
    times = np.empty(n_steps + 1)
    objectives = torch.empty(n_steps + 1, dtype=torch.float64)
    start = perf_counter()
    for step in range(n_steps + 1):  # entry i is the network after i steps
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(module(inputs), targets) / 2
        with torch.no_grad():
            penalty = sum(torch.dot(parameter.ravel(), parameter.ravel()) for parameter in decayed)
            objectives[step] = loss + instance.weight_decay / 2 * penalty
        times[step] = perf_counter() - start
        if step < n_steps:
            loss.backward()
            optimizer.step()
    return Run(times[-1], times, instance.n * objectives.numpy(), {"width": WIDTH, "n_steps": n_steps})


def _network(instance, seed):
    torch.manual_seed(seed)
    module = torch.nn.Sequential(
        torch.nn.Linear(instance.X.shape[1], WIDTH, bias=False),
        torch.nn.BatchNorm1d(WIDTH, eps=float(np.finfo(float).tiny), track_running_stats=False),
        torch.nn.ReLU(),
        torch.nn.Linear(WIDTH, 1, bias=False),
    ).double()
    return module, torch.tensor(instance.X), torch.tensor(instance.y)[:, None]


def _require_torch() -> None:
    if torch is None:
        raise PeerMissing("PyTorch is not installed: pip install '.[bench]'.")
