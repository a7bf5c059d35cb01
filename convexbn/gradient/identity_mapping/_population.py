"""Two-layer ReLU networks with identity mapping under Gaussian inputs: loss, gradient and potential in closed form."""

import numpy as np
from numpy.typing import ArrayLike

from convexbn._utils.checks import real_array
from convexbn._utils.magnitude import check_magnitude


def population_loss(W: ArrayLike, W_star: ArrayLike, *, identity: bool = True) -> np.ndarray:
    r"""Squared loss between student and teacher, expected over Gaussian inputs.

    .. math:: L(W) = E_{x \sim N(0, I)} \bigl[\sum_j (a_j \cdot x)_+ - \sum_j (b_j \cdot x)_+\bigr]^2,
        \quad a_j = e_j + w_j, \quad b_j = e_j + w^*_j.

    It is a sum of arc-cosine kernels, :math:`E[(a \cdot x)_+ (b \cdot x)_+] = |a| |b| (\sin \theta + (\pi - \theta)
    \cos \theta) / 2 \pi` with the angle :math:`\theta` between a and b.

    Parameters
    ----------
    W : array-like of shape (..., d, d)
        Weights of the student, one column a neuron; the leading axes are runs. Without identity mapping the student may
        have any number of neurons.
    W_star : array-like of shape (..., d, d)
        Weights of the teacher.
    identity : bool, default=True
        Whether the student has the identity mapping; without it, a_j = w_j. The teacher always has it.

    Returns
    -------
    loss : ndarray of shape (...)
        Where rounding would make it negative, it is zero.

    Raises
    ------
    ValueError
        If the weights are not matrices of the shapes above, or not finite.

    References
    ----------
    Li, Yuan: Convergence Analysis of Two-layer Neural Networks with ReLU Activation. arXiv:1705.09886.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.identity_mapping import population_loss
    >>> W_star = np.array([[0.0, 0.5], [0.5, 0.0]])
    >>> float(population_loss(W_star, W_star)), float(population_loss(-np.eye(2), 0 * W_star)).__round__(4)
    (0.0, 1.3183)
    """
    return loss_of(*neurons_of(W, W_star, identity))


def population_gradient(W: ArrayLike, W_star: ArrayLike, *, identity: bool = True) -> np.ndarray:
    r"""Gradient of `population_loss` in the weights of the student.

    Column j is :math:`2 \sum_i [K(a_j, a_i) - K(a_j, b_i)]` with :math:`K(a, b) = ((\pi - \theta) b + |b| \sin(\theta)
    a / |a|) / 2 \pi`, the expectation of :math:`1[a \cdot x > 0] (b \cdot x)_+ x`.

    Parameters
    ----------
    W : array-like of shape (..., d, d)
        Weights of the student.
    W_star : array-like of shape (..., d, d)
        Weights of the teacher.
    identity : bool, default=True
        Whether the student has the identity mapping.

    Returns
    -------
    gradient : ndarray of the shape of W, and of the runs of both

    Raises
    ------
    ValueError
        As in `population_loss`, and if a neuron of the student is zero, where there is no gradient.

    References
    ----------
    Li, Yuan: Convergence Analysis of Two-layer Neural Networks with ReLU Activation. arXiv:1705.09886.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.identity_mapping import population_gradient
    >>> population_gradient(np.zeros((2, 2)), np.eye(2)).round(3)
    array([[-1.318, -0.5  ],
           [-0.5  , -1.318]])
    """
    A, B = neurons_of(W, W_star, identity)
    check_nonzero(A, identity)
    return gradient_of(A, B)


def potential(W: ArrayLike, W_star: ArrayLike, *, identity: bool = True) -> np.ndarray:
    r"""How much longer the neurons of the teacher are, :math:`g = \sum_i (|e_i + w^*_i| - |e_i + w_i|)`.

    The mean of the teacher less that of the student is :math:`g / \sqrt{2 \pi}`. In the first phase of training g goes
    to zero, even where the weights move away from those of the teacher.

    Parameters
    ----------
    W : array-like of shape (..., d, d)
        Weights of the student.
    W_star : array-like of shape (..., d, d)
        Weights of the teacher.
    identity : bool, default=True
        Whether the student has the identity mapping.

    Returns
    -------
    g : ndarray of shape (...)

    Raises
    ------
    ValueError
        As in `population_loss`.

    References
    ----------
    Li, Yuan: Convergence Analysis of Two-layer Neural Networks with ReLU Activation. arXiv:1705.09886.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.identity_mapping import potential
    >>> float(potential(np.zeros((3, 3)), np.eye(3)))
    3.0
    """
    return potential_of(*neurons_of(W, W_star, identity))


def one_point_convexity(W: ArrayLike, W_star: ArrayLike) -> np.ndarray:
    r"""Measure how far the gradient points to the teacher, :math:`\langle \nabla L, W - W^* \rangle / |W - W^*|^2`.

    Where it is positive, a small step of gradient descent comes nearer to the teacher; where it stays above
    :math:`\delta > 0`, the distance falls geometrically, by about :math:`1 - \eta \delta` in a step of size
    :math:`\eta`.

    Parameters
    ----------
    W : array-like of shape (..., d, d)
        Weights of the student.
    W_star : array-like of shape (..., d, d)
        Weights of the teacher.

    Returns
    -------
    constant : ndarray of shape (...)
        Infinite at the teacher itself.

    Raises
    ------
    ValueError
        As in `population_gradient`.

    References
    ----------
    Li, Yuan: Convergence Analysis of Two-layer Neural Networks with ReLU Activation. arXiv:1705.09886.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn.gradient.identity_mapping import one_point_convexity
    >>> float(one_point_convexity(np.zeros((2, 2)), np.eye(2)).round(3))
    1.318
    """
    A, B = neurons_of(W, W_star, identity=True)
    check_nonzero(A, identity=True)
    return one_point_of(A, B)


def neurons_of(W: ArrayLike, W_star: ArrayLike, identity: bool, name: str = "W") -> tuple[np.ndarray, np.ndarray]:
    """Check the weights, the student's under their name; return the neurons of student and teacher, each a column."""
    student, teacher = real_array(name, W), real_array("W_star", W_star)
    for which, weights, columns in ((name, student, "d" if identity else "m"), ("W_star", teacher, "d")):
        fits = weights.ndim >= 2 and weights.size and (columns == "m" or weights.shape[-1] == weights.shape[-2])
        if not fits:
            raise ValueError(
                f"{which} must have shape (d, {columns}), or (..., d, {columns}) for several runs; got {weights.shape}."
            )
        if not np.isfinite(weights).all():
            raise ValueError(f"{which} has entries that are not finite.")
        check_magnitude(weights, which)
    if student.shape[-2] != teacher.shape[-2]:
        raise ValueError(f"{name} has d = {student.shape[-2]}, W_star d = {teacher.shape[-2]}; they must be equal.")
    try:
        runs = np.broadcast_shapes(student.shape[:-2], teacher.shape[:-2])
    except ValueError:
        raise ValueError(
            f"{name} has runs {student.shape[:-2]}, W_star {teacher.shape[:-2]}; give one teacher, or one a run."
        ) from None
    eye = np.eye(teacher.shape[-1])
    A, B = student + eye if identity else student, teacher + eye
    return np.broadcast_to(A, runs + A.shape[-2:]).copy(), np.broadcast_to(B, runs + B.shape[-2:])


def check_nonzero(A: np.ndarray, identity: bool) -> None:
    """Raise unless every neuron of the student has a direction."""
    zero = np.argwhere(~A.any(axis=-2))
    if len(zero):
        name = "e_j + w_j" if identity else "w_j"
        raise ValueError(
            f"{name} is zero for j = {zero[0, -1]}, where the loss has no gradient; move this column of W away from it."
        )


def loss_of(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Loss between neurons, the columns of A and B."""
    return np.maximum(_inner_product(A, A) - 2 * _inner_product(A, B) + _inner_product(B, B), 0)


def _inner_product(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Of two networks, under Gaussian inputs."""
    cosine, sine, angle = _angles(A, B)
    kernels = sine + (np.pi - angle) * cosine
    lengths = np.linalg.norm(A, axis=-2)[..., None, :], np.linalg.norm(B, axis=-2)[..., :, None]
    return (lengths[0] @ kernels @ lengths[1])[..., 0, 0] / (2 * np.pi)


def gradient_of(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Gradient of the loss in A, whose columns are not zero."""
    own, other = _kernel_sums(A, A), _kernel_sums(A, B)
    return (own - other) / np.pi


def _kernel_sums(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """2 pi sum_i K(a_j, b_i), a column for every j."""
    _, sine, angle = _angles(A, B)
    along_a = sine @ np.linalg.norm(B, axis=-2)[..., :, None]
    lengths = np.linalg.norm(A, axis=-2)[..., None, :]
    return B @ np.swapaxes(np.pi - angle, -1, -2) + A / lengths * np.swapaxes(along_a, -1, -2)


def potential_of(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Sum of the lengths of the teacher's neurons less that of the student's."""
    return np.linalg.norm(B, axis=-2).sum(axis=-1) - np.linalg.norm(A, axis=-2).sum(axis=-1)


def one_point_of(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Constant of one-point convexity of the loss, in A about B."""
    difference = A - B
    squares = np.sum(difference**2, axis=(-2, -1))
    products = np.sum(gradient_of(A, B) * difference, axis=(-2, -1))
    return np.divide(products, squares, out=np.full_like(squares, np.inf), where=squares > 0)


def _angles(A: np.ndarray, B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosine, sine and angle between every column of A (rows) and of B (columns); zero columns are at right angles."""
    cosine = np.clip(np.swapaxes(_normalized(A), -1, -2) @ _normalized(B), -1, 1)
    return cosine, np.sqrt(1 - cosine**2), np.arccos(cosine)


def _normalized(A: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(A, axis=-2, keepdims=True)
    return A / np.where(lengths > 0, lengths, 1)
