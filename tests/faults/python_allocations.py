"""Each allocation through Python fails in turn: those of an extension's function, and of what it calls.

Run by test_allocations.py as `python_allocations.main(every)`, for one of `every` operations.  It prints for
each of these how many allocations failed, and how often MemoryError was raised.
"""

from __future__ import annotations

import _testcapi
import gc
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import fastact as fa
from fastact.backends import c

from .operations import Operation

MOST = 100  # allocations of a call
REPEATS, LEAK = 10, 8  # a leak of a block at each repeat is more than chance


class Starved:
    """The extension, whose functions run while the allocation `after` the next ones fails."""

    def __init__(self, extension: Any) -> None:
        self.extension = extension
        self.after: int | None = None
        self.failed = False  # whether that allocation has come
        self.functions = {name for name in dir(extension) if type(getattr(extension, name)) is type(len)}

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.extension, name)
        return self.starved(function) if name in self.functions else function

    def starved(self, function: Callable[..., Any]) -> Callable[..., Any]:
        failing, unset = _testcapi.set_nomemory, _testcapi.remove_mem_hooks

        def call(*arguments: Any) -> Any:
            if self.after is None:
                return function(*arguments)
            failing(self.after, self.after + 1)
            try:
                result = function(*arguments)
            except BaseException:
                unset()
                self.failed = True
                raise
            try:
                for _ in range(self.after + 1):
                    bytearray(1)
                self.failed = True
            except MemoryError:  # the allocation that was to fail is one of these
                pass
            finally:
                unset()
            return result

        return call


def check(starved: Starved, operation: Operation) -> tuple[int, int]:
    expected, errors = operation.digest(), 0
    inputs = [array.tobytes() for array in operation.inputs]

    def attempt() -> bool:
        try:
            operation.call()
        except MemoryError:
            return True
        return False

    for starved.after in range(MOST):
        starved.failed = False
        errors += attempt()
        if not starved.failed:
            break
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(REPEATS):
            attempt()
        gc.collect()
        leaked = sys.getallocatedblocks() - before
        assert leaked < LEAK, f"{leaked} blocks are left of allocation {starved.after}"
    else:
        raise AssertionError(f"more than {MOST} allocations")
    failed, starved.after = starved.after, None
    assert operation.digest() == expected, "the results of the next call are wrong"
    assert [array.tobytes() for array in operation.inputs] == inputs, "an input was written to"
    return failed, errors


def check_added_functions() -> int:
    """fa_add_functions, which `import` calls once; it leaves a process that cannot go on."""
    from .every_allocation import in_forked_child

    def added(after: int) -> bytes:
        module = type(sys)("module")
        address = id(module)
        _testcapi.set_nomemory(after, after + 1)
        try:
            return bytes([c.lib.fa_add_functions(address)])
        except MemoryError:  # in the call itself
            return bytes([c.lib.FA_NO_MEMORY])
        finally:
            _testcapi.remove_mem_hooks()

    statuses = [in_forked_child(partial(added, after))[0] for after in range(100)]
    assert set(statuses) == {c.lib.FA_OK, c.lib.FA_NO_MEMORY}
    return statuses.count(c.lib.FA_NO_MEMORY)


def main(every: int) -> None:
    from . import operations

    fa.set_backend("c")
    fa.set_num_threads(1)
    print(f"100\t{check_added_functions()}\tfa_add_functions")
    starved = Starved(c._native)
    c._native = starved  # type: ignore[assignment]
    for name in ("network_forward", "network_backward", "network_tape", "facts_hold"):
        setattr(c, name, starved.starved(getattr(c, name)))
    for name, operation in list(operations.small().items())[::every]:
        try:
            failed, errors = check(starved, operation)
            print(f"{failed}\t{errors}\t{name}")
        except BaseException:
            print(f"with {name}:", file=sys.stderr)
            raise
