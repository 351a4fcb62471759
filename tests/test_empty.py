"""Arrays without elements, however long their other axes: no loop and no memory of that length."""

import pytest
from support.processes import output_of
from support.variants import COMPILED_BACKENDS

LONG = """
import numpy as np, fastact as fa

fa.set_backend({backend!r})
long, half = 2**58, 2**57

def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)

def byte_zeros(*shape):
    return zeros(*shape, dtype=np.uint8)

def linear(in_features, out_features, **keywords):
    return fa.Linear(in_features, out_features, bias=False, **keywords)

def frozen(layers, *shape):
    return fa.freeze(fa.Sequential(*layers))(zeros(*shape)).shape
"""

CALLS = """
assert fa.linear_maxout(zeros(long, 0), zeros(0, 2, 0))[0].shape == (long, 0)
assert fa.linear_maxout(zeros(0, 0), zeros(long // 2, 2, 0))[0].shape == (0, long // 2)
assert fa.linear_maxout(zeros(0, long), zeros(0, 2, long))[0].shape == (0, 0)
fa.linear_maxout_backward(zeros(long, 0), zeros(long, 0), zeros(0, 2, 0), byte_zeros(long, 0))
fa.linear_maxout_backward(
    zeros(0, half), zeros(0, 0), zeros(half, 2, 0), byte_zeros(0, half), needs=(True, True, False)
)
for name, parameters in {"gelu": {}, "prelu": {"slope": zeros(1)}}.items():
    y, saved = fa.linear_activation(zeros(long, 0), zeros(0, 0), None, name, **parameters)
    fa.linear_activation_backward(y, zeros(long, 0), zeros(0, 0), saved, name, **parameters)
    y, saved = fa.linear_activation(zeros(0, 0), zeros(long, 0), None, name, **parameters)
    needs = (True, True, False, True)[: 3 + len(parameters)]
    fa.linear_activation_backward(y, zeros(0, 0), zeros(long, 0), saved, name, needs=needs, **parameters)
grad_z, grad_slope = fa.prelu_backward(zeros(0, long), zeros(0, long), zeros(1))
assert grad_z.shape == (0, long) and grad_slope == 0
assert fa.gelu_backward(zeros(long, 0), fa.gelu(zeros(long, 0))).shape == (long, 0)
for shape, axis in (((long, 0, 3), 2), ((long, 3, 0), 1), ((3, long, 0), 0), ((3, 0, long), 0)):
    y, argmax = fa.maxout(zeros(*shape), axis)
    assert fa.maxout_backward(y, argmax, 3, axis).shape == shape
y, saved = fa.layer_norm(zeros(0, half))
assert fa.layer_norm_backward(y, y, None, saved, needs=(True, False, False))[0].shape == (0, half)
fa.max_norm_(zeros(long, 0), 1.0)
for kind in (fa.SGD, fa.Adam):
    parameter = fa.Parameter(zeros(long, 0), "weight")
    parameter.grad, parameter.max_norm = zeros(long, 0), 1.0
    kind([parameter], 0.1).step()
print("done")
"""

FROZEN = """
assert frozen([linear(0, 0), linear(0, 0)], long, 0) == (long, 0)
assert frozen([fa.Linear(0, 5), fa.Linear(5, 0)], long, 0) == (long, 0)
assert frozen([fa.Maxout(0, 5, 3), fa.Maxout(5, 0, 2)], long, 0) == (long, 0)
assert frozen([fa.Activation("gelu"), fa.PReLU(1)], long, 0) == (long, 0)
assert frozen([linear(0, long // 4)], 0, 0) == (0, long // 4)
assert frozen([linear(long // 4, 0)], 0, long // 4) == (0, 0)
print("done")
"""


@pytest.mark.parametrize("calls", [CALLS, FROZEN], ids=["calls", "frozen"])
@pytest.mark.parametrize("backend", ["numpy", *COMPILED_BACKENDS])
def test_long_array_without_elements_returns_at_once(backend, calls):
    assert output_of(LONG.format(backend=backend) + calls, timeout=300) == "done\n"
