"""The whole line on problems small enough to enumerate: program, dual, network, PyTorch and gradient training agree."""

import numpy as np
import pytest

from convexbn import dual_program, enumerate_patterns, make_network, primal_program, solve_program, solve_reference
from convexbn.losses import make_loss
from tests.problems import CASES
from tests.starts import train_starts


@pytest.fixture(params=CASES, ids=str, scope="module")
def case(request):
    return request.param


@pytest.fixture(scope="module")
def solved(case):
    problem = case.problem()
    patterns = enumerate_patterns(problem.Z)
    return problem, patterns, solve_reference(problem, patterns)


def test_primal_equals_dual(solved):
    problem, patterns, solution = solved
    primal = solve_program(primal_program(problem, patterns))
    dual = solve_program(dual_program(problem, patterns))
    assert primal == pytest.approx(dual, rel=1e-6)
    assert solution.certificate.objective == pytest.approx(dual, rel=1e-6)


def test_certificate_is_global_and_tight(solved):
    certificate = solved[2].certificate
    assert certificate.scope == "global"
    assert 0 <= certificate.gap <= 1e-6
    assert certificate.global_lower_bound == certificate.lower_bound


def test_network_reaches_the_objective_of_the_program(case, solved):
    problem, _, solution = solved
    X, y = case.data()
    network = make_network(solution.neurons, case.design())
    assert network.objective(X, y, problem.weight_decay, case.loss) == pytest.approx(
        solution.certificate.objective, rel=1e-6
    )
    np.testing.assert_allclose(network.predict(X), solution.neurons.outputs(problem.Z), atol=1e-8)


def test_pytorch_reaches_the_objective_of_the_program(case, solved):
    torch = pytest.importorskip("torch")
    problem, _, solution = solved
    X, y = case.data()
    network = make_network(solution.neurons, case.design())
    module = network.to_torch(eps=1e-12).train()
    with torch.no_grad():
        outputs = module(torch.tensor(X)).numpy()
        squares = sum(float((parameter**2).sum()) for parameter in network.decayed_parameters(module))
    loss = make_loss(case.loss).value(outputs, y[:, None]).mean()
    assert loss + problem.weight_decay / 2 * squares == pytest.approx(solution.certificate.objective, rel=1e-6)


def test_no_gradient_trained_network_falls_below_the_lower_bound(case, solved):
    problem, _, solution = solved
    objectives = train_starts(
        range(20), *case.data(), weight_decay=problem.weight_decay, loss=case.loss, normalization=case.normalization,
        fit_intercept=case.fit_intercept, n_neurons=20, n_steps=300, learning_rate=0.03,
    )  # fmt: skip
    lower_bound = solution.certificate.lower_bound
    assert objectives.min() >= lower_bound
    assert objectives.min() <= 1.25 * lower_bound, "training got nowhere, so the comparison says nothing"
