from threading import Event, Thread

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from convexbn import BatchNormDesign, Problem, sample_patterns, solve_column_generation, solve_gated
from convexbn._utils.threads import in_order, on_one_thread, on_threads


def n_threads():
    return max(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")


def set_in_a_thread(number):
    """Set the number of threads in a thread that ends: one that lives on may keep others from setting theirs."""
    setter = Thread(target=lambda: threadpool_limits(number, user_api="blas"))
    setter.start()
    setter.join()


@pytest.fixture(autouse=True)
def two_threads():
    original = n_threads()
    set_in_a_thread(2)
    if n_threads() != 2:
        pytest.skip("this BLAS has one thread")
    yield
    assert n_threads() == 2
    set_in_a_thread(original)


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


def test_side_by_side_the_threads_are_given_back():
    first_in, last_in, first_out = Event(), Event(), Event()
    seen = []

    @on_one_thread
    def first():
        seen.append(n_threads())
        first_in.set()
        last_in.wait(60)

    @on_one_thread
    def last():
        seen.append(n_threads())
        last_in.set()
        first_out.wait(60)

    other = Thread(target=first)
    other.start()
    first_in.wait(60)
    follower = Thread(target=last)
    follower.start()
    other.join()
    first_out.set()
    follower.join()
    assert seen == [1, 1]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_errors_of_floating_point_numbers_are_treated_alike_on_all_threads(n_jobs):
    def overflow(i):
        return np.float64(1e308) * np.float64(10)

    with on_threads(n_jobs):
        with np.errstate(over="ignore"):
            assert list(in_order(overflow, 3)) == [np.inf] * 3
        with np.errstate(over="raise"), pytest.raises(FloatingPointError):
            list(in_order(overflow, 3))
