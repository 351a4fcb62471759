"""A forward's memory does not grow with rows x out_features x pieces."""

import sys

import pytest
from conftest import COMPILED_BACKENDS, output_of

# rows x out_features x pieces pre-activations would take 512 MB; y, argmax and weight take 21 MB, or 5.
MEASURE = """
import numpy as np, fastact as fa
from pathlib import Path

def peak():
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
    return int(line.split()[1]) / 1024  # MB

fa.set_backend({backend!r})
rows, in_features, out_features, pieces = {shape}
x = np.ones((rows, in_features), np.float32)
weight = np.ones((out_features, pieces, in_features), np.float32)
fa.linear_maxout(x[:8], weight[:8])  # compiled and loaded
before = peak()
y, argmax = fa.linear_maxout(x, weight)
print(peak() - before - (y.nbytes + argmax.nbytes) / 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("shape", [(4096, 8, 1024, 32), (65536, 1, 16, 128)], ids=str)
@pytest.mark.parametrize("backend", COMPILED_BACKENDS)
def test_no_array_of_preactivations(backend, shape):
    assert float(output_of(MEASURE.format(backend=backend, shape=shape))) < 32


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("backend", COMPILED_BACKENDS)
def test_no_copy_of_a_large_batch(backend):
    """x takes 23 MB, the weights 66."""
    assert float(output_of(MEASURE.format(backend=backend, shape=(700, 8192, 1000, 2)))) < 12
