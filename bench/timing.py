"""Interleaved timing: every contender in every round, in rotating order, undisturbed by the others.

A library's threads wait for more work in a busy loop before they go to sleep: after a call on two threads
libgomp's take 3 to 10 ms of a core, ONNX Runtime's 28 ms, OpenBLAS's 65 to 100 ms.  Therefore the process
waits before each sample until all of its other threads sleep, whichever library started them.  Waking
threads again took PyTorch up to 16 ms.  Therefore the contender then runs untimed until its own threads are
awake and its data is in the cache, as in a program that does nothing else.
"""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SAMPLE_SECONDS = 0.01  # a sample is at least this long: thousands of times the clock's resolution
SHORT_SAMPLE_SECONDS = 0.001  # a sample of which only the shortest counts
# A contender runs untimed for this long before a sample, or for one call: Linux balances the load of the
# cores twice meanwhile.
WARM_SECONDS = 0.016
LONG_CALL_SECONDS = 0.25  # a longer call needs no untimed call before it
QUIET_SECONDS = 0.2  # the longest wait for other threads to sleep
MIN_ROUNDS, MAX_ROUNDS = 5, 51
LONG_ROUND_SECONDS, MIN_LONG_ROUNDS = 4.0, 3  # fewest rounds where a round takes longer than that

Call = Callable[[], Any]


class Sample(NamedTuple):
    """Microseconds a call: quantiles over the rounds of a run, and how many calls made a round."""

    p20: float
    p50: float
    p80: float
    rounds: int
    calls: int


def summarise(seconds: list[float], calls: int) -> Sample:
    """The quantiles of `seconds`, one figure a round, each the mean of `calls` calls."""
    p20, p50, p80 = (float(f"{1e6 * value:.5g}") for value in np.percentile(seconds, [20, 50, 80]))
    return Sample(p20, p50, p80, len(seconds), calls)


def _elapsed(call: Call, calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - started) / calls


def shortest(call: Call, rounds: int) -> float:
    """The seconds that `call` takes at the least: the smallest of the means of some calls."""
    calls = max(1, math.ceil(SHORT_SAMPLE_SECONDS / max(_elapsed(call, 3), 1e-7)))
    return min(_elapsed(call, calls) for _ in range(rounds))


def _others_sleep() -> bool:
    """Whether no other thread of this process runs or wants to."""
    for task in Path("/proc/self/task").iterdir():
        try:
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        if state == "R" and int(task.name) != threading.get_native_id():
            return False
    return True


def settle() -> None:
    """Return once this process's other threads sleep, or after the longest wait.

    Where the system does not list the threads, every wait is the longest one.
    """
    deadline = time.perf_counter() + QUIET_SECONDS
    while time.perf_counter() < deadline:
        if Path("/proc/self/task").exists() and _others_sleep():
            return
        time.sleep(0.001)


def _warm_up(call: Call) -> float:
    """Wake the threads of `call` and bring its data into the cache; the seconds of the quickest call."""
    quickest = _elapsed(call, 1)
    ends = time.perf_counter() + WARM_SECONDS - quickest
    while time.perf_counter() < ends:
        quickest = min(quickest, _elapsed(call, 1))
    return quickest


def _seconds(call: Call) -> float:
    """About how long a call takes."""
    settle()
    first = _warm_up(call)  # may include compiling
    return first if first > LONG_CALL_SECONDS else min(first, _warm_up(call))


def rounds_for(seconds: float, budget: float) -> int:
    """How many rounds of `seconds` fit into `budget` seconds, within the limits."""
    fewest = MIN_ROUNDS if seconds < LONG_ROUND_SECONDS else MIN_LONG_ROUNDS
    return min(MAX_ROUNDS, max(fewest, int(budget / max(seconds, 1e-9))))


def interleaved(calls: dict[str, Call], budget: float) -> dict[str, Sample]:
    """Time each of `calls` within about `budget` seconds in all, some rounds at the least.

    A drifting clock or a busy neighbour meets all alike: each round has one sample of each, and begins with
    another one.
    """
    names = list(calls)
    lengths = {name: _seconds(calls[name]) for name in names}
    repeats = {name: max(1, math.ceil(SAMPLE_SECONDS / max(lengths[name], 1e-7))) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}

    def one_round(first: int) -> None:
        for name in names[first:] + names[:first]:
            settle()
            if lengths[name] < LONG_CALL_SECONDS:
                _warm_up(calls[name])
            seconds[name].append(_elapsed(calls[name], repeats[name]))

    collecting = gc.isenabled()
    gc.disable()
    try:
        started = time.perf_counter()
        one_round(0)
        rounds = rounds_for(time.perf_counter() - started, budget)
        for number in range(1, rounds if names else 0):
            one_round(number % len(names))
    finally:
        if collecting:
            gc.enable()
    return {name: summarise(seconds[name], repeats[name]) for name in names}
