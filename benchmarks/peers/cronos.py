"""CRONOS (arXiv 2411.01088): ADMM with preconditioned conjugate gradients, from a checkout of its authors' code.

The checkout is of github.com/pilancilab/CRONOS; it is not packaged, so its path is given. Its loop requires validation
labels and stops by classification accuracy, so its step is called here directly. It minimises
``|f - y|^2 / 2 + beta * sum (|v_i| + |w_i|)``, n times our objective with ``beta = n * weight_decay``. The iterates
violate the cones; the objective reported is ours, of the better of the networks with the weights u and v of ADMM.
"""

import sys
from pathlib import Path
from time import perf_counter
from types import ModuleType

import numpy as np

from benchmarks.harness import PeerMissing, Run
from benchmarks.instances import Instance
from convexbn import Neurons

PACKAGES = ("models", "optimizers", "preconditioner", "utils")


def admm(
    instance: Instance,
    checkout: Path,
    *,
    n_patterns: int,
    rho: float,
    n_iter: int,
    seed: int,
    rank: int = 20,
    pcg_iters: int = 20,
    evaluate_every: int = 10,
) -> Run:
    """ADMM with penalty rho; the clock stands still while the objective is evaluated and for one warm-up step."""
    jax, cronos, model_class = _load(checkout)
    beta = instance.n * instance.weight_decay
    Z, y = jax.numpy.asarray(instance.problem.Z.Z), jax.numpy.asarray(instance.y)
    model = model_class(Z, y, n_patterns, beta, rho, jax.random.key(seed))

    start = perf_counter()
    model.init_model()
    U, S, model.seed = cronos.rand_nys_appx(model, rank, "CReLU", model.seed)
    preconditioner = cronos.Nys_Precond(U, S, Z.shape[1], rho, n_patterns, "CReLU")
    state = cronos.init_cronos_state(Z.shape[1], instance.n, n_patterns)
    seconds = perf_counter() - start
    cronos.cronos_step(state, model, preconditioner, beta, 1.0, pcg_iters, 1.0)  # compiles

    times, objectives = [], []
    for k in range(n_iter):
        start = perf_counter()
        state = cronos.cronos_step(state, model, preconditioner, beta, 1.0, pcg_iters, (1 + k) ** -1.2)
        jax.block_until_ready(state)
        seconds += perf_counter() - start
        if (k + 1) % evaluate_every == 0:
            times.append(seconds)
            networks = [_network(iterate) for iterate in (state.u, state.v)]
            objectives.append(instance.n * min(map(instance.problem.objective, networks)))
    info = {"n_patterns": n_patterns, "rho": rho, "n_iter": n_iter}
    return Run(seconds, np.array(times), np.array(objectives), info)


def _network(iterate) -> Neurons:
    weights = np.hstack([np.asarray(block, dtype=float) for block in iterate])
    signs = np.repeat([1.0, -1.0], weights.shape[1] // 2)
    return Neurons(weights, signs[:, None], np.zeros(1)).without_zeros()


def _load(checkout: Path):
    """Import the solver, past the packages' __init__ files, which import vision libraries it does not use."""
    try:
        import jax
    except ImportError as error:
        raise PeerMissing("CRONOS needs JAX: pip install jax.") from error
    if not (checkout / "optimizers" / "cronos.py").exists():
        raise PeerMissing(f"{checkout} is not a checkout of CRONOS: it has no optimizers/cronos.py.")
    jax.config.update("jax_enable_x64", True)
    for package in PACKAGES:
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = [str(checkout / package)]
    from utils import linops_utils

    sys.modules["utils"].tensor_to_vec = linops_utils.tensor_to_vec
    sys.modules["utils"].vec_to_tensor = linops_utils.vec_to_tensor
    from models.cvx_relu_mlp import CVX_ReLU_MLP
    from optimizers import cronos

    return jax, cronos, CVX_ReLU_MLP
