"""Column generation against the program over all patterns, and its limits, progress and interrupts."""

import signal
import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning

from convexbn import (
    BatchNormDesign,
    DesignMatrix,
    Neurons,
    Problem,
    Status,
    enumerate_patterns,
    solve,
    solve_column_generation,
    solve_path,
    solve_reference,
    weight_decay_max,
)
from convexbn.oracles import price_by_enumeration
from convexbn.solvers import ACCURATE, FAST, Options, Oracle, ProofOptions, Search
from tests.problems import CASES
from tests.watched import Watched

SMOOTH = [case for case in CASES if case.loss != "hinge"]


def instance(n, d, seed=0, fraction=0.02, **options):
    """A teacher's data, whitened."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    y = np.maximum(X @ rng.standard_normal((d, 4)), 0) @ rng.standard_normal(4) + 0.3 * rng.standard_normal(n)
    problem = Problem(BatchNormDesign().fit_transform(X), y, weight_decay=1.0, **options)
    return replace(problem, weight_decay=fraction * weight_decay_max(problem))


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_same_optimum_as_the_program_over_all_patterns(case):
    problem = case.problem()
    program = solve_reference(problem, enumerate_patterns(problem.Z)).certificate
    solution = solve_column_generation(problem, random_state=0)
    certificate, proved = solution.certificate, solution.certificate.global_lower_bound
    assert certificate.objective == pytest.approx(program.objective, rel=1e-6)
    assert certificate.objective == problem.objective(solution.neurons)
    assert certificate.gap <= 1e-6
    assert proved >= certificate.objective * (1 - 1e-6)
    assert certificate.scope == "global"
    # The bound is true: the dual point, scaled by its exact price, proves no less than what is claimed.
    v = problem.feasible_dual(solution.dual)
    scale = min(1, problem.weight_decay / price_by_enumeration(problem.Z, v).value)
    assert proved <= problem.dual_objective(scale * v) * (1 + 1e-9)
    assert proved <= program.objective * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(1, 4))
def test_few_patterns_are_enumerated_where_branch_and_bound_takes_more_cones(seed):
    problem = next(case for case in SMOOTH if str(case) == "squared_error-weight-plain-k4").problem()
    certificate = solve_column_generation(problem, random_state=seed).certificate
    assert certificate.scope == "global"
    assert certificate.gap <= 1e-6
    assert certificate.oracle is Oracle.ENUMERATION
    options = replace(ACCURATE, proof=ProofOptions(sharp_nodes=50))
    hard = solve_column_generation(problem, random_state=seed, options=options)
    assert hard.certificate.oracle is not Oracle.ENUMERATION  # the patterns are more than its cones


@pytest.mark.parametrize("prove", [True, False])
def test_scope_says_whether_prices_were_proved(prove):
    certificate = solve_column_generation(instance(40, 2), prove=prove, random_state=0).certificate
    assert certificate.scope == ("global" if prove else "local")
    assert certificate.global_lower_bound <= certificate.lower_bound <= certificate.objective


def test_above_the_rank_of_proofs_the_certificate_is_local():
    problem = instance(60, 9)
    certificate = solve_column_generation(problem, random_state=0).certificate
    assert certificate.scope == "local"
    assert certificate.gap <= 1e-6
    assert 0 < certificate.global_lower_bound < certificate.lower_bound


def test_a_proof_that_falls_short_stands_beside_the_local_certificate():
    options = Options(proof=ProofOptions(sharp_nodes=400))
    problem = instance(60, 3)
    solution = solve_column_generation(problem, options=options, random_state=0)
    assert solution.certificate.scope == "local"
    assert solution.certificate.gap <= 1e-6
    assert solution.status is Status.CONVERGED
    assert 0 < solution.certificate.global_lower_bound < solution.certificate.lower_bound
    loose = solve_column_generation(problem, tol=0.5, options=options, random_state=0)  # this proof meets it
    assert loose.certificate.scope == "global"
    assert loose.certificate.gap <= 0.5
    assert loose.certificate.lower_bound == loose.certificate.global_lower_bound


@pytest.mark.slow
def test_the_automatic_proof_is_short_and_always_the_same():
    problem = instance(30, 5, fit_intercept=True)
    options = {"prove": "auto", "tol": 1e-4, "relative_to": "zero_network", "random_state": 0}
    first, second = (solve_column_generation(problem, **options).certificate for _ in range(2))
    assert first == second
    assert first.objective > first.global_lower_bound > 0
    without = solve_column_generation(problem, **options | {"prove": False}).certificate
    assert without.global_lower_bound < first.global_lower_bound
    shorter = Options(proof=ProofOptions(nodes_a_start=0))
    short = solve_column_generation(problem, options=shorter, **options).certificate
    assert short.global_lower_bound <= first.global_lower_bound


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_tolerance_relative_to_the_zero_network(n_outputs):
    problem = instance(40, 4, fraction=0.005, fit_intercept=True)
    if n_outputs == 2:
        problem = replace(problem, y=problem.y * np.array([1.0, -2.0]) + problem.Z.Z[:, :2])
    scale = problem.objective(problem.zero_network)
    options = {"tol": 1e-3, "prove": False, "random_state": 0}
    far = solve_column_generation(problem, relative_to="zero_network", **options)
    near = solve_column_generation(problem, **options)
    assert far.status is near.status is Status.CONVERGED
    assert far.certificate.objective - far.certificate.lower_bound <= 1e-3 * scale
    assert near.certificate.gap <= 1e-3 < far.certificate.gap
    assert far.n_iter < near.n_iter
    with pytest.warns(
        ConvergenceWarning, match=r"at a gap of .*e-.* of the zero network's objective, above tol=1.0e-0"
    ):
        missed = solve_column_generation(problem, relative_to="zero_network", max_iter=1, tol=1e-9, random_state=0)
    assert missed.status is Status.MAX_ITER


def test_where_the_zero_network_fits_perfectly_any_gap_is_rounding():
    problem = instance(20, 2, fit_intercept=True)
    constant = replace(problem, y=np.full((20, 1), 0.1), sample_weight=np.arange(1.0, 21.0), weight_decay=1e-3)
    assert constant.zero_objective == 0
    solution = solve_column_generation(constant, relative_to="zero_network", random_state=0)
    assert solution.status is Status.CONVERGED
    assert solution.certificate.objective == pytest.approx(0, abs=1e-20)


@pytest.mark.slow
def test_a_direction_that_only_the_proof_finds_goes_on_as_a_neuron():
    problem = instance(30, 2)
    best = solve_column_generation(problem, random_state=0).certificate
    options = Options(n_starts=1, last_search=1, first_neurons=(1, 1))
    unproved, proved = (
        [
            solve_column_generation(problem, prove=prove, options=options, random_state=seed).certificate
            for seed in range(5)
        ]
        for prove in (False, True)
    )
    assert max(c.objective for c in unproved) > best.objective * (1 + 1e-6)  # or the test checks nothing
    for certificate in proved:
        assert certificate.scope == "global"
        assert certificate.objective == pytest.approx(best.objective, rel=1e-6)


@pytest.mark.slow
def test_no_global_certificate_where_a_better_network_is_known():
    """The search is crippled and stopped early; a good network is planted in the targets."""
    options = Options(n_starts=1, last_search=1, proof=ProofOptions(sharp_nodes=2000))
    worse = proved = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        n, d = int(rng.integers(6, 30)), int(rng.integers(1, 4))
        Z = DesignMatrix(BatchNormDesign().fit_transform(rng.standard_normal((n, d))))
        signs = rng.choice([-1.0, 1.0], size=(3, 1))
        planted = Neurons(rng.standard_normal((Z.n_columns, 3)), signs, np.zeros(1))
        problem = Problem(Z, planted.outputs(Z) + 0.01 * rng.standard_normal((n, 1)), weight_decay=1.0)
        problem = replace(problem, weight_decay=10 ** rng.uniform(-3, -1) * weight_decay_max(problem))
        start = Neurons(rng.standard_normal((Z.n_columns, 1)), np.ones((1, 1)), np.zeros(1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            solution = solve_column_generation(
                problem,
                start=start,
                max_iter=int(rng.integers(1, 8)),
                tol=1e-2,
                options=options,
                random_state=seed,
            )
        known = min(problem.objective(planted), problem.objective(problem.zero_network))
        worse += known < solution.certificate.objective
        assert solution.certificate.global_lower_bound <= known
        if solution.certificate.scope == "global":
            proved += 1
            assert solution.certificate.lower_bound <= known
    assert min(worse, proved) >= 10  # or the test checks nothing


def test_objective_never_rises_and_is_reported():
    seen = []
    solution = solve_column_generation(instance(120, 6), prove=False, random_state=0, callback=seen.append)
    objectives = [progress.objective for progress in seen]
    assert len(objectives) == solution.n_iter > 2
    assert (np.diff(objectives) <= 0).all()
    assert solution.history == tuple(seen)
    assert seen[-1].gap <= 1e-6 < seen[0].gap
    assert seen[-1].n_neurons >= len(solution.neurons)
    assert solution.certificate.objective == pytest.approx(objectives[-1], rel=1e-9)


def test_same_seed_same_network():
    problem = instance(60, 4)
    first, second = (solve_column_generation(problem, random_state=3, prove=False) for _ in range(2))
    assert np.array_equal(first.neurons.weights, second.neurons.weights)


def test_zero_network_at_and_above_the_largest_weight_decay():
    problem = instance(40, 3)
    for factor in (1.0, 1.5):
        solution = solve_column_generation(
            replace(problem, weight_decay=factor * weight_decay_max(problem)), random_state=0
        )
        assert len(solution.neurons) == 0
        assert solution.status is Status.CONVERGED
    below = solve_column_generation(replace(problem, weight_decay=0.98 * weight_decay_max(problem)), random_state=0)
    assert 1 <= len(below.neurons) <= 2


@pytest.mark.parametrize("fraction", [1.0, 0.1, 1e-2, *(pytest.param(f, marks=pytest.mark.slow) for f in (1e-3, 1e-4))])
@pytest.mark.parametrize(
    "change",
    ["plain", "ill-conditioned", "duplicated rows", "rank-deficient", "float32", "outlier", "log_loss"],
)
def test_hard_data_converges_or_says_that_it_did_not(change, fraction):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    y = np.abs(X[:, 0]) - X[:, 1] + 0.1 * rng.standard_normal(40)
    loss = "squared_error"
    if change == "ill-conditioned":
        X = X * [1, 1e4, 1e-4]
    elif change == "duplicated rows":
        X, y = np.repeat(X[:20], 2, axis=0), np.repeat(y[:20], 2)
    elif change == "rank-deficient":
        X = np.hstack([X, X @ [[1.0], [2.0], [3.0]], np.ones((40, 1))])
    elif change == "float32":
        X, y = X.astype(np.float32), y.astype(np.float32)
    elif change == "outlier":
        X, y = X[:20], y[:20]
        y[0] = 1e4
    elif change == "log_loss":
        loss, y = change, np.sign(y - np.median(y))
    Z = X if change == "ill-conditioned" else BatchNormDesign().fit_transform(X)
    problem = Problem(Z, y, loss, weight_decay=1.0)
    problem = replace(problem, weight_decay=fraction * weight_decay_max(problem))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = solve_column_generation(problem, random_state=0, prove=False, max_iter=30)
    objective = problem.objective(solution.neurons)
    assert objective == solution.certificate.objective <= problem.objective(problem.zero_network)
    converged = solution.status is Status.CONVERGED
    # An outlier's residual is 1e8 times the others, squared: at the least weight decay its rounds run out.
    assert converged or (change == "outlier" and fraction == 1e-4)
    if converged:
        assert solution.certificate.gap <= 1e-6
        assert not caught
    else:
        assert [w.category for w in caught] == [ConvergenceWarning]
        assert f"{solution.certificate.gap:.1e}" in str(caught[0].message)


def test_warm_start_takes_fewer_rounds_and_counts_for_nothing_but_a_start():
    problem = instance(120, 6)
    cold = solve_column_generation(problem, prove=False, random_state=0)
    warm = solve_column_generation(problem, start=cold.neurons, prove=False, random_state=1)
    assert warm.n_iter < cold.n_iter
    assert warm.certificate.objective <= cold.certificate.objective
    balanced = solve_column_generation(problem, start=cold.neurons.balanced(), prove=False, random_state=1)
    assert balanced.certificate.objective == pytest.approx(warm.certificate.objective, rel=1e-9)


@pytest.mark.parametrize("intercept", [-5.0, 0.0, 5.0])
def test_a_start_without_neurons_leaves_a_wrong_intercept_behind(intercept):
    problem = replace(instance(40, 2), fit_intercept=True)
    start = replace(problem.zero_network, intercept=np.array([intercept]))
    solution = solve_column_generation(problem, start=start, random_state=0)
    expected = solve_column_generation(problem, random_state=0).certificate.objective
    assert len(solution.neurons) > 0
    assert solution.certificate.objective == pytest.approx(expected, rel=1e-6)


def test_the_intercept_of_a_start_is_left_out_where_none_is_fitted():
    problem = instance(40, 2)
    problem = replace(problem, y=problem.y + 5)
    start = solve_column_generation(replace(problem, fit_intercept=True), random_state=0).neurons
    solution = solve_column_generation(problem, start=start, random_state=0)
    expected = solve_column_generation(problem, random_state=0).certificate.objective
    assert start.intercept[0] > 1
    assert solution.neurons.intercept[0] == 0
    assert solution.certificate.objective == pytest.approx(expected, rel=1e-6)


def test_limits_return_the_best_network_so_far():
    problem = instance(120, 6)
    with pytest.warns(ConvergenceWarning, match=r"stopped at a relative gap of .* reached max_iter .* Raise max_iter"):
        short = solve_column_generation(problem, max_iter=1, random_state=0)
    assert (short.status, short.n_iter) == (Status.MAX_ITER, 1)
    with pytest.warns(ConvergenceWarning, match=r"reached max_time .* Raise max_time"):
        timed = solve_column_generation(problem, max_time=1e-9, random_state=0)
    assert timed.status is Status.MAX_TIME
    for solution in (short, timed):
        assert problem.objective(solution.neurons) == solution.certificate.objective
    assert short.certificate.objective < timed.certificate.objective <= problem.objective(problem.zero_network)


def watched(problem, press=None):
    """The problem on a matrix that counts its products, and the count."""
    Z = Watched.fresh(problem.Z.Z, press=press)
    return replace(problem, Z=Z), Z.calls


def test_out_of_time_no_search_is_made_and_the_certificate_says_so():
    problem, calls = watched(instance(120, 6))
    with pytest.warns(ConvergenceWarning, match="reached max_time"):
        none = solve_column_generation(problem, max_time=1e-9, random_state=0).certificate
    assert calls["for_prices"] == 0
    assert none.scope == "global"  # what holds without any search
    assert none.search is Search.NOT_SEARCHED
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        last = solve_column_generation(problem, random_state=0, callback=lambda progress: True).certificate
    assert calls["for_prices"] == 1
    assert last.scope == "local"
    assert 0 < none.lower_bound < last.lower_bound < last.objective < none.objective


@pytest.fixture(scope="module")
def last():
    """Number of the last call, in a solve, of the bound that certificates rest on."""
    problem, calls = watched(instance(40, 2))
    solve_column_generation(problem, random_state=0)
    return calls["weighted_norm"]


class TestLateInterrupts:
    """Ctrl-C while the gap is within the tolerance already, and while the certificate is made."""

    def test_before_the_proof(self):
        problem = instance(40, 2)

        def press(progress):
            if progress.gap <= 1e-6:
                signal.raise_signal(signal.SIGINT)

        solution = solve_column_generation(problem, random_state=0, callback=press)  # without a warning: it converged
        assert solution.status is Status.INTERRUPTED
        assert solution.certificate.gap <= 1e-6
        assert solution.certificate.scope == "local"

    def test_in_the_certificate(self, last):
        problem, calls = watched(instance(40, 2), press={"weighted_norm": [last]})
        solution = solve_column_generation(problem, random_state=0)
        assert calls["weighted_norm"] > last
        assert solution.status is Status.INTERRUPTED
        assert solution.certificate.scope == "global"

    def test_the_second_one_is_passed_on(self, last):
        problem, _ = watched(instance(40, 2), press={"weighted_norm": [last, last + 1]})
        with pytest.raises(KeyboardInterrupt):
            solve_column_generation(problem, random_state=0)


@pytest.mark.parametrize(
    ("where", "calls"), [("callback", [1]), ("for_prices", [2]), ("masked_gram", [8]), ("weighted", [3])]
)
def test_interrupted_it_returns_the_best_network_so_far(where, calls):
    """In a callback, in the second search, in a later corrective step, and in the descent of the first neurons."""
    problem, _ = watched(instance(120, 6), press={where: calls})

    def press(progress):
        if where == "callback":
            signal.raise_signal(signal.SIGINT)

    with pytest.warns(ConvergenceWarning, match="interrupted"):
        solution = solve_column_generation(problem, random_state=0, callback=press)
    assert solution.status is Status.INTERRUPTED
    assert problem.objective(solution.neurons) == solution.certificate.objective
    if where != "weighted":
        assert solution.certificate.objective < problem.objective(problem.zero_network)


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_a_matrix_of_zeros_has_the_zero_network(fit_intercept):
    y = np.random.default_rng(0).standard_normal(40)
    problem = Problem(np.zeros((40, 2)), y, weight_decay=0.1, fit_intercept=fit_intercept)
    for solution in (solve(problem, random_state=0), *solve_path(problem, [0.1, 0.01], random_state=0)):
        assert len(solution.neurons) == 0
        assert solution.certificate.objective == pytest.approx(problem.zero_objective, rel=1e-12)
        assert solution.certificate.gap < 1e-12
    assert weight_decay_max(problem) == 0


def test_callback_ends_the_run():
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        solution = solve_column_generation(instance(120, 6), random_state=0, callback=lambda progress: True)
    assert (solution.status, solution.n_iter) == (Status.INTERRUPTED, 1)


def test_progress_bar(capsys):
    solve_column_generation(instance(30, 2), random_state=0, verbose=True)
    assert "column generation" in capsys.readouterr().err


def test_neurons_move_in_blocks_where_they_are_many():
    problem = instance(40, 3, fit_intercept=True)
    whole = solve_column_generation(problem, random_state=0, prove=False)
    blocks = solve_column_generation(problem, random_state=0, prove=False, tol=1e-3, options=Options(newton_weights=8))
    assert blocks.certificate.objective == pytest.approx(whole.certificate.objective, rel=1e-3)


class TestCoarseRounds:
    """Networks of many weights: coarse rounds until the gap is small, then rounds as in small networks."""

    MANY = Options(many_weights=0)

    @pytest.mark.parametrize("n_outputs", [1, 3])
    def test_same_optimum(self, n_outputs):
        problem = instance(60, 3)
        if n_outputs > 1:
            problem = replace(problem, y=problem.y * np.array([1.0, -2.0, 0.5]) + 0.1 * problem.Z.Z[:, :3])
        coarse = solve_column_generation(problem, prove=False, options=self.MANY, random_state=0)
        always = solve_column_generation(problem, prove=False, options=Options(many_weights=np.inf), random_state=0)
        assert coarse.status is Status.CONVERGED
        assert coarse.certificate.objective == pytest.approx(always.certificate.objective, rel=1e-6)
        assert [progress.objective for progress in coarse.history] != [
            progress.objective for progress in always.history
        ]

    def test_more_steps_on_many_rows(self):
        steps = [Options(coarse_steps=(3, 7)).coarse(n_rows).quasi_newton_steps for n_rows in (100_000, 100_001)]
        assert steps == [3, 7]

    def test_their_objective_never_rises(self):
        problem = instance(100, 8, fraction=0.005)
        history = solve_column_generation(problem, options=self.MANY, random_state=0, tol=1e-3).history
        assert (np.diff([progress.objective for progress in history]) <= 0).all()

    def test_ended_among_them_the_certificate_rests_on_a_thorough_search(self):
        problem, calls = watched(instance(100, 8, fraction=0.005))
        with pytest.warns(ConvergenceWarning):
            solution = solve_column_generation(problem, options=self.MANY, random_state=0, max_iter=1)
        assert calls["for_prices"] == 2
        assert solution.certificate.search is Search.UNFINISHED
        assert solution.certificate.gap > 0.01


def test_a_limit_of_newton_steps_ends_the_run():
    problem, calls = watched(instance(120, 6))
    with pytest.warns(ConvergenceWarning, match="reached max_iter"):
        solution = solve_column_generation(problem, options=replace(ACCURATE, newton_steps=3), random_state=0)
    assert solution.status is Status.MAX_ITER
    assert calls["masked_gram"] == 3
    assert solution.certificate.search is Search.UNFINISHED


def test_pooled_rows():
    rng = np.random.default_rng(0)
    Z = DesignMatrix(rng.standard_normal((20, 2)), n_patches=2)
    problem = Problem(Z, rng.standard_normal(10), weight_decay=0.02)
    solution = solve_column_generation(problem, random_state=0)
    program = solve_reference(problem, enumerate_patterns(Z)).certificate
    assert solution.certificate.objective == pytest.approx(program.objective, rel=1e-6)
    assert solution.certificate.scope == "global"


def test_sample_weights_are_repeated_rows():
    problem = instance(12, 2)
    weights = np.random.default_rng(1).integers(1, 4, size=12)
    weighted = replace(problem, sample_weight=weights)
    Z, y = np.repeat(problem.Z.Z, weights, axis=0), np.repeat(problem.y, weights, axis=0)
    repeated = Problem(Z, y, weight_decay=problem.weight_decay)
    objectives = [solve_column_generation(p, random_state=0).certificate.objective for p in (weighted, repeated)]
    assert objectives[0] == pytest.approx(objectives[1], rel=1e-6)


def test_counts_of_iterations_searches_and_gram_matrices():
    """What the solver needs on one instance; a regression in speed shows here first."""
    problem, calls = watched(instance(200, 5))
    solution = solve_column_generation(problem, prove=False, random_state=0)
    # Measured: 4 rounds, 9 searches (a gap is confirmed by several that grow), 32 Gram matrices; other versions of BLAS
    # round otherwise.
    assert solution.n_iter <= 6
    assert calls["for_prices"] <= 11
    assert calls["masked_gram"] <= 50


@pytest.mark.parametrize("seed", [7, 19])
def test_kinks_that_many_samples_share(seed):
    X, y = load_diabetes(return_X_y=True)  # the second column is binary
    Z = BatchNormDesign().fit_transform(X[:, :2])
    solution = solve_column_generation(Problem(Z, y, weight_decay=0.1, fit_intercept=True), random_state=seed)
    assert solution.certificate.gap <= 1e-6


def groups(size, seed=0, codes=(0.0, 1.0)):
    """The data of a two-sample t-test: X of two values, and y."""
    noise = np.random.default_rng(seed).standard_normal(2 * size)
    return np.repeat(codes, size)[:, None], np.repeat([0.0, 1.0], size) + 0.5 * noise


@pytest.mark.parametrize("loss", ["squared_error", "huber"])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(
    ("X", "y"),
    [
        (np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([-0.297, 0.315, 1.52, 1.515])),
        groups(10, seed=3),
        groups(20, seed=0),
        groups(20, seed=1, codes=(-1.0, 1.0)),
        groups(50, seed=0),
        (np.eye(4)[np.arange(100) % 4], np.arange(100) % 4 + np.random.default_rng(0).standard_normal(100)),
    ],
    ids=["2 each", "10 each", "20 each", "-1 and 1", "50 each", "four levels"],
)
def test_groups(X, y, fit_intercept, loss):
    Z = BatchNormDesign().fit_transform(X)
    problem = Problem(Z, y, loss, weight_decay=1.0, fit_intercept=fit_intercept)
    problem = replace(problem, weight_decay=0.1 * weight_decay_max(problem))
    program = solve_reference(problem, enumerate_patterns(problem.Z)).certificate
    certificate = solve_column_generation(problem, random_state=0).certificate
    assert certificate.objective == pytest.approx(program.objective, rel=1e-6)
    assert certificate.gap <= 1e-6


@pytest.mark.parametrize("normalization", ["batch", "weight"])
@pytest.mark.parametrize("seed", range(8))
def test_repeated_rows_are_fitted_as_their_means(seed, normalization):
    """A hundred targets a row: the loss is that of the means, and what varies within the rows."""
    x = np.array([0.0, 1.0, 2.5, 5.0, 10.0])[:, None]
    y = np.tanh(np.repeat(x[:, 0], 100) / 3) + 0.3 * np.random.default_rng(seed).standard_normal(500)
    means = y.reshape(5, 100).mean(axis=1)
    rows = BatchNormDesign().fit_transform(x) if normalization == "batch" else np.hstack([x / 5 - 1, 0 * x + 1])
    single = Problem(rows, means, weight_decay=0.03, fit_intercept=True)
    repeated = Problem(np.repeat(rows, 100, axis=0), y, weight_decay=0.03, fit_intercept=True)
    fits = [solve_column_generation(problem, tol=1e-8, random_state=0) for problem in (single, repeated)]
    within = ((y - np.repeat(means, 100)) ** 2).mean() / 2
    assert fits[1].certificate.objective - within == pytest.approx(fits[0].certificate.objective, rel=1e-6)
    assert fits[1].certificate.gap <= 1e-6
    predictions = [fit.neurons.outputs(single.Z) for fit in fits]
    np.testing.assert_allclose(predictions[1], predictions[0], atol=1e-4 * np.ptp(means))


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_more_columns_than_rows(n_outputs):
    """Z = A Q^T with orthonormal Q is the problem of A."""
    rng = np.random.default_rng(0)
    A, Q = rng.standard_normal((8, 3)), np.linalg.qr(rng.standard_normal((30, 3)))[0]
    narrow = Problem(A, rng.standard_normal((8, n_outputs)), weight_decay=0.05, fit_intercept=True)
    wide = replace(narrow, Z=DesignMatrix(A @ Q.T))
    expected = solve_column_generation(narrow, random_state=0).certificate
    solution = solve_column_generation(wide, tol=1e-6, random_state=0)
    assert solution.neurons.weights.shape[0] == 30
    assert solution.certificate.objective == pytest.approx(expected.objective, rel=1e-6)
    assert solution.certificate.objective == wide.objective(solution.neurons)
    assert solution.certificate.gap <= 1e-6
    tilted = replace(solution.neurons, weights=solution.neurons.weights + 0.1 * (np.eye(30) - Q @ Q.T)[:, :1])
    again = solve_column_generation(wide, start=tilted, max_iter=1, tol=1e-3, random_state=0)
    assert again.certificate.objective == pytest.approx(expected.objective, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tol": 0.0}, "tol=0.0 must be a positive number"),
        ({"tol": "small"}, "tol='small' must be a positive number"),
        ({"relative_to": "Adam"}, "relative_to='Adam' is unknown; choose one of"),
        ({"prove": "maybe"}, "prove='maybe' must be True, False or \"auto\""),
        ({"max_iter": 0}, "max_iter=0 must be a positive integer or None"),
        ({"max_time": -1}, "max_time=-1 must be a positive number of seconds"),
        ({"callback": 3}, "callback=3 must be a function"),
        ({"start": Neurons(np.ones((2, 1)), np.ones((1, 1)), np.zeros(1))}, "weights of 4 rows"),
        ({"start": Neurons(np.ones((4, 1)), np.ones((1, 2)), np.zeros(2))}, "start has 2 outputs"),
        ({"start": Neurons(np.full((4, 1), np.nan), np.ones((1, 1)), np.zeros(1))}, "start contains NaN"),
        ({"start": Neurons(np.ones((4, 1)), np.ones((1, 1)), np.full(1, np.nan))}, "start contains NaN"),
        ({"start": Neurons(np.ones((4, 1)), np.ones((1, 1)), np.zeros(1), np.ones((4, 1)))}, "without gates"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        solve_column_generation(instance(20, 3), **changes)


def test_problems_it_does_not_take():
    Z = np.random.default_rng(0).standard_normal((6, 2))
    with pytest.raises(ValueError, match=r"smooth losses, not 'hinge'; use 'squared_hinge'"):
        solve_column_generation(Problem(Z, [1, -1, 1, -1, 1, -1], "hinge", weight_decay=0.1))


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (Options, "n_starts", 0),
        (Options, "n_starts", 2.5),
        (Options, "n_starts", 10**13),
        (Options, "last_search", 10**30),
        (Options, "around", 0.7),
        (Options, "across", "a"),
        (Options, "max_rounds", 0),
        (Options, "first_neurons", (-1, 3)),
        (Options, "first_neurons", 3),
        (Options, "coarse_steps", (25, 2.5)),
        (Options, "coarse_steps", (25, 50, 100)),
        (Options, "newton_weights", True),
        (ProofOptions, "nodes", 0),
        (ProofOptions, "share", np.nan),
    ],
)
def test_options_out_of_range_are_named(kind, name, value):
    with pytest.raises(ValueError, match=name):
        kind(**{name: value})


def test_options_are_options():
    for options in (None, {"n_starts": 3}):
        with pytest.raises(ValueError, match=r"options=.* must be an Options"):
            solve_column_generation(instance(10, 2), options=options)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_the_fast_preset_is_one_round_without_a_proof(n_outputs):
    problem = instance(40, 3)
    if n_outputs == 3:
        problem = replace(problem, y=problem.y * np.array([1.0, -2.0, 0.5]))
    with pytest.warns(ConvergenceWarning):
        solution = solve_column_generation(problem, options=FAST, random_state=0)
    assert solution.n_iter == 1
    assert 0 < len(solution.neurons) <= FAST.most_neurons
    assert solution.certificate.search is Search.NOT_SEARCHED
    assert solution.certificate.objective < problem.objective(problem.zero_network)


def test_no_starts_around_neurons_or_across_their_kinks():
    problem, options = instance(40, 3), Options(around=0.0, across=0.0)
    alone, usual = (
        solve_column_generation(problem, options=chosen, prove=False, random_state=0).certificate
        for chosen in (options, ACCURATE)
    )
    assert alone.objective == pytest.approx(usual.objective, rel=1e-3)
