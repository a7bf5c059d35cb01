"""Data with a known teacher, for examples, benchmarks and tests."""

import numpy as np

from convexbn._utils.checks import check_count, is_number, make_generator


def make_teacher(
    n_samples: int,
    n_features: int,
    *,
    n_teachers: int = 5,
    decay: float = 10.0,
    noise: float = 0.3,
    random_state: int | np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Regression data of a random two-layer ReLU network on correlated scales, with noise.

    Parameters
    ----------
    n_samples, n_features : int
        Shape of X.
    n_teachers : int, default=5
        Neurons of the teacher.
    decay : float, default=10.0
        Ratio of the largest to the smallest standard deviation of a column.
    noise : float, default=0.3
        Standard deviation of the noise before y is standardised.
    random_state : int, Generator or None, default=None
        Seed.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,)
        Mean zero and variance one.

    Raises
    ------
    ValueError
        If an argument is out of range, or all targets are equal, as that of a single sample is.

    Examples
    --------
    >>> from convexbn.datasets import make_teacher
    >>> X, y = make_teacher(50, 3, random_state=0)
    >>> X.shape, abs(y.mean()) < 1e-12
    ((50, 3), np.True_)
    """
    for name, count in (("n_samples", n_samples), ("n_features", n_features), ("n_teachers", n_teachers)):
        check_count(name, count)
    if not (is_number(decay) and 0 < decay < np.inf):
        raise ValueError(f"decay={decay!r} must be a positive finite number.")
    if not (is_number(noise) and 0 <= noise < np.inf):
        raise ValueError(f"noise={noise!r} must be a finite number from 0 on.")
    rng = make_generator(random_state)
    X = rng.standard_normal((n_samples, n_features)) * np.geomspace(1, 1 / decay, n_features)
    teacher = rng.standard_normal((n_features, n_teachers))
    y = np.maximum(X @ teacher, 0) @ rng.standard_normal(n_teachers) + noise * rng.standard_normal(n_samples)
    deviation = y.std()
    if deviation == 0:
        raise ValueError(f"n_samples={n_samples} targets are all equal, so none of variance one; give more samples.")
    return X, (y - y.mean()) / deviation
