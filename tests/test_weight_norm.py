from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from convexbn import Problem, WeightNormDesign, solve
from convexbn.gradient import DivergenceError, train
from convexbn.gradient.deep_weight_norm import SmoothNetwork
from convexbn.gradient.weight_norm import (
    GramMatrices,
    decay_rate,
    gram_matrices,
    limit_gram_matrices,
    train_weight_norm,
    weight_norm_start,
)

N, D, M = 8, 10, 4000
ALPHAS = (0.01, 0.1, 1.0, 5.0, 10.0, 100.0)


def unit_inputs(n, d, seed=0):
    X = np.random.default_rng(seed).standard_normal((n, d))
    return X / np.linalg.norm(X, axis=1)[:, None]


X, Y = unit_inputs(N, D), np.random.default_rng(1).standard_normal(N)
LIMIT = limit_gram_matrices(X)


@cache
def run(alpha, n_steps=200):
    return train_weight_norm(
        X,
        Y,
        alpha=alpha,
        learning_rate=LIMIT.learning_rate(alpha),
        n_neurons=M,
        n_steps=n_steps,
        note_gram=True,
        random_state=0,
    )


def gram_at(trace, t):
    return GramMatrices(*(trace[name][t] for name in "VGH"))


def tail_rate(trace, learning_rate):
    """Rate of the whole error once only its slowest part is left."""
    sizes = np.linalg.norm(trace["residual"], axis=1)
    tail = (sizes < 1e-4 * sizes[0]) & (sizes > 1e-9 * sizes[0])
    assert tail.sum() > 20
    return decay_rate(trace.steps[tail], sizes[tail], learning_rate)


def torch_gradients(network, outputs_of):
    """Gradients by (g, v) of a scalar function of the outputs, from PyTorch."""
    import torch

    module = network.to_torch()
    weight = module[0].parametrizations.weight
    gradients = torch.autograd.grad(outputs_of(module(torch.tensor(X))[:, 0]), [weight.original0, weight.original1])
    return gradients[0].numpy()[:, 0], gradients[1].numpy()


# The network


def test_start_is_that_of_the_paper():
    alpha, m = 0.3, 20_000
    network = weight_norm_start(4, m, alpha=alpha, random_state=0)
    v, g, c = network.weights, network.gamma, network.output_weights[:, 0] * np.sqrt(m)
    assert v.std() == pytest.approx(alpha, rel=0.02)
    np.testing.assert_allclose(g, np.linalg.norm(v, axis=1) / alpha)
    np.testing.assert_allclose(np.abs(c), 1)
    assert abs(c.mean()) < 4 / np.sqrt(m)
    x = np.random.default_rng(1).standard_normal(4)
    f = sum(c[k] * max(g[k] * (v[k] @ x) / np.linalg.norm(v[k]), 0) for k in range(m)) / np.sqrt(m)
    assert network.predict(x[None])[0, 0] == pytest.approx(f)


def test_function_at_the_start_does_not_depend_on_alpha_or_normalization():
    starts = [
        train_weight_norm(X, Y, alpha=alpha, learning_rate=1.0, n_steps=0, normalized=normalized, random_state=0)
        for alpha in ALPHAS
        for normalized in (True, False)
    ]
    for network, trace in starts:
        np.testing.assert_allclose(network.predict(X), starts[0][0].predict(X), atol=1e-12)
        np.testing.assert_allclose(network.predict(X)[:, 0] - Y, trace["residual"][0], atol=1e-12)


def test_numbers_of_numpy_are_numbers():
    expected = weight_norm_start(3, 5, alpha=0.5, random_state=0)
    for kind, whole in ((np.float16, np.int8), (np.float32, np.uint16)):
        start = weight_norm_start(whole(3), whole(5), alpha=kind(0.5), random_state=0)
        np.testing.assert_array_equal(start.weights, expected.weights)


@pytest.mark.parametrize("alpha", [0.1, 3.0])
def test_steps_are_those_of_automatic_differentiation(alpha):
    learning_rate = 1.9 * LIMIT.learning_rate(alpha)
    options = {"alpha": alpha, "learning_rate": learning_rate, "n_neurons": 50, "random_state": 0}
    before, after = (train_weight_norm(X, Y, n_steps=n_steps, **options)[0] for n_steps in (7, 8))
    by_g, by_v = torch_gradients(before, lambda f: ((f - f.new_tensor(Y)) ** 2).sum() / 2)
    np.testing.assert_allclose(after.gamma, before.gamma - learning_rate * by_g, atol=1e-12)
    np.testing.assert_allclose(after.weights, before.weights - learning_rate * by_v, atol=1e-12)
    np.testing.assert_array_equal(after.output_weights, before.output_weights)


def test_steps_without_normalization_are_those_of_automatic_differentiation():
    import torch

    options = {"alpha": 0.1, "learning_rate": 0.5, "n_neurons": 50, "normalized": False, "random_state": 0}
    before, after = (train_weight_norm(X, Y, n_steps=n_steps, **options)[0] for n_steps in (7, 8))
    w = torch.tensor(before.weights, requires_grad=True)
    f = torch.relu(torch.tensor(X) @ w.T) @ torch.tensor(before.output_weights[:, 0])
    ((f - torch.tensor(Y)) ** 2).sum().div(2).backward()
    np.testing.assert_allclose(after.weights, before.weights - 0.5 * w.grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(after.gamma, np.linalg.norm(after.weights, axis=1))


def test_directions_only_grow():
    """The gradient by v is orthogonal to v, so that every step adds its squared length to |v|^2."""
    alpha = 0.2
    learning_rate = 20 * LIMIT.learning_rate(alpha)
    networks = [
        train_weight_norm(
            X, Y, alpha=alpha, learning_rate=learning_rate, n_neurons=100, n_steps=n_steps, random_state=0
        )[0]
        for n_steps in range(4)
    ]
    for before, after in pairwise(networks):
        moved = ((after.weights - before.weights) ** 2).sum(axis=1)
        assert moved.max() > 1e-4 * alpha**2
        np.testing.assert_allclose((after.weights**2).sum(axis=1), (before.weights**2).sum(axis=1) + moved, rtol=1e-12)


# Gram matrices


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("m", [1, 10, 1000])
def test_directions_and_lengths_make_up_the_whole_at_the_start(alpha, m):
    X = np.random.default_rng(3).standard_normal((20, 5)) * 3
    gram = gram_matrices(weight_norm_start(5, m, alpha=alpha, random_state=m), X, alpha=alpha)
    np.testing.assert_allclose(gram.V + gram.G, gram.H, rtol=0, atol=1e-12 * np.abs(gram.H).max())


def test_they_are_gram_matrices_of_gradients_also_after_training():
    alpha = 0.5
    network = train_weight_norm(X, Y, alpha=alpha, learning_rate=2.0, n_neurons=50, n_steps=20, random_state=0)[0]
    gradients = [torch_gradients(network, lambda f, i=i: f[i]) for i in range(N)]
    by_g, by_v = (np.array([gradient[part].ravel() for gradient in gradients]) for part in (0, 1))
    gram = gram_matrices(network, X, alpha=alpha)
    np.testing.assert_allclose(gram.G, by_g @ by_g.T, atol=1e-12)
    np.testing.assert_allclose(gram.V / alpha**2, by_v @ by_v.T, atol=1e-12)
    assert np.abs(gram.V + gram.G - gram.H).max() > 1e-3  # training has moved the lengths


def test_h_is_the_gram_matrix_without_normalization():
    network = train_weight_norm(X, Y, alpha=0.5, learning_rate=0.5, n_neurons=50, n_steps=20, random_state=0)[0]
    active = (X @ network.weights.T > 0) * network.output_weights[:, 0]
    gradients = (active[:, :, None] * X[:, None, :]).reshape(N, -1)
    np.testing.assert_allclose(gram_matrices(network, X).H, gradients @ gradients.T, atol=1e-12)


def test_closed_forms_against_monte_carlo():
    X, m = np.vstack([unit_inputs(6, 4), -unit_inputs(1, 4), unit_inputs(1, 4) + 1e-3]), 400_000
    X[-1] /= np.linalg.norm(X[-1])  # the last inputs are opposite and nearly equal to the first
    sampled = gram_matrices(weight_norm_start(4, m, alpha=2.0, random_state=0), X, alpha=2.0)
    limit = limit_gram_matrices(X)
    for name in "VGH":
        # An entry is a mean of m numbers between -1 and 1 of standard deviation 1/2 at most.
        np.testing.assert_allclose(getattr(sampled, name), getattr(limit, name), rtol=0, atol=4 * 0.5 / np.sqrt(m))
    np.testing.assert_allclose(np.diag(limit.H), 1 / 2)
    np.testing.assert_allclose(np.diag(limit.G), 1 / 8)


def test_closed_forms_take_unit_inputs_of_single_precision():
    single = limit_gram_matrices(X.astype(np.float32))
    for name in "VGH":
        np.testing.assert_allclose(getattr(single, name), getattr(LIMIT, name), rtol=0, atol=1e-6)


def test_gram_matrices_stay_where_they_start_and_more_so_in_wide_networks():
    def moved(m):
        options = {"learning_rate": LIMIT.learning_rate(0.1), "n_steps": 30, "note_gram": True, "random_state": 0}
        trace = train_weight_norm(X, Y, alpha=0.1, n_neurons=m, **options)[1]
        return np.linalg.norm(gram_at(trace, -1).kernel(0.1) - gram_at(trace, 0).kernel(0.1), 2)

    assert moved(6400) < moved(100) / 4  # 1/8 if it goes with 1 / sqrt(m)


# Rates


@pytest.mark.parametrize("alpha", ALPHAS)
def test_measured_rate_is_the_predicted_one(alpha):
    _, trace = run(alpha)
    measured = tail_rate(trace, LIMIT.learning_rate(alpha))
    assert measured == pytest.approx(gram_at(trace, -1).rate(alpha), rel=0.005)
    assert measured == pytest.approx(gram_at(trace, 0).rate(alpha), rel=0.04)
    assert measured == pytest.approx(LIMIT.rate(alpha), rel=0.06)


def test_two_regimes():
    for alpha in (0.01, 0.1):
        assert LIMIT.rate(alpha) == pytest.approx(LIMIT.rate_of_directions(alpha), rel=1e-3)
    assert LIMIT.rate(100) == pytest.approx(LIMIT.rate_of_lengths, rel=0.02)
    assert LIMIT.rate(1) == pytest.approx(LIMIT.rate_without_normalization)
    crossover = LIMIT.crossover
    assert LIMIT.rate_of_directions(crossover) == pytest.approx(LIMIT.rate_of_lengths)
    rates = [LIMIT.rate(alpha) for alpha in ALPHAS]
    assert (np.diff(rates) < 0).all()
    for alpha in (*ALPHAS, crossover):  # Weyl: the smallest eigenvalue of a sum is at least the sum of the smallest
        assert LIMIT.rate(alpha) >= LIMIT.rate_of_directions(alpha) + LIMIT.rate_of_lengths - 1e-12


@pytest.mark.parametrize("alpha", [0.1, 10.0])
def test_error_along_each_eigenvector_decays_at_its_eigenvalue(alpha):
    trace, learning_rate = run(alpha)[1], LIMIT.learning_rate(alpha)
    eigenvalues, U = np.linalg.eigh(gram_at(trace, 0).kernel(alpha))
    errors = trace["residual"] @ U
    assert eigenvalues[-1] > 2 * eigenvalues[0]
    slow = eigenvalues * learning_rate < 0.5
    assert slow.sum() >= 5
    measured = decay_rate(trace.steps[:6], np.abs(errors[:6, slow]), learning_rate)
    np.testing.assert_allclose(measured, eigenvalues[slow], rtol=0.05)
    predicted = errors[0] * (1 - learning_rate * eigenvalues) ** trace.steps[:, None]
    assert np.abs(errors - predicted).max() < 0.02 * np.abs(errors[0]).max()


def test_outputs_change_as_the_theory_says_all_along_the_run():
    """The time derivative of f is -(V / alpha^2 + G)(f - y), not at the start alone."""
    alpha, learning_rate = 0.5, 1e-3
    options = {"alpha": alpha, "n_neurons": 100, "note_gram": True, "random_state": 0}
    trace = train_weight_norm(X, Y, learning_rate=learning_rate, n_steps=400, **options)[1]
    assert trace.objective[-1] < trace.objective[0] / 2
    for t in range(0, 400, 50):
        change = (trace["residual"][t + 1] - trace["residual"][t]) / learning_rate
        predicted = -gram_at(trace, t).kernel(alpha) @ trace["residual"][t]
        assert np.linalg.norm(change - predicted) < 0.01 * np.linalg.norm(predicted)


def test_without_normalization_the_rate_is_that_of_h():
    learning_rate = 1 / np.linalg.eigvalsh(LIMIT.H)[-1]
    options = {"learning_rate": learning_rate, "n_neurons": M, "n_steps": 200, "random_state": 0}
    trace = train_weight_norm(X, Y, alpha=0.1, normalized=False, note_gram=True, **options)[1]
    assert tail_rate(trace, learning_rate) == pytest.approx(LIMIT.rate_without_normalization, rel=0.06)
    at_one = train_weight_norm(X, Y, alpha=1.0, **options)[1]
    assert tail_rate(at_one, learning_rate) == pytest.approx(LIMIT.rate_without_normalization, rel=0.06)
    np.testing.assert_allclose(trace["V"] + trace["G"], trace["H"], atol=1e-12)  # at every step, since g = |w|


# Steps


def test_theory_step_descends_at_every_step():
    for alpha in ALPHAS:
        assert (np.diff(run(alpha)[1].objective[:20]) < 0).all()


def test_large_steps_lengthen_the_directions_but_blow_up_the_lengths():
    alpha = 0.1
    unstable = 2 / np.linalg.eigvalsh(LIMIT.G)[-1]
    options = {"alpha": alpha, "n_neurons": 500, "random_state": 0}
    learning_rate = unstable / 4
    assert learning_rate > 50 * LIMIT.learning_rate(alpha)
    network, trace = train_weight_norm(X, Y, learning_rate=learning_rate, n_steps=500, **options)
    assert trace.objective[-1] < 1e-6
    assert np.linalg.norm(network.weights, axis=1).mean() > 5 * alpha * np.sqrt(D)
    with pytest.raises(DivergenceError, match=r"weight normalization diverged.*smaller steps") as raised:
        train_weight_norm(X, Y, learning_rate=20 * unstable, n_steps=500, **options)
    assert len(raised.value.trace) > 1
    with pytest.raises(DivergenceError, match="plain descent diverged"):
        train_weight_norm(X, Y, learning_rate=1e3, n_steps=10_000, note_every=500, normalized=False, **options)


# With weight decay


def test_with_weight_decay_training_reaches_the_convex_optimum_on_raw_data():
    X = np.random.default_rng(0).standard_normal((12, 2))
    y = np.abs(X[:, 0]) - X[:, 1] + 0.3 * np.random.default_rng(1).standard_normal(12)
    certificate = solve(Problem(WeightNormDesign().fit_transform(X), y, weight_decay=0.02)).certificate
    assert certificate.scope == "global"
    network = weight_norm_start(2, 30, alpha=0.1, random_state=0)
    for learning_rate in (1e-2, 1e-3):
        network = train(X, y, weight_decay=0.02, start=network, learning_rate=learning_rate, n_steps=1000)[0]
    trained = network.objective(X, y, 0.02)
    assert trained >= certificate.lower_bound
    assert trained == pytest.approx(certificate.objective, rel=5e-3)


# Bad input


def test_trace_records_only_what_options_say():
    options = {"alpha": 1.0, "learning_rate": 0.1, "n_neurons": 20, "random_state": 0}
    (network, often), (_, seldom) = (
        train_weight_norm(X, Y, n_steps=10, note_every=every, note_gram=True, **options) for every in (1, 4)
    )
    assert seldom.steps.tolist() == [0, 4, 8, 10]
    for name in ("residual", "V", "G", "H"):
        np.testing.assert_array_equal(seldom[name], often[name][[0, 4, 8, 10]])
    np.testing.assert_array_equal(seldom["V"][-1], gram_matrices(network, X).V)
    assert set(train_weight_norm(X, Y, n_steps=10, **options)[1].watched) == {"residual"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 0}, "alpha=0 must be a positive"),
        ({"alpha": -1.0}, "alpha=-1.0"),
        ({"alpha": np.nan}, "alpha=nan"),
        ({"alpha": "1"}, "alpha='1'"),
        ({"alpha": 1e151}, "alpha=1e.151 must be between 1e-150 and 1e.150"),
        ({"alpha": 1e-151}, "alpha=1e-151 must be between"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"learning_rate": None}, "learning_rate=None"),
        ({"learning_rate": np.inf}, "learning_rate=inf"),
        ({"n_neurons": 0}, "n_neurons=0"),
        ({"n_neurons": 5.0}, "n_neurons=5.0 must be an integer"),
        ({"n_steps": -1}, "n_steps=-1"),
        ({"n_steps": "9"}, "n_steps='9' must be an integer"),
        ({"note_every": 0}, "note_every=0"),
        ({"note_every": True}, "note_every=True must be an integer"),
        ({"y": ["a"] * N}, "y must hold numbers"),
        ({"y": Y[:-1]}, "inconsistent"),
        ({"y": np.column_stack([Y, Y])}, "1d array"),
        ({"X": X[0]}, "2D array"),
        ({"X": np.full_like(X, np.nan)}, "NaN"),
    ],
)
def test_bad_input_to_training(changes, message):
    with pytest.raises(ValueError, match=message):
        train_weight_norm(**{"X": X, "y": Y, "alpha": 1.0, "learning_rate": 0.1, "n_neurons": 5} | changes)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (2 * X, r"length one, but \|X\[\d\]\| - 1 = 1; divide"),
        (X * np.where(np.arange(N) == 3, 1 + 2e-6, 1)[:, None], r"\|X\[3\]\| - 1 = 2e-06; divide"),
        (np.vstack([X, X[3]]), r"V is singular.*X\[3\] and X\[8\]"),
        (np.vstack([X, X[3] * (1 + 1e-15)]), r"V is singular.*X\[3\] and X\[8\]"),
        (np.array([[1.0], [-1.0]]), "one feature"),
        (X[0], "2D array"),
    ],
)
def test_closed_forms_need_unit_inputs_no_two_of_them_parallel(X, message):
    with pytest.raises(ValueError, match=message):
        limit_gram_matrices(X)


@pytest.mark.parametrize(("n_neurons", "singular"), [(50, "V"), (7, "G")])
def test_no_crossover_without_rates(n_neurons, singular):
    inputs = np.vstack([X, 2 * X[:1]]) if singular == "V" else X
    gram = gram_matrices(weight_norm_start(D, n_neurons, alpha=1.0, random_state=0), inputs)
    with pytest.raises(ValueError, match=f"{singular} is singular, so there is no crossover; drop inputs"):
        _ = gram.crossover


def test_gram_matrices_need_the_network_of_the_theory():
    network = weight_norm_start(D, 5, alpha=1.0, random_state=0)
    with pytest.raises(ValueError, match="X has 9 features, the network takes 10"):
        gram_matrices(network, X[:, :-1])
    with pytest.raises(ValueError, match="alpha=0"):
        gram_matrices(network, X, alpha=0)
    gram = gram_matrices(network, X, alpha=1e150)
    for by_alpha in (gram.kernel, gram.rate_of_directions, lambda alpha: gram_matrices(network, X, alpha=alpha)):
        with pytest.raises(ValueError, match=r"alpha=1e.200 must be between"):
            by_alpha(1e200)
    with pytest.raises(ValueError, match="must be a WeightNormNetwork, not a SmoothNetwork"):
        gram_matrices(SmoothNetwork.at_initialization(D), X)
    two = np.ones((5, 2))
    for change in (
        {"bias": np.ones(5)},
        {"intercept": np.ones(1)},
        {"output_weights": two, "intercept": np.zeros(2)},
    ):
        with pytest.raises(ValueError, match="one output"):
            gram_matrices(replace(network, **change), X)


def test_decay_rate():
    steps = np.array([0, 2, 4, 10])
    sizes = np.column_stack([3 * 0.9**steps, 0.5**steps])
    np.testing.assert_allclose(decay_rate(steps, sizes, learning_rate=0.2), [0.5, 2.5])
    with pytest.raises(ValueError, match="two at least"):
        decay_rate([0], [1.0], 0.1)
    with pytest.raises(ValueError, match="two at least"):
        decay_rate([0, 1], [1.0, 1.0, 1.0], 0.1)
    with pytest.raises(ValueError, match="sizes must be positive"):
        decay_rate([0, 1], [1.0, 0.0], 0.1)
    with pytest.raises(ValueError, match="steps are all 3; give"):
        decay_rate([3, 3], [1.0, 0.5], 0.1)
    with pytest.raises(ValueError, match="learning_rate=0 must be a positive"):
        decay_rate([0, 1], [1.0, 0.5], 0)
