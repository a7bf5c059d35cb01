from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning

from convexbn import (
    BatchNormDesign,
    ConvexBNClassifier,
    ConvexBNRegressor,
    GatedNetwork,
    Path,
    Problem,
    Status,
    convexbn_path,
    solve,
    solve_column_generation,
    solve_path,
    weight_decay_max,
)
from convexbn.losses import SquaredError
from convexbn.solvers import Options, Search
from convexbn.solvers import _path as solvers_path
from convexbn.solvers._tolerance import Tolerance
from tests.watched import Watched, untouched

X, Y = load_diabetes(return_X_y=True)
X, Y = X[:24, [2, 3]], Y[:24]
LABELS = np.where(np.median(Y) < Y, "high", "low")


@pytest.mark.parametrize(
    ("options", "Model"),
    [
        ({}, ConvexBNRegressor),
        ({"normalization": "weight", "loss": "huber", "fit_intercept": False}, ConvexBNRegressor),
        ({"activation": "gated_relu", "random_state": 0}, ConvexBNRegressor),
        ({"loss": "log_loss"}, ConvexBNClassifier),
    ],
)
def test_path_is_the_single_solves(options, Model):
    y = LABELS if Model is ConvexBNClassifier else Y
    options = {"tol": 1e-7} | options
    path = convexbn_path(X, y, n_weight_decays=4, eps=0.05, **options)
    assert len(path) == len(path.neurons) == len(path.networks) == 4
    for i, weight_decay in enumerate(path.weight_decays):
        model = Model(weight_decay=weight_decay, **options).fit(X, y)
        assert path.objectives[i] == pytest.approx(model.certificate_.objective, rel=1e-6)
        assert path.certificates[i].scope in ("patterns" if "activation" in options else "local", "global")
        np.testing.assert_allclose(path.networks[i].predict(X), model.network_.predict(X), rtol=1e-3, atol=1e-3)
    assert (path.gaps <= 1e-6).all()
    assert (np.diff(path.objectives) < 0).all()
    np.testing.assert_allclose(path.weight_decays[1:] / path.weight_decays[:-1], 0.05 ** (1 / 3))
    assert path.n_neurons[-1] == len(path.neurons[-1]) > 0


def test_path_starts_with_the_zero_network_at_weight_decay_max():
    path = convexbn_path(X, Y, n_weight_decays=2, eps=0.5)
    problem = Problem(BatchNormDesign().fit_transform(X), Y, weight_decay=1.0, fit_intercept=True)
    assert path.weight_decays[0] == pytest.approx(weight_decay_max(problem))
    assert path.n_neurons[0] == 0
    assert path.n_neurons[1] > 0
    np.testing.assert_allclose(path.networks[0].predict(X), Y.mean())


def test_path_of_constant_targets_is_zero():
    path = convexbn_path(X, np.full(24, 3.0), n_weight_decays=3)
    assert (path.n_neurons == 0).all()
    assert (path.objectives == 0).all()


def test_given_weight_decays_are_sorted():
    path = convexbn_path(X, Y, weight_decays=[1.0, 5.0, 3.0])
    np.testing.assert_array_equal(path.weight_decays, [5, 3, 1])


def test_integer_weights_equal_repeated_rows():
    weights = np.arange(24) % 3
    rows = np.repeat(np.arange(24), weights)
    weighted = convexbn_path(X, Y, n_weight_decays=3, eps=0.1, sample_weight=weights)
    repeated = convexbn_path(X[rows], Y[rows], n_weight_decays=3, eps=0.1)
    np.testing.assert_allclose(weighted.weight_decays, repeated.weight_decays)
    np.testing.assert_allclose(weighted.objectives, repeated.objectives)


def test_each_solve_starts_from_the_network_before(monkeypatch):
    starts, solutions = [], []

    def recorded(problem, *, start, **options):
        starts.append(start)
        solutions.append(solve(problem, start=start, **options))
        return solutions[-1]

    monkeypatch.setattr(solvers_path, "solve", recorded)
    path = convexbn_path(X, Y, n_weight_decays=3, eps=0.1)
    assert len(starts[0]) == 0
    assert starts[1:3] == [solutions[0].neurons, solutions[1].neurons]
    assert path.neurons == tuple(solution.neurons for solution in solutions[:3])


def test_interrupted_path_keeps_what_is_done():
    Z = BatchNormDesign().fit_transform(X)
    grid = [0.3, 0.2, 0.1, 0.05]
    of_two, whole = Watched.fresh(Z), Watched.fresh(Z)
    solve_path(Problem(of_two, Y, weight_decay=1.0), grid[:2], random_state=0)
    solutions = solve_path(Problem(whole, Y, weight_decay=1.0), grid, random_state=0)
    searches = whole.calls["for_prices"]
    for press in (1, searches // 2, searches):
        pressed = Watched.fresh(Z, press={"for_prices": [press]})
        kept = solve_path(Problem(pressed, Y, weight_decay=1.0), grid, random_state=0)
        assert pressed.calls["for_prices"] == press
        assert len(kept) == (0 if press == 1 else len(kept))
        assert 0 < len(kept) < len(grid) or press in (1, searches)
        for found, solution in zip(kept, solutions, strict=False):
            np.testing.assert_array_equal(found.neurons.weights, solution.neurons.weights)


@pytest.mark.parametrize("seed", [0, None, np.random.RandomState(0), np.random.default_rng(0)], ids=str)
def test_gates_are_the_same_all_along(seed):
    data, targets = load_diabetes(return_X_y=True)
    path = convexbn_path(
        data[:60], targets[:60], activation="gated_relu", n_patterns=4, weight_decays=[20, 5, 1], random_state=seed
    )
    assert isinstance(path.networks[0], GatedNetwork)
    gates = [{tuple(gate) for gate in neurons.gates.T} for neurons in path.neurons]
    assert gates[0] | gates[1] <= gates[2]
    assert len(gates[2]) == 4


def test_unreached_tolerance_warns_once():
    with pytest.warns(
        ConvergenceWarning, match=r"[23] of 3 problems along the path .* tol=1.0e-14 of the zero network's objective"
    ) as record:
        path = convexbn_path(X, Y, weight_decays=[5.0, 2.0, 1.0], max_iter=1, tol=1e-14)
    assert len(record) == 1
    scale = np.var(Y) / 2  # the objective of the best constant
    largest = max((found.objective - found.lower_bound) / scale for found in path.certificates)
    assert f"the largest is {largest:.1e}" in str(record[0].message)


@pytest.mark.parametrize("activation", ["relu", "gated_relu"])
def test_bounds_hold_where_no_time_is_left(activation):
    problem = Problem(BatchNormDesign().fit_transform(X), Y, weight_decay=1.0, fit_intercept=True)
    grid = weight_decay_max(problem) * np.array([0.5, 0.1, 0.01])
    options = {"activation": activation, "n_patterns": 20, "random_state": 0}
    with pytest.warns(ConvergenceWarning):
        found = solve_path(problem, grid, max_time=1e-9, **options)
    assert [len(solution.history) for solution in found[1:]] == [0, 0]
    exact = solve_path(problem, grid, **options)
    for quick, solved, weight_decay in zip(found, exact, grid, strict=True):
        assert quick.certificate.lower_bound <= solved.certificate.objective <= quick.certificate.objective + 1e-12
        at = replace(problem, weight_decay=weight_decay)
        assert quick.certificate.objective == pytest.approx(at.objective(quick.neurons))
    assert found[-1].status is Status.MAX_TIME
    assert found[-1].certificate.lower_bound == pytest.approx(found[0].certificate.lower_bound / 50)


def test_networks_that_are_kept_for_want_of_time_are_not_said_to_be_searched():
    problem = Problem(BatchNormDesign().fit_transform(X), Y, weight_decay=1.0, fit_intercept=True)
    with pytest.warns(ConvergenceWarning):
        zero, kept = solve_path(problem, weight_decay_max(problem) * np.array([2, 0.1]), max_time=1e-9)
    assert zero.certificate.search is Search.ZERO_NETWORK
    assert kept.certificate.search is Search.DUAL_POINT
    assert kept.certificate.gap > 0.5


def test_time_is_shared_and_the_path_complete():
    with pytest.warns(ConvergenceWarning, match="Raise max_iter, max_time") as record:
        path = convexbn_path(X, Y, n_weight_decays=5, max_time=1e-9)
    assert len(record) == 1
    assert len(path) == len(path.weight_decays) == 5
    assert (path.objectives <= np.var(Y) / 2 * (1 + 1e-12)).all()
    limits = []

    def watched(problem, *, max_time, **options):
        limits.append(max_time)
        return solve(problem, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(solvers_path, "solve", watched)
        convexbn_path(X, Y, n_weight_decays=4, eps=0.5, max_time=1000.0)
    assert 240 < limits[0] <= 250  # a quarter; what is not used goes to the others
    assert 900 < limits[-1] <= 1000
    assert (np.diff(limits) > 0).all()


def test_ctrl_c_ends_the_path_although_the_gap_is_small_enough(monkeypatch):
    matrix = BatchNormDesign.matrix

    def calls_of(press):
        kind = type(Watched.fresh(np.eye(1), press=press))
        with monkeypatch.context() as patched:
            patched.setattr(BatchNormDesign, "matrix", lambda self, data: kind(matrix(self, data).Z))
            path = convexbn_path(X, Y, n_weight_decays=6, eps=0.1)
        return len(path), kind.calls["for_prices"]

    whole, n_searches = calls_of({})
    assert n_searches > 5
    ended, searches = calls_of({"for_prices": [5]})
    assert ended < whole
    assert searches == 5  # and nothing was solved after it


def test_verbose_shows_a_bar(capsys):
    convexbn_path(X[:10], Y[:10], n_weight_decays=3, eps=0.5, verbose=True)
    shown = capsys.readouterr().err
    assert "path" in shown
    assert "3/3" in shown


def test_path_type_is_exported():
    assert isinstance(convexbn_path(X[:8], Y[:8], n_weight_decays=1), Path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_weight_decays": 0}, "n_weight_decays=0 must be a positive integer"),
        ({"n_weight_decays": 2.0}, "n_weight_decays=2.0"),
        ({"eps": 0.0}, "eps=0.0 must be a number between 0 and 1"),
        ({"eps": 1.0}, "eps=1.0"),
        ({"eps": "small"}, "eps='small'"),
        ({"weight_decays": [1.0, -1.0]}, r"weight_decays=\[1.0, -1.0\] must be a list of positive finite numbers"),
        ({"weight_decays": [np.inf]}, "weight_decays="),
        ({"weight_decays": [np.nan]}, "weight_decays="),
        ({"weight_decays": []}, "weight_decays="),
        ({"weight_decays": 1.0}, "weight_decays=1.0"),
        ({"weight_decays": "many"}, "weight_decays must hold real numbers"),
        ({"loss": "absolute"}, "loss='absolute' is not one"),
        ({"loss": []}, r"loss=\[\] is not one"),
        ({"loss": "log_loss"}, "Unknown label type"),
        ({"activation": "tanh"}, "activation='tanh' is unknown"),
        ({"tol": 0.0}, "tol=0.0"),
        ({"max_time": 0.0}, "max_time=0.0 must be a positive number of seconds"),
        ({"sample_weight": -np.ones(24)}, "sample_weight must not be negative"),
        ({"n_components": 7}, "n_components=7 is out of range"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        convexbn_path(X, Y + 0.5, **{"loss": untouched(SquaredError)} | options)


def test_what_is_found_anywhere_on_the_path_is_priced_at_all_values():
    problem = Problem(np.random.default_rng(0).standard_normal((40, 4)), np.ones(40), weight_decay=1.0)
    problem = replace(problem, y=np.abs(problem.Z.Z[:, :1]) + np.abs(problem.Z.Z[:, 1:2]))
    grid = weight_decay_max(problem) * np.geomspace(1, 0.03, 6)
    solutions = solve_path(problem, grid[::-1], tol=1e-4, random_state=0)
    assert len(solutions) == 6
    known = np.hstack([solution.neurons.weights for solution in solutions])
    hidden = problem.Z.neuron_outputs(known / np.linalg.norm(known, axis=0))
    for weight_decay, solution in zip(grid, solutions, strict=True):
        here = replace(problem, weight_decay=weight_decay)
        price = np.abs(solution.dual[:, 0] @ hidden).max()
        bound = here.dual_objective(min(1.0, weight_decay / price) * solution.dual)
        assert solution.certificate.objective == pytest.approx(here.objective(solution.neurons))
        assert solution.certificate.objective - bound <= 1e-4 * solution.certificate.objective
        exact = solve(here, tol=1e-6, prove=False, random_state=1).certificate
        assert exact.lower_bound * (1 - 2e-4) <= solution.certificate.objective <= exact.objective * (1 + 2e-4)


def test_a_weight_decay_of_a_path_must_be_positive():
    for odd in ([], [[1.0, 2.0]], [1.0, -1.0]):
        with pytest.raises(ValueError, match=r"weight_decays=.* must be a list of positive finite numbers"):
            solve_path(Problem(np.eye(2), [1.0, 2.0], weight_decay=1.0), odd)


def test_statuses_of_a_path_rest_on_what_all_of_it_found():
    """A search from one start believes its gap; the neurons of a good network show that it is large."""
    problem = Problem(BatchNormDesign().fit_transform(X), Y, weight_decay=1.0, fit_intercept=True)
    problem = replace(problem, weight_decay=0.02 * weight_decay_max(problem))
    crippled = Options(n_starts=1, last_search=1, first_neurons=(1, 1))
    tolerance = Tolerance.of(problem, 1e-4)
    good = solve_column_generation(problem, tol=1e-4, prove=False, random_state=0)
    found = [
        solve_column_generation(problem, tol=1e-4, options=crippled, prove=False, random_state=seed)
        for seed in range(8)
    ]
    believed = [solution for solution in found if solution.certificate.objective > good.certificate.objective * 1.001]
    assert believed  # or the test says nothing
    for solution in believed:
        assert solution.status is Status.CONVERGED
        priced, _ = solvers_path._priced_by_all([problem] * 2, [solution, good], tolerance)
        assert priced.status is Status.NOT_CONVERGED
        assert priced.certificate.gap > 1e-4
        again = solvers_path._with_violating(problem, 0, [solution, good])
        assert problem.objective(again) < solution.certificate.objective


def test_values_are_searched_from_other_starts_and_a_seed_gives_one_path(monkeypatch):
    drawn = []

    def recorded(problem, *, random_state, **options):
        drawn.append(random_state.bit_generator.state["state"]["state"])
        return solve(problem, random_state=random_state, **options)

    monkeypatch.setattr(solvers_path, "solve", recorded)
    options = {"n_weight_decays": 3, "eps": 0.1, "random_state": 0}
    first, second = convexbn_path(X, Y, **options), convexbn_path(X, Y, **options)
    once = drawn[: len(drawn) // 2]
    assert len(set(once)) == len(once) >= 3
    assert once * 2 == drawn
    np.testing.assert_array_equal(first.objectives, second.objectives)


@pytest.mark.parametrize("grid", [["a"], [], [[1.0, 0.5]], {"a": 1}])
def test_what_is_no_grid_is_named(grid):
    problem = Problem(BatchNormDesign().fit_transform(X), Y, weight_decay=1.0)
    with pytest.raises(ValueError, match="weight_decays"):
        solve_path(problem, grid)


@pytest.mark.parametrize("options", [{}, {"activation": "gated_relu"}, {"solver": "CLARABEL"}], ids=str)
def test_callbacks_see_every_weight_decay_and_may_end_the_path(options):
    Z = np.random.default_rng(0).standard_normal((8, 2))
    problem, seen = Problem(Z, np.abs(Z[:, 0]), weight_decay=1.0), []
    options = {"random_state": 0, "tol": 1e-4, **options}
    whole = solve_path(problem, [0.1, 0.05, 0.01], callback=seen.append, **options)
    assert [progress.n_iter for progress in seen] == [1, 2, 3]
    assert [progress.n_neurons for progress in seen] == [len(solution.neurons) for solution in whole]
    assert [progress.objective for progress in seen] == [solution.certificate.objective for solution in whole]
    for length in (2, 3):
        ended = solve_path(problem, [0.1, 0.05, 0.01], callback=lambda p, last=length: p.n_iter == last, **options)
        assert [solution.certificate.objective for solution in ended] == [p.objective for p in seen[:length]]
