"""convexbn's solvers as runs, to stand beside those of the peers."""

import warnings
from dataclasses import replace

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from benchmarks.harness import Run, timed
from benchmarks.instances import Instance
from convexbn import Patterns, Solution, solve_column_generation, solve_gated
from convexbn._utils.torch_device import placed
from convexbn.operators import DeviceMatrix


def column_generation(instance: Instance, *, seed: int, **options) -> Run:
    """Column generation for the ReLU network."""
    return _run(instance, lambda: solve_column_generation(instance.problem, random_state=seed, **options))


def gated(instance: Instance, patterns: Patterns, device: str | None = None, **options) -> Run:
    """Working sets for the gated ReLU network with the gates of `patterns`, the design matrix on a device."""
    problem = instance.problem
    if device is not None:
        problem = replace(problem, Z=DeviceMatrix(placed(problem.Z.rows(), device)))
    return _run(instance, lambda: solve_gated(problem, patterns, **options))


def _run(instance, solve) -> Run:
    """Run a solver; the last point of the curve is the certified objective at the time of return."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the status is reported instead
        seconds, solution = timed(solve)
    history = solution.history
    certificate = solution.certificate
    times = np.array([*(progress.time for progress in history), seconds])
    objectives = np.array([*(progress.objective for progress in history), certificate.objective])
    gaps = np.array([*(progress.gap for progress in history), certificate.gap])
    info = outcome(solution, instance.n) | {"gaps": gaps, "least_gap": gaps.min()}
    return Run(seconds, times, instance.n * objectives, info)


def time_to_gap(run: Run, objective: float, gap: float) -> float:
    """Seconds until n * objective and the relative gap of the search were this small; a proof may follow."""
    reached = np.flatnonzero((run.objectives <= objective) & (run.info["gaps"] <= gap))
    return float(run.times[reached[0]]) if len(reached) else np.inf


def outcome(solution: Solution, n: int) -> dict:
    """What a solution says of itself; bounds are n times those of the certificate."""
    certificate = solution.certificate
    bound = certificate.global_lower_bound
    return {
        "status": solution.status.name,
        "gap": certificate.gap,
        "scope": certificate.scope,
        "n_lower_bound": n * certificate.lower_bound,
        "n_global_lower_bound": None if bound is None else n * bound,
        "n_neurons": len(solution.neurons),
        "n_iter": solution.n_iter,
    }
