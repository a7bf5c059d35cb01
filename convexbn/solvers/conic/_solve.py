"""A convex program of a problem, scaled for an interior-point method and solved by cvxpy."""

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np

from convexbn.solvers._scaling import Scaling
from convexbn.solvers.conic._program_solver import solve_program
from convexbn.solvers.post_activation._scaling import Whitened


def solve_scaled(
    scaling: Scaling | Whitened, build: Callable[[Any], cp.Problem], **options: Any
) -> tuple[dict[str, np.ndarray], np.ndarray, int, str]:
    """Solve the program that `build` makes of the scaled problem.

    Parameters
    ----------
    scaling : Scaling or Whitened
        The scaled problem.
    build : callable
        Returns the program of a problem; its first constraint defines f.
    **options
        Of `solve_program`.

    Returns
    -------
    variables : dict
        Values of the program's variables, for the scaled problem.
    v : ndarray of shape (n, C)
        Dual point of the original problem.
    n_iter : int
        The solver's iterations.
    ending : str
        Its status.
    """
    stated = build(scaling.problem)
    # With norms of weight 100 Clarabel solved every log-loss program we tried; it broke down on many with small ones.
    # It also breaks down on losses that weigh more than 1e7, as they would where sample weights are 1e4 and more apart.
    unit = min(100 / scaling.problem.weight_decay, 1e7 / scaling.problem.sample_weight.max())
    program = cp.Problem(cp.Minimize(unit * stated.objective.expr), stated.constraints)
    solve_program(program, **options)
    variables = {name: variable.value for name, variable in program.var_dict.items()}
    v = scaling.unscaled_dual(program.constraints[0].dual_value.reshape(scaling.problem.y.shape) / unit)
    return variables, v, int(program.solver_stats.num_iters or 0), program.status
