"""Column generation for networks that are batch-normalized after the ReLU."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from convexbn._utils.checks import make_generator
from convexbn._utils.threads import on_one_thread
from convexbn.model._normalized_neurons import NormalizedNeurons, prune_normalized
from convexbn.model._post_activation import PostActivationProblem
from convexbn.oracles import (
    NormalizedMaxima,
    Price,
    find_normalized_maxima,
    normalized_price_bound,
    normalized_quickly_enumerated,
    price_of_normalized_patterns,
    priced_neurons,
)
from convexbn.patterns._patterns import Patterns, enumerate_patterns
from convexbn.solvers._certificate import Certificate, Oracle, Search, certify, dual_bound
from convexbn.solvers._checkpoint import Checkpoint, CheckpointPath, Rounds, arrays_of, fingerprint_of
from convexbn.solvers._monitor import Callback, Monitor
from convexbn.solvers._solution import Solution, Status, status_of
from convexbn.solvers._tolerance import Reference, Tolerance
from convexbn.solvers.post_activation._merging import merge
from convexbn.solvers.post_activation._newton import newton
from convexbn.solvers.post_activation._quasi_newton import best_lengths, quasi_newton
from convexbn.solvers.post_activation._scaling import Whitened
from convexbn.solvers.relu._options import ACCURATE, Options, most_new

_FIRST_LENGTH, _LEAST_LENGTH = 0.1, 1e-3  # of random neurons, and of those kept, relative to the longest
_NEW_LENGTH = 1e-3  # of a neuron that enters, where targets are of order one
_NEWTON_GAP = 0.1  # gap from which on neurons move by Newton steps
_NEWTON_WEIGHTS = 1500  # up to so many weights all neurons move by Newton steps
_LEAST_RTOL, _MOST_RTOL = 1e-14, 1e-4  # of the corrective step
_STALLED = 1e-13  # relative decrease of a round that counts as none
_POLISHED_GAP = 3e-2  # gap from which on the oracle polishes what it finds
_CONFIRMING = 4  # times as many starts before a gap within the tolerance ends the run


@on_one_thread
def solve_post_activation(
    problem: PostActivationProblem,
    *,
    tol: float = 1e-6,
    relative_to: Reference = "objective",
    max_iter: int | None = 100,
    max_time: float | None = None,
    start: NormalizedNeurons | None = None,
    prove: bool | str = True,
    options: Options = ACCURATE,
    random_state: int | np.random.Generator | None = None,
    checkpoint: CheckpointPath | Checkpoint | None = None,
    callback: Callback | None = None,
    verbose: bool = False,
) -> Solution:
    """Train a network that is batch-normalized after the ReLU by column generation.

    The linear minimisation oracle is the largest ratio |V^T h| / |h| over neurons h = relu(Zw) + shift. What it finds
    enters at little length; the restricted master problem finds the best lengths for all, and a corrective step, L-BFGS
    and then Newton's method with kinks, moves all neurons together. With one output and few activation patterns the
    price of every direction is proved, pattern by pattern; else the certificate is local, beside the bound that always
    holds.

    Parameters
    ----------
    problem : PostActivationProblem
        Training problem with a smooth loss.
    tol, relative_to, max_iter, max_time, checkpoint, callback, verbose
        As in `solve_column_generation`.
    start : NormalizedNeurons or None, default=None
        Network to start from.
    prove : bool or "auto", default=True
        Whether to prove the price of every direction where patterns are few.
    options : Options, default=ACCURATE
        Choices of the algorithm: numbers of starts, new neurons and steps, and the polish of the oracle.
    random_state : int, Generator or None, default=None
        Seed of the random starts.

    Returns
    -------
    solution : Solution
        Its neurons are `NormalizedNeurons`.

    Raises
    ------
    ValueError
        If the loss is not smooth, or an argument is out of range; or if `checkpoint` is damaged, or of other data,
        parameters or version than this call.

    Warns
    -----
    ConvergenceWarning
        If the gap exceeds `tol`.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import PostActivationProblem, solve
    >>> Z = np.array([[-2.0, 1.0], [0.0, 1.0], [1.0, 1.0], [3.0, 1.0]])
    >>> problem = PostActivationProblem(Z, [1.0, -1.0, 0.0, 2.0], weight_decay=0.1, fit_intercept=True)
    >>> solution = solve(problem, random_state=0)
    >>> solution.certificate.scope, solution.certificate.gap < 1e-6
    ('global', True)
    """
    _check(problem, start)
    tolerance = Tolerance.of(problem, tol, relative_to)
    monitor = Monitor("column generation", max_iter=max_iter, max_time=max_time, callback=callback, verbose=verbose)
    whitened = Whitened.of(problem)
    inside = whitened.problem
    provable = bool(prove) and normalized_quickly_enumerated(inside.Z, inside.n_outputs)
    patterns = enumerate_patterns(inside.Z) if provable else None
    rng = make_generator(random_state)
    seed = None if random_state is None else rng.bit_generator.state
    parameters = ["column generation", options, tolerance, bool(prove), seed]
    rounds = Rounds(
        Checkpoint(checkpoint, lambda: fingerprint_of(problem, parameters, arrays_of(start)), State), monitor, rng
    )
    run = Run(inside, options, whitened.scaled_tolerance(tolerance), rng, monitor, rounds.keep)
    resumed = rounds.resume()
    state = State(inside.zero_network if start is None else whitened.scaled(start)) if resumed is None else resumed
    with monitor:
        if resumed is None:
            state = _with_first_neurons(run, state) if start is None else state
            run.keep(state)
        for later in column_generation(run, state, patterns):
            state = later
    neurons = whitened.unscaled(prune_normalized(state.neurons, inside.Z, inside.sample_weight))
    certificate = _certificate(whitened, problem, neurons, state)
    status = status_of(certificate, tolerance, "Column generation", monitor.ending or Status.NOT_CONVERGED)
    v = whitened.unscaled_dual(state.v) if state.v is not None else problem.zero_dual
    return Solution(neurons, v, certificate, status, monitor.n_iter, tuple(monitor.history))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Run:
    """What stays the same in a run; the problem is whitened, with targets of order one.

    `keep` is called with the state after every completed round.
    """

    problem: PostActivationProblem
    options: Options
    tolerance: Tolerance
    rng: np.random.Generator
    monitor: Monitor
    keep: Callable[["State"], None] = lambda state: None


@dataclass(frozen=True, eq=False)
class State:
    """The network, what the last call of the oracle said of it or of the one before, and of the rounds so far.

    `gap` is that of the last round; `progress` the relative decrease of the objective in it.
    """

    neurons: NormalizedNeurons
    v: np.ndarray | None = None
    found: NormalizedMaxima | None = None
    price: Price | None = None
    bound: float = 0.0
    thorough: bool = False
    progress: float = np.inf
    gap: float = np.inf
    stalled: int = 0
    n_rounds: int = 0


def column_generation(run: Run, state: State, patterns: Patterns | None = None) -> Iterator[State]:
    """Yield the states of column generation, whose objective never rises."""
    problem, stop = run.problem, run.monitor.out_of_time
    while state.n_rounds != run.options.max_rounds:
        objective = problem.objective(state.neurons)
        polish = state.gap < _POLISHED_GAP or state.progress <= _STALLED
        state = _searched(run, state, 1, polish)  # linear minimisation oracle
        if run.tolerance.reached(objective, state.bound) and not stop():
            state = _searched(run, state, _CONFIRMING)
            if patterns is not None and run.tolerance.reached(objective, state.bound):
                state = _proved(run, state, patterns)
        yield state
        gap = (objective - state.bound) / max(objective, np.finfo(float).tiny)
        goes_on = run.monitor.goes_on(objective, gap, len(state.neurons))
        stalled = state.stalled + 1 if state.progress <= _STALLED and state.thorough else 0
        if run.tolerance.reached(objective, state.bound) or stalled == run.options.stalled_rounds or not goes_on:
            return
        neurons = _enlarged(run, state)  # restricted master problem
        neurons = _corrected(run, neurons, gap, state.progress)  # corrective step
        progress = (objective - problem.objective(neurons)) / max(objective, np.finfo(float).tiny)
        n_rounds = state.n_rounds + 1
        state = replace(state, neurons=neurons, progress=progress, gap=gap, stalled=stalled, n_rounds=n_rounds)
        run.keep(state)
        yield state


def _with_first_neurons(run: Run, state: State) -> State:
    """Random neurons after a quasi-Newton descent in the place of none, unless none is better."""
    problem, (a_column, most) = run.problem, run.options.first_neurons
    count = min(a_column * problem.Z.n_columns, most)
    if count == 0:
        return state
    neurons = NormalizedNeurons.on(
        problem.Z,
        problem.sample_weight,
        _FIRST_LENGTH * run.rng.standard_normal((problem.Z.n_columns, count)),
        np.zeros(count),
        problem.output_directions.random(count, run.rng),
        state.neurons.intercept,
    )
    neurons = quasi_newton(
        problem, neurons, max_steps=run.options.quasi_newton_steps, stop=run.monitor.out_of_time
    ).without_zeros(_LEAST_LENGTH)
    neurons = merge(problem, neurons)
    return replace(state, neurons=neurons) if problem.objective(neurons) < problem.objective(state.neurons) else state


def _searched(run: Run, state: State, effort: int, polish: bool = True) -> State:
    """Call the oracle at the network's dual point, from so many times the usual number of starts."""
    problem, Z, p = run.problem, run.problem.Z, run.problem.sample_weight
    v = problem.feasible_dual(problem.dual_point(state.neurons.outputs(Z)))
    several = 1 if problem.output_directions.fixed else run.options.several
    n_starts = effort * several * run.options.n_starts
    starts = run.rng.standard_normal((Z.n_columns, n_starts))
    if len(state.neurons):
        around = starts[:, ::4]
        chosen = run.rng.integers(len(state.neurons), size=around.shape[1])
        active = state.neurons.weights[:, chosen]
        around *= run.rng.uniform(0.01, 0.5, around.shape[1]) / np.sqrt(Z.n_columns)
        around += active / np.maximum(np.linalg.norm(active, axis=0), np.finfo(float).tiny)
    found = find_normalized_maxima(
        Z,
        p,
        v,
        starts,
        threshold=problem.weight_decay * (1 + run.tolerance.relative(problem.objective(state.neurons)) / 10),
        count=most_new(len(state.neurons), Z.n_samples, several, run.options),
        polish=run.options.polish and polish,
        stop=run.monitor.out_of_time,
    )
    known = priced_neurons(Z, p, v, state.neurons.weights).prices.max(initial=0)
    price = Price(max(float(known), float(found.prices.max(initial=0)), float(np.linalg.norm(v.sum(axis=0)))), "local")
    thorough = run.options.polish and polish and not run.monitor.out_of_time()
    return replace(state, v=v, found=found, price=price, bound=dual_bound(problem, v, price), thorough=thorough)


def _proved(run: Run, state: State, patterns: Patterns) -> State:
    """Prove the price of every direction, or find one that prices higher."""
    assert state.v is not None
    assert state.price is not None
    problem = run.problem
    price = price_of_normalized_patterns(
        problem.Z, problem.sample_weight, patterns, state.v, stop=run.monitor.out_of_time
    )
    if price is None:
        return state
    price = replace(price, value=max(price.value, state.price.value))
    bound, found = dual_bound(problem, state.v, price), state.found
    enough = run.tolerance.reached(problem.objective(state.neurons), bound)
    if price.direction is not None and not enough:
        found = priced_neurons(problem.Z, problem.sample_weight, state.v, price.direction[:, None])
    return replace(state, found=found, price=price, bound=bound)


def _enlarged(run: Run, state: State) -> NormalizedNeurons:
    """Let the neurons that were found enter, at the best lengths for all."""
    assert state.found is not None
    neurons, found, problem = state.neurons, state.found, run.problem
    if len(found) == 0:
        return neurons
    entering = NormalizedNeurons.on(
        problem.Z,
        problem.sample_weight,
        _NEW_LENGTH * found.weights,
        _NEW_LENGTH * found.shift,
        found.output_directions,
        neurons.intercept,
    )
    joined = neurons.joined(entering)
    if run.options.master_steps == 0:
        return joined
    return best_lengths(problem, joined, max_steps=run.options.master_steps, stop=run.monitor.out_of_time)


def _corrected(run: Run, neurons: NormalizedNeurons, gap: float, progress: float) -> NormalizedNeurons:
    """Move all neurons together: by L-BFGS, then by Newton's method where they are few enough."""
    problem, stop, options = run.problem, run.monitor.out_of_time, run.options
    steps, single = options.quasi_newton_steps, options.single_precision
    neurons = quasi_newton(problem, neurons, max_steps=steps, single_precision=single, stop=stop)
    neurons = merge(problem, neurons)
    weights = len(neurons) * (problem.Z.n_columns + 1 + problem.n_outputs)
    if options.newton_sweeps and weights <= _NEWTON_WEIGHTS and gap < _NEWTON_GAP:
        rtol = float(np.clip(min(gap**2, progress) / 100, _LEAST_RTOL, _MOST_RTOL))
        neurons = newton(problem, neurons, rtol=rtol, max_steps=options.newton_sweeps, stop=stop)
    return neurons


def _certificate(
    whitened: Whitened, problem: PostActivationProblem, neurons: NormalizedNeurons, state: State
) -> Certificate:
    """What the last call of the oracle certifies of the network of the original problem."""
    if state.v is None:
        bound = partial(normalized_price_bound, sample_weight=problem.sample_weight)
        return certify(problem, neurons, problem.zero_dual, bound, Search.NOT_SEARCHED, Oracle.NORM_BOUND)
    v = whitened.unscaled_dual(state.v)
    assert state.price is not None
    price = Price(state.price.value * whitened.target_scale * (1 + 1e-12), state.price.scope)
    search = Search.UNFINISHED if state.found is not None and len(state.found) else Search.ASCENT
    search = search if state.thorough else Search.NOT_SEARCHED
    oracle = Oracle.ENUMERATION if price.scope == "global" else Oracle.NORM_BOUND
    return certify(problem, neurons, v, lambda v: price, search, oracle)


def _check(problem: PostActivationProblem, start: NormalizedNeurons | None) -> None:
    if not np.isfinite(problem.loss.curvature):
        raise ValueError(
            f"Column generation takes smooth losses, not {problem.loss.name!r}; use 'squared_hinge' instead of "
            "'hinge', or solver='CLARABEL'."
        )
    if start is None:
        return
    if not isinstance(start, NormalizedNeurons):
        raise ValueError(
            f"start={start!r} must be NormalizedNeurons, such as solution.neurons of another weight decay."
        )
    shape = problem.Z.n_columns, problem.n_outputs
    if (len(start.weights), len(start.intercept)) != shape or not start.finite:
        raise ValueError(
            f"start must be finite neurons with {shape[0]} weights, the columns of Z, and {shape[1]} outputs; got "
            f"{len(start.weights)} weights and {len(start.intercept)} outputs."
        )
