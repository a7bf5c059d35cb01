"""pyscnn (arXiv 2202.01331): the augmented Lagrangian method (ReLU) and R-FISTA (gated ReLU) on given patterns.

pyscnn minimises ``|f - y|^2 / (2n) + lam * sum |u_i|`` after dividing every column of its data by the column's norm.
All columns of Z have norm sqrt(n), so ``lam = weight_decay / sqrt(n)`` makes this our objective with u = sqrt(n) s.
The objective reported is always ours, of the weights that pyscnn returns; the time is pyscnn's own, without its
preprocessing and the evaluation of its metrics. pyscnn sorts the gates it is given and drops the pattern that is
zero: the gates that it returns are used.
"""

import numpy as np

from benchmarks.harness import PeerMissing, Run
from benchmarks.instances import Instance
from convexbn import Neurons, Patterns


def augmented_lagrangian(instance: Instance, patterns: Patterns, **options) -> Run:
    """AL with its default tolerances; one point, since the iterates before the last violate the cones."""
    scnn = _scnn()
    model, metrics = _optimize(instance, scnn.models.ConvexReLU(patterns.directions), scnn.solvers.AL, options)
    positive, negative = (block[0].T for block in model.get_parameters())
    signs = np.repeat([1.0, -1.0], [positive.shape[1], negative.shape[1]])
    neurons = Neurons(np.hstack([positive, negative]), signs[:, None], np.zeros(1)).without_zeros()
    seconds = float(metrics.time[-1])
    objective = instance.n * instance.problem.objective(neurons)
    info = {"n_patterns": len(patterns), "program_value": instance.n * float(metrics.model_loss[-1])}
    return Run(seconds, np.array([seconds]), np.array([objective]), info)


def r_fista(instance: Instance, patterns: Patterns, device: str = "cpu", **options) -> Run:
    """R-FISTA on a device of PyTorch; the curve is the objective that it records, the last point is measured by us."""
    scnn = _scnn()
    gated = scnn.models.ConvexGatedReLU(patterns.directions)
    model, metrics = _optimize(instance, gated, scnn.solvers.RFISTA, options, device)
    weights = model.get_parameters()[0][0].T.astype(float)
    neurons = Neurons(weights, np.ones((weights.shape[1], 1)), np.zeros(1), np.asarray(model.G, dtype=float))
    objective = instance.n * instance.problem.objective(neurons)
    times, objectives = metrics.time, instance.n * metrics.objective.astype(float)
    info = {"n_patterns": len(patterns), "n_iter": len(times) - 1, **options}
    return Run(float(times[-1]), times, np.append(objectives[:-1], objective), info)


def _optimize(instance, model, solver, options, device="cpu"):
    from scnn.metrics import Metrics
    from scnn.optimize import optimize_model
    from scnn.regularizers import NeuronGL1

    return optimize_model(
        model,
        solver(model, **options),
        Metrics(model_loss=True),
        instance.problem.Z.Z,
        instance.y[:, None],  # on a GPU it adds an axis to tensors alone
        regularizer=NeuronGL1(instance.weight_decay / np.sqrt(instance.n)),
        return_convex=True,
        device=device,
        dtype="float64",
    )


def _scnn():
    try:
        import scnn.models
        import scnn.optimize
        import scnn.solvers
    except ImportError as error:
        raise PeerMissing(
            "pyscnn is not installed: pip install --no-deps pyscnn && pip install opt_einsum linalg_backends tqdm."
        ) from error
    return scnn
