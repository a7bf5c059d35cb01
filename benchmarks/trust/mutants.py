"""Plausible mistakes in the mathematics, each with the tests that should find it.

What was equivalent to the code, or cannot be told from it but by a bound's last digits, says why in `equivalent`; a
mutant that survived until a test was written for it names the test in `added`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A change of the code, which should be found.

    Parameters
    ----------
    file : str
        Below convexbn/.
    old, new : str
        Text that occurs once in the file, and what takes its place.
    tests : str
        Files that should find it, and tests or classes in them: "losses" is tests/test_losses.py.
    breaks : str
        What is wrong then, in a few words.
    added : str, default=""
        Tests that were written since it survived the others, likewise.
    equivalent : str, default=""
        Why no test can find it; it may survive then.
    """

    file: str
    old: str
    new: str
    tests: str
    breaks: str
    added: str = ""
    equivalent: str = ""

    @property
    def name(self) -> str:
        """File and mistake."""
        return f"{self.file}: {self.breaks}"

    @property
    def arguments(self) -> list[str]:
        """The tests, as pytest takes them."""
        parts = (part.partition("::") for part in f"{self.tests} {self.added}".split())
        return [f"tests/test_{file}.py{separator}{test}" for file, separator, test in parts]


_LOSSES = [
    Mutant(
        "losses.py",
        "return namespace(f).sum((f - y) ** 2, axis=1) / 2",
        "return namespace(f).sum((f - y) ** 2, axis=1)",
        "losses",
        "squared error without the half",
    ),
    Mutant(
        "losses.py",
        "return (u * y + u**2 / 2).sum(axis=1)",
        "return (u * y + u**2).sum(axis=1)",
        "losses",
        "conjugate of the squared error without the half",
    ),
    Mutant(
        "losses.py",
        "return y[0] + weights @ (y - y[0])  # exact for equal targets",
        "return y[0] + (y - y[0]).mean(axis=0)",
        "losses problem",
        "best constant of the squared error without weights",
    ),
    Mutant(
        "losses.py",
        "residual = xp.abs(f - y)[:, 0]",
        "residual = (f - y)[:, 0]",
        "losses",
        "Huber loss of the residual without its absolute value",
    ),
    Mutant(
        "losses.py",
        "np.where(np.abs(u) <= self.delta, u * y",
        "np.where(np.abs(u) < self.delta, u * y",
        "losses",
        "conjugate of the Huber loss is infinite at the end of its domain",
    ),
    Mutant(
        "losses.py",
        "return replace(self, delta=self.delta / scale)",
        "return replace(self, delta=self.delta * scale)",
        "losses",
        "delta of rescaled targets is multiplied",
    ),
    Mutant(
        "losses.py",
        "return expit(f) * expit(-f)",
        "return expit(f) * expit(f)",
        "losses",
        "second derivative of the log loss",
    ),
    Mutant(
        "losses.py",
        "xlogy(a, a) + xlog1py(1 - a, -a)",
        "xlogy(a, a) - xlog1py(1 - a, -a)",
        "losses",
        "sign in the entropy of the log loss",
    ),
    Mutant(
        "losses.py",
        "np.log(weights @ (y > 0)) - np.log(weights @ (y < 0))",
        "np.log((y > 0).sum(axis=0)) - np.log((y < 0).sum(axis=0))",
        "losses problem",
        "best constant of the log loss without weights",
    ),
    Mutant(
        "losses.py",
        "np.where(y * f < 1, 2.0, 0.0)",
        "np.where(y * f <= 1, 2.0, 0.0)",
        "losses",
        "second derivative of the squared hinge at its kink",
        added="losses::test_derivatives_at_kinks_are_those_that_are_documented",
    ),
    Mutant(
        "losses.py",
        "np.where(a >= 0, a**2 / 4 - a, np.inf)",
        "np.where(a >= 0, a**2 / 2 - a, np.inf)",
        "losses",
        "factor of the conjugate of the squared hinge",
    ),
    Mutant(
        "losses.py",
        "return xp.where(y * f <= 1, -y, xp.zeros_like(y))",
        "return xp.where(y * f < 1, -y, xp.zeros_like(y))",
        "losses",
        "subgradient of the hinge at its kink is that of the smaller loss",
        added="losses::test_derivatives_at_kinks_are_those_that_are_documented",
    ),
    Mutant(
        "losses.py",
        "return np.sign(weights @ y)",
        "return np.sign(y.sum(axis=0))",
        "losses problem",
        "best constant of the hinge without weights",
        added="losses::test_best_constant_goes_by_weights_and_not_by_numbers",
    ),
    Mutant(
        "losses.py",
        "np.where(u > 0, positive, negative)",
        "np.where(u > 0, negative, positive)",
        "losses problem",
        "centred dual point scales the lighter side",
    ),
    Mutant("losses.py", "curvature = 0.5\n", "curvature = 0.25\n", "losses", "curvature of the cross entropy"),
    Mutant(
        "losses.py",
        "(np.eye(f.shape[1]) - p[:, None, :])",
        "(np.eye(f.shape[1]) + p[:, None, :])",
        "losses",
        "sign in the Hessian of the cross entropy",
    ),
    Mutant(
        "losses.py",
        "logs = np.log(weights @ y)",
        "logs = np.log(y.mean(axis=0))",
        "losses problem",
        "best constant of the cross entropy without weights",
        added="losses::TestCrossEntropy",
    ),
    Mutant(
        "losses.py",
        "residual = -weights @ centred",
        "residual = -centred.mean(axis=0)",
        "losses problem",
        "centred dual point of the cross entropy without weights",
    ),
    Mutant(
        "solvers/conic/_losses.py",
        "return cp.huber(f - y, loss.delta) / 2",
        "return cp.huber(f - y, loss.delta)",
        "losses",
        "cvxpy's Huber loss is twice ours",
    ),
]

_PROBLEM = [
    Mutant(
        "model/_problem.py",
        "weights / weights.sum())",
        "weights / len(weights))",
        "problem",
        "sample weights over their number, not their sum",
    ),
    Mutant(
        "model/_problem.py",
        "return -self.sample_weight[:, None] * self.loss.gradient(f, self.y)",
        "return -self.loss.gradient(f, self.y) / len(self.y)",
        "problem certificate",
        "dual point without weights",
        added="problem::test_dual_point_is_minus_the_derivative_of_the_weighted_loss",
    ),
    Mutant(
        "model/_problem.py",
        "u = self.loss.project_dual(-v / p, self.y)",
        "u = -v / p",
        "problem certificate",
        "dual point is not moved into the domain of the conjugate",
    ),
    Mutant(
        "model/_problem.py",
        "1e-12 * np.abs(v).sum(axis=0)).any()",
        "1e-12 * np.abs(v).sum(axis=0)).all()",
        "problem certificate",
        "dual objective is finite if one column of several is balanced",
        added="problem::test_dual_objective_of_several_outputs_wants_every_column_to_add_up_to_zero",
    ),
    Mutant(
        "model/_problem.py",
        "intercept = self.loss.best_constant(self.y, self.sample_weight)",
        "intercept = self.loss.best_constant(self.y, np.full(len(self.y), 1 / len(self.y)))",
        "problem certificate",
        "intercept of the zero network without weights",
        added="problem::test_zero_network_of_weighted_samples_is_the_best_constant",
    ),
    Mutant(
        "model/_problem.py",
        "(np.abs(self.loss.conjugate(u, self._near_targets)) + products)",
        "np.abs(self.loss.conjugate(u, self._near_targets))",
        "problem certificate trust::test_what_rounding_adds_to_a_dual_objective_is_taken_off",
        "size of a dual objective without the products that cancel",
        added="problem::test_size_of_a_dual_objective_counts_what_cancels",
    ),
    Mutant(
        "model/_problem.py",
        "y=self.y[samples], sample_weight=self.sample_weight[samples])",
        "y=self.y[samples], sample_weight=None)",
        "problem tuning::test_integer_weights_order_and_weights_of_zero",
        "weights are lost in a restriction to some samples",
        added="problem::test_a_part_of_the_samples_keeps_the_ratios_of_their_weights",
    ),
    Mutant(
        "model/_base_neurons.py",
        "return self.norms * np.linalg.norm(self.output_weights, axis=1)",
        "return self.norms * np.abs(self.output_weights).sum(axis=1)",
        "neurons problem",
        "cost of several outputs by their sum",
        added="neurons::test_costs_by_hand",
    ),
    Mutant(
        "model/_base_neurons.py",
        "np.sqrt(np.divide(output, hidden, where=alive, out=np.zeros_like(output)))",
        "np.divide(output, hidden, where=alive, out=np.zeros_like(output))",
        "neurons network",
        "norms are swapped, not balanced",
    ),
    Mutant(
        "model/_neurons.py",
        "for network in parts]) / len(networks)",
        "for network in parts]) / len(parts)",
        "neurons tuning::TestRule",
        "average of networks leaves out those without neurons",
        added="neurons::test_averaged_networks_average_outputs_also_where_one_has_no_neurons",
    ),
    Mutant(
        "model/_neurons.py",
        "sizes = np.linalg.norm(neurons.output_weights, axis=1)",
        "sizes = np.linalg.norm(neurons.output_weights, axis=1) ** 2",
        "neurons column_generation::test_warm_start_takes_fewer_rounds_and_counts_for_nothing_but_a_start",
        "hidden weights are given the square of the output weights",
        added="neurons::test_unit_outputs_are_the_same_network",
    ),
    Mutant(
        "model/_merging.py",
        "(neurons.weights * np.linalg.norm(neurons.output_weights, axis=1)).T)",
        "neurons.weights.T)",
        "neurons",
        "added-up neurons lose their output lengths",
    ),
    Mutant(
        "model/_merging.py",
        "step = min(longest[leaving], point[entering])",
        "step = max(longest[leaving], point[entering])",
        "neurons",
        "Caratheodory's step is too long",
    ),
    Mutant(
        "model/_merging.py",
        "parts = (hidden[:, None, :] * neurons.output_weights.T[None]).reshape(-1, len(neurons)) / cost",
        "parts = (hidden[:, None, :] * neurons.output_weights.T[None]).reshape(-1, len(neurons))",
        "neurons",
        "columns of the vertex not per unit of cost",
    ),
    Mutant(
        "model/_outputs.py",
        "[:, 1:] - 2 * axis[:, :, None]",
        "[:, 1:] - axis[:, :, None]",
        "vector_outputs",
        "tangents of output directions by half a reflection",
    ),
    Mutant(
        "model/_outputs.py",
        "np.repeat([[1.0, -1.0]], directions.shape[1], axis=1)",
        "np.tile([[1.0, -1.0]], directions.shape[1])",
        "ascent",
        "a start has one sign twice, not both",
        added="ascent::test_every_start_ascends_with_both_signs",
    ),
    Mutant(
        "model/_outputs.py",
        "            c = self.best(Z.summed(_along, placed, hidden), c)\n",
        "",
        "ascent rank_one::test_equals_column_generation vector_outputs",
        "output directions do not follow their neurons",
        added="ascent::test_without_polish_directions_are_close_to_maxima",
    ),
]

_ORACLES = [
    Mutant(
        "oracles/_ascent.py",
        "np.where(prices > start_prices, w, start)",
        "np.where(prices > start_prices, start, w)",
        "ascent",
        "of start and end the worse one is kept",
    ),
    Mutant(
        "oracles/_ascent.py",
        'best = np.argsort(-found, kind="stable")[: -(-len(found) // 4)]',
        'best = np.argsort(found, kind="stable")[: -(-len(found) // 4)]',
        "ascent",
        "the worst quarter goes on",
        added="ascent::test_without_polish_directions_are_close_to_maxima",
    ),
    Mutant(
        "oracles/_ascent.py",
        "w[:, moving] * length - Z.adjoint((inner > 0) * v)",
        "w[:, moving] * length + Z.adjoint((inner > 0) * v)",
        "ascent",
        "sign of the gradient in polishing",
    ),
    Mutant(
        "oracles/_ascent.py",
        "v_size * Z_size * prices[best])",
        "v_size * prices[best])",
        "ascent",
        "prices without the unit of Z",
        added="ascent::test_prices_and_thresholds_are_in_the_unit_of_the_rows",
    ),
    Mutant(
        "oracles/_ascent.py",
        "threshold / v_size / Z_size",
        "threshold / v_size * Z_size",
        "ascent",
        "threshold in the inverse unit of Z",
        added="ascent::test_prices_and_thresholds_are_in_the_unit_of_the_rows",
    ),
    Mutant(
        "oracles/_ascent.py",
        "gradient *= t / (np.linalg.norm(gradient, axis=0) + tiny)",
        "gradient *= t / (np.linalg.norm(gradient) + tiny)",
        "ascent",
        "gradients are divided by the norm of all",
        added="ascent::test_starts_ascend_on_their_own",
    ),
    Mutant(
        "oracles/_kink_program.py",
        "np.abs(inner) / np.maximum(Z.row_norms[first], np.finfo(float).tiny)[:, None]",
        "np.abs(inner)",
        "kink_program ascent",
        "distances from kinks in units of the rows",
        added="kink_program::test_nearest_kinks_are_nearest_whatever_the_length_of_their_rows",
    ),
    Mutant(
        "oracles/_kink_program.py",
        "outward = np.where(inner > 0, -1.0, 1.0)",
        "outward = np.where(inner > 0, 1.0, -1.0)",
        "kink_program ascent",
        "normals of kinks point inwards",
    ),
    Mutant(
        "oracles/_kink_program.py",
        "distance[signed_v >= 0] = np.inf",
        "distance[signed_v <= 0] = np.inf",
        "kink_program ascent",
        "concave corners are held in place of convex ones",
    ),
    Mutant(
        "oracles/_bound.py",
        "absolute = max(np.sqrt(part.sum())",
        "absolute = min(np.sqrt(part.sum())",
        "pricing sample_weight::test_bound_with_weights_covers_every_direction_and_does_not_see_repetition",
        "bound of the smaller of both signs",
    ),
    Mutant(
        "oracles/_bound.py",
        "spectral = norm * max(np.linalg.norm(part / np.sqrt(p))",
        "spectral = norm * max(np.linalg.norm(part / p)",
        "pricing sample_weight::test_bound_with_weights_covers_every_direction_and_does_not_see_repetition",
        "spectral bound without the root of the weights",
        added="pricing::test_cheap_bound_is_exact_at_full_row_rank_of_weighted_samples",
    ),
    Mutant(
        "oracles/_bound.py",
        "float(np.linalg.norm(rows / np.sqrt(p), 2))",
        "float(np.linalg.norm(rows * np.sqrt(p), 2))",
        "pricing sample_weight::test_bound_with_weights_covers_every_direction_and_does_not_see_repetition",
        "bound of several outputs with the weights inverted",
        added="sample_weight::test_bound_with_weights_covers_every_direction_and_does_not_see_repetition",
    ),
    Mutant(
        "oracles/_bound.py",
        "half_linear = np.linalg.norm(Z.adjoint(rows)) / 2",
        "half_linear = np.linalg.norm(Z.adjoint(rows)) / 4",
        "pricing",
        "half of the linear part of the bound",
    ),
    Mutant(
        "oracles/_weight_decay_max.py",
        "return min(price_by_enumeration(problem.Z, problem.zero_dual).value, bound)",
        "return max(price_by_enumeration(problem.Z, problem.zero_dual).value, bound)",
        "problem",
        "the larger of price and bound",
    ),
    Mutant(
        "oracles/_weight_decay_max.py",
        "initial=float(np.linalg.norm(v.sum(axis=0))))",
        "initial=0.0)",
        "post_activation::TestDegenerateDirections post_activation::TestPrices",
        "the constant neuron is left out after the ReLU",
        equivalent="The price of a direction is that of its best pair of activations and constant, so that none is"
        " below the constant's own, which matters only where there is no start.",
    ),
    Mutant(
        "oracles/_of_patterns.py",
        "cone = Z.rows().T * np.where(mask, 1.0, -1.0)",
        "cone = Z.rows().T * np.where(mask, -1.0, 1.0)",
        "pricing",
        "the opposite cone",
    ),
    Mutant(
        "oracles/_of_patterns.py",
        'for i in np.argsort(-gated, kind="stable"):',
        'for i in np.argsort(gated, kind="stable"):',
        "pricing",
        "screening from the smallest gated price",
    ),
    Mutant(
        "oracles/_of_patterns.py",
        "return (None, (1.0, -1.0)) if",
        "return (None, (1.0,)) if",
        "pricing",
        "one sign of v alone",
    ),
    Mutant(
        "oracles/_of_patterns.py",
        "largest = max(largest, price + rounding)",
        "largest = max(largest, price)",
        "pricing trust::test_a_proved_bound_is_below_the_exact_dual_bound_and_every_network",
        "margin for the rounding of multipliers",
        added="pricing::test_price_has_room_for_the_rounding_of_large_multipliers",
    ),
    Mutant(
        "oracles/_of_patterns.py",
        'return Price(largest + hidden, "global", direction)',
        'return Price(largest, "global", direction)',
        "pricing trust::test_a_proved_bound_is_below_the_exact_dual_bound_and_every_network",
        "margin for cells that are not told from rounding",
        added="pricing::test_price_of_all_patterns_has_room_for_cells_that_are_too_narrow_to_be_found",
    ),
    Mutant(
        "oracles/_of_patterns.py",
        "return chosen[prices[chosen] > threshold]",
        "return chosen[prices[chosen] >= threshold]",
        "pricing rank_one",
        "patterns at the threshold count as violated",
        added="pricing::test_patterns_at_the_threshold_are_not_violated",
    ),
    Mutant(
        "oracles/_of_patterns.py",
        "return np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[:, -1], 0))",
        "return np.maximum(np.linalg.eigvalsh(gram)[:, -1], 0)",
        "rank_one pricing",
        "largest singular values squared",
    ),
    Mutant(
        "oracles/_faces.py",
        "np.where(inside | opposite, leading[open_], 0.0)",
        "np.where(inside, leading[open_], 0.0)",
        "rank_one",
        "eigenvectors of the other sign are lost",
    ),
    Mutant(
        "oracles/_faces.py",
        "value = best**0.5 * (1 + _ROUNDING)",
        "value = best**0.5",
        "rank_one trust::test_a_proved_bound_is_below_the_exact_dual_bound_and_every_network",
        "margin for rounding of eigenvectors",
        added="rank_one::test_price_on_a_ray_is_never_too_small_in_exact_arithmetic",
    ),
    Mutant(
        "oracles/_branch_and_bound.py",
        "for convex, concave in ((self.plus, self.minus), (self.minus, self.plus)):",
        "for convex, concave in ((self.plus, self.minus),):",
        "branch_and_bound",
        "one sign alone is searched",
    ),
    Mutant(
        "oracles/_branch_and_bound.py",
        "linear, vanish = products.min(axis=0) >= 0, products.max(axis=0) <= 0",
        "linear, vanish = products.max(axis=0) >= 0, products.min(axis=0) <= 0",
        "branch_and_bound",
        "rows that change sign on a cone count as linear",
    ),
    Mutant(
        "oracles/_branch_and_bound.py",
        "return max(self.best, self.closed, *(",
        "return max(self.best, *(",
        "branch_and_bound",
        "bounds of closed cones are forgotten",
    ),
    Mutant(
        "oracles/_branch_and_bound.py",
        "min((search.bound() + slack) * scale + moved, cheap)",
        "min(search.bound() * scale + moved, cheap)",
        "branch_and_bound trust::test_a_proved_bound_is_below_the_exact_dual_bound_and_every_network",
        "margin of the search is not added",
        equivalent="It is for rounding in the last digits, and the bounds of cones that are closed exceed the exact "
        "price by a thousand times more; no case is known in which it decides.",
    ),
    Mutant(
        "oracles/_branch_and_bound.py",
        "+ Z.n_columns**2 + 64) + left_out",
        "+ Z.n_columns**2 + 64)",
        "branch_and_bound trust::test_a_proved_bound_is_below_the_exact_dual_bound_and_every_network",
        "directions that were left out count for nothing",
        equivalent="They are shorter than 1e-12 of the longest and add no more than that to a price, of which closed "
        "cones leave 1e-9; where all else cancels parallel rows have been merged before.",
    ),
    Mutant(
        "oracles/_branch_and_bound.py",
        "return max(self.threshold, self.factor * self.best - self.slack)",
        "return min(self.threshold, self.factor * self.best - self.slack)",
        "branch_and_bound",
        "the harder of two targets",
    ),
    Mutant(
        "oracles/_branch_and_bound.py",
        "(values * maxima.weights).sum(axis=1) - maxima.attained",
        "(values * maxima.weights).sum(axis=1)",
        "branch_and_bound",
        "concave part of the maximiser includes its price",
        equivalent="A shortcut is never taken then: a cone whose maximiser is inherited is bounded anew, to the same "
        "bound.",
    ),
    Mutant(
        "oracles/_largest_on_cones.py",
        "np.sqrt(w.shape[1]) * np.maximum(missed, 0)",
        "np.maximum(missed, 0)",
        "branch_and_bound",
        "bound of an iterate without the root of k",
        added="branch_and_bound::test_bound_of_the_iterate_zero_covers_the_whole_ball",
    ),
    Mutant(
        "oracles/_without_search.py",
        "np.linalg.norm(v / np.sqrt(problem.sample_weight)[:, None])",
        "np.linalg.norm(v)",
        "post_activation::TestDegenerateDirections post_activation::TestPrices",
        "size of a price after the ReLU without weights",
        added="post_activation::TestPrices::test_bound_and_size_are_those_of_the_neuron_in_proportion_to_the_dual_point",
    ),
    Mutant(
        "oracles/_without_search.py",
        "problem.Z.row_norms @ np.linalg.norm(problem.Z.unpool(v), axis=1)",
        "np.linalg.norm(problem.Z.row_norms) * np.linalg.norm(problem.Z.unpool(v)) / problem.Z.n_rows",
        "certificate trust::test_a_proved_bound_is_below_the_exact_dual_bound_and_every_network",
        "size of a price is a mean of its terms",
        added="problem::test_size_of_prices_is_that_of_the_terms_of_a_neuron_on_all_rows",
    ),
]

_AFTER_RELU = [
    Mutant(
        "oracles/_normalized.py",
        "np.linalg.norm(v / np.sqrt(sample_weight)[:, None], 2)",
        "np.linalg.norm(v / sample_weight[:, None], 2)",
        "post_activation::TestDegenerateDirections post_activation::TestPrices",
        "bound without the root of the weights",
        added="post_activation::TestPrices::test_bound_and_size_are_those_of_the_neuron_in_proportion_to_the_dual_point",
    ),
    Mutant(
        "oracles/_normalized.py",
        "bias - gamma * scale * mean, outputs, prices)",
        "bias + gamma * scale * mean, outputs, prices)",
        "post_activation::TestDegenerateDirections post_activation::TestPrices",
        "sign of the mean in the shift",
    ),
    Mutant(
        "oracles/_normalized.py",
        "along = (v.T @ activations - v.sum(axis=0)[:, None] * mean) * scale",
        "along = (v.T @ activations) * scale",
        "post_activation::TestDegenerateDirections post_activation::TestPrices",
        "activations are not centred",
    ),
    Mutant(
        "oracles/_normalized.py",
        "angle = np.arctan2(mixed, half) / 2",
        "angle = np.arctan2(mixed, half)",
        "post_activation::TestDegenerateDirections post_activation::TestPrices",
        "twice the angle of the eigenvector",
    ),
    Mutant(
        "oracles/_normalized.py",
        " - p[:, None] * standard * along) * scale",
        ") * scale",
        "post_activation::TestDegenerateDirections post_activation::TestPrices",
        "gradient of a ratio without its denominator",
        added="post_activation::TestPrices::test_gradient_of_the_ascent_is_the_derivative_of_the_price",
    ),
    Mutant(
        "oracles/_normalized.py",
        "mean = first - t * mass",
        "mean = first",
        "post_activation::TestDegenerateDirections post_activation::TestPrices post_activation_odd",
        "best offsets with another mean",
    ),
    Mutant(
        "model/_normalized_neurons.py",
        "np.sqrt(sample_weight @ (activations - mean) ** 2)",
        "np.sqrt(((activations - mean) ** 2).mean(axis=0))",
        "post_activation::TestDegenerateDirections post_activation::TestPrices",
        "standard deviations without weights",
    ),
    Mutant(
        "model/_normalized_neurons.py",
        "return self.bias - self.gamma * self.mean / self.std",
        "return self.bias - self.gamma * self.mean",
        "post_activation::TestDegenerateDirections post_activation::TestPrices",
        "shift without the standard deviation",
    ),
    Mutant(
        "model/_normalized_neurons.py",
        "return np.hypot(self.gamma, self.bias)",
        "return np.abs(self.gamma)",
        "post_activation::TestDegenerateDirections post_activation::TestPrices",
        "biases are not penalised",
    ),
    Mutant(
        "oracles/_normalized_cones.py",
        "for sign in (1.0, -1.0):",
        "for sign in (1.0,):",
        "post_activation::TestDegenerateDirections post_activation::TestPrices",
        "one sign of v alone after the ReLU",
    ),
    Mutant(
        "oracles/_normalized_cones.py",
        "largest = max(largest, value + rounding)",
        "largest = max(largest, value)",
        "post_activation::TestPrices trust::test_a_proved_bound_is_below_the_exact_dual_bound_and_every_network",
        "margin for rounding of the features",
        added="post_activation::TestPrices::test_price_has_room_for_the_rounding_of_columns_that_hardly_differ"
        "post_activation::TestPrices::test_price_has_room_for_the_rounding_of_columns_that_hardly_differ",
    ),
    Mutant(
        "oracles/_normalized_cones.py",
        "largest = best = abs(float(v.sum()))",
        "largest = best = 0.0",
        "post_activation::TestDegenerateDirections post_activation::TestPrices",
        "the constant neuron is not priced",
        equivalent="Every cone holds w = 0 with any shift, so that each pattern prices the constant neuron, too.",
    ),
    Mutant(
        "solvers/post_activation/_closed_form.py",
        "np.maximum(values - problem.weight_decay, 0)",
        "np.maximum(values - problem.weight_decay / 2, 0)",
        "post_activation::test_full_row_rank_program_closed_form_solver_and_torch_agree",
        "singular values less half of the weight decay",
    ),
    Mutant(
        "solvers/post_activation/_closed_form.py",
        "v = solution.dual[group] * (problem.sample_weight / weights[group])[:, None]",
        "v = solution.dual[group]",
        "post_activation::test_full_row_rank_program_closed_form_solver_and_torch_agree",
        "dual values of a target are not shared among its samples",
    ),
]

_CERTIFICATES = [
    Mutant(
        "solvers/_certificate.py",
        "else problem.weight_decay / largest",
        "else (problem.weight_decay / largest) ** 0.5",
        "certificate",
        "dual point is scaled by a root",
    ),
    Mutant(
        "solvers/_certificate.py",
        "scale = 1.0 if largest <= problem.weight_decay else",
        "scale =",
        "certificate",
        "dual point is scaled up where prices are small",
    ),
    Mutant(
        "solvers/_certificate.py",
        "largest = price.value + (units * price_size(problem, v) if units else 0.0)",
        "largest = price.value",
        "certificate trust::test_a_proved_bound_is_below_the_exact_dual_bound_and_every_network",
        "margin for rounding of prices",
        added="certificate::test_what_rounding_may_hide_of_a_price_is_taken_off",
    ),
    Mutant(
        "solvers/_certificate.py",
        " - (units * problem.dual_size(scale * v) if units else 0.0))",
        ")",
        "certificate trust::test_a_proved_bound_is_below_the_exact_dual_bound_and_every_network",
        "margin for rounding of the dual objective",
    ),
    Mutant(
        "solvers/_certificate.py",
        "return units + _FEW_OPERATIONS * float(",
        "return units + 0.0 * float(",
        "certificate trust::test_a_proved_bound_is_below_the_exact_dual_bound_and_every_network",
        "margin for columns that do not quite add up to zero",
        added="certificate::test_what_columns_miss_of_adding_up_to_zero_is_taken_off",
    ),
    Mutant(
        "solvers/_certificate.py",
        "lower_bound = min(dual_bound(problem, v, priced), objective)",
        "lower_bound = dual_bound(problem, v, priced)",
        "certificate",
        "bounds above the objective",
        added="certificate::test_no_bound_is_above_the_objective_whatever_price_is_given",
    ),
    Mutant(
        "solvers/_certificate.py",
        "for u in (v, problem.zero_dual))",
        "for u in (v,))",
        "certificate",
        "the zero network's dual point is not tried",
        added="certificate::test_the_better_of_two_dual_points_bounds_all_networks",
    ),
    Mutant(
        "solvers/_certificate.py",
        "global_lower_bound, oracle = min(max(bounds), objective)",
        "global_lower_bound, oracle = min(min(bounds), objective)",
        "certificate",
        "the lower of two bounds",
        added="certificate::test_the_better_of_two_dual_points_bounds_all_networks",
    ),
    Mutant(
        "solvers/_certificate.py",
        "if global_lower_bound >= lower_bound:",
        "if global_lower_bound <= lower_bound:",
        "certificate",
        "a local bound is called global",
    ),
    Mutant(
        "solvers/_tolerance.py",
        "return self.tol * self.scale / objective if",
        "return self.tol * objective / self.scale if",
        "column_generation::test_tolerance_relative_to_the_zero_network path",
        "tolerance relative to an objective is inverted",
        added="certificate::test_a_relative_tolerance_is_the_gap_that_is_just_reached",
    ),
    Mutant(
        "solvers/relu/_certify.py",
        "return Price(value * (1 + 1e-12) + moved",
        "return Price(value",
        "column_generation::test_scope_says_whether_prices_were_proved",
        "margin of a price that was proved for the scaled problem",
        added="certificate::test_a_proved_price_covers_dual_points_that_have_moved",
    ),
    Mutant(
        "solvers/_by_class.py",
        ' + float(apart), "global")',
        ', "global")',
        "by_class",
        "what differs within a class is not priced",
    ),
    Mutant(
        "solvers/_by_class.py",
        "outputs / row_scale(self.whole)",
        "outputs",
        "by_class",
        "neurons of all samples without the scale of the rows",
        added="by_class::test_there_and_back_is_the_same_network_in_each_class",
    ),
    Mutant(
        "solvers/_closed_form.py",
        "np.mean(problem.sample_weight * problem.Z.row_norms**2)",
        "np.mean(problem.Z.row_norms**2) / problem.Z.n_rows",
        "sample_weight::test_weighted_closed_form_equals_the_program_over_all_patterns",
        "scale of the rows without weights",
    ),
    Mutant(
        "solvers/_closed_form.py",
        "min(radius / np.sqrt(weight), 1.0)",
        "min(radius / weight, 1.0)",
        "solvers::test_closed_form_equals_the_program_over_all_patterns",
        "caps of classes without the root of their weight",
    ),
    Mutant(
        "solvers/_closed_form.py",
        "np.linalg.norm(np.sqrt(p) * residual * side, axis=0)",
        "np.linalg.norm(np.sqrt(p) * residual * side)",
        "solvers::test_closed_form_of_one_hot_targets_is_shrinkage_and_below_perturbations",
        "all outputs are shrunk by the length of all",
    ),
    Mutant(
        "solvers/_closed_form.py",
        "b = min((-1.0, 1.0), key=objective) if",
        "b = max((-1.0, 1.0), key=objective) if",
        "solvers::test_closed_form_equals_the_program_over_all_patterns",
        "the worse intercept of the hinge",
    ),
]

_DESIGNS = [
    Mutant(
        "designs/_batch_norm.py",
        "p = weights / weights.sum()",
        "p = weights / len(weights)",
        "design sample_weight",
        "whitening with weights over their number",
    ),
    Mutant(
        "designs/_batch_norm.py",
        "D = (S / S[0]) ** self.spectral_power",
        "D = (S / S[-1]) ** self.spectral_power",
        "design spectral_power",
        "spectral weights relative to the smallest direction",
    ),
    Mutant(
        "designs/_batch_norm.py",
        "gamma = np.linalg.norm(self.spectral_weights_[:, None] * S[:-1], axis=0)",
        "gamma = np.linalg.norm(S[:-1], axis=0)",
        "design spectral_power",
        "gamma without spectral weights",
    ),
    Mutant(
        "designs/_batch_norm.py",
        "self.mean_ = mean + shift @ coloring",
        "self.mean_ = mean",
        "design moments rows trust::test_directions_that_rounding_of_the_mean_made_are_left_out",
        "what rounding left of the mean stays",
        equivalent="The means of columns are corrected before, and what is left here is rounding of them, which no "
        "data of the tests tells from zero.",
    ),
    Mutant(
        "designs/_principal_directions.py",
        "n_components * (1 - 1e-12))) + 1)",
        "n_components * (1 - 1e-12))))",
        "design sample_weight",
        "one direction too few for a share of the variance",
    ),
    Mutant(
        "designs/_moments.py",
        "np.sqrt(self.weight * share) * difference",
        "np.sqrt(share) * difference",
        "moments",
        "merged moments without the weight of the first block",
    ),
    Mutant(
        "_utils/sample_weight.py",
        "np.bincount(np.cumsum(new) - 1, weights)",
        "np.bincount(np.cumsum(new) - 1).astype(float)",
        "sample_weight",
        "merged samples count, and do not weigh",
    ),
    Mutant(
        "_utils/sample_weight.py",
        "np.sqrt(np.average(deviations**2, axis=0, weights=weights))",
        "np.sqrt(np.average(deviations**2, axis=0))",
        "sample_weight",
        "standard deviations of targets without weights",
    ),
]

_NETWORKS = [
    Mutant(
        "network/_base.py",
        "float((self.gamma**2).sum() + (self.bias**2).sum() + (self.output_weights**2).sum()) / 2",
        "float((self.gamma**2).sum() + (self.output_weights**2).sum()) / 2",
        "network",
        "biases are not penalised",
    ),
    Mutant(
        "network/_base.py",
        "weights @ loss.value(f, targets) / weights.sum() +",
        "weights @ loss.value(f, targets) / len(weights) +",
        "network sample_weight::test_objective_of_the_network_is_that_of_repeated_rows",
        "weighted loss over the number of samples",
    ),
    Mutant(
        "network/_base.py",
        "f = self._forward(data, *self.batch_statistics(data, weights))",
        "f = self._forward(data, *self.batch_statistics(data))",
        "network sample_weight::test_objective_of_the_network_is_that_of_repeated_rows",
        "statistics in the objective without weights",
    ),
    Mutant(
        "network/_base.py",
        "return scale[:, None] * self.weights, self.bias - scale * mean",
        "return scale[:, None] * self.weights, self.bias + scale * mean",
        "torch_export network",
        "sign of the mean in folded layers",
    ),
    Mutant(
        "network/_folded.py",
        "networks[-1].intercept + outputs @ shift",
        "networks[-1].intercept",
        "torch_export",
        "shift of the last normalization is not folded into the intercept",
    ),
    Mutant(
        "network/_folded.py",
        "offsets + weights @ shift",
        "offsets",
        "torch_export",
        "shift of a normalization is not folded into the next layer",
    ),
    Mutant(
        "network/_batch_norm.py",
        "squares += block_squares + total * share * (block_mean - mean) ** 2",
        "squares += block_squares + total * (block_mean - mean) ** 2",
        "network",
        "merged variances of blocks",
    ),
    Mutant(
        "network/_batch_norm.py",
        "std = np.sqrt(squares / total)",
        "std = np.sqrt(squares / (total - 1))",
        "network",
        "unbiased standard deviations",
    ),
    Mutant(
        "network/_batch_norm.py",
        "np.hypot(1, np.sqrt(eps) / std)",
        "np.hypot(1, eps / std)",
        "network",
        "eps of torch is compensated without its root",
    ),
    Mutant(
        "network/_batch_norm.py",
        '"mean": lengths * network.mean',
        '"mean": network.mean',
        "network",
        "mean of lengthened weights",
        added="network::test_torch_module_of_neurons_that_vary_little_gives_the_same_outputs",
    ),
    Mutant(
        "network/_batch_norm.py",
        "import_torch().tensor(network.std**2)",
        "import_torch().tensor(network.std)",
        "network",
        "standard deviation as torch's variance",
    ),
    Mutant(
        "network/_batch_norm.py",
        '"gamma": np.sqrt(share) *',
        '"gamma": share *',
        "network",
        "gamma read from torch without the root",
    ),
    Mutant(
        "network/_post_activation.py",
        "return scale, self.bias - scale * self.mean",
        "return scale, self.bias",
        "torch_export post_activation::TestNetwork",
        "mean of activations is not folded",
    ),
    Mutant(
        "network/_post_activation.py",
        "+ total * share * (block_mean - mean) ** 2",
        "+ total * (block_mean - mean) ** 2",
        "post_activation::TestNetwork",
        "merged variances of activations",
        added="post_activation::TestNetwork::test_statistics_are_those_of_all_blocks_together",
    ),
    Mutant(
        "network/_gated.py",
        "rows @ G.T + offsets >= 0",
        "rows @ G.T + offsets > 0",
        "network gated torch_export",
        "gates are closed on their hyperplane",
        added="network::test_gates_are_open_on_their_hyperplane",
    ),
]

_VALIDATION = [
    Mutant(
        "estimators/_cross_validation.py",
        "first = np.argmax(mean >= finite.max() - _EQUAL * np.ptp(finite))",
        "first = np.argmax(mean <= finite.min() + _EQUAL * np.ptp(finite))",
        "cross_validation::test_scores_are_those_of_the_networks_of_fast_paths",
        "the lowest score wins",
    ),
    Mutant(
        "estimators/_cross_validation.py",
        "scorer(model._with_network(network), test)",
        "scorer(model._with_network(network), train)",
        "cross_validation::test_scores_are_those_of_the_networks_of_fast_paths",
        "scores on the training samples",
    ),
    Mutant(
        "estimators/_cross_validation.py",
        "X[train], y[train], sample_weight[train], choice",
        "X[train], y[train], np.ones(len(train)), choice",
        "cross_validation::test_choice_is_that_of_a_loop_over_plain_estimators",
        "weights are ignored in the folds",
    ),
    Mutant(
        "estimators/_cross_validation.py",
        "mean = self.scores_.mean(axis=2)",
        "mean = self.scores_.max(axis=2)",
        "cross_validation::test_scores_are_those_of_the_networks_of_fast_paths"
        " cross_validation::test_choice_is_that_of_a_loop_over_plain_estimators",
        "the best score of all folds",
    ),
    Mutant(
        "estimators/_cross_validation.py",
        "for_scorer = weights if takes_sample_weight(scorer) else {}",
        "for_scorer = {}",
        "cross_validation::test_choice_is_that_of_a_loop_over_plain_estimators",
        "weights are ignored in the scores",
    ),
    Mutant(
        "estimators/_folds.py",
        "return indices[sample_weight[indices] > 0]",
        "return indices",
        "folds",
        "samples of weight zero are in the folds",
    ),
    Mutant(
        "estimators/_hold_out.py",
        "(np.flatnonzero(number != part), np.flatnonzero(number == part))",
        "(np.flatnonzero(number == part), np.flatnonzero(number != part))",
        "tuning::test_classes_are_dealt_out_evenly_and_singletons_are_trained_on"
        " tuning::test_small_data_is_held_out_in_several_folds_and_other_data_once",
        "training and held-out samples are swapped",
    ),
    Mutant(
        "estimators/_hold_out.py",
        "                offset += len(members)\n",
        "",
        "tuning::test_classes_are_dealt_out_evenly_and_singletons_are_trained_on",
        "every class begins with the first fold",
        added="tuning::test_folds_of_many_small_classes_are_of_one_size",
    ),
    Mutant(
        "estimators/_hold_out.py",
        "for part in range(count)]",
        "for part in range(count - 1)]",
        "tuning::test_small_data_is_held_out_in_several_folds_and_other_data_once",
        "the last fold is left out",
    ),
    Mutant(
        "estimators/_curve.py",
        "np.nanmin(self.mean))[0])",
        "np.nanmin(self.mean))[-1])",
        "tuning::TestRule",
        "the smallest weight decay within a percent",
    ),
    Mutant(
        "estimators/_curve.py",
        "_standard_deviation(difference) / np.sqrt(len(difference)))",
        "_standard_deviation(difference) / len(difference))",
        "tuning::TestRule",
        "standard errors without the root",
        added="tuning::TestRule::test_lower_means_by_two_standard_errors",
    ),
    Mutant(
        "estimators/_curve.py",
        "weights / weights.mean())",
        "np.ones(len(weights)))",
        "tuning::TestRule tuning::test_integer_weights_order_and_weights_of_zero",
        "validation losses without weights",
        added="tuning::test_losses_of_held_out_samples_are_weighted",
    ),
    Mutant(
        "estimators/_curve.py",
        "HeldOut.of(self.problem, self.folds[fold][1])",
        "HeldOut.of(self.problem, self.folds[fold][0])",
        "tuning::test_losses_of_the_table_are_those_of_networks_on_held_out_samples",
        "validation on the training samples",
    ),
    Mutant(
        "estimators/_curve.py",
        "self.problem.restricted(self.folds[fold][0])",
        "self.problem",
        "tuning::test_losses_of_the_table_are_those_of_networks_on_held_out_samples",
        "training on the held-out samples too",
    ),
    Mutant(
        "estimators/_race.py",
        "curves.sort(key=lambda curve: curve.least)",
        "curves.sort(key=lambda curve: -curve.least)",
        "tuning::TestRule",
        "the worst power is compared with the usual one",
    ),
    Mutant(
        "estimators/_race.py",
        "-np.array([_padded(curve.losses[index], self.curves) for curve, index in rows])",
        "np.array([_padded(curve.losses[index], self.curves) for curve, index in rows])",
        "tuning::TestRule",
        "scores are losses",
    ),
    Mutant(
        "estimators/_path.py",
        "(largest or 1.0) * np.geomspace(1, eps, n_weight_decays)",
        "(largest or 1.0) * np.linspace(1, eps, n_weight_decays)",
        "path",
        "weight decays in even steps",
    ),
]

MUTANTS = [*_LOSSES, *_PROBLEM, *_ORACLES, *_AFTER_RELU, *_VALIDATION, *_CERTIFICATES, *_NETWORKS, *_DESIGNS]
