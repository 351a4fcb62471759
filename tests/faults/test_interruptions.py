"""What interrupts a call: signals, the end of the process, a subinterpreter; and calls inside a call.

tests/test_threads.py has the signals that workers block, and when workers end; tests/test_fork.py has forks
during calls of other threads.
"""

from __future__ import annotations

import signal
import sys
import sysconfig

import numpy as np
import pytest
from support.processes import output_of, run_python
from support.variants import COMPILED_BACKENDS, needs_c

import fastact as fa
from fastact import backends

BACKENDS = [pytest.param(name, marks=[] if name == "c" else pytest.mark.full) for name in COMPILED_BACKENDS]
needs_timers = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signal.setitimer")

PREPARE = """
import os, signal, sys, threading, time
import numpy as np
import fastact as fa

fa.set_backend({backend!r})
fa.set_num_threads(2)
rng = np.random.default_rng(0)
x, weight = rng.random((1500, 400), np.float32), rng.random((300, 3, 400), np.float32)
grad_y = rng.random((1500, 300), np.float32)
model = fa.Sequential(fa.Maxout(400, 64, rng=0), fa.LayerNorm(64), fa.Linear(64, 9, rng=1))

def step():
    y, argmax = fa.linear_maxout(x, weight)
    grads = fa.linear_maxout_backward(grad_y, x, weight, argmax)
    return b"".join(array.tobytes() for array in (y, argmax, *grads, model(x)))

expected = step()
"""

TIMER = """
seen = []
signal.signal(signal.{signal}, lambda *_: seen.append(1))
signal.setitimer(signal.{timer}, 0.002, 0.002)
for _ in range(10):
    assert step() == expected
signal.setitimer(signal.{timer}, 0)
assert len(seen) > 5
print("same")
"""


@needs_timers
@pytest.mark.parametrize(
    ("name", "timer"),
    [
        ("SIGALRM", "ITIMER_REAL"),
        pytest.param("SIGPROF", "ITIMER_PROF", marks=pytest.mark.full),
        pytest.param("SIGVTALRM", "ITIMER_VIRTUAL", marks=pytest.mark.full),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_signals_during_calls_leave_the_bits(backend, name, timer):
    code = PREPARE + TIMER.format(signal=name, timer=timer)
    assert output_of(code.format(backend=backend)) == "same\n"


# The other thread gets the GIL when a kernel gives it up, and not before.
INTERRUPT = """
large = np.tile(x, (20, 1))
with fa.num_threads(1):
    expected_y, expected_argmax = fa.linear_maxout(large, weight)
out = np.zeros_like(expected_y), np.zeros_like(expected_argmax)
began = threading.Event()

def interrupt():
    began.wait()
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
interval = sys.getswitchinterval()
sys.setswitchinterval(1000)
try:
    began.set()
    fa.linear_maxout(large, weight, out=out)
    sys.setswitchinterval(interval)
    while True:
        time.sleep(0.01)
except KeyboardInterrupt:
    print("interrupted")
sys.setswitchinterval(interval)
left = out[0].copy()
print("whole" if (out[0] == expected_y).all() and (out[1] == expected_argmax).all() else "a part")
assert step() == expected
assert (out[0] == left).all()  # no thread writes after the exception
"""


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="needs a GIL")
@pytest.mark.parametrize("backend", BACKENDS)
def test_interrupt_during_a_call_is_raised_after_it(backend):
    """Numba's kernels end at the next block of outputs, C's at the end of the call."""
    printed = output_of((PREPARE + INTERRUPT).format(backend=backend)).split("\n")
    assert printed[0] == "interrupted"
    assert printed[1] == "whole" or backend != "c"


TRAINING = """
def train(model, optimizer, steps):
    done = 0
    while done < steps:
        try:
            model.backward(fa.mse(model(x, training=True), target)[1], needs_input_grad=False)
        except InterruptedError:
            continue
        done += 1
    return b"".join(parameter.grad.tobytes() for parameter in model.parameters())

def made():
    model = fa.Sequential(fa.Maxout(400, 64, rng=0), fa.LayerNorm(64), fa.Linear(64, 9, rng=1))
    return model, fa.Adam(model.parameters())

def raises(*_):
    raise InterruptedError

target = rng.random((1500, 9), np.float32)
expected = train(*made(), 20)
interrupted = made()
signal.signal(signal.SIGALRM, raises)
for _ in range(5):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        train(*interrupted, 5)
    except InterruptedError:
        pass
    finally:
        while True:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
                break
            except InterruptedError:
                pass
assert train(*interrupted, 20) == expected
print("same")
"""


@needs_timers
@pytest.mark.parametrize("backend", BACKENDS)
def test_handler_that_raises_during_a_training_step_leaves_a_model_that_goes_on(backend):
    """A forward or a backward that a handler ended is made again; no step of the optimiser is."""
    assert output_of((PREPARE + TRAINING).format(backend=backend)) == "same\n"


class Interrupted(fa.Parameter):
    """A parameter, one of whose attributes raises when it is read for the first time."""

    fails: str | None = None
    error: type[BaseException] = KeyboardInterrupt

    def __getattribute__(self, name):
        if name == Interrupted.fails:
            Interrupted.fails = None
            raise Interrupted.error
        return super().__getattribute__(name)


@pytest.mark.parametrize("make", [fa.SGD, fa.Adam, fa.AdamW])
@pytest.mark.parametrize("name", ["data", "grad", "decay", "max_norm"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_step_that_an_attribute_interrupts_raises_and_changes_nothing(each_backend, make, name, error):
    parameters = [Interrupted(np.ones((2, 3), np.float32), "weight") for _ in range(3)]
    for parameter in parameters:
        parameter.grad = np.ones_like(parameter.data)
    optimizer = make(parameters, lr=0.1)
    Interrupted.fails, Interrupted.error = name, error
    with pytest.raises(error):
        optimizer.step()
    assert Interrupted.fails is None
    assert all((parameter.data == 1).all() for parameter in parameters)
    optimizer.step()
    assert all((parameter.data < 1).all() for parameter in parameters)


@needs_c
def test_fact_that_is_interrupted_raises():
    class Module:
        def __getattr__(self, name):
            raise {"interrupt": KeyboardInterrupt, "memory": MemoryError}.get(name, AttributeError)

    c, module = backends.get("c"), Module()
    for name, error in (("interrupt", KeyboardInterrupt), ("memory", MemoryError)):
        with pytest.raises(error):
            c.facts_hold((module, name, 1))
    assert not c.facts_hold((module, "other", 1))


# ---- the end of the process

ENDING = """
def call_on():
    while True:
        step()

for _ in range(3):
    threading.Thread(target=call_on, daemon=True).start()
time.sleep(0.05)
print("calling", flush=True)
{end}
"""
ENDS = {
    "sys.exit(3)": 3,
    "os._exit(3)": 3,
    "raise SystemExit": 0,
    "raise ValueError('mine')": 1,
    "os.kill(os.getpid(), signal.SIGTERM)": -15,
    "os.abort()": -6,
}


@pytest.mark.parametrize(
    "end", [pytest.param(end, marks=[] if i % 4 == 0 else pytest.mark.full) for i, end in enumerate(ENDS)]
)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_process_that_ends_during_calls_of_other_threads_ends_at_once(backend, end):
    done = run_python((PREPARE + ENDING).format(backend=backend, end=end), 30)
    assert (done.returncode, done.stdout) == (ENDS[end], "calling\n"), done.stderr
    assert (done.stderr == "") == (end != "raise ValueError('mine')"), done.stderr


# ---- calls inside a call


NESTED = """
@numba.njit(parallel=True)
def blocks(x, weight):
    y = np.empty((4, len(x), len(weight)), np.float32)
    for i in numba.prange(4):
        y[i] = fa.linear_maxout(x, weight, backend="c")[0]
    return y

for threads in (1, 2, 3):
    fa.set_num_threads(threads)
    for _ in range(2):
        for y in blocks(x, weight):
            assert y.tobytes() == expected[: y.nbytes]
print("same")
"""


@pytest.mark.full  # Numba compiles for many seconds
@needs_c
def test_calls_with_threads_from_the_threads_of_a_prange_give_the_same_bits():
    pytest.importorskip("numba")
    code = "import numba\n" + PREPARE.format(backend="c") + NESTED
    assert output_of(code, 120) == "same\n"


# ---- subinterpreters


SUBINTERPRETER = """
import importlib, sys

name = "_xxsubinterpreters" if sys.version_info < (3, 13) else "_interpreters"
interpreters = importlib.import_module(name)
inner = '''
import warnings
warnings.simplefilter("ignore")
try:
    import numpy as np, fastact as fa
except ImportError as error:
    print("refused")
else:
    model = fa.Sequential(fa.Maxout(4, 3, rng=0), fa.Dropout(0.5, rng=1), fa.Linear(3, 2, rng=2))
    model.backward(model(np.ones((5, 4), np.float32), training=True))
    fa.Adam(model.parameters()).step()
    print("works")
'''

def run():
    interpreter = interpreters.create()
    failed = interpreters.run_string(interpreter, inner)
    interpreters.destroy(interpreter)
    assert not failed, failed

run()
"""
MAIN_AFTER = """
for _ in range(3):
    run()
    assert step() == expected
    trained = fa.Sequential(*model.layers)
    trained.backward(trained(x, training=True))
    fa.Adam(trained.parameters(), lr=0.0).step()
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="needs CPython")
def test_subinterpreter_without_the_main_one_works_or_is_refused():
    assert output_of(SUBINTERPRETER) in ("works\n", "refused\n")


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="needs CPython")
@pytest.mark.parametrize("backend", BACKENDS)
def test_subinterpreter_beside_the_main_one_leaves_it_alone(backend):
    """NumPy loads once in a process: an ImportError says so."""
    code = PREPARE.format(backend=backend) + SUBINTERPRETER + MAIN_AFTER
    assert output_of(code) in ("works\n" * 4, "refused\n" * 4)
