import json
import sys

import numpy as np
import pytest
import torch

from benchmarks import identity_mapping as benchmark
from convexbn.gradient import DivergenceError, Trace
from convexbn.gradient.identity_mapping import (
    draw_weights,
    find_phases,
    one_point_convexity,
    population_gradient,
    population_loss,
    potential,
    train_identity_mapping,
)


def pair(d, spectral_norm=0.5, n_runs=None, seed=0):
    rng = np.random.default_rng(seed)
    return [draw_weights(d, spectral_norm, n_runs=n_runs, random_state=rng) for _ in range(2)]


def orthogonal(d, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


def outputs(X, columns):
    return np.maximum(X @ columns, 0).sum(axis=1)


def loss_in_torch(A, B):
    """Sum of kernels E[relu(a·x) relu(b·x)]; those of a neuron with itself, |a|²/2, have no angle to differentiate."""

    def inner(A, B, same):
        lengths = torch.outer(A.norm(dim=0), B.norm(dim=0))
        cosine = A.T @ B / lengths
        own = torch.eye(len(A), dtype=torch.bool) & same
        angle = torch.arccos(torch.where(own, 0.5, cosine))
        kernels = lengths * (angle.sin() + (torch.pi - angle) * torch.where(own, 0.5, cosine)) / (2 * torch.pi)
        return torch.where(own, lengths / 2, kernels).sum()

    same = torch.tensor(True)
    return inner(A, A, same) - 2 * inner(A, B, ~same) + inner(B, B, same)


@pytest.mark.parametrize("identity", [True, False])
class TestClosedForms:
    def test_loss_and_gradient_are_expectations(self, identity):
        W, W_star = pair(4, 0.8)
        X = np.random.default_rng(1).standard_normal((400_000, 4))
        A, B = W + identity * np.eye(4), W_star + np.eye(4)
        residuals = outputs(X, A) - outputs(X, B)
        loss = population_loss(W, W_star, identity=identity)
        assert abs(np.mean(residuals**2) - loss) < 4 * np.std(residuals**2) / np.sqrt(len(X))
        samples = 2 * residuals[:, None, None] * X[:, :, None] * (X @ A > 0)[:, None, :]
        deviations = samples.mean(axis=0) - population_gradient(W, W_star, identity=identity)
        assert (abs(deviations) < 4 * samples.std(axis=0) / np.sqrt(len(X))).all()
        g = potential(W, W_star, identity=identity)
        assert abs(residuals.mean() + g / np.sqrt(2 * np.pi)) < 4 * residuals.std() / np.sqrt(len(X))

    def test_gradient_is_that_of_autograd(self, identity):
        W, W_star = pair(6, 0.9)
        variable = torch.tensor(W, requires_grad=True)
        eye = torch.eye(6, dtype=torch.float64)
        loss = loss_in_torch(variable + identity * eye, torch.tensor(W_star) + eye)
        loss.backward()
        assert population_loss(W, W_star, identity=identity) == pytest.approx(loss.item(), rel=1e-12)
        gradient = population_gradient(W, W_star, identity=identity)
        np.testing.assert_allclose(gradient, variable.grad.numpy(), rtol=0, atol=1e-12)

    def test_gradient_is_that_of_finite_differences(self, identity):
        W, W_star = pair(3, 0.9)
        steps = 1e-6 * np.eye(9).reshape(9, 3, 3)
        losses = [population_loss(W + sign * steps, W_star, identity=identity) for sign in (1, -1)]
        differences = ((losses[0] - losses[1]) / 2e-6).reshape(3, 3)
        gradient = population_gradient(W, W_star, identity=identity)
        np.testing.assert_allclose(gradient, differences, rtol=0, atol=1e-8)

    def test_runs_are_independent(self, identity):
        W, W_star = pair(5, n_runs=3)
        for function in (population_loss, population_gradient, potential):
            together = function(W, W_star, identity=identity)
            alone = [function(*weights, identity=identity) for weights in zip(W, W_star, strict=True)]
            np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-14)


def test_at_the_teacher():
    W_star = pair(5)[1]
    assert population_loss(W_star, W_star) == pytest.approx(0, abs=1e-13)
    np.testing.assert_allclose(population_gradient(W_star, W_star), 0, atol=1e-13)
    assert potential(W_star, W_star) == 0
    assert one_point_convexity(W_star, W_star) == np.inf


def test_a_teacher_may_have_a_neuron_of_zero():
    W_star = np.diag([-1.0, 0.0])
    assert population_loss(W_star, W_star) == pytest.approx(0, abs=1e-15)
    np.testing.assert_allclose(population_gradient(np.zeros((2, 2)), W_star)[:, 1], [0.5, 1 / np.pi], atol=1e-15)


def test_one_point_convexity_is_the_slope_of_the_squared_distance():
    W, W_star = pair(4)
    moved = W - 1e-7 * population_gradient(W, W_star)
    squares = [np.sum((weights - W_star) ** 2) for weights in (W, moved)]
    slope = (squares[0] - squares[1]) / (2 * 1e-7 * squares[0])
    assert one_point_convexity(W, W_star) == pytest.approx(slope, rel=1e-5)


class TestTraining:
    @pytest.mark.parametrize("d", [10, 40])
    def test_gradient_descent_finds_the_teacher(self, d):
        start, W_star = pair(d, n_runs=20 if d == 10 else 3)
        W, trace = train_identity_mapping(start, W_star, n_steps=100 * d, tol=1e-3, note_every=50)
        assert (np.linalg.norm(W - W_star, axis=(1, 2)) <= 1e-3).all()
        assert (np.diff(trace["loss"], axis=0) <= 0).all()
        assert (trace["distance"][-1] <= 1e-3).all()
        np.testing.assert_allclose(trace.objective, trace["loss"].mean(axis=1))

    def test_so_does_sgd(self):
        start, W_star = pair(10, n_runs=10)
        W, _ = train_identity_mapping(start, W_star, batch_size=10, tol=1e-6, random_state=0)
        assert (np.linalg.norm(W - W_star, axis=(1, 2)) <= 1e-6).all()
        again, _ = train_identity_mapping(start, W_star, batch_size=10, tol=1e-6, random_state=0)
        assert (again == W).all()

    @pytest.mark.parametrize("identity", [True, False])
    def test_a_step_of_sgd_follows_the_population_gradient(self, identity):
        start, W_star = pair(4)
        W, _ = train_identity_mapping(
            start, W_star, identity=identity, batch_size=400_000, learning_rate=1.0, n_steps=1, random_state=0
        )
        np.testing.assert_allclose(start - W, population_gradient(start, W_star, identity=identity), atol=0.02)

    def test_rate_is_that_of_the_curvature_at_the_teacher(self):
        start, W_star = pair(4)
        steps = 1e-5 * np.eye(16).reshape(16, 4, 4)
        gradients = population_gradient(W_star + steps, W_star) - population_gradient(W_star - steps, W_star)
        curvature = np.linalg.eigvalsh(gradients.reshape(16, 16) / 2e-5)
        _, trace = train_identity_mapping(start, W_star, learning_rate=0.5 / curvature[-1], n_steps=2000)
        phases = find_phases(trace)
        assert curvature[0] > 0
        assert phases.one_point_convexity == pytest.approx(curvature[0], rel=0.01)
        assert np.log(phases.rate) == pytest.approx(np.log1p(-0.5 * curvature[0] / curvature[-1]), rel=0.01)

    def test_without_identity_mapping_the_same_start_fails(self):
        start, W_star = pair(30, n_runs=5)
        fits = {}
        for identity in (True, False):
            _, trace = train_identity_mapping(
                start, W_star, identity=identity, n_steps=2000, tol=1e-2, note_every=100, random_state=0
            )
            fits[identity] = trace["loss"][-1], trace["distance"][-1]
        assert (fits[True][1] <= 1e-2).all()
        assert (fits[False][0] > 0.1).all()
        assert (fits[False][1] > 1).all()

    def test_without_identity_mapping_neurons_have_no_order(self):
        W_star, noise = pair(5)
        start = (np.eye(5) + W_star)[:, [3, 0, 4, 1, 2]] + 0.1 * noise
        W, trace = train_identity_mapping(start, W_star, identity=False)
        assert trace["distance"][0] == pytest.approx(0.1 * np.linalg.norm(noise))
        assert trace["distance"][-1] <= 1e-6
        np.testing.assert_allclose(W, (np.eye(5) + W_star)[:, [3, 0, 4, 1, 2]], atol=1e-6)

    def test_a_wider_student_of_copies_stays_at_the_function_of_its_teacher(self):
        W_star = pair(4, 0.8)[1]
        columns = np.eye(4) + W_star
        start = np.concatenate([0.3 * columns, 0.7 * columns], axis=1)
        np.testing.assert_allclose(population_loss(start, W_star, identity=False), 0, atol=1e-14)
        np.testing.assert_allclose(population_gradient(start, W_star, identity=False), 0, atol=1e-14)
        W, trace = train_identity_mapping(start, W_star, identity=False, n_steps=5, tol=1e-6)
        assert W.shape == (4, 8)
        assert trace.steps.tolist() == [0]
        assert set(trace.watched) == {"loss", "distance", "potential"}
        assert trace["potential"][0] == pytest.approx(0, abs=1e-12)
        with pytest.raises(ValueError, match="trace must be one of train_identity_mapping"):
            find_phases(trace)

    @pytest.mark.parametrize("m", [3, 10])
    def test_students_of_any_number_of_neurons(self, m):
        W_star, _ = pair(5, n_runs=2)
        start = 0.2 * np.random.default_rng(1).standard_normal((2, 5, m))
        steps = 1e-6 * np.eye(5 * m).reshape(5 * m, 5, m)
        losses = [population_loss(start[0] + sign * steps, W_star[0], identity=False) for sign in (1, -1)]
        gradient = population_gradient(start, W_star, identity=False)
        assert gradient.shape == start.shape
        differences = ((losses[0] - losses[1]) / 2e-6).reshape(5, m)
        np.testing.assert_allclose(gradient[0], differences, rtol=0, atol=1e-8)
        for batch_size in (None, 100_000):
            W, trace = train_identity_mapping(
                start, W_star, identity=False, batch_size=batch_size, learning_rate=0.1, n_steps=1, random_state=0
            )
            np.testing.assert_allclose(start - W, 0.1 * gradient, atol=1e-12 if batch_size is None else 0.01)
            np.testing.assert_allclose(trace["distance"] ** 2, trace["loss"], rtol=1e-12)
        for batch_size in (None, 5):  # the default step is stable; three neurons cannot do what five do
            fit, trace = train_identity_mapping(start, W_star, identity=False, batch_size=batch_size, random_state=0)
            assert (trace["loss"][-1] < 0.2 * trace["loss"][0]).all()
            assert fit.shape == start.shape

    def test_a_run_that_has_arrived_waits(self):
        start, W_star = pair(5, n_runs=2)
        start[0] = W_star[0]
        W, trace = train_identity_mapping(start, W_star, n_steps=50, note_every=20)
        np.testing.assert_allclose(W[0], W_star[0], rtol=0, atol=1e-15)
        assert (trace["distance"][:, 0] == 0).all()
        assert (W[1] != start[1]).all()
        assert trace.steps.tolist() == [0, 20, 40, 50]

    @pytest.mark.parametrize("options", [{}, {"batch_size": 20}, {"identity": False}])
    def test_divergence(self, options):
        start, W_star = pair(10)
        with pytest.raises(DivergenceError, match="smaller steps") as raised:
            train_identity_mapping(start, W_star, learning_rate=5.0, note_every=100, random_state=0, **options)
        assert len(raised.value.trace["distance"]) >= 2


@pytest.fixture(scope="module")
def trace():
    """A run with a long first phase."""
    start, W_star = draw_weights(60, 0.2, random_state=1), 0.9 * orthogonal(60)
    return train_identity_mapping(start, W_star, learning_rate=0.5 / 60, n_steps=2000, note_every=2)[1]


class TestPhases:
    def test_in_phase_one_the_distance_rises_and_the_potential_falls(self, trace):
        phases = find_phases(trace)
        first = np.flatnonzero(trace.steps == phases.step)[0]
        assert phases.rise > 1.015
        assert phases.rise == pytest.approx(trace["distance"][: first + 1].max() / trace["distance"][0])
        assert (np.diff(trace["potential"][: first + 1]) < 0).all()
        assert 0 < phases.potential < 0.2
        assert trace["one_point_convexity"][first - 1] < 0

    def test_in_phase_two_the_distance_falls_geometrically(self, trace):
        phases = find_phases(trace)
        second = trace.steps >= phases.step
        assert (np.diff(trace["distance"][second]) < 0).all()
        assert phases.one_point_convexity > 0.03
        late = trace.steps >= 1000
        straight = np.polyfit(trace.steps[late], np.log(trace["distance"][late]), 1)
        residuals = np.log(trace["distance"][late]) - np.polyval(straight, trace.steps[late])
        assert abs(residuals).max() < 0.1
        step = 0.5 / 60
        assert 1 - phases.rate == pytest.approx(step * trace["one_point_convexity"][late].mean(), rel=0.1)

    def test_one_run_of_several(self):
        start, W_star = pair(6, n_runs=2)
        _, together = train_identity_mapping(start, W_star, tol=1e-4)
        for run in range(2):
            _, alone = train_identity_mapping(start[run], W_star[run], tol=1e-4)
            ours, theirs = find_phases(together, run), find_phases(alone)
            assert ours.step == theirs.step
            assert ours.rate == pytest.approx(theirs.rate, rel=1e-9)
            assert ours.one_point_convexity == pytest.approx(theirs.one_point_convexity, rel=1e-9)

    def test_no_second_phase(self):
        phases = find_phases(self.made([1.0, 1.1, 1.2], [0.5, 0.5, -0.1]))
        assert phases.step is None
        assert phases.rise == 1.2
        assert np.isnan([phases.potential, phases.one_point_convexity, phases.rate]).all()

    def test_too_short_for_a_rate(self):
        assert np.isnan(find_phases(self.made([1.0, 0.9, 0.8], [0.5, 0.5, 0.5])).rate)
        single = find_phases(self.made([1.0], [0.5]))
        assert (single.step, single.potential) == (0, 0.0)

    def test_trained_from_the_teacher_itself(self):
        W_star = pair(3)[1]
        phases = find_phases(train_identity_mapping(W_star, W_star)[1])
        assert (phases.step, phases.rise, phases.potential) == (0, 1.0, 0.0)

    def made(self, distance, constants):
        watched = {
            "distance": np.array(distance),
            "potential": np.zeros(len(distance)),
            "one_point_convexity": np.array(constants),
        }
        return Trace(np.arange(len(distance)), np.zeros(len(distance)), np.zeros(len(distance)), watched)


class TestBenchmark:
    def test_quick_run_writes_results_and_picture(self, tmp_path, monkeypatch, pictures):
        monkeypatch.setattr(sys, "argv", ["identity_mapping", "--quick", "--output", str(tmp_path)])
        benchmark.main()
        results = json.loads((tmp_path / "identity_mapping.json").read_text())
        assert results["quick"] is True
        for entry in results["success"]:
            wide = entry["method"] in (benchmark.WIDE, benchmark.WIDE_SGD)
            assert (entry["n_runs"], len(entry["rate"])) == (5, 0 if wide else 5)
            assert entry["n_found"] == sum(steps is not None for steps in entry["steps"])
            assert entry["n_found"] == 5 or entry["method"] not in (benchmark.IDENTITY, benchmark.SGD)
        assert np.shape(results["map"]["weights_found"]) == (2, 2)
        assert results["targets"] == benchmark.targets(results)
        success, norms, starts, phases, _ = pictures["identity_mapping.png"].axes
        over = results["over_norms"]
        assert list(over["n_found"]) == [benchmark.SGD, benchmark.PLAIN_SGD, benchmark.WIDE_SGD]
        for line, (method, found) in zip(norms.lines, over["n_found"].items(), strict=True):
            assert (line.get_label(), list(line.get_xdata())) == (method, over["norms"])
            np.testing.assert_allclose(line.get_ydata(), 50 * np.array(found))
        for line, method in zip(success.lines, benchmark.METHODS, strict=True):
            entries = [entry for entry in results["success"] if entry["method"] == method]
            assert line.get_label() == method
            assert line.get_xdata().tolist() == [entry["d"] for entry in entries]
            np.testing.assert_allclose(line.get_ydata(), [20 * entry["n_found"] for entry in entries])
        shares = 100 * np.array(results["map"]["weights_found"])
        np.testing.assert_allclose(starts.images[0].get_array(), shares)
        assert [text.get_text() for text in starts.texts] == [f"{share:.0f}" for share in shares.ravel()]
        assert len(phases.lines) == len(results["first_phase"]) + 1
        for line, entry in zip(phases.lines, results["first_phase"], strict=False):
            assert line.get_label() == f"d = {entry['d']}"
            np.testing.assert_allclose(line.get_ydata(), entry["distance"], rtol=1e-6)

    def canned(self, n_found=(20, 20, 3), wide=(19, 19), rate=0.9, sgd_rate=0.9, rise=1.1):
        """Rates of 0.9 are 1.9 times what a constant of 0.5 and steps of 0.2 promise."""
        measured = {"d": 10, "n_runs": 20, "learning_rate": 0.2, "one_point_convexity": [0.5, 0.5]}
        founds, rates = (*n_found, 4, *wide), (rate, sgd_rate, None, None, None, None)
        success = [
            {"method": method, "n_found": found, "rate": [0.9, late]} | measured
            for method, found, late in zip(benchmark.METHODS, founds, rates, strict=True)
        ]
        by_kind = {method: [2, 1] for method in (benchmark.SGD, benchmark.PLAIN_SGD, benchmark.WIDE_SGD)}
        return {
            "success": success,
            "over_norms": {"d": 10, "n_runs": 2, "norms": [0.5, 3.0], "n_found": by_kind},
            "first_phase": [{"d": 100, "n_runs": 3, "rises": [1.3, rise, 1.2]}],
        }

    @pytest.mark.parametrize(
        ("changes", "unmet"),
        [
            ({}, ()),
            ({"n_found": (19, 20, 3)}, (0, 8)),
            ({"n_found": (20, 0, 3)}, (1, 7)),
            ({"rate": 0.96}, (4,)),
            ({"rate": None}, (4,)),
            ({"sgd_rate": 0.96}, ()),
            ({"rise": 1.0}, (6,)),
            ({"wide": (19, 20)}, (7,)),
            ({"wide": (20, 19)}, (8,)),
        ],
    )
    def test_statements_of_the_summary(self, changes, unmet):
        rows = benchmark.targets(self.canned(**changes))
        without_verdict = (2, 3, 5, 9)
        met = [None if row in without_verdict else row not in unmet for row in range(10)]
        assert [row["met"] for row in rows] == met
        assert rows[2]["figure"] == "3 of 20 at d = 10 find it"
        assert rows[6]["figure"].startswith("by 20.0 % at d = 100")
        assert rows[9]["figure"].startswith("with identity mapping 2, 1 of 2; without 2, 1 of 2")

    def test_positive_constants_promise_nothing_where_steps_are_too_long(self):
        start, W_star = pair(4)
        ratios = []
        for learning_rate in (0.25, 0.7):
            _, trace = train_identity_mapping(
                start, W_star, learning_rate=learning_rate, tol=1e-3, n_steps=500, note_every=1
            )
            phases = find_phases(trace)
            assert phases.one_point_convexity > 0
            ratios.append(benchmark.shrinkage({"learning_rate": learning_rate} | vars(phases)))
        assert ratios[1] < 0.01 < 1 < ratios[0]


class TestErrors:
    good = np.zeros((3, 3))

    @pytest.mark.parametrize("function", [population_loss, population_gradient, potential, one_point_convexity])
    @pytest.mark.parametrize(
        ("W", "W_star", "message"),
        [
            (np.zeros(3), good, r"W must have shape \(d, d\).*got \(3,\)"),
            (good, np.zeros((3, 2)), r"W_star must have shape \(d, d\).*got \(3, 2\)"),
            (np.zeros((0, 0)), good, "W must have shape"),
            (good, np.zeros((4, 4)), "W has d = 3, W_star d = 4"),
            (np.zeros((2, 3, 3)), np.zeros((5, 3, 3)), r"W has runs \(2,\), W_star \(5,\)"),
            (good * np.nan, good, "W has entries that are not finite"),
        ],
    )
    def test_weights(self, function, W, W_star, message):
        with pytest.raises(ValueError, match=message):
            function(W, W_star)

    def test_no_gradient_at_a_neuron_of_zero(self):
        W = np.diag([0.0, -1.0, 0.0])
        for function in (population_gradient, one_point_convexity, train_identity_mapping):
            with pytest.raises(ValueError, match=r"e_j \+ w_j is zero for j = 1"):
                function(W, self.good)
        with pytest.raises(ValueError, match=r"^w_j is zero for j = 0"):
            train_identity_mapping(self.good, self.good, identity=False)
        assert population_loss(W, self.good) == pytest.approx(0.5)

    def test_only_students_without_identity_may_have_another_number_of_neurons(self):
        wide = np.ones((3, 6))
        with pytest.raises(ValueError, match=r"start must have shape \(d, d\).*got \(3, 6\)"):
            train_identity_mapping(wide, self.good)
        for W, W_star, message in (
            (np.ones(3), self.good, r"start must have shape \(d, m\).*got \(3,\)"),
            (np.ones((3, 0)), self.good, r"start must have shape \(d, m\).*got \(3, 0\)"),
            (wide.T, self.good, "start has d = 6, W_star d = 3"),
            (wide, wide, r"W_star must have shape \(d, d\).*got \(3, 6\)"),
        ):
            with pytest.raises(ValueError, match=message):
                train_identity_mapping(W, W_star, identity=False)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"learning_rate": 0.0}, "learning_rate=0.0 must be a positive finite number"),
            ({"learning_rate": np.nan}, "learning_rate=nan"),
            ({"batch_size": 0}, "batch_size=0 must be an integer from 1 on or None"),
            ({"n_steps": 0}, "n_steps=0"),
            ({"note_every": -1}, "note_every=-1"),
            ({"tol": -1.0}, "tol=-1.0"),
            ({"learning_rate": "auto"}, "learning_rate='auto' must be a positive finite number or None"),
            ({"batch_size": 2.5}, "batch_size=2.5 must be an integer"),
            ({"n_steps": 10.0}, "n_steps=10.0 must be an integer"),
            ({"note_every": "2"}, "note_every='2' must be an integer"),
            ({"tol": None}, "tol=None must be a finite number"),
            ({"W_star": np.zeros((2, 2, 3, 3))}, "at most one axis of runs"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            train_identity_mapping(self.good, **({"W_star": self.good} | options))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((3, -1.0), "spectral_norm=-1.0"),
            ((3, "1"), "spectral_norm='1'"),
            ((0, 0.5), "d=0 must be an integer from 1 on"),
            ((-1, 0.5), "d=-1"),
            ((2.5, 0.5), "d=2.5"),
        ],
    )
    def test_draws(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            draw_weights(*arguments)
        with pytest.raises(ValueError, match="n_runs=0 must be an integer from 1 on or None"):
            draw_weights(3, 0.5, n_runs=0)

    def test_phases_of_another_method_or_of_a_run_that_is_not_there(self):
        _, trace = train_identity_mapping(*pair(3, n_runs=2), n_steps=1)
        for run in (2, -1, 1.0):
            with pytest.raises(ValueError, match=f"run={run} must be"):
                find_phases(trace, run)
        with pytest.raises(ValueError, match=r"train_identity_mapping; it watches \['norm'\] only"):
            find_phases(Trace(*np.zeros((3, 1)), {"norm": np.zeros(1)}))
