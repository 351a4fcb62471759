"""A forked child works, never hangs, and computes the same bits as its parent."""

import pytest
from support.processes import output_of
from support.variants import COMPILED_BACKENDS, needs_fork

# Each runs in an interpreter of its own, which the caller kills if it hangs.
PREPARE = """
import os, sys, warnings
import numpy as np
import fastact as fa

warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks with threads around
fa.set_backend({backend!r})
fa.set_num_threads({parent})
rng = np.random.default_rng(0)
x, weight = rng.random((257, 300), np.float32), rng.random((129, 3, 300), np.float32)
grad_y = rng.random((257, 129), np.float32)

def step():
    y, argmax = fa.linear_maxout(x, weight)
    grads = fa.linear_maxout_backward(grad_y, x, weight, argmax)
    linear = fa.linear_activation(x, weight[:, 0], None, "silu")
    return b"".join(array.tobytes() for array in (y, argmax, *grads, *linear))
"""

FORK = """
expected = step()
for _ in range(3):
    child = os.fork()
    if child == 0:
        fa.set_num_threads({child})
        grandchild = os.fork()
        same = step() == expected
        if grandchild == 0:
            os._exit(0 if same else 1)
        status = os.waitpid(grandchild, 0)[1]
        os._exit(0 if same and status == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert step() == expected
print("done")
"""

POOL = """
import multiprocessing

def same(_):
    return step() == expected

expected = step()
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert all(pool.map(same, range(8)))
assert step() == expected
print("done")
"""

BUSY = """
import threading

expected = step()
stop, wrong = threading.Event(), []

def keep_busy():
    while not stop.is_set():
        if step() != expected:
            wrong.append(1)

threads = [threading.Thread(target=keep_busy) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        os._exit(0 if step() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
assert not wrong
print("done")
"""

MASKS = """
layer = fa.Dropout(0.5, rng=0)

def masks(worker):
    reader, writer = os.pipe()
    if os.fork() == 0:
        if worker is not None:
            layer.rng = np.random.default_rng([0, worker])
        os.write(writer, layer(np.ones(64, np.float32), training=True).tobytes())
        os._exit(0)
    os.close(writer)
    os.wait()
    with os.fdopen(reader, "rb") as file:
        return file.read()

assert len(masks(None)) == 256
assert masks(None) == masks(None)     # as every NumPy generator draws in forked workers
assert len({{masks(i) for i in range(4)}}) == 4
print("done")
"""

pytestmark = [
    needs_fork,
    pytest.mark.parametrize("backend", COMPILED_BACKENDS),
]


@pytest.mark.parametrize(("parent", "child"), [(1, 2), (2, 1), (2, 2)])
def test_forked_child_computes_the_same_bits(backend, parent, child):
    assert output_of((PREPARE + FORK).format(backend=backend, parent=parent, child=child)) == "done\n"


def test_multiprocessing_pool_computes_the_same_bits(backend):
    assert output_of((PREPARE + POOL).format(backend=backend, parent=2)) == "done\n"


def test_child_forked_during_calls_of_other_threads_computes_the_same_bits(backend):
    assert output_of((PREPARE + BUSY).format(backend=backend, parent=2)) == "done\n"


def test_forked_workers_draw_masks_of_their_own_from_generators_of_their_own(backend):
    assert output_of((PREPARE + MASKS).format(backend=backend, parent=1)) == "done\n"
