"""What only the Numba backend has to promise: concurrency, fork, lazy import, its cache, its memory."""

import os
import textwrap
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import output_of

import fastact as fa
from fastact import activations, jit, pool, settings

ROOT = Path(fa.__file__).parents[1]


def run_python(code: str, **environment: str) -> str:
    """The output of `code` in a new interpreter that knows this checkout alone."""
    return output_of(
        textwrap.dedent(code), 120, PYTHONPATH=str(ROOT), PYTHONWARNINGS="error", **environment
    ).strip()


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 96)).astype(np.float32)
    weight = rng.standard_normal((130, 3, 96)).astype(np.float32)
    bias = rng.standard_normal((130, 3)).astype(np.float32)
    grad_y = rng.standard_normal((500, 130)).astype(np.float32)
    return x, weight, bias, grad_y


def step(problem, threads):
    x, weight, bias, grad_y = problem
    with settings.num_threads(threads):
        y, argmax = fa.linear_maxout(x, weight, bias, backend="numba")
        grads = fa.linear_maxout_backward(grad_y, x, weight, argmax, backend="numba")
        z, saved = fa.linear_activation(x, weight[:, 0], bias[:, 0], "gelu", backend="numba")
        more = fa.linear_activation_backward(grad_y, x, weight[:, 0], saved, "gelu", backend="numba")
    return (y, argmax, *grads, z, *more)


@pytest.fixture
def always_threaded(monkeypatch):
    monkeypatch.setattr(pool, "_WORK_PER_THREAD", 1)


def assert_same_bits(results, expected):
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_same_bits_for_any_number_of_threads(problem, always_threaded, threads):
    assert_same_bits(step(problem, threads), step(problem, 1))


def test_a_row_has_the_same_bits_in_tiles_of_any_height(problem):
    x, weight, bias, _ = problem
    whole = fa.linear_maxout(x, weight, bias, backend="numba")
    for rows in range(jit._DOT_ROWS + 1, 26):  # fewer take dots
        few = fa.linear_maxout(x[:rows], weight, bias, backend="numba")
        assert_same_bits(few, [result[:rows] for result in whole])


def test_many_python_threads_at_once(problem, always_threaded):
    expected = step(problem, 1)
    with ThreadPoolExecutor(8) as callers:
        for results in callers.map(lambda _: step(problem, 3), range(24)):
            assert_same_bits(results, expected)


def test_the_gil_is_released(problem):
    x, weight, bias, _ = problem
    y = np.empty((500, 130), np.float32)
    jit.linear_maxout(x, weight, bias, y, None, threads=1)  # compiled now
    big = np.ones((4000, 2000), np.float32), np.ones((300, 3, 2000), np.float32), None
    caller = threading.Thread(
        target=jit.linear_maxout, args=(*big, np.empty((4000, 300), np.float32), None, 1)
    )
    caller.start()
    ticks = 0
    while caller.is_alive():  # under the GIL, this loop would come round once or twice
        ticks += 1
    caller.join()
    assert ticks > 1000


FORKED = """
    import os, sys, threading
    import numpy as np
    import fastact as fa
    from fastact import activations, jit, pool
    pool._WORK_PER_THREAD = 1
    fa.settings.set_num_threads(3)
    x, weight = np.ones((300, 40), np.float32), np.ones((90, 2, 40), np.float32)
    {before}
    child = os.fork()
    if child == 0:
        y, _ = fa.linear_maxout(x, weight, backend="numba")
        os._exit(0 if (y == 40).all() else 1)
    {after}
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork")
def test_a_forked_child_works_after_the_parent_used_threads():
    # Python 3.12 warns of a fork while threads run: that is the case under test
    before = 'import warnings; warnings.simplefilter("ignore"); fa.linear_maxout(x, weight, backend="numba")'
    assert run_python(FORKED.format(before=before, after="")) == "0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork")
def test_a_forked_child_works_while_the_parent_compiles(tmp_path):
    before = """import time, warnings; warnings.simplefilter("ignore")
    thread = threading.Thread(target=lambda: fa.linear_maxout(x, weight, backend="numba"))
    thread.start(); time.sleep(0.5)"""
    code = FORKED.format(before=before, after="thread.join()")
    assert run_python(code, NUMBA_CACHE_DIR=str(tmp_path)) == "0"


def test_fastact_imports_numba_only_when_asked():
    assert run_python("import fastact, sys; print('numba' in sys.modules)") == "False"


def test_works_where_nothing_can_be_cached(tmp_path):
    code = """
        import numpy as np
        from numba.core import caching
        caching.CacheImpl._locator_classes = []  # as where neither the package nor a home can be written to
        import fastact as fa
        y, argmax = fa.maxout(np.float32([[1, 3, 3]]), backend="numba")
        print(y, argmax)
    """
    assert run_python(code) == "[3.] [1]"


def test_read_only_inputs_compile_nothing_new(problem):
    x, weight, bias, _ = problem
    expected = fa.linear_maxout(x, weight, bias, backend="numba")
    versions = len(jit._linear_maxout_cells.signatures)
    for array in (x, weight, bias):
        array.flags.writeable = False
    assert_same_bits(fa.linear_maxout(x, weight, bias, backend="numba"), expected)
    assert len(jit._linear_maxout_cells.signatures) == versions


@pytest.mark.parametrize(
    ("setting", "threads"), [("3", 3), ("4,2", 4), ("0", None), ("many", None), ("", None)]
)
def test_default_threads(monkeypatch, setting, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert pool.default_threads() == (threads or min(cores, pool._MAX_DEFAULT_THREADS))


def test_an_exception_in_a_helper_reaches_the_caller():
    def kernel(first, last):
        if first > 0:
            raise MemoryError

    with pytest.raises(MemoryError):
        pool.run(kernel, 8, 1e12, 4)


# ---- the memory of a slope's gradient


def prelu_problem(shape, slopes, dtype):
    rng = np.random.default_rng(0)
    grad_y, saved = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)
    act = activations.resolve("prelu", shape[1], np.dtype(dtype), {"slope": np.full(slopes, 0.25, dtype)})
    return grad_y, saved, act


SLOPES = [
    ((1, 300_000), 1),
    ((1, 300_000), 300_000),
    ((300, 1001), 1),
    ((300, 1001), 1001),
    ((300_000, 1), 1),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "slopes"), SLOPES)
def test_prelu_backward_memory_beside_its_results_is_bounded(shape, slopes, dtype):
    grad_y, saved, act = prelu_problem(shape, slopes, dtype)
    grad_z, grad_slope = np.empty_like(saved), np.empty(slopes, dtype)
    jit.activation_backward(grad_y, saved, act, grad_z, grad_slope)  # compiled now
    tracemalloc.start()
    try:
        jit.activation_backward(grad_y, saved, act, grad_z, grad_slope)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.05 * saved.size  # bytes; 8 an element of a row before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "slopes"), SLOPES)
def test_prelu_backward_slope_gradient_within_bound_for_any_threads(always_threaded, shape, slopes, dtype):
    grad_y, saved, act = prelu_problem(shape, slopes, dtype)
    terms = np.where(saved > 0, 0, grad_y.astype("f8") * saved)
    exact, magnitude = terms.sum(0, keepdims=True), abs(terms).sum(0, keepdims=True)
    if slopes == 1:
        exact, magnitude = exact.sum(1), magnitude.sum(1)
    start = np.full(slopes, 2, dtype)
    results = []
    for threads, accumulate in ((1, False), (3, False), (3, True)):
        grad_slope = start.copy()
        jit.activation_backward(
            grad_y, saved, act, np.empty_like(saved), grad_slope, accumulate, threads=threads
        )
        results.append(grad_slope)
    # sums in float64 of at most 128 terms, of at most 128 partial sums, and their sum; rounded once
    eps = np.finfo(dtype).eps
    bound = eps * abs(exact) + 4 * 300 * np.finfo("f8").eps * magnitude
    assert (abs(results[0] - exact.reshape(slopes)) <= bound.reshape(slopes)).all()
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0] + start)
