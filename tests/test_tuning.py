"""Weight decay and spectral power chosen on held-out samples."""

import re
import signal
import warnings
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import count

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from convexbn import (
    BatchNormDesign,
    ConvexBNClassifier,
    ConvexBNConvClassifier,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    ConvexBNStackClassifier,
    ConvexBNStackRegressor,
    Neurons,
    Problem,
    solve,
    weight_decay_max,
)
from convexbn.estimators import _base as base
from convexbn.estimators import _fixed as fixed
from convexbn.estimators._curve import HeldOut
from convexbn.estimators._hold_out import hold_out
from convexbn.estimators._last_fit import average_of_parts, last_fit
from convexbn.estimators._race import AUTO_FRACTION, FRACTIONS, tune
from convexbn.losses import SquaredError, make_loss
from convexbn.solvers import _auto as auto
from convexbn.solvers._auto import patterns_of
from convexbn.solvers._monitor import Clock
from convexbn.solvers.gated._path import gated_path
from convexbn.solvers.relu._fast import fast_path
from tests.watched import untouched, watched_loss

RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 2))
NOISE = RNG.standard_normal(24)
Y, QUIET = np.abs(X[:, 0]) + 0.4 * NOISE, np.abs(X[:, 0]) + 0.1 * NOISE  # little noise leads to many neurons
LABELS = np.where(X[:, 0] * X[:, 1] > 0, "same", "other")
# With this tol the last fit ends at once, and without a warning: the tests are about the choice before it.
REGRESSOR, CLASSIFIER = ConvexBNRegressor(tol=1.0), ConvexBNClassifier(tol=1.0)
MODELS = [(REGRESSOR, Y), (CLASSIFIER, LABELS)]
both = pytest.mark.parametrize(("model", "y"), MODELS, ids=["regressor", "classifier"])
# Powers are compared by the same code for both.
one_power = pytest.mark.parametrize(
    ("model", "y"),
    [(REGRESSOR, Y), (ConvexBNClassifier(tol=1.0, spectral_power=1.0), LABELS)],
    ids=["regressor", "classifier"],
)


@cache
def fit_of(kind):
    """The model of a kind, fitted; tests leave it as it is."""
    ((model, y),) = [(model, y) for model, y in MODELS if type(model) is kind]
    return clone(model).fit(X, y)


def table_of(scores):
    """Rows of the table as tuples, without the losses of each fold."""
    return sorted(
        zip(*(scores[name].tolist() for name in ("spectral_power", "weight_decay", "mean_score")), strict=True)
    )


def assert_same_fit(one, other):
    assert table_of(one.validation_scores_) == table_of(other.validation_scores_)
    assert (one.weight_decay_, one.spectral_power_) == (other.weight_decay_, other.spectral_power_)
    np.testing.assert_array_equal(one.network_.predict(X), other.network_.predict(X))


class TestRule:
    """The choice for paths with given losses: networks are constants, and targets small beside them."""

    def choose(self, losses, *, n=40, powers=None, n_folds=5, y=None):
        """Race with the validation loss of every power at every weight decay; where a list ends the loss is 9."""
        y = np.zeros((n, 1)) if y is None else y
        folds = [(np.flatnonzero(np.arange(n) % n_folds != k), np.arange(k, n, n_folds)) for k in range(n_folds)]
        seen = []

        def problem_of(candidate):
            return Problem(np.ones((n, 1)), y, weight_decay=1 + candidate.spectral_power, fit_intercept=True)

        def follow(problem, weight_decays):
            of_power = losses[problem.weight_decay - 1]
            for index in range(len(weight_decays)):
                loss = of_power[index] if index < len(of_power) else 9.0
                yield Neurons(np.zeros((1, 0)), np.zeros((0, 1)), np.array([np.sqrt(2 * loss)]))

        options = {"n_components": None, "rng": np.random.default_rng(0), "n_jobs": None, "clock": Clock(None)}
        return tune(problem_of, powers, folds, follow, report=seen.append, **options), seen

    def test_the_largest_weight_decay_within_a_percent_of_the_least_loss(self):
        tuning, _ = self.choose({1.0: [1, 0.5, 0.2, 0.1005, 0.1, 0.3, 0.01]}, powers=[1.0])
        assert tuning.weight_decay == pytest.approx(FRACTIONS[3])
        # Two values without a better loss end the path; the values behind them are not computed.
        np.testing.assert_allclose(-tuning.table["mean_score"], [1, 0.5, 0.2, 0.1005, 0.1, 0.3])
        np.testing.assert_array_equal(tuning.table["n_folds"], 5)
        tuning, _ = self.choose({1.0: [1, 0.5, 0.2, 0.1015, 0.1]}, powers=[1.0])
        assert tuning.weight_decay == pytest.approx(FRACTIONS[4])

    def test_the_usual_power_wins_unless_another_one_is_lower(self):
        tuning, _ = self.choose({0.0: [0.2], 0.5: [0.19], 1.0: [0.2]})
        assert tuning.candidate.spectral_power == 0.5
        tuning, _ = self.choose({0.0: [0.1], 0.5: [0.15], 1.0: [0.2]})
        assert tuning.candidate.spectral_power == 0
        tuning, _ = self.choose({0.0: [0.2], 0.5: [0.2], 1.0: [0.2]})
        assert tuning.candidate.spectral_power == 1

    @pytest.mark.parametrize(("n", "power"), [(20, 1.0), (200, 1.0), (4000, 0.5)])
    def test_lower_means_by_two_standard_errors(self, n, power):
        # Losses (b -+ 1)^2 / 2 of a constant b: 0.5 at b = 0, and 0.505 +- 0.1 at b = 0.1.
        signs = np.where(np.arange(n) // 5 % 2 == 0, 1.0, -1.0)[:, None]
        tuning, _ = self.choose({0.0: [2.0], 0.5: [0.0], 1.0: [0.005]}, n=n, y=signs)
        assert tuning.candidate.spectral_power == power

    def test_powers_follow_to_the_side_of_the_lower_loss_while_they_help(self):
        losses = {0.0: [0.4], 0.5: [0.3], 1.0: [0.2], 1.5: [0.1], 2.0: [0.15]}
        tuning, seen = self.choose(losses)
        assert [curve.candidate.spectral_power for curve in seen] == [1, 0.5, 1.5, 2, 1, 1.5]
        assert sorted(set(tuning.table["spectral_power"])) == [0.5, 1, 1.5, 2]
        assert tuning.candidate.spectral_power == 1.5
        tuning, _ = self.choose({power: [1 / (1 + power)] for power in np.arange(0, 10, 0.5)})
        assert max(tuning.table["spectral_power"]) == tuning.candidate.spectral_power == 3
        tuning, _ = self.choose({power: [1 + power] for power in np.arange(0, 10, 0.5)})
        assert sorted(set(tuning.table["spectral_power"])) == [0, 0.5, 1]
        tuning, _ = self.choose({0.0: [0.1], 0.5: [0.3005], 1.0: [0.3]})  # which do not differ by a percent
        assert sorted(set(tuning.table["spectral_power"])) == [0.5, 1]

    def test_powers_see_two_folds_and_the_usual_one_and_what_may_be_better_all(self):
        tuning, seen = self.choose({0.0: [0.3], 0.5: [0.1], 1.0: [0.2]})
        n_folds = dict(zip(tuning.table["spectral_power"], tuning.table["n_folds"], strict=True))
        assert n_folds == {0.0: 2, 0.5: 5, 1.0: 5}
        assert [curve.candidate.spectral_power for curve in seen] == [1, 0.5, 0, 1, 0.5]
        tuning, seen = self.choose({0.0: [0.3], 0.5: [0.3], 1.0: [0.2], 1.5: [0.25]})
        assert [curve.candidate.spectral_power for curve in seen] == [1, 0.5, 1.5, 1]
        n_folds = dict(zip(tuning.table["spectral_power"], tuning.table["n_folds"], strict=True))
        assert n_folds == {0.5: 2, 1.0: 5, 1.5: 2}

    @pytest.mark.parametrize(("plain", "learned", "taken"), [(0.5, 0.0, True), (0.0, 0.1, True), (0.0, 0.3, False)])
    @pytest.mark.parametrize("n_folds", [1, 2])
    def test_on_one_fold_a_learned_metric_is_taken_unless_it_is_worse_by_a_standard_error(
        self, plain, learned, taken, n_folds
    ):
        """Of 100 held-out targets +-1 and a constant b: (1 + b^2) / 2, and b / 10 is the error of a difference to 0."""
        y, curves, seen = np.tile([[1.0], [-1.0]], (200, 1)), [], []

        def problem_of(candidate):
            constant = 1.0 if candidate.spectral_power != 1 else plain if candidate.feature_metric is None else learned
            return Problem(np.ones((400, 1)), y, weight_decay=1 + constant, fit_intercept=True)

        def follow(problem, weight_decays):
            constant = Neurons(np.zeros((1, 0)), np.zeros((0, 1)), np.array([problem.weight_decay - 1]))
            return iter([constant] * len(weight_decays))

        def metric(curve):
            curves.append(curve)
            return np.eye(1)

        folds = [(np.arange(300), np.arange(300, 400)), (np.arange(100, 400), np.arange(100))][:n_folds]
        options = {"n_components": None, "rng": np.random.default_rng(0), "n_jobs": None, "clock": Clock(None)}
        tuning = tune(problem_of, None, folds, follow, report=seen.append, learned_metric=metric, **options)
        if n_folds == 2:
            assert not curves
            assert not tuning.table["feature_metric"].any()
            return
        assert [curve.candidate.spectral_power for curve in curves] == [1]
        assert [curve.candidate.feature_metric is not None for curve in seen][-2:] == [False, True]
        assert (tuning.candidate.feature_metric is not None) == taken
        assert tuning.table["feature_metric"].sum() == seen[-1].length
        assert tuning.work == sum(curve.work for curve in seen[:-1]) // 2

    @pytest.mark.parametrize(("falls", "share"), [(True, 0.75), (False, 0.5)])
    def test_the_last_fit_is_shorter_beside_a_learned_metric(self, falls, share):
        problem = Problem(np.ones((40, 1)), np.zeros((40, 1)), weight_decay=1.0, fit_intercept=True)

        def follow(part, weight_decays):
            for index in range(len(weight_decays)):
                constant = 0.5 ** (index if falls else min(index, 3))
                yield Neurons(np.zeros((1, 0)), np.zeros((0, 1)), np.array([constant]))

        folds = [(np.arange(30), np.arange(30, 40))]
        options = {"n_components": None, "rng": np.random.default_rng(0), "n_jobs": None, "clock": Clock(None)}
        options |= {"report": lambda curve: None}
        with_it = tune(lambda candidate: problem, None, folds, follow, learned_metric=lambda c: np.eye(1), **options)
        without = tune(lambda candidate: problem, None, folds, follow, **options)
        assert with_it.work == int(share * without.work)

    def test_on_one_fold_powers_are_compared_on_a_subset(self):
        n = 12_000
        problem = Problem(np.ones((n, 1)), np.zeros((n, 1)), weight_decay=1.0, fit_intercept=True)
        sizes = []

        def follow(part, weight_decays):
            sizes.append(part.Z.n_samples)
            return iter([part.zero_network] * len(weight_decays))

        folds = [(np.arange(9000), np.arange(9000, n))]
        options = {"n_components": None, "rng": np.random.default_rng(0), "n_jobs": None, "clock": Clock(None)}
        tune(lambda candidate: problem, None, folds, follow, report=lambda curve: None, **options)
        assert sizes == [2000, 2000, 9000]


@pytest.mark.parametrize("kind", [ConvexBNRegressor, ConvexBNClassifier])
def test_what_was_chosen_is_in_the_table_and_wins_by_the_rule(kind):
    fitted = fit_of(kind)
    table = fitted.validation_scores_
    rows = table["spectral_power"] == fitted.spectral_power_
    losses, weight_decays = -table["mean_score"][rows], table["weight_decay"][rows]
    assert fitted.weight_decay_ == max(weight_decays[losses <= 1.01 * losses.min()])
    assert len({len(column) for column in table.values()}) == 1
    np.testing.assert_allclose(np.nanmean(table["scores"], axis=1), table["mean_score"])
    np.testing.assert_allclose(np.nanstd(table["scores"], axis=1), table["std_score"])
    np.testing.assert_array_equal(np.isfinite(table["scores"]).sum(axis=1), table["n_folds"])
    for power in set(table["spectral_power"]):
        fractions = table["fraction"][table["spectral_power"] == power]
        np.testing.assert_allclose(fractions, FRACTIONS[: len(fractions)])
    assert {0.5, 1.0} <= set(table["spectral_power"])
    if fitted.spectral_power_ != 1:
        usual = -table["mean_score"][table["spectral_power"] == 1]
        assert losses.min() < usual.min()


def test_losses_of_the_table_are_those_of_networks_on_held_out_samples():
    """Computed again from the folds, the design of all samples and the fast path."""
    model = ConvexBNRegressor(spectral_power=0.5, tol=1.0).fit(X, Y)
    order = np.lexsort(X.T[::-1])
    data, y = X[order], Y[order][:, None]
    Z = BatchNormDesign(spectral_power=0.5).fit_transform(data)
    problem = Problem(Z, y, weight_decay=1.0, fit_intercept=True)
    folds = hold_out(problem, y, np.random.default_rng(0), stratified=False)
    table = model.validation_scores_
    assert table["scores"].shape == (len(table["fraction"]), len(folds))
    for fold, (train, test) in enumerate(folds):
        path = fast_path(problem.restricted(train), table["weight_decay"], random_state=0)
        losses = [((network.outputs(problem.Z)[test] - y[test]) ** 2).mean() / 2 for network in path]
        np.testing.assert_allclose(-table["scores"][:, fold], losses, rtol=1e-9)


@both
def test_jobs_do_not_change_a_bit(model, y):
    assert_same_fit(clone(model).set_params(n_jobs=2).fit(X, y), fit_of(type(model)))


@pytest.mark.parametrize("options", [{}, {"activation": "gated_relu", "n_components": 1}], ids=["relu", "gated"])
def test_threads_leave_the_filters_of_warnings_alone(options):
    before = list(warnings.filters)
    model = ConvexBNRegressor(spectral_power=1.0, tol=1.0, n_jobs=2, **options)
    for _ in range(2):
        model.fit(X[:8], Y[:8], groups=np.arange(8) % 2)
        assert list(warnings.filters) == before


@one_power
def test_integer_weights_order_and_weights_of_zero(model, y):
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 3, 24)
    rows = rng.permutation(np.repeat(np.arange(24), weights))
    weighted = clone(model).fit(X, y, sample_weight=weights)
    assert_same_fit(weighted, clone(model).fit(X[rows], y[rows]))
    kept = weights > 0
    assert_same_fit(weighted, clone(model).fit(X[kept], y[kept], sample_weight=weights[kept]))


@one_power
def test_groups_are_held_out_together(model, y, monkeypatch):
    groups = np.array(list("abcdef"))[np.arange(24) % 6]
    weights = 1.0 + np.arange(24) % 2
    seen = []

    def watched(problem, targets, rng, *, groups, **options):
        folds = hold_out(problem, targets, rng, groups=groups, **options)
        seen.append((groups, folds))
        return folds

    monkeypatch.setattr(fixed, "hold_out", watched)
    first = clone(model).fit(X, y, sample_weight=weights, groups=groups)
    ((codes, folds),) = seen
    np.testing.assert_array_equal(np.bincount(codes.astype(int)), 4)
    assert len(folds) == 5
    for train, test in folds:
        assert not set(codes[train]) & set(codes[test])
        assert len(train) + len(test) == 24
    order = np.random.default_rng(2).permutation(24)
    assert_same_fit(first, clone(model).fit(X[order], y[order], sample_weight=weights[order], groups=groups[order]))
    alone = clone(model).fit(X, y, sample_weight=weights)
    assert table_of(alone.validation_scores_) != table_of(first.validation_scores_)


def test_equal_samples_of_two_groups_stay_apart():
    for groups, n_samples in ((None, 12), (np.repeat([0, 1, 2, 3, 4, 5], 4), 24)):
        model = clone(REGRESSOR).fit(np.tile(X[:12], (2, 1)), np.tile(Y[:12], 2), groups=groups)
        n_folds = model.validation_scores_["scores"].shape[1]  # each sample is held out in one of them
        np.testing.assert_allclose(model.validation_scores_["n_train"] * n_folds, n_samples * (n_folds - 1))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.arange(23), r"groups must hold a label for each of the 24 samples, got shape \(23,\)"),
        (np.zeros((24, 1)), r"got shape \(24, 1\)"),
        ("a", r"got shape \(\)"),
        (["a"] * 12 + [1.5] * 11 + [None], "groups must hold labels of one kind"),
    ],
)
@both
def test_bad_groups(model, y, groups, message):
    model = clone(model).set_params(loss=untouched(type(make_loss(model.loss))))
    groups = np.array(groups, dtype=object) if isinstance(groups, list) else groups
    with pytest.raises(ValueError, match=message):
        model.fit(X, y, groups=groups)
    assert not [name for name in vars(model) if name.endswith("_")]


def instance(n, n_columns=2):
    Z = np.random.default_rng(0).standard_normal((n, n_columns))
    return Problem(Z, np.arange(n, dtype=float), weight_decay=1.0)


@pytest.mark.parametrize(("n", "n_columns", "n_folds"), [(30, 2, 5), (2000, 2, 5), (4000, 5, 3), (9000, 9, 1)])
def test_small_data_is_held_out_in_several_folds_and_other_data_once(n, n_columns, n_folds):
    folds = hold_out(instance(n, n_columns), np.zeros((n, 1)), np.random.default_rng(0), stratified=False)
    assert len(folds) == n_folds
    for train, test in folds:
        np.testing.assert_array_equal(np.sort(np.append(train, test)), np.arange(n))
        assert len(test) == pytest.approx(n / (n_folds if n_folds > 1 else 5), abs=1)
    tests = np.concatenate([test for _, test in folds])
    assert len(np.unique(tests)) == len(tests)


def test_classes_are_dealt_out_evenly_and_singletons_are_trained_on():
    y = np.r_[np.zeros(30), np.ones(10), 2, 3][:, None]
    folds = hold_out(instance(42), y, np.random.default_rng(0), stratified=True)
    assert len(folds) == 5
    for train, test in folds:
        assert np.bincount(y[test, 0].astype(int), minlength=4).tolist() == [6, 2, 0, 0]
        assert set(y[train, 0]) == {0, 1, 2, 3}
    model = clone(CLASSIFIER).fit(X, np.where(np.arange(24) == 5, "single", LABELS))
    assert model.classes_.tolist() == ["other", "same", "single"]
    assert "mean_score" in model.validation_scores_


def test_folds_of_many_small_classes_are_of_one_size():
    y = np.repeat(np.arange(10.0), 3)[:, None]
    problem = Problem(np.ones((30, 1)), y, weight_decay=1.0)
    folds = hold_out(problem, y, np.random.default_rng(0), stratified=True)
    assert [len(test) for _, test in folds] == [6] * 5


def test_losses_of_held_out_samples_are_weighted():
    weights, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 5.0])
    problem = Problem(np.ones((4, 1)), y, weight_decay=1.0, sample_weight=weights)
    constant = Neurons(np.zeros((1, 0)), np.zeros((0, 1)), np.array([1.0]))
    losses = HeldOut.of(problem, np.array([1, 3])).losses(constant)
    np.testing.assert_allclose(losses, [2 / 3 * 0.5, 4 / 3 * 8])  # weights 2 and 4 over their mean


def test_groups_that_hold_a_class_alone_are_trained_on():
    y = np.r_[np.zeros(20), np.ones(10), np.full(10, 2.0)][:, None]
    groups = np.r_[np.arange(20) % 5, 10 + np.arange(10) % 5, np.full(10, 20)]
    folds = hold_out(instance(40), y, np.random.default_rng(0), stratified=True, groups=groups)
    assert 0 < len(folds) <= 5
    for train, test in folds:
        assert set(y[train, 0]) == {0, 1, 2}
        assert len(test)


@pytest.mark.parametrize(
    ("model", "data", "y", "groups"),
    [
        (ConvexBNRegressor(), X[:3], Y[:3], None),
        (ConvexBNClassifier(), X[:2], ["a", "b"], None),
        (ConvexBNRegressor(spectral_power=0.0), np.tile(X[:3], (5, 1)), np.tile(Y[:3], 5), None),
        (ConvexBNRegressor(), X[:12], Y[:12], np.zeros(12)),
    ],
    ids=["three samples", "two labels", "three distinct samples", "one group"],
)
def test_where_nothing_can_be_held_out_it_is_a_share_of_the_largest(model, data, y, groups):
    model = clone(model).fit(data, y, groups=groups)
    signs = np.where(np.asarray(y) == "a", -1.0, 1.0) if isinstance(model, ConvexBNClassifier) else y
    Z = BatchNormDesign().fit_transform(data)
    problem = Problem(Z, signs, model.loss, weight_decay=1.0, fit_intercept=True)
    assert model.weight_decay_ == pytest.approx(AUTO_FRACTION * weight_decay_max(problem))
    assert model.spectral_power_ == 0
    assert not hasattr(model, "validation_scores_")


@both
def test_a_weight_decay_that_is_given_is_taken_without_a_search(model, y):
    chosen, sizes = deepcopy(fit_of(type(model))), set()
    loss = watched_loss(type(make_loss(model.loss)), lambda name, y: sizes.add(len(y)))
    given = chosen.set_params(weight_decay=0.03, loss=loss).fit(X, y)
    assert sizes == {24}  # nothing was held out
    assert not hasattr(given, "validation_scores_")
    assert (given.weight_decay_, given.spectral_power_) == (0.03, 0.0)
    with_power = clone(given).set_params(spectral_power=1.0).fit(X, y)
    assert (with_power.weight_decay_, with_power.spectral_power_) == (0.03, 1.0)
    np.testing.assert_array_equal(
        clone(given).fit(X, y, groups=np.arange(24) % 3).network_.predict(X), given.network_.predict(X)
    )


@both
def test_a_spectral_power_that_is_given_is_the_one_candidate(model, y, capsys):
    model = clone(model).set_params(spectral_power=0.5, verbose=True).fit(X, y)
    table = model.validation_scores_
    assert set(table["spectral_power"]) == {0.5}
    assert set(table["n_folds"]) == {5}
    assert model.spectral_power_ == 0.5
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("spectral_power=")]
    assert len(lines) == 1


@both
def test_verbose_prints_a_line_for_each_candidate(model, y, capsys):
    model = clone(model).set_params(verbose=True).fit(X, y)
    printed = capsys.readouterr().out.splitlines()
    lines = [line for line in printed if line.startswith("spectral_power=")]
    pattern = (
        r"spectral_power=(\S+): validation loss (\S+) at weight_decay=\S+ \(\S+ of the largest\), "
        r"([25]) of 5 folds, .* s; best so far (\S+)"
    )
    losses = {"2": [], "5": []}  # by folds: on others the loss is another
    for line in lines:
        _, loss, folds, best = re.fullmatch(pattern, line).groups()
        losses[folds].append(float(loss))
        assert float(best) == min(losses[folds])
    chosen = f"chosen: spectral_power={model.spectral_power_:g}, weight_decay={model.weight_decay_:.3g}; last fit"
    assert printed[-2:] == [chosen, f"last fit: {len(model.network_)} neurons, {model.certificate_._summary()}"]
    powers = {float(line.split(":")[0].partition("=")[2]) for line in lines}
    assert powers == set(model.validation_scores_["spectral_power"])


@pytest.mark.parametrize(
    ("model", "data", "y"),
    [
        (ConvexBNRegressor(tol=1.0), X, np.column_stack([Y, X[:, 1]])),
        (ConvexBNClassifier(tol=1.0), X, np.where(X[:, 0] > 0.8, "third", LABELS)),
        (ConvexBNClassifier(loss="cross_entropy", tol=1.0), X, LABELS),
        (ConvexBNClassifier(loss="hinge", spectral_power=0.0, n_components=1), X[:8], LABELS[:8]),
        (ConvexBNRegressor(normalization="weight", tol=1.0), X, Y),
        (ConvexBNRegressor(activation="gated_relu", spectral_power=0.0, n_components=1), X[4:12], Y[4:12]),
        (ConvexBNConvRegressor(kernel_size=(1, 2), tol=1.0), X[:, None, None], QUIET),
        (ConvexBNConvClassifier(kernel_size=(1, 2), tol=1.0), X[:, None, None], LABELS),
    ],
    ids=["two outputs", "three classes", "cross entropy", "hinge", "weight", "gated", "conv", "conv classifier"],
)
def test_every_kind_of_network_is_tuned(model, data, y):
    model = clone(model).fit(data, y)
    table = model.validation_scores_
    assert model.weight_decay_ in table["weight_decay"]
    assert table["mean_score"].max() > table["mean_score"][table["fraction"] == 1].max()
    assert np.isfinite(model.network_.predict(data)).all()
    if getattr(model, "normalization", "batch") == "weight":
        assert set(table["spectral_power"]) == {0.0}


@pytest.mark.filterwarnings("ignore:The last fit stopped:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("stack", "y"),
    [(ConvexBNStackRegressor(), QUIET), (ConvexBNStackClassifier(), LABELS)],
    ids=["regressor", "classifier"],
)
def test_every_stage_of_a_stack_with_its_defaults_is_tuned(stack, y):
    """Each ends after a limited amount of work, and may say that it is above its `tol`."""
    stack = clone(stack).fit(X, y)
    assert len(stack.estimators_) == 2
    for stage in stack.estimators_:
        assert stage.weight_decay_ in stage.validation_scores_["weight_decay"]
    assert stack.score(X, y) > 0.8


@pytest.fixture
def ticks(monkeypatch):
    """A clock that moves on by a hundredth of a second whenever it is read."""
    numbers = count()
    monkeypatch.setattr("convexbn.solvers._monitor.perf_counter", lambda: next(numbers) / 100)
    return lambda: next(numbers) / 100


@pytest.mark.filterwarnings("ignore:Column generation stopped:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("max_time", [1.0, 10.0])
@both
def test_the_choice_keeps_half_of_the_time(model, y, max_time, ticks, monkeypatch):
    """And the last fit, which may well be above its `tol` then, the rest."""
    ends = []

    def watched(*arguments, **options):
        tuning = tune(*arguments, **options)
        ends.append(ticks())
        return tuning

    monkeypatch.setattr(fixed, "tune", watched)
    model = clone(model).set_params(max_time=max_time, tol=1e-9).fit(X, y)
    assert 0.5 * max_time <= ends[0] < 0.5 * max_time + 0.5
    assert ticks() < max_time + 1.0
    assert np.isfinite(model.network_.predict(X)).all()
    if max_time > 1:
        assert model.weight_decay_ in model.validation_scores_["weight_decay"]
    else:  # too little for a second value of weight decay
        largest = fit_of(type(model)).validation_scores_["weight_decay"].max()
        assert model.weight_decay_ == pytest.approx(AUTO_FRACTION * largest, rel=0.2)
        assert not hasattr(model, "validation_scores_")


def test_solvers_without_a_fast_path_are_told_how_much_time_is_left(monkeypatch):
    limits = []

    def watched(problem, *, max_time, **options):
        limits.append(max_time)
        return solve(problem, max_time=max_time, **options)

    monkeypatch.setattr(base, "solve", watched)
    options = {"activation": "gated_relu", "n_components": 1, "spectral_power": 0.0, "max_time": 1000.0}
    ConvexBNRegressor(**options, solver="CLARABEL").fit(X[4:12], Y[4:12])
    assert len(limits) > 10
    assert 400 < min(limits[:-1]) <= max(limits[:-1]) <= 500
    assert (np.diff(limits[:-1]) <= 0).all()
    assert limits[-1] > 900


def test_gates_of_a_path_are_enumerated_once(monkeypatch):
    numbers, enumerated = [], []

    def watched(*arguments, **options):
        for number, solution in enumerate(gated_path(*arguments, **options)):
            numbers.append(number)
            yield solution

    def counted(problem, *arguments):
        enumerated.append(problem)
        return patterns_of(problem, *arguments)

    monkeypatch.setattr(auto, "gated_path", watched)
    monkeypatch.setattr(auto, "patterns_of", counted)
    ConvexBNRegressor(activation="gated_relu", n_components=1, spectral_power=0.0).fit(X[4:12], Y[4:12])
    assert 1 < len(enumerated) - 1 == numbers.count(0) < len(numbers) / 2  # and once for the last fit


def test_gated_paths_end_where_the_time_does():
    problem = Problem(BatchNormDesign().fit_transform(X), Y, weight_decay=1.0)
    weight_decays = np.array([0.5, 0.1]) * weight_decay_max(problem)
    model = ConvexBNRegressor(activation="gated_relu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        late, whole = (list(model._follow(0, Clock(seconds), problem, weight_decays)) for seconds in (1e-9, None))
    assert [len(neurons) for neurons in late] == [0, 0]
    assert min(map(len, whole)) > 0


class TestInterrupts:
    """Ctrl-C during the choice."""

    @pytest.mark.parametrize("n_jobs", [1, 2])
    @both
    def test_on_a_fast_path(self, model, y, n_jobs):
        values = count()

        def press(name, y):
            if name == "value" and len(y) <= 5 and next(values) == 7:  # of held-out samples
                signal.raise_signal(signal.SIGINT)

        loss = watched_loss(type(make_loss(model.loss)), press)
        model = clone(model).set_params(spectral_power=1.0).fit(X[:, :1], y)
        before = vars(model).copy()
        with pytest.raises(KeyboardInterrupt):
            model.set_params(n_jobs=n_jobs, loss=loss).fit(X, y)
        assert next(values) >= 8
        assert vars(model) == before | {"n_jobs": n_jobs, "loss": loss}

    def test_in_a_solver_that_returns_its_best_so_far(self):
        gradients = count()

        def press(name, y):
            if name == "gradient" and next(gradients) == 20:
                raise KeyboardInterrupt

        loss = watched_loss(SquaredError, press)
        model = ConvexBNRegressor(activation="gated_relu", n_components=1, spectral_power=0.0, loss=loss)
        with pytest.raises(KeyboardInterrupt):
            model.fit(X[:8], Y[:8])
        assert next(gradients) == 21
        assert not [name for name in vars(model) if name.endswith("_")]


@pytest.mark.parametrize("exponent", [-490, -60, 60, 490])  # of two, so that nothing is rounded otherwise
def test_units_of_targets_do_not_matter(exponent):
    unit = 2.0**exponent
    model, scaled = fit_of(ConvexBNRegressor), clone(REGRESSOR).fit(X, unit * Y)
    assert scaled.spectral_power_ == model.spectral_power_
    assert scaled.weight_decay_ == unit * model.weight_decay_
    np.testing.assert_array_equal(scaled.predict(X), unit * model.predict(X))
    for name in ("mean_score", "std_score", "scores"):
        expected, found = model.validation_scores_[name], scaled.validation_scores_[name]
        np.testing.assert_allclose(found / unit / unit, expected, rtol=1e-12)


@pytest.mark.parametrize("unit", [1e-150, 5e149])
def test_targets_of_any_size_are_learnt(unit):
    model = clone(REGRESSOR).fit(X, unit * QUIET)
    assert ((model.predict(X) / unit - QUIET) ** 2).mean() < 0.1 * QUIET.var()


def test_units_of_features_do_not_matter():
    units = 2.0 ** np.array([-20, 20])
    model, scaled = fit_of(ConvexBNRegressor), clone(REGRESSOR).fit(X * units, Y)
    assert table_of(scaled.validation_scores_) == table_of(model.validation_scores_)
    np.testing.assert_array_equal(scaled.predict(X * units), model.predict(X))


def test_constant_targets_have_nothing_to_choose():
    model = clone(REGRESSOR).fit(X, np.full(24, 3.0))
    np.testing.assert_allclose(model.predict(X), 3)
    assert (model.validation_scores_["mean_score"] == 0).all()


def test_less_is_learnt_where_there_is_more_noise():
    data = np.random.default_rng(0).standard_normal((60, 2))
    signal_, noise = np.abs(data[:, 0]), np.random.default_rng(1).standard_normal(60)
    quiet, loud = (
        ConvexBNRegressor(spectral_power=0.0, tol=1.0).fit(data, signal_ + scale * noise) for scale in (0.01, 2.0)
    )
    assert quiet.weight_decay_ / max(quiet.validation_scores_["weight_decay"]) < 0.05
    assert loud.weight_decay_ / max(loud.validation_scores_["weight_decay"]) > 0.05


@pytest.mark.parametrize(("n", "n_classes"), [(6, 2), (7, 3)])
def test_few_samples_of_a_class(n, n_classes):
    # A fold of one sample or two holds out one class only.
    y = np.arange(n) % n_classes
    X = np.random.default_rng(0).standard_normal((n, 2)) + 9 * y[:, None]
    model = ConvexBNClassifier(tol=1, n_components=1).fit(X, y)
    assert "spectral_power" in model.validation_scores_
    assert model.score(X, y) == 1


def test_powers_are_compared_on_every_class():
    rng = np.random.default_rng(0)
    Z, y = rng.standard_normal((12_000, 3)), -np.ones((12_000, 1))
    y[:3] = 1
    problem = Problem(Z, y, "log_loss", weight_decay=1.0, fit_intercept=True)
    folds, trained_on = hold_out(problem, y, rng, stratified=True), []

    def constants(problem, weight_decays):
        trained_on.append(np.unique(problem.y).tolist())
        return (problem.zero_network for _ in weight_decays)

    tune(
        lambda candidate: problem,
        (0.0, 1.0),
        folds,
        constants,
        n_components=None,
        rng=rng,
        n_jobs=None,
        clock=Clock(None),
        report=lambda curve: None,
    )
    assert len(folds) == 1
    assert trained_on == [[-1, 1]] * 3  # two powers on fewer samples, the best on all


def test_fits_of_one_seed_are_equal():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((5, 2))
    y = X[:, 0] + np.abs(X[:, 1])
    first, again = (ConvexBNRegressor(tol=1).fit(X, y) for _ in range(2))
    assert first.weight_decay_ == again.weight_decay_
    np.testing.assert_array_equal(first.predict(X), again.predict(X))


def test_the_choice_does_not_depend_on_the_solver():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 1))
    y = np.abs(X[:, 0]) + 0.1 * rng.standard_normal(20)
    models = [ConvexBNRegressor(solver=solver, tol=1e-3).fit(X, y) for solver in ("column_generation", "CLARABEL")]
    ours, conic = models
    assert (ours.weight_decay_, ours.spectral_power_) == (conic.weight_decay_, conic.spectral_power_)
    assert conic.certificate_.scope == "global"
    assert conic.certificate_.objective == pytest.approx(ours.certificate_.objective, abs=2e-3 * y.var() / 2)


def test_the_closed_form_with_a_weight_decay_that_is_chosen():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 40))
    y = X[:, :10].sum(axis=1)
    model = ConvexBNRegressor(solver="closed_form").fit(X, y)
    assert model.certificate_.scope == "global"
    assert model.spectral_power_ == 0
    assert model.weight_decay_ in model.validation_scores_["weight_decay"]
    with pytest.raises(ValueError, match="less than its 20 samples"):
        ConvexBNRegressor(solver="closed_form").fit(X[:, :2], y)


@pytest.mark.filterwarnings("ignore:Column generation stopped:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("limits", [{}, {"max_iter": 3}, {"max_time": 30.0}, {"prove": True}], ids=str)
def test_limits_that_are_given_take_the_place_of_the_limit_on_the_work_of_the_last_fit(limits, monkeypatch):
    given = []

    def watched(problem, **options):
        given.append(options)
        return solve(problem, **options)

    monkeypatch.setattr(base, "solve", watched)
    ConvexBNRegressor(spectral_power=1.0, tol=0.1, **limits).fit(X, Y)
    if limits:
        assert "options" not in given[-1]
        assert given[-1]["max_iter"] == limits.get("max_iter")
    else:
        assert 1 <= given[-1]["options"].newton_steps < np.inf


def test_a_last_fit_above_tol_says_how_it_goes_on():
    with pytest.warns(
        ConvergenceWarning, match=r"The last fit stopped .* above tol=1.0e-12.* Give max_time or max_iter"
    ):
        ConvexBNRegressor(spectral_power=1.0, tol=1e-12, prove=False).fit(X, QUIET)


@pytest.mark.parametrize(
    "options", [{"loss": "hinge"}, {"loss": "hinge", "activation": "gated_relu"}, {"activation": "gated_relu"}], ids=str
)
def test_without_time_to_compare_it_is_a_share_of_the_largest(options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = ConvexBNClassifier(max_time=1e-6, **options).fit(X, LABELS)
    signs = np.where(LABELS == "same", 1.0, -1.0)
    Z = BatchNormDesign().fit_transform(X)
    problem = Problem(Z, signs, model.loss, weight_decay=1.0, fit_intercept=True)
    assert model.weight_decay_ == pytest.approx(AUTO_FRACTION * weight_decay_max(problem), rel=0.1)
    assert not hasattr(model, "validation_scores_")


@pytest.mark.parametrize(("n_samples", "from_the_choice"), [(100, False), (40_000, True)])
def test_on_large_data_the_last_fit_goes_on_from_the_choice_at_any_weight_decay(n_samples, from_the_choice):
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((n_samples, 3))
    problem = Problem(Z, np.abs(Z[:, 0]), weight_decay=1.0, fit_intercept=True)
    problem = replace(problem, weight_decay=0.1 * weight_decay_max(problem))
    start = Neurons(np.eye(3), np.ones((3, 1)), np.zeros(1))
    options = last_fit(problem, start, 10**6, Clock(None))
    assert ("start" in options) == from_the_choice


@pytest.mark.parametrize(
    ("n_samples", "n_parts", "seconds"),
    [(3, 0, None), (60, 5, None), (60, 0, 60.0), (1_200, 3, None), (4_000, 0, None)],
)
def test_start_after_cross_validation_is_the_mean_of_paths_without_a_part_of_the_samples(n_samples, n_parts, seconds):
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((n_samples, 12))
    problem = Problem(Z, np.abs(Z[:, 0]), weight_decay=1.0, fit_intercept=True)
    weight_decays = weight_decay_max(problem) * np.array([1.0, 0.3, 0.1])
    options = {"stratified": False, "n_jobs": 2, "clock": Clock(seconds)}
    start = average_of_parts(problem, weight_decays, 7, **options)
    parts = hold_out(problem, problem.y, np.random.default_rng(7), stratified=False)[:n_parts]
    assert len(parts) == n_parts
    outputs = []
    for kept, _ in parts or [(np.arange(n_samples), None)]:
        *_, neurons = fast_path(problem.restricted(kept), weight_decays, random_state=7)
        outputs.append(neurons.outputs(problem.Z))
    assert any(np.ptp(output) > 0 for output in outputs)
    np.testing.assert_allclose(start.outputs(problem.Z), np.mean(outputs, axis=0), atol=1e-12)
