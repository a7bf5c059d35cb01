"""L-BFGS for smooth functions of a few thousand variables, with little overhead beside the function.

On small networks the wrapper of a general library takes longer than the products themselves.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.linalg.blas import dtrsv

_MEMORY = 30
_ROWS = _MEMORY + 10  # in which they are kept
_ARMIJO, _HALVINGS = 1e-4, 20
_CURVED = 1e-10  # least cosine of step and change of the gradient with which a pair enters the memory
_TINY = float(np.finfo(float).tiny)


@np.errstate(over="ignore", invalid="ignore")  # at a huge weight decay; a step to such a value is never taken
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
    """The last steps and changes of the gradient, with their inner products with the changes and with the gradient.

    They lie in a window of rows that moves down by a row a step; at the end of the rows it goes back to the front.
    """

    def __init__(self, gradient: np.ndarray):
        self.gradient = gradient
        self.pairs = np.empty((2, _ROWS, gradient.size))  # steps, changes
        self.products = np.zeros((2, _ROWS, _ROWS))  # of steps with later changes, and of changes with changes
        self.along = np.zeros((2, _ROWS))  # products with the gradient
        self.window = slice(0, 0)

    def __len__(self) -> int:
        return self.window.stop - self.window.start

    def add(self, step: np.ndarray, gradient: np.ndarray) -> None:
        """Go on to the gradient after a step; the pair is kept if the function is convex along it."""
        window, change = self.window, gradient - self.gradient
        along = self.pairs[:, window] @ gradient
        products = along - self.along[:, window]
        self.gradient, self.along[:, window] = gradient, along
        curvature, size = float(step @ change), float(change @ change)
        if curvature <= _CURVED * float(np.sqrt((step @ step) * size)):
            return
        if window.stop == _ROWS:
            window = self._to_front()
        place = window.stop
        self.pairs[0, place], self.pairs[1, place] = step, change
        self.along[:, place] = step @ gradient, change @ gradient
        self.products[:, window, place] = products
        self.products[1, place, window] = products[1]
        self.products[:, place, place] = curvature, size
        self.window = slice(max(window.start, place + 1 - _MEMORY), place + 1)

    def _to_front(self) -> slice:
        """Move the window to the first rows."""
        window, front = self.window, slice(0, len(self))
        self.pairs[:, front] = self.pairs[:, window]
        self.products[:, front, front] = self.products[:, window, window]
        self.along[:, front] = self.along[:, window]
        return front

    def direction(self) -> np.ndarray:
        """Minus the product of the inverse Hessian with the gradient."""
        if len(self) == 0:
            return -self.gradient
        window = self.window
        (steps, changes), (mixed, gram) = self.pairs[:, window], self.products[:, window, window]
        along_steps, along_changes = self.along[:, window]
        diagonal = mixed.diagonal()
        scale = diagonal[-1] / gram[-1, -1]
        inner = dtrsv(mixed, along_steps)
        outer = dtrsv(mixed, diagonal * inner + scale * (gram @ inner - along_changes), trans=1)
        return scale * (inner @ changes - self.gradient) - outer @ steps
