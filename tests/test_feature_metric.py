"""The feature metric: designs with one, what a network teaches, and the choice of it."""

from copy import copy

import numpy as np
import pytest
from sklearn.base import clone

from convexbn import (
    BatchNormDesign,
    BatchNormNetwork,
    ConvexBNClassifier,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    Problem,
    convexbn_path,
    enumerate_patterns,
    primal_program,
    prove,
    solve_column_generation,
    solve_program,
)
from convexbn.designs._feature_metric import check_feature_metric
from convexbn.estimators._curve import Candidate, Curve
from convexbn.estimators._feature_metric import learned_metric
from convexbn.model._neurons import Neurons

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 3)) * [1.0, 5.0, 0.2] + [0.0, 10.0, -1.0]
Y = np.abs(X[:, 0]) + 0.1 * RNG.standard_normal(40)
ROOT = RNG.standard_normal((3, 3))
METRIC = ROOT @ ROOT.T
# One feature in twenty matters: the case that a metric is for.
MANY = RNG.standard_normal((2_400, 20))
TARGET = np.sin(3 * MANY[:, 4]) + 0.05 * RNG.standard_normal(2_400)


def neurons_on(design, n_neurons=5, n_outputs=1):
    k = design.transform(X).shape[1]
    return Neurons(
        RNG.standard_normal((k, n_neurons)), RNG.standard_normal((n_neurons, n_outputs)), np.zeros(n_outputs)
    )


class TestDesign:
    @pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
    def test_the_columns_of_the_data_are_multiplied_by_the_basis(self, power):
        plain = BatchNormDesign(spectral_power=power).fit(X)
        design, basis = plain.with_feature_metric(METRIC)
        np.testing.assert_allclose(design.transform(X), plain.transform(X) @ basis, atol=1e-12)
        np.testing.assert_array_equal(design.transform(X)[:, -1], 1)
        fitted = BatchNormDesign(spectral_power=power, feature_metric=METRIC).fit(X)
        np.testing.assert_allclose(fitted.transform(X), design.transform(X), atol=1e-12)
        assert plain.feature_metric is None
        assert plain.metric_basis_ is None

    def test_the_data_vary_by_one_along_their_largest_direction(self):
        for metric in (METRIC, 1e30 * METRIC, np.diag([0.0, 0.0, 1e-12])):
            Z = BatchNormDesign(feature_metric=metric).fit_transform(X)[:, :-1]
            assert np.linalg.norm(Z, 2) / np.sqrt(len(X)) == pytest.approx(1)

    def test_whitened_rows_have_the_metric_as_their_covariance_up_to_the_ridge(self):
        plain = BatchNormDesign().fit(X)
        design, _ = plain.with_feature_metric(METRIC)
        Z = design.transform(X)[:, :-1]
        of_columns = plain.coloring_ @ METRIC @ plain.coloring_.T
        of_columns += 1e-4 * np.trace(of_columns) / 3 * np.eye(3)
        np.testing.assert_allclose(Z.T @ Z / len(X), of_columns / np.linalg.norm(of_columns, 2), atol=1e-10)

    def test_the_spectral_power_counts_in_the_ridge_alone(self):
        even = METRIC + np.diag(1 / X.var(axis=0))  # beside which the ridge is small along all directions
        grams = []
        for power in (0.0, 1.0):
            Z = BatchNormDesign(spectral_power=power, feature_metric=even).fit_transform(X)[:, :-1]
            grams.append(Z @ Z.T)
        np.testing.assert_allclose(grams[0], grams[1], atol=3e-3 * np.abs(grams[0]).max())

    def test_units_of_the_columns_do_not_count(self):
        units = np.array([1e-6, 1.0, 1e4])
        Z = BatchNormDesign(feature_metric=METRIC).fit_transform(X)
        in_units = BatchNormDesign(feature_metric=METRIC / units / units[:, None]).fit_transform(X * units)
        np.testing.assert_allclose(Z @ Z.T, in_units @ in_units.T, atol=1e-6)

    def test_networks_map_to_the_data_and_back(self):
        design = BatchNormDesign(spectral_power=0.5, feature_metric=METRIC).fit(X)
        neurons = neurons_on(design)
        network = BatchNormNetwork.from_neurons(neurons, design)
        np.testing.assert_allclose(network.predict(X), neurons.outputs(design.matrix(X)), atol=1e-10)
        slopes, offsets = design.affine(neurons.weights)
        np.testing.assert_allclose(X @ slopes.T + offsets, design.transform(X) @ neurons.weights, atol=1e-10)
        np.testing.assert_allclose(network.neurons(design).outputs(design.matrix(X)), network.predict(X), atol=1e-10)
        np.testing.assert_allclose(
            network.batch_statistics(X)[1], network.population_statistics()[1], rtol=1e-10
        )  # the layers are batch-normalized on X

    @pytest.mark.parametrize(
        ("metric", "message"),
        [
            (np.ones(3), "of shape"),
            (np.ones((3, 2)), "of shape"),
            (np.triu(np.ones((3, 3))), "not symmetric"),
            (np.zeros((3, 3)), "zero"),
            (np.diag([1.0, np.nan, 1.0]), "not finite"),
            (np.diag([1.0, np.inf, 1.0]), "not finite"),
            (np.diag([1.0, -0.1, 1.0]), "negative"),
            (np.eye(2), "2 rows, but X has 3 features"),
            ("identity", "real numbers"),
        ],
    )
    def test_other_metrics_are_refused(self, metric, message):
        with pytest.raises(ValueError, match=rf"feature_metric.*{message}"):
            BatchNormDesign(feature_metric=metric).fit(X)

    def test_a_fitted_design_refuses_them_too(self):
        with pytest.raises(ValueError, match=r"feature_metric.*negative"):
            BatchNormDesign().fit(X).with_feature_metric(np.diag([1.0, -0.1, 1.0]))

    def test_a_metric_that_is_zero_on_the_data_is_refused(self):
        constant = np.column_stack([X[:, 0], np.ones(40)])
        with pytest.raises(ValueError, match="feature_metric is zero along all directions of X"):
            BatchNormDesign(feature_metric=np.diag([0.0, 1.0])).fit(constant)


class TestGradients:
    @pytest.mark.parametrize("n_outputs", [1, 3])
    def test_average_outer_products_are_those_of_differences(self, n_outputs):
        design = BatchNormDesign(spectral_power=0.5).fit(X)
        neurons, train = neurons_on(design, n_outputs=n_outputs), np.arange(5, 40)
        weights = np.linspace(1, 3, 40)
        Y_all = RNG.standard_normal((40, n_outputs))
        problem = Problem(design.matrix(X), Y_all, weight_decay=1.0, sample_weight=weights)
        curve = Curve(Candidate(0.5), problem, 1.0, np.ones(1), [(train, np.arange(5))])
        curve.add([0], [[(neurons, np.ones(5))]])
        expected, h = np.zeros((3, 3)), 1e-6
        for i in train:
            ends = X[i] + h * np.vstack([np.eye(3), -np.eye(3)])
            f = neurons.outputs(design.matrix(ends))
            slopes = (f[:3] - f[3:]) / (2 * h)  # features x outputs
            expected += weights[i] * slopes @ slopes.T
        found = learned_metric(curve, design)
        np.testing.assert_allclose(found / np.trace(found), expected / np.trace(expected), atol=1e-4)

    @pytest.mark.parametrize("seed", range(5))
    def test_rounding_makes_no_eigenvalue_negative(self, seed):
        """Few neurons teach a metric of low rank, and columns that are nearly collinear enlarge its rounding."""
        rng = np.random.default_rng(seed)
        features = rng.standard_normal((300, 20))
        features[:, 10:] = features[:, :10] + 1e-3 * features[:, 10:]
        design = BatchNormDesign().fit(features)
        problem = Problem(design.matrix(features), features[:, 0], weight_decay=1.0)
        curve = Curve(Candidate(0.0), problem, 1.0, np.ones(1), [(np.arange(50, 300), np.arange(50))])
        neurons = Neurons(rng.standard_normal((21, 2)), rng.standard_normal((2, 1)), np.zeros(1))
        curve.add([0], [[(neurons, np.ones(50))]])
        metric = learned_metric(curve, design)
        check_feature_metric(metric)
        assert np.linalg.eigvalsh(metric)[0] >= -1e-13 * np.abs(metric).max()

    def test_constants_and_wide_data_teach_nothing(self, monkeypatch):
        design = BatchNormDesign().fit(X)
        problem = Problem(design.matrix(X), Y, weight_decay=1.0)
        curve = Curve(Candidate(0.0), problem, 1.0, np.ones(1), [(np.arange(5, 40), np.arange(5))])
        curve.add([0], [[(problem.zero_network, np.ones(5))]])
        assert learned_metric(curve, design) is None
        curve.add([0], [[(neurons_on(design), np.ones(5))]])
        assert learned_metric(curve, design) is not None
        monkeypatch.setattr("convexbn.estimators._feature_metric._MOST_FEATURES", 2)
        assert learned_metric(curve, design) is None


class TestGiven:
    def test_the_network_is_the_optimum_of_the_program(self):
        """The solver beside cvxpy, on the design matrix with the metric; the estimator is the solver."""
        few, of_few = X[:12], Y[:12]
        design = BatchNormDesign(n_components=2, feature_metric=METRIC).fit(few)
        Z = design.transform(few)
        problem = Problem(Z, of_few, weight_decay=0.05, fit_intercept=True)
        best = solve_program(primal_program(problem, enumerate_patterns(problem.Z)))
        assert solve_column_generation(problem, tol=1e-8, random_state=0).certificate.objective == pytest.approx(best)
        model = ConvexBNRegressor(0.05, n_components=2, feature_metric=METRIC, tol=1e-8).fit(few, of_few)
        assert model.certificate_.objective == pytest.approx(best)
        np.testing.assert_array_equal(model.feature_metric_, METRIC)
        np.testing.assert_array_equal(
            model.set_params(feature_metric=METRIC.tolist()).fit(few, of_few).feature_metric_, METRIC
        )

    def test_the_objective_from_the_weights_of_the_network(self):
        """The loss, and the penalty of the docstring: gamma q over the roots of weights and metric."""
        model = ConvexBNRegressor(0.05, spectral_power=0.5, feature_metric=METRIC, tol=1e-6).fit(X, Y)
        design = BatchNormDesign(spectral_power=0.5, feature_metric=METRIC).fit(X)
        network, root = model.network_, design.spectral_weights_[:, None] * design.metric_basis_
        U = design.transform(X)[:, :-1] @ np.linalg.inv(root) / np.sqrt(len(X))
        np.testing.assert_allclose(U.T @ U, np.eye(3), atol=1e-9)
        inputs = X @ network.weights.T
        q = U.T @ ((inputs - inputs.mean(axis=0)) / inputs.std(axis=0)) / np.sqrt(len(X))
        np.testing.assert_allclose(np.linalg.norm(q, axis=0), 1)
        lengths = np.linalg.norm(np.linalg.solve(root, network.gamma * q), axis=0)
        penalty = np.sum(lengths**2 + network.bias**2 + np.sum(network.output_weights**2, axis=1)) / 2
        loss = np.mean((model.predict(X) - Y) ** 2) / 2
        assert loss + 0.05 * penalty == pytest.approx(model.certificate_.objective, rel=1e-9)

    def test_the_certificate_names_the_penalty(self):
        model = ConvexBNRegressor(0.05, spectral_power=1.0, feature_metric=METRIC, tol=1e-2)
        assert "with the penalty of spectral_power=1 of the standardized columns and of a feature metric, not" in (
            model.fit(X, Y).certificate_.basis
        )
        model.set_params(spectral_power=0.0)
        assert "with the penalty of a feature metric, not plain weight decay" in model.fit(X, Y).certificate_.basis

    @pytest.mark.parametrize("activation", ["relu", "gated_relu"])
    def test_the_identity_of_whitened_data_changes_nothing(self, activation):
        model = ConvexBNRegressor(0.05, activation=activation, tol=1e-6)
        whitening = BatchNormDesign().fit(X).whitening_
        measured = clone(model).set_params(feature_metric=whitening @ whitening.T).fit(X, Y)
        np.testing.assert_allclose(measured.predict(X), model.fit(X, Y).predict(X), atol=1e-3)

    def test_files_hold_it(self, tmp_path):
        model = ConvexBNRegressor(0.05, feature_metric=METRIC, tol=1e-2).fit(X, Y)
        model.save(tmp_path / "model.npz")
        loaded = ConvexBNRegressor.load(tmp_path / "model.npz")
        np.testing.assert_array_equal(loaded.feature_metric, METRIC)
        np.testing.assert_array_equal(loaded.feature_metric_, METRIC)
        np.testing.assert_array_equal(loaded.predict(X), model.predict(X))

    @pytest.mark.parametrize("metric", ["learn", 1.0, np.ones((3, 2)), True])
    def test_other_values_are_refused_before_any_work(self, metric):
        with pytest.raises(ValueError, match="feature_metric"):
            ConvexBNRegressor(feature_metric=metric).fit(X, Y)

    @pytest.mark.parametrize("normalization", ["weight", "batch_after_relu"])
    def test_other_normalizations_refuse_it(self, normalization):
        model = ConvexBNRegressor(normalization=normalization, feature_metric=METRIC)
        with pytest.raises(ValueError, match="feature_metric is for normalization='batch'"):
            model.fit(X, Y)
        model.set_params(feature_metric=None, weight_decay=0.1, tol=1e-1).fit(X, Y)
        assert model.feature_metric_ is None


@pytest.fixture(scope="module")
def chosen():
    """A fit that learned a metric, and one that may not."""
    models = ConvexBNRegressor(tol=1.0), ConvexBNRegressor(tol=1.0, feature_metric=None)
    return [model.fit(MANY[:2_000], TARGET[:2_000]) for model in models]


class TestLearned:
    def test_the_feature_that_matters_is_found(self, chosen):
        with_it, without = chosen
        importance = np.diagonal(with_it.feature_metric_)
        assert importance.argmax() == 4
        assert importance[4] > 20 * np.delete(importance, 4).max()
        errors = [np.mean((model.predict(MANY[2_000:]) - TARGET[2_000:]) ** 2) for model in chosen]
        assert errors[0] < 0.5 * errors[1]
        assert without.feature_metric_ is None

    def test_the_table_has_both_paths(self, chosen):
        table = chosen[0].validation_scores_
        on_all = table["n_train"] == 1_600
        of_metric, plain = table["feature_metric"] & on_all, ~table["feature_metric"] & on_all
        assert table["mean_score"][of_metric].max() > table["mean_score"][plain].max()
        assert chosen[0].weight_decay_ in table["weight_decay"][of_metric]
        # Its path begins six decades above the best value without it, the largest within one percent.
        losses, fractions = -table["mean_score"][plain], table["fraction"][plain]
        best = fractions[losses <= 1.01 * losses.min()].max()
        assert table["fraction"][of_metric].max() == pytest.approx(min(1.0, 1e6 * best))
        assert not chosen[1].validation_scores_["feature_metric"].any()

    def test_a_fit_with_what_was_chosen_is_of_the_same_problem(self, chosen):
        model, _ = chosen
        start = ConvexBNRegressor(
            model.weight_decay_,
            spectral_power=model.spectral_power_,
            feature_metric=model.feature_metric_,
            tol=1.0,
            max_iter=1,
        )
        again = start.fit(MANY[:2_000], TARGET[:2_000])
        design = BatchNormDesign(spectral_power=model.spectral_power_, feature_metric=model.feature_metric_)
        design.fit(MANY[:2_000])
        problem = Problem(
            design.matrix(MANY[:2_000]), TARGET[:2_000], weight_decay=model.weight_decay_, fit_intercept=True
        )
        for one in (model, again):
            objective = problem.objective(one.network_.neurons(design))
            assert objective == pytest.approx(one.certificate_.objective, rel=1e-6)

    def test_the_same_fit_twice_and_a_classifier_of_three_classes(self, chosen):
        labels = np.digitize(TARGET, [-0.5, 0.5])
        model = ConvexBNClassifier(tol=1.0).fit(MANY[:2_000], labels[:2_000])
        again = clone(model).fit(MANY[:2_000], labels[:2_000])
        np.testing.assert_array_equal(again.feature_metric_, model.feature_metric_)
        np.testing.assert_array_equal(again.predict_proba(MANY), model.predict_proba(MANY))
        assert np.diagonal(model.feature_metric_).argmax() == 4
        assert model.score(MANY[2_000:], labels[2_000:]) > 0.8

    @pytest.mark.parametrize("size", [1e-30, 1e150])
    def test_the_size_of_targets_does_not_count(self, chosen, size):
        metric = ConvexBNRegressor(tol=1.0).fit(MANY[:2_000], size * TARGET[:2_000]).feature_metric_
        assert np.isfinite(metric).all()
        assert np.diagonal(metric).argmax() == 4

    def test_small_data_and_values_that_are_given_learn_none(self):
        assert ConvexBNRegressor(tol=1.0).fit(MANY[:200], TARGET[:200]).feature_metric_ is None
        given = ConvexBNRegressor(spectral_power=1.0, tol=1.0).fit(MANY[:1_600], TARGET[:1_600])
        assert given.feature_metric_ is None
        assert ConvexBNRegressor(0.1, tol=1e-1).fit(MANY, TARGET).feature_metric_ is None
        assert "feature_metric" not in ConvexBNConvRegressor().get_params()

    def test_proofs_and_paths_are_of_the_problem_with_it(self, chosen):
        model, _ = chosen
        certificate = prove(copy(model), MANY[:2_000], TARGET[:2_000], max_time=1)
        assert certificate.objective == pytest.approx(model.certificate_.objective)
        path = convexbn_path(
            *(MANY[:2_000], TARGET[:2_000]),
            spectral_power=model.spectral_power_,
            feature_metric=model.feature_metric_,
            n_weight_decays=2,
            eps=0.5,
            tol=1e-3,
        )
        assert "of a feature metric" in path.certificates[1].basis
        pytest.importorskip("matplotlib")
        from convexbn.plotting import PathDisplay

        model = copy(model).set_params(tol=1e-3)
        display = PathDisplay.from_estimator(model, MANY[:2_000], TARGET[:2_000], n_weight_decays=2, eps=0.5)
        np.testing.assert_allclose(display.path.objectives, path.objectives)

    def test_the_picture_has_a_curve_for_it(self, chosen):
        pytest.importorskip("matplotlib")
        from convexbn.plotting import ValidationDisplay

        display = ValidationDisplay.from_estimator(chosen[0])
        labels = [line.get_label() for line in display.lines_]
        assert sum("feature metric" in label for label in labels) == 1
        assert display.chosen_.get_xdata()[0] == chosen[0].weight_decay_
