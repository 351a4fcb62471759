"""No forward takes memory for all its pre-activations, no frozen model for all its hidden layers."""

import pytest
from support.processes import output_of, run_python
from support.variants import COMPILED_BACKENDS, needs_c, needs_plain_build, needs_proc

# rows x out_features x pieces pre-activations would take 512 MB; y, argmax and weight take 21 MB, or 5.
PEAK = """
import numpy as np, fastact as fa
from pathlib import Path

def peak():
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
    return int(line.split()[1]) / 1024  # MB
"""
MEASURE = """
fa.set_backend({backend!r})
rows, in_features, out_features, pieces = {shape}
x = np.ones((rows, in_features), np.float32)
weight = np.ones((out_features, pieces, in_features), np.float32)
fa.linear_maxout(x[:8], weight[:8])  # compiled and loaded
before = peak()
y, argmax = fa.linear_maxout(x, weight)
print(peak() - before - (y.nbytes + argmax.nbytes) / 2**20)
"""


@needs_proc
@pytest.mark.parametrize("shape", [(4096, 8, 1024, 32), (65536, 1, 16, 128)], ids=str)
@pytest.mark.parametrize("backend", COMPILED_BACKENDS)
def test_linear_maxout_allocates_no_array_of_preactivations(backend, shape):
    assert float(output_of(PEAK + MEASURE.format(backend=backend, shape=shape))) < 32


@needs_proc
@pytest.mark.parametrize("backend", COMPILED_BACKENDS)
def test_linear_maxout_of_a_large_batch_makes_no_copy(backend):
    """x takes 23 MB, the weights 66; AMX packs at most 16 MB of x, and half a cache of weights."""
    assert float(output_of(PEAK + MEASURE.format(backend=backend, shape=(700, 8192, 1000, 2)))) < 20


@needs_proc
@needs_c
def test_frozen_model_allocates_hidden_layers_in_parts():
    """They take 64 MB at the most, where all the rows' would take 480."""
    code = """
model = fa.Sequential(fa.Linear(2, 2048, activation="relu"), fa.Linear(2048, 1, activation="tanh"))
frozen = fa.freeze(model, backend="c")
x = np.ones((60000, 2), np.float32)
frozen(x[:8])
before = peak()
frozen(x)
print(peak() - before)
"""
    assert float(output_of(PEAK + code)) < 80


@needs_proc
@pytest.mark.parametrize("backend", COMPILED_BACKENDS)
def test_gradient_of_a_maxout_weight_takes_no_memory_for_each_row(backend):
    """grad_y and the winners of all the rows would take 132 MB once more."""
    code = f"""
fa.set_backend({backend!r})
rows, in_features, out_features, pieces = 500000, 4, 64, 2
x = np.ones((rows, in_features), np.float32)
weight = np.ones((out_features, pieces, in_features), np.float32)
grad_y, argmax = np.ones((rows, out_features), np.float32), np.ones((rows, out_features), np.uint8)
needs = False, True, False
fa.linear_maxout_backward(grad_y[:8], x[:8], weight, argmax[:8], needs=needs)
before = peak()
fa.linear_maxout_backward(grad_y, x, weight, argmax, needs=needs)
print(peak() - before)
"""
    assert float(output_of(PEAK + code)) < 8


RESIDENT = """
import gc
import numpy as np, fastact as fa
from pathlib import Path

def resident():
    gc.collect()
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmRSS"))
    return int(line.split()[1]) / 1024  # MB

def call(rows):
    {call}

fa.set_backend({backend!r})
call(64)
before = resident()
call({rows})
print(resident() - before)
"""
LINEAR_BACKWARD = """
    x, weight = np.ones((rows, 64), np.float32), np.ones((2048, 64), np.float32)
    y = np.ones((rows, 2048), np.float32)
    fa.linear_activation_backward(y, x, weight, y, "gelu")
"""
HIDDEN = """
    wide = fa.Linear(2, 40000, activation="relu"), fa.Linear(40000, 1)
    fa.freeze(fa.Sequential(*wide))(np.ones((rows, 2), np.float32))
"""


@needs_plain_build
@needs_proc
@pytest.mark.parametrize(
    ("call", "rows"), [(LINEAR_BACKWARD, 20000), (HIDDEN, 1024)], ids=["linear", "frozen"]
)
@pytest.mark.parametrize("backend", COMPILED_BACKENDS)
def test_large_call_leaves_no_more_memory_than_the_bound(backend, call, rows):
    """A thread keeps 96 MB at the most; each of these calls takes 160 MB and more beside its arrays."""
    code = RESIDENT.format(call=call.strip(), rows=rows, backend=backend)
    assert float(output_of(code)) < 100


FIRST_CALLS = {
    "empty batch": "fa.linear_maxout(f(0, 3), f(4, 2, 3))",
    "maxout backward": "fa.linear_maxout_backward(f(2, 4), f(2, 3), f(4, 2, 3), np.zeros((2, 4), np.uint8))",
    "activation": "fa.activation(f(5), 'gelu')",
    "activation backward": "fa.activation_backward(f(5), f(5), 'relu')",
    "linear": "fa.linear_activation(f(0, 3), f(4, 3), None, 'relu')",
    "linear backward": "fa.linear_activation_backward(f(0, 4), f(0, 3), f(4, 3), f(0, 4), 'linear')",
    "layer norm backward": "fa.layer_norm_backward(f(0, 4), f(0, 4), f(4), f(0, 2))",
    "frozen": "fa.freeze(fa.Activation('relu'))(f(5))",
    "frozen layer": "fa.freeze(fa.Linear(3, 4))(f(0, 3))",
}


@pytest.mark.parametrize("call", FIRST_CALLS)
@pytest.mark.parametrize("backend", COMPILED_BACKENDS)
def test_first_call_of_a_process_needs_no_workspace(backend, call):
    """A workspace that no call has made yet is not trimmed."""
    made = "f = lambda *shape: np.ones(shape, np.float32)"
    code = f"import numpy as np, fastact as fa\n{made}\nfa.set_backend({backend!r})\n{FIRST_CALLS[call]}"
    run = run_python(code)
    assert run.returncode == 0, run.stderr
