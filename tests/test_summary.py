"""What objects say of themselves: one line, and no arrays."""

import numpy as np
import pytest

from convexbn import (
    BatchNormDesign,
    BatchNormNetwork,
    Certificate,
    ConvBatchNormNetwork,
    ConvexBNConvRegressor,
    ConvexBNRegressor,
    DeepNetwork,
    DesignMatrix,
    Problem,
    WeightNormNetwork,
    compare,
    convexbn_path,
    enumerate_patterns,
    solve,
    spectral_trace,
)
from convexbn.datasets import make_teacher
from convexbn.gradient import train
from convexbn.gradient.deep_weight_norm import SmoothNetwork

X, Y = make_teacher(30, 2, random_state=0)
IMAGES = np.random.default_rng(0).standard_normal((12, 2, 3, 3))
DESIGN = BatchNormDesign().fit(X)
PROBLEM = Problem(DESIGN.transform(X), Y, weight_decay=0.05)
WIDE = BatchNormNetwork.at_initialization(X, 200, n_outputs=1, random_state=0)
CONVOLUTIONAL = ConvBatchNormNetwork.at_initialization(IMAGES, 4, kernel_size=(2, 3), n_outputs=3, random_state=0)
GATED = ConvexBNRegressor(0.05, activation="gated_relu", n_patterns=20).fit(X, Y)
CONV_GATED = ConvexBNConvRegressor(0.05, kernel_size=2, activation="gated_relu", n_patterns=5).fit(IMAGES, Y[:12])


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        (WIDE, "BatchNormNetwork(2 features, 200 neurons, 1 output)"),
        (CONVOLUTIONAL, "ConvBatchNormNetwork(patches of 2 x 2 x 3, 4 neurons, 3 outputs)"),
        (
            WeightNormNetwork([[3.0]], [1.0], [0.0], [[1.0, 2.0]], [0.0, 0.0]),
            "WeightNormNetwork(1 feature, 1 neuron, 2 outputs)",
        ),
        (GATED.network_, f"GatedNetwork(2 features, {len(GATED.network_)} neurons, 1 output)"),
        (CONV_GATED.network_, f"ConvGatedNetwork(patches of 2 x 2 x 2, {len(CONV_GATED.network_)} neurons, 1 output)"),
        (
            DeepNetwork((WIDE,), BatchNormNetwork.at_initialization(WIDE.hidden(X), 3, n_outputs=1)),
            "DeepNetwork(2 features, 200 + 3 neurons, 1 output)",
        ),
        (
            SmoothNetwork.at_initialization(5, depth=2, width=70),
            "SmoothNetwork(5 features, 70 + 70 units, tanh, weight-normalized)",
        ),
        (DESIGN.neuron_weights(np.ones((3, 9))), "LayerWeights(2 features, 9 neurons)"),
        (PROBLEM.Z, "DesignMatrix(30 samples, 3 columns)"),
        (DesignMatrix(np.ones((18, 4)), 9), "DesignMatrix(2 samples of 9 patches, 4 columns)"),
        (PROBLEM, "Problem(30 samples, 3 columns, 1 output, squared_error, weight decay 0.05, without intercept)"),
        (PROBLEM.zero_network, "Neurons(3 columns, 0 neurons, 1 output)"),
        (enumerate_patterns(np.eye(2)), "Patterns(4 patterns of 2 rows, all there are)"),
        (
            spectral_trace(X, Y, [np.zeros(30), Y]),
            "SpectralTrace(2 steps, 2 directions)",
        ),
        (
            Certificate(2.0, 1.9, "patterns", 1.0),
            "Certificate(objective 2, relative gap 5.00e-02, scope patterns)",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_kind_and_sizes(described, expected):
    assert repr(described) == expected


def test_results_of_runs():
    solution = solve(PROBLEM)
    certificate = solution.certificate
    assert repr(solution) == (
        f"Solution({len(solution.neurons)} neurons, objective {certificate.objective:.8g}, "
        f"relative gap {certificate.gap:.2e}, scope global, converged)"
    )
    path = convexbn_path(X, Y, weight_decays=[1.0, 0.1], tol=1e-2)
    last = len(path.neurons[1])
    assert (
        repr(path) == f"Path(2 weight decays from 1 to 0.1, {len(path.neurons[0])} to {last} neuron{'s' * (last > 1)})"
    )
    trace = train(X, Y, weight_decay=0.1, n_steps=5, random_state=0)[1]
    first, final = trace.objective[[0, -1]]
    assert repr(trace) == f"Trace(steps 0 to 5, {trace.times[-1]:.3g} s, objective {first:.8g} to {final:.8g})"
    comparison = compare(X, Y, weight_decay=0.1, runs={"Adam": {"n_steps": 5}}, tol=1e-2)
    found = comparison.certificate
    assert repr(comparison) == (
        f"Comparison(objective {found.objective:.8g}, lower bound {found.lower_bound:.8g}, "
        f"Adam {comparison.best('Adam'):.8g})"
    )
