"""Column generation for ReLU networks: the loop, and the solver around it."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from convexbn._utils.checks import make_generator
from convexbn._utils.rows_lost import RowsLostError
from convexbn._utils.threads import on_one_thread
from convexbn.model._merging import merge, prune
from convexbn.model._neurons import Neurons
from convexbn.model._post_activation import PostActivationProblem
from convexbn.model._problem import Problem, check_problem
from convexbn.solvers._checkpoint import Checkpoint, CheckpointPath, Rounds, arrays_of, check_checkpoint, fingerprint_of
from convexbn.solvers._monitor import Callback, Monitor
from convexbn.solvers._scaling import Scaling
from convexbn.solvers._solution import Solution, Status, status_of
from convexbn.solvers._tolerance import Reference, Tolerance
from convexbn.solvers.post_activation._column_generation import solve_post_activation
from convexbn.solvers.relu._certify import certified
from convexbn.solvers.relu._corrective import corrected, with_first_neurons
from convexbn.solvers.relu._master import enlarged
from convexbn.solvers.relu._options import ACCURATE, Options, check_options
from convexbn.solvers.relu._oracle import searched
from convexbn.solvers.relu._proof import check_prove, plan, provable, proved
from convexbn.solvers.relu._state import Proof, Run, Searched, State


@on_one_thread
def solve_column_generation(
    problem: Problem,
    *,
    tol: float = 1e-6,
    relative_to: Reference = "objective",
    max_iter: int | None = 100,
    max_time: float | None = None,
    start: Neurons | None = None,
    prove: Proof = True,
    options: Options = ACCURATE,
    random_state: int | np.random.Generator | None = None,
    checkpoint: CheckpointPath | Checkpoint | None = None,
    callback: Callback | None = None,
    verbose: bool = False,
) -> Solution:
    """Train a ReLU network by column generation, the default solver.

    With one output and up to eight columns of Z the price of every direction is proved when the gap is within the
    tolerance, by branch and bound, or by enumeration of the patterns if they are few; a violation that this finds goes
    on as a new neuron, and the certificate is global if the proof is within the tolerance. The same holds with several
    outputs on tiny problems, whose patterns' cones are enumerated face by face. Otherwise it is local: evidence, beside
    the best lower bound that is proved.

    Memory grows with n (k + active neurons), beside the squared matrix of the weights that move at once. With more
    columns than rows the problem is solved in the space of the rows of Z, which holds all optimal neurons; there
    with more than 1000 columns neurons move by quasi-Newton steps only. Linear algebra runs on one thread.

    Parameters
    ----------
    problem : Problem
        Training problem with a smooth loss.
    tol : float, default=1e-6
        Gap at which to stop, as a multiple of `relative_to`.
    relative_to : {"objective", "zero_network"}, default="objective"
        What the gap is measured against: the objective of the network, or that of the zero network, which with an
        intercept is the best constant. The second is the rule of scikit-learn's Lasso; it requires no more digits
        where the network fits well.
    max_iter : int or None, default=100
        Rounds at most.
    max_time : float or None, default=None
        Seconds after which the best network so far is returned. Without a search after that, the certificate rests on
        the last one.
    start : Neurons or None, default=None
        ReLU neurons to start from, such as those at another weight decay. None starts from random directions. Their
        intercept counts only where one is fitted.
    prove : bool or "auto", default=True
        Whether to prove the price of every direction where that is possible. It takes up to a minute; with "auto"
        a few times as long as the search, by a count of its work, so that the outcome does not depend on the machine.
    options : Options, default=ACCURATE
        Choices of the algorithm.
    random_state : int, Generator or None, default=None
        Seed of the random starts.
    checkpoint : path or None, default=None
        File, npz without pickle, that holds the last completed round at any time. The same call goes on from it after
        the process was killed, and ends in the same network. Limits, callback and `verbose` may change: a run that
        `max_iter` ended goes on at a larger one. The file stays when the run is over.
    callback : callable or None, default=None
        Called with a `Progress` after every round; a true value ends the run.
    verbose : bool, default=False
        Whether to show progress.

    Returns
    -------
    solution : Solution
        Scope "global" where the proof is within the tolerance, "local" otherwise, with the proved bound beside.
        Interrupted by Ctrl-C, the best network so far, with status INTERRUPTED; a second Ctrl-C is passed on.

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
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499, for the convex program
       and its dual, whose constraints the prices are.
    .. [2] Sahiner et al., "Vector-output ReLU Neural Network Problems are Copositive Programs", arXiv 2012.13329, for
       the program of several outputs.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import Problem, solve_column_generation
    >>> problem = Problem(np.eye(2), [1.0, -2.0], weight_decay=0.1)
    >>> solution = solve_column_generation(problem, random_state=0)
    >>> round(solution.certificate.objective, 6), solution.certificate.scope
    (0.28, 'global')
    """
    check_problem(problem)
    check_options(options)
    check_prove(prove)
    check_checkpoint(checkpoint)
    if isinstance(problem, PostActivationProblem):
        return solve_post_activation(
            problem,
            tol=tol,
            relative_to=relative_to,
            max_iter=max_iter,
            max_time=max_time,
            start=start,  # type: ignore[arg-type]
            prove=prove,
            options=options,
            random_state=random_state,
            checkpoint=checkpoint,
            callback=callback,
            verbose=verbose,
        )
    _check(problem, start)
    tolerance = Tolerance.of(problem, tol, relative_to)
    monitor = Monitor("column generation", max_iter=max_iter, max_time=max_time, callback=callback, verbose=verbose)
    scaling = Scaling.of(problem).with_fewest_columns()
    scaled = scaling.problem
    run = Run(
        scaled,
        options,
        scaling.scaled_tolerance(tolerance),
        make_generator(random_state),
        monitor,
        prove=prove if provable(scaled, options.proof) else False,
        objective_scale=scaling.unscaled_objective(1.0),
    )
    seed = None if random_state is None else run.rng.bit_generator.state
    parameters = ["column generation", options, tolerance, prove, seed]
    file = Checkpoint(checkpoint, lambda: fingerprint_of(problem, parameters, arrays_of(start)), State, Searched)
    rounds = Rounds(file, monitor, run.rng)
    run, resumed = replace(run, keep=rounds.keep), rounds.resume()
    neurons = scaled.zero_network if start is None else scaling.scaled(start).with_unit_outputs()
    neurons = neurons if problem.fit_intercept else replace(neurons, intercept=scaled.zero_network.intercept)
    state = State.of(scaled, merge(scaled, neurons), options) if resumed is None else resumed
    try:
        with monitor:
            if resumed is None:
                state = with_first_neurons(run, state) if start is None else state
                state = corrected(run, state)
                run.keep(state)
            for later in column_generation(run, state):
                state = later
            return _solution(run, state, scaling, problem, tolerance)
    except RowsLostError as error:
        error.best = scaling.unscaled(state.neurons)
        raise
    return _solution(run, state, scaling, problem, tolerance)  # the best so far; a second Ctrl-C is not caught here


def column_generation(run: Run, state: State) -> Iterator[State]:
    """Yield the states of column generation, whose objective never rises.

    A round calls the linear minimisation oracle, max |V^T relu(Zw)| over unit directions w, at the network's dual
    point; its value gives the duality gap. The neurons that it finds enter at almost no length; the restricted master
    problem, which is convex, finds the best lengths for all; and a corrective step moves all neurons together to a
    joint local optimum. This is the alternating descent conditional gradient method [1]_, or sliding Frank-Wolfe [2]_,
    for the networks of [3]_; in the language of linear programming, column generation. What is different here: optimal
    neurons lie on kinks of the ReLU, where descent of smooth functions stalls, so that corrective step and oracle hold
    the nearest kinks exactly and pivot across them (`solve_kink_program`); many neurons enter at once; and where it is
    possible the oracle's value is proved (`proved`).

    Parameters
    ----------
    run : Run
        Problem, options, tolerance, limits.
    state : State
        A network to start from.

    Yields
    ------
    state : State
        After every step; with the preset FAST, after one round the network.

    References
    ----------
    .. [1] Boyd, Schiebinger, Recht, "The Alternating Descent Conditional Gradient Method for Sparse Inverse Problems",
       arXiv 1507.01562.
    .. [2] Denoyelle, Duval, Peyré, Soubies, "The Sliding Frank-Wolfe Algorithm and its Application to Super-Resolution
       Microscopy", arXiv 1811.06416.
    .. [3] Bach, "Breaking the Curse of Dimensionality with Convex Neural Networks", JMLR 18, 2017.
    """
    while state.n_rounds != run.options.max_rounds:
        state = searched(run, state)  # linear minimisation oracle, and the certificate
        yield state
        goes_on = _goes_on(run, state)
        reached = run.tolerance.reached(state.objective, state.bound)
        if reached and goes_on and run.prove:
            state = proved(run, state, plan(run, state, run.prove))
            yield state
            reached = not state.has_found
        if reached or not goes_on or state.stalled == run.options.stalled_rounds:
            break
        state = enlarged(run, state)  # restricted master problem
        state = corrected(run, state)  # corrective step
        state = replace(state, n_rounds=state.n_rounds + 1)
        run.keep(state)
        yield state
    else:  # the last round of the options has no other call of the oracle
        return
    if state.searched is not None and not state.searched.thorough and run.monitor.ending is not Status.INTERRUPTED:
        yield searched(run, replace(state, coarse=False))


def _goes_on(run: Run, state: State) -> bool:
    """Report the round to the monitor; whether no limit has ended the run."""
    goes_on = run.monitor.goes_on(state.objective * run.objective_scale, state.gap, len(state.neurons))
    if goes_on and state.newton_steps <= 0:
        run.monitor.ending = Status.MAX_ITER
    return run.monitor.ending is None


def _solution(run: Run, state: State, scaling: Scaling, problem: Problem, tolerance: Tolerance) -> Solution:
    """The network of the original problem, with its certificate."""
    neurons = scaling.unscaled(state.neurons)
    pruned = prune(neurons, problem.Z)
    neurons = pruned if problem.objective(pruned) <= problem.objective(neurons) else neurons
    v, certificate = certified(run, state, scaling, problem, neurons, tolerance)
    monitor = run.monitor
    status = status_of(certificate, tolerance, "Column generation", monitor.ending or Status.NOT_CONVERGED)
    return Solution(neurons, v, certificate, status, monitor.n_iter, tuple(monitor.history))


def _check(problem: Problem, start: Neurons | None) -> None:
    if not np.isfinite(problem.loss.curvature):
        raise ValueError(
            f"Column generation takes smooth losses, not {problem.loss.name!r}; use 'squared_hinge' instead of "
            "'hinge', or solve_reference."
        )
    if not (start is None or isinstance(start, Neurons)):
        raise ValueError(f"start={start!r} must be the Neurons of a ReLU network, or None.")
    if start is not None and (start.gates is not None or start.weights.shape[0] != problem.Z.n_columns):
        raise ValueError(
            f"start must be ReLU neurons (without gates) with weights of {problem.Z.n_columns} rows, as many as Z has "
            "columns."
        )
    if start is not None and not start.finite:
        raise ValueError("start contains NaN or infinity; start from a network that was trained, or from None.")
    if start is not None and start.output_weights.shape[1] != problem.n_outputs:
        raise ValueError(f"start has {start.output_weights.shape[1]} outputs, the problem has {problem.n_outputs}.")
