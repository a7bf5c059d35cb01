import numpy as np
import pytest

from convexbn import DesignMatrix, Neurons
from convexbn.model import prune


def random_neurons(m, k=3, C=1, seed=0):
    rng = np.random.default_rng(seed)
    return Neurons(rng.standard_normal((k, m)), rng.standard_normal((m, C)), rng.standard_normal(C))


def design(n=8, k=3, seed=1):
    return DesignMatrix(np.random.default_rng(seed).standard_normal((n, k)))


def test_outputs_by_hand():
    neurons = Neurons(np.array([[1.0, -1.0]]), np.array([[2.0], [3.0]]), np.array([0.5]))
    np.testing.assert_array_equal(neurons.outputs(DesignMatrix(np.array([[1.0], [-2.0]]))), [[2.5], [6.5]])


def test_gated_outputs_by_hand():
    neurons = Neurons(np.array([[1.0]]), np.ones((1, 1)), np.zeros(1), gates=np.array([[-1.0]]))
    np.testing.assert_array_equal(neurons.outputs(DesignMatrix(np.array([[1.0], [-2.0]]))), [[0.0], [-2.0]])


def test_balanced_is_the_same_network_with_equal_norms():
    neurons, Z = random_neurons(5), design()
    balanced = neurons.balanced()
    np.testing.assert_allclose(balanced.outputs(Z), neurons.outputs(Z))
    np.testing.assert_allclose(
        np.linalg.norm(balanced.weights, axis=0), np.linalg.norm(balanced.output_weights, axis=1)
    )
    np.testing.assert_allclose(balanced.cost, neurons.cost)


@pytest.mark.parametrize("C", [1, 2])
@pytest.mark.parametrize("m", [2, 9, 40, 200])
def test_pruned_keeps_outputs_at_no_higher_cost_with_few_neurons(m, C):
    neurons, Z = random_neurons(m, C=C), design()
    pruned = prune(neurons, Z)
    np.testing.assert_allclose(pruned.outputs(Z), neurons.outputs(Z), atol=1e-9)
    assert pruned.cost.sum() <= neurons.cost.sum() * (1 + 1e-10)
    assert len(pruned) <= Z.n_samples * C + 1


def test_pruned_merges_equal_patterns_and_drops_zeros():
    Z = design()
    s = np.random.default_rng(2).standard_normal((3, 1))
    weights = np.hstack([s, 2 * s, s + 1e-3, -s, 1e-12 * s])
    assert len(np.unique(Z.Z @ weights[:, :3] >= 0, axis=1).T) == 1
    neurons = Neurons(weights, np.array([[1.0], [0.5], [3.0], [1.0], [1.0]]), np.zeros(1))
    pruned = prune(neurons, Z)
    assert len(pruned) == 2
    np.testing.assert_allclose(pruned.outputs(Z), neurons.outputs(Z), atol=1e-10)


def test_opposite_signs_are_not_merged():
    neurons = Neurons(np.ones((3, 2)), np.array([[1.0], [-1.0]]), np.zeros(1))
    assert len(prune(neurons, design())) == 2


def test_parallel_neurons_of_different_patterns_are_merged():
    Z = DesignMatrix(np.array([[1.0, 0.0], [1.0, 1.0]]))
    on_the_kink = np.array([[1e-12, -1e-12], [1.0, 1.0]])
    assert len(prune(Neurons(on_the_kink, np.ones((2, 1)), np.zeros(1)), Z)) == 1


def test_pruned_of_no_neurons_and_of_gated_ones():
    Z = design()
    assert len(prune(random_neurons(0), Z)) == 0
    twins = np.ones((3, 2))
    assert len(prune(Neurons(twins, np.array([[1.0], [1.0]]), np.zeros(1), gates=twins), Z)) == 2
    assert len(prune(Neurons(twins, np.array([[1.0], [0.0]]), np.zeros(1), gates=twins), Z)) == 1


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"got \(3, 2\), \(3, 1\), \(1,\)"):
        Neurons(np.ones((3, 2)), np.ones((3, 1)), np.zeros(1))
    with pytest.raises(ValueError, match="gates"):
        Neurons(np.ones((3, 2)), np.ones((2, 1)), np.zeros(1), gates=np.ones((3, 1)))


def test_pruned_keeps_cheap_neurons_on_large_columns():
    neurons = Neurons(np.array([[1e3, 0], [0, 1e-10]]), np.ones((2, 1)), np.zeros(1))
    Z = DesignMatrix(np.array([[1.0, 0.0], [0.0, 1e10]]))
    np.testing.assert_allclose(prune(neurons, Z).outputs(Z), neurons.outputs(Z))


def test_balanced_turns_dead_neurons_to_zero():
    dead = Neurons(np.array([[1.0, 0.0, 2.0]]), np.array([[0.0], [1.0], [2.0]]), np.zeros(1)).balanced()
    np.testing.assert_array_equal(dead.weights, [[0, 0, 2]])
    np.testing.assert_array_equal(dead.output_weights, [[0], [0], [2]])


def test_pruning_refuses_what_is_no_network_of_the_data():
    weights = np.ones((3, 2))
    weights[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        prune(Neurons(weights, np.ones((2, 1)), np.zeros(1)), design())
    with pytest.raises(ValueError, match="2 weights each, and Z has 3 columns"):
        prune(Neurons(np.ones((2, 2)), np.ones((2, 1)), np.zeros(1)), design())


def test_averaged_networks_average_outputs_also_where_one_has_no_neurons():
    Z, one, other = design(), random_neurons(3, seed=1), random_neurons(2, seed=2)
    none = Neurons(np.zeros((3, 0)), np.zeros((0, 1)), np.array([0.7]))
    for networks in ([one, other, none], [none, one], [none, none]):
        mean = np.mean([network.outputs(Z) for network in networks], axis=0)
        np.testing.assert_allclose(Neurons.averaged(networks).outputs(Z), mean, atol=1e-14)


def test_costs_by_hand():
    neurons = Neurons(np.array([[3.0, 1.0], [4.0, 0.0]]), np.array([[5.0, 12.0], [0.0, -2.0]]), np.zeros(2))
    np.testing.assert_allclose(neurons.cost, [5 * 13, 1 * 2])


@pytest.mark.parametrize("C", [1, 3])
def test_unit_outputs_are_the_same_network(C):
    neurons, Z = random_neurons(5, C=C), design()
    unit = neurons.with_unit_outputs()
    np.testing.assert_allclose(np.linalg.norm(unit.output_weights, axis=1), 1)
    np.testing.assert_allclose(unit.outputs(Z), neurons.outputs(Z))
