"""The process that makes the calls: `python -m tests.fuzz.worker`, which `__main__.py` starts.

It reads one line of JSON, and writes lines of JSON: what the cases since the last line have come to.  The
files of `where` always name the calls that run, in case one ends the process.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import mmap
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from . import memory
from .case import LEAK_SHARE, Failure, drawn, plan, run_calls
from .operations import OPERATIONS, operation_of
from .variants import chosen, is_reproducible

INTERVAL = 0.5  # seconds between two lines
WHERE_BYTES = 256


class Where:
    """The call that runs, in a file that outlives the process."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), WHERE_BYTES)

    def at(self, operation: str, number: int, variant: str) -> Any:
        """A function that notes the call of this case."""
        begin = f"{operation} {number} {variant} ".encode()
        length, notes = len(begin), self.memory
        notes[:length] = begin

        def note(call: int) -> None:
            notes[length : length + 9] = b"%8d\n" % call

        return note


class Tally:
    """Calls and seconds since the last line."""

    def __init__(self) -> None:
        self.cases = 0
        self.operations: dict[str, list[float]] = {}  # calls, cases, seconds
        self.variants: dict[str, int] = {}
        self.failures: list[dict[str, Any]] = []

    def add(self, operation: str, variant: str, calls: int, seconds: float) -> None:
        entry = self.operations.setdefault(operation, [0, 0, 0.0])
        entry[0] += calls
        entry[2] += seconds
        self.variants[variant] = self.variants.get(variant, 0) + calls

    def case(self, operation: str, seconds: float) -> None:
        self.cases += 1
        entry = self.operations.setdefault(operation, [0, 0, 0.0])
        entry[1] += 1
        entry[2] += seconds

    def fail(self, operation: str, number: int, variant: str, failure: Failure) -> None:
        given = None if failure.given is None else failure.given._asdict()
        self.failures.append(
            {
                "operation": operation,
                "case": number,
                "variant": variant,
                "call": failure.call,
                "given": given,
                "message": failure.message[:600],
            }
        )


def make_calls(
    job: dict[str, Any], where: Where, pool: memory.Pool, number: int, tally: Tally
) -> Iterator[None]:
    """Draw case `number`, then make its calls, one variant each time that the iterator goes on."""
    if number in job["skipped"]:
        return
    operation, seed = operation_of(job["seed"], number, job["operations"]), job["seed"]
    began = time.perf_counter()
    variant = "-"
    where.at(operation, number, variant)(0)
    try:
        case = drawn(operation, OPERATIONS[operation][0], seed, number, pool)
        tally.case(operation, time.perf_counter() - began)
        for variant in job["variants"]:
            yield
            began = time.perf_counter()
            try:
                refused = is_reproducible(variant) and operation.startswith("custom")
                calls = run_calls(
                    case,
                    variant,
                    [] if refused else plan(case, variant, seed, number),
                    where.at(operation, number, variant),
                    leaks=number % LEAK_SHARE == 0 and job["threads"] == 1 and variant.startswith("c"),
                )
                tally.add(operation, variant, calls, time.perf_counter() - began)
            except Failure as failure:
                tally.fail(operation, number, variant, failure)
        pool.check()
    except Exception as error:
        if tally.cases == 0:
            tally.case(operation, 0.0)
        tally.fail(operation, number, variant, Failure(0, None, f"{type(error).__name__}: {error}"))
    finally:
        pool.reset()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's collector runs between cases alone, so that counted blocks are those of the calls."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def work(job: dict[str, Any]) -> None:
    """Cases until `calls` or `seconds` are reached; `threads` cases at once."""
    count, until = job["threads"], time.monotonic() + job["seconds"]
    wheres = [Where(path) for path in job["where"]]
    pools = [memory.Pool() for _ in range(count)]
    number, calls, last = job["first"], job["made"], time.monotonic()
    tallies: list[Tally] = []
    with _no_collection(), ThreadPoolExecutor(count) as threads:
        while calls < job["calls"] and time.monotonic() < until:
            done = [Tally() for _ in range(count)]
            cases = [make_calls(job, wheres[i], pools[i], number + i, done[i]) for i in range(count)]
            step(cases, threads)
            for variant in job["variants"]:
                with chosen(variant):
                    step(cases, threads)
            tallies += done
            calls += sum(int(entry[0]) for tally in done for entry in tally.operations.values())
            number += count
            if number // count % 64 == 0:  # the cases since, whose functions and arrays hold each other
                gc.collect(1 if number // count % 2048 else 2)
            if time.monotonic() - last > INTERVAL or any(tally.failures for tally in done):
                report(tallies, number)
                tallies, last = [], time.monotonic()
    report(tallies, number, done=True)


def step(cases: Sequence[Iterator[None]], threads: ThreadPoolExecutor) -> None:
    """Let each case go on until its next yield; at once where there are several."""
    if len(cases) == 1:
        next(cases[0], None)
    else:
        for future in [threads.submit(next, case, None) for case in cases]:
            future.result()


def report(tallies: Sequence[Tally], number: int, done: bool = False) -> None:
    """Write a line with the sum of `tallies`."""
    operations: dict[str, list[float]] = {}
    variants: dict[str, int] = {}
    for tally in tallies:
        for name, entry in tally.operations.items():
            operations[name] = [a + b for a, b in zip(operations.get(name, [0, 0, 0.0]), entry, strict=True)]
        for name, calls in tally.variants.items():
            variants[name] = variants.get(name, 0) + calls
    line = {
        "next": number,
        "cases": sum(tally.cases for tally in tallies),
        "operations": operations,
        "variants": variants,
        "failures": [failure for tally in tallies for failure in tally.failures],
        "resident": memory.resident(),
        "done": done,
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    faulthandler.enable()
    work(json.loads(sys.stdin.readline()))
