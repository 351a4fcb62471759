"""Another thread changes arrays during a call: its results may be wrong, but memory stays whole."""

import contextlib
import itertools
import sys
import sysconfig
import threading
import time

import numpy as np
import pytest
from support.variants import COMPILED, COMPILED_BACKENDS, in_force, needs_c

import fastact as fa
from fastact import activations
from fastact.backends.interface import HashTable, Update

needs_gil = pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="needs a GIL: without one NumPy sets shapes while others read them",
)


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


# ---- shapes, and memory that is given up

F32, U8 = np.float32, np.uint8


def backend_calls():
    """For each function of the C backend that takes arrays: the arrays by name, and the call."""
    from fastact.backends import c

    relu = activations.resolve("relu", 1, np.dtype(F32), {})
    slope = np.ones(4, F32)
    prelu = activations.resolve("prelu", 4, np.dtype(F32), {"slope": slope})
    x, weight, bias = np.ones((6, 8), F32), np.ones((4, 2, 8), F32), np.ones((4, 2), F32)
    y, argmax, flat, flat_bias = (
        np.ones((6, 4), F32),
        np.zeros((6, 4), U8),
        np.ones((4, 8), F32),
        np.ones(4, F32),
    )
    z, small, small_argmax = np.ones((6, 2, 4), F32), np.ones((6, 4), F32), np.zeros((6, 4), U8)
    # a table of one row, so that one of fewer rows is invalid
    ids, table, keys = np.ones((6, 2), np.uint64), np.ones((1, 4), F32), np.zeros((1, 6, 4), np.uint32)
    frozen = fa.freeze(fa.Linear(8, 4), backend="c")

    def update(data, grad, *state):
        updates = [Update(data, grad, True, None)]
        return updates, lambda: updates, *([array] for array in state)

    calls = {
        "linear_maxout": ([x, weight, bias, y, argmax], lambda a: c.linear_maxout(*a)),
        "linear_maxout_backward": (
            [y, x, weight, argmax, x.copy(), weight.copy(), bias],
            lambda a: c.linear_maxout_backward(*a),
        ),
        "maxout": ([z, small, small_argmax], lambda a: c.maxout(*a)),
        "maxout_backward": ([small, small_argmax, z], lambda a: c.maxout_backward(*a)),
        "linear_activation": (
            [x, flat, flat_bias, y, y.copy()],
            lambda a: c.linear_activation(*a[:3], relu, *a[3:]),
        ),
        "linear_activation_backward": (
            [y, x, flat, y.copy(), x.copy(), flat.copy(), flat_bias, flat_bias.copy()],
            lambda a: c.linear_activation_backward(*a[:4], prelu, *a[4:]),
        ),
        "prelu": ([y, y.copy()], lambda a: c.activation(a[0], prelu, a[1])),
        "prelu_backward": (
            [y, y.copy(), y.copy(), flat_bias],
            lambda a: c.activation_backward(a[0], a[1], prelu, *a[2:]),
        ),
        "matmul": ([x, flat, y], lambda a: c.matmul(a[0], a[1], False, True, a[2])),
        "matmul_of_the_transpose": ([x, y, flat.T], lambda a: c.matmul(a[0], a[1], True, False, a[2])),
        "layer_norm": (
            [x, x[0].copy(), x[1].copy(), x.copy(), np.ones((len(x), 2), F32)],
            lambda a: c.layer_norm(*a[:3], 1e-5, *a[3:]),
        ),
        "layer_norm_backward": (
            [x, x.copy(), x[0].copy(), np.ones((len(x), 2), F32), x.copy(), x[0].copy(), x[1].copy()],
            lambda a: c.layer_norm_backward(*a),
        ),
        "hash_embed": (
            [ids, table, flat_bias, y, keys],
            lambda a: c.hash_embed(a[0], (HashTable(a[1], 1, 7, a[2]),), *a[3:]),
        ),
        "hash_embed_backward": (
            [y, keys, table, flat_bias],
            lambda a: c.hash_embed_backward(*a[:2], (HashTable(a[2], 0, 7, a[3]),)),
        ),
        "frozen": ([x, y], lambda a: frozen._run(*a, 1)),
        "sgd": ([x, x.copy(), x.copy()], lambda a: c.sgd(*update(*a), 0.1, 0.9, False, 0.0)),
        "adam": (
            [x, x.copy(), x.copy(), x.copy()],
            lambda a: c.adam(*update(*a), 0.1, 0.9, 0.9, 1.0, 1e-8, 0.0, 1.0),
        ),
        "mse": ([x, x.copy(), x.copy()], lambda a: c.mse(*a)),
        "huber": ([x, x.copy(), x.copy()], lambda a: c.huber(*a[:2], 1.0, a[2])),
        "binary_cross_entropy": (
            [x, x.copy(), x.copy()],
            lambda a: c.binary_cross_entropy_with_logits(*a),
        ),
        "softmax_cross_entropy": (
            [x, np.zeros(len(x), np.int64), x.copy()],
            lambda a: c.softmax_cross_entropy(a[0], a[1], 0.0, -100, a[2]),
        ),
    }
    return {name: ([array.copy() for array in arrays], call) for name, (arrays, call) in calls.items()}


# These take arrays of any shape of as many elements; softmax_cross_entropy takes such a gradient.
LOSSES = ("mse", "huber", "binary_cross_entropy", "softmax_cross_entropy")
ELEMENTWISE = ("prelu", "prelu_backward", *LOSSES)


def as_another_thread_leaves_it(array):
    """What an array that was checked may be a moment later, the same memory in each case or less."""
    yield array.view(np.int32 if array.dtype == F32 else np.int8)
    yield array[:-1]
    yield array.reshape(-1)[::2]
    if array.ndim > 1:
        yield array.reshape(-1)
        yield array.T


@needs_c
@pytest.mark.parametrize("name", backend_calls() if "c" in COMPILED_BACKENDS else [])
def test_c_function_with_an_array_that_changed_after_its_check_raises(name):
    arrays, call = backend_calls()[name]
    call(arrays)
    for i, array in enumerate(arrays):
        for changed in as_another_thread_leaves_it(array):
            same_elements = (
                changed.size == array.size and changed.flags.carray and changed.dtype == array.dtype
            )
            if same_elements and name in ELEMENTWISE:
                continue
            with pytest.raises(ValueError, match="an array was changed by another thread during the call"):
                call([*arrays[:i], changed, *arrays[i + 1 :]])
    call(arrays)


def test_step_while_another_thread_replaces_arrays_keeps_memory_whole(each_backend):
    parameter, done = fa.Parameter(np.ones((40, 50), F32), "weight"), False
    parameter.grad = np.zeros_like(parameter.data)
    optimizer = fa.Adam([parameter], lr=0.0)

    def run():
        while not done:
            parameter.data, parameter.grad = np.ones((40, 50), F32), np.zeros((40, 50), F32)

    other = threading.Thread(target=run)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    other.start()
    try:
        for _ in range(2000 if each_backend == "c" else 50):
            optimizer.step()
            assert (parameter.data == 1).all()
    finally:
        done = True
        other.join()
        sys.setswitchinterval(interval)


def test_step_while_another_thread_changes_its_lists_keeps_memory_whole(each_backend):
    parameters = [fa.Parameter(np.ones((4, 5), F32), "weight") for _ in range(8)]
    for parameter in parameters:
        parameter.grad = np.zeros_like(parameter.data)
    optimizer, done = fa.Adam(parameters, lr=0.0), False
    lists = optimizer.parameters, optimizer._mean, optimizer._square

    def run():
        while not done:
            for kept in lists:
                kept[:] = kept[:4] if len(kept) == 8 else kept * 2  # their last items are freed
            for state in lists[1:]:
                state[:] = [array.copy() for array in state]

    other = threading.Thread(target=run)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    other.start()
    try:
        ends = time.monotonic() + 2  # a free-threaded Python makes few steps, as the lists are locked in turn
        for _ in range(2000 if each_backend == "c" else 50):
            if time.monotonic() > ends:
                break
            with contextlib.suppress(ValueError, RuntimeError, IndexError):
                optimizer.step()
            assert all((parameter.data == 1).all() for parameter in parameters)
    finally:
        done = True
        other.join()
        sys.setswitchinterval(interval)


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")  # of NumPy 2.5
@needs_c
@needs_gil
def test_linear_maxout_while_another_thread_sets_shapes_raises_or_is_right(rng):
    x, weight = rng.standard_normal((24, 32)).astype(F32), np.ones((16, 3, 32), F32)
    expected, done = fa.linear_maxout(x, weight)[0], False

    def run():
        while not done:
            x.shape = (768, 1)
            x.shape = (24, 32)

    other = threading.Thread(target=run)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    other.start()
    try:
        for _ in range(20000):
            with contextlib.suppress(ValueError):
                y = fa.linear_maxout(x, weight, backend="c")[0]
                np.testing.assert_array_equal(y, expected)
    finally:
        done = True
        other.join()
        sys.setswitchinterval(interval)


@needs_gil  # which the other thread gives up in its call
def test_resize_during_a_call_raises(compiled):
    x, weight = np.ones((3000, 500), F32), np.ones((300, 2, 500), F32)
    fa.linear_maxout(x[:2], weight)  # compiled and loaded
    caller = threading.Thread(target=lambda: fa.linear_maxout(x, weight))
    caller.start()
    with pytest.raises(ValueError, match="cannot resize"):
        x.resize((3, 5))
    caller.join()
    assert x.shape == (3000, 500)


# ---- one model in several threads


@needs_c
@pytest.mark.parametrize("variant", [name for name in COMPILED if name.startswith("c-")])
def test_training_in_several_threads_is_memory_safe(variant):
    """Threads that train one model get wrong results or an error, and never read outside an array."""
    model = fa.Sequential(
        fa.Linear(16, 64, activation="gelu", rng=0), fa.Dropout(0.1, rng=1), fa.Linear(64, 8, rng=2)
    )
    failures = []

    def work(rows):
        x = np.ones((rows, 16), F32)
        for _ in range(60):
            try:
                model.backward(model(x, training=True))
            except (RuntimeError, ValueError):
                pass
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(rows,)) for rows in (1, 50, 400, 3)]
    with in_force(variant):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures
