"""In a process that preloads failing_malloc.c: each request of the extension to the system fails in turn.

Run by test_allocations.py as `every_allocation.main(library, part, every)`, for one of `every` operations.
It prints, for each of these, how often a request failed, how often MemoryError was raised, and whether it
may be.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fastact as fa
from fastact.backends import c

from .operations import Operation

EVER = 1 << 40
MOST = 500  # requests of an operation


class Shim:
    """The functions of failing_malloc.c, for the code of the extension."""

    def __init__(self, library: str) -> None:
        self.functions = ctypes.CDLL(library)
        for name in ("requested", "refusals", "live_blocks"):
            getattr(self.functions, name).restype = ctypes.c_long
        maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        spans = [
            at.split("-") for at, _, _, _, _, *path in maps if path == [os.path.realpath(c._native.__file__)]
        ]
        start, end = min(int(s, 16) for s, _ in spans), max(int(e, 16) for _, e in spans)
        self.functions.watch(ctypes.c_ulong(start), ctypes.c_ulong(end))

    def refuse(self, first: int, last: int, threads_alone: bool = False) -> None:
        self.functions.refuse(ctypes.c_long(first), ctypes.c_long(last), ctypes.c_int(threads_alone))

    def refuse_nothing(self) -> None:
        self.refuse(1, 0)

    def refusals(self) -> int:
        return int(self.functions.refusals())

    def live_blocks(self) -> int:
        return int(self.functions.live_blocks())


def in_new_thread(function: Callable[[], Any]) -> Any:
    """What `function()` returns in a thread that has made no call before."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]  # IndexError: the thread has printed its exception


def check_no_block_left(shim: Shim, before: int) -> None:
    """The thread's memory and its team are gone; the workers end a little later than their caller."""
    ends = time.monotonic() + 10
    while shim.live_blocks() != before:
        assert time.monotonic() < ends, f"{shim.live_blocks() - before} blocks of memory are left"
        time.sleep(0.0005)


class Outcome:
    def __init__(self) -> None:
        self.refused = self.errors = 0

    def call_twice(
        self, shim: Shim, operation: Operation, expected: bytes, refuse: Callable[[], None]
    ) -> bool:
        """One call that lacks what `refuse` says, then one that lacks nothing; whether a request failed."""
        refuse()
        digest, message = expected, None
        try:
            digest = operation.digest()
        except MemoryError as raised:
            message = str(raised)  # not the error, which has this frame in its traceback
        refused = shim.refusals()
        shim.refuse_nothing()
        if message is not None:
            assert "fastact: no memory for" in message or not message, message
            assert operation.allocates, message
            self.errors += 1
        assert digest == expected, "the results are wrong"
        assert operation.digest() == expected, "the results of the next call are wrong"
        self.refused += refused > 0
        return refused > 0


def check(shim: Shim, operation: Operation) -> Outcome:
    outcome = Outcome()
    inputs = [array.tobytes() for array in operation.inputs]
    before = shim.live_blocks()
    shim.refuse_nothing()
    expected = in_new_thread(operation.digest)
    check_no_block_left(shim, before)

    def run(first: int, last: int, threads_alone: bool = False) -> bool:
        refuse = lambda: shim.refuse(first, last, threads_alone)  # noqa: E731
        return in_new_thread(lambda: outcome.call_twice(shim, operation, expected, refuse))

    for last in (0, EVER):  # one request, and all from one on
        for n in range(1, MOST):
            if not run(n, last or n):
                break
            check_no_block_left(shim, before)
        else:
            raise AssertionError(f"more than {MOST} requests")
    errors = outcome.errors
    run(1, EVER, threads_alone=True)
    assert outcome.errors == errors, "a call without threads of its own has to work"
    check_no_block_left(shim, before)
    assert [array.tobytes() for array in operation.inputs] == inputs, "an input was written to"
    return outcome


def in_forked_child(function: Callable[[], bytes]) -> bytes:
    """What `function()` returns in a child of this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, function())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        result = file.read()
    assert os.waitpid(child, 0)[1] == 0
    return result


def check_first_call(shim: Shim, operation: Operation) -> Outcome:
    """As `check` for one request at a time, in forked children of a process that has made no call yet."""
    expected, total = in_forked_child(operation.digest), Outcome()

    def run(n: int) -> bytes:
        outcome = Outcome()
        outcome.call_twice(shim, operation, expected, lambda: shim.refuse(n, n))
        return bytes([outcome.refused, outcome.errors])

    for n in range(1, MOST):
        refused, errors = in_forked_child(partial(run, n))
        if not refused:
            return total
        total.refused += refused
        total.errors += errors
    raise AssertionError(f"more than {MOST} requests")


def check_training(shim: Shim) -> None:
    """After an error the parameters are as they were, and each of forward and backward may be repeated."""
    model = fa.Sequential(
        fa.Maxout(24, 40, pieces=3, rng=0),
        fa.LayerNorm(40),
        fa.Residual(fa.Linear(40, 40, activation="gelu", rng=1)),
        fa.Linear(40, 5, activation="prelu", rng=2),
    )
    x = np.random.default_rng(0).standard_normal((3000, 24)).astype(np.float32)
    parameters = model.parameters()
    grad_y = in_new_thread(lambda: model(x, training=True)).copy()
    in_new_thread(lambda: model.backward(grad_y))
    data, expected = state(parameters)
    errors = 0

    def attempt(n: int) -> bool:
        nonlocal errors
        for parameter in parameters:
            parameter.grad = None if n % 2 else np.ones_like(parameter.data)
        shim.refuse(n, n)
        for call in (lambda: model(x, training=True), lambda: model.backward(grad_y)):
            try:
                call()
            except MemoryError:
                errors += 1
                assert state(parameters)[0] == data
                call()
        refused = shim.refusals()
        shim.refuse_nothing()
        assert state(parameters) == (data, expected)
        return refused > 0

    n = 1
    while in_new_thread(partial(attempt, n)):
        n += 1
    print(f"{n - 1}\t{errors}\t1\tnetwork: repeated")


def check_jax(shim: Shim) -> None:
    """A handler of XLA's FFI without memory is an error of JAX, and the next call works."""
    import jax
    import jax.numpy as jnp

    from fastact.jax import linear_maxout

    weight, errors = np.random.default_rng(0).standard_normal((129, 3, 300)).astype(np.float32), 0
    run = jax.jit(lambda x, weight: linear_maxout(x, weight))
    grad = jax.jit(jax.grad(lambda x, weight: jnp.sum(linear_maxout(x, weight)), argnums=(0, 1)))
    for rows in (100, 1000, 10000):  # more than the memory that the calls before have kept
        x = np.random.default_rng(rows).standard_normal((rows, 300)).astype(np.float32)
        expected = fa.linear_maxout(x, weight)[0]
        for function in (run, grad):
            compiled = function.lower(x, weight).compile()
            shim.refuse(1, EVER)
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                jax.block_until_ready(compiled(x, weight))
                errors -= 1
            errors += 1
            shim.refuse_nothing()
            result = jax.block_until_ready(compiled(x, weight))
            assert function is grad or np.asarray(result).tobytes() == expected.tobytes()
    print(f"{errors}\t{errors}\t1\tjax")


def state(parameters: list[Any]) -> tuple[list[bytes], list[bytes]]:
    return [p.data.tobytes() for p in parameters], [
        p.grad.tobytes() for p in parameters if p.grad is not None
    ]


def main(library: str, part: str, every: int) -> None:
    from . import operations

    shim = Shim(library)
    fa.set_backend("c")
    fa.set_num_threads(2)
    if part in ("training", "jax"):
        {"training": check_training, "jax": check_jax}[part](shim)
        return
    check_one = check_first_call if part == "first_calls" else check
    for name, operation in list(getattr(operations, part)().items())[::every]:
        try:
            outcome = check_one(shim, operation)
        except BaseException:
            print(f"with {name}:", file=sys.stderr)
            raise
        print(f"{outcome.refused}\t{outcome.errors}\t{int(operation.allocates)}\t{name}")
