import numpy as np
import pytest
from scipy.linalg import svd

from convexbn import BatchNormNetwork, convexbn_path, spectral_trace
from convexbn.datasets import make_teacher
from convexbn.gradient import train

X = make_teacher(40, 4, decay=20.0, random_state=0)[0] + 1
U, S, _ = svd(X - X.mean(axis=0), full_matrices=False)
Y = U @ np.array([1.0, 0.8, 1.0, 0.6]) * np.sqrt(len(X) / 4)  # a target as large along small directions as along large


def test_components_are_those_along_left_singular_vectors():
    outputs = np.random.default_rng(0).standard_normal((5, len(X)))
    trace = spectral_trace(X, Y, outputs)
    np.testing.assert_array_equal(trace.steps, np.arange(5))
    np.testing.assert_allclose(trace.singular_values, S)
    np.testing.assert_allclose(np.abs(trace.components), np.abs(outputs @ U), atol=1e-10)
    np.testing.assert_allclose(trace.shares, (outputs @ U) / (Y @ U), atol=1e-10)
    leading = spectral_trace(X, Y, outputs, steps=[5, 4, 3, 2, 1], n_components=2)
    np.testing.assert_allclose(leading.components, trace.components[:, :2], atol=1e-10)
    np.testing.assert_array_equal(leading.steps, [5, 4, 3, 2, 1])


def test_linear_descent_moves_in_proportion_to_squared_singular_values():
    """Gradient descent on a linear model: the share along direction i after t steps is 1 - (1 - step S_i^2)^t."""
    centred, w, step, seen = X - X.mean(axis=0), np.zeros(4), 0.5 / S[0] ** 2, []
    for _ in range(20):
        seen.append(centred @ w)
        w -= step * centred.T @ (centred @ w - Y)
    shares = spectral_trace(X, Y, seen).shares
    np.testing.assert_allclose(shares, 1 - (1 - step * S**2) ** np.arange(20)[:, None], atol=1e-10)


def half_fitted(shares):
    """Index of the first step at which half of each component is fitted."""
    return (shares >= 0.5).argmax(axis=0)


def test_descent_fits_large_directions_first_and_the_convex_path_does_not():
    outputs = []
    start = BatchNormNetwork.at_initialization(X, 50, n_outputs=1, random_state=0)
    train(
        X,
        Y,
        weight_decay=1e-3,
        start=start,
        optimizer="sgd",
        learning_rate=0.1,
        n_steps=1500,
        callback=lambda step, f: outputs.append(f[:, 0]),
    )
    descent = half_fitted(spectral_trace(X, Y, outputs).shares)
    path = convexbn_path(X, Y, n_weight_decays=12, eps=0.05, tol=1e-3)
    shares = spectral_trace(X, Y, [n.predict(X)[:, 0] for n in path.networks], steps=path.weight_decays).shares
    assert descent[3] > 10 * descent[0] > 0
    assert (half_fitted(shares) > 0).all()
    assert np.ptp(half_fitted(shares)) <= 3


def test_truncation_leaves_the_small_directions_unfitted_along_the_whole_path():
    path = convexbn_path(X, Y, n_weight_decays=12, eps=0.05, tol=1e-3, n_components=2, standardize=False)
    shares = spectral_trace(X, Y, [n.predict(X)[:, 0] for n in path.networks], steps=path.weight_decays).shares
    assert (shares[-1, :2] > 0.5).all()
    assert (np.abs(shares[:, 2:]) < 0.2).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": Y[:-1]}, r"y must have shape \(40,\)"),
        ({"outputs": np.ones((2, 39))}, r"outputs \(n_steps, 40\)"),
        ({"outputs": np.full((2, 40), np.nan)}, "outputs contains NaN"),
        ({"steps": [1, 2, 3]}, r"steps must have shape \(2,\)"),
        ({"n_components": 9}, "n_components=9 is out of range"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        spectral_trace(**{"X": X, "y": Y, "outputs": np.ones((2, 40))} | changes)
