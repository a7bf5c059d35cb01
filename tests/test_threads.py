from threading import Barrier, Thread

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from convexbn import BatchNormDesign, Problem, sample_patterns, solve_column_generation, solve_gated
from convexbn.threads import on_one_thread


def n_threads():
    return max(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")


@pytest.fixture(autouse=True)
def two_threads():
    outside = threadpool_limits(2, user_api="blas")  # no context, which would keep other threads from changing it
    if n_threads() != 2:
        pytest.skip("this BLAS has one thread")
    yield
    assert n_threads() == 2
    outside.restore_original_limits()


@pytest.mark.parametrize("solver", ["column generation", "gated"])
def test_solvers_run_on_one_thread(solver):
    rng = np.random.default_rng(0)
    X, y, seen = rng.standard_normal((60, 3)), rng.standard_normal(60), []
    problem = Problem(BatchNormDesign().fit_transform(X), y, weight_decay=0.05)
    options = {"callback": lambda progress: seen.append(n_threads()), "tol": 1e-2}
    if solver == "gated":
        solve_gated(problem, sample_patterns(problem.Z, 20, random_state=0), **options)
    else:
        solve_column_generation(problem, random_state=0, **options)
    assert seen
    assert all(threads == 1 for threads in seen)


def test_threads_come_back_after_an_error():
    @on_one_thread
    def failing():
        raise ZeroDivisionError(n_threads())

    with pytest.raises(ZeroDivisionError, match="1"):
        on_one_thread(failing)()


def test_side_by_side_the_last_one_gives_the_threads_back():
    entered, left, seen = Barrier(2), Barrier(2), []

    @on_one_thread
    def first():
        entered.wait()

    @on_one_thread
    def last():
        entered.wait()
        left.wait()
        seen.append(n_threads())

    def run_first():
        first()
        left.wait()

    threads = [Thread(target=run_first), Thread(target=last)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1]
