"""What only the Numba backend has to promise: concurrency, fork, lazy import, its cache, its memory."""

import os
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import output_of

import fastact as fa
from fastact import jit, pool, settings

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
    from fastact import jit, pool
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
