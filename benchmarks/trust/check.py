"""One case: solve it, and try to refute what its certificate says."""

import time
import traceback
import warnings
from typing import Any

import numpy as np

from benchmarks.trust import long_double
from benchmarks.trust.cases import Case
from benchmarks.trust.rivals import directions, rivals
from convexbn import Problem, Solution, make_network, solve, weight_decay_max

MAX_TIME = 1.0  # seconds of a solve
_CHANGES = 10  # of the data by rounding
_TORCH_EPS = 1e-60  # of the exported batch normalization, which a variance is far above
# What the library says of data that is constant but for rounding, and of an interior point that breaks down.
_REFUSALS = ("All rows of X are equal", "cvxpy's solver")
_HINGE_PATTERNS = 20  # directions drawn for a loss that is solved as a program of sampled patterns


def check(case: Case, max_time: float = MAX_TIME) -> dict[str, Any]:
    """What the certificate of a case says, and how it fared: a line of the record."""
    start, line = time.process_time(), {"number": case.number, **case.as_json()}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            line |= _checked(case, max_time)
        except Exception as error:
            kind = "refused" if str(error).startswith(_REFUSALS) else "error"
            line |= {kind: traceback.format_exc(limit=-4)}
    return line | {"seconds": time.process_time() - start}


def solved(case: Case, max_time: float = MAX_TIME) -> tuple[Problem, Solution]:
    """The training problem of a case, and its solution; what NumPy would warn of is an error."""
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        problem = case.problem(1.0)
        weight_decay = case.share * (weight_decay_max(problem) or 1.0)
        problem = case.problem(weight_decay)
        solution = solve(
            problem,
            activation=case.activation,
            tol=case.tol,
            max_time=max_time,
            n_patterns=_HINGE_PATTERNS,
            random_state=case.number,
        )
    return problem, solution


def _checked(case: Case, max_time: float) -> dict[str, Any]:
    problem, solution = solved(case, max_time)
    certificate, zero = solution.certificate, problem.zero_objective
    scale = zero or 1.0
    exact = float(long_double.objective(problem, solution.neurons))
    best, name = np.longdouble(np.inf), ""
    for rival, neurons in rivals(case, problem, solution, max_time):
        value = long_double.objective(problem, neurons)
        if value < best:
            best, name = value, rival
    line = {
        "weight_decay": problem.weight_decay,
        "status": solution.status.name,
        "scope": certificate.scope,
        "search": certificate.search.name,
        "oracle": None if certificate.oracle is None else certificate.oracle.name,
        "neurons": len(solution.neurons),
        "objective": certificate.objective,
        "zero": zero,
        "gap": certificate.gap,
        "lower_bound": certificate.lower_bound,
        "global_lower_bound": certificate.global_lower_bound,
        "objective_error": abs(exact - certificate.objective) / scale,
        **{name: error / scale for name, error in _errors(case, problem, solution).items()},
        "best_rival": name,
        "undercut": _below(best, certificate.lower_bound, scale),
        "global_undercut": _below(best, _proved_bound(certificate), scale),
    }
    if certificate.global_lower_bound:
        line["unsupported"] = float(_unsupported(case, problem, solution)) / scale
    return line


def _proved_bound(certificate: Any) -> float:
    """The bound that is proved: of a gated network, and of a scope that is global, the lower bound itself."""
    if certificate.global_lower_bound is None:
        return certificate.lower_bound
    return certificate.global_lower_bound


def _below(best: np.longdouble, bound: float, scale: float) -> float:
    """How far the best network is below a bound, in units of the zero network's objective; negative if it is above."""
    return float((np.longdouble(bound) - best) / scale)


def _unsupported(case: Case, problem: Problem, solution: Solution) -> np.longdouble:
    """How far the proved bound is above what the dual points give at the largest price that is found."""
    rng = np.random.default_rng([case.seed, case.number, 6])
    tried = directions(problem, solution, rng)
    largest = -np.longdouble(np.inf)
    for v in (problem.feasible_dual(solution.dual), problem.zero_dual):
        price = long_double.prices(problem, v, tried).max()
        scale = min(1.0, float(problem.weight_decay / price)) if price > 0 else 1.0
        largest = max(largest, long_double.dual_objective(problem, v, scale))
    return np.longdouble(solution.certificate.global_lower_bound) - max(largest, np.longdouble(0))


def _errors(case: Case, problem: Problem, solution: Solution) -> dict[str, float]:
    """Distances of the network's objective on the data from the certificate's: the library's and that of PyTorch.

    "resolution" is what the last digit of the data makes of it: the largest change under relative changes of X and of y
    by one unit of rounding. Networks whose penalty is not plain weight decay on both layers have none.
    """
    plain_decay = case.design.spectral_weights_.min(initial=1) == 1 == getattr(case.design, "bias_unit_", 1.0)
    if not plain_decay or case.activation != "relu":
        return {}
    network, objective = make_network(solution.neurons, case.design), solution.certificate.objective

    def value(X: np.ndarray, y: np.ndarray) -> float:
        return network.objective(X, y, problem.weight_decay, case.loss, case.sample_weight)

    def near(values: np.ndarray) -> np.ndarray:
        return values * (1 + np.finfo(float).eps * rng.choice([-1, 1], values.shape))

    rng, at_data = np.random.default_rng(0), value(case.X, case.y)
    changes = [value(near(case.X), case.y if problem.loss.margin else near(case.y)) - at_data for _ in range(_CHANGES)]
    errors = {"network_error": abs(at_data - objective), "resolution": max(map(abs, changes))}
    if case.sample_weight is None:
        import torch

        module = network.to_torch(eps=_TORCH_EPS).train()
        with torch.no_grad():
            f = module(torch.tensor(case.X)).numpy()
            squares = sum(float((parameter**2).sum()) for parameter in network.decayed_parameters(module))
        by_torch = problem.training_loss(f) + problem.weight_decay * squares / 2
        errors["torch_error"] = abs(by_torch - objective)
    return errors
