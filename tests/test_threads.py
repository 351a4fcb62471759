"""Any number of threads gives the same bits, callers do not disturb each other, and the GIL is released."""

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.cases import CASES, Case
from support.inputs import linear_inputs, maxout_inputs, normal
from support.processes import output_of
from support.shapes import Shape
from support.tolerance import assert_same_bits
from support.variants import COMPILED_BACKENDS, needs_plain_build

import fastact as fa
from fastact import settings

COUNTS = (1, 2, 3, 4)
# Enough work for several threads, and sizes that they cannot share out evenly.
LARGE = Shape(257, 300, 129, 3)


def for_each_count(compute):
    """compute() with every number of threads: the same bits."""
    with fa.num_threads(1):
        expected = compute()
    for count in COUNTS[1:]:
        with fa.num_threads(count):
            assert_same_bits(compute(), expected)


@pytest.mark.parametrize(
    "shape",
    [LARGE, Shape(1, 2000, 1500, 2), Shape(3000, 40, 3, 5), Shape(20, 160, 300, 5), Shape(100, 300, 129, 3)],
    ids=str,
)
def test_linear_maxout_of_any_threads_has_the_same_bits(compiled, dtype, shape, rng):
    x, weight, bias, grad_y = maxout_inputs(rng, shape, dtype)
    _, argmax = fa.linear_maxout(x, weight, bias)
    for_each_count(lambda: fa.linear_maxout(x, weight, bias))
    for_each_count(lambda: fa.linear_maxout_backward(grad_y, x, weight, argmax))


@pytest.mark.parametrize(
    "case", [Case("silu", {}), Case("prelu", {}, "one"), Case("prelu", {}, "per-feature")], ids=str
)
def test_linear_activation_of_any_threads_has_the_same_bits(compiled, dtype, case, rng):
    x, weight, bias, grad_y = linear_inputs(rng, LARGE._replace(out_features=387), dtype)
    keywords = case.keywords(387, dtype)
    _, saved = fa.linear_activation(x, weight, bias, case.name, **keywords)
    for_each_count(lambda: fa.linear_activation(x, weight, bias, case.name, **keywords))
    for_each_count(lambda: fa.linear_activation_backward(grad_y, x, weight, saved, case.name, **keywords))


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("shape", [LARGE, Shape(100, 300, 240, 5), Shape(1, 2000, 1500, 2)], ids=str)
def test_frozen_of_any_threads_has_the_same_bits(compiled, shape, precision, rng):
    layer = fa.Maxout(shape.in_features, shape.out_features, pieces=shape.pieces, rng=rng)
    frozen = fa.freeze(layer, precision)
    x = normal(rng, (shape.rows, shape.in_features), np.float32)
    for_each_count(lambda: frozen(x))


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((130, 140, 150), 0),
        ((130, 140, 150), 1),
        ((130, 140, 150), 2),
        ((300, 513, 2), 2),  # few pieces beside each other
        ((130, 256, 15), 1),  # rows shorter than a vector
    ],
)
def test_maxout_of_any_threads_has_the_same_bits(compiled, dtype, shape, axis, rng):
    z = normal(rng, shape, dtype)
    y, argmax = fa.maxout(z, axis)
    grad_y = normal(rng, y.shape, dtype)
    for_each_count(lambda: fa.maxout(z, axis))
    for_each_count(lambda: fa.maxout_backward(grad_y, argmax, z.shape[axis], axis))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_activation_of_any_threads_has_the_same_bits(compiled, dtype, case, rng):
    z, grad_y = normal(rng, (1001, 401), dtype), normal(rng, (1001, 401), dtype)
    keywords = case.keywords(401, dtype)
    for_each_count(lambda: fa.activation(z, case.name, **keywords))
    for_each_count(lambda: fa.activation_backward(grad_y, z, case.name, **keywords))


def test_more_threads_than_work_give_the_same_bits(compiled, dtype, rng):
    x, weight, bias, grad_y = maxout_inputs(rng, Shape(2, 3, 2, 2), dtype)
    expected = fa.linear_maxout(x, weight, bias)
    with fa.num_threads(64):
        assert_same_bits(fa.linear_maxout(x, weight, bias), expected)
        fa.linear_maxout_backward(grad_y, x, weight, expected[1])


# ---- whose setting counts


def test_num_threads_context_overrides_the_process_in_its_own_context():
    before = fa.get_num_threads()
    seen = []
    with fa.num_threads(3):
        assert fa.get_num_threads() == 3
        with fa.num_threads(5):
            assert fa.get_num_threads() == 5
        other = threading.Thread(target=lambda: seen.append(fa.get_num_threads()))
        other.start()
        other.join()
        assert fa.get_num_threads() == 3
    assert seen == [before]
    assert fa.get_num_threads() == before


def test_defaults_for_compiled_code_are_those_of_the_process(monkeypatch):
    monkeypatch.setattr(settings, "_default_threads", 0)
    monkeypatch.setattr(settings, "DEFAULTS", np.zeros_like(settings.DEFAULTS))
    fa.set_num_threads(3)
    with fa.num_threads(2):  # of one context alone
        assert settings.threads_and_mode_of_context() == 2
        assert settings.DEFAULTS[0] == 3
    with pytest.raises(ValueError, match="threads: got 0"):
        fa.set_num_threads(0)
    assert settings.DEFAULTS[0] == 3
    assert settings.threads_and_mode_of_context() == 0


def test_set_num_threads_overrides_the_environment():
    code = "import fastact as fa; fa.set_num_threads(3); print(fa.get_num_threads())"
    assert output_of(code, OMP_NUM_THREADS="2").split() == ["3"]


@pytest.mark.parametrize("backend", COMPILED_BACKENDS)
def test_omp_num_threads_sets_the_default_and_changes_no_bits(backend):
    code = f"""if True:
        import hashlib, numpy as np, fastact as fa
        fa.set_backend({backend!r})
        rng = np.random.default_rng(0)
        x, weight = rng.random((200, 300), np.float32), rng.random((100, 3, 300), np.float32)
        y, argmax = fa.linear_maxout(x, weight)
        print(fa.get_num_threads(), hashlib.sha256(y.tobytes() + argmax.tobytes()).hexdigest())
    """
    printed = [output_of(code, OMP_NUM_THREADS=str(count)).split() for count in (1, 2, 3)]
    assert [int(count) for count, _ in printed] == [1, 2, 3]
    assert len({digest for _, digest in printed}) == 1


@needs_plain_build
def test_backs_off_to_one_thread_after_slow_fork_join():
    code = """if True:
        import os, time, numpy as np, fastact as fa
        fa.set_backend("c")
        fa.set_num_threads(2)
        x, weight = np.ones((64, 288), np.float32), np.ones((96, 3, 288), np.float32)
        ends = time.monotonic() + 0.05
        while time.monotonic() < ends:
            fa.linear_maxout(x, weight)
        core = min(os.sched_getaffinity(0))
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), {core})  # one waits on the core that the other needs
        late, ends = 100, time.monotonic() + 10
        while late >= 50 and time.monotonic() < ends:  # whoever else wants the core may make some late
            late = 0
            for _ in range(100):
                started = time.monotonic()
                fa.linear_maxout(x, weight)
                late += time.monotonic() - started > 0.001  # 0.05 ms alone
        print(late)
    """
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("needs Linux's /proc")
    if "c" not in fa.get_config()["backends"]:
        pytest.skip("needs the C extension")
    assert int(output_of(code)) < 50


# Enough work for 1024 threads.
LIMITED = """
import resource, threading, numpy as np, fastact as fa
from pathlib import Path

fa.set_backend({backend!r})
fa.set_num_threads({threads})
x, weight = np.ones((1024, 512), np.float32), np.ones((256, 4, 512), np.float32)
with fa.num_threads(1):
    expected = fa.linear_maxout(x, weight)

def call():
    y, argmax = fa.linear_maxout(x, weight)
    if (y == expected[0]).all() and (argmax == expected[1]).all():
        print("same")
"""


@needs_plain_build
@pytest.mark.parametrize("backend", COMPILED_BACKENDS)
def test_more_threads_than_the_system_allows_run_as_fewer(backend):
    code = (
        LIMITED
        + """
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, resource.RLIM_INFINITY))
resource.setrlimit(resource.RLIMIT_AS, (size + (40 << 20), resource.RLIM_INFINITY))
call()
call()
"""
    )
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("needs Linux's /proc")
    assert output_of(code.format(backend=backend, threads=64)) == "same\nsame\n"


@pytest.mark.parametrize("backend", COMPILED_BACKENDS)
def test_many_threads_from_a_small_stack_give_the_same_bits(backend):
    code = (
        LIMITED
        + """
import os

threading.stack_size(max(64 << 10, os.sysconf("SC_THREAD_STACK_MIN")))  # 128 KiB on AArch64
caller = threading.Thread(target=call)
caller.start()
caller.join()
"""
    )
    pytest.importorskip("resource")
    assert output_of(code.format(backend=backend, threads=1024)) == "same\n"


# ---- the C backend's workers


def workers_after(code):
    """What `code` prints, run after a call on three threads; `workers` has the folders of its two workers."""
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("needs Linux's /proc")
    if "c" not in fa.get_config()["backends"]:
        pytest.skip("needs the C extension")
    tasks = "set(Path('/proc/self/task').iterdir())"
    before = f"call(); before = {tasks}; fa.set_num_threads(3); call(); workers = {tasks} - before\n"
    return output_of(LIMITED.format(backend="c", threads=1) + before + code)


def test_workers_block_every_signal():
    code = """
masks = [line for w in workers for line in (w / "status").read_text().splitlines() if "SigBlk" in line]
blocked = int(masks[0].split()[1], 16)
assert len(masks) == 2 and masks[0].split() == masks[1].split()
import signal
assert all(blocked >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM))
"""
    assert workers_after(code) == "same\nsame\n"


def test_workers_end_with_the_thread_that_called():
    code = """
import time
caller = threading.Thread(target=call)
caller.start()
caller.join()
ends = time.monotonic() + 30
while set(Path("/proc/self/task").iterdir()) != before | workers and time.monotonic() < ends:
    time.sleep(0.01)
print(len(set(Path("/proc/self/task").iterdir()) - before))
"""
    assert workers_after(code) == "same\nsame\nsame\n2\n"


def test_interpreter_ends_during_calls_of_a_daemon_thread():
    code = """
import time
def call_on():
    while True:
        fa.linear_maxout(x, weight)
threading.Thread(target=call_on, daemon=True).start()
time.sleep(0.1)
"""
    assert workers_after(code) == "same\nsame\n"


# ---- several Python threads


def test_several_callers_at_once_get_the_same_bits(compiled, dtype, rng):
    inputs = [maxout_inputs(rng, Shape(129, 64, 65, pieces), dtype) for pieces in (1, 2, 3, 4, 5)]

    def step(i):
        x, weight, bias, grad_y = inputs[i % 5]
        with fa.num_threads(1 + i % 3):
            y, argmax = fa.linear_maxout(x, weight, bias)
            return (y, argmax, *fa.linear_maxout_backward(grad_y, x, weight, argmax))

    expected = [step(i) for i in range(5)]
    with ThreadPoolExecutor(8) as executor:
        for i, results in enumerate(executor.map(step, range(100))):
            assert_same_bits(results, expected[i % 5])


def test_call_releases_the_gil(compiled, rng):
    # With a switch interval this long the main thread gets the GIL only if the other one gives it up,
    # and then it has to get it many times during the one call.
    x, weight, bias, _ = maxout_inputs(rng, Shape(1000, 1000, 500, 2), np.float64)
    small = x[:2], weight[:2], bias[:2]
    fa.linear_maxout(*small)  # compiled and loaded
    calling, seen = threading.Event(), 0

    def call():
        calling.set()
        with fa.num_threads(1):
            fa.linear_maxout(x, weight, bias)
        calling.clear()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        other = threading.Thread(target=call)
        other.start()
        calling.wait()
        while calling.is_set():
            seen += 1
            time.sleep(0)
    finally:
        sys.setswitchinterval(interval)
        other.join()
    assert seen >= 100
