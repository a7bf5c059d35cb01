"""Objectives of networks and bounds from dual points in exact rational arithmetic, for two columns of Z."""

from fractions import Fraction
from itertools import product
from math import isqrt

DIGITS = 10**40  # square roots are known to so many


def exact(values):
    """Nested lists of the rationals that floats are."""
    return [exact(value) for value in values] if hasattr(values, "__len__") else Fraction(float(values))


def root_below(value):
    """A rational no larger than the square root of one, to forty digits."""
    return Fraction(isqrt(value.numerator * value.denominator * DIGITS**2), value.denominator * DIGITS)


def dot(one, other):
    return sum((a * b for a, b in zip(one, other, strict=True)), Fraction(0))


def loss(name, f, y, delta):
    """Loss of one output, of the losses that are rational."""
    if name == "squared_error":
        return (f - y) ** 2 / 2
    if name == "huber":
        residual = abs(f - y)
        return residual**2 / 2 if residual <= delta else delta * residual - delta**2 / 2
    return max(1 - y * f, Fraction(0)) ** (2 if name == "squared_hinge" else 1)


def objective_below(problem, neurons):
    """The exact objective of a network, or forty digits of it from below."""
    Z, y, p = exact(problem.Z.rows()), exact(problem.y[:, 0]), exact(problem.sample_weight)
    weights, outputs, intercept = (
        exact(neurons.weights.T),
        exact(neurons.output_weights[:, 0]),
        exact(neurons.intercept),
    )
    delta = Fraction(getattr(problem.loss, "delta", 1.0))
    f = [sum((max(dot(z, s), Fraction(0)) * c for s, c in zip(weights, outputs, strict=True)), intercept[0]) for z in Z]
    fit = sum(p_i * loss(problem.loss.name, f_i, y_i, delta) for p_i, f_i, y_i in zip(p, f, y, strict=True))
    cost = sum((root_below(dot(s, s) * c**2) for s, c in zip(weights, outputs, strict=True)), Fraction(0))
    return fit + Fraction(problem.weight_decay) * cost


def squared_price(Z, v):
    """Square of the largest price of all directions of the plane.

    All patterns lie beside a ray on which a row vanishes. In a cell of the pattern the price is linear, so it is
    largest along its gradient, if that lies in the cell, or on the rays.
    """
    rays = [(sign * z[1], -sign * z[0]) for z, sign in product(Z, (1, -1)) if any(z)]
    largest = Fraction(0)
    for ray in rays:
        along = [dot(z, ray) for z in Z]
        price = sum((v_i * max(t, Fraction(0)) for v_i, t in zip(v, along, strict=True)), Fraction(0))
        largest = max(largest, price**2 / dot(ray, ray))
        for across in ((-ray[1], ray[0]), (ray[1], -ray[0])):
            active = [t > 0 or (t == 0 and dot(z, across) > 0) for z, t in zip(Z, along, strict=True)]
            gradient = [
                sum((v_i * z[j] for v_i, z, on in zip(v, Z, active, strict=True) if on), Fraction(0)) for j in (0, 1)
            ]
            for sign in (1, -1):
                inside = [sign * dot(z, gradient) for z in Z]
                if all(t >= 0 if on else t <= 0 for t, on in zip(inside, active, strict=True)):
                    largest = max(largest, dot(gradient, gradient))
    return largest


def dual_bound(problem, v):
    """The dual objective of the feasible point nearest to v on its ray, after entries of the heavier sign were shrunk
    until they add up to zero, under an intercept."""
    Z, y, p, v = (exact(values) for values in (problem.Z.rows(), problem.y[:, 0], problem.sample_weight, v[:, 0]))
    if problem.fit_intercept:
        positive, negative = sum(max(v_i, Fraction(0)) for v_i in v), sum(max(-v_i, Fraction(0)) for v_i in v)
        least = min(positive, negative)
        v = [v_i * least / (positive if v_i > 0 else negative) if v_i else v_i for v_i in v]
    decay, price = Fraction(problem.weight_decay), squared_price(Z, v)
    if price > decay**2:
        v = [v_i * decay * root_below(1 / price) for v_i in v]
    total = Fraction(0)
    for p_i, v_i, y_i in zip(p, v, y, strict=True):
        u = -v_i / p_i
        if problem.loss.name in ("squared_error", "huber"):
            total += p_i * (u * y_i + u**2 / 2)
        else:
            total += p_i * (u * y_i + ((u * y_i) ** 2 / 4 if problem.loss.name == "squared_hinge" else 0))
    return -total
