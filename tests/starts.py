"""Gradient training from many starts in one pass, for tests that set the best of them beside an optimum."""

import numpy as np
import pytest

from convexbn import BatchNormNetwork
from convexbn.gradient import train
from convexbn.losses import make_loss

torch = pytest.importorskip("torch")


def train_starts(seeds, X, y, *, weight_decay, loss, n_steps, learning_rate, fit_intercept=True, **options):
    """Objectives (n_steps + 1, starts) along Adam from the initial networks of `convexbn.gradient.train`.

    Every entry of a weight has its own step in Adam, so that networks along a first axis do not meet.
    The start of the first seed is trained by `convexbn.gradient.train`, too, and the first steps must be the same.
    """
    problem = {"weight_decay": weight_decay, "loss": loss, "fit_intercept": fit_intercept}
    networks = [train(X, y, n_steps=0, random_state=seed, **problem, **options)[0] for seed in seeds]
    objectives = _along_adam(networks, X, y, n_steps, learning_rate, **problem)
    trace = train(
        X, y, n_steps=n_steps, learning_rate=learning_rate, random_state=seeds[0], **problem, **options
    )[1].objective  # fmt: skip
    np.testing.assert_allclose(objectives[:20, 0], trace[:20], rtol=1e-9)
    value = networks[-1].objective(X, y, weight_decay, loss)
    np.testing.assert_allclose(objectives[0, -1], value, rtol=1e-12)
    return np.column_stack([trace, objectives[:, 1:]])


def _along_adam(networks, X, y, n_steps, learning_rate, *, weight_decay, loss, fit_intercept):
    loss, X = make_loss(loss), torch.tensor(X)
    y = np.tile(np.reshape(y, (len(y), -1)), (len(networks), 1))
    names = ("weights", "gamma", "bias", "output_weights", "intercept")
    parameters = [torch.tensor(np.stack([getattr(network, name) for network in networks])) for name in names]
    weights, gamma, bias, output_weights, intercept = parameters
    for parameter in parameters if fit_intercept else parameters[:-1]:
        parameter.requires_grad_()
    optimizer = torch.optim.Adam(parameters if fit_intercept else parameters[:-1], lr=learning_rate, fused=True)
    objectives = []
    for _ in range(n_steps + 1):
        hidden = X @ weights.mT
        if isinstance(networks[0], BatchNormNetwork):
            hidden = hidden - hidden.mean(dim=1, keepdim=True)
            sizes = hidden.square().mean(dim=1)
        else:
            sizes = weights.square().sum(dim=2)
        hidden = torch.relu(torch.addcmul(bias[:, None], hidden, (gamma / sizes.sqrt())[:, None]))
        outputs = torch.baddbmm(intercept[:, None], hidden, output_weights)
        f = outputs.detach().numpy().reshape(y.shape)
        squares = gamma.square().sum(dim=1) + bias.square().sum(dim=1) + output_weights.square().sum(dim=(1, 2))
        losses = loss.value(f, y).reshape(len(networks), -1).mean(axis=1)
        objectives.append(losses + weight_decay / 2 * squares.detach().numpy())
        optimizer.zero_grad()
        gradient = torch.tensor(loss.gradient(f, y).reshape(outputs.shape) / len(X))
        torch.autograd.backward([outputs, weight_decay / 2 * squares.sum()], [gradient, None])
        optimizer.step()
    return np.array(objectives)
