"""Limits of the system: memory, stacks, CPUs, threads.  The result is right, or MemoryError is raised."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support.processes import output_of
from support.variants import COMPILED_BACKENDS, needs_c, needs_fork

TESTS = str(Path(__file__).parents[1])
BACKENDS = [pytest.param(name, marks=[] if name == "c" else pytest.mark.full) for name in COMPILED_BACKENDS]
needs_own_sizes = pytest.mark.skipif(
    "LD_PRELOAD" in os.environ, reason="needs memory and stacks of the usual size, without a sanitizer"
)
needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")

# Forked children of a process without calls; each may take `room` MB of address space more than it has.
MEMORY = """
import os, resource, sys
from pathlib import Path
import fastact as fa
from faults import operations
from faults.every_allocation import in_forked_child

fa.set_backend("c")
fa.set_num_threads(2)

def outcome(operation, room):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(room * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        return operation.digest()
    except MemoryError:
        return b"none"

made = operations.networks(40000)
for name in ("network: training", "network: inference", "residual: frozen"):
    operation = made[name]
    expected = in_forked_child(operation.digest)
    rooms = [step * {step} for step in range({count})]
    seen = [in_forked_child(lambda room=room: outcome(operation, room)) for room in rooms]
    assert set(seen) <= {{expected, b"none"}}, name
    print(seen.count(b"none"), seen.count(expected), name)
"""


@needs_linux
@needs_own_sizes
@needs_c
@pytest.mark.parametrize(("step", "count"), [(24, 6), pytest.param(3, 40, marks=pytest.mark.full)])
def test_memory_limit_raises_or_leaves_the_results_right(step, count):
    lines = output_of(MEMORY.format(step=step, count=count), 300, PYTHONPATH=TESTS).splitlines()
    outcomes = [list(map(int, line.split()[:2])) for line in lines]
    assert len(outcomes) == 3
    assert sum(without for without, _ in outcomes) > 0
    assert all(right > 0 for _, right in outcomes)  # the highest limit is no limit


STACK = """
import os, resource, threading
import fastact as fa
from faults import operations

fa.set_backend("c")
fa.set_num_threads(2)
made = dict(list(({made}).items())[::{every}])
expected = [operation.digest() for operation in made.values()]  # with Numba's kernels compiled
"""
WITHOUT_LAYERS = "operations.products() | operations.elementwise()"
SMALL_STACK = """
threading.stack_size(max(64 << 10, os.sysconf("SC_THREAD_STACK_MIN")))
results = []
for operation in made.values():
    thread = threading.Thread(target=lambda: results.append(operation.digest()))
    thread.start()
    thread.join()
assert results == expected
print(len(results))
"""


@needs_linux
@needs_own_sizes
@needs_c
@pytest.mark.parametrize(
    ("made", "every"),
    [
        (WITHOUT_LAYERS, 5),
        pytest.param(f"{WITHOUT_LAYERS} | operations.networks(300)", 1, marks=pytest.mark.full),
    ],
    ids=["some", "all"],
)
def test_calls_from_a_stack_of_64_kib_give_the_same_bits(made, every):
    code = STACK.format(made=made, every=every) + SMALL_STACK
    assert int(output_of(code, 300, PYTHONPATH=TESTS)) > 20


@needs_linux
@needs_own_sizes
@needs_c
def test_limit_on_the_stack_of_the_process_leaves_the_bits():
    """`ulimit -s` of 1 MB: a system gives threads without a size of their own as much."""
    code = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, resource.RLIM_INFINITY))
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""
    inner = STACK.format(made=WITHOUT_LAYERS, every=9) + "print(hash(tuple(expected)))"
    code = f"import sys; sys.argv.append({inner!r})\n" + code
    environment = {"PYTHONPATH": TESTS, "PYTHONHASHSEED": "0"}
    assert output_of(code, **environment) == output_of(inner, **environment)


AFFINITY = """
import os
cpus = sorted(os.sched_getaffinity(0))
{before}
import numpy as np
import fastact as fa
fa.set_backend({backend!r})
rng = np.random.default_rng(0)
x, weight = rng.random((300, 300), np.float32), rng.random((100, 3, 300), np.float32)

def call(threads=None):
    if threads is None:
        return fa.linear_maxout(x, weight)[0].tobytes()
    with fa.num_threads(threads):
        return fa.linear_maxout(x, weight)[0].tobytes()

expected = call(1)
assert call() == call(3) == expected
print(fa.get_num_threads())
os.sched_setaffinity(0, {after})
for _ in range(50):
    assert call() == call(3) == expected
"""


@needs_linux
@pytest.mark.parametrize("backend", BACKENDS)
def test_process_of_one_cpu_uses_one_thread_and_gives_the_same_bits(backend):
    before = "os.sched_setaffinity(0, cpus[:1])"
    assert output_of(AFFINITY.format(before=before, after="cpus", backend=backend)) == "1\n"


@needs_linux
@pytest.mark.parametrize("backend", BACKENDS)
def test_process_that_loses_its_other_cpus_goes_on_with_the_same_bits(backend):
    assert int(output_of(AFFINITY.format(before="", after="cpus[:1]", backend=backend))) >= 1


CROWD = """
import threading
import numpy as np
import fastact as fa

fa.set_backend({backend!r})
rng = np.random.default_rng(0)
x, weight = rng.random((129, 64), np.float32), rng.random((65, 3, 64), np.float32)
model = fa.freeze(fa.Sequential(fa.Maxout(64, 96, rng=0), fa.LayerNorm(96), fa.Linear(96, 10, rng=1)))

def call(threads):
    with fa.num_threads(threads):
        y, argmax = fa.linear_maxout(x, weight)
        grads = fa.linear_maxout_backward(y, x, weight, argmax)
        return b"".join(array.tobytes() for array in (y, argmax, *grads, model(x)))

expected, wrong, begin = call(1), [], threading.Barrier(64)

def work(i):
    begin.wait()
    for _ in range(10):
        if call(1 + i % 4) != expected:
            wrong.append(i)

callers = [threading.Thread(target=work, args=(i,)) for i in range(64)]
for caller in callers:
    caller.start()
for caller in callers:
    caller.join()
assert not wrong
for threads in (64, 1, 64):
    assert call(threads) == expected
print("same")
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_64_callers_with_threads_of_their_own_get_the_same_bits(backend):
    assert output_of(CROWD.format(backend=backend), 120) == "same\n"


ENDING = """
import ctypes, threading
import fastact as fa
from pathlib import Path
from faults import operations

fa.set_backend("c")
fa.set_num_threads(2)
operation = operations.first_calls()["network: training"]
expected = operation.digest()

def resident():
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmRSS"))
    return int(line.split()[1]) / 1024  # MB

def generation():
    threads = [threading.Thread(target=operation.digest) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ctypes.CDLL(None).malloc_trim(0)  # gives back what is free

for _ in range(3):
    generation()
before = resident()
for _ in range(10):
    generation()
print(resident() - before)
"""


@needs_linux
@needs_own_sizes
@needs_fork
@needs_c
def test_threads_that_end_leave_no_memory():
    """40 threads, each with a team and a workspace of several MB."""
    assert float(output_of(ENDING, PYTHONPATH=TESTS)) < 20
