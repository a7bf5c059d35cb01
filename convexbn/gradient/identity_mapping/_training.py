"""Gradient descent on the population loss, or on fresh Gaussian samples, of networks with identity mapping."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from convexbn._utils.checks import make_generator
from convexbn.gradient._options import check_integer, check_number
from convexbn.gradient._trace import Recorder, Trace
from convexbn.gradient.identity_mapping._population import (
    check_nonzero,
    gradient_of,
    loss_of,
    neurons_of,
    one_point_of,
    potential_of,
)


def draw_weights(
    d: int, spectral_norm: float, *, n_runs: int | None = None, random_state: int | np.random.Generator | None = None
) -> np.ndarray:
    """Draw Gaussian weights of a given spectral norm.

    Parameters
    ----------
    d : int
        Size.
    spectral_norm : float
        Largest singular value of every matrix.
    n_runs : int or None, default=None
        How many matrices; None draws one, without a leading axis.
    random_state : int, Generator or None, default=None
        Seed.

    Returns
    -------
    W : ndarray of shape (d, d) or (n_runs, d, d)

    Raises
    ------
    ValueError
        If `spectral_norm` is negative or not finite, or a size is not a positive integer.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.identity_mapping import draw_weights
    >>> W = draw_weights(4, 0.5, n_runs=3, random_state=0)
    >>> W.shape, np.linalg.norm(W, 2, axis=(1, 2)).round(12)
    ((3, 4, 4), array([0.5, 0.5, 0.5]))
    """
    check_integer("d", d, 1)
    check_number("spectral_norm", spectral_norm)
    check_integer("n_runs", n_runs, 1, optional=True)
    W = make_generator(random_state).standard_normal((d, d) if n_runs is None else (n_runs, d, d))
    return W * (spectral_norm / np.linalg.norm(W, 2, axis=(-2, -1), keepdims=True))


def train_identity_mapping(
    start: ArrayLike,
    W_star: ArrayLike,
    *,
    identity: bool = True,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    n_steps: int = 10_000,
    tol: float = 1e-6,
    note_every: int = 10,
    verbose: bool = False,
    random_state: int | np.random.Generator | None = None,
) -> tuple[np.ndarray, Trace]:
    """Train a student with identity mapping, x -> sum_j relu((e_j + w_j)·x), to imitate a teacher of the same form.

    Inputs are Gaussian, the loss is squared. Several runs, of the same size and with the same options, are trained at
    once, which is faster where d is small.

    Parameters
    ----------
    start : array-like of shape (d, d) or (n_runs, d, d)
        Weights of the student at the start, a column a neuron. Without identity mapping the student may have any number
        m of neurons, also more than its teacher.
    W_star : array-like of shape (d, d) or (n_runs, d, d)
        Weights of the teacher.
    identity : bool, default=True
        Whether the student has the identity mapping; without it, it is x -> sum_j relu(w_j·x), of the same teacher.
    batch_size : int or None, default=None
        Fresh Gaussian samples a step; None takes gradients of the population loss.
    learning_rate : float or None, default=None
        Step size; None takes 2 / m, for m neurons, stable at the identity (the limit there is about 4 / m where m is
        large), and that over 1 + 2 d / batch_size with samples, whose gradients are the noisier the smaller the
        batch.
    n_steps : int, default=10_000
        Most steps that are taken.
    tol : float, default=1e-6
        A run ends at the first recorded step within this distance from the teacher.
    note_every : int, default=10
        Steps between two entries of the trace.
    verbose : bool, default=False
        Whether to show a progress bar.
    random_state : int, Generator or None, default=None
        Seed of the samples.

    Returns
    -------
    W : ndarray of shape (d, d) or (n_runs, d, d)
        Weights of the student at the end, as many as at the start.
    trace : Trace
        Its objective is the population loss, the mean over the runs if there are several. It watches, of every run,
        "loss" (population loss), "distance" (Frobenius norm of W - W*), "potential" (see `potential`) and
        "one_point_convexity" (see there). Without identity mapping the neurons of the student have no order; distance
        and one-point convexity then refer to the order of the teacher's neurons that is nearest. Where student and
        teacher differ in their number of neurons, no order compares them: distance is then the square root of the loss,
        that of the two functions, and there is no one-point convexity.

    Raises
    ------
    DivergenceError
        If the loss grows beyond all bounds.
    ImportError
        If `verbose` is set and tqdm is not installed.
    ValueError
        If the weights do not have the shapes above, are not finite, or a neuron of the student is zero at the start,
        where the loss has no gradient; if an option is out of range.

    References
    ----------
    Li, Yuan: Convergence Analysis of Two-layer Neural Networks with ReLU Activation. arXiv:1705.09886.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.identity_mapping import draw_weights, train_identity_mapping
    >>> W_star = draw_weights(5, 0.5, random_state=0)
    >>> W, trace = train_identity_mapping(draw_weights(5, 0.5, random_state=1), W_star)
    >>> bool(np.linalg.norm(W - W_star) <= 1e-6), bool((np.diff(trace["distance"]) < 0).all())
    (True, True)
    """
    A, B = neurons_of(start, W_star, identity, "start")
    if A.ndim > 3:
        raise ValueError(f"start and W_star have at most one axis of runs; got shapes up to {A.shape}.")
    check_nonzero(A, identity)
    check_integer("batch_size", batch_size, 1, optional=True)
    check_number("learning_rate", learning_rate, positive=True, optional=True)
    check_integer("n_steps", n_steps, 1)
    check_number("tol", tol)
    check_integer("note_every", note_every, 1)
    d, m = A.shape[-2:]
    if learning_rate is None:
        learning_rate = 2 / m if batch_size is None else 2 / m / (1 + 2 * d / batch_size)
    rng = make_generator(random_state)

    students, teachers = A.reshape(-1, d, m), B.reshape(-1, d, d)
    active = np.arange(len(students))
    method = ("gradient descent" if batch_size is None else "SGD") + (" with" if identity else " without") + " identity"
    with Recorder(method, n_steps, verbose=verbose) as recorder, np.errstate(over="ignore", invalid="ignore"):
        for step in range(n_steps + 1):
            if step % note_every == 0 or step == n_steps:
                watched = _watch(students, teachers, identity)
                shaped = {name: values if A.ndim == 3 else values[0] for name, values in watched.items()}
                recorder.record(step, watched["loss"].mean(), **shaped)
                active = np.flatnonzero(watched["distance"] > tol)
                if not len(active):
                    break
            if step < n_steps:
                if batch_size is None:
                    gradients = gradient_of(students[active], teachers[active])
                else:
                    gradients = _sampled_gradient(students[active], teachers[active], batch_size, rng)
                students[active] -= learning_rate * gradients
    W = students.reshape(A.shape)
    return W - np.eye(d) if identity else W, recorder.trace()


def _watch(A: np.ndarray, B: np.ndarray, identity: bool) -> dict[str, np.ndarray]:
    watched = {"loss": loss_of(A, B), "potential": potential_of(A, B)}
    if A.shape != B.shape:
        return watched | {"distance": np.sqrt(watched["loss"])}
    B = B if identity else _nearest_order(A, B)
    return watched | {"distance": np.linalg.norm(A - B, axis=(-2, -1)), "one_point_convexity": one_point_of(A, B)}


def _nearest_order(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """The neurons of each teacher in the order that is nearest to those of its student."""
    nearest = B.copy()
    for student, teacher, ordered in zip(A, B, nearest, strict=True):
        products = student.T @ teacher  # all that depends on the order in the squared distance, up to its sign
        if np.isfinite(products).all():
            ordered[:] = teacher[:, linear_sum_assignment(products, maximize=True)[1]]
    return nearest


def _sampled_gradient(A: np.ndarray, B: np.ndarray, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Gradient of the squared loss on fresh Gaussian samples, of each run its own."""
    X = rng.standard_normal((len(A), batch_size, A.shape[-2]))
    hidden = X @ A
    residuals = np.maximum(hidden, 0).sum(axis=-1) - np.maximum(X @ B, 0).sum(axis=-1)
    return 2 / batch_size * np.swapaxes(X, -1, -2) @ (residuals[..., None] * (hidden > 0))
