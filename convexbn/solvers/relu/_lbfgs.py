"""L-BFGS for smooth functions of a few thousand variables, with little overhead beside the function.

On small networks the wrapper of a general library takes longer than the products themselves.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.linalg.lapack import dtrtrs

_MEMORY = 30
_ARMIJO, _HALVINGS = 1e-4, 20
_CURVED = 1e-10  # least cosine of step and change of the gradient with which a pair enters the memory
_TINY = float(np.finfo(float).tiny)


def lbfgs(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    *,
    max_steps: int,
    ftol: float,
    stop: Callable[[], bool] | None = None,
    enough: Callable[[Sequence[float]], bool] = lambda values: False,
) -> np.ndarray:
    """Minimise a function by L-BFGS with backtracking.

    The inverse Hessian is kept in the compact form of Byrd, Nocedal and Schnabel (1994), whose products with a gradient
    are four matrix-vector products.

    Parameters
    ----------
    function : callable
        Value and gradient (N,) at a point (N,).
    start : ndarray of shape (N,)
        Where to start.
    max_steps : int
        Steps at most.
    ftol : float
        Ends when a step lowers the value by a smaller share of it.
    stop : callable or None, default=None
        Called after every step; when it returns True the descent ends.
    enough : callable, optional
        Called after every step with the values so far, that of the start first; when it returns True the descent ends.

    Returns
    -------
    point : ndarray of shape (N,)
        The best point found.

    References
    ----------
    .. [1] Byrd, Nocedal, Schnabel, "Representations of quasi-Newton matrices and their use in limited memory methods",
       Mathematical Programming 63, 1994, equation 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.solvers.relu._lbfgs import lbfgs
    >>> scales = np.array([1.0, 100.0])
    >>> lbfgs(lambda x: (scales @ x**2 / 2, scales * x), np.ones(2), max_steps=50, ftol=1e-16).round(6) + 0.0
    array([0., 0.])
    """
    x = start
    value, gradient = function(x)
    memory, values = _Memory(gradient), [value]
    for _ in range(max_steps):
        direction = memory.direction()
        slope = float(direction @ gradient)
        if not slope < 0:
            if len(memory) == 0:
                break
            memory, direction = _Memory(gradient), -gradient
            slope = float(direction @ gradient)
        t = 1.0 if len(memory) else min(1.0, 1 / max(float(np.abs(gradient).sum()), _TINY))
        for _ in range(_HALVINGS):
            later = x + t * direction
            later_value, later_gradient = function(later)
            if later_value <= value + _ARMIJO * t * slope:
                break
            # The minimiser of the parabola through what is known, but no less than a tenth and no more than half.
            t *= min(max(-slope * t / 2 / max(later_value - value - slope * t, 1e-300), 0.1), 0.5)
        else:
            break
        memory.add(later - x, later_gradient)
        decrease = value - later_value
        x, value, gradient = later, later_value, later_gradient
        values.append(value)
        if decrease <= ftol * max(abs(value), _TINY) or (stop is not None and stop()) or enough(values):
            break
    return x


class _Memory:
    """The last steps and changes of the gradient, in a ring; their inner products with each other and the gradient."""

    def __init__(self, gradient: np.ndarray):
        self.gradient = gradient
        self.steps, self.changes = np.empty((_MEMORY, gradient.size)), np.empty((_MEMORY, gradient.size))
        self.mixed, self.gram = np.zeros((_MEMORY, _MEMORY)), np.zeros((_MEMORY, _MEMORY))
        self.along_steps, self.along_changes = np.zeros(_MEMORY), np.zeros(_MEMORY)
        self.order: list[int] = []  # places in the ring, the oldest first

    def __len__(self) -> int:
        return len(self.order)

    def add(self, step: np.ndarray, gradient: np.ndarray) -> None:
        """Go on to the gradient after a step; the pair is kept if the function is convex along it."""
        used, change = len(self.order), gradient - self.gradient
        along_steps, along_changes = self.steps[:used] @ gradient, self.changes[:used] @ gradient
        mixed, gram = along_steps - self.along_steps[:used], along_changes - self.along_changes[:used]
        self.gradient, self.along_steps[:used], self.along_changes[:used] = gradient, along_steps, along_changes
        curvature, size = float(step @ change), float(change @ change)
        if curvature <= _CURVED * float(np.sqrt((step @ step) * size)):
            return
        place = self.order.pop(0) if used == _MEMORY else used
        self.order.append(place)
        self.steps[place], self.changes[place] = step, change
        self.along_steps[place], self.along_changes[place] = step @ gradient, change @ gradient
        self.mixed[:used, place] = mixed  # of steps with later changes: only that triangle is read
        self.gram[:used, place] = self.gram[place, :used] = gram
        self.mixed[place, place], self.gram[place, place] = curvature, size

    def direction(self) -> np.ndarray:
        """Minus the product of the inverse Hessian with the gradient."""
        used = len(self.order)
        if used == 0:
            return -self.gradient
        order = slice(used) if self.order[0] == 0 else np.array(self.order)  # which indexing takes long
        mixed, gram = (np.ascontiguousarray(M[order][:, order]) for M in (self.mixed, self.gram))
        diagonal = mixed.diagonal()
        scale = diagonal[-1] / gram[-1, -1]
        inner = dtrtrs(mixed, self.along_steps[order])[0]
        outer = dtrtrs(mixed, diagonal * inner + scale * (gram @ inner - self.along_changes[order]), trans=1)[0]
        ring_inner, ring_outer = np.empty(used), np.empty(used)
        ring_inner[order], ring_outer[order] = inner, outer
        return scale * (ring_inner @ self.changes[:used] - self.gradient) - ring_outer @ self.steps[:used]
