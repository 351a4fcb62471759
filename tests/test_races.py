"""Another thread changes arrays during a call: its results may be wrong, but memory stays whole."""

import itertools
import threading
import time

import numpy as np
import pytest

import fastact as fa


class Flipping:
    """Another thread sets `argmax` to 255 and back again, until the end of the block."""

    def __init__(self, argmax):
        self.argmax, self.kept, self.done = argmax, argmax.copy(), False
        self.thread = threading.Thread(target=self.run)

    def run(self):
        pauses = np.random.default_rng(0).uniform(0, 1e-3, 1000)  # the GIL is free meanwhile
        for i in itertools.count():
            if self.done:
                break
            self.argmax[...] = self.kept if i % 2 else 255
            time.sleep(pauses[i % 1000])

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.done = True
        self.thread.join()


def calls_that_pass_the_check(compute):
    """Up to 20 calls whose argmax was in range while it was checked; their number."""
    passed, ends = 0, time.monotonic() + 20
    while passed < 20 and time.monotonic() < ends:
        try:
            compute()
        except ValueError:
            continue
        passed += 1
    return passed


@pytest.mark.parametrize("shape", [(400_000, 2, 1), (100_000, 3, 5), (3, 2, 200_000)], ids=str)
def test_maxout_backward_whose_argmax_changes_writes_within_each_group(compiled, shape):
    outer, pieces, inner = shape
    grad_y, argmax = np.ones((outer, inner), np.float32), np.zeros((outer, inner), np.uint8)
    memory = np.zeros((outer + 256, pieces, inner), np.float32)
    grad_z = memory[:outer]

    def compute():
        fa.maxout_backward(grad_y, argmax, pieces, 1, out=grad_z)
        assert (grad_z.sum(axis=1) == 1).all()  # each gradient went to a piece of its own group
        assert not memory[outer:].any()

    with Flipping(argmax), fa.num_threads(1):
        assert calls_that_pass_the_check(compute)


@pytest.mark.parametrize("pieces", [2, 20])
@pytest.mark.parametrize("rows", [2, 60_000])
def test_linear_maxout_backward_whose_argmax_changes_reads_within_each_group(compiled, rows, pieces):
    x, weight = np.ones((rows, 16), np.float32), np.ones((37 if rows > 2 else 60_000, pieces, 16), np.float32)
    out_features = len(weight)
    grad_y, argmax = np.ones((rows, out_features), np.float32), np.zeros((rows, out_features), np.uint8)

    def compute():
        grad_x, _, grad_bias = fa.linear_maxout_backward(grad_y, x, weight, argmax)
        assert (grad_x == out_features).all()  # all weights are 1, whichever piece was read
        # a winner out of range is counted for no piece, or for one of its own output
        assert (grad_bias.sum(axis=1) <= rows).all()

    with Flipping(argmax), fa.num_threads(1):
        assert calls_that_pass_the_check(compute)
