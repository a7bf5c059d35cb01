"""Does every public function and estimator give the right result, or an error that names the argument?

Hypothesis draws a public call whose arguments are valid, and gives one of them in another container, of another type,
or with other contents: other shapes, NaN, huge and denormal numbers, objects, strings, labels of every type. The same
numbers in another container are to give the same result; all else is to give finite numbers, or a ValueError or
TypeError with the name of the argument. Nothing may hang, no warning of NumPy may escape, arguments stay as they were,
and an estimator is as before after an error.
"""

import copy
import re
import signal
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from sklearn.base import clone

import convexbn as cb
from benchmarks.harness import environment, target, write_json
from benchmarks.record import run_numbers
from convexbn.gradient import DivergenceError

SECONDS = 60  # of a call
RTOL = 1e-6  # between results of the same numbers, as a share of the largest
SINGLE = 1e-3  # the same where numbers are in single precision
EXAMPLES = 100  # of a seed
RNG = np.random.default_rng(0)
X = np.round(RNG.standard_normal((14, 3)) * 4) / 4 + 0.25  # floats of 16 bits hold these numbers
Y = np.round(4 * (np.abs(X[:, 0]) - X[:, 1])) / 4
WEIGHTS = RNG.integers(1, 4, 14).astype(float)
LABELS = np.where(np.median(Y) < Y, 1, 0)
IMAGES = np.round(RNG.standard_normal((8, 1, 4, 4)) * 4) / 4
POINTS = np.round(RNG.standard_normal((6, 3)) * 4) / 4
SCIKIT_LEARN = re.compile(  # what it and we say of data, as good as a name
    r"Expected 2D array|Found array with|Found input variables|could not convert string|Complex data not supported"
    r"|y should be a 1d array|Unknown label type|inconsistent numbers of samples|np.matrix is not supported"
    r"|Cannot center sparse|Input contains|setting an array element|dtype='numeric'|Sparse data was passed"
    r"|Number of features|bad input shape|must be real, not|must be a string or a real number|Unsupported dtype"
    r"|No features|minimum of|at least 1 dimension|the network was trained on|not an estimator instance"
    r"|labels represented as bytes|Expected sequence or array-like|Singleton array|mix of label|data type"
    r"|Unable to convert|X of rows|is larger than the images"
)
NUMPYS = (RuntimeWarning, DeprecationWarning, FutureWarning, np.exceptions.ComplexWarning)


@dataclass(frozen=True)
class Call:
    """A public call.

    Parameters
    ----------
    name : str
        What it calls.
    function : callable
        Takes the arguments by name, after a copy of the estimator if there is one, and returns what is compared.
    arguments : dict
        Valid ones.
    estimator : estimator or None
        What must be as before after an error.
    """

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]
    estimator: Any = None


def _fitted(model: Any, data: Any, targets: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clone(model).fit(data, targets)


def methodcaller_of(method: str) -> Callable[..., Any]:
    """A function of an estimator that calls its method."""
    return lambda estimator, **arguments: getattr(estimator, method)(**arguments)


def _of_estimator(model: Any, data: np.ndarray, targets: Any, weighted: bool = True) -> Iterator[Call]:
    name = type(model).__name__
    methods = [m for m in ("predict", "predict_proba", "decision_function", "transform") if hasattr(model, m)]

    def fit(estimator: Any, **arguments: Any) -> Any:
        estimator.fit(**arguments)
        try:
            return [getattr(estimator, method)(arguments["X"]) for method in methods]
        except ValueError as error:  # of what it was fitted on
            raise RuntimeError(f"fit, and then {error}") from error

    given = {"X": data, "y": targets} | ({"sample_weight": np.ones(len(data))} if weighted else {})
    fitted = _fitted(model, data, targets)
    yield Call(f"{name}.fit", fit, given, fitted)

    def with_parameters(**parameters: Any) -> Any:
        return fit(clone(model).set_params(**parameters), **given)

    parameters = model.get_params(deep=False)
    skipped = {"device", "checkpoint", "verbose", "n_jobs", "callback", "features", "estimator", "module"}
    yield Call(f"{name}(...)", with_parameters, {k: v for k, v in parameters.items() if k not in skipped})
    for method in methods:
        yield Call(f"{name}.{method}", methodcaller_of(method), {"X": data}, fitted)


def _of_network(network: Any, data: np.ndarray, statistics: bool = True) -> Iterator[Call]:
    name, kind = type(network).__name__, type(network)
    entries = {field.name: getattr(network, field.name) for field in fields(network)}
    if all(isinstance(entry, np.ndarray) for entry in entries.values()):
        yield Call(name, lambda **given: kind(**given).predict(data), entries)
    yield Call(f"{name}.predict", network.predict, {"X": data})
    yield (
        Call(f"{name}.hidden", network.hidden, {"X": data})
        if hasattr(network, "hidden")
        else Call(f"{name}.predict ", network.predict, {"X": data})
    )
    if statistics:
        given = {"X": data, "y": np.ones((len(data), network.n_outputs)), "weight_decay": 0.1, "loss": "squared_error"}
        given["sample_weight"] = np.ones(len(data))
        yield Call(f"{name}.objective", network.objective, given)
        yield Call(
            f"{name}.with_statistics", lambda **given: network.with_statistics(**given).predict(data), {"X": data}
        )


def _estimators() -> Iterator[Call]:
    fast = {"tol": 1e-2, "max_iter": 5}
    yield from _of_estimator(cb.ConvexBNRegressor(0.1, **fast), X, Y)
    yield from _of_estimator(cb.ConvexBNRegressor(0.1, normalization="weight", n_components=None, **fast), X, Y)
    yield from _of_estimator(cb.ConvexBNRegressor(0.1, normalization="batch_after_relu", **fast), X, Y)
    yield from _of_estimator(cb.ConvexBNRegressor(0.1, activation="gated_relu", n_patterns=5, **fast), X, Y)
    yield from _of_estimator(cb.ConvexBNRegressor(n_components=2, **fast), X, Y)
    yield from _of_estimator(cb.ConvexBNClassifier(0.1, **fast), X, LABELS)
    yield from _of_estimator(cb.ConvexBNClassifier(0.1, **fast), X, np.arange(14) % 3)
    yield from _of_estimator(cb.ConvexBNRegressorCV(n_weight_decays=2, cv=2, spectral_power=(0.0,), **fast), X, Y)
    yield from _of_estimator(cb.ConvexBNClassifierCV(n_weight_decays=2, cv=2, spectral_power=(0.0,), **fast), X, LABELS)
    yield from _of_estimator(cb.ConvexBNConvRegressor(0.1, kernel_size=2, **fast), IMAGES, Y[:8])
    yield from _of_estimator(cb.ConvexBNConvClassifier(0.1, kernel_size=2, **fast), IMAGES, np.arange(8) % 2)
    yield from _of_estimator(cb.ConvexBNStackRegressor(cb.ConvexBNRegressor(0.1, **fast), n_stages=1), X, Y)
    yield from _of_estimator(cb.ConvexBNStackClassifier(cb.ConvexBNClassifier(0.1, **fast), n_stages=1), X, LABELS)
    yield from _of_estimator(cb.GDNPClassifier(max_iter=20, tol=0.5), X, LABELS, weighted=False)
    for transformer in (cb.RandomBatchNormLayers((3,)), cb.BatchNormDesign(), cb.WeightNormDesign()):
        yield from _of_estimator(transformer, X, None)
    yield from _of_estimator(cb.PostActivationBatchNormDesign(), X, None)
    yield from _of_estimator(cb.PatchDesign(2), IMAGES, None)


def _networks() -> Iterator[Call]:
    options = {"n_outputs": 1, "random_state": 0}
    first = cb.BatchNormNetwork.at_initialization(X, 4, **options)
    yield from _of_network(first, X)
    yield from _of_network(cb.PostActivationBatchNormNetwork.at_initialization(X, 4, **options), X)
    weight = cb.WeightNormNetwork(first.weights, first.gamma, first.bias, first.output_weights, first.intercept)
    yield from _of_network(weight, X)
    conv = cb.ConvBatchNormNetwork.at_initialization(IMAGES, 3, kernel_size=2, **options)
    yield from _of_network(conv, IMAGES)
    gated = cb.ConvexBNRegressor(0.1, activation="gated_relu", n_patterns=4).fit(X, Y).network_
    yield from _of_network(gated, X, statistics=False)
    yield from _of_network(
        cb.DeepNetwork((first,), cb.BatchNormNetwork.at_initialization(first.hidden(X), 2, **options)), X, False
    )
    start = {"X": X, "n_neurons": 3, "n_outputs": 1, "sample_weight": WEIGHTS, "random_state": 0}
    yield Call(
        "BatchNormNetwork.at_initialization", lambda **g: cb.BatchNormNetwork.at_initialization(**g).predict(X), start
    )
    yield Call(
        "BatchNormNetwork.prune", lambda **g: first.prune(**g).predict(X), {"X": X, "sample_weight": np.ones(14)}
    )


def _core() -> Iterator[Call]:
    from convexbn import oracles
    from convexbn.patterns import Patterns

    Z = cb.BatchNormDesign().fit_transform(X)
    problem = cb.Problem(Z, Y, weight_decay=0.1, fit_intercept=True)
    solution = cb.solve(problem, tol=1e-3, prove=False, random_state=0)
    patterns = cb.sample_patterns(Z, 8, random_state=0)
    assert isinstance(patterns, Patterns)
    v, neurons = np.round(2**10 * problem.zero_dual) / 2**10, solution.neurons
    v[-1] -= v.sum()  # zero in every precision, as a dual point with an intercept has to
    of = {"Z": Z, "y": Y, "weight_decay": 0.1, "loss": "squared_error", "fit_intercept": True, "sample_weight": WEIGHTS}

    def result(solution: Any) -> Any:
        return solution.neurons.outputs(problem.Z)

    yield Call("Problem", lambda **g: [(p := cb.Problem(**g)).zero_objective, p.zero_dual], of)
    yield Call("PostActivationProblem", lambda **g: cb.PostActivationProblem(**g).zero_objective, of)
    yield Call("Problem.dual_objective", problem.dual_objective, {"v": v})
    yield Call("DesignMatrix", lambda **g: cb.DesignMatrix(**g).row_norms, {"Z": Z, "n_patches": 1})
    weights = {"weights": neurons.weights, "output_weights": neurons.output_weights, "intercept": neurons.intercept}
    yield Call("Neurons", lambda **g: cb.Neurons(**g).outputs(problem.Z), weights)
    limits = {"tol": 1e-2, "max_time": 2.0, "max_iter": 4, "random_state": 0}
    some = {"problem": problem, **limits}
    yield Call(
        "solve",
        lambda **g: result(cb.solve(**g)),
        some | {"solver": "auto", "activation": "relu", "prove": False, "n_patterns": 5},
    )
    yield Call(
        "solve_column_generation",
        lambda **g: result(cb.solve_column_generation(**g)),
        some | {"prove": False, "relative_to": "objective"},
    )
    few = {"problem": problem, "patterns": patterns, "tol": 1e-2, "max_time": 2.0, "max_iter": 20}
    yield Call("solve_gated", lambda **g: result(cb.solve_gated(**g)), few)
    yield Call(
        "solve_reference",
        lambda **g: result(cb.solve_reference(**g)),
        few | {"activation": "relu", "solver": "CLARABEL"},
    )
    yield Call(
        "solve_path",
        lambda **g: [result(s) for s in cb.solve_path(**g)],
        some | {"weight_decays": np.array([0.5, 0.25])},
    )
    yield Call(
        "solve_closed_form",
        lambda **g: cb.solve_closed_form(**g).dual,
        {"problem": cb.Problem(np.eye(3), [1.0, -2, 3], weight_decay=0.1), "tol": 1e-3},
    )
    yield Call("weight_decay_max", cb.weight_decay_max, {"problem": problem})
    yield Call("enumerate_patterns", lambda **g: len(cb.enumerate_patterns(**g)), {"Z": X[:, :2], "max_patterns": 1000})
    yield Call(
        "sample_patterns", lambda **g: len(cb.sample_patterns(**g)), {"Z": Z, "n_directions": 5, "random_state": 0}
    )
    yield Call("count_patterns", cb.count_patterns, {"Z": X[:, :2]})
    yield Call(
        "certify",
        lambda **g: cb.certify(**g).lower_bound,
        {"problem": problem, "neurons": neurons, "v": v, "price": lambda v: oracles.price_bound(problem.Z, v)},
    )
    yield Call("price_bound", lambda **g: oracles.price_bound(**g).value, {"Z": problem.Z, "v": v})
    yield Call(
        "price_by_ascent",
        lambda **g: oracles.price_by_ascent(**g).value,
        {"Z": problem.Z, "v": v, "n_starts": 10, "random_state": 0},
    )
    yield Call(
        "price_by_branch_and_bound",
        lambda **g: oracles.price_by_branch_and_bound(**g).value,
        {"Z": cb.DesignMatrix(Z[:, :2]), "v": v, "tol": 1e-2, "max_nodes": 1000},
    )
    yield Call(
        "price_by_enumeration",
        lambda **g: oracles.price_by_enumeration(**g).value,
        {"Z": cb.DesignMatrix(Z[:, :2]), "v": v, "max_patterns": 1000},
    )
    outputs = np.array([0.5 * Y, Y])
    yield Call(
        "spectral_trace",
        lambda **g: cb.spectral_trace(**g).components,
        {"X": X, "y": Y, "outputs": outputs, "steps": np.array([1, 2]), "n_components": 2},
    )
    data = {
        "X": X,
        "y": Y,
        "sample_weight": WEIGHTS,
        "weight_decays": np.array([0.5, 0.1]),
        "tol": 1e-2,
        "max_time": 2.0,
        "n_components": 2,
        "spectral_power": 0.0,
        "loss": "squared_error",
        "normalization": "batch",
        "fit_intercept": True,
        "random_state": 0,
    }
    yield Call("convexbn_path", lambda **g: [n.predict(X) for n in cb.convexbn_path(**g).networks], data)
    model = _fitted(cb.ConvexBNRegressor(0.1, n_components=2, prove=False), X, Y)
    yield Call(
        "prove", lambda **g: cb.prove(**g).lower_bound, {"model": model, "X": X, "y": Y, "sample_weight": np.ones(14)}
    )
    compared = {
        "X": X,
        "y": Y,
        "weight_decay": 0.1,
        "tol": 1e-2,
        "max_time": 2.0,
        "random_state": 0,
        "fit_intercept": True,
        "runs": {},
    }
    yield Call("compare", lambda **g: cb.compare(**g).network.predict(X), compared)
    yield Call(
        "read_rows",
        lambda **g: np.concatenate([b.X for b in cb.read_rows(**g)]),
        {"source": X, "target": Y, "sample_weight": WEIGHTS, "block_bytes": 100},
    )


def _gradient() -> Iterator[Call]:
    from convexbn import datasets, gradient
    from convexbn.gradient import deep_weight_norm, gdnp, identity_mapping, weight_norm

    steps = {"X": X, "y": Y, "n_steps": 3, "learning_rate": 0.01, "random_state": 0}
    signs, rows = 2.0 * LABELS - 1, X / np.linalg.norm(X, axis=1)[:, None]
    trained = {"weight_decay": 0.1, "n_neurons": 3, "optimizer": "sgd", "batch_size": 4, "momentum": 0.5}
    trained |= {"dtype": "float64", "loss": "squared_error", "fit_intercept": True}
    yield Call("gradient.train", lambda **g: gradient.train(**g)[0].predict(X), steps | trained)
    objective = gdnp.LeastSquares(X, Y)
    descents = (
        gdnp.gdnp,
        gdnp.gradient_descent,
        gdnp.accelerated_gradient_descent,
        gdnp.batch_norm_descent,
        gdnp.lbfgs,
    )
    for kind, targets in ((gdnp.LeastSquares, Y), (gdnp.LearningHalfspace, signs)):
        given = {"X": X, "y": targets}
        yield Call(kind.__name__, lambda kind=kind, **g: gdnp.gdnp(kind(**g), n_steps=3).weights, given)
    for descent in descents:
        given = {"objective": objective, "start": np.ones(3), "n_steps": 3, "tol": 1e-3}
        yield Call(f"gdnp.{descent.__name__}", lambda descent=descent, **g: descent(**g).weights, given)
    units = {
        "X": X,
        "y": signs,
        "n_units": 2,
        "n_sweeps": 1,
        "n_steps": 3,
        "tol": 1e-3,
        "max_length": 10.0,
        "random_state": 0,
    }
    yield Call("gdnp_network", lambda **g: gdnp.gdnp_network(**g).weights, units)
    yield Call("limit_gram_matrices", lambda **g: weight_norm.limit_gram_matrices(**g).G, {"X": rows})
    narrow = {"n_neurons": 3, "alpha": 1.0}
    yield Call("train_weight_norm", lambda **g: weight_norm.train_weight_norm(**g)[0].predict(X), steps | narrow)
    start = {"n_features": 3, "n_neurons": 2, "alpha": 1.0, "random_state": 0}
    yield Call("weight_norm_start", lambda **g: weight_norm.weight_norm_start(**g).weights, start)
    run = {"steps": np.arange(6.0), "sizes": np.exp(-np.arange(6.0)), "learning_rate": 0.1}
    yield Call("decay_rate", weight_norm.decay_rate, run)
    W, star = 0.1 * np.eye(3), 0.2 * np.eye(3)
    for function in (
        identity_mapping.population_loss,
        identity_mapping.population_gradient,
        identity_mapping.one_point_convexity,
        identity_mapping.potential,
    ):
        yield Call(function.__name__, function, {"W": W, "W_star": star})
    yield Call(
        "draw_weights", identity_mapping.draw_weights, {"d": 3, "spectral_norm": 0.5, "n_runs": 2, "random_state": 0}
    )
    yield Call(
        "train_identity_mapping",
        lambda **g: identity_mapping.train_identity_mapping(**g)[0],
        {"start": W, "W_star": star, "n_steps": 3, "learning_rate": 0.1, "random_state": 0},
    )
    smooth = deep_weight_norm.SmoothNetwork([np.eye(3)], np.ones(3))
    deep = {"X": rows, "y": signs, "start": smooth, "learning_rate": 0.01, "n_steps": 3}
    yield Call(
        "train_deep_weight_norm", lambda **g: np.asarray(deep_weight_norm.train_deep_weight_norm(**g)[0].weights), deep
    )
    bound = {"network": smooth, "n_samples": 10, "input_norm": 1.0}
    yield Call("generalization_bound", deep_weight_norm.generalization_bound, bound | {"confidence": 0.95})
    yield Call("rademacher_bound", deep_weight_norm.rademacher_bound, bound)
    yield Call(
        "make_teacher",
        lambda **g: datasets.make_teacher(**g)[0],
        {"n_samples": 5, "n_features": 2, "n_teachers": 2, "decay": 10.0, "noise": 0.1, "random_state": 0},
    )


def _displays() -> Iterator[Call]:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    from convexbn import plotting

    model = _fitted(cb.ConvexBNRegressor(0.1, tol=1e-2, max_iter=5), X, Y)
    path = cb.convexbn_path(X, Y, weight_decays=[0.5, 0.1], tol=1e-2)
    trace = cb.spectral_trace(X, Y, outputs=[0.5 * Y, Y])

    def drawn(draw: Callable[..., Any]) -> Callable[..., Any]:
        def draw_and_close(**arguments: Any) -> float:
            try:
                draw(**arguments)
            finally:
                plt.close("all")
            return 0.0

        return draw_and_close

    yield Call(
        "NeuronsDisplay.from_estimator",
        drawn(plotting.NeuronsDisplay.from_estimator),
        {"model": model, "X": X, "y": Y, "features": [0, 1], "output": 0},
    )
    yield Call(
        "CertificateDisplay",
        drawn(lambda **g: plotting.CertificateDisplay(**g).plot()),
        {"certificate": model.certificate_},
    )
    yield Call("PathDisplay", drawn(lambda **g: plotting.PathDisplay(**g).plot()), {"path": path})
    yield Call("plot_spectral_trace", drawn(plotting.plot_spectral_trace), {"trace": trace, "xlabel": "step"})


@cache
def calls() -> tuple[Call, ...]:
    """All public calls that are drawn."""
    return tuple(call for part in (_estimators, _networks, _core, _gradient, _displays) for call in part())


def same_numbers(values: np.ndarray, folder: Path) -> dict[str, Callable[[], Any]]:
    """The same numbers in other containers and types."""

    def on_disk(mode: Any) -> Any:
        path = folder / "values.npy"
        np.save(path, values)
        return np.load(path, mmap_mode=mode)

    def strided() -> np.ndarray:
        larger = np.full(tuple(2 * size for size in values.shape), np.nan)
        part = larger[tuple(slice(None, None, 2) for _ in values.shape)]
        part[...] = values
        return part

    def read_only() -> np.ndarray:
        array = values.copy()
        array.flags.writeable = False
        return array

    def pandas(**options: Any) -> Any:
        import pandas as pd

        return (pd.DataFrame if values.ndim == 2 else pd.Series)(values, **options)

    def polars() -> Any:
        import polars as pl

        return pl.DataFrame(values) if values.ndim == 2 else pl.Series(values)

    made: dict[str, Callable[[], Any]] = {
        "list": values.tolist,
        "tuple": lambda: tuple(values.tolist()),
        "Fortran order": lambda: np.asfortranarray(values),
        "strided": strided,
        "reversed twice": lambda: values[::-1].copy()[::-1],
        "read-only": read_only,
        "memory map": lambda: on_disk("r"),
        "copy-on-write map": lambda: on_disk("c"),
        "objects": lambda: values.astype(object),
        "masked array without mask": lambda: np.ma.array(values),
        "float32": lambda: values.astype(np.float32),
        "float16": lambda: values.astype(np.float16),
        "longdouble": lambda: values.astype(np.longdouble),
        "big-endian": lambda: values.astype(">f8"),
        "subclass": lambda: values.view(type("Sub", (np.ndarray,), {})),
    }
    if values.ndim <= 2:
        made |= {"polars": polars, "pandas": pandas, "pandas nullable": lambda: pandas(dtype="Float64")}
        made |= {"pandas objects": lambda: pandas(dtype=object)}
    return made


def other_arrays(values: np.ndarray, draw: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
    """Arrays with other numbers, shapes and types."""

    def changed(entry: Any) -> np.ndarray:
        array = values.astype(float)
        if array.size:
            array.flat[draw(st.integers(0, array.size - 1))] = entry
        return array

    def nullable() -> Any:
        import pandas as pd

        column = pd.array([None, *[1.0] * (len(values) - 1)], dtype="Float64")
        return pd.DataFrame({"a": column, "b": column}) if values.ndim > 1 else pd.Series(column)

    def categories() -> Any:
        import pandas as pd

        column = pd.Categorical(["a", "b"] * (len(values) // 2) + ["c"] * (len(values) % 2))
        return pd.DataFrame({"a": column, "b": column}) if values.ndim > 1 else pd.Series(column)

    def sparse() -> Any:
        from scipy.sparse import csr_array

        return csr_array(np.atleast_2d(values if values.ndim < 3 else values[0, 0]))

    sizes = st.integers(0, 4)
    number = st.floats(width=64) | st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1e300, 1e160, 5e-324, 1e-200])
    return {
        "one number": lambda: changed(draw(number)),
        "all numbers": lambda: np.full(values.shape, draw(number)),
        "scaled": lambda: values * draw(st.sampled_from([1e300, 1e150, 1e-150, 1e-300, 5e-324, -1.0, 0.0])),
        "0-d": lambda: np.array(draw(number)),
        "1-D": lambda: values.ravel(),
        "another axis": lambda: values[None],
        "column": lambda: values.reshape(len(values), -1)[:, :1],
        "transposed": lambda: values.T,
        "empty": lambda: values[:0],
        "no columns": lambda: values.reshape(len(values), -1)[:, :0],
        "one row": lambda: values[:1],
        "two rows": lambda: values[:2],
        "a row less": lambda: values[:-1],
        "any shape": lambda: np.ones([draw(sizes) for _ in range(draw(st.integers(0, 4)))]),
        "equal rows": lambda: np.repeat(values[:1], len(values), axis=0),
        "constant column": lambda: np.where(np.arange(values.shape[-1]) == 0, 1.0, values),
        "complex": lambda: values + 0j,
        "complex numbers": lambda: values + 1j,
        "bool": lambda: values > 0,
        "int8": lambda: values.astype(np.int8),
        "uint64": lambda: np.abs(values).astype(np.uint64),
        "negative": lambda: -np.abs(values),
        "strings": lambda: values.astype(str),
        "words": lambda: np.full(values.shape, "word"),
        "bytes": lambda: np.full(values.shape, b"1"),
        "None inside": lambda: np.where(np.arange(values.size).reshape(values.shape) == 0, None, values.astype(object)),
        "dictionaries inside": lambda: np.full(values.shape, {}, dtype=object),
        "long integers": lambda: np.full(values.shape, 10**400, dtype=object),
        "masked array": lambda: np.ma.array(values, mask=np.arange(values.size).reshape(values.shape) == 0),
        "dates": lambda: np.full(values.shape, np.datetime64("2020-01-01")),
        "durations": lambda: np.full(values.shape, np.timedelta64(3, "s")),
        "records": lambda: np.zeros(values.shape, dtype=[("a", "f8")]),
        "ragged": lambda: [[1.0], [1.0, 2.0]] * (len(values) // 2),
        "missing": nullable,
        "categories": categories,
        "sparse": sparse,
        "matrix": lambda: np.asmatrix(values.reshape(len(values), -1)),
    }


LABEL_TYPES: dict[str, Callable[[np.ndarray], Any]] = {  # of the same classes
    "strings": lambda labels: np.array(["maybe", "no", "yes"])[labels],
    "objects": lambda labels: np.array(["maybe", "no", "yes"], dtype=object)[labels],
    "gaps": lambda labels: np.array([-7, 3, 10**12])[labels],
    "floats": lambda labels: np.array([0.0, 1.0, 2.0])[labels],
    "list": lambda labels: labels.tolist(),
    "list of strings": lambda labels: [("maybe", "no", "yes")[label] for label in labels],
    "int8": lambda labels: labels.astype(np.int8),
    "uint64": lambda labels: labels.astype(np.uint64),
    "column": lambda labels: labels[:, None],
    "pandas strings": lambda labels: __import__("pandas").Series(np.array(["maybe", "no", "yes"])[labels]),
    "pandas categories": lambda labels: __import__("pandas").Series(
        np.array(["maybe", "no", "yes"])[labels], dtype="category"
    ),
    "pandas nullable": lambda labels: __import__("pandas").Series(labels, dtype="Int64"),
    "polars": lambda labels: __import__("polars").Series(labels),
    "bytes": lambda labels: np.array([b"no", b"yes", b"maybe"])[labels],
}
OTHER_LABELS: dict[str, Callable[[np.ndarray], Any]] = {
    "one class": lambda labels: np.zeros_like(labels),
    "all different": lambda labels: np.arange(len(labels)),
    "one of a class": lambda labels: np.where(np.arange(len(labels)) == 0, 5, labels),
    "fractions": lambda labels: labels + 0.5 * np.arange(len(labels)),
    "mixed": lambda labels: np.array([*labels[:-1].tolist(), "x"], dtype=object),
    "numbers and None": lambda labels: np.array([*labels[:-1].tolist(), None], dtype=object),
    "strings and None": lambda labels: np.array(["a", "b"] * (len(labels) // 2 - 1) + ["a", None], dtype=object),
    "strings and NaN": lambda labels: np.array(["a", "b"] * (len(labels) // 2 - 1) + ["a", np.nan], dtype=object),
    "pandas missing": lambda labels: __import__("pandas").Series([*labels[:-1].tolist(), None], dtype="Int64"),
    "tuples": lambda labels: [(int(label),) for label in labels],
    "two columns": lambda labels: np.column_stack([labels, labels]),
    "bools": lambda labels: labels > 0,
}
ODD: tuple[Any, ...] = (
    None, True, False, "", "nonsense", b"bytes", [], (), {}, {"a": 1}, object, object(), 1j, float("nan"), float("inf"),
    -float("inf"), 0, -1, 1, 2, 0.0, -0.0, 0.5, 1.5, 1e300, 5e-324, 10**30, -(10**30), 10**400, np.float32(0.5),
    np.int8(1), np.bool(True), np.array(1), np.array([1.0]), np.array([]), [1, 2], (0.5,), [[1]], "1", np.nan,
    np.float64("inf"), np.str_("x"), np.datetime64("2020-01-01"), lambda *given: None, range(3), {1, 2},
)  # fmt: skip


def drawn_value(call: Call, name: str, draw: Callable[..., Any], folder: Path) -> tuple[str, Any, bool]:
    """Name of a value that takes the place of an argument, the value, and whether the result must be the same."""
    value = call.arguments[name]
    if not isinstance(value, np.ndarray) or draw(st.integers(0, 9)) == 0:
        odd = ODD[draw(st.integers(0, len(ODD) - 1))]
        if isinstance(value, (int, float)) and draw(st.booleans()):
            odd = draw(st.integers(-5, 40) if isinstance(value, int) else st.floats())
        return re.sub(r" at 0x\w+", "", f"{odd!r}")[:60], odd, False
    if value.dtype.kind == "i" and value.ndim == 1 and name == "y":
        same, other = LABEL_TYPES, OTHER_LABELS
        kinds = [*same, *other]
        kind = kinds[draw(st.integers(0, len(kinds) - 1))]
        return kind, (same | other)[kind](value), kind in same
    same_values, others = same_numbers(value, folder), other_arrays(value, draw)
    if call.name == "read_rows" and name == "source":
        others |= {kind: same_values.pop(kind) for kind in ("list", "tuple")}  # are blocks
    chosen = same_values if draw(st.booleans()) else others
    kind = list(chosen)[draw(st.integers(0, len(chosen) - 1))]
    return kind, chosen[kind](), chosen is same_values


def numbers(result: Any) -> list[np.ndarray]:
    """The arrays of a result."""
    if isinstance(result, (list, tuple)):
        return [array for part in result for array in numbers(part)]
    return [np.asarray(result)]


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise a TimeoutError in a call that takes longer."""

    def late(*given: Any) -> None:
        raise TimeoutError(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _state(estimator: Any) -> Any:
    """What an estimator holds: its attributes, by identity, and copies of its arrays."""
    held = dict(vars(estimator))
    return held, {name: value.copy() for name, value in held.items() if isinstance(value, np.ndarray)}


def _unchanged(estimator: Any, before: Any) -> bool:
    held, arrays = before
    now = vars(estimator)
    return (
        set(now) == set(held)
        and all(now[name] is held[name] for name in held)
        and all(np.array_equal(now[name], array) or array.dtype.kind in ("f", "O") for name, array in arrays.items())
    )


@cache
def _expected(number: int) -> list[np.ndarray]:
    call = calls()[number]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = {name: copy.copy(value) for name, value in call.arguments.items()}
        return numbers(call.function(*_estimator(call), **arguments))


def _estimator(call: Call) -> list[Any]:
    return [] if call.estimator is None else [copy.deepcopy(call.estimator)]


def attempt(number: int, name: str, kind: str, value: Any, same: bool) -> str:
    """How a call with this value of an argument ends."""
    call = calls()[number]
    expected = _expected(number)
    arguments = {n: v.copy() if isinstance(v, np.ndarray) else v for n, v in call.arguments.items()} | {name: value}
    copies = {n: v.copy() for n, v in arguments.items() if type(v) is np.ndarray}
    estimator = _estimator(call)
    before = [_state(part) for part in estimator]
    error: Exception | None = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with limited(SECONDS):
                result = call.function(*estimator, **arguments)
        except Exception as raised:
            error = raised
    for warning in caught:
        if issubclass(warning.category, NUMPYS):
            return f"FAILED: warning: {warning.category.__name__}: {str(warning.message)[:80]}"
    for n, array in copies.items():
        given = arguments[n]
        if array.dtype.kind in "biufc" and not np.array_equal(array, given, equal_nan=array.dtype.kind in "fc"):
            return f"FAILED: {n} was changed in place"
    if error is not None:
        text = f"{type(error).__name__}: {str(error)[:160]}"
        if not isinstance(error, RuntimeError) and not all(map(_unchanged, estimator, before)):
            return f"FAILED: the estimator was changed by {text}"
        if not isinstance(error, (ValueError, TypeError, DivergenceError)):
            return f"FAILED: {text}"
        if same and kind != "bytes":
            return f"FAILED: refused: {text}"
        if SCIKIT_LEARN.search(str(error)) or isinstance(error, DivergenceError):
            return "refused"
        named = any(re.search(rf"\b{re.escape(n)}\b", str(error)) for n in call.arguments)
        return "refused" if named else f"FAILED: not named: {text}"
    found = numbers(result)
    if kind in ("float32", "float16") and getattr(next(iter(estimator), None), "activation", "") == "gated_relu":
        return "finite"  # its gates are those of rounded rows, which are other ones where rows are degenerate
    if same:
        scale = max((float(np.abs(e).max(initial=0)) for e in expected if e.dtype.kind in "fiu"), default=0)
        tolerance = (SINGLE if kind in ("float32", "float16") else RTOL) * scale
        for one, other in zip(expected, found, strict=True):
            if one.dtype.kind not in "fiub" or other.dtype.kind not in "fiub":
                continue  # labels of another type
            if kind == "gaps" and one.dtype.kind == "i":
                continue  # labels with other numbers
            if one.shape != other.shape or not np.allclose(one, other, rtol=0, atol=tolerance):
                return "FAILED: another result"
        return "same"
    if call.name not in ("Problem.dual_objective", "Neurons") and not all(
        np.isfinite(array).all() for array in found if array.dtype.kind in "fc"
    ):
        return "FAILED: the result is not finite"
    return "finite"


def run_seed(number: int, examples: int = EXAMPLES, only: str = "") -> dict[str, Any]:
    """Counts of outcomes of the examples that Hypothesis draws with this seed, and the failures."""
    outcomes: Counter[str] = Counter()
    failures: dict[str, str] = {}
    chosen = [i for i, call in enumerate(calls()) if only in call.name]
    with tempfile.TemporaryDirectory() as folder:

        @seed(number)
        @settings(
            max_examples=examples, database=None, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(st.data())
        def example(data: Any) -> None:
            i = chosen[data.draw(st.integers(0, len(chosen) - 1))]
            names = list(calls()[i].arguments)
            name = names[data.draw(st.integers(0, len(names) - 1))]
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kind, value, same = drawn_value(calls()[i], name, data.draw, Path(folder))
            outcome = attempt(i, name, kind, value, same)
            outcomes[outcome.partition(":")[0]] += 1
            if outcome.startswith("FAILED"):
                failures[f"{calls()[i].name}, {name}={kind}"] = outcome
                print(f"seed {number}, {calls()[i].name}, {name}={kind}: {outcome}", flush=True)

        example()
    return {"examples": sum(outcomes.values()), "outcomes": dict(outcomes), "failures": failures}


def main() -> None:
    """Run the seeds that are not done yet, each kept as it comes, and write the counts."""
    args, done = run_numbers(
        "trust_inputs",
        __doc__,
        lambda number, args: run_seed(number, 30 if args.quick else EXAMPLES, args.only),
        count=100,
        only="",  # part of the name of the calls
    )
    outcomes = sum((Counter(found["outcomes"]) for found in done), Counter())
    failures = {case: outcome for found in done for case, outcome in found["failures"].items()}
    results = {"seeds": len(done), "examples": sum(outcomes.values()), "outcomes": dict(outcomes), "failures": failures}
    statement = "Unusual arguments of every public call: the right result, or an error that names the argument"
    figure = f"{outcomes['FAILED']} failures in {results['examples']:,} calls"
    results["targets"] = [target(statement, figure, not failures)]
    write_json(args.json, {"environment": environment(["hypothesis"]), "quick": args.quick, **results})


if __name__ == "__main__":
    main()
